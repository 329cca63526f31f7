//! A grant: what an approval made, what was used of it, and how it ended.

use serde::{Deserialize, Serialize};

use super::budget::{self, NameUse, UnsettledJob, Usage};
use super::{Decision, Effect};
use crate::event::{CloseReason, Event};
use crate::id::{GrantId, QueryId, RequestId};
use crate::policy::Budget;
use crate::principal::{AgentName, Approver, Process};
use crate::query::{JobRef, QueryFacts, Touch, Transfer, Uncompared};
use crate::refusal::{Code, Refusal};
use crate::scope::{Scope, TableRef};
use crate::time::{NS_PER_S, Now};

/// How much longer than its timeout a job may run: BigQuery promises no exact end.
const JOB_TIMEOUT_SLACK_NS: u64 = 60 * NS_PER_S;

/// What a window's budget holds for one request, from its admission on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// Bytes that may be billed for it, or are taken in; none for what costs nothing.
    pub bytes: Option<u64>,
    /// Bytes of its rows that may be passed on; none where it has no rows.
    pub returned_bytes: Option<u64>,
}

/// A grant as the ledger holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What it may use.
    pub budget: Budget,
    /// Opens, boot clock.
    pub opens_boot_ns: u64,
    /// Closes, boot clock; absolute.
    pub closes_boot_ns: u64,
    /// Closes, unix time, for people.
    pub closes_unix_ns: u64,
    /// When it was made, on the ledger's line of time.
    pub(super) opened_at_ns: u64,
    /// Why it was opened without the others whom the policy asks for, where it was.
    pub break_glass: Option<String>,
    /// How and when it ended.
    pub closed: Option<(CloseReason, Now)>,
    /// When that was taken in, on the ledger's line of time.
    pub(super) closed_at_ns: Option<u64>,
    /// It ends with this process as well, which runs a command for the agent.
    pub ends_with: Option<Process>,
    /// Its request was made of a query whose text alone was read: what a view reads is not in its scope.
    pub is_of_text: bool,
    /// The SHA-256 of the request's reason, hex; absent where the request is not remembered.
    pub reason_digest: Option<String>,
    /// What was used.
    pub usage: Usage,
    /// When one of its jobs, or what was asked for of one, has ended last, boot clock.
    pub(super) ended_boot_ns: Option<u64>,
}

/// How long the results of a window's last query may be left alone, nanoseconds, before the window closes: its budget is spent. A minute is longer than
/// clients take between two pages.
pub(super) const RESULTS_NS: u64 = 60_000_000_000;

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
        self.budget
            .bytes_max
            .saturating_sub(self.usage.bytes)
            .saturating_sub(self.usage.held_bytes())
    }

    /// What the budget holds for a request, and the most of its rows that is passed on.
    ///
    /// # Errors
    /// [`Code::WindowBudget`] when nothing is left to hold.
    pub fn ceilings(&self, facts: &QueryFacts, asked: Option<u64>) -> Result<Ceilings, Refusal> {
        let bytes = self.ceiling(facts, asked)?;
        let returned_bytes = self.returned_ceiling(facts)?;
        // The rows of a table are what its bytes are held for.
        let is_rows = matches!(facts.touch, Touch::Rows(_));
        let rows = bytes.filter(|_| is_rows).unwrap_or(u64::MAX);
        Ok(Ceilings {
            bytes,
            returned_bytes: returned_bytes.map(|most| most.min(rows)),
        })
    }

    /// How many bytes of the budget a request holds until its cost is known: nothing for what costs nothing. A query's is sent as its
    /// `maximumBytesBilled`, so that BigQuery itself keeps it; `asked` is the ceiling that the client chose. A table's rows are passed on
    /// up to it.
    ///
    /// # Errors
    /// [`Code::WindowBudget`] when nothing is left to hold. A ceiling of zero is never sent: BigQuery would take it for none.
    pub(super) fn ceiling(
        &self,
        facts: &QueryFacts,
        asked: Option<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let wanted = match &facts.touch {
            Touch::Query(_) if facts.is_dry_run => return Ok(None),
            Touch::Query(run) => asked
                .filter(|asked| *asked > 0)
                .unwrap_or_else(|| budget::ceiling_of(run))
                .min(self.budget.query_bytes_max),
            // What a query of this window brought forth was charged with the query.
            Touch::Rows(table) if self.owns_result(table) => return Ok(None),
            Touch::Scan { table, .. } if self.owns_result(table) => return Ok(None),
            Touch::Rows(_) => budget::returned_at_once(facts.method),
            // All of it or nothing: half a request is none.
            Touch::Fill { bytes, .. }
            | Touch::Transfer(Transfer { bytes, .. })
            | Touch::Scan {
                bytes: Some(bytes), ..
            } => {
                return match self.bytes_left() {
                    left if *bytes <= left => Ok(Some(*bytes)),
                    _ => Err(self.nothing_left()),
                };
            }
            Touch::Nothing
            | Touch::FilteredList
            | Touch::OwnJobs
            | Touch::Dataset(_)
            | Touch::Table(_)
            | Touch::Scan { bytes: None, .. }
            | Touch::Job(_)
            | Touch::Change(_) => return Ok(None),
        };
        if let Touch::Query(run) = &facts.touch
            && run.bytes > 0
        {
            self.suffices_for_a_query()?;
        }
        match wanted.min(self.bytes_left()) {
            0 => Err(self.nothing_left()),
            ceiling => Ok(Some(ceiling)),
        }
    }

    /// Judges whether a query that reads anything can be run at all with what is left: BigQuery fails every one whose ceiling is lower than the least
    /// that it bills, and it would have taken one of the queries that the window allows.
    fn suffices_for_a_query(&self) -> Result<(), Refusal> {
        let least = budget::BILLED_PER_TABLE_MIN;
        if self.budget.query_bytes_max < least {
            return Err(Refusal::new(
                Code::WindowBudget,
                format!(
                    "One query of window {} may process {} bytes, and BigQuery bills {least} at least",
                    self.id, self.budget.query_bytes_max
                ),
            ));
        }
        if self.bytes_left() < least {
            let Refusal { code, what } = self.nothing_left();
            let what = format!("{what}; BigQuery bills {least} at least for a query that reads");
            return Err(Refusal::new(code, what));
        }
        Ok(())
    }

    /// The most that is passed on of a request's rows, which the budget holds for them until the answer is through; none for what has no
    /// rows.
    ///
    /// # Errors
    /// [`Code::WindowBudget`] when nothing is left to hold.
    fn returned_ceiling(&self, facts: &QueryFacts) -> Result<Option<u64>, Refusal> {
        let left = self.returned_bytes_left();
        match facts.touch.exported() {
            _ if facts.is_dry_run => Ok(None),
            // All of it or nothing: what goes to a bucket is not passed on here, and cannot be cut.
            Some(exported) if exported <= left => Ok(Some(exported)),
            Some(exported) => Err(self.no_rows_left(exported)),
            None if !facts.method.returns_rows() => Ok(None),
            // It was held for the session's answer.
            None if matches!(facts.touch, Touch::Scan { bytes: Some(_), .. }) => Ok(None),
            None if left == 0 => Err(self.no_rows_left(1)),
            None => Ok(Some(left.min(budget::returned_at_once(facts.method)))),
        }
    }

    /// Held by what is on its way is not used up.
    fn no_rows_left(&self, wanted: u64) -> Refusal {
        let unused = self
            .budget
            .returned_bytes_max
            .saturating_sub(self.usage.returned_bytes);
        let code = if wanted <= unused {
            Code::WindowBusy
        } else {
            Code::WindowBudget
        };
        Refusal::new(
            code,
            format!(
                "Of the {} bytes of rows that window {} may read or export {} are left: {} are used, {} are held for what is on its way",
                self.budget.returned_bytes_max,
                self.id,
                self.returned_bytes_left(),
                self.usage.returned_bytes,
                self.usage.returning_bytes()
            ),
        )
    }

    /// Bytes of rows that may still be passed on.
    #[must_use]
    pub fn returned_bytes_left(&self) -> u64 {
        self.budget
            .returned_bytes_max
            .saturating_sub(self.usage.returned_bytes)
            .saturating_sub(self.usage.returning_bytes())
    }

    fn nothing_left(&self) -> Refusal {
        Refusal::new(
            Code::WindowBudget,
            format!(
                "Of the {} bytes of window {} {} are left: {} are used, {} are held for what is running",
                self.budget.bytes_max,
                self.id,
                self.bytes_left(),
                self.usage.bytes,
                self.usage.held_bytes()
            ),
        )
    }

    /// Queries that may still be run.
    #[must_use]
    pub const fn queries_left(&self) -> u64 {
        self.budget.queries_max.saturating_sub(self.usage.queries)
    }

    /// The job of this window that `asked` names. Without a location it must be the window's only job of that id: BigQuery would look
    /// for it in places of its own choosing, where somebody else's job may have the same id.
    #[must_use]
    pub fn own_job(&self, asked: &JobRef) -> Option<&JobRef> {
        let mut own = self.usage.jobs().filter(|own| own.may_be_same_job(asked));
        own.next()
            .filter(|first| own.all(|other| other.is_same_job(first)))
    }

    /// Whether the table holds the result of a job of this window.
    #[must_use]
    pub fn owns_result(&self, table: &TableRef) -> bool {
        self.usage.owns_result(table)
    }

    /// The window's own jobs that have written one of the tables, or may have, and of which it is not known yet what they have read.
    #[must_use]
    pub fn uncompared_jobs_of(&self, tables: &[TableRef]) -> Vec<Uncompared> {
        self.usage.uncompared_jobs_of(tables)
    }

    /// The window's own job of this name, if it is not known yet what it has read.
    #[must_use]
    pub fn uncompared(&self, job: &JobRef) -> Option<Uncompared> {
        self.usage.uncompared(job)
    }

    /// Whether the query of the window's own job of this name reads tables, as far as was known before it ran.
    #[must_use]
    pub fn job_reads(&self, job: &JobRef) -> bool {
        self.usage.job_reads(job)
    }

    /// What the window has used the name of a job for, of which `asked` is what it is to do.
    #[must_use]
    pub fn name_use(&self, name: &JobRef, asked: Option<&str>) -> NameUse {
        self.usage.name_use(name, asked)
    }

    /// All the jobs the window started.
    #[must_use]
    pub fn jobs(&self) -> Vec<JobRef> {
        self.usage.jobs().cloned().collect()
    }

    /// The jobs that it has started, or may have, and that somebody must look at until they are settled.
    #[must_use]
    pub fn unsettled_jobs(&self) -> Vec<UnsettledJob> {
        self.usage.unsettled_jobs()
    }

    /// When it ends as it was granted, on the ledger's line of time.
    pub(super) const fn ends_at_ns(&self) -> u64 {
        let lasts_ns = self.closes_boot_ns.saturating_sub(self.opens_boot_ns);
        self.opened_at_ns.saturating_add(lasts_ns)
    }

    /// Whether it has closed and left jobs that BigQuery may still run, `at_ns` on the ledger's line of time. Every job has a timeout that ends
    /// with the window as it was granted.
    pub(super) fn is_unsettled_at(&self, at_ns: u64) -> bool {
        let Some(closed_at_ns) = self.closed_at_ns else {
            return false;
        };
        let until_ns = self.ends_at_ns().max(closed_at_ns);
        at_ns < until_ns.saturating_add(JOB_TIMEOUT_SLACK_NS) && !self.unsettled_jobs().is_empty()
    }

    /// When it closes as things are, boot clock: when its time is up, or where its queries are used up and nothing is under way, [`RESULTS_NS`] after
    /// the last of that ended. Until then the results of the last query may be read; nobody says when that has been done.
    pub(super) fn due_boot_ns(&self) -> u64 {
        let is_used_up = self.queries_left() == 0 && self.usage.is_quiet();
        match self.ended_boot_ns {
            Some(ended) if is_used_up => self.closes_boot_ns.min(ended.saturating_add(RESULTS_NS)),
            Some(_) | None => self.closes_boot_ns,
        }
    }

    /// Takes in what was used, or has ended.
    pub(super) fn use_up(&mut self, now: Now, event: &Event) {
        let is_of_a_job = self.usage.is_of_a_job(event);
        self.usage.apply(event);
        if is_of_a_job {
            self.ended_boot_ns = Some(now.boot_ns);
        }
    }

    /// A budget of bytes is used up, or that of rows. Bytes that are too few for one more query close nothing: the results of the last may still be
    /// read. For a used-up budget of queries see [`Self::due_boot_ns`].
    pub(super) const fn is_spent(&self) -> bool {
        self.usage.bytes >= self.budget.bytes_max
            || self.usage.returned_bytes >= self.budget.returned_bytes_max
    }

    pub(super) fn from_approval(opened_at_ns: u64, event: &Event) -> Option<Self> {
        let Event::Approved {
            request,
            grant,
            agent,
            approver,
            scope,
            bytes_max,
            queries_max,
            query_bytes_max,
            returned_bytes_max,
            jobs_at_once_max,
            opens_boot_ns,
            closes_boot_ns,
            closes_unix_ns,
            break_glass,
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
            budget: Budget {
                bytes_max: *bytes_max,
                queries_max: *queries_max,
                query_bytes_max: query_bytes_max.unwrap_or(u64::MAX),
                returned_bytes_max: returned_bytes_max.unwrap_or(u64::MAX),
                jobs_at_once_max: jobs_at_once_max.unwrap_or(u64::MAX),
            },
            opens_boot_ns: *opens_boot_ns,
            closes_boot_ns: *closes_boot_ns,
            closes_unix_ns: *closes_unix_ns,
            opened_at_ns,
            break_glass: break_glass.clone(),
            closed: None,
            closed_at_ns: None,
            ended_boot_ns: None,
            ends_with: None,
            is_of_text: false,
            reason_digest: None,
            usage: Usage::default(),
        })
    }

    /// What was being passed on when the daemon ended has ended with it. How much of it came through nobody knows: as much as was held.
    pub(super) fn end_broken_off(&self, decision: &mut Decision) {
        let ended = |(query, most): (QueryId, u64)| Event::QueryFinished {
            query,
            grant: self.id,
            status: None,
            job: None,
            destination: None,
            bytes: 0,
            body_bytes: most,
            duration_us: 0,
            trouble: Some("the daemon ended before the answer did".to_owned()),
            is_void: false,
        };
        decision.events.extend(self.usage.broken_off().map(ended));
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
