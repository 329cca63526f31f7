//! Whom the kernel refused where nothing is served, until somebody looks there. Bounded for each agent: none keeps another from being seen.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use enforcer_proto::principal::AgentName;
use tokio::sync::Notify;

/// How many processes of one agent wait to be looked at. One more is seen when one of them was, and it tries again.
const PER_AGENT_MAX: usize = 8;

/// Processes, by their agent, the one that has waited longest first. No agent is in it that has none.
type Refused = BTreeMap<AgentName, VecDeque<u32>>;

/// What waits.
#[derive(Debug, Clone, Default)]
pub(in crate::app) struct Hints(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    refused: Mutex<Refused>,
    come: Notify,
}

impl Hints {
    /// A process of the agent's was refused. Wakes whoever looks only where none of that agent's waits already: a flood wakes nobody.
    pub(in crate::app) fn add(&self, agent: &AgentName, pid: u32) {
        let mut refused = self.refused();
        if let Some(pids) = refused.get_mut(agent) {
            if pids.len() < PER_AGENT_MAX && !pids.contains(&pid) {
                pids.push_back(pid);
            }
            return;
        }
        refused.insert(agent.clone(), VecDeque::from([pid]));
        self.0.come.notify_one();
    }

    /// Waits until an agent has some that had none.
    pub(super) async fn come(&self) {
        self.0.come.notified().await;
    }

    /// The agents that have some.
    pub(super) fn agents(&self) -> Vec<AgentName> {
        self.refused().keys().cloned().collect()
    }

    /// Takes the one of an agent's that has waited longest.
    pub(super) fn take(&self, agent: &AgentName) -> Option<u32> {
        let mut refused = self.refused();
        let pids = refused.get_mut(agent)?;
        let pid = pids.pop_front();
        if pids.is_empty() {
            refused.remove(agent);
        }
        pid
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        let refused = &self.0.refused;
        refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> AgentName {
        name.parse().expect("a name")
    }

    #[tokio::test]
    async fn one_agents_processes_take_no_room_of_anothers() {
        let hints = Hints::default();
        let [one, other, third] = ["one", "other", "third"].map(name);
        for pid in 0..1000 {
            hints.add(&one, pid);
            hints.add(&one, pid);
        }
        hints.add(&other, 7);
        hints.come().await;
        assert_eq!(hints.agents(), [one.clone(), other.clone()]);
        let taken: Vec<u32> = std::iter::from_fn(|| hints.take(&one)).collect();
        assert!(taken.into_iter().eq(0..PER_AGENT_MAX as u32));
        assert_eq!([hints.take(&other), hints.take(&other)], [Some(7), None]);
        assert_eq!(hints.agents(), []);
        // Taken, and waited for anew.
        let later = hints.clone();
        let waits = tokio::spawn(async move { later.come().await });
        hints.add(&third, 1);
        waits.await.expect("ends");
    }
}
