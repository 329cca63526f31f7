//! HTTP/2: many requests on one connection, each judged on its own, also after the window that the connection was made in.

use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use harness::world::{Client, Family, Who, World, wait_for};
use serde_json::{Value, json};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
const QUERIES: &str = "/bigquery/v2/projects/demo-project/queries";
const JOBS: &str = "/bigquery/v2/projects/demo-project/jobs";

fn query(sql: &str) -> Value {
    json!({"method": "POST", "path": QUERIES, "body": {"query": sql, "useLegacySql": false}})
}

/// What came of one stream.
#[derive(Debug)]
struct Answer {
    status: u64,
    ending: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON: {self:?}"))
    }

    fn rows(&self) -> Value {
        self.json()["rows"].clone()
    }

    /// The message of a refusal as a client shows it.
    fn refusal(&self) -> String {
        let body = self.json();
        assert_eq!(
            (self.status, &body["error"]["code"]),
            (403, &json!(403)),
            "{self:?}"
        );
        body["error"]["message"]
            .as_str()
            .expect("a message")
            .to_owned()
    }
}

/// Sends requests at once, and gives their answers in the order of the requests.
fn at_once(streams: &mut Client, requests: &[Value]) -> Vec<Answer> {
    streams.send(&json!(requests).to_string());
    let mut answers: Vec<Value> = vec![json!({}); requests.len()];
    while answers.iter().any(|answer| answer["ending"].is_null()) {
        let seen = streams.receive();
        let at = seen["request"].as_u64().unwrap_or_else(|| panic!("{seen}"));
        let answer = &mut answers[usize::try_from(at).expect("small")];
        for (name, value) in seen.as_object().expect("an object") {
            answer[name] = value.clone();
        }
    }
    answers.iter().map(answer).collect()
}

fn answer(seen: &Value) -> Answer {
    let text = |name: &str| seen[name].as_str().unwrap_or_default().to_owned();
    Answer {
        status: seen["status"].as_u64().unwrap_or_default(),
        ending: text("ending"),
        body: text("body"),
    }
}

fn one(streams: &mut Client, request: Value) -> Answer {
    at_once(streams, &[request]).remove(0)
}

fn sessions(world: &World, kind: &str) -> Vec<Value> {
    let events = world.events(kind);
    events
        .iter()
        .map(|event| event["session"].clone())
        .collect()
}

#[test]
fn an_unmodified_client_is_served_over_http2_inside_a_window() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let mut curl = world.run_as(Who::Agent, "curl");
    curl.args(["--silent", "--show-error", "--http2", "--max-time", "60"])
        .args(["--header", "content-type: application/json"])
        .args(["--data", &query(DAILY)["body"].to_string()])
        .args(["--write-out", "\n%{http_version} %{http_code}"])
        .arg("--cacert")
        .arg(world.stage.dir().join("run/ca.pem"))
        .arg(format!("https://bigquery.googleapis.com{QUERIES}"));
    let output = curl.output().expect("curl runs: install curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, spoken) = text.rsplit_once('\n').expect("two parts");
    assert_eq!(
        spoken,
        "2 200",
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let served: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(served["rows"], json!([{"f": [{"v": "1000"}]}]), "{served}");
}

#[test]
fn two_streams_of_one_connection_are_judged_each_on_its_own() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let mut streams = world.streams();
    let answers = at_once(
        &mut streams,
        &[query(DAILY), query("SELECT * FROM hr.salaries")],
    );
    let (inside, outside) = (&answers[0], &answers[1]);
    assert_eq!(
        (inside.status, inside.ending.as_str()),
        (200, "whole"),
        "{inside:?}"
    );
    assert_eq!(inside.rows(), json!([{"f": [{"v": "1000"}]}]));
    let refusal = outside.refusal();
    assert!(
        refusal.contains("[scope.outside]") && refusal.contains("hr.salaries"),
        "{refusal}"
    );
    assert_eq!(
        sessions(&world, "query_admitted"),
        sessions(&world, "query_refused"),
        "one connection"
    );
}

#[test]
fn the_next_stream_of_a_connection_that_outlives_its_window_is_refused() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "6s");
    let mut streams = world.streams();
    assert_eq!(one(&mut streams, query(DAILY)).status, 200);
    let deadline = world.events("approved")[0]["closes_boot_ns"]
        .as_u64()
        .expect("a deadline");
    let forwarded = world.far_requests().len();
    // The kernel's clock is the subject: this waits for the deadline.
    let left = deadline.saturating_sub(SystemClock.now().boot_ns);
    std::thread::sleep(Duration::from_nanos(left));

    let refusal = one(&mut streams, query(DAILY)).refusal();
    assert!(
        refusal.contains("[window.") && refusal.contains("enforcer request"),
        "{refusal}"
    );
    assert_eq!(world.far_requests().len(), forwarded, "nothing went out");
    assert_eq!(
        sessions(&world, "query_admitted"),
        sessions(&world, "query_refused"),
        "one connection"
    );
}

/// What that result is at least, bytes.
const BIG_BYTES: u64 = 4_000_000;

/// Runs a job with some megabytes of result to its end.
fn run_big_job(streams: &mut Client) {
    let sql = "SELECT n, REPEAT('x', 2000) AS text FROM UNNEST(GENERATE_ARRAY(1, 2000)) AS n";
    let body = json!({
        "configuration": {"query": {"query": sql, "useLegacySql": false}},
        "jobReference": {"jobId": "big", "projectId": "demo-project"},
    });
    let started = one(
        streams,
        json!({"method": "POST", "path": JOBS, "body": body}),
    );
    assert_eq!(started.status, 200, "{started:?}");
    wait_for("the job", || {
        let job = one(
            streams,
            json!({"method": "GET", "path": format!("{JOBS}/big")}),
        );
        job.json()["status"]["state"] == "DONE"
    });
}

/// Asks for the big job's rows, closes the window while they come, and gives how the stream ended.
fn cut_under_way(world: &World, streams: &mut Client, is_stalled: bool) -> String {
    let grant = world.open_window("demo-project.finance:read", "5m");
    run_big_job(streams);
    if !is_stalled {
        // Some seconds for the whole, so that it is under way at the close.
        world.set_faults(&json!({"drip_ms": 200}));
    }
    let path = format!("{QUERIES}/big?maxResults=2000");
    let rows = json!({"method": "GET", "path": path, "stalled": is_stalled});
    streams.send(&json!([rows]).to_string());
    let head = streams.receive();
    assert_eq!(head["status"], 200, "{head}");
    if is_stalled {
        assert_eq!(streams.receive()["stalled"], true);
    }
    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    let end = streams.receive();
    let got = end["got"].as_u64().expect("a number");
    assert!(got < BIG_BYTES, "{head} {end}");
    wait_for("the record", || {
        world
            .events("query_finished")
            .iter()
            .any(|event| event["trouble"] == "cut: the window closed")
    });
    end["ending"].as_str().expect("an end").to_owned()
}

#[test]
fn a_stream_under_way_at_the_close_is_reset_and_the_next_one_is_refused() {
    let world = World::start(Family::V4);
    let mut streams = world.streams();
    let how = cut_under_way(&world, &mut streams, false);
    assert_eq!(how, "reset", "never a clean end");
    let refusal = one(&mut streams, query(DAILY)).refusal();
    assert!(refusal.contains("no open window"), "{refusal}");
}

#[test]
fn a_stream_whose_client_takes_no_more_is_cut_at_the_close_with_its_connection() {
    let world = World::start(Family::V4);
    let mut streams = world.streams();
    // The stream's body is not asked for more while the client gives no leave, so only the connection can say that it is over.
    let how = cut_under_way(&world, &mut streams, true);
    assert_eq!(how, "lost", "it does not wait for the client's leave");
}

#[test]
fn an_answer_that_was_read_whole_is_cut_at_the_close_like_any_other() {
    let world = World::start(Family::V4);
    let mut streams = world.streams();
    let grant = world.open_window("demo-project.finance:read", "5m");
    let sql = "SELECT n, REPEAT('x', 2000) AS text FROM UNNEST(GENERATE_ARRAY(1, 2000)) AS n";
    let mut whole = query(sql);
    whole["body"]["maxResults"] = json!(2000);
    whole["stalled"] = json!(true);
    streams.send(&json!([whole]).to_string());
    let head = streams.receive();
    assert!(head["length"].as_u64() > Some(4_000_000), "{head}");
    assert_eq!(streams.receive()["stalled"], true);
    assert!(
        world.events("query_finished").is_empty(),
        "not while it is being sent"
    );
    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    assert_eq!(streams.receive()["ending"], "lost");
    wait_for("the record", || !world.events("query_finished").is_empty());
    let end = &world.events("query_finished")[0];
    assert_eq!(end["trouble"], "cut: the window closed");
    assert!(end["body_bytes"].as_u64() < Some(1_000_000), "{end}");
}
