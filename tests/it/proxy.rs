//! What the proxy adds, refuses and cuts, seen from both sides.

use std::io::Read;
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use enforcer::proxy::quota::CONNECTIONS_PER_AGENT_MAX;
use harness::programs::said;
use harness::stage::Side;
use harness::world::{Family, Who, World, wait_for};
use serde_json::Value;

/// What that result is at least, bytes.
const WHOLE_BYTES: u64 = 30_000_000;
/// Starts a job with tens of megabytes of result, then reads it slowly, over the end of its window.
const SLOW_READER: &str = r#"
import http.client, json, ssl, sys, time
connection = http.client.HTTPSConnection("bigquery.googleapis.com", context=ssl.create_default_context(cafile=sys.argv[1]))
sql = "SELECT n, REPEAT('x', 2000) AS text FROM UNNEST(GENERATE_ARRAY(1, 20000)) AS n"
body = json.dumps({"configuration": {"query": {"query": sql, "useLegacySql": False}}, "jobReference": {"jobId": "big", "projectId": "demo-project"}})
connection.request("POST", "/bigquery/v2/projects/demo-project/jobs", body, {"content-type": "application/json"})
answer = connection.getresponse(); answer.read()
while True:
    connection.request("GET", "/bigquery/v2/projects/demo-project/jobs/big")
    if json.loads(connection.getresponse().read())["status"]["state"] == "DONE":
        break
    time.sleep(0.1)
connection.request("GET", "/bigquery/v2/projects/demo-project/queries/big?maxResults=20000")
answer = connection.getresponse()
got = len(answer.read(1000000))
print("reading", flush=True)
sys.stdin.readline()
began = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
try:
    while part := answer.read(65536):
        got += len(part)
    ending = "end"
except (OSError, http.client.HTTPException) as error:
    ending = type(error).__name__
print(json.dumps({"got": got, "ending": ending}), flush=True)
"#;

fn is_cut_under_a_client_that_does_not_read(family: Family) {
    use std::io::{BufRead, BufReader, Write};
    let world = World::start(family);
    let _ = world.open_window("demo-project.finance:read", "8s");
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    command
        .args(["-c", SLOW_READER])
        .arg(world.stage.dir().join("run/ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("python runs");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    output.read_line(&mut line).expect("reads");
    assert_eq!(line.trim(), "reading");
    let closes = world.events("approved")[0]["closes_boot_ns"]
        .as_u64()
        .expect("a deadline");
    wait_for("the cut", || {
        world.events("query_finished").iter().any(|event| {
            event["trouble"]
                .as_str()
                .is_some_and(|why| why.contains("cut"))
        })
    });
    let records = world.records();
    let cut = records
        .iter()
        .find(|record| {
            record["event"]["trouble"]
                .as_str()
                .is_some_and(|why| why.contains("cut"))
        })
        .expect("recorded");
    let late_ns = cut["boot_ns"]
        .as_u64()
        .expect("a time")
        .saturating_sub(closes);
    assert!(
        late_ns < 1_000_000_000,
        "the cut is on record {late_ns} ns after the deadline"
    );
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(b"go on\n")
        .expect("writes");
    line.clear();
    output.read_line(&mut line).expect("reads");
    let seen: Value = serde_json::from_str(&line).expect("JSON");
    child.wait().expect("ends");
    let got = seen["got"].as_u64().expect("a number");
    assert!(
        got < WHOLE_BYTES && seen["ending"] != "end",
        "the client hears that it did not get all: {seen}"
    );
}

#[test]
fn a_stream_is_cut_at_the_close_even_when_its_client_does_not_read_on_ipv4() {
    is_cut_under_a_client_that_does_not_read(Family::V4);
}

#[test]
fn a_stream_is_cut_at_the_close_even_when_its_client_does_not_read_on_ipv6() {
    is_cut_under_a_client_that_does_not_read(Family::V6);
}

#[test]
fn a_connection_that_the_kernel_did_not_lead_here_gets_not_one_byte_and_is_recorded() {
    let world = World::start(Family::V4);
    // The test's own thread is outside the cgroups that are governed: it stands for any way around the kernel programs.
    let answer = world.stage.on(Side::Host, || {
        let mut stream = TcpStream::connect("127.0.0.1:841").expect("connects");
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("sets");
        let mut got = Vec::new();
        (
            stream.read_to_end(&mut got).map_err(|error| error.kind()),
            got,
        )
    });
    assert_eq!(
        answer,
        (Err(std::io::ErrorKind::ConnectionReset), Vec::new())
    );
    wait_for("the record", || {
        world
            .events("connection_refused")
            .iter()
            .any(|event| event["refusal"]["code"] == "caller.unknown")
    });
}

/// Connects so many times, and resets each connection at once. Prints its pid first.
const RESETTER: &str = r#"
import os, socket, struct, sys
print(os.getpid(), flush=True)
for _ in range(int(sys.argv[2])):
    stream = socket.create_connection((sys.argv[1], 443), 10)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()
"#;

fn is_on_record_when_it_resets_at_once(family: Family) {
    const TIMES: u64 = 300;
    let world = World::start(family);
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let to = world.bigquery_here().to_string();
    let printed = said(command.args(["-c", RESETTER, &to, &TIMES.to_string()]));
    let pid: u64 = printed.trim().parse().expect("a pid");
    let count = |event: &Value| event["count"].as_u64().expect("a number");
    let mut refused = Vec::new();
    wait_for("each of them on record", || {
        refused = world.events("connection_refused");
        refused.iter().map(count).sum::<u64>() >= TIMES
    });
    for event in &refused {
        assert_eq!(
            (&event["agent"], &event["process"]["pid"]),
            (&"finance-bot".into(), &pid.into()),
            "{event}"
        );
        assert_ne!(event["refusal"]["code"], "caller.unknown", "{event}");
    }
    assert_eq!(refused.iter().map(count).sum::<u64>(), TIMES);
}

#[test]
fn an_agent_that_resets_its_connections_at_once_is_on_record_for_each_of_them_on_ipv4() {
    is_on_record_when_it_resets_at_once(Family::V4);
}

#[test]
fn an_agent_that_resets_its_connections_at_once_is_on_record_for_each_of_them_on_ipv6() {
    is_on_record_when_it_resets_at_once(Family::V6);
}

#[test]
fn a_job_goes_out_bounded_labelled_and_under_its_own_identity() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "1m");
    assert!(world.query(&["SELECT COUNT(*) FROM finance.daily"])[0]["rows"].is_array());
    let requests = world.far_requests();
    let bodies: Vec<Value> = requests
        .iter()
        .filter_map(|request| serde_json::from_str(request["body"].as_str()?).ok())
        .collect();
    let (dry, real): (Vec<&Value>, Vec<&Value>) = bodies
        .iter()
        .filter(|body| body["configuration"].is_object())
        .partition(|body| body["configuration"]["dryRun"] == true);
    assert_eq!(
        (dry.len(), real.len()),
        (1, 1),
        "one dry run before the one job"
    );
    let configuration = &real[0]["configuration"];
    assert_eq!(configuration["labels"]["enforcer_agent"], "finance-bot");
    assert_eq!(configuration["labels"]["enforcer_grant"], grant.as_str());
    assert_eq!(configuration["query"]["maximumBytesBilled"], "10485760");
    let timeout: u64 = configuration["jobTimeoutMs"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a timeout");
    assert!((1..=60_000).contains(&timeout));
    let minted = world.tokens();
    assert_eq!(minted[0]["sub"], "host-a/agent/finance-bot");
    assert_eq!(minted[0]["claims"]["grant"], grant.as_str());
    assert_eq!(
        minted[0]["claims"]["datasets"],
        serde_json::json!(["ds:demo-project.finance"])
    );
    let life =
        minted[0]["expires"].as_f64().expect("a time") - SystemClock.now().unix_ns as f64 / 1e9;
    assert!(
        life < 125.0,
        "the token's life follows the window: {life} s"
    );
}

#[test]
fn an_agent_that_is_dropped_instead_of_explained_to_gets_eperm() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config("uid = 2001", "uid = 2001\nclosed = \"drop\"");
    world.start_daemon();
    let connect = || world.probe(Who::Agent, world.bigquery_here());
    assert_eq!(connect(), "EPERM");
    wait_for("the record", || {
        world
            .events("kernel_refused")
            .iter()
            .any(|event| event["agent"] == "finance-bot")
    });
    let _ = world.open_window("demo-project.finance:read", "1m");
    assert_eq!(connect(), "ok");
}

/// Opens connections until one is reset, and says how many stayed and what a new one of the same kind gets.
const HOARD: &str = r#"
import socket, ssl, sys, time
context = ssl.create_default_context(cafile=sys.argv[1])
held = []
for _ in range(int(sys.argv[2])):
    stream = socket.create_connection(("bigquery.googleapis.com", 443))
    try:
        held.append(context.wrap_socket(stream, server_hostname="bigquery.googleapis.com"))
    except OSError:
        break
print(len(held), flush=True)
sys.stdin.readline()
"#;

#[test]
fn an_agent_that_hoards_connections_is_stopped_and_keeps_nobody_else_out() {
    use std::io::{BufRead, BufReader};
    let world = World::start(Family::V4);
    let mut command = world.run_as(Who::OtherAgent, "/usr/bin/python3");
    command
        .args(["-c", HOARD])
        .arg(world.stage.dir().join("run/ca.pem"))
        .arg((CONNECTIONS_PER_AGENT_MAX + 10).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect("python runs");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    output.read_line(&mut line).expect("reads");
    assert_eq!(line.trim(), CONNECTIONS_PER_AGENT_MAX.to_string());
    wait_for("the record", || {
        world
            .events("connection_refused")
            .iter()
            .any(|event| event["refusal"]["code"] == "daemon.overloaded")
    });
    let _ = world.open_window("demo-project.finance:read", "1m");
    assert!(world.query(&["SELECT COUNT(*) FROM finance.daily"])[0]["rows"].is_array());
    drop(child.stdin.take());
    child.wait().expect("ends");
}
