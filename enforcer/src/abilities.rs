//! What agents' processes must not be able to do, and whether they are. Only looks.

use std::path::Path;

use enforcer_proto::principal::AgentName;
use rustix::thread::CapabilitySet;

use crate::workload;

/// What no process of an agent's may hold: each is a way to make frames, to change the programs, to write the files of cgroups, or to become
/// somebody who can.
const NOT_FOR_AGENTS: [(CapabilitySet, &str); 15] = [
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
    (CapabilitySet::SYS_MODULE, "CAP_SYS_MODULE"),
    (CapabilitySet::SYS_RAWIO, "CAP_SYS_RAWIO"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"),
    (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
    (CapabilitySet::CHOWN, "CAP_CHOWN"),
    (CapabilitySet::FOWNER, "CAP_FOWNER"),
    (CapabilitySet::SETUID, "CAP_SETUID"),
    (CapabilitySet::SETGID, "CAP_SETGID"),
    (CapabilitySet::SETFCAP, "CAP_SETFCAP"),
];
/// The most processes of one agent that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// The names of those, for people.
#[must_use]
pub fn not_for_agents() -> String {
    NOT_FOR_AGENTS.map(|(_, name)| name).join(", ")
}

/// Which of an agent's processes hold what they must not, or are root where the files of cgroups can be reached.
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
    let able: Vec<String> = all.into_iter().filter_map(held_by).collect();
    let more = match able.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    (!able.is_empty()).then(|| {
        format!(
            "of agent {agent} {}{more}: what is made with it is dropped where it can be seen, but start agents without (enforcer run, or systemd's User= and CapabilityBoundingSet=)",
            able[..able.len().min(NAMED_MAX)].join(", ")
        )
    })
}

/// What a process holds that no agent's may, in words.
fn held_by(pid: u32) -> Option<String> {
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
    if !names.is_empty() {
        return Some(format!("process {pid} holds {}", names.join(", ")));
    }
    // Root needs no capability for what belongs to it. In a mount namespace of its own, as in a container, it may not see the files.
    let is_root = workload::uid_of(pid).ok()? == 0;
    let sees_ours = workload::is_in_our_mount_namespace(pid).unwrap_or(false);
    (is_root && sees_ours).then(|| format!("process {pid} is root"))
}
