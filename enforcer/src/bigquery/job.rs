//! Query jobs: their bodies read against an allow-list, and written anew with what the window allows.
//!
//! A field that is not on the list is refused by name: what a new field could reach for is not guessed. Field names and meanings are
//! those of `JobConfigurationQuery` and `QueryRequest` in the discovery document.

use enforcer_proto::refusal::{Code, Refusal};
use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// The longest SQL text, bytes; BigQuery's own limit is 1 MiB, and the whole body's bound is below that.
pub const SQL_BYTES_MAX: usize = 512 * 1024;

/// Fields of a job resource.
const JOB: &[&str] = &["configuration", "jobReference", "kind"];
/// Fields of its configuration.
const CONFIGURATION: &[&str] = &["query", "dryRun", "labels", "jobTimeoutMs", "jobType"];
/// Fields of a query configuration that only say what to read and how to answer.
const QUERY: &[&str] = &[
    "query",
    "useLegacySql",
    "defaultDataset",
    "maximumBytesBilled",
    "parameterMode",
    "priority",
    "queryParameters",
    "useQueryCache",
    "continuous",
    "allowLargeResults",
    "flattenResults",
    "maximumBillingTier",
];
/// Fields of `jobs.query`.
const QUERY_REQUEST: &[&str] = &[
    "query",
    "useLegacySql",
    "defaultDataset",
    "maximumBytesBilled",
    "parameterMode",
    "queryParameters",
    "useQueryCache",
    "dryRun",
    "labels",
    "jobTimeoutMs",
    "kind",
    "location",
    "maxResults",
    "requestId",
    "timeoutMs",
    "formatOptions",
    "preserveNulls",
    "jobCreationMode",
    "continuous",
];
/// What both dry run and forwarded job take over as it is.
const TAKEN_OVER: &[&str] = &[
    "query",
    "defaultDataset",
    "parameterMode",
    "queryParameters",
];
/// The longest that `jobs.query` may wait for its job, milliseconds: BigQuery's own default. Only its answer names the job, and until
/// then nobody could cancel it.
const WAIT_MS_MAX: u64 = 10_000;
/// Labels of ours; a client's of the same prefix are dropped.
const LABEL_PREFIX: &str = "enforcer_";

/// By which method a query was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `jobs.insert`
    Insert,
    /// `jobs.query`
    Query,
}

/// A query job as the client asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryJob {
    kind: Kind,
    body: Object,
    sql: String,
    is_dry_run: bool,
}

/// Where names without a dataset are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultDataset {
    /// Its project; absent: the one that is billed.
    pub project: Option<String>,
    /// Its id.
    pub dataset: String,
}

/// What the window adds to a job.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most bytes it may bill; nothing is said of it for what costs nothing.
    pub bytes_max: Option<u64>,
    /// The longest it may run, milliseconds.
    pub timeout_ms: u64,
    /// The name under which it goes out; `jobs.query` takes none.
    pub job: Option<String>,
    /// Who it is for: label names without the prefix, and their values.
    pub labels: Vec<(&'static str, String)>,
}

impl QueryJob {
    /// Reads the body of `jobs.insert`.
    ///
    /// # Errors
    /// A [`Refusal`] naming the field that is not let through.
    pub fn from_insert(body: Object) -> Result<Self, Refusal> {
        only(&body, JOB, "a job")?;
        let configuration = object(&body, "configuration")?;
        only(configuration, CONFIGURATION, "configuration")?;
        let query = object(configuration, "query")?;
        only(query, QUERY, "configuration.query")?;
        let sql = read_query(query)?;
        let is_dry_run = flag(configuration, "dryRun")?.unwrap_or(false);
        if let Some(reference) = body.get("jobReference") {
            let reference = reference.as_object().ok_or_else(|| wrong("jobReference"))?;
            only(
                reference,
                &["projectId", "jobId", "location"],
                "jobReference",
            )?;
        }
        Ok(Self {
            kind: Kind::Insert,
            sql,
            is_dry_run,
            body,
        })
    }

    /// Reads the body of `jobs.query`.
    ///
    /// # Errors
    /// A [`Refusal`] naming the field that is not let through.
    pub fn from_query(body: Object) -> Result<Self, Refusal> {
        only(&body, QUERY_REQUEST, "a query request")?;
        let sql = read_query(&body)?;
        let is_dry_run = flag(&body, "dryRun")?.unwrap_or(false);
        Ok(Self {
            kind: Kind::Query,
            sql,
            is_dry_run,
            body,
        })
    }

    /// The SQL text.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Whether the client itself asked only for a dry run.
    #[must_use]
    pub const fn is_dry_run(&self) -> bool {
        self.is_dry_run
    }

    /// The job id that the client chose, where it did.
    #[must_use]
    pub fn chosen_id(&self) -> Option<&str> {
        self.body.get("jobReference")?.get("jobId")?.as_str()
    }

    /// The project that the job reference names, where it does.
    #[must_use]
    pub fn named_project(&self) -> Option<&str> {
        self.body.get("jobReference")?.get("projectId")?.as_str()
    }

    /// Where names without a dataset are looked for.
    #[must_use]
    pub fn default_dataset(&self) -> Option<DefaultDataset> {
        let default = self.query().get("defaultDataset")?;
        let text = |name: &str| Some(default.get(name)?.as_str()?.to_owned());
        Some(DefaultDataset {
            project: text("projectId"),
            dataset: text("datasetId")?,
        })
    }

    /// The most bytes that the client lets it bill, where it says so.
    #[must_use]
    pub fn bytes_asked(&self) -> Option<u64> {
        number(self.query(), "maximumBytesBilled")
    }

    /// The dry run that asks BigQuery what this query would read: always a `jobs.insert`, never cached, never named.
    #[must_use]
    pub fn dry_run_body(&self) -> Value {
        let query = self.query();
        let mut asked = Object::new();
        for name in TAKEN_OVER {
            if let Some(value) = query.get(*name) {
                asked.insert((*name).to_owned(), value.clone());
            }
        }
        asked.insert("useLegacySql".to_owned(), json!(false));
        asked.insert("useQueryCache".to_owned(), json!(false));
        let mut job = json!({"configuration": {"dryRun": true, "query": asked}});
        if let Some(location) = self.location() {
            job["jobReference"] = json!({"location": location});
        }
        job
    }

    /// The job as it is sent on: re-serialised, bounded and labelled.
    #[must_use]
    pub fn forward_body(&self, limits: &Limits) -> Value {
        let mut body = self.body.clone();
        if let Some(job) = &limits.job {
            let reference = body
                .entry("jobReference")
                .or_insert_with(|| Value::Object(Object::new()));
            reference["jobId"] = json!(job);
        }
        let (settings, query) = match self.kind {
            Kind::Query => {
                body.insert("jobCreationMode".to_owned(), json!("JOB_CREATION_REQUIRED"));
                let most = WAIT_MS_MAX.min(limits.timeout_ms);
                let wait_ms = number(&body, "timeoutMs").map_or(most, |asked| asked.min(most));
                body.insert("timeoutMs".to_owned(), json!(wait_ms));
                if let Some(most) = limits.bytes_max {
                    bound(&mut body, "maximumBytesBilled", most);
                }
                (&mut body, None)
            }
            Kind::Insert => match body.get_mut("configuration").and_then(Value::as_object_mut) {
                Some(configuration) => (configuration, Some("query")),
                // `from_insert` has read it there.
                None => return Value::Null,
            },
        };
        let query = query
            .and_then(|name| settings.get_mut(name))
            .and_then(Value::as_object_mut);
        if let Some((query, most)) = query.zip(limits.bytes_max) {
            bound(query, "maximumBytesBilled", most);
        }
        bound(settings, "jobTimeoutMs", limits.timeout_ms);
        let mut labels: Object = settings
            .get("labels")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        labels.retain(|name, _| !name.starts_with(LABEL_PREFIX));
        for (name, value) in &limits.labels {
            labels.insert(format!("{LABEL_PREFIX}{name}"), json!(value));
        }
        settings.insert("labels".to_owned(), Value::Object(labels));
        Value::Object(body)
    }

    fn query(&self) -> &Object {
        let inner = self
            .body
            .get("configuration")
            .and_then(|configuration| configuration.get("query"))
            .and_then(Value::as_object);
        inner.unwrap_or(&self.body)
    }

    /// The location that the client chose, where it did.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        let reference = self
            .body
            .get("jobReference")
            .and_then(|reference| reference.get("location"));
        reference
            .or_else(|| self.body.get("location"))
            .and_then(Value::as_str)
    }
}

fn read_query(query: &Object) -> Result<String, Refusal> {
    let sql = query
        .get("query")
        .and_then(Value::as_str)
        .ok_or_else(|| wrong("query"))?;
    if sql.len() > SQL_BYTES_MAX {
        return Err(Refusal::new(
            Code::BodyTooLarge,
            format!("The SQL is longer than {SQL_BYTES_MAX} bytes"),
        ));
    }
    // Absent means legacy in this API, so only an explicit false is GoogleSQL.
    if flag(query, "useLegacySql")? != Some(false) {
        return Err(Refusal::new(
            Code::LegacySql,
            "Legacy SQL is not let through, and BigQuery reads a query as such unless told otherwise",
        ));
    }
    if flag(query, "continuous")? == Some(true) {
        return Err(Refusal::new(
            Code::FieldUnknown,
            "A continuous query has no end, and is not let through",
        ));
    }
    if let Some(dataset) = query.get("defaultDataset") {
        let dataset = dataset.as_object().ok_or_else(|| wrong("defaultDataset"))?;
        only(dataset, &["datasetId", "projectId"], "defaultDataset")?;
    }
    Ok(sql.to_owned())
}

/// A field is set to the smaller of what the client asked and what is left; int64 travels as text.
fn bound(object: &mut Object, name: &str, most: u64) {
    let value = number(object, name)
        .filter(|asked| *asked > 0)
        .map_or(most, |asked| asked.min(most));
    object.insert(name.to_owned(), json!(value.to_string()));
}

fn number(object: &Object, name: &str) -> Option<u64> {
    let value = object.get(name)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn only(object: &Object, allowed: &[&str], what: &str) -> Result<(), Refusal> {
    match object.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => Err(Refusal::new(
            Code::FieldUnknown,
            format!("The field `{key}` of {what} is not let through"),
        )),
        None => Ok(()),
    }
}

fn object<'a>(object: &'a Object, name: &str) -> Result<&'a Object, Refusal> {
    object.get(name).and_then(Value::as_object).ok_or_else(|| {
        Refusal::new(
            Code::RequestMalformed,
            format!("The body has no object `{name}`: only query jobs are let through"),
        )
    })
}

fn flag(object: &Object, name: &str) -> Result<Option<bool>, Refusal> {
    object
        .get(name)
        .map(|value| value.as_bool().ok_or_else(|| wrong(name)))
        .transpose()
}

fn wrong(name: &str) -> Refusal {
    Refusal::new(
        Code::RequestMalformed,
        format!("The field `{name}` is missing or not of its type"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(body: Value) -> Result<QueryJob, Code> {
        let Value::Object(body) = body else {
            panic!("an object")
        };
        QueryJob::from_insert(body).map_err(|refusal| refusal.code)
    }

    fn good() -> Value {
        json!({"configuration": {"query": {"query": "SELECT 1", "useLegacySql": false}}, "jobReference": {"jobId": "j", "projectId": "p"}})
    }

    fn limits() -> Limits {
        Limits {
            bytes_max: Some(1000),
            timeout_ms: 5000,
            job: None,
            labels: vec![("grant", "g-1".into())],
        }
    }

    #[test]
    fn legacy_sql_is_refused_also_when_it_is_only_meant_by_silence() {
        let mut body = good();
        body["configuration"]["query"]
            .as_object_mut()
            .expect("an object")
            .remove("useLegacySql");
        assert_eq!(insert(body).map(|_| ()), Err(Code::LegacySql));
        let mut body = good();
        body["configuration"]["query"]["useLegacySql"] = json!(true);
        assert_eq!(insert(body).map(|_| ()), Err(Code::LegacySql));
    }

    #[test]
    fn fields_that_reach_elsewhere_are_refused() {
        for field in [
            "destinationTable",
            "tableDefinitions",
            "connectionProperties",
            "createSession",
            "userDefinedFunctionResources",
            "scriptOptions",
            "new",
        ] {
            let mut body = good();
            body["configuration"]["query"][field] = json!({});
            assert_eq!(insert(body).map(|_| ()), Err(Code::FieldUnknown), "{field}");
        }
        for kind in ["load", "copy", "extract"] {
            let body = json!({"configuration": {kind: {}}});
            assert!(insert(body).is_err(), "{kind}");
        }
    }

    #[test]
    fn the_dry_run_asks_the_same_query_uncached_and_unnamed() {
        let asked = insert(good()).expect("reads").dry_run_body();
        assert_eq!(asked["configuration"]["dryRun"], true);
        assert_eq!(asked["configuration"]["query"]["query"], "SELECT 1");
        assert_eq!(asked["configuration"]["query"]["useQueryCache"], false);
        assert!(asked.get("jobReference").is_none());
    }

    #[test]
    fn a_forwarded_job_is_bounded_and_carries_our_labels_and_not_forged_ones() {
        let mut body = good();
        body["configuration"]["labels"] = json!({"team": "x", "enforcer_grant": "g-999"});
        body["configuration"]["query"]["maximumBytesBilled"] = json!("9999999");
        let sent = insert(body).expect("reads").forward_body(&limits());
        assert_eq!(sent["configuration"]["query"]["maximumBytesBilled"], "1000");
        assert_eq!(sent["configuration"]["jobTimeoutMs"], "5000");
        assert_eq!(
            sent["configuration"]["labels"],
            json!({"team": "x", "enforcer_grant": "g-1"})
        );
        let Value::Object(body) = json!({"query": "SELECT 1", "useLegacySql": false, "maximumBytesBilled": "7", "jobCreationMode": "JOB_CREATION_OPTIONAL"})
        else {
            panic!("an object")
        };
        let sent = QueryJob::from_query(body)
            .expect("reads")
            .forward_body(&limits());
        assert_eq!(
            (&sent["maximumBytesBilled"], &sent["jobTimeoutMs"]),
            (&json!("7"), &json!("5000"))
        );
        assert_eq!(sent["jobCreationMode"], "JOB_CREATION_REQUIRED");
    }

    #[test]
    fn a_query_waits_for_its_job_neither_long_nor_past_the_window() {
        let waits = |asked: Value, timeout_ms: u64| {
            let mut body = json!({"query": "SELECT 1", "useLegacySql": false});
            if !asked.is_null() {
                body["timeoutMs"] = asked;
            }
            let Value::Object(body) = body else {
                panic!("an object")
            };
            let limits = Limits {
                timeout_ms,
                ..limits()
            };
            let job = QueryJob::from_query(body).expect("reads");
            job.forward_body(&limits)["timeoutMs"].clone()
        };
        assert_eq!(waits(json!(200_000), 60_000), 10_000);
        assert_eq!(waits(json!("200000"), 60_000), 10_000);
        assert_eq!(waits(Value::Null, 60_000), 10_000);
        assert_eq!(waits(json!(0), 60_000), 0);
        assert_eq!(waits(json!(7000), 3000), 3000);
    }
}
