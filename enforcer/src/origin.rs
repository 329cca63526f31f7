//! Where a process that asks comes from, as `/proc` shows it: the processes above it, and its cgroup. It is read for people and decides nothing.
//!
//! A process that is the parent of another both before and after it was looked at lived all the while, so a pid that was used again is not
//! mistaken for it; what cannot be looked at ends the chain.

use std::io;
use std::sync::Arc;

use enforcer_proto::principal::{ANCESTORS_MAX, ContainerOrigin, Process, ProcessOrigin};

use crate::workload::{self, Stat};
use crate::workloads::Workloads;

/// Says where processes come from, also in which container they are.
#[derive(Debug, Clone)]
pub struct Reader(Arc<Workloads>);

impl Reader {
    /// With what runtimes tell of these workloads.
    #[must_use]
    pub fn new(workloads: Arc<Workloads>) -> Self {
        Self(workloads)
    }

    /// The origin of a process. None where it is gone, or its pid means another.
    pub async fn of(&self, process: &Process) -> Option<ProcessOrigin> {
        let (process, workloads) = (process.clone(), Arc::clone(&self.0));
        let origin = on_thread(move || {
            let mut origin = read(&process)?;
            // What cannot be read of it leaves the rest.
            let container = container(&workloads, &process).unwrap_or_default();
            origin.container = container.map(Box::new);
            Ok(origin)
        });
        origin.await
    }

    /// The container that a process is in, as is known of it by now; no runtime is asked. None where it is in none, and where that cannot be read.
    pub async fn container(&self, process: &Process) -> Option<Box<ContainerOrigin>> {
        let (process, workloads) = (process.clone(), Arc::clone(&self.0));
        let read = on_thread(move || container(&workloads, &process));
        read.await.flatten().map(Box::new)
    }
}

/// Reads on a thread that may wait for files.
async fn on_thread<T: Send + 'static>(
    read: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Option<T> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(read)) => Some(read),
        Ok(Err(error)) => {
            tracing::debug!(%error, "where a process comes from could not be read");
            None
        }
        Err(error) => {
            tracing::warn!(%error, "where a process comes from was not read");
            None
        }
    }
}

/// What is read of a process: certainly of it, and not of a later one with its pid.
///
/// # Errors
/// When the process is gone, its pid means another, or its start is not known.
fn certain<T>(process: &Process, read: impl FnOnce(Stat) -> io::Result<T>) -> io::Result<T> {
    let is_it = |stat: &Stat| {
        process.start_boot_ns != 0
            && workload::is_same_start(stat.start_boot_ns, process.start_boot_ns)
    };
    let changed = || io::Error::other(format!("pid {} means another process", process.pid));
    let stat = workload::stat(process.pid)?;
    if !is_it(&stat) {
        return Err(changed());
    }
    let read = read(stat)?;
    if is_it(&workload::stat(process.pid)?) {
        Ok(read)
    } else {
        Err(changed())
    }
}

fn container(workloads: &Workloads, process: &Process) -> io::Result<Option<ContainerOrigin>> {
    certain(process, |_| workloads.container_of(process.pid))
}

/// Where a process comes from but for its container, at once.
///
/// # Errors
/// When the process is gone, its pid means another, or its start is not known.
pub fn read(process: &Process) -> io::Result<ProcessOrigin> {
    certain(process, |stat| {
        let ancestors = above(process.pid, stat);
        // One in a cgroup that cannot be named is still one of which the rest is told.
        let cgroup = workload::cgroup_of(process.pid).unwrap_or_default();
        let mut origin = ProcessOrigin {
            ancestors,
            cgroup: cgroup.to_string_lossy().into_owned(),
            ..ProcessOrigin::default()
        };
        origin.bound();
        Ok(origin)
    })
}

/// The processes above one, the next above it first.
fn above(pid: u32, stat: Stat) -> Vec<Process> {
    let (mut below, mut stat) = (pid, stat);
    let mut found = Vec::new();
    while found.len() < ANCESTORS_MAX && below != 1 && stat.parent != 0 {
        let Some((process, above)) = parent(below, &stat) else {
            break;
        };
        below = process.pid;
        found.push(process);
        stat = above;
    }
    found
}

/// The parent of the process `pid`, of which `stat` was read; none where that is not certain.
fn parent(pid: u32, stat: &Stat) -> Option<(Process, Stat)> {
    let above = workload::stat(stat.parent).ok()?;
    let uid = workload::uid_of(stat.parent).ok()?;
    if !may_be_parent(stat, &above, &workload::stat(pid).ok()?) {
        return None;
    }
    let process = Process {
        pid: stat.parent,
        start_boot_ns: above.start_boot_ns,
        uid,
        comm: above.comm.clone(),
    };
    Some((process, above))
}

/// Whether what was read as the parent of a process is: it started no later, and the process is the same and its parent too after that was read.
fn may_be_parent(before: &Stat, above: &Stat, after: &Stat) -> bool {
    above.start_boot_ns <= before.start_boot_ns
        && after.start_boot_ns == before.start_boot_ns
        && after.parent == before.parent
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn process(pid: u32) -> Process {
        Process {
            pid,
            start_boot_ns: workload::start_boot_ns(pid).expect("lives"),
            uid: 0,
            comm: String::new(),
        }
    }

    /// A shell that has started `cat`, which waits for its input to end.
    fn shell_with_cat() -> (Child, u32) {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "cat; exit"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("runs");
        let children = format!("/proc/{0}/task/{0}/children", shell.id());
        let cat = loop {
            assert_eq!(shell.try_wait().expect("is ours"), None);
            let below = std::fs::read_to_string(&children).expect("reads");
            let found = below.split_whitespace().next();
            if let Some(pid) = found.and_then(|pid| pid.parse().ok())
                && workload::comm(pid).is_ok_and(|comm| comm == "cat")
            {
                break pid;
            }
            std::thread::yield_now();
        };
        (shell, cat)
    }

    #[test]
    fn the_processes_above_a_child_and_its_cgroup_are_read() {
        let (mut shell, cat) = shell_with_cat();
        let origin = read(&process(cat)).expect("lives");
        let own = std::process::id();
        let pids: Vec<u32> = origin.ancestors.iter().map(|above| above.pid).collect();
        assert_eq!(
            pids.get(..2),
            Some([shell.id(), own].as_slice()),
            "{origin:?}"
        );
        assert_eq!(origin.ancestors[0].comm, "sh");
        for above in &origin.ancestors {
            assert_eq!(above.start_boot_ns, process(above.pid).start_boot_ns);
            assert_eq!(above.uid, workload::uid_of(above.pid).expect("lives"));
        }
        let is_whole = origin.ancestors.last().is_some_and(|last| last.pid == 1);
        assert!(is_whole || pids.len() <= ANCESTORS_MAX, "{origin:?}");
        let cgroup = workload::cgroup_of(cat).map(|path| path.display().to_string());
        assert_eq!(origin.cgroup, cgroup.unwrap_or_default());
        // Its input ends, and so does it.
        drop(shell.stdin.take());
        shell.wait().expect("ends");
    }

    #[test]
    fn nothing_is_read_of_another_life_of_a_pid_or_of_one_whose_start_is_not_known() {
        let own = process(std::process::id());
        assert!(read(&own).is_ok());
        for start_boot_ns in [0, own.start_boot_ns + 1_000_000_000] {
            let other = Process {
                start_boot_ns,
                ..own.clone()
            };
            assert!(read(&other).is_err());
        }
        // The kernel's programs say a start to the nanosecond.
        let exact = Process {
            start_boot_ns: own.start_boot_ns + 3,
            ..own
        };
        assert!(read(&exact).is_ok());
        let gone = Process {
            pid: u32::MAX,
            ..exact
        };
        assert!(read(&gone).is_err());
    }

    #[test]
    fn a_pid_that_was_used_again_is_no_parent() {
        let stat = |parent, start_boot_ns| Stat {
            comm: String::new(),
            parent,
            start_boot_ns,
        };
        let (child, above) = (stat(7, 100), stat(1, 50));
        assert!(may_be_parent(&child, &above, &child));
        assert!(may_be_parent(&child, &stat(1, 100), &child), "in one tick");
        assert!(
            !may_be_parent(&child, &stat(1, 101), &child),
            "started later"
        );
        assert!(
            !may_be_parent(&child, &above, &stat(1, 100)),
            "taken over since"
        );
        assert!(
            !may_be_parent(&child, &above, &stat(7, 200)),
            "another child"
        );
    }
}
