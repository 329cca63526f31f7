//! The storage API: rows by gRPC, with the clients that BigQuery's users have, inside a window and outside of one.

use std::time::Duration;

use enforcer::bigquery::methods::CALLS;
use enforcer::clock::{Clock, SystemClock};
use harness::world::{AGENTS_OWN_TOKEN, Client, Family, Who, World, wait_for};
use serde_json::{Value, json};

use crate::budget::used;

const STORAGE: &str = "bigquerystorage.googleapis.com";
const READ: &str = "/google.cloud.bigquery.storage.v1.BigQueryRead/";
const DAILY: &str = "demo-project.finance.daily";
const FINANCE: &str = "demo-project.finance:read";
const MIB: u64 = 1024 * 1024;
/// What the far side says that a session of the whole of it reads, bytes.
const SCANNED: u64 = 8000;
/// One call: a client that tries again waits longer than this in all.
const AT_ONCE: Duration = Duration::from_secs(3);
/// How long after the close a reader may still wait for its end, its client and the machine included.
const CUT: Duration = Duration::from_secs(1);

/// A world in which the storage API's name is protected as well, with more in its policy's rule.
fn world_with(rule: &str) -> World {
    let mut world = World::without_daemon(Family::V4);
    let both = format!("protected = [\"bigquery.googleapis.com\", \"{STORAGE}\"]");
    let policy = harness::world::policy("15m", false);
    world.set_policy(&format!("{policy}{rule}"));
    world.edit_config("protected = [\"bigquery.googleapis.com\"]", &both);
    world.start_daemon();
    world
}

fn ask(client: &mut Client, what: &Value) -> Value {
    client.send(&what.to_string());
    client.receive()
}

/// Asks for what is refused: in one call, with the sentence, on record, and nothing of it goes out.
fn refused(world: &World, client: &mut Client, what: &Value, code: &str, told: &str) {
    let (records, sent) = (world.events("query_refused").len(), sent(world).len());
    let answer = ask(client, what);
    let error = answer["error"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"));
    assert!(
        error.contains(&format!("[{code}]")) && error.contains(told),
        "{what}: {answer}"
    );
    let kind = answer["type"].as_str().expect("a type");
    assert!(
        matches!(kind, "PermissionDenied" | "PERMISSION_DENIED"),
        "{answer}"
    );
    assert!(
        answer["took_s"].as_f64() < Some(AT_ONCE.as_secs_f64()),
        "{answer}"
    );
    let refusals = world.events("query_refused");
    assert_eq!(refusals.len(), records + 1, "one call: {refusals:?}");
    assert_eq!(refusals[records]["refusal"]["code"], code);
    assert_eq!(self::sent(world).len(), sent, "nothing went out");
}

/// What the far side's storage API got.
fn sent(world: &World) -> Vec<Value> {
    let mut requests = world.far_requests();
    requests.retain(|request| request["host"] == STORAGE);
    requests
}

fn header(request: &Value, name: &str) -> Option<String> {
    let headers = request["headers"].as_array().expect("a list");
    let of = headers.iter().find(|header| header[0] == name)?;
    of[1].as_str().map(str::to_owned)
}

fn bytes_used(world: &World, grant: &str) -> u64 {
    let status = world.json(Who::Operator, &["status"]);
    let grants = status["grants"].as_array().expect("a list");
    let view = grants.iter().find(|view| view["grant"] == grant);
    view.expect("listed")["bytes"].as_u64().expect("a number")
}

/// Makes a session of a table, and gives its stream.
fn stream_of(client: &mut Client, table: &str) -> String {
    let made = ask(client, &json!(["session", table]));
    let stream = made["streams"][0].as_str();
    stream.unwrap_or_else(|| panic!("{made}")).to_owned()
}

#[test]
fn tables_and_results_come_as_arrow_with_the_windows_token_and_count_in_its_budget() {
    let world = world_with("");
    let grant = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    let table = ask(&mut client, &json!(["table", DAILY]));
    assert_eq!(
        (&table["rows"], &table["first"]),
        (&json!(1000), &json!(["2026-01-02", "7"])),
        "{table}"
    );
    let read = |method: &str| {
        let mut admitted = world.events("query_admitted");
        admitted.retain(|event| event["method"] == method);
        admitted
    };
    assert_eq!(
        read("storage.CreateReadSession")[0]["tables"],
        json!([DAILY])
    );
    let rows = &read("storage.ReadRows")[0];
    assert_eq!(
        (&rows["tables"], &rows["ceiling"]),
        (&json!([DAILY]), &json!(4 * MIB))
    );
    wait_for("the charge", || bytes_used(&world, &grant) > 0);
    let charged = bytes_used(&world, &grant);
    assert!(
        (SCANNED + 12_000..SCANNED + 20_000).contains(&charged),
        "what was read, and what was passed on: {charged}"
    );
    assert_eq!(used(&world, &grant, "queries"), 1, "the session");

    let sql = "SELECT day, amount FROM finance.daily ORDER BY amount DESC";
    let result = ask(&mut client, &json!(["query", sql]));
    assert_eq!(
        (&result["rows"], &result["first"]),
        (&json!(1000), &json!(["2028-09-27", "7000"])),
        "{result}"
    );
    let rows = &read("storage.ReadRows")[1];
    assert_eq!(
        rows["ceiling"],
        Value::Null,
        "charged with the query: {rows}"
    );
    assert!(
        rows["tables"][0]
            .as_str()
            .expect("a table")
            .contains(".anon")
    );
    wait_for("the end", || {
        let finished = world.events("query_finished");
        finished.iter().all(|event| event["trouble"].is_null())
            && finished.len() == world.events("query_admitted").len()
    });
    assert_eq!(bytes_used(&world, &grant), charged + 10 * MIB);
    assert_eq!(used(&world, &grant, "queries"), 2, "and the query, once");

    let plain = ask(&mut client, &json!(["plain", sql]));
    assert_eq!(plain["rows"], 1000, "{plain}");

    let sent = sent(&world);
    assert!(sent.len() >= 4, "{sent:?}");
    for request in &sent {
        let token = header(request, "authorization").expect("a token");
        assert!(!token.contains(AGENTS_OWN_TOKEN), "{token}");
        assert!(
            header(request, "x-goog-request-params").is_some(),
            "{request}"
        );
    }
}

#[test]
fn what_lies_outside_the_window_is_refused_in_one_call_with_the_sentence() {
    let world = world_with("");
    let _ = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    let mut refused =
        |what: Value, code: &str, told: &str| refused(&world, &mut client, &what, code, told);
    let salaries = "demo-project.hr.salaries";
    refused(json!(["session", salaries]), "scope.outside", salaries);
    let anonymous = "demo-project._0123456789.anon0123456789";
    refused(json!(["session", anonymous]), "scope.outside", anonymous);
    let elsewhere = json!(["session", DAILY, "other-project"]);
    refused(elsewhere, "scope.project", "project other-project");
    let reaching = "amount IN (SELECT salary FROM hr.salaries)";
    let reaching = json!(["session", DAILY, "demo-project", reaching]);
    refused(reaching, "query.not_vouched", "row restriction");
    refused(
        json!(["rows", "projects/p/locations/us/sessions/s/streams/0"]),
        "job.foreign",
        "g-1",
    );
    refused(
        json!(["split", "projects/p/locations/us/sessions/s/streams/0"]),
        "job.foreign",
        "g-1",
    );
    refused(json!(["write", DAILY]), "api.method", "tabledata.insertAll");
}

#[test]
fn what_is_no_plain_call_of_the_storage_api_is_refused_as_grpc_refuses() {
    let world = world_with("");
    let _ = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    let mut refused =
        |what: Value, code: &str, told: &str| refused(&world, &mut client, &what, code, told);
    let session = format!("{READ}CreateReadSession");
    for path in [
        "/google.cloud.bigquery.storage.v1beta2.BigQueryRead/CreateReadSession",
        "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows",
        "/google.cloud.bigquery.storage.v1.BigQueryRead/Unheard",
        "/google.cloud.bigquery.v2.JobService/InsertJob",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        refused(json!(["raw", STORAGE, path, ""]), "api.method", path);
    }
    let bigquery = json!(["raw", "bigquery.googleapis.com", session, ""]);
    refused(bigquery, "api.method", "bigquerystorage alone");
    refused(
        json!(["raw", STORAGE, session, ""]),
        "api.malformed",
        "no project",
    );
    // An unknown field; a message that is none; one that is longer than what is read; one that is compressed.
    refused(
        json!(["raw", STORAGE, session, "2801"]),
        "api.malformed",
        "not let through",
    );
    refused(
        json!(["raw", STORAGE, session, "0aff"]),
        "api.malformed",
        "can be read",
    );
    let long = "0a".repeat(2 * 1024 * 1024);
    refused(
        json!(["raw", STORAGE, session, long]),
        "api.body_too_large",
        "inspected",
    );
    refused(
        json!(["raw", STORAGE, session, "00".repeat(4096), 2]),
        "api.malformed",
        "compressed",
    );
    // A stream's message, and a header that names another.
    let rows = format!("{READ}ReadRows");
    let beside = json!([["x-goog-request-params", "read_stream=b"]]);
    refused(
        json!(["raw", STORAGE, rows, "0a0161", 0, beside]),
        "api.malformed",
        "do not name one read_stream",
    );
    let agreed = json!([["x-goog-request-params", "read_stream=a"]]);
    refused(
        json!(["raw", STORAGE, rows, "0a0161", 0, agreed]),
        "job.foreign",
        "was not made in window",
    );
}

#[test]
fn without_a_window_nothing_is_read_and_a_stream_is_its_windows_alone() {
    let world = world_with("");
    let mut client = world.storage();
    let session = json!(["session", DAILY]);
    refused(
        &world,
        &mut client,
        &session,
        "window.none",
        "enforcer request",
    );

    let first = world.open_window(FINANCE, "5m");
    let stream = stream_of(&mut client, DAILY);
    let halves = ask(&mut client, &json!(["split", stream]));
    let half = halves["streams"][0].as_str().expect("a stream").to_owned();
    let served = |client: &mut Client, stream: &str| {
        assert_eq!(ask(client, &json!(["rows", stream]))["begun"], true);
        client.receive()
    };
    assert_eq!(served(&mut client, &stream)["rows"], 1000);
    assert!(served(&mut client, &half)["rows"].as_u64() > Some(0));
    assert_eq!(world.json(Who::Agent, &["close", &first])["done"], true);
    let rows = json!(["rows", stream]);
    refused(&world, &mut client, &rows, "window.none", "no open window");

    let _ = world.open_window(FINANCE, "5m");
    refused(
        &world,
        &mut client,
        &rows,
        "job.foreign",
        "was not made in window g-2",
    );
}

#[test]
fn a_stream_under_way_at_the_close_is_cut_with_the_sentence_and_on_record() {
    let world = world_with("");
    let grant = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    let stream = stream_of(&mut client, DAILY);
    // Minutes for the whole, so that it is under way at the close.
    world.set_faults(&json!({"rows_again": 10_000, "rows_drip_ms": 20}));
    assert_eq!(ask(&mut client, &json!(["rows", stream]))["begun"], true);
    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    let revoked_boot_ns = SystemClock.now().boot_ns;
    let end = client.receive();
    let took = Duration::from_nanos(SystemClock.now().boot_ns - revoked_boot_ns);
    assert!(took < CUT, "{took:?}: {end}");
    let error = end["error"].as_str().unwrap_or_else(|| panic!("{end}"));
    assert!(
        error.contains("window g-1 of agent finance-bot has closed"),
        "{end}"
    );
    assert_eq!(end["type"], "PermissionDenied", "it is not asked for again");
    wait_for("the record", || {
        let mut finished = world.events("query_finished");
        finished.retain(|event| event["trouble"] == "cut: the window closed");
        finished.len() == 1 && finished[0]["body_bytes"].as_u64() > Some(0)
    });
    assert!(world.events("query_refused").is_empty(), "one call");
}

/// Makes a session of a result whose rows come in one message of four megabytes, and gives its stream.
fn stream_of_a_large_result(client: &mut Client) -> String {
    let sql = "SELECT n, REPEAT('x', 2000) AS text FROM UNNEST(GENERATE_ARRAY(1, 2000)) AS n";
    let made = ask(client, &json!(["result", sql]));
    let table = made["table"].as_str().unwrap_or_else(|| panic!("{made}"));
    stream_of(client, table)
}

#[test]
fn a_stream_whose_client_takes_no_more_is_cut_at_the_close_and_not_read_again() {
    let world = world_with("");
    let grant = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    let stream = stream_of_a_large_result(&mut client);
    world.set_faults(&json!({"rows_again": 100}));
    assert_eq!(ask(&mut client, &json!(["rows", stream, 5]))["begun"], true);
    // It reads on behind the client's back until its buffers are full.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    wait_for("the record", || {
        let mut finished = world.events("query_finished");
        finished.retain(|event| event["trouble"] == "cut: the window closed");
        finished.len() == 1
    });
    let end = client.receive();
    let error = end["error"].as_str().unwrap_or_else(|| panic!("{end}"));
    assert!(error.contains("[window."), "{end}");
    assert_eq!(end["type"], "PermissionDenied", "{end}");
}

#[test]
fn a_stream_takes_no_memory_for_its_length() {
    let world = world_with("");
    let _ = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    let stream = stream_of_a_large_result(&mut client);
    let before = world.peak_memory_of_daemon();
    world.set_faults(&json!({"rows_again": 100}));
    assert_eq!(ask(&mut client, &json!(["rows", stream]))["begun"], true);
    assert_eq!(client.receive()["rows"], 200_000);
    let more = world.peak_memory_of_daemon() - before;
    assert!(more < 32 * MIB, "{more} bytes for 400 MB");
}

#[test]
fn what_a_job_has_read_is_seen_before_its_result_is_read() {
    let world = world_with("");
    let grant = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    // Still running when it is answered, and not asked for again.
    let unasked = json!(["result", "SELECT id FROM finance.accounts", 2]);
    let mut result = |faults: Value| {
        world.set_faults(&faults);
        let made = ask(&mut client, &unasked);
        let table = made["table"].as_str().unwrap_or_else(|| panic!("{made}"));
        ask(&mut client, &json!(["session", table]))
    };
    let made = result(json!({"run_ms": 1000}));
    assert_eq!(made["streams"].as_array().map(Vec::len), Some(1), "{made}");
    assert_eq!(
        bytes_used(&world, &grant),
        10 * MIB,
        "its cost is known, too"
    );

    let salaries = json!([["demo-project", "hr", "salaries"]]);
    let kept = result(json!({"run_ms": 1000, "reads_also": salaries}));
    let error = kept["error"].as_str().unwrap_or_else(|| panic!("{kept}"));
    // Who watches the job may have seen it first, and the window have closed.
    let kept_back = ["[scope.outside]", "[window.closed]", "[window.none]"];
    assert!(kept_back.iter().any(|code| error.contains(code)), "{kept}");
    wait_for("the close", || {
        let closed = world.events("closed");
        closed
            .iter()
            .any(|event| event["grant"] == grant.as_str() && event["reason"] == "scope_violated")
    });
    let creates = sent(&world);
    assert_eq!(
        creates.len(),
        1,
        "the second was not asked for: {creates:?}"
    );
}

#[test]
fn a_long_stream_is_held_for_in_parts_and_ends_with_the_budget() {
    let world = world_with(&format!("bytes_max = \"{}B\"\n", 40 * MIB));
    let grant = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    world.set_faults(&json!({"scans": 0}));
    let stream = stream_of(&mut client, DAILY);
    // Some 12 KiB each.
    world.set_faults(&json!({"rows_again": 5_000}));
    assert_eq!(ask(&mut client, &json!(["rows", stream]))["begun"], true);
    let end = client.receive();
    let error = end["error"].as_str().unwrap_or_else(|| panic!("{end}"));
    assert!(
        error.contains("[window."),
        "the budget, or the close of a window that has none: {end}"
    );
    let mut held = world.events("query_admitted");
    held.retain(|event| event["method"] == "storage.ReadRows");
    let held: Vec<&Value> = held.iter().map(|event| &event["ceiling"]).collect();
    assert_eq!(held, [&json!(4 * MIB); 10]);
    wait_for("the close", || {
        let closed = world.events("closed");
        closed.iter().any(|event| event["grant"] == grant.as_str())
    });
    let closed = &world.events("closed")[0];
    assert_eq!(
        (&closed["bytes"], &closed["reason"]),
        (&json!(40 * MIB), &json!("budget_spent"))
    );
}

#[test]
fn the_words_of_a_stream_that_fails_are_cut_and_counted_as_rows_are() {
    let world = world_with("returned_bytes_max = \"100MB\"\n");
    let grant = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    let stream = stream_of(&mut client, DAILY);
    world.set_faults(&json!({"rows_error": "row,".repeat(1500)}));
    let before = used(&world, &grant, "returned_bytes");
    let failed = ask(&mut client, &json!(["rows", stream]));
    let words = failed["error"]
        .as_str()
        .unwrap_or_else(|| panic!("{failed}"));
    assert_eq!(words.matches("row,").count(), 300 / 4, "{words}");
    assert_eq!(failed["type"], "InvalidArgument", "{failed}");
    assert!(
        !failed["trailers"].to_string().contains("details"),
        "{failed}"
    );
    wait_for("the charge", || {
        used(&world, &grant, "returned_bytes") == before + 300
    });
    // What is said of rows by a condition's own words is refused.
    let saying = "IF(amount > 7, ERROR(CAST(amount AS STRING)), TRUE)";
    let asked = json!(["session", DAILY, "demo-project", saying]);
    refused(&world, &mut client, &asked, "query.not_vouched", "ERROR");
}

#[test]
fn what_a_session_reads_is_charged_like_a_query_before_its_streams_are_told() {
    let world = world_with("query_bytes_max = \"20MB\"\n");
    let grant = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    let session = |client: &mut Client, scans: u64| {
        world.set_faults(&json!({"scans": scans}));
        ask(client, &json!(["session", DAILY]))
    };
    let made = session(&mut client, 500_000);
    assert!(made["streams"][0].is_string(), "{made}");
    wait_for("the charge", || bytes_used(&world, &grant) == 500_000);
    assert_eq!(used(&world, &grant, "queries"), 1);
    // It is on record before the client has the stream.
    let mut admitted = world.events("query_admitted");
    admitted.retain(|event| event["method"] == "storage.CreateReadSession");
    let ceilings: Vec<&Value> = admitted.iter().map(|event| &event["ceiling"]).collect();
    assert_eq!(ceilings, [&Value::Null, &json!(500_000)]);
    let made = session(&mut client, 20_000_001);
    let error = made["error"].as_str().unwrap_or_else(|| panic!("{made}"));
    assert!(
        error.contains("20000001 bytes") && error.contains("[window.budget]"),
        "{error}"
    );
    assert_eq!(made["streams"], Value::Null);
    assert_eq!(bytes_used(&world, &grant), 500_000, "it was not told");
    assert_eq!(used(&world, &grant, "queries"), 2);
}

#[test]
fn a_session_that_reads_more_than_is_left_is_not_told_and_a_spent_budget_of_queries_makes_none() {
    let world = world_with("bytes_max = \"3MB\"\nqueries_max = 3\n");
    let grant = world.open_window(FINANCE, "5m");
    let mut client = world.storage();
    for (scans, is_told) in [(2_000_000, true), (2_000_000, false), (500_000, true)] {
        world.set_faults(&json!({"scans": scans}));
        let made = ask(&mut client, &json!(["session", DAILY]));
        assert_eq!(made["streams"].is_array(), is_told, "{made}");
        assert_eq!(
            made.to_string().contains("[window.budget]"),
            !is_told,
            "{made}"
        );
    }
    wait_for("the charge", || bytes_used(&world, &grant) == 2_500_000);
    let asked = json!(["session", DAILY]);
    refused(&world, &mut client, &asked, "window.budget", "3 queries");
}

#[test]
fn every_grpc_method_of_bigquerys_own_client_has_a_row() {
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/venv/lib");
    let mut pythons = std::fs::read_dir(packages).expect("reads").flatten();
    let python = pythons.next().expect("one Python").path();
    let google = python.join("site-packages/google/cloud");
    let mut count = 0;
    for entry in std::fs::read_dir(google).expect("reads").flatten() {
        let services = entry.path().join("services");
        for service in std::fs::read_dir(services).into_iter().flatten().flatten() {
            let source = service.path().join("transports/grpc.py");
            let source = std::fs::read_to_string(source).unwrap_or_default();
            let named = source
                .split('"')
                .filter(|text| text.starts_with("/google.cloud."));
            for path in named.filter(|path| path.contains(".bigquery.storage.")) {
                let has_row = CALLS.iter().any(|call| call.path == path);
                assert!(
                    has_row,
                    "{path} has no row: it is refused, and must be judged"
                );
                count += 1;
            }
        }
    }
    assert!(count >= 28, "{count}");
}
