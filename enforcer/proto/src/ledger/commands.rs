//! What people and agents tell the ledger. Every "no" is a refusal; the caller records it. How it decides is beside this.

use super::{Decision, Grant, Ledger, Origin};
use crate::event::CloseReason;
use crate::id::{GrantId, RequestId};
use crate::policy::{Ask, Policy, Rule};
use crate::principal::{AgentName, Caller, Process};
use crate::refusal::{Code, Refusal};
use crate::scope::Scope;
use crate::time::{Now, Ttl};

/// The longest reason, characters.
pub const REASON_CHARS_MAX: usize = 500;

/// What an approver agrees to; absent means as shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApproveTerms {
    /// The digest of what the approver was shown.
    pub seen: String,
    /// A shorter ttl.
    pub ttl: Option<Ttl>,
    /// Less than was shown.
    pub scope: Option<Scope>,
    /// Fewer bytes that may be billed.
    pub bytes_max: Option<u64>,
    /// Fewer queries.
    pub queries_max: Option<u64>,
    /// The key that signed this decision, by its name in the list of signers. Whoever fills it in has checked the signature.
    pub signer: Option<String>,
}

/// A command, with who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An agent asks for a window.
    Request(Ask),
    /// The same for a command: the window ends with the process that asks.
    RequestForRun(Ask),
    /// The process that asked for a command has ended: its request is withdrawn, or its window given back. Only the daemon says so.
    Withdraw(RequestId),
    /// A person approves.
    Approve(RequestId, ApproveTerms),
    /// A person denies, with a reason.
    Deny(RequestId, String),
    /// A person opens a window without the others whom the policy asks for, and says why; the digest is of what the person was shown.
    BreakGlass {
        /// Which request.
        request: RequestId,
        /// The digest of what was shown.
        seen: String,
        /// Why it cannot wait.
        reason: String,
        /// The key that signed it, as in [`ApproveTerms::signer`].
        signer: Option<String>,
    },
    /// Another person has looked at such a window.
    Review(GrantId, String),
    /// A person ends a window.
    Revoke(GrantId),
    /// A person keeps an agent from windows, and says why.
    Lock(AgentName, String),
    /// A person lets it have windows again.
    Unlock(AgentName),
    /// A person ends every window.
    CloseAll,
    /// The agent gives its window back.
    Close(GrantId),
    /// The agent gives back whatever it holds.
    Done,
}

impl Ledger {
    /// Decides on `command` of `caller`. The ledger is unchanged until the events are applied.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing happens then, and the caller records it.
    pub fn decide(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        command: Command,
    ) -> Result<Decision, Refusal> {
        match command {
            Command::Request(ask) => self.ask(now, policy, caller, ask, Origin::Asked),
            Command::RequestForRun(ask) => self.ask(now, policy, caller, ask, Origin::ForRun),
            Command::Withdraw(request) => Ok(self.withdraw_request(caller, request)),
            Command::Approve(request, terms) => self.approve(now, policy, caller, request, terms),
            Command::Deny(request, reason) => self.deny(now, policy, caller, request, &reason),
            Command::BreakGlass {
                request,
                seen,
                reason,
                signer,
            } => self.break_glass(now, policy, caller, (request, &seen), (&reason, signer)),
            Command::Review(grant, note) => self.review(policy, caller, grant, &note),
            Command::Revoke(grant) => self.revoke(policy, caller, grant),
            Command::Lock(agent, reason) => self.lock(policy, caller, &agent, &reason),
            Command::Unlock(agent) => self.unlock(policy, caller, &agent),
            Command::CloseAll => self.close_all(policy, caller),
            Command::Close(grant) => self.give_back(caller, grant),
            Command::Done => self.give_back_all(caller),
        }
    }

    /// Revoking is easier than granting: whoever may approve anything for this agent may end its window, and so may root.
    fn revoke(&self, policy: &Policy, caller: &Caller, id: GrantId) -> Result<Decision, Refusal> {
        let may_revoke = match self.grants.get(&id) {
            Some(grant) => may_watch_over(policy, caller, &grant.agent),
            None => may_watch_over_any(policy, caller),
        };
        // Before its state: whoever may not is told nothing of it.
        if !may_revoke {
            return Err(forbidden(caller, &format!("revoke {id}")));
        }
        let grant = self.held(id)?;
        let mut decision = Decision::default();
        grant.close(
            CloseReason::Revoked,
            Some(caller.process.clone()),
            &mut decision,
        );
        Ok(decision)
    }

    fn give_back(&self, caller: &Caller, id: GrantId) -> Result<Decision, Refusal> {
        let is_for_caller = |process: &Process| process.is_same_life(&caller.process);
        let ends_with_caller = |grant: &Grant| grant.ends_with.as_ref().is_some_and(is_for_caller);
        let is_own =
            |grant: &&Grant| caller.agent.as_ref() == Some(&grant.agent) || ends_with_caller(grant);
        // Before its state: of another's, and of one that is not there, the same is told.
        let own = self.grants.get(&id).filter(is_own);
        let own = own.ok_or_else(|| forbidden(caller, &format!("close {id}")))?;
        // Who runs a command says that it has ended, also where that was seen before it was said.
        if own.closed.is_some() && ends_with_caller(own) {
            return Ok(Decision::default());
        }
        // The daemon may see its end as soon as it is told of it.
        let reason = if ends_with_caller(own) {
            CloseReason::ProcessEnded
        } else {
            CloseReason::GivenBack
        };
        let grant = self.held(id)?;
        let mut decision = Decision::default();
        grant.close(reason, Some(caller.process.clone()), &mut decision);
        Ok(decision)
    }

    fn held(&self, id: GrantId) -> Result<&Grant, Refusal> {
        self.grants
            .get(&id)
            .filter(|grant| grant.closed.is_none())
            .ok_or_else(|| Refusal::new(Code::NotOpen, format!("Window {id} is not open")))
    }
}

/// Who may decide anything for an agent, and root, may end its windows, look at what was opened in an emergency, and be told what BigQuery's dry
/// run said of its queries. No process of an agent may.
#[must_use]
pub fn may_watch_over(policy: &Policy, caller: &Caller, agent: &AgentName) -> bool {
    is_named_by(policy, caller, |rule| rule.agents.contains(agent))
}

/// Whether there is an agent of which that is so.
pub(super) fn may_watch_over_any(policy: &Policy, caller: &Caller) -> bool {
    is_named_by(policy, caller, |_| true)
}

fn is_named_by(policy: &Policy, caller: &Caller, counts: impl Fn(&Rule) -> bool) -> bool {
    let mut rules = policy.rules.iter().filter(|rule| counts(rule));
    let is_named = rules.any(|rule| {
        let glass = rule.break_glass.as_ref();
        let breaks = glass.is_some_and(|glass| glass.who.names(caller));
        rule.approvers.names(caller) || breaks
    });
    caller.agent.is_none() && (is_named || caller.process.uid == 0)
}

pub(super) fn forbidden(caller: &Caller, what: &str) -> Refusal {
    let who = match &caller.agent {
        Some(agent) => format!("Agent {agent}"),
        None => format!("Uid {}", caller.process.uid),
    };
    Refusal::new(Code::CallerForbidden, format!("{who} may not {what}"))
}

pub(super) fn check_reason(reason: &str) -> Result<(), Refusal> {
    let count = reason.chars().count();
    if reason.trim().is_empty() || count > REASON_CHARS_MAX {
        return Err(Refusal::new(
            Code::InputInvalid,
            format!("A reason of 1 to {REASON_CHARS_MAX} characters is needed, not {count}"),
        ));
    }
    Ok(())
}
