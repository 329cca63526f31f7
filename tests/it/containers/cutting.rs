//! What runs in a container when its window closes: it ends there and then, and on record.

use std::path::Path;

use harness::world::{Client, Who, World, client_script, script, venv_python, wait_for};
use serde_json::{Value, json};

use super::podman::Podman;
use super::{DAILY, NAME, has_rows, is_refused, open_window, query, wait_until_served, world};

/// Longer work for the SQL engine than the test takes.
const SLOW: &str = "SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 300000)) a, UNNEST(GENERATE_ARRAY(1, 20000)) b WHERE MOD(a * b, 7) = 3";

/// A client of the agent's that stays, in its container.
fn client(podman: &Podman<'_>, script: &Path, args: &[&str]) -> Client {
    let script = script.display().to_string();
    let args = [&[script.as_str()], args].concat();
    podman.staying("agentbox", &venv_python(), &args)
}

fn is_cut(told: &Value) {
    let error = told["error"].as_str().unwrap_or_default();
    assert!(
        error.contains("window g-1 of agent finance-bot has closed"),
        "{told}"
    );
}

fn has(world: &World, kind: &str, field: &str, words: &str) -> bool {
    let events = world.events(kind);
    events.iter().any(|event| event[field] == words)
}

#[test]
fn a_query_that_runs_and_rows_under_way_are_cut_in_a_container_without_any_network_at_the_close_and_on_record()
 {
    let mut world = world(NAME);
    world.edit_config(
        "protected = [\"bigquery.googleapis.com\"]",
        "protected = [\"bigquery.googleapis.com\", \"bigquerystorage.googleapis.com\"]",
    );
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    podman.start("agentbox", "a=b", "none");
    wait_until_served(&world, 1);
    let grant = open_window(&world, &podman, "agentbox");

    let mut rows = client(&podman, &script("agent/storage.py"), &[]);
    let session = rows.query(&json!(["session", "demo-project.finance.daily"]).to_string());
    let stream = session["streams"][0].as_str();
    let stream = stream.unwrap_or_else(|| panic!("{session}"));
    // Minutes for the whole, so that it is under way at the close.
    world.set_faults(&json!({"rows_again": 10_000, "rows_drip_ms": 20}));
    let begun = rows.query(&json!(["rows", stream]).to_string());
    assert_eq!(begun["begun"], true, "{begun}");
    let mut slow = client(&podman, &client_script(), &["-"]);
    has_rows(&slow.query(DAILY));
    slow.send(SLOW);
    wait_for("the job", || {
        let admitted = world.events("query_admitted");
        let slow = admitted.iter().find(|event| event["sql"] == SLOW);
        let finished = world.events("query_finished");
        let is_of = |event: &&Value| slow.is_some_and(|slow| event["query"] == slow["query"]);
        finished
            .iter()
            .find(is_of)
            .is_some_and(|event| event["job"].is_object())
    });
    assert!(!has(
        &world,
        "query_finished",
        "trouble",
        "cut: the window closed"
    ));

    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    is_cut(&rows.receive());
    is_cut(&slow.receive());
    wait_for("the stream's end on record", || {
        has(
            &world,
            "query_finished",
            "trouble",
            "cut: the window closed",
        )
    });
    wait_for("the job's end on record", || {
        has(&world, "job_cancelled", "outcome", "cancelled")
    });
    is_refused(&query(&podman, "agentbox"));
}
