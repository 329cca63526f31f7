//! BigQuery's answers: which job, where its result lies, what it cost; and lists cut down to the scope.

use enforcer_proto::id::GrantId;
use enforcer_proto::query::JobRef;
use enforcer_proto::scope::{DatasetRef, Scope, TableRef};
use serde_json::Value;

/// What an answer says of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// Which.
    pub job: Option<JobRef>,
    /// The table that holds its result.
    pub destination: Option<TableRef>,
    /// Whether it has ended.
    pub is_done: bool,
    /// Whether it has ended and this is BigQuery's own description of it, which says what it has read.
    pub is_compared: bool,
    /// Whether it is that of a query that ended well, and names no table that was read.
    pub names_no_table: bool,
    /// Bytes billed, where the answer says so.
    pub billed: Option<u64>,
    /// Bytes processed, where the answer says so.
    pub processed: Option<u64>,
    /// The tables that it read, where the answer says so; what cannot be read of them is a text.
    pub tables: Vec<Result<TableRef, String>>,
}

impl JobFacts {
    /// Bytes billed, or processed where nothing is said of billing.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.billed.or(self.processed).unwrap_or(0)
    }
}

/// Reads a job resource, or the answer of `jobs.query` or `jobs.getQueryResults`.
#[must_use]
pub fn job_facts(answer: &Value) -> JobFacts {
    let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
    let reference = &answer["jobReference"];
    let location = text(reference, "location").or_else(|| text(answer, "location"));
    let job = text(reference, "projectId")
        .zip(text(reference, "jobId"))
        .map(|(project, job)| JobRef {
            project,
            job,
            location,
        });
    let table = &answer["configuration"]["query"]["destinationTable"];
    let destination = text(table, "projectId")
        .zip(text(table, "datasetId"))
        .zip(text(table, "tableId"))
        .and_then(|((project, dataset), table)| {
            DatasetRef::new(&project, &dataset)
                .and_then(|dataset| TableRef::new(dataset, &table))
                .ok()
        });
    let statistics = &answer["statistics"];
    let number = |values: &[&Value]| values.iter().find_map(|value| value.as_str()?.parse().ok());
    let is_ended = answer["status"]["state"] == "DONE";
    JobFacts {
        job,
        destination,
        is_done: is_ended || answer["jobComplete"] == true,
        is_compared: is_ended
            && answer["configuration"].is_object()
            && statistics.is_object()
            // An answer from the cache does not say what was read.
            && statistics["query"]["cacheHit"] != true,
        names_no_table: is_ended
            && answer["configuration"]["query"].is_object()
            && !answer["status"]["errorResult"].is_object()
            && statistics["query"]["referencedTables"]
                .as_array()
                .is_none_or(Vec::is_empty),
        billed: number(&[
            &statistics["query"]["totalBytesBilled"],
            &answer["totalBytesBilled"],
        ]),
        processed: number(&[
            &statistics["totalBytesProcessed"],
            &answer["totalBytesProcessed"],
            &statistics["extract"]["inputBytes"],
        ]),
        tables: read(&statistics["query"]["referencedTables"]),
    }
}

/// Whether a job's description says what it has read, so that its words may be told: of a query that failed and names no table nobody knows
/// it.
#[must_use]
pub fn says_what_it_read(answer: &Value) -> bool {
    let facts = job_facts(answer);
    facts.is_compared && (!answer["configuration"]["query"].is_object() || !facts.tables.is_empty())
}

/// Whether a job, as BigQuery describes it, carries the labels that a window's jobs are sent with.
#[must_use]
pub fn is_marked(answer: &Value, grant: GrantId, host: &str) -> bool {
    let labels = &answer["configuration"]["labels"];
    labels["enforcer_grant"] == grant.to_string() && labels["enforcer_host"] == host
}

fn read(tables: &Value) -> Vec<Result<TableRef, String>> {
    let table = |item: &Value| {
        let text = |name: &str| item[name].as_str().unwrap_or_default();
        DatasetRef::new(text("projectId"), text("datasetId"))
            .and_then(|dataset| TableRef::new(dataset, text("tableId")))
            .map_err(|_| {
                format!(
                    "{}.{}.{}",
                    text("projectId"),
                    text("datasetId"),
                    text("tableId")
                )
            })
    };
    let tables = tables.as_array().map(Vec::as_slice).unwrap_or_default();
    tables.iter().map(table).collect()
}

impl JobFacts {
    /// The first table that the job read and the scope does not cover, by its name.
    #[must_use]
    pub fn read_outside(&self, scope: &Scope) -> Option<String> {
        self.tables.iter().find_map(|table| match table {
            Ok(table) if scope.covers(table.dataset()) => None,
            Ok(table) => Some(table.to_string()),
            Err(name) => Some(name.clone()),
        })
    }
}

/// Cuts a list of projects, datasets or tables down to what the scope names. Counts of what was there are dropped: they tell of the rest.
pub fn filter_list(answer: &mut Value, scope: &Scope) {
    let Some(answer) = answer.as_object_mut() else {
        return;
    };
    answer.remove("totalItems");
    for (list, is_covered) in [
        ("projects", covers_project as fn(&Value, &Scope) -> bool),
        ("datasets", |item, scope| {
            covers(&item["datasetReference"], scope)
        }),
        ("tables", |item, scope| {
            covers(&item["tableReference"], scope)
        }),
    ] {
        if let Some(items) = answer.get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| is_covered(item, scope));
        }
    }
}

/// Cuts a list of jobs down to the window's own.
pub fn keep_own_jobs(answer: &mut Value, own: &[JobRef]) {
    if let Some(jobs) = answer.get_mut("jobs").and_then(Value::as_array_mut) {
        jobs.retain(|job| {
            let job = job_facts(job).job;
            job.is_some_and(|job| own.iter().any(|own| own.is_same_job(&job)))
        });
    }
}

fn covers_project(item: &Value, scope: &Scope) -> bool {
    let id = item["projectReference"]["projectId"]
        .as_str()
        .or_else(|| item["id"].as_str());
    id.is_some_and(|id| scope.covers_project(id))
}

fn covers(reference: &Value, scope: &Scope) -> bool {
    let names = reference["projectId"]
        .as_str()
        .zip(reference["datasetId"].as_str());
    names
        .and_then(|(project, dataset)| DatasetRef::new(project, dataset).ok())
        .is_some_and(|dataset| scope.covers(&dataset))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_is_read_with_its_result_and_its_cost() {
        let facts = job_facts(&json!({
            "jobReference": {"projectId": "p", "jobId": "j", "location": "US"},
            "configuration": {"query": {"destinationTable": {"projectId": "p", "datasetId": "_anon", "tableId": "a1"}}},
            "statistics": {"totalBytesProcessed": "8", "query": {"totalBytesBilled": "10"}},
        }));
        assert_eq!((facts.bytes(), facts.is_done), (10, false));
        assert_eq!(facts.job.expect("a job").to_string(), "p:US.j");
        assert_eq!(
            facts.destination.expect("a table").to_string(),
            "p._anon.a1"
        );
        assert_eq!(job_facts(&json!({})), JobFacts::default());
    }

    #[test]
    fn a_query_that_failed_says_what_it_has_read_only_by_naming_tables() {
        let failed = |referenced: Value| {
            json!({
                "configuration": {"query": {}},
                "status": {"state": "DONE", "errorResult": {"reason": "invalidQuery"}},
                "statistics": {"query": {"referencedTables": referenced}},
            })
        };
        let table = json!({"projectId": "p", "datasetId": "d", "tableId": "t"});
        assert!(says_what_it_read(&failed(json!([table]))));
        assert!(!says_what_it_read(&failed(json!([]))));
        assert!(!says_what_it_read(&failed(Value::Null)));
        let mut running = failed(json!([table]));
        running["status"]["state"] = json!("RUNNING");
        assert!(!says_what_it_read(&running));
        // What is moved without a query is of tables that were judged by name.
        let mut moved = failed(Value::Null);
        moved["configuration"] = json!({"load": {}});
        assert!(says_what_it_read(&moved));
    }

    #[test]
    fn a_job_whose_result_came_from_the_cache_has_not_said_what_it_read() {
        let ended = |hit: Value| {
            job_facts(&json!({
                "configuration": {"query": {}},
                "status": {"state": "DONE"},
                "statistics": {"query": {
                    "cacheHit": hit,
                    "referencedTables": [{"projectId": "p", "datasetId": "d", "tableId": "t"}],
                }},
            }))
        };
        let from_cache = ended(json!(true));
        assert!(from_cache.is_done && !from_cache.is_compared);
        for computed in [json!(false), Value::Null] {
            assert!(ended(computed).is_compared);
        }
    }

    #[test]
    fn a_list_shows_only_what_is_in_scope_and_no_count_of_the_rest() {
        let scope: Scope = "p.finance:read".parse().expect("a scope");
        let mut answer = json!({"totalItems": 2, "datasets": [
            {"datasetReference": {"projectId": "p", "datasetId": "finance"}},
            {"datasetReference": {"projectId": "p", "datasetId": "hr"}},
        ]});
        filter_list(&mut answer, &scope);
        assert_eq!(
            answer,
            json!({"datasets": [{"datasetReference": {"projectId": "p", "datasetId": "finance"}}]})
        );
        let mut answer = json!({"projects": [{"id": "q"}, {"id": "p"}]});
        filter_list(&mut answer, &scope);
        assert_eq!(answer, json!({"projects": [{"id": "p"}]}));
    }
}
