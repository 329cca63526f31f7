//! Questions for names where others may make packets and change them: each is told what everybody is in a datagram, and what is its own by a connection.

use harness::stage::OTHER6;
use harness::world::{AGENT_UID, Client, Family, Who, World, wait_for};
use serde_json::{Value, json};

use super::apart::{Apart, beside, makes_packets};
use super::{OTHER4, SYNTHETIC};

/// The port that the one agent asks from.
const PORT: &str = "40007";
/// The daemon's for questions.
const NAMES_PORT: &str = "842";

/// A namespace with a network that this host's root has given it, in which both agents are: the one is told any name, the other those on its list.
fn shared(world: &mut World) -> (Apart, Apart) {
    world.edit_config("uid = 2001\n", "uid = 2001\ndns = \"forward\"\n");
    world.edit_config(
        "name = \"ops-bot\"\n",
        "name = \"ops-bot\"\ndns = \"strict\"\n",
    );
    world.start_daemon();
    let mut root = Apart::whose(world, Who::Operator);
    root.must("again");
    root.runs("ip link add wire0 type veth peer name wire1");
    root.runs("ip link set wire0 up");
    root.must("lo up");
    let pid = root.must("pid");
    let mut agent = beside(world, Who::Agent, &pid);
    let _ = agent.must(&format!("reach {OTHER4} 53"));
    (root, agent)
}

/// What another agent's process there is told that may make packets.
fn asks_in_its_place(world: &World, root: &mut Apart, names: [&str; 2]) -> Value {
    let pid = root.must("pid");
    let mut command = makes_packets(world, Who::OtherAgent, &pid, "agent/asks.py");
    command.args([NAMES_PORT, PORT]).args(names);
    Client::start(command).receive()
}

#[test]
fn who_may_make_packets_asks_for_no_name_in_another_agents_place_and_what_is_told_in_datagrams_is_what_everybody_is_told()
 {
    let mut world = World::without_daemon(Family::V4);
    let (mut root, mut agent) = shared(&mut world);
    let told = agent.must(&format!("ask example.com {OTHER6} udp 53 {PORT}"));
    assert_eq!(told, json!([OTHER4]));
    let asked = world.asked_names();
    assert!(asked.contains(&"example.com".to_owned()), "{asked:?}");

    let names = ["frame.example.com", "fragment.example.com"];
    let told = asks_in_its_place(&world, &mut root, names);
    assert_eq!(told, json!(["cut", "EPERM"]));
    let names = ["bigquery.googleapis.com", "bigquery.googleapis.com"];
    let told = asks_in_its_place(&world, &mut root, names);
    assert_eq!(told, json!([0, "EPERM"]));
    let asked = world.asked_names();
    let is_stolen = |name: &String| name.ends_with(".example.com");
    assert!(!asked.iter().any(is_stolen), "{asked:?}");
    // Nor is anything of it on record as the other's.
    let refused = world.events("connection_refused");
    let is_agents = |event: &Value| event["agent"] == "finance-bot";
    assert!(!refused.iter().any(is_agents), "{refused:?}");
}

#[test]
fn what_the_rules_of_a_namespace_write_into_a_question_is_not_asked_for_the_agent_and_is_on_record()
{
    let mut world = World::without_daemon(Family::V4);
    let (mut root, mut agent) = shared(&mut world);
    let ask = format!("ask example.com {OTHER4} udp");
    assert_eq!(agent.must(&ask), json!([OTHER4]));
    root.runs("nft add table inet t");
    root.runs("nft add chain inet t out { type filter hook output priority 0 ; }");
    // The first letter of the name, behind the message's length and head: in the last packets of a question, and in no empty ones.
    root.runs("nft add rule inet t out tcp dport 842 ip length > 70 @ih,120,8 set 0x78");
    let told = agent.does(&ask);
    assert!(told.get("error").is_some(), "{told}");
    wait_for("it is on record", || {
        let refused = world.events("connection_refused");
        let is_it = |event: &Value| {
            event["refusal"]["code"] == "names.foreign"
                && event["agent"] == "finance-bot"
                && event["process"]["uid"] == AGENT_UID
        };
        refused.iter().any(is_it)
    });
    assert!(!world.asked_names().contains(&"xxample.com".to_owned()));
    root.runs("nft delete table inet t");
    assert_eq!(agent.must(&ask), json!([OTHER4]));
}

#[test]
fn questions_that_come_by_one_connection_are_all_answered_as_far_as_it_is_known_what_was_said() {
    let mut world = World::without_daemon(Family::V4);
    let (_root, mut agent) = shared(&mut world);
    // As the C library asks for both families by one connection.
    let told = agent.must(&format!("pair example.com {OTHER4}"));
    assert_eq!(told, json!([1, 0]));
    // As others ask all that they want to know, at once or one by one. Each takes 31 bytes, of 4096.
    for (step, asked, answered) in [
        ("by_one", 132, 132),
        ("in_turn", 132, 132),
        ("by_one", 300, 132),
        ("in_turn", 140, 132),
    ] {
        let told = agent.must(&format!("{step} {asked} example.com {OTHER4}"));
        assert_eq!(told, answered, "{step} {asked}");
    }
    assert_eq!(world.events("connection_refused"), Vec::<Value>::new());
}

#[test]
fn names_that_are_asked_for_at_once_are_all_told_and_connections_that_do_not_go_on_keep_no_other_agent_from_one()
 {
    let mut world = World::without_daemon(Family::V4);
    let (mut root, mut agent) = shared(&mut world);
    let told = agent.must(&format!("many 90 example.com {OTHER4}"));
    assert_eq!(told, 90);
    assert_eq!(world.events("connection_refused"), Vec::<Value>::new());
    let mut other = beside(&world, Who::OtherAgent, &root.must("pid"));
    // As who may make packets there can have any agent's connections begin.
    agent.must(&format!("drips 200 {OTHER4} 53"));
    let told = other.must(&format!("ask bigquery.googleapis.com {OTHER4} tcp"));
    assert_eq!(told, json!([SYNTHETIC]));
    let mut elsewhere = Apart::of(&world);
    let ask = format!("ask example.com {OTHER4} tcp");
    assert_eq!(elsewhere.must(&ask), json!([OTHER4]));
    wait_for("there it is told again", || {
        agent.does(&ask) == json!({"ok": [OTHER4]})
    });
    let refused = world.events("connection_refused");
    assert!(!refused.is_empty());
    for event in refused {
        let of = [&event["agent"], &event["refusal"]["code"]];
        assert_eq!(of, ["finance-bot", "daemon.overloaded"]);
    }
}

#[test]
fn connections_with_the_metadata_server_that_do_not_go_on_keep_an_agent_from_it_nowhere_else_and_no_other_there()
 {
    const ASK: &str = "curl --silent --max-time 5 -H Metadata-Flavor:Google http://169.254.169.254/computeMetadata/v1/project/project-id";
    let mut world = World::without_daemon(Family::V4);
    let (mut root, mut agent) = shared(&mut world);
    let mut other = beside(&world, Who::OtherAgent, &root.must("pid"));
    agent.must("drips 100 169.254.169.254 80");
    assert_eq!(other.runs(ASK), "demo-project");
    let mut elsewhere = Apart::of(&world);
    assert_eq!(elsewhere.runs(ASK), "demo-project");
}

#[test]
fn a_question_has_no_mark_where_others_could_read_it_and_one_that_they_put_on_it_says_nothing() {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {OTHER4} 53"));
    agent.runs("nft add table inet m");
    agent.runs("nft add set inet m seen { typeof meta mark ; flags dynamic ; }");
    agent.runs("nft add chain inet m in { type filter hook prerouting priority 0 ; }");
    agent.runs("nft add rule inet m in udp dport 842 add @seen { meta mark }");
    let ask = format!("ask bigquery.googleapis.com {OTHER4} udp");
    let told = agent.must(&ask);
    let listed: Value =
        serde_json::from_str(&agent.runs("nft --json list set inet m seen")).expect("JSON");
    let seen = listed["nftables"].as_array().expect("a list");
    let seen: Vec<_> = seen
        .iter()
        .filter_map(|part| part["set"]["elem"].as_array())
        .flatten()
        .collect();
    assert_eq!(seen, [&json!(0)]);
    for mark in [1, 2, 0x7fff_ffff, 0xffff_ffff_u32] {
        agent.runs("nft flush chain inet m in");
        agent.runs(&format!(
            "nft add rule inet m in udp dport 842 meta mark set {mark}"
        ));
        assert_eq!(agent.must(&ask), told, "{mark}");
    }
}
