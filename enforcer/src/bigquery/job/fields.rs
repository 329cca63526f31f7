//! Fields of bodies, read strictly: of their type, on the list, or refused by name.

use enforcer_proto::query::Layout;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, TableRef};
use serde_json::{Value, json};

use super::Object;
use crate::bigquery::methods::switches;

/// Fields of a table that say how it is laid out and called. A view, what lies elsewhere, keys (which name other tables) and policies are none.
const TABLE: &[&str] = &[
    "tableReference",
    "kind",
    "schema",
    "description",
    "friendlyName",
    "labels",
    "expirationTime",
    "timePartitioning",
    "rangePartitioning",
    "clustering",
    "requirePartitionFilter",
    "defaultCollation",
    "defaultRoundingMode",
];
/// Fields of a column in a schema: how it is called and laid out.
const COLUMN: &[&str] = &[
    "name",
    "type",
    "mode",
    "fields",
    "description",
    "maxLength",
    "precision",
    "scale",
    "timestampPrecision",
    "collation",
    "roundingMode",
    "defaultValueExpression",
    "rangeElementType",
];
/// Fields of `tabledata.insertAll`.
const ROWS: &[&str] = &[
    "kind",
    "rows",
    "ignoreUnknownValues",
    "skipInvalidRows",
    "traceId",
];

/// A field is set to the smaller of what the client asked and what is left; int64 travels as text.
pub(super) fn bound(object: &mut Object, name: &str, most: u64) {
    let value = number(object, name)
        .filter(|asked| *asked > 0)
        .map_or(most, |asked| asked.min(most));
    object.insert(name.to_owned(), json!(value.to_string()));
}

pub(super) fn number(object: &Object, name: &str) -> Option<u64> {
    let value = object.get(name)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

pub(super) fn only(object: &Object, allowed: &[&str], what: &str) -> Result<(), Refusal> {
    match object.keys().find(|key| !allowed.contains(&key.as_str())) {
        Some(key) => {
            let why = switches::why(key).map_or_else(String::new, |why| format!(": {why}"));
            Err(Refusal::new(
                Code::FieldUnknown,
                format!("The field `{key}` of {what} is not let through{why}"),
            ))
        }
        None => Ok(()),
    }
}

pub(super) fn object<'a>(object: &'a Object, name: &str) -> Result<&'a Object, Refusal> {
    object.get(name).and_then(Value::as_object).ok_or_else(|| {
        Refusal::new(
            Code::RequestMalformed,
            format!("The body has no object `{name}`"),
        )
    })
}

pub(super) fn flag(object: &Object, name: &str) -> Result<Option<bool>, Refusal> {
    object
        .get(name)
        .map(|value| value.as_bool().ok_or_else(|| wrong(name)))
        .transpose()
}

pub(super) fn wrong(name: &str) -> Refusal {
    Refusal::new(
        Code::RequestMalformed,
        format!("The field `{name}` is missing or not of its type"),
    )
}

/// Refuses a part that is no text: it could be read as one elsewhere, and was not judged here.
pub(super) fn texts(object: &Object, what: &str) -> Result<(), Refusal> {
    match object.iter().find(|(_, value)| !value.is_string()) {
        Some((name, _)) => Err(wrong(&format!("{what}.{name}"))),
        None => Ok(()),
    }
}

/// A table reference with all its parts.
pub(super) fn reference(value: &Value, name: &str) -> Result<TableRef, Refusal> {
    let reference = value.as_object().ok_or_else(|| wrong(name))?;
    only(reference, &["projectId", "datasetId", "tableId"], name)?;
    let text = |part: &str| {
        let text = reference.get(part).and_then(Value::as_str);
        text.ok_or_else(|| wrong(name))
    };
    let dataset = DatasetRef::new(text("projectId")?, text("datasetId")?);
    dataset
        .and_then(|dataset| TableRef::new(dataset, text("tableId").unwrap_or_default()))
        .map_err(|error| Refusal::new(Code::RequestMalformed, error.to_string()))
}

/// What truncating a table does to its columns: a part of one has those of the whole.
pub(super) fn truncated(into: &TableRef) -> Layout {
    if into.table().contains('$') {
        Layout::Kept
    } else {
        Layout::Replaced
    }
}

/// What a job does to the columns of the table that it fills; `truncated` is what becomes of them where it is emptied first.
pub(super) fn layout(job: &Object, truncated: Layout) -> Result<Layout, Refusal> {
    let is_nothing = |options: &Value| options.is_null() || *options == json!([]);
    if !job.get("schemaUpdateOptions").is_none_or(is_nothing) {
        return Ok(Layout::Replaced);
    }
    match job.get("writeDisposition") {
        None | Some(Value::Null) => Ok(Layout::Kept),
        Some(said) => match said.as_str() {
            Some("WRITE_APPEND" | "WRITE_EMPTY" | "WRITE_TRUNCATE_DATA") => Ok(Layout::Kept),
            Some("WRITE_TRUNCATE") => Ok(truncated),
            Some(_) | None => Err(Refusal::new(
                Code::FieldUnknown,
                "`writeDisposition` is let through as WRITE_APPEND, WRITE_EMPTY, WRITE_TRUNCATE_DATA and WRITE_TRUNCATE",
            )),
        },
    }
}

/// How deep a schema may nest (BigQuery's own limit is 15).
const SCHEMA_DEPTH_MAX: usize = 15;

/// Refuses a schema that says more of a column than how it is called and laid out: others say who may read it, and how it is masked.
pub(super) fn plain_schema(object: &Object) -> Result<(), Refusal> {
    match object.get("schema") {
        None => Ok(()),
        Some(schema) => {
            let schema = schema.as_object().ok_or_else(|| wrong("schema"))?;
            only(schema, &["fields"], "a schema")?;
            plain_columns(schema, SCHEMA_DEPTH_MAX)
        }
    }
}

fn plain_columns(holder: &Object, depth: usize) -> Result<(), Refusal> {
    let columns = match holder.get("fields") {
        None => return Ok(()),
        Some(columns) => columns.as_array().ok_or_else(|| wrong("fields"))?,
    };
    let depth = depth.checked_sub(1).ok_or_else(|| wrong("fields"))?;
    for column in columns {
        let column = column.as_object().ok_or_else(|| wrong("fields"))?;
        only(column, COLUMN, "a column")?;
        plain_columns(column, depth)?;
    }
    Ok(())
}

/// The body of a table without what the Cloud SDK says with every change, and means nothing by: no tags and no schema. Sent on, it could take away
/// those that there are.
#[must_use]
pub fn without_nothings(mut body: Object) -> Object {
    body.retain(|name, said| {
        let is_nothing = said.is_null() || *said == json!({});
        !(is_nothing && matches!(name.as_str(), "resourceTags" | "schema"))
    });
    body
}

/// Reads the body of `tables.insert`, `tables.patch` or `tables.update`: what it says of a table, and which one it names, where it does.
///
/// # Errors
/// A [`Refusal`] naming the field that is not let through.
pub fn table(body: &Object) -> Result<Option<TableRef>, Refusal> {
    only(body, TABLE, "a table")?;
    plain_schema(body)?;
    body.get("tableReference")
        .map(|value| reference(value, "tableReference"))
        .transpose()
}

/// Reads the body of `tabledata.insertAll`.
///
/// # Errors
/// A [`Refusal`] naming the field that is not let through.
pub fn rows(body: &Object) -> Result<(), Refusal> {
    let mut body = body.clone();
    // The Cloud SDK always says that there is none.
    if body.get("templateSuffix").is_some_and(Value::is_null) {
        body.remove("templateSuffix");
    }
    only(&body, ROWS, "rows")?;
    let rows = body.get("rows").and_then(Value::as_array);
    for row in rows.ok_or_else(|| wrong("rows"))? {
        let row = row.as_object().ok_or_else(|| wrong("rows"))?;
        only(row, &["insertId", "json"], "a row")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_that_are_attached_are_refused_and_none_are_dropped() {
        for none in [json!({}), Value::Null] {
            let said = body(json!({"description": "x", "resourceTags": none, "schema": none}));
            let kept = without_nothings(said);
            assert_eq!(kept, body(json!({"description": "x"})));
        }
        for tags in [json!({"123/env": null}), json!([]), json!("x")] {
            let said = without_nothings(body(json!({"resourceTags": tags})));
            let refused = table(&said).map_err(|refusal| refusal.code);
            assert_eq!(refused, Err(Code::FieldUnknown), "{tags}");
        }
    }

    #[test]
    fn the_columns_of_a_table_stay_where_a_job_says_so_and_nothing_else_says_otherwise() {
        let said = |job: Value, truncated| layout(&body(job), truncated);
        for (job, wanted) in [
            (json!({}), Ok(Layout::Kept)),
            (json!({"writeDisposition": null}), Ok(Layout::Kept)),
            (
                json!({"writeDisposition": "WRITE_APPEND"}),
                Ok(Layout::Kept),
            ),
            (json!({"writeDisposition": "WRITE_EMPTY"}), Ok(Layout::Kept)),
            (
                json!({"writeDisposition": "WRITE_TRUNCATE_DATA", "schemaUpdateOptions": []}),
                Ok(Layout::Kept),
            ),
            (
                json!({"writeDisposition": "WRITE_TRUNCATE"}),
                Ok(Layout::Replaced),
            ),
            (
                json!({"writeDisposition": "WRITE_APPEND", "schemaUpdateOptions": ["ALLOW_FIELD_ADDITION"]}),
                Ok(Layout::Replaced),
            ),
            (
                json!({"schemaUpdateOptions": "ALLOW_FIELD_ADDITION"}),
                Ok(Layout::Replaced),
            ),
            (
                json!({"writeDisposition": "write_truncate"}),
                Err(Code::FieldUnknown),
            ),
            (json!({"writeDisposition": 1}), Err(Code::FieldUnknown)),
        ] {
            let said = said(job.clone(), Layout::Replaced).map_err(|refusal| refusal.code);
            assert_eq!(said, wanted, "{job}");
        }
        let whole: TableRef = "p.d.t".parse().expect("a table");
        let part: TableRef = "p.d.t$20260101".parse().expect("a part of one");
        let truncating = json!({"writeDisposition": "WRITE_TRUNCATE"});
        for (into, wanted) in [(whole, Layout::Replaced), (part, Layout::Kept)] {
            let said = said(truncating.clone(), truncated(&into)).expect("is read");
            assert_eq!(said, wanted, "{into}");
        }
    }

    fn body(body: Value) -> Object {
        let Value::Object(body) = body else {
            panic!("an object")
        };
        body
    }

    #[test]
    fn a_table_is_laid_out_and_called_and_nothing_else() {
        let named = json!({"projectId": "p", "datasetId": "d", "tableId": "t"});
        let plain = json!({"tableReference": named, "schema": {"fields": [{"name": "a", "type": "INT64"}]}});
        let read = table(&body(plain.clone())).expect("plain");
        assert_eq!(read.expect("named").to_string(), "p.d.t");
        for field in [
            "view",
            "materializedView",
            "externalDataConfiguration",
            "biglakeConfiguration",
            "encryptionConfiguration",
            "resourceTags",
            "cloneDefinition",
            "tableConstraints",
            "new",
        ] {
            let mut other = plain.clone();
            other[field] = json!({});
            let refused = table(&body(other)).expect_err(field);
            assert_eq!(refused.code, Code::FieldUnknown, "{field}");
        }
        for field in ["policyTags", "dataPolicies", "foreignTypeDefinition", "new"] {
            let mut tagged = plain.clone();
            tagged["schema"]["fields"][0]["fields"] = json!([{"name": "b", field: {}}]);
            let refused = table(&body(tagged)).map_err(|refusal| refusal.code);
            assert_eq!(refused, Err(Code::FieldUnknown), "{field}");
        }
        let mut deep = json!({"name": "a"});
        for _ in 0..SCHEMA_DEPTH_MAX {
            deep = json!({"name": "a", "fields": [deep]});
        }
        let mut nested = plain;
        nested["schema"]["fields"] = json!([deep]);
        assert!(table(&body(nested)).is_err());
    }

    #[test]
    fn rows_go_into_the_table_of_the_path_and_no_other() {
        assert!(
            rows(&body(
                json!({"rows": [{"insertId": "1", "json": {"a": 1}}]})
            ))
            .is_ok()
        );
        for bad in [
            json!({"rows": [], "templateSuffix": "x"}),
            json!({"rows": [{"json": {}, "table": "t"}]}),
            json!({"rows": {}}),
            json!({}),
        ] {
            assert!(rows(&body(bad.clone())).is_err(), "{bad}");
        }
    }
}
