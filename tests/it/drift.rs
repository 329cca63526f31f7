//! What happens to the enforcement behind the daemon's back is seen, said by `status`, and on record.

use std::path::Path;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use enforcer::kernel::{Attached, KernelConfig, Ports, attach};
use enforcer_ebpf::map::UID_ANY;
use enforcer_ebpf::{Agent, Config, Endpoint, Window};
use harness::capture::Capture;
use harness::cgroup;
use harness::stage::{BIGQUERY4, HOST4, INTERNET4, Side};
use harness::world::{AGENT_UID, Family, Who, World, wait_for};

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

/// Gives up what the first thread may do, and not the second; says so.
const SECOND_THREAD: &str = r#"
import ctypes, struct, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
nothing = ctypes.create_string_buffer(24)
head = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0), 8)
assert ctypes.CDLL(None).capset(head, nothing) == 0
print("x", end="", flush=True)
time.sleep(60)
"#;

/// Becomes, in one way or another, somebody who is as good as root and does not look so: says that it has, and waits.
const HIDDEN: &str = r#"
import ctypes, os, platform, struct, sys, threading, time
how = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
# Of one thread alone: what the C library calls so is of all.
EXIT, SETUID, SETGROUPS = {"x86_64": (60, 117, 116), "aarch64": (93, 147, 159)}[platform.machine()]
def user(groups):
    os.setgroups(groups); os.setgid(2001); os.setuid(2001)
def no_capabilities():
    libc.prctl(28, 15, 0, 0, 0)
    head = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0), 8)
    assert libc.capset(head, ctypes.create_string_buffer(24)) == 0
def unshare(what):
    assert libc.unshare(what) == 0
def wait():
    print("is", flush=True)
    time.sleep(120)
USERS, MOUNTS = 0x10000000, 0x20000
if how == "leader-gone":
    user([6])
    def lives_on():
        time.sleep(0.5); wait()
    threading.Thread(target=lives_on).start()
    libc.syscall(EXIT, 0)
elif how == "users":
    user([6]); unshare(USERS)
elif how == "users-and-mounts":
    user([6]); unshare(USERS | MOUNTS)
elif how == "users-root-is-root":
    no_capabilities(); unshare(USERS)
    open("/proc/self/uid_map", "w").write("0 0 1")
elif how == "mounts":
    unshare(MOUNTS); user([6])
elif how == "mounts-root":
    unshare(MOUNTS); no_capabilities()
elif how == "thread-root":
    done = threading.Event()
    def stays():
        no_capabilities(); done.set(); time.sleep(120)
    threading.Thread(target=stays).start(); done.wait()
    libc.syscall(SETGROUPS, 0, None)
    assert libc.syscall(SETUID, 2001, 2001, 2001) == 0
wait()
"#;

/// Sends one segment of TCP that belongs to no connection from an address to another.
const UNASKED: &str = r#"
import socket, struct, sys
source, to = map(socket.inet_aton, sys.argv[1:3])
def check_of(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xffff)
    return ~total & 0xffff
head = lambda check: struct.pack("!HHIIBBHHH", 443, 9, 1, 1, 0x50, 0x10, 1000, check, 0)
segment = head(check_of(source + to + struct.pack("!HH", 6, 20) + head(0)))
packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 1, 0, 64, 6, 0, source, to) + segment
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(packet, (sys.argv[2], 0))
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
    let mut windows: HashMap<_, u64, Window> =
        pinned(&world, "WINDOWS-2").try_into().expect("typed");
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

/// Attaches somebody else's programs to a cgroup. Any will do: these are ours, and not this daemon's. They keep ports of their own from everybody.
fn attach_others(world: &World, cgroup: &Path, name: &str) -> Attached {
    let config = KernelConfig {
        cgroup_root: cgroup.to_owned(),
        pin_dir: world.stage.bpffs().join(name),
        daemon_cgroup: world.stage.cgroups.make(name),
        ports: Ports {
            proxy: 941,
            names: 942,
            metadata: Some(943),
        },
        enforce: enforcer_proto::wire::Enforce::Host,
    };
    world
        .stage
        .on(Side::Host, || attach(&config))
        .expect("attaches")
}

#[test]
fn a_program_of_somebody_elses_that_runs_before_ours_is_said() {
    let mut world = World::without_daemon(Family::V4);
    let another = attach_others(&world, world.stage.cgroups.root(), "another");
    world.start_daemon();
    is_said_and_recorded(&world, "before connect4 runs program");
    drop(another);
}

#[test]
fn a_program_of_somebody_elses_that_runs_before_ours_in_a_workload_is_said() {
    let world = World::start(Family::V4);
    assert_eq!(unhealthy(&world), "[]");
    let agent = world.cgroup_of(Who::Agent);
    let another = attach_others(&world, &agent, "another");
    is_said_and_recorded(&world, "agents/finance-bot, and could hide");
    drop(another);
}

#[test]
fn a_program_of_somebody_elses_below_a_workload_is_said_also_where_another_runs_first_everywhere() {
    let mut world = World::without_daemon(Family::V4);
    let root = world.stage.cgroups.root().to_owned();
    let everywhere = attach_others(&world, &root, "everywhere");
    world.start_daemon();
    is_said_and_recorded(&world, "before connect4 runs program");
    let below = world.stage.cgroups.make("agents/finance-bot/inner/most");
    let another = attach_others(&world, &below, "another");
    let mut waits = world
        .stage
        .command_in(Side::Host, Some(&below), None, "sleep");
    let mut waits = waits.arg("120").spawn().expect("starts");
    is_said_and_recorded(&world, "agents/finance-bot/inner/most, and could hide");
    // What runs first everywhere is said of the root alone.
    let said = world.json(Who::Operator, &["status"])["unhealthy"].clone();
    let said = said.as_array().expect("a list");
    let before = |place: &std::path::Path| {
        let place = format!("in {}, and could hide", place.display());
        let of_it = said.iter().filter_map(|fault| fault.as_str());
        let of_it =
            of_it.filter(|fault| fault.contains(&place) && fault.starts_with("before connect4 "));
        of_it.count()
    };
    assert_eq!(
        [&root, &below, &world.cgroup_of(Who::Agent)].map(|place| before(place)),
        [1, 1, 0]
    );
    waits.kill().expect("kills");
    waits.wait().expect("ends");
    drop((everywhere, another));
}

#[test]
fn lost_pins_of_maps_are_said_and_put_back_before_a_new_daemon_asks_them() {
    let mut world = World::start(Family::V4);
    let maps = world.stage.bpffs().join("enforcer/maps-v1");
    let names = [
        "AGENTS-4",
        "ENDPOINTS4",
        "ENDPOINTS6",
        "SUBUIDS",
        "UIDS-2",
        "WINDOWS-2",
    ];
    let id = |name: &str| {
        let path = maps.join(name);
        let info = world.stage.on(Side::Host, || MapInfo::from_pin(path));
        info.expect("is pinned").id()
    };
    let before = names.map(id);
    world.stage.on(Side::Host, || {
        for name in names {
            std::fs::remove_file(maps.join(name)).expect("unpins");
        }
    });
    is_said_and_recorded(&world, "the pin of the kernel's map ENDPOINTS4 is lost");
    world.kill_daemon();
    world.start_daemon();
    let id = |name: &str| {
        let path = maps.join(name);
        let info = world.stage.on(Side::Host, || MapInfo::from_pin(path));
        info.expect("is pinned again").id()
    };
    assert_eq!(names.map(id), before);
    wait_for("health", || unhealthy(&world) == "[]");
    let refused = world.query(&["SELECT COUNT(*) FROM finance.daily"]);
    assert!(
        refused[0]["error"].to_string().contains("[window.none]"),
        "{refused:?}"
    );
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
fn without_a_route_to_the_canaries_the_probes_say_so_and_try_what_is_protected_here() {
    let mut world = World::with_a_silent_far_side();
    for args in [
        format!("route add 10.77.0.0/16 via {INTERNET4}"),
        "route del default".to_owned(),
        "-6 route del default".to_owned(),
    ] {
        let status = world
            .stage
            .command(Side::Host, "ip")
            .args(args.split(' '))
            .status();
        assert!(status.expect("ip runs").success(), "{args}");
    }
    world.start_daemon();
    assert_eq!(unhealthy(&world), "[]");
    let guards = world.status()["checks"].to_string();
    let said = "show nothing of these, to which this host has no route: raw-echo/v4, raw-echo/v6";
    assert!(guards.contains(said), "{guards}");
    let wire = Capture::start(&world.stage, World::bigquery());
    let links = world.stage.bpffs().join("enforcer/links");
    world.stage.on(Side::Host, || {
        std::fs::remove_file(links.join("connect4")).expect("unpins");
    });
    let said = format!("a socket to {BIGQUERY4} toward a protected address was not refused");
    is_said_and_recorded(&world, &said);
    // What is tried there sends nothing.
    assert_eq!(wire.settled(), 0);
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
const BEFORE: &str = concat!(
    python_bpf!(),
    r#"
# r0 = 0 (TCX_PASS); exit
program = loaded(3, step(0xb7, 0, 0, 0) + step(0x95, 0, 0, 0))
link = bpf(28, struct.pack("<IIIIIIQ", program, socket.if_nametoindex(sys.argv[1]), 47, 8, 0, 0, 0))
print("before", flush=True)
sys.stdin.read()
"#
);

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

/// Makes a tunnel, and holds it.
const TUNNEL: &str = r#"
import fcntl, os, struct, subprocess, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun7", 0x1001))
subprocess.run(["ip", "link", "set", "tun7", "up"], check=True)
print("up", flush=True)
sys.stdin.read()
"#;

#[test]
fn a_packet_that_a_tunnel_takes_past_its_guard_is_said() {
    let mut world = World::with_a_silent_far_side();
    let mut command = world.stage.command(Side::Host, "/usr/bin/python3");
    let mut tunnel = crate::bypass::Helper::start(command.args(["-c", TUNNEL]));
    assert_eq!(tunnel.line(), "up");
    world.start_daemon();
    assert_eq!(unhealthy(&world), "[]");
    let mut command = world.stage.command(Side::Host, "/usr/bin/python3");
    let mut other = crate::bypass::Helper::start(command.args(["-c", BEFORE, "tun7"]));
    assert_eq!(other.line(), "before");
    is_said_and_recorded(&world, "was not refused on tun7: the caller saw no error");
}

/// What the status says of the kernel's security hooks.
fn hooks(world: &World) -> String {
    let guards = world.status()["checks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut guards = guards.iter().filter_map(|guard| guard["said"].as_str());
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
    let mut world = World::without_daemon(Family::V4);
    let agent = world.cgroup_of(Who::Agent);
    // In the agent's workload, before the daemon looks for the first time.
    let start = |how: &[&str]| {
        let mut command = world
            .stage
            .command_in(Side::Host, Some(&agent), None, "setpriv");
        let ids = ["--reuid", "2001", "--regid", "2001"];
        let command = command.args(ids).args(how).args(["sleep", "60"]);
        command.spawn().expect("starts")
    };
    let holding = |names: &str| {
        let [inherited, ambient] =
            ["inh", "ambient"].map(|set| format!("--{set}-caps=-all,{names}"));
        start(&["--clear-groups", &inherited, &ambient])
    };
    let all = [
        (
            holding("+net_raw,+net_admin"),
            "holds CAP_NET_ADMIN, CAP_NET_RAW",
        ),
        (holding("+mknod,+sys_boot"), "holds CAP_SYS_BOOT, CAP_MKNOD"),
        (
            start(&["--groups", "disk,shadow"]),
            "is in group disk, group shadow",
        ),
    ];
    // Each thread has capabilities of its own.
    let mut of_thread = world
        .stage
        .command_in(Side::Host, Some(&agent), None, "setpriv");
    let of_thread = of_thread
        .args(["--reuid", "2001", "--regid", "2001", "--clear-groups"])
        .args(["--inh-caps=-all,+net_raw", "--ambient-caps=-all,+net_raw"])
        .args(["/usr/bin/python3", "-c", SECOND_THREAD])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut of_thread = of_thread.expect("starts");
    let mut word = [0];
    let mut said = of_thread.stdout.take().expect("piped");
    std::io::Read::read_exact(&mut said, &mut word).expect("it says so");
    let all = all.into_iter().chain([(of_thread, "holds CAP_NET_RAW")]);
    let all: Vec<(std::process::Child, &str)> = all.collect();
    let harmless = holding("+net_bind_service");
    world.start_daemon();
    let config = world.config().display().to_string();
    let check = world.cli(Who::Operator, &["check", "--config", &config]);
    assert!(!check.status.success());
    let check = String::from_utf8_lossy(&check.stderr);
    for (process, what) in &all {
        let said = format!("process {} {what}", process.id());
        assert!(check.contains(&said), "{said}: {check}");
        is_said_and_recorded(&world, &said);
    }
    let harmless_one = format!("process {} ", harmless.id());
    assert!(!unhealthy(&world).contains(&harmless_one));
    for mut process in all
        .into_iter()
        .map(|(process, _)| process)
        .chain([harmless])
    {
        process.kill().expect("kills");
        process.wait().expect("ends");
    }
    wait_for("health", || unhealthy(&world) == "[]");
}

#[test]
fn who_is_as_good_as_root_and_hides_it_is_said_all_the_same() {
    let mut world = World::without_daemon(Family::V4);
    let agent = world.cgroup_of(Who::Agent);
    let all = [
        ("leader-gone", "is in group disk"),
        ("users", "is in group disk"),
        ("users-and-mounts", "is in group disk"),
        ("users-root-is-root", "is root"),
        ("mounts", "is in group disk"),
        ("mounts-root", "is root"),
        ("thread-root", "is root"),
    ];
    let all = all.map(|(how, what)| {
        let mut command =
            world
                .stage
                .command_in(Side::Host, Some(&agent), None, "/usr/bin/python3");
        let mut helper = crate::bypass::Helper::start(command.args(["-c", HIDDEN, how]));
        assert_eq!(helper.line(), "is", "{how}");
        let said = format!("process {} {what}", helper.pid());
        (helper, said)
    });
    let config = world.config().display().to_string();
    let check = world.cli(Who::Operator, &["check", "--config", &config]);
    assert!(!check.status.success());
    let check = String::from_utf8_lossy(&check.stderr);
    for (_, said) in &all {
        assert!(check.contains(said), "{said}: {check}");
    }
    world.start_daemon();
    for (_, said) in &all {
        is_said_and_recorded(&world, said);
    }
    drop(all);
    wait_for("health", || unhealthy(&world) == "[]");
}

#[test]
fn whatever_somebody_else_writes_into_the_maps_of_who_is_who_is_said() {
    let world = World::start(Family::V4);
    assert_eq!(unhealthy(&world), "[]");
    let mut agents: HashMap<_, u64, Agent> = pinned(&world, "AGENTS-4").try_into().expect("typed");
    let agent = cgroup::id(&world.cgroup_of(Who::Agent));
    let held = agents.get(&agent, 0).expect("is an agent");
    let forged = Agent {
        uid: UID_ANY,
        ..held
    };
    agents.insert(agent, forged, 0).expect("root can");
    is_said_and_recorded(&world, "wrote the kernel's map AGENTS:");
    agents.insert(agent, held, 0).expect("root can");
    wait_for("health", || unhealthy(&world) == "[]");

    let mut uids: HashMap<_, u32, u32> = pinned(&world, "UIDS-2").try_into().expect("typed");
    uids.remove(&AGENT_UID).expect("root can");
    is_said_and_recorded(&world, "wrote the kernel's map UIDS:");
    uids.insert(AGENT_UID, 1, 0).expect("root can");
    wait_for("health", || unhealthy(&world) == "[]");

    let mut subordinate: LpmTrie<_, [u8; 4], u32> =
        pinned(&world, "SUBUIDS").try_into().expect("typed");
    let key = Key::new(32, 165_536_u32.to_be_bytes());
    subordinate.insert(&key, 1, 0).expect("root can");
    is_said_and_recorded(&world, "wrote the kernel's map SUBUIDS:");
    subordinate.remove(&key).expect("root can");
    wait_for("health", || unhealthy(&world) == "[]");

    let mut configs: Array<_, Config> = pinned(&world, "CONFIG-3").try_into().expect("typed");
    let held = configs.get(&0, 0).expect("reads");
    let forged = Config {
        metadata_port: 9,
        ..held
    };
    configs.set(0, forged, 0).expect("root can");
    is_said_and_recorded(&world, "wrote the kernel's map CONFIG:");
    configs.set(0, held, 0).expect("root can");
    wait_for("health", || unhealthy(&world) == "[]");
}

#[test]
fn another_map_that_is_pinned_in_the_place_of_one_is_said() {
    let world = World::start(Family::V4);
    let maps = world.stage.bpffs().join("enforcer/maps-v1");
    world.stage.on(Side::Host, || {
        let other = MapData::from_pin(maps.join("ENDPOINTS4")).expect("opens the map");
        std::fs::remove_file(maps.join("ENDPOINTS6")).expect("unpins");
        other.pin(maps.join("ENDPOINTS6")).expect("pins");
    });
    is_said_and_recorded(
        &world,
        "the pin of the kernel's map ENDPOINTS6 is lost (another map is pinned in its place)",
    );
}

#[test]
fn what_the_kernel_answers_to_what_came_unasked_is_nobodys_attempt() {
    let world = World::start(Family::V4);
    let dropped = || world.status()["kernel"]["egress_dropped"].as_u64();
    let before = dropped();
    let mut python = world.stage.command(Side::Internet, "/usr/bin/python3");
    let args = ["-c", UNASKED, &BIGQUERY4.to_string(), &HOST4.to_string()];
    assert!(python.args(args).status().expect("runs").success());
    // A reset toward BigQuery's address, from a socket of the kernel's own: dropped and counted.
    wait_for("the reset", || dropped() > before);
    std::thread::sleep(enforcer::tally::FLUSH * 2);
    let refused = world.events("kernel_refused");
    assert!(refused.is_empty(), "{refused:?}");
}
