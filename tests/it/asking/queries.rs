//! Queries without a window, of an agent whose queries may ask: held or refused with a number, many as one, and judged in full once approved.

use harness::world::{Client, Family, LOOSE, Who, World, cloud_sdk_is_missing, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{approve, open, pending, text, waiting};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
/// How many of one agent are held at once.
const HELD: usize = enforcer::proxy::asking::HELD_PER_AGENT_MAX;

/// A world in which `finance-bot` asks by its queries; `ops-bot` does not.
fn world(when: &str) -> World {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&format!(
        "[[rule]]\nagents = [\"finance-bot\"]\ndatasets = [\"demo-project.finance\", \"demo-project.hr\", \"demo-project.d_*\"]\n\
         writable = [\"demo-project.scratch\"]\nttl_max = \"5m\"\napprovers = {{ users = [{}] }}\n{}backoff = \"30s\"\n",
        harness::world::APPROVER_UID,
        LOOSE.replace("backoff = \"0s\"\n", "")
    ));
    let uid = format!("uid = {}\n", harness::world::AGENT_UID);
    world.edit_config(&uid, &format!("{uid}ask = \"{when}\"\n"));
    world.start_daemon();
    world
}

pub(super) fn deny(world: &World, request: &Value, reason: &str) {
    let args = ["deny", text(request, "request"), "--reason", reason];
    assert!(world.cli(Who::Approver, &args).status.success());
}

/// The error that a client showed.
pub(super) fn error(answer: &Value) -> String {
    let error = answer["error"].as_str();
    error.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

pub(super) fn by_http2(sql: &str) -> Value {
    json!({"method": "POST", "path": "/bigquery/v2/projects/demo-project/queries", "body": {"query": sql, "useLegacySql": false}})
}

/// The bodies of so many answers on one HTTP/2 connection, as they come.
pub(super) fn bodies(streams: &mut Client, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let seen = streams.receive();
        assert!(seen["request"].is_u64(), "{seen}");
        if let Some(ending) = seen["ending"].as_str() {
            assert_eq!(ending, "whole", "{seen}");
            bodies.push(text(&seen, "body").to_owned());
        }
    }
    bodies
}

#[test]
fn a_request_of_a_query_says_what_started_the_process_that_sent_it() {
    let world = world("refuse");
    let said = error(&world.query(&[DAILY])[0]);
    assert!(said.contains("[window.asked]"), "{said}");
    let record = world.events("requested").remove(0);
    let above = record["origin"]["ancestors"].as_array().expect("is told");
    let is_ours = |process: &Value| process["pid"] == std::process::id();
    assert!(above.iter().any(is_ours), "{record}");
    let cgroup = text(&record["origin"], "cgroup");
    assert!(cgroup.ends_with("/agents/finance-bot"), "{cgroup}");
    let own = world.json(Who::Agent, &["status"]);
    assert_eq!(own["requests"][0]["origin"], Value::Null, "{own}");
}

#[test]
fn a_held_query_gets_its_rows_once_it_is_approved_and_its_client_is_not_changed() {
    let world = world("hold");
    let mut client = world.client();
    client.send(DAILY);
    let one = waiting(&world);
    assert_eq!(one["ask"]["scope"], "demo-project.finance:read");
    assert_eq!(one["ask"]["ttl"], "5m", "no longer than the policy allows");
    assert_eq!(
        one["uid"],
        harness::world::AGENT_UID,
        "the client has asked"
    );
    assert_eq!(one["from_query"]["sql"], DAILY);
    assert_eq!(one["from_query"]["is_verified"], false);
    assert!(
        text(&one["ask"], "reason").starts_with("made of a query (jobs.insert): SELECT"),
        "{one}"
    );
    let shown = world.cli(Who::Approver, &["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("unverified") && shown.contains(DAILY),
        "{shown}"
    );
    let own = world.json(Who::OtherAgent, &["status"]);
    assert_eq!(
        own["requests"],
        json!([]),
        "another agent sees nothing of it"
    );
    let grant = approve(&world, &one);
    let served = client.receive();
    assert_eq!(served["rows"], json!([["1000"]]), "{served}");
    let admitted = world.events("query_admitted");
    assert_eq!(admitted[0]["grant"], grant.as_str());
    assert!(
        world.events("query_refused").is_empty(),
        "it never knew that there was none"
    );
    let requested = world.events("requested");
    assert_eq!(requested[0]["from_query"]["method"], "jobs.insert");
}

#[test]
fn a_denied_query_says_why_and_makes_no_new_request_for_a_while() {
    let world = world("hold");
    let mut client = world.client();
    client.send(DAILY);
    let one = waiting(&world);
    deny(&world, &one, "not before the close");
    let said = error(&client.receive());
    assert!(
        said.contains("was denied: not before the close") && said.contains("[request.denied]"),
        "{said}"
    );
    let said = error(&client.query("SELECT * FROM hr.salaries"));
    assert!(
        said.contains("not before the close") && said.contains("[request.too_soon]"),
        "{said}"
    );
    assert!(pending(&world).is_empty());
}

#[test]
fn a_query_that_is_not_held_is_told_the_number_and_runs_after_approval() {
    let world = world("refuse");
    let mut client = world.client();
    let said = error(&client.query(DAILY));
    let one = waiting(&world);
    let number = text(&one, "request");
    assert!(
        said.contains(&format!("request {number} was made of this"))
            && said.contains("[window.asked]")
            && said.contains("enforcer status"),
        "{said}"
    );
    let again = error(&client.query("SELECT MAX(day) FROM finance.daily"));
    assert!(again.contains(number), "it joins what waits: {again}");
    assert_eq!(waiting(&world)["queries"], 2);
    approve(&world, &one);
    assert_eq!(client.query(DAILY)["rows"], json!([["1000"]]));
    let refused = world.events("query_refused");
    assert_eq!(refused[0]["refusal"]["code"], "window.asked");
    assert_eq!(refused[0]["sql"], DAILY);
}

#[test]
fn twenty_queries_at_once_make_one_request_and_all_are_served_by_it() {
    let world = world("hold");
    let mut streams = world.streams();
    let queries = vec![by_http2(DAILY); 20];
    streams.send(&json!(queries).to_string());
    wait_for("all of them", || {
        pending(&world).iter().any(|view| view["queries"] == 20)
    });
    let one = waiting(&world);
    assert_eq!(pending(&world).len(), 1);
    assert_eq!(world.events("requested").len(), 1);
    approve(&world, &one);
    for body in bodies(&mut streams, 20) {
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["rows"][0]["f"][0]["v"], "1000", "{body}");
    }
}

#[test]
fn a_request_names_each_dataset_that_the_text_does_and_a_view_that_reaches_further_is_refused() {
    let world = world("hold");
    let mut client = world.client();
    client.send(
        "SELECT COUNT(*) FROM finance.accounts AS a JOIN hr.salaries AS s ON a.name != s.name",
    );
    let one = waiting(&world);
    assert_eq!(
        one["ask"]["scope"], "demo-project.finance,demo-project.hr:read",
        "{one}"
    );
    approve(&world, &one);
    assert_eq!(client.receive()["rows"], json!([["40"]]));
    let _ = world.json(Who::Agent, &["done"]);

    client.send("INSERT INTO scratch.notes (id, text) SELECT 1, name FROM hr.salaries");
    let one = waiting(&world);
    assert_eq!(
        one["ask"]["scope"], "demo-project.hr:read,demo-project.scratch:write",
        "{one}"
    );
    approve(&world, &one);
    assert!(client.receive()["rows"].is_array());
    let _ = world.json(Who::Agent, &["done"]);

    client.send("SELECT * FROM finance.hr_view");
    let one = waiting(&world);
    assert_eq!(one["ask"]["scope"], "demo-project.finance:read", "{one}");
    approve(&world, &one);
    let said = error(&client.receive());
    assert!(
        said.contains("demo-project.hr.salaries is outside window")
            && said.contains("It was approved for what the text of a query names")
            && said.contains("[scope.outside]"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_asked_for_is_refused_at_once_and_makes_no_request() {
    let world = world("hold");
    let mut client = world.client();
    for (sql, code) in [
        ("EXECUTE IMMEDIATE 'SELECT 1'", "[query.not_vouched]"),
        (
            "SELECT 1; SELECT * FROM finance.daily",
            "[query.not_vouched]",
        ),
        ("SELECT * FROM unknown.t", "[policy.none]"),
        ("DELETE FROM finance.daily WHERE TRUE", "[policy.none]"),
        ("SELECT 1", "[window.none]"),
    ] {
        let said = error(&client.query(sql));
        assert!(said.contains(code), "{sql}: {said}");
    }
    assert!(world.events("requested").is_empty());
    let other = world.script_of(Who::OtherAgent, "agent/query.py", &[DAILY]);
    assert!(
        error(&other).contains("[window.none]"),
        "its queries ask nobody"
    );
}

#[test]
fn a_call_that_reads_a_table_asks_as_well() {
    let world = world("hold");
    let mut streams = world.streams();
    let rows = "/bigquery/v2/projects/demo-project/datasets/finance/tables/accounts/data";
    streams.send(&json!([{"method": "GET", "path": rows}]).to_string());
    let one = waiting(&world);
    assert_eq!(one["ask"]["scope"], "demo-project.finance:read");
    assert_eq!(one["ask"]["reason"], "made of a call of tabledata.list");
    approve(&world, &one);
    let body = bodies(&mut streams, 1).remove(0);
    assert!(body.contains("account 1"), "{body}");
}

#[test]
fn a_flood_is_bounded_in_held_clients_and_in_requests() {
    let world = world("hold");
    let mut streams = world.streams();
    let queries = vec![by_http2(DAILY); HELD + 8];
    streams.send(&json!(queries).to_string());
    // Those past the bound are told the number at once.
    for body in bodies(&mut streams, 8) {
        assert!(body.contains("[window.asked]"), "{body}");
    }
    let one = waiting(&world);
    drop(streams);
    // Whoever goes away gives the place back, and the request stays.
    let mut client = world.client();
    client.send(DAILY);
    let all = (HELD + 9) as u64;
    wait_for("one more", || waiting(&world)["queries"] == all);
    approve(&world, &one);
    assert_eq!(client.receive()["rows"], json!([["1000"]]), "it was held");
    let _ = world.json(Who::Agent, &["done"]);

    let most = enforcer_proto::asking::OF_QUERIES_PER_AGENT_MAX;
    let queries: Vec<Value> = (0..most + 3)
        .map(|at| by_http2(&format!("SELECT * FROM d_{at}.t")))
        .collect();
    let mut streams = world.streams();
    streams.send(&json!(queries).to_string());
    for body in bodies(&mut streams, 3) {
        assert!(body.contains("[request.too_many]"), "{body}");
    }
    assert_eq!(pending(&world).len(), most);
}

#[test]
fn a_client_that_hangs_up_leaves_its_request_and_frees_its_place_over_http1_too() {
    let world = world("hold");
    let clients: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = world.client();
            client.send(DAILY);
            client
        })
        .collect();
    wait_for("all of them", || {
        pending(&world).iter().any(|view| view["queries"] == 3)
    });
    drop(clients);
    let mut streams = world.streams();
    let queries = vec![by_http2(DAILY); HELD];
    streams.send(&json!(queries).to_string());
    let all = (HELD + 3) as u64;
    wait_for("those after them", || waiting(&world)["queries"] == all);
    approve(&world, &waiting(&world));
    for body in bodies(&mut streams, HELD) {
        // More than may run at once: that is no matter of being held.
        let is_served = body.contains("1000") || body.contains("[window.busy]");
        assert!(is_served, "none was turned away: {body}");
    }
}

#[test]
fn a_daemon_that_stops_answers_those_whom_it_holds() {
    let world = world("hold");
    let mut client = world.client();
    client.send(DAILY);
    let one = waiting(&world);
    world.signal_daemon(Signal::TERM);
    let said = error(&client.receive());
    assert!(
        said.contains("[window.asked]") && said.contains(text(&one, "request")),
        "{said}"
    );
}

#[test]
fn bq_waits_for_the_decision_as_it_is() {
    if cloud_sdk_is_missing() {
        return;
    }
    let world = world("hold");
    let trust = ["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"];
    let mut bq = world.run_bare(Who::Agent, "bq", &trust);
    bq.args(["--format=csv", "query", "--nouse_legacy_sql", DAILY]);
    let running = bq
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("bq runs");
    approve(&world, &waiting(&world));
    let output = running.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1000"),
        "{output:?}"
    );
    assert_eq!(open(&world).len(), 1);
    assert_eq!(world.events("requested").len(), 1);
}
