//! Who is root of a network namespace, and ends the daemon's listeners there: it is told of, and served again.

use harness::stage::{BIGQUERY4, OTHER4, Side};
use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

use super::apart::{Apart, answer};
use super::{DAILY, gives_only, problems};

/// What is said of it on this host's own network.
const HERE: &str = "start the daemon anew";
/// How often the listeners die in the longest test, and how long that takes, nanoseconds: a second after the first time, two after the next, but for what
/// the records wait for the disk.
const DEATHS: (usize, u64) = (3, 2_500_000_000);
/// Far more than the daemon's own log grows meanwhile, bytes: a tenth of what one listener alone wrote, that was asked again and again.
const LOGGED_MAX: usize = 16 * 1024;

/// An agent's process in a namespace of its own, in which it is served.
pub(super) fn served(world: &World, who: Who) -> Apart {
    let mut agent = Apart::whose(world, who);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    agent
}

fn of<'a>(events: &'a [Value], agent: &str) -> Vec<&'a Value> {
    events
        .iter()
        .filter(|event| event["agent"] == agent)
        .collect()
}

pub(super) fn has_rows(agent: &mut Apart) {
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
    assert!(
        body.as_str().is_some_and(|body| body.contains("1000")),
        "{body}"
    );
}

/// The same on the host's own network.
fn has_rows_here(world: &World) {
    let answers = world.query(&[DAILY]);
    assert_eq!(answers[0]["rows"], json!([["1000"]]), "{answers:?}");
}

#[test]
fn where_the_daemons_listeners_were_ended_that_is_said_and_served_again_and_no_other_agent_is_disturbed()
 {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut other = served(&world, Who::OtherAgent);
    other.must(&format!("hold {BIGQUERY4}"));
    let mut agent = served(&world, Who::Agent);
    for (times, which) in [(1, "sport = :843"), (2, "")] {
        agent.must(&format!("hold {BIGQUERY4}"));
        // One is enough, whichever it is.
        let ended = agent.runs(&format!("ss -K -l -t -n -H {which}"));
        // Those that are left end by themselves then, before it comes to them.
        assert!(ended.contains("1:84"), "{ended}");
        let told = agent.must("held");
        let is_over = ["ended", "reset"].contains(&told.as_str().unwrap_or_default());
        assert!(is_over, "what is open there ends with them: {told}");
        wait_for("it is on record", || {
            world.events("namespace_refused").len() == times
        });
        let said = problems(&world);
        let refused = world.events("namespace_refused").remove(times - 1);
        let netns = &refused["netns"];
        let begins =
            format!("network namespace {netns} of agent finance-bot is served with pauses");
        assert!(said.len() == 1 && said[0].starts_with(&begins), "{said:?}");
        let why = refused["why"].as_str().expect("words");
        assert!(
            said[0].ends_with(why) && why.contains("take that capability"),
            "{why}"
        );
        assert_eq!(refused["process"]["comm"], "python3");
        has_rows(&mut agent);
        let counts = ["namespace_served", "namespace_left"].map(|kind| {
            let events = world.events(kind);
            [
                of(&events, "finance-bot").len(),
                of(&events, "ops-bot").len(),
            ]
        });
        assert_eq!(counts, [[times + 1, 1], [times, 0]]);
    }
    assert_eq!(other.must("holds"), true);
    let [status, _] = answer(other.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 403);
    has_rows_here(&world);
    wait_for("nothing is wrong", || problems(&world).is_empty());
}

#[test]
fn a_socket_for_questions_that_was_destroyed_goes_on_answering() {
    let world = World::start(Family::V4);
    let mut agent = served(&world, Who::Agent);
    for _ in 0..3 {
        let ended = agent.runs("ss -K -a -u -n -H");
        assert!(ended.contains("127.0.0.1:842"), "{ended}");
        let told = agent.must(&format!("ask bigquery.googleapis.com {OTHER4} udp"));
        assert_eq!(told, json!([enforcer::dns::SYNTHETIC]));
    }
    assert_eq!(world.events("namespace_left"), Vec::<Value>::new());
}

#[test]
fn who_ends_the_daemons_listeners_again_and_again_has_it_listen_ever_more_seldom_and_fills_no_log()
{
    let world = World::start(Family::V4);
    let logged = world.daemon_log().len();
    let mut agent = served(&world, Who::Agent);
    agent.must("destroys");
    let (times, least) = DEATHS;
    let died_at = || {
        let records = world.records().into_iter();
        let died = records.filter(|record| record["event"]["kind"] == "namespace_refused");
        let at: Vec<u64> = died
            .filter_map(|record| record["unix_ns"].as_u64())
            .collect();
        at
    };
    wait_for("it has died so often", || died_at().len() >= times);
    let at = died_at();
    assert!(at[times - 1] - at[0] >= least, "{at:?}");
    let log = world.daemon_log();
    assert!(log.len() - logged < LOGGED_MAX, "{}", &log[logged..]);
    assert_eq!(problems(&world).len(), 1);
}

#[test]
fn who_takes_the_daemons_port_when_its_listeners_have_ended_is_led_nobody_and_is_named() {
    let world = World::start(Family::V4);
    let mut agent = served(&world, Who::Agent);
    gives_only(&mut agent, 841);
    assert_eq!(agent.does("listen"), json!({"error": "EADDRINUSE"}));
    agent.runs("ss -K -l -t -n -H");
    // No hook is asked there.
    wait_for("it has the port", || agent.does("listen")["ok"] == 841);
    wait_for("it is named", || {
        let said = problems(&world);
        let taken = "somebody in it listens on 127.0.0.1:841";
        said.iter().any(|said| said.contains(taken))
    });
    let told = agent.does(&format!("connect {BIGQUERY4} 443"));
    assert_eq!(told, json!({"error": "ECONNREFUSED"}));
    assert_eq!(world.events("namespace_left").len(), 1);
}

#[test]
fn this_hosts_own_listeners_that_its_root_has_ended_are_said_once_until_the_daemon_starts_anew() {
    let mut world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = served(&world, Who::Agent);
    let mut root = world.stage.command_in(Side::Host, None, None, "ss");
    root.args(["-K", "-l", "-t", "-n", "-H", "sport", "=", ":841"]);
    let ended = root.output().expect("runs");
    let ended = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.contains("127.0.0.1:841"), "{ended}");
    let says = |world: &World| {
        let status = world.json(Who::Operator, &["status"]);
        status["unhealthy"].to_string().contains(HERE)
    };
    wait_for("it is said", || says(&world));
    // Where agents have namespaces of their own nothing has changed.
    has_rows(&mut agent);
    wait_for("it is logged", || world.daemon_log().contains(HERE));
    assert_eq!(world.daemon_log().matches(HERE).count(), 1);
    world.stop_daemon();
    world.start_daemon();
    has_rows_here(&world);
    assert!(!says(&world));
}

#[test]
fn what_packets_made_by_hand_have_brought_there_names_the_namespace_and_for_whom_it_is_served() {
    let world = World::start(Family::V4);
    let mut agent = served(&world, Who::Agent);
    let program = harness::world::script("agent/nobody.py");
    agent.runs(&format!("/usr/bin/python3 {} 841 842", program.display()));
    let served = world.events("namespace_served").remove(0);
    let site = format!(
        "in the network namespace {} (served for agent finance-bot)",
        served["netns"]
    );
    let mut whats = vec![
        format!("A connection from 127.0.0.1:2047 {site} was not led here by the kernel"),
        format!(
            "A question for a name {site} was not led here by the kernel, or came among too many for that to be known"
        ),
    ];
    let nobodys = || {
        let mut refused = world.events("connection_refused");
        refused.retain(|event| event["refusal"]["code"] == "caller.unknown");
        refused
    };
    wait_for("both are on record", || nobodys().len() == 2);
    for event in nobodys() {
        assert!(event["agent"].is_null() && event["process"].is_null());
        let what = event["refusal"]["what"].as_str().expect("words");
        whats.retain(|awaited| awaited != what);
    }
    assert_eq!(whats, Vec::<String>::new(), "{:?}", nobodys());
}
