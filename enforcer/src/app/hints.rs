//! Whom the kernel refused where nothing is served, until somebody looks there. Bounded for each agent: none keeps another from being seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// How many processes of one agent wait to be looked at. One more is seen when all are looked at.
const PER_AGENT_MAX: usize = 8;

/// Processes, by their agent's cgroup.
pub(super) type Refused = BTreeMap<u64, BTreeSet<u32>>;

/// What waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Hints(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    refused: Mutex<Refused>,
    come: Notify,
}

impl Hints {
    /// A process of the agent's was refused.
    pub(super) fn add(&self, agent_cgroup: u64, pid: u32) {
        let mut refused = self
            .0
            .refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let pids = refused.entry(agent_cgroup).or_default();
        if pids.len() < PER_AGENT_MAX {
            pids.insert(pid);
        }
        self.0.come.notify_one();
    }

    /// Waits until some were, and gives all of them.
    pub(super) async fn next(&self) -> Refused {
        loop {
            let refused = std::mem::take(
                &mut *self
                    .0
                    .refused
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            if !refused.is_empty() {
                return refused;
            }
            self.0.come.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_agents_processes_take_no_room_of_anothers() {
        let hints = Hints::default();
        for pid in 0..1000 {
            hints.add(1, pid);
        }
        hints.add(2, 7);
        let refused = hints.next().await;
        assert_eq!(refused[&1].len(), PER_AGENT_MAX);
        assert_eq!(refused[&2], BTreeSet::from([7]));
        // Taken, and waited for anew.
        let later = hints.clone();
        let waits = tokio::spawn(async move { later.next().await });
        hints.add(3, 1);
        assert_eq!(waits.await.expect("ends").len(), 1);
    }
}
