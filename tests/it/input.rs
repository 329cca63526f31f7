//! Bad input: each refused with a code and recorded, or named with its cure; never forwarded.

use std::process::Stdio;

use harness::stage::Side;
use harness::world::{Family, Who, World, enforcer};

/// Sends bytes over TLS as they are, and prints the first line and the body of what comes back.
const RAW: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
stream = context.wrap_socket(socket.create_connection(("bigquery.googleapis.com", 443)), server_hostname="bigquery.googleapis.com")
stream.sendall(sys.stdin.buffer.read())
stream.settimeout(5)
got = b""
try:
    while part := stream.recv(65536):
        got += part
except (TimeoutError, OSError):
    pass
print(got.decode("latin-1"))
"#;

fn send(world: &World, bytes: &[u8]) -> String {
    use std::io::Write;
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    command
        .args(["-c", RAW])
        .arg(world.stage.dir().join("run/ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("python runs");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(bytes)
        .expect("sends");
    let output = child.wait_with_output().expect("ends");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into_bytes()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one line for each case")]
fn malformed_and_unknown_requests_are_refused_with_a_code_recorded_and_never_forwarded() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "2m");
    let jobs = "/bigquery/v2/projects/demo-project/jobs";
    let legacy = r#"{"configuration":{"query":{"query":"SELECT 1"}}}"#;
    let doubled = r#"{"configuration":{"query":{"query":"SELECT 1","query":"SELECT 2","useLegacySql":false}}}"#;
    let large = format!(
        r#"{{"configuration":{{"query":{{"query":"{}","useLegacySql":false}}}}}}"#,
        "x".repeat(1_100_000)
    );
    let write = r#"{"configuration":{"query":{"query":"DELETE FROM finance.daily WHERE true","useLegacySql":false}}}"#;
    let get = |path: &str, host: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "api.field",
            post("/upload/bigquery/v2/projects/demo-project/jobs", "{}"),
        ),
        ("api.method", post("/batch/bigquery/v2", "{}")),
        (
            "api.method",
            get("/nothing/here", "bigquery.googleapis.com"),
        ),
        ("api.malformed", post(jobs, "{not json")),
        ("api.malformed", post(jobs, doubled)),
        ("api.body_too_large", post(jobs, &large)),
        ("query.legacy_sql", post(jobs, legacy)),
        ("scope.read_only", post(jobs, write)),
        (
            "api.host",
            get("/bigquery/v2/projects", "storage.googleapis.com"),
        ),
        (
            "api.malformed",
            get(
                "/bigquery/v2/projects/a%2fb/datasets",
                "bigquery.googleapis.com",
            ),
        ),
        (
            "job.foreign",
            get(
                "/bigquery/v2/projects/demo-project/jobs/somebody-elses",
                "bigquery.googleapis.com",
            ),
        ),
        (
            "scope.outside",
            get(
                "/bigquery/v2/projects/demo-project/datasets/hr",
                "bigquery.googleapis.com",
            ),
        ),
        (
            "scope.outside",
            get(
                "/bigquery/v2/projects/demo-project/datasets/hr/tables/salaries/data",
                "bigquery.googleapis.com",
            ),
        ),
    ];
    for (code, bytes) in &cases {
        let answer = send(&world, bytes);
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains(&format!("[{code}]")),
            "{code}: {answer}"
        );
    }
    let recorded = world.events("query_refused");
    for (code, _) in &cases {
        assert!(
            recorded
                .iter()
                .any(|event| event["refusal"]["code"] == *code),
            "{code} is on record"
        );
    }
    let forwarded: Vec<String> = world
        .far_requests()
        .iter()
        .filter(|request| {
            request["host"] == "bigquery.googleapis.com"
                && !request["body"]
                    .as_str()
                    .unwrap_or("")
                    .contains("\"dryRun\":true")
        })
        .map(|request| request["path"].to_string())
        .collect();
    assert_eq!(
        forwarded,
        Vec::<String>::new(),
        "nothing but dry runs went out"
    );
}

#[test]
fn no_flood_hides_the_text_of_a_query_that_bigquery_is_asked_about() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "2m");
    let mut flood = Vec::new();
    for at in 0..80 {
        flood.extend(
            format!("GET /junk{at} HTTP/1.1\r\nHost: bigquery.googleapis.com\r\n\r\n").into_bytes(),
        );
    }
    let body = r#"{"configuration":{"query":{"query":"SELECT name, 'marker' FROM finance.hr_view","useLegacySql":false}}}"#;
    flood.extend(post("/bigquery/v2/projects/demo-project/jobs", body));
    let answer = send(&world, &flood);
    assert!(answer.contains("[scope.outside]"), "{answer}");
    let sent = world.far_requests();
    let sent = sent
        .iter()
        .filter(|request| request["body"].to_string().contains("marker"));
    assert_eq!(sent.count(), 1, "its dry run went out");
    let asked = world.events("query_asked");
    assert!(
        asked
            .iter()
            .any(|event| event["sql"].to_string().contains("marker")),
        "{asked:?}"
    );
}

#[test]
fn a_deep_text_is_refused_or_answered_and_the_daemon_lives() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "2m");
    let deep = [
        format!("SELECT a{} FROM finance.daily AS a", "-1".repeat(20_000)),
        format!("SELECT a{} FROM finance.daily AS a", "-1".repeat(200_000)),
        format!("SELECT a{} FROM finance.daily AS a", ".b".repeat(100_000)),
    ];
    for sql in deep {
        let body = format!(r#"{{"query":"{sql}","useLegacySql":false}}"#);
        let answer = send(
            &world,
            &post("/bigquery/v2/projects/demo-project/queries", &body),
        );
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    }
    assert!(world.query(&["SELECT COUNT(*) FROM finance.daily"])[0]["rows"].is_array());
    assert_eq!(world.events("daemon_started").len(), 1, "it never died");
}

#[test]
fn no_trick_with_names_tells_of_a_table_outside() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "2m");
    for sql in [
        "WITH hr AS (SELECT 1 AS a) SELECT nosuchcol FROM hr.salaries",
        "WITH hr AS (SELECT 1 AS a) SELECT * FROM hr.nosuch",
        "SELECT nosuchcol FROM hr.salaries AS s, finance.daily AS hr",
        "SELECT nosuchcol FROM hr.salaries AS hr",
    ] {
        let refused = world.query(&[sql]).remove(0);
        let error = refused["error"]
            .as_str()
            .unwrap_or_else(|| panic!("{refused}"));
        assert!(error.contains("[scope.outside]"), "{sql}: {error}");
    }
    for sql in [
        r"SELECT 1 -- \r UNION ALL SELECT 2",
        r#"SELECT b'\\' , ' , hr.secret(1) AS x FROM finance.daily -- ' AS y FROM finance.daily"#,
    ] {
        let body = format!(
            r#"{{"query":"{}","useLegacySql":false}}"#,
            sql.replace('"', "\\\"")
        );
        let answer = send(
            &world,
            &post("/bigquery/v2/projects/demo-project/queries", &body),
        );
        assert!(answer.contains("[query.not_vouched]"), "{sql}: {answer}");
    }
    let asked = world.events("query_asked");
    assert!(asked.is_empty(), "none was sent to BigQuery: {asked:?}");
}

/// Requests with more than one reading, or none.
fn ambiguous() -> Vec<Vec<u8>> {
    let jobs = "/bigquery/v2/projects/demo-project/jobs";
    let body = r#"{"configuration":{"query":{"query":"SELECT 1","useLegacySql":false}}}"#;
    let head = |lines: &str| {
        format!(
            "POST {jobs} HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nContent-Type: application/json\r\n{lines}\r\n"
        )
    };
    let length = format!("Content-Length: {}\r\n", body.len());
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    [
        head(&[&length, chunked].concat()) + &chunks,
        head(&[chunked, &length].concat()) + &chunks,
        head(&[length.as_str(), &length].concat()) + body,
        head("Transfer-Encoding: gzip, chunked\r\n") + &chunks,
        head(chunked) + &chunks.replacen("\r\n", ";x=y\r\n", 1),
        head(chunked) + &chunks.replacen("0\r\n\r\n", "0\r\nX: y\r\n\r\n", 1),
        (head(&length) + body).replace("\r\n", "\n"),
        (head(&length) + body).replace("HTTP/1.1", "HTTP/1.0"),
        head(&format!("{length}X: a\r\n b\r\n")) + body,
        "\0\u{1}garbage\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect()
}

#[test]
fn what_has_more_than_one_reading_is_refused_like_anything_else_and_never_forwarded() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "2m");
    let cases = ambiguous();
    for bytes in &cases {
        let answer = send(&world, bytes);
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("[api.malformed]"),
            "{}: {answer}",
            String::from_utf8_lossy(bytes)
        );
        assert_eq!(answer.matches("HTTP/1.1 403").count(), 1, "{answer}");
    }
    // Behind a good request it is answered in its turn.
    let mut behind =
        b"GET /bigquery/v2/projects HTTP/1.1\r\nHost: bigquery.googleapis.com\r\n\r\n".to_vec();
    behind.extend(&cases[0]);
    let answer = send(&world, &behind);
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("HTTP/1.1 403"),
        "{answer}"
    );
    let recorded = world.events("query_refused");
    let malformed = recorded
        .iter()
        .filter(|event| event["refusal"]["code"] == "api.malformed");
    assert_eq!(malformed.count(), cases.len() + 1, "each is on record");
    let forwarded = world.far_requests();
    let jobs = forwarded.iter().filter(|request| {
        request["host"] == "bigquery.googleapis.com" && request["method"] == "POST"
    });
    assert_eq!(jobs.count(), 0, "not even a dry run went out");
}

/// Agrees on HTTP/2 and does not speak it.
const NOT_HTTP2: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.set_alpn_protocols(["h2"])
stream = context.wrap_socket(socket.create_connection(("bigquery.googleapis.com", 443)), server_hostname="bigquery.googleapis.com")
stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + b"\0\0\x05\x01\x05\0\0\0\x02\xff\xff\xff\xff\xff")
stream.settimeout(5)
try:
    while stream.recv(65536):
        pass
except OSError:
    pass
"#;

#[test]
fn a_connection_that_breaks_http2_ends_and_is_recorded() {
    let world = World::start(Family::V4);
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    command
        .args(["-c", NOT_HTTP2])
        .arg(world.stage.dir().join("run/ca.pem"));
    assert!(command.status().expect("python runs").success());
    harness::world::wait_for("the record", || {
        let refused = world.events("connection_refused");
        refused.iter().any(|event| {
            event["agent"] == "finance-bot" && event["refusal"]["code"] == "api.malformed"
        })
    });
}

/// Sends one HTTP/2 request whose path is no path, with the client library that the tests have.
const BROKEN_REQUEST: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.set_alpn_protocols(["h2"])
stream = context.wrap_socket(socket.create_connection(("bigquery.googleapis.com", 443)), server_hostname="bigquery.googleapis.com")
# SETTINGS, then HEADERS of literals: GET, https, an authority, and an empty path.
literal = lambda name, value: b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
block = literal(b":method", b"GET") + literal(b":scheme", b"https") + literal(b":authority", b"bigquery.googleapis.com") + literal(b":path", b"")
stream.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0" + len(block).to_bytes(3, "big") + b"\x01\x05\0\0\0\x01" + block)
stream.settimeout(5)
got = b""
try:
    while b"\0\0\x04\x03" not in got:
        part = stream.recv(65536)
        if not part:
            break
        got += part
except OSError:
    pass
print("reset" if b"\0\0\x04\x03" in got else got)
"#;

#[test]
fn a_request_that_breaks_http2_is_reset_and_recorded() {
    let world = World::start(Family::V4);
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let output = command
        .args(["-c", BROKEN_REQUEST])
        .arg(world.stage.dir().join("run/ca.pem"))
        .output()
        .expect("python runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "reset");
    harness::world::wait_for("the record", || {
        let refused = world.events("connection_refused");
        refused.iter().any(|event| {
            event["agent"] == "finance-bot"
                && event["refusal"]["what"]
                    .as_str()
                    .is_some_and(|what| what.contains("was reset"))
        })
    });
}

#[test]
fn lists_show_only_what_is_in_scope() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let get = |path: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nConnection: close\r\n\r\n")
            .into_bytes()
    };
    let datasets = send(&world, &get("/bigquery/v2/projects/demo-project/datasets"));
    assert!(
        datasets.starts_with("HTTP/1.1 200")
            && datasets.contains("finance")
            && !datasets.contains("\"hr\""),
        "{datasets}"
    );
    let tables = send(
        &world,
        &get("/bigquery/v2/projects/demo-project/datasets/finance/tables"),
    );
    assert!(
        tables.starts_with("HTTP/1.1 200") && tables.contains("daily"),
        "{tables}"
    );
}

#[test]
fn what_cannot_start_says_why_and_what_to_do() {
    let mut world = World::start(Family::V4);
    let start = |world: &World, config: &str| {
        let path = world.stage.dir().join("bad.toml");
        std::fs::write(&path, config).expect("writes");
        let mut command = world.stage.command(Side::Host, enforcer());
        let output = command
            .arg("daemon")
            .arg("--config")
            .arg(&path)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(1), "it must not start");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let good = std::fs::read_to_string(world.config()).expect("reads");
    assert!(start(&world, &good.replace("[kernel]", "[kernell]")).contains("kernell"));
    assert!(
        start(&world, &good).contains("the other enforcer"),
        "a second daemon is refused, by cgroup or by pins"
    );
    world.kill_daemon();
    let missing = good.replace("policy.toml", "no-such-policy.toml");
    assert!(start(&world, &missing).contains("no-such-policy.toml"));
    let wrong_root = good.replace(&world.stage.cgroups.root().display().to_string(), "/proc");
    assert!(start(&world, &wrong_root).contains("cgroup v2 mount"));
    let no_bpffs = good.replace("/bpf/enforcer", "/elsewhere/enforcer");
    assert!(start(&world, &no_bpffs).contains("bpffs"));
    let key = world.state_dir().join("issuer.pem");
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("opens");
    assert!(start(&world, &good).contains("chmod"));
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("closes");
    let taken = world.stage.on(Side::Host, || {
        std::net::TcpListener::bind("127.0.0.1:841").expect("binds")
    });
    assert!(start(&world, &good).contains("proxy.port"));
    drop(taken);
    world.start_daemon();
    let unreachable = world
        .run_as(Who::Approver, enforcer())
        .args(["--socket", "/nowhere", "status"])
        .output()
        .expect("runs");
    assert_eq!(unreachable.status.code(), Some(4));
}

#[test]
fn a_process_joins_a_workload_only_as_the_agents_uid_or_root() {
    let world = World::start(Family::V4);
    let run = |who, agent: &str| {
        world.cli(
            who,
            &[
                "run",
                "--agent",
                agent,
                "--",
                "/bin/sh",
                "-c",
                "cat /proc/self/cgroup; id -u; echo $REQUESTS_CA_BUNDLE",
            ],
        )
    };
    let joined = run(Who::Operator, "finance-bot");
    let printed = String::from_utf8_lossy(&joined.stdout).into_owned();
    assert!(
        printed.contains("/agents/finance-bot")
            && printed.contains("2001")
            && printed.contains("ca-bundle.pem"),
        "{printed}"
    );
    assert_eq!(
        run(Who::Approver, "finance-bot").status.code(),
        Some(3),
        "another uid may not"
    );
    assert_eq!(
        run(Who::Agent, "ops-bot").status.code(),
        Some(3),
        "nor another agent"
    );
    assert_eq!(world.events("process_joined").len(), 1);
}
