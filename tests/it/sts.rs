//! STS that refuses, lies, is slow or is somebody else: nothing is forwarded, all of it is recorded, and the agent hears one sentence.

use enforcer::clock::{Clock, SystemClock};
use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// Has the agent ask within a window, and says what it heard. Nothing goes to BigQuery, and it is on record.
fn refused(world: &World, code: &str) -> String {
    let heard = world.query(&[DAILY]).remove(0);
    // What the client adds of its own stands in lines below.
    let error = heard["error"].as_str().expect("refused").lines().next();
    let error = error.expect("a line").to_owned();
    assert!(
        error.starts_with("403") && error.contains(&format!("[{code}]")),
        "{error}"
    );
    assert!(error.contains("token could not be had"), "{error}");
    let requests = world.far_requests();
    assert!(
        requests
            .iter()
            .all(|request| request["host"] != "bigquery.googleapis.com"),
        "nothing is forwarded"
    );
    let recorded = world.events("query_refused");
    let is_it = |event: &Value| event["refusal"]["code"] == code && event["sql"] == DAILY;
    assert!(recorded.iter().any(is_it), "{recorded:?}");
    error
}

fn with(faults: &Value) -> World {
    let world = World::start(Family::V4);
    world.set_faults(faults);
    let _ = world.open_window("demo-project.finance:read", "5m");
    world
}

#[test]
fn an_assertion_that_sts_does_not_take_is_refused_to_the_agent_by_what_is_wrong_and_where() {
    for (faults, says) in [
        // Its clock is far ahead, or behind: expired, or not yet.
        (json!({"sts_clock_s": 100_000}), "invalid_grant"),
        (json!({"sts_clock_s": -3600}), "invalid_grant"),
        // It knows no such key.
        (json!({"jwks": "none"}), "invalid_grant"),
    ] {
        let world = with(&faults);
        let error = refused(&world, "token.misconfigured");
        assert!(
            error.contains("the security token service refused with status 400"),
            "{error}"
        );
        assert!(error.contains(says), "{error}");
        assert_eq!(world.tokens(), Vec::<Value>::new());
    }
}

#[test]
fn an_audience_that_is_not_the_providers_and_a_condition_that_fails_have_their_own_sentences() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config("providers/host-a", "providers/host-b");
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "5m");
    let error = refused(&world, "token.misconfigured");
    assert!(error.contains("invalid_target"), "{error}");

    let world = with(&json!({"condition": "fails"}));
    let error = refused(&world, "token.denied");
    assert!(error.contains("unauthorized_client"), "{error}");
}

#[test]
fn an_answer_of_stss_that_cannot_be_is_taken_for_none() {
    for (lie, says) in [
        ("html", "not the JSON expected"),
        ("huge", "broke off or is too large"),
        ("wrong_type", "no bearer token"),
        ("ended", "its token has ended already"),
        ("no_time", "life is no time"),
        ("no_token", "not the JSON expected"),
        ("moved", "refused with status 302"),
        ("throttled", "refused with status 429"),
    ] {
        let world = with(&json!({"sts": lie}));
        let code = match lie {
            "throttled" => "token.throttled",
            _ => "token.unavailable",
        };
        let error = refused(&world, code);
        assert!(error.contains(says), "{lie}: {error}");
        let elsewhere = |request: &Value| request["path"] == "/elsewhere";
        assert!(
            !world.far_requests().iter().any(elsewhere),
            "no redirect is followed"
        );
    }
}

#[test]
fn an_sts_that_hangs_is_given_up_in_bounded_time() {
    let world = with(&json!({"sts": "hang"}));
    let began = SystemClock.now().boot_ns;
    let error = refused(&world, "token.unavailable");
    assert!(error.contains("did not answer in time"), "{error}");
    let took_s = (SystemClock.now().boot_ns - began) / 1_000_000_000;
    assert!((9..30).contains(&took_s), "{took_s} s");
    // Who decides is not kept waiting meanwhile.
    assert!(world.cli(Who::Operator, &["status"]).status.success());
}

#[test]
fn a_token_that_bigquery_does_not_take_is_held_no_longer_however_long_it_was_said_to_live() {
    let world = with(&json!({"sts": "for_ever"}));
    for _ in 0..4 {
        let refused = world.query(&[DAILY]).remove(0);
        let error = refused["error"].as_str().expect("refused");
        assert!(error.contains("[token.denied]"), "{error}");
    }
    let exchanges = || {
        let requests = world.far_requests();
        let is_exchange = |request: &&Value| request["host"] == "sts.googleapis.com";
        requests.iter().filter(is_exchange).count()
    };
    assert!(exchanges() <= 3, "{} for four requests", exchanges());
    world.set_faults(&json!({}));
    wait_for("one that is taken", || {
        world.query(&[DAILY]).remove(0)["error"].is_null()
    });
    assert_eq!(world.tokens().len(), 1, "that is held");
}
