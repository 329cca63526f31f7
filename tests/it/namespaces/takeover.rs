//! Who may make packets in a network namespace, and speaks under the numbers of a connection that another agent has made there.

use harness::world::{AGENT_UID, Client, Family, Who, World, script};
use serde_json::{Value, json};

use super::BIGQUERY4;
use super::apart::{Apart, answer, makes_packets};

/// The code of what somebody else has said.
const FOREIGN: &str = "tls.foreign";
/// That of keys in which somebody else may have a say.
const INSUFFICIENT: &str = "tls.insufficient_security";
/// The daemon's port for connections.
const PROXY_PORT: &str = "841";

/// A process of the other agent's in the namespace that another one is in, which speaks in its place.
fn takes_over(world: &World, pid: &Value, how: &str) -> Client {
    let mut command = makes_packets(world, Who::OtherAgent, pid, "agent/takeover.py");
    command
        .arg(world.stage.dir().join("run/ca.pem"))
        .args([PROXY_PORT, how]);
    Client::start(command)
}

/// How it ends for who speaks in the place of an agent that has a window.
fn spoken_in_its_place(how: &str) -> (World, Value) {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    let pid = agent.must("pid");
    let mut other = takes_over(&world, &pid, how);
    assert_eq!(other.receive()["ok"], "listens");
    // It connects, and says nothing: as good as one whose packets somebody keeps away.
    agent.must(&format!("opens {BIGQUERY4}"));
    let told = other.receive();
    assert_eq!(world.events("query_admitted"), Vec::<Value>::new());
    // By itself it has what it has asked for, as before.
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
    (world, told)
}

#[test]
fn what_another_says_by_packets_of_its_own_making_in_an_agents_place_gets_nothing_and_is_on_record()
{
    let (world, told) = spoken_in_its_place("frame");
    assert_eq!(told, json!({"error": "ConnectionResetError"}));
    harness::world::wait_for("it is on record", || {
        let refused = world.events("connection_refused");
        let is_it = |event: &Value| {
            event["refusal"]["code"] == FOREIGN
                && event["agent"] == "finance-bot"
                && event["process"]["uid"] == AGENT_UID
        };
        refused.iter().any(is_it)
    });
}

#[test]
fn what_another_says_by_a_raw_socket_in_an_agents_place_does_not_leave_it_and_is_on_record_as_its_own()
 {
    let (world, told) = spoken_in_its_place("raw");
    assert_eq!(told["ok"], Value::Null, "{told}");
    harness::world::wait_for("it is on record", || {
        let refused = world.events("kernel_refused");
        refused.iter().any(|event| event["agent"] == "ops-bot")
    });
}

/// How often a connection was refused by this code.
fn refused(world: &World, code: &str) -> usize {
    let refused = world.events("connection_refused");
    let is_it = |event: &&Value| event["refusal"]["code"] == code;
    refused.iter().filter(is_it).count()
}

/// Waits until it is on record so often that what came was not said by who connected.
fn foreign_hellos_are_on_record(world: &World, times: usize) {
    harness::world::wait_for("it is on record", || refused(world, FOREIGN) >= times);
}

#[test]
fn what_the_rules_of_a_namespace_write_into_a_hello_is_not_taken_for_what_was_said_and_what_they_do_to_its_head_is()
 {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    agent.runs("nft add table inet t");
    agent.runs("nft add chain inet t out { type filter hook output priority 0 ; }");
    agent.runs("nft add rule inet t out tcp dport 841 ip dscp set cs1");
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
    // A byte of the hello's random, as whoever has others handed to a program could change all of it.
    agent.runs("nft add rule inet t out tcp dport 841 @ih,88,8 set 0x7");
    let told = agent.does(&format!("query {BIGQUERY4}"));
    assert!(told.get("error").is_some(), "{told}");
    foreign_hellos_are_on_record(&world, 1);
    agent.runs("nft delete table inet t");
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
}

#[test]
fn the_middle_of_what_a_socket_says_is_not_taken_for_what_it_says_first_whatever_the_rules_of_a_namespace_write_into_heads()
 {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    for (before, how) in ["sequence", "offset", "first"].into_iter().enumerate() {
        is_answered_nothing(&world, &mut agent, "middle", how);
        if how == "first" {
            a_packet_that_is_not_the_first_is_on_record(&world);
        } else {
            foreign_hellos_are_on_record(&world, before + 1);
        }
    }
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
}

#[test]
fn what_is_put_together_of_fragments_is_not_taken_for_what_the_socket_of_the_last_one_says() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    is_answered_nothing(&world, &mut agent, "pieces", "");
    foreign_hellos_are_on_record(&world, 1);
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
}

#[test]
fn over_multipath_tcp_an_agent_in_a_namespace_of_its_own_is_refused_at_once_since_its_root_says_by_which_way_what_is_said_goes()
 {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    let told = agent.does(&format!("multipath {BIGQUERY4}"));
    assert_eq!(told["error"], "EPERM", "{told}");
    harness::world::wait_for("it is on record", || {
        let refused = world.events("kernel_refused");
        let verdict = "multipath TCP is served on this host's own network alone";
        let is_it = |event: &Value| {
            event["verdict"]
                .as_str()
                .is_some_and(|v| v.ends_with(verdict))
        };
        refused
            .iter()
            .any(|event| is_it(event) && event["agent"] == "finance-bot")
    });
}

#[test]
fn what_a_socket_says_is_not_begun_anew_by_a_later_packet_that_rules_make_look_like_its_first() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    is_answered_nothing(&world, &mut agent, "anew", "");
    a_packet_that_is_not_the_first_is_on_record(&world);
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
}

/// Has an agent's process do what the program does as root of its namespace, which must not come to an answer.
fn is_answered_nothing(world: &World, agent: &mut Apart, program: &str, how: &str) {
    let roots = world.stage.dir().join("run/ca.pem");
    let told = agent.runs(&format!(
        "/usr/bin/python3 {} {} {BIGQUERY4} {PROXY_PORT} {how}",
        script(&format!("agent/{program}.py")).display(),
        roots.display()
    ));
    assert!(told.contains("error"), "{program} {how}: {told}");
}

fn a_packet_that_is_not_the_first_is_on_record(world: &World) {
    harness::world::wait_for("it is on record", || {
        let refused = world.events("kernel_refused");
        let verdict = "egress refused: the packet is not the first of its socket's";
        refused.iter().any(|event| event["verdict"] == verdict)
    });
}

#[test]
fn in_a_namespace_of_its_own_an_agent_speaks_tls_1_3_by_which_nobody_else_has_a_say_in_the_keys() {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    let roots = world.stage.dir().join("run/ca.pem");
    let curl = |how: &str| {
        let url = "https://bigquery.googleapis.com/discovery/v1/apis";
        format!(
            "curl --silent --max-time 10 {how} --cacert {} --resolve bigquery.googleapis.com:443:{BIGQUERY4} {url}",
            roots.display()
        )
    };
    let in_its_own =
        |agent: &mut Apart, how: &str| agent.must(&format!("run {}", curl(how)))[0] == 0;
    let on_the_hosts = |how: &str| {
        let mut command = world.run_as(Who::Agent, "sh");
        command
            .args(["-c", &curl(how)])
            .output()
            .expect("runs")
            .status
            .success()
    };
    assert!(in_its_own(&mut agent, "--tls-max 1.3"));
    // The second asks with a key that the daemon has none for, and is asked for another hello.
    let less = ["--tls-max 1.2", "--tlsv1.3 --curves P-521:X25519"];
    for (before, how) in less.into_iter().enumerate() {
        assert!(on_the_hosts(how), "{how}");
        assert_eq!(refused(&world, INSUFFICIENT), before);
        assert!(!in_its_own(&mut agent, how), "{how}");
        let is_it = || refused(&world, INSUFFICIENT) > before;
        harness::world::wait_for("it is on record", is_it);
    }
    assert_eq!(refused(&world, FOREIGN), 0);
}
