//! Who may make packets in a network namespace, and speaks under the numbers of a connection that another agent has made there.

use harness::stage::Side;
use harness::world::{AGENT_UID, Client, Family, Who, World, script};
use serde_json::{Value, json};

use super::BIGQUERY4;
use super::apart::{Apart, answer};

/// The daemon's port for connections.
const PROXY_PORT: &str = "841";

/// A process of the other agent's in the namespace that another one is in, with what a container has by default: it may make packets there.
fn takes_over(world: &World, pid: &Value, how: &str) -> Client {
    let cgroup = world.cgroup_of(Who::OtherAgent);
    let mut command = world
        .stage
        .command_in(Side::Host, Some(&cgroup), None, "nsenter");
    let uid = Who::OtherAgent.uid().expect("it has one");
    command.arg(format!("--net=/proc/{pid}/ns/net"));
    command.args(["setpriv", "--clear-groups"]);
    command.args([format!("--reuid={uid}"), format!("--regid={uid}")]);
    command.args(["--inh-caps=+net_raw", "--ambient-caps=+net_raw"]);
    command
        .args(["/usr/bin/python3"])
        .arg(script("agent/takeover.py"))
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
            event["refusal"]["code"] == "tls.foreign"
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
