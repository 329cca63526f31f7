//! Who is at the other end of a control connection: credentials from the socket, workload from the process's cgroup.
//!
//! The process is held by a pidfd of the socket's own peer as long as the connection lives, so a pid that is used again is never mistaken
//! for it. Kernels before 6.5 do not give that pidfd; there the process is found by its pid, and must be one that can have connected.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use enforcer_proto::policy::{ApproverSet, Policy};
use enforcer_proto::principal::{AgentName, Caller, Process};
use enforcer_proto::refusal::{Code, Refusal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::net::UnixStream;

use crate::sockopt;
use crate::workload;
use crate::workloads::Workloads;

/// Knows the agents' workloads.
#[derive(Debug)]
pub struct Identify {
    workloads: Arc<Workloads>,
    /// Who decides on anything, as the policy is now.
    approvers: RwLock<ApproverSet>,
}

/// Everyone who may decide on anything, in an emergency too.
fn deciders(policy: &Policy) -> ApproverSet {
    let mut all = ApproverSet::default();
    for rule in &policy.rules {
        let glass = rule.break_glass.iter().map(|glass| &glass.who);
        for who in glass.chain([&rule.approvers]) {
            all.uids.extend(&who.uids);
            all.gids.extend(&who.gids);
        }
    }
    all
}

impl Identify {
    /// The agents' workloads, and everyone who may decide.
    #[must_use]
    pub fn new(workloads: Arc<Workloads>, policy: &Policy) -> Self {
        Self {
            workloads,
            approvers: RwLock::new(deciders(policy)),
        }
    }

    /// The agents' workloads.
    #[must_use]
    pub fn workloads(&self) -> Arc<Workloads> {
        Arc::clone(&self.workloads)
    }

    /// From here on those decide whom this policy names.
    pub fn take_policy(&self, policy: &Policy) {
        let mut approvers = self
            .approvers
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *approvers = deciders(policy);
    }

    /// Whether the caller is root, or somebody who decides on something: they may read the log, and have places of their own.
    #[must_use]
    pub fn may_decide(&self, caller: &Caller) -> bool {
        let approvers = self
            .approvers
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        caller.agent.is_none() && (caller.process.uid == 0 || approvers.names(caller))
    }

    /// Whether the caller may join the workload of `agent`, and the uid it must go on as.
    ///
    /// # Errors
    /// A refusal: no such agent, another uid, or already in another agent's workload.
    pub fn may_join(&self, caller: &Caller, agent: &AgentName) -> Result<Option<u32>, Refusal> {
        let uid = self.workloads.uid(agent).ok_or_else(|| {
            let what = format!("There is no agent {agent} on this host");
            Refusal::new(Code::InputInvalid, what)
        })?;
        let is_elsewhere = caller.agent.as_ref().is_some_and(|other| other != agent);
        let is_allowed = caller.process.uid == 0 || uid == Some(caller.process.uid);
        if is_elsewhere || !is_allowed {
            let what = format!(
                "Uid {} may not join the workload of agent {agent}",
                caller.process.uid
            );
            return Err(Refusal::new(Code::CallerForbidden, what));
        }
        Ok(uid)
    }

    /// The agent whose workload holds the cgroup (or one above it).
    #[must_use]
    pub fn agent_of(&self, cgroup: &Path) -> Option<AgentName> {
        // The kernel names a cgroup from the hierarchy's root; the folders here are absolute.
        let below = cgroup.strip_prefix("/").unwrap_or(cgroup);
        self.workloads.agent_at(&self.mount().join(below))
    }

    /// The cgroup2 mount.
    #[must_use]
    pub fn mount(&self) -> &Path {
        self.workloads.mount()
    }

    /// The folder of an agent's cgroup, while it is there.
    #[must_use]
    pub fn folder(&self, agent: &AgentName) -> Option<PathBuf> {
        self.workloads.of(agent).map(|found| found.folder)
    }

    /// The peer of a control connection that was accepted at `accepted_boot_ns`.
    ///
    /// # Errors
    /// When the process is gone, cannot be looked at or may be another: then nobody is served.
    pub fn peer(&self, stream: &UnixStream, accepted_boot_ns: u64) -> io::Result<Peer> {
        let credentials = rustix::net::sockopt::socket_peercred(stream)?;
        let pid = credentials.pid.as_raw_nonzero().get().unsigned_abs();
        let peer_uid = credentials.uid.as_raw();
        let pidfd = match sockopt::peer_pidfd(stream.as_fd())? {
            Some(pidfd) => pidfd,
            None => {
                let pidfd = pidfd_open(credentials.pid, PidfdFlags::empty())?;
                let (start, uid) = (workload::start_boot_ns(pid)?, workload::uid_of(pid)?);
                if !can_have_connected(start, uid, accepted_boot_ns, peer_uid) {
                    return Err(changed());
                }
                pidfd
            }
        };
        let process = Process {
            pid,
            start_boot_ns: workload::start_boot_ns(pid)?,
            uid: peer_uid,
            comm: workload::comm(pid)?,
        };
        let mut gids: BTreeSet<u32> = sockopt::peer_groups(stream.as_fd())?.into_iter().collect();
        gids.insert(credentials.gid.as_raw());
        let mut peer = Peer {
            caller: Caller {
                process,
                gids,
                agent: None,
            },
            pidfd,
        };
        peer.look_again(self)?;
        Ok(peer)
    }
}

/// Whoever is at the other end of a control connection, held.
#[derive(Debug)]
pub struct Peer {
    caller: Caller,
    pidfd: OwnedFd,
}

impl Peer {
    /// The caller as it was when it was last looked at.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The process, held once more.
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    /// Looks where the process is now: it may have been moved into a workload since it connected. It never becomes less bound.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn look_again(&mut self, identify: &Identify) -> io::Result<&Caller> {
        let cgroup = workload::cgroup_of(self.caller.process.pid)?;
        // Only now is it certain that this was read of the peer and not of a later process with its pid.
        self.ensure_same()?;
        if self.caller.agent.is_none() {
            self.caller.agent = identify.agent_of(&cgroup);
        }
        Ok(&self.caller)
    }

    /// Whether the process is in the workload of `agent` now.
    #[must_use]
    pub fn is_in(&self, identify: &Identify, agent: &AgentName) -> bool {
        let cgroup = workload::cgroup_of(self.caller.process.pid).ok();
        cgroup
            .and_then(|cgroup| identify.agent_of(&cgroup))
            .as_ref()
            == Some(agent)
    }

    /// Moves the process into the cgroup at `folder`; `mount` is that of the hierarchy.
    ///
    /// # Errors
    /// When it is gone, or the kernel refuses.
    pub fn move_into(&self, folder: &Path, mount: &Path) -> io::Result<()> {
        let pid = self.caller.process.pid;
        let from = workload::cgroup_of(pid)?;
        move_held(
            || self.ensure_same(),
            || workload::move_into(folder, pid),
            || {
                let from = mount.join(from.strip_prefix("/").unwrap_or(&from));
                // A process that is gone needs no moving back; only another with its pid does.
                if workload::start_boot_ns(pid).is_ok()
                    && let Err(error) = workload::move_into(&from, pid)
                {
                    tracing::error!(pid, %error, "a process that took the place of one that joined a workload could not be moved back");
                }
            },
        )
    }

    /// Whether somebody looks into the process: inside a workload it would still be looked into.
    ///
    /// # Errors
    /// When it is gone.
    pub fn is_traced(&self) -> io::Result<bool> {
        workload::is_traced(self.caller.process.pid)
    }

    /// Ends the process.
    pub fn kill(&self) {
        let killed = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        if let Err(error) = killed {
            tracing::error!(%error, "a process that is traced inside a workload could not be ended");
        }
    }

    /// That the pid still means this process: it has not ended, and has the start it had.
    fn ensure_same(&self) -> io::Result<()> {
        let is_same = || -> io::Result<bool> {
            let start = workload::start_boot_ns(self.caller.process.pid)?;
            Ok(start == self.caller.process.start_boot_ns && is_alive(self.pidfd.as_fd())?)
        };
        if is_same()? { Ok(()) } else { Err(changed()) }
    }
}

/// Writes a pid into a cgroup only while it means the process it should, and takes that back where it turns out that it did not: the
/// kernel takes a number there and no pidfd. A process that lives before and after had its pid all the while.
fn move_held(
    is_same: impl Fn() -> io::Result<()>,
    write: impl FnOnce() -> io::Result<()>,
    undo: impl FnOnce(),
) -> io::Result<()> {
    is_same()?;
    write()?;
    let held = is_same();
    if held.is_err() {
        undo();
    }
    held
}

/// Whether a process that was found by its pid can be the one that connected: it had started when the connection was accepted, and has
/// the uid that connected. The kernel counts starts in steps of 10 ms.
const fn can_have_connected(
    start_boot_ns: u64,
    uid: u32,
    accepted_boot_ns: u64,
    peer_uid: u32,
) -> bool {
    start_boot_ns <= accepted_boot_ns && uid == peer_uid
}

fn changed() -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        "the calling process has ended, or its number means another",
    )
}

fn is_alive(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let zero = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    Ok(poll(&mut fds, Some(&zero))? == 0)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_process_that_started_after_the_connection_or_has_another_uid_did_not_make_it() {
        assert!(can_have_connected(100, 7, 100, 7));
        assert!(!can_have_connected(101, 7, 100, 7));
        assert!(!can_have_connected(100, 8, 100, 7));
    }

    #[test]
    fn what_is_not_the_peer_before_is_not_moved_and_after_is_moved_back() {
        let moved = |before: bool, after: bool| {
            let (asked, steps) = (Cell::new(0), Cell::new(String::new()));
            let step = |name: &str| steps.set(steps.take() + name);
            let done = move_held(
                || {
                    asked.set(asked.get() + 1);
                    let is_same = if asked.get() == 1 { before } else { after };
                    if is_same { Ok(()) } else { Err(changed()) }
                },
                || {
                    step("moved ");
                    Ok(())
                },
                || step("back"),
            );
            (done.is_ok(), steps.take())
        };
        assert_eq!(moved(true, true), (true, "moved ".into()));
        assert_eq!(moved(false, true), (false, String::new()));
        assert_eq!(moved(true, false), (false, "moved back".into()));
    }

    #[test]
    fn a_process_that_has_ended_is_not_moved() {
        let mut child = std::process::Command::new("/bin/sleep")
            .arg("60")
            .spawn()
            .expect("runs");
        let peer = Peer {
            pidfd: pidfd_open(
                rustix::process::Pid::from_child(&child),
                PidfdFlags::empty(),
            )
            .expect("lives"),
            caller: Caller {
                process: Process {
                    pid: child.id(),
                    start_boot_ns: workload::start_boot_ns(child.id()).expect("lives"),
                    uid: 0,
                    comm: String::new(),
                },
                gids: BTreeSet::new(),
                agent: None,
            },
        };
        let folder = tempfile::tempdir().expect("a folder");
        peer.move_into(folder.path(), Path::new("/"))
            .expect("lives");
        let written = folder.path().join("cgroup.procs");
        assert_eq!(
            std::fs::read_to_string(&written).expect("written"),
            child.id().to_string()
        );
        std::fs::remove_file(&written).expect("removes");
        child.kill().expect("kills");
        // It is not waited for yet: its pid is still its own, and it has ended all the same.
        while is_alive(peer.pidfd.as_fd()).expect("polls") {}
        assert!(peer.move_into(folder.path(), Path::new("/")).is_err());
        assert!(!written.exists());
        child.wait().expect("ends");
    }
}
