//! One request judged against one window. The answer is a permit or a refusal, never a bool.

use crate::bucket::BucketRef;
use crate::id::GrantId;
use crate::ledger::{Grant, NameUse};
use crate::principal::AgentName;
use crate::query::{DryRun, JobRef, Layout, Method, QueryFacts, Touch, Transfer, Uncompared};
use crate::refusal::{Code, Refusal};
use crate::scope::{Access, DatasetRef, Scope, TableRef};
use crate::time::Now;

/// The most tables one query may read: past this BigQuery's own list is not certain to be complete.
pub const TABLES_PER_QUERY_MAX: usize = 49;

/// The statement that only reads, as BigQuery calls it.
pub const READING: &str = "SELECT";
/// The statement whose result goes to Cloud Storage.
pub const EXPORTING: &str = "EXPORT_DATA";
/// Those that write tables, and nothing that outlives the window otherwise: a view or a routine would be run by others later.
pub const WRITING: [&str; 8] = [
    "INSERT",
    "UPDATE",
    "DELETE",
    "MERGE",
    "TRUNCATE_TABLE",
    "CREATE_TABLE",
    "CREATE_TABLE_AS_SELECT",
    "DROP_TABLE",
];

/// Those of them that make or remove a table as such.
pub const DEFINING: [&str; 3] = ["CREATE_TABLE", "CREATE_TABLE_AS_SELECT", "DROP_TABLE"];

/// That a request may be forwarded under a grant. Made only by [`admit`]; the daemon turns it into a permit once it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    method: Method,
    tables: Vec<TableRef>,
    writes: Vec<TableRef>,
    imports: Vec<BucketRef>,
    exports: Vec<BucketRef>,
    job: Option<JobRef>,
    job_reads: bool,
    is_result: bool,
    own_jobs: Vec<JobRef>,
    uncompared: Vec<Uncompared>,
    bytes: u64,
}

impl Admitted {
    /// The API method it was made for.
    #[must_use]
    pub const fn method(&self) -> Method {
        self.method
    }

    /// The tables the request reads.
    #[must_use]
    pub fn tables(&self) -> &[TableRef] {
        &self.tables
    }

    /// The tables the request writes.
    #[must_use]
    pub fn writes(&self) -> &[TableRef] {
        &self.writes
    }

    /// The buckets that data comes from.
    #[must_use]
    pub fn imports(&self) -> &[BucketRef] {
        &self.imports
    }

    /// The buckets that data goes to.
    #[must_use]
    pub fn exports(&self) -> &[BucketRef] {
        &self.exports
    }

    /// The window's own job that the request reads or ends, with its location: what is sent on must name exactly this one.
    #[must_use]
    pub const fn job(&self) -> Option<&JobRef> {
        self.job.as_ref()
    }

    /// Whether that job's query reads tables, as far as was known before it ran.
    #[must_use]
    pub const fn job_reads(&self) -> bool {
        self.job_reads
    }

    /// Whether the table that it reads is the result of a job of the window's own.
    #[must_use]
    pub const fn is_result(&self) -> bool {
        self.is_result
    }

    /// The window's own jobs, where the request asks for a list of jobs: what the answer is cut down to.
    #[must_use]
    pub fn own_jobs(&self) -> &[JobRef] {
        &self.own_jobs
    }

    /// The window's own jobs whose results the request reads, where it is not known yet what those have read: nothing of them may be passed on,
    /// or read again, before.
    #[must_use]
    pub fn uncompared(&self) -> &[Uncompared] {
        &self.uncompared
    }

    /// The bytes it may process, by BigQuery's estimate.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A job that is started under a name.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The name.
    pub name: &'a JobRef,
    /// The digest of what it is asked to do, where it may be asked again under its name.
    pub asked: Option<&'a str>,
}

/// Judges `facts` against `grant`, which must be open at `now`. `start` is that of the job that is started, where it has a name.
///
/// # Errors
/// A [`Refusal`]: the window has closed, its budget is spent, the name is used, or the facts lie outside its scope.
pub fn admit(
    now: Now,
    grant: &Grant,
    facts: &QueryFacts,
    start: Option<Start<'_>>,
) -> Result<Admitted, Refusal> {
    if !grant.is_open_at(now) {
        return Err(closed(grant));
    }
    within_project(grant, facts)?;
    let mut own = None;
    let mut own_jobs = Vec::new();
    let mut uncompared = Vec::new();
    let (tables, bytes) = match &facts.touch {
        Touch::Nothing | Touch::FilteredList => (Vec::new(), 0),
        Touch::OwnJobs => {
            own_jobs = grant.jobs();
            (Vec::new(), 0)
        }
        Touch::Dataset(dataset) => {
            within_scope(grant, dataset, &dataset.to_string())?;
            (Vec::new(), 0)
        }
        Touch::Table(table) | Touch::Rows(table) => {
            if !grant.owns_result(table) {
                within_scope(grant, table.dataset(), &table.to_string())?;
            }
            (vec![table.clone()], 0)
        }
        Touch::Scan { table, bytes } => {
            judge_scan(grant, table, *bytes)?;
            (vec![table.clone()], bytes.unwrap_or(0))
        }
        Touch::Job(job) => {
            let job = own_job(grant, job)?;
            // What is deleted tells nothing any more.
            if matches!(facts.method, Method::GetQueryResults | Method::JobsDelete) {
                uncompared.extend(grant.uncompared(&job));
            }
            own = Some(job);
            (Vec::new(), 0)
        }
        Touch::Transfer(moved) => {
            judge_transfer(grant, moved)?;
            (moved.reads.clone(), moved.bytes)
        }
        Touch::Change(table) => {
            defines(grant, table)?;
            (Vec::new(), 0)
        }
        Touch::Fill { table, bytes } => {
            writes(grant, table)?;
            (Vec::new(), *bytes)
        }
        Touch::Query(dry_run) => {
            judge_query(grant, dry_run, facts.is_dry_run)?;
            (
                dry_run.tables.clone(),
                if facts.is_dry_run { 0 } else { dry_run.bytes },
            )
        }
    };
    may_start(grant, facts, start)?;
    if facts.touch.reads_rows() && !facts.is_dry_run {
        uncompared.extend(grant.uncompared_jobs_of(&tables));
    }
    Ok(Admitted {
        method: facts.method,
        is_result: !tables.is_empty() && tables.iter().all(|table| grant.owns_result(table)),
        tables,
        writes: facts.touch.writes(),
        imports: facts.touch.imports().to_vec(),
        exports: facts.touch.exports().to_vec(),
        job_reads: own.as_ref().is_some_and(|job| grant.job_reads(job)),
        job: own,
        own_jobs,
        uncompared,
        bytes,
    })
}

/// Judges whether what it starts may be started, by its name and by how much runs already.
fn may_start(grant: &Grant, facts: &QueryFacts, start: Option<Start<'_>>) -> Result<(), Refusal> {
    if facts.method.starts_a_job() && !facts.is_dry_run {
        match start.map_or(Ok(Time::First), |start| unused(grant, start))? {
            Time::First => one_more_query(grant)?,
            // It was counted the first time.
            Time::Again => {}
        }
    }
    // What comes in parts is started by the last of them, and that alone has a name to start.
    let starts_now = match facts.method.starts_a_job() {
        true => !facts.is_dry_run && !facts.touch.in_parts(),
        false => start.is_some(),
    };
    if starts_now {
        one_more_job(grant)?;
    }
    Ok(())
}

/// Judges whether one more query may be admitted.
fn one_more_query(grant: &Grant) -> Result<(), Refusal> {
    if grant.queries_left() == 0 {
        return Err(Refusal::new(
            Code::WindowBudget,
            format!(
                "Window {} allows {} queries, and they are used",
                grant.id, grant.budget.queries_max
            ),
        ));
    }
    Ok(())
}

/// Whether a start is tried for the first time.
enum Time {
    First,
    Again,
}

/// Judges the name of a new job. A name is used once: what is known of a job would otherwise stand for another of its name, also where BigQuery
/// has been told to forget the first. Clients try a start again, under its name, to which no plain answer came: that is the same start, and
/// BigQuery runs one job of a name, whichever of them it gets. So it goes out once more when BigQuery has said that it has no such job, and not
/// before.
fn unused(grant: &Grant, start: Start<'_>) -> Result<Time, Refusal> {
    let (id, name) = (grant.id, start.name);
    let (code, what) = match grant.name_use(name, start.asked) {
        NameUse::None => return Ok(Time::First),
        NameUse::Again => return Ok(Time::Again),
        NameUse::Unanswered => (
            Code::JobUnanswered,
            format!(
                "BigQuery did not say whether it has started job {name} of window {id}, and is asked for it"
            ),
        ),
        NameUse::Started => (
            Code::JobDuplicate,
            format!("Already Exists: Job {name}: window {id} has started it"),
        ),
        NameUse::Other => (
            Code::JobIdUsed,
            format!("Window {id} has started a job {name}, or may have"),
        ),
    };
    Err(Refusal::new(code, what))
}

/// Judges whether one more job may run.
fn one_more_job(grant: &Grant) -> Result<(), Refusal> {
    if grant.usage.jobs_at_once() >= grant.budget.jobs_at_once_max {
        return Err(Refusal::new(
            Code::WindowBusy,
            format!(
                "Window {} runs {} jobs at once, and no more may run",
                grant.id, grant.budget.jobs_at_once_max
            ),
        ));
    }
    Ok(())
}

/// Judges a read session: like a query, before it is asked for, and again by how much BigQuery says that its streams read. A result of the window's
/// own was charged with its query.
fn judge_scan(grant: &Grant, table: &TableRef, bytes: Option<u64>) -> Result<(), Refusal> {
    if grant.owns_result(table) {
        return Ok(());
    }
    within_scope(grant, table.dataset(), &table.to_string())?;
    match bytes {
        None => one_more_query(grant),
        Some(bytes) if bytes > grant.budget.query_bytes_max => Err(Refusal::new(
            Code::WindowBudget,
            format!(
                "The read session would read {bytes} bytes of {table}; one query of window {} may process {}",
                grant.id, grant.budget.query_bytes_max
            ),
        )),
        Some(_) => Ok(()),
    }
}

fn own_job(grant: &Grant, job: &JobRef) -> Result<JobRef, Refusal> {
    grant.own_job(job).cloned().ok_or_else(|| {
        Refusal::new(
            Code::JobForeign,
            format!("Job {job} was not started in window {}", grant.id),
        )
    })
}

fn closed(grant: &Grant) -> Refusal {
    Refusal::new(
        Code::WindowClosed,
        format!(
            "Access Denied: BigQuery: window {} of agent {} has closed",
            grant.id, grant.agent
        ),
    )
}

fn within_project(grant: &Grant, facts: &QueryFacts) -> Result<(), Refusal> {
    let bills = match &facts.touch {
        Touch::Query(_)
        | Touch::Transfer(_)
        | Touch::Job(_)
        | Touch::FilteredList
        | Touch::OwnJobs => true,
        Touch::Nothing
        | Touch::Dataset(_)
        | Touch::Table(_)
        | Touch::Rows(_)
        | Touch::Scan { .. }
        | Touch::Change(_)
        | Touch::Fill { .. } => false,
    };
    match &facts.project {
        Some(project) if bills => may_bill(project, grant.id, &grant.scope),
        Some(_) | None => Ok(()),
    }
}

fn within_scope(grant: &Grant, dataset: &DatasetRef, what: &str) -> Result<(), Refusal> {
    if grant.scope.covers(dataset) {
        return Ok(());
    }
    Err(outside(what, grant.id, &grant.agent, &grant.scope))
}

/// Judges a table that would be written.
///
/// # Errors
/// [`Code::ScopeOutside`], or [`Code::ScopeReadOnly`] where its dataset may only be read.
pub fn may_write(
    table: &TableRef,
    grant: GrantId,
    agent: &AgentName,
    scope: &Scope,
) -> Result<(), Refusal> {
    if !scope.covers(table.dataset()) {
        return Err(outside(&format!("table {table}"), grant, agent, scope));
    }
    if scope.allows(table.dataset(), Access::Write) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::ScopeReadOnly,
        format!(
            "Access Denied: table {table} would be written, and window {grant} of agent {agent} only reads there ({scope})"
        ),
    ))
}

/// Judges a bucket that data would come from, or go to.
///
/// # Errors
/// [`Code::ScopeBucket`].
pub fn may_use(
    bucket: &BucketRef,
    access: Access,
    grant: GrantId,
    agent: &AgentName,
    scope: &Scope,
) -> Result<(), Refusal> {
    if scope.allows_bucket(bucket, access) {
        return Ok(());
    }
    let way = match access {
        Access::Read => "come from",
        Access::Write | Access::Ddl => "go to",
    };
    Err(Refusal::new(
        Code::ScopeBucket,
        format!(
            "Access Denied: data would {way} {bucket}, which window {grant} of agent {agent} does not allow ({scope})"
        ),
    ))
}

/// Judges a table that a job would fill, and whose columns may be other ones then.
///
/// # Errors
/// As [`may_write`], or [`Code::ScopeDdl`] where its columns are to stay.
pub fn may_fill(
    table: &TableRef,
    layout: Layout,
    grant: GrantId,
    agent: &AgentName,
    scope: &Scope,
) -> Result<(), Refusal> {
    may_write(table, grant, agent, scope)?;
    match layout {
        Layout::Kept => Ok(()),
        Layout::Replaced if scope.allows(table.dataset(), Access::Ddl) => Ok(()),
        Layout::Replaced => Err(Refusal::new(
            Code::ScopeDdl,
            format!(
                "Access Denied: table {table} could get other columns (WRITE_TRUNCATE, schemaUpdateOptions), and window {grant} of agent {agent} only fills tables there and changes rows ({scope}); WRITE_APPEND, WRITE_EMPTY and WRITE_TRUNCATE_DATA keep them"
            ),
        )),
    }
}

fn writes(grant: &Grant, table: &TableRef) -> Result<(), Refusal> {
    may_write(table, grant.id, &grant.agent, &grant.scope)
}

fn fills(grant: &Grant, table: &TableRef, layout: Layout) -> Result<(), Refusal> {
    may_fill(table, layout, grant.id, &grant.agent, &grant.scope)
}

/// A table that would be made, changed or removed as such.
fn defines(grant: &Grant, table: &TableRef) -> Result<(), Refusal> {
    writes(grant, table)?;
    if grant.scope.allows(table.dataset(), Access::Ddl) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::ScopeDdl,
        format!(
            "Access Denied: table {table} would be made, changed or removed as such, and window {} of agent {} only fills tables there and changes rows ({})",
            grant.id, grant.agent, grant.scope
        ),
    ))
}

fn uses(grant: &Grant, bucket: &BucketRef, access: Access) -> Result<(), Refusal> {
    may_use(bucket, access, grant.id, &grant.agent, &grant.scope)
}

/// That `what` lies outside a window.
#[must_use]
pub fn outside(what: &str, grant: GrantId, agent: &AgentName, scope: &Scope) -> Refusal {
    Refusal::new(
        Code::ScopeOutside,
        format!(
            "Access Denied: {what} is outside window {grant} of agent {agent}, which covers {scope}"
        ),
    )
}

/// Judges the project that would be billed.
///
/// # Errors
/// [`Code::ScopeProject`].
pub fn may_bill(project: &str, grant: GrantId, scope: &Scope) -> Result<(), Refusal> {
    if scope.covers_project(project) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::ScopeProject,
        format!("Access Denied: project {project} is not one of window {grant} ({scope})"),
    ))
}

fn judge_transfer(grant: &Grant, moved: &Transfer) -> Result<(), Refusal> {
    let Transfer {
        reads,
        into,
        layout,
        from,
        to,
        exported: _,
        bytes: _,
        in_parts: _,
    } = moved;
    for table in reads {
        within_scope(grant, table.dataset(), &format!("table {table}"))?;
    }
    if let Some(table) = into {
        fills(grant, table, *layout)?;
    }
    for bucket in from {
        uses(grant, bucket, Access::Read)?;
    }
    for bucket in to {
        uses(grant, bucket, Access::Write)?;
    }
    Ok(())
}

fn judge_query(grant: &Grant, dry_run: &DryRun, is_dry_run: bool) -> Result<(), Refusal> {
    let is_known = match dry_run.statement.as_str() {
        READING => true,
        EXPORTING => !dry_run.to.is_empty(),
        other => WRITING.contains(&other),
    };
    if !is_known {
        return Err(Refusal::new(
            Code::StatementKind,
            format!(
                "Access Denied: a {} statement is not let through by window {} ({})",
                dry_run.statement, grant.id, grant.scope
            ),
        ));
    }
    if dry_run.tables.len() > TABLES_PER_QUERY_MAX {
        return Err(Refusal::new(
            Code::NotVouched,
            format!(
                "The query reads {} tables; at most {TABLES_PER_QUERY_MAX} can be vouched for",
                dry_run.tables.len()
            ),
        ));
    }
    for table in &dry_run.tables {
        within_scope(grant, table.dataset(), &format!("table {table}"))?;
    }
    for routine in &dry_run.routines {
        within_scope(grant, routine.dataset(), &format!("routine {routine}"))?;
    }
    let is_defining = DEFINING.contains(&dry_run.statement.as_str());
    for table in &dry_run.targets {
        if is_defining {
            defines(grant, table)?;
        } else {
            fills(grant, table, dry_run.layout)?;
        }
    }
    for bucket in &dry_run.to {
        uses(grant, bucket, Access::Write)?;
    }
    if !is_dry_run && dry_run.bytes > grant.budget.query_bytes_max {
        return Err(Refusal::new(
            Code::WindowBudget,
            format!(
                "The query would process {} bytes; one query of window {} may process {}",
                dry_run.bytes, grant.id, grant.budget.query_bytes_max
            ),
        ));
    }
    if !is_dry_run && dry_run.bytes > grant.bytes_left() {
        return Err(Refusal::new(
            Code::WindowBudget,
            format!(
                "The query would process {} bytes; window {} has {} left",
                dry_run.bytes,
                grant.id,
                grant.bytes_left()
            ),
        ));
    }
    Ok(())
}
