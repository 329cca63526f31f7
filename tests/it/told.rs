//! What agents learn of BigQuery's words: nothing that tells what there is outside of their window.

use harness::world::{Family, World};
use serde_json::json;

use super::surface::{Answer, PROJECT, send};

const OUTSIDE: &str = "Table demo-project:hr.salaries_of_the_board";
const QUERY: &str = "SELECT amount FROM finance.daily_view";

fn ask(world: &World, sqls: &[&str]) -> Vec<Answer> {
    let asked = sqls.iter().map(|sql| {
        let body = json!({"query": sql, "useLegacySql": false});
        json!(["POST", format!("{PROJECT}/queries"), body])
    });
    send(world, &asked.collect())
}

#[track_caller]
fn tells_nothing(answer: &Answer, reason: &str) {
    let said = answer.body.to_string();
    assert!(
        said.contains(reason) && said.contains("kept back"),
        "{said}"
    );
    assert!(!said.contains("board") && !said.contains("hr."), "{said}");
}

#[test]
fn a_text_that_cannot_be_read_is_refused_alike_whatever_there_is_outside_and_bigquery_is_not_asked()
{
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let there = ask(
        &world,
        &[
            "SELECT WITH(a AS salary, a) FROM hr.salaries",
            "SELECT @{x = 1} salary FROM hr.salaries",
            "SELECT 1 FROM (SELECT 1 AS a) JOIN @5 `hr.salaries` ON TRUE",
            "WITH hr AS (SELECT 1 AS a) SELECT 1 FROM hr global, hr.salaries",
            "CREATE VIEW finance.v AS SELECT salary FROM hr.salaries",
            "SELECT 1; SELECT salary FROM hr.salaries",
        ],
    );
    let not_there = ask(
        &world,
        &[
            "SELECT WITH(a AS nosuch, a) FROM hr.nosuch",
            "SELECT @{x = 1} nosuch FROM hr.nosuch",
            "SELECT 1 FROM (SELECT 1 AS a) JOIN @5 `hr.nosuch` ON TRUE",
            "WITH hr AS (SELECT 1 AS a) SELECT 1 FROM hr global, hr.nosuch",
            "CREATE VIEW finance.v AS SELECT nosuch FROM hr.nosuch",
            "SELECT 1; SELECT nosuch FROM hr.nosuch",
        ],
    );
    let codes = [
        "query.not_vouched",
        "query.not_vouched",
        "query.not_vouched",
        "query.not_vouched",
        "query.statement",
        "query.statement",
    ];
    for ((there, not_there), code) in there.iter().zip(&not_there).zip(codes) {
        there.refused(code);
        not_there.refused(code);
        let words = |answer: &Answer| answer.body["error"]["message"].to_string();
        assert_eq!(words(there), words(not_there));
    }
    assert!(
        world.events("query_asked").is_empty(),
        "BigQuery is not asked"
    );
}

#[test]
fn a_clients_dry_run_tells_as_little_as_the_daemons_when_the_verdict_is_known() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let query = json!({"query": QUERY, "useLegacySql": false, "dryRun": true});
    let job = json!({"configuration": {"dryRun": true, "query": {"query": QUERY, "useLegacySql": false}}});
    let by_query = json!(["POST", format!("{PROJECT}/queries"), query]);
    send(&world, &json!([by_query])).remove(0).served();
    let view =
        format!("Invalid view finance.daily_view: Name pay not found inside s over {OUTSIDE}");
    world.set_faults(&json!({"dry_run_fails": [view, "invalidQuery"]}));
    let answers = send(
        &world,
        &json!([by_query, ["POST", format!("{PROJECT}/jobs"), job]]),
    );
    for answer in &answers {
        tells_nothing(answer, "invalidQuery");
    }
    assert_eq!(
        world.events("query_asked").len(),
        1,
        "the verdict was known"
    );
    // What the text names is told.
    world.set_faults(
        &json!({"dry_run_fails": ["Unrecognized name: amount at [1:8]", "invalidQuery"]}),
    );
    let answer = send(&world, &json!([by_query])).remove(0);
    assert!(
        answer
            .body
            .to_string()
            .contains("Unrecognized name: amount"),
        "{answer:?}"
    );
}

#[test]
fn a_job_that_fails_tells_of_no_table_that_its_text_does_not_name() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let job = |id: &str| {
        let query = json!({"query": QUERY, "useLegacySql": false});
        let place = json!({"jobId": id, "projectId": "demo-project"});
        let body = json!({"configuration": {"query": query}, "jobReference": place});
        json!(["POST", format!("{PROJECT}/jobs"), body])
    };
    let query = json!({"query": QUERY, "useLegacySql": false});
    let query = json!(["POST", format!("{PROJECT}/queries"), query]);
    for reason in ["accessDenied", "notFound"] {
        let why = format!("Access Denied: {OUTSIDE}: User does not have permission to query it");
        world.set_faults(&json!({"start_fails": [why, reason]}));
        let started = send(&world, &json!([query, job(&format!("a-{reason}"))]));
        world.set_faults(&json!({"fails_naming_nothing": [why, reason]}));
        let id = format!("b-{reason}");
        let ran = send(
            &world,
            &json!([
                job(&id),
                ["GET", format!("{PROJECT}/jobs/{id}"), null],
                ["GET", format!("{PROJECT}/queries/{id}"), null],
                ["GET", format!("{PROJECT}/jobs?projection=full"), null],
            ]),
        );
        for answer in started.iter().chain(&ran) {
            tells_nothing(answer, reason);
        }
    }
    let why = "Not found: Table demo-project:finance.daily_view was not found";
    world.set_faults(&json!({"start_fails": [why, "notFound"]}));
    let answer = send(&world, &json!([query])).remove(0);
    assert!(answer.body.to_string().contains(why), "{answer:?}");
}
