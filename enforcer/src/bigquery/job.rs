//! Jobs: their bodies read against allow-lists, and written anew with what the window allows.
//!
//! A field that is not on a list is refused by name: what a new field could reach for is not guessed. Field names and meanings are those of
//! the discovery document.

mod fields;
mod query;
mod transfer;

use enforcer_proto::refusal::Refusal;
use serde_json::{Map, Value, json};

pub use fields::{rows, table, without_nothings};
pub use query::{DefaultDataset, QueryJob, SQL_BYTES_MAX};
pub use transfer::{Moves, TransferJob};

use fields::{bound, object, only, texts};

type Object = Map<String, Value>;

/// Fields of a job resource.
const JOB: &[&str] = &["configuration", "jobReference", "kind"];
/// Labels of ours; a client's of the same prefix are dropped.
pub(super) const LABEL_PREFIX: &str = "enforcer_";

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

/// A job as the client asked for it.
#[derive(Debug, Clone, PartialEq)]
pub enum Job {
    /// A query.
    Query(QueryJob),
    /// A job that moves tables' data without a query.
    Transfer(TransferJob),
}

impl Job {
    /// Reads the body of `jobs.insert`.
    ///
    /// # Errors
    /// A [`Refusal`] naming the field that is not let through.
    pub fn from_insert(body: Object) -> Result<Self, Refusal> {
        only(&body, JOB, "a job")?;
        if let Some(reference) = body.get("jobReference") {
            let reference = reference
                .as_object()
                .ok_or_else(|| fields::wrong("jobReference"))?;
            only(
                reference,
                &["projectId", "jobId", "location"],
                "jobReference",
            )?;
            texts(reference, "jobReference")?;
        }
        let configuration = object(&body, "configuration")?;
        if configuration.contains_key("query") {
            return QueryJob::from_insert(body).map(Self::Query);
        }
        TransferJob::from_insert(body).map(Self::Transfer)
    }

    /// The SQL text, where it has one.
    #[must_use]
    pub fn sql(&self) -> Option<&str> {
        match self {
            Self::Query(job) => Some(job.sql()),
            Self::Transfer(_) => None,
        }
    }

    const fn body(&self) -> &Object {
        match self {
            Self::Query(job) => job.body(),
            Self::Transfer(job) => job.body(),
        }
    }

    /// The job id that the client chose, where it did.
    #[must_use]
    pub fn chosen_id(&self) -> Option<&str> {
        self.body().get("jobReference")?.get("jobId")?.as_str()
    }

    /// The project that the job reference names, where it does.
    #[must_use]
    pub fn named_project(&self) -> Option<&str> {
        self.body().get("jobReference")?.get("projectId")?.as_str()
    }

    /// The location that the client chose, where it did.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        location(self.body())
    }

    /// Whether the client itself asked only for a dry run.
    #[must_use]
    pub const fn is_dry_run(&self) -> bool {
        match self {
            Self::Query(job) => job.is_dry_run(),
            Self::Transfer(_) => false,
        }
    }

    /// The job as it is sent on: re-serialised, bounded and labelled.
    #[must_use]
    pub fn forward_body(&self, limits: &Limits) -> Value {
        match self {
            Self::Query(job) => job.forward_body(limits),
            Self::Transfer(job) => job.forward_body(limits),
        }
    }
}

fn location(body: &Object) -> Option<&str> {
    let reference = body
        .get("jobReference")
        .and_then(|reference| reference.get("location"));
    reference
        .or_else(|| body.get("location"))
        .and_then(Value::as_str)
}

/// Gives a job the name under which it goes out.
fn name(body: &mut Object, limits: &Limits) {
    if let Some(job) = &limits.job {
        let reference = body
            .entry("jobReference")
            .or_insert_with(|| Value::Object(Object::new()));
        reference["jobId"] = json!(job);
    }
}

/// Bounds the time of a job, and says who it is for.
fn mark(settings: &mut Object, limits: &Limits) {
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
}
