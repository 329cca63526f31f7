//! Joining a workload: the calling process is moved into the agent's cgroup. It goes in and never out again by this way.

use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, Caller};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{Joined, Reply};

use super::peer::Peer;
use super::{Control, refused};

/// Moves the caller into the workload of `agent`, when it is root or runs as the agent's uid.
pub(super) async fn join(control: &Control, peer: &mut Peer, agent: &AgentName) -> Reply {
    let caller = match peer.look_again(&control.identify) {
        Ok(caller) => caller.clone(),
        Err(error) => return refuse(control, peer.caller(), agent, gone(peer, &error)).await,
    };
    let allowed = control.identify.may_join(&caller, agent).and_then(|uid| {
        let folder = control.identify.folder(agent);
        let none = || {
            Refusal::new(
                Code::InputInvalid,
                format!("The workload of agent {agent} is not there: start its unit or container"),
            )
        };
        if peer.is_traced().unwrap_or(true) {
            return Err(traced(peer));
        }
        Ok((uid, folder.ok_or_else(none)?))
    });
    let (uid, folder) = match allowed {
        Ok(allowed) => allowed,
        Err(refusal) => return refuse(control, &caller, agent, refusal).await,
    };
    // Record, then open: a process is in the workload only after the log says so.
    let event = Event::ProcessJoined {
        agent: agent.clone(),
        process: caller.process.clone(),
    };
    if let Err(refusal) = control.engine.record(event).await {
        return refused(refusal);
    }
    let moved = peer.move_into(&folder, control.identify.mount());
    // Asked again where nobody outside can begin any more, if the kernel's hooks are there: what began in between ends here.
    if moved.is_ok() && peer.is_traced().unwrap_or(true) {
        peer.kill();
        return refuse(control, &caller, agent, traced(peer)).await;
    }
    match moved {
        Ok(()) => Reply::Joined(Joined {
            uid,
            env: control.client_env.clone(),
        }),
        Err(error) => {
            tracing::error!(%agent, pid = caller.process.pid, %error, "a process could not be moved into its workload");
            refuse(control, &caller, agent, gone(peer, &error)).await
        }
    }
}

/// Records the refusal, and gives it.
async fn refuse(control: &Control, caller: &Caller, agent: &AgentName, refusal: Refusal) -> Reply {
    let event = Event::DecisionRefused {
        caller: caller.clone(),
        action: format!("join {agent}"),
        refusal: refusal.clone(),
    };
    refused(control.engine.record(event).await.err().unwrap_or(refusal))
}

fn traced(peer: &Peer) -> Refusal {
    let what = format!(
        "Process {} is traced by another, which would go on inside the workload",
        peer.caller().process.pid
    );
    Refusal::new(Code::CallerForbidden, what)
}

fn gone(peer: &Peer, error: &std::io::Error) -> Refusal {
    let pid = peer.caller().process.pid;
    if error.kind() == std::io::ErrorKind::NotFound {
        let what = format!("Process {pid} has ended, or its number means another");
        Refusal::new(Code::CallerUnknown, what)
    } else {
        Refusal::new(
            Code::KernelFailed,
            format!("The kernel did not move process {pid} into the agent's cgroup"),
        )
    }
}
