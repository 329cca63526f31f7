//! What it costs to have everything on record: records a second through the engine, whose syncs serve all that wait at once, beside a loop that
//! writes and syncs each by itself, on the same disk in the same run; and how long a start takes with a long log.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use enforcer::audit::rebuild::rebuild;
use enforcer::audit::{Log, SEGMENT_BYTES};
use enforcer::clock::{Clock, SystemClock};
use enforcer::engine::{self, Engine, KernelFault, Parts, Running, Windows};
use enforcer_proto::audit::Chain;
use enforcer_proto::event::Event;
use enforcer_proto::id::{GrantId, QueryId, SessionId};
use enforcer_proto::policy::Policy;
use enforcer_proto::principal::{AgentName, Approver, Process};
use enforcer_proto::query::{JobRef, Method};
use enforcer_proto::time::Now;
use enforcer_proto::wire::{CheckView, Enforce, KernelCounters};
use serde_json::json;

use crate::proxy::figures::{Samples, round};

/// How long each of the two is measured in one turn.
const TURN: Duration = Duration::from_secs(3);
/// How often they take turns.
const TURNS: usize = 3;
/// How many wait for a record at once, as many requests under way.
const WAITING: usize = 1024;
/// Records written at once when a long log is made.
const BATCH: u64 = 4096;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// How long the log is with which a start is measured, records; none where that is not.
    pub(crate) records: u64,
    /// One JSON object on the last line as well.
    pub(crate) json: bool,
}

/// Measures, and prints it.
pub(crate) fn bench(wanted: Wanted) {
    let dir = tempfile::tempdir().expect("makes a folder");
    let line = sealed().len();
    println!(
        "records of {line} bytes each, on the file system of {}",
        dir.path().display()
    );
    let (mut plain, mut group) = ((0, Samples::default()), (0, Samples::default()));
    for turn in 0..TURNS {
        plain.0 += write_and_sync(&dir.path().join(format!("plain-{turn}")), &mut plain.1);
        group.0 += through_the_engine(&dir.path().join(format!("group-{turn}")), &mut group.1);
    }
    let taken = (TURN * TURNS as u32).as_secs_f64();
    let rates = [plain.0, group.0].map(|count| count as f64 / taken);
    println!(
        "{:<44}{:>12}{:>12}{:>12}",
        "durable records", "a second", "p50, µs", "p99, µs"
    );
    for (name, rate, samples) in [
        ("write and fdatasync, one by one", rates[0], &plain.1),
        ("the engine, 1024 waiting", rates[1], &group.1),
    ] {
        println!(
            "{name:<44}{rate:>12.0}{:>12.1}{:>12.1}",
            samples.p50(),
            samples.p99()
        );
    }
    println!("{:.1} times as many", rates[1] / rates[0]);
    let start = (wanted.records > 0).then(|| start(dir.path(), wanted.records));
    if wanted.json {
        let figure = |rate: f64, samples: &Samples| json!({"records_per_s": round(rate), "us": samples.figure()});
        println!(
            "{}",
            json!({
                "record_bytes": line,
                "plain": figure(rates[0], &plain.1),
                "engine": figure(rates[1], &group.1),
                "ratio": round(rates[1] / rates[0]),
                "start": start,
            })
        );
    }
}

fn agent() -> AgentName {
    "finance-bot".parse().expect("a name")
}

fn process() -> Process {
    Process {
        pid: 4711,
        start_boot_ns: 123_456_789_012,
        uid: 2001,
        comm: "bq".to_owned(),
    }
}

/// What is recorded before a query is asked about: somebody waits for it.
fn asked() -> Event {
    Event::QueryAsked {
        grant: GrantId(17),
        agent: agent(),
        session: SessionId(9),
        process: process(),
        method: Method::JobsInsert,
        sql: "SELECT region, SUM(amount) AS total FROM `demo-project.finance.daily` WHERE day >= '2026-01-01' GROUP BY region ORDER BY total DESC".to_owned(),
    }
}

fn sealed() -> String {
    let mut chain = Chain::after(1_000_000, enforcer_proto::audit::GENESIS);
    chain
        .seal(SystemClock.now(), BOOT, &asked())
        .expect("short")
        + "\n"
}

const BOOT: &str = "5f3c1f52-7e0b-4d0b-9a53-0e9a2a4d1c11";

/// The plain loop: its line is made before, so that nothing but the disk is measured.
fn write_and_sync(path: &Path, samples: &mut Samples) -> u64 {
    let mut file = File::create(path).expect("makes a file");
    let line = sealed();
    let (began, mut count) = (clock(), 0);
    while u128::from(clock() - began) < TURN.as_nanos() {
        let before = clock();
        file.write_all(line.as_bytes()).expect("writes");
        file.sync_data().expect("syncs");
        samples.push(clock() - before);
        count += 1;
    }
    count
}

fn through_the_engine(dir: &Path, samples: &mut Samples) -> u64 {
    let Running { engine, thread, .. } = running(dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let is_over = Arc::new(AtomicBool::new(false));
    let all = runtime.block_on(async {
        let tasks: Vec<_> = (0..WAITING)
            .map(|_| tokio::spawn(record(engine.clone(), Arc::clone(&is_over))))
            .collect();
        tokio::time::sleep(TURN).await;
        is_over.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("does not panic"));
        }
        all
    });
    let count = all.len() as u64;
    all.into_iter().for_each(|ns| samples.push(ns));
    drop(engine);
    thread.join().expect("ends well");
    let found = enforcer::audit::verify(dir, |_, _| ()).expect("the chain is whole");
    assert!(found.count() > count, "every one is in the log");
    count
}

async fn record(engine: Engine, is_over: Arc<AtomicBool>) -> Vec<u64> {
    let mut taken = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let before = clock();
        engine.record(asked()).await.expect("is recorded");
        taken.push(clock() - before);
    }
    taken
}

/// Nanoseconds since the start of this host.
fn clock() -> u64 {
    SystemClock.now().boot_ns
}

fn seconds(since: u64) -> f64 {
    (clock() - since) as f64 / 1e9
}

/// How long a start takes with a log of so many records: with the whole of it, and with a snapshot as every stop leaves one.
fn start(dir: &Path, records: u64) -> serde_json::Value {
    let dir = dir.join("long");
    let began = clock();
    let bytes = make_long(&dir, records);
    println!(
        "\na log of {records} records, {} MB, made in {:.0} s",
        bytes / 1_000_000,
        seconds(began)
    );
    let whole = timed_start(&dir, None);
    println!("a start that reads the whole log:        {whole:>8.2} s");
    let kept = timed_start(&dir, Some(records));
    println!("a start that goes on from a snapshot:    {kept:>8.2} s");
    let killed = after_a_kill(&dir);
    println!("the same after a kill, a segment to read:{killed:>8.2} s");
    json!({"records": records, "bytes": bytes, "whole_s": round(whole), "snapshot_s": round(kept), "killed_s": round(killed)})
}

/// Starts an engine, stops it, and gives how long the start took.
fn timed_start(dir: &Path, resumed_from: Option<u64>) -> f64 {
    let began = clock();
    let Running {
        engine,
        thread,
        resumed,
        ..
    } = running(dir);
    let took = seconds(began);
    let from = resumed.map(|end| end.records);
    assert!(
        from.is_some() == resumed_from.is_some() && from >= resumed_from,
        "it went on from {from:?}"
    );
    drop(engine);
    thread.join().expect("ends well");
    took
}

/// The most that a killed daemon leaves to be read: a segment that is nearly full.
fn after_a_kill(dir: &Path) -> f64 {
    let mut log = rebuild(dir, BOOT).expect("opens").opened.log;
    let mut at = 0;
    while log.room().bytes % SEGMENT_BYTES < SEGMENT_BYTES - 4_000_000 && at < 400_000 {
        log.append(&batch(at)).expect("appends");
        at += BATCH;
    }
    drop(log);
    let began = clock();
    let rebuilt = rebuild(dir, BOOT).expect("opens");
    assert!(rebuilt.resumed.is_some());
    seconds(began)
}

fn make_long(dir: &Path, records: u64) -> u64 {
    let mut log = Log::open(dir, BOOT, |_| ()).expect("opens").log;
    let mut made = 0;
    while made < records {
        let some = batch(made);
        let some = &some[..some.len().min((records - made) as usize)];
        log.append(some).expect("appends");
        made += some.len() as u64;
    }
    log.room().bytes
}

/// What a busy host's log is made of: windows of eight queries, each of which is asked for, admitted, seen to have run, and answered.
fn batch(from: u64) -> Vec<(Now, Event)> {
    (from..from + BATCH).map(|at| (now(at), life(at))).collect()
}

const fn now(at: u64) -> Now {
    Now {
        boot_ns: 1_000_000_000 + at * 1_000_000,
        unix_ns: 1_764_000_000_000_000_000 + at * 1_000_000,
    }
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
fn life(at: u64) -> Event {
    const STEPS: u64 = 35;
    let grant = GrantId(at / STEPS + 1);
    let query = QueryId(at / STEPS * 8 + (at % STEPS).saturating_sub(2) / 4 + 1);
    let job = || JobRef {
        project: "demo-project".to_owned(),
        job: format!("enforcer_{query}"),
        location: Some("US".to_owned()),
    };
    match (at % STEPS, at % STEPS % 4) {
        (0, _) => Event::Approved {
            request: enforcer_proto::id::RequestId(grant.0),
            grant,
            agent: agent(),
            approver: Approver::Policy { rule: 1 },
            digest: "0".repeat(64),
            scope: "demo-project.finance:read".parse().expect("a scope"),
            ttl: "15m".parse().expect("a ttl"),
            bytes_max: u64::MAX,
            queries_max: 200,
            query_bytes_max: None,
            returned_bytes_max: None,
            jobs_at_once_max: None,
            opens_boot_ns: now(at).boot_ns,
            closes_boot_ns: now(at).boot_ns + 900_000_000_000,
            closes_unix_ns: now(at).unix_ns + 900_000_000_000,
            agreed: Vec::new(),
            rule: None,
            break_glass: None,
            signer: None,
        },
        (1, _) => Event::Opened {
            grant,
            agent: agent(),
        },
        (34, _) => Event::Closed {
            grant,
            agent: agent(),
            reason: enforcer_proto::event::CloseReason::GivenBack,
            by: None,
            queries: 8,
            bytes: 8 << 20,
        },
        (_, 2) => asked(),
        (_, 3) => Event::QueryAdmitted {
            query,
            grant,
            agent: agent(),
            session: SessionId(9),
            process: process(),
            container: None,
            method: Method::JobsInsert,
            sql: Some(
                "SELECT region, SUM(amount) FROM `demo-project.finance.daily` GROUP BY region"
                    .to_owned(),
            ),
            tables: vec!["demo-project.finance.daily".parse().expect("a table")],
            writes: Vec::new(),
            imports: Vec::new(),
            exports: Vec::new(),
            resource: None,
            bytes: 1 << 20,
            ceiling: Some(10 << 20),
            returned_ceiling: None,
            in_parts: false,
            asked: None,
            is_dry_run: false,
            dry_run_us: None,
            job: Some(job()),
        },
        (_, 0) => Event::JobSeen {
            query,
            grant,
            job: job(),
            destination: None,
            is_done: true,
            billed: Some(10 << 20),
            processed: Some(1 << 20),
            is_compared: true,
            names_no_table: false,
            read_outside: None,
        },
        _ => Event::QueryFinished {
            query,
            grant,
            status: Some(200),
            job: Some(job()),
            destination: None,
            bytes: 10 << 20,
            body_bytes: 2048,
            duration_us: 350_000,
            trouble: None,
            is_void: false,
        },
    }
}

fn running(dir: &Path) -> Running {
    let parts = Parts {
        host: "host-a".to_owned(),
        audit_dir: PathBuf::from(dir),
        segment_bytes: SEGMENT_BYTES,
        keep: Default::default(),
        watched: Arc::default(),
        boot_id: BOOT.to_owned(),
        policy: Policy {
            rules: Vec::new(),
            signers: Vec::new(),
            own_uids: Default::default(),
            digest: "0".repeat(64),
        },
        kernel: Box::new(NoKernel),
        clock: Arc::new(SystemClock),
    };
    engine::start(parts).expect("starts")
}

/// The log is measured, and not the kernel.
struct NoKernel;

impl Windows for NoKernel {
    fn open(&mut self, _: &AgentName, _: GrantId, _: u64, _: u64) -> Result<(), KernelFault> {
        Ok(())
    }

    fn close(&mut self, _: &AgentName) -> Result<(), KernelFault> {
        Ok(())
    }

    fn held(&self) -> Result<BTreeMap<AgentName, GrantId>, KernelFault> {
        Ok(BTreeMap::new())
    }

    fn heartbeat(&mut self, _: u64) -> Result<(), KernelFault> {
        Ok(())
    }

    fn counters(&self) -> KernelCounters {
        KernelCounters::default()
    }

    fn drift(&self) -> Vec<String> {
        Vec::new()
    }

    fn checks(&self) -> Vec<CheckView> {
        Vec::new()
    }

    fn endpoints(&self) -> u64 {
        0
    }

    fn enforced(&self) -> Enforce {
        Enforce::Host
    }
}
