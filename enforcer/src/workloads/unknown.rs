//! Containers whose cgroups are there while no runtime has told of them: one of them may be an agent's that has just started, and runtimes are asked at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// For how many looks one is asked about. A runtime makes a container's cgroup before it says that it runs; one of which none ever tells, as containerd's, is
/// asked about no oftener than the others are after that.
const LOOKS: u8 = 8;

/// Those that the last look has seen.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    /// For how many looks each.
    looks: Mutex<BTreeMap<String, u8>>,
    news: Notify,
}

impl Unknown {
    /// A look has seen the cgroups of these containers, of which no runtime has told.
    pub(super) fn see(&self, ids: impl Iterator<Item = String>) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::take(&mut *looks);
        let seen = ids.map(|id| {
            let looks = before.get(&id).map_or(1, |looks| looks.saturating_add(1));
            (id, looks)
        });
        *looks = seen.collect();
        if looks.values().any(|looks| *looks <= LOOKS) {
            self.news.notify_one();
        }
    }

    /// Ends when there is one to ask about.
    pub(super) async fn come(&self) {
        self.news.notified().await;
    }
}

/// What a look for cgroups has seen besides.
#[derive(Debug, Default)]
pub(super) struct Containers {
    /// The ids of containers, as many as are kept.
    ids: BTreeSet<String>,
}

/// The most that are kept of one look.
const IDS_MAX: usize = 4096;

impl Containers {
    pub(super) fn see(&mut self, id: &str) {
        if self.ids.len() < IDS_MAX && !self.ids.contains(id) {
            self.ids.insert(id.to_owned());
        }
    }

    pub(super) fn into_ids(self) -> impl Iterator<Item = String> {
        self.ids.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// Whether a look that sees these has runtimes asked.
    fn asks(unknown: &Unknown, ids: &[&str]) -> bool {
        unknown.see(ids.iter().map(ToString::to_string));
        unknown.come().now_or_never().is_some()
    }

    #[test]
    fn one_that_no_runtime_tells_of_is_asked_about_for_some_looks_and_anew_once_it_had_gone() {
        let unknown = Unknown::default();
        assert!(!asks(&unknown, &[]));
        for _ in 0..LOOKS {
            assert!(asks(&unknown, &["a"]));
        }
        for _ in 0..1000 {
            assert!(!asks(&unknown, &["a"]));
        }
        assert!(asks(&unknown, &["a", "b"]));
        assert!(!asks(&unknown, &[]));
        assert!(asks(&unknown, &["a"]));
    }

    #[test]
    fn what_is_kept_of_a_look_is_bounded() {
        let mut seen = Containers::default();
        for id in 0..2 * IDS_MAX {
            seen.see(&id.to_string());
            seen.see("0");
        }
        assert_eq!(seen.into_ids().count(), IDS_MAX);
    }
}
