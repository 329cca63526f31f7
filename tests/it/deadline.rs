//! The end of a window by time: what is refused, cut and cancelled, and how it is proven afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use harness::capture::Capture;
use harness::world::{Family, Who, World, policy, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
/// Longer work for the SQL engine than the window is open.
const SLOW: &str = "SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 300000)) a, UNNEST(GENERATE_ARRAY(1, 20000)) b WHERE MOD(a * b, 7) = 3";
/// Far above what is measured (some milliseconds: see the demonstration), far below any interval at which something could be polled.
const SOON: Duration = Duration::from_millis(250);

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

fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("a number: {value}"))
}

/// How long after the deadline something was, which it must be, and soon.
fn soon_after(deadline: u64, at: u64, what: &str) {
    assert!(at >= deadline, "{what} came before the deadline");
    let late = Duration::from_nanos(at - deadline);
    assert!(late < SOON, "{what} came {late:?} after the deadline");
}

fn refuses_cuts_and_cancels(family: Family) {
    let world = World::start(family);
    let _ = world.open_window("demo-project.finance:read", "8s");
    let deadline = deadline(&world);
    let (mut kept, mut slow) = (world.client(), world.client());
    assert!(kept.query(DAILY)["rows"].is_array());
    slow.send(SLOW);
    wait_for("the job", || {
        let admitted = world.events("query_admitted");
        let slow = admitted.iter().find(|event| event["sql"] == SLOW);
        slow.is_some_and(|slow| {
            let finished = world.events("query_finished");
            finished
                .iter()
                .any(|event| event["query"] == slow["query"] && event["job"].is_object())
        })
    });
    let refused = loop {
        let answer = kept.query("SELECT 1");
        if answer["error"].is_string() {
            break answer;
        }
    };
    assert!(error_of(&refused).contains("[window."), "{refused}");
    soon_after(deadline, number(&refused["ended"]), "the first refusal");
    let cut = slow.receive();
    assert!(error_of(&cut).contains("[window."), "{cut}");
    soon_after(deadline, number(&cut["ended"]), "the running query's end");
    wait_for("the cancellation", || {
        let cancelled = world.events("job_cancelled");
        cancelled
            .iter()
            .any(|event| event["outcome"] == "cancelled")
    });
    let records = world.records();
    let at = |kind: &str| {
        let found = records.iter().position(|record| {
            record["event"]["kind"] == kind && number(&record["boot_ns"]) >= deadline
        });
        found.unwrap_or_else(|| panic!("{kind} is on record after the deadline"))
    };
    soon_after(
        deadline,
        number(&records[at("query_refused")]["boot_ns"]),
        "the refusal's record",
    );
    assert!(at("closed") < at("job_cancelled"));
    assert_eq!(records[at("closed")]["event"]["reason"], "expired");
    let asked = world.far_requests().into_iter().any(|request| {
        let path = request["path"].as_str().unwrap_or_default();
        path.contains("/cancel") && request["at"] == world.bigquery_here().to_string()
    });
    assert!(asked, "the far side was asked to cancel");
    // What the kernel itself still sends for the connections that were let go is nobody's attempt.
    assert_eq!(world.events("kernel_refused"), Vec::<Value>::new());
}

#[test]
fn the_deadline_refuses_the_next_query_cuts_the_running_one_and_cancels_its_job_on_ipv4() {
    refuses_cuts_and_cancels(Family::V4);
}

#[test]
fn the_deadline_refuses_the_next_query_cuts_the_running_one_and_cancels_its_job_on_ipv6() {
    refuses_cuts_and_cancels(Family::V6);
}

/// The daemon is frozen so shortly before the deadline that its last sign of life is fresh throughout: what refuses is the window's end.
fn ends_by_itself_under_a_frozen_daemon(family: Family) {
    let mut world = World::without_daemon(family);
    world.edit_config("uid = 2001", "uid = 2001\nclosed = \"drop\"");
    world.start_daemon();
    let _ = world.open_window("demo-project.finance:read", "4s");
    let deadline = deadline(&world);
    let connect = || world.probe(Who::Agent, world.bigquery_here());
    let left = |until: u64| Duration::from_nanos(until.saturating_sub(SystemClock.now().boot_ns));
    let capture = Capture::start(&world.stage, World::bigquery());
    let before = capture.settled();
    // The kernel's clock is the subject.
    std::thread::sleep(left(deadline - 700_000_000));
    world.signal_daemon(Signal::STOP);
    let frozen = SystemClock.now().boot_ns;
    assert_eq!(
        connect(),
        "ok",
        "until its end the window leads to the proxy's port"
    );
    std::thread::sleep(left(deadline));
    assert_eq!(connect(), "EPERM");
    let age = Duration::from_nanos(SystemClock.now().boot_ns - frozen);
    assert!(
        age < Duration::from_millis(1_500),
        "this machine was too slow to tell the deadline from the heartbeat: {age:?}"
    );
    assert_eq!(capture.packets(), before, "nothing went out meanwhile");
    world.signal_daemon(Signal::CONT);
}

#[test]
fn a_window_ends_at_its_deadline_while_a_frozen_daemons_heartbeat_is_fresh_on_ipv4() {
    ends_by_itself_under_a_frozen_daemon(Family::V4);
}

#[test]
fn a_window_ends_at_its_deadline_while_a_frozen_daemons_heartbeat_is_fresh_on_ipv6() {
    ends_by_itself_under_a_frozen_daemon(Family::V6);
}

fn verify(world: &World, dir: &Path) -> (Option<i32>, String) {
    let dir = dir.display().to_string();
    let output = world.cli(Who::Operator, &["log", "verify", "--dir", &dir]);
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.code(), said.concat())
}

/// A copy of the log in which one line is not what was written.
fn copy_with(world: &World, name: &str, change: impl Fn(&mut Vec<String>)) -> PathBuf {
    let file = "log-000001.jsonl";
    let text = std::fs::read_to_string(world.state_dir().join("audit").join(file)).expect("reads");
    let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    change(&mut lines);
    let copy = world.stage.dir().join(name);
    std::fs::create_dir_all(&copy).expect("makes a folder");
    std::fs::write(copy.join(file), lines.concat()).expect("writes");
    copy
}

fn proves_itself(family: Family) {
    let world = World::start(family);
    let _ = world.open_window("demo-project.finance:read", "1m");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    let kinds: Vec<Value> = world
        .records()
        .iter()
        .map(|record| record["event"]["kind"].clone())
        .collect();
    let seq = |kind: &str| {
        1 + kinds
            .iter()
            .position(|found| found == kind)
            .unwrap_or_else(|| panic!("{kind} in {kinds:?}"))
    };
    let (status, said) = verify(&world, &world.state_dir().join("audit"));
    assert!(
        status == Some(0) && said.contains("the chain is whole"),
        "{said}"
    );

    let query = seq("query_admitted");
    let changed = copy_with(&world, "changed", |lines| {
        lines[query - 1] = lines[query - 1].replacen("finance.daily", "finance.dairy", 1);
    });
    let (status, said) = verify(&world, &changed);
    assert!(
        status == Some(1) && said.contains(&format!("record {query} is bad")),
        "{said}"
    );
    let opened = seq("opened");
    let missing = copy_with(&world, "missing", |lines| drop(lines.remove(opened - 1)));
    let (status, said) = verify(&world, &missing);
    assert!(
        status == Some(1) && said.contains(&format!("record {opened}")),
        "{said}"
    );
}

#[test]
fn the_log_is_whole_and_names_the_record_that_was_changed_or_removed_on_ipv4() {
    proves_itself(Family::V4);
}

#[test]
fn the_log_is_whole_and_names_the_record_that_was_changed_or_removed_on_ipv6() {
    proves_itself(Family::V6);
}

#[test]
fn an_agent_cannot_decide_on_its_own_request_by_uid_or_from_its_workload() {
    let mut world = World::without_daemon(Family::V4);
    // The policy names the agent's own uid as an approver: that changes nothing.
    let uids = format!("users = [{}", harness::world::APPROVER_UID);
    world.set_policy(
        &policy("15m", false).replace(&uids, &format!("{uids}, {}", harness::world::AGENT_UID)),
    );
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
    let asked = world.json(Who::Agent, &ask);
    let request = asked["request"].as_str().expect("an id");
    let approve = |who| {
        let output = world.cli(who, &["approve", request]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    for who in [Who::Agent, Who::OtherAgent] {
        let (status, said) = approve(who);
        assert_eq!(status, Some(3), "{said}");
        assert!(
            said.contains("[approve.self]") || said.contains("[caller.forbidden]"),
            "{said}"
        );
    }
    let (status, said) = approve(Who::Agent);
    assert!(
        status == Some(3) && said.contains("[approve.self]"),
        "{said}"
    );
    assert!(world.events("approved").is_empty());
    assert!(error_of(&world.query(&[DAILY])[0]).contains("[window.none]"));
    assert_eq!(approve(Who::Approver).0, Some(0));
}
