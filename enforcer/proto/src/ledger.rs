//! The ledger: every request and grant, and what may become of them. Commands in, decisions out; it is changed only by events.
//!
//! Two laws are in the shape of [`Decision`]: *record, then open* (`then` holds until the events are durable) and *close, then record*
//! (`first` does not wait for the log). The same [`Ledger::apply`] serves live events and the rebuilding from the log at start.

mod asking;
mod budget;
mod commands;
mod deciding;
mod grant;
mod history;
mod index;
mod locking;
mod of_query;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use budget::{
    BILLED_PER_TABLE_MIN, JOBS_PER_GRANT_MAX, JobState, NameUse, UnsettledJob, Usage,
};
pub use commands::{ApproveTerms, Command, REASON_CHARS_MAX, may_watch_over};
pub use deciding::{Offered, may_decide_on};
pub use grant::{Ceilings, Grant};
pub use history::{History, TooSoon};
use index::Index;
pub use locking::Lock;
use of_query::Origin;
pub use of_query::{JOINED_UIDS_MAX, OfQuery, Wanted};
pub use timeline::Needed;
use timeline::Timeline;

use crate::asking::FromQuery;
use crate::audit::{Record, sha256_hex};
use crate::event::{CloseReason, Event, Numbers};
use crate::id::{GrantId, QueryId, RequestId, SessionId};
use crate::policy::{Ask, Budget, Vote};
use crate::principal::{AgentName, Approver, Process, ProcessOrigin};
use crate::scope::Scope;
use crate::time::{NS_PER_S, Now, Ttl};

/// How many ended requests and grants are remembered for display; older ones are only in the log.
pub const ENDED_KEPT: usize = 512;

/// The version of what [`Ledger::apply`] makes of events. It is raised whenever a record is taken in otherwise than before: a snapshot of
/// another version is not used, and the log is read whole once.
pub const LEDGER_VERSION: u32 = 10;
/// Records younger than this are always needed, nanoseconds: two days, more than the longest window, what its jobs may last, and the day over
/// which shares of time are counted.
pub const NEEDED_NS: u64 = 48 * 3600 * NS_PER_S;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestState {
    /// Waiting for a decision.
    Pending,
    /// Granted.
    Approved(GrantId),
    /// Not granted, with the approver's reason.
    Denied(String),
    /// Nobody decided in time.
    Expired,
    /// Whoever asked has ended.
    Withdrawn,
}

/// What may be granted of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Datasets and access; within what is asked.
    pub scope: Scope,
    /// For how long; not longer than is asked.
    pub ttl: Ttl,
    /// What the window may use; not more than is asked, nor than the rule allowed then. Of a request on an older record it is not known, and the
    /// rule alone bounds it.
    pub budget: Budget,
}

/// A request as the ledger holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its number.
    pub id: RequestId,
    /// The agent.
    pub agent: AgentName,
    /// The process that asked.
    pub process: Process,
    /// Where that comes from, for people, where it could be read. No part of the digest: names in it are of the processes' own choice.
    pub origin: Option<ProcessOrigin>,
    /// Uids besides whose queries wait with it: none of them decides on it.
    pub joined: BTreeSet<u32>,
    /// What is asked.
    pub ask: Ask,
    /// The policy rule that covered it when it was asked, or agreed to last.
    pub rule: u32,
    /// What may be granted: what is asked, or what those who agreed have made of it.
    pub offer: Offer,
    /// SHA-256 of what approvers were shown when it was asked, or agreed to last. What they are shown now is [`Request::offered`].
    pub digest: String,
    /// Who has agreed so far.
    pub votes: Vec<Vote>,
    /// When it was asked, on the ledger's line of time.
    pub(super) asked_at_ns: u64,
    /// When it stops waiting, boot clock.
    pub expires_boot_ns: u64,
    /// The query that it was made of, if so.
    pub from_query: Option<FromQuery>,
    /// It ends with the process that asked, and so does its window.
    pub ends_with_process: bool,
    /// What became of it.
    pub state: RequestState,
}

impl Request {
    /// Whether this uid asked for it, or has a query that waits with it.
    #[must_use]
    pub fn is_asked_by(&self, uid: u32) -> bool {
        self.process.uid == uid || self.joined.contains(&uid)
    }

    fn askers(&self) -> BTreeSet<u32> {
        let joined = self.joined.iter().copied();
        joined.chain([self.process.uid]).collect()
    }

    /// What its agent is shown of what it asks for: where BigQuery's dry run said what that is, what the text names.
    #[must_use]
    pub fn shown_scope(&self) -> &Scope {
        let named = self
            .from_query
            .as_ref()
            .and_then(|from| from.named.as_ref());
        named.map_or(&self.ask.scope, |named| &named.scope)
    }

    /// The request that an asking makes; `None` for every other event.
    fn from_asking(asked_at_ns: u64, event: &Event) -> Option<Self> {
        let Event::Requested {
            request,
            agent,
            process,
            ask,
            rule,
            digest,
            expires_boot_ns,
            from_query,
            ends_with_process,
            budget,
            origin,
        } = event
        else {
            return None;
        };
        Some(Self {
            id: *request,
            agent: agent.clone(),
            process: process.clone(),
            origin: origin.clone(),
            joined: BTreeSet::new(),
            offer: Offer {
                scope: ask.scope.clone(),
                ttl: ask.ttl,
                budget: budget.unwrap_or(Budget::UNBOUNDED),
            },
            ask: ask.clone(),
            rule: *rule,
            digest: digest.clone(),
            votes: Vec::new(),
            asked_at_ns,
            expires_boot_ns: *expires_boot_ns,
            from_query: from_query.clone(),
            ends_with_process: *ends_with_process,
            state: RequestState::Pending,
        })
    }
}

/// A window that was opened in an emergency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emergency {
    /// The agent.
    pub agent: AgentName,
    /// Who opened it.
    pub by: Approver,
    /// The uids that asked for it or waited with it, where its request is remembered.
    pub asked_by: BTreeSet<u32>,
    /// Why.
    pub reason: String,
}

/// Requests and grants of one host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    requests: BTreeMap<RequestId, Request>,
    grants: BTreeMap<GrantId, Grant>,
    index: Index,
    timeline: Timeline,
    histories: BTreeMap<AgentName, History>,
    /// Windows that were opened in an emergency and wait for somebody else to look at them.
    unreviewed: BTreeMap<GrantId, Emergency>,
    /// Agents that somebody keeps from windows.
    locks: BTreeMap<AgentName, Lock>,
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
        self.grants_of(agent).next()
    }

    /// The open grants, past their end or not, the first to end first.
    pub fn open_grants(&self) -> impl Iterator<Item = &Grant> {
        self.index.open().filter_map(|id| self.grants.get(&id))
    }

    /// How long of the last 24 hours the agent has held a window, nanoseconds, to within a quarter of an hour.
    #[must_use]
    pub fn held_in_day(&self, agent: &AgentName, now: Now) -> u64 {
        let at_ns = self.timeline.at(now);
        let ended = self.histories.get(agent);
        let ended = ended.map_or(0, |history| history.held_in_day(at_ns));
        let open = self.held_grant(agent);
        let open = open.map_or(0, |grant| at_ns.saturating_sub(grant.opened_at_ns));
        ended.saturating_add(open)
    }

    /// How much of each quarter of an hour of the last 24 hours the agent has held a window, percent, the oldest first.
    #[must_use]
    pub fn day(&self, agent: &AgentName, now: Now) -> Vec<u8> {
        let at_ns = self.timeline.at(now);
        let history = self.histories.get(agent);
        let mut day = history.cloned().unwrap_or_default().day(at_ns);
        if let Some(open) = self.held_grant(agent) {
            history::with_open(&mut day, open.opened_at_ns, at_ns);
        }
        day
    }

    /// The agents that have asked for something, or are locked.
    pub fn agents(&self) -> impl Iterator<Item = &AgentName> {
        self.histories.keys().chain(self.locks.keys())
    }

    /// Windows that were opened in an emergency and wait for somebody else to look at them, oldest first.
    pub fn unreviewed(&self) -> impl Iterator<Item = (GrantId, &Emergency)> {
        self.unreviewed.iter().map(|(grant, how)| (*grant, how))
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
        self.index.due()
    }

    /// What is due at `now`: windows to close, requests to give up.
    #[must_use]
    pub fn tick(&self, now: Now) -> Decision {
        let mut decision = Decision::default();
        let closing = self.index.closing_at(now.boot_ns);
        for grant in closing.iter().filter_map(|id| self.grants.get(id)) {
            if now.boot_ns >= grant.closes_boot_ns {
                grant.close(CloseReason::Expired, None, &mut decision);
            } else if grant.usage.has_read_outside() {
                grant.close(CloseReason::ScopeViolated, None, &mut decision);
            } else if grant.is_spent() || now.boot_ns >= grant.due_boot_ns() {
                grant.close(CloseReason::BudgetSpent, None, &mut decision);
            }
        }
        let expiring = self.index.expiring_at(now.boot_ns);
        for request in expiring.iter().filter_map(|id| self.requests.get(id)) {
            decision.events.push(Event::RequestExpired {
                request: request.id,
                agent: request.agent.clone(),
            });
        }
        decision
    }

    /// Of what is due now: the windows whose time is up, or of which a job has read outside. No record that is being made takes that back, so they may
    /// be closed while one is; a budget may be spent by what will have been recorded in vain, and a request may be the one that is decided.
    #[must_use]
    pub fn ended(&self, now: Now) -> Decision {
        let mut decision = Decision::default();
        let closing = self.index.closing_at(now.boot_ns);
        for grant in closing.iter().filter_map(|id| self.grants.get(id)) {
            if now.boot_ns >= grant.closes_boot_ns {
                grant.close(CloseReason::Expired, None, &mut decision);
            } else if grant.usage.has_read_outside() {
                grant.close(CloseReason::ScopeViolated, None, &mut decision);
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
            grant.end_broken_off(&mut decision);
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
        let at_ns = self.timeline.at(now);
        self.grants
            .values()
            .filter(move |grant| grant.is_unsettled_at(at_ns))
    }

    /// The jobs of a window that somebody must look at until they are settled; of one that has closed only for as long as BigQuery may run them.
    #[must_use]
    pub fn unsettled_jobs(&self, grant: GrantId, now: Now) -> Vec<UnsettledJob> {
        let at_ns = self.timeline.at(now);
        let held = self.grants.get(&grant);
        let held = held.filter(|held| held.closed.is_none() || held.is_unsettled_at(at_ns));
        held.map(Grant::unsettled_jobs).unwrap_or_default()
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

    /// Takes in a record of the log, in the boot in which it was written.
    pub fn take_record(&mut self, record: &Record) {
        self.in_boot(&record.boot_id);
        self.apply(record.now(), &record.event);
    }

    /// Says in which boot what is taken in from here on happens. Only where that is another boot than before does the wall clock say how long it
    /// has been; where nobody says so, a boot clock that begins anew lets no time pass.
    pub fn in_boot(&mut self, boot_id: &str) {
        self.timeline.in_boot(boot_id);
    }

    /// Takes in that somebody has agreed. No rule does: it opens or does not.
    fn take_agreement(&mut self, event: &Event) {
        if let Event::ApprovalGiven {
            request,
            approver: Approver::Person { uid },
            gids,
            scope,
            ttl,
            next_digest,
            budget,
            signer,
            rule,
            ..
        } = event
        {
            let vote = Vote {
                uid: *uid,
                gids: gids.clone(),
                signer: signer.clone(),
            };
            let offer = Offer {
                scope: scope.clone(),
                ttl: *ttl,
                budget: budget.unwrap_or(Budget::UNBOUNDED),
            };
            self.take_vote(*request, vote, offer, next_digest);
            self.falls_under(*request, *rule);
        }
    }

    /// Takes in what happened, in the boot that was named last. Events that the ledger holds nothing about change nothing.
    pub fn apply(&mut self, now: Now, event: &Event) {
        // With every event: what the wall clock does within a boot has no say in how long it is until the next one. An admission may be taken
        // back, and then nothing of it is left.
        let at_ns = if matches!(event, Event::QueryAdmitted { .. }) {
            self.timeline.at(now)
        } else {
            self.timeline.move_to(now)
        };
        if let Some(session) = event.session() {
            self.last_session = self.last_session.max(session.0);
        }
        match event {
            Event::Requested { .. } => self.take_request(at_ns, event),
            Event::ApprovalGiven { .. } => self.take_agreement(event),
            Event::Approved { .. } => self.take_grant(at_ns, event),
            Event::Reviewed { grant, .. } => drop(self.unreviewed.remove(grant)),
            Event::AgentLocked { agent, by, reason } => {
                self.take_lock(now, at_ns, agent, by, reason)
            }
            Event::AgentUnlocked { agent, .. } => drop(self.locks.remove(agent)),
            Event::Denied {
                request,
                reason,
                agent,
                ..
            } => {
                self.take_denial(at_ns, agent);
                self.end_request(at_ns, *request, RequestState::Denied(reason.clone()));
            }
            Event::RequestExpired { request, .. } => {
                self.end_request(at_ns, *request, RequestState::Expired)
            }
            Event::Closed { grant, reason, .. } => self.take_close(now, at_ns, *grant, *reason),
            Event::RequestWithdrawn { request, .. } => {
                self.end_request(at_ns, *request, RequestState::Withdrawn)
            }
            Event::RequestJoined {
                request, process, ..
            } => self.take_joining(*request, process.uid),
            Event::QueryAdmitted { query, grant, .. } => {
                self.last_query = self.last_query.max(query.0);
                self.use_up(now, *grant, event);
            }
            Event::JobSeen { grant, .. }
            | Event::QueryFinished { grant, .. }
            | Event::JobCancelled { grant, .. } => self.use_up(now, *grant, event),
            Event::SegmentsRemoved { numbers, .. } => self.take_numbers(numbers),
            Event::DaemonStarted { .. }
            | Event::DaemonStopped {}
            | Event::TailRepaired { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotSetAside { .. }
            | Event::RequestRefused { .. }
            | Event::Opened { .. }
            | Event::DecisionRefused { .. }
            | Event::HealthChanged { .. }
            | Event::QueryAsked { .. }
            | Event::EstimateAsked { .. }
            | Event::QueryRefused { .. }
            | Event::ConnectionRefused { .. }
            | Event::KernelRefused { .. }
            | Event::FurtherRefused { .. }
            | Event::EventsLost { .. }
            | Event::TooLong { .. }
            | Event::ProcessJoined { .. }
            | Event::Detached { .. }
            | Event::PolicyLoaded { .. }
            | Event::PolicyRejected { .. }
            | Event::Forwarded { .. }
            | Event::CredentialPresented { .. }
            | Event::IssuerKeySigns { .. }
            | Event::NamespaceServed { .. }
            | Event::NamespaceLeft { .. }
            | Event::NamespaceRefused { .. }
            | Event::ContainerChanged { .. }
            | Event::WayExamined { .. }
            | Event::NotificationFailed { .. } => {}
        }
    }

    fn take_lock(&mut self, now: Now, at_ns: u64, agent: &AgentName, by: &Approver, reason: &str) {
        let lock = Lock {
            by: by.clone(),
            reason: reason.to_owned(),
            since: now,
            since_at_ns: at_ns,
        };
        self.locks.insert(agent.clone(), lock);
    }

    /// Goes on behind the numbers of records that are no longer there.
    fn take_numbers(&mut self, numbers: &Numbers) {
        self.last_request = self.last_request.max(numbers.request);
        self.last_grant = self.last_grant.max(numbers.grant);
        self.last_query = self.last_query.max(numbers.query);
        self.last_session = self.last_session.max(numbers.session);
    }

    fn take_request(&mut self, at_ns: u64, event: &Event) {
        let Some(held) = Request::from_asking(at_ns, event) else {
            return;
        };
        self.last_request = self.last_request.max(held.id.0);
        self.history_of(&held.agent).asks(at_ns);
        if let Some(before) = self.requests.get(&held.id) {
            self.index.forget_request(before);
        }
        self.index.request(&held);
        self.requests.insert(held.id, held);
    }

    fn take_vote(&mut self, id: RequestId, vote: Vote, offer: Offer, next_digest: &str) {
        let pending = self.requests.get_mut(&id);
        let pending = pending.filter(|request| request.state == RequestState::Pending);
        let Some(request) = pending else {
            return;
        };
        // Who agrees again, signed where that has come to be asked for, counts once.
        request.votes.retain(|before| before.uid != vote.uid);
        request.votes.push(vote);
        request.offer = offer;
        next_digest.clone_into(&mut request.digest);
    }

    /// Whose query waits with a request is one who asks: what that uid has agreed to before counts no more.
    fn take_joining(&mut self, id: RequestId, uid: u32) {
        if let Some(request) = self.requests.get_mut(&id) {
            request.votes.retain(|vote| vote.uid != uid);
            request.joined.insert(uid);
        }
    }

    /// A request that waits was decided on under this rule: another policy numbers them otherwise.
    fn falls_under(&mut self, id: RequestId, rule: Option<u32>) {
        let pending = self.requests.get_mut(&id);
        let pending = pending.filter(|request| request.state == RequestState::Pending);
        if let (Some(request), Some(rule)) = (pending, rule) {
            request.rule = rule;
        }
    }

    fn take_grant(&mut self, at_ns: u64, event: &Event) {
        let Some(mut held) = Grant::from_approval(at_ns, event) else {
            return;
        };
        self.take_over(&mut held);
        if let Event::Approved { rule, .. } = event {
            self.falls_under(held.request, *rule);
        }
        self.end_request(at_ns, held.request, RequestState::Approved(held.id));
        // What a rule opens by itself answers none of the people who said no.
        match held.approver {
            Approver::Person { .. } => self.history_of(&held.agent).is_granted_by_a_person(),
            Approver::Policy { .. } => {}
        }
        self.last_grant = self.last_grant.max(held.id.0);
        if let Some(reason) = &held.break_glass {
            let request = self.requests.get(&held.request);
            let how = Emergency {
                agent: held.agent.clone(),
                by: held.approver.clone(),
                asked_by: request.map(Request::askers).unwrap_or_default(),
                reason: reason.clone(),
            };
            self.unreviewed.insert(held.id, how);
        }
        if let Some(before) = self.grants.get(&held.id) {
            self.index.forget_grant(before);
        }
        self.index.new_grant(&held);
        self.grants.insert(held.id, held);
    }

    fn take_close(&mut self, now: Now, at_ns: u64, grant: GrantId, reason: CloseReason) {
        if let Some(held) = self.grants.get_mut(&grant)
            && held.closed.is_none()
        {
            held.closed = Some((reason, now));
            held.closed_at_ns = Some(at_ns);
            self.index.grant(held);
            // Closed late, since nobody was there to do it, it was open no longer for that.
            let (from_ns, agent) = (held.opened_at_ns, held.agent.clone());
            let until_ns = at_ns.min(held.ends_at_ns());
            self.history_of(&agent).held(from_ns, until_ns);
        }
        self.forget_ended(at_ns);
    }

    fn history_of(&mut self, agent: &AgentName) -> &mut History {
        self.histories.entry(agent.clone()).or_default()
    }

    /// The highest numbers given so far.
    #[must_use]
    pub const fn numbers(&self) -> Numbers {
        Numbers {
            request: self.last_request,
            grant: self.last_grant,
            query: self.last_query,
            session: self.last_session,
        }
    }

    /// Since when records are needed to make this ledger out of the log alone: those of what is open, waits, is not settled or not reviewed yet, of
    /// who is locked, and whatever is younger than [`NEEDED_NS`] on its line of time, wherever the wall clock stands. What is older may go; of
    /// what ended before, only the display forgets.
    #[must_use]
    pub fn needed(&self, now: Now) -> Needed<'_> {
        let at_ns = self.timeline.at(now);
        let waiting = self.requests.values();
        let waiting = waiting.filter(|request| request.state == RequestState::Pending);
        let held = self.grants.values();
        let held = held.filter(|grant| grant.closed.is_none() || grant.is_unsettled_at(at_ns));
        let long_before = |grant: &Grant| grant.opened_at_ns.saturating_sub(NEEDED_NS);
        // A grant names its request, which was asked before it was granted.
        let asked = held.map(|grant| match self.requests.get(&grant.request) {
            Some(request) => request.asked_at_ns,
            None => long_before(grant),
        });
        // One that nobody has looked at stays red, however old it is; where its grant is not remembered, all is needed.
        let emergencies = self.unreviewed.keys();
        let emergencies = emergencies.map(|grant| self.grants.get(grant).map_or(0, long_before));
        let since_ns = waiting
            .map(|request| request.asked_at_ns)
            .chain(asked)
            .chain(emergencies)
            .chain(self.locks.values().map(|lock| lock.since_at_ns))
            .fold(at_ns.saturating_sub(NEEDED_NS), u64::min);
        self.timeline.needed(since_ns)
    }

    /// Takes back the last admission: it could not be recorded, so it did not happen. Of several the last comes first.
    pub fn withdraw(&mut self, event: &Event) {
        let Event::QueryAdmitted { query, grant, .. } = event else {
            return;
        };
        self.last_query = query.0.saturating_sub(1);
        if let Some(held) = self.grants.get_mut(grant) {
            held.usage.withdraw(event);
            self.index.grant(held);
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

    fn use_up(&mut self, now: Now, grant: GrantId, event: &Event) {
        if let Some(held) = self.grants.get_mut(&grant) {
            held.use_up(now, event);
            self.index.grant(held);
        }
    }

    /// An agent's grants that are remembered, newest first.
    fn grants_of(&self, agent: &AgentName) -> impl Iterator<Item = &Grant> {
        let own = self.index.grants_of(agent);
        own.filter_map(|id| self.grants.get(&id))
    }

    fn held_grant(&self, agent: &AgentName) -> Option<&Grant> {
        self.grants_of(agent).find(|grant| grant.closed.is_none())
    }

    /// What a grant has of its request: that may be forgotten before it.
    fn take_over(&self, grant: &mut Grant) {
        if let Some(request) = self.requests.get(&grant.request) {
            grant.ends_with = request.ends_with_process.then(|| request.process.clone());
            let from = request.from_query.as_ref();
            grant.is_of_text = from.is_some_and(|from| from.is_of_text(&grant.scope));
            grant.reason_digest = Some(sha256_hex(request.ask.reason.as_bytes()));
        }
    }

    /// What a lock takes back says nothing against the agent's asking again once it is unlocked.
    fn take_denial(&mut self, at_ns: u64, agent: &AgentName) {
        if self.lock_of(agent).is_none() {
            self.history_of(agent).is_denied(at_ns);
        }
    }

    fn end_request(&mut self, at_ns: u64, id: RequestId, state: RequestState) {
        if let Some(request) = self
            .requests
            .get_mut(&id)
            .filter(|request| request.state == RequestState::Pending)
        {
            request.state = state;
            self.index.request(request);
        }
        self.forget_ended(at_ns);
    }

    /// Drops the oldest ended entries past [`ENDED_KEPT`]; what is open or pending always stays, and so do windows whose jobs may run on.
    fn forget_ended(&mut self, at_ns: u64) {
        while let Some(id) = self.index.take_old_request() {
            self.requests.remove(&id);
        }
        let is_unsettled = |id: &GrantId| {
            let grant = self.grants.get(id);
            grant.is_some_and(|grant| grant.is_unsettled_at(at_ns))
        };
        let mut old = self.index.old_grants();
        old.retain(|id| !is_unsettled(id));
        for id in old {
            if let Some(grant) = self.grants.remove(&id) {
                self.index.forget_grant(&grant);
            }
        }
    }
}
