//! What BigQuery says of a dataset or a table, cut down to what a window may know: by allow-lists, since a resource also says who may see it, and
//! names what lies elsewhere (what a view reads, what a table was made of). What is no description of one is nothing.

use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{DatasetRef, Scope};
use serde_json::{Map, Value, json};

use super::relations::{Reading, Relations};
use super::text;

type Object = Map<String, Value>;

/// What is told of a dataset: how it is called, laid out and kept. Not who may see it, what it is linked to, or with whose keys it is encrypted.
const DATASET: &[&str] = &[
    "kind",
    "etag",
    "id",
    "selfLink",
    "datasetReference",
    "friendlyName",
    "description",
    "labels",
    "location",
    "type",
    "creationTime",
    "lastModifiedTime",
    "defaultTableExpirationMs",
    "defaultPartitionExpirationMs",
    "defaultCollation",
    "defaultRoundingMode",
    "isCaseInsensitive",
    "maxTimeTravelHours",
    "storageBillingModel",
    "satisfiesPzi",
    "satisfiesPzs",
];
/// What is told of a table: how it is called, laid out and kept, and how long it is.
const TABLE: &[&str] = &[
    "kind",
    "etag",
    "id",
    "selfLink",
    "tableReference",
    "friendlyName",
    "description",
    "labels",
    "location",
    "type",
    "managedTableType",
    "creationTime",
    "expirationTime",
    "lastModifiedTime",
    "schema",
    "timePartitioning",
    "rangePartitioning",
    "partitionDefinition",
    "clustering",
    "requirePartitionFilter",
    "defaultCollation",
    "defaultRoundingMode",
    "maxStaleness",
    "streamingBuffer",
    "materializedViewStatus",
    "numRows",
    "numPartitions",
    "numBytes",
    "numLongTermBytes",
    "numPhysicalBytes",
    "numTotalLogicalBytes",
    "numActiveLogicalBytes",
    "numLongTermLogicalBytes",
    "numTotalPhysicalBytes",
    "numCurrentPhysicalBytes",
    "numActivePhysicalBytes",
    "numLongTermPhysicalBytes",
    "numTimeTravelPhysicalBytes",
    // What they name is looked at.
    "view",
    "materializedView",
    "tableConstraints",
    "cloneDefinition",
    "snapshotDefinition",
];
/// What is told of a column. Not the policies that say who may read it.
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
    "generatedColumn",
    "rangeElementType",
];
/// What is told of a view, or of one that is kept.
const VIEW: &[&str] = &[
    "query",
    "useLegacySql",
    "useExplicitColumnNames",
    "enableRefresh",
    "refreshIntervalMs",
    "lastRefreshTime",
    "allowNonIncrementalDefinition",
    "maxStaleness",
];
/// The fields that hold one.
const VIEWS: [&str; 2] = ["view", "materializedView"];
/// The fields that say what a table was made of.
const ORIGINS: [&str; 2] = ["cloneDefinition", "snapshotDefinition"];
/// What stands in place of a view's text that names more than the window may know of.
pub const KEPT_BACK: &str =
    "-- kept back: it names what the window does not cover, or cannot be told to name nothing else";

/// What may be told of a dataset.
pub fn dataset(said: &mut Value) {
    match said.as_object_mut() {
        Some(said) => retain(said, DATASET),
        None => *said = json!({}),
    }
}

/// What may be told of each dataset of a list.
pub fn datasets(list: &mut Value) {
    let datasets = list.get_mut("datasets").and_then(Value::as_array_mut);
    for item in datasets.into_iter().flatten() {
        dataset(item);
    }
}

/// What may be told of a table of `project` in a window of this scope.
pub async fn table(said: &mut Value, scope: &Scope, project: &str) {
    let Some(said) = said.as_object_mut() else {
        *said = json!({});
        return;
    };
    retain(said, TABLE);
    if let Some(schema) = said.get_mut("schema") {
        columns(schema);
    }
    for name in VIEWS {
        if let Some(view) = said.get_mut(name).and_then(Value::as_object_mut) {
            retain(view, VIEW);
            text_of(view, scope, project).await;
        }
    }
    for name in ORIGINS {
        let is_known = said
            .get(name)
            .is_some_and(|origin| is_covered(&origin["baseTableReference"], scope));
        if !is_known {
            said.remove(name);
        }
    }
    let keys = said.get_mut("tableConstraints");
    let keys = keys.and_then(|keys| keys.get_mut("foreignKeys"));
    if let Some(keys) = keys.and_then(Value::as_array_mut) {
        keys.retain(|key| is_covered(&key["referencedTable"], scope));
    }
}

fn retain(said: &mut Object, told: &[&str]) {
    said.retain(|name, _| told.contains(&name.as_str()));
}

/// A schema, and what is nested in it: as deep as an answer may be that is read as JSON at all.
fn columns(holder: &mut Value) {
    let fields = holder.get_mut("fields").and_then(Value::as_array_mut);
    for column in fields.into_iter().flatten() {
        if let Some(said) = column.as_object_mut() {
            retain(said, COLUMN);
        }
        if column.get("fields").is_some() {
            columns(column);
        }
    }
}

/// A view's text is told where it can be read here and names nothing outside.
async fn text_of(view: &mut Object, scope: &Scope, project: &str) {
    let is_legacy = view.get("useLegacySql") != Some(&json!(false));
    let Some(query) = view.get_mut("query") else {
        return;
    };
    let is_told = match query.as_str() {
        Some(sql) if !is_legacy => is_within(sql, scope, project).await,
        Some(_) | None => false,
    };
    if !is_told {
        *query = json!(KEPT_BACK);
    }
}

async fn is_within(sql: &str, scope: &Scope, project: &str) -> bool {
    let Ok(named) = text::read(sql) else {
        return false;
    };
    let outside = |what: &str| Refusal::new(Code::ScopeOutside, what);
    if named.within(scope, project, outside).is_err() {
        return false;
    }
    let reading = Reading::with_room(sql, named.tokens, scope, project, None).await;
    match reading.relations {
        Relations::None | Relations::Within => true,
        Relations::Outside(_) | Relations::Unknown(_) => false,
    }
}

fn is_covered(reference: &Value, scope: &Scope) -> bool {
    let text = |name: &str| reference[name].as_str().unwrap_or_default();
    let dataset = DatasetRef::new(text("projectId"), text("datasetId"));
    dataset.is_ok_and(|dataset| scope.covers(&dataset))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        "p.finance:read".parse().expect("a scope")
    }

    async fn told(mut said: Value) -> Value {
        table(&mut said, &scope(), "p").await;
        said
    }

    #[test]
    fn nothing_is_put_where_bigquery_says_nothing() {
        let mut list = json!({"kind": "bigquery#datasetList"});
        datasets(&mut list);
        assert_eq!(list, json!({"kind": "bigquery#datasetList"}));
        let mut schema = json!({});
        columns(&mut schema);
        assert_eq!(schema, json!({}));
    }

    #[test]
    fn who_may_see_a_dataset_and_what_it_is_linked_to_are_not_told() {
        let mut said = json!({
            "kind": "bigquery#dataset", "id": "p:finance", "location": "US", "labels": {"a": "b"},
            "access": [{"userByEmail": "somebody@example.com"}, {"view": {"datasetId": "hr"}}],
            "linkedDatasetSource": {"sourceDataset": {"datasetId": "hr"}},
            "externalDatasetReference": {"connection": "elsewhere"},
            "defaultEncryptionConfiguration": {"kmsKeyName": "projects/other/key"},
            "whatIsNew": "x",
        });
        dataset(&mut said);
        let kept = json!({"kind": "bigquery#dataset", "id": "p:finance", "location": "US", "labels": {"a": "b"}});
        assert_eq!(said, kept);
        let mut list = json!({"datasets": [{"id": "p:finance", "externalDatasetReference": {}}]});
        datasets(&mut list);
        assert_eq!(list, json!({"datasets": [{"id": "p:finance"}]}));
        for mut none in [json!(null), json!([{"access": []}]), json!("access")] {
            dataset(&mut none);
            assert_eq!(none, json!({}));
        }
    }

    #[tokio::test]
    async fn a_views_text_is_told_where_it_names_nothing_outside() {
        for (query, is_told) in [
            ("SELECT day FROM finance.daily", true),
            ("SELECT 1 AS a", true),
            ("SELECT name FROM hr.salaries", false),
            ("SELECT name FROM `q.finance.daily`", false),
            ("SELECT hr.secret(day) FROM finance.daily", false),
            ("SELECT FROM WHERE hr", false),
        ] {
            for field in VIEWS {
                let said = json!({"type": "VIEW", field: {"query": query, "useLegacySql": false, "privacyPolicy": {"a": 1}}});
                let wanted = if is_told { query } else { KEPT_BACK };
                let told = told(said).await;
                let kept = json!({"query": wanted, "useLegacySql": false});
                assert_eq!(told[field], kept, "{query}");
            }
        }
        let legacy = told(json!({"view": {"query": "SELECT day FROM finance.daily"}})).await;
        assert_eq!(legacy["view"]["query"], KEPT_BACK);
    }

    #[tokio::test]
    async fn what_a_table_was_made_of_and_leads_to_is_told_where_it_is_in_scope() {
        let base = |dataset: &str| json!({"projectId": "p", "datasetId": dataset, "tableId": "t"});
        let said = |dataset: &str| {
            json!({
                "numRows": "7",
                "cloneDefinition": {"baseTableReference": base(dataset)},
                "tableConstraints": {"primaryKey": {"columns": ["a"]}, "foreignKeys": [{"referencedTable": base(dataset)}]},
                "externalDataConfiguration": {"sourceUris": ["gs://elsewhere"]},
                "schema": {"fields": [{"name": "a", "type": "RECORD", "policyTags": {"names": ["x"]},
                    "fields": [{"name": "b", "dataPolicies": []}]}]},
            })
        };
        let mut wanted = said("finance");
        wanted
            .as_object_mut()
            .expect("an object")
            .remove("externalDataConfiguration");
        wanted["schema"] =
            json!({"fields": [{"name": "a", "type": "RECORD", "fields": [{"name": "b"}]}]});
        assert_eq!(told(said("finance")).await, wanted);
        wanted
            .as_object_mut()
            .expect("an object")
            .remove("cloneDefinition");
        wanted["tableConstraints"]["foreignKeys"] = json!([]);
        assert_eq!(told(said("hr")).await, wanted);
    }
}
