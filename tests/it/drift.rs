//! What happens to the enforcement behind the daemon's back is seen, said by `status`, and on record.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData};
use enforcer::kernel::{KernelConfig, Ports, attach};
use enforcer_ebpf::{Endpoint, Window};
use harness::capture::Capture;
use harness::cgroup;
use harness::stage::{BIGQUERY4, Side};
use harness::world::{Family, Who, World, wait_for};

/// Sends one UDP packet in a frame made by hand to an address, past every hook of the cgroup. A full queue or a drop may be said, or not.
const FRAME: &str = r#"
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); wire.bind(("wire0", 0x0800))
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton("10.77.0.1"), socket.inet_aton(sys.argv[1]))
try:
    wire.send(b"\xff" * 6 + b"\2\0\0\0\0\1" + b"\x08\0" + head + struct.pack("!HHHH", 5000, 443, 8, 0))
except OSError:
    pass
"#;

fn unhealthy(world: &World) -> String {
    world.json(Who::Operator, &["status"])["unhealthy"].to_string()
}

/// Waits until `status` says it, and the log as well.
fn is_said_and_recorded(world: &World, what: &str) {
    wait_for(what, || unhealthy(world).contains(what));
    wait_for("the record", || {
        let changes = world.events("health_changed");
        changes
            .iter()
            .any(|event| event["faults"].to_string().contains(what))
    });
}

fn pinned(world: &World, name: &str) -> Map {
    let path = world.stage.bpffs().join("enforcer/maps-v1").join(name);
    let data = world.stage.on(Side::Host, || {
        MapData::from_pin(path).expect("opens the map")
    });
    Map::from_map_data(data).expect("a map")
}

#[test]
fn a_healthy_host_says_so_and_its_own_probes_are_nobodys_attempts() {
    let world = World::start(Family::V4);
    // The first round of probes is over before the daemon is ready.
    assert_eq!(unhealthy(&world), "[]");
    std::thread::sleep(enforcer::tally::FLUSH * 2);
    assert!(world.events("kernel_refused").is_empty());
    assert!(world.events("health_changed").is_empty());
}

#[test]
fn a_window_that_somebody_else_writes_is_missed_and_opens_nothing() {
    let world = World::start(Family::V4);
    let mut windows: HashMap<_, u64, Window> = pinned(&world, "WINDOWS").try_into().expect("typed");
    let agent = world.stage.cgroups.make("agents/finance-bot");
    let forged = Window {
        grant: 1,
        opens_boot_ns: 0,
        closes_boot_ns: u64::MAX,
    };
    windows
        .insert(cgroup::id(&agent), forged, 0)
        .expect("root can");
    is_said_and_recorded(&world, "wrote the kernel's map WINDOWS");
    let refused = world.query(&["SELECT COUNT(*) FROM finance.daily"]);
    assert!(
        refused[0]["error"].to_string().contains("[window.none]"),
        "{refused:?}"
    );
}

#[test]
fn an_address_that_somebody_else_unprotects_is_protected_again() {
    let world = World::start(Family::V4);
    let mut endpoints: LpmTrie<_, [u8; 4], Endpoint> =
        pinned(&world, "ENDPOINTS4").try_into().expect("typed");
    let key = Key::new(32, BIGQUERY4.octets());
    endpoints.remove(&key).expect("root can");
    wait_for("the address", || endpoints.get(&key, 0).is_ok());
    wait_for("the record", || {
        let changes = world.events("health_changed");
        changes
            .iter()
            .any(|event| event["faults"].to_string().contains("put right again"))
    });
    wait_for("health", || unhealthy(&world) == "[]");
}

#[test]
fn a_program_of_somebody_elses_that_runs_before_ours_is_said() {
    let mut world = World::without_daemon(Family::V4);
    // Any programs will do: these are ours, at the same root, and not this daemon's. They keep ports of their own from everybody.
    let config = KernelConfig {
        cgroup_root: world.stage.cgroups.root().to_owned(),
        pin_dir: world.stage.bpffs().join("another"),
        daemon_cgroup: world.stage.cgroups.make("another"),
        ports: Ports {
            proxy: 941,
            names: 942,
            metadata: Some(943),
        },
        enforce: enforcer_proto::wire::Enforce::Host,
    };
    let another = world
        .stage
        .on(Side::Host, || attach(&config))
        .expect("attaches");
    world.start_daemon();
    is_said_and_recorded(&world, "before connect4 runs program");
    drop(another);
}

#[test]
fn a_lock_that_does_not_hold_any_more_is_found_by_the_daemons_own_probes() {
    let world = World::start(Family::V4);
    let links = world.stage.bpffs().join("enforcer/links");
    world.stage.on(Side::Host, || {
        for name in ["connect4", "sendmsg6"] {
            std::fs::remove_file(links.join(name)).expect("unpins");
        }
    });
    is_said_and_recorded(&world, "the link of connect4 is gone");
    is_said_and_recorded(
        &world,
        "tcp-connect/v4 toward a protected address was not refused",
    );
}

#[test]
fn a_guard_of_an_interface_that_is_taken_away_is_missed_and_put_again() {
    let mut world = World::with_a_silent_far_side();
    world.start_daemon();
    assert_eq!(unhealthy(&world), "[]");
    // A link is pinned; where the kernel has none of that kind, the guard is a filter.
    let links = world.stage.bpffs().join("enforcer/links");
    let take_away = || {
        let pins = std::fs::read_dir(&links).expect("reads").flatten();
        let name = |pin: &std::fs::DirEntry| pin.file_name().to_string_lossy().into_owned();
        let mut pins = pins.filter(|pin| name(pin).starts_with("uplink-"));
        pins.next()
            .is_some_and(|pin| std::fs::remove_file(pin.path()).is_ok())
    };
    if !world.stage.on(Side::Host, take_away) {
        let mut tc = world.stage.command(Side::Host, "tc");
        let tc = tc.args(["filter", "del", "dev", "wire0", "egress"]);
        assert!(tc.status().expect("tc runs").success());
    }
    wait_for("the record", || {
        let changes = world.events("health_changed");
        changes
            .iter()
            .any(|event| event["faults"].to_string().contains("can leave by wire0"))
    });
    wait_for("health", || unhealthy(&world) == "[]");
}

/// Puts a program that lets everything pass before all others on an interface's way out (tcx), until its input ends.
const BEFORE: &str = r#"
import ctypes, os, platform, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
def bpf(command, attributes):
    held = ctypes.create_string_buffer(attributes, len(attributes))
    made = libc.syscall(number, command, held, len(attributes))
    assert made >= 0, os.strerror(ctypes.get_errno())
    return made
# r0 = 0 (TCX_PASS); exit
code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xb7, 0, 0, 0, 0x95, 0, 0, 0), 16)
licence = ctypes.create_string_buffer(b"GPL")
program = bpf(5, struct.pack("<IIQQ", 3, 2, ctypes.addressof(code), ctypes.addressof(licence)) + bytes(48))
link = bpf(28, struct.pack("<IIIIIIQ", program, socket.if_nametoindex(sys.argv[1]), 47, 8, 0, 0, 0))
print("before", flush=True)
sys.stdin.read()
"#;

#[test]
fn somebody_elses_program_before_the_guard_of_an_interface_is_said_and_its_frames_are_seen() {
    let mut world = World::with_a_silent_far_side();
    world.start_daemon();
    assert_eq!(unhealthy(&world), "[]");
    let mut command = world.stage.command(Side::Host, "/usr/bin/python3");
    command.args(["-c", BEFORE, "wire0"]);
    let mut other = crate::bypass::Helper::start(&mut command);
    assert_eq!(other.line(), "before");
    is_said_and_recorded(&world, "can leave by wire0: before its guard runs program");
    // The operator's own proof fails as well.
    let config = world.config().display().to_string();
    let proved = world.cli(Who::Operator, &["prove", "--config", &config]);
    let said = String::from_utf8_lossy(&proved.stdout).into_owned();
    assert!(!proved.status.success(), "{said}");
    assert!(said.contains("REACHED    frame-on/wire0"), "{said}");
    drop(other);
    wait_for("health", || unhealthy(&world) == "[]");
}

/// What the status says of the kernel's security hooks.
fn hooks(world: &World) -> String {
    let guards = world.status()["guards"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut guards = guards.iter().filter_map(|guard| guard.as_str());
    let ours = guards.find_map(|guard| guard.strip_prefix("security hooks (BPF LSM): "));
    ours.expect("the status speaks of them").to_owned()
}

#[test]
fn a_guard_at_a_security_hook_stands_where_the_kernel_asks_it_and_is_missed_when_it_is_taken_away()
{
    let mut world = World::with_a_silent_far_side();
    world.start_daemon();
    let active = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if !active.trim().split(',').any(|name| name == "bpf") {
        assert!(hooks(&world).starts_with("none, "), "{}", hooks(&world));
        return;
    }
    let held = "socket_create, socket_sendmsg, ptrace_access_check, ptrace_traceme, bpf";
    assert_eq!(hooks(&world), held);
    assert_eq!(unhealthy(&world), "[]");
    let pin = world.stage.bpffs().join("enforcer/links/socket_create");
    let take_away = || std::fs::remove_file(&pin).expect("removes");
    world.stage.on(Side::Host, take_away);
    is_said_and_recorded(
        &world,
        "the link of the security hook socket_create is gone",
    );
    // The next daemon puts it there again, beside the three that its predecessor left.
    world.kill_daemon();
    world.start_daemon();
    assert_eq!(hooks(&world), held);
    assert_eq!(unhealthy(&world), "[]");
}

#[test]
fn a_guard_stays_when_the_daemon_ends_is_taken_over_by_the_next_and_ends_with_detach() {
    let mut world = World::with_a_silent_far_side();
    let frame_leaves = |world: &World| {
        let capture = Capture::start(&world.stage, [BIGQUERY4.into()]);
        let mut python = world.stage.command(Side::Host, "/usr/bin/python3");
        let sent = python.args(["-c", FRAME, &BIGQUERY4.to_string()]);
        assert!(sent.status().expect("python runs").success());
        capture.packets() > 0
    };
    assert!(frame_leaves(&world), "nobody guards it yet");
    for _ in 0..2 {
        world.start_daemon();
        assert!(!frame_leaves(&world), "guarded by a daemon");
        assert_eq!(unhealthy(&world), "[]");
        world.kill_daemon();
        assert!(!frame_leaves(&world), "guarded by one that is gone");
    }
    let config = world.config().display().to_string();
    let why = [
        "detach",
        "--config",
        &config,
        "--reason",
        "the test is over",
    ];
    let detached = world.cli(Who::Operator, &why);
    let said = String::from_utf8_lossy(&detached.stderr).into_owned();
    assert!(detached.status.success(), "{said}");
    assert!(frame_leaves(&world), "detached");
}

#[test]
fn a_process_of_an_agent_that_holds_what_agents_must_not_is_said() {
    let world = World::without_daemon(Family::V4);
    let agent = world.cgroup_of(Who::Agent);
    // Root in the agent's workload, before the daemon looks for the first time.
    let mut able = world
        .stage
        .command_in(Side::Host, Some(&agent), None, "sleep");
    let mut able = able.arg("60").spawn().expect("starts");
    let mut world = world;
    world.start_daemon();
    is_said_and_recorded(&world, " holds CAP_NET_RAW, CAP_NET_ADMIN");
    able.kill().expect("kills");
    able.wait().expect("ends");
    wait_for("health", || unhealthy(&world) == "[]");
}
