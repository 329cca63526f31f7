//! Which API method a request is: method and path against a table, parameters against an allow-list. Everything else is refused.

use enforcer_proto::query::{JobRef, Method};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, TableRef};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The longest path and query, bytes.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// The longest project or job id, bytes (a job id may have 1,024).
const ID_BYTES_MAX: usize = 1024;
const BASE: &str = "/bigquery/v2/";
/// What stays as it is in a path segment that we write; everything else is percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b':')
    .remove(b'$');

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
    /// The tables of a dataset.
    Tables(DatasetRef),
    /// A table.
    Table(TableRef),
    /// The rows of a table.
    Rows(TableRef),
    /// A new job (`jobs.insert`), or a query at once (`jobs.query`).
    NewJob {
        /// The project that is billed.
        project: String,
    },
    /// A job: its state, its results or its end.
    Job(JobRef),
}

/// A request that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The API method.
    pub method: Method,
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
    if method == "GET"
        && (path == "/$discovery/rest" || path == "/discovery/v1/apis/bigquery/v2/rest")
    {
        return finish(
            Method::Discovery,
            Target::Discovery,
            path.to_owned(),
            query,
            &["version"],
        );
    }
    let rest = path
        .strip_prefix(BASE)
        .ok_or_else(|| unknown(method, path))?;
    let segments = rest
        .split('/')
        .map(segment)
        .collect::<Result<Vec<String>, Refusal>>()?;
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (api, target, allowed) =
        lookup(method, &parts, query)?.ok_or_else(|| unknown(method, path))?;
    let encoded: Vec<String> = parts
        .iter()
        .map(|part| utf8_percent_encode(part, SEGMENT).to_string())
        .collect();
    finish(
        api,
        target,
        format!("{BASE}{}", encoded.join("/")),
        query,
        allowed,
    )
}

type Found = Option<(Method, Target, &'static [&'static str])>;

const PAGED: &[&str] = &["maxResults", "pageToken"];

/// The table: one arm for each method that is let through.
fn lookup(method: &str, parts: &[&str], query: Option<&str>) -> Result<Found, Refusal> {
    Ok(match (method, parts) {
        ("GET", ["projects"]) => Some((Method::ProjectsList, Target::Projects, PAGED)),
        ("GET", ["projects", p, "datasets"]) => Some((
            Method::DatasetsList,
            Target::Datasets { project: id(p)? },
            &["maxResults", "pageToken", "all", "filter"],
        )),
        ("GET", ["projects", p, "datasets", d]) => Some((
            Method::DatasetsGet,
            Target::Dataset(dataset(p, d)?),
            &["accessPolicyVersion", "datasetView"],
        )),
        ("GET", ["projects", p, "datasets", d, "tables"]) => {
            Some((Method::TablesList, Target::Tables(dataset(p, d)?), PAGED))
        }
        ("GET", ["projects", p, "datasets", d, "tables", t]) => Some((
            Method::TablesGet,
            Target::Table(table(p, d, t)?),
            &["selectedFields", "view"],
        )),
        ("GET", ["projects", p, "datasets", d, "tables", t, "data"]) => Some((
            Method::TabledataList,
            Target::Rows(table(p, d, t)?),
            &[
                "maxResults",
                "pageToken",
                "startIndex",
                "selectedFields",
                "formatOptions.useInt64Timestamp",
                "formatOptions.timestampOutputFormat",
            ],
        )),
        ("POST", ["projects", p, "jobs"]) => {
            Some((Method::JobsInsert, Target::NewJob { project: id(p)? }, &[]))
        }
        ("POST", ["projects", p, "queries"]) => {
            Some((Method::JobsQuery, Target::NewJob { project: id(p)? }, &[]))
        }
        ("GET", ["projects", p, "jobs", j]) => Some((
            Method::JobsGet,
            job(p, j, query)?,
            &["location", "projection"],
        )),
        ("GET", ["projects", p, "queries", j]) => Some((
            Method::GetQueryResults,
            job(p, j, query)?,
            &[
                "location",
                "maxResults",
                "pageToken",
                "startIndex",
                "timeoutMs",
                "formatOptions.useInt64Timestamp",
                "formatOptions.timestampOutputFormat",
            ],
        )),
        ("POST", ["projects", p, "jobs", j, "cancel"]) => {
            // The Python client sends `projection` here too.
            Some((
                Method::JobsCancel,
                job(p, j, query)?,
                &["location", "projection"],
            ))
        }
        _ => None,
    })
}

fn finish(
    method: Method,
    target: Target,
    path: String,
    query: Option<&str>,
    allowed: &[&str],
) -> Result<Route, Refusal> {
    let (mut parameters, mut dropped) = (Vec::<(String, String)>::new(), Vec::new());
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if CREDENTIALS.contains(&name.as_ref()) {
            dropped.push(name.into_owned());
            continue;
        }
        if name == PARTS && is_read(method) {
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
        if parameters.iter().any(|(other, _)| *other == name) {
            return Err(Refusal::new(
                Code::RequestMalformed,
                format!("The parameter `{name}` stands twice"),
            ));
        }
        parameters.push((name.into_owned(), value.into_owned()));
    }
    Ok(Route {
        method,
        target,
        path,
        parameters,
        dropped,
    })
}

/// Whether the answer is read for what it says of a job.
const fn is_read(method: Method) -> bool {
    match method {
        Method::JobsInsert | Method::JobsQuery | Method::JobsGet | Method::JobsCancel => true,
        Method::Discovery
        | Method::ProjectsList
        | Method::DatasetsList
        | Method::DatasetsGet
        | Method::TablesList
        | Method::TablesGet
        | Method::TabledataList
        | Method::GetQueryResults => false,
    }
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
        .find(|(name, _)| name == "location");
    let location = location.map(|(_, value)| id(&value)).transpose()?;
    Ok(Target::Job(JobRef {
        project: id(project)?,
        job: id(job)?,
        location,
    }))
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
            ("POST", "/upload/bigquery/v2/projects/p/jobs"),
            ("POST", "/resumable/upload/bigquery/v2/projects/p/jobs"),
            ("POST", "/batch/bigquery/v2"),
            ("POST", "/mcp"),
            ("GET", "/bigquery/v2/projects/p/jobs"),
            ("DELETE", "/bigquery/v2/projects/p/datasets/d"),
            ("PATCH", "/bigquery/v2/projects/p/datasets/d/tables/t"),
            (
                "POST",
                "/bigquery/v2/projects/p/datasets/d/tables/t/insertAll",
            ),
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
