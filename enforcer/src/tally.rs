//! Counts what comes in floods, so that each kind takes one record: who floods can neither fill the log nor hide in it.

use std::collections::BTreeMap;
use std::time::Duration;

use enforcer_proto::event::{Event, Refuser};

/// How often what was counted is recorded.
pub const FLUSH: Duration = Duration::from_secs(1);
/// The most kinds that are told apart between two records.
pub const KINDS_MAX: usize = 256;

/// How often each kind came, with the first of it. Kinds past [`KINDS_MAX`] are counted together as others, never as one of the known.
#[derive(Debug)]
pub struct Tally<K, V> {
    kinds: BTreeMap<K, (V, u64)>,
    others: u64,
}

impl<K, V> Default for Tally<K, V> {
    fn default() -> Self {
        Self {
            kinds: BTreeMap::new(),
            others: 0,
        }
    }
}

impl<K: Ord, V> Tally<K, V> {
    /// Counts one.
    pub fn add(&mut self, kind: K, value: V) {
        let is_room = self.kinds.len() < KINDS_MAX;
        let count = match self.kinds.get_mut(&kind) {
            Some((_, count)) => count,
            None if is_room => &mut self.kinds.entry(kind).or_insert((value, 0)).1,
            None => &mut self.others,
        };
        *count = count.saturating_add(1);
    }

    /// Starts anew and gives what was counted as events: `event` makes that of one kind; the others take one that says so, of `refuser`.
    pub fn take(&mut self, refuser: Refuser, mut event: impl FnMut(V, u64) -> Event) -> Vec<Event> {
        let Self { kinds, others } = std::mem::take(self);
        let kinds = kinds
            .into_values()
            .map(|(value, count)| event(value, count));
        let others = (others > 0).then_some(Event::FurtherRefused {
            by: refuser,
            count: others,
        });
        kinds.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(value: u64, count: u64) -> Event {
        Event::KernelRefused {
            agent: None,
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
            tally.add(kind, value);
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
        for kind in 0..=KINDS_MAX as u64 {
            tally.add(kind, kind);
        }
        tally.add(0, 0);
        let (kinds, others) = counted(tally.take(Refuser::Kernel, refused));
        assert_eq!((kinds.len(), others), (KINDS_MAX, 1));
        assert_eq!((kinds[0], kinds[KINDS_MAX - 1]), ((0, 2), (255, 1)));
    }

    proptest! {
        #[test]
        fn no_count_is_lost_and_none_stands_under_another_kind(kinds in prop::collection::vec(0_u64..400, 0..1500)) {
            let mut tally = Tally::default();
            for kind in &kinds {
                tally.add(*kind, *kind);
            }
            let (counts, others) = counted(tally.take(Refuser::Kernel, refused));
            prop_assert!(counts.len() <= KINDS_MAX);
            prop_assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>() + others, kinds.len() as u64);
            for (kind, count) in counts {
                prop_assert_eq!(kinds.iter().filter(|other| **other == kind).count() as u64, count);
            }
        }
    }
}
