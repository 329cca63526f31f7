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
const THREADS_MAX: usize = 4096;

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
            for netns in of_process(pid, depth) {
                if netns != own {
                    seen.add(netns, agent, pid);
                }
            }
        }
    }
    (seen, extent)
}

/// Where these processes of agents' are, apart from `own`, and each of so many of their threads.
#[must_use]
pub fn at(whose: &[(AgentName, u32)], own: Netns) -> Seen {
    let mut seen = Seen::default();
    for (agent, pid) in whose {
        for netns in of_process(*pid, Depth::Threads) {
            if netns != own {
                seen.add(netns, agent, *pid);
            }
        }
    }
    seen
}

/// Whether that process is there, and in the workload at this folder below `mount`: its number may be somebody else's by now.
#[must_use]
pub fn is_there(pid: u32, netns: Netns, mount: &Path, folder: &Path) -> bool {
    let in_workload = workload::cgroup_of(pid).is_ok_and(|cgroup| {
        let below = cgroup.strip_prefix("/").unwrap_or(&cgroup);
        mount.join(below).starts_with(folder)
    });
    in_workload && of_process(pid, Depth::Threads).contains(&netns)
}

fn of_process(pid: u32, depth: Depth) -> Vec<Netns> {
    let first = netns_at(Path::new(&format!("/proc/{pid}/ns/net")));
    match depth {
        Depth::Processes => first.into_iter().collect(),
        Depth::Threads => {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
            let threads = threads.into_iter().flatten().flatten().take(THREADS_MAX);
            let of_each = threads.filter_map(|thread| netns_at(&thread.path().join("ns/net")).ok());
            let mut all: Vec<Netns> = first.into_iter().chain(of_each).collect();
            all.sort_unstable();
            all.dedup();
            all
        }
    }
}

fn netns_at(path: &Path) -> io::Result<Netns> {
    std::fs::metadata(path).map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_of_this_process_is_in_its_own_namespace() {
        let own = own().expect("there is one");
        assert_eq!(of_process(std::process::id(), Depth::Threads), [own]);
        assert_eq!(of_process(std::process::id(), Depth::Processes), [own]);
        assert!(of_process(u32::MAX, Depth::Threads).is_empty());
    }
}
