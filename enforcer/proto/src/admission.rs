//! One request judged against one window. The answer is a permit or a refusal, never a bool.

use crate::id::GrantId;
use crate::ledger::Grant;
use crate::principal::AgentName;
use crate::query::{DryRun, JobRef, Method, QueryFacts, Touch};
use crate::refusal::{Code, Refusal};
use crate::scope::{DatasetRef, Scope, TableRef};
use crate::time::Now;

/// The most tables one query may read: past this BigQuery's own list is not certain to be complete.
pub const TABLES_PER_QUERY_MAX: usize = 49;

/// That a request may be forwarded under a grant. Made only by [`admit`]; the daemon turns it into a permit once it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    method: Method,
    tables: Vec<TableRef>,
    job: Option<JobRef>,
    own_jobs: Vec<JobRef>,
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

    /// The window's own job that the request reads or ends, with its location: what is sent on must name exactly this one.
    #[must_use]
    pub const fn job(&self) -> Option<&JobRef> {
        self.job.as_ref()
    }

    /// The window's own jobs, where the request asks for a list of jobs: what the answer is cut down to.
    #[must_use]
    pub fn own_jobs(&self) -> &[JobRef] {
        &self.own_jobs
    }

    /// The bytes it may process, by BigQuery's estimate.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Judges `facts` against `grant`, which must be open at `now`.
///
/// # Errors
/// A [`Refusal`]: the window has closed, its budget is spent, or the facts lie outside its scope.
pub fn admit(now: Now, grant: &Grant, facts: &QueryFacts) -> Result<Admitted, Refusal> {
    if !grant.is_open_at(now) {
        return Err(closed(grant));
    }
    within_project(grant, facts)?;
    let mut own = None;
    let mut own_jobs = Vec::new();
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
        Touch::Job(job) => {
            own = Some(own_job(grant, job)?);
            (Vec::new(), 0)
        }
        Touch::Query(dry_run) => {
            judge_query(grant, dry_run, facts.is_dry_run)?;
            (
                dry_run.tables.clone(),
                if facts.is_dry_run { 0 } else { dry_run.bytes },
            )
        }
    };
    if matches!(facts.touch, Touch::Query(_)) && !facts.is_dry_run && grant.queries_left() == 0 {
        return Err(Refusal::new(
            Code::WindowBudget,
            format!(
                "Window {} allows {} queries, and they are used",
                grant.id, grant.queries_max
            ),
        ));
    }
    Ok(Admitted {
        method: facts.method,
        tables,
        job: own,
        own_jobs,
        bytes,
    })
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
        Touch::Query(_) | Touch::Job(_) | Touch::FilteredList | Touch::OwnJobs => true,
        Touch::Nothing | Touch::Dataset(_) | Touch::Table(_) | Touch::Rows(_) => false,
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

fn judge_query(grant: &Grant, dry_run: &DryRun, is_dry_run: bool) -> Result<(), Refusal> {
    if dry_run.statement != "SELECT" {
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
