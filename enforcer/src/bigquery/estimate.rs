//! What BigQuery's dry run says a query needs, for a request that is made of it: read by the same rules as the dry run in a window, so that what is
//! approved is what can be judged then. The answer is for approvers: nothing of it is a refusal that an agent could be told.

use std::collections::BTreeMap;

use enforcer_proto::admission::{DEFINING, EXPORTING, READING, TABLES_PER_QUERY_MAX, WRITING};
use enforcer_proto::asking::Estimate;
use enforcer_proto::bucket::BucketRef;
use enforcer_proto::query::DryRun;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::{Access, DatasetRef, Scope};
use serde_json::{Value, json};

use super::dry_run;
use super::job::{LABEL_PREFIX, QueryJob};
use super::relations::Reading;
use super::text;

/// What is known of a query's needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// All of it, what the text names included; none where the dry run did not say, and the request is made of the text alone.
    pub scope: Option<Scope>,
    /// What approvers are shown.
    pub estimate: Estimate,
}

impl Needed {
    /// Nothing, and why.
    #[must_use]
    pub fn unknown(why: &str) -> Self {
        Self {
            scope: None,
            estimate: Estimate::failed(why),
        }
    }
}

/// The dry run that is asked before there is a window: what the one in a window would be, and whose query it is, as labels for whoever reads BigQuery's
/// own logs. There is no grant to name.
#[must_use]
pub fn body(job: &QueryJob, labels: &[(&str, &str)]) -> Value {
    let mut body = job.dry_run_body();
    let labels = labels.iter();
    let labels = labels.map(|(name, value)| (format!("{LABEL_PREFIX}{name}"), json!(value)));
    body["configuration"]["labels"] = Value::Object(labels.collect());
    body
}

/// Reads the answer to it; `named` is what the text names, `project` the one that the job was asked in.
pub async fn read(
    job: &QueryJob,
    project: &str,
    named: &Scope,
    (status, answer): (u16, &Value),
) -> Needed {
    let default = job.default_dataset();
    let tokens = match text::read(job.sql()) {
        Ok(read) => read.tokens,
        Err(refusal) => return Needed::unknown(&refusal.what),
    };
    let reading = Reading::with_room(job.sql(), tokens, named, project, default.as_ref()).await;
    let outside = |what: &str| Refusal::new(Code::NotVouched, format!("{what} is not in the text"));
    match dry_run::read(
        status,
        answer,
        (job.sql(), &reading),
        job.destination(),
        outside,
    ) {
        Ok(run) => of_run(&run, named),
        Err(refusal) => Needed::unknown(&refusal.what),
    }
}

/// What a dry run that could be read says is needed besides what the text names.
fn of_run(run: &DryRun, named: &Scope) -> Needed {
    let statement = run.statement.as_str();
    let is_export = statement == EXPORTING && !run.to.is_empty();
    if statement != READING && !WRITING.contains(&statement) && !is_export {
        return Needed::unknown(&format!(
            "it is a {statement} statement, which no window lets run"
        ));
    }
    let mut estimate = Estimate {
        bytes: Some(run.bytes),
        tables: run.tables.clone(),
        routines: run.routines.clone(),
        ..Estimate::default()
    };
    let scope = match scope(run, named) {
        Ok(scope) => Some(scope),
        Err(why) => {
            estimate.failed = Some(why);
            None
        }
    };
    estimate.bound();
    Needed { scope, estimate }
}

fn scope(run: &DryRun, named: &Scope) -> Result<Scope, String> {
    let count = run.tables.len();
    if count > TABLES_PER_QUERY_MAX {
        return Err(format!(
            "it reads {count} tables, and at most {TABLES_PER_QUERY_MAX} can be vouched for"
        ));
    }
    let changed = if DEFINING.contains(&run.statement.as_str()) {
        Access::Ddl
    } else {
        Access::Write
    };
    let mut datasets: BTreeMap<DatasetRef, Access> = named
        .datasets()
        .map(|(dataset, access)| (dataset.clone(), access))
        .collect();
    let mut buckets: BTreeMap<BucketRef, Access> = named
        .buckets()
        .map(|(bucket, access)| (bucket.clone(), access))
        .collect();
    let read = run.tables.iter().chain(&run.routines);
    let read = read.map(|table| (table, Access::Read));
    let written = run.targets.iter().map(|table| (table, changed));
    for (table, access) in read.chain(written) {
        if table.dataset().dataset().starts_with('_') {
            return Err(format!("{table} is in a dataset that nobody is asked for"));
        }
        let held = datasets.entry(table.dataset().clone()).or_insert(access);
        *held = access.max(*held);
    }
    for bucket in &run.to {
        buckets.insert(bucket.clone(), Access::Write);
    }
    Scope::new(datasets, buckets).map_err(|error| format!("all of it is too much: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn job(sql: &str) -> QueryJob {
        let body = json!({"query": sql, "useLegacySql": false});
        QueryJob::from_query(body.as_object().expect("an object").clone()).expect("a query")
    }

    fn table(name: &str) -> Value {
        let mut parts = name.split('.');
        let mut part = || parts.next().expect("three parts");
        json!({"projectId": part(), "datasetId": part(), "tableId": part()})
    }

    fn answer(statement: &str, tables: &[&str]) -> Value {
        let tables: Vec<Value> = tables.iter().map(|name| table(name)).collect();
        json!({"statistics": {"totalBytesProcessed": "80", "query": {"statementType": statement, "referencedTables": tables}}})
    }

    async fn needed(sql: &str, named: &str, status: u16, answer: &Value) -> Needed {
        let named = named.parse().expect("a scope");
        read(&job(sql), "p", &named, (status, answer)).await
    }

    #[tokio::test]
    async fn a_views_tables_are_needed_and_what_the_text_names_stays_needed() {
        let mut answer = answer("SELECT", &["p.finance.hr_view", "p.hr.salaries"]);
        answer["statistics"]["query"]["referencedRoutines"] =
            json!([{"projectId": "q", "datasetId": "own", "routineId": "f"}]);
        let sql = "SELECT * FROM finance.hr_view";
        let needed = needed(sql, "p.finance:read", 200, &answer).await;
        let scope = needed.scope.expect("it says");
        assert_eq!(scope.to_string(), "p.finance,p.hr,q.own:read");
        assert_eq!(
            needed.estimate.said(),
            "the dry run says: 80 bytes, tables p.finance.hr_view, p.hr.salaries, routines q.own.f"
        );
    }

    #[tokio::test]
    async fn what_is_written_keeps_its_access() {
        for (sql, statement, named) in [
            (
                "INSERT INTO scratch.t (a) SELECT amount FROM finance.v",
                "INSERT",
                "p.finance:read,p.scratch:write",
            ),
            (
                "CREATE TABLE scratch.t AS SELECT * FROM finance.v",
                "CREATE_TABLE_AS_SELECT",
                "p.finance:read,p.scratch:ddl",
            ),
        ] {
            let mut answer = answer(statement, &["p.hr.salaries", "p.finance.v"]);
            answer["statistics"]["query"]["ddlTargetTable"] = table("p.scratch.t");
            let needed = needed(sql, named, 200, &answer).await;
            let scope = needed.scope.expect("it says").to_string();
            assert_eq!(scope, named.replace("p.finance", "p.finance,p.hr"));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_judged_or_was_refused_makes_no_scope_and_says_why() {
        let words = |said: &str| json!({"error": {"message": said}});
        let many: Vec<String> = (0..49).map(|at| format!("p.finance.t{at}")).collect();
        let many: Vec<&str> = many
            .iter()
            .map(String::as_str)
            .chain(["p.finance.v"])
            .collect();
        let far: Vec<String> = (0..16).map(|at| format!("p.d{at}.t")).collect();
        let far: Vec<&str> = far
            .iter()
            .map(String::as_str)
            .chain(["p.finance.v"])
            .collect();
        for (status, said, why) in [
            (
                404,
                words("Not found: Table p:finance.v"),
                "Not found: Table p:finance.v",
            ),
            (
                404,
                words("Not found: Table p:finance.v\u{202e}"),
                "its words are kept back",
            ),
            (200, json!(null), "its kind of statement"),
            (200, answer("SCRIPT", &[]), "a SCRIPT statement"),
            (200, answer("SELECT", &[]), "the tables it reads"),
            (200, answer("SELECT", &many), "it reads 50 tables"),
            (200, answer("SELECT", &far), "all of it is too much"),
            (
                200,
                answer("SELECT", &["p.finance.v", "p._anon.t"]),
                "nobody is asked for",
            ),
            (200, answer("SELECT", &["p.hr.t"]), "does not list it"),
        ] {
            let sql = "SELECT * FROM finance.v";
            let needed = needed(sql, "p.finance:read", status, &said).await;
            assert_eq!(needed.scope, None, "{why}");
            let failed = needed.estimate.failed.expect("it says why");
            assert!(failed.contains(why), "{failed}");
        }
    }

    #[test]
    fn the_dry_run_names_its_agent_and_no_grant_and_is_always_one() {
        let body = body(&job("SELECT 1"), &[("agent", "bot"), ("host", "host-a")]);
        assert_eq!(body["configuration"]["dryRun"], true);
        assert_eq!(
            body["configuration"]["labels"],
            json!({"enforcer_agent": "bot", "enforcer_host": "host-a"})
        );
    }

    proptest! {
        #[test]
        fn whatever_is_answered_no_scope_is_less_than_what_the_text_names(status in 100_u16..600, text in ".{0,200}", tables in prop::collection::vec("[a-z]{1,3}\\.[a-z_]{1,3}\\.[a-z]{1,3}", 0..60)) {
            let names: Vec<&str> = tables.iter().map(String::as_str).chain(["p.finance.v"]).collect();
            let named: Scope = "p.finance:read".parse().expect("a scope");
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            for said in [answer("SELECT", &names), serde_json::from_str(&text).unwrap_or(Value::Null)] {
                let needed = runtime.block_on(read(&job("SELECT * FROM finance.v"), "p", &named, (status, &said)));
                match needed.scope {
                    Some(scope) => prop_assert!(named.is_within(&scope) && needed.estimate.failed.is_none()),
                    None => prop_assert!(needed.estimate.failed.is_some()),
                }
            }
        }
    }
}
