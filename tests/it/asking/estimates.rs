//! What BigQuery's dry run says of a query without a window, asked under the estimator's own identity: approvers are told, the agent is not.

use std::collections::BTreeSet;

use harness::world::{APPROVER_UID, COLLEAGUE_UID, Family, LOOSE, Who, World, wait_for};
use serde_json::{Value, json};

use super::queries::{bodies, by_http2, deny, error};
use super::{approve, pending, text, waiting};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
const VIEW: &str = "SELECT COUNT(*) FROM finance.hr_view";
const ESTIMATOR: &str = "host-a/estimator/estimator";
const BOTH: &str = "demo-project.finance,demo-project.hr:read";

/// A world in which `finance-bot` asks by its queries, for these datasets at most.
fn world(when: &str, datasets: &str, estimator: &str) -> World {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&format!(
        "[[rule]]\nagents = [\"finance-bot\"]\ndatasets = [{datasets}]\nttl_max = \"5m\"\napprovers = {{ users = [{APPROVER_UID}] }}\n{LOOSE}\
         [[rule]]\nagents = [\"ops-bot\"]\ndatasets = [\"demo-project.finance\"]\napprovers = {{ users = [{COLLEAGUE_UID}] }}\n"
    ));
    let uid = format!("uid = {}\n", harness::world::AGENT_UID);
    world.edit_config(&uid, &format!("{uid}ask = \"{when}\"\n"));
    world.edit_config("[token]", &format!("{estimator}[token]"));
    world.start_daemon();
    world
}

const WIDE: &str = "\"demo-project.finance\", \"demo-project.hr\"";

fn estimating(when: &str) -> World {
    world(when, WIDE, "[estimator]\n")
}

/// The requests to BigQuery that were sent with a token of the estimator's, and those with any other.
fn by_whom(world: &World) -> (Vec<Value>, Vec<Value>) {
    let tokens = world.tokens();
    let own = tokens.iter().filter(|token| token["sub"] == ESTIMATOR);
    let own: BTreeSet<String> = own
        .map(|token| format!("Bearer {}", text(token, "token")))
        .collect();
    let bearer = |request: &Value| {
        let headers = request["headers"].as_array().cloned().unwrap_or_default();
        let found = headers.iter().find(|header| header[0] == "authorization");
        found.map(|header| header[1].as_str().unwrap_or_default().to_owned())
    };
    let requests = world.far_requests();
    let requests = requests
        .into_iter()
        .filter(|request| request["host"] == "bigquery.googleapis.com");
    requests.partition(|request| bearer(request).is_some_and(|bearer| own.contains(&bearer)))
}

/// What the agent sees of its newest request by the control socket.
fn own_view(world: &World) -> Value {
    view_of(world, Who::Agent)
}

fn view_of(world: &World, who: Who) -> Value {
    let status = world.json(who, &["status"]);
    let requests = status["requests"].as_array().expect("a list");
    requests.last().expect("one").clone()
}

/// What a command of somebody's prints.
fn printed(world: &World, who: Who, args: &[&str]) -> String {
    let output = world.cli(who, args);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn estimate(request: &Value) -> &Value {
    &request["from_query"]["estimate"]
}

#[test]
fn a_query_of_a_view_asks_for_what_its_dry_run_names_and_approvers_alone_are_told() {
    let world = estimating("hold");
    let mut client = world.client();
    client.send(VIEW);
    let one = waiting(&world);
    assert_eq!(one["ask"]["scope"], BOTH, "{one}");
    assert_eq!(one["from_query"]["is_verified"], true);
    assert!(estimate(&one)["bytes"].is_u64(), "{one}");
    let tables = estimate(&one)["tables"].to_string();
    assert!(tables.contains("demo-project.hr.salaries"), "{one}");
    assert_eq!(estimate(&one)["failed"], Value::Null);
    let shown = printed(&world, Who::Approver, &["status"]);
    assert!(
        shown.contains("the dry run says: ")
            && shown.contains("demo-project.hr.salaries")
            && shown.contains("its text names: demo-project.finance:read")
            && shown.contains("those that BigQuery's dry run names"),
        "{shown}"
    );

    // Its own agent is shown what its text names, as if nobody had asked.
    let own = own_view(&world);
    assert_eq!(own["scope"], "demo-project.finance:read");
    assert_eq!(own["ask"]["scope"], "demo-project.finance:read");
    assert_eq!(own["from_query"]["is_verified"], false);
    assert_eq!((&own["digest"], estimate(&own)), (&json!(""), &Value::Null));
    assert!(!own.to_string().contains("demo-project.hr"), "{own}");
    let said = printed(&world, Who::Agent, &["status"]);
    assert!(
        said.contains("unverified")
            && !said.contains("demo-project.hr")
            && !said.contains("--seen"),
        "{said}"
    );

    // The text was on record before it left, and the estimator has asked nothing else.
    let kinds: Vec<String> = world
        .records()
        .iter()
        .map(|record| text(&record["event"], "kind").to_owned())
        .filter(|kind| ["estimate_asked", "requested"].contains(&kind.as_str()))
        .collect();
    assert_eq!(kinds, ["estimate_asked", "requested"]);
    let asked = world.events("estimate_asked").remove(0);
    assert_eq!(
        (&asked["sql"], &asked["project"]),
        (&json!(VIEW), &json!("demo-project"))
    );
    let (of_estimator, of_others) = by_whom(&world);
    assert_eq!((of_estimator.len(), of_others.len()), (1, 0));

    approve(&world, &one);
    let served = client.receive();
    assert!(served["rows"].is_array(), "{served}");
    let own = own_view(&world);
    assert_eq!(own["scope"], BOTH, "it may use that now");
    assert_eq!(estimate(&own), &Value::Null);
    let (of_estimator, of_others) = by_whom(&world);
    assert_eq!(of_estimator.len(), 1);
    assert!(!of_others.is_empty(), "the window has a token of its own");
    let body: Value = serde_json::from_str(text(&of_estimator[0], "body")).expect("JSON");
    assert_eq!(
        text(&of_estimator[0], "path"),
        "/bigquery/v2/projects/demo-project/jobs"
    );
    assert_eq!(body["configuration"]["dryRun"], true);
    assert_eq!(
        body["configuration"]["labels"],
        json!({"enforcer_agent": "finance-bot", "enforcer_host": "host-a"})
    );
    for token in world
        .tokens()
        .iter()
        .filter(|token| token["sub"] == ESTIMATOR)
    {
        assert_eq!(token["claims"]["grant"], "none");
        assert_eq!(token["claims"]["datasets"], json!([]));
    }

    let why = printed(&world, Who::Approver, &["why", text(&one, "request")]);
    assert!(why.contains("demo-project.hr"), "{why}");
    let log = printed(&world, Who::Approver, &["log"]);
    assert!(
        log.contains("the dry run says: ") && log.contains("estimate finance-bot"),
        "{log}"
    );
}

#[test]
fn queries_join_by_their_texts_and_no_refusal_tells_what_the_dry_run_said() {
    let world = estimating("refuse");
    let mut client = world.client();
    let view = error(&client.query(VIEW));
    let daily = error(&client.query(DAILY));
    // What waits covers hr, and does not show it: a text that names it makes a request of its own.
    let direct = error(&client.query("SELECT COUNT(*) FROM hr.salaries"));
    let numbers: Vec<Value> = pending(&world)
        .iter()
        .map(|view| view["request"].clone())
        .collect();
    assert_eq!(numbers, [json!("r-1"), json!("r-2")]);
    for (said, number) in [(&view, "r-1"), (&daily, "r-1"), (&direct, "r-2")] {
        assert!(
            said.contains(&format!("request {number} was made of this"))
                && said.contains("[window.asked]"),
            "{said}"
        );
        assert!(
            !said.contains("demo-project.hr") && !said.contains("dry run"),
            "{said}"
        );
    }
    assert_eq!(
        world.events("estimate_asked").len(),
        2,
        "what joins is not asked about"
    );
}

#[test]
fn who_decides_for_other_agents_alone_is_shown_no_more_than_the_agent_itself() {
    let world = estimating("refuse");
    drop(world.client().query(VIEW));
    assert_eq!(view_of(&world, Who::Approver)["scope"], BOTH);
    let (own, other) = (own_view(&world), view_of(&world, Who::Colleague));
    for name in [
        "ask",
        "scope",
        "ttl",
        "digest",
        "rule",
        "wanting",
        "agreed",
        "from_query",
    ] {
        assert_eq!(own[name], other[name], "{name}");
    }
    assert!(!other.to_string().contains("demo-project.hr"), "{other}");
}

#[test]
fn twenty_queries_at_once_have_bigquery_asked_once() {
    let world = estimating("hold");
    let mut streams = world.streams();
    streams.send(&json!(vec![by_http2(VIEW); 20]).to_string());
    wait_for("all of them", || {
        pending(&world).iter().any(|view| view["queries"] == 20)
    });
    let one = waiting(&world);
    assert_eq!(world.events("requested").len(), 1);
    assert_eq!(by_whom(&world).0.len(), 1);
    approve(&world, &one);
    for body in bodies(&mut streams, 20) {
        assert!(!body.contains("[scope.outside]"), "{body}");
    }
}

#[test]
fn where_no_estimate_can_be_had_the_request_is_that_of_the_text_and_approvers_are_told_why() {
    let world = estimating("refuse");
    let mut client = world.client();
    let sql = |at: usize| format!("SELECT COUNT(*) + {at} FROM finance.daily");
    for (at, (faults, asked, why)) in [
        (json!({"bigquery": "down"}), sql(1), "refused the dry run"),
        (
            json!({"echo_authorization": true}),
            sql(2),
            "carried a credential",
        ),
        (
            json!({"instead": [401, {}]}),
            sql(3),
            "did not accept the token",
        ),
        (
            json!({"hold_ms": 12_000}),
            sql(4),
            "did not answer within 10 s",
        ),
        (
            json!({}),
            "SELECT * FROM finance.nosuch".to_owned(),
            "nosuch",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        world.set_faults(&faults);
        let said = error(&client.query(&asked));
        let one = waiting(&world);
        assert!(
            said.contains(&format!("request r-{} was made of this", at + 1)),
            "{said}"
        );
        let bare = said.replace(&asked, "");
        assert!(!bare.contains(why) && !bare.contains("dry run"), "{said}");
        assert_eq!(one["ask"]["scope"], "demo-project.finance:read");
        assert_eq!(one["from_query"]["is_verified"], false);
        let failed = estimate(&one)["failed"].as_str().unwrap_or_default();
        assert!(failed.contains(why), "{why}: {one}");
        let own = own_view(&world);
        assert_eq!((&own["digest"], estimate(&own)), (&json!(""), &Value::Null));
        let shown = printed(&world, Who::Approver, &["status"]);
        assert!(shown.contains("the dry run says nothing: "), "{shown}");
        world.set_faults(&json!({}));
        deny(&world, &one, "next");
    }
    // What BigQuery did not say is not kept for the same query.
    assert!(error(&client.query(&sql(4))).contains("[window.asked]"));
    assert_eq!(waiting(&world)["from_query"]["is_verified"], true);
}

#[test]
fn without_a_token_for_it_nothing_is_asked_and_the_next_query_has_one() {
    let world = estimating("refuse");
    let mut client = world.client();
    world.set_faults(&json!({"sts": "down"}));
    let said = error(&client.query(DAILY));
    assert!(
        said.contains("[window.asked]") && !said.contains("token"),
        "{said}"
    );
    let one = waiting(&world);
    let failed = estimate(&one)["failed"].as_str().unwrap_or_default();
    assert!(failed.contains("token could not be had"), "{one}");
    assert_eq!(world.asked_of_bigquery(), 0);
    world.set_faults(&json!({}));
    // A failure is told to everybody for a second before another is risked.
    wait_for("an estimate", || {
        deny(&world, &waiting(&world), "seen");
        drop(client.query(DAILY));
        waiting(&world)["from_query"]["is_verified"] == true
    });
}

#[test]
fn what_the_policy_covers_only_in_part_is_asked_for_in_that_part_and_no_word_tells_its_agent() {
    let world = world("refuse", "\"demo-project.finance\"", "[estimator]\n");
    let mut client = world.client();
    let said = error(&client.query(VIEW));
    assert!(
        said.contains("request r-1 was made of this") && !said.contains("demo-project.hr"),
        "{said}"
    );
    let one = waiting(&world);
    assert_eq!(one["ask"]["scope"], "demo-project.finance:read");
    let failed = estimate(&one)["failed"].as_str().unwrap_or_default();
    assert!(
        failed.contains("No policy rule lets agent finance-bot ask for"),
        "{one}"
    );
    assert!(
        estimate(&one)["tables"].to_string().contains("hr.salaries"),
        "{one}"
    );
    // A text that nobody could be asked for does not leave the host.
    let before = world.asked_of_bigquery();
    let said = error(&client.query("SELECT * FROM hr.salaries"));
    assert!(said.contains("[policy.none]"), "{said}");
    assert_eq!(world.asked_of_bigquery(), before);
    assert_eq!(world.events("estimate_asked").len(), 1);
}

#[test]
fn unless_it_is_turned_on_nothing_of_a_query_without_a_window_leaves_the_host() {
    let world = world("refuse", WIDE, "");
    let mut client = world.client();
    drop(client.query(VIEW));
    let one = waiting(&world);
    assert_eq!(one["ask"]["scope"], "demo-project.finance:read");
    assert_eq!(estimate(&one), &Value::Null);
    assert_eq!((world.asked_of_bigquery(), world.tokens()), (0, Vec::new()));
    assert!(world.events("estimate_asked").is_empty());
}
