//! What happened and could not be recorded yet, because the log cannot be written. While there is any, nothing is allowed.
//!
//! Each kind of event has room of its own, which no other can fill: however much an agent asks for meanwhile, the close of a window has its place.

use std::collections::{BTreeMap, VecDeque};

use enforcer_proto::event::Event;
use enforcer_proto::policy::PENDING_PER_AGENT_MAX;
use enforcer_proto::time::Now;

use crate::config::AGENTS_MAX;
use crate::tally::Counted;

/// The most events about windows and requests: nothing is opened or asked for meanwhile, so there are no more than the opening and the end of each
/// agent's window, its lock, and the end of each request that waits.
const WINDOWS_EVENTS_MAX: usize = AGENTS_MAX * (3 + PENDING_PER_AGENT_MAX);
/// The most bytes that these may have as JSON.
const WINDOWS_BYTES_MAX: usize = WINDOWS_EVENTS_MAX * 512;
/// The most events about queries that were admitted before: eight for each agent of a host that has as many as there may be.
const QUERIES_EVENTS_MAX: usize = AGENTS_MAX * 8;
/// The most bytes that these may have as JSON.
const QUERIES_BYTES_MAX: usize = QUERIES_EVENTS_MAX * 512;
/// The most events of each other kind. Past it, or past [`BYTES_MAX`], refusals are counted and other events are lost, which is shown, and put
/// on record once the log can be written again.
const EVENTS_MAX: usize = 32_768;
/// The most bytes that the events of each other kind may have as JSON.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// Which events share room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    /// What became of windows and requests. Nobody but those who hold them fills it.
    Windows,
    /// What became of queries that were admitted before.
    Queries,
    /// Refusals. What has no room is counted.
    Refusals,
    /// Everything else that happened.
    Others,
}

impl Room {
    /// Where an event waits. None for what did not happen where it was not recorded: whoever wanted it is told so, and the log never says
    /// otherwise.
    const fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Opened { .. }
            | Event::AgentLocked { .. }
            | Event::Closed { .. }
            | Event::Denied { .. }
            | Event::RequestExpired { .. }
            | Event::RequestWithdrawn { .. } => Some(Self::Windows),
            Event::JobSeen { .. } | Event::QueryFinished { .. } | Event::JobCancelled { .. } => {
                Some(Self::Queries)
            }
            Event::RequestRefused { .. }
            | Event::DecisionRefused { .. }
            | Event::QueryRefused { .. }
            | Event::ConnectionRefused { .. }
            | Event::KernelRefused { .. }
            | Event::FurtherRefused { .. } => Some(Self::Refusals),
            Event::DaemonStopped {}
            | Event::TailRepaired { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotSetAside { .. }
            | Event::HealthChanged { .. }
            | Event::TooLong { .. }
            | Event::EventsLost { .. }
            | Event::Detached { .. }
            | Event::Forwarded { .. }
            | Event::CredentialPresented { .. }
            | Event::IssuerKeySigns { .. }
            | Event::NamespaceServed { .. }
            | Event::NamespaceLeft { .. }
            | Event::NamespaceRefused { .. }
            | Event::ContainerChanged { .. }
            | Event::WayExamined { .. }
            | Event::NotificationFailed { .. } => Some(Self::Others),
            Event::DaemonStarted { .. }
            | Event::SegmentsRemoved { .. }
            | Event::Requested { .. }
            | Event::ApprovalGiven { .. }
            | Event::Approved { .. }
            | Event::Reviewed { .. }
            | Event::AgentUnlocked { .. }
            | Event::RequestJoined { .. }
            | Event::PolicyLoaded { .. }
            | Event::PolicyRejected { .. }
            | Event::QueryAsked { .. }
            | Event::EstimateAsked { .. }
            | Event::QueryAdmitted { .. }
            | Event::ProcessJoined { .. } => None,
        }
    }

    const fn events_max(self) -> usize {
        match self {
            Self::Windows => WINDOWS_EVENTS_MAX,
            Self::Queries => QUERIES_EVENTS_MAX,
            Self::Refusals | Self::Others => EVENTS_MAX,
        }
    }

    const fn bytes_max(self) -> usize {
        match self {
            Self::Windows => WINDOWS_BYTES_MAX,
            Self::Queries => QUERIES_BYTES_MAX,
            Self::Refusals | Self::Others => BYTES_MAX,
        }
    }
}

/// Whether this happens by being recorded alone, so that where nobody waits for the record any more there need be none.
pub(super) const fn is_by_record(event: &Event) -> bool {
    Room::of(event).is_none()
}

/// How much waits in one room.
#[derive(Debug, Default)]
struct Filled {
    events: usize,
    bytes: usize,
}

/// Events in the order in which they happened.
#[derive(Debug, Default)]
pub(super) struct Unrecorded {
    events: VecDeque<(Now, Event)>,
    filled: BTreeMap<Room, Filled>,
    /// How many of each kind there was no room for, and when something was kept or lost last.
    lost: BTreeMap<&'static str, u64>,
    newest: Option<Now>,
}

impl Unrecorded {
    /// Whether nothing waits, not even to be said lost.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.lost.is_empty()
    }

    /// How many events were lost and are not on record as such.
    pub(super) fn lost(&self) -> u64 {
        let counts = self.lost.values();
        counts.fold(0, |all, count| all.saturating_add(*count))
    }

    /// Keeps an event. Gives refusals for which there is no room, to be counted.
    pub(super) fn keep(&mut self, now: Now, event: Event) -> Option<Counted> {
        let room = Room::of(&event)?;
        let filled = self.filled.entry(room).or_default();
        let bytes = filled.bytes + json_bytes(&event);
        self.newest = Some(now);
        if filled.events < room.events_max() && bytes <= room.bytes_max() {
            filled.events += 1;
            filled.bytes = bytes;
            self.events.push_back((now, event));
            return None;
        }
        let refused = Counted::of(&event);
        if refused.is_none() {
            let lost = self.lost.entry(event.kind()).or_insert(0);
            *lost = lost.saturating_add(1);
        }
        refused
    }

    /// What is to be recorded next: the oldest events, up to `count`; behind all of them, what was lost.
    pub(super) fn oldest(&self, count: usize) -> Vec<(Now, Event)> {
        if self.events.is_empty() {
            let kinds = self.lost.iter();
            let kinds = kinds.map(|(kind, count)| ((*kind).to_owned(), *count));
            let lost = self.newest.filter(|_| !self.lost.is_empty());
            return lost
                .map(|at| {
                    let kinds = kinds.collect();
                    (at, Event::EventsLost { kinds })
                })
                .into_iter()
                .collect();
        }
        self.events.iter().take(count).cloned().collect()
    }

    /// Lets go of the oldest, which are recorded now.
    pub(super) fn recorded(&mut self, oldest: &[(Now, Event)]) {
        if self.events.is_empty() {
            self.lost.clear();
            return;
        }
        for (_, event) in oldest {
            if let Some(filled) = Room::of(event).and_then(|room| self.filled.get_mut(&room)) {
                filled.events = filled.events.saturating_sub(1);
                filled.bytes = filled.bytes.saturating_sub(json_bytes(event));
            }
        }
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
    use enforcer_proto::query::Method;
    use enforcer_proto::refusal::{Code, Refusal};

    use super::*;

    const NOW: Now = Now {
        boot_ns: 1,
        unix_ns: 1,
    };

    fn process() -> Process {
        Process {
            pid: 7,
            start_boot_ns: 1,
            uid: 2001,
            comm: "x".into(),
        }
    }

    fn refusal(bytes: usize) -> Event {
        Event::QueryRefused {
            grant: None,
            agent: "bot".parse().expect("a name"),
            session: SessionId(1),
            process: process(),
            container: None,
            request: "GET /".into(),
            sql: Some("x".repeat(bytes)),
            sql_cut: None,
            refusal: Refusal::new(Code::WindowNone, "none"),
        }
    }

    fn faults() -> Event {
        Event::HealthChanged {
            faults: vec!["x".repeat(100_000)],
        }
    }

    fn closed(grant: u64) -> Event {
        Event::Closed {
            grant: GrantId(grant),
            agent: "an-agent-with-a-long-name".parse().expect("a name"),
            reason: CloseReason::Revoked,
            by: Some(process()),
            queries: u64::MAX,
            bytes: u64::MAX,
        }
    }

    #[test]
    fn no_flood_takes_the_room_of_the_close_of_a_window() {
        let mut unrecorded = Unrecorded::default();
        let floods = || (0..200).flat_map(|_| [refusal(100_000), faults()]);
        let counted = floods()
            .filter_map(|event| unrecorded.keep(NOW, event))
            .count();
        assert!((1..200).contains(&counted) && unrecorded.lost() > 0);
        let lost = unrecorded.lost();
        for agent in 0..AGENTS_MAX as u64 {
            assert!(unrecorded.keep(NOW, closed(agent)).is_none());
        }
        assert_eq!(
            unrecorded.lost(),
            lost,
            "every window of a host has its room"
        );
        while !unrecorded.is_empty() {
            let oldest = unrecorded.oldest(7);
            unrecorded.recorded(&oldest);
        }
        let mut filled = unrecorded.filled.values();
        assert!(filled.all(|filled| (filled.events, filled.bytes) == (0, 0)));
    }

    #[test]
    fn what_did_not_happen_without_its_record_is_not_recorded_later() {
        let mut unrecorded = Unrecorded::default();
        let joined = Event::ProcessJoined {
            agent: "bot".parse().expect("a name"),
            process: process(),
        };
        let asked = Event::QueryAsked {
            grant: GrantId(1),
            agent: "bot".parse().expect("a name"),
            session: SessionId(1),
            process: process(),
            method: Method::JobsQuery,
            sql: "x".repeat(400_000),
        };
        for event in [joined, asked] {
            assert!(is_by_record(&event) && unrecorded.keep(NOW, event).is_none());
        }
        assert!(unrecorded.is_empty() && !is_by_record(&closed(1)));
    }

    #[test]
    fn what_was_lost_is_said_once_behind_all_that_was_kept_and_is_none_from_then_on() {
        let mut unrecorded = Unrecorded::default();
        let counted = (0..100).filter_map(|_| unrecorded.keep(NOW, faults()));
        assert_eq!(counted.count(), 0);
        let lost = unrecorded.lost();
        assert!(lost > 0);
        let mut said = Vec::new();
        while !unrecorded.is_empty() {
            let oldest = unrecorded.oldest(1);
            unrecorded.recorded(&oldest);
            said.extend(oldest);
        }
        let kinds = [("health_changed".to_owned(), lost)].into();
        assert_eq!(said.last(), Some(&(NOW, Event::EventsLost { kinds })));
        assert_eq!((said.len() as u64, unrecorded.lost()), (101 - lost, 0));
    }
}
