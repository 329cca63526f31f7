//! The owner's part in asking: who waits for which decision, and requests that are made of queries. It decides nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use enforcer_proto::event::Event;
use enforcer_proto::id::RequestId;
use enforcer_proto::ledger::{Command, Decision, Effect, OfQuery, RequestState};
use enforcer_proto::principal::{Caller, ProcessOrigin};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::time::Now;
use enforcer_proto::wire::Reply;
use tokio::sync::oneshot;

use super::handle::{Decided, NewQuery, Waits};
use super::owner::{Owner, open_window};
use super::{RunLeft, views};

/// Who waits for decisions. Bounded by the connections that they wait on.
#[derive(Default)]
pub(super) struct Waiting {
    told: BTreeMap<RequestId, Vec<oneshot::Sender<Decided>>>,
    /// How many queries each pending request stands for.
    queries: BTreeMap<RequestId, u64>,
}

impl Waiting {
    /// How many queries have joined a request that waits.
    pub(super) fn queries(&self, request: RequestId) -> u64 {
        self.queries.get(&request).copied().unwrap_or(0)
    }

    fn add(&mut self, request: RequestId, reply: oneshot::Sender<Decided>) {
        let told = self.told.entry(request).or_default();
        // Clients that have gone away in the meantime.
        told.retain(|reply| !reply.is_closed());
        told.push(reply);
    }

    fn take(&mut self, request: RequestId) -> Vec<oneshot::Sender<Decided>> {
        self.queries.remove(&request);
        self.told.remove(&request).unwrap_or_default()
    }
}

impl Owner {
    /// Answers with what is decided on a request, now or once it is.
    pub(super) fn wait(
        &mut self,
        now: Now,
        caller: &Caller,
        request: RequestId,
        reply: oneshot::Sender<Decided>,
    ) {
        let said = match self.may_wait(caller, request) {
            Ok(()) => self.outcome(now, request),
            Err(refusal) => Some(Err(refusal)),
        };
        match said {
            // Whoever asked may have gone.
            Some(said) => drop(reply.send(said)),
            None => self.waiting.add(request, reply),
        }
    }

    fn may_wait(&self, caller: &Caller, id: RequestId) -> Result<(), Refusal> {
        let request = self.ledger.request(id).filter(|request| {
            caller.agent.as_ref() == Some(&request.agent)
                || request.process.is_same_life(&caller.process)
        });
        request.map(|_| ()).ok_or_else(|| {
            let what = format!("Request {id} is none of the caller's, or is not remembered");
            Refusal::new(Code::NotPending, what)
        })
    }

    /// What became of a request; none while it waits.
    fn outcome(&self, now: Now, id: RequestId) -> Option<Decided> {
        let over = |what: String| Some(Err(Refusal::new(Code::NotPending, what)));
        let Some(request) = self.ledger.request(id) else {
            return over(format!("Request {id} is not remembered any more"));
        };
        match &request.state {
            RequestState::Pending => None,
            RequestState::Approved(grant) => {
                let grant = self.ledger.grant(*grant);
                Some(match grant.filter(|grant| grant.is_open_at(now)) {
                    Some(grant) => Ok(views::grant(now, grant)),
                    None => Err(Refusal::new(
                        Code::NotOpen,
                        format!("Request {id} was approved, and its window has closed already"),
                    )),
                })
            }
            RequestState::Denied(reason) => Some(Err(Refusal::new(
                Code::RequestDenied,
                format!("Request {id} was denied: {reason}"),
            ))),
            RequestState::Expired => {
                over(format!("Request {id} was expired: nobody decided in time"))
            }
            RequestState::Withdrawn => over(format!(
                "Request {id} was withdrawn: the process that it was for has ended"
            )),
        }
    }

    /// Tells those who wait for what these events have decided.
    pub(super) fn tell(&mut self, now: Now, events: &[Event]) {
        for request in events.iter().filter_map(Event::ends_request) {
            let waiting = self.waiting.take(request);
            if let Some(said) = self.outcome(now, request) {
                for reply in waiting {
                    drop(reply.send(said.clone()));
                }
            }
        }
    }

    /// Makes a request of a query, or lets it join one.
    pub(super) fn of_query(&mut self, now: Now, query: NewQuery) -> Result<Waits, Refusal> {
        let NewQuery {
            requester,
            wanted,
            origin,
            is_tried,
        } = query;
        // Opened since the proxy looked.
        if let Some(open) = self.ledger.open_grant(&requester.agent, now) {
            return Ok(Waits::Open(Arc::new(open_window(open))));
        }
        let caller = Caller {
            process: requester.process,
            gids: std::collections::BTreeSet::new(),
            agent: Some(requester.agent),
        };
        let policy = &self.parts.policy;
        let request = match self.ledger.of_query(now, policy, &caller, wanted)? {
            OfQuery::Joins(request) => request,
            OfQuery::JoinsAsAnother(request, decision) => {
                self.perform(now, &decision)?;
                request
            }
            OfQuery::Asks(_) if is_tried => return Ok(Waits::WouldAsk),
            OfQuery::Asks(decision) => {
                let opened = self.perform(now, &with_origin(decision, origin))?;
                if let Some(open) = opened.and_then(|grant| self.ledger.grant(grant)) {
                    return Ok(Waits::Open(Arc::new(open_window(open))));
                }
                self.ledger
                    .requests()
                    .next_back()
                    .map(|request| request.id)
                    .ok_or_else(lost)?
            }
        };
        let (reply, told) = oneshot::channel();
        self.waiting.add(request, reply);
        *self.waiting.queries.entry(request).or_default() += 1;
        Ok(Waits::For(request, told))
    }

    /// The process has ended that a request was for.
    pub(super) fn run_ended(&mut self, now: Now, caller: &Caller, request: RequestId) {
        let policy = &self.parts.policy;
        let withdrawn = self
            .ledger
            .decide(now, policy, caller, Command::Withdraw(request));
        match withdrawn {
            Ok(decision) => self.restrict(now, &decision),
            Err(refusal) => tracing::error!(%request, %refusal, "what ends with a process did not"),
        }
    }

    /// Gives back all that the caller holds.
    pub(super) fn gives_back(
        &mut self,
        now: Now,
        caller: &Caller,
        command: Command,
        action: &str,
    ) -> Reply {
        let policy = &self.parts.policy;
        match self.ledger.decide(now, policy, caller, command) {
            Ok(decision) => {
                self.restrict(now, &decision);
                let held = decision.first.iter().filter_map(|effect| match effect {
                    Effect::CloseWindow { grant, .. } => self.ledger.grant(*grant),
                    Effect::OpenWindow { .. } => None,
                });
                Reply::GivenBack(held.map(|grant| views::grant(now, grant)).collect())
            }
            Err(refusal) => {
                let event = Event::DecisionRefused {
                    caller: caller.clone(),
                    action: action.to_owned(),
                    refusal: refusal.clone(),
                };
                self.refuse(now, event, refusal)
            }
        }
    }

    /// What ends with processes that nobody watches over yet.
    pub(super) fn runs_left(&self) -> Vec<RunLeft> {
        let left = self.ledger.ending_with_processes();
        left.map(|(agent, request, process)| RunLeft {
            agent: agent.clone(),
            request,
            process: process.clone(),
        })
        .collect()
    }
}

/// The decision with where the process comes from in the record of its request. The ledger has decided without it.
pub(super) fn with_origin(mut decision: Decision, origin: Option<ProcessOrigin>) -> Decision {
    for event in &mut decision.events {
        if let Event::Requested { origin: held, .. } = event {
            held.clone_from(&origin);
        }
    }
    decision
}

pub(super) fn lost() -> Refusal {
    Refusal::new(Code::KernelFailed, "The request was lost")
}
