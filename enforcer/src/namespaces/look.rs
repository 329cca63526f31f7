//! Sees in which network namespaces the processes of agents are. Reads `/proc` and the lists of cgroups; changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use enforcer_proto::principal::AgentName;

use super::{Door, Netns, Place, Seen};
use crate::workload;
use crate::workloads::Found;

/// Below how many cgroups of one agent processes are looked for. From what is in others it is refused.
const BELOW_MAX: usize = 4096;

/// How many threads of one process are looked at. From where others have gone it is refused.
const THREADS_MAX: usize = 256;

/// How many threads of one agent's are looked at in one look at all. Of one that has more nothing is left while it has, and what is served beyond is found
/// as the kernel refuses it.
const PER_AGENT_MAX: usize = 16_384;

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

/// Where processes of these workloads are, apart from `own`, and of which agents that is all there is to see: what could not be looked at has not gone.
/// What goes meanwhile is left out.
#[must_use]
pub fn look(workloads: &BTreeMap<AgentName, Found>, own: Netns, depth: Depth) -> Seen {
    let mut seen = Seen::default();
    for (agent, found) in workloads {
        match workload::all_processes(&found.folder, BELOW_MAX) {
            Ok((pids, is_all)) => {
                if !is_all {
                    seen.leave_out(agent);
                }
                see_all(&mut seen, own, (agent, &pids), depth);
            }
            Err(error) if workload::is_gone(&error) => {}
            Err(_) => seen.leave_out(agent),
        }
    }
    seen
}

/// Looks at one agent's processes until it has had its part of the look.
fn see_all(seen: &mut Seen, own: Netns, (agent, pids): (&AgentName, &[u32]), depth: Depth) {
    let mut looked_at = 0;
    for pid in pids {
        if looked_at >= PER_AGENT_MAX {
            return seen.leave_out(agent);
        }
        looked_at += see(seen, own, (agent, *pid), depth);
    }
}

/// Where this process of an agent's is, apart from `own`, and each of so many of its threads.
#[must_use]
pub fn at(agent: &AgentName, pid: u32, own: Netns) -> Seen {
    let mut seen = Seen::default();
    see(&mut seen, own, (agent, pid), Depth::Threads);
    seen
}

/// Gives at how many threads it has looked.
fn see(seen: &mut Seen, own: Netns, (agent, pid): (&AgentName, u32), depth: Depth) -> usize {
    let found = of_process(pid, depth);
    for (door, netns) in &found {
        match netns {
            Ok(netns) if *netns == own => {}
            Ok(netns) => seen.add(*netns, agent, *door),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => seen.hide(agent),
            // It has gone.
            Err(_) => {}
        }
    }
    found.len()
}

/// Whether that thread is there, and its process in the workload at this folder below `mount`: its number may be somebody else's by now.
#[must_use]
pub fn is_there(door: Door, netns: Netns, mount: &Path, folder: &Path) -> bool {
    let in_workload = workload::cgroup_of(door.pid).is_ok_and(|cgroup| {
        let below = cgroup.strip_prefix("/").unwrap_or(&cgroup);
        mount.join(below).starts_with(folder)
    });
    in_workload && netns_at(&door.path()).is_ok_and(|found| found == netns)
}

/// Of these, those that nobody of their agents' is in any more, as far as a look has seen and those show by whom each was known: a thread that is alone somewhere
/// is not seen by a look at processes.
#[must_use]
pub fn gone(
    places: Vec<Place>,
    seen: &Seen,
    mount: &Path,
    workloads: &BTreeMap<AgentName, Found>,
) -> Vec<Place> {
    let is_there = |place: &Place| {
        let found = workloads.get(&place.agent);
        found.is_some_and(|found| is_there(place.door, place.netns, mount, &found.folder))
    };
    let has_gone = |place: &Place| !seen.may_have_of(place.netns, &place.agent) && !is_there(place);
    places.into_iter().filter(has_gone).collect()
}

/// Where each thread of a process is, of as many as are looked at. The first thread comes first.
fn of_process(pid: u32, depth: Depth) -> Vec<(Door, io::Result<Netns>)> {
    let mut doors = vec![Door::first(pid)];
    match depth {
        Depth::Processes => {}
        Depth::Threads => {
            let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
            let threads = threads.into_iter().flatten().flatten();
            let tids = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
            let others = tids.filter(|tid| *tid != pid).map(|tid| Door { pid, tid });
            doors.extend(others.take(THREADS_MAX - 1));
        }
    }
    let each = doors.into_iter();
    each.map(|door| (door, netns_at(&door.path()))).collect()
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
            let found = of_process(std::process::id(), depth);
            assert_eq!(found[0].0, Door::first(std::process::id()));
            assert!(
                found
                    .iter()
                    .all(|(_, netns)| matches!(netns, Ok(netns) if *netns == own))
            );
        }
        let nobody: AgentName = "bot".parse().expect("a name");
        assert_eq!(at(&nobody, u32::MAX, own), Seen::default());
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
            at(&whose, pid, 0)
        };
        let seen = std::thread::spawn(work).join().expect("ends");
        other.kill().expect("kills");
        other.wait().expect("ends");
        let mut hidden = Seen::default();
        hidden.hide(&agent);
        assert_eq!(seen, hidden);
    }
}
