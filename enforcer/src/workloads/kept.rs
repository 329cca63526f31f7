//! What was an agent's workload, or may have been, and is there still though it is found as such no more: it stays closed until it has gone, and is said.

use std::collections::BTreeSet;

use super::{Closed, Looked, Workloads, no_workload};
use crate::config::Workload;
use crate::workload;

impl Workloads {
    /// Closes what was a workload, or closed, at the last look, is neither now, and has not gone: only that it has gone lets it go.
    pub(super) fn keep(&self, looked: &mut Looked) {
        let now = self.now();
        let found: BTreeSet<u64> = looked.found.values().map(|found| found.id).collect();
        let was_found = now.found.iter().map(|(agent, found)| {
            let (agent, folder) = (agent.clone(), found.folder.clone());
            (found.id, Closed { agent, folder })
        });
        let was_closed = now.closed.iter().map(|(id, closed)| (*id, closed.clone()));
        for (id, closed) in was_found.chain(was_closed) {
            let is_known = found.contains(&id) || looked.closed.contains_key(&id);
            if is_known || workload::has_gone(&closed.folder, id) {
                continue;
            }
            let why = self.why_kept(&closed, looked);
            looked.problems.extend(why);
            looked.closed.insert(id, closed);
        }
    }

    /// What is said of a cgroup that was an agent's, and is there still. Of one that a container has just ended in, nothing.
    fn why_kept(&self, closed: &Closed, looked: &Looked) -> Option<String> {
        let (agent, shown) = (&closed.agent, closed.folder.display());
        let is_told = self.workload(agent).is_some_and(Workload::is_told);
        if is_told && workload::is_empty(&closed.folder) {
            return None;
        }
        let why = if is_told {
            format!(
                "its cgroup {shown} is there, and no runtime tells any more of a container in it that is called so"
            )
        } else {
            format!(
                "its cgroup {shown} is there, and is not found any more: others than root may own one above it"
            )
        };
        let cure = match (looked.found.get(agent), is_told) {
            (None, true) => ": stop that, or call it so again",
            (None, false) => "",
            (Some(_), true) => ": stop that, or call it so again and the other one otherwise",
            (Some(_), false) => "; stop what runs in it",
        };
        Some(match looked.found.get(agent) {
            None => no_workload(agent, &format!("{why}{cure}")),
            // The agent has all that it is due, and who is left behind has not.
            Some(found) => format!(
                "agent {agent} has its workload in {} now, and what was its workload, or may have been, is refused: {why}{cure}",
                found.folder.display()
            ),
        })
    }
}
