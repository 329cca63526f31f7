//! Data that comes from and goes to Cloud Storage: only by the buckets that the window names, and within its budget of rows.

use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

use crate::surface::{Answer, PROJECT, send};
use crate::writes::{job, one, refused, run, table};

const SCOPE: &str =
    "demo-project.finance,gs://demo-imports:read,demo-project.scratch:ddl,gs://demo-exports:write";

fn extract(world: &World, from: (&str, &str), uris: &Value) -> Answer {
    let extract = json!({"sourceTable": table(from.0, from.1), "destinationUris": uris, "destinationFormat": "CSV"});
    one(world, &job(&json!({"extract": extract})))
}

fn load(world: &World, uris: &Value, into: &str) -> Answer {
    let load = json!({
        "sourceUris": uris, "destinationTable": table(into, "loaded"), "sourceFormat": "CSV", "skipLeadingRows": 1,
        "schema": {"fields": [{"name": "id", "type": "INT64"}, {"name": "name", "type": "STRING"}]},
    });
    one(world, &job(&json!({"load": load})))
}

/// What lies in a bucket.
fn object(world: &World, path: &str) -> Option<String> {
    std::fs::read_to_string(world.stage.dir().join("google/buckets").join(path)).ok()
}

/// A job as it has ended, without a failure.
fn ended(world: &World, job: &Answer) -> Value {
    let id = job.served()["jobReference"]["jobId"].as_str();
    let path = format!("{PROJECT}/jobs/{}", id.expect("an id"));
    let look = || one(world, &json!(["GET", path, null])).served().clone();
    wait_for("the job's end", || look()["status"]["state"] == "DONE");
    let job = look();
    assert!(job["status"]["errorResult"].is_null(), "{job}");
    job
}

#[test]
fn a_table_goes_to_a_bucket_of_the_window_and_comes_back_from_one() {
    let world = World::start(Family::V4);
    let grant = world.open_window(SCOPE, "5m");
    let out = json!(["gs://demo-exports/accounts-*.csv"]);
    let _ = ended(&world, &extract(&world, ("finance", "accounts"), &out));
    let written = object(&world, "demo-exports/accounts-000000000000.csv").expect("written");
    assert!(
        written.starts_with("id,name") && written.contains("account 20"),
        "{written}"
    );
    // A bucket that may be written may be read as well.
    let _ = ended(
        &world,
        &load(
            &world,
            &json!(["gs://demo-exports/accounts-*.csv"]),
            "scratch",
        ),
    );
    let counted = run(&world, &["SELECT COUNT(*), SUM(id) FROM scratch.loaded"]);
    assert_eq!(counted, json!([["20", "210"]]));
    let admitted = world.events("query_admitted");
    let first_with = |what: &str| {
        let with = admitted.iter().find(|event| event[what].is_array());
        with.unwrap_or_else(|| panic!("none with {what}: {admitted:?}"))
    };
    let out = first_with("exports");
    assert_eq!(out["exports"], json!(["gs://demo-exports"]));
    assert_eq!(out["tables"], json!(["demo-project.finance.accounts"]));
    assert_eq!(
        first_with("imports")["imports"],
        json!(["gs://demo-exports"])
    );
    // What was exported counts as read: eight bytes a row are what this world's tables have.
    let status = world.json(Who::Operator, &["status"]);
    let view = &status["grants"][0];
    assert_eq!(view["grant"], grant.as_str());
    assert!(view["returned_bytes"].as_u64() >= Some(160), "{view}");
    let log = world.cli(Who::Operator, &["log"]);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    assert!(log.contains("to gs://demo-exports"), "{log}");
}

#[test]
fn nothing_goes_to_or_comes_from_a_bucket_that_the_window_does_not_name() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    for uris in [
        json!(["gs://elsewhere/o"]),
        json!(["gs://demo-exports/o", "gs://elsewhere/o"]),
        json!(["gs://demo-imports/o"]),
        json!(["gs://demo-export*/o"]),
        json!(["s3://demo-exports/o"]),
    ] {
        extract(&world, ("finance", "accounts"), &uris).refused("scope.bucket");
    }
    extract(&world, ("hr", "salaries"), &json!(["gs://demo-exports/o"])).refused("scope.outside");
    load(&world, &json!(["gs://elsewhere/o"]), "scratch").refused("scope.bucket");
    load(&world, &json!(["gs://demo-imports/o"]), "finance").refused("scope.read_only");
    let left = world.far_requests();
    let is_job = |request: &&Value| request["path"].to_string().contains("/jobs");
    assert_eq!(left.iter().filter(is_job).count(), 0, "{left:?}");
    let asked = left
        .iter()
        .any(|request| request["path"].to_string().contains("salaries"));
    assert!(!asked, "not even how long it is");
    // And nobody asks for one that the policy does not name.
    let wider = [
        "request",
        "--scope",
        "demo-project.finance:read,gs://elsewhere:write",
        "--reason",
        "x",
    ];
    let said = world.cli(Who::Agent, &wider);
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("[policy.none]"), "{said}");
}

#[test]
fn a_querys_result_is_exported_where_its_text_says_so_plainly() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let export = |uri: &str, sql: &str| {
        format!("EXPORT DATA OPTIONS (uri = {uri}, format = 'CSV', overwrite = true) AS {sql}")
    };
    let plain = export(
        "'gs://demo-exports/days-*.csv'",
        "SELECT day FROM finance.daily WHERE amount = 7",
    );
    let _ = run(&world, &[&plain]);
    let written = object(&world, "demo-exports/days-000000000000.csv");
    assert_eq!(written.as_deref(), Some("day\r\n2026-01-02\r\n"));
    let daily = "SELECT day FROM finance.daily";
    for (uri, sql, code) in [
        ("'gs://elsewhere/*'", daily, "scope.bucket"),
        ("'gs://demo-imports/*'", daily, "scope.bucket"),
        (
            "'gs://demo-exports/*'",
            "SELECT * FROM hr.salaries",
            "scope.outside",
        ),
        (
            "'gs://demo-exports/*'",
            "SELECT * FROM finance.hr_view",
            "scope.outside",
        ),
        (
            "CONCAT('gs://demo-', 'exports/*')",
            daily,
            "query.statement",
        ),
        ("'gs://\\x64emo-exports/*'", daily, "query.statement"),
    ] {
        refused(&world, &export(uri, sql), code);
    }
    assert!(object(&world, "elsewhere").is_none());
}

#[test]
fn a_window_without_a_bucket_exports_and_imports_nothing() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read,demo-project.scratch:ddl", "5m");
    let out = json!(["gs://demo-exports/o"]);
    extract(&world, ("finance", "accounts"), &out).refused("scope.bucket");
    load(&world, &out, "scratch").refused("scope.bucket");
    let export =
        "EXPORT DATA OPTIONS (uri = 'gs://demo-exports/*', format = 'CSV') AS SELECT 1 AS a";
    refused(&world, export, "scope.bucket");
}

#[test]
fn an_export_of_more_than_the_window_may_read_is_refused_whole() {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&(harness::world::policy("15m", false) + "returned_bytes_max = \"7999B\"\n"));
    world.start_daemon();
    let _ = world.open_window(SCOPE, "5m");
    let out = json!(["gs://demo-exports/o"]);
    // A thousand rows of eight bytes.
    extract(&world, ("finance", "daily"), &out).refused("window.budget");
    let _ = ended(&world, &extract(&world, ("finance", "accounts"), &out));
    refused(
        &world,
        "EXPORT DATA OPTIONS (uri = 'gs://demo-exports/*', format = 'CSV') AS SELECT day FROM finance.daily",
        "window.budget",
    );
}

#[test]
fn an_export_that_fails_once_it_has_written_takes_its_part_of_the_budget_of_rows() {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&(harness::world::policy("15m", false) + "returned_bytes_max = \"20KB\"\n"));
    world.start_daemon();
    let grant = world.open_window("demo-project.finance:read,gs://demo-exports:write", "5m");
    world.set_faults(&json!({"export_fails": "a late row failed"}));
    let path = format!("{PROJECT}/queries");
    let export = |number: u8| {
        let sql = format!(
            "EXPORT DATA OPTIONS (uri = 'gs://demo-exports/part{number}-*.csv', format = 'CSV') AS SELECT * FROM finance.daily"
        );
        json!(["POST", path, {"query": sql, "useLegacySql": false}])
    };
    // A thousand rows of eight bytes each: there is room for two, and the third is not begun.
    let answers = send(&world, &json!([export(0), export(1), export(2)]));
    let status: Vec<u64> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(status, [400, 400, 403], "{answers:?}");
    answers[2].refused("window.budget");
    assert!(object(&world, "demo-exports/part1-000000000000.csv").is_some());
    assert!(object(&world, "demo-exports/part2-000000000000.csv").is_none());
    let status = world.json(Who::Operator, &["status"]);
    let grants = status["grants"].as_array().expect("a list").iter();
    let mut own = grants.filter(|view| view["grant"] == grant.as_str());
    assert_eq!(own.next().expect("listed")["returned_bytes"], 16_000);
}
