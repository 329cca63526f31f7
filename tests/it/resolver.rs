//! Agents' questions for names: whichever server they name, the daemon answers. Asked by real clients; the judge is the wire.

use std::net::IpAddr;

use harness::capture::Capture;
use harness::programs::said;
use harness::stage::{OTHER4, OTHER6, Side};
use harness::world::{Family, Who, World, wait_for};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bypass::Helper;

/// What agents are told for BigQuery's names.
const SYNTHETIC: &str = "192.0.2.80";
const BIGQUERY: &str = "bigquery.googleapis.com";
/// Every way to ask.
const WAYS: [&str; 4] = ["sent", "connected", "bound", "tcp"];

/// Drops what comes in by the loopback with some bits in its mark, as a firewall does, until its input ends (tcx).
const FIREWALL: &str = concat!(
    python_bpf!(),
    r#"
# r2 = skb->mark & bits; r0 = r2 == 0 ? TCX_PASS : TCX_DROP. The bits are a register's: as a number they would be widened by their sign.
program = b"".join([
    step(0x61, 0x12, 8, 0), step(0xb4, 0x03, 0, int(sys.argv[1], 0)), step(0x5f, 0x32, 0, 0),
    step(0xb7, 0x00, 0, 0), step(0x15, 0x02, 1, 0), step(0xb7, 0x00, 0, 2), step(0x95, 0, 0, 0),
])
held = loaded(3, program)
link = bpf(28, struct.pack("<IIIIIIQ", held, socket.if_nametoindex("lo"), 46, 0, 0, 0, 0))
print("drops", flush=True)
sys.stdin.read()
"#
);

fn firewall(world: &World, bits: &str) -> Helper {
    let mut command = world.stage.command(Side::Host, "/usr/bin/python3");
    let mut firewall = Helper::start(command.args(["-c", FIREWALL, bits]));
    assert_eq!(firewall.line(), "drops");
    firewall
}

/// Whether an agent is told a name in a datagram.
fn is_told(world: &World) -> bool {
    let said = ask(world, Who::Agent, "sent", OTHER4.into(), BIGQUERY, "A");
    said["answers"].to_string().contains(SYNTHETIC)
}

fn world() -> World {
    let mut world = World::with_a_silent_far_side();
    world.start_daemon();
    world
}

fn strict() -> World {
    let mut world = World::with_a_silent_far_side();
    world.edit_config(
        "uid = 2001",
        "uid = 2001\ndns = \"strict\"\nallow = [\"storage.googleapis.com\"]",
    );
    world.start_daemon();
    world
}

/// Asks as somebody.
fn ask(world: &World, who: Who, how: &str, server: IpAddr, name: &str, kind: &str) -> Value {
    world.script_of(who, "agent/ask.py", &[how, &server.to_string(), name, kind])
}

/// Servers that nobody runs, and one of the host's own.
fn servers() -> [IpAddr; 4] {
    [
        OTHER4.into(),
        OTHER6.into(),
        "127.0.0.53".parse().expect("an address"),
        // A resolver of Google's.
        "8.8.8.8".parse().expect("an address"),
    ]
}

#[test]
fn a_firewall_that_drops_by_the_marks_of_others_drops_no_question() {
    let mut world = World::with_a_silent_far_side();
    // kube-proxy's, and what this host's operator says.
    world.edit_config("[names]", "[names]\nmark_mask = 0x0ff03fff");
    let _firewall = firewall(&world, "0xf00fc000");
    for _ in 0..4 {
        world.start_daemon();
        assert!(is_told(&world));
        assert_eq!(world.status()["unhealthy"].to_string(), "[]");
        world.kill_daemon();
    }
}

#[test]
fn a_firewall_that_drops_agents_questions_is_said() {
    let world = world();
    assert!(is_told(&world));
    let dropping = firewall(&world, "0xffffffff");
    let what = "agents' questions for names do not come back over the loopback";
    wait_for("the probe", || {
        world.status()["unhealthy"].to_string().contains(what)
    });
    drop(dropping);
    wait_for("health", || world.status()["unhealthy"] == json!([]));
    assert!(is_told(&world));
    assert_eq!(world.events("connection_refused").len(), 0);
}

#[test]
fn whichever_server_an_agent_asks_the_daemon_answers_in_its_name() {
    let world = world();
    let wire = Capture::start(&world.stage, [OTHER4.into(), OTHER6.into()]);
    for server in servers() {
        for how in WAYS {
            let said = ask(&world, Who::Agent, how, server, BIGQUERY, "A");
            let from = match server {
                IpAddr::V4(ip) => format!("{ip}:53"),
                IpAddr::V6(ip) => format!("{ip}:53"),
            };
            let wanted = json!({ "code": "NOERROR", "answers": [SYNTHETIC], "from": from });
            assert_eq!(said, wanted, "{how} {server}");
        }
    }
    assert_eq!(wire.packets(), 0, "not one question left the host");
}

#[test]
fn other_names_are_looked_up_and_bigquerys_have_no_other_records() {
    let world = world();
    let server = OTHER4.into();
    let said = |name, kind| ask(&world, Who::Agent, "sent", server, name, kind);
    assert_eq!(said("example.com", "A")["answers"], json!(["192.0.2.9"]));
    assert_eq!(said("nobody.test", "A")["code"], "NXDOMAIN");
    for kind in ["AAAA", "HTTPS", "TXT"] {
        let said = said(BIGQUERY, kind);
        assert_eq!(
            (&said["code"], &said["answers"]),
            (&json!("NOERROR"), &json!([])),
            "{kind}"
        );
    }
    assert_eq!(said("example.com", "HTTPS")["answers"], json!([]));
    assert_eq!(
        said("BigQuery.GoogleAPIs.com", "A")["answers"],
        json!([SYNTHETIC])
    );
    assert_eq!(
        said("metadata.google.internal", "A")["answers"],
        json!(["169.254.169.254"])
    );
    // The C library, by the host's own resolv.conf; nothing of it goes on record as an attempt.
    let found = ask(&world, Who::Agent, "system", server, BIGQUERY, "A");
    assert_eq!(found["answers"], json!([SYNTHETIC]));
    assert_eq!(world.events("kernel_refused"), Vec::<Value>::new());
}

#[test]
fn who_is_no_agent_asks_whom_it_likes() {
    let world = world();
    let wire = Capture::start(&world.stage, [OTHER4.into()]);
    let said = ask(&world, Who::Approver, "sent", OTHER4.into(), BIGQUERY, "A");
    assert!(said["error"].is_string(), "nobody answers there: {said}");
    assert!(wire.packets() > 0, "the question went out");
}

#[test]
fn a_strict_agent_is_told_only_its_own_names_and_the_rest_goes_on_record_and_nowhere_else() {
    let world = strict();
    let server = OTHER4.into();
    let said = |name| ask(&world, Who::Agent, "sent", server, name, "A");
    assert_eq!(said(BIGQUERY)["answers"], json!([SYNTHETIC]));
    assert_eq!(
        said("storage.googleapis.com")["answers"],
        json!(["192.0.2.10"])
    );
    for name in [
        "example.com",
        "c2VjcmV0cw.storage.googleapis.com",
        "secret.nobody.test",
    ] {
        assert_eq!(said(name)["code"], "REFUSED", "{name}");
    }
    wait_for("the record", || {
        let refused = world.events("connection_refused");
        refused.iter().any(|event| {
            event["agent"] == "finance-bot" && event["refusal"]["code"] == "host.not_allowed"
        })
    });
    // The other agent is told everything.
    let other = ask(&world, Who::OtherAgent, "sent", server, "example.com", "A");
    assert_eq!(other["answers"], json!(["192.0.2.9"]));
    let asked = world.asked_names();
    let is_asked = |part: &str| asked.iter().any(|name| name.contains(part));
    assert!(
        is_asked("storage.googleapis.com") && is_asked("example.com"),
        "{asked:?}"
    );
    assert!(!is_asked("c2vjcmv0cw") && !is_asked("secret"), "{asked:?}");
}

#[test]
fn a_strict_agent_asks_no_server_over_tls_either() {
    let world = strict();
    let wire = Capture::start(&world.stage, [OTHER4.into(), OTHER6.into()]);
    for (how, server) in [
        ("tcp", OTHER4.into()),
        ("udp", OTHER4.into()),
        ("tcp", IpAddr::from(OTHER6)),
    ] {
        assert_eq!(world.probe_port(Who::Agent, how, server, 853), "EPERM");
    }
    assert_eq!(wire.packets(), 0);
    wait_for("the record", || {
        let refused = world.events("kernel_refused");
        refused.iter().any(|event| {
            event["verdict"]
                .as_str()
                .is_some_and(|verdict| verdict.contains("no name server but"))
        })
    });
    // Who may look up everything may do it so as well.
    assert_ne!(
        world.probe_port(Who::OtherAgent, "tcp", OTHER4.into(), 853),
        "EPERM"
    );
}

#[test]
fn the_responder_answers_nobody_whom_the_kernel_did_not_lead_there() {
    let world = world();
    for who in [Who::Agent, Who::Approver, Who::Operator] {
        for (how, ip) in [
            ("udp", "127.0.0.1"),
            ("udp_connected", "::1"),
            ("tcp", "127.0.0.1"),
            ("tcp", "::ffff:127.0.0.1"),
        ] {
            let ip = ip.parse().expect("an address");
            assert_eq!(
                world.probe_port(who, how, ip, 842),
                "EPERM",
                "{who:?} {how}"
            );
        }
    }
}

#[test]
fn nobody_else_listens_on_the_daemons_ports_also_while_it_is_away() {
    let mut world = world();
    world.kill_daemon();
    for port in ["841", "842", "843"] {
        for place in ["127.0.0.1", "0.0.0.0", "::1", "::"] {
            let script = "import errno, socket, sys\nfamily = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET\n\
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n    try:\n        socket.socket(family, kind).bind((sys.argv[1], int(sys.argv[2])))\n        print('bound')\n\
                \x20   except OSError as error:\n        print(errno.errorcode[error.errno])";
            let mut command = world.run_as(Who::Operator, "/usr/bin/python3");
            let output = command
                .args(["-c", script, place, port])
                .output()
                .expect("python runs");
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "EPERM\nEPERM\n",
                "{place} {port}"
            );
        }
    }
    world.start_daemon();
}

#[test]
fn while_the_daemon_is_frozen_nothing_is_told_and_nothing_leaves() {
    let world = world();
    let wire = Capture::start(&world.stage, [OTHER4.into()]);
    world.signal_daemon(Signal::STOP);
    wait_for("the kernel to miss the daemon", || {
        ask(
            &world,
            Who::Agent,
            "sent",
            OTHER4.into(),
            "example.com",
            "A",
        )["error"]
            == "EPERM"
    });
    assert_eq!(wire.packets(), 0);
    world.signal_daemon(Signal::CONT);
    wait_for("the daemon to answer again", || {
        ask(&world, Who::Agent, "sent", OTHER4.into(), BIGQUERY, "A")["code"] == "NOERROR"
    });
}

#[test]
fn who_asks_too_fast_is_not_answered_and_keeps_nobody_else_from_being_told() {
    let world = world();
    let flood = "import socket, sys\nquestion = bytes.fromhex('00010100000100000000000007' + b'example'.hex() + '03' + b'com'.hex() + '0000010001')\n\
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor _ in range(4000):\n    asking.sendto(question, (sys.argv[1], 53))\n";
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let status = command
        .args(["-c", flood, &OTHER4.to_string()])
        .status()
        .expect("python runs");
    assert!(status.success());
    let said = ask(
        &world,
        Who::OtherAgent,
        "sent",
        OTHER4.into(),
        "example.com",
        "A",
    );
    assert_eq!(said["answers"], json!(["192.0.2.9"]));
    wait_for("the record", || {
        let refused = world.events("connection_refused");
        refused.iter().any(|event| {
            event["agent"] == "finance-bot" && event["refusal"]["code"] == "daemon.overloaded"
        })
    });
}

#[test]
fn what_is_no_question_is_not_answered_and_does_no_harm() {
    let world = world();
    let odd = "import socket, sys\n\
        for text in ('', '00', '0001' * 6, 'ff' * 4200, '0001010000020000000000000000010001' , '00018180000100000000000007' + b'example'.hex() + '0000010001'):\n\
        \x20   asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    asking.sendto(bytes.fromhex(text), (sys.argv[1], 53))\n\
        stream = socket.create_connection((sys.argv[1], 53))\nstream.sendall(b'\\xff\\xff' + b'x' * 100)\nstream.settimeout(3)\n\
        try:\n    print(stream.recv(10))\nexcept ConnectionResetError:\n    print(b'')\n";
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let told = said(command.args(["-c", odd, &OTHER4.to_string()]));
    assert_eq!(told, "b''", "a length past the bound ends the connection");
    let answered = ask(&world, Who::Agent, "sent", OTHER4.into(), BIGQUERY, "A");
    assert_eq!(answered["answers"], json!([SYNTHETIC]));
}

/// The name that a client resolves is the one it then reaches BigQuery by, window or not.
#[test]
fn a_window_opens_for_a_client_that_resolved_the_name_by_the_daemon() {
    let world = World::start(Family::V4);
    let wire = Capture::start(&world.stage, [OTHER4.into()]);
    let _grant = world.open_window("demo-project.finance:read", "5m");
    let said = world.query(&["SELECT COUNT(*) FROM finance.daily"]);
    assert!(said[0]["rows"].is_array(), "{said:?}");
    assert_eq!(wire.packets(), 0);
}
