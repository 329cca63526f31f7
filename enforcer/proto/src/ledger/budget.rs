//! What a window uses of its budget: what BigQuery bills for queries, and what is passed on of tables' rows. Bytes are held from the
//! admission on and charged once, when the cost is known: what is charged and what is held are never more than the budget together, in
//! whatever order queries begin, end and are heard of.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::id::QueryId;
use crate::query::{DryRun, JobRef, Method, Uncompared};
use crate::scope::TableRef;

/// The most jobs a grant keeps as its own; later ones run but cannot be read back, and the query budget ends before that.
pub const JOBS_PER_GRANT_MAX: usize = 10_000;
/// What BigQuery bills at least for a table that a query reads, bytes, and for the query as a whole. A lower ceiling would fail every
/// query, however small.
pub const BILLED_PER_TABLE_MIN: u64 = 10 * 1024 * 1024;
/// The most that is passed on of a table's rows at once, bytes: more than a page of BigQuery's has.
pub(super) const ROWS_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// How much of a stream of rows is passed on before more is asked for, bytes, and what is held for a read session's answer: little, so that many
/// streams may go at once.
const STREAM_STEP_BYTES: u64 = 4 * 1024 * 1024;

/// The most that is held of the budget for rows at once. A page is cut where that ends, and a stream asks for more.
pub(super) const fn returned_at_once(method: Method) -> u64 {
    let is_of_storage = matches!(
        method,
        Method::StorageCreateReadSession | Method::StorageReadRows | Method::StorageSplitReadStream
    );
    if is_of_storage {
        STREAM_STEP_BYTES
    } else {
        ROWS_BYTES_MAX
    }
}

/// How the outcome of a cancellation began that came to nothing, in a log that did not say so otherwise.
const NOT_CANCELLED: &str = "not cancelled";

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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Queries admitted.
    pub queries: u64,
    /// Bytes charged: what BigQuery billed.
    pub bytes: u64,
    /// Bytes of rows passed on.
    pub returned_bytes: u64,
    /// What is held, by the query it is held for.
    held: BTreeMap<QueryId, Held>,
    /// What is held for rows that are being passed on, or exported.
    returning: BTreeMap<QueryId, Returning>,
    /// Jobs the grant started.
    jobs: Vec<OwnJob>,
    /// Tables that hold results of those jobs, or that they have written, and the place of the last such job among them.
    results: BTreeMap<TableRef, usize>,
    /// What was charged for exports whose jobs are not known to have ended.
    exported: BTreeMap<QueryId, u64>,
    /// Jobs that BigQuery says it has not, though it gave no plain answer to their starts: the close looks once more, and what was held for one
    /// that is there after all is held again.
    doubtful: BTreeMap<QueryId, Held>,
    /// Those that are under way and start a job, or give what one brought forth.
    of_results: BTreeSet<QueryId>,
    /// A job read a table outside the scope.
    read_outside: bool,
}

/// Bytes of the budget for rows that are held for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Returning {
    most: u64,
    /// They go to a bucket, and how many of them is not told.
    is_export: bool,
}

/// Bytes of the budget that are held for one query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    ceiling: u64,
    tables: usize,
    settled_by: Settling,
    /// What it loads comes in parts: no job runs before the last of them, which is held for by itself.
    in_parts: bool,
    /// The name under which its job went out, until an answer names the job, or the close has looked for it. Of what is given, the job
    /// that it starts: that of the upload whose last part it is.
    unanswered: Option<JobRef>,
    /// Its job has ended, whatever that cost, or the close has looked for it.
    is_over: bool,
    /// The tables that its query writes.
    writes: Vec<TableRef>,
    /// The digest of what its job is asked to do.
    asked: Option<String>,
}

/// What says how much of the bytes that are held is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Settling {
    /// An answer that says that the job has ended, and what it cost.
    Job,
    /// Likewise, of a job that moves data without a query: BigQuery bills nothing for it, and what is sent along is charged.
    Transfer,
    /// That it was sent: rows that were put into a table, or a part of an upload; or that the streams of a read session were told.
    Given,
    /// That it was sent, of a query in a log that knew no ceilings.
    Start,
    /// The bytes that were passed on of a table's rows.
    Rows,
}

impl Settling {
    /// Whether a job is what it is held for.
    const fn is_of_job(self) -> bool {
        match self {
            Self::Job | Self::Transfer | Self::Start => true,
            Self::Given | Self::Rows => false,
        }
    }
}

/// A job that BigQuery named in the answer to a query of this window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OwnJob {
    job: JobRef,
    /// The query that started it; what is held for it goes under this.
    query: QueryId,
    /// Its query reads tables: BigQuery's description of it, once it has ended, must name some.
    reads: bool,
    /// It has ended, or the close has settled it.
    is_over: bool,
    /// It has ended, and what it has read was looked at.
    is_compared: bool,
    /// The close has done with it.
    is_settled: bool,
    /// The digest of what it was asked to do.
    asked: Option<String>,
}

/// What the name of a job has been used for in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameUse {
    /// Nothing.
    None,
    /// The same start, which BigQuery has said has come to nothing: it may be tried again.
    Again,
    /// The same start, of which nobody knows yet what came of it.
    Unanswered,
    /// The same start, whose job is the window's own.
    Started,
    /// Another one.
    Other,
}

/// How far a job is that is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// The window's own, and not known to have ended.
    Running,
    /// The window's own; it has ended, and what it has read is not known.
    Ended,
    /// It went out under this name, and no answer came.
    Unanswered,
    /// BigQuery has said that there is no such job, though it gave no plain answer to its start: the close looks once more.
    Doubtful,
}

/// A job that a window has started, or may have, and that somebody must look at until it is settled: that is all that is needed to take it up,
/// also after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsettledJob {
    /// What it started with.
    pub query: QueryId,
    /// Its name.
    pub job: JobRef,
    /// How far it is.
    pub state: JobState,
    /// Its query reads tables: BigQuery's description of it, once it has ended, must name some.
    pub reads: bool,
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
            returned_ceiling,
            exports,
            sql,
            writes,
            is_dry_run: false,
            job,
            in_parts,
            asked,
            ..
        } = event
        else {
            return;
        };
        self.queries += u64::from(self.counts(event));
        if self.is_of_results(*method, tables) {
            self.of_results.insert(*query);
        }
        // What an earlier try of the same start may cost yet is held once, with this one.
        let earlier = self.doubtful.values().filter(|held| {
            let names = held.unanswered.as_ref().zip(job.as_ref());
            names.is_some_and(|(held, name)| held.is_same_job(name))
        });
        let earlier = earlier.map(|held| held.ceiling).max().unwrap_or(0);
        let is_export = !exports.is_empty();
        let returning = returned_ceiling.map(|most| Returning { most, is_export });
        self.returning
            .extend(returning.map(|returning| (*query, returning)));
        let is_query = method.starts_a_job();
        let is_given = matches!(
            method,
            Method::InsertAll | Method::UploadPart | Method::StorageCreateReadSession
        );
        let settled_by = match (is_query, ceiling) {
            (true, Some(_)) if sql.is_none() => Settling::Transfer,
            (true, Some(_)) => Settling::Job,
            (true, None) => Settling::Start,
            (false, Some(_)) if is_given => Settling::Given,
            (false, Some(_)) => Settling::Rows,
            (false, None) => return,
        };
        let held = Held {
            ceiling: ceiling.unwrap_or(*bytes).max(earlier),
            tables: tables.len(),
            settled_by,
            in_parts: *in_parts,
            unanswered: job.clone(),
            is_over: false,
            // What is moved without a query is of tables that were judged by name.
            writes: if sql.is_some() {
                writes.clone()
            } else {
                Vec::new()
            },
            asked: asked.clone(),
        };
        self.held.insert(*query, held);
    }

    /// Takes an admission back.
    pub(super) fn withdraw(&mut self, event: &Event) {
        if let Event::QueryAdmitted {
            query,
            is_dry_run: false,
            ..
        } = event
        {
            self.returning.remove(query);
            self.of_results.remove(query);
            self.held.remove(query);
            self.queries -= u64::from(self.counts(event));
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
            is_compared,
            names_no_table,
            read_outside,
            ..
        } = event
        else {
            return;
        };
        self.read_outside |= read_outside.is_some();
        self.hold_again(*query, job);
        let place = self.place_of(*query, job);
        let Some((place, own)) = place.and_then(|place| Some((place, self.jobs.get_mut(place)?)))
        else {
            return;
        };
        // A job that read tables and names none has not said what it has read.
        let is_compared = *is_compared && !(*names_no_table && own.reads);
        own.is_over |= is_done;
        own.is_compared |= is_compared;
        let started_by = own.query;
        self.keep_result(destination.as_ref(), place);
        if *is_done {
            self.export_ended(started_by, processed.unwrap_or(0));
        }
        if *is_done && let Some(held) = self.held.get_mut(&started_by) {
            held.is_over = true;
            // Of a job that has ended, and whose description has no figures, the most that it can have cost is charged.
            let most = is_compared.then_some(held.ceiling);
            if let Some(cost) = held.cost(*billed, *processed).or(most) {
                self.held.remove(&started_by);
                self.bytes = self.bytes.saturating_add(cost);
            }
        }
    }

    /// Which of the window's own jobs the answer to `query` speaks of. A job is known by the query that started it: a start whose answer names
    /// one that has ended before is another job of that name.
    fn place_of(&mut self, query: QueryId, job: &JobRef) -> Option<usize> {
        let is_it = |own: &OwnJob| own.job.is_same_job(job);
        let own = self.jobs.iter();
        let by_query = own
            .clone()
            .rposition(|own| own.query == query && is_it(own));
        if by_query.is_some() {
            return by_query;
        }
        let named = own.clone().rposition(is_it);
        let Some(place) = named.filter(|place| !self.starts(query, job) || !self.is_over(*place))
        else {
            return self.own(query, job);
        };
        if self.starts(query, job) {
            // It was to start a job that runs already: the client asked for the same one again.
            self.held.remove(&query);
        }
        Some(place)
    }

    /// A start that was given up has come to something.
    fn hold_again(&mut self, query: QueryId, job: &JobRef) {
        let doubtful = self.doubtful.get(&query);
        if doubtful.is_some_and(|held| held.is_named(job))
            && let Some(held) = self.doubtful.remove(&query)
        {
            self.held.insert(query, held);
        }
    }

    fn is_over(&self, place: usize) -> bool {
        self.jobs.get(place).is_some_and(|own| own.is_over)
    }

    /// Whether `job` is what came of `query`.
    fn starts(&self, query: QueryId, job: &JobRef) -> bool {
        let is_unanswered = |held: &Held| held.is_named(job);
        let Some(held) = self.held.get(&query) else {
            return false;
        };
        match held.settled_by {
            // One that went out under a name is of that name.
            Settling::Job | Settling::Transfer | Settling::Start => {
                held.unanswered.is_none() || held.is_named(job)
            }
            // An upload's job is named once its last part has started it.
            Settling::Given => self.held.values().any(is_unanswered),
            Settling::Rows => false,
        }
    }

    /// What an export has read is known, and no less went out than that was said to be.
    fn export_ended(&mut self, query: QueryId, processed: u64) {
        if let Some(returning) = self.returning.get_mut(&query) {
            if returning.is_export {
                returning.most = returning.most.max(processed);
            }
        } else if let Some(charged) = self.exported.remove(&query) {
            let more = processed.saturating_sub(charged);
            self.returned_bytes = self.returned_bytes.saturating_add(more);
        }
    }

    /// Takes a job in as the window's own, if `query` was to start one, and gives its place.
    fn own(&mut self, query: QueryId, job: &JobRef) -> Option<usize> {
        // A job without its location cannot be told from others of its id: it is nobody's.
        if !self.starts(query, job)
            || job.location.is_none()
            || self.jobs.len() >= JOBS_PER_GRANT_MAX
        {
            return None;
        }
        let is_it = |held: &Held| held.is_named(job);
        let start = self.held.get(&query)?;
        // Of an upload, what is held is held for its beginning.
        let mut begun = self
            .held
            .iter()
            .filter(|(_, held)| held.settled_by.is_of_job() && is_it(held));
        let (started_by, start) = match begun.next() {
            Some((begun, held)) if !start.settled_by.is_of_job() => (*begun, held),
            Some(_) | None => (query, start),
        };
        let own = OwnJob {
            job: job.clone(),
            query: started_by,
            reads: start.tables > 0,
            // What the close gave up looking for has come after all, and may run.
            is_over: false,
            is_compared: false,
            is_settled: false,
            asked: start.asked.clone(),
        };
        let place = self.jobs.len();
        let written = start.writes.clone().into_iter();
        self.results.extend(written.map(|table| (table, place)));
        self.jobs.push(own);
        self.doubtful.retain(|_, held| !held.is_named(job));
        for (started_by, held) in &mut self.held {
            if *started_by == query || is_it(held) {
                held.unanswered = None;
            }
        }
        Some(place)
    }

    fn keep_result(&mut self, destination: Option<&TableRef>, place: usize) {
        if let Some(table) = destination
            && self.results.len() < JOBS_PER_GRANT_MAX
        {
            self.results.insert(table.clone(), place);
        }
    }

    fn finished(&mut self, event: &Event) {
        let Event::QueryFinished {
            query,
            status,
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
        self.of_results.remove(query);
        if let Some(returning) = self.returning.remove(query) {
            // One that failed may have written by then. Of one with a name these say that it was not begun.
            let has_name = |held: &Held| held.unanswered.is_some();
            let is_named = self.held.get(query).is_some_and(has_name);
            let has_failed = status.is_some_and(|status| {
                (400..500).contains(&status) && !(is_named && matches!(status, 404 | 409))
            });
            let cost = match returning.is_export {
                true if *is_void && !has_failed => 0,
                true => returning.most,
                false => *body_bytes,
            };
            self.returned_bytes = self.returned_bytes.saturating_add(cost);
            if returning.is_export && !is_void {
                self.exported.insert(*query, cost);
            }
        }
        let is_known = self.jobs.iter().any(|own| own.query == *query);
        let Some(held) = self.held.get(query) else {
            return;
        };
        let is_nameless = held.unanswered.is_none() && !is_known;
        let cost = match held.settled_by {
            _ if *is_void => 0,
            // Nobody can look what came of it, nor cancel it. The most that it can cost is charged, and its place is free.
            Settling::Job | Settling::Transfer if is_nameless => held.ceiling,
            // The job may run on, or may have been started though its answer was lost: its ceiling stays held until its cost is known.
            Settling::Job | Settling::Transfer => return,
            Settling::Rows => *body_bytes,
            Settling::Given => held.ceiling,
            Settling::Start => held.ceiling.max(*bytes),
        };
        if held.settled_by == Settling::Start
            && let Some(job) = job
            && let Some(place) = self.place_of(*query, job)
        {
            self.keep_result(destination.as_ref(), place);
        }
        if let Some(held) = self.held.remove(query) {
            self.bytes = self.bytes.saturating_add(cost);
            if held.unanswered.is_some() && is_doubtful(*status, *is_void) {
                // What is charged is not held once more.
                let ceiling = if cost > 0 { 0 } else { held.ceiling };
                let held = Held { ceiling, ..held };
                self.doubtful.insert(*query, held);
            }
        }
    }

    /// The close has looked at a job. What it could not settle stays as it is.
    fn cancelled(&mut self, event: &Event) {
        let Event::JobCancelled {
            job,
            outcome,
            is_settled,
            ..
        } = event
        else {
            return;
        };
        if !is_settled.unwrap_or_else(|| !outcome.starts_with(NOT_CANCELLED)) {
            return;
        }
        for own in self.jobs.iter_mut().filter(|own| own.job.is_same_job(job)) {
            (own.is_over, own.is_settled) = (true, true);
        }
        self.doubtful
            .retain(|_, held| held.unanswered.as_ref() != Some(job));
        for held in self.held.values_mut() {
            if held.unanswered.as_ref() == Some(job) {
                (held.unanswered, held.is_over) = (None, true);
            }
        }
    }

    /// Whether a [`Event::JobSeen`] says something new.
    pub(super) fn is_changed_by(&self, event: &Event) -> bool {
        if self.knows_all_of(event) {
            return false;
        }
        let mut after = self.clone();
        after.apply(event);
        after != *self
    }

    /// Whether an event speaks of a job of which nothing more is to be learnt. Lists of old jobs are asked for again and again, and to see what
    /// would become of all of it takes as long as the window has had jobs.
    fn knows_all_of(&self, event: &Event) -> bool {
        let Event::JobSeen {
            query,
            job,
            destination,
            read_outside: None,
            ..
        } = event
        else {
            return false;
        };
        let own = self.jobs.iter().rfind(|own| own.job.is_same_job(job));
        let Some(own) = own.filter(|own| own.is_over && own.is_compared) else {
            return false;
        };
        let is_open = |query: &QueryId| {
            self.held.contains_key(query)
                || self.doubtful.contains_key(query)
                || self.returning.contains_key(query)
                || self.exported.contains_key(query)
        };
        let is_kept = |table: &TableRef| self.results.contains_key(table);
        !is_open(query) && !is_open(&own.query) && destination.as_ref().is_none_or(is_kept)
    }

    /// Whether a job read a table outside the scope.
    pub(super) const fn has_read_outside(&self) -> bool {
        self.read_outside
    }

    /// All that is held: for what runs, or whose cost is not known yet.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        let held = self.held.values().map(|held| held.ceiling);
        held.fold(0, u64::saturating_add)
    }

    /// All that is held for rows.
    pub(super) fn returning_bytes(&self) -> u64 {
        let held = self.returning.values();
        held.fold(0, |sum, returning| sum.saturating_add(returning.most))
    }

    /// How many jobs run, or may.
    #[must_use]
    pub fn jobs_at_once(&self) -> u64 {
        let has_job = |query: &QueryId| self.jobs.iter().any(|own| own.query == *query);
        let runs = |(query, held): &(&QueryId, &Held)| match held.settled_by {
            Settling::Job | Settling::Transfer | Settling::Start => {
                !held.is_over && (!held.in_parts || has_job(query))
            }
            Settling::Given => held.unanswered.is_some(),
            Settling::Rows => false,
        };
        self.held.iter().filter(runs).count() as u64
    }

    /// Whether what is admitted starts a job, or asks for what one brought forth: its results, or the rows of a read session. All else, as looking at
    /// tables or putting rows into them, may go on as long as the window does, and does not keep it open.
    fn is_of_results(&self, method: Method, tables: &[TableRef]) -> bool {
        let is_result = || !tables.is_empty() && tables.iter().all(|table| self.owns_result(table));
        let is_of_session = matches!(
            method,
            Method::GetQueryResults | Method::StorageCreateReadSession | Method::StorageReadRows
        );
        method.starts_a_job() || is_of_session || is_result()
    }

    /// Whether with this event a job, or what was asked for of one, has come to its end or gone on.
    pub(super) fn is_of_a_job(&self, event: &Event) -> bool {
        if let Event::QueryFinished { query, .. } = event {
            self.of_results.contains(query)
        } else {
            // An admission may be taken back, and then nothing of it is left.
            !matches!(event, Event::QueryAdmitted { .. })
        }
    }

    /// Whether nothing of it is under way: no job runs or has ended without being looked at, nothing is being sent, an upload that was begun has
    /// ended, and no rows are being passed on.
    pub(super) fn is_quiet(&self) -> bool {
        let is_looked_after = |job: &OwnJob| job.is_over && (job.is_compared || job.is_settled);
        self.held.values().all(|held| held.is_over)
            && self.returning.is_empty()
            && self.jobs.iter().all(is_looked_after)
    }

    pub(super) fn jobs(&self) -> impl Iterator<Item = &JobRef> {
        self.jobs.iter().map(|own| &own.job)
    }

    /// What the name of a job is used for.
    pub(super) fn name_use(&self, name: &JobRef, asked: Option<&str>) -> NameUse {
        let is_same = |of: &Option<String>| asked.is_some() && of.as_deref() == asked;
        let or_other = |of: &Option<String>, used| if is_same(of) { used } else { NameUse::Other };
        let mut own = self.jobs.iter();
        if let Some(own) = own.rfind(|own| own.job.may_be_same_job(name)) {
            return or_other(&own.asked, NameUse::Started);
        }
        let may_be = |held: &&Held| {
            let unanswered = held.unanswered.as_ref();
            unanswered.is_some_and(|used| used.may_be_same_job(name))
        };
        if let Some(held) = self.held.values().find(may_be) {
            return or_other(&held.asked, NameUse::Unanswered);
        }
        // The name must be this very one: then BigQuery takes all of them for one.
        let is_again = |held: &Held| {
            is_same(&held.asked)
                && held
                    .unanswered
                    .as_ref()
                    .is_some_and(|used| used.is_same_job(name))
        };
        let doubtful: Vec<&Held> = self.doubtful.values().filter(may_be).collect();
        match doubtful.as_slice() {
            [] => NameUse::None,
            all if all.iter().all(|held| is_again(held)) => NameUse::Again,
            _ => NameUse::Other,
        }
    }

    /// Whether an admission counts as a query: one that starts a job does, once, however often its start is tried, and one that asks for a read
    /// session of a table.
    fn counts(&self, event: &Event) -> bool {
        let Event::QueryAdmitted {
            method,
            job,
            asked,
            tables,
            ceiling,
            ..
        } = event
        else {
            return false;
        };
        if *method == Method::StorageCreateReadSession {
            // What is held for its streams comes second.
            return ceiling.is_none() && !tables.iter().all(|table| self.owns_result(table));
        }
        let is_again = job
            .as_ref()
            .is_some_and(|name| self.name_use(name, asked.as_deref()) == NameUse::Again);
        method.starts_a_job() && !is_again
    }

    pub(super) fn owns_result(&self, table: &TableRef) -> bool {
        table.dataset().dataset().starts_with('_') && self.results.contains_key(table)
    }

    /// The jobs that have written one of the tables, or may have, and of which it is not known what they have read.
    pub(super) fn uncompared_jobs_of(&self, tables: &[TableRef]) -> Vec<Uncompared> {
        let is_one = |table: &TableRef| tables.iter().any(|one| one.overlaps(table));
        let written = self.results.iter().filter(|(table, _)| is_one(table));
        let known = written.filter_map(|(_, place)| self.jobs.get(*place));
        let known = known.filter(|own| !own.is_compared).map(|own| Uncompared {
            query: own.query,
            job: own.job.clone(),
            reads: own.reads,
        });
        let held = self.held.iter();
        let held = held.filter(|(_, held)| held.writes.iter().any(is_one));
        let unanswered = held.filter_map(|(query, held)| {
            Some(Uncompared {
                query: *query,
                job: held.unanswered.clone()?,
                reads: held.tables > 0,
            })
        });
        known.chain(unanswered).collect()
    }

    /// The window's own job of this name, if it is not known what it has read.
    pub(super) fn uncompared(&self, job: &JobRef) -> Option<Uncompared> {
        let mut own = self.jobs.iter().filter(|own| own.job.is_same_job(job));
        own.find(|own| !own.is_compared).map(|own| Uncompared {
            query: own.query,
            job: own.job.clone(),
            reads: own.reads,
        })
    }

    /// Whether the query of a job of this name reads tables.
    pub(super) fn job_reads(&self, job: &JobRef) -> bool {
        let mut own = self.jobs.iter().filter(|own| own.job.is_same_job(job));
        own.any(|own| own.reads)
    }

    /// The jobs that are not settled, those that are known to be the window's own first.
    pub(super) fn unsettled_jobs(&self) -> Vec<UnsettledJob> {
        let own = self.jobs.iter().filter_map(|own| {
            let state = match (own.is_over, own.is_compared || own.is_settled) {
                (false, true | false) => JobState::Running,
                (true, false) => JobState::Ended,
                (true, true) => return None,
            };
            Some(UnsettledJob {
                query: own.query,
                job: own.job.clone(),
                state,
                reads: own.reads,
            })
        });
        // Where the last part was never sent no job was started.
        let held = self.held.iter().filter(|(_, held)| !held.in_parts);
        let unanswered = held.filter_map(|(query, held)| {
            Some(UnsettledJob {
                query: *query,
                job: held.unanswered.clone()?,
                state: JobState::Unanswered,
                reads: held.tables > 0,
            })
        });
        let doubtful = self.doubtful.iter();
        let doubtful = doubtful.filter_map(|(query, held)| {
            Some(UnsettledJob {
                query: *query,
                job: held.unanswered.clone()?,
                state: JobState::Doubtful,
                reads: held.tables > 0,
            })
        });
        own.chain(unanswered).chain(doubtful).collect()
    }

    /// What was being passed on when the daemon ended: each, and the most that it can have been.
    pub(super) fn broken_off(&self) -> impl Iterator<Item = (QueryId, u64)> {
        let returning = self.returning.iter();
        returning.map(|(query, returning)| (*query, returning.most))
    }
}

/// Whether what was sent under a name may have been begun all the same: there was no plain answer, or by one it was not there when it was
/// looked for.
fn is_doubtful(status: Option<u16>, is_void: bool) -> bool {
    match status {
        // More is to come, or nothing is.
        Some(308 | 400..=403 | 405..=499) => false,
        Some(404 | 500..) => true,
        Some(_) | None => !is_void,
    }
}

impl Held {
    /// Whether the job that nobody has heard of yet has this id.
    fn is_named(&self, job: &JobRef) -> bool {
        let name = self.unanswered.as_ref();
        name.is_some_and(|name| name.has_id_of(job))
    }

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
        match self.settled_by {
            Settling::Transfer | Settling::Given => Some(self.ceiling),
            Settling::Job | Settling::Start | Settling::Rows => {
                billed.or_else(|| processed.map(of_processed))
            }
        }
    }
}
