//! What BigQuery says of jobs that have failed: its words can be rows, which no budget counts and of which nobody knows where they come from.

use harness::world::{Family, World, wait_for};
use serde_json::{Value, json};

use crate::surface::{Answer, PROJECT, send};

/// The longest sentence that is passed on, characters, and the most of an answer that it is in.
const SENTENCE: usize = 300;
const ANSWER: usize = 6000;
/// A query that fails with a whole column in its words.
const COLUMN: &str = "SELECT ERROR((SELECT STRING_AGG(CAST(amount AS STRING)) FROM finance.daily))";
/// What the words are of a job that has read a table outside.
const OUTSIDE: &str = "ada 100, grace 120";

fn one(world: &World, verb: &str, path: &str, body: Option<Value>) -> Answer {
    send(world, &json!([[verb, format!("{PROJECT}/{path}"), body]])).remove(0)
}

fn insert(id: &str, sql: &str) -> Value {
    json!({
        "configuration": {"query": {"query": sql, "useLegacySql": false}},
        "jobReference": {"jobId": id, "projectId": "demo-project"},
    })
}

#[test]
fn rows_do_not_come_out_as_the_words_of_a_failure() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "5m");
    let begun = one(&world, "POST", "jobs", Some(insert("e", COLUMN))).body;
    assert!(begun.to_string().len() < ANSWER);
    let ended = || one(&world, "GET", "jobs/e", None).body["status"]["state"] == "DONE";
    harness::world::wait_for("the failure", ended);
    let asked = [
        ("GET", "jobs/e", None),
        ("GET", "jobs?projection=full", None),
        ("GET", "jobs/e?projection=full&fields=status", None),
        ("POST", "jobs/e/cancel", None),
        ("GET", "queries/e", None),
        (
            "POST",
            "queries",
            Some(json!({"query": COLUMN, "useLegacySql": false})),
        ),
    ];
    for (verb, path, body) in asked {
        let answer = one(&world, verb, path, body).body;
        let text = answer.to_string();
        assert!(text.len() < ANSWER, "{verb} {path}: {} bytes", text.len());
        let job = [&answer["job"], &answer["jobs"][0], &answer];
        let failed = job.into_iter().find(|job| job["status"].is_object());
        let error = match failed {
            Some(job) => &job["status"]["errorResult"],
            None => &answer["error"],
        };
        let words = error["message"].as_str();
        let words = words.unwrap_or_else(|| panic!("{verb} {path}: {text}"));
        assert!(words.chars().count() <= SENTENCE, "{verb} {path}: {words}");
        // Its own description says what it has read, and so it may say why it has failed.
        let is_told = !matches!(path, "jobs?projection=full" | "queries");
        assert_eq!(
            words.contains("14,21,28"),
            is_told,
            "{verb} {path}: {words}"
        );
    }
}

#[test]
fn the_words_of_a_query_at_once_are_kept_back_as_nobody_knows_what_it_has_read() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "5m");
    let query =
        || Some(json!({"query": "SELECT amount FROM finance.daily_view", "useLegacySql": false}));
    world.set_faults(
        &json!({"reads_also": [["demo-project", "hr", "salaries"]], "fails_with": OUTSIDE}),
    );
    let answer = one(&world, "POST", "queries", query());
    assert_eq!(answer.status, 400);
    assert!(!answer.body.to_string().contains("ada"), "{}", answer.body);
    let words = answer.body["error"]["message"].as_str().unwrap_or_default();
    assert!(
        words.contains("invalidQuery") && words.contains("jobs.insert"),
        "{words}"
    );
    assert_eq!(answer.body["error"]["errors"][0]["reason"], "invalidQuery");
}

#[test]
fn the_words_of_a_job_are_told_once_it_is_known_that_it_has_read_nothing_outside() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "5m");
    world.set_faults(&json!({"run_ms": 1500, "fails_with": "division by zero"}));
    let running = one(
        &world,
        "POST",
        "jobs",
        Some(insert("late", "SELECT amount FROM finance.daily")),
    );
    assert_eq!(
        running.body["status"]["state"], "RUNNING",
        "{}",
        running.body
    );
    let words = |answer: &Answer| {
        assert_eq!(answer.status, 400, "{answer:?}");
        answer.body["error"]["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let early = one(&world, "GET", "queries/late?timeoutMs=0", None);
    assert!(words(&early).contains("kept back"), "{early:?}");
    wait_for("the job's words", || {
        let late = one(&world, "GET", "queries/late?timeoutMs=0", None);
        words(&late) == "division by zero"
    });
}

#[test]
fn the_words_of_a_failed_job_that_names_no_table_are_kept_back_unless_it_reads_none() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "5m");
    world.set_faults(&json!({"fails_naming_nothing": OUTSIDE}));
    for (id, sql, is_told) in [
        ("reads", "SELECT amount FROM finance.daily_view", false),
        ("none", "SELECT 1 AS one", true),
    ] {
        let begun = one(&world, "POST", "jobs", Some(insert(id, sql)));
        assert_eq!(begun.body["status"]["state"], "DONE", "{}", begun.body);
        // However often it is asked for, and whoever has looked at it before.
        for (path, may_tell) in [
            (format!("queries/{id}"), true),
            (format!("jobs/{id}"), false),
            (format!("queries/{id}"), true),
            ("jobs?projection=full".to_owned(), false),
        ] {
            let answer = one(&world, "GET", &path, None);
            let text = answer.body.to_string();
            assert_eq!(text.contains("ada"), is_told && may_tell, "{path}: {text}");
            assert!(text.contains("invalidQuery"), "{path}: {text}");
        }
    }
    assert!(world.events("closed").is_empty());
}

#[test]
fn a_failed_job_that_has_read_outside_says_nothing_and_closes_its_window() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "5m");
    world.set_faults(&json!({
        "run_ms": 600, "reads_also": [["demo-project", "hr", "salaries"]], "fails_with": OUTSIDE,
    }));
    let started = one(
        &world,
        "POST",
        "jobs",
        Some(insert("late", "SELECT amount FROM finance.daily_view")),
    );
    assert_eq!(
        started.body["status"]["state"], "RUNNING",
        "{}",
        started.body
    );
    wait_for("the refusal", || {
        let late = one(&world, "GET", "queries/late?timeoutMs=0", None);
        assert!(!late.body.to_string().contains("ada"), "{}", late.body);
        late.status == 403
    });
    wait_for("the close", || !world.events("closed").is_empty());
    let seen = world.events("job_seen");
    let outside = seen.iter().find(|seen| !seen["read_outside"].is_null());
    assert_eq!(
        outside.expect("on record")["read_outside"],
        "demo-project.hr.salaries"
    );
}
