//! Names that move, and a DNS that falls silent, under the running daemon: what it protects follows the answers, and outlives them.

use std::net::{IpAddr, Ipv4Addr};
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
