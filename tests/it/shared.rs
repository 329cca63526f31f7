//! Addresses that BigQuery shares with other names: who reaches which name there, and what is refused and recorded.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use enforcer::proxy::HANDSHAKE;
use harness::capture::Capture;
use harness::programs::tls_hello;
use harness::stage::Side;
use harness::world::{Family, Who, World, wait_for};
use serde_json::Value;

/// A name that answers where BigQuery does, with a certificate of the far side's own.
const OTHER: &str = "storage.googleapis.com";
const BIGQUERY: &str = "bigquery.googleapis.com";
const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// A request to a name at an address over TLS. Prints what it got, who signed the certificate it saw, or which error ended it.
const REQUEST: &str = r#"
import http.client, json, socket, ssl, sys
address, name, authority, path = sys.argv[1:5]
host = sys.argv[5] if len(sys.argv) > 5 else name
try:
    context = ssl.create_default_context(cafile=authority)
    stream = context.wrap_socket(socket.create_connection((address, 443), 15), server_hostname=name)
    issuer = dict(pair[0] for pair in stream.getpeercert()["issuer"])["organizationName"]
    connection = http.client.HTTPSConnection(name)
    connection.sock = stream
    got = []
    for body in sys.argv[6:] or [None]:
        connection.request("POST" if body else "GET", path, body, {"Host": host, "Authorization": "Bearer ya29.the-callers-own-token"})
        answer = connection.getresponse()
        got.append([answer.status, answer.read().decode()])
    print(json.dumps({"issuer": issuer, "got": got}))
except OSError as error:
    print(json.dumps({"error": type(error).__name__}))
"#;

/// Sends bytes as they are, in parts, a moment apart, and says how it ended and how long that took.
const SEND: &str = r#"
import json, socket, sys, time
address, part, pause_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
stream = socket.create_connection((address, 443), 30)
stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
began = time.monotonic()
data = sys.stdin.buffer.read()
got = b""
try:
    for at in range(0, len(data), part):
        stream.sendall(data[at:at + part])
        time.sleep(pause_s)
    got = stream.recv(65536)
    ending = "answer" if got else "end"
except OSError as error:
    ending = type(error).__name__
print(json.dumps({"ending": ending, "first": got[:1].hex(), "seconds": time.monotonic() - began}))
"#;

fn request(world: &World, who: Who, name: &str, authority: &str, more: &[&str]) -> Value {
    let mut command = world.run_as(who, "/usr/bin/python3");
    let output = command
        .args(["-c", REQUEST])
        .args([&world.bigquery_here().to_string(), name])
        .arg(world.stage.dir().join(authority))
        .args(if more.is_empty() { &["/b"] } else { more })
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// The same, trusting only the far side's authority: what is terminated on the way does not pass.
fn directly(world: &World, who: Who, name: &str) -> Value {
    request(world, who, name, "google/world-ca.pem", &[])
}

/// Somebody who is no agent, in a cgroup that is governed.
fn nobody(world: &World, script: &str) -> std::process::Command {
    let other = world.stage.cgroups.make("other");
    let mut command =
        world
            .stage
            .command_in(Side::Host, Some(&other), Some(3001), "/usr/bin/python3");
    command.args(["-c", script]);
    command
}

fn nobody_requests(world: &World, name: &str, more: &[&str]) -> Value {
    let output = nobody(world, REQUEST)
        .args([&world.bigquery_here().to_string(), name])
        .arg(world.stage.dir().join("google/world-ca.pem"))
        .args(if more.is_empty() { &["/b"] } else { more })
        .output()
        .expect("python runs");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// What becomes of bytes that somebody who is no agent sends, in parts, a pause after each.
fn send(world: &World, bytes: &[u8], part: usize, pause: Duration) -> Value {
    use std::io::Write;
    let mut child = nobody(world, SEND)
        .args([
            world.bigquery_here().to_string(),
            part.to_string(),
            pause.as_secs_f64().to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(bytes).expect("sends");
    drop(input);
    let output = child.wait_with_output().expect("ends");
    serde_json::from_slice(&output.stdout).expect("prints JSON")
}

/// Waits for a refusal of a connection on record, and gives it.
fn refused(world: &World, code: &str, agent: Option<&str>, said: &str) -> Value {
    let mut found = None;
    wait_for(code, || {
        found = world
            .events("connection_refused")
            .into_iter()
            .find(|event| {
                let is_said = |what: &str| what.contains(said);
                event["refusal"]["code"] == code
                    && event["agent"].as_str() == agent
                    && event["refusal"]["what"].as_str().is_some_and(is_said)
            });
        found.is_some()
    });
    found.expect("found")
}

fn at_bigquerys(world: &World) -> Capture {
    Capture::start(&world.stage, World::bigquery())
}

fn reaches_other_names_untouched(family: Family) {
    let world = World::start(family);
    let seen = nobody_requests(&world, OTHER, &["/b", OTHER, "one", "two", "three"]);
    assert_eq!(seen["issuer"], "the test world", "{seen}");
    let got = seen["got"].as_array().expect("a list");
    assert!(
        got.len() == 3 && got.iter().all(|answer| answer[0] == 200),
        "{seen}"
    );
    let requests = world.far_requests();
    let at_other = requests.iter().filter(|request| request["host"] == OTHER);
    assert_eq!(at_other.count(), 3);
    // Nothing of it is news.
    assert_eq!(world.events("connection_refused"), Vec::<Value>::new());
    let status = world.json(Who::Operator, &["status"]);
    assert!(
        status["kernel"]["redirected"].as_u64() >= Some(1),
        "{status}"
    );
}

#[test]
fn a_process_of_nobodys_reaches_another_name_on_bigquerys_address_untouched_on_ipv4() {
    reaches_other_names_untouched(Family::V4);
}

#[test]
fn a_process_of_nobodys_reaches_another_name_on_bigquerys_address_untouched_on_ipv6() {
    reaches_other_names_untouched(Family::V6);
}

#[test]
fn a_process_of_nobodys_does_not_reach_bigquery_under_any_of_its_names() {
    let world = World::start(Family::V4);
    let capture = at_bigquerys(&world);
    for name in [
        BIGQUERY,
        "BigQuery.GoogleAPIs.com",
        "bigquery.us-east1.rep.googleapis.com",
        "bigquerystorage.googleapis.com",
    ] {
        let seen = nobody_requests(&world, name, &[]);
        assert_eq!(seen["error"], "ConnectionResetError", "{name}");
    }
    assert_eq!(capture.packets(), 0, "not one packet left the host");
    let event = refused(&world, "caller.unknown", None, BIGQUERY);
    assert_eq!(event["process"]["uid"], 3001);
    assert!(
        event["process"]["comm"]
            .as_str()
            .is_some_and(|comm| comm.starts_with("python3"))
    );
}

#[test]
fn an_agent_reaches_no_other_name_and_bigquery_in_its_window_as_ever() {
    let world = World::start(Family::V4);
    let capture = at_bigquerys(&world);
    for authority in ["google/world-ca.pem", "run/ca.pem"] {
        let seen = request(&world, Who::Agent, OTHER, authority, &[]);
        assert_eq!(seen["error"], "ConnectionResetError");
    }
    refused(&world, "host.not_allowed", Some("finance-bot"), OTHER);
    assert_eq!(capture.packets(), 0, "not one packet left the host");
    let _ = world.open_window("demo-project.finance:read", "1m");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    let seen = directly(&world, Who::Agent, OTHER);
    assert_eq!(
        seen["error"], "ConnectionResetError",
        "a window is for BigQuery alone"
    );
}

/// A world where `finance-bot` is dropped without a window, and may reach one other name.
fn allowing_another_name() -> World {
    let mut world = World::without_daemon(Family::V4);
    let more = format!("uid = 2001\nclosed = \"drop\"\nallow = [\"{OTHER}\"]");
    world.edit_config("uid = 2001", &more);
    world.start_daemon();
    world
}

#[test]
fn an_agent_reaches_a_name_that_it_is_allowed_with_its_own_credential_and_each_request_is_on_record()
 {
    let world = allowing_another_name();
    let large = "x".repeat(100_000);
    let seen = request(
        &world,
        Who::Agent,
        OTHER,
        "run/ca.pem",
        &["/b/one?upload_id=secret", OTHER, "one", &large],
    );
    assert_eq!(seen["issuer"], "Enforcer", "{seen}");
    assert_eq!(
        seen["got"][1],
        serde_json::json!([200, format!("{{\"served\": \"{OTHER}\"}}")])
    );
    let requests = world.far_requests();
    let got: Vec<&Value> = requests
        .iter()
        .filter(|request| request["host"] == OTHER)
        .collect();
    assert_eq!(got.len(), 2);
    assert_eq!(
        (&got[1]["body"], &got[1]["path"]),
        (&large.as_str().into(), &"/b/one?upload_id=secret".into())
    );
    let own = serde_json::json!(["authorization", "Bearer ya29.the-callers-own-token"]);
    assert!(got[0]["headers"].as_array().expect("a list").contains(&own));
    wait_for("the record", || {
        let passed = world.events("forwarded");
        let count = |event: &Value| event["count"].as_u64().unwrap_or(0);
        let all_alike = passed.iter().all(|event| {
            event["request"] == format!("POST {OTHER}/b/one") && event["agent"] == "finance-bot"
        });
        assert!(all_alike, "{passed:?}");
        passed.iter().map(count).sum::<u64>() == 2
    });
    assert_eq!(
        world.tokens(),
        Vec::<Value>::new(),
        "no token of ours was even minted"
    );
}

#[test]
fn a_name_that_is_allowed_is_no_way_to_another_one_nor_for_another_agent() {
    let world = allowing_another_name();
    let seen = request(
        &world,
        Who::Agent,
        OTHER,
        "run/ca.pem",
        &["/bigquery/v2/projects", BIGQUERY],
    );
    let answer = &seen["got"][0];
    assert!(
        answer[0] == 403
            && answer[1]
                .as_str()
                .is_some_and(|text| text.contains("[api.host]")),
        "{seen}"
    );
    let recorded = world.events("query_refused");
    assert_eq!(
        recorded[0]["request"],
        format!("GET {OTHER}/bigquery/v2/projects")
    );
    let seen = request(&world, Who::OtherAgent, OTHER, "run/ca.pem", &[]);
    assert_eq!(seen["error"], "ConnectionResetError");
    refused(&world, "host.not_allowed", Some("ops-bot"), OTHER);
    // It is dropped without a window, which here the proxy has to say.
    let seen = request(&world, Who::Agent, BIGQUERY, "run/ca.pem", &[]);
    assert_eq!(seen["error"], "ConnectionResetError");
    refused(&world, "window.none", Some("finance-bot"), "no open window");
    let _ = world.open_window("demo-project.finance:read", "1m");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    assert_eq!(
        world
            .far_requests()
            .iter()
            .filter(|request| request["host"] == OTHER)
            .count(),
        0
    );
}

#[test]
fn each_http_2_request_over_one_connection_must_be_for_its_name() {
    let world = allowing_another_name();
    let mut streams = world.streams_to(OTHER);
    let get = |authority: &str| serde_json::json!({"method": "GET", "path": "/b", "authority": authority});
    streams.send(
        &serde_json::json!([get(OTHER), get(BIGQUERY), get("www.googleapis.com")]).to_string(),
    );
    let mut statuses = [0; 3];
    let mut ended = 0;
    while ended < 3 {
        let seen = streams.receive();
        let at = seen["request"].as_u64().unwrap_or_else(|| panic!("{seen}"));
        if let Some(status) = seen["status"].as_u64() {
            statuses[usize::try_from(at).expect("small")] = status;
        }
        ended += usize::from(seen["ending"] == "whole");
    }
    assert_eq!(statuses, [200, 403, 403]);
    let hosts: Vec<String> = world
        .far_requests()
        .iter()
        .map(|request| request["host"].to_string())
        .collect();
    assert!(hosts.iter().all(|host| host.contains(OTHER)), "{hosts:?}");
}

#[test]
fn quic_and_other_ports_of_a_shared_address_are_refused_to_everybody() {
    let world = World::start(Family::V4);
    let capture = at_bigquerys(&world);
    let probe = "import errno, socket, sys\nfor kind, port in ((2, 443), (1, 80), (1, 853)):\n s = socket.socket(2, kind)\n try:\n  s.connect((sys.argv[1], port)); s.send(b'x'); print('sent')\n except OSError as e: print(errno.errorcode[e.errno])";
    let mut commands = [
        nobody(&world, probe),
        world.run_as(Who::Agent, "/usr/bin/python3"),
    ];
    commands[1].args(["-c", probe]);
    for command in &mut commands {
        let output = command
            .arg(world.bigquery_here().to_string())
            .output()
            .expect("python runs");
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "EPERM\nEPERM\nEPERM\n"
        );
    }
    assert_eq!(capture.packets(), 0);
}

#[test]
fn a_hello_without_a_readable_name_is_refused_reset_and_recorded() {
    let world = World::start(Family::V4);
    let capture = at_bigquerys(&world);
    let whole = |bytes: &[u8]| send(&world, bytes, bytes.len(), Duration::ZERO);
    // One of the library's own extensions (encrypt_then_mac, beside extended_master_secret), renamed: what the extension holds is not read.
    let mut encrypted = tls_hello(OTHER);
    let two = [0, 22, 0, 0, 0, 23, 0, 0];
    let at = encrypted.windows(two.len()).position(|part| part == two);
    let at = at.expect("the library sends both");
    encrypted[at..at + 2].copy_from_slice(&[0xfe, 0x0d]);
    let cases: [(Vec<u8>, &str); 5] = [
        (tls_hello(""), "names no server"),
        (encrypted, "hides which server"),
        (
            b"GET / HTTP/1.1\r\nHost: storage.googleapis.com\r\n\r\n".to_vec(),
            "no TLS hello",
        ),
        (
            tls_hello("bigquery.googleapis.com")
                .iter()
                .map(|byte| if *byte == b'q' { 0 } else { *byte })
                .collect(),
            "no host name",
        ),
        (
            [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[0; 20_000]].concat(),
            "longer than",
        ),
    ];
    for (bytes, said) in &cases {
        let seen = whole(bytes);
        assert_eq!(seen["ending"], "ConnectionResetError", "{said}: {seen}");
        // Those of one process and code are counted together, so each is another process.
        refused(&world, "tls.hello", None, said);
    }
    assert_eq!(capture.packets(), 0, "not one packet left the host");
}

#[test]
fn a_hello_in_many_small_packets_is_put_together_and_one_that_never_ends_is_reset_in_time() {
    let world = World::start(Family::V4);
    let bytes = tls_hello(OTHER);
    let seen = send(&world, &bytes, 7, Duration::from_millis(2));
    // A record of the far side's answer: a ServerHello.
    assert_eq!(
        (&seen["ending"], &seen["first"]),
        (&"answer".into(), &"16".into()),
        "{seen}"
    );
    let slow = send(
        &world,
        &bytes[..bytes.len() - 1],
        40,
        Duration::from_millis(1),
    );
    assert_eq!(slow["ending"], "ConnectionResetError", "{slow}");
    let seconds = slow["seconds"].as_f64().expect("a number");
    let bound = HANDSHAKE.as_secs_f64();
    assert!((bound - 1.0..bound + 5.0).contains(&seconds), "{seconds} s");
    refused(&world, "tls.hello", None, "longer than 10 s");
}

/// A process of nobody's that holds a connection to the other name and echoes a line at a time.
struct Held {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Held {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("reads");
        line.trim().to_owned()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tries so many connections, holds those that it gets, and says how many that are. One that fails for want of time says nothing yet.
const HOARD: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
held = []
for _ in range(int(sys.argv[3])):
    try:
        stream = socket.create_connection((sys.argv[1], 443), 15)
        held.append(context.wrap_socket(stream, server_hostname="storage.googleapis.com"))
    except OSError:
        pass
print(len(held), flush=True)
sys.stdin.readline()
"#;

#[test]
fn who_hoards_connections_to_shared_addresses_is_stopped_and_keeps_no_agent_out() {
    use enforcer::proxy::quota::CONNECTIONS_PER_UID_MAX;
    let world = World::start(Family::V4);
    let mut child = nobody(&world, HOARD)
        .arg(world.bigquery_here().to_string())
        .arg(world.stage.dir().join("google/world-ca.pem"))
        .arg((CONNECTIONS_PER_UID_MAX + 40).to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut held = Held { child, output };
    assert_eq!(held.line(), CONNECTIONS_PER_UID_MAX.to_string());
    refused(&world, "daemon.overloaded", None, "Uid 3001");
    let _ = world.open_window("demo-project.finance:read", "1m");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    assert_eq!(
        nobody_requests(&world, OTHER, &[])["error"],
        "ConnectionResetError",
        "its uid has enough"
    );
}

#[test]
fn while_the_daemon_is_frozen_or_dead_shared_addresses_are_refused_to_everybody() {
    let mut world = World::start(Family::V4);
    let probe = |world: &World| {
        let other = world.stage.cgroups.make("other");
        let script = "import errno, socket, sys\ntry: socket.create_connection((sys.argv[1], 443), 1); print('ok')\nexcept OSError as e: print(errno.errorcode.get(e.errno, str(e)))";
        let mut command =
            world
                .stage
                .command_in(Side::Host, Some(&other), Some(3001), "/usr/bin/python3");
        let output = command
            .args(["-c", script, &world.bigquery_here().to_string()])
            .output()
            .expect("python runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(probe(&world), "ok");
    let capture = at_bigquerys(&world);
    world.signal_daemon(rustix::process::Signal::STOP);
    // The heartbeat grows stale: waiting for the kernel's clock is the subject.
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(probe(&world), "EPERM");
    world.signal_daemon(rustix::process::Signal::CONT);
    wait_for("the daemon to beat again", || probe(&world) == "ok");
    world.kill_daemon();
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(probe(&world), "EPERM");
    assert_eq!(capture.packets(), 0, "not one packet left the host");
}

#[test]
fn where_only_agents_are_enforced_on_others_reach_bigquery_and_the_status_says_so() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config("[kernel]", "[kernel]\nenforce = \"agents\"");
    world.start_daemon();
    let seen = nobody_requests(&world, BIGQUERY, &[]);
    assert_eq!(
        (&seen["issuer"], &seen["got"][0][0]),
        (&"the test world".into(), &401.into()),
        "{seen}"
    );
    let seen = directly(&world, Who::Agent, BIGQUERY);
    assert_eq!(
        seen["error"], "SSLCertVerificationError",
        "an agent meets the proxy"
    );
    for words in [
        vec!["status"],
        vec![
            "check",
            "--config",
            world.config().to_str().expect("a path"),
        ],
    ] {
        let output = world.cli(Who::Operator, &words);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            text.contains("NOTE: enforced on agents only"),
            "{words:?}: {text}"
        );
    }
}
