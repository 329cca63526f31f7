//! Places on the control socket: few for one agent or uid, and some that only those who decide may take, so that nobody can sit on them all.
//! And how often one uid may connect: whoever comes too often is turned away before anything else is done for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::pace::{Bucket, Pace};
use crate::tally::Who;

/// The most control connections at once. One more is refused.
pub const CONNECTIONS_MAX: usize = 256;
/// The most of one agent or uid. One more is refused.
pub const CONNECTIONS_PER_WHO_MAX: usize = 16;
/// How many of all are kept for root and for those whom the policy lets decide. Others are refused them.
pub const CONNECTIONS_RESERVED: usize = 64;

/// How often one uid but root may connect; past it the connection is closed at once.
pub(super) const CONNECTS: Pace = Pace {
    burst: 200,
    per_second: 20,
};
/// The most uids whose connecting is remembered; past it they share one bucket.
const UIDS_MAX: usize = 1024;

/// How often each uid has connected.
#[derive(Debug, Default)]
pub(super) struct Comings {
    by_uid: BTreeMap<u32, Bucket>,
    others: Option<Bucket>,
}

impl Comings {
    /// Whether `uid` may connect once more now.
    pub(super) fn take(&mut self, uid: u32, now_boot_ns: u64) -> bool {
        let is_new = !self.by_uid.contains_key(&uid);
        if is_new && self.by_uid.len() >= UIDS_MAX {
            self.by_uid.retain(|_, bucket| !bucket.is_full(now_boot_ns));
        }
        let bucket = if is_new && self.by_uid.len() >= UIDS_MAX {
            self.others.get_or_insert_with(|| Bucket::new(CONNECTS))
        } else {
            self.by_uid
                .entry(uid)
                .or_insert_with(|| Bucket::new(CONNECTS))
        };
        bucket.take(1, now_boot_ns)
    }
}

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
    fn a_uid_that_comes_too_often_is_turned_away_and_no_other_is() {
        let mut comings = Comings::default();
        let came = (0..1000).filter(|_| comings.take(1, 1)).count();
        assert_eq!(came, CONNECTS.burst as usize);
        assert!(comings.take(2, 1));
        for uid in 0..5000 {
            let _ = comings.take(uid, 1);
        }
        assert!(comings.by_uid.len() <= UIDS_MAX);
    }

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
