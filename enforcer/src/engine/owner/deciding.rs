//! What people decide, and the rules they decide by: signatures are checked here, before the ledger is asked; it decides.

use enforcer_proto::event::Event;
use enforcer_proto::id::RequestId;
use enforcer_proto::ledger::{ApproveTerms, Command, Offer};
use enforcer_proto::policy::{Budget, Policy};
use enforcer_proto::principal::Caller;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::signed;
use enforcer_proto::time::Now;
use enforcer_proto::wire::Reply;

use super::super::handle::BadPolicy;
use super::super::{at, views};
use super::Owner;
use crate::signature;

impl Owner {
    pub(super) fn decided(
        &mut self,
        now: Now,
        caller: &Caller,
        command: Command,
        action: String,
    ) -> Reply {
        match self.ledger.decide(now, &self.parts.policy, caller, command) {
            Ok(decision) => match self.perform(now, &decision) {
                Ok(Some(grant)) => self.opened_reply(now, grant),
                Ok(None) => Reply::Done,
                Err(refusal) => Reply::Refused(refusal),
            },
            Err(refusal) => self.refuse_decision(now, caller, action, refusal),
        }
    }

    pub(super) fn refuse_decision(
        &mut self,
        now: Now,
        caller: &Caller,
        action: String,
        refusal: Refusal,
    ) -> Reply {
        let event = Event::DecisionRefused {
            caller: caller.clone(),
            action,
            refusal: refusal.clone(),
        };
        self.refuse(now, event, refusal)
    }

    /// What may be granted of a request now; none where no rule covers it any more.
    pub(super) fn offer_of(&self, id: RequestId) -> Option<Offer> {
        let request = self.ledger.request(id)?;
        let covered = self.parts.policy.cover(&request.agent, &request.ask);
        Some(request.offered(covered.ok()?.rule).offer)
    }

    /// The key by which the caller signed these terms.
    pub(super) fn signer(
        &self,
        caller: &Caller,
        request: RequestId,
        digest: &str,
        offer: Option<&Offer>,
        break_glass: Option<&str>,
        signature: &str,
    ) -> Result<String, Refusal> {
        let offer = offer.ok_or_else(|| {
            Refusal::new(
                Code::NotPending,
                format!("Request {request} is not waiting for a decision"),
            )
        })?;
        let statement = signed::statement(&signed::Terms {
            host: &self.parts.host,
            request,
            digest,
            scope: &offer.scope,
            ttl: offer.ttl,
            bytes_max: offer.budget.bytes_max,
            queries_max: offer.budget.queries_max,
            break_glass,
        });
        signature::signer(
            &self.parts.policy,
            caller.process.uid,
            &statement,
            signature,
        )
    }

    pub(super) fn approve(
        &mut self,
        now: Now,
        caller: &Caller,
        id: RequestId,
        mut terms: ApproveTerms,
        signature: Option<String>,
    ) -> Reply {
        let action = format!("approve {id}");
        // Of what an agent's process signs nothing is looked at: it decides nothing, and is told nothing.
        if let Some(signature) = signature.filter(|_| caller.agent.is_none()) {
            let offer = self.offer_of(id).map(|offer| Offer {
                scope: terms.scope.clone().unwrap_or(offer.scope),
                ttl: terms.ttl.unwrap_or(offer.ttl),
                budget: Budget {
                    bytes_max: terms.bytes_max.unwrap_or(offer.budget.bytes_max),
                    queries_max: terms.queries_max.unwrap_or(offer.budget.queries_max),
                    ..offer.budget
                },
            });
            match self.signer(caller, id, &terms.seen, offer.as_ref(), None, &signature) {
                Ok(signer) => terms.signer = Some(signer),
                Err(refusal) => return self.refuse_decision(now, caller, action, refusal),
            }
        }
        let command = Command::Approve(id, terms);
        match self.decided(now, caller, command, action) {
            // Others must agree as well.
            Reply::Done => self.ledger.request(id).map_or(Reply::Done, |request| {
                let (policy, ledger) = (&self.parts.policy, &self.ledger);
                Reply::Counted(Box::new(views::request(
                    now,
                    policy,
                    ledger,
                    &self.waiting,
                    request,
                )))
            }),
            said @ (Reply::Refused(_)
            | Reply::Requested { .. }
            | Reply::GivenBack(_)
            | Reply::Counted(_)
            | Reply::Opened(_)
            | Reply::Status(_)
            | Reply::Records(_)
            | Reply::Joined(_)
            | Reply::Notified(_)
            | Reply::Checked(_)) => said,
        }
    }

    /// Opens a window without the others whom the policy asks for.
    pub(super) fn break_glass(
        &mut self,
        now: Now,
        caller: &Caller,
        (request, seen): (RequestId, String),
        reason: String,
        signature: Option<String>,
    ) -> Reply {
        let action = format!("open {request} in an emergency");
        // Of what an agent's process signs nothing is looked at: it decides nothing, and is told nothing.
        let signature = signature.filter(|_| caller.agent.is_none());
        let signed = signature.as_deref().map(|signature| {
            let offer = self.offer_of(request);
            let offer = offer.as_ref();
            self.signer(caller, request, &seen, offer, Some(&reason), signature)
        });
        let signer = match signed.transpose() {
            Ok(signer) => signer,
            Err(refusal) => return self.refuse_decision(now, caller, action, refusal),
        };
        let command = Command::BreakGlass {
            request,
            seen,
            reason,
            signer,
        };
        self.decided(now, caller, command, action)
    }

    /// Takes other rules from here on, once that is on record; or puts on record why they cannot be used.
    pub(super) fn take_policy(
        &mut self,
        now: Now,
        found: Result<Policy, BadPolicy>,
    ) -> Result<(), Refusal> {
        let event = match &found {
            Ok(policy) => Event::PolicyLoaded {
                digest: policy.digest.clone(),
                rules: u32::try_from(policy.rules.len()).unwrap_or(u32::MAX),
                is_same_text: policy.digest == self.parts.policy.digest,
            },
            Err(bad) => Event::PolicyRejected {
                digest: bad.digest.clone(),
                why: bad.why.clone(),
            },
        };
        self.append(&at(now, &[event]))?;
        match found {
            Ok(policy) => {
                tracing::info!(digest = %policy.digest, rules = policy.rules.len(), "the policy is another from here on");
                self.parts.policy = policy;
                self.policy_fault = None;
            }
            Err(bad) => {
                tracing::error!(why = %bad.why, "the changed policy file cannot be used: the rules stay as they are");
                self.policy_fault = Some(bad.why);
            }
        }
        Ok(())
    }
}
