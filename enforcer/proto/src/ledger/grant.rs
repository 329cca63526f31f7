//! A grant: what an approval made, what was used of it, and how it ended.

use std::collections::{BTreeMap, BTreeSet};

use super::{Decision, Effect};
use crate::event::{CloseReason, Event};
use crate::id::{GrantId, QueryId, RequestId};
use crate::principal::{AgentName, Approver, Process};
use crate::query::{JobRef, Method};
use crate::scope::{Scope, TableRef};
use crate::time::Now;

/// The most jobs a grant keeps as its own; later ones run but cannot be read back, and the query budget ends before that.
pub const JOBS_PER_GRANT_MAX: usize = 10_000;

/// What was used of a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Queries admitted.
    pub queries: u64,
    /// Bytes billed, as BigQuery said.
    pub bytes: u64,
    /// Bytes of admitted queries that have not finished, by estimate.
    reserved: BTreeMap<QueryId, u64>,
    /// Jobs the grant started.
    jobs: Vec<JobRef>,
    /// Tables that hold results of those jobs.
    results: BTreeSet<TableRef>,
}

impl Usage {
    pub(super) fn admitted(&mut self, query: QueryId, method: Method, bytes: u64) {
        if matches!(method, Method::JobsInsert | Method::JobsQuery) {
            self.queries += 1;
            self.reserved.insert(query, bytes);
        }
    }

    pub(super) fn finished(
        &mut self,
        query: QueryId,
        job: Option<&JobRef>,
        destination: Option<&TableRef>,
        bytes: u64,
    ) {
        // Billed is what BigQuery says, and at least what was reserved while nobody knows better.
        let reserved = self.reserved.remove(&query);
        self.bytes = self
            .bytes
            .saturating_add(reserved.map_or(0, |reserved| reserved.max(bytes)));
        // A job without its location cannot be told from others of its id: it is nobody's.
        if let Some(job) = job.filter(|job| {
            job.location.is_some()
                && self.jobs.len() < JOBS_PER_GRANT_MAX
                && !self.jobs.iter().any(|own| own.is_same_job(job))
        }) {
            self.jobs.push(job.clone());
        }
        if let Some(table) = destination.filter(|table| {
            table.dataset().dataset().starts_with('_') && self.results.len() < JOBS_PER_GRANT_MAX
        }) {
            self.results.insert(table.clone());
        }
    }
}

/// A grant as the ledger holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its number.
    pub id: GrantId,
    /// The request it answers.
    pub request: RequestId,
    /// The agent.
    pub agent: AgentName,
    /// Who decided.
    pub approver: Approver,
    /// What is granted.
    pub scope: Scope,
    /// Byte budget.
    pub bytes_max: u64,
    /// Query budget.
    pub queries_max: u64,
    /// Opens, boot clock.
    pub opens_boot_ns: u64,
    /// Closes, boot clock; absolute.
    pub closes_boot_ns: u64,
    /// Closes, unix time, for people.
    pub closes_unix_ns: u64,
    /// How and when it ended.
    pub closed: Option<(CloseReason, Now)>,
    /// What was used.
    pub usage: Usage,
}

impl Grant {
    /// Whether the window is open at `now`: `[opens, closes)` on the boot clock, and nobody ended it.
    #[must_use]
    pub const fn is_open_at(&self, now: Now) -> bool {
        self.closed.is_none()
            && self.opens_boot_ns <= now.boot_ns
            && now.boot_ns < self.closes_boot_ns
    }

    /// Bytes that queries may still process.
    #[must_use]
    pub fn bytes_left(&self) -> u64 {
        let reserved = self
            .usage
            .reserved
            .values()
            .fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        self.bytes_max
            .saturating_sub(self.usage.bytes)
            .saturating_sub(reserved)
    }

    /// Queries that may still be run.
    #[must_use]
    pub const fn queries_left(&self) -> u64 {
        self.queries_max.saturating_sub(self.usage.queries)
    }

    /// The job of this window that `asked` names. Without a location it must be the window's only job of that id: BigQuery would look
    /// for it in places of its own choosing, where somebody else's job may have the same id.
    #[must_use]
    pub fn own_job(&self, asked: &JobRef) -> Option<&JobRef> {
        let mut own = self.usage.jobs.iter().filter(|own| match asked.location {
            Some(_) => own.is_same_job(asked),
            None => own.project == asked.project && own.job == asked.job,
        });
        own.next().filter(|_| own.next().is_none())
    }

    /// Whether the table holds the result of a job of this window.
    #[must_use]
    pub fn owns_result(&self, table: &TableRef) -> bool {
        self.usage.results.contains(table)
    }

    /// The jobs the window started.
    #[must_use]
    pub fn jobs(&self) -> &[JobRef] {
        &self.usage.jobs
    }

    /// The bytes budget is used up. A used-up query budget does not close: results may still be read.
    pub(super) const fn is_spent(&self) -> bool {
        self.usage.bytes >= self.bytes_max
    }

    pub(super) fn from_approval(event: &Event) -> Option<Self> {
        let Event::Approved {
            request,
            grant,
            agent,
            approver,
            scope,
            bytes_max,
            queries_max,
            opens_boot_ns,
            closes_boot_ns,
            closes_unix_ns,
            ..
        } = event
        else {
            return None;
        };
        Some(Self {
            id: *grant,
            request: *request,
            agent: agent.clone(),
            approver: approver.clone(),
            scope: scope.clone(),
            bytes_max: *bytes_max,
            queries_max: *queries_max,
            opens_boot_ns: *opens_boot_ns,
            closes_boot_ns: *closes_boot_ns,
            closes_unix_ns: *closes_unix_ns,
            closed: None,
            usage: Usage::default(),
        })
    }

    pub(super) fn close(&self, reason: CloseReason, by: Option<Process>, decision: &mut Decision) {
        decision.first.push(Effect::CloseWindow {
            agent: self.agent.clone(),
            grant: self.id,
            reason,
        });
        decision.events.push(Event::Closed {
            grant: self.id,
            agent: self.agent.clone(),
            reason,
            by,
            queries: self.usage.queries,
            bytes: self.usage.bytes,
        });
    }
}
