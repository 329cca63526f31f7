//! The budget of bytes, and the jobs that spend it, to their very end: also those that a window's close or a dead daemon leaves behind.

use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use harness::world::{Client, Family, Who, World, wait_for};
use serde_json::{Value, json};

pub(crate) const JOBS: &str = "/bigquery/v2/projects/demo-project/jobs";
pub(crate) const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
pub(crate) const MIB: u64 = 1024 * 1024;

/// A world whose windows have this byte budget.
fn world_with(bytes_max: u64) -> World {
    world_of(&format!("bytes_max = \"{bytes_max}B\"\n"))
}

/// A world with more in its one rule.
pub(crate) fn world_of(more: &str) -> World {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&(harness::world::policy("15m", false) + more));
    world.start_daemon();
    world
}

pub(crate) fn code(answer: &Value) -> &str {
    let said = answer["error"]["message"].as_str().unwrap_or_default();
    let code = said
        .rsplit_once('[')
        .and_then(|(_, code)| code.split(']').next());
    code.unwrap_or_else(|| panic!("{answer}"))
}

/// A number of the window as people see it.
pub(crate) fn used(world: &World, grant: &str, what: &str) -> u64 {
    let status = world.json(Who::Operator, &["status"]);
    let grants = status["grants"].as_array().expect("a list");
    let view = grants.iter().find(|view| view["grant"] == grant);
    view.expect("listed")[what].as_u64().expect("a number")
}

/// Sends one request, and gives status and body of the answer.
pub(crate) fn ask(
    streams: &mut Client,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> (u64, Value) {
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

pub(crate) fn insert(id: &str, sql: &str) -> Value {
    json!({
        "configuration": {"query": {"query": sql, "useLegacySql": false}},
        "jobReference": {"jobId": id, "projectId": "demo-project"},
    })
}

/// What the window has used, as people see it.
fn bytes_used(world: &World, grant: &str) -> u64 {
    used(world, grant, "bytes")
}

#[test]
fn what_is_too_little_for_any_query_is_refused_in_our_words_and_takes_no_query() {
    let world = world_with(25 * MIB);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    for id in ["a", "b"] {
        let (status, job) = ask(&mut streams, "POST", JOBS, Some(&insert(id, DAILY)));
        assert_eq!(
            (status, &job["status"]["state"]),
            (200, &json!("DONE")),
            "{job}"
        );
    }
    assert_eq!(bytes_used(&world, &grant), 20 * MIB);
    for id in ["c", "d"] {
        let (_, refused) = ask(&mut streams, "POST", JOBS, Some(&insert(id, DAILY)));
        assert_eq!(code(&refused), "window.budget");
        assert!(
            refused
                .to_string()
                .contains("BigQuery bills 10485760 at least"),
            "{refused}"
        );
    }
    assert_eq!(used(&world, &grant, "queries"), 2);
    // The results of what has run are read on, and what reads nothing is run.
    let results = "/bigquery/v2/projects/demo-project/queries/b";
    assert_eq!(
        ask(&mut streams, "GET", results, None).1["rows"][0]["f"][0]["v"],
        "1000"
    );
    let free = insert("e", "SELECT 1 AS a");
    assert_eq!(ask(&mut streams, "POST", JOBS, Some(&free)).0, 200);
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

    // 15 MiB are left: one more may run, and what is then left is too little for what BigQuery bills at least: it does not go out.
    let second = ask(&mut streams, "POST", JOBS, Some(&insert("second", DAILY)));
    assert_eq!((second.0, bytes_used(&world, &grant)), (200, 20 * MIB));
    let third = ask(&mut streams, "POST", JOBS, Some(&insert("third", DAILY)));
    assert_eq!((third.0, code(&third.1)), (403, "window.budget"));
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
    let most = [10 * MIB, 10 * MIB].map(|bytes| bytes.to_string());
    assert_eq!(sent, most);
}

#[test]
fn queries_that_run_at_once_hold_the_budget_against_each_other() {
    let world = world_with(35 * MIB);
    let _ = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 600_000}));
    for name in ["one", "two"] {
        let answer = ask(&mut streams, "POST", JOBS, Some(&insert(name, DAILY)));
        assert_eq!(answer.0, 200, "{answer:?}");
    }
    let mut greedy = insert("all", DAILY);
    greedy["configuration"]["query"]["maximumBytesBilled"] = json!("99999999999");
    let answer = ask(&mut streams, "POST", JOBS, Some(&greedy));
    assert_eq!(answer.0, 200, "{answer:?}");
    let (_, refused) = ask(&mut streams, "POST", JOBS, Some(&insert("three", DAILY)));
    assert_eq!(code(&refused), "window.budget");
    let admitted = world.events("query_admitted");
    let ceilings: Vec<&Value> = admitted.iter().map(|event| &event["ceiling"]).collect();
    // What is left is all that even the greediest gets.
    assert_eq!(ceilings, [10 * MIB, 10 * MIB, 15 * MIB]);
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
    let mut whole = 0;
    // Every read is charged what it brought, until one is cut where the budget ends, and the window ends with it.
    loop {
        let read = json!({"method": "GET", "path": format!("{rows}?maxResults=1000")});
        streams.send(&json!([read]).to_string());
        // A reset may overtake the head of the answer.
        let head = streams.receive();
        if head["ending"] == "reset" {
            break;
        }
        assert_eq!(head["status"], 200, "{head}");
        let end = streams.receive();
        if end["ending"] != "whole" {
            break;
        }
        whole += end["got"].as_u64().expect("a number");
        wait_for("the charge", || bytes_used(&world, &grant) == whole);
    }
    assert!((1..MIB / 8).contains(&whole), "{whole}");
    wait_for("the close", || !world.events("closed").is_empty());
    let closed = &world.events("closed")[0];
    assert_eq!(closed["reason"], "budget_spent");
    assert_eq!(closed["bytes"], MIB / 8, "not a byte more: {closed}");
    let ends = world.events("query_finished");
    assert!(
        ends.iter()
            .any(|event| event["trouble"] == "cut: the budget of bytes was spent"),
        "{ends:?}"
    );
}

/// Starts a job that is answered while it runs, and one whose answer is lost with the daemon.
fn leave_two_jobs_behind(world: &mut World) {
    world.set_faults(&json!({"run_ms": 600_000}));
    let mut streams = world.streams();
    let (status, job) = ask(&mut streams, "POST", JOBS, Some(&insert("answered", DAILY)));
    assert_eq!((status, &job["status"]["state"]), (200, &json!("RUNNING")));
    world.set_faults(&json!({"run_ms": 600_000, "hold_start_ms": 600_000}));
    start_unanswered(world, &mut streams, None);
    world.kill_daemon();
    world.set_faults(&json!({}));
}

/// Sends a job to whose start no answer comes, and waits until BigQuery has it.
pub(crate) fn start_unanswered(world: &World, streams: &mut Client, id: Option<&str>) {
    let mut body = insert("", DAILY);
    match id {
        Some(id) => body["jobReference"]["jobId"] = json!(id),
        None => drop(body.as_object_mut().expect("a job").remove("jobReference")),
    }
    let before = started(world).len();
    streams.send(&json!([{"method": "POST", "path": JOBS, "body": body}]).to_string());
    wait_for("the start", || started(world).len() > before);
    // The far side has read it, and takes it in.
    std::thread::sleep(std::time::Duration::from_millis(500));
}

/// The jobs that BigQuery was asked to start.
fn started(world: &World) -> Vec<Value> {
    let requests = world.far_requests();
    requests
        .iter()
        .filter(|request| request["method"] == "POST" && request["path"] == JOBS)
        .filter_map(|request| serde_json::from_str(request["body"].as_str()?).ok())
        .filter(|body: &Value| body["configuration"]["dryRun"] != true)
        .collect()
}

fn both_are_cancelled(world: &World) {
    wait_for("the cancellations", || {
        world.events("job_cancelled").len() == 2
    });
    let mut outcomes: Vec<(String, String)> = world
        .events("job_cancelled")
        .iter()
        .map(|event| {
            (
                event["job"]["job"].to_string(),
                event["outcome"].to_string(),
            )
        })
        .collect();
    outcomes.sort();
    assert_eq!(
        outcomes[0],
        ("\"answered\"".to_owned(), "\"cancelled\"".to_owned())
    );
    let (name, outcome) = &outcomes[1];
    assert!(name.starts_with("\"enforcer_"), "a name of ours: {name}");
    assert_eq!(outcome, "\"cancelled\"");
}

#[test]
fn jobs_that_a_killed_daemon_left_running_are_cancelled_when_their_window_closes() {
    let mut world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "5m");
    leave_two_jobs_behind(&mut world);
    let minted = world.tokens().len();
    world.start_daemon();
    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    both_are_cancelled(&world);
    assert_eq!(
        world.tokens().len(),
        minted + 1,
        "one token, for cancelling"
    );
}

#[test]
fn jobs_of_a_window_that_ended_while_the_daemon_was_dead_are_cancelled_at_its_start() {
    let mut world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "6s");
    let approved = world.events("approved");
    let deadline = approved[0]["closes_boot_ns"].as_u64().expect("a deadline");
    leave_two_jobs_behind(&mut world);
    // The kernel's clock is the subject: this waits for the deadline.
    let left = deadline.saturating_sub(SystemClock.now().boot_ns);
    std::thread::sleep(std::time::Duration::from_nanos(left));
    world.start_daemon();
    assert_eq!(world.events("closed")[0]["reason"], "expired");
    both_are_cancelled(&world);
}

#[test]
fn a_job_of_the_same_name_that_is_somebody_elses_is_neither_read_nor_cancelled() {
    let mut world = World::start(Family::V4);
    let first = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    let (status, _) = ask(&mut streams, "POST", JOBS, Some(&insert("theirs", DAILY)));
    assert_eq!(status, 200);
    let _ = world.json(Who::Agent, &["close", &first]);

    let second = world.open_window("demo-project.finance:read", "5m");
    world.set_faults(&json!({"hold_start_ms": 600_000}));
    start_unanswered(&world, &mut streams, Some("theirs"));
    world.kill_daemon();
    world.set_faults(&json!({}));
    world.start_daemon();
    let mut streams = world.streams();
    let (status, answer) = ask(&mut streams, "GET", &format!("{JOBS}/theirs"), None);
    assert_eq!(status, 403, "{answer}");
    assert_eq!(
        world.json(Who::Approver, &["revoke", &second])["done"],
        true
    );
    wait_for("the look", || !world.events("job_cancelled").is_empty());
    let looked = &world.events("job_cancelled")[0];
    assert_eq!(looked["job"]["job"], "theirs");
    assert_eq!(looked["outcome"], "left alone: it is not this window's");
    let cancel = |request: &Value| {
        request["path"]
            .as_str()
            .expect("a path")
            .contains("/cancel")
    };
    assert!(!world.far_requests().iter().any(cancel));
}

#[test]
fn a_job_is_charged_as_well_when_only_its_results_are_asked_for() {
    let world = world_with(25 * MIB);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 2000}));
    let answer = ask(&mut streams, "POST", JOBS, Some(&insert("slow", DAILY)));
    assert_eq!(answer.1["status"]["state"], "RUNNING", "{answer:?}");
    let results = "/bigquery/v2/projects/demo-project/queries/slow";
    let (status, answer) = ask(&mut streams, "GET", results, None);
    assert_eq!((status, &answer["jobComplete"]), (200, &json!(true)));
    // It names the bytes processed, for which BigQuery bills at least so much.
    assert_eq!(bytes_used(&world, &grant), 10 * MIB);
}

#[test]
fn no_more_jobs_run_at_once_than_the_window_allows_until_one_has_ended() {
    let world = world_of("jobs_at_once_max = 2\n");
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 600_000}));
    for name in ["one", "two"] {
        let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&insert(name, DAILY)));
        assert_eq!(status, 200, "{answer}");
    }
    let (_, answer) = ask(&mut streams, "POST", JOBS, Some(&insert("three", DAILY)));
    assert_eq!(code(&answer), "window.busy", "{answer}");
    assert_eq!(used(&world, &grant, "jobs_at_once"), 2);
    let refused = world.events("query_refused");
    assert_eq!(refused[0]["refusal"]["code"], "window.busy");

    // A query that ends by itself, with nobody asking for it.
    world.set_faults(&json!({"run_ms": 1000}));
    let (status, _) = ask(&mut streams, "POST", &format!("{JOBS}/one/cancel"), None);
    assert_eq!(status, 200);
    wait_for("the place", || used(&world, &grant, "jobs_at_once") == 1);
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&insert("four", DAILY)));
    assert_eq!(
        (status, &answer["status"]["state"]),
        (200, &json!("RUNNING"))
    );
    wait_for("its end", || used(&world, &grant, "jobs_at_once") == 1);
}

#[test]
fn a_hundred_running_jobs_are_cancelled_when_their_window_closes_also_after_a_restart() {
    let mut world = world_of("jobs_at_once_max = 100\nbytes_max = \"100GB\"\n");
    for is_restarted in [false, true] {
        let grant = world.open_window("demo-project.finance:read", "5m");
        world.set_faults(&json!({"run_ms": 600_000}));
        let events = world.events("job_cancelled");
        let before = events.iter().filter(|event| event["is_settled"] == true);
        let before = before.count();
        let mut streams = world.streams();
        for number in 0..100 {
            let name = format!("{grant}_{number}");
            let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&insert(&name, DAILY)));
            assert_eq!(status, 200, "{answer}");
        }
        assert_eq!(used(&world, &grant, "jobs_at_once"), 100);
        if is_restarted {
            world.kill_daemon();
            world.start_daemon();
        }
        // BigQuery fails, and then takes its time.
        world.set_faults(&json!({"run_ms": 600_000, "instead": [503, {}]}));
        let _ = world.json(Who::Approver, &["revoke", &grant]);
        std::thread::sleep(Duration::from_millis(1500));
        world.set_faults(&json!({"run_ms": 600_000, "cancel_ms": 1000}));
        let well = SystemClock.now().boot_ns;
        let cancelled = || {
            let events = world.events("job_cancelled");
            let settled = events
                .into_iter()
                .filter(|event| event["is_settled"] == true);
            settled.collect::<Vec<_>>()
        };
        wait_for("the cancellations", || cancelled().len() == before + 100);
        let took = Duration::from_nanos(SystemClock.now().boot_ns - well);
        assert!(took < Duration::from_secs(30), "{took:?}");
        let outcomes = cancelled();
        assert!(
            outcomes.iter().all(|event| event["outcome"] == "cancelled"),
            "{outcomes:?}"
        );
    }
}

#[test]
fn one_query_that_would_process_more_than_its_share_is_refused() {
    let world = world_of("query_bytes_max = \"11MB\"\n");
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&insert("small", DAILY)));
    assert_eq!(status, 200, "{answer}");
    let mut greedy = insert("greedy", DAILY);
    greedy["configuration"]["query"]["maximumBytesBilled"] = json!("99999999999");
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&greedy));
    assert_eq!(status, 200, "{answer}");
    let admitted = world.events("query_admitted");
    assert_eq!(admitted[1]["ceiling"], 11_000_000, "its share, and no more");
    world.set_faults(&json!({"estimate": 11_000_001}));
    let (_, answer) = ask(
        &mut streams,
        "POST",
        JOBS,
        Some(&insert("large", "SELECT 1 + COUNT(*) FROM finance.daily")),
    );
    assert_eq!(code(&answer), "window.budget", "{answer}");
    assert_eq!(used(&world, &grant, "queries"), 2);
}

#[test]
fn the_budget_of_rows_ends_an_answer_and_then_the_window() {
    let world = world_of("returned_bytes_max = \"60KB\"\n");
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    let all = insert("all", "SELECT * FROM finance.daily");
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&all));
    assert_eq!(status, 200, "{answer}");
    let results = "/bigquery/v2/projects/demo-project/queries/all?maxResults=100";
    let mut whole = 0;
    loop {
        streams.send(&json!([{"method": "GET", "path": results}]).to_string());
        // A reset may overtake the head of the answer.
        let head = streams.receive();
        if head["ending"] == "reset" {
            break;
        }
        assert_eq!(head["status"], 200, "{head}");
        let end = streams.receive();
        if end["ending"] != "whole" {
            break;
        }
        whole += end["got"].as_u64().expect("a number");
        wait_for("the charge", || {
            used(&world, &grant, "returned_bytes") == whole
        });
    }
    assert!((1..60_000).contains(&whole), "{whole}");
    wait_for("the close", || !world.events("closed").is_empty());
    assert_eq!(world.events("closed")[0]["reason"], "budget_spent");
    assert_eq!(
        used(&world, &grant, "returned_bytes"),
        60_000,
        "not a byte more"
    );
}

#[test]
fn a_start_without_a_plain_answer_holds_its_place_until_bigquery_says_that_there_is_no_such_job() {
    let world = world_of("jobs_at_once_max = 2\n");
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    // Its dry run is known from here on.
    let (status, _) = ask(&mut streams, "POST", JOBS, Some(&insert("first", DAILY)));
    assert_eq!(status, 200);
    world.set_faults(&json!({"instead": [503, {}]}));
    for name in ["one", "two"] {
        let (status, _) = ask(&mut streams, "POST", JOBS, Some(&insert(name, DAILY)));
        assert_eq!(status, 503);
    }
    assert_eq!(used(&world, &grant, "jobs_at_once"), 2);
    world.set_faults(&json!({}));
    wait_for("both places", || used(&world, &grant, "jobs_at_once") == 0);
    // The job of that name may begin yet: no other may have it, and the same start may be tried again.
    let other = insert("one", "SELECT * FROM finance.accounts");
    let (_, answer) = ask(&mut streams, "POST", JOBS, Some(&other));
    assert_eq!(code(&answer), "job.id_used", "{answer}");
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&insert("one", DAILY)));
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&insert("three", DAILY)));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(bytes_used(&world, &grant), 30 * MIB);
}

#[test]
fn a_job_is_looked_at_before_it_is_deleted() {
    let world = world_of("jobs_at_once_max = 1\n");
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 2500}));
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&insert("gone", DAILY)));
    assert_eq!(
        (status, &answer["status"]["state"]),
        (200, &json!("RUNNING"))
    );
    let delete = format!("{JOBS}/gone/delete");
    let (_, answer) = ask(&mut streams, "DELETE", &delete, None);
    assert_eq!(
        code(&answer),
        "query.not_vouched",
        "while it runs: {answer}"
    );
    wait_for("its end", || {
        let request = json!({"method": "DELETE", "path": delete});
        streams.send(&json!([request]).to_string());
        let head = streams.receive();
        let _ = streams.receive();
        head["status"] == 200
    });
    assert_eq!(used(&world, &grant, "jobs_at_once"), 0);
    assert_eq!(bytes_used(&world, &grant), 10 * MIB);
}
