//! What one BigQuery request touches, as read from the request and from BigQuery's own dry run. Facts, not verdicts.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::bucket::BucketRef;
use crate::id::QueryId;
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
    /// `tables.insert`
    #[serde(rename = "tables.insert")]
    TablesInsert,
    /// `tables.patch`
    #[serde(rename = "tables.patch")]
    TablesPatch,
    /// `tables.update`
    #[serde(rename = "tables.update")]
    TablesUpdate,
    /// `tables.delete`
    #[serde(rename = "tables.delete")]
    TablesDelete,
    /// `tabledata.insertAll`
    #[serde(rename = "tabledata.insertAll")]
    InsertAll,
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
    /// `jobs.insert`
    #[serde(rename = "jobs.insert")]
    JobsInsert,
    /// `jobs.insert` of a load, with the data or before it
    #[serde(rename = "jobs.insert (upload)")]
    JobsUpload,
    /// A part of the data of such a load
    #[serde(rename = "upload")]
    UploadPart,
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
    /// `CreateReadSession` of the storage API
    #[serde(rename = "storage.CreateReadSession")]
    StorageCreateReadSession,
    /// `ReadRows` of the storage API
    #[serde(rename = "storage.ReadRows")]
    StorageReadRows,
    /// `SplitReadStream` of the storage API
    #[serde(rename = "storage.SplitReadStream")]
    StorageSplitReadStream,
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
            Self::TablesInsert => "tables.insert",
            Self::TablesPatch => "tables.patch",
            Self::TablesUpdate => "tables.update",
            Self::TablesDelete => "tables.delete",
            Self::InsertAll => "tabledata.insertAll",
            Self::TabledataList => "tabledata.list",
            Self::ModelsList => "models.list",
            Self::ModelsGet => "models.get",
            Self::RoutinesList => "routines.list",
            Self::RoutinesGet => "routines.get",
            Self::JobsList => "jobs.list",
            Self::JobsInsert => "jobs.insert",
            Self::JobsUpload => "jobs.insert (upload)",
            Self::UploadPart => "upload",
            Self::JobsQuery => "jobs.query",
            Self::JobsGet => "jobs.get",
            Self::GetQueryResults => "jobs.getQueryResults",
            Self::JobsCancel => "jobs.cancel",
            Self::JobsDelete => "jobs.delete",
            Self::StorageCreateReadSession => "storage.CreateReadSession",
            Self::StorageReadRows => "storage.ReadRows",
            Self::StorageSplitReadStream => "storage.SplitReadStream",
        }
    }
}

impl Method {
    /// Whether rows come back: of tables, or of a job's result. A read session's failure can have them in its words.
    #[must_use]
    pub const fn returns_rows(self) -> bool {
        match self {
            Self::TabledataList
            | Self::JobsQuery
            | Self::GetQueryResults
            | Self::StorageCreateReadSession
            | Self::StorageReadRows
            | Self::StorageSplitReadStream => true,
            Self::Discovery
            | Self::ProjectsList
            | Self::DatasetsList
            | Self::DatasetsGet
            | Self::TablesList
            | Self::TablesGet
            | Self::TablesInsert
            | Self::TablesPatch
            | Self::TablesUpdate
            | Self::TablesDelete
            | Self::InsertAll
            | Self::ModelsList
            | Self::ModelsGet
            | Self::RoutinesList
            | Self::RoutinesGet
            | Self::JobsList
            | Self::JobsInsert
            | Self::JobsUpload
            | Self::UploadPart
            | Self::JobsGet
            | Self::JobsCancel
            | Self::JobsDelete => false,
        }
    }

    /// Whether a job comes of it.
    #[must_use]
    pub const fn starts_a_job(self) -> bool {
        matches!(self, Self::JobsInsert | Self::JobsQuery | Self::JobsUpload)
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
        self.has_id_of(other) && location_agrees
    }

    /// Whether both have one project and id, wherever they run.
    #[must_use]
    pub fn has_id_of(&self, other: &Self) -> bool {
        self.project == other.project && self.job == other.job
    }

    /// Whether both may name one job: as far as their locations are known, they are one.
    #[must_use]
    pub fn may_be_same_job(&self, other: &Self) -> bool {
        let locations = self.location.as_ref().zip(other.location.as_ref());
        self.has_id_of(other) && locations.is_none_or(|(a, b)| a.eq_ignore_ascii_case(b))
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
    /// A read session of a table, or of the anonymous result table of an own job.
    Scan {
        /// The table.
        table: TableRef,
        /// How much its streams read at BigQuery, bytes, once BigQuery has said it: then they are about to be told.
        bytes: Option<u64>,
    },
    /// An existing job, which must belong to the window.
    Job(JobRef),
    /// A query, as BigQuery's dry run sees it.
    Query(DryRun),
    /// A job that is no query: tables copied or loaded into another, or exported.
    Transfer(Transfer),
    /// A table that is made, changed or removed.
    Change(TableRef),
    /// Rows that are put into a table.
    Fill {
        /// The table.
        table: TableRef,
        /// How long they are as they are sent, bytes.
        bytes: u64,
    },
}

/// What becomes of the columns of a table that a job fills, where the table is there already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Layout {
    /// They stay, or the job comes to nothing.
    Kept,
    /// They may be other ones then, or nobody has said that they stay.
    #[default]
    Replaced,
}

/// The table that a query's result goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Which.
    pub table: TableRef,
    /// What becomes of its columns.
    pub layout: Layout,
}

/// Data that a job moves without a query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// The tables it reads.
    pub reads: Vec<TableRef>,
    /// The table that it fills, if it does.
    pub into: Option<TableRef>,
    /// What becomes of that table's columns.
    pub layout: Layout,
    /// The buckets that it takes data from.
    pub from: Vec<BucketRef>,
    /// Those that it takes data to.
    pub to: Vec<BucketRef>,
    /// How much that is, bytes, as the tables are long.
    pub exported: u64,
    /// How long what is loaded is as it is sent along, bytes.
    pub bytes: u64,
    /// What is loaded comes later, in parts: no job runs before the last of them.
    pub in_parts: bool,
}

/// One of the window's own jobs of which it is not known what it has read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uncompared {
    /// What it was started by.
    pub query: QueryId,
    /// Which.
    pub job: JobRef,
    /// Its query reads tables: BigQuery's description of it, once it has ended, must name some.
    pub reads: bool,
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
            | Self::Scan { .. }
            | Self::Query(_)
            | Self::Transfer(_)
            | Self::Change(_)
            | Self::Fill { .. } => None,
        }
    }

    /// Whether rows of its tables are read.
    #[must_use]
    pub const fn reads_rows(&self) -> bool {
        match self {
            Self::Rows(_) | Self::Scan { .. } | Self::Query(_) | Self::Transfer(_) => true,
            Self::Nothing
            | Self::FilteredList
            | Self::OwnJobs
            | Self::Dataset(_)
            | Self::Table(_)
            | Self::Job(_)
            | Self::Change(_)
            | Self::Fill { .. } => false,
        }
    }

    /// The buckets that data goes to.
    #[must_use]
    pub fn exports(&self) -> &[BucketRef] {
        match self {
            Self::Query(run) => &run.to,
            Self::Transfer(moved) => &moved.to,
            Self::Nothing
            | Self::FilteredList
            | Self::OwnJobs
            | Self::Dataset(_)
            | Self::Table(_)
            | Self::Rows(_)
            | Self::Scan { .. }
            | Self::Job(_)
            | Self::Change(_)
            | Self::Fill { .. } => &[],
        }
    }

    /// How much goes to buckets, bytes, as far as that is known before: of a query, what it reads. None where nothing goes there.
    #[must_use]
    pub fn exported(&self) -> Option<u64> {
        let bytes = match self {
            Self::Query(run) => run.bytes,
            Self::Transfer(moved) => moved.exported,
            Self::Nothing
            | Self::FilteredList
            | Self::OwnJobs
            | Self::Dataset(_)
            | Self::Table(_)
            | Self::Rows(_)
            | Self::Scan { .. }
            | Self::Job(_)
            | Self::Change(_)
            | Self::Fill { .. } => return None,
        };
        (!self.exports().is_empty()).then_some(bytes)
    }

    /// The buckets that data comes from.
    #[must_use]
    pub fn imports(&self) -> &[BucketRef] {
        match self {
            Self::Transfer(moved) => &moved.from,
            Self::Query(_)
            | Self::Nothing
            | Self::FilteredList
            | Self::OwnJobs
            | Self::Dataset(_)
            | Self::Table(_)
            | Self::Rows(_)
            | Self::Scan { .. }
            | Self::Job(_)
            | Self::Change(_)
            | Self::Fill { .. } => &[],
        }
    }

    /// Whether what it loads comes later, in parts.
    #[must_use]
    pub const fn in_parts(&self) -> bool {
        matches!(self, Self::Transfer(Transfer { in_parts: true, .. }))
    }

    /// The tables that are written.
    #[must_use]
    pub fn writes(&self) -> Vec<TableRef> {
        match self {
            Self::Query(run) => run.targets.clone(),
            Self::Transfer(Transfer { into, .. }) => into.iter().cloned().collect(),
            Self::Change(table) | Self::Fill { table, .. } => vec![table.clone()],
            Self::Nothing
            | Self::FilteredList
            | Self::OwnJobs
            | Self::Dataset(_)
            | Self::Table(_)
            | Self::Rows(_)
            | Self::Scan { .. }
            | Self::Job(_) => Vec::new(),
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
    /// Every table it writes.
    pub targets: Vec<TableRef>,
    /// What becomes of their columns, where the statement does not say so itself.
    pub layout: Layout,
    /// The buckets that its result goes to.
    pub to: Vec<BucketRef>,
    /// The bytes the query would process.
    pub bytes: u64,
}

impl DryRun {
    /// A statement of which only the kind is known.
    #[must_use]
    pub const fn of_kind(statement: String) -> Self {
        Self {
            statement,
            tables: Vec::new(),
            routines: Vec::new(),
            targets: Vec::new(),
            layout: Layout::Replaced,
            to: Vec::new(),
            bytes: 0,
        }
    }
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
