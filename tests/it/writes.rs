//! What a window may write: tables of the datasets that its scope says so of, by statements, jobs and methods, and nothing else.

use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

use crate::bypass::Helper;
use crate::chance::Chance;
use crate::surface::{Answer, PROJECT, send};

/// Sends the beginning of an upload's part, says so, and prints the first line of what it is answered.
const SLOW_PART: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
wire = context.wrap_socket(socket.create_connection(("bigquery.googleapis.com", 443)), server_hostname="bigquery.googleapis.com")
wire.sendall(f"PUT {sys.argv[2]} HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nContent-Length: 1000000\r\n\r\n".encode() + bytes(1000))
print("begun", flush=True)
print(wire.recv(4096).split(b"\r\n")[0].decode(), flush=True)
"#;

const SCOPE: &str = "demo-project.finance:read,demo-project.scratch:ddl";

/// Begins an upload, and gives the place of its parts.
fn begin_upload(world: &World) -> String {
    let upload = "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=resumable";
    let load = json!({"configuration": {"load": {"destinationTable": table("scratch", "t"), "sourceFormat": "CSV"}}});
    let begun = one(world, &json!(["POST", upload, load]));
    let place = begun.place.unwrap_or_else(|| panic!("{}", begun.body));
    let path = place.strip_prefix("https://bigquery.googleapis.com");
    path.expect("here").to_owned()
}

/// Runs statements one after the other by an unmodified client, and gives the rows of the last.
#[track_caller]
pub(crate) fn run(world: &World, statements: &[&str]) -> Value {
    let answers = world.query(statements);
    for answer in &answers {
        assert!(answer["error"].is_null(), "{answer}");
    }
    answers.last().expect("one")["rows"].clone()
}

#[track_caller]
pub(crate) fn refused(world: &World, sql: &str, code: &str) {
    let answer = &world.query(&[sql])[0];
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(error.contains(&format!("[{code}]")), "{sql}: {answer}");
}

pub(crate) fn table(dataset: &str, name: &str) -> Value {
    json!({"projectId": "demo-project", "datasetId": dataset, "tableId": name})
}

pub(crate) fn job(configuration: &Value) -> Value {
    json!(["POST", format!("{PROJECT}/jobs"), {"configuration": configuration}])
}

pub(crate) fn one(world: &World, request: &Value) -> Answer {
    send(world, &json!([request])).pop().expect("one")
}

#[test]
fn a_window_that_may_write_fills_changes_makes_and_removes_tables() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let rows = run(
        &world,
        &[
            "INSERT INTO scratch.notes (id, text) VALUES (1, 'one'), (2, 'two')",
            "INSERT INTO scratch.notes (id, text) SELECT amount, 'of finance' FROM finance.daily WHERE amount = 7",
            "UPDATE scratch.notes SET text = 'uno' WHERE id = 1",
            "DELETE FROM scratch.notes WHERE id = 2",
            "CREATE TABLE scratch.kept AS SELECT id, text FROM scratch.notes",
            "DROP TABLE scratch.notes",
            "SELECT id, text FROM scratch.kept ORDER BY id",
        ],
    );
    assert_eq!(rows, json!([["1", "uno"], ["7", "of finance"]]));
    let written: Vec<Value> = world
        .events("query_admitted")
        .iter()
        .filter(|event| event["method"] == "jobs.insert")
        .map(|event| event["writes"].clone())
        .collect();
    assert_eq!(written[0], json!(["demo-project.scratch.notes"]));
    assert_eq!(written[4], json!(["demo-project.scratch.kept"]));
    assert!(written[6].is_null(), "a query writes nothing: {written:?}");
}

#[test]
fn what_a_window_only_reads_is_not_written_and_what_it_does_not_know_is_not_read_by_writing() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    for sql in [
        "INSERT INTO finance.accounts (id, name) VALUES (99, 'x')",
        "UPDATE finance.daily SET amount = 0 WHERE TRUE",
        "DELETE FROM finance.daily WHERE TRUE",
        "TRUNCATE TABLE finance.daily",
        "CREATE OR REPLACE TABLE finance.daily AS SELECT 1 AS a",
        "DROP TABLE finance.daily",
    ] {
        refused(&world, sql, "scope.read_only");
    }
    for sql in [
        "INSERT INTO hr.salaries (name, salary) VALUES ('x', 1)",
        "DROP TABLE hr.salaries",
        "CREATE TABLE scratch.stolen AS SELECT * FROM hr.salaries",
        "CREATE TABLE scratch.stolen AS SELECT * FROM finance.hr_view",
        "INSERT INTO scratch.notes (id, text) SELECT salary, name FROM hr.salaries",
        "UPDATE scratch.notes AS hr SET text = s.name FROM hr.salaries AS s WHERE TRUE",
    ] {
        refused(&world, sql, "scope.outside");
    }
    // What outlives the window as something that runs, or is made past a query.
    for sql in [
        "CREATE VIEW scratch.v AS SELECT * FROM finance.daily",
        "CREATE FUNCTION scratch.f() AS (1)",
        "CREATE TABLE scratch.c CLONE finance.daily",
        "CREATE SCHEMA other",
        "DROP SCHEMA scratch CASCADE",
    ] {
        let answer = &world.query(&[sql])[0];
        let error = answer["error"].as_str().unwrap_or_default();
        let is_refused = error.contains("[query.statement]")
            || error.contains("[query.not_vouched]")
            || error.contains("[scope.outside]");
        assert!(is_refused, "{sql}: {answer}");
    }
    let rows = run(&world, &["SELECT COUNT(*), SUM(amount) FROM finance.daily"]);
    assert_eq!(rows, json!([["1000", "3503500"]]), "nothing has changed");
}

#[test]
fn a_window_that_only_reads_writes_nowhere() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance,demo-project.scratch:read", "5m");
    refused(
        &world,
        "INSERT INTO scratch.notes (id, text) VALUES (1, 'x')",
        "scope.read_only",
    );
    let tables = format!("{PROJECT}/datasets/scratch/tables");
    let new = json!({"tableReference": table("scratch", "t")});
    let rows = json!({"rows": [{"json": {"id": 1}}]});
    let answers = send(
        &world,
        &json!([
            ["POST", tables, new],
            ["PATCH", format!("{tables}/notes"), {"description": "x"}],
            ["DELETE", format!("{tables}/notes"), null],
            ["POST", format!("{tables}/notes/insertAll"), rows],
            job(&json!({"copy": {"sourceTable": table("finance", "daily"), "destinationTable": table("scratch", "t")}})),
            job(&json!({"query": {"query": "SELECT 1 AS a", "useLegacySql": false, "destinationTable": table("scratch", "t")}})),
        ]),
    );
    for answer in answers {
        answer.refused("scope.read_only");
    }
    let left = world
        .far_requests()
        .iter()
        .filter(|request| {
            request["method"] != "GET" && !request["path"].to_string().contains("/jobs")
        })
        .filter(|request| request["host"] == "bigquery.googleapis.com")
        .count();
    assert_eq!(left, 0, "nothing of it left");
}

#[test]
fn a_result_and_a_copy_go_only_where_the_window_writes() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let query = |dataset: &str| {
        let destination = table(dataset, "result");
        let sql = "SELECT day, amount FROM finance.daily LIMIT 3";
        job(
            &json!({"query": {"query": sql, "useLegacySql": false, "destinationTable": destination}}),
        )
    };
    one(&world, &query("finance")).refused("scope.read_only");
    one(&world, &query("hr")).refused("scope.outside");
    one(&world, &query("scratch")).served();
    let copy = |from: (&str, &str), to: &str| {
        let copy = json!({"sourceTables": [table(from.0, from.1)], "destinationTable": table(to, "copied")});
        job(&json!({"copy": copy}))
    };
    one(&world, &copy(("hr", "salaries"), "scratch")).refused("scope.outside");
    one(&world, &copy(("finance", "daily"), "finance")).refused("scope.read_only");
    let copied = one(&world, &copy(("finance", "accounts"), "scratch"));
    let label = copied.served()["configuration"]["labels"]["enforcer_agent"].clone();
    assert_eq!(label, "finance-bot");
    let rows = run(
        &world,
        &["SELECT (SELECT COUNT(*) FROM scratch.result), (SELECT COUNT(*) FROM scratch.copied)"],
    );
    assert_eq!(rows, json!([["3", "20"]]));
}

#[test]
fn tables_are_made_filled_changed_and_removed_by_method() {
    let world = World::start(Family::V4);
    let grant = world.open_window(SCOPE, "5m");
    let tables = format!("{PROJECT}/datasets/scratch/tables");
    let schema = json!({"fields": [{"name": "id", "type": "INT64"}]});
    let new = json!({"tableReference": table("scratch", "made"), "schema": schema});
    let rows = json!({"rows": [{"json": {"id": "1"}}, {"json": {"id": "2"}}]});
    for request in [
        json!(["POST", tables, new]),
        json!(["POST", format!("{tables}/made/insertAll"), rows]),
        json!(["PATCH", format!("{tables}/made"), {"description": "made by an agent"}]),
    ] {
        one(&world, &request).served();
    }
    let sum = run(&world, &["SELECT SUM(id) FROM scratch.made"]);
    assert_eq!(sum, json!([["3"]]));
    let removed = one(&world, &json!(["DELETE", format!("{tables}/made"), null]));
    assert!(matches!(removed.status, 200 | 204), "{removed:?}");
    // Path and body name one table; a view is none; rows go into the table of the path.
    let view = json!({"tableReference": table("scratch", "v"), "view": {"query": "SELECT 1", "useLegacySql": false}});
    for (request, code) in [
        (
            json!(["POST", tables, {"tableReference": table("hr", "made")}]),
            "api.malformed",
        ),
        (
            json!(["PATCH", format!("{tables}/made"), {"tableReference": table("scratch", "other")}]),
            "api.malformed",
        ),
        (json!(["POST", tables, view]), "api.field"),
        (
            json!(["POST", format!("{tables}/notes/insertAll"), {"rows": [], "templateSuffix": "x"}]),
            "api.field",
        ),
        (
            json!([
                "DELETE",
                format!("{PROJECT}/datasets/finance/tables/daily"),
                null
            ]),
            "scope.read_only",
        ),
        (
            json!([
                "DELETE",
                format!("{PROJECT}/datasets/hr/tables/salaries"),
                null
            ]),
            "scope.outside",
        ),
        (
            json!(["DELETE", format!("{PROJECT}/datasets/scratch"), null]),
            "api.method",
        ),
    ] {
        one(&world, &request).refused(code);
    }
    // What is put in counts, as BigQuery bills it too.
    let status = world.json(Who::Operator, &["status"]);
    let grants = status["grants"].as_array().expect("a list");
    let view = grants.iter().find(|view| view["grant"] == grant.as_str());
    let used = view.expect("listed")["bytes"].as_u64().expect("a number");
    let put = serde_json::to_vec(&rows).expect("JSON").len() as u64;
    assert!(used >= put, "{used}");
}

/// Changes a table twice by an unmodified client, which sends the tag of the state it knows: the second time of one that has passed.
const CHANGES: &str = r#"
import json
from google.cloud import bigquery
from google.oauth2.credentials import Credentials
client = bigquery.Client(project="demo-project", credentials=Credentials("placeholder"))
table = client.get_table("scratch.notes")
def change(text):
    table.description = text
    try:
        return client.update_table(table, ["description"]).description
    except Exception as error:
        return type(error).__name__
old = bigquery.Table.from_api_repr(table.to_api_repr())
said = [change("first")]
table = old
said += [change("second"), client.get_table("scratch.notes").description]
said += [len(list(client.list_jobs(max_results=3, state_filter="done", all_users=False)))]
print(json.dumps(said))
"#;

#[test]
fn a_change_that_is_to_be_made_in_one_state_alone_is_made_in_no_other() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let python = harness::world::venv_python();
    let output = world
        .run_as(Who::Agent, python)
        .args(["-c", CHANGES])
        .output();
    let output = output.expect("python runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said.trim(),
        r#"["first", "PreconditionFailed", "first", 0]"#,
        "{errors}"
    );
    let notes = format!("{PROJECT}/datasets/scratch/tables/notes");
    let change = |condition: &str| json!(["PATCH", notes, {"description": "third"}, {condition: "\"stale\""}]);
    assert_eq!(one(&world, &change("if-match")).status, 412);
    one(&world, &change("if-unmodified-since")).refused("api.field");
    let tag = one(&world, &json!(["GET", notes, null])).served()["etag"].clone();
    let seen = one(&world, &json!(["GET", notes, null, {"if-none-match": tag}]));
    assert_eq!((seen.status, seen.body), (304, Value::Null));
    // A job has no state that could be told.
    let query = json!({"configuration": {"query": {"query": "SELECT 1", "useLegacySql": false}}});
    one(
        &world,
        &json!(["POST", format!("{PROJECT}/jobs"), query, {"if-match": tag}]),
    )
    .refused("api.field");
}

/// Puts in as many rows as fill a body, several times at once.
const ROWS: &str = r#"
from google.cloud import bigquery
from google.oauth2.credentials import Credentials
client = bigquery.Client(project="demo-project", credentials=Credentials("placeholder"))
for at in range(10):
    rows = [{"id": n, "text": "x" * 900} for n in range(950)]
    print(client.insert_rows_json("scratch.notes", rows, timeout=20, retry=None))
"#;

#[test]
fn rows_are_put_in_as_fast_as_requests_may_come_however_long_they_are() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let python = harness::world::venv_python();
    let output = world.run_as(Who::Agent, python).args(["-c", ROWS]).output();
    let output = output.expect("python runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "[]\n".repeat(10), "{errors}");
}

#[test]
fn bq_says_of_a_table_what_it_is_for() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let mut command = world.run_bare(
        Who::Agent,
        "timeout",
        &["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"],
    );
    command.args(["60", "bq", "update", "--description=hello", "scratch.notes"]);
    let output = command.output().expect("bq runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    let notes = format!("{PROJECT}/datasets/scratch/tables/notes");
    let described = one(&world, &json!(["GET", notes, null]));
    assert_eq!(described.served()["description"], "hello");
}

#[test]
fn an_approver_may_let_a_window_read_what_it_asked_to_write() {
    let world = World::start(Family::V4);
    let asked = world.json(
        Who::Agent,
        &[
            "request", "--scope", SCOPE, "--ttl", "5m", "--reason", "load",
        ],
    );
    let request = asked["request"].as_str().expect("an id").to_owned();
    let narrower = "demo-project.finance,demo-project.scratch:read";
    let _ = world.json(Who::Approver, &["approve", &request, "--scope", narrower]);
    refused(
        &world,
        "INSERT INTO scratch.notes (id, text) VALUES (1, 'x')",
        "scope.read_only",
    );
    // And nobody asks to write what the policy only lets be read.
    let wider = world.cli(
        Who::Agent,
        &[
            "request",
            "--scope",
            "demo-project.finance:write",
            "--reason",
            "load",
        ],
    );
    let said = String::from_utf8_lossy(&wider.stderr).into_owned();
    assert!(said.contains("[policy.none]"), "{said}");
}

#[test]
fn a_window_that_may_write_changes_rows_and_makes_and_removes_no_table() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.scratch:write", "5m");
    let _ = run(
        &world,
        &["INSERT INTO scratch.notes (id, text) VALUES (1, 'x')"],
    );
    for statement in [
        "CREATE TABLE scratch.more (id INT64)",
        "CREATE OR REPLACE TABLE scratch.notes AS SELECT 1 AS id, 'y' AS text",
        "DROP TABLE scratch.notes",
    ] {
        refused(&world, statement, "scope.ddl");
    }
    let kept = run(
        &world,
        &["SELECT DISTINCT text FROM scratch.notes WHERE text = 'x'"],
    );
    assert_eq!(kept, json!([["x"]]));
}

#[test]
fn a_window_that_may_write_fills_tables_and_leaves_their_columns_as_they_are() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read,demo-project.scratch:write", "5m");
    let filled = |kind: &str, name: &str, more: &Value| {
        let mut filling = match kind {
            "query" => json!({"query": "SELECT 1 AS id, 'x' AS text", "useLegacySql": false}),
            "copy" => json!({"sourceTable": table("finance", "accounts")}),
            _ => json!({"sourceFormat": "CSV"}),
        };
        filling["destinationTable"] = table("scratch", name);
        for (field, value) in more.as_object().expect("fields") {
            filling[field] = value.clone();
        }
        let path = match kind {
            "load" => {
                "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=resumable".to_owned()
            }
            _ => format!("{PROJECT}/jobs"),
        };
        one(
            &world,
            &json!(["POST", path, {"configuration": {kind: filling}}]),
        )
    };
    let said = |disposition: &str| json!({"writeDisposition": disposition});
    for kind in ["query", "copy", "load"] {
        filled(kind, "notes", &said("WRITE_TRUNCATE")).refused("scope.ddl");
        filled(kind, "notes", &said("WRITE_OVER")).refused("api.field");
    }
    let updating = json!({"writeDisposition": "WRITE_APPEND", "schemaUpdateOptions": ["ALLOW_FIELD_ADDITION"]});
    filled("load", "notes", &updating).refused("scope.ddl");
    let jobs = |request: &&Value| request["path"].to_string().contains("/jobs");
    assert_eq!(
        world.far_requests().iter().filter(jobs).count(),
        0,
        "BigQuery is not asked"
    );
    // What fills a table makes it where there is none, and what says that its columns stay is let through.
    filled("query", "made", &json!({})).served();
    filled("query", "made", &said("WRITE_TRUNCATE_DATA")).served();
    filled("copy", "copied", &said("WRITE_EMPTY")).served();
    filled("load", "loaded", &said("WRITE_APPEND")).served();
    let tables = format!("{PROJECT}/datasets/scratch/tables");
    for request in [
        json!(["POST", tables, {"tableReference": table("scratch", "t")}]),
        json!(["PATCH", format!("{tables}/notes"), {"description": "x"}]),
        json!(["DELETE", format!("{tables}/notes"), null]),
    ] {
        one(&world, &request).refused("scope.ddl");
    }
}

#[test]
fn a_client_loads_what_it_sends_in_one_body_or_in_parts() {
    let world = World::start(Family::V4);
    let grant = world.open_window(SCOPE, "5m");
    for (how, rows) in [("multipart", "1000"), ("resumable", "200000")] {
        let table = format!("demo-project.scratch.{how}");
        let loaded = world.script_of(Who::Agent, "agent/load.py", &[how, &table, rows]);
        assert_eq!(loaded["rows"].to_string(), rows, "{loaded}");
        let counted = run(&world, &[&format!("SELECT COUNT(*) FROM scratch.{how}")]);
        assert_eq!(counted, json!([[rows]]));
        for table in ["demo-project.finance.x", "demo-project.hr.x"] {
            let refused = world.script_of(Who::Agent, "agent/load.py", &[how, table, rows]);
            let error = refused["error"].as_str().unwrap_or_default().to_owned();
            let code = if table.contains("hr") {
                "scope.outside"
            } else {
                "scope.read_only"
            };
            assert!(error.contains(&format!("[{code}]")), "{how}: {refused}");
        }
    }
    let admitted = world.events("query_admitted");
    let begun = admitted
        .iter()
        .filter(|event| event["method"] == "jobs.insert (upload)");
    let written: Vec<_> = begun.map(|event| event["writes"][0].clone()).collect();
    assert_eq!(
        written,
        [
            "demo-project.scratch.multipart",
            "demo-project.scratch.resumable"
        ]
    );
    // What was sent counts, once.
    let status = world.json(Who::Operator, &["status"]);
    let grants = status["grants"].as_array().expect("a list");
    let view = grants.iter().find(|view| view["grant"] == grant.as_str());
    let used = view.expect("listed")["bytes"].as_u64().expect("a number");
    let sent: u64 = [1000_u64, 200_000]
        .iter()
        .flat_map(|rows| 0..*rows)
        .map(|row| format!("{{\"id\": {row}}}\n").len() as u64)
        .sum();
    assert!((sent..sent + 100_000_000).contains(&used), "{used}, {sent}");
}

#[test]
fn an_upload_is_its_windows_alone_and_ends_with_it() {
    let world = World::start(Family::V4);
    let grant = world.open_window(SCOPE, "5m");
    let path = begin_upload(&world);
    // BigQuery's own name for it is not told.
    let far = world.far_requests();
    assert!(
        far.iter()
            .all(|request| !request["path"].to_string().contains(&path))
    );
    let put = |range: &str| json!(["PUT", path, {"a": 1}, {"content-range": range}]);
    one(&world, &put("bytes 0-99/100")).refused("api.malformed");
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    one(&world, &put("bytes 0-7/100")).refused("window.none");
    let _ = world.open_window(SCOPE, "5m");
    one(&world, &put("bytes 0-7/100")).refused("job.foreign");
    let parts = world.far_requests();
    assert!(
        !parts.iter().any(|request| request["method"] == "PUT"),
        "no part was passed on"
    );
}

#[test]
fn a_part_of_an_upload_stops_with_its_window() {
    let world = World::start(Family::V4);
    let grant = world.open_window(SCOPE, "5m");
    let path = begin_upload(&world);
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let authority = world.stage.dir().join("run/ca.pem");
    command.args(["-c", SLOW_PART]).arg(authority).arg(&path);
    let mut client = Helper::start(&mut command);
    assert_eq!(client.line(), "begun");
    let is_passed_on = || {
        let admitted = world.events("query_admitted");
        admitted.iter().any(|event| event["method"] == "upload")
    };
    wait_for("the part", is_passed_on);
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    assert_eq!(client.line(), "HTTP/1.1 403 Forbidden");
    wait_for("the cut", || {
        let far = world.far_requests();
        far.iter()
            .any(|request| request["method"] == "PUT" && request["cut"].is_number())
    });
    let ended = world.events("query_finished");
    let trouble = ended.iter().find_map(|event| event["trouble"].as_str());
    assert!(
        trouble.is_some_and(|trouble| trouble.starts_with("cut: the window closed")),
        "{ended:?}"
    );
}

/// Sends bodies to paths as they are written on the command line, and prints the status and the words of each answer.
const RAW_BODIES: &str = r#"
import http.client, json, ssl, sys
wire = http.client.HTTPSConnection("bigquery.googleapis.com", context=ssl.create_default_context(cafile=sys.argv[1]))
for path, body in zip(sys.argv[2::2], sys.argv[3::2]):
    wire.request("POST", path, body.encode(), {"content-type": "application/json"})
    answer = wire.getresponse()
    print(json.dumps([answer.status, answer.read().decode()]))
"#;

fn post_raw(world: &World, bodies: &[(String, String)]) -> Vec<(u16, String)> {
    let output = world
        .run_as(Who::Agent, "/usr/bin/python3")
        .args(["-c", RAW_BODIES])
        .arg(world.stage.dir().join("run/ca.pem"))
        .args(bodies.iter().flat_map(|(path, body)| [path, body]))
        .output()
        .expect("python runs");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    let lines = printed.lines();
    let answers: Vec<(u16, String)> = lines
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(answers.len(), bodies.len(), "an answer to each");
    answers
}

#[test]
fn rows_that_are_put_into_a_table_arrive_as_they_were_sent() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    // Doubles of every size, by chance that is the same each time, and what no double holds.
    let mut chance = Chance::new("ROWS_SEED", 7);
    let mut doubles = Vec::new();
    for _ in 0..1500 {
        let (digits, tens) = (chance.below(usize::MAX), chance.below(41));
        let exponent = i32::try_from(tens).expect("small") - 30;
        doubles.push(format!("{digits}e{exponent}"));
        doubles.push(format!("{}.{digits}", chance.below(1_000_000_000)));
    }
    let bodies = vec![
        format!(r#"{{"rows": [{{"json": {{"id": 1, "xs": [{}]}}}}]}}"#, doubles.join(", ")),
        r#"{"rows":[{"insertId":"a","json":{"x":123456789012345678901234567890,"y":0.1234567890123456789,"z":4245191891425139.5,"u":1.50,"v":-0}}]}"#.to_owned(),
        "{ \"templateSuffix\": null, \"rows\": [ {\"json\": {\"text\": \"\\u00e9 é \\ud83d\\ude00\"}} ] }\n".to_owned(),
    ];
    let path = format!("{PROJECT}/datasets/scratch/tables/notes/insertAll");
    let asked: Vec<(String, String)> = bodies
        .iter()
        .map(|body| (path.clone(), body.clone()))
        .collect();
    for (status, words) in post_raw(&world, &asked) {
        assert!(!words.contains("[api."), "{status} {words}");
    }
    let requests = world.far_requests().into_iter();
    let arrived: Vec<String> = requests
        .filter(|request| request["path"].to_string().contains("insertAll"))
        .map(|request| request["body"].as_str().expect("text").to_owned())
        .collect();
    assert!(arrived == bodies, "{:?}", &arrived[1..]);
}

#[test]
fn a_number_that_64_bits_do_not_hold_is_refused_where_it_is_judged() {
    let world = World::start(Family::V4);
    let _ = world.open_window(SCOPE, "5m");
    let huge = "123456789012345678901234567890";
    let bodies = [
        (
            format!("{PROJECT}/jobs"),
            format!(
                r#"{{"configuration": {{"query": {{"query": "SELECT 1", "useLegacySql": false, "maximumBytesBilled": {huge}}}}}}}"#
            ),
        ),
        (
            format!("{PROJECT}/queries"),
            format!(r#"{{"query": "SELECT 1", "useLegacySql": false, "timeoutMs": {huge}}}"#),
        ),
        (
            format!("{PROJECT}/datasets/scratch/tables"),
            format!(
                r#"{{"tableReference": {{"projectId": "demo-project", "datasetId": "scratch", "tableId": "t"}}, "expirationTime": {huge}}}"#
            ),
        ),
    ];
    for (status, words) in post_raw(&world, &bodies) {
        assert!(
            status == 403 && words.contains("[api.malformed]"),
            "{status} {words}"
        );
    }
}
