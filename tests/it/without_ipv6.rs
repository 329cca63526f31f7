//! A host on which IPv6 is switched off: the daemon serves IPv4, says so, and what is asked over IPv6's sockets is refused.

use harness::capture::Capture;
use harness::stage::{BIGQUERY4, BIGQUERY6, Side};
use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

/// A world whose host has no IPv6, its daemon started.
fn world() -> World {
    let mut world = World::without_daemon(Family::V4);
    switch(&world, "1");
    world.start_daemon();
    world
}

/// Switches IPv6 off there, or on.
fn switch(world: &World, is_off: &str) {
    world.stage.on(Side::Host, || {
        for interface in ["all", "default", "lo", "wire0"] {
            let switch = format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6");
            std::fs::write(switch, is_off).expect("switches it");
        }
    });
}

#[test]
fn a_host_without_ipv6_is_served_over_ipv4_and_says_so() {
    let world = world();
    let status = world.status();
    let said = "IPv6 is switched off on this host";
    assert!(status["checks"].to_string().contains(said), "{status}");
    let _ = world.open_window("demo-project.finance:read", "5m");
    let answers = world.query(&["SELECT 1"]);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0]["error"].is_null(), "{answers:?}");
    // Nothing that is missing here is taken for a fault: the daemon has tried every way and asked itself by now, or does at once.
    let told = world.script_of(
        Who::Agent,
        "agent/ask.py",
        &["sent", "192.0.2.53", "bigquery.googleapis.com", "A"],
    );
    assert_eq!(told["answers"], json!(["192.0.2.80"]));
    wait_for("a round of questions", || {
        world.status()["kernel"]["redirected"].as_u64() > Some(3)
    });
    assert_eq!(world.status()["unhealthy"], json!([]));
}

#[test]
fn what_is_asked_over_sockets_of_ipv6_is_refused_there() {
    let world = world();
    let wire = Capture::start(&world.stage, [BIGQUERY4.into(), BIGQUERY6.into()]);
    let _ = world.open_window("demo-project.finance:read", "5m");
    assert_eq!(world.probe(Who::Agent, BIGQUERY4.into()), "ok");
    // Led to ::1, which is not there.
    for address in [BIGQUERY4.to_ipv6_mapped(), BIGQUERY6] {
        for who in [Who::Agent, Who::Operator] {
            let told = world.probe(who, address.into());
            assert!(
                ["EADDRNOTAVAIL", "ENETUNREACH", "EPERM"].contains(&told.as_str()),
                "{who:?} {address}: {told}"
            );
        }
    }
    assert_eq!(wire.packets(), 0);
}

#[test]
fn ipv6_that_is_switched_on_later_is_served_without_a_new_start() {
    let world = world();
    let _ = world.open_window("demo-project.finance:read", "5m");
    let mapped = BIGQUERY4.to_ipv6_mapped();
    assert_ne!(world.probe(Who::Agent, mapped.into()), "ok");
    switch(&world, "0");
    assert_eq!(world.probe(Who::Agent, mapped.into()), "ok");
    let checks = world.status()["checks"].to_string();
    assert!(!checks.contains("IPv6 is switched off"), "{checks}");
}

#[test]
fn the_proof_leaves_ipv6_out_and_shows_the_rest() {
    let world = world();
    let config = world.config().display().to_string();
    let output = world.cli(Who::Operator, &["prove", "--config", &config, "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (output.status.code(), &said["reached"]),
        (Some(0), &json!(0)),
        "{said}"
    );
    let paths = said["paths"].as_array().expect("a list");
    let of = |name: &str| paths.iter().find(|path| path["path"] == name);
    assert_eq!(of("tcp-connect/v4").expect("a line")["outcome"], "blocked");
    assert_eq!(
        of("tcp-connect/mapped").expect("a line")["outcome"],
        "blocked"
    );
    let left_out = of("tcp-connect/v6").expect("a line");
    assert_eq!(left_out["outcome"], "not_tried");
    assert_eq!(left_out["why"], "IPv6 is switched off on this host");
}
