//! What ends with a process: a window that was asked for a command is given back as soon as the process that asked, or the command itself, has
//! ended, however that came about. A pidfd says so, not a connection: that could be handed on, and would end with this daemon. After a restart
//! the same processes are watched again, by the record of who they were.
#![expect(
    unsafe_code,
    reason = "the runtime takes no file descriptor without a promise that it stays open"
)]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::event::{Event, Refuser};
use enforcer_proto::id::RequestId;
use enforcer_proto::policy::Ask as Terms;
use enforcer_proto::principal::{AgentName, Caller, Process};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{Ask, Reply};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::peer::Peer;
use super::{Control, refused};
use crate::engine::{Engine, RunLeft};
use crate::tally::{Refused, Who};
use crate::workload;

/// The most processes that are watched at once for one agent; a request or a join past it is refused as [`Code::Overloaded`].
pub const WATCHED_PER_AGENT_MAX: usize = 32;
/// The most of all agents; likewise.
pub const WATCHED_MAX: usize = 1024;
/// How long to wait before an engine that has no room is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// How many processes are watched.
#[derive(Debug, Default)]
pub struct Runs(Mutex<BTreeMap<AgentName, usize>>);

/// A place for one of them; given back on drop.
#[derive(Debug)]
struct Watch {
    runs: Arc<Runs>,
    agent: AgentName,
}

impl Runs {
    fn take(self: &Arc<Self>, agent: &AgentName) -> Option<Watch> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = watched.get(agent).copied().unwrap_or(0);
        if own >= WATCHED_PER_AGENT_MAX || watched.values().sum::<usize>() >= WATCHED_MAX {
            return None;
        }
        watched.insert(agent.clone(), own + 1);
        Some(Watch {
            runs: Arc::clone(self),
            agent: agent.clone(),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.runs.0.lock().unwrap_or_else(PoisonError::into_inner);
        match watched.get_mut(&self.agent) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(watched.remove(&self.agent)),
        }
    }
}

/// Asks for a window for a command of `agent`'s, where the caller may join its workload.
pub(super) async fn request(control: &Control, peer: &Peer, agent: AgentName, ask: Terms) -> Reply {
    let mut caller = peer.caller().clone();
    if let Err(refusal) = control.identify.may_join(&caller, &agent) {
        let event = Event::RequestRefused {
            caller,
            ask: Some(ask),
            refusal: refusal.clone(),
        };
        return refused(control.engine.record(event).await.err().unwrap_or(refusal));
    }
    let Some(watch) = control.runs.take(&agent) else {
        return refused(too_many(control, &agent));
    };
    caller.agent = Some(agent.clone());
    let asked = Ask::RequestForRun { agent, ask };
    let origin = control.processes.of(&caller.process).await;
    let reply = control
        .engine
        .control_from(caller.clone(), asked, origin)
        .await;
    if let Reply::Requested { request, .. } = &reply {
        let watched = ends_with(
            control.engine.clone(),
            peer.pidfd(),
            caller,
            *request,
            watch,
        );
        tokio::spawn(watched);
    }
    reply
}

/// Has what `request` asked for end with this peer as well, which joins the workload as the command.
pub(super) fn follow(
    control: &Control,
    peer: &Peer,
    agent: &AgentName,
    request: RequestId,
) -> Result<(), Refusal> {
    let watch = control
        .runs
        .take(agent)
        .ok_or_else(|| too_many(control, agent))?;
    let mut caller = peer.caller().clone();
    caller.agent = Some(agent.clone());
    let watched = ends_with(control.engine.clone(), peer.pidfd(), caller, request, watch);
    tokio::spawn(watched);
    Ok(())
}

/// Watches again what a start has found. A process that is gone, or whose number means another, has ended.
pub fn resume(engine: &Engine, runs: &Arc<Runs>, left: Vec<RunLeft>) {
    for RunLeft {
        agent,
        request,
        process,
    } in left
    {
        let pidfd = held(&process);
        let caller = Caller {
            process,
            gids: std::collections::BTreeSet::new(),
            agent: Some(agent.clone()),
        };
        let engine = engine.clone();
        match runs.take(&agent) {
            Some(watch) => drop(tokio::spawn(ends_with(
                engine, pidfd, caller, request, watch,
            ))),
            None => drop(tokio::spawn(async move {
                engine.run_ended(caller, request).await;
            })),
        }
    }
}

fn too_many(control: &Control, agent: &AgentName) -> Refusal {
    control.engine.count_refused(Refused {
        who: Who::Agent(agent.clone()),
        by: Refuser::Control,
        code: Code::Overloaded,
    });
    let what = format!(
        "{WATCHED_PER_AGENT_MAX} commands of agent {agent} hold a window or wait for one, or as many in all as may"
    );
    Refusal::new(Code::Overloaded, what)
}

/// Gives back what came of the request once the process has ended. What cannot be watched has ended.
async fn ends_with(
    engine: Engine,
    pidfd: io::Result<OwnedFd>,
    caller: Caller,
    request: RequestId,
    _watch: Watch,
) {
    tokio::select! {
        biased;
        () = ended(pidfd) => engine.run_ended(caller, request).await,
        () = over(&engine, &caller, request) => {}
    }
}

async fn ended(pidfd: io::Result<OwnedFd>) {
    let watched = pidfd.and_then(|pidfd| {
        // SAFETY: an `OwnedFd` is one descriptor, open until it is dropped, and it is dropped with the registration.
        let registered = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
        registered.map_err(io::Error::from)
    });
    let ended = match watched {
        Ok(watched) => watched.readable().await.map(|_| ()),
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::warn!(%error, "a process cannot be watched: what ends with it ends now");
    }
}

/// Returns when there is nothing left that could be given back.
async fn over(engine: &Engine, caller: &Caller, request: RequestId) {
    let grant = loop {
        match engine.decided(caller.clone(), request).await {
            Ok(view) => break view.grant,
            Err(refusal) if refusal.code == Code::Overloaded => tokio::time::sleep(AGAIN).await,
            Err(_) => return,
        }
    };
    let mut windows = engine.windows();
    let is_closed = windows.wait_for(|open| {
        let own = caller.agent.as_ref().and_then(|agent| open.get(agent));
        own.is_none_or(|window| window.grant != grant)
    });
    // An engine that has stopped gives nothing back.
    drop(is_closed.await);
}

/// The process, where it still lives.
fn held(process: &Process) -> io::Result<OwnedFd> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the process has ended");
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    let pidfd = pidfd_open(pid.ok_or_else(gone)?, PidfdFlags::empty())?;
    if workload::start_boot_ns(process.pid)? == process.start_boot_ns {
        Ok(pidfd)
    } else {
        Err(gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_has_so_many_watched_and_gets_its_places_back() {
        let runs = Arc::new(Runs::default());
        let agent: AgentName = "bot".parse().expect("a name");
        let other: AgentName = "ops".parse().expect("a name");
        let taken: Vec<_> = (0..WATCHED_PER_AGENT_MAX)
            .map(|_| runs.take(&agent).expect("a place"))
            .collect();
        assert!(runs.take(&agent).is_none());
        assert!(runs.take(&other).is_some());
        drop(taken);
        assert!(runs.take(&agent).is_some());
        assert!(runs.0.lock().expect("no panic").is_empty());
    }

    #[test]
    fn a_process_is_held_only_if_it_is_the_same_life() {
        let pid = std::process::id();
        let mut own = Process {
            pid,
            start_boot_ns: workload::start_boot_ns(pid).expect("lives"),
            uid: 0,
            comm: String::new(),
        };
        assert!(held(&own).is_ok());
        own.start_boot_ns += 1;
        assert!(held(&own).is_err());
    }
}
