//! Joining a workload: the calling process is moved into the agent's cgroup. It goes in and never out again by this way.

use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, Caller};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{Joined, Reply};

use super::{Control, refused};
use crate::workload;

/// Moves the caller into the workload of `agent`, when it is root or runs as the agent's uid.
pub(super) async fn join(control: &Control, caller: &Caller, agent: &AgentName) -> Reply {
    let uid = match control.identify.may_join(caller, agent) {
        Ok(uid) => uid,
        Err(refusal) => {
            let event = Event::DecisionRefused {
                caller: caller.clone(),
                action: format!("join {agent}"),
                refusal: refusal.clone(),
            };
            return refused(control.engine.record(event).await.err().unwrap_or(refusal));
        }
    };
    // Record, then open: a process is in the workload only after the log says so.
    let event = Event::ProcessJoined {
        agent: agent.clone(),
        process: caller.process.clone(),
    };
    if let Err(refusal) = control.engine.record(event).await {
        return refused(refusal);
    }
    let moved = control
        .identify
        .folder(agent)
        .map(|folder| workload::move_into(&folder, caller.process.pid));
    match moved {
        Some(Ok(())) => Reply::Joined(Joined {
            uid,
            env: control.client_env.clone(),
        }),
        Some(Err(error)) => {
            tracing::error!(%agent, pid = caller.process.pid, %error, "a process could not be moved into its workload");
            refused(Refusal::new(
                Code::KernelFailed,
                format!(
                    "The kernel did not move process {} into {agent}'s cgroup",
                    caller.process.pid
                ),
            ))
        }
        None => refused(Refusal::new(
            Code::InputInvalid,
            format!("There is no agent {agent}"),
        )),
    }
}
