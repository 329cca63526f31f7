//! What a daemon that dies, freezes or cannot write leaves behind: nothing open that should not be.

use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use harness::capture::Capture;
use harness::world::{Family, Who, World, policy, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

fn error_of(result: &Value) -> &str {
    result["error"]
        .as_str()
        .unwrap_or_else(|| panic!("was not refused: {result}"))
}

fn deadline(world: &World) -> u64 {
    let approved = world.events("approved");
    approved
        .last()
        .and_then(|event| event["closes_boot_ns"].as_u64())
        .expect("approved")
}

fn comes_back_with_the_same_windows(family: Family) {
    let mut world = World::start(family);
    let grant = world.open_window("demo-project.finance:read", "1m");
    let before = deadline(&world);
    world.kill_daemon();
    let capture = Capture::start(&world.stage, World::bigquery());
    let printed = world.probe(Who::Agent, world.bigquery_here());
    assert!(
        ["EPERM", "ECONNREFUSED"].contains(&printed.as_str()),
        "{printed}"
    );
    assert_eq!(capture.packets(), 0);
    world.start_daemon();
    let status = world.json(Who::Agent, &["status"]);
    assert!(
        status["grants"]
            .as_array()
            .expect("a list")
            .iter()
            .any(|view| view["grant"] == grant.as_str() && view["open"] == true)
    );
    assert_eq!(deadline(&world), before, "the deadline is absolute");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
}

#[test]
fn a_killed_daemon_comes_back_with_the_same_windows_and_no_gap_on_ipv4() {
    comes_back_with_the_same_windows(Family::V4);
}

#[test]
fn a_killed_daemon_comes_back_with_the_same_windows_and_no_gap_on_ipv6() {
    comes_back_with_the_same_windows(Family::V6);
}

fn frozen_serves_nobody_past_the_deadline(family: Family) {
    let world = World::start(family);
    let _ = world.open_window("demo-project.finance:read", "3s");
    let mut client = world.client();
    assert!(client.query(DAILY)["rows"].is_array());
    let deadline = deadline(&world);
    let capture = Capture::start(&world.stage, World::bigquery());
    world.signal_daemon(Signal::STOP);
    let before = capture.settled();
    client.send(DAILY);
    // The kernel's clock is the subject: this waits for the deadline, and for the daemon's last sign of life to grow old.
    let left = deadline.saturating_sub(SystemClock.now().boot_ns);
    std::thread::sleep(Duration::from_nanos(left).max(Duration::from_millis(2_200)));
    assert_eq!(world.probe(Who::Agent, world.bigquery_here()), "EPERM");
    assert_eq!(
        capture.packets(),
        before,
        "nothing went out while it was frozen"
    );
    world.signal_daemon(Signal::CONT);
    let woken = client.receive();
    assert!(
        error_of(&woken).contains("window"),
        "what waited in the socket is judged by the clock as it is now: {woken}"
    );
}

#[test]
fn a_frozen_daemon_serves_nobody_past_the_deadline_and_refuses_when_it_wakes_on_ipv4() {
    frozen_serves_nobody_past_the_deadline(Family::V4);
}

#[test]
fn a_frozen_daemon_serves_nobody_past_the_deadline_and_refuses_when_it_wakes_on_ipv6() {
    frozen_serves_nobody_past_the_deadline(Family::V6);
}

#[test]
fn a_revoked_window_refuses_at_once_and_its_running_job_is_cancelled() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut slow = world.client();
    slow.send("SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 100000)) a, UNNEST(GENERATE_ARRAY(1, 20000)) b WHERE MOD(a * b, 7) = 3");
    wait_for("the job", || {
        world
            .events("query_finished")
            .iter()
            .any(|event| event["job"].is_object())
    });
    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    assert!(error_of(&slow.receive()).contains("window"));
    assert!(error_of(&world.query(&[DAILY])[0]).contains("no open window"));
    wait_for("the cancellation", || {
        world
            .events("job_cancelled")
            .iter()
            .any(|event| event["outcome"] == "cancelled")
    });
    let cancel = world.far_requests().into_iter().any(|request| {
        request["path"]
            .as_str()
            .is_some_and(|path| path.contains("/cancel"))
    });
    assert!(cancel, "the far side was asked to cancel");
}

fn no_window_without_a_log(family: Family) {
    let mut world = World::without_daemon(family);
    // A file system of one megabyte stands for a full disk.
    let audit = world.state_dir().join("audit");
    std::fs::create_dir_all(&audit).expect("makes a folder");
    world.stage.mount_small(&audit);
    world.start_daemon();
    let ask = [
        "request",
        "--scope",
        "demo-project.finance:read",
        "--ttl",
        "1m",
        "--reason",
        "month end",
    ];
    // One window is open before the disk is full, another is asked for.
    let _ = world.open_window("demo-project.finance:read", "5m");
    let asked = world.json(Who::Agent, &ask);
    world.stage.fill(&audit);
    // The log's own last page may still have room for a record or two.
    let full = (0..20).any(|_| {
        let more = world.cli(Who::Agent, &["close", "g-99"]);
        String::from_utf8_lossy(&more.stderr).contains("[audit.unavailable]")
    });
    assert!(full, "the log ran full");
    let output = world.cli(
        Who::Approver,
        &["approve", asked["request"].as_str().expect("an id")],
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("[audit.unavailable]"), "{said}");
    let before = world.asked_of_bigquery();
    assert!(error_of(&world.query(&[DAILY])[0]).contains("[audit.unavailable]"));
    assert_eq!(
        world.asked_of_bigquery(),
        before,
        "not even a dry run went out"
    );
    let status = world.json(Who::Operator, &["status"]);
    assert_eq!(
        status["grants"].as_array().map(Vec::len),
        Some(1),
        "{status}"
    );
    assert!(
        status["unhealthy"]
            .to_string()
            .contains("audit log cannot be written"),
        "{status}"
    );
}

#[test]
fn no_window_opens_while_the_log_cannot_be_written_on_ipv4() {
    no_window_without_a_log(Family::V4);
}

#[test]
fn no_window_opens_while_the_log_cannot_be_written_on_ipv6() {
    no_window_without_a_log(Family::V6);
}

#[test]
fn a_rule_may_open_without_a_person() {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&policy("15m", true));
    world.start_daemon();
    let asked = world.json(
        Who::Agent,
        &[
            "request",
            "--scope",
            "demo-project.finance:read",
            "--ttl",
            "1m",
            "--reason",
            "month end",
        ],
    );
    assert_eq!(asked["grant"]["approver"], "policy rule 1");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    let other = world.cli(
        Who::OtherAgent,
        &[
            "request",
            "--scope",
            "demo-project.finance:read",
            "--ttl",
            "1m",
            "--reason",
            "me too",
        ],
    );
    assert_eq!(other.status.code(), Some(3), "another agent has no rule");
    assert!(error_of(&world.query(&["SELECT * FROM hr.salaries"])[0]).contains("outside window"));
}

#[test]
fn enforcement_ends_only_on_purpose_and_on_record() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config("uid = 2001", "uid = 2001\nclosed = \"drop\"");
    world.start_daemon();
    let config = world.config().display().to_string();
    let detach = |world: &World| {
        let args = [
            "detach",
            "--config",
            &config,
            "--reason",
            "moving to another host",
        ];
        let output = world.cli(Who::Operator, &args);
        let said = [output.stdout, output.stderr]
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), said.concat())
    };
    let connect = |world: &World| world.probe(Who::Agent, world.bigquery_here());
    // Not while a daemon runs.
    let (status, said) = detach(&world);
    assert!(
        status == Some(1) && said.contains("stop it first"),
        "{said}"
    );
    world.kill_daemon();
    assert_eq!(connect(&world), "EPERM");
    // Not where it cannot be recorded.
    let audit = world.state_dir().join("audit");
    let aside = world.state_dir().join("aside");
    std::fs::rename(&audit, &aside).expect("moves the log away");
    std::fs::write(&audit, "no folder").expect("writes");
    assert_eq!(detach(&world).0, Some(1));
    assert_eq!(connect(&world), "EPERM");
    std::fs::remove_file(&audit).expect("removes");
    std::fs::rename(&aside, &audit).expect("moves it back");

    let (status, said) = detach(&world);
    assert!(
        status == Some(0) && said.contains("connect4") && said.contains("uplink-"),
        "{said}"
    );
    assert_ne!(connect(&world), "EPERM");
    assert_eq!(detach(&world).0, Some(1), "nothing is left to detach");
    world.start_daemon();
    assert_eq!(connect(&world), "EPERM");
    let detached = &world.events("detached")[0];
    assert_eq!(
        (&detached["uid"], &detached["reason"]),
        (&Value::from(0), &Value::from("moving to another host"))
    );
}
