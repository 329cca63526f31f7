//! Who is at the other end of a control connection: credentials from the socket, workload from the process's cgroup.
//!
//! The process is held by a pidfd of the socket's own peer while it is looked at, so a pid that is used again is never mistaken for it.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use enforcer_proto::policy::{ApproverSet, Policy};
use enforcer_proto::principal::{AgentName, Caller, Process};
use enforcer_proto::refusal::{Code, Refusal};
use rustix::event::{PollFd, PollFlags, poll};
use tokio::net::UnixStream;

use crate::sockopt;
use crate::workload;

/// Knows the agents' workloads.
#[derive(Debug)]
pub struct Identify {
    /// The cgroup2 mount.
    mount: PathBuf,
    agents: Vec<Workload>,
    /// Who decides on anything.
    approvers: ApproverSet,
}

/// An agent's workload.
#[derive(Debug, Clone)]
pub struct Workload {
    /// The agent.
    pub agent: AgentName,
    /// The absolute folder of its cgroup.
    pub folder: PathBuf,
    /// The uid it runs as.
    pub uid: Option<u32>,
}

impl Identify {
    /// The agents' workloads below the cgroup2 `mount`, and everyone who may decide.
    #[must_use]
    pub fn new(
        mount: &Path,
        workloads: impl IntoIterator<Item = Workload>,
        policy: &Policy,
    ) -> Self {
        let mut approvers = ApproverSet::default();
        for rule in &policy.rules {
            approvers.uids.extend(&rule.approvers.uids);
            approvers.gids.extend(&rule.approvers.gids);
        }
        Self {
            mount: mount.to_owned(),
            agents: workloads.into_iter().collect(),
            approvers,
        }
    }

    /// Whether the caller is root, or somebody who decides on something: they may read the log, and have places of their own.
    #[must_use]
    pub fn may_decide(&self, caller: &Caller) -> bool {
        caller.agent.is_none() && (caller.process.uid == 0 || self.approvers.names(caller))
    }

    /// Whether the caller may join the workload of `agent`, and the uid it must go on as.
    ///
    /// # Errors
    /// A refusal: no such agent, another uid, or already in another agent's workload.
    pub fn may_join(&self, caller: &Caller, agent: &AgentName) -> Result<Option<u32>, Refusal> {
        let workload = self
            .agents
            .iter()
            .find(|workload| workload.agent == *agent)
            .ok_or_else(|| {
                Refusal::new(
                    Code::InputInvalid,
                    format!("There is no agent {agent} on this host"),
                )
            })?;
        let is_elsewhere = caller.agent.as_ref().is_some_and(|other| other != agent);
        let is_allowed = caller.process.uid == 0 || workload.uid == Some(caller.process.uid);
        if is_elsewhere || !is_allowed {
            let what = format!(
                "Uid {} may not join the workload of agent {agent}",
                caller.process.uid
            );
            return Err(Refusal::new(Code::CallerForbidden, what));
        }
        Ok(workload.uid)
    }

    /// The agent whose workload holds the cgroup (or one above it).
    #[must_use]
    pub fn agent_of(&self, cgroup: &Path) -> Option<&AgentName> {
        // The kernel names a cgroup from the hierarchy's root; the folders here are absolute.
        let folder = self.mount.join(cgroup.strip_prefix("/").unwrap_or(cgroup));
        self.agents
            .iter()
            .find(|workload| folder.starts_with(&workload.folder))
            .map(|workload| &workload.agent)
    }

    /// The folder of an agent's cgroup.
    #[must_use]
    pub fn folder(&self, agent: &AgentName) -> Option<PathBuf> {
        self.agents
            .iter()
            .find(|workload| workload.agent == *agent)
            .map(|workload| workload.folder.clone())
    }

    /// The peer of a control connection.
    ///
    /// # Errors
    /// When the process is gone or cannot be looked at: then nobody is served.
    pub fn caller(&self, stream: &UnixStream) -> io::Result<Caller> {
        let credentials = rustix::net::sockopt::socket_peercred(stream)?;
        let pidfd = sockopt::peer_pidfd(stream.as_fd(), credentials.pid)?;
        let pid = credentials.pid.as_raw_nonzero().get().unsigned_abs();
        let cgroup = workload::cgroup_of(pid)?;
        let process = Process {
            pid,
            start_boot_ns: workload::start_boot_ns(pid)?,
            uid: credentials.uid.as_raw(),
            comm: workload::comm(pid)?,
        };
        // Only now is it certain that all of the above was read of the peer and not of a later process with its pid.
        ensure_alive(pidfd.as_fd())?;
        let mut gids: BTreeSet<u32> = sockopt::peer_groups(stream.as_fd())?.into_iter().collect();
        gids.insert(credentials.gid.as_raw());
        Ok(Caller {
            process,
            gids,
            agent: self.agent_of(&cgroup).cloned(),
        })
    }
}

fn ensure_alive(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let zero = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut fds, Some(&zero))? == 0 {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the calling process has ended",
        ))
    }
}
