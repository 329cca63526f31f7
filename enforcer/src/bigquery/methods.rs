//! Every method of BigQuery's REST API, and what becomes of it: data, no code. A method that is not here is refused like one that is and is not
//! let through; a test holds this table against the API's own description. Those of the storage API, which is spoken by gRPC, are `calls`; what a body says
//! that makes another thing of the whole request is in `switches`.

mod calls;
pub mod switches;

use enforcer_proto::query::Method;

pub use calls::{CALLS, Call};
pub use switches::{SWITCHES, Switch};

use Judged::{As, Refused};

/// What a method does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads rows, or runs what does.
    Read,
    /// Tells of datasets, tables and jobs.
    Metadata,
    /// Changes rows, or a job: ends or removes it.
    Write,
    /// Makes, changes or removes datasets, tables, models and routines.
    Ddl,
    /// Says who may do what.
    Admin,
}

impl Access {
    /// For the documentation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Metadata => "metadata",
            Self::Write => "write",
            Self::Ddl => "ddl",
            Self::Admin => "admin",
        }
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy)]
pub enum Judged {
    /// It is judged as this method, with these parameters besides those that all have.
    As(Method, &'static [&'static str]),
    /// It is refused, and why.
    Refused(&'static str),
}

impl Judged {
    /// For the documentation.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            As(..) => "judged".to_owned(),
            Refused(why) => format!("refused: {why}"),
        }
    }
}

/// One method.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name in the API's description, without `bigquery.`.
    pub id: &'static str,
    /// The HTTP method.
    pub verb: &'static str,
    /// The path below `/bigquery/v2/`; what stands in braces names something.
    pub path: &'static str,
    /// What it does.
    pub access: Access,
    /// Where it says what it is about.
    pub names: &'static str,
    /// What becomes of it.
    pub judged: Judged,
}

/// A way into BigQuery beside the REST API's methods. None of them is let through.
#[derive(Debug, Clone, Copy)]
pub struct Door {
    /// How its paths begin.
    pub path: &'static str,
    /// What it is.
    pub is: &'static str,
    /// What it does.
    pub access: Access,
    /// Why it is refused.
    pub why: &'static str,
}

const fn door(path: &'static str, is: &'static str, access: Access, why: &'static str) -> Door {
    Door {
        path,
        is,
        access,
        why,
    }
}

const DDL: &str = "a window makes, changes and removes tables where its scope says `:ddl`, and no datasets, models or routines";
/// Of who may see what.
pub const ACCESS: &str = "who may see what is not an agent's to ask or to say";
const UPLOAD: &str = "loads are sent by /upload/bigquery/v2";
const OTHER_UPLOADS: &str = "but for `projects/{project}/jobs` of /upload/bigquery/v2 with uploadType=multipart or resumable, where a load's job is judged like others, and its parts belong to the window";
const WRITE_STREAMS: &str = "rows are put into a table by tabledata.insertAll or a load";
/// Of gRPC elsewhere than at the storage API's hosts.
pub const GRPC: &str = "gRPC is spoken at bigquerystorage alone, and to read rows";
/// Of other than gRPC at the storage API's hosts.
pub const STORAGE: &str = "it is spoken by gRPC";
/// Of the services beside BigQuery.
pub const NEIGHBOUR: &str = "it reaches BigQuery's data past what is judged here";
const METASTORE: &str = "a window has nothing to do with the metastore's partitions";

const PAGED: &[&str] = &["maxResults", "pageToken"];
const ROWS: &[&str] = &[
    "maxResults",
    "pageToken",
    "startIndex",
    "selectedFields",
    "formatOptions.useInt64Timestamp",
    "formatOptions.timestampOutputFormat",
];
const RESULTS: &[&str] = &[
    "location",
    "maxResults",
    "pageToken",
    "startIndex",
    "timeoutMs",
    "formatOptions.useInt64Timestamp",
    "formatOptions.timestampOutputFormat",
];
/// Not `allUsers`: what others run is not the agent's to see, and who asks for it is told so.
const JOBS: &[&str] = &[
    "maxResults",
    "pageToken",
    "projection",
    "stateFilter",
    "minCreationTime",
    "maxCreationTime",
    "parentJobId",
];

/// One line for each method.
macro_rules! methods {
    ($($id:literal $verb:ident $path:literal $access:ident $names:literal => $judged:expr;)+) => {
        /// The methods.
        pub const METHODS: &[Row] = &[$(Row {
            id: $id,
            verb: stringify!($verb),
            path: $path,
            access: Access::$access,
            names: $names,
            judged: $judged,
        }),+];
    };
}

methods! {
    "projects.list" GET "projects" Metadata "nowhere: the list is cut down to the scope" => As(Method::ProjectsList, PAGED);
    "projects.getServiceAccount" GET "projects/{project}/serviceAccount" Metadata "path" => Refused("no client needs it to read data");
    "datasets.get" GET "projects/{project}/datasets/{dataset}" Metadata "path; who may see it is not asked for, and not told" => As(Method::DatasetsGet, &["accessPolicyVersion", "datasetView"]);
    "datasets.list" GET "projects/{project}/datasets" Metadata "path; the list is cut down to the scope" => As(Method::DatasetsList, &["maxResults", "pageToken", "all", "filter"]);
    "datasets.delete" DELETE "projects/{project}/datasets/{dataset}" Ddl "path" => Refused(DDL);
    "datasets.insert" POST "projects/{project}/datasets" Ddl "body" => Refused(DDL);
    "datasets.patch" PATCH "projects/{project}/datasets/{dataset}" Ddl "path" => Refused(DDL);
    "datasets.undelete" POST "projects/{project}/datasets/{dataset}:undelete" Ddl "path" => Refused(DDL);
    "datasets.update" PUT "projects/{project}/datasets/{dataset}" Ddl "path" => Refused(DDL);
    "tables.get" GET "projects/{project}/datasets/{dataset}/tables/{table}" Metadata "path; what it names elsewhere is not told" => As(Method::TablesGet, &["selectedFields", "view"]);
    "tables.list" GET "projects/{project}/datasets/{dataset}/tables" Metadata "path" => As(Method::TablesList, PAGED);
    "tables.delete" DELETE "projects/{project}/datasets/{dataset}/tables/{table}" Ddl "path; ddl access" => As(Method::TablesDelete, &[]);
    "tables.getIamPolicy" POST "projects/{project}/datasets/{dataset}/tables/{table}:getIamPolicy" Admin "path" => Refused(ACCESS);
    "tables.insert" POST "projects/{project}/datasets/{dataset}/tables" Ddl "path and body; ddl access, fields by a list" => As(Method::TablesInsert, &[]);
    "tables.patch" PATCH "projects/{project}/datasets/{dataset}/tables/{table}" Ddl "path and body; ddl access, fields by a list" => As(Method::TablesPatch, &[]);
    "tables.setIamPolicy" POST "projects/{project}/datasets/{dataset}/tables/{table}:setIamPolicy" Admin "path" => Refused(ACCESS);
    "tables.testIamPermissions" POST "projects/{project}/datasets/{dataset}/tables/{table}:testIamPermissions" Admin "path" => Refused(ACCESS);
    "tables.update" PUT "projects/{project}/datasets/{dataset}/tables/{table}" Ddl "path and body; ddl access, fields by a list" => As(Method::TablesUpdate, &[]);
    "tabledata.list" GET "projects/{project}/datasets/{dataset}/tables/{table}/data" Read "path" => As(Method::TabledataList, ROWS);
    "tabledata.insertAll" POST "projects/{project}/datasets/{dataset}/tables/{table}/insertAll" Write "path; write access" => As(Method::InsertAll, &[]);
    "models.get" GET "projects/{project}/datasets/{dataset}/models/{model}" Metadata "path" => As(Method::ModelsGet, &[]);
    "models.list" GET "projects/{project}/datasets/{dataset}/models" Metadata "path" => As(Method::ModelsList, PAGED);
    "models.delete" DELETE "projects/{project}/datasets/{dataset}/models/{model}" Ddl "path" => Refused(DDL);
    "models.patch" PATCH "projects/{project}/datasets/{dataset}/models/{model}" Ddl "path" => Refused(DDL);
    "routines.get" GET "projects/{project}/datasets/{dataset}/routines/{routine}" Metadata "path" => As(Method::RoutinesGet, &["readMask"]);
    "routines.list" GET "projects/{project}/datasets/{dataset}/routines" Metadata "path" => As(Method::RoutinesList, &["maxResults", "pageToken", "filter", "readMask"]);
    "routines.delete" DELETE "projects/{project}/datasets/{dataset}/routines/{routine}" Ddl "path" => Refused(DDL);
    "routines.getIamPolicy" POST "projects/{project}/datasets/{dataset}/routines/{routine}:getIamPolicy" Admin "path" => Refused(ACCESS);
    "routines.insert" POST "projects/{project}/datasets/{dataset}/routines" Ddl "body" => Refused(DDL);
    "routines.setIamPolicy" POST "projects/{project}/datasets/{dataset}/routines/{routine}:setIamPolicy" Admin "path" => Refused(ACCESS);
    "routines.testIamPermissions" POST "projects/{project}/datasets/{dataset}/routines/{routine}:testIamPermissions" Admin "path" => Refused(ACCESS);
    "routines.update" PUT "projects/{project}/datasets/{dataset}/routines/{routine}" Ddl "path" => Refused(DDL);
    "rowAccessPolicies.batchDelete" POST "projects/{project}/datasets/{dataset}/tables/{table}/rowAccessPolicies:batchDelete" Admin "path" => Refused(ACCESS);
    "rowAccessPolicies.delete" DELETE "projects/{project}/datasets/{dataset}/tables/{table}/rowAccessPolicies/{policy}" Admin "path" => Refused(ACCESS);
    "rowAccessPolicies.get" GET "projects/{project}/datasets/{dataset}/tables/{table}/rowAccessPolicies/{policy}" Admin "path" => Refused(ACCESS);
    "rowAccessPolicies.getIamPolicy" POST "projects/{project}/datasets/{dataset}/tables/{table}/rowAccessPolicies/{policy}:getIamPolicy" Admin "path" => Refused(ACCESS);
    "rowAccessPolicies.insert" POST "projects/{project}/datasets/{dataset}/tables/{table}/rowAccessPolicies" Admin "path" => Refused(ACCESS);
    "rowAccessPolicies.list" GET "projects/{project}/datasets/{dataset}/tables/{table}/rowAccessPolicies" Admin "path" => Refused(ACCESS);
    "rowAccessPolicies.testIamPermissions" POST "projects/{project}/datasets/{dataset}/tables/{table}/rowAccessPolicies/{policy}:testIamPermissions" Admin "path" => Refused(ACCESS);
    "rowAccessPolicies.update" PUT "projects/{project}/datasets/{dataset}/tables/{table}/rowAccessPolicies/{policy}" Admin "path" => Refused(ACCESS);
    "jobs.cancel" POST "projects/{project}/jobs/{job}/cancel" Write "path: a job of the window's own" => As(Method::JobsCancel, &["location", "projection"]);
    "jobs.delete" DELETE "projects/{project}/jobs/{job}/delete" Write "path: a job of the window's own" => As(Method::JobsDelete, &["location"]);
    "jobs.get" GET "projects/{project}/jobs/{job}" Read "path: a job of the window's own" => As(Method::JobsGet, &["location", "projection"]);
    "jobs.getQueryResults" GET "projects/{project}/queries/{job}" Read "path: a job of the window's own" => As(Method::GetQueryResults, RESULTS);
    "jobs.insert" POST "projects/{project}/jobs" Read "body: configuration (a table that is filled needs write access, and ddl access where its columns may change); and what BigQuery's dry run says" => As(Method::JobsInsert, &[]);
    "jobs.list" GET "projects/{project}/jobs" Metadata "nowhere: the list is cut down to the window's own jobs" => As(Method::JobsList, JOBS);
    "jobs.query" POST "projects/{project}/queries" Read "body; and what BigQuery's dry run says" => As(Method::JobsQuery, &[]);
}

/// Where the API describes itself: as it is, in a window.
pub const DESCRIPTIONS: [&str; 2] = ["/$discovery/rest", "/discovery/v1/apis/bigquery/v2/rest"];

/// The other ways in, at any host of BigQuery's.
pub const DOORS: &[Door] = &[
    door("/upload/", "uploads", Access::Write, OTHER_UPLOADS),
    door(
        "/resumable/upload/",
        "uploads as they once were",
        Access::Write,
        UPLOAD,
    ),
    door(
        "/batch",
        "several requests in one",
        Access::Write,
        "each request of a batch is to be judged by itself: send it alone",
    ),
    door(
        "/mcp",
        "BigQuery's tools for agents, `bigquery.googleapis.com/mcp`",
        Access::Write,
        "its tools run statements past what is judged here: use the REST API",
    ),
    door("/google.", "gRPC", Access::Write, GRPC),
];

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use super::*;
    use crate::dns::protected::NEIGHBOURS;

    fn table() -> String {
        let mut table = "# What becomes of each method of BigQuery's API\n\n\
            Made from `enforcer/src/bigquery/methods.rs`. Paths are below `/bigquery/v2/`, at every host of BigQuery's, \
            regional and private ones and the legacy `www.googleapis.com` included.\n\n\
            | method | request | does | names what it is about in | |\n|---|---|---|---|---|\n"
            .to_owned();
        for row in METHODS {
            let (access, comes) = (row.access.as_str(), row.judged.in_words());
            let _ = writeln!(
                table,
                "| `{}` | {} `{}` | {access} | {} | {comes} |",
                row.id, row.verb, row.path, row.names
            );
        }
        table += "\n## What a query says that makes another thing of it\n\n\
            Of `configuration.query` of `jobs.insert`, and of the body of `jobs.query`. Each is refused, whatever else the query says.\n\n\
            | field | says | does | |\n|---|---|---|---|\n";
        for switch in SWITCHES {
            let Switch {
                field, says, does, ..
            } = switch;
            let (code, why) = (switch.code, switch.why());
            let _ = writeln!(
                table,
                "| `{field}` | {says} | {does} | refused with `{code}`: {why} |"
            );
        }
        table += "\n## Other ways in\n\n| path | is | does | |\n|---|---|---|---|\n";
        for path in DESCRIPTIONS {
            let _ = writeln!(
                table,
                "| GET `{path}` | the API's own description | metadata | served in a window: it names no resource |"
            );
        }
        for door in DOORS {
            let access = door.access.as_str();
            let _ = writeln!(
                table,
                "| `{}…` | {} | {access} | refused: {} |",
                door.path, door.is, door.why
            );
        }
        table += "\n## The storage API\n\n\
            By gRPC, at `bigquerystorage.…`. What is no gRPC there is refused: it is spoken by gRPC.\n\n\
            | method | does | names what it is about in | |\n|---|---|---|---|\n";
        for call in CALLS {
            let (access, comes) = (call.access.as_str(), call.judged.in_words());
            let _ = writeln!(
                table,
                "| `{}` | {access} | {} | {comes} |",
                call.path, call.names
            );
        }
        table += "\n## Other hosts\n\n| host | |\n|---|---|\n";
        for name in NEIGHBOURS {
            let _ = writeln!(table, "| `{name}.…` | refused: {NEIGHBOUR} |");
        }
        table
    }

    #[test]
    fn the_document_says_what_the_table_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("METHODS.md");
        if std::env::var_os("WRITE_TABLES").is_some() {
            std::fs::write(&path, table()).expect("writes");
            return;
        }
        let there = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            there,
            table(),
            "run this test with WRITE_TABLES=1 to write it anew"
        );
    }

    #[test]
    fn no_request_is_two_methods() {
        for (at, row) in METHODS.iter().enumerate() {
            let mut others = METHODS[at + 1..].iter();
            assert!(
                others.all(|other| (other.verb, other.path) != (row.verb, row.path)),
                "{}",
                row.id
            );
        }
    }
}
