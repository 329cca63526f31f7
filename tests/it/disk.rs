//! The log's disk full, failing and not answering: nothing is allowed, it is said, and it goes on by itself.

use std::process::Child;

use harness::stage::{Disk, Frozen};
use harness::tracer::Tracer;
use harness::world::{Family, Who, World, policy, wait_for};
use serde_json::{Value, json};

use crate::budget::{self, JOBS, insert};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// A world whose log is on a disk of its own.
fn on_a_disk(size_mib: u32, room_mib: u32) -> (World, Disk) {
    with_log_on_a_disk(World::without_daemon(Family::V4), size_mib, room_mib)
}

/// The same, where both agents may be given windows.
fn of_two_agents_on_a_disk() -> (World, Disk) {
    let mut world = World::without_daemon(Family::V4);
    let both = policy("1h", false).replacen("\"finance-bot\"", "\"finance-bot\", \"ops-bot\"", 1);
    world.set_policy(&both);
    with_log_on_a_disk(world, 16, 32)
}

fn with_log_on_a_disk(mut world: World, size_mib: u32, room_mib: u32) -> (World, Disk) {
    let audit = world.state_dir().join("audit");
    std::fs::create_dir_all(&audit).expect("makes a folder");
    let disk = world.stage.mount_disk(&audit, size_mib, room_mib);
    world.start_daemon();
    (world, disk)
}

fn ask(world: &World) -> (Option<i32>, String) {
    let args = [
        "request",
        "--scope",
        "demo-project.finance:read",
        "--ttl",
        "1m",
        "--reason",
        "month end",
    ];
    let output = world.cli(Who::Agent, &args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

fn is_refused(world: &World) -> bool {
    let (code, said) = ask(world);
    code == Some(3) && said.contains("[audit.unavailable]")
}

fn unhealthy(world: &World) -> String {
    world.status()["unhealthy"].to_string()
}

fn verified(world: &World) -> Value {
    let dir = world.state_dir().join("audit").display().to_string();
    // Seen from within the host: the disk is mounted there alone.
    world.json(Who::Operator, &["log", "verify", "--dir", &dir])
}

/// Whatever the disk does meanwhile: nothing goes out, and afterwards all is there and in order.
fn nothing_without_a_record(world: &World, fault: &str, fail: impl FnOnce(), heal: impl FnOnce()) {
    let grant = world.open_window("demo-project.finance:read", "10m");
    assert!(world.query(&[DAILY])[0]["rows"].is_array());
    let before = world.records();
    fail();
    // The last page may still have room for some records.
    let is_noticed = (0..2000).any(|_| is_refused(world));
    assert!(is_noticed, "the disk takes no more");
    let sent = world.asked_of_bigquery();
    // A short record may still fit where a long one did not.
    let is_all_refused = (0..50).any(|_| {
        let before = world.asked_of_bigquery();
        let refused = world.query(&[DAILY])[0]["error"].to_string();
        refused.contains("[audit.unavailable]") && world.asked_of_bigquery() == before
    });
    assert!(is_all_refused, "not even a dry run goes out");
    let sent = world.asked_of_bigquery() - sent;
    let said = unhealthy(world);
    assert!(
        said.contains("audit log cannot be written") && said.contains(fault),
        "{said}"
    );
    // What the disk has of a record that it did not take is no sign of tampering.
    assert_eq!(verified(world)["whole"], true);
    // What takes away holds all the same, and is recorded as soon as it can be.
    let closed = world.cli(Who::Agent, &["close", &grant]);
    assert!(world.status()["grants"][0]["open"] == false, "{closed:?}");
    heal();
    wait_for("the log", || {
        !unhealthy(world).contains("audit log cannot be written")
    });
    assert!(ask(world).0 == Some(0), "it goes on by itself");
    let after = world.records();
    assert_eq!(
        after[..before.len()],
        before,
        "nothing that was there is lost"
    );
    let asked = after[before.len()..].iter();
    let is_asked = |kind| ["query_asked", "query_admitted", "forwarded"].contains(&kind);
    let asked = asked.filter(|record| record["event"]["kind"].as_str().is_some_and(is_asked));
    assert!(sent <= asked.count(), "what went out is on record");
    let kind = |wanted: &str| {
        after.iter().position(|record| {
            record["event"]["kind"] == wanted && record["event"]["grant"] == grant.as_str()
        })
    };
    assert!(kind("opened") < kind("closed") && kind("closed").is_some());
    let times = after.iter().map(|record| record["boot_ns"].as_u64());
    assert!(times.is_sorted(), "in the order in which they happened");
    assert_eq!(verified(world)["whole"], true);
}

#[test]
fn a_full_disk_allows_nothing_is_said_and_is_gone_on_from_when_there_is_room() {
    let (world, _disk) = on_a_disk(16, 32);
    let audit = world.state_dir().join("audit");
    nothing_without_a_record(
        &world,
        "No space left on device",
        || world.stage.fill(&audit),
        || {
            let filler = audit.join("filler");
            world.stage.on(harness::stage::Side::Host, || {
                std::fs::remove_file(filler).expect("removes");
            });
        },
    );
}

#[test]
fn a_disk_that_fails_allows_nothing_is_said_and_is_gone_on_from_when_it_works() {
    // The file system believes in more room than its disk has: writes are taken, and making them durable fails.
    let (world, disk) = on_a_disk(256, 24);
    nothing_without_a_record(
        &world,
        "cannot make durable",
        || disk.exhaust(&world.stage),
        || disk.replenish(&world.stage),
    );
}

#[test]
fn an_input_output_error_allows_nothing_is_said_and_is_gone_on_from_when_it_is_over() {
    let (world, _disk) = on_a_disk(16, 32);
    let failing = std::cell::RefCell::new(None);
    let pid = world.daemon_pid();
    nothing_without_a_record(
        &world,
        "Input/output error",
        || *failing.borrow_mut() = Some(Tracer::inject(pid, "fdatasync", "error=EIO")),
        || drop(failing.take()),
    );
}

/// Asks for a window, and gives the request.
fn asked_by(world: &World, who: Who) -> String {
    let scope = ["--scope", "demo-project.finance:read", "--reason", "x"];
    let asked = world.json(who, &[&["request"], &scope[..]].concat());
    asked["request"].as_str().expect("an id").to_owned()
}

/// The command is refused since the log cannot be written.
fn is_not_recorded(world: &World, args: &[&str]) {
    let refused = world.cli(Who::Approver, args);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(3) && said.contains("[audit.unavailable]"),
        "{args:?}: {said}"
    );
}

/// The daemon is killed, and begins again: `kind` is not on record.
fn begins_again_without(world: &mut World, kind: &str) {
    world.kill_daemon();
    world.start_daemon();
    assert_eq!(world.events(kind), Vec::<Value>::new(), "what was refused");
    assert_eq!(verified(world)["whole"], true);
}

fn is_locked(world: &World, agent: &str) -> bool {
    let status = world.status();
    let mut agents = status["agents"].as_array().expect("a list").iter();
    let found = agents.find(|found| found["agent"] == agent);
    !found.expect("an agent")["locked"].is_null()
}

#[test]
fn what_was_refused_since_the_disk_failed_has_not_happened_for_a_daemon_that_is_killed_and_started()
{
    let (mut world, _disk) = of_two_agents_on_a_disk();
    let request = asked_by(&world, Who::OtherAgent);
    let lock = ["lock", "finance-bot", "--reason", "asks at night"];
    assert!(world.cli(Who::Approver, &lock).status.success());
    let failing = Tracer::inject(world.daemon_pid(), "fdatasync", "error=EIO");
    is_not_recorded(&world, &["approve", &request]);
    begins_again_without(&mut world, "approved");
    assert_eq!(world.status()["requests"][0]["state"], "pending");
    drop(failing);
    let failing = Tracer::inject(world.daemon_pid(), "fdatasync", "error=EIO");
    is_not_recorded(&world, &["unlock", "finance-bot"]);
    begins_again_without(&mut world, "agent_unlocked");
    assert!(is_locked(&world, "finance-bot"));
    drop(failing);
}

#[test]
fn what_was_refused_and_cannot_be_cut_off_is_said_and_cut_off_as_soon_as_that_can_be() {
    const SAID: &str = "may still be in the audit log's file";
    let (mut world, _disk) = on_a_disk(16, 32);
    let lock = ["lock", "finance-bot", "--reason", "asks at night"];
    assert!(world.cli(Who::Approver, &lock).status.success());
    assert!(!unhealthy(&world).contains(SAID));
    let failing = Tracer::inject(world.daemon_pid(), "fdatasync,ftruncate", "error=EIO");
    is_not_recorded(&world, &["unlock", "finance-bot"]);
    let said = unhealthy(&world);
    assert!(said.contains(SAID), "{said}");
    drop(failing);
    // Nothing is to be recorded meanwhile.
    wait_for("it to be cut off", || !unhealthy(&world).contains(SAID));
    begins_again_without(&mut world, "agent_unlocked");
    assert!(is_locked(&world, "finance-bot"));
}

#[test]
fn a_disk_that_does_not_answer_lets_no_query_out_until_it_does() {
    let (world, disk) = on_a_disk(16, 32);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut client = world.client();
    assert!(client.query(DAILY)["rows"].is_array());
    let sent = world.asked_of_bigquery();
    let frozen = disk.freeze(&world.stage);
    client.send("SELECT COUNT(*) FROM finance.daily WHERE 1 = 1");
    // The log's thread waits for the disk.
    wait_for("the disk to be waited for", || {
        is_waiting(world.daemon_pid())
    });
    assert_eq!(
        world.asked_of_bigquery(),
        sent,
        "nothing goes out that is not on disk"
    );
    drop(frozen);
    let answer = client.receive();
    assert!(answer["rows"].is_array(), "{answer}");
    assert!(world.asked_of_bigquery() > sent);
    assert_eq!(verified(&world)["whole"], true);
}

#[test]
fn while_the_disk_does_not_answer_windows_are_ended_streams_cut_and_it_is_said() {
    const SLOW: &str = "SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 300000)) a, UNNEST(GENERATE_ARRAY(1, 20000)) b WHERE MOD(a * b, 7) = 3";
    let (world, disk) = on_a_disk(16, 32);
    let grant = world.open_window("demo-project.finance:read", "10m");
    let (mut slow, mut other) = (world.client(), world.client());
    assert!(other.query(DAILY)["rows"].is_array());
    slow.send(SLOW);
    wait_for("the job", || {
        let admitted = world.events("query_admitted");
        admitted.iter().any(|event| event["sql"] == SLOW)
    });
    wait_for("its start", || world.asked_of_bigquery() >= 4);
    let frozen = disk.freeze(&world.stage);
    other.send("SELECT COUNT(*) FROM finance.daily WHERE 1 = 1");
    wait_for("the disk to be waited for", || {
        is_waiting(world.daemon_pid())
    });
    // Whoever is not to end it does not, and learns so when the disk answers.
    let mut nobody = world.run_as(Who::OtherAgent, harness::world::enforcer());
    let nobody = nobody
        .args(["close", &grant])
        .stderr(std::process::Stdio::piped());
    let nobody = nobody.spawn().expect("runs");
    wait_for("it to be said", || {
        unhealthy(&world).contains("the disk of the audit log has not answered")
    });
    assert_eq!(world.status()["grants"][0]["open"], true);
    let revoked = world.cli(Who::Approver, &["revoke", &grant]);
    let said = String::from_utf8_lossy(&revoked.stderr).into_owned();
    assert!(
        revoked.status.code() == Some(3) && said.contains("It is done and holds"),
        "{said}"
    );
    assert_eq!(world.status()["grants"][0]["open"], false);
    let cut = slow.receive()["error"].to_string();
    assert!(
        cut.contains("[audit.unavailable]") || cut.contains("onnection"),
        "{cut}"
    );
    drop(frozen);
    let late = other.receive()["error"].to_string();
    assert!(
        late.contains("[window.") || late.contains("[audit.unavailable]"),
        "{late}"
    );
    wait_for("the record", || !world.events("closed").is_empty());
    let closed = &world.events("closed")[0];
    assert_eq!(
        (&closed["grant"], &closed["reason"]),
        (&grant.into(), &"revoked".into())
    );
    let nobody = nobody.wait_with_output().expect("ends");
    assert_eq!(nobody.status.code(), Some(3));
    let report = verified(&world);
    assert_eq!(report["whole"], true);
    let times = world.records();
    let times = times.iter().map(|record| record["boot_ns"].as_u64());
    assert!(times.is_sorted(), "in the order in which they happened");
}

/// Starts a command that waits for the disk, or may.
fn begin(world: &World, who: Who, args: &[&str]) -> std::process::Child {
    let mut command = world.run_as(who, harness::world::enforcer());
    let command = command.args(["--json"]).args(args);
    let command = command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    command.spawn().expect("runs")
}

fn ended(child: std::process::Child) -> (Option<i32>, String) {
    let output = child.wait_with_output().expect("ends");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn has_closed(world: &World, grant: &str) -> bool {
    let status = world.status();
    let mut grants = status["grants"].as_array().expect("a list").iter();
    grants.any(|shown| shown["grant"] == grant && shown["open"] == false)
}

/// What the log says of windows, in order.
fn of_windows(world: &World) -> Vec<(String, String)> {
    let records = world.records();
    let events = records.iter().map(|record| &record["event"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events
        .map(|event| (text(&event["kind"]), text(&event["grant"])))
        .filter(|(_, grant)| !grant.is_empty())
        .collect()
}

/// `ops-bot` holds window 1, the approval of window 2 waits for the disk, which `hang` keeps from answering until `is_hanging`, and every window is
/// ended: of which 1 is known. Gives what keeps the disk, whoever approves and whoever ends.
fn end_all_while_one_is_recorded<H>(
    world: &World,
    hang: impl FnOnce() -> H,
    is_hanging: impl FnMut() -> bool,
) -> (H, [Child; 2]) {
    let first = asked_by(world, Who::OtherAgent);
    let _ = world.json(Who::Approver, &["approve", &first]);
    let second = asked_by(world, Who::Agent);
    let seen = world.digest_of(&second);
    let hanging = hang();
    let approve = ["approve", &second, "--seen", &seen];
    let approval = begin(world, Who::Approver, &approve);
    wait_for("the disk to be waited for", is_hanging);
    let all = begin(world, Who::Operator, &["close-all"]);
    wait_for("what is known to end", || has_closed(world, "g-1"));
    (hanging, [approval, all])
}

/// The same on a disk that is frozen.
fn end_all_on_a_frozen_disk(world: &World, disk: &Disk) -> (Frozen, [Child; 2]) {
    let freeze = || disk.freeze(&world.stage);
    end_all_while_one_is_recorded(world, freeze, || is_waiting(world.daemon_pid()))
}

/// No window is open, the one that was being recorded as well, and all is on record in its order.
fn both_have_ended(world: &World) {
    wait_for("the records", || world.events("closed").len() == 2);
    assert!(has_closed(world, "g-1") && has_closed(world, "g-2"));
    let log = of_windows(world);
    let place = |kind: &str, grant: &str| {
        let wanted = (kind.to_owned(), grant.to_owned());
        log.iter().position(|found| *found == wanted)
    };
    assert!(place("opened", "g-2") < place("closed", "g-2"), "{log:?}");
    let reasons = world.events("closed");
    let mut reasons = reasons.iter().map(|closed| &closed["reason"]);
    assert!(reasons.all(|reason| reason == "revoked"));
    let times = world.records();
    let times = times.iter().map(|record| record["boot_ns"].as_u64());
    assert!(times.is_sorted(), "in the order in which they happened");
    assert_eq!(verified(world)["whole"], true);
}

#[test]
fn who_ends_every_window_ends_the_one_that_is_being_recorded_too_and_is_told_that_it_can_open_yet()
{
    let (world, disk) = of_two_agents_on_a_disk();
    let (frozen, [approval, all]) = end_all_on_a_frozen_disk(&world, &disk);
    let (code, said) = ended(all);
    assert!(
        code == Some(3) && said.contains("a window that is being recorded can open yet"),
        "{said}"
    );
    drop(frozen);
    let _ = ended(approval);
    both_have_ended(&world);
}

#[test]
fn who_ends_every_window_is_told_of_all_that_ended_when_the_disk_answers_soon() {
    let (world, disk) = of_two_agents_on_a_disk();
    let (frozen, [approval, all]) = end_all_on_a_frozen_disk(&world, &disk);
    drop(frozen);
    let (code, said) = ended(all);
    // On a host that is slow it may have been told that the disk is.
    let is_all_told = said.contains("\"g-1\"") && said.contains("\"g-2\"");
    assert!(
        (code == Some(0) && is_all_told) || said.contains("can open yet"),
        "{said}"
    );
    let _ = ended(approval);
    both_have_ended(&world);
}

#[test]
fn a_window_that_was_being_recorded_when_every_one_was_ended_is_not_open_while_the_disk_is_waited_for_again()
 {
    let (world, _disk) = of_two_agents_on_a_disk();
    let slow = || Tracer::inject(world.daemon_pid(), "fdatasync", "delay_enter=5000000");
    let is_said = || unhealthy(&world).contains("the disk of the audit log has not answered");
    let (slow, [approval, all]) = end_all_while_one_is_recorded(&world, slow, is_said);
    let mut is_open = Value::Null;
    wait_for("the window to be known", || {
        let status = world.status();
        let mut grants = status["grants"].as_array().expect("a list").iter();
        let known = grants.find(|shown| shown["grant"] == "g-2");
        is_open = known.map_or(Value::Null, |shown| shown["open"].clone());
        known.is_some()
    });
    assert_eq!(is_open, false);
    drop(slow);
    let _ = (ended(approval), ended(all));
    both_have_ended(&world);
}

#[test]
fn a_lock_while_the_disk_does_not_answer_ends_the_window_at_once_and_what_is_being_asked_for_afterwards()
 {
    let (world, disk) = of_two_agents_on_a_disk();
    let grant = world.open_window("demo-project.finance:read", "10m");
    let frozen = disk.freeze(&world.stage);
    let scope = ["--scope", "demo-project.finance:read", "--reason", "x"];
    let asks = begin(&world, Who::Agent, &[&["request"], &scope[..]].concat());
    wait_for("the disk to be waited for", || {
        is_waiting(world.daemon_pid())
    });
    let lock = ["lock", "finance-bot", "--reason", "asks at night"];
    let lock = begin(&world, Who::Approver, &lock);
    wait_for("the window to end", || has_closed(&world, &grant));
    // What is being recorded was decided before the lock, and so it is on record before it.
    assert!(!is_locked(&world, "finance-bot"));
    drop(frozen);
    let (code, said) = ended(lock);
    assert_eq!(code, Some(0), "{said}");
    assert!(is_locked(&world, "finance-bot"));
    let asked = ended(asks);
    let denied = world.events("denied");
    assert_eq!(
        denied.len(),
        1,
        "who is locked waits for nothing: {asked:?}"
    );
    assert_eq!(denied[0]["request"], "r-2");
    assert_eq!(world.events("closed").len(), 1);
    assert_eq!(verified(&world)["whole"], true);
}

#[test]
fn at_its_deadline_a_window_closes_and_its_jobs_are_cancelled_though_the_disk_does_not_answer() {
    let (world, disk) = on_a_disk(16, 32);
    world.set_faults(&json!({"run_ms": 600_000}));
    let grant = world.open_window("demo-project.finance:read", "8s");
    let mut streams = world.streams();
    let job = insert("runs_on", DAILY);
    assert_eq!(budget::ask(&mut streams, "POST", JOBS, Some(&job)).0, 200);
    let mut other = world.client();
    let frozen = disk.freeze(&world.stage);
    other.send("SELECT COUNT(*) FROM finance.daily WHERE 1 = 1");
    wait_for("the disk to be waited for", || {
        is_waiting(world.daemon_pid())
    });
    let cancel = |request: &Value| {
        let path = request["path"].as_str().unwrap_or_default();
        path.contains("runs_on/cancel")
    };
    wait_for("the cancellation", || {
        world.far_requests().iter().any(cancel)
    });
    assert!(is_waiting(world.daemon_pid()), "the disk answers none yet");
    drop(frozen);
    wait_for("the record", || !world.events("closed").is_empty());
    let closed = world.events("closed");
    let closed: Vec<_> = closed
        .iter()
        .map(|closed| (&closed["grant"], &closed["reason"]))
        .collect();
    assert_eq!(closed, [(&grant.into(), &"expired".into())], "once");
    let report = verified(&world);
    assert_eq!(report["whole"], true);
}

#[test]
fn joins_on_a_full_disk_take_no_revocation_from_the_record_and_did_not_happen() {
    let (world, _disk) = on_a_disk(16, 32);
    let audit = world.state_dir().join("audit");
    let grant = world.open_window("demo-project.finance:read", "10m");
    world.stage.fill(&audit);
    assert!((0..2000).any(|_| is_refused(&world)), "it takes no more");
    let joins = || {
        let command = ["run", "--agent", "ops-bot", "--", "/bin/true"];
        world.cli(Who::Operator, &command).status.code()
    };
    // A short record may still fit where a long one did not.
    let before = world.events("process_joined").len();
    let refused = (0..20).filter(|_| joins() != Some(0)).count();
    assert!(refused > 0);
    let revoked = world.cli(Who::Approver, &["revoke", &grant]);
    assert_eq!(revoked.status.code(), Some(3), "{revoked:?}");
    let filler = audit.join("filler");
    world.stage.on(harness::stage::Side::Host, || {
        std::fs::remove_file(filler).expect("removes");
    });
    wait_for("the record", || world.events("closed").len() == 1);
    assert_eq!(world.events("closed")[0]["reason"], "revoked");
    assert_eq!(
        world.events("process_joined").len() - before,
        20 - refused,
        "who was refused has not joined"
    );
    assert_eq!(verified(&world)["whole"], true);
}

#[test]
fn a_disk_that_is_slow_closes_no_window() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let slow = Tracer::inject(world.daemon_pid(), "fdatasync", "delay_enter=5000000");
    let mut asks = world.run_as(Who::OtherAgent, harness::world::enforcer());
    let scope = ["--scope", "demo-project.finance:read", "--reason", "x"];
    asks.arg("request")
        .args(scope)
        .stdout(std::process::Stdio::null());
    let mut asks = asks.spawn().expect("runs");
    wait_for("it to be said", || {
        unhealthy(&world).contains("the disk of the audit log has not answered for 3 s")
    });
    // The kernel forgets a daemon that it has not heard of for two seconds.
    assert_eq!(world.probe(Who::Agent, world.bigquery_here()), "ok");
    drop(slow);
    let _ = asks.wait();
}

#[test]
fn what_is_denied_while_the_log_is_full_is_said_not_to_be_on_record() {
    let (world, _disk) = on_a_disk(16, 32);
    let audit = world.state_dir().join("audit");
    let request = asked_by(&world, Who::Agent);
    world.stage.fill(&audit);
    assert!((0..2000).any(|_| is_refused(&world)), "it takes no more");
    // What the last block still takes is less than a request's record; that of this denial is longer.
    let reason = "\u{1f600}".repeat(enforcer_proto::ledger::REASON_CHARS_MAX);
    let denied = world.cli(Who::Approver, &["deny", &request, "--reason", &reason]);
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    assert!(
        denied.status.code() == Some(3) && said.contains("it is not on record"),
        "{said}"
    );
    let filler = audit.join("filler");
    world.stage.on(harness::stage::Side::Host, || {
        std::fs::remove_file(filler).expect("removes");
    });
    wait_for("the record", || world.events("denied").len() == 1);
}

/// Whether a thread of the daemon's is in a wait that no signal ends.
fn is_waiting(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("lists");
    tasks.flatten().any(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        stat.contains("(log)") && state.starts_with('D')
    })
}
