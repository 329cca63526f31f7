//! Requests that no process typed, and what belongs to them: of a query, or for a command that is run and ends with it. They are judged like any
//! other; what is added is what they are of, and that many become one.
//!
//! What BigQuery's dry run says of a query is for approvers. So whether a query joins, is refused or asks is decided by its text alone, and a request
//! that the dry run makes wider never fails where the one of the text would not: its agent must learn nothing from the difference.

use super::{Decision, Ledger, Request, RequestState};
use crate::asking::{FromQuery, Named, OF_QUERIES_MAX, OF_QUERIES_PER_AGENT_MAX};
use crate::event::{CloseReason, Event};
use crate::id::RequestId;
use crate::policy::{Ask, Policy};
use crate::principal::{AgentName, Caller, Process};
use crate::refusal::{Code, Refusal};
use crate::scope::Scope;
use crate::time::{Now, Ttl};

/// The most uids besides the one that asked whose queries may wait with one request; a query of another is refused.
pub const JOINED_UIDS_MAX: usize = 16;

/// What becomes of a query that has no window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OfQuery {
    /// It waits with a request that is there already and covers it.
    Joins(RequestId),
    /// The same for a uid that has had no part in it so far: once that is on record.
    JoinsAsAnother(RequestId, Decision),
    /// A new request.
    Asks(Decision),
}

/// What a query without a window asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What its text names.
    pub scope: Scope,
    /// For how long a window is asked, at most.
    pub ttl: Ttl,
    /// What is recorded and shown of it.
    pub from: FromQuery,
    /// All that it needs, what its text names included, where BigQuery's dry run said so.
    pub needs: Option<Scope>,
}

/// What a request is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A process asked for itself.
    Asked,
    /// A process asked for a command that it runs: all of it ends with that process.
    ForRun,
    /// A query without a window.
    Query(Box<FromQuery>),
}

impl Origin {
    pub(super) fn query(&self) -> Option<&FromQuery> {
        match self {
            Self::Asked | Self::ForRun => None,
            Self::Query(from) => Some(from.as_ref()),
        }
    }

    pub(super) fn into_query(self) -> Option<FromQuery> {
        match self {
            Self::Asked | Self::ForRun => None,
            Self::Query(from) => Some(*from),
        }
    }

    pub(super) const fn ends_with_process(&self) -> bool {
        match self {
            Self::ForRun => true,
            Self::Asked | Self::Query(_) => false,
        }
    }
}

impl Ledger {
    /// What is to become of an agent's query that has no window: it joins what waits already, or asks for a window of the wanted ttl, or of as much
    /// as the policy allows.
    ///
    /// # Errors
    /// A [`Refusal`] of the policy's; [`Code::TooManyPending`].
    pub fn of_query(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        wanted: Wanted,
    ) -> Result<OfQuery, Refusal> {
        let Wanted {
            scope,
            ttl,
            mut from,
            needs,
        } = wanted;
        let agent = caller.agent.as_ref().ok_or_else(|| {
            Refusal::new(
                Code::CallerUnknown,
                format!("Process {} is in no agent's workload", caller.process.pid),
            )
        })?;
        let mut ask = Ask {
            scope,
            ttl: Ttl::MIN,
            reason: from.reason(),
            bytes_max: None,
            queries_max: None,
        };
        let covered = policy.cover(agent, &ask)?;
        ask.ttl = ttl.min(covered.rule.ttl_max);
        if let Some(waiting) = self.waiting_for(now, agent, &ask.scope) {
            return self.join(caller, waiting);
        }
        self.check_of_queries(agent)?;
        if let Some(needs) = needs {
            let named = Named {
                scope: ask.scope.clone(),
                ttl: ask.ttl,
                rule: covered.number,
            };
            match self.ask_verified(now, policy, caller, needs, (&ask, named, from.clone())) {
                Ok(decision) => return Ok(OfQuery::Asks(decision)),
                Err(refusal) => not_asked(&mut from, &refusal),
            }
        }
        self.ask(now, policy, caller, ask, Origin::Query(Box::new(from)))
            .map(OfQuery::Asks)
            .map_err(|refusal| self.with_denial(agent, refusal))
    }

    /// Asks for all that the dry run says the query needs.
    fn ask_verified(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        needs: Scope,
        (of_text, named, mut from): (&Ask, Named, FromQuery),
    ) -> Result<Decision, Refusal> {
        if !named.scope.is_within(&needs) {
            let what = "What the dry run says leaves out what the text names";
            return Err(Refusal::new(Code::NotVouched, what));
        }
        let mut ask = Ask {
            scope: needs,
            ttl: Ttl::MIN,
            ..of_text.clone()
        };
        let agent = caller.agent.as_ref();
        let covered = agent.map(|agent| policy.cover(agent, &ask)).transpose()?;
        // Never longer than its agent is shown.
        ask.ttl = covered.map_or(named.ttl, |covered| named.ttl.min(covered.rule.ttl_max));
        from.is_verified = true;
        from.named = Some(named);
        self.ask(now, policy, caller, ask, Origin::Query(Box::new(from)))
    }

    /// Ends what came of a request of the caller's agent, whatever that is by now: it is withdrawn, or its window given back.
    pub(super) fn withdraw_request(&self, caller: &Caller, id: RequestId) -> Decision {
        let mut decision = Decision::default();
        let Some(agent) = &caller.agent else {
            return decision;
        };
        let by = Some(caller.process.clone());
        let request = self.requests.get(&id);
        if request.is_some_and(|held| held.agent == *agent && held.state == RequestState::Pending) {
            decision.events.push(Event::RequestWithdrawn {
                request: id,
                agent: agent.clone(),
                by: by.clone(),
            });
        }
        let mut held = self.grants_of(agent);
        let held = held.find(|grant| grant.request == id && grant.closed.is_none());
        if let Some(held) = held {
            held.close(CloseReason::ProcessEnded, by, &mut decision);
        }
        decision
    }

    /// Gives back every window that the caller holds.
    pub(super) fn give_back_all(&self, caller: &Caller) -> Result<Decision, Refusal> {
        let agent = caller.agent.as_ref().ok_or_else(|| {
            Refusal::new(
                Code::CallerUnknown,
                format!(
                    "Process {} is in no agent's workload, so it holds no window",
                    caller.process.pid
                ),
            )
        })?;
        let mut decision = Decision::default();
        for held in self.grants_of(agent).filter(|grant| grant.closed.is_none()) {
            let by = Some(caller.process.clone());
            held.close(CloseReason::GivenBack, by, &mut decision);
        }
        if decision.first.is_empty() {
            return Err(Refusal::new(
                Code::NotOpen,
                format!("Agent {agent} holds no open window"),
            ));
        }
        Ok(decision)
    }

    /// What waits or is open and ends with a process: the agent, the request, and that process.
    pub fn ending_with_processes(&self) -> impl Iterator<Item = (&AgentName, RequestId, &Process)> {
        let waiting = self
            .requests
            .values()
            .filter(|request| request.ends_with_process && request.state == RequestState::Pending);
        let waiting = waiting.map(|request| (&request.agent, request.id, &request.process));
        let open = self.open_grants();
        let open =
            open.filter_map(|grant| Some((&grant.agent, grant.request, grant.ends_with.as_ref()?)));
        waiting.chain(open)
    }

    /// A request of the agent's that waits and covers `scope`. What is asked for a command ends with that command: nothing else counts on it.
    fn waiting_for(&self, now: Now, agent: &AgentName, scope: &Scope) -> Option<&Request> {
        let mut waiting = self
            .index
            .pending_ids(agent)
            .filter_map(|id| self.requests.get(&id));
        waiting.find(|request| {
            now.boot_ns < request.expires_boot_ns
                && !request.ends_with_process
                // As it stands: an approver may have made it less.
                && scope.is_within(&request.offer.scope)
                && scope.is_within(request.shown_scope())
        })
    }

    /// Whose query waits with a request is one who asks for it, and decides on it no more.
    fn join(&self, caller: &Caller, request: &Request) -> Result<OfQuery, Refusal> {
        let id = request.id;
        if request.is_asked_by(caller.process.uid) {
            return Ok(OfQuery::Joins(id));
        }
        if request.joined.len() >= JOINED_UIDS_MAX {
            return Err(Refusal::new(
                Code::TooManyPending,
                format!(
                    "Queries of {JOINED_UIDS_MAX} other uids wait with request {id}, and of no more may"
                ),
            ));
        }
        let event = Event::RequestJoined {
            request: id,
            agent: request.agent.clone(),
            process: caller.process.clone(),
        };
        let decision = Decision {
            events: vec![event],
            ..Decision::default()
        };
        Ok(OfQuery::JoinsAsAnother(id, decision))
    }

    fn check_of_queries(&self, agent: &AgentName) -> Result<(), Refusal> {
        let pending = self.index.pending_ids(agent);
        let own = pending.filter(|id| self.index.is_of_query(*id)).count();
        let all = self.index.of_queries();
        if own >= OF_QUERIES_PER_AGENT_MAX || all >= OF_QUERIES_MAX {
            return Err(Refusal::new(
                Code::TooManyPending,
                format!(
                    "{own} requests made of queries of agent {agent} wait for a decision, and {all} of all agents; {OF_QUERIES_PER_AGENT_MAX} of one and {OF_QUERIES_MAX} of all may"
                ),
            ));
        }
        Ok(())
    }

    /// A client that asks again too soon after a denial may not have been told of it: it is told why.
    fn with_denial(&self, agent: &AgentName, refusal: Refusal) -> Refusal {
        if refusal.code != Code::TooSoon {
            return refusal;
        }
        let own = self.requests.values().rev();
        let mut own = own.filter(|request| request.agent == *agent);
        match own.next().map(|last| (last.id, &last.state)) {
            Some((id, RequestState::Denied(reason))) => Refusal::new(
                refusal.code,
                format!("{}; request {id} was denied: {reason}", refusal.what),
            ),
            Some((
                _,
                RequestState::Pending
                | RequestState::Approved(_)
                | RequestState::Expired
                | RequestState::Withdrawn,
            ))
            | None => refusal,
        }
    }
}

/// Says for approvers why nobody was asked for all that the query needs.
fn not_asked(from: &mut FromQuery, refusal: &Refusal) {
    let estimate = from.estimate.get_or_insert_default();
    estimate.failed = Some(format!(
        "no request could be made for all of that ({}), so this is for what the text names",
        refusal.what
    ));
    estimate.bound();
}
