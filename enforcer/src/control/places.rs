//! Places on the control socket: few for one agent or uid, and some that only those who decide may take, so that nobody can sit on them all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::tally::Who;

/// The most control connections at once. One more is refused.
pub const CONNECTIONS_MAX: usize = 256;
/// The most of one agent or uid. One more is refused.
pub const CONNECTIONS_PER_WHO_MAX: usize = 16;
/// How many of all are kept for root and for those whom the policy lets decide. Others are refused them.
pub const CONNECTIONS_RESERVED: usize = 64;

/// Who holds how many places.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Mutex<BTreeMap<Who, usize>>,
}

/// One place; given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    who: Who,
}

impl Places {
    /// Takes a place for `who`, of those that are reserved as well where they may `decide`.
    pub(super) fn take(self: &Arc<Self>, who: Who, may_decide: bool) -> Option<Place> {
        let all_max = if may_decide {
            CONNECTIONS_MAX
        } else {
            CONNECTIONS_MAX - CONNECTIONS_RESERVED
        };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&who).copied().unwrap_or(0);
        if all >= all_max || own >= CONNECTIONS_PER_WHO_MAX {
            return None;
        }
        taken.insert(who.clone(), own + 1);
        Some(Place {
            places: Arc::clone(self),
            who,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .places
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uid_has_its_quota_and_gets_places_back() {
        let places = Arc::new(Places::default());
        let held: Vec<Place> = std::iter::from_fn(|| places.take(Who::Uid(1), false)).collect();
        assert_eq!(held.len(), CONNECTIONS_PER_WHO_MAX);
        assert!(places.take(Who::Uid(2), false).is_some());
        drop(held);
        assert!(places.take(Who::Uid(1), false).is_some());
        assert!(places.taken.lock().expect("no panic").is_empty());
    }

    #[test]
    fn many_uids_leave_the_reserved_places_to_those_who_decide() {
        let places = Arc::new(Places::default());
        let held: Vec<Place> = (0..1000)
            .filter_map(|uid| places.take(Who::Uid(uid), false))
            .collect();
        assert_eq!(held.len(), CONNECTIONS_MAX - CONNECTIONS_RESERVED);
        let deciding: Vec<Place> = (2000..3000)
            .filter_map(|uid| places.take(Who::Uid(uid), true))
            .collect();
        assert_eq!(deciding.len(), CONNECTIONS_RESERVED);
    }
}
