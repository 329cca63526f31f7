//! `enforcer prove`: every way out is blocked, and where a program is missing the proof says so.

use harness::world::{Family, Who, World, wait_for};
use serde_json::Value;

/// What this machine's kernel may lack: its ways cannot be shown to be closed.
const MAY_BE_ABSENT: [&str; 4] = [
    "sctp-connect/v4",
    "sctp-connect/v6",
    "sctp-send/v4",
    "sctp-send/v6",
];

fn prove(world: &World) -> (Option<i32>, Value) {
    let config = world.config().display().to_string();
    let output = world.cli(Who::Operator, &["prove", "--config", &config, "--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let said = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("JSON: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said)
}

/// The paths that ended so.
fn ended(said: &Value, outcome: &str) -> Vec<String> {
    let paths = said["paths"].as_array().expect("a list");
    let ended = paths.iter().filter(|path| path["outcome"] == outcome);
    ended
        .map(|path| path["path"].as_str().expect("a name").to_owned())
        .collect()
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
    let not_tried = ended(&said, "not_tried");
    assert!(
        not_tried
            .iter()
            .all(|path| MAY_BE_ABSENT.contains(&path.as_str())),
        "{said}"
    );
    assert_eq!(status, Some(0));
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
    let not_tried = ended(&said, "not_tried");
    assert!(
        not_tried
            .iter()
            .all(|path| MAY_BE_ABSENT.contains(&path.as_str())),
        "{said}"
    );
    assert!(ended(&said, "reached").len() > 60);
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
    // The uplink guard holds what egress would have.
    let (status, said) = prove(&world);
    assert_eq!((status, ended(&said, "reached")), (Some(0), Vec::new()));
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
