//! What happens to the enforcement behind the daemon's back is seen, said by `status`, and on record.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map, MapData};
use enforcer::kernel::{KernelConfig, Ports, attach};
use enforcer_ebpf::{Endpoint, Window};
use harness::cgroup;
use harness::stage::{BIGQUERY4, Side};
use harness::world::{Family, Who, World, wait_for};

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
    // Any programs will do: these are ours, at the same root, and not this daemon's.
    let config = KernelConfig {
        cgroup_root: world.stage.cgroups.root().to_owned(),
        pin_dir: world.stage.bpffs().join("another"),
        daemon_cgroup: world.stage.cgroups.make("another"),
        ports: Ports {
            proxy: 842,
            names: 852,
            metadata: Some(853),
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
    is_said_and_recorded(
        &world,
        "of agent finance-bot holds CAP_NET_RAW, CAP_NET_ADMIN",
    );
    able.kill().expect("kills");
    able.wait().expect("ends");
    wait_for("health", || unhealthy(&world) == "[]");
}
