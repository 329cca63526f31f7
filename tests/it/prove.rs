//! `enforcer prove`: every way out is blocked, and where a program is missing the proof says so.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Map, MapData};
use enforcer_ebpf::Endpoint;
use harness::capture::Capture;
use harness::stage::{BIGQUERY4, OTHER4, Side};
use harness::world::{Family, Who, World, wait_for};
use serde_json::{Value, json};

/// What this machine's kernel may lack: its ways cannot be shown to be closed.
const MAY_BE_ABSENT: [&str; 4] = [
    "sctp-connect/v4",
    "sctp-connect/v6",
    "sctp-send/v4",
    "sctp-send/v6",
];

/// Where BigQuery's name leads, as this host resolves it.
const BIGQUERY: &str = "name/bigquery.googleapis.com";
/// What is said to be no part of the proof, and how these lines begin.
const UNPROVEN: [&str; 2] = ["agents/", "suite/"];

fn prove(world: &World) -> (Option<i32>, Value) {
    let config = world.config().display().to_string();
    let output = world.cli(Who::Operator, &["prove", "--config", &config, "--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let said = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("JSON: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said)
}

/// The paths that ended so.
#[track_caller]
fn ended(said: &Value, outcome: &str) -> Vec<String> {
    let paths = said["paths"].as_array();
    let paths = paths.unwrap_or_else(|| panic!("no list of paths: {said}"));
    let ended = paths.iter().filter(|path| path["outcome"] == outcome);
    ended
        .map(|path| path["path"].as_str().expect("a name").to_owned())
        .collect()
}

/// Nothing is left untried but what may be.
#[track_caller]
fn all_is_tried(said: &Value) {
    let not_tried = ended(said, "not_tried");
    let (unproven, absent): (Vec<_>, Vec<_>) = not_tried
        .iter()
        .map(String::as_str)
        .partition(|path| UNPROVEN.iter().any(|begin| path.starts_with(begin)));
    for named in ["agents/metadata", "suite/forwarded"] {
        assert!(unproven.contains(&named), "{unproven:?}");
    }
    assert!(
        absent.iter().all(|path| MAY_BE_ABSENT.contains(path)),
        "{said}"
    );
}

fn leave_nothing_behind(world: &World) {
    let left = std::fs::read_dir(world.stage.cgroups.root())
        .expect("reads")
        .flatten();
    let left = left.filter(|entry| entry.file_name().to_string_lossy().contains("prove"));
    assert_eq!(left.count(), 0, "no cgroup is left");
}

#[test]
fn every_way_out_is_blocked_and_what_was_tried_is_on_record() {
    let world = World::start(Family::V4);
    let (status, said) = prove(&world);
    assert_eq!(ended(&said, "reached"), Vec::<String>::new());
    for blocked in [
        BIGQUERY,
        "moved/tcp-connect/v4",
        "moved/raw-echo/v4",
        "apart/tcp-connect/v4",
        "apart/tcp-connect/v6",
        "apart/udp-send/v4",
        "apart/raw-echo/v4",
    ] {
        assert!(
            ended(&said, "blocked").contains(&blocked.to_owned()),
            "{said}"
        );
    }
    all_is_tried(&said);
    assert_eq!((status, &said["note"]), (Some(0), &Value::Null));
    leave_nothing_behind(&world);
    // Nothing attached to one hook alone: each has refused some of it.
    wait_for("the records", || {
        let refused = world.events("kernel_refused");
        let by = |hook: &str| {
            refused.iter().any(|event| {
                event["verdict"]
                    .as_str()
                    .is_some_and(|verdict| verdict.starts_with(hook))
            })
        };
        [
            "connect4",
            "connect6",
            "sendmsg4",
            "sendmsg6",
            "egress",
            "uplink",
            "setsockopt",
        ]
        .into_iter()
        .all(by)
    });
}

#[test]
fn without_the_enforcer_every_way_out_reaches_the_far_end_and_the_proof_fails() {
    let world = World::without_daemon(Family::V4);
    let (status, said) = prove(&world);
    assert_eq!(ended(&said, "blocked"), Vec::<String>::new());
    all_is_tried(&said);
    let reached = ended(&said, "reached");
    assert!(reached.len() > 60 && reached.contains(&BIGQUERY.to_owned()));
    for path in [
        "moved/tcp-connect/v4",
        "apart/tcp-connect/v4",
        "apart/raw-echo/v4",
    ] {
        assert!(reached.contains(&path.to_owned()), "{path}");
    }
    assert!(said["note"].to_string().contains("no daemon answers"));
    assert_eq!(status, Some(1));
    leave_nothing_behind(&world);
}

#[test]
fn a_program_that_is_taken_away_is_missed_by_the_daemon_and_by_the_proof() {
    let mut world = World::start(Family::V4);
    let pin = world.stage.bpffs().join("enforcer/links/egress");
    world.stage.on(harness::stage::Side::Host, || {
        std::fs::remove_file(pin).expect("unpins");
    });
    let status = world.json(Who::Operator, &["status"]);
    assert!(
        status["unhealthy"].to_string().contains("egress"),
        "{status}"
    );
    // The uplink guard holds what egress would have, on this host's own interfaces.
    let (status, said) = prove(&world);
    let reached = ended(&said, "reached");
    assert_eq!(
        (status, reached),
        (Some(1), vec!["apart/raw-echo/v4".to_owned()])
    );
    // Without the daemon nobody guards the new interface of the proof.
    world.kill_daemon();
    let (status, said) = prove(&world);
    let reached = ended(&said, "reached");
    assert!(reached.contains(&"raw-echo/v4".to_owned()), "{reached:?}");
    assert!(
        !reached.contains(&"tcp-connect/v4".to_owned()),
        "{reached:?}"
    );
    assert_eq!(status, Some(1));
}

#[test]
fn an_address_of_bigquerys_that_is_not_protected_is_missed_and_nothing_is_sent_there() {
    let mut world = World::with_a_silent_far_side();
    world.start_daemon();
    let wire = Capture::start(&world.stage, [BIGQUERY4.into(), OTHER4.into()]);
    // The resolver that programs ask knows an address which the daemon has not learnt yet.
    let more = json!({"addresses": [BIGQUERY4, OTHER4], "ttl_s": 600});
    world.set_names(&json!({"bigquery.googleapis.com": more}));
    let (status, said) = prove(&world);
    assert_eq!(ended(&said, "reached"), [BIGQUERY], "{said}");
    assert!(
        said.to_string()
            .contains(&format!("not protected: {OTHER4} "))
    );
    assert_eq!(status, Some(1));
    // Or somebody has taken one out of the kernel's map, and no daemon puts it back.
    world.set_names(&json!({}));
    world.kill_daemon();
    let path = world.stage.bpffs().join("enforcer/maps-v1/ENDPOINTS4");
    let data = world.stage.on(Side::Host, || {
        MapData::from_pin(path).expect("opens the map")
    });
    let map = Map::from_map_data(data).expect("a map");
    let mut endpoints: LpmTrie<_, [u8; 4], Endpoint> = map.try_into().expect("typed");
    endpoints
        .remove(&Key::new(32, BIGQUERY4.octets()))
        .expect("root can");
    let (status, said) = prove(&world);
    let reached = ended(&said, "reached");
    assert!(reached.contains(&BIGQUERY.to_owned()), "{reached:?}");
    assert_eq!(status, Some(1));
    assert_eq!(wire.packets(), 0, "it is asked, and nothing is sent");
    leave_nothing_behind(&world);
}

#[test]
fn a_name_that_this_host_does_not_resolve_is_not_proven() {
    let mut world = World::with_a_silent_far_side();
    world.start_daemon();
    let none = json!({"addresses": [], "ttl_s": 1});
    world.set_names(&json!({"bigquery.googleapis.com": none}));
    let (status, said) = prove(&world);
    let not_tried = ended(&said, "not_tried");
    assert!(not_tried.contains(&BIGQUERY.to_owned()), "{said}");
    assert_eq!(status, Some(0));
}
