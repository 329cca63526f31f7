//! What the product makes of a text by itself, in the order in which the proxy asks: fields, names, default dataset, tables.

use std::collections::BTreeSet;

use enforcer::bigquery::job::QueryJob;
use enforcer::bigquery::relations::{self, Relations};
use enforcer::bigquery::text;
use enforcer_proto::bucket::BucketRef;
use enforcer_proto::query::Destination;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{Access, DatasetRef, Scope, TableRef};
use serde_json::Value;

use super::battery::{PROJECT, Window};

/// What a text is to the product before BigQuery is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// It names nothing outside, as far as the product can tell: the dry run decides.
    LetOn,
    /// It names something outside.
    Outside(String),
    /// It is refused for another reason, or cannot be read.
    Refused(String),
}

/// What a text that is let on does, as the product reads it: the table that it writes, the bucket that it exports to, and the tables that a dry
/// run must list before it is believed; none where one of them is no table's name, and no dry run is believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Deeds {
    pub(super) target: Option<String>,
    pub(super) bucket: Option<String>,
    pub(super) reads: Option<BTreeSet<String>>,
}

/// Reads the body of `jobs.insert`, in a window.
pub(super) fn read(body: &Value, window: Window) -> Reading {
    deeds(body, window).0
}

/// The same, with what the text does.
pub(super) fn deeds(body: &Value, window: Window) -> (Reading, Deeds) {
    let read = relations(body, window);
    let deeds = read.as_ref().map_or_else(
        |_| Deeds::default(),
        |read| Deeds {
            target: read.target.as_ref().map(ToString::to_string),
            bucket: read.export.as_ref().map(ToString::to_string),
            reads: read
                .named
                .iter()
                .map(|table| table.as_ref().ok().map(ToString::to_string))
                .collect(),
        },
    );
    (reading(read), deeds)
}

fn reading(read: Result<relations::Reading, Refusal>) -> Reading {
    match read.map(|read| read.relations) {
        Ok(Relations::None | Relations::Within) => Reading::LetOn,
        Ok(Relations::Outside(what)) => Reading::Outside(what),
        Ok(Relations::Unknown(why)) => Reading::Refused(why.refusal().what),
        Err(refusal) if refusal.code == Code::ScopeOutside => Reading::Outside(refusal.what),
        Err(refusal) => Reading::Refused(refusal.what),
    }
}

/// What it reads in a text, or why it refuses it.
pub(super) fn relations(body: &Value, window: Window) -> Result<relations::Reading, Refusal> {
    let scope: Scope = window.scope().parse().expect("a scope");
    let outside = |what: &str| Refusal::new(Code::ScopeOutside, what);
    let job = QueryJob::from_insert(body.as_object().expect("an object").clone())?;
    let named = text::read(job.sql())?;
    let default = job.default_dataset();
    let project_of_names = default
        .as_ref()
        .and_then(|default| default.project.as_deref())
        .unwrap_or(PROJECT);
    if let Some(default) = &default {
        let dataset = DatasetRef::new(project_of_names, &default.dataset);
        if !dataset.is_ok_and(|dataset| scope.covers(&dataset)) {
            return Err(outside(&default.dataset));
        }
    }
    if let Some(Destination { table, .. }) = job.destination()
        && !scope.covers(table.dataset())
    {
        return Err(outside(&table.to_string()));
    }
    named.within(&scope, project_of_names, outside)?;
    let reading =
        relations::Reading::of(job.sql(), named.tokens, &scope, PROJECT, default.as_ref());
    if matches!(reading.relations, Relations::Outside(_)) {
        return Ok(reading);
    }
    let cannot_write = |table: &&TableRef| !scope.allows(table.dataset(), Access::Write);
    if let Some(table) = reading.target.as_ref().filter(cannot_write) {
        let what = format!("it writes {table}");
        return Err(Refusal::new(Code::ScopeReadOnly, what));
    }
    let cannot_export = |bucket: &BucketRef| !scope.allows_bucket(bucket, Access::Write);
    if reading.export.as_ref().is_some_and(cannot_export) {
        return Err(Refusal::new(Code::ScopeBucket, "it exports"));
    }
    Ok(reading)
}
