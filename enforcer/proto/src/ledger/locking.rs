//! People keep an agent from windows, whatever the policy and whoever else may say, and let it have them again; or end every window at once. What
//! opens a window demands [`Unlocked`], and only an agent that nobody has locked has one.

use serde::{Deserialize, Serialize};

use super::commands::{check_reason, forbidden, may_watch_over, may_watch_over_any};
use super::{Decision, Ledger, RequestState};
use crate::event::{CloseReason, Event};
use crate::policy::Policy;
use crate::principal::{AgentName, Approver, Caller};
use crate::refusal::{Code, Refusal};
use crate::time::Now;

/// An agent that is kept from windows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// Who locked it.
    pub by: Approver,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Now,
    /// The same, on the ledger's line of time.
    pub(super) since_at_ns: u64,
}

/// Nobody keeps the agent from windows: what must be shown before one opens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unlocked(());

impl Ledger {
    /// Who keeps this agent from windows, where somebody does.
    #[must_use]
    pub fn lock_of(&self, agent: &AgentName) -> Option<&Lock> {
        self.locks.get(agent)
    }

    /// # Errors
    /// [`Code::AgentLocked`].
    pub(super) fn unlocked(&self, agent: &AgentName) -> Result<Unlocked, Refusal> {
        match self.locks.get(agent) {
            None => Ok(Unlocked(())),
            Some(lock) => Err(Refusal::new(
                Code::AgentLocked,
                format!(
                    "Agent {agent} was locked by {}, and gets no window: {}",
                    lock.by, lock.reason
                ),
            )),
        }
    }

    /// Locks an agent: its window ends, what it waits for is denied. Whoever may decide anything for it may, and root. To lock again changes
    /// who says so and why.
    pub(super) fn lock(
        &self,
        policy: &Policy,
        caller: &Caller,
        agent: &AgentName,
        reason: &str,
    ) -> Result<Decision, Refusal> {
        if !may_watch_over(policy, caller, agent) {
            return Err(forbidden(caller, &format!("lock agent {agent}")));
        }
        check_reason(reason)?;
        self.check_known(policy, agent)?;
        let by = Approver::Person {
            uid: caller.process.uid,
        };
        let mut decision = Decision::default();
        decision.events.push(Event::AgentLocked {
            agent: agent.clone(),
            by: by.clone(),
            reason: reason.to_owned(),
        });
        if let Some(grant) = self.held_grant(agent) {
            let process = Some(caller.process.clone());
            grant.close(CloseReason::Revoked, process, &mut decision);
        }
        let waiting = self.requests.values();
        let waiting = waiting
            .filter(|request| request.agent == *agent && request.state == RequestState::Pending);
        decision.events.extend(waiting.map(|request| Event::Denied {
            request: request.id,
            agent: agent.clone(),
            approver: by.clone(),
            reason: format!("the agent is locked: {reason}"),
        }));
        Ok(decision)
    }

    /// Lets an agent have windows again. Nobody does so for an agent of their own.
    pub(super) fn unlock(
        &self,
        policy: &Policy,
        caller: &Caller,
        agent: &AgentName,
    ) -> Result<Decision, Refusal> {
        let uid = caller.process.uid;
        if !may_watch_over(policy, caller, agent) || policy.is_own_uid(agent, uid) {
            return Err(forbidden(caller, &format!("unlock agent {agent}")));
        }
        if self.lock_of(agent).is_none() {
            return Err(Refusal::new(
                Code::InputInvalid,
                format!("Agent {agent} is not locked"),
            ));
        }
        Ok(Decision {
            events: vec![Event::AgentUnlocked {
                agent: agent.clone(),
                by: Approver::Person { uid },
            }],
            ..Decision::default()
        })
    }

    /// Ends every window that the caller may end. That some are not the caller's to end keeps none of the others open.
    pub(super) fn close_all(&self, policy: &Policy, caller: &Caller) -> Result<Decision, Refusal> {
        // Whoever may end none is not told whether there are any.
        if !may_watch_over_any(policy, caller) {
            return Err(forbidden(caller, "end every window"));
        }
        let mut decision = Decision::default();
        for grant in self.open_grants() {
            if may_watch_over(policy, caller, &grant.agent) {
                let process = Some(caller.process.clone());
                grant.close(CloseReason::Revoked, process, &mut decision);
            }
        }
        Ok(decision)
    }

    /// A lock on a name that is nobody's would be believed to hold something.
    fn check_known(&self, policy: &Policy, agent: &AgentName) -> Result<(), Refusal> {
        let mut rules = policy.rules.iter();
        let is_known = rules.any(|rule| rule.agents.contains(agent))
            || self.histories.contains_key(agent)
            || self.locks.contains_key(agent);
        if is_known {
            return Ok(());
        }
        Err(Refusal::new(
            Code::InputInvalid,
            format!("The policy names no agent {agent}"),
        ))
    }
}
