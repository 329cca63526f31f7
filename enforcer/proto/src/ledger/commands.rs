//! What people and agents tell the ledger, and what it decides. Every "no" is a refusal; the caller records it.

use std::collections::BTreeSet;

use super::{Decision, Effect, Grant, Ledger, Request, RequestState};
use crate::audit::sha256_hex;
use crate::event::{CloseReason, Event};
use crate::id::{GrantId, RequestId};
use crate::policy::{Ask, PENDING_PER_AGENT_MAX, PENDING_TTL_S, Policy, Rule};
use crate::principal::{AgentName, Approver, Caller};
use crate::refusal::{Code, Refusal};
use crate::scope::{DatasetRef, Scope};
use crate::time::{NS_PER_S, Now, Ttl};

/// The longest reason, characters.
pub const REASON_CHARS_MAX: usize = 500;

/// How an approver narrows what was asked; absent means as asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApproveTerms {
    /// The digest of what the approver was shown; absent where a person typed only the id.
    pub seen: Option<String>,
    /// A shorter ttl.
    pub ttl: Option<Ttl>,
    /// Fewer datasets.
    pub datasets: Option<BTreeSet<DatasetRef>>,
}

/// A command, with who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An agent asks for a window.
    Request(Ask),
    /// A person approves.
    Approve(RequestId, ApproveTerms),
    /// A person denies, with a reason.
    Deny(RequestId, String),
    /// A person ends a window.
    Revoke(GrantId),
    /// The agent gives its window back.
    Close(GrantId),
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
            Command::Request(ask) => self.ask(now, policy, caller, ask),
            Command::Approve(request, terms) => self.approve(now, policy, caller, request, terms),
            Command::Deny(request, reason) => self.deny(now, policy, caller, request, &reason),
            Command::Revoke(grant) => self.revoke(policy, caller, grant),
            Command::Close(grant) => self.give_back(caller, grant),
        }
    }

    fn ask(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        ask: Ask,
    ) -> Result<Decision, Refusal> {
        let agent = caller.agent.as_ref().ok_or_else(|| {
            Refusal::new(
                Code::CallerUnknown,
                format!(
                    "Process {} is in no agent's workload, so no window can be asked for",
                    caller.process.pid
                ),
            )
        })?;
        check_reason(&ask.reason)?;
        let covered = policy.cover(agent, &ask)?;
        let pending = self
            .requests
            .values()
            .filter(|held| held.agent == *agent && held.state == RequestState::Pending)
            .count();
        if pending >= PENDING_PER_AGENT_MAX {
            return Err(Refusal::new(
                Code::TooManyPending,
                format!("Agent {agent} has {pending} requests waiting, and may have no more"),
            ));
        }
        let id = RequestId(self.last_request).next();
        let request = Request {
            id,
            agent: agent.clone(),
            process: caller.process.clone(),
            digest: digest_of(id, agent, &ask),
            ask,
            rule: covered.number,
            asked: now,
            expires_boot_ns: now.boot_ns.saturating_add(PENDING_TTL_S * NS_PER_S),
            state: RequestState::Pending,
        };
        let mut decision = Decision {
            events: vec![Event::Requested {
                request: id,
                agent: agent.clone(),
                process: request.process.clone(),
                ask: request.ask.clone(),
                rule: request.rule,
                digest: request.digest.clone(),
                expires_boot_ns: request.expires_boot_ns,
            }],
            ..Decision::default()
        };
        if covered.rule.auto_approve && self.held_grant(agent).is_none() {
            let approver = Approver::Policy {
                rule: covered.number,
            };
            self.open_window(
                now,
                &request,
                covered.rule,
                approver,
                &ApproveTerms::default(),
                &mut decision,
            )?;
        }
        Ok(decision)
    }

    fn approve(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        id: RequestId,
        terms: ApproveTerms,
    ) -> Result<Decision, Refusal> {
        let request = self.pending(now, id)?;
        let covered = may_decide(policy, caller, request)?;
        if let Some(held) = self.held_grant(&request.agent) {
            return Err(Refusal::new(
                Code::WindowOpen,
                format!("Agent {} already holds window {}", request.agent, held.id),
            ));
        }
        if terms
            .seen
            .as_ref()
            .is_some_and(|seen| *seen != request.digest)
        {
            return Err(Refusal::new(
                Code::DigestChanged,
                format!("Request {id} is not what was shown"),
            ));
        }
        let mut decision = Decision::default();
        self.open_window(
            now,
            request,
            covered,
            Approver::Person {
                uid: caller.process.uid,
            },
            &terms,
            &mut decision,
        )?;
        Ok(decision)
    }

    fn open_window(
        &self,
        now: Now,
        request: &Request,
        rule: &Rule,
        approver: Approver,
        terms: &ApproveTerms,
        decision: &mut Decision,
    ) -> Result<(), Refusal> {
        let ttl = terms.ttl.unwrap_or(request.ask.ttl);
        let scope = match &terms.datasets {
            Some(datasets) => Scope::new(datasets.clone(), request.ask.scope.access())
                .map_err(|error| Refusal::new(Code::InputInvalid, error.to_string()))?,
            None => request.ask.scope.clone(),
        };
        if ttl > request.ask.ttl || !scope.is_within(&request.ask.scope) {
            return Err(Refusal::new(
                Code::ApprovalWider,
                format!(
                    "{scope} for {ttl} is more than request {} asks for",
                    request.id
                ),
            ));
        }
        let grant = GrantId(self.last_grant).next();
        let closes_boot_ns = now.boot_ns.saturating_add(ttl.ns());
        decision.events.push(Event::Approved {
            request: request.id,
            grant,
            agent: request.agent.clone(),
            approver,
            digest: request.digest.clone(),
            scope,
            ttl,
            bytes_max: request
                .ask
                .bytes_max
                .unwrap_or(rule.bytes_max)
                .min(rule.bytes_max),
            queries_max: request
                .ask
                .queries_max
                .unwrap_or(rule.queries_max)
                .min(rule.queries_max),
            opens_boot_ns: now.boot_ns,
            closes_boot_ns,
            closes_unix_ns: now.unix_ns.saturating_add(ttl.ns()),
        });
        decision.then.push(Effect::OpenWindow {
            agent: request.agent.clone(),
            grant,
            opens_boot_ns: now.boot_ns,
            closes_boot_ns,
        });
        Ok(())
    }

    fn deny(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        id: RequestId,
        reason: &str,
    ) -> Result<Decision, Refusal> {
        let request = self.pending(now, id)?;
        may_decide(policy, caller, request)?;
        check_reason(reason)?;
        let denied = Event::Denied {
            request: id,
            agent: request.agent.clone(),
            approver: Approver::Person {
                uid: caller.process.uid,
            },
            reason: reason.to_owned(),
        };
        Ok(Decision {
            events: vec![denied],
            ..Decision::default()
        })
    }

    /// Revoking is easier than granting: whoever may approve anything for this agent may end its window, and so may root.
    fn revoke(&self, policy: &Policy, caller: &Caller, id: GrantId) -> Result<Decision, Refusal> {
        let grant = self.held(id)?;
        let named = policy
            .rules
            .iter()
            .any(|rule| rule.agents.contains(&grant.agent) && rule.approvers.names(caller));
        if caller.agent.is_some() || !(named || caller.process.uid == 0) {
            return Err(forbidden(caller, &format!("revoke {id}")));
        }
        let mut decision = Decision::default();
        grant.close(
            CloseReason::Revoked,
            Some(caller.process.clone()),
            &mut decision,
        );
        Ok(decision)
    }

    fn give_back(&self, caller: &Caller, id: GrantId) -> Result<Decision, Refusal> {
        let grant = self.held(id)?;
        if caller.agent.as_ref() != Some(&grant.agent) {
            return Err(forbidden(caller, &format!("close {id}")));
        }
        let mut decision = Decision::default();
        grant.close(
            CloseReason::GivenBack,
            Some(caller.process.clone()),
            &mut decision,
        );
        Ok(decision)
    }

    fn pending(&self, now: Now, id: RequestId) -> Result<&Request, Refusal> {
        self.requests
            .get(&id)
            .filter(|request| {
                request.state == RequestState::Pending && now.boot_ns < request.expires_boot_ns
            })
            .ok_or_else(|| {
                Refusal::new(
                    Code::NotPending,
                    format!("Request {id} is not waiting for a decision"),
                )
            })
    }

    fn held(&self, id: GrantId) -> Result<&Grant, Refusal> {
        self.grants
            .get(&id)
            .filter(|grant| grant.closed.is_none())
            .ok_or_else(|| Refusal::new(Code::NotOpen, format!("Window {id} is not open")))
    }
}

/// The rule under which `caller` may decide on `request`. The policy in force now is asked again: a rule that is gone decides nothing.
fn may_decide<'a>(
    policy: &'a Policy,
    caller: &Caller,
    request: &Request,
) -> Result<&'a Rule, Refusal> {
    // A process in any agent's workload decides nothing, whatever its uid; nor does the uid that asked.
    if caller.agent.is_some() || caller.process.uid == request.process.uid {
        return Err(Refusal::new(
            Code::SelfApproval,
            format!(
                "Uid {} asked for {}, or acts from an agent's workload, and cannot decide on it",
                caller.process.uid, request.id
            ),
        ));
    }
    let covered = policy.cover(&request.agent, &request.ask)?;
    if covered.rule.approvers.names(caller) {
        Ok(covered.rule)
    } else {
        Err(forbidden(caller, &format!("decide on {}", request.id)))
    }
}

fn forbidden(caller: &Caller, what: &str) -> Refusal {
    let who = match &caller.agent {
        Some(agent) => format!("Agent {agent}"),
        None => format!("Uid {}", caller.process.uid),
    };
    Refusal::new(Code::CallerForbidden, format!("{who} may not {what}"))
}

fn check_reason(reason: &str) -> Result<(), Refusal> {
    let count = reason.chars().count();
    if reason.trim().is_empty() || count > REASON_CHARS_MAX {
        return Err(Refusal::new(
            Code::InputInvalid,
            format!("A reason of 1 to {REASON_CHARS_MAX} characters is needed, not {count}"),
        ));
    }
    Ok(())
}

/// SHA-256 over what approvers are shown, each part with its length so that no two requests share a spelling.
fn digest_of(id: RequestId, agent: &AgentName, ask: &Ask) -> String {
    let parts = [
        id.to_string(),
        agent.to_string(),
        ask.scope.to_string(),
        ask.ttl.to_string(),
        ask.reason.clone(),
        format!("{:?}", ask.bytes_max),
        format!("{:?}", ask.queries_max),
    ];
    let text: String = parts
        .iter()
        .map(|part| format!("{}:{part}\n", part.len()))
        .collect();
    sha256_hex(text.as_bytes())
}
