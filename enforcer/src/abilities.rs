//! What agents' processes must not be able to do, and whether they are. Only looks.

use std::path::Path;

use enforcer_proto::principal::AgentName;
use rustix::thread::CapabilitySet;

use crate::workload;

/// What no process of an agent's may hold: each is a way to make frames, to change the programs, or to become somebody else.
const NOT_FOR_AGENTS: [(CapabilitySet, &str); 5] = [
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
];

/// The names of those, for people.
#[must_use]
pub fn not_for_agents() -> String {
    NOT_FOR_AGENTS.map(|(_, name)| name).join(", ")
}

/// The first of an agent's processes that holds what it must not.
#[must_use]
pub fn too_able(agent: &AgentName, folder: &Path) -> Option<String> {
    let all = match workload::all_processes(folder) {
        Ok(all) => all,
        // It has gone since.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => {
            return Some(format!(
                "the workload of agent {agent} cannot be read: {error}"
            ));
        }
    };
    all.into_iter().find_map(|pid| {
        // In a user namespace of its own a process holds everything, and nothing of this host's. One that is gone holds nothing.
        if !workload::is_in_our_user_namespace(pid).unwrap_or(false) {
            return None;
        }
        let held = CapabilitySet::from_bits_retain(workload::capabilities_of(pid).ok()?);
        let names = NOT_FOR_AGENTS
            .iter()
            .filter(|(capability, _)| held.contains(*capability))
            .map(|(_, name)| *name);
        let names: Vec<&str> = names.collect();
        (!names.is_empty()).then(|| {
            format!(
                "process {pid} of agent {agent} holds {}: what it makes with it is dropped where it can be seen, but start agents without (enforcer run, or systemd's CapabilityBoundingSet=)",
                names.join(", ")
            )
        })
    })
}
