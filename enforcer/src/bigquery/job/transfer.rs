//! Jobs that are no query: a table is filled from others, from what the client sends, or from buckets; or it is exported to buckets.

use std::collections::BTreeSet;

use enforcer_proto::admission::TABLES_PER_QUERY_MAX;
use enforcer_proto::bucket::BucketRef;
use enforcer_proto::query::Layout;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::TableRef;
use serde_json::{Value, json};

use super::fields::{flag, layout, object, only, plain_schema, reference, truncated, wrong};
use super::{Limits, Object, mark, name};

/// Fields of a configuration besides the one that says what is done.
const CONFIGURATION: &[&str] = &["labels", "jobTimeoutMs", "jobType", "dryRun"];
/// Fields of a copy.
const COPY: &[&str] = &[
    "sourceTable",
    "sourceTables",
    "destinationTable",
    "writeDisposition",
    "createDisposition",
    "operationType",
];
/// Fields of an extract: what is exported, and how it is written. A model is none of them.
const EXTRACT: &[&str] = &[
    "sourceTable",
    "destinationUri",
    "destinationUris",
    "destinationFormat",
    "compression",
    "fieldDelimiter",
    "printHeader",
    "useAvroLogicalTypes",
];
/// The formats of files that are loaded, and of those that are exported.
const LOAD_FORMATS: [&str; 5] = ["CSV", "NEWLINE_DELIMITED_JSON", "AVRO", "PARQUET", "ORC"];
const EXPORT_FORMATS: [&str; 4] = ["CSV", "NEWLINE_DELIMITED_JSON", "AVRO", "PARQUET"];
/// The most addresses that one job may name; all of them are looked at.
const URIS_PER_JOB_MAX: usize = 500;
/// Fields of a load that say how what is sent is to be read, and how the table is laid out.
const LOAD: &[&str] = &[
    "sourceUris",
    "referenceFileSchemaUri",
    "destinationTable",
    "writeDisposition",
    "createDisposition",
    "schema",
    "schemaUpdateOptions",
    "autodetect",
    "sourceFormat",
    "skipLeadingRows",
    "fieldDelimiter",
    "quote",
    "allowQuotedNewlines",
    "allowJaggedRows",
    "ignoreUnknownValues",
    "nullMarker",
    "nullMarkers",
    "projectionFields",
    "columnNameCharacterMap",
    "maxBadRecords",
    "encoding",
    "preserveAsciiControlCharacters",
    "jsonExtension",
    "parquetOptions",
    "decimalTargetTypes",
    "useAvroLogicalTypes",
    "timePartitioning",
    "rangePartitioning",
    "clustering",
    "dateFormat",
    "datetimeFormat",
    "timeFormat",
    "timestampFormat",
    "timeZone",
];

/// What such a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Copy,
    Load,
    Extract,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Load => "load",
            Self::Extract => "extract",
        }
    }
}

/// A copy, a load or an extract as the client asked for it.
#[derive(Debug, Clone, PartialEq)]
pub struct TransferJob {
    body: Object,
    moves: Moves,
    layout: Layout,
}

/// What is moved, and where to.
#[derive(Debug, Clone, PartialEq)]
pub enum Moves {
    /// Tables into another.
    Copy {
        /// Those that are copied.
        reads: Vec<TableRef>,
        /// The one that is filled.
        into: TableRef,
    },
    /// What the client sends into a table.
    Sent {
        /// The one that is filled.
        into: TableRef,
    },
    /// Objects of buckets into a table.
    Import {
        /// The buckets.
        from: Vec<BucketRef>,
        /// The one that is filled.
        into: TableRef,
    },
    /// A table to buckets.
    Export {
        /// The one that is exported.
        table: TableRef,
        /// The buckets.
        to: Vec<BucketRef>,
    },
}

impl TransferJob {
    /// Reads the body of `jobs.insert`, which has no query; the job itself has been looked at.
    ///
    /// # Errors
    /// A [`Refusal`] naming the field that is not let through.
    pub fn from_insert(body: Object) -> Result<Self, Refusal> {
        let configuration = object(&body, "configuration")?;
        let kind = if configuration.contains_key("copy") {
            Kind::Copy
        } else if configuration.contains_key("extract") {
            Kind::Extract
        } else if configuration.contains_key("load") {
            Kind::Load
        } else {
            return Err(wrong("configuration"));
        };
        let name = kind.as_str();
        let allowed = [CONFIGURATION, &[name]].concat();
        only(configuration, &allowed, "configuration")?;
        if flag(configuration, "dryRun")? == Some(true) {
            return Err(Refusal::new(
                Code::RequestMalformed,
                "Only a query has a dry run",
            ));
        }
        let asked = object(configuration, name)?;
        let moves = match kind {
            Kind::Copy => Moves::Copy {
                reads: sources(asked)?,
                into: named(asked, "destinationTable")?,
            },
            Kind::Load => loaded(asked)?,
            Kind::Extract => exported(asked)?,
        };
        let layout = match &moves {
            // The copy has the columns of what is copied.
            Moves::Copy { .. } => layout(asked, Layout::Replaced)?,
            Moves::Sent { into } | Moves::Import { into, .. } => layout(asked, truncated(into))?,
            // It fills none.
            Moves::Export { .. } => Layout::Kept,
        };
        Ok(Self {
            body,
            moves,
            layout,
        })
    }

    /// What is moved, and where to.
    #[must_use]
    pub const fn moves(&self) -> &Moves {
        &self.moves
    }

    /// What becomes of the columns of the table that it fills.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    pub(super) const fn body(&self) -> &Object {
        &self.body
    }

    /// The job as it is sent on.
    pub(super) fn forward_body(&self, limits: &Limits) -> Value {
        let mut body = self.body.clone();
        name(&mut body, limits);
        if let Some(configuration) = body.get_mut("configuration").and_then(Value::as_object_mut) {
            mark(configuration, limits);
        }
        Value::Object(body)
    }
}

/// The tables that a copy reads, under either name that the API has for them.
fn sources(copy: &Object) -> Result<Vec<TableRef>, Refusal> {
    only(copy, COPY, "configuration.copy")?;
    // A snapshot or a clone is a table of another kind.
    if copy
        .get("operationType")
        .is_some_and(|kind| *kind != json!("COPY"))
    {
        return Err(Refusal::new(
            Code::FieldUnknown,
            "Only operationType=COPY is let through",
        ));
    }
    let one = copy.get("sourceTable").into_iter();
    let many = match copy.get("sourceTables") {
        Some(many) => many
            .as_array()
            .ok_or_else(|| wrong("sourceTables"))?
            .as_slice(),
        None => &[],
    };
    if many.len() > TABLES_PER_QUERY_MAX {
        return Err(Refusal::new(
            Code::RequestMalformed,
            format!("More than {TABLES_PER_QUERY_MAX} tables are copied at once"),
        ));
    }
    let all = one
        .chain(many)
        .map(|table| reference(table, "sourceTables"));
    let all: Vec<TableRef> = all.collect::<Result<_, _>>()?;
    if all.is_empty() {
        return Err(wrong("sourceTables"));
    }
    Ok(all)
}

/// A load reads no table: only what is sent with it, or lies in buckets.
fn loaded(load: &Object) -> Result<Moves, Refusal> {
    only(load, LOAD, "configuration.load")?;
    plain_schema(load)?;
    one_of(load, "sourceFormat", &LOAD_FORMATS)?;
    let into = named(load, "destinationTable")?;
    let from = buckets(load, "referenceFileSchemaUri", "sourceUris")?;
    Ok(if load.contains_key("sourceUris") {
        Moves::Import { from, into }
    } else if from.is_empty() {
        Moves::Sent { into }
    } else {
        return Err(Refusal::new(
            Code::FieldUnknown,
            "`referenceFileSchemaUri` is let through only beside `sourceUris`",
        ));
    })
}

fn exported(extract: &Object) -> Result<Moves, Refusal> {
    only(extract, EXTRACT, "configuration.extract")?;
    let to = buckets(extract, "destinationUri", "destinationUris")?;
    if to.is_empty() {
        return Err(wrong("destinationUris"));
    }
    let table = named(extract, "sourceTable")?;
    // How long it was then is not told.
    if table.table().contains('@') {
        return Err(Refusal::new(
            Code::NotVouched,
            "A table as it was at another time is not exported",
        ));
    }
    one_of(extract, "destinationFormat", &EXPORT_FORMATS)?;
    Ok(Moves::Export { table, to })
}

/// Whether a field, where it is there, has one of these values. Others may name further files in what they read.
fn one_of(asked: &Object, name: &str, values: &[&str]) -> Result<(), Refusal> {
    match asked
        .get(name)
        .map(|value| value.as_str().unwrap_or_default())
    {
        None => Ok(()),
        Some(value) if values.contains(&value) => Ok(()),
        Some(_) => Err(Refusal::new(
            Code::FieldUnknown,
            format!("`{name}` is let through as {}", values.join(", ")),
        )),
    }
}

fn named(asked: &Object, name: &str) -> Result<TableRef, Refusal> {
    reference(asked.get(name).ok_or_else(|| wrong(name))?, name)
}

/// The buckets that a field with one address and one with many name, each once. What is no address in Cloud Storage is no bucket's.
fn buckets(asked: &Object, one: &str, many: &str) -> Result<Vec<BucketRef>, Refusal> {
    let all = match asked.get(many) {
        Some(all) => all.as_array().ok_or_else(|| wrong(many))?.as_slice(),
        None => &[],
    };
    if all.len() > URIS_PER_JOB_MAX {
        return Err(Refusal::new(
            Code::RequestMalformed,
            format!("`{many}` has more than {URIS_PER_JOB_MAX} addresses"),
        ));
    }
    let one = asked.get(one).map(|uri| (uri, one)).into_iter();
    let uris = one.chain(all.iter().map(|uri| (uri, many)));
    let bucket = |(uri, name): (&Value, &str)| {
        let uri = uri.as_str().ok_or_else(|| wrong(name))?;
        BucketRef::of_uri(uri)
            .map_err(|error| Refusal::new(Code::ScopeBucket, format!("Access Denied: {error}")))
    };
    let found: BTreeSet<BucketRef> = uris.map(bucket).collect::<Result<_, _>>()?;
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(configuration: Value) -> Result<TransferJob, Code> {
        let Value::Object(body) = json!({"configuration": configuration}) else {
            panic!("an object")
        };
        TransferJob::from_insert(body).map_err(|refusal| refusal.code)
    }

    fn table(dataset: &str) -> Value {
        json!({"projectId": "p", "datasetId": dataset, "tableId": "t"})
    }

    #[test]
    fn a_copy_reads_what_either_field_names() {
        let job = read(json!({"copy": {
            "sourceTable": table("a"), "sourceTables": [table("b")], "destinationTable": table("c"),
        }}))
        .expect("reads");
        let Moves::Copy { reads, into } = job.moves() else {
            panic!("{job:?}")
        };
        let reads: Vec<String> = reads.iter().map(ToString::to_string).collect();
        assert_eq!(reads, ["p.a.t", "p.b.t"]);
        assert_eq!(into.to_string(), "p.c.t");
        for bad in [
            json!({"copy": {"destinationTable": table("c")}}),
            json!({"copy": {"sourceTable": table("a")}}),
            json!({"copy": {"sourceTable": table("a"), "destinationTable": table("c"), "operationType": "CLONE"}}),
            json!({"copy": {"sourceTable": table("a"), "destinationTable": table("c")}, "load": {}}),
            json!({"copy": {"sourceTable": {"datasetId": "a", "tableId": "t"}, "destinationTable": table("c")}}),
            json!({"copy": {"sourceTable": table("a"), "destinationTable": table("c")}, "dryRun": true}),
            json!({}),
        ] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_bucket_is_named_that_data_comes_from_or_goes_to() {
        let buckets = |configuration: Value| {
            read(configuration).map(|job| match job.moves() {
                Moves::Import { from: buckets, .. } | Moves::Export { to: buckets, .. } => {
                    buckets.iter().map(ToString::to_string).collect()
                }
                Moves::Copy { .. } | Moves::Sent { .. } => Vec::new(),
            })
        };
        let into = table("c");
        let load = |more: Value| {
            let mut load = json!({"destinationTable": into});
            for (name, value) in more.as_object().expect("fields") {
                load[name] = value.clone();
            }
            buckets(json!({"load": load}))
        };
        let both = ["gs://in-1".to_owned(), "gs://in-2".to_owned()];
        let uris = json!(["gs://in-2/a", "gs://in-1/b*", "gs://in-2/c"]);
        assert_eq!(load(json!({"sourceUris": uris})).as_deref(), Ok(&both[..]));
        let schema =
            json!({"sourceUris": ["gs://in-1/a"], "referenceFileSchemaUri": "gs://in-2/s"});
        assert_eq!(load(schema).as_deref(), Ok(&both[..]));
        assert_eq!(load(json!({"sourceFormat": "CSV"})).as_deref(), Ok(&[][..]));
        for (more, code) in [
            (json!({"sourceUris": ["/bigstore/b/o"]}), Code::ScopeBucket),
            (json!({"sourceUris": ["gs://b*/o"]}), Code::ScopeBucket),
            (json!({"sourceUris": "gs://in-1/a"}), Code::RequestMalformed),
            (
                json!({"sourceUris": vec!["gs://in-1/a"; 501]}),
                Code::RequestMalformed,
            ),
            (
                json!({"referenceFileSchemaUri": "gs://in-1/s"}),
                Code::FieldUnknown,
            ),
            (json!({"connectionProperties": []}), Code::FieldUnknown),
            (json!({"createSession": true}), Code::FieldUnknown),
            (
                json!({"sourceFormat": "DATASTORE_BACKUP"}),
                Code::FieldUnknown,
            ),
        ] {
            assert_eq!(load(more.clone()), Err(code), "{more}");
        }
        let extract = |more: Value| buckets(json!({"extract": more}));
        let whole = json!({"sourceTable": table("a"), "destinationUri": "gs://in-1/x", "destinationUris": ["gs://in-2/y"]});
        assert_eq!(extract(whole).as_deref(), Ok(&both[..]));
        for bad in [
            json!({"sourceTable": table("a")}),
            json!({"sourceTable": table("a"), "destinationUris": []}),
            json!({"destinationUris": ["gs://in-1/x"]}),
            json!({"sourceTable": {"projectId": "p", "datasetId": "a", "tableId": "t@-1000"}, "destinationUris": ["gs://in-1/x"]}),
            json!({"sourceTable": table("a"), "destinationUris": ["gs://in-1/x"], "destinationFormat": "ML_TF_SAVED_MODEL"}),
            json!({"sourceModel": {}, "destinationUris": ["gs://in-1/x"]}),
        ] {
            assert!(extract(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_forwarded_transfer_is_bounded_and_labelled() {
        let job =
            read(json!({"copy": {"sourceTable": table("a"), "destinationTable": table("c")}}));
        let limits = Limits {
            bytes_max: Some(0),
            timeout_ms: 5000,
            job: Some("j".to_owned()),
            labels: vec![("grant", "g-1".to_owned())],
        };
        let sent = job.expect("reads").forward_body(&limits);
        assert_eq!(sent["jobReference"]["jobId"], "j");
        assert_eq!(sent["configuration"]["jobTimeoutMs"], "5000");
        assert_eq!(sent["configuration"]["labels"]["enforcer_grant"], "g-1");
    }
}
