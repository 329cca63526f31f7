//! The ledger: every request and grant, and what may become of them. Commands in, decisions out; it is changed only by events.
//!
//! Two laws are in the shape of [`Decision`]: *record, then open* (`then` holds until the events are durable) and *close, then record*
//! (`first` does not wait for the log). The same [`Ledger::apply`] serves live events and the rebuilding from the log at start.

mod budget;
mod commands;
mod grant;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use budget::{BILLED_PER_TABLE_MIN, JOBS_PER_GRANT_MAX, Usage};
pub use commands::{ApproveTerms, Command, REASON_CHARS_MAX};
pub use grant::Grant;

use crate::event::{CloseReason, Event};
use crate::id::{GrantId, QueryId, RequestId, SessionId};
use crate::policy::Ask;
use crate::principal::{AgentName, Process};
use crate::time::Now;

/// How many ended requests and grants are remembered for display; older ones are only in the log.
pub const ENDED_KEPT: usize = 512;

/// One thing the ledger tells its owner to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Let the kernel open the window of this grant. Comes only after its approval is durable.
    OpenWindow {
        /// The agent whose workload it is.
        agent: AgentName,
        /// The grant.
        grant: GrantId,
        /// From, boot clock.
        opens_boot_ns: u64,
        /// Until, boot clock.
        closes_boot_ns: u64,
    },
    /// Close the window: kernel entry, sessions, jobs, token.
    CloseWindow {
        /// The agent whose workload it is.
        agent: AgentName,
        /// The grant.
        grant: GrantId,
        /// Why.
        reason: CloseReason,
    },
}

/// What is to be done, in this order: `first`, then the events made durable, then `then`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Closings: done before and whether or not the log can be written.
    pub first: Vec<Effect>,
    /// To be recorded, then applied.
    pub events: Vec<Event>,
    /// Openings: done only after the events are durable.
    pub then: Vec<Effect>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestState {
    /// Waiting for a decision.
    Pending,
    /// Granted.
    Approved(GrantId),
    /// Not granted, with the approver's reason.
    Denied(String),
    /// Nobody decided in time.
    Expired,
}

/// A request as the ledger holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// The agent.
    pub agent: AgentName,
    /// The process that asked.
    pub process: Process,
    /// What is asked.
    pub ask: Ask,
    /// The policy rule that covered it when it was asked.
    pub rule: u32,
    /// SHA-256 of what approvers are shown.
    pub digest: String,
    /// When it was asked.
    pub asked: Now,
    /// When it stops waiting, boot clock.
    pub expires_boot_ns: u64,
    /// What became of it.
    pub state: RequestState,
}

impl Request {
    /// The request that an asking makes; `None` for every other event.
    fn from_asking(now: Now, event: &Event) -> Option<Self> {
        let Event::Requested {
            request,
            agent,
            process,
            ask,
            rule,
            digest,
            expires_boot_ns,
        } = event
        else {
            return None;
        };
        Some(Self {
            id: *request,
            agent: agent.clone(),
            process: process.clone(),
            ask: ask.clone(),
            rule: *rule,
            digest: digest.clone(),
            asked: now,
            expires_boot_ns: *expires_boot_ns,
            state: RequestState::Pending,
        })
    }
}

/// Requests and grants of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    requests: BTreeMap<RequestId, Request>,
    grants: BTreeMap<GrantId, Grant>,
    last_request: u64,
    last_grant: u64,
    last_query: u64,
    last_session: u64,
}

impl Ledger {
    /// The requests it remembers, oldest first.
    pub fn requests(&self) -> impl DoubleEndedIterator<Item = &Request> {
        self.requests.values()
    }

    /// The grants it remembers, oldest first.
    pub fn grants(&self) -> impl DoubleEndedIterator<Item = &Grant> {
        self.grants.values()
    }

    /// One request.
    #[must_use]
    pub fn request(&self, id: RequestId) -> Option<&Request> {
        self.requests.get(&id)
    }

    /// One grant.
    #[must_use]
    pub fn grant(&self, id: GrantId) -> Option<&Grant> {
        self.grants.get(&id)
    }

    /// The agent's open grant, if its window has not reached its end at `now`.
    #[must_use]
    pub fn open_grant(&self, agent: &AgentName, now: Now) -> Option<&Grant> {
        self.held_grant(agent).filter(|grant| grant.is_open_at(now))
    }

    /// The agent's last grant, open or not: what a refusal names.
    #[must_use]
    pub fn last_grant(&self, agent: &AgentName) -> Option<&Grant> {
        self.grants
            .values()
            .rev()
            .find(|grant| grant.agent == *agent)
    }

    /// The number the next admitted query gets.
    #[must_use]
    pub const fn next_query(&self) -> QueryId {
        QueryId(self.last_query).next()
    }

    /// The highest number of a session that a record names. A higher one may have been given to a session that left no record: nobody
    /// has seen it, so it may be given again.
    #[must_use]
    pub const fn last_session(&self) -> SessionId {
        SessionId(self.last_session)
    }

    /// When to call [`Ledger::tick`] next, boot clock: the earliest deadline. Early calls do nothing.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let windows = self
            .grants
            .values()
            .filter(|grant| grant.closed.is_none())
            .map(|grant| grant.closes_boot_ns);
        let waiting = self
            .requests
            .values()
            .filter(|request| request.state == RequestState::Pending);
        windows
            .chain(waiting.map(|request| request.expires_boot_ns))
            .min()
    }

    /// What is due at `now`: windows to close, requests to give up.
    #[must_use]
    pub fn tick(&self, now: Now) -> Decision {
        let mut decision = Decision::default();
        for grant in self.grants.values().filter(|grant| grant.closed.is_none()) {
            if now.boot_ns >= grant.closes_boot_ns {
                grant.close(CloseReason::Expired, None, &mut decision);
            } else if grant.usage.has_read_outside() {
                grant.close(CloseReason::ScopeViolated, None, &mut decision);
            } else if grant.is_spent() {
                grant.close(CloseReason::BudgetSpent, None, &mut decision);
            }
        }
        for request in self.requests.values() {
            if request.state == RequestState::Pending && now.boot_ns >= request.expires_boot_ns {
                decision.events.push(Event::RequestExpired {
                    request: request.id,
                    agent: request.agent.clone(),
                });
            }
        }
        decision
    }

    /// What a start of the daemon finds: windows from before a reboot, or that the kernel does not hold, are closed.
    ///
    /// `is_same_boot` says whether the log's last record was written in this boot; `in_kernel` whether the kernel holds this grant's
    /// window. Both must agree for a window to live on: a log that lost a close cannot reopen it.
    #[must_use]
    pub fn resume(
        &self,
        now: Now,
        is_same_boot: bool,
        in_kernel: impl Fn(&Grant) -> bool,
    ) -> Decision {
        let mut decision = Decision::default();
        for grant in self.grants.values().filter(|grant| grant.closed.is_none()) {
            if !is_same_boot {
                grant.close(CloseReason::Rebooted, None, &mut decision);
            } else if now.boot_ns >= grant.closes_boot_ns {
                grant.close(CloseReason::Expired, None, &mut decision);
            } else if !in_kernel(grant) {
                grant.close(CloseReason::KernelMissing, None, &mut decision);
            }
        }
        for request in self
            .requests
            .values()
            .filter(|request| request.state == RequestState::Pending)
        {
            if !is_same_boot || now.boot_ns >= request.expires_boot_ns {
                decision.events.push(Event::RequestExpired {
                    request: request.id,
                    agent: request.agent.clone(),
                });
            }
        }
        decision
    }

    /// Windows that have closed and whose jobs nobody has cancelled, though BigQuery may still run them.
    pub fn unsettled(&self, now: Now) -> impl Iterator<Item = &Grant> {
        self.grants
            .values()
            .filter(move |grant| grant.is_unsettled_at(now))
    }

    /// The kernel did not take the window of `grant`: it is closed before it served anything.
    #[must_use]
    pub fn open_failed(&self, grant: GrantId) -> Decision {
        let mut decision = Decision::default();
        if let Some(grant) = self
            .grants
            .get(&grant)
            .filter(|grant| grant.closed.is_none())
        {
            grant.close(CloseReason::KernelMissing, None, &mut decision);
        }
        decision
    }

    /// Takes in what happened. Events that the ledger holds nothing about change nothing.
    pub fn apply(&mut self, now: Now, event: &Event) {
        if let Some(session) = event.session() {
            self.last_session = self.last_session.max(session.0);
        }
        match event {
            Event::Requested { request, .. } => {
                self.last_request = self.last_request.max(request.0);
                if let Some(held) = Request::from_asking(now, event) {
                    self.requests.insert(*request, held);
                }
            }
            Event::Approved { request, grant, .. } => {
                self.end_request(*request, RequestState::Approved(*grant));
                if let Some(held) = Grant::from_approval(event) {
                    self.last_grant = self.last_grant.max(grant.0);
                    self.grants.insert(*grant, held);
                }
            }
            Event::Denied {
                request, reason, ..
            } => self.end_request(*request, RequestState::Denied(reason.clone())),
            Event::RequestExpired { request, .. } => {
                self.end_request(*request, RequestState::Expired)
            }
            Event::Closed { grant, reason, .. } => {
                if let Some(held) = self.grants.get_mut(grant) {
                    held.closed.get_or_insert((*reason, now));
                }
                self.forget_ended();
            }
            Event::QueryAdmitted { query, grant, .. } => {
                self.last_query = self.last_query.max(query.0);
                self.use_up(*grant, event);
            }
            Event::JobSeen { grant, .. }
            | Event::QueryFinished { grant, .. }
            | Event::JobCancelled { grant, .. } => self.use_up(*grant, event),
            Event::DaemonStarted { .. }
            | Event::DaemonStopped {}
            | Event::TailRepaired { .. }
            | Event::RequestRefused { .. }
            | Event::Opened { .. }
            | Event::DecisionRefused { .. }
            | Event::HealthChanged { .. }
            | Event::QueryAsked { .. }
            | Event::QueryRefused { .. }
            | Event::ConnectionRefused { .. }
            | Event::KernelRefused { .. }
            | Event::FurtherRefused { .. }
            | Event::TooLong { .. }
            | Event::ProcessJoined { .. }
            | Event::Detached { .. }
            | Event::Forwarded { .. } => {}
        }
    }

    /// Takes back the last admission: it could not be recorded, so it did not happen. Of several the last comes first.
    pub fn withdraw(&mut self, event: &Event) {
        let Event::QueryAdmitted { query, grant, .. } = event else {
            return;
        };
        self.last_query = query.0.saturating_sub(1);
        if let Some(held) = self.grants.get_mut(grant) {
            held.usage.withdraw(event);
        }
    }

    /// Whether `event` says what the ledger does not know yet. Clients ask for a job that has ended again and again.
    #[must_use]
    pub fn is_news(&self, event: &Event) -> bool {
        let Event::JobSeen { grant, .. } = event else {
            return true;
        };
        let held = self.grants.get(grant);
        held.is_some_and(|held| held.usage.is_changed_by(event))
    }

    fn use_up(&mut self, grant: GrantId, event: &Event) {
        if let Some(held) = self.grants.get_mut(&grant) {
            held.usage.apply(event);
        }
    }

    fn held_grant(&self, agent: &AgentName) -> Option<&Grant> {
        self.grants
            .values()
            .rev()
            .find(|grant| grant.agent == *agent && grant.closed.is_none())
    }

    fn end_request(&mut self, id: RequestId, state: RequestState) {
        if let Some(request) = self
            .requests
            .get_mut(&id)
            .filter(|request| request.state == RequestState::Pending)
        {
            request.state = state;
        }
        self.forget_ended();
    }

    /// Drops the oldest ended entries past [`ENDED_KEPT`]; what is open or pending always stays.
    fn forget_ended(&mut self) {
        let ended: Vec<_> = self
            .requests
            .values()
            .filter(|r| r.state != RequestState::Pending)
            .map(|r| r.id)
            .collect();
        for id in ended.iter().take(ended.len().saturating_sub(ENDED_KEPT)) {
            self.requests.remove(id);
        }
        let ended: Vec<_> = self
            .grants
            .values()
            .filter(|g| g.closed.is_some())
            .map(|g| g.id)
            .collect();
        for id in ended.iter().take(ended.len().saturating_sub(ENDED_KEPT)) {
            self.grants.remove(id);
        }
    }
}
