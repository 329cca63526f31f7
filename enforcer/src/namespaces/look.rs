//! Sees in which network namespaces the processes of agents are. Reads `/proc` and the lists of cgroups; changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use enforcer_proto::principal::AgentName;

use super::{Extent, Netns, Seen};
use crate::workload;
use crate::workloads::Found;

/// Below how many cgroups of one agent processes are looked for. From what is in others it is refused.
const BELOW_MAX: usize = 4096;

/// How many threads of one process are looked at. From where others have gone it is refused.
const THREADS_MAX: usize = 256;

/// How closely is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At processes. One is where its first thread is.
    Processes,
    /// At each of their threads: one may have gone elsewhere by itself.
    Threads,
}

/// This process's own.
///
/// # Errors
/// When it cannot be told.
pub fn own() -> io::Result<Netns> {
    netns_at(Path::new("/proc/self/ns/net"))
}

/// Where processes of these workloads are, apart from `own`, and whether that is all there is to see: what could not be looked at has not gone. What
/// goes meanwhile is left out.
#[must_use]
pub fn look(workloads: &BTreeMap<AgentName, Found>, own: Netns, depth: Depth) -> (Seen, Extent) {
    let mut seen = Seen::default();
    let mut extent = Extent::Whole;
    for (agent, found) in workloads {
        let pids = match workload::all_processes(&found.folder, BELOW_MAX) {
            Ok((pids, true)) => pids,
            Ok((pids, false)) => {
                extent = Extent::Part;
                pids
            }
            Err(error) => {
                if !workload::is_gone(&error) {
                    extent = Extent::Part;
                }
                continue;
            }
        };
        for pid in pids {
            see(&mut seen, own, (agent, pid), depth);
        }
    }
    if !seen.hidden().is_empty() {
        extent = Extent::Part;
    }
    (seen, extent)
}

/// Where these processes of agents' are, apart from `own`, and each of so many of their threads.
#[must_use]
pub fn at(whose: &[(AgentName, u32)], own: Netns) -> Seen {
    let mut seen = Seen::default();
    for (agent, pid) in whose {
        see(&mut seen, own, (agent, *pid), Depth::Threads);
    }
    seen
}

fn see(seen: &mut Seen, own: Netns, (agent, pid): (&AgentName, u32), depth: Depth) {
    let (found, is_all) = of_process(pid, depth);
    for netns in found.into_iter().filter(|netns| *netns != own) {
        seen.add(netns, agent, pid);
    }
    if !is_all {
        seen.hide(agent);
    }
}

/// Whether that process is there, and in the workload at this folder below `mount`: its number may be somebody else's by now.
#[must_use]
pub fn is_there(pid: u32, netns: Netns, mount: &Path, folder: &Path) -> bool {
    let in_workload = workload::cgroup_of(pid).is_ok_and(|cgroup| {
        let below = cgroup.strip_prefix("/").unwrap_or(&cgroup);
        mount.join(below).starts_with(folder)
    });
    in_workload && of_process(pid, Depth::Threads).0.contains(&netns)
}

/// Where a process is, and whether the kernel let all of that be seen.
fn of_process(pid: u32, depth: Depth) -> (Vec<Netns>, bool) {
    let mut found = vec![netns_at(Path::new(&format!("/proc/{pid}/ns/net")))];
    match depth {
        Depth::Processes => {}
        Depth::Threads => {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
            let threads = threads.into_iter().flatten().flatten().take(THREADS_MAX);
            found.extend(threads.map(|thread| netns_at(&thread.path().join("ns/net"))));
        }
    }
    let is_hidden = |found: &io::Result<Netns>| {
        let error = found.as_ref().err();
        error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    let is_all = !found.iter().any(is_hidden);
    let mut all: Vec<Netns> = found.into_iter().flatten().collect();
    all.sort_unstable();
    all.dedup();
    (all, is_all)
}

fn netns_at(path: &Path) -> io::Result<Netns> {
    std::fs::metadata(path).map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

    use super::*;

    #[test]
    fn every_thread_of_this_process_is_in_its_own_namespace() {
        let own = own().expect("there is one");
        for depth in [Depth::Threads, Depth::Processes] {
            assert_eq!(of_process(std::process::id(), depth), (vec![own], true));
        }
        assert_eq!(of_process(u32::MAX, Depth::Threads), (Vec::new(), true));
    }

    #[test]
    fn whose_processes_the_kernel_does_not_let_the_daemon_look_at_is_told_and_nothing_of_theirs_is_taken_for_gone()
     {
        let mut other = Command::new("sleep").arg("60").spawn().expect("starts");
        let agent: AgentName = "bot".parse().expect("a name");
        let (pid, whose) = (other.id(), agent.clone());
        let work = move || {
            // Root has it, and a process that has more than the daemon may not be looked at without it.
            let mut sets = capabilities(None).expect("reads");
            sets.effective.remove(CapabilitySet::SYS_PTRACE);
            sets.permitted.remove(CapabilitySet::SYS_PTRACE);
            set_capabilities(None, sets).expect("gives it up");
            at(&[(whose, pid)], 0)
        };
        let seen = std::thread::spawn(work).join().expect("ends");
        other.kill().expect("kills");
        other.wait().expect("ends");
        let mut hidden = Seen::default();
        hidden.hide(&agent);
        assert_eq!(seen, hidden);
    }
}
