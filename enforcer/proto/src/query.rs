//! What one BigQuery request touches, as read from the request and from BigQuery's own dry run. Facts, not verdicts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::scope::{DatasetRef, TableRef};

/// The API methods that are understood. Every other one is refused before facts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// The discovery document: the API's own description, no data.
    #[serde(rename = "discovery")]
    Discovery,
    /// `projects.list`
    #[serde(rename = "projects.list")]
    ProjectsList,
    /// `datasets.list`
    #[serde(rename = "datasets.list")]
    DatasetsList,
    /// `datasets.get`
    #[serde(rename = "datasets.get")]
    DatasetsGet,
    /// `tables.list`
    #[serde(rename = "tables.list")]
    TablesList,
    /// `tables.get`
    #[serde(rename = "tables.get")]
    TablesGet,
    /// `tabledata.list`
    #[serde(rename = "tabledata.list")]
    TabledataList,
    /// `models.list`
    #[serde(rename = "models.list")]
    ModelsList,
    /// `models.get`
    #[serde(rename = "models.get")]
    ModelsGet,
    /// `routines.list`
    #[serde(rename = "routines.list")]
    RoutinesList,
    /// `routines.get`
    #[serde(rename = "routines.get")]
    RoutinesGet,
    /// `jobs.list`
    #[serde(rename = "jobs.list")]
    JobsList,
    /// `jobs.insert` of a query
    #[serde(rename = "jobs.insert")]
    JobsInsert,
    /// `jobs.query`
    #[serde(rename = "jobs.query")]
    JobsQuery,
    /// `jobs.get`
    #[serde(rename = "jobs.get")]
    JobsGet,
    /// `jobs.getQueryResults`
    #[serde(rename = "jobs.getQueryResults")]
    GetQueryResults,
    /// `jobs.cancel`
    #[serde(rename = "jobs.cancel")]
    JobsCancel,
    /// `jobs.delete`
    #[serde(rename = "jobs.delete")]
    JobsDelete,
}

impl Method {
    /// BigQuery's own name of the method.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::ProjectsList => "projects.list",
            Self::DatasetsList => "datasets.list",
            Self::DatasetsGet => "datasets.get",
            Self::TablesList => "tables.list",
            Self::TablesGet => "tables.get",
            Self::TabledataList => "tabledata.list",
            Self::ModelsList => "models.list",
            Self::ModelsGet => "models.get",
            Self::RoutinesList => "routines.list",
            Self::RoutinesGet => "routines.get",
            Self::JobsList => "jobs.list",
            Self::JobsInsert => "jobs.insert",
            Self::JobsQuery => "jobs.query",
            Self::JobsGet => "jobs.get",
            Self::GetQueryResults => "jobs.getQueryResults",
            Self::JobsCancel => "jobs.cancel",
            Self::JobsDelete => "jobs.delete",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A BigQuery job. The location is part of the identity where BigQuery gave one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobRef {
    /// The project it runs in.
    pub project: String,
    /// The job id; the client may have chosen it.
    pub job: String,
    /// The location, from BigQuery's answer.
    pub location: Option<String>,
}

impl JobRef {
    /// Whether both name one job: ids are unique only in a project *and* location, so one without a location names none.
    #[must_use]
    pub fn is_same_job(&self, other: &Self) -> bool {
        let location_agrees = self
            .location
            .as_ref()
            .zip(other.location.as_ref())
            .is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
        self.project == other.project && self.job == other.job && location_agrees
    }
}

impl fmt::Display for JobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{}:{}.{}", self.project, location, self.job),
            None => write!(f, "{}:{}", self.project, self.job),
        }
    }
}

/// What a request reaches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touch {
    /// No data: the discovery document.
    Nothing,
    /// A list whose answer is filtered to what is in scope.
    FilteredList,
    /// The window's own jobs, to which the answer's list is cut down.
    OwnJobs,
    /// Metadata of a dataset, or of what lies in it.
    Dataset(DatasetRef),
    /// Metadata of a table.
    Table(TableRef),
    /// Rows of a table, read directly. May be the anonymous result table of an own job.
    Rows(TableRef),
    /// An existing job, which must belong to the window.
    Job(JobRef),
    /// A query, as BigQuery's dry run sees it.
    Query(DryRun),
}

impl Touch {
    /// What is reached for besides tables, in words for the log.
    #[must_use]
    pub fn resource(&self) -> Option<String> {
        match self {
            Self::Dataset(dataset) => Some(format!("dataset {dataset}")),
            Self::Job(job) => Some(format!("job {job}")),
            Self::Nothing
            | Self::FilteredList
            | Self::OwnJobs
            | Self::Table(_)
            | Self::Rows(_)
            | Self::Query(_) => None,
        }
    }
}

/// What BigQuery's dry run vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// BigQuery's statement type, such as `SELECT`.
    pub statement: String,
    /// Every table the query reads, views expanded.
    pub tables: Vec<TableRef>,
    /// Every routine it calls that is no built-in one, named like a table.
    pub routines: Vec<TableRef>,
    /// The bytes the query would process.
    pub bytes: u64,
}

/// One request, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryFacts {
    /// The API method.
    pub method: Method,
    /// The project in the path: the one that is billed for a job.
    pub project: Option<String>,
    /// What it reaches for.
    pub touch: Touch,
    /// The SQL text, for the record.
    pub sql: Option<String>,
    /// Whether the client itself asked for a dry run only.
    pub is_dry_run: bool,
}
