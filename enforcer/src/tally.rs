//! Counts what comes in floods, so that each kind takes one record: who floods can neither fill the log nor hide in it, nor hide others.

mod refusals;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use enforcer_proto::event::{Event, Refuser};
use enforcer_proto::principal::AgentName;

use crate::engine::Engine;
pub use refusals::{
    Counted, REFUSALS_BURST_MAX, REFUSALS_PER_FLUSH, Refusals, Refused, UIDS_MAX, Who,
};

/// How often what was counted is recorded.
pub const FLUSH: Duration = Duration::from_secs(1);
/// The most kinds of one agent, or of everybody who is none, that are told apart between two records.
pub const KINDS_PER_AGENT_MAX: usize = 32;

/// Records what `take` gives, once in [`FLUSH`] until `stop`, and once more then: it is told whether this is the last time.
pub async fn keep_recording(
    engine: &Engine,
    stop: CancellationToken,
    mut take: impl FnMut(bool) -> Vec<Event>,
) {
    loop {
        let nap = tokio::time::sleep(FLUSH);
        let is_last = stop.run_until_cancelled(nap).await.is_none();
        for event in take(is_last) {
            engine.note(event).await;
        }
        if is_last {
            return;
        }
    }
}

/// How often each kind came, with the first of it. Every agent has its own share, and so have all together who are none: kinds past
/// [`KINDS_PER_AGENT_MAX`] are counted as others of that share, never as one of the known and never as another's.
#[derive(Debug)]
pub struct Tally<K, V> {
    shares: BTreeMap<Option<AgentName>, Share<K, V>>,
}

#[derive(Debug)]
struct Share<K, V> {
    kinds: BTreeMap<K, (V, u64)>,
    others: u64,
}

impl<K, V> Default for Tally<K, V> {
    fn default() -> Self {
        Self {
            shares: BTreeMap::new(),
        }
    }
}

impl<K, V> Default for Share<K, V> {
    fn default() -> Self {
        Self {
            kinds: BTreeMap::new(),
            others: 0,
        }
    }
}

impl<K: Ord, V> Tally<K, V> {
    /// Counts one of `agent`'s, which is a configured one: there are no more shares than agents.
    pub fn add(&mut self, agent: Option<AgentName>, kind: K, value: V) {
        let share = self.shares.entry(agent).or_default();
        let is_room = share.kinds.len() < KINDS_PER_AGENT_MAX;
        let count = match share.kinds.get_mut(&kind) {
            Some((_, count)) => count,
            None if is_room => &mut share.kinds.entry(kind).or_insert((value, 0)).1,
            None => &mut share.others,
        };
        *count = count.saturating_add(1);
    }

    /// Starts anew and gives what was counted as events: `event` makes that of one kind; the others of a share take one that says so, of
    /// `refuser`.
    pub fn take(
        &mut self,
        refuser: Refuser,
        mut event: impl FnMut(Option<AgentName>, V, u64) -> Event,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        for (agent, Share { kinds, others }) in std::mem::take(&mut self.shares) {
            let kinds = kinds.into_values();
            events.extend(kinds.map(|(value, count)| event(agent.clone(), value, count)));
            events.extend((others > 0).then_some(Event::FurtherRefused {
                by: refuser,
                agent,
                uid: None,
                code: None,
                count: others,
            }));
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(agent: Option<AgentName>, value: u64, count: u64) -> Event {
        Event::KernelRefused {
            agent,
            process: enforcer_proto::principal::Process {
                pid: 1,
                start_boot_ns: 0,
                uid: 0,
                comm: String::new(),
            },
            verdict: value.to_string(),
            destination: String::new(),
            count,
        }
    }

    /// Each kind's first value and count, and the count of the others.
    fn counted(events: Vec<Event>) -> (Vec<(u64, u64)>, u64) {
        let (mut kinds, mut others) = (Vec::new(), 0);
        for event in events {
            if let Event::KernelRefused { verdict, count, .. } = event {
                kinds.push((verdict.parse().unwrap(), count));
            } else if let Event::FurtherRefused {
                by: Refuser::Kernel,
                count,
                ..
            } = event
            {
                others += count;
            } else {
                panic!("{event:?}");
            }
        }
        (kinds, others)
    }

    #[test]
    fn the_first_of_a_kind_stands_for_all_of_it_and_taking_starts_anew() {
        let mut tally = Tally::default();
        for (kind, value) in [("b", 1), ("a", 2), ("b", 3)] {
            tally.add(None, kind, value);
        }
        let taken = counted(tally.take(Refuser::Kernel, refused));
        assert_eq!(taken, (vec![(2, 1), (1, 2)], 0));
        assert_eq!(
            counted(tally.take(Refuser::Kernel, refused)),
            (Vec::new(), 0)
        );
    }

    #[test]
    fn a_kind_too_many_is_counted_as_other_and_the_known_ones_go_on() {
        let mut tally = Tally::default();
        for kind in 0..=KINDS_PER_AGENT_MAX as u64 {
            tally.add(None, kind, kind);
        }
        tally.add(None, 0, 0);
        let (kinds, others) = counted(tally.take(Refuser::Kernel, refused));
        assert_eq!((kinds.len(), others), (KINDS_PER_AGENT_MAX, 1));
        assert_eq!(
            (kinds[0], kinds[KINDS_PER_AGENT_MAX - 1]),
            ((0, 2), (31, 1))
        );
    }

    #[test]
    fn an_agent_that_floods_does_not_push_another_into_the_catch_all() {
        let agent = |name: &str| Some(name.parse::<AgentName>().expect("a name"));
        let mut tally = Tally::default();
        for kind in 0..1000 {
            tally.add(agent("noisy"), kind, kind);
            tally.add(None, kind, kind);
        }
        tally.add(agent("quiet"), 1000, 1000);
        let events = tally.take(Refuser::Kernel, refused);
        let of = |name: &str| {
            let own = events.iter().filter(|event| {
                matches!(event, Event::KernelRefused { agent: found, .. } if *found == agent(name))
            });
            own.count()
        };
        assert_eq!((of("quiet"), of("noisy")), (1, KINDS_PER_AGENT_MAX));
        let further = |found: Option<AgentName>| {
            events.iter().any(|event| {
                matches!(event, Event::FurtherRefused { agent, count: 968, .. } if *agent == found)
            })
        };
        assert!(further(agent("noisy")) && further(None), "{events:?}");
    }

    proptest! {
        #[test]
        fn no_count_is_lost_and_none_stands_under_another_kind(kinds in prop::collection::vec(0_u64..400, 0..1500)) {
            let mut tally = Tally::default();
            for kind in &kinds {
                tally.add(None, *kind, *kind);
            }
            let (counts, others) = counted(tally.take(Refuser::Kernel, refused));
            prop_assert!(counts.len() <= KINDS_PER_AGENT_MAX);
            prop_assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>() + others, kinds.len() as u64);
            for (kind, count) in counts {
                prop_assert_eq!(kinds.iter().filter(|other| **other == kind).count() as u64, count);
            }
        }
    }
}
