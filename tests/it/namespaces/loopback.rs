//! What its own do to the loopback of a namespace that is served already: that nothing can be led there is told, and IPv6 that comes later is served.

use harness::stage::{BIGQUERY4, OTHER6};
use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

use super::apart::{Apart, answer};
use super::dead::{has_rows, served};
use super::{SYNTHETIC, gives_only, problems};

/// A connection is made, and kept, though the loopback is down for a moment so often.
const MOMENTS: usize = 4;

#[test]
fn where_a_loopback_that_was_served_leads_nowhere_that_is_said_and_served_again_once_it_does_and_no_other_agent_is_disturbed()
 {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut other = served(&world, Who::OtherAgent);
    other.must(&format!("hold {BIGQUERY4}"));
    let mut agent = served(&world, Who::Agent);
    let ways = [
        ["lo down", "lo up", "its loopback is down"],
        [
            "run ip addr del 127.0.0.1/8 dev lo",
            "run ip addr add 127.0.0.1/8 dev lo",
            "its loopback has no 127.0.0.1 any more",
        ],
    ];
    for (times, [breaks, mends, why]) in (1..).zip(ways) {
        agent.must(breaks);
        wait_for("it is said", || problems(&world).len() == 1);
        let refused = world.events("namespace_refused");
        assert_eq!(refused.len(), times, "{refused:?}");
        let refused = &refused[times - 1];
        let said = problems(&world).remove(0);
        let begins = format!(
            "network namespace {} of agent finance-bot is not served, so what it asks from there is refused: {why}",
            refused["netns"]
        );
        assert!(said.starts_with(&begins), "{said}");
        assert!(said.ends_with(refused["why"].as_str().expect("words")));
        // At once, where it would wait for an answer.
        let told = agent.does(&format!("connect {BIGQUERY4} 443"));
        assert_eq!(told, json!({"error": "ECONNREFUSED"}));
        agent.must(mends);
        has_rows(&mut agent);
        wait_for("nothing is wrong", || problems(&world).is_empty());
        let [served, left] = ["namespace_served", "namespace_left"].map(|kind| world.events(kind));
        assert_eq!((served.len(), left.len()), (2 + times, times));
        assert!(left.iter().all(|event| event["agent"] == "finance-bot"));
    }
    assert_eq!(world.events("namespace_refused").len(), 2);
    assert_eq!(other.must("holds"), true);
}

#[test]
fn a_loopback_that_is_down_for_moments_cuts_nothing_and_is_not_told_of() {
    let world = World::start(Family::V4);
    let mut agent = served(&world, Who::Agent);
    agent.must(&format!("hold {BIGQUERY4}"));
    agent.must(&format!("blinks {MOMENTS}"));
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    assert_eq!(agent.must("holds"), true);
    for kind in ["namespace_left", "namespace_refused"] {
        assert_eq!(world.events(kind), Vec::<Value>::new());
    }
}

/// An agent's process where IPv6 was switched off before it was served.
fn without_ipv6(world: &World) -> Apart {
    let mut agent = Apart::of(world);
    agent.must("unshare");
    agent.must("setting ipv6/conf/all/disable_ipv6 1");
    agent.must("lo up");
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    agent
}

/// What `status` says of IPv6.
fn said(world: &World) -> Vec<Value> {
    let checks = world.status()["checks"].as_array().cloned();
    let mut checks = checks.expect("a list");
    checks.retain(|check| check["what"] == "IPv6");
    checks
}

#[test]
fn where_a_namespace_that_is_served_has_no_ipv6_status_says_so_and_nothing_is_wrong() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut sound = served(&world, Who::OtherAgent);
    assert_eq!(said(&world), Vec::<Value>::new());
    let mut agent = without_ipv6(&world);
    has_rows(&mut agent);
    let netns = world.events("namespace_served").remove(1)["netns"].clone();
    let begins = format!("network namespace {netns} of agent finance-bot has no IPv6 (no ::1): ");
    let check = said(&world).remove(0);
    let words = check["said"].as_str().expect("words");
    assert!(
        words.starts_with(&begins) && words.contains("-Djava.net.preferIPv4Stack=true"),
        "{words}"
    );
    assert_eq!(check["state"], "well");
    assert_eq!(problems(&world), Vec::<String>::new());
    let mapped = BIGQUERY4.to_ipv6_mapped();
    let told = agent.does(&format!("connect {mapped} 443"));
    assert_eq!(told, json!({"error": "EADDRNOTAVAIL"}));
    // One that loses it while it is served is told of as well.
    sound.must("setting ipv6/conf/all/disable_ipv6 1");
    wait_for("both are told of", || {
        said(&world)[0]["said"]
            .as_str()
            .is_some_and(|words| words.contains("nor have 1 others"))
    });
    drop((agent, sound));
    wait_for("nothing is said of what has gone", || {
        said(&world).is_empty()
    });
}

#[test]
fn ipv6_that_is_switched_on_where_an_agent_is_served_is_served_at_once_and_its_ports_are_nobody_elses_before()
 {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = without_ipv6(&world);
    for port in [841, 842, 843] {
        gives_only(&mut agent, port);
        // No hook is asked there.
        assert_eq!(agent.does("listen 6"), json!({"error": "EADDRINUSE"}));
    }
    agent.must("setting ipv4/ip_local_port_range 32768 60999");
    agent.must("setting ipv6/conf/all/disable_ipv6 0");
    let mapped = BIGQUERY4.to_ipv6_mapped();
    let [status, body] = answer(agent.must(&format!("query {mapped}")));
    assert_eq!(status, 200, "{body}");
    for how in ["udp", "tcp"] {
        let told = agent.must(&format!("ask bigquery.googleapis.com {OTHER6} {how}"));
        assert_eq!(told, json!([SYNTHETIC]), "{how}");
    }
    wait_for("it is told of no more", || said(&world).is_empty());
    assert_eq!(world.events("namespace_left"), Vec::<Value>::new());
}
