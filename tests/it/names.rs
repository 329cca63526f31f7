//! Names that move, and a DNS that falls silent, under the running daemon: what it protects follows the answers, and outlives them.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use enforcer::dns::endpoints::TTL_MIN;
use harness::capture::Capture;
use harness::stage::{BIGQUERY4, OTHER4};
use harness::world::{Family, Who, World, wait_for};
use serde_json::json;

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
const TTL: Duration = Duration::from_secs(1);

/// A world whose DNS gives BigQuery a short ttl, and where `finance-bot` meets `EPERM` and `ops-bot` an explanation. No daemon yet.
fn brief_answers() -> World {
    let world = World::without_daemon(Family::V4);
    answer_with(&world, BIGQUERY4);
    world.edit_config("uid = 2001", "uid = 2001\nclosed = \"drop\"");
    world
}

fn answer_with(world: &World, address: Ipv4Addr) {
    let answer = json!({"addresses": [address], "ttl_s": TTL.as_secs()});
    world.set_names(&json!({"bigquery.googleapis.com": answer}));
}

fn protected(world: &World) -> u64 {
    let status = world.json(Who::Operator, &["status"]);
    status["endpoints"].as_u64().expect("a number")
}

/// Where BigQuery got what it got, each place once and in order.
fn served_at(world: &World) -> Vec<String> {
    let mut places: Vec<String> = world
        .far_requests()
        .iter()
        .filter(|request| request["host"] == "bigquery.googleapis.com")
        .map(|request| request["at"].as_str().expect("an address").to_owned())
        .collect();
    places.dedup();
    places
}

fn query_in_a_window(world: &World) {
    let grant = world.open_window("demo-project.finance:read", "1m");
    let served = world.query(&[DAILY]).remove(0);
    assert_eq!(served["rows"], json!([["1000"]]), "{served}");
    let _ = world.json(Who::Agent, &["close", &grant]);
}

fn is_refused_everywhere(world: &World, addresses: &[Ipv4Addr]) {
    let capture = Capture::start(&world.stage, addresses.iter().copied().map(IpAddr::from));
    for address in addresses {
        assert_eq!(
            world.probe(Who::Agent, (*address).into()),
            "EPERM",
            "{address}"
        );
        assert_eq!(
            world.probe(Who::OtherAgent, (*address).into()),
            "ok",
            "{address}: led to the proxy, to be told why not"
        );
    }
    assert_eq!(capture.packets(), 0, "nothing left the host");
}

/// Holds a connection, and says what comes of using it later.
const HELD: &str = r#"
import socket, sys
held = socket.create_connection((sys.argv[1], 443))
print("connected", flush=True)
sys.stdin.readline()
try:
    held.send(b"payload")
    print("sent", flush=True)
except OSError as error:
    print(error.errno, flush=True)
"#;

/// A process with a connection that it has had for long.
struct Held {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Held {
    fn by(world: &World, who: Who, address: Ipv4Addr) -> Self {
        let mut command = world.run_as(who, "/usr/bin/python3");
        command.args(["-c", HELD, &address.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python runs");
        let said = BufReader::new(child.stdout.take().expect("piped"));
        let mut held = Self { child, said };
        assert_eq!(held.line(), "connected");
        held
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("reads");
        line.trim().to_owned()
    }

    fn uses_it(mut self) -> String {
        let mut stdin = self.child.stdin.take().expect("piped");
        stdin.write_all(b"go on\n").expect("writes");
        let said = self.line();
        self.child.wait().expect("ends");
        said
    }
}

/// What the kernel says of a connection that was ended from elsewhere: ECONNABORTED.
const ENDED: &str = "103";

#[test]
fn a_connection_is_ended_at_once_where_a_name_moves_to_its_address() {
    let mut world = brief_answers();
    world.start_daemon();
    let held = Held::by(&world, Who::Approver, OTHER4);
    answer_with(&world, OTHER4);
    wait_for("the next look-up", || protected(&world) == 2);
    assert_eq!(held.uses_it(), ENDED);
    query_in_a_window(&world);
}

#[test]
fn where_only_agents_are_enforced_on_their_connections_alone_are_ended() {
    let mut world = brief_answers();
    world.edit_config("[kernel]", "[kernel]\nenforce = \"agents\"");
    world.start_daemon();
    let agents = Held::by(&world, Who::Agent, OTHER4);
    let nobodys = Held::by(&world, Who::Approver, OTHER4);
    answer_with(&world, OTHER4);
    wait_for("the next look-up", || protected(&world) == 2);
    assert_eq!(agents.uses_it(), ENDED);
    assert_eq!(nobodys.uses_it(), "sent");
}

#[test]
fn a_name_that_moves_is_protected_where_it_went_within_the_refresh_and_stays_so_where_it_was() {
    let mut world = brief_answers();
    world.start_daemon();
    query_in_a_window(&world);
    assert_eq!(protected(&world), 1);
    assert_eq!(
        world.probe(Who::Agent, OTHER4.into()),
        "ok",
        "nobody protects it yet"
    );

    answer_with(&world, OTHER4);
    let moved_boot_ns = SystemClock.now().boot_ns;
    let passed = || Duration::from_nanos(SystemClock.now().boot_ns.saturating_sub(moved_boot_ns));
    // Both at once: the old address is not given up for the new one, since clients remember.
    wait_for("the next look-up", || protected(&world) == 2);
    // Once for the wait that is promised, once for a look-up on a machine that is busy.
    assert!(passed() < 2 * TTL_MIN, "it took {:?}", passed());
    is_refused_everywhere(&world, &[BIGQUERY4, OTHER4]);

    // The resolver's clock is the subject: what was answered before the move may be believed for its ttl.
    std::thread::sleep(TTL.saturating_sub(passed()));
    let old = Capture::start(&world.stage, [BIGQUERY4.into()]);
    query_in_a_window(&world);
    assert_eq!(
        served_at(&world),
        [BIGQUERY4.to_string(), OTHER4.to_string()]
    );
    assert_eq!(old.packets(), 0, "the old address was left in peace");
    is_refused_everywhere(&world, &[BIGQUERY4, OTHER4]);
}

#[test]
fn while_dns_is_silent_what_was_protected_stays_protected() {
    let mut world = brief_answers();
    world.start_daemon();
    world.set_names(&json!("down"));
    wait_for("a failed look-up", || {
        world.daemon_log().contains("look-up failed")
    });
    assert_eq!(protected(&world), 1);
    is_refused_everywhere(&world, &[BIGQUERY4]);
}

#[test]
fn a_daemon_that_starts_while_dns_is_silent_protects_what_the_one_before_it_did() {
    let mut world = brief_answers();
    world.start_daemon();
    world.kill_daemon();
    world.set_names(&json!("down"));
    world.start_daemon();
    assert_eq!(protected(&world), 1);
    is_refused_everywhere(&world, &[BIGQUERY4]);

    answer_with(&world, OTHER4);
    wait_for("the next look-up", || protected(&world) == 2);
    is_refused_everywhere(&world, &[BIGQUERY4, OTHER4]);
    query_in_a_window(&world);
}

#[test]
fn what_is_known_of_shared_addresses_is_said_by_the_check_and_by_the_status() {
    let mut world = World::with_a_silent_far_side();
    let said = |world: &World, words: &[&str]| {
        let output = world.cli(Who::Operator, words);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let config = world.config().display().to_string();
    let check = ["check", "--config", &config];
    let none = "shared prefixes: none, no file is named";
    assert!(said(&world, &check).contains(none));
    world.start_daemon();
    assert!(said(&world, &["status"]).contains(none));
    world.kill_daemon();

    let list = world.config().with_file_name("google.txt");
    std::fs::write(list, "198.51.100.0/25\n").expect("writes");
    world.edit_config("[names]", "[names]\nshared_prefixes_file = \"google.txt\"");
    let one = "shared prefixes: 1 are protected";
    assert!(said(&world, &check).contains(one));
    world.start_daemon();
    assert!(said(&world, &["status"]).contains(one));
}
