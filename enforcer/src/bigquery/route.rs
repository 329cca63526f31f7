//! Which API method a request is: method and path against a table, parameters against an allow-list. Everything else is refused.

use super::methods::{ACCESS, DESCRIPTIONS, DOORS, Judged, METHODS, Row};
use enforcer_proto::query::{JobRef, Method};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, TableRef};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The longest path and query, bytes.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// The longest project or job id, bytes (a job id may have 1,024).
const ID_BYTES_MAX: usize = 1024;
const BASE: &str = "/bigquery/v2/";
/// Where loads are sent with their data.
const UPLOAD: &str = "/upload/bigquery/v2/";
/// What stays as it is in a path segment that we write; everything else is percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b':')
    .remove(b'$');

/// How a job and its data come: in one body, or in parts.
const MULTIPART: &str = "multipart";
const RESUMABLE: &str = "resumable";

/// Parameters that carry a credential or name another payer. They never pass.
const CREDENTIALS: [&str; 7] = [
    "key",
    "access_token",
    "oauth_token",
    "quotaUser",
    "userIp",
    "bearer_token",
    "$.xgafv",
];
/// Parameters that every method has.
const COMMON: [&str; 2] = ["alt", "prettyPrint"];
/// Chooses parts of an answer. Where we must read the answer ourselves it is dropped: the client gets more than it asked for, and cannot
/// hide a job, its cost or its place.
const PARTS: &str = "fields";
/// What some clients say always, and what is so as well where nobody says it: it is dropped.
const SAID_ANYWAY: [(Method, &str, &str); 3] = [
    (Method::JobsList, "allUsers", "false"),
    (Method::TablesPatch, "autodetect_schema", "false"),
    (Method::TablesUpdate, "autodetect_schema", "false"),
];
/// Chooses what is said of a dataset: who may see it, too, where it is not said.
const VIEW: &str = "datasetView";
const VIEW_TOLD: &str = "METADATA";

/// What a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The API's description.
    Discovery,
    /// The projects one could see.
    Projects,
    /// The datasets of a project.
    Datasets {
        /// The project.
        project: String,
    },
    /// A dataset.
    Dataset(DatasetRef),
    /// The tables of a dataset, or a new one among them.
    Tables(DatasetRef),
    /// A table.
    Table(TableRef),
    /// The rows of a table, those there are or new ones.
    Rows(TableRef),
    /// The models or routines of a dataset, or one of them.
    Within(DatasetRef),
    /// The jobs of a project.
    Jobs {
        /// The project.
        project: String,
    },
    /// A new job (`jobs.insert`), or a query at once (`jobs.query`).
    NewJob {
        /// The project that is billed.
        project: String,
    },
    /// A job: its state, its results or its end.
    Job(JobRef),
    /// A part of the data of a load that was begun under this name.
    Upload(String),
}

/// A request that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The API method.
    pub method: Method,
    /// The HTTP method.
    pub verb: &'static str,
    /// What it names.
    pub target: Target,
    /// The path as it is sent on: written anew from what was understood.
    pub path: String,
    /// The parameters that pass, decoded.
    pub parameters: Vec<(String, String)>,
    /// Names of credentials that were dropped.
    pub dropped: Vec<String>,
}

impl Route {
    /// Whether the data of a load comes in parts, after its job.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        let mut parameters = self.parameters.iter();
        parameters.any(|(name, value)| name == "uploadType" && value == RESUMABLE)
    }

    /// The same request, of exactly this job: its location is named, so that BigQuery looks for it nowhere else.
    #[must_use]
    pub fn of_job(mut self, job: &JobRef) -> Self {
        self.parameters.retain(|(name, _)| name != "location");
        let location = job
            .location
            .iter()
            .map(|location| ("location".to_owned(), location.clone()));
        self.parameters.extend(location);
        self.target = Target::Job(job.clone());
        self
    }

    /// Path and query as they are sent on.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        if self.parameters.is_empty() {
            return self.path.clone();
        }
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.parameters);
        format!("{}?{}", self.path, query.finish())
    }
}

/// Path and query of a job's own description (`jobs.get`).
#[must_use]
pub fn description_of(job: &JobRef) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
    let path = format!(
        "{BASE}projects/{}/jobs/{}",
        encoded(&job.project),
        encoded(&job.job)
    );
    match &job.location {
        Some(location) => format!("{path}?location={}", encoded(location)),
        None => path,
    }
}

/// Where BigQuery describes a dataset.
#[must_use]
pub fn resource_of_dataset(dataset: &DatasetRef) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
    format!(
        "{BASE}projects/{}/datasets/{}",
        encoded(dataset.project()),
        encoded(dataset.dataset())
    )
}

/// Where BigQuery describes a table: all of it, where a part is named.
#[must_use]
pub fn resource_of(table: &TableRef) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, SEGMENT).to_string();
    let name = table.table();
    let whole = name.split(['$', '@']).next().unwrap_or(name);
    format!(
        "{BASE}projects/{}/datasets/{}/tables/{}",
        encoded(table.dataset().project()),
        encoded(table.dataset().dataset()),
        encoded(whole)
    )
}

/// Understands a request line.
///
/// # Errors
/// [`Code::MethodUnknown`], [`Code::RequestMalformed`] or [`Code::FieldUnknown`], naming what is not let through.
pub fn route(method: &str, path: &str, query: Option<&str>) -> Result<Route, Refusal> {
    if path.len() + query.map_or(0, str::len) > URI_BYTES_MAX {
        return Err(Refusal::new(
            Code::RequestMalformed,
            format!("The address is longer than {URI_BYTES_MAX} bytes"),
        ));
    }
    if method == "GET" && DESCRIPTIONS.contains(&path) {
        return finish(
            (Method::Discovery, "GET"),
            Target::Discovery,
            path.to_owned(),
            query,
            &["version"],
        );
    }
    if let Some(rest) = path.strip_prefix(UPLOAD) {
        return upload(method, rest, query).ok_or_else(|| unknown(method, path))?;
    }
    if let Some(door) = DOORS.iter().find(|door| path.starts_with(door.path)) {
        return Err(refused(path, door.why));
    }
    let rest = path
        .strip_prefix(BASE)
        .ok_or_else(|| unknown(method, path))?;
    let segments = rest
        .split('/')
        .map(segment)
        .collect::<Result<Vec<String>, Refusal>>()?;
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (row, named) = lookup(method, &parts).ok_or_else(|| unknown(method, path))?;
    let (api, allowed) = match row.judged {
        Judged::As(api, allowed) => (api, allowed),
        Judged::Refused(why) => return Err(refused(row.id, why)),
    };
    let target = target(api, &named, query)?;
    let encoded: Vec<String> = parts
        .iter()
        .map(|part| utf8_percent_encode(part, SEGMENT).to_string())
        .collect();
    finish(
        (api, row.verb),
        target,
        format!("{BASE}{}", encoded.join("/")),
        query,
        allowed,
    )
}

/// A load with its data, or a part of that; none for anything else that is sent there.
fn upload(verb: &str, rest: &str, query: Option<&str>) -> Option<Result<Route, Refusal>> {
    let parts: Vec<&str> = rest.split('/').collect();
    let ["projects", project, "jobs"] = parts.as_slice() else {
        return None;
    };
    let api = match verb {
        "POST" => (Method::JobsUpload, "POST"),
        "PUT" => (Method::UploadPart, "PUT"),
        _ => return None,
    };
    let read = || {
        let project = id(&segment(project)?)?;
        let encoded = utf8_percent_encode(&project, SEGMENT).to_string();
        let path = format!("{UPLOAD}projects/{encoded}/jobs");
        let target = Target::NewJob { project };
        let route = finish(api, target, path, query, &["uploadType", "upload_id"])?;
        let named = |wanted: &str| {
            let mut named = route.parameters.iter().filter(|(name, _)| name == wanted);
            named.next().map(|(_, value)| value.as_str())
        };
        match (api.0, named("uploadType"), named("upload_id")) {
            (Method::JobsUpload, Some(MULTIPART | RESUMABLE), None) => Ok(route),
            (Method::UploadPart, Some(RESUMABLE), Some(upload)) => Ok(Route {
                target: Target::Upload(upload.to_owned()),
                ..route
            }),
            _ => Err(Refusal::new(
                Code::FieldUnknown,
                "Only uploadType=multipart and uploadType=resumable are let through",
            )),
        }
    };
    Some(read())
}

/// The method of the table whose path this is, and what it names.
fn lookup(verb: &str, parts: &[&str]) -> Option<(&'static Row, Named)> {
    let mut rows = METHODS.iter().filter(|row| row.verb == verb);
    rows.find_map(|row| Some((row, named(row.path, parts)?)))
}

/// What stands where a path of the table has braces.
#[derive(Debug, Default)]
struct Named {
    project: String,
    dataset: String,
    table: String,
    job: String,
}

/// What a path names, if it is this one of the table's.
fn named(template: &str, parts: &[&str]) -> Option<Named> {
    let mut named = Named::default();
    let mut given = parts.iter();
    for wanted in template.split('/') {
        let given = *given.next()?;
        let Some((name, action)) = wanted
            .strip_prefix('{')
            .and_then(|wanted| wanted.split_once('}'))
        else {
            if wanted != given {
                return None;
            }
            continue;
        };
        let value = given.strip_suffix(action)?;
        // Only an old project's name holds a colon; elsewhere what follows one is an action.
        if name != "project" && value.contains(':') {
            return None;
        }
        let value = value.to_owned();
        match name {
            "project" => named.project = value,
            "dataset" => named.dataset = value,
            "table" => named.table = value,
            "job" => named.job = value,
            // A model, a routine, a policy: what it lies in is what is judged.
            _ => {}
        }
    }
    given.next().is_none().then_some(named)
}

/// What a method that is let through is about.
fn target(method: Method, named: &Named, query: Option<&str>) -> Result<Target, Refusal> {
    let project = || id(&named.project);
    let dataset = || dataset(&named.project, &named.dataset);
    let table = || table(&named.project, &named.dataset, &named.table);
    Ok(match method {
        Method::Discovery => Target::Discovery,
        Method::ProjectsList => Target::Projects,
        Method::DatasetsList => Target::Datasets {
            project: project()?,
        },
        Method::DatasetsGet => Target::Dataset(dataset()?),
        Method::TablesList | Method::TablesInsert => Target::Tables(dataset()?),
        Method::TablesGet | Method::TablesPatch | Method::TablesUpdate | Method::TablesDelete => {
            Target::Table(table()?)
        }
        Method::TabledataList | Method::InsertAll => Target::Rows(table()?),
        Method::ModelsList | Method::ModelsGet | Method::RoutinesList | Method::RoutinesGet => {
            Target::Within(dataset()?)
        }
        Method::JobsList => Target::Jobs {
            project: project()?,
        },
        Method::JobsInsert | Method::JobsQuery | Method::JobsUpload | Method::UploadPart => {
            Target::NewJob {
                project: project()?,
            }
        }
        Method::JobsGet | Method::GetQueryResults | Method::JobsCancel | Method::JobsDelete => {
            job(&named.project, &named.job, query)?
        }
        // They have no path of the REST API's.
        Method::StorageCreateReadSession
        | Method::StorageReadRows
        | Method::StorageSplitReadStream => return Err(unknown("gRPC", method.as_str())),
    })
}

fn finish(
    (method, verb): (Method, &'static str),
    target: Target,
    path: String,
    query: Option<&str>,
    allowed: &[&str],
) -> Result<Route, Refusal> {
    if let Some(query) = query.filter(|query| !has_one_reading(query)) {
        return Err(Refusal::new(
            Code::RequestMalformed,
            format!("The parameters `{query}` can be read in more than one way"),
        ));
    }
    let (mut parameters, mut dropped) = (Vec::<(String, String)>::new(), Vec::new());
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if CREDENTIALS.contains(&name.as_ref()) {
            dropped.push(name.into_owned());
            continue;
        }
        let is_description = matches!(method, Method::JobsGet | Method::JobsCancel);
        let is_said_anyway = |(of, known, plain): &(Method, &str, &str)| {
            *of == method && *known == name && plain.eq_ignore_ascii_case(&value)
        };
        if (name == PARTS && is_read(method))
            || (name == "projection" && is_description)
            || SAID_ANYWAY.iter().any(is_said_anyway)
        {
            continue;
        }
        if name != PARTS && !COMMON.contains(&name.as_ref()) && !allowed.contains(&name.as_ref()) {
            return Err(Refusal::new(
                Code::FieldUnknown,
                format!("The parameter `{name}` of {method} is not let through"),
            ));
        }
        if name == "alt" && value != "json" {
            return Err(Refusal::new(
                Code::FieldUnknown,
                format!("Only alt=json is let through, not alt={value}"),
            ));
        }
        if name == VIEW && value != VIEW_TOLD {
            return Err(Refusal::new(
                Code::FieldUnknown,
                format!("Only {VIEW}={VIEW_TOLD} is let through, not {VIEW}={value}: {ACCESS}"),
            ));
        }
        if parameters.iter().any(|(other, _)| *other == name) {
            return Err(Refusal::new(
                Code::RequestMalformed,
                format!("The parameter `{name}` stands twice"),
            ));
        }
        parameters.push((name.into_owned(), value.into_owned()));
    }
    if method == Method::DatasetsGet && !parameters.iter().any(|(name, _)| name == VIEW) {
        parameters.push((VIEW.to_owned(), VIEW_TOLD.to_owned()));
    }
    Ok(Route {
        method,
        verb,
        target,
        path,
        parameters,
        dropped,
    })
}

/// Whether the answer is read for what it says of a job.
const fn is_read(method: Method) -> bool {
    match method {
        Method::JobsInsert
        | Method::JobsUpload
        | Method::UploadPart
        | Method::JobsQuery
        | Method::JobsGet
        | Method::JobsList
        | Method::JobsCancel => true,
        Method::Discovery
        | Method::ProjectsList
        | Method::DatasetsList
        | Method::DatasetsGet
        | Method::TablesList
        | Method::TablesGet
        | Method::TablesInsert
        | Method::TablesPatch
        | Method::TablesUpdate
        | Method::TablesDelete
        | Method::InsertAll
        | Method::TabledataList
        | Method::ModelsList
        | Method::ModelsGet
        | Method::RoutinesList
        | Method::RoutinesGet
        | Method::JobsDelete
        | Method::StorageCreateReadSession
        | Method::StorageReadRows
        | Method::StorageSplitReadStream
        | Method::GetQueryResults => false,
    }
}

/// Whether every reader takes parameters alike: not where a percent sign begins no escape, where what is escaped is no UTF-8 or no sign that is
/// seen, or where a semicolon may divide them.
fn has_one_reading(query: &str) -> bool {
    let mut rest = query;
    while let Some((_, behind)) = rest.split_once('%') {
        let escaped = behind.as_bytes().get(..2);
        if !escaped.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return false;
        }
        rest = behind;
    }
    let decoded = percent_decode_str(query).decode_utf8();
    !query.contains(';') && decoded.is_ok_and(|text| !text.chars().any(char::is_control))
}

/// One path segment, decoded once. What could be read in two ways is refused: encoded slashes, dot segments, second encodings.
fn segment(text: &str) -> Result<String, Refusal> {
    let malformed = || {
        Refusal::new(
            Code::RequestMalformed,
            format!("The path holds `{text}`, which is not one plain name"),
        )
    };
    let decoded = percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| malformed())?;
    let is_plain = !decoded.is_empty()
        && decoded.len() <= ID_BYTES_MAX
        && !decoded.chars().all(|c| c == '.')
        && !decoded
            .chars()
            .any(|c| c.is_control() || matches!(c, '/' | '\\' | '%' | ';' | '?' | '#'));
    if is_plain {
        Ok(decoded.into_owned())
    } else {
        Err(malformed())
    }
}

fn id(text: &str) -> Result<String, Refusal> {
    let good = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'));
    if good {
        Ok(text.to_owned())
    } else {
        Err(Refusal::new(
            Code::RequestMalformed,
            format!("`{text}` is not a project or job id"),
        ))
    }
}

fn dataset(project: &str, dataset: &str) -> Result<DatasetRef, Refusal> {
    DatasetRef::new(project, dataset)
        .map_err(|error| Refusal::new(Code::RequestMalformed, error.to_string()))
}

fn table(project: &str, dataset_id: &str, table: &str) -> Result<TableRef, Refusal> {
    let table = TableRef::new(dataset(project, dataset_id)?, table);
    table.map_err(|error| Refusal::new(Code::RequestMalformed, error.to_string()))
}

fn job(project: &str, job: &str, query: Option<&str>) -> Result<Target, Refusal> {
    let location = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(name, value)| name == "location" && !value.is_empty());
    let location = location.map(|(_, value)| id(&value)).transpose()?;
    Ok(Target::Job(JobRef {
        project: id(project)?,
        job: id(job)?,
        location,
    }))
}

fn refused(what: &str, why: &str) -> Refusal {
    let what = format!("Access Denied: BigQuery: {what} is not let through: {why}");
    Refusal::new(Code::MethodUnknown, what)
}

fn unknown(method: &str, path: &str) -> Refusal {
    Refusal::new(
        Code::MethodUnknown,
        format!("Access Denied: BigQuery: {method} {path} is not let through"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(method: &str, path: &str, query: Option<&str>) -> Code {
        route(method, path, query).expect_err(path).code
    }

    #[test]
    fn what_clients_send_is_understood() {
        for (method, path, query, api) in [
            (
                "POST",
                "/bigquery/v2/projects/p/jobs",
                Some("alt=json"),
                Method::JobsInsert,
            ),
            (
                "POST",
                "/bigquery/v2/projects/p/queries",
                Some("prettyPrint=false"),
                Method::JobsQuery,
            ),
            (
                "GET",
                "/bigquery/v2/projects/p/jobs/bqjob_r1_2",
                Some("location=US&alt=json"),
                Method::JobsGet,
            ),
            (
                "GET",
                "/bigquery/v2/projects/p/queries/j",
                Some("location=US&maxResults=100&timeoutMs=0&startIndex=0&alt=json"),
                Method::GetQueryResults,
            ),
            (
                "POST",
                "/bigquery/v2/projects/p/jobs/j/cancel",
                None,
                Method::JobsCancel,
            ),
            (
                "GET",
                "/bigquery/v2/projects/p/datasets/d/tables/t/data",
                Some("maxResults=10"),
                Method::TabledataList,
            ),
            (
                "GET",
                "/bigquery/v2/projects/example.com:p/datasets",
                None,
                Method::DatasetsList,
            ),
            (
                "GET",
                "/$discovery/rest",
                Some("version=v2"),
                Method::Discovery,
            ),
        ] {
            assert_eq!(route(method, path, query).expect(path).method, api);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for (method, path) in [
            ("POST", "/upload/bigquery/v2/projects/p/datasets"),
            ("DELETE", "/upload/bigquery/v2/projects/p/jobs"),
            ("POST", "/resumable/upload/bigquery/v2/projects/p/jobs"),
            ("POST", "/batch/bigquery/v2"),
            ("POST", "/mcp"),
            (
                "POST",
                "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows",
            ),
            ("POST", "/google.cloud.bigquery.v2.JobService/InsertJob"),
            ("DELETE", "/bigquery/v2/projects/p/datasets/d"),
            ("DELETE", "/bigquery/v2/projects/p/jobs/j"),
            (
                "GET",
                "/bigquery/v2/projects/p/datasets/d/tables/t:getIamPolicy",
            ),
            (
                "POST",
                "/bigquery/v2/projects/p/datasets/d/tables/t:getIamPolicy",
            ),
            ("POST", "/bigquery/v2/projects/p/datasets/d:undelete"),
            ("PATCH", "/bigquery/v2/projects/p/datasets/d"),
            ("GET", "/bigquery/v2/projects/p/serviceAccount"),
            ("GET", "/"),
            ("get", "/bigquery/v2/projects"),
        ] {
            assert_eq!(
                code(method, path, None),
                Code::MethodUnknown,
                "{method} {path}"
            );
        }
    }

    #[test]
    fn what_is_refused_is_called_by_its_name() {
        let tables = "/bigquery/v2/projects/p/datasets/d/tables";
        for (method, path, name) in [
            (
                "POST",
                format!("{tables}/t:getIamPolicy"),
                "tables.getIamPolicy",
            ),
            (
                "POST",
                format!("{tables}/t:setIamPolicy"),
                "tables.setIamPolicy",
            ),
            (
                "POST",
                format!("{tables}/t/rowAccessPolicies:batchDelete"),
                "rowAccessPolicies.batchDelete",
            ),
            ("POST", "/mcp".to_owned(), "/mcp"),
        ] {
            let refusal = route(method, &path, None).expect_err(&path);
            assert_eq!(refusal.code, Code::MethodUnknown);
            assert!(
                refusal.what.contains(&format!("{name} is not")),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn a_load_is_sent_with_its_data_or_before_it_and_its_parts_name_it() {
        let path = "/upload/bigquery/v2/projects/p/jobs";
        let whole = route("POST", path, Some("uploadType=multipart&alt=json")).expect("routes");
        assert_eq!(
            (whole.method, whole.is_resumable()),
            (Method::JobsUpload, false)
        );
        assert_eq!(
            whole.path_and_query(),
            format!("{path}?uploadType=multipart&alt=json")
        );
        let begun = route("POST", path, Some("uploadType=resumable")).expect("routes");
        assert_eq!(
            (begun.method, begun.is_resumable()),
            (Method::JobsUpload, true)
        );
        let part = route("PUT", path, Some("uploadType=resumable&upload_id=u")).expect("routes");
        assert_eq!(part.target, Target::Upload("u".into()));
        for (verb, query) in [
            ("POST", None),
            ("POST", Some("uploadType=media")),
            ("POST", Some("uploadType=resumable&upload_id=u")),
            ("PUT", Some("uploadType=resumable")),
            ("PUT", Some("uploadType=multipart&upload_id=u")),
        ] {
            assert_eq!(
                code(verb, path, query),
                Code::FieldUnknown,
                "{verb} {query:?}"
            );
        }
    }

    #[test]
    fn who_asks_for_everybodys_jobs_is_told_so() {
        let jobs = "/bigquery/v2/projects/p/jobs";
        let routed = route("GET", jobs, Some("projection=full&maxResults=5")).expect("routes");
        assert_eq!(routed.method, Method::JobsList);
        assert_eq!(code("GET", jobs, Some("allUsers=true")), Code::FieldUnknown);
    }

    #[test]
    fn paths_that_can_be_read_in_two_ways_are_refused() {
        for path in [
            "a%2fb", "..", "%2e%2e", "a;b", "a%5cb", "a%252fb", "", "a%00", "a%ff", "a%0d%0a",
        ] {
            let path = format!("/bigquery/v2/projects/p/datasets/{path}/tables");
            assert!(route("GET", &path, None).is_err(), "{path}");
        }
    }

    #[test]
    fn credentials_are_dropped_and_unknown_or_double_parameters_refused() {
        let path = "/bigquery/v2/projects/p/datasets";
        let routed =
            route("GET", path, Some("key=SECRET&alt=json&access_token=SECRET")).expect("routes");
        assert_eq!(
            routed.path_and_query(),
            "/bigquery/v2/projects/p/datasets?alt=json"
        );
        assert_eq!(routed.dropped, ["key", "access_token"]);
        assert_eq!(code("GET", path, Some("alt=media")), Code::FieldUnknown);
        assert_eq!(
            code("GET", path, Some("uploadType=media")),
            Code::FieldUnknown
        );
        assert_eq!(
            code("GET", path, Some("alt=json&alt=json")),
            Code::RequestMalformed
        );
    }

    #[test]
    fn bigquerys_tools_for_agents_are_refused_by_every_path_and_method() {
        let door = DOORS.iter().find(|door| door.path == "/mcp");
        let door = door.expect("it has a row");
        for method in ["POST", "GET", "DELETE"] {
            for path in [
                "/mcp",
                "/mcp/",
                "/mcp/v1",
                "/mcp/bigquery/v2/projects/p/jobs",
            ] {
                let refusal = route(method, path, None).expect_err(path);
                assert_eq!(refusal.code, Code::MethodUnknown, "{path}");
                assert!(refusal.what.contains(door.why), "{}", refusal.what);
            }
        }
    }

    #[test]
    fn the_choice_of_parts_is_dropped_where_the_answer_is_read() {
        let sent = |method, path: &str| {
            let routed = route(method, path, Some("fields=kind&alt=json")).expect(path);
            routed.path_and_query().contains("fields")
        };
        for (method, path) in [
            ("POST", "/bigquery/v2/projects/p/jobs"),
            ("POST", "/bigquery/v2/projects/p/queries"),
            ("GET", "/bigquery/v2/projects/p/jobs/j"),
            ("POST", "/bigquery/v2/projects/p/jobs/j/cancel"),
        ] {
            assert!(!sent(method, path), "{path}");
        }
        assert!(sent("GET", "/bigquery/v2/projects/p/queries/j"));
    }

    #[test]
    fn what_says_what_is_so_anyway_is_dropped_and_what_says_more_is_refused() {
        let jobs = "/bigquery/v2/projects/p/jobs";
        let table = "/bigquery/v2/projects/p/datasets/d/tables/t";
        for (method, path, name) in [
            ("GET", jobs, "allUsers"),
            ("PATCH", table, "autodetect_schema"),
            ("PUT", table, "autodetect_schema"),
        ] {
            for no in ["false", "False"] {
                let routed = route(method, path, Some(&format!("{name}={no}"))).expect("routes");
                assert_eq!(routed.path_and_query(), path);
            }
            for more in ["true", "", "0"] {
                let refused = route(method, path, Some(&format!("{name}={more}")));
                let code = refused.map_err(|refusal| refusal.code).expect_err(name);
                assert_eq!(code, Code::FieldUnknown, "{name}={more}");
            }
        }
        let elsewhere = route("GET", table, Some("allUsers=false"));
        assert!(elsewhere.is_err(), "only where a client says it always");
    }

    #[test]
    fn a_dataset_is_asked_for_without_who_may_see_it() {
        let path = "/bigquery/v2/projects/p/datasets/d";
        let sent = format!("{path}?datasetView=METADATA");
        for query in [None, Some("datasetView=METADATA")] {
            let routed = route("GET", path, query).expect("routes");
            assert_eq!(routed.path_and_query(), sent);
        }
        for view in ["ACL", "FULL", "DATASET_VIEW_UNSPECIFIED", "metadata", ""] {
            let refused = route("GET", path, Some(&format!("datasetView={view}")));
            let refused = refused.expect_err("is refused");
            assert_eq!(refused.code, Code::FieldUnknown);
            assert!(refused.what.contains(&format!("datasetView={view}")));
        }
    }

    #[test]
    fn a_request_of_a_job_is_sent_on_with_the_jobs_own_location() {
        let job = JobRef {
            project: "p".into(),
            job: "j".into(),
            location: Some("EU".into()),
        };
        for query in [None, Some("location=eu"), Some("location=US")] {
            let routed = route("GET", "/bigquery/v2/projects/p/queries/j", query).expect("routes");
            let sent = routed.of_job(&job).path_and_query();
            assert_eq!(sent, "/bigquery/v2/projects/p/queries/j?location=EU");
        }
    }

    proptest! {
        #[test]
        fn no_request_line_panics_and_what_passes_reads_back_as_itself(method in "GET|POST|DELETE", path in "(/bigquery/v2/projects/)?[a-z0-9/%.;:_$\\\\-]{0,40}", query in "[a-z=&%0-9]{0,20}") {
            if let Ok(routed) = route(&method, &path, Some(&query)) {
                let again = route(&method, &routed.path, None).expect("what is sent on is understood alike");
                prop_assert_eq!(again.path, routed.path);
                prop_assert_eq!(again.method, routed.method);
            }
        }
    }
}
