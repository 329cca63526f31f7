//! What a window uses of its budget: what BigQuery bills for queries, and what is passed on of tables' rows. Bytes are held from the
//! admission on and charged once, when the cost is known: what is charged and what is held are never more than the budget together, in
//! whatever order queries begin, end and are heard of.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Event;
use crate::id::QueryId;
use crate::query::{DryRun, JobRef, Method};
use crate::scope::TableRef;

/// The most jobs a grant keeps as its own; later ones run but cannot be read back, and the query budget ends before that.
pub const JOBS_PER_GRANT_MAX: usize = 10_000;
/// What BigQuery bills at least for a table that a query reads, bytes, and for the query as a whole. A lower ceiling would fail every
/// query, however small.
pub const BILLED_PER_TABLE_MIN: u64 = 10 * 1024 * 1024;
/// The most that is passed on of a table's rows at once, bytes: more than a page of BigQuery's has.
pub(super) const ROWS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// What an estimate may be exceeded by, one part in so many: tables grow between dry run and run, and what is billed is rounded up.
const GROWTH_SHARE: u64 = 8;

/// The ceiling of a query whose client chose none.
pub(super) fn ceiling_of(run: &DryRun) -> u64 {
    run.bytes
        .saturating_add(run.bytes / GROWTH_SHARE)
        .max(billed_min(run.tables.len()))
}

fn billed_min(tables: usize) -> u64 {
    let tables = u64::try_from(tables).unwrap_or(u64::MAX).max(1);
    tables.saturating_mul(BILLED_PER_TABLE_MIN)
}

/// What was used of a grant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Queries admitted.
    pub queries: u64,
    /// Bytes charged: what BigQuery billed.
    pub bytes: u64,
    /// What is held, by the query it is held for.
    held: BTreeMap<QueryId, Held>,
    /// Jobs the grant started.
    jobs: Vec<OwnJob>,
    /// Tables that hold results of those jobs.
    results: BTreeSet<TableRef>,
    /// A job read a table outside the scope.
    read_outside: bool,
}

/// Bytes of the budget that are held for one query.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    ceiling: u64,
    tables: usize,
    settled_by: Settling,
    /// The name under which its job went out, until an answer names the job, or the close has looked for it.
    unanswered: Option<JobRef>,
    /// The close has looked for its job.
    is_over: bool,
}

/// What says how much of the bytes that are held is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settling {
    /// An answer that says that the job has ended, and what it cost.
    Job,
    /// The answer to the start, in a log that knew no ceilings.
    Start,
    /// The bytes that were passed on of a table's rows.
    Rows,
}

/// A job that BigQuery named in the answer to a query of this window.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnJob {
    job: JobRef,
    /// The query that started it; what is held for it goes under this.
    query: QueryId,
    /// It has ended, or was told to.
    is_over: bool,
}

impl Usage {
    /// Takes in what happened in this window.
    pub(super) fn apply(&mut self, event: &Event) {
        self.admitted(event);
        self.seen(event);
        self.finished(event);
        self.cancelled(event);
    }

    fn admitted(&mut self, event: &Event) {
        let Event::QueryAdmitted {
            query,
            method,
            tables,
            bytes,
            ceiling,
            is_dry_run: false,
            job,
            ..
        } = event
        else {
            return;
        };
        let is_query = starts_a_job(*method);
        let settled_by = match (is_query, ceiling) {
            (true, Some(_)) => Settling::Job,
            (true, None) => Settling::Start,
            (false, Some(_)) => Settling::Rows,
            (false, None) => return,
        };
        self.queries += u64::from(is_query);
        let held = Held {
            ceiling: ceiling.unwrap_or(*bytes),
            tables: tables.len(),
            settled_by,
            unanswered: job.clone(),
            is_over: false,
        };
        self.held.insert(*query, held);
    }

    /// Takes an admission back.
    pub(super) fn withdraw(&mut self, event: &Event) {
        if let Event::QueryAdmitted { query, method, .. } = event
            && self.held.remove(query).is_some()
        {
            self.queries -= u64::from(starts_a_job(*method));
        }
    }

    fn seen(&mut self, event: &Event) {
        let Event::JobSeen {
            query,
            job,
            destination,
            is_done,
            billed,
            processed,
            read_outside,
            ..
        } = event
        else {
            return;
        };
        self.read_outside |= read_outside.is_some();
        self.own(*query, job);
        let Some(own) = self.jobs.iter_mut().find(|own| own.job.is_same_job(job)) else {
            return;
        };
        own.is_over |= is_done;
        let started_by = own.query;
        self.keep_result(destination.as_ref());
        if *is_done
            && let Some(held) = self.held.get(&started_by)
            && let Some(cost) = held.cost(*billed, *processed)
        {
            self.held.remove(&started_by);
            self.bytes = self.bytes.saturating_add(cost);
        }
    }

    /// Takes a job in as the window's own, if `query` was to start one.
    fn own(&mut self, query: QueryId, job: &JobRef) {
        // A job without its location cannot be told from others of its id: it is nobody's.
        let start = self.held.get_mut(&query);
        if let Some(start) = start.filter(|held| held.settled_by != Settling::Rows)
            && job.location.is_some()
            && self.jobs.len() < JOBS_PER_GRANT_MAX
            && !self.jobs.iter().any(|own| own.job.is_same_job(job))
        {
            start.unanswered = None;
            self.jobs.push(OwnJob {
                job: job.clone(),
                query,
                is_over: start.is_over,
            });
        }
    }

    fn keep_result(&mut self, destination: Option<&TableRef>) {
        if let Some(table) = destination.filter(|table| {
            table.dataset().dataset().starts_with('_') && self.results.len() < JOBS_PER_GRANT_MAX
        }) {
            self.results.insert(table.clone());
        }
    }

    fn finished(&mut self, event: &Event) {
        let Event::QueryFinished {
            query,
            job,
            destination,
            bytes,
            body_bytes,
            is_void,
            ..
        } = event
        else {
            return;
        };
        let Some(held) = self.held.get(query) else {
            return;
        };
        let cost = match held.settled_by {
            _ if *is_void => 0,
            // The job may run on, or may have been started though its answer was lost: its ceiling stays held until its cost is known.
            Settling::Job => return,
            Settling::Rows => *body_bytes,
            Settling::Start => held.ceiling.max(*bytes),
        };
        if held.settled_by == Settling::Start {
            if let Some(job) = job {
                self.own(*query, job);
            }
            self.keep_result(destination.as_ref());
        }
        self.held.remove(query);
        self.bytes = self.bytes.saturating_add(cost);
    }

    /// The close has done what it can about a job.
    fn cancelled(&mut self, event: &Event) {
        let Event::JobCancelled { job, .. } = event else {
            return;
        };
        for own in self.jobs.iter_mut().filter(|own| own.job.is_same_job(job)) {
            own.is_over = true;
        }
        for held in self.held.values_mut() {
            if held.unanswered.as_ref() == Some(job) {
                (held.unanswered, held.is_over) = (None, true);
            }
        }
    }

    /// Whether a [`Event::JobSeen`] says something new.
    pub(super) fn is_changed_by(&self, event: &Event) -> bool {
        let mut after = self.clone();
        after.apply(event);
        after != *self
    }

    /// Whether a job read a table outside the scope.
    pub(super) const fn has_read_outside(&self) -> bool {
        self.read_outside
    }

    /// All that is held.
    pub(super) fn held_bytes(&self) -> u64 {
        let held = self.held.values().map(|held| held.ceiling);
        held.fold(0, u64::saturating_add)
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &JobRef> {
        self.jobs.iter().map(|own| &own.job)
    }

    pub(super) fn owns_result(&self, table: &TableRef) -> bool {
        self.results.contains(table)
    }

    pub(super) fn unanswered_jobs(&self) -> Vec<JobRef> {
        let held = self.held.values();
        held.filter_map(|held| held.unanswered.clone()).collect()
    }

    pub(super) fn running_jobs(&self) -> Vec<JobRef> {
        let running = self.jobs.iter().filter(|own| !own.is_over);
        running.map(|own| own.job.clone()).collect()
    }
}

const fn starts_a_job(method: Method) -> bool {
    matches!(method, Method::JobsInsert | Method::JobsQuery)
}

impl Held {
    /// What a job that has ended costs, where that is known. Where only the bytes processed are, it is the most that can be billed for
    /// them, which is not more than the ceiling that was sent.
    fn cost(&self, billed: Option<u64>, processed: Option<u64>) -> Option<u64> {
        let of_processed = |processed: u64| match processed {
            0 => 0,
            _ => processed
                .checked_next_multiple_of(1024 * 1024)
                .unwrap_or(u64::MAX)
                .max(billed_min(self.tables))
                .min(self.ceiling),
        };
        billed.or_else(|| processed.map(of_processed))
    }
}
