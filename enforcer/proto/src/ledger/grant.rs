//! A grant: what an approval made, what was used of it, and how it ended.

use super::budget::{self, Usage};
use super::{Decision, Effect};
use crate::event::{CloseReason, Event};
use crate::id::{GrantId, RequestId};
use crate::principal::{AgentName, Approver, Process};
use crate::query::{JobRef, QueryFacts, Touch};
use crate::refusal::{Code, Refusal};
use crate::scope::{Scope, TableRef};
use crate::time::{NS_PER_S, Now};

/// How much longer than its timeout a job may run: BigQuery promises no exact end.
const JOB_TIMEOUT_SLACK_NS: u64 = 60 * NS_PER_S;

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
        self.bytes_max
            .saturating_sub(self.usage.bytes)
            .saturating_sub(self.usage.held_bytes())
    }

    /// How many bytes of the budget a request holds until its cost is known: nothing for what costs nothing. A query's is sent as its
    /// `maximumBytesBilled`, so that BigQuery itself keeps it; `asked` is the ceiling that the client chose. A table's rows are passed on
    /// up to it.
    ///
    /// # Errors
    /// [`Code::WindowBudget`] when nothing is left to hold. A ceiling of zero is never sent: BigQuery would take it for none.
    pub fn ceiling(&self, facts: &QueryFacts, asked: Option<u64>) -> Result<Option<u64>, Refusal> {
        let wanted = match &facts.touch {
            Touch::Query(_) if facts.is_dry_run => return Ok(None),
            Touch::Query(run) => asked
                .filter(|asked| *asked > 0)
                .unwrap_or_else(|| budget::ceiling_of(run)),
            // What a query of this window brought forth was charged with the query.
            Touch::Rows(table) if self.owns_result(table) => return Ok(None),
            Touch::Rows(_) => budget::ROWS_BYTES_MAX,
            Touch::Nothing
            | Touch::FilteredList
            | Touch::OwnJobs
            | Touch::Dataset(_)
            | Touch::Table(_)
            | Touch::Job(_) => return Ok(None),
        };
        match wanted.min(self.bytes_left()) {
            0 => Err(self.nothing_left()),
            ceiling => Ok(Some(ceiling)),
        }
    }

    fn nothing_left(&self) -> Refusal {
        Refusal::new(
            Code::WindowBudget,
            format!(
                "Of the {} bytes of window {} none is left: {} are used, {} are held for what is running",
                self.bytes_max,
                self.id,
                self.usage.bytes,
                self.usage.held_bytes()
            ),
        )
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
        let mut own = self.usage.jobs().filter(|own| match asked.location {
            Some(_) => own.is_same_job(asked),
            None => own.project == asked.project && own.job == asked.job,
        });
        own.next().filter(|_| own.next().is_none())
    }

    /// Whether the table holds the result of a job of this window.
    #[must_use]
    pub fn owns_result(&self, table: &TableRef) -> bool {
        self.usage.owns_result(table)
    }

    /// All the jobs the window started.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobRef> {
        self.usage.jobs().cloned().collect()
    }

    /// The jobs the window started that are not known to have ended.
    #[must_use]
    pub fn running_jobs(&self) -> Vec<JobRef> {
        self.usage.running_jobs()
    }

    /// The jobs it may have started: they went out under these names, and no answer came.
    #[must_use]
    pub fn unanswered_jobs(&self) -> Vec<JobRef> {
        self.usage.unanswered_jobs()
    }

    /// Whether it has closed and left jobs that BigQuery may still run at `now`. Every job has a timeout that ends with the window as it
    /// was granted. Unix time: a boot may lie in between.
    pub(super) fn is_unsettled_at(&self, now: Now) -> bool {
        let Some((_, closed)) = self.closed else {
            return false;
        };
        let until = self.closes_unix_ns.max(closed.unix_ns);
        now.unix_ns < until.saturating_add(JOB_TIMEOUT_SLACK_NS)
            && !(self.running_jobs().is_empty() && self.unanswered_jobs().is_empty())
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
