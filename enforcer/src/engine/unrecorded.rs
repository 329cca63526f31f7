//! What happened and could not be recorded yet, because the log cannot be written. While there is any, nothing is allowed.

use std::collections::VecDeque;

use enforcer_proto::event::Event;
use enforcer_proto::time::Now;

use crate::tally::Refused;

/// The most events that wait in memory. Past it, or past [`BYTES_MAX`], refusals are counted and other events are dropped, counted and
/// shown: by then nothing has been allowed for a long time.
const EVENTS_MAX: usize = 65_536;
/// The most bytes that these events may have as JSON. Refusals may fill half of it, so that they never push out the close of a window.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Events in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Unrecorded {
    events: VecDeque<(Now, Event)>,
    bytes: usize,
    lost: u64,
}

impl Unrecorded {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events were dropped.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// Keeps an event. Gives a refusal for which there is no room, to be counted. An admission that was not recorded did not happen.
    pub(super) fn keep(&mut self, now: Now, event: Event) -> Option<Refused> {
        if matches!(event, Event::QueryAdmitted { .. }) {
            return None;
        }
        let refused = Refused::of(&event);
        let bytes = self.bytes + json_bytes(&event);
        let bytes_max = BYTES_MAX / if refused.is_some() { 2 } else { 1 };
        if self.events.len() < EVENTS_MAX && bytes <= bytes_max {
            self.bytes = bytes;
            self.events.push_back((now, event));
            return None;
        }
        if refused.is_none() {
            self.lost = self.lost.saturating_add(1);
        }
        refused
    }

    /// The oldest events, up to `count`.
    pub(super) fn oldest(&self, count: usize) -> Vec<(Now, Event)> {
        self.events.iter().take(count).cloned().collect()
    }

    /// Lets go of the oldest, which are recorded now.
    pub(super) fn recorded(&mut self, oldest: &[(Now, Event)]) {
        let bytes: usize = oldest.iter().map(|(_, event)| json_bytes(event)).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        self.events.drain(..oldest.len());
    }
}

fn json_bytes(event: &Event) -> usize {
    serde_json::to_string(event).map_or(0, |text| text.len())
}

#[cfg(test)]
mod tests {
    use enforcer_proto::event::CloseReason;
    use enforcer_proto::id::{GrantId, SessionId};
    use enforcer_proto::principal::Process;
    use enforcer_proto::refusal::{Code, Refusal};

    use super::*;

    const NOW: Now = Now {
        boot_ns: 1,
        unix_ns: 1,
    };

    fn refusal(bytes: usize) -> Event {
        Event::QueryRefused {
            grant: None,
            agent: "bot".parse().expect("a name"),
            session: SessionId(1),
            process: Process {
                pid: 7,
                start_boot_ns: 1,
                uid: 2001,
                comm: "x".into(),
            },
            request: "GET /".into(),
            sql: Some("x".repeat(bytes)),
            sql_cut: None,
            refusal: Refusal::new(Code::WindowNone, "none"),
        }
    }

    #[test]
    fn refusals_are_bounded_by_bytes_and_leave_room_for_the_close_of_a_window() {
        let mut unrecorded = Unrecorded::default();
        let counted = (0..100).filter(|_| unrecorded.keep(NOW, refusal(100_000)).is_some());
        let counted = counted.count();
        assert!((1..100).contains(&counted) && unrecorded.bytes <= BYTES_MAX / 2);
        let closed = Event::Closed {
            grant: GrantId(1),
            agent: "bot".parse().expect("a name"),
            reason: CloseReason::Expired,
            by: None,
            queries: 0,
            bytes: 0,
        };
        assert!(unrecorded.keep(NOW, closed).is_none());
        assert_eq!(
            (unrecorded.events.len(), unrecorded.lost()),
            (101 - counted, 0)
        );
        while !unrecorded.is_empty() {
            let oldest = unrecorded.oldest(7);
            unrecorded.recorded(&oldest);
        }
        assert_eq!(unrecorded.bytes, 0);
    }
}
