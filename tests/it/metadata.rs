//! The metadata server: closed to agents in every way there is to it, and stood in for, so that real clients need no configuration.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use harness::capture::Capture;
use harness::programs::said;
use harness::stage::Side;
use harness::world::{Family, Who, World, wait_for};

const SERVER4: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const SERVER6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254);

/// A host on which the metadata server can be reached, by whoever may.
fn world() -> (World, Capture) {
    let world = World::with_a_silent_far_side();
    for (side, args) in [
        (Side::Internet, "addr add 169.254.169.254/32 dev lo"),
        (Side::Internet, "addr add fd20:ce::254/128 dev lo"),
        (Side::Host, "route add 169.254.169.254 dev wire0"),
        (Side::Host, "route add fd20:ce::254 dev wire0"),
    ] {
        let mut command = world.stage.command(side, "ip");
        let status = command.args(args.split(' ')).status().expect("ip runs");
        assert!(status.success(), "{args}");
    }
    let wire = Capture::start(&world.stage, [SERVER4.into(), SERVER6.into()]);
    (world, wire)
}

fn is_closed(world: &World, wire: &Capture, ports: &[u16]) {
    let spelled = [
        SERVER4.into(),
        SERVER6.into(),
        SERVER4.to_ipv6_mapped().into(),
    ];
    for ip in spelled {
        for port in ports {
            for how in ["tcp", "udp", "udp_connected", "fast_open"] {
                let ended = world.probe_port(Who::Agent, how, ip, *port);
                assert_eq!(ended, "EPERM", "{how} {ip} {port}");
            }
        }
    }
    assert_eq!(wire.packets(), 0);
    wait_for("the record", || {
        let refused = world.events("kernel_refused");
        refused.iter().any(|event| {
            let verdict = event["verdict"].as_str().unwrap_or_default();
            event["agent"] == "finance-bot" && verdict.contains("metadata server")
        })
    });
}

#[test]
fn the_metadata_server_is_closed_to_agents_on_every_port_but_the_one_that_is_stood_in_for() {
    let (mut world, wire) = world();
    world.start_daemon();
    is_closed(&world, &wire, &[443, 8080, 988]);
    for ip in [
        SERVER4.into(),
        IpAddr::from(SERVER6),
        SERVER4.to_ipv6_mapped().into(),
    ] {
        assert_eq!(
            world.probe_port(Who::Agent, "tcp", ip, 80),
            "ok",
            "{ip}: the stand-in"
        );
        assert_eq!(world.probe_port(Who::Agent, "udp", ip, 80), "EPERM", "{ip}");
    }
    assert_eq!(wire.packets(), 0);
    // Everybody else reaches it as before: nobody listens there in this world, which is said by the far side.
    for who in [Who::Approver, Who::Operator] {
        assert_eq!(
            world.probe_port(who, "tcp", SERVER4.into(), 80),
            "ECONNREFUSED",
            "{who:?}"
        );
    }
    assert!(wire.packets() > 0);
}

#[test]
fn where_nothing_stands_in_for_it_it_is_closed_altogether() {
    let (mut world, wire) = world();
    world.edit_config("[upstream]", "[metadata]\nemulate = false\n[upstream]");
    world.start_daemon();
    is_closed(&world, &wire, &[80, 443]);
}

#[test]
fn packets_that_an_agent_makes_by_hand_do_not_get_there() {
    let (mut world, wire) = world();
    world.start_daemon();
    let agent = world.cgroup_of(Who::Agent);
    let script = "import socket, struct, sys\n\
        packet = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 28, 1, 0, 64, 6, 0, bytes(4), socket.inet_aton(sys.argv[1])) + struct.pack('!HHHH', 5000, 80, 8, 0)\n\
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)\n\
        try:\n    raw.sendto(packet, (sys.argv[1], 0))\n    print('sent')\nexcept OSError as error:\n    print(error.errno)\n";
    let run = |cgroup: &std::path::Path| {
        let mut command =
            world
                .stage
                .command_in(Side::Host, Some(cgroup), None, "/usr/bin/python3");
        let output = command.args(["-c", script, &SERVER4.to_string()]).output();
        output.expect("python runs")
    };
    run(&agent);
    assert_eq!(wire.packets(), 0);
    wait_for("the record", || {
        let refused = world.events("kernel_refused");
        refused.iter().any(|event| {
            event["verdict"] == "egress refused: the metadata server is closed to agents"
        })
    });
    // The same packet from outside every workload leaves.
    run(&world.stage.cgroups.make("other"));
    assert!(wire.packets() > 0);
}

#[test]
fn the_stand_in_answers_nobody_whom_the_kernel_did_not_lead_there() {
    let (mut world, _wire) = world();
    world.start_daemon();
    for who in [Who::Agent, Who::Approver, Who::Operator] {
        let ended = world.probe_port(who, "tcp", Ipv4Addr::LOCALHOST.into(), 843);
        assert_eq!(ended, "EPERM", "{who:?}");
    }
}

#[test]
fn a_real_client_finds_its_credentials_as_on_a_host_of_googles_and_queries_in_a_window() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config(
        "[upstream]",
        "[metadata]\nproject = \"demo-project\"\n[upstream]",
    );
    world.start_daemon();
    let _grant = world.open_window("demo-project.finance:read", "5m");
    let said = world.script_of(
        Who::Agent,
        "agent/on_google.py",
        &["SELECT COUNT(*) FROM finance.daily"],
    );
    assert_eq!(said["kind"], "google.auth.compute_engine.credentials");
    assert_eq!(said["project"], "demo-project");
    let token = said["token"].as_str().expect("a token");
    let digits = token.strip_prefix("enforcer-placeholder-");
    assert_eq!(digits.map(str::len), Some(16), "{token}");
    assert!(said["rows"][0][0].is_string(), "{said}");
    // The far side saw tokens of its own making, and never the placeholder.
    let seen = serde_json::to_string(&world.far_requests()).expect("JSON");
    assert!(!seen.contains("enforcer-placeholder"), "{seen}");
}

/// Asks for the token as clients do.
const TOKEN: &str = "import json, urllib.request\nask = urllib.request.Request('http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token', headers={'Metadata-Flavor': 'Google'})\nprint(json.load(urllib.request.urlopen(ask, timeout=3))['access_token'])";

#[test]
fn each_window_has_a_placeholder_of_its_own_and_nobody_has_one_without_a_window() {
    let mut world = World::start(Family::V4);
    let token = |world: &World, who| {
        let mut command = world.run_as(who, "/usr/bin/python3");
        said(command.args(["-c", TOKEN])).trim().to_owned()
    };
    assert_eq!(token(&world, Who::Agent), "enforcer-placeholder");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let grant = world.open_window("demo-project.finance:read", "1m");
        let of_it = token(&world, Who::Agent);
        assert_eq!(of_it, token(&world, Who::Agent), "the same within a window");
        assert_eq!(token(&world, Who::OtherAgent), "enforcer-placeholder");
        seen.insert(of_it);
        world.stop_daemon();
        world.start_daemon();
        // The window goes on, and another daemon's secret is another.
        seen.insert(token(&world, Who::Agent));
        let _ = world.json(Who::Agent, &["close", &grant]);
        assert_eq!(token(&world, Who::Agent), "enforcer-placeholder");
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    let real = world.tokens().is_empty();
    assert!(real, "none was made for it");
}

/// Asks as often as is said on one connection, then holds as many as are said besides it until as many of all of them as are said are
/// shut, whichever they are: who asks for them first need not be served first. Says what was answered, and whether so many were shut.
const FLOOD: &str = r#"
import http.client, select, socket, sys, time
address = (sys.argv[1], 80)
asks, connections, shut = map(int, sys.argv[2:])
asking = http.client.HTTPConnection(*address)
seen = {}
for _ in range(asks):
    asking.request("GET", "/computeMetadata/v1/project/project-id", headers={"Metadata-Flavor": "Google"})
    answer = asking.getresponse(); answer.read()
    seen[answer.status] = seen.get(answer.status, 0) + 1
print(*sorted(seen))
held = [asking.sock] + [socket.create_connection(address) for _ in range(connections)]
ended, until = [], time.monotonic() + 10
while len(ended) < shut and time.monotonic() < until:
    ended, _, _ = select.select(held, [], [], 0.1)
print(len(ended) >= shut)
"#;

#[test]
fn who_asks_the_stand_in_too_much_is_told_so_on_record_and_keeps_nobody_else_from_it() {
    let (mut world, _wire) = world();
    world.start_daemon();
    let flood = |asks: &str, connections: &str, shut: &str| {
        let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
        let server = SERVER4.to_string();
        command.args(["-c", FLOOD, &server, asks, connections, shut]);
        let output = command.output().expect("python runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let records = || {
        let refused = world.events("connection_refused");
        let of_it = refused.iter().filter(|event| {
            event["agent"] == "finance-bot"
                && event["refusal"]["code"] == "daemon.overloaded"
                && event["refusal"]["what"]
                    .as_str()
                    .is_some_and(|what| what.contains("metadata server"))
        });
        of_it.count()
    };
    // More than a burst, and faster than it is let in again.
    assert_eq!(flood("2000", "0", "0"), "200 429\nTrue");
    wait_for("the record", || records() > 0);
    let before = records();
    // Of a hundred and the one that is asked over, sixty-four are an agent's to have (`metadata::BOUNDS`).
    assert_eq!(flood("1", "100", "37"), "200\nTrue");
    wait_for("the record", || records() > before);
    assert_eq!(
        world.probe_port(Who::OtherAgent, "tcp", SERVER4.into(), 80),
        "ok"
    );
}
