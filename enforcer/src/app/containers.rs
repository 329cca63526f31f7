//! Puts on record which container each agent's workload is, whenever that is another one. It is of the cgroup: in which container a process is that asks, or
//! queries, is read of that process (`origin`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, ContainerOrigin};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::workloads::Workloads;

/// How long after one look the next begins, and so how often at most one agent's container takes a record. One that is there for less may be on record
/// by its namespace alone.
const LOOK: Duration = Duration::from_millis(250);

/// A container, and the path of its cgroup.
type Known = (ContainerOrigin, String);

/// Looks and records until `stop`.
pub(super) async fn record(workloads: Arc<Workloads>, engine: Engine, stop: CancellationToken) {
    let again = async {
        let mut known = BTreeMap::new();
        loop {
            let now = there(&workloads);
            for event in changes(&known, &now) {
                engine.note(event).await;
            }
            known = now;
            tokio::time::sleep(LOOK).await;
        }
    };
    stop.run_until_cancelled(again).await;
}

/// The containers that agents' workloads are now.
fn there(workloads: &Workloads) -> BTreeMap<AgentName, Known> {
    let all = workloads.all().into_iter();
    let known = all.filter_map(|(agent, found)| {
        let below = found.folder.strip_prefix(workloads.mount());
        let below = below.unwrap_or(&found.folder).to_string_lossy();
        let container = workloads.container(&agent)?.origin();
        Some((agent, (container, format!("/{below}"))))
    });
    known.collect()
}

/// What is to be recorded of it.
fn changes(before: &BTreeMap<AgentName, Known>, now: &BTreeMap<AgentName, Known>) -> Vec<Event> {
    let has_gone = |agent: &&AgentName| !now.contains_key(*agent);
    let gone = before.keys().filter(has_gone);
    let gone = gone.map(|agent| Event::ContainerChanged {
        agent: agent.clone(),
        container: None,
        cgroup: None,
    });
    let is_new = |(agent, known): &(&AgentName, &Known)| before.get(*agent) != Some(*known);
    let new = now.iter().filter(is_new);
    let new = new.map(|(agent, (container, cgroup))| Event::ContainerChanged {
        agent: agent.clone(),
        container: Some(container.clone()),
        cgroup: Some(cgroup.clone()),
    });
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(agent: &str, name: &str, cgroup: &str) -> BTreeMap<AgentName, Known> {
        let origin = ContainerOrigin {
            name: name.to_owned(),
            image: Some("bq:1".to_owned()),
        };
        let agent = agent.parse().expect("a name");
        BTreeMap::from([(agent, (origin, cgroup.to_owned()))])
    }

    #[test]
    fn a_container_is_recorded_once_and_again_only_where_it_is_another_one() {
        let (nobody, first) = (BTreeMap::new(), there("bot", "job", "/libpod-1"));
        let came = changes(&nobody, &first);
        assert!(matches!(
            came.as_slice(),
            [Event::ContainerChanged { container: Some(container), cgroup: Some(cgroup), .. }]
                if container.name == "job" && cgroup == "/libpod-1"
        ));
        assert_eq!(changes(&first, &first), []);
        // The same name, and another container.
        let second = there("bot", "job", "/libpod-2");
        assert_eq!(changes(&first, &second).len(), 1);
        assert!(matches!(
            changes(&second, &nobody).as_slice(),
            [Event::ContainerChanged {
                container: None,
                cgroup: None,
                ..
            }]
        ));
        assert_eq!(
            changes(&second, &there("other", "job", "/libpod-3")).len(),
            2
        );
    }
}
