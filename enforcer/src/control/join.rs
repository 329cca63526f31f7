//! Joining a workload: the calling process is moved into the agent's cgroup. It goes in and never out again by this way.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use enforcer_proto::event::{Event, Refuser};
use enforcer_proto::id::RequestId;
use enforcer_proto::principal::{AgentName, Caller};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{Joined, Reply};

use super::peer::Peer;
use super::runs;
use super::{Control, refused};
use crate::pace::{Bucket, Pace};
use crate::tally::{Refused, Who};

/// How often processes may join the workload of one agent, but for those of root: each takes a record. One more is refused, and counted.
pub const JOINS: Pace = Pace {
    burst: 200,
    per_second: 2,
};

/// How often each agent's workload was joined. No more are held than there are agents.
#[derive(Debug, Default)]
pub struct Joins(Mutex<BTreeMap<AgentName, Bucket>>);

impl Joins {
    /// Whether one more may join now. `agent` is a configured one.
    fn take(&self, agent: &AgentName, now_boot_ns: u64) -> bool {
        let mut by_agent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = by_agent.entry(agent.clone());
        let bucket = bucket.or_insert_with(|| Bucket::new(JOINS));
        bucket.take(1, now_boot_ns)
    }
}

/// Moves the caller into the workload of `agent`, when it is root or runs as the agent's uid. The window that `run` asked for ends with it.
pub(super) async fn join(
    control: &Control,
    peer: &mut Peer,
    agent: &AgentName,
    run: Option<RequestId>,
) -> Reply {
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
    if let Some(request) = run
        && let Err(refusal) = runs::follow(control, peer, agent, request)
    {
        return refuse(control, &caller, agent, refusal).await;
    }
    // It is there already: nothing happens, and so nothing is recorded.
    if peer.is_in(&control.identify, agent) {
        return joined(control, uid);
    }
    if caller.process.uid != 0 && !control.joins.take(agent, control.clock.now().boot_ns) {
        return too_often(control, agent);
    }
    // Record, then open: a process is in the workload only after the log says so.
    let event = Event::ProcessJoined {
        agent: agent.clone(),
        process: caller.process.clone(),
    };
    if let Err(refusal) = control.engine.record(event).await {
        // Where the disk only did not answer in time, that it joins is on record later: then so is what came of it.
        return refuse(control, &caller, agent, refusal).await;
    }
    let moved = peer.move_into(&folder, control.identify.mount());
    // Asked again where nobody outside can begin any more, if the kernel's hooks are there: what began in between ends here.
    if moved.is_ok() && peer.is_traced().unwrap_or(true) {
        peer.kill();
        return refuse(control, &caller, agent, traced(peer)).await;
    }
    match moved {
        Ok(()) => joined(control, uid),
        Err(error) => {
            tracing::error!(%agent, pid = caller.process.pid, %error, "a process could not be moved into its workload");
            refuse(control, &caller, agent, gone(peer, &error)).await
        }
    }
}

fn joined(control: &Control, uid: Option<u32>) -> Reply {
    Reply::Joined(Joined {
        uid,
        env: control.client_env.clone(),
    })
}

/// Counts the refusal, and gives it.
fn too_often(control: &Control, agent: &AgentName) -> Reply {
    control.engine.count_refused(Refused {
        who: Who::Agent(agent.clone()),
        by: Refuser::Control,
        code: Code::Overloaded,
    });
    let what = format!(
        "Processes join the workload of agent {agent} more often than {} times a second",
        JOINS.per_second
    );
    refused(Refusal::new(Code::Overloaded, what))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_joins_of_one_agent_have_a_pace_and_leave_anothers_alone() {
        let (joins, second) = (Joins::default(), 1_000_000_000);
        let [one, other] = ["one", "other"].map(|name| name.parse().expect("a name"));
        let joined = |agent, now| (0..1000).filter(|_| joins.take(agent, now)).count();
        assert_eq!(joined(&one, second), JOINS.burst as usize);
        assert_eq!(joined(&one, 2 * second), JOINS.per_second as usize);
        assert!(joins.take(&other, second));
    }
}
