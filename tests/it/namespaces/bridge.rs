//! Namespaces of two agents that a wire joins, by way of a bridge in a third: each is who it is, and neither gets anything of the other's by it.
//!
//! `finance-bot` has a window, `ops-bot` has none. Both do what they can to have what is the one's serve the other: each is root of its namespace.

use std::net::IpAddr;

use harness::capture::Capture;
use harness::stage::{BIGQUERY4, OTHER4};
use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

use super::apart::{Apart, answer};

/// Where the one with the window is on the wire between the two, and the other.
const RICH: &str = "10.99.0.1";
const POOR: &str = "10.99.0.2";

/// What of the daemon's ports the one with the window opens to the wire, each at a port that is nobody's.
const OPENED: [(u16, u16); 3] = [(9841, 841), (9842, 842), (9843, 843)];

/// The two, and the bridge between them.
struct Joined {
    rich: Apart,
    poor: Apart,
    /// Whoever is root in the third namespace, which lives as long.
    _between: Apart,
}

impl Joined {
    fn in_a(world: &World) -> Self {
        let _ = world.open_window("demo-project.finance:read", "10m");
        let mut between = Apart::whose(world, Who::Operator);
        between.must("again");
        between.runs("ip link add bridge0 type bridge");
        between.runs("ip link set bridge0 up");
        let mut join = |who: Who, port: &str, address: &str| {
            let mut agent = Apart::whose(world, who);
            agent.goes_apart();
            let pid = agent.must("pid");
            between.runs(&format!(
                "ip link add {port} type veth peer name wire netns {pid}"
            ));
            between.runs(&format!("ip link set {port} master bridge0 up"));
            agent.runs(&format!("ip address add {address}/24 dev wire"));
            agent.runs("ip link set wire up");
            let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
            agent
        };
        let rich = join(Who::Agent, "rich", RICH);
        let poor = join(Who::OtherAgent, "poor", POOR);
        let mut joined = Self {
            rich,
            poor,
            _between: between,
        };
        joined.are_joined();
        joined
    }

    /// What the one offers of its own comes to the other, also from its loopback: so it is no wire that keeps them apart.
    fn are_joined(&mut self) {
        self.rich.must("bind 127.0.0.1 9999");
        opens(&mut self.rich, &[(9998, 9999)]);
        let told = self
            .poor
            .runs(&format!("curl --silent http://{RICH}:9998/"));
        assert_eq!(told, "no", "what listens on the other's loopback answers");
    }

    /// The one with the window opens the daemon's ports in its namespace to whoever is on the wire.
    fn opened(world: &World) -> Self {
        let mut joined = Self::in_a(world);
        opens(&mut joined.rich, &OPENED);
        joined
    }

    /// Whoever has a window has it still, and it is the first to use it.
    fn only_who_has_one_has_used_its_window(&mut self, world: &World) {
        assert_eq!(world.events("query_admitted"), Vec::<Value>::new());
        let [status, body] = answer(self.rich.must(&format!("query {BIGQUERY4}")));
        assert_eq!(status, 200, "{body}");
        has_none(&mut self.poor);
    }
}

/// Leads what comes to these ports to others of the loopback, as the root of a namespace can.
fn opens(agent: &mut Apart, ports: &[(u16, u16)]) {
    agent.must("setting ipv4/conf/all/route_localnet 1");
    agent.runs("nft add table ip opened");
    for chain in ["prerouting", "output"] {
        agent.runs(&format!(
            "nft add chain ip opened {chain} {{ type nat hook {chain} priority -100 ; }}"
        ));
    }
    for (from, to) in ports {
        agent.runs(&format!(
            "nft add rule ip opened prerouting tcp dport {from} dnat to 127.0.0.1:{to}"
        ));
        agent.runs(&format!(
            "nft add rule ip opened prerouting udp dport {from} dnat to 127.0.0.1:{to}"
        ));
    }
}

/// It is told that it has no window.
fn has_none(agent: &mut Apart) {
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    let body = body.as_str().unwrap_or_default();
    assert!(status == 403 && body.contains("[window.none]"), "{body}");
}

/// It comes to nothing, whatever of it fails.
fn fails(agent: &mut Apart, step: &str) {
    let told = agent.does(step);
    assert!(told.get("error").is_some(), "{step}: {told}");
}

/// Waits until it is on record that something was refused at one of these hooks.
fn is_refused_at(world: &World, hooks: &[&str]) {
    let is_at = |event: &Value| {
        let verdict = event["verdict"].as_str().unwrap_or_default();
        let hook = verdict.split_once(" refused").map(|(hook, _)| hook);
        hook.is_some_and(|hook| hooks.contains(&hook))
    };
    wait_for("it is on record", || {
        world.events("kernel_refused").iter().any(is_at)
    });
}

/// What is on the wire out of this host to BigQuery, to anybody, and between the two.
fn out(world: &World) -> Capture {
    let between = [RICH, POOR].map(|address| address.parse::<IpAddr>().expect("an address"));
    let anybody = World::bigquery().into_iter().chain([OTHER4.into()]);
    Capture::start(&world.stage, anybody.chain(between))
}

#[test]
fn the_daemons_ports_in_a_namespace_are_not_there_for_another_that_a_bridge_joins_to_it() {
    let world = World::start(Family::V4);
    let mut joined = Joined::in_a(&world);
    let wire = out(&world);
    for port in [841, 842, 843] {
        let told = joined.poor.does(&format!("connect {RICH} {port}"));
        assert_eq!(told, json!({"error": "ECONNREFUSED"}), "{port}");
    }
    fails(
        &mut joined.poor,
        &format!("ask bigquery.googleapis.com {RICH} udp 842"),
    );
    has_none(&mut joined.poor);
    assert_eq!(wire.packets(), 0);
    joined.only_who_has_one_has_used_its_window(&world);
}

#[test]
fn whoever_is_led_to_the_daemon_in_anothers_namespace_by_its_root_is_nobody_there() {
    let world = World::start(Family::V4);
    let mut joined = Joined::opened(&world);
    let wire = out(&world);
    let poor = &mut joined.poor;
    fails(poor, &format!("query {RICH} 9841"));
    for how in ["udp", "tcp"] {
        fails(
            poor,
            &format!("ask bigquery.googleapis.com {RICH} {how} 9842"),
        );
    }
    let metadata = poor.must(&format!("run curl --silent --max-time 5 -H Metadata-Flavor:Google http://{RICH}:9843/computeMetadata/v1/instance/service-accounts/default/token"));
    assert_ne!(metadata[0], 0, "{metadata}");
    assert_eq!(metadata[1], "", "not one byte");
    has_none(poor);
    assert_eq!(wire.packets(), 0);
    joined.only_who_has_one_has_used_its_window(&world);
}

#[test]
fn a_connection_that_its_own_root_turns_to_the_daemon_in_anothers_namespace_is_nobodys_there() {
    let world = World::start(Family::V4);
    let mut joined = Joined::opened(&world);
    let wire = out(&world);
    // What the kernel leads to the daemon at home goes over the wire, from an address that is answered.
    let poor = &mut joined.poor;
    opens(poor, &[]);
    poor.runs("nft add chain ip opened postrouting { type nat hook postrouting priority 100 ; }");
    poor.runs("nft add rule ip opened postrouting oifname wire masquerade");
    poor.runs(&format!(
        "nft add rule ip opened output tcp dport 9997 dnat to {RICH}:9998"
    ));
    let told = poor.runs("curl --silent http://127.0.0.1:9997/");
    assert_eq!(told, "no", "it is turned to the other");
    poor.runs(&format!(
        "nft add rule ip opened output tcp dport 841 dnat to {RICH}:9841"
    ));
    fails(poor, &format!("query {BIGQUERY4}"));
    // And the other way: a window is no use in a namespace of another's either.
    poor.runs("nft flush table ip opened");
    poor.runs("nft add rule ip opened prerouting tcp dport 9841 dnat to 127.0.0.1:841");
    let rich = &mut joined.rich;
    rich.runs("nft add chain ip opened postrouting { type nat hook postrouting priority 100 ; }");
    rich.runs("nft add rule ip opened postrouting oifname wire masquerade");
    rich.runs(&format!(
        "nft add rule ip opened output tcp dport 841 dnat to {POOR}:9841"
    ));
    fails(rich, &format!("query {BIGQUERY4}"));
    rich.runs("nft flush chain ip opened output");
    assert_eq!(wire.packets(), 0);
    joined.only_who_has_one_has_used_its_window(&world);
}

#[test]
fn a_loopback_address_that_is_routed_to_another_namespace_leads_nobody_to_the_daemon_there() {
    let world = World::start(Family::V4);
    let mut joined = Joined::opened(&world);
    let wire = out(&world);
    let poor = &mut joined.poor;
    poor.must("setting ipv4/conf/all/route_localnet 1");
    poor.runs("ip address del 127.0.0.1/8 dev lo");
    poor.runs(&format!(
        "ip route add 127.0.0.1/32 via {RICH} dev wire src {POOR}"
    ));
    let told = poor.runs("curl --silent http://127.0.0.1:9999/");
    assert_eq!(told, "no", "its loopback's address is the other's");
    fails(poor, &format!("query {BIGQUERY4}"));
    fails(poor, "connect 127.0.0.1 841");
    fails(poor, &format!("ask bigquery.googleapis.com {OTHER4} udp"));
    assert_eq!(wire.packets(), 0);
    is_refused_at(&world, &["egress"]);
    poor.runs("ip route del 127.0.0.1/32 dev wire");
    poor.runs("ip address add 127.0.0.1/8 dev lo");
    joined.only_who_has_one_has_used_its_window(&world);
}

#[test]
fn who_takes_bigquerys_address_on_a_bridge_is_not_taken_for_it() {
    let world = World::start(Family::V4);
    let mut joined = Joined::in_a(&world);
    joined
        .poor
        .runs(&format!("ip address add {BIGQUERY4}/32 dev wire"));
    joined.poor.must(&format!("bind {BIGQUERY4} 443"));
    joined
        .rich
        .runs(&format!("ip route add {BIGQUERY4}/32 via {POOR} dev wire"));
    joined.only_who_has_one_has_used_its_window(&world);
}

#[test]
fn what_an_agents_own_relay_carries_for_another_over_a_bridge_is_the_relays_agents() {
    let world = World::start(Family::V4);
    let mut joined = Joined::in_a(&world);
    joined.rich.must(&format!("relay {RICH} 9000 {BIGQUERY4}"));
    let pid = joined.rich.must("pid");
    let [status, body] = answer(joined.poor.must(&format!("query {RICH} 9000")));
    assert_eq!(status, 200, "{body}");
    let admitted = world.events("query_admitted");
    assert_eq!(admitted.len(), 1, "{admitted:?}");
    assert_eq!(admitted[0]["agent"], "finance-bot");
    assert_eq!(admitted[0]["process"]["pid"], pid, "{admitted:?}");
    has_none(&mut joined.poor);
}

#[test]
fn a_namespace_with_a_way_out_is_none_to_bigquery_for_another_that_a_bridge_joins_to_it() {
    let world = World::start(Family::V4);
    let mut joined = Joined::in_a(&world);
    let wire = Capture::start(&world.stage, World::bigquery());
    let elsewhere = Capture::start(&world.stage, [OTHER4.into()]);
    let mut host = Apart::whose(&world, Who::Operator);
    let Joined { rich, poor, .. } = &mut joined;
    let pid = rich.must("pid");
    host.runs(&format!(
        "ip link add leg0 type veth peer name leg1 netns {pid}"
    ));
    host.runs("ip address add 10.98.0.1/24 dev leg0");
    host.runs("ip link set leg0 up");
    host.must("setting ipv4/ip_forward 1");
    rich.runs("ip address add 10.98.0.2/24 dev leg1");
    rich.runs("ip link set leg1 up");
    rich.runs("ip route add default via 10.98.0.1");
    rich.must("setting ipv4/ip_forward 1");
    let shown = rich.runs("ip -oneline link show wire");
    let mut words = shown.split_whitespace();
    let router = words
        .find(|word| *word == "link/ether")
        .and_then(|_| words.next());
    let router = router.expect("an address on the wire");
    rich.runs("nft add chain ip opened postrouting { type nat hook postrouting priority 100 ; }");
    rich.runs("nft add rule ip opened postrouting oifname leg1 masquerade");
    poor.runs(&format!("ip route add default via {RICH}"));
    poor.must(&format!("datagram {OTHER4} 443"));
    wait_for("there is a way out", || elsewhere.packets() == 1);
    assert_eq!(
        poor.does(&format!("datagram {BIGQUERY4} 443")),
        json!({"error": "EPERM"})
    );
    // By hand it gets as far as the host's own wire; where the programs stand at the kernel's security hooks, nowhere.
    let mut frame = |to| poor.does(&format!("frame wire {router} {POOR} {to}"));
    if frame(OTHER4) == json!({"ok": null}) {
        wait_for("frames go out by it", || elsewhere.packets() == 2);
    }
    let _ = frame(BIGQUERY4);
    is_refused_at(&world, &["uplink", "socket"]);
    has_none(poor);
    assert_eq!(wire.packets(), 0);
    joined.only_who_has_one_has_used_its_window(&world);
}
