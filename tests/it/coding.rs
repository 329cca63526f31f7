//! Bodies that are compressed, and clients that ask before they send one.

use std::process::Output;

use harness::world::{Family, Who, World};
use serde_json::{Value, json};

use crate::surface::PROJECT;

const SCOPE: &str = "demo-project.finance:read,demo-project.scratch:ddl";
const COUNT: &str = "SELECT COUNT(*) FROM finance.daily";

/// Sends what is in one file, compressed by gzip where the last argument says so, and prints the answer's status, its coding and its text.
const POST: &str = r#"
import gzip, http.client, json, ssl, sys
ca, method, path, body, kind, coding = sys.argv[1:7]
body = open(body, "rb").read()
if coding == "gzip":
    body = gzip.compress(body)
if coding == "gzip, cut":
    body = gzip.compress(body)[:-1]
headers = {"content-type": kind, "accept-encoding": "gzip"}
if coding:
    headers["content-encoding"] = coding.split(",")[0]
connection = http.client.HTTPSConnection("bigquery.googleapis.com", context=ssl.create_default_context(cafile=ca))
connection.request(method, path, body, headers)
answer = connection.getresponse()
print(json.dumps([answer.status, answer.getheader("content-encoding"), answer.read().decode()]))
"#;

fn post(world: &World, path: &str, body: &str, kind: &str, coding: &str) -> (u64, String) {
    sent(world, "POST", path, body, kind, coding)
}

fn sent(
    world: &World,
    method: &str,
    path: &str,
    body: &str,
    kind: &str,
    coding: &str,
) -> (u64, String) {
    let file = world.stage.dir().join("body");
    std::fs::write(&file, body).expect("writes");
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    command
        .args(["-c", POST])
        .arg(world.stage.dir().join("run/ca.pem"))
        .args([method, path])
        .arg(file)
        .args([kind, coding]);
    let output = command.output().expect("python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let (status, coding, text): (u64, Option<String>, String) =
        serde_json::from_slice(&output.stdout).expect("prints JSON");
    assert_eq!(coding, None, "no short answer is compressed: {text}");
    (status, text)
}

fn job(sql: &str) -> String {
    json!({"configuration": {"query": {"query": sql, "useLegacySql": false}}}).to_string()
}

fn refused(answer: &(u64, String), code: &str) {
    assert!(
        answer.0 == 403 && answer.1.contains(&format!("[{code}]")),
        "{answer:?}"
    );
}

#[test]
fn a_compressed_body_is_judged_by_what_is_in_it_and_goes_out_as_it_was_judged() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let jobs = format!("{PROJECT}/jobs");
    let json = "application/json";
    let served = post(&world, &jobs, &job(COUNT), json, "gzip");
    assert_eq!(served.0, 200, "{served:?}");
    let outside = job("SELECT * FROM hr.salaries");
    refused(
        &post(&world, &jobs, &outside, json, "gzip"),
        "scope.outside",
    );
    refused(
        &post(&world, &jobs, &job(COUNT), json, "gzip, cut"),
        "api.malformed",
    );
    // What says that it is compressed and is not, and codings that nobody reads.
    refused(
        &post(&world, &jobs, &job(COUNT), json, "br"),
        "api.malformed",
    );
    let large = format!("{}{}", job(COUNT), " ".repeat(2 * 1024 * 1024));
    refused(
        &post(&world, &jobs, &large, json, "gzip"),
        "api.body_too_large",
    );
    let out = world.far_requests();
    let bodies: Vec<&Value> = out
        .iter()
        .filter(|request| request["method"] == "POST" && request["path"] == jobs)
        .collect();
    assert_eq!(bodies.len(), 2, "a dry run, and the job: {bodies:?}");
    for request in bodies {
        assert!(
            request["body"].as_str().expect("text").contains(COUNT),
            "{request}"
        );
        let headers = request["headers"].to_string();
        assert!(!headers.contains("content-encoding"), "{headers}");
    }
}

#[test]
fn a_load_whose_body_is_compressed_is_read_and_a_part_of_one_that_is_is_refused() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let table = json!({"projectId": "demo-project", "datasetId": "scratch", "tableId": "zipped"});
    let schema = json!({"fields": [{"name": "id", "type": "INT64"}]});
    let load = json!({"configuration": {"load": {"destinationTable": table, "schema": schema, "sourceFormat": "NEWLINE_DELIMITED_JSON"}}});
    let body = format!(
        "--b\r\nContent-Type: application/json\r\n\r\n{load}\r\n--b\r\nContent-Type: text/plain\r\n\r\n{{\"id\": 7}}\n\r\n--b--\r\n"
    );
    let uploads = "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=";
    let whole = format!("{uploads}multipart");
    let loaded = post(
        &world,
        &whole,
        &body,
        "multipart/related; boundary=b",
        "gzip",
    );
    assert_eq!(loaded.0, 200, "{loaded:?}");
    let rows = world.query(&["SELECT id FROM scratch.zipped"]);
    assert_eq!(rows[0]["rows"], json!([["7"]]), "{rows:?}");
    // The place of a part is nobody's: it is refused for what it is before that is looked at.
    let part = format!("{uploads}resumable&upload_id={}", "0".repeat(32));
    let answer = sent(&world, "PUT", &part, "{\"id\": 8}\n", "text/plain", "gzip");
    refused(&answer, "api.malformed");
}

#[test]
fn an_answer_that_is_compressed_without_being_asked_for_is_not_passed_on() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    world.set_faults(&json!({"instead": [200, {"content-encoding": "gzip"}]}));
    let tables = format!("{PROJECT}/datasets/finance/tables");
    let answer = sent(&world, "GET", &tables, "", "application/json", "");
    refused(&answer, "upstream.failed");
}

#[test]
fn an_answer_that_is_not_wholly_and_only_what_gzip_writes_is_not_passed_on() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let tables = format!("{PROJECT}/datasets/finance/tables");
    let list = |path: &str| sent(&world, "GET", path, "", "application/json", "");
    for fault in ["cut", "damaged", "followed", "twice", "other"] {
        world.set_faults(&json!({"gzip": fault}));
        refused(&list(&tables), "upstream.failed");
    }
    // 64 MiB in some thousands: what is read whole ends at its bound.
    world.set_faults(&json!({"gzip": "bomb"}));
    refused(&list(&format!("{PROJECT}/datasets")), "upstream.failed");
    for fault in [json!({}), json!({"gzip": "never"})] {
        world.set_faults(&fault);
        assert_eq!(list(&tables).0, 200);
    }
}

/// A result of some megabytes.
const LARGE: &str = "SELECT n, REPEAT('x', 2000) AS text FROM UNNEST(GENERATE_ARRAY(1, 2000)) AS n";

/// Runs the query of its last argument once for each that a client may say of codings, and prints of each answer: status, coding, `Vary`, the
/// bytes that came, and a digest of its rows.
const TAKE: &str = r#"
import gzip, hashlib, http.client, json, ssl, sys
ca, path, sql = sys.argv[1:4]
connection = http.client.HTTPSConnection("bigquery.googleapis.com", context=ssl.create_default_context(cafile=ca))
said = []
for takes in ("gzip", "gzip;q=0", "deflate, br", "identity"):
    body = json.dumps({"query": sql, "useLegacySql": False, "maxResults": 2000})
    connection.request("POST", path, body, {"content-type": "application/json", "accept-encoding": takes})
    answer = connection.getresponse()
    came = answer.read()
    coding = answer.getheader("content-encoding")
    rows = json.loads(gzip.decompress(came) if coding else came)["rows"]
    said.append([answer.status, coding, answer.getheader("vary"), len(came), len(rows), hashlib.sha256(json.dumps(rows).encode()).hexdigest()])
print(json.dumps(said))
"#;

#[test]
fn a_large_answer_comes_compressed_and_goes_so_to_a_client_that_takes_it_with_the_same_rows() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let path = format!("{PROJECT}/queries");
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    command
        .args(["-c", TAKE])
        .arg(world.stage.dir().join("run/ca.pem"))
        .args([path.as_str(), LARGE]);
    let output = command.output().expect("python runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let said: Vec<Value> = serde_json::from_slice(&output.stdout).expect("prints JSON");
    let plain = said[1][3].as_u64().expect("a number");
    assert!(plain > 4_000_000, "{said:?}");
    for (at, answer) in said.iter().enumerate() {
        let bytes = answer[3].as_u64().expect("a number");
        assert_eq!(answer[0], 200, "{answer}");
        assert_eq!(
            (&answer[4], &answer[5]),
            (&json!(2000), &said[0][5]),
            "the same rows"
        );
        if at == 0 {
            assert_eq!(
                (&answer[1], &answer[2]),
                (&json!("gzip"), &json!("accept-encoding"))
            );
            assert!(bytes < plain / 10, "{answer}");
        } else {
            assert_eq!((&answer[1], bytes), (&Value::Null, plain), "{answer}");
        }
    }
    // Whatever the client takes, BigQuery is asked for gzip, and sends it; the record counts what is in it.
    for request in world.far_requests() {
        let to = request["host"].as_str().unwrap_or_default();
        let headers = request["headers"].to_string();
        let asks = headers.contains(r#"["accept-encoding","gzip"]"#) && headers.contains("(gzip)");
        assert_eq!(asks, to == "bigquery.googleapis.com", "{request}");
    }
    let answers = world.far_answers();
    let pages = answers.iter().filter(|answer| answer["path"] == path);
    for page in pages {
        assert_eq!(page["coding"], "gzip", "{page}");
        assert!(
            page["sent"].as_u64() < page["plain"].as_u64().map(|plain| plain / 10),
            "{page}"
        );
    }
    let counted = world.events("query_finished");
    let counted = counted
        .iter()
        .filter(|event| event["body_bytes"].as_u64() >= Some(plain))
        .count();
    assert_eq!(counted, said.len(), "decoded bytes, compressed or not");
}

#[test]
fn an_unmodified_client_that_takes_gzip_gets_every_row_of_a_large_result() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let said = world.query(&[LARGE]);
    let rows = said[0]["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 2000);
    let answers = world.far_answers();
    assert!(
        answers
            .iter()
            .any(|answer| answer["coding"] == "gzip" && answer["plain"].as_u64() > Some(4_000_000)),
        "{answers:?}"
    );
}

/// Expects something before it sends `body`: with `100-continue` it waits for leave, as long as this test may take.
fn ask_first(world: &World, path: &str, body: &str, expected: &str) -> Output {
    let mut command = world.run_as(Who::Agent, "curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--http1.1",
            "--verbose",
            "--expect100-timeout",
            "600",
        ])
        .args([
            "--header",
            &format!("Expect: {expected}"),
            "--write-out",
            "\nsent %{size_upload}",
        ])
        .arg("--cacert")
        .arg(world.stage.dir().join("run/ca.pem"))
        .args([
            "--header",
            "Content-Type: application/json",
            "--data-binary",
            body,
        ])
        .arg(format!("https://bigquery.googleapis.com{path}"));
    command.output().expect("curl runs")
}

#[test]
fn a_client_that_asks_before_it_sends_its_body_is_told_to_go_on_and_served() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let body = job(COUNT);
    let output = ask_first(&world, &format!("{PROJECT}/jobs"), &body, "100-continue");
    let (said, heard) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(heard.contains("< HTTP/1.1 100 Continue"), "{heard}");
    assert!(heard.contains("< HTTP/1.1 200 OK"), "{heard}");
    assert!(said.ends_with(&format!("sent {}", body.len())), "{said}");
    let out = world.far_requests();
    assert!(
        !Value::from(out).to_string().contains("100-continue"),
        "it is between the client and the proxy"
    );
}

#[test]
fn a_client_that_asks_before_it_sends_a_load_without_a_window_is_refused_and_sends_nothing() {
    let world = World::start(Family::V4);
    let uploads = "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=multipart";
    let output = ask_first(&world, uploads, &"x".repeat(100_000), "100-continue");
    let (said, heard) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        said.contains("[window.none]") && said.ends_with("sent 0"),
        "{said}{heard}"
    );
    assert!(!heard.contains("100 Continue"), "{heard}");
}

#[test]
fn an_expectation_of_another_kind_is_not_heard() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let body = job(COUNT);
    let output = ask_first(&world, &format!("{PROJECT}/jobs"), &body, "something-else");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("bigquery#job"), "{output:?}");
}
