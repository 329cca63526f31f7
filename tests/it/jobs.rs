//! Every job that a window starts, to its end: whatever its id, however its start was answered, whether or not the daemon lived through it.

use std::process::{Command, Stdio};
use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use harness::world::{Client, Family, Who, World, cloud_sdk_is_missing, venv_python, wait_for};
use serde_json::{Value, json};

use crate::budget::{DAILY, JOBS, MIB, ask, code, insert, start_unanswered, used, world_of};
use crate::surface::{PROJECT, send};
use crate::writes::{one, table};

const UPLOAD: &str = "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=resumable";
const WRITING: &str = "demo-project.finance:read,demo-project.scratch:ddl";

/// Sends whole uploads to these places, and is gone before they are answered.
const GONE: &str = r#"
import socket, ssl, sys, time
context = ssl.create_default_context(cafile=sys.argv[1])
for path in sys.argv[2:]:
    wire = context.wrap_socket(socket.create_connection(("bigquery.googleapis.com", 443)), server_hostname="bigquery.googleapis.com")
    wire.sendall(f"PUT {path} HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nContent-Length: 8\r\n\r\n".encode() + b'{"a": 1}')
    time.sleep(0.15)
    wire.close()
"#;

/// Starts a job by the legacy name of the API.
const BY_WWW: &str = r#"
import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
connection = http.client.HTTPSConnection("www.googleapis.com", context=context, timeout=30)
connection.request("POST", sys.argv[2], sys.argv[3], {"content-type": "application/json"})
sys.exit(0 if connection.getresponse().status == 200 else 1)
"#;

/// What has come of the jobs of closed windows.
fn settled(world: &World) -> Vec<Value> {
    let events = world.events("job_cancelled").into_iter();
    events.filter(|event| event["is_settled"] == true).collect()
}

fn start(streams: &mut Client, id: &str, sql: &str) -> Value {
    let (status, answer) = ask(streams, "POST", JOBS, Some(&insert(id, sql)));
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Begins this many uploads, and gives their places.
fn begin_uploads(world: &World, count: usize) -> Vec<String> {
    let begin = |number: usize| {
        let load = json!({"destinationTable": table("scratch", &format!("t{number}")), "sourceFormat": "NEWLINE_DELIMITED_JSON", "autodetect": true});
        json!(["POST", UPLOAD, {"configuration": {"load": load}}])
    };
    let all: Vec<Value> = (0..count).map(begin).collect();
    let places = send(world, &json!(all)).into_iter().map(|begun| {
        let place = begun.place.unwrap_or_else(|| panic!("{}", begun.body));
        let path = place.strip_prefix("https://bigquery.googleapis.com");
        path.expect("here").to_owned()
    });
    places.collect()
}

fn send_and_go(world: &World, places: &[String]) {
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    command.args(["-c", GONE]);
    command
        .arg(world.stage.dir().join("run/ca.pem"))
        .args(places);
    let output = command.output().expect("runs");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn an_id_is_used_once_in_a_window_also_when_its_job_was_deleted() {
    let world = world_of(&format!("bytes_max = \"{}B\"\n", 25 * MIB));
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    let _ = start(&mut streams, "again", DAILY);
    let again = insert("again", "SELECT * FROM finance.accounts");
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&insert("again", DAILY)));
    assert_eq!((status, code(&answer)), (409, "job.duplicate"), "the same");
    for is_deleted in [false, true] {
        if is_deleted {
            let delete = format!("{JOBS}/again/delete");
            let (status, answer) = ask(&mut streams, "DELETE", &delete, None);
            assert_eq!(status, 200, "{answer}");
        }
        // However it is written: with its location, or an upload's.
        let mut there = again.clone();
        there["jobReference"]["location"] = json!("us");
        for body in [&again, &there] {
            let (_, answer) = ask(&mut streams, "POST", JOBS, Some(body));
            assert_eq!(code(&answer), "job.id_used", "{answer}");
        }
    }
    assert_eq!(used(&world, &grant, "bytes"), 10 * MIB);
    let started = world.events("query_admitted");
    let started = started
        .iter()
        .filter(|event| event["method"] == "jobs.insert");
    assert_eq!(started.count(), 1);
    // Another window may use it.
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let _ = world.open_window("demo-project.finance:read", "5m");
    let _ = start(&mut streams, "again", DAILY);
}

/// A query by Python's own client, which tries a start again by itself.
const TRIED_AGAIN: &str = r#"
from google.cloud import bigquery
from google.oauth2.credentials import Credentials
client = bigquery.Client(project="demo-project", credentials=Credentials("ya29.the-agents-own-token"))
print(len(list(client.query("SELECT amount FROM finance.daily LIMIT 3").result())), "rows")
"#;

/// Runs a client while starts are answered with a failure, which passes a moment after the first of them.
fn through_a_failure(world: &World, mut client: Command, fault: &str) -> String {
    let begun = |world: &World| {
        let mut begun = world.events("query_admitted");
        begun.retain(|event| event["method"] == "jobs.insert" && event["is_dry_run"] != true);
        begun.len()
    };
    let before = begun(world);
    world.set_faults(&json!({fault: 503}));
    client.stdout(Stdio::piped()).stderr(Stdio::piped());
    let running = client.spawn().expect("runs");
    wait_for("a start", || begun(world) > before);
    // The far side reads it.
    std::thread::sleep(Duration::from_millis(400));
    world.set_faults(&json!({}));
    let output = running.wait_with_output().expect("ends");
    let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{words}");
    words
}

#[test]
fn a_client_that_tries_a_start_again_after_a_passing_failure_gets_its_one_job() {
    let world = world_of("queries_max = 2\n");
    let grant = world.open_window("demo-project.finance:read", "5m");
    // BigQuery has not taken the start, and then it has.
    for (number, fault) in [(1, "start_instead"), (2, "start_answers")] {
        let mut python = world.run_as(Who::Agent, venv_python());
        python.args(["-c", TRIED_AGAIN]);
        let words = through_a_failure(&world, python, fault);
        assert!(words.contains("3 rows"), "{fault}: {words}");
        wait_for("the charge", || {
            used(&world, &grant, "jobs_at_once") == 0
                && used(&world, &grant, "bytes") == number * 10 * MIB
        });
        assert_eq!(used(&world, &grant, "queries"), number, "{fault}");
    }
    // It is answered as BigQuery does: try again, or the job is there.
    let refused = world.events("query_refused");
    let codes = refused.iter().map(|event| &event["refusal"]["code"]);
    for code in codes {
        assert!(
            code == "job.unanswered" || code == "job.duplicate",
            "{refused:?}"
        );
    }
}

#[test]
fn bq_tries_a_start_again_after_a_passing_failure_and_gets_its_one_job() {
    if cloud_sdk_is_missing() {
        return;
    }
    let world = world_of("");
    let grant = world.open_window("demo-project.finance:read", "5m");
    let trust = ["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"];
    let mut bq = world.run_bare(Who::Agent, "bq", &trust);
    bq.args(["query", "--nouse_legacy_sql", "--format=csv"]);
    bq.arg("SELECT amount FROM finance.daily LIMIT 3");
    let words = through_a_failure(&world, bq, "start_instead");
    assert!(words.contains("amount"), "{words}");
    wait_for("its end", || used(&world, &grant, "jobs_at_once") == 0);
    assert_eq!(used(&world, &grant, "queries"), 1);
}

#[test]
fn a_cancellation_that_fails_is_tried_again_until_the_job_has_ended_also_by_the_next_daemon() {
    let mut world = world_of("");
    for is_restarted in [false, true] {
        let grant = world.open_window("demo-project.finance:read", "5m");
        let before = settled(&world).len();
        let mut streams = world.streams();
        world.set_faults(&json!({"run_ms": 600_000}));
        for number in 0..3 {
            let _ = start(&mut streams, &format!("{grant}_{number}"), DAILY);
        }
        world.set_faults(&json!({"run_ms": 600_000, "instead": [503, {}]}));
        let _ = world.json(Who::Approver, &["revoke", &grant]);
        wait_for("a failure", || {
            let failed = world.events("job_cancelled");
            let failed = failed.iter().filter(|event| event["is_settled"] == false);
            failed.count() >= before + 3
        });
        if is_restarted {
            world.kill_daemon();
            world.start_daemon();
        }
        world.set_faults(&json!({"run_ms": 600_000, "cancel_ms": 1500}));
        wait_for("the cancellations", || settled(&world).len() == before + 3);
        for event in &settled(&world)[before..] {
            assert_eq!(event["outcome"], "cancelled", "{event}");
        }
    }
}

#[test]
fn jobs_are_looked_at_and_cancelled_by_a_name_that_is_protected_where_the_global_one_does_not_resolve()
 {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config(
        "protected = [\"bigquery.googleapis.com\"]",
        "protected = [\"www.googleapis.com\"]",
    );
    world.set_names(&json!({
        "bigquery.googleapis.com": "down",
        "www.googleapis.com": {"addresses": ["10.77.8.7"], "ttl_s": 60},
    }));
    world.start_daemon();
    for is_restarted in [false, true] {
        let grant = world.open_window("demo-project.finance:read", "5m");
        let before = settled(&world).len();
        world.set_faults(&json!({"run_ms": 600_000}));
        let body = insert(&format!("long_{grant}"), DAILY).to_string();
        let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
        command.args(["-c", BY_WWW]);
        command.arg(world.stage.dir().join("run/ca.pem"));
        let started = command.args([JOBS, body.as_str()]).output().expect("runs");
        assert!(started.status.success(), "{started:?}");
        if is_restarted {
            world.kill_daemon();
            world.start_daemon();
        }
        let _ = world.json(Who::Approver, &["revoke", &grant]);
        wait_for("the cancellation", || settled(&world).len() == before + 1);
        assert_eq!(settled(&world)[before]["outcome"], "cancelled");
    }
    let asked = world.far_requests();
    let mut hosts = asked.iter().map(|request| &request["host"]);
    assert!(
        hosts.all(|host| host != "bigquery.googleapis.com"),
        "{asked:?}"
    );
}

#[test]
fn uploads_that_were_never_sent_keep_no_job_from_being_cancelled() {
    let world = world_of("");
    let grant = world.open_window(WRITING, "5m");
    let places = begin_uploads(&world, 40);
    world.set_faults(&json!({"run_ms": 600_000}));
    send_and_go(&world, &places[39..]);
    wait_for("the job", || used(&world, &grant, "jobs_at_once") == 1);
    let closing = SystemClock.now().boot_ns;
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    wait_for("the cancellation", || !settled(&world).is_empty());
    let took = Duration::from_nanos(SystemClock.now().boot_ns - closing);
    assert!(took < Duration::from_secs(10), "{took:?}");
    let settled = settled(&world);
    assert_eq!(
        (settled.len(), &settled[0]["outcome"]),
        (1, &json!("cancelled"))
    );
}

#[test]
fn the_last_part_of_an_upload_takes_a_place_and_is_refused_where_there_is_none() {
    let world = world_of("jobs_at_once_max = 1\n");
    let grant = world.open_window(WRITING, "5m");
    let places = begin_uploads(&world, 3);
    assert_eq!(used(&world, &grant, "jobs_at_once"), 0);
    world.set_faults(&json!({"run_ms": 600_000}));
    let part = one(&world, &json!(["PUT", places[0], {"a": 1}]));
    assert_eq!(part.served()["status"]["state"], "RUNNING");
    assert_eq!(used(&world, &grant, "jobs_at_once"), 1);
    for place in &places[1..] {
        one(&world, &json!(["PUT", place, {"a": 1}])).refused("window.busy");
    }
    let begun = world.far_requests();
    let parts = begun.iter().filter(|request| request["method"] == "PUT");
    assert_eq!(parts.count(), 1, "no other was passed on");
}

#[test]
fn a_job_whose_client_has_gone_with_its_last_part_is_the_windows_own() {
    let world = world_of("jobs_at_once_max = 1\n");
    let grant = world.open_window(WRITING, "5m");
    let places = begin_uploads(&world, 3);
    world.set_faults(&json!({"run_ms": 9000}));
    send_and_go(&world, &places);
    wait_for("the job", || !world.events("job_seen").is_empty());
    assert_eq!(used(&world, &grant, "jobs_at_once"), 1);
    let seen = world.events("job_seen");
    assert_eq!(seen.len(), 1, "the others were refused: {seen:?}");
    wait_for("its end", || used(&world, &grant, "jobs_at_once") == 0);
}

#[test]
fn a_job_that_the_daemon_before_started_is_looked_at_until_it_has_ended() {
    let mut world = world_of("");
    let _ = world.open_window(WRITING, "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 4000, "reads_also": [["demo-project", "hr", "salaries"]]}));
    let sql = "CREATE TABLE scratch.loot AS SELECT id, name FROM finance.accounts";
    let answer = start(&mut streams, "ctas", sql);
    assert_eq!(answer["status"]["state"], "RUNNING");
    world.kill_daemon();
    world.start_daemon();
    wait_for("the close", || !world.events("closed").is_empty());
    assert_eq!(world.events("closed")[0]["reason"], "scope_violated");
}

#[test]
fn a_close_compares_what_had_ended_by_itself() {
    let mut world = world_of("");
    let grant = world.open_window(WRITING, "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 1500, "reads_also": [["demo-project", "hr", "salaries"]]}));
    let sql = "CREATE TABLE scratch.loot AS SELECT id, name FROM finance.accounts";
    let _ = start(&mut streams, "ctas", sql);
    world.kill_daemon();
    // It ends while nobody looks.
    std::thread::sleep(Duration::from_secs(2));
    world.start_daemon();
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    wait_for("the look", || {
        !settled(&world).is_empty() || !world.events("closed").is_empty()
    });
    wait_for("the record", || {
        let seen = world.events("job_seen");
        seen.iter()
            .any(|event| event["read_outside"] == "demo-project.hr.salaries")
    });
}

#[test]
fn no_place_stays_taken_by_what_a_daemon_left_behind() {
    let mut world = world_of("jobs_at_once_max = 3\n");
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 3000}));
    let _ = start(&mut streams, "runs", DAILY);
    world.set_faults(&json!({"run_ms": 10, "hold_start_ms": 20_000}));
    start_unanswered(&world, &mut streams, Some("lost"));
    let mut others = world.streams();
    world.set_faults(&json!({"run_ms": 3000}));
    let query = json!({"query": DAILY, "useLegacySql": false});
    let asked = json!([{"method": "POST", "path": format!("{PROJECT}/queries"), "body": query}]);
    others.send(&asked.to_string());
    wait_for("the third", || used(&world, &grant, "jobs_at_once") == 3);
    world.kill_daemon();
    world.set_faults(&json!({}));
    world.start_daemon();
    wait_for("the places", || used(&world, &grant, "jobs_at_once") == 0);
    assert_eq!(
        used(&world, &grant, "bytes"),
        30 * MIB,
        "of the nameless one the most"
    );
    assert_eq!(used(&world, &grant, "held_bytes"), 0);
    let mut streams = world.streams();
    let (status, answer) = ask(&mut streams, "GET", &format!("{JOBS}/lost"), None);
    assert_eq!((status, &answer["status"]["state"]), (200, &json!("DONE")));
}

#[test]
fn a_copy_without_a_plain_answer_is_looked_for_where_its_tables_lie() {
    let world = world_of("jobs_at_once_max = 1\n");
    let grant = world.open_window(WRITING, "5m");
    let mut streams = world.streams();
    let copy = json!({"configuration": {"copy": {"sourceTable": table("finance", "accounts"), "destinationTable": table("scratch", "c")}}});
    // The start alone is answered so.
    world.set_faults(&json!({"start_instead": 503}));
    let (status, _) = ask(&mut streams, "POST", JOBS, Some(&copy));
    assert_eq!(status, 503);
    assert_eq!(used(&world, &grant, "jobs_at_once"), 1);
    world.set_faults(&json!({}));
    wait_for("its place", || used(&world, &grant, "jobs_at_once") == 0);
    let admitted = world.events("query_admitted");
    assert_eq!(admitted.last().expect("one")["job"]["location"], "US");
    let (status, answer) = ask(&mut streams, "POST", JOBS, Some(&copy));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_query_without_a_usable_answer_is_charged_the_most_it_can_cost_and_takes_no_place() {
    let world = world_of(&format!(
        "jobs_at_once_max = 1\nbytes_max = \"{}B\"\n",
        35 * MIB
    ));
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    let queries = format!("{PROJECT}/queries");
    let query = json!({"query": DAILY, "useLegacySql": false});
    let (status, _) = ask(&mut streams, "POST", &queries, Some(&query));
    assert_eq!(status, 200);
    world.set_faults(&json!({"instead": [302, {"location": "https://elsewhere/"}]}));
    let (_, answer) = ask(&mut streams, "POST", &queries, Some(&query));
    assert_eq!(code(&answer), "upstream.failed", "{answer}");
    world.set_faults(&json!({}));
    wait_for("its place", || used(&world, &grant, "jobs_at_once") == 0);
    assert_eq!(used(&world, &grant, "bytes"), 20 * MIB);
    let (status, answer) = ask(&mut streams, "POST", &queries, Some(&query));
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn a_job_that_was_cancelled_and_says_nothing_of_its_cost_is_charged_the_most_it_can_have_been() {
    let world = world_of(&format!("bytes_max = \"{}B\"\n", 35 * MIB));
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 600_000}));
    let _ = start(&mut streams, "long", DAILY);
    assert_eq!(used(&world, &grant, "held_bytes"), 10 * MIB);
    let (status, answer) = ask(&mut streams, "POST", &format!("{JOBS}/long/cancel"), None);
    assert_eq!(status, 200, "{answer}");
    wait_for("the charge", || used(&world, &grant, "held_bytes") == 0);
    assert_eq!(used(&world, &grant, "bytes"), 10 * MIB);
    assert_eq!(used(&world, &grant, "jobs_at_once"), 0);
}

#[test]
fn what_is_asked_while_a_table_is_written_is_asked_again_once_it_is() {
    let world = world_of("");
    let _ = world.open_window(WRITING, "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"run_ms": 2500}));
    let sql = "CREATE OR REPLACE TABLE scratch.notes AS SELECT amount AS id, 'x' AS text FROM finance.daily";
    let answer = start(&mut streams, "ddl", sql);
    assert_eq!(answer["status"]["state"], "RUNNING");
    world.set_faults(&json!({}));
    let read = "SELECT COUNT(*) FROM finance.accounts";
    let dry_runs = || {
        let requests = world.far_requests();
        let bodies = requests
            .iter()
            .filter_map(|request| request["body"].as_str());
        let dry = bodies.filter(|body| body.contains("\"dryRun\":true") && body.contains(read));
        dry.count()
    };
    for number in 1..=2 {
        let _ = start(&mut streams, &format!("r{number}"), read);
        assert_eq!(dry_runs(), number, "nothing is kept");
    }
    wait_for("the end", || {
        let seen = world.events("job_seen");
        seen.iter()
            .any(|event| event["job"]["job"] == "ddl" && event["is_done"] == true)
    });
    wait_for("a verdict that is kept", || {
        let before = dry_runs();
        let id = format!("s{before}_{}", world.events("query_admitted").len());
        let _ = start(&mut streams, &id, read);
        dry_runs() == before
    });
}

#[test]
fn a_job_that_read_tables_and_names_none_has_not_said_what_it_has_read() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut streams = world.streams();
    world.set_faults(&json!({"names_no_table": true}));
    let _ = start(&mut streams, "silent", DAILY);
    let results = format!("{PROJECT}/queries/silent");
    let (_, answer) = ask(&mut streams, "GET", &results, None);
    assert_eq!(code(&answer), "upstream.failed", "{answer}");
    let _ = start(&mut streams, "nothing", "SELECT 1");
    let (status, answer) = ask(
        &mut streams,
        "GET",
        &format!("{PROJECT}/queries/nothing"),
        None,
    );
    assert_eq!(status, 200, "{answer}");
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    wait_for("the close's word", || !settled(&world).is_empty());
    let said = &settled(&world)[0];
    assert_eq!(said["job"]["job"], "silent");
    assert_eq!(
        said["outcome"],
        "it had ended, and BigQuery does not say what it has read"
    );
}
