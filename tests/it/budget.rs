//! The budget of bytes, and the jobs that spend it, to their very end: also those that a window's close or a dead daemon leaves behind.

use harness::world::{Client, Family, Who, World, wait_for};
use serde_json::{Value, json};

const JOBS: &str = "/bigquery/v2/projects/demo-project/jobs";
const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
const MIB: u64 = 1024 * 1024;

/// A world whose windows have this byte budget.
fn world_with(bytes_max: u64) -> World {
    let mut world = World::without_daemon(Family::V4);
    let rule = harness::world::policy("15m", false);
    world.set_policy(&format!("{rule}bytes_max = \"{bytes_max}B\"\n"));
    world.start_daemon();
    world
}

/// Sends one request, and gives status and body of the answer.
fn ask(streams: &mut Client, method: &str, path: &str, body: Option<&Value>) -> (u64, Value) {
    let mut request = json!({"method": method, "path": path});
    if let Some(body) = body {
        request["body"] = body.clone();
    }
    streams.send(&json!([request]).to_string());
    let head = streams.receive();
    let status = head["status"].as_u64().unwrap_or_else(|| panic!("{head}"));
    let end = streams.receive();
    let body = end["body"].as_str().unwrap_or_else(|| panic!("{end}"));
    (status, serde_json::from_str(body).expect("JSON"))
}

fn insert(id: &str, sql: &str) -> Value {
    json!({
        "configuration": {"query": {"query": sql, "useLegacySql": false}},
        "jobReference": {"jobId": id, "projectId": "demo-project"},
    })
}

/// What the window has used, as people see it.
fn bytes_used(world: &World, grant: &str) -> u64 {
    let status = world.json(Who::Operator, &["status"]);
    let grants = status["grants"].as_array().expect("a list");
    let view = grants.iter().find(|view| view["grant"] == grant);
    view.expect("listed")["bytes"].as_u64().expect("a number")
}

#[test]
fn a_job_that_was_answered_while_it_ran_is_charged_what_it_cost_once_it_has_ended() {
    let world = world_with(25 * MIB);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 2000}));
    let answer = ask(&mut streams, "POST", JOBS, Some(&insert("slow", DAILY)));
    world.set_faults(&json!({}));
    assert_eq!(answer.1["status"]["state"], "RUNNING", "{answer:?}");
    assert_eq!(bytes_used(&world, &grant), 0);
    wait_for("the job", || {
        let (_, job) = ask(&mut streams, "GET", &format!("{JOBS}/slow"), None);
        job["status"]["state"] == "DONE"
    });
    assert_eq!(bytes_used(&world, &grant), 10 * MIB);
    let _ = ask(&mut streams, "GET", &format!("{JOBS}/slow"), None);
    assert_eq!(bytes_used(&world, &grant), 10 * MIB, "once");
    let seen = world.events("job_seen");
    assert_eq!(seen.len(), 2, "begun and ended: {seen:?}");

    // 15 MiB are left: one more may run, and what is then left is too little for what BigQuery bills at least.
    let second = ask(&mut streams, "POST", JOBS, Some(&insert("second", DAILY)));
    assert_eq!((second.0, bytes_used(&world, &grant)), (200, 20 * MIB));
    let third = ask(&mut streams, "POST", JOBS, Some(&insert("third", DAILY)));
    assert_eq!(third.0, 400, "BigQuery keeps the ceiling: {third:?}");
    assert_eq!(bytes_used(&world, &grant), 20 * MIB);
    let sent: Vec<String> = world
        .far_requests()
        .iter()
        .filter_map(|request| serde_json::from_str::<Value>(request["body"].as_str()?).ok())
        .filter(|body| body["configuration"]["dryRun"] != true)
        .filter_map(|body| {
            Some(
                body["configuration"]["query"]["maximumBytesBilled"]
                    .as_str()?
                    .to_owned(),
            )
        })
        .collect();
    let most = [10 * MIB, 10 * MIB, 5 * MIB].map(|bytes| bytes.to_string());
    assert_eq!(sent, most);
}

#[test]
fn queries_that_run_at_once_hold_the_budget_against_each_other() {
    let world = world_with(25 * MIB);
    let _ = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 600_000}));
    for name in ["one", "two", "three"] {
        // The third holds what is left, which is too little for BigQuery.
        let answer = ask(&mut streams, "POST", JOBS, Some(&insert(name, DAILY)));
        assert_eq!(
            answer.0,
            if name == "three" { 400 } else { 200 },
            "{answer:?}"
        );
    }
    let mut greedy = insert("all", DAILY);
    greedy["configuration"]["query"]["maximumBytesBilled"] = json!("99999999999");
    let _ = ask(&mut streams, "POST", JOBS, Some(&greedy));
    let admitted = world.events("query_admitted");
    let ceilings: Vec<&Value> = admitted.iter().map(|event| &event["ceiling"]).collect();
    // What BigQuery refused is free again; it is all that even the greediest gets.
    assert_eq!(ceilings, [10 * MIB, 10 * MIB, 5 * MIB, 5 * MIB]);
}

#[test]
fn a_dry_run_of_the_clients_own_costs_nothing_and_counts_for_nothing() {
    // Less than one dry run would process.
    let world = world_with(4000);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    let mut dry = insert("dry", DAILY);
    dry["configuration"]["dryRun"] = json!(true);
    for _ in 0..2 {
        let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&dry));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["statistics"]["totalBytesProcessed"], "8000");
    }
    let status = world.json(Who::Operator, &["status"]);
    let view = &status["grants"][0];
    assert_eq!(view["grant"], grant.as_str());
    assert_eq!(
        (&view["open"], &view["queries"], &view["bytes"]),
        (&json!(true), &json!(0), &json!(0))
    );
    let (status, _) = ask(&mut streams, "GET", &format!("{JOBS}/dry"), None);
    assert_eq!(status, 403, "a dry run's job is nobody's");
}

#[test]
fn rows_that_are_read_directly_are_charged_and_end_with_the_budget() {
    let world = world_with(MIB / 8);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    let rows = "/bigquery/v2/projects/demo-project/datasets/finance/tables/daily/data";
    let mut passed_on = 0;
    // Every read is charged what it brought, until one is cut where the budget ends, and the window with it.
    for _ in 0..50 {
        let read = json!({"method": "GET", "path": format!("{rows}?maxResults=1000")});
        streams.send(&json!([read]).to_string());
        let head = streams.receive();
        let end = streams.receive();
        if head["status"] != 200 {
            let body = end["body"].as_str().expect("a body");
            assert!(body.contains("[window."), "{body}");
            break;
        }
        passed_on += end["got"].as_u64().expect("a number");
        wait_for("the charge", || bytes_used(&world, &grant) == passed_on);
    }
    assert_eq!(passed_on, MIB / 8);
    let closed = world.events("closed");
    assert_eq!(closed[0]["reason"], "budget_spent");
    let ends = world.events("query_finished");
    assert!(
        ends.iter()
            .any(|event| event["trouble"] == "cut: the budget of bytes was spent"),
        "{ends:?}"
    );
}
