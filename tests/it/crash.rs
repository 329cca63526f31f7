//! The daemon killed at every step of asking, opening, querying and closing. Whatever it was about to do, the next start knows all that somebody
//! was told, nothing is open that is not on record, and nothing that was used is given back.
//!
//! It is killed from outside, as it enters a system call: before a record is written, before it is made durable, before the kernel is told.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;

use harness::tracer::Tracer;
use harness::world::{Family, Who, World};
use serde_json::Value;

const DAILY: &str = r#"{"query": "SELECT COUNT(*) FROM finance.daily", "useLegacySql": false}"#;

/// What somebody was told before the daemon ended.
#[derive(Debug, Default)]
struct Told {
    asked: Option<String>,
    opened: Option<String>,
    queries: usize,
    is_closed: bool,
}

fn said(world: &World, who: Who, args: &[&str]) -> Option<Value> {
    let output = world.cli(who, &[args, &["--json"]].concat());
    let said = output.status.success().then_some(output.stdout)?;
    serde_json::from_slice(&said).ok()
}

/// One query; whether its rows came.
fn query(world: &World) -> bool {
    let mut curl = world.run_as(Who::Agent, "curl");
    curl.args(["--silent", "--max-time", "20", "--cacert"])
        .arg(world.stage.dir().join("run/ca.pem"))
        .args([
            "--header",
            "Content-Type: application/json",
            "--data",
            DAILY,
        ])
        .arg("https://bigquery.googleapis.com/bigquery/v2/projects/demo-project/queries");
    let output = curl.output().expect("curl runs");
    String::from_utf8_lossy(&output.stdout).contains("\"rows\"")
}

/// Asks, opens, queries twice and closes, as far as it gets.
fn live(world: &World) -> Told {
    let mut told = Told::default();
    let ask = [
        "request",
        "--scope",
        "demo-project.finance:read",
        "--ttl",
        "10m",
        "--reason",
        "month end",
    ];
    let Some(asked) = said(world, Who::Agent, &ask) else {
        return told;
    };
    let request = asked["request"].as_str().expect("an id").to_owned();
    told.asked = Some(request.clone());
    let seen = world.digest_of(&request);
    let approve = ["approve", &request, "--seen", &seen];
    let Some(opened) = said(world, Who::Approver, &approve) else {
        return told;
    };
    let grant = opened["grant"]["grant"].as_str().expect("an id").to_owned();
    told.opened = Some(grant.clone());
    for _ in 0..2 {
        told.queries += usize::from(query(world));
    }
    told.is_closed = said(world, Who::Agent, &["close", &grant]).is_some();
    told
}

/// How many jobs of queries, not of dry runs, the far side was asked to run.
fn started(world: &World) -> usize {
    let started = |request: &Value| {
        let path = request["path"].as_str().unwrap_or_default();
        request["method"] == "POST"
            && (path.contains("/queries") || path.contains("/jobs"))
            && !path.contains("/cancel")
            && !is_dry_run(request)
    };
    world
        .far_requests()
        .iter()
        .filter(|request| started(request))
        .count()
}

/// Of either way to ask for a query.
fn is_dry_run(request: &Value) -> bool {
    let body = request["body"].as_str().unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    body["dryRun"] == true || body["configuration"]["dryRun"] == true
}

/// What the log says, by kind, of each grant or request.
struct Log(Vec<Value>);

impl Log {
    fn of(world: &World) -> Self {
        Self(
            world
                .records()
                .into_iter()
                .map(|record| record["event"].clone())
                .collect(),
        )
    }

    fn named(&self, kind: &str, key: &str) -> BTreeSet<String> {
        let events = self.0.iter().filter(|event| event["kind"] == kind);
        events
            .filter_map(|event| event[key].as_str().map(str::to_owned))
            .collect()
    }

    fn count(&self, kind: &str, grant: &str) -> usize {
        let events = self.0.iter().filter(|event| event["kind"] == kind);
        events.filter(|event| event["grant"] == grant).count()
    }
}

/// What must hold whenever the daemon has come back.
fn check(world: &World, told: &Told, at: &str) {
    let dir = world.state_dir().join("audit").display().to_string();
    let whole = world.cli(Who::Operator, &["log", "verify", "--dir", &dir]);
    assert!(
        whole.status.success(),
        "{at}: {}",
        String::from_utf8_lossy(&whole.stdout)
    );
    let log = Log::of(world);
    let approved = log.named("approved", "grant");
    if let Some(asked) = &told.asked {
        assert!(
            log.named("requested", "request").contains(asked),
            "{at}: {told:?}"
        );
    }
    if let Some(opened) = &told.opened {
        assert!(approved.contains(opened), "{at}: {told:?}");
        assert!(
            log.count("query_admitted", opened) >= told.queries,
            "{at}: {told:?}"
        );
    }
    let closed = log.named("closed", "grant");
    if told.is_closed {
        assert!(
            told.opened
                .as_ref()
                .is_some_and(|grant| closed.contains(grant)),
            "{at}: {told:?}"
        );
    }
    let admitted = log
        .0
        .iter()
        .filter(|event| event["kind"] == "query_admitted")
        .count();
    assert!(
        started(world) <= admitted,
        "{at}: {} were sent, {admitted} are on record",
        started(world)
    );
    let status = world.status();
    let mut used = BTreeMap::new();
    for grant in status["grants"].as_array().expect("a list") {
        let name = grant["grant"].as_str().expect("an id");
        let on_record = log.count("query_admitted", name);
        used.insert(name.to_owned(), on_record);
        assert_eq!(
            grant["queries"].as_u64(),
            Some(on_record as u64),
            "{at}: {grant}"
        );
        if grant["open"] == true {
            assert!(
                approved.contains(name) && !closed.contains(name),
                "{at}: {grant}"
            );
        }
    }
    assert!(
        told.opened
            .as_ref()
            .is_none_or(|grant| used.contains_key(grant)),
        "{at}: {told:?} {used:?}"
    );
}

/// Kills at the first, second, … entry of a call, until the whole life is through without having been killed.
fn killed_at_every(syscall: &str, most: u32) {
    let mut world = World::start(Family::V4);
    let (mut is_through, mut killed) = (false, 0);
    for nth in 1..=most {
        let tracer = Tracer::kill_at(world.daemon_pid(), syscall, nth);
        let told = live(&world);
        drop(tracer);
        let is_alive = world.is_daemon_running();
        killed += u32::from(!is_alive);
        is_through = is_alive && told.is_closed && told.queries == 2;
        if is_through {
            break;
        }
        world.kill_daemon();
        let at = format!("killed at {syscall} number {nth}");
        world.start_daemon();
        check(&world, &told, &at);
        // The next life begins with nothing open and nothing waiting.
        let status = world.status();
        for grant in status["grants"].as_array().expect("a list") {
            if grant["open"] == true {
                let name = grant["grant"].as_str().expect("an id");
                assert!(said(&world, Who::Agent, &["close", name]).is_some(), "{at}");
            }
        }
        for request in status["requests"].as_array().expect("a list") {
            if request["state"] == "pending" {
                let name = request["request"].as_str().expect("an id");
                let deny = ["deny", name, "--reason", "begin anew"];
                assert!(said(&world, Who::Approver, &deny).is_some(), "{at}");
            }
        }
    }
    assert!(killed >= 5, "it was killed {killed} times");
    assert!(
        is_through || syscall == "bpf",
        "{most} are more than a life has of {syscall}"
    );
}

#[test]
fn a_daemon_killed_before_any_record_is_durable_loses_nothing_that_was_told() {
    killed_at_every("fdatasync", 24);
}

#[test]
fn a_daemon_killed_before_any_record_is_written_loses_nothing_that_was_told() {
    killed_at_every("write", 40);
}

#[test]
fn a_daemon_killed_before_the_kernel_is_told_leaves_nothing_open_that_is_not_on_record() {
    killed_at_every("bpf", 8);
}

/// Whether a process that ends by this signal in the stage's folder leaves a core, where one that holds no secret does.
fn others_leave_a_core(world: &World) -> bool {
    let mut other = std::process::Command::new("/bin/sh")
        .args(["-c", "kill -ABRT $$"])
        .current_dir(world.stage.dir())
        .spawn()
        .expect("starts");
    other.wait().expect("waits").core_dumped()
}

fn cores(world: &World) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(world.stage.dir()).expect("lists");
    let files = entries.map(|entry| entry.expect("is there").path());
    let is_core = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("core")
    };
    files.filter(is_core).collect()
}

#[test]
fn a_daemon_that_crashes_with_tokens_in_its_memory_leaves_no_core_whatever_limit_it_is_started_with()
 {
    // What this test may leave, what it starts may: the daemon too.
    let none = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    rustix::process::setrlimit(rustix::process::Resource::Core, none).expect("lifts it");
    let mut world = World::start(Family::V4);
    assert!(
        others_leave_a_core(&world),
        "this host makes no cores (kernel.core_pattern), so nothing would be shown"
    );
    cores(&world)
        .into_iter()
        .for_each(|core| std::fs::remove_file(core).expect("removed"));
    let _ = world.open_window("demo-project.finance:read", "10m");
    assert!(query(&world));
    assert_eq!(world.tokens().len(), 1);
    world.signal_daemon(rustix::process::Signal::ABORT);
    let ended = world.ended_daemon();
    assert_eq!(ended.signal(), Some(6), "{ended}");
    assert!(!ended.core_dumped(), "{ended}");
    assert_eq!(cores(&world), Vec::<std::path::PathBuf>::new());
}
