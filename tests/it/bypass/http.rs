//! Tricks inside a connection that was let in: TLS hellos, requests that mean two things, answers that lead elsewhere. Where the far side is
//! silent, not one packet for BigQuery may leave; where it answers, what counts is what it says that it was sent, and that none of what must
//! not leave is on the wire as it is.

use std::process::Stdio;

use harness::capture::Capture;
use harness::programs::tls_hello;
use harness::stage::{BIGQUERY4, OTHER4};
use harness::world::{AGENT_UID, Family, Who, World};
use serde_json::{Value, json};

use super::shown::{nothing_more_on, nothing_on, on_record};
use super::talk::{
    BIGQUERY, DATASETS, JOBS, QUERIES, Talk, each, each_is_refused, get, get_of, post, query, talk,
};
use super::{CONNECT, EPERM, Lock, agents, cases, refusal_is_on_record, said};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// A world where only names are answered, and the agent has a window.
fn in_a_window() -> Lock {
    let lock = Lock::new();
    let _ = lock.world.open_window("demo-project.finance:read", "5m");
    lock
}

/// A world where BigQuery answers, and the agent has a window.
fn with_bigquery() -> World {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "5m");
    world
}

/// A sniffer for what would be on the wire if the agent's bytes left by another way than through the daemon, whose own are encrypted.
fn wire_with<const N: usize>(world: &World, texts: [&str; N]) -> Capture {
    Capture::of_text(&world.stage, texts.map(str::to_owned))
}

/// Everything the far side's BigQuery was sent.
fn sent_to_bigquery(world: &World) -> Vec<Value> {
    let mut sent = world.far_requests();
    sent.retain(|request| request["host"] == BIGQUERY);
    sent
}

/// Opens a connection for each case that it reads (bytes, in hexadecimal, then how many of them at once), sends it, and prints how each ended
/// and after how many seconds; all at the same time.
const HELLOS: &str = r#"
import json, socket, sys, threading, time
said = {}
def send(number, data, part):
    stream = socket.create_connection((sys.argv[1], 443), 30)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    began = time.monotonic()
    try:
        for at in range(0, len(data), part):
            stream.sendall(data[at:at + part])
            time.sleep(0.001)
        first = stream.recv(1)
        ending = {b"\x15": "alert", b"\x16": "hello", b"": "end"}.get(first, first.hex())
    except OSError as error:
        ending = type(error).__name__
    said[number] = [ending, time.monotonic() - began]
cases = json.load(sys.stdin)
threads = [threading.Thread(target=send, args=(number, bytes.fromhex(data), part)) for number, (data, part) in enumerate(cases)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([said[number] for number in range(len(cases))]))
"#;

/// The hello in records of so many bytes each.
fn in_records(hello: &[u8], bytes: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).expect("short").to_be_bytes();
        [&hello[..3], &length, part].concat()
    };
    hello[5..].chunks(bytes).flat_map(record).collect()
}

/// The hello with one extension that the library sends (encrypt_then_mac, beside extended_master_secret) renamed to Encrypted Client Hello.
fn encrypted(mut hello: Vec<u8>) -> Vec<u8> {
    let two = [0, 22, 0, 0, 0, 23, 0, 0];
    let at = hello
        .windows(two.len())
        .position(|part| part == two)
        .expect("the library sends both");
    hello[at..at + 2].copy_from_slice(&[0xfe, 0x0d]);
    hello
}

/// How the agent's hellos end, each cut into parts of so many bytes, and after how many seconds.
fn hellos(lock: &Lock, cases: &[(Vec<u8>, usize)]) -> Vec<(String, f64)> {
    use std::io::Write;
    let agent = lock.world.cgroup_of(Who::Agent);
    let mut command = lock.script(&agent, Some(AGENT_UID), HELLOS, &[&BIGQUERY4.to_string()]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let told: Vec<Value> = cases
        .iter()
        .map(|(bytes, part)| json!([hex(bytes), part]))
        .collect();
    write!(child.stdin.take().expect("piped"), "{}", json!(told)).expect("writes");
    let output = child.wait_with_output().expect("ends");
    serde_json::from_slice(&output.stdout).expect("prints JSON")
}

/// A query in a body, in every form that is not read.
fn bodies_that_are_not_read() -> Vec<(&'static str, String)> {
    let body = json!({"query": DAILY, "useLegacySql": false}).to_string();
    let with = |more: &str, body: &str| post(QUERIES, more, body);
    let large =
        json!({"query": format!("{DAILY} -- {}", "x".repeat(1_100_000)), "useLegacySql": false})
            .to_string();
    let doubled = body.replacen('{', r#"{"query":"SELECT * FROM hr.salaries","#, 1);
    // The same key once more, its first letter in another spelling.
    let escaped = body.replacen('{', r#"{"\u0071uery":"SELECT * FROM hr.salaries","#, 1);
    let nested =
        json!({"configuration": {"query": {"query": DAILY, "useLegacySql": false}}}).to_string();
    let inner = nested.replacen(
        r#"{"query":"SELECT"#,
        r#"{"query":"SELECT 1","query":"SELECT"#,
        1,
    );
    let multipart = format!("--b\r\nContent-Type: application/json\r\n\r\n{body}\r\n--b--\r\n");
    vec![
        ("api.body_too_large", with("", &large)),
        ("api.malformed", with("Content-Encoding: gzip\r\n", &body)),
        (
            "api.malformed",
            with("Content-Encoding: deflate\r\n", &body),
        ),
        ("api.malformed", with("", &doubled)),
        ("api.malformed", with("", &escaped)),
        ("api.malformed", post(JOBS, "", &inner)),
        ("api.malformed", with("", &multipart)),
        ("api.malformed", with("", &format!("{body}{body}"))),
        (
            "api.malformed",
            with("", &format!("\u{ef}\u{bb}\u{bf}{body}")),
        ),
        (
            "api.malformed",
            with("", &body.replace("finance", "fin\u{ff}ance")),
        ),
        (
            "api.malformed",
            with("", &body.replace("finance", "fin\\ud800ance")),
        ),
        (
            "api.malformed",
            with(
                "",
                &body.chars().flat_map(|c| [c, '\0']).collect::<String>(),
            ),
        ),
        ("api.malformed", with("", "")),
        (
            "api.field",
            post(
                "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=resumable",
                "",
                &body,
            ),
        ),
        (
            "api.method",
            post(
                "/resumable/upload/bigquery/v2/projects/demo-project/jobs",
                "",
                &body,
            ),
        ),
        (
            "api.field",
            post(&format!("{QUERIES}?uploadType=multipart"), "", &body),
        ),
    ]
}

/// Requests that two parsers could read in two ways, or that would turn the connection into another.
fn ambiguous() -> Vec<String> {
    let body = json!({"query": DAILY, "useLegacySql": false}).to_string();
    let head = |lines: &str| {
        format!(
            "POST {QUERIES} HTTP/1.1\r\nHost: {BIGQUERY}\r\nContent-Type: application/json\r\n{lines}\r\n"
        )
    };
    let length = format!("Content-Length: {}\r\n", body.len());
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let chunked = "Transfer-Encoding: chunked\r\n";
    vec![
        head(&[&length, chunked].concat()) + &chunks,
        head(&[chunked, &length].concat()) + &chunks,
        head(&[length.as_str(), "Content-Length: 0\r\n"].concat()) + &body,
        head(&format!("Content-Length: +{}\r\n", body.len())) + &body,
        head(&format!(
            "Content-Length: {}, {}\r\n",
            body.len(),
            body.len()
        )) + &body,
        head("Transfer-Encoding: identity, chunked\r\n") + &chunks,
        head("Transfer-Encoding: chunked, chunked\r\n") + &chunks,
        head("Transfer-Encoding : chunked\r\n") + &chunks,
        head("Transfer-Encoding:\u{b}chunked\r\n") + &chunks,
        head(chunked) + &chunks.replacen("\r\n", ";x=y\r\n", 1),
        head(chunked) + &chunks.replacen("0\r\n\r\n", "0\r\nX: y\r\n\r\n", 1),
        head(chunked) + &format!("0x{chunks}"),
        (head(&length) + &body).replace("\r\n", "\n"),
        (head(&length) + &body).replace("HTTP/1.1", "HTTP/1.0"),
        head(&format!("{length}X: a\r\n b\r\n")) + &body,
        head(&format!("{length}X\0: a\r\n")) + &body,
        format!("\r\n{}", head(&length) + &body),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ]
}

/// Addresses of one thing that can be taken for another.
fn path_tricks() -> Vec<(&'static str, String)> {
    let inside = format!("{DATASETS}/finance/tables");
    let mut cases: Vec<(&str, String)> = [
        "/../hr/tables",
        "/..%2fhr/tables",
        "/%2e%2e/hr/tables",
        "/finance%2f..%2fhr/tables",
        "/finance;x=y/tables",
        "/finance%00/tables",
        "//finance/tables",
        "/finance%252f/tables",
        "/finance%5c..%5chr/tables",
        "/./hr/tables",
        "/finance%ff/tables",
        "/finance/tables/",
    ]
    .map(|path| ("api.malformed", get(&format!("{DATASETS}{path}"))))
    .into();
    cases.extend([
        ("scope.outside", get(&format!("{DATASETS}/%68r/tables"))),
        (
            "scope.outside",
            get(&format!("{DATASETS}/hr/tables?alt=json")),
        ),
        (
            "api.method",
            get(&inside.replacen("/bigquery/v2/", "//bigquery/v2/", 1)),
        ),
        (
            "api.method",
            get(&inside.replacen("/bigquery/v2/", "/BigQuery/v2/", 1)),
        ),
        (
            "api.method",
            get(&inside.replacen("/bigquery/v2/", "/bigquery/v2%2f", 1)),
        ),
        (
            "api.method",
            get(&inside.replacen("/bigquery/v2/", "/x/../bigquery/v2/", 1)),
        ),
        ("api.host", get(&format!("https://example.com{inside}"))),
        ("api.host", get(&format!("https://user@{BIGQUERY}{inside}"))),
        (
            "api.host",
            get_of(&format!("https://{BIGQUERY}{inside}"), "example.com"),
        ),
        (
            "api.malformed",
            get(&format!("{inside}?maxResults=1&maxResults=2")),
        ),
    ]);
    cases
}

/// What the agent's own client would be known by.
const OWN: &str = "agents-own-secret";

/// A query with a credential of the agent's own in every place there is.
fn with_credentials_of_its_own(more: &str) -> String {
    let body = json!({"query": DAILY, "useLegacySql": false}).to_string();
    let own = format!(
        "Authorization: Bearer {OWN}\r\nAuthorization: Basic {OWN}\r\nProxy-Authorization: Basic {OWN}\r\nX-Goog-Api-Key: {OWN}\r\n\
         X-Goog-User-Project: {OWN}\r\nX-Goog-Iam-Authorization-Token: {OWN}\r\nCookie: a={OWN}\r\nX-Forwarded-For: {OWN}\r\n\
         X-Original-Url: /{OWN}\r\n{more}"
    );
    let path = format!(
        "{QUERIES}?key={OWN}&access_token={OWN}&oauth_token={OWN}&quotaUser={OWN}&%6bey={OWN}"
    );
    post(&path, &own, &body)
}

/// Every request of the far side's BigQuery has one Authorization, a token that was minted for it.
fn has_only_minted_tokens(world: &World) {
    let minted: Vec<String> = world
        .tokens()
        .iter()
        .map(|token| format!("Bearer {}", token["token"].as_str().expect("a token")))
        .collect();
    let sent = sent_to_bigquery(world);
    assert!(!sent.is_empty());
    for request in &sent {
        let headers = request["headers"].as_array().expect("a list");
        let given: Vec<&str> = headers
            .iter()
            .filter(|header| header[0] == "authorization")
            .filter_map(|header| header[1].as_str())
            .collect();
        assert!(
            given.len() == 1 && minted.iter().any(|token| token == given[0]),
            "{request}"
        );
        assert!(!request.to_string().contains(OWN), "{request}");
    }
}

/// Neither token nor trick is in what the agent got.
fn holds_no_token(world: &World, answer: &str) {
    for token in world.tokens() {
        assert!(
            !answer.contains(token["token"].as_str().expect("a token")),
            "{answer}"
        );
    }
}

cases! {
    /// a TLS hello for BigQuery, a request for another host; and the other way round
    38 Refused fn the_name_in_the_hello_and_the_host_of_the_request_must_be_one() {
        let lock = in_a_window();
        let hosts = ["storage.googleapis.com", "www.googleapis.com", "bigquery.us-east1.rep.googleapis.com", "example.com", "localhost"];
        each_is_refused(&lock.world, &hosts.map(|host| ("api.host", get_of(DATASETS, host))));
        let talks = hosts.map(|host| -> Talk { (host, vec![get(DATASETS)]) });
        for answer in talk(&lock.world, Who::Agent, &talks) {
            assert_eq!(answer, ["ConnectionResetError"]);
        }
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "api.host", agents);
        refusal_is_on_record(&lock.world, "host.not_allowed", agents);
    }

    /// a TLS hello without a name, encrypted, oversized, in too many records, slow, or none at all
    38 Refused fn a_hello_that_cannot_be_read_whole_is_refused_in_time() {
        let lock = in_a_window();
        let good = tls_hello(BIGQUERY);
        let whole = |bytes: Vec<u8>| { let length = bytes.len(); (bytes, length) };
        let cases = [
            (in_records(&good, 40), 7),
            whole(tls_hello("")),
            whole(encrypted(good.clone())),
            whole(in_records(&good, 2)),
            whole([&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[0; 20_000]].concat()),
            whole(b"\x80\x2e\x01\0\x02".to_vec()),
            whole(good[..good.len() - 1].to_vec()),
        ];
        let ended = hellos(&lock, &cases);
        assert_eq!(ended[0].0, "hello", "in several records and packets it is put together: {ended:?}");
        assert!(ended[1..].iter().all(|(ending, _)| ending == "ConnectionResetError"), "{ended:?}");
        let bound = enforcer::proxy::HANDSHAKE.as_secs_f64();
        assert!(ended[1..6].iter().all(|(_, seconds)| *seconds < bound), "{ended:?}");
        assert!((bound - 1.0..bound + 5.0).contains(&ended[6].1), "{ended:?}");
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "tls.hello", agents);
    }

    /// a second request over a connection that was let in: out of scope, of another host, after the close
    39 Refused fn every_request_of_a_connection_is_judged_anew() {
        let world = World::start(Family::V4);
        let wire = wire_with(&world, ["marker"]);
        let grant = world.open_window("demo-project.finance:read", "5m");
        let parts = vec![
            query(DAILY),
            query("SELECT 'marker' FROM hr.salaries"),
            get(&format!("{DATASETS}/hr/tables/salaries/data?selectedFields=marker")),
            get_of(&format!("{DATASETS}?filter=marker"), "storage.googleapis.com"),
            query(DAILY),
        ];
        let answers = talk(&world, Who::Agent, &[(BIGQUERY, parts)]).remove(0);
        let starts: Vec<&str> = answers.iter().map(|answer| &answer[..12]).collect();
        assert_eq!(starts, ["HTTP/1.1 200", "HTTP/1.1 403", "HTTP/1.1 403", "HTTP/1.1 403", "HTTP/1.1 200"], "{answers:?}");
        let mut client = world.client();
        assert!(client.query(DAILY)["rows"].is_array());
        assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
        let to_bigquery = Capture::start(&world.stage, [BIGQUERY4.into()]);
        let before = (sent_to_bigquery(&world).len(), to_bigquery.settled());
        assert!(client.query("SELECT 'marker'")["error"].to_string().contains("[window.none]"));
        nothing_more_on(&to_bigquery, before.1);
        nothing_on(&wire, "a query that was refused");
        let sent = sent_to_bigquery(&world);
        assert_eq!(sent.len(), before.0, "nothing more was sent");
        // Which tables a text reads only BigQuery's dry run says, which reads none of them.
        let ran = sent.iter().filter(|request| !request["body"].to_string().contains("dryRun"));
        assert!(!ran.clone().any(|request| request.to_string().contains("marker")), "{sent:?}");
        assert!(ran.count() >= 3, "{sent:?}");
        for code in ["scope.outside", "api.host", "window.none"] {
            refusal_is_on_record(&world, code, agents);
        }
    }

    /// requests with two readings: lengths and codings, line ends, folding, chunk extensions, trailers, old or other protocols
    40 Refused fn a_request_with_more_than_one_reading_is_refused() {
        let lock = in_a_window();
        let cases: Vec<(&str, String)> = ambiguous().into_iter().map(|request| ("api.malformed", request)).collect();
        each_is_refused(&lock.world, &cases);
        // Smuggled behind one that is refused, nothing is read at all.
        let smuggled = ambiguous().remove(0) + &query(DAILY);
        assert_eq!(each(&lock.world, &[smuggled])[0].matches("HTTP/1.1").count(), 1);
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "api.malformed", agents);
    }

    /// HTTP/2 requests that would mean something else in HTTP/1: another authority, line ends and blanks in a path, dot segments
    40 Refused fn a_request_of_http2_means_what_it_would_in_http1() {
        let lock = in_a_window();
        let stream = |path: &str, authority: &str| json!({"method": "GET", "path": path, "authority": authority});
        let requests = [
            stream(DATASETS, "storage.googleapis.com"),
            stream(DATASETS, "bigquery.googleapis.com:80"),
            stream(&format!("{DATASETS}/../hr"), BIGQUERY),
            stream(&format!("{DATASETS}/finance HTTP/1.1\r\nHost: {BIGQUERY}\r\n\r\nGET {DATASETS}/hr"), BIGQUERY),
            stream(&format!("https://{BIGQUERY}{DATASETS}"), BIGQUERY),
            stream("*", BIGQUERY),
        ];
        let mut streams = lock.world.streams();
        streams.send(&json!(requests).to_string());
        let mut ended = 0;
        while ended < requests.len() {
            let seen = streams.receive();
            assert!(seen["status"].is_null() || seen["status"] == 403, "{seen}");
            assert!(["whole", "reset"].contains(&seen["ending"].as_str().unwrap_or("whole")), "{seen}");
            ended += usize::from(seen["ending"].is_string());
        }
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "api.host", agents);
        refusal_is_on_record(&lock.world, "api.malformed", agents);
    }

    /// an upgrade of the connection: asked for by the client (h2c, WebSocket), or answered unasked
    40 NoEffect fn a_connection_does_not_become_another_protocol() {
        let world = with_bigquery();
        let wire = wire_with(&world, ["h2c", "websocket", "afterwards"]);
        let upgrade = |to: &str| get(DATASETS).replacen("\r\n\r\n", &format!("\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {to}\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"), 1);
        for answer in each(&world, &["h2c", "websocket"].map(upgrade)) {
            assert!(answer.starts_with("HTTP/1.1 200"), "it is answered as if it had not been asked for: {answer}");
        }
        let sent = sent_to_bigquery(&world);
        assert!(sent.iter().all(|request| !request["headers"].to_string().to_lowercase().contains("upgrade")), "{sent:?}");
        world.set_faults(&json!({"instead": [101, {"upgrade": "websocket", "connection": "Upgrade"}]}));
        let unasked = each(&world, &[get(DATASETS), query(DAILY)]);
        for answer in &unasked {
            assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("[upstream.failed]"), "{answer}");
        }
        // What is said as if it had become another connection leads nowhere.
        let _ = talk(&world, Who::Agent, &[(BIGQUERY, vec![get(DATASETS), "afterwards\r\n\r\n".to_owned()])]);
        nothing_on(&wire, "another protocol");
        let sent = sent_to_bigquery(&world);
        assert!(!sent.iter().any(|request| request.to_string().contains("afterwards")), "{sent:?}");
        refusal_is_on_record(&world, "upstream.failed", agents);
    }

    /// addresses that mean two things: dot segments, encoded or doubled slashes, parameters of a segment, an authority of their own
    41 Refused fn a_path_means_one_thing_or_nothing() {
        let lock = in_a_window();
        each_is_refused(&lock.world, &path_tricks());
        lock.nothing_got_out();
        for code in ["api.malformed", "api.method", "scope.outside"] {
            refusal_is_on_record(&lock.world, code, agents);
        }
    }

    /// other hosts and paths of the same API: www, mutual TLS, regional, storage (gRPC), private endpoints, upload, batch
    42 Refused fn other_doors_to_the_same_api_are_shut() {
        let lock = in_a_window();
        let names = [
            "www.googleapis.com", "bigquery.mtls.googleapis.com", "bigquery.us-east1.rep.googleapis.com", "us-east1-bigquery.googleapis.com",
            "bigquerystorage.googleapis.com", "content-bigquery.googleapis.com", "restricted.googleapis.com", "private.googleapis.com",
            "bigquery-psc.p.googleapis.com",
        ];
        let talks = names.map(|name| -> Talk { (name, vec![get_of(DATASETS, name)]) });
        for (name, answer) in names.iter().zip(talk(&lock.world, Who::Agent, &talks)) {
            assert_eq!(answer, ["ConnectionResetError"], "{name}");
        }
        let paths = ["/upload/bigquery/v2/projects/demo-project/datasets", "/resumable/upload/bigquery/v2/projects/demo-project/jobs", "/batch/bigquery/v2", "/batch", "/mcp", "/google.cloud.bigquery.storage.v1.BigQueryRead/CreateReadSession"];
        each_is_refused(&lock.world, &paths.map(|path| ("api.method", post(path, "", "{}"))));
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "host.not_allowed", agents);
        refusal_is_on_record(&lock.world, "api.method", agents);
    }

    /// the neighbours of the API, which reach its data by themselves: transfers, connections, reservations, data policies, migration, the hub
    42 Refused fn the_neighbours_of_the_api_are_shut() {
        let mut lock = Lock::without_daemon();
        let names = [
            "bigquerydatatransfer.googleapis.com", "bigqueryconnection.googleapis.com", "bigqueryreservation.googleapis.com",
            "bigquerydatapolicy.googleapis.com", "bigquerymigration.googleapis.com", "analyticshub.googleapis.com",
        ];
        let protected = format!("protected = [\"bigquery.googleapis.com\", \"{}\"]", names.join("\", \""));
        lock.world.edit_config("protected = [\"bigquery.googleapis.com\"]", &protected);
        lock.world.start_daemon();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        // Also where the path is one of the API's own.
        let talks = names.map(|name| -> Talk { (name, vec![get_of("/v1/projects/demo-project/locations", name), get_of(DATASETS, name)]) });
        for (name, answers) in names.iter().zip(talk(&lock.world, Who::Agent, &talks)) {
            for answer in answers {
                assert!(answer.starts_with("HTTP/1.1 403") && answer.contains(&format!("nothing at {name} is let through")), "{answer}");
            }
        }
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "api.method", agents);
    }

    /// credentials and payers of the agent's own: headers, parameters, cookies; a method override is refused
    43 NoEffect fn what_the_agent_calls_itself_does_not_leave() {
        let world = with_bigquery();
        let wire = wire_with(&world, [OWN]);
        let answer = each(&world, &[with_credentials_of_its_own("")]).remove(0);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let before = sent_to_bigquery(&world).len();
        let job = format!("{JOBS}/a/cancel");
        let overridden = ["X-HTTP-Method-Override: DELETE\r\n", "x-http-method-override: GET\r\n"];
        each_is_refused(&world, &overridden.map(|more| ("api.malformed", post(&job, more, ""))));
        assert_eq!(sent_to_bigquery(&world).len(), before);
        has_only_minted_tokens(&world);
        holds_no_token(&world, &answer);
        nothing_on(&wire, "the agent's own credentials");
        refusal_is_on_record(&world, "api.malformed", agents);
    }

    /// `Connection` that names the headers which the daemon sets
    44 NoEffect fn no_connection_header_takes_away_what_the_daemon_sets() {
        let world = with_bigquery();
        let wire = wire_with(&world, [OWN]);
        let more = "Connection: authorization, content-type, host, content-length, x-goog-user-project\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nProxy-Connection: authorization\r\n";
        let answer = each(&world, &[with_credentials_of_its_own(more)]).remove(0);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        has_only_minted_tokens(&world);
        for request in sent_to_bigquery(&world) {
            let headers = request["headers"].to_string();
            assert!(!headers.contains("keep-alive") && !headers.contains("trailers") && !headers.contains("proxy-connection"), "{headers}");
        }
        nothing_on(&wire, "the agent's own credentials");
        // It is let through, so what is on record is the query, under who sent it.
        assert!(world.events("query_admitted").iter().any(|event| agents(event) && event["sql"] == DAILY));
        on_record();
    }

    /// bodies that are not read whole and as one thing: oversized, compressed, multipart, resumable, double keys, other encodings
    45 Refused fn a_body_that_is_not_read_is_not_forwarded() {
        let lock = in_a_window();
        each_is_refused(&lock.world, &bodies_that_are_not_read());
        lock.nothing_got_out();
        for code in ["api.body_too_large", "api.malformed", "api.method", "api.field"] {
            refusal_is_on_record(&lock.world, code, agents);
        }
    }

    /// an answer of BigQuery's that leads to another host
    46 Refused fn an_answer_that_leads_elsewhere_is_neither_followed_nor_passed_on() {
        let world = with_bigquery();
        let elsewhere = Capture::start(&world.stage, [OTHER4.into()]);
        for status in [301, 302, 303, 307, 308] {
            world.set_faults(&json!({"instead": [status, {"location": "https://example.com/stolen"}]}));
            for answer in each(&world, &[get(DATASETS), query(DAILY)]) {
                assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("[upstream.failed]"), "{status}: {answer}");
                assert!(!answer.contains("stolen"), "{answer}");
            }
        }
        let sent = world.far_requests();
        assert!(sent.iter().all(|request| request["host"] != "example.com"), "{sent:?}");
        nothing_on(&elsewhere, "packets for where the answer leads");
        has_only_minted_tokens(&world);
        refusal_is_on_record(&world, "upstream.failed", agents);
    }

    /// an answer of BigQuery's that repeats the token in a header that is passed on
    47 Refused fn an_answer_that_repeats_the_token_is_not_passed_on() {
        let world = with_bigquery();
        let wire = wire_with(&world, ["Bearer "]);
        world.set_faults(&json!({"echo_authorization": true}));
        for answer in each(&world, &[get(DATASETS), query(DAILY)]) {
            assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("[upstream.failed]"), "{answer}");
            holds_no_token(&world, &answer);
        }
        assert!(!world.tokens().is_empty());
        nothing_on(&wire, "a token");
        refusal_is_on_record(&world, "upstream.failed", agents);
    }

    /// the daemon as a way to itself, to this host and to the metadata server
    48 Refused fn the_proxy_leads_neither_to_itself_nor_to_anything_inside() {
        let lock = in_a_window();
        let inside = ["127.0.0.1:841", "localhost", "169.254.169.254", "metadata.google.internal", "[::1]:841", "[fd00:ec2::254]"];
        let mut cases: Vec<(&str, String)> = inside.map(|host| ("api.host", get_of("/computeMetadata/v1/", host))).into();
        cases.extend(inside.map(|host| ("api.host", get(&format!("http://{host}/computeMetadata/v1/")))));
        cases.extend(inside.map(|host| ("api.host", format!("CONNECT {host} HTTP/1.1\r\nHost: {BIGQUERY}\r\n\r\n"))).into_iter().filter(|(_, request)| request.contains(":841 ")));
        each_is_refused(&lock.world, &cases);
        let talks = ["localhost", "metadata.google.internal"].map(|name| -> Talk { (name, vec![get_of("/", name)]) });
        for answer in talk(&lock.world, Who::Agent, &talks) {
            assert_eq!(answer, ["ConnectionResetError"]);
        }
        // Straight to its port, past the kernel's leading.
        let agent = lock.world.cgroup_of(Who::Agent);
        let script = CONNECT.replace("443", "841");
        assert_eq!(said(&mut lock.script(&agent, Some(AGENT_UID), &script, &["127.0.0.1"])), EPERM);
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "api.host", agents);
        lock.is_on_record("connect4", |event| agents(event) && event["destination"] == "127.0.0.1:841");
    }

    /// plain HTTP: to port 80, or to port 443 without TLS, also in absolute form
    49 Refused fn plain_http_is_refused() {
        let lock = in_a_window();
        let agent = lock.world.cgroup_of(Who::Agent);
        let script = "import socket, sys\ntry:\n    socket.create_connection((sys.argv[1], 80), 1); print('ok')\nexcept OSError as error:\n    print(error.strerror)";
        assert_eq!(said(&mut lock.script(&agent, Some(AGENT_UID), script, &[&BIGQUERY4.to_string()])), EPERM);
        let plain = [get(DATASETS), get(&format!("http://{BIGQUERY}{DATASETS}")), get(&format!("https://{BIGQUERY}{DATASETS}")), format!("CONNECT {BIGQUERY}:443 HTTP/1.1\r\nHost: {BIGQUERY}\r\n\r\n")];
        let cases = plain.map(|request| { let length = request.len(); (request.into_bytes(), length) });
        let ended = hellos(&lock, &cases);
        assert!(ended.iter().all(|(ending, _)| ending == "ConnectionResetError"), "{ended:?}");
        lock.nothing_got_out();
        lock.is_on_record("connect4", agents);
        refusal_is_on_record(&lock.world, "tls.hello", agents);
    }
}
