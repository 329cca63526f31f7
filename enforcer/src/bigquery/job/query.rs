//! Query jobs.

use enforcer_proto::audit::sha256_hex;
use enforcer_proto::query::Destination;
use enforcer_proto::refusal::{Code, Refusal};
use serde_json::{Value, json};

use super::fields::{
    bound, flag, layout, number, object, only, reference, texts, truncated, wrong,
};
use super::{Limits, Object, location, mark, name};
use crate::bigquery::methods::switches;

/// The longest SQL text, bytes; BigQuery's own limit is 1 MiB, and the whole body's bound is below that.
pub const SQL_BYTES_MAX: usize = 512 * 1024;

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
    "destinationTable",
    "writeDisposition",
    "createDisposition",
    "timePartitioning",
    "rangePartitioning",
    "clustering",
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
    "destinationTable",
    "writeDisposition",
    "createDisposition",
    "timePartitioning",
    "rangePartitioning",
    "clustering",
];
/// The longest that `jobs.query` may wait for its job, milliseconds: BigQuery's own default. Only its answer names the job, and until
/// then nobody could cancel it.
const WAIT_MS_MAX: u64 = 10_000;
/// The longest `requestId`, characters (BigQuery's description of `jobs.query`).
const REQUEST_ID_CHARS_MAX: usize = 36;
/// How a text says that it is legacy SQL.
const LEGACY_PREFIX: &str = "#legacySQL";
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
    destination: Option<Destination>,
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

impl QueryJob {
    /// Reads the body of `jobs.insert`; the job itself has been looked at.
    ///
    /// # Errors
    /// A [`Refusal`] naming the field that is not let through.
    pub fn from_insert(body: Object) -> Result<Self, Refusal> {
        let configuration = object(&body, "configuration")?;
        only(configuration, CONFIGURATION, "configuration")?;
        let query = object(configuration, "query")?;
        only(query, QUERY, "configuration.query")?;
        let sql = read_query(query)?;
        let destination = query
            .get("destinationTable")
            .map(|table| destination(query, table))
            .transpose()?;
        let is_dry_run = flag(configuration, "dryRun")?.unwrap_or(false);
        Ok(Self {
            kind: Kind::Insert,
            sql,
            destination,
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
        if body
            .get("location")
            .is_some_and(|location| !location.is_string())
        {
            return Err(wrong("location"));
        }
        let sql = read_query(&body)?;
        let is_dry_run = flag(&body, "dryRun")?.unwrap_or(false);
        Ok(Self {
            kind: Kind::Query,
            sql,
            destination: None,
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

    /// The table that the client wants the result in, where it says so.
    #[must_use]
    pub const fn destination(&self) -> Option<&Destination> {
        self.destination.as_ref()
    }

    pub(super) const fn body(&self) -> &Object {
        &self.body
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
        if let Some(location) = location(&self.body) {
            job["jobReference"] = json!({"location": location});
        }
        job
    }

    /// The job as it is sent on: re-serialised, bounded and labelled.
    pub(super) fn forward_body(&self, limits: &Limits) -> Value {
        let mut body = self.body.clone();
        name(&mut body, limits);
        let (settings, query) = match self.kind {
            Kind::Query => {
                body.insert("jobCreationMode".to_owned(), json!("JOB_CREATION_REQUIRED"));
                own_request_id(&mut body, limits);
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
        // What is answered from the cache does not say what it has read.
        let uncached = json!(false);
        match query
            .and_then(|name| settings.get_mut(name))
            .and_then(Value::as_object_mut)
        {
            Some(query) => {
                query.insert("useQueryCache".to_owned(), uncached);
                if let Some(most) = limits.bytes_max {
                    bound(query, "maximumBytesBilled", most);
                }
            }
            None => {
                settings.insert("useQueryCache".to_owned(), uncached);
            }
        }
        mark(settings, limits);
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
}

/// Makes the id by which BigQuery knows a request again one of this window's: by the client's alone it answers with the job of an earlier window that had
/// the same.
fn own_request_id(body: &mut Object, limits: &Limits) {
    let Some(id) = body.remove("requestId") else {
        return;
    };
    let of_window = |(name, _): &&(&str, String)| matches!(*name, "host" | "grant");
    let window: Vec<_> = limits.labels.iter().filter(of_window).collect();
    let own = sha256_hex(json!([window, id]).to_string().as_bytes());
    let own: String = own.chars().take(REQUEST_ID_CHARS_MAX).collect();
    body.insert("requestId".to_owned(), json!(own));
}

fn destination(query: &Object, table: &Value) -> Result<Destination, Refusal> {
    let table = reference(table, "destinationTable")?;
    let layout = layout(query, truncated(&table))?;
    Ok(Destination { table, layout })
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
    // Absent means legacy in this API, so only an explicit false is GoogleSQL, and a text may begin with a word that means legacy all the same.
    if flag(query, "useLegacySql")? != Some(false) || says_legacy(sql) {
        return Err(Refusal::new(Code::LegacySql, switches::LEGACY));
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
        texts(dataset, "defaultDataset")?;
    }
    Ok(sql.to_owned())
}

/// Whether a text begins with `#legacySQL`, which BigQuery takes for more than a comment.
fn says_legacy(sql: &str) -> bool {
    let start = sql.trim_start().get(..LEGACY_PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(LEGACY_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::super::Job;
    use super::*;

    fn insert(body: Value) -> Result<QueryJob, Code> {
        let Value::Object(body) = body else {
            panic!("an object")
        };
        match Job::from_insert(body).map_err(|refusal| refusal.code)? {
            Job::Query(job) => Ok(job),
            Job::Transfer(_) => panic!("a query"),
        }
    }

    fn good() -> Value {
        json!({"configuration": {"query": {"query": "SELECT 1", "useLegacySql": false}}, "jobReference": {"jobId": "j", "projectId": "p"}})
    }

    #[test]
    fn the_id_by_which_a_request_is_known_again_is_of_its_window() {
        let forwarded = |grant: &str, id: Option<Value>| {
            let mut body = json!({"query": "SELECT 1", "useLegacySql": false});
            if let Some(id) = id {
                body["requestId"] = id;
            }
            let Value::Object(body) = body else {
                panic!("an object")
            };
            let limits = Limits {
                labels: vec![("grant", grant.into()), ("session", "s-1".into())],
                ..limits()
            };
            let job = QueryJob::from_query(body).expect("reads");
            job.forward_body(&limits)["requestId"].clone()
        };
        let first = forwarded("g-1", Some(json!("once")));
        assert_eq!(first.as_str().map(str::len), Some(REQUEST_ID_CHARS_MAX));
        assert_eq!(forwarded("g-1", Some(json!("once"))), first, "tried again");
        for (grant, id) in [
            ("g-2", json!("once")),
            ("g-1", json!("twice")),
            ("g-1", json!(1)),
        ] {
            assert_ne!(forwarded(grant, Some(id)), first);
        }
        assert_eq!(forwarded("g-1", None), Value::Null);
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
        let mut body = good();
        body["configuration"]["query"]["query"] = json!("\n #legacysql\nSELECT 1");
        assert_eq!(insert(body).map(|_| ()), Err(Code::LegacySql));
    }

    #[test]
    fn what_names_something_is_a_text() {
        for (place, name) in [
            ("/jobReference", "projectId"),
            ("/jobReference", "location"),
            ("/configuration/query/defaultDataset", "datasetId"),
            ("/configuration/query/defaultDataset", "projectId"),
        ] {
            let mut body = good();
            body["configuration"]["query"]["defaultDataset"] = json!({"datasetId": "d"});
            body.pointer_mut(place).expect("is there")[name] = json!(123);
            assert_eq!(
                insert(body).map(|_| ()),
                Err(Code::RequestMalformed),
                "{place}/{name}"
            );
        }
        let Value::Object(body) =
            json!({"query": "SELECT 1", "useLegacySql": false, "location": 1})
        else {
            panic!("an object")
        };
        assert!(QueryJob::from_query(body).is_err());
    }

    #[test]
    fn fields_that_reach_elsewhere_are_refused() {
        for field in [
            "tableDefinitions",
            "destinationEncryptionConfiguration",
            "schemaUpdateOptions",
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
        assert_eq!(sent["configuration"]["query"]["useQueryCache"], false);
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
        assert_eq!(sent["useQueryCache"], false);
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
