//! A daemon that is told another time than the kernel's does not start, and what its lock holds stays as it was.

use std::process::Output;

use enforcer::clock::{Clock, SystemClock};
use harness::stage::Side;
use harness::world::{Family, Who, World, enforcer};
use serde_json::Value;

/// What becomes of a daemon whose boot clock is `seconds` off, in a time namespace of its own.
fn started_in_a_time_namespace(world: &World, seconds: &str) -> Output {
    let mut command = world.stage.command(Side::Host, "unshare");
    command
        .args([
            "--time",
            "--fork",
            "--kill-child",
            "--boottime",
            seconds,
            "--",
        ])
        .arg(enforcer())
        .args(["daemon", "--config"])
        .arg(world.config());
    command.output().expect("unshare runs")
}

fn closes_boot_ns(world: &World) -> Value {
    world.events("approved")[0]["closes_boot_ns"].clone()
}

#[test]
fn a_daemon_in_a_time_namespace_does_not_start_and_moves_no_deadline() {
    let mut world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let deadline = closes_boot_ns(&world);
    world.kill_daemon();
    for seconds in ["86400", "2", "-2"] {
        let ended = started_in_a_time_namespace(&world, seconds);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(
            said.contains("off the kernel's") && said.contains("time namespace"),
            "{said}"
        );
        // Nothing is led to a daemon that is not there.
        let printed = world.probe(Who::Agent, world.bigquery_here());
        assert!(
            ["EPERM", "ECONNREFUSED"].contains(&printed.as_str()),
            "{printed}"
        );
    }
    world.start_daemon();
    let status = world.status();
    assert_eq!(status["grants"][0]["grant"], grant.as_str());
    assert_eq!(closes_boot_ns(&world), deadline);
    let left = status["grants"][0]["closes_in_ns"]
        .as_u64()
        .expect("a time");
    let end = deadline.as_u64().expect("a time");
    assert!(SystemClock.now().boot_ns + left <= end + 1_000_000_000);
}
