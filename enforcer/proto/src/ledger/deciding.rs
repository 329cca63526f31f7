//! People decide: they agree, alone or with others, deny, open in an emergency, and look at what was opened so. Nobody decides on their own
//! request, nobody widens, and what is agreed to is what was shown.

use std::collections::BTreeSet;

use super::commands::{ApproveTerms, check_reason, forbidden, may_watch_over, may_watch_over_any};
use super::locking::Unlocked;
use super::{Decision, Effect, Ledger, Offer, Request, RequestState};
use crate::asking::FromQuery;
use crate::audit::sha256_hex;
use crate::event::Event;
use crate::id::{GrantId, RequestId};
use crate::policy::{Budget, Covered, Policy, Rule, Vote};
use crate::principal::{AgentName, Approver, Caller};
use crate::refusal::{Code, Refusal};
use crate::time::Now;

/// What a window is opened on.
pub(super) struct Terms {
    /// The number of the policy's rule.
    rule: u32,
    approver: Approver,
    agreed: Vec<Approver>,
    offer: Offer,
    signer: Option<String>,
    break_glass: Option<String>,
}

impl Terms {
    /// What is on offer, as it is.
    pub(super) const fn of(rule: u32, approver: Approver, offer: Offer) -> Self {
        Self {
            rule,
            approver,
            agreed: Vec::new(),
            offer,
            signer: None,
            break_glass: None,
        }
    }
}

/// A request as the policy in force lets it be granted: what approvers are shown, and agree to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// What may be granted.
    pub offer: Offer,
    /// SHA-256 of it and of what else is shown, to be named by who agrees.
    pub digest: String,
}

impl Request {
    /// What approvers are shown under `rule`, which covers the request now. A rule that has come to allow more since it was asked gives it no more;
    /// one that allows less makes another thing of it, with another digest.
    #[must_use]
    pub fn offered(&self, rule: &Rule) -> Offered {
        let budget = self.ask.within(&rule.budget).least(&self.offer.budget);
        let offer = Offer {
            budget,
            ..self.offer.clone()
        };
        Offered {
            digest: self.digest_with(&offer),
            offer,
        }
    }

    fn digest_with(&self, offer: &Offer) -> String {
        let from = self.from_query.as_ref();
        digest_of(self.id, &self.agent, &self.ask.reason, offer, from)
    }
}

impl Ledger {
    pub(super) fn approve(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        id: RequestId,
        terms: ApproveTerms,
    ) -> Result<Decision, Refusal> {
        check_outside(caller, id)?;
        let request = self.pending(now, id)?;
        let Covered { number, rule } = may_decide(policy, caller, request)?;
        let offered = request.offered(rule);
        let unlocked = self.unlocked(&request.agent)?;
        self.check_free(request, rule)?;
        self.check_cooldown(now, &request.agent, &rule.limits)?;
        check_seen(id, &offered.digest, &terms.seen)?;
        check_signed(rule, terms.signer.as_ref())?;
        let uid = caller.process.uid;
        let counted = || {
            request
                .votes
                .iter()
                .filter(|vote| policy.counts(rule, vote))
        };
        if counted().any(|vote| vote.uid == uid) {
            return Err(Refusal::new(
                Code::ApprovedAlready,
                format!("Uid {uid} has agreed to {id} already"),
            ));
        }
        let offer = narrowed(id, offered.offer, &terms)?;
        self.check_duty(now, &request.agent, &rule.limits, offer.ttl)?;
        let gids = named_gids(rule, caller);
        let mut votes: Vec<Vote> = counted().cloned().collect();
        votes.push(Vote {
            uid,
            gids: gids.clone(),
            signer: terms.signer.clone(),
        });
        let approver = Approver::Person { uid };
        let mut decision = Decision::default();
        if policy.wanting(rule, &votes).is_some() {
            decision.events.push(Event::ApprovalGiven {
                request: id,
                agent: request.agent.clone(),
                approver,
                gids,
                digest: offered.digest,
                next_digest: request.digest_with(&offer),
                budget: Some(offer.budget),
                rule: Some(number),
                scope: offer.scope,
                ttl: offer.ttl,
                signer: terms.signer,
            });
            return Ok(decision);
        }
        let terms = Terms {
            rule: number,
            approver,
            agreed: counted()
                .map(|vote| Approver::Person { uid: vote.uid })
                .collect(),
            offer,
            signer: terms.signer,
            break_glass: None,
        };
        self.open_window(
            now,
            unlocked,
            request,
            &offered.digest,
            terms,
            &mut decision,
        );
        Ok(decision)
    }

    pub(super) fn break_glass(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        (id, seen): (RequestId, &str),
        (reason, signer): (&str, Option<String>),
    ) -> Result<Decision, Refusal> {
        check_outside(caller, id)?;
        let request = self.pending(now, id)?;
        let Covered { number, rule } = covering(policy, caller, request)?;
        let glass = rule.break_glass.as_ref();
        let glass = glass.filter(|glass| glass.who.names(caller));
        let glass = glass.ok_or_else(|| {
            forbidden(
                caller,
                &format!("open {id} without the others whom the policy asks for"),
            )
        })?;
        check_reason(reason)?;
        let Offered { offer, digest } = request.offered(rule);
        check_seen(id, &digest, seen)?;
        check_signed(rule, signer.as_ref())?;
        let unlocked = self.unlocked(&request.agent)?;
        self.check_held(request)?;
        let approver = Approver::Person {
            uid: caller.process.uid,
        };
        let mut terms = Terms::of(number, approver, offer);
        terms.offer.ttl = terms.offer.ttl.min(glass.ttl_max);
        terms.break_glass = Some(reason.to_owned());
        terms.signer = signer;
        let mut decision = Decision::default();
        self.open_window(now, unlocked, request, &digest, terms, &mut decision);
        Ok(decision)
    }

    pub(super) fn review(
        &self,
        policy: &Policy,
        caller: &Caller,
        id: GrantId,
        note: &str,
    ) -> Result<Decision, Refusal> {
        let refused = |what| Err(Refusal::new(Code::ReviewRefused, what));
        // Before its state: whoever may look at none is told nothing of it.
        if !may_watch_over_any(policy, caller) {
            return Err(forbidden(caller, &format!("review {id}")));
        }
        let Some(emergency) = self.unreviewed.get(&id) else {
            return refused(format!("Window {id} waits for no review"));
        };
        if !may_watch_over(policy, caller, &emergency.agent) {
            return Err(forbidden(caller, &format!("review {id}")));
        }
        let reviewer = Approver::Person {
            uid: caller.process.uid,
        };
        if policy.is_own_uid(&emergency.agent, caller.process.uid) {
            return refused(format!(
                "{reviewer} is a uid of agent {}'s own, and cannot review {id}",
                emergency.agent
            ));
        }
        if emergency.asked_by.contains(&caller.process.uid) {
            return refused(format!("{reviewer} asked for {id}, and cannot review it"));
        }
        if reviewer == emergency.by {
            return refused(format!("{reviewer} opened {id}, and cannot review it"));
        }
        check_reason(note)?;
        Ok(Decision {
            events: vec![Event::Reviewed {
                grant: id,
                agent: emergency.agent.clone(),
                reviewer,
                note: note.to_owned(),
            }],
            ..Decision::default()
        })
    }

    pub(super) fn deny(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        id: RequestId,
        reason: &str,
    ) -> Result<Decision, Refusal> {
        check_outside(caller, id)?;
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

    pub(super) fn open_window(
        &self,
        now: Now,
        _: Unlocked,
        request: &Request,
        digest: &str,
        terms: Terms,
        decision: &mut Decision,
    ) {
        let grant = GrantId(self.last_grant).next();
        let ttl = terms.offer.ttl;
        let closes_boot_ns = now.boot_ns.saturating_add(ttl.ns());
        let budget = terms.offer.budget;
        decision.events.push(Event::Approved {
            request: request.id,
            grant,
            agent: request.agent.clone(),
            approver: terms.approver,
            digest: digest.to_owned(),
            scope: terms.offer.scope,
            ttl,
            bytes_max: budget.bytes_max,
            queries_max: budget.queries_max,
            query_bytes_max: Some(budget.query_bytes_max),
            returned_bytes_max: Some(budget.returned_bytes_max),
            jobs_at_once_max: Some(budget.jobs_at_once_max),
            opens_boot_ns: now.boot_ns,
            closes_boot_ns,
            closes_unix_ns: now.unix_ns.saturating_add(ttl.ns()),
            agreed: terms.agreed,
            signer: terms.signer,
            break_glass: terms.break_glass,
            rule: Some(terms.rule),
        });
        decision.then.push(Effect::OpenWindow {
            agent: request.agent.clone(),
            grant,
            opens_boot_ns: now.boot_ns,
            closes_boot_ns,
        });
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

    /// Whether the agent holds no window, and the rule has room for one more.
    fn check_free(&self, request: &Request, rule: &Rule) -> Result<(), Refusal> {
        self.check_held(request)?;
        self.check_windows_at_once(rule)
    }

    fn check_held(&self, request: &Request) -> Result<(), Refusal> {
        match self.held_grant(&request.agent) {
            None => Ok(()),
            Some(held) => Err(Refusal::new(
                Code::WindowOpen,
                format!("Agent {} already holds window {}", request.agent, held.id),
            )),
        }
    }
}

/// That no process of an agent decides. Before the state of what it would decide on: it is told nothing of it.
fn check_outside(caller: &Caller, id: RequestId) -> Result<(), Refusal> {
    if caller.agent.is_some() {
        return Err(itself(caller, id));
    }
    Ok(())
}

fn itself(caller: &Caller, id: RequestId) -> Refusal {
    let uid = caller.process.uid;
    Refusal::new(
        Code::SelfApproval,
        format!(
            "Uid {uid} asked for {id}, has a query that waits with it, is its agent's own, or acts from an agent's workload, and cannot decide on it"
        ),
    )
}

fn check_seen(id: RequestId, digest: &str, seen: &str) -> Result<(), Refusal> {
    if seen == digest {
        return Ok(());
    }
    Err(Refusal::new(
        Code::DigestChanged,
        format!("Request {id} is not what was shown"),
    ))
}

fn check_signed(rule: &Rule, signer: Option<&String>) -> Result<(), Refusal> {
    if rule.must_sign && signer.is_none() {
        return Err(Refusal::new(
            Code::SignatureNeeded,
            "The policy asks for a signature by a key of the approver's",
        ));
    }
    Ok(())
}

/// What the approver makes of what is on offer: as much or less.
fn narrowed(id: RequestId, offer: Offer, terms: &ApproveTerms) -> Result<Offer, Refusal> {
    let budget = Budget {
        bytes_max: terms.bytes_max.unwrap_or(offer.budget.bytes_max),
        queries_max: terms.queries_max.unwrap_or(offer.budget.queries_max),
        ..offer.budget
    };
    let less = Offer {
        scope: terms.scope.as_ref().unwrap_or(&offer.scope).clone(),
        ttl: terms.ttl.unwrap_or(offer.ttl),
        budget,
    };
    let is_wider = less.ttl > offer.ttl
        || !less.scope.is_within(&offer.scope)
        || budget != budget.least(&offer.budget);
    if is_wider {
        return Err(Refusal::new(
            Code::ApprovalWider,
            format!(
                "{} for {}, {budget}: that is more than request {id} asks for, than the policy allows, or than others have agreed to",
                less.scope, less.ttl
            ),
        ));
    }
    if budget.bytes_max == 0 || budget.queries_max == 0 {
        return Err(Refusal::new(
            Code::InputInvalid,
            "A window of no bytes or no queries serves nothing: deny the request instead",
        ));
    }
    Ok(less)
}

/// The rule that covers the request now, where the caller is somebody else than who asked. A process in any agent's workload decides nothing,
/// whatever its uid; nor does a uid that asked or whose query waits with it, nor one of the agent's own, whoever asked for it.
fn covering<'a>(
    policy: &'a Policy,
    caller: &Caller,
    request: &Request,
) -> Result<Covered<'a>, Refusal> {
    let uid = caller.process.uid;
    if request.is_asked_by(uid) || policy.is_own_uid(&request.agent, uid) {
        return Err(itself(caller, request.id));
    }
    policy.cover(&request.agent, &request.ask)
}

/// The rule under which `caller` may decide on `request`. The policy in force now is asked again: a rule that is gone decides nothing.
fn may_decide<'a>(
    policy: &'a Policy,
    caller: &Caller,
    request: &Request,
) -> Result<Covered<'a>, Refusal> {
    let covered = covering(policy, caller, request)?;
    if covered.rule.approvers.names(caller) {
        Ok(covered)
    } else {
        Err(forbidden(caller, &format!("decide on {}", request.id)))
    }
}

/// Whether `caller` may decide on `request` now, with others or in an emergency.
#[must_use]
pub fn may_decide_on(policy: &Policy, caller: &Caller, request: &Request) -> bool {
    let covered =
        check_outside(caller, request.id).and_then(|()| covering(policy, caller, request));
    covered.is_ok_and(|Covered { rule, .. }| {
        let glass = rule.break_glass.as_ref();
        rule.approvers.names(caller) || glass.is_some_and(|glass| glass.who.names(caller))
    })
}

/// Those of the caller's groups that count.
fn named_gids(rule: &Rule, caller: &Caller) -> BTreeSet<u32> {
    let named =
        |gid: &&u32| rule.approvers.gids.contains(*gid) || rule.quorum.each_group.contains(*gid);
    caller.gids.iter().filter(named).copied().collect()
}

/// SHA-256 over what approvers are shown, each part with its length so that no two requests share a spelling.
pub(super) fn digest_of(
    id: RequestId,
    agent: &AgentName,
    reason: &str,
    offer: &Offer,
    from: Option<&FromQuery>,
) -> String {
    let mut parts = vec![
        id.to_string(),
        agent.to_string(),
        offer.scope.to_string(),
        offer.ttl.to_string(),
        reason.to_owned(),
        offer.budget.to_string(),
    ];
    parts.extend(from.map(FromQuery::digested));
    let text: String = parts
        .iter()
        .map(|part| format!("{}:{part}\n", part.len()))
        .collect();
    sha256_hex(text.as_bytes())
}
