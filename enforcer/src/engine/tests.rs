//! The laws of effects, on a real log and a kernel that can be made to fail.

use std::path::Path;
use std::sync::Mutex;

use enforcer_proto::policy::{ApproverSet, Rule};
use enforcer_proto::principal::{Caller, Process};
use enforcer_proto::query::{DryRun, Method, QueryFacts, Touch};
use enforcer_proto::refusal::Code;
use enforcer_proto::time::NS_PER_S;
use enforcer_proto::wire::{Ask, Enforce, Reply, Status};

use super::*;
use crate::clock::ManualClock;

#[derive(Debug, Default)]
struct Held {
    windows: BTreeMap<AgentName, GrantId>,
    /// How many records were on disk when a window was opened.
    records_at_open: Vec<usize>,
    refuses: bool,
    /// Lets no window go.
    clings: bool,
}

struct FakeKernel {
    held: Arc<Mutex<Held>>,
    audit_dir: std::path::PathBuf,
}

fn lines_on_disk(dir: &Path) -> usize {
    std::fs::read_to_string(dir.join("log-000001.jsonl")).map_or(0, |text| text.lines().count())
}

impl Windows for FakeKernel {
    fn open(
        &mut self,
        agent: &AgentName,
        grant: GrantId,
        _: u64,
        _: u64,
    ) -> Result<(), KernelFault> {
        let mut held = self.held.lock().expect("no panic");
        if held.refuses {
            return Err(KernelFault("map full".into()));
        }
        held.records_at_open.push(lines_on_disk(&self.audit_dir));
        held.windows.insert(agent.clone(), grant);
        Ok(())
    }

    fn close(&mut self, agent: &AgentName) -> Result<(), KernelFault> {
        let mut held = self.held.lock().expect("no panic");
        if held.clings {
            return Err(KernelFault("busy".into()));
        }
        held.windows.remove(agent);
        Ok(())
    }

    fn held(&self) -> Result<BTreeMap<AgentName, GrantId>, KernelFault> {
        Ok(self.held.lock().expect("no panic").windows.clone())
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

    fn guards(&self) -> Vec<String> {
        Vec::new()
    }

    fn endpoints(&self) -> u64 {
        0
    }

    fn enforced(&self) -> Enforce {
        Enforce::Host
    }
}

struct Host {
    dir: tempfile::TempDir,
    held: Arc<Mutex<Held>>,
    clock: Arc<ManualClock>,
    running: Option<Running>,
}

impl Host {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(Now {
            boot_ns: 100 * NS_PER_S,
            unix_ns: 1_000 * NS_PER_S,
        }));
        let mut host = Self {
            dir: tempfile::tempdir().expect("a folder"),
            held: Arc::default(),
            clock,
            running: None,
        };
        host.start("boot-1").expect("starts");
        host
    }

    fn start(&mut self, boot_id: &str) -> Result<(), StartError> {
        let rule = Rule {
            agents: ["bot".parse().expect("a name")].into(),
            datasets: vec!["p.finance".parse().expect("a dataset")],
            ttl_max: "1h".parse().expect("a ttl"),
            bytes_max: 1000,
            queries_max: 10,
            approvers: ApproverSet {
                uids: [5001].into(),
                gids: [].into(),
            },
            auto_approve: false,
        };
        let audit_dir = self.dir.path().join("audit");
        let kernel = Box::new(FakeKernel {
            held: Arc::clone(&self.held),
            audit_dir: audit_dir.clone(),
        });
        let policy = Policy {
            rules: vec![rule],
            digest: "d".into(),
        };
        let (host, clock) = (
            "host-a".to_owned(),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
        );
        self.running = Some(start(Parts {
            host,
            audit_dir,
            boot_id: boot_id.into(),
            policy,
            kernel,
            clock,
        })?);
        Ok(())
    }

    /// Lets the engine end without any farewell that a killed daemon would not have had, but for its last record.
    fn stop(&mut self) {
        let Running { engine, thread, .. } = self.running.take().expect("running");
        drop(engine);
        thread.join().expect("ends well");
    }

    fn engine(&self) -> &Engine {
        &self.running.as_ref().expect("running").engine
    }

    async fn ask(&self, uid: u32, agent: Option<&str>, ask: Ask) -> Reply {
        let process = Process {
            pid: 7,
            start_boot_ns: 1,
            uid,
            comm: "x".into(),
        };
        let caller = Caller {
            process,
            gids: [uid].into(),
            agent: agent.map(|name| name.parse().expect("a name")),
        };
        self.engine().control(caller, ask).await
    }

    async fn request(&self) -> Reply {
        let ask = enforcer_proto::policy::Ask {
            scope: "p.finance:read".parse().expect("a scope"),
            ttl: "10s".parse().expect("a ttl"),
            reason: "month end".into(),
            bytes_max: None,
            queries_max: None,
        };
        self.ask(2001, Some("bot"), Ask::Request(ask)).await
    }

    async fn approve(&self) -> Reply {
        self.approve_the("r-1").await
    }

    async fn approve_the(&self, request: &str) -> Reply {
        let request = request.parse().expect("an id");
        self.ask(
            5001,
            None,
            Ask::Approve {
                request,
                seen: None,
                ttl: None,
                datasets: None,
            },
        )
        .await
    }

    async fn status(&self) -> Status {
        match self.ask(0, None, Ask::Status).await {
            Reply::Status(status) => *status,
            Reply::Refused(_)
            | Reply::Requested { .. }
            | Reply::Opened(_)
            | Reply::Done
            | Reply::Records(_)
            | Reply::Joined(_) => panic!("no status"),
        }
    }

    fn events(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        crate::audit::verify(&self.dir.path().join("audit"), |record, _| {
            let json = serde_json::to_value(&record.event).expect("plain data");
            kinds.push(json["kind"].as_str().expect("a kind").to_owned());
        })
        .expect("the chain is whole");
        kinds
    }
}

#[tokio::test]
async fn an_approval_is_on_disk_before_the_kernel_opens_and_the_close_after_it_closed() {
    let mut host = Host::new();
    assert!(matches!(host.request().await, Reply::Requested { .. }));
    assert!(matches!(host.approve().await, Reply::Opened(view) if view.open));
    assert_eq!(
        host.held.lock().expect("no panic").records_at_open,
        [3],
        "started, requested, approved"
    );
    let mut windows = host.engine().windows();
    host.clock.advance_ns(10 * NS_PER_S);
    windows
        .wait_for(|windows| windows.is_empty())
        .await
        .expect("closes");
    host.stop();
    assert!(host.held.lock().expect("no panic").windows.is_empty());
    assert_eq!(
        host.events(),
        [
            "daemon_started",
            "requested",
            "approved",
            "opened",
            "closed",
            "daemon_stopped"
        ]
    );
}

#[tokio::test]
async fn a_window_the_kernel_refuses_is_closed_and_said() {
    let mut host = Host::new();
    host.request().await;
    host.held.lock().expect("no panic").refuses = true;
    assert!(
        matches!(host.approve().await, Reply::Refused(refusal) if refusal.code == Code::KernelFailed)
    );
    assert!(host.status().await.grants.iter().all(|grant| !grant.open));
    host.stop();
    assert_eq!(
        host.events(),
        [
            "daemon_started",
            "requested",
            "approved",
            "closed",
            "daemon_stopped"
        ]
    );
}

#[tokio::test]
async fn a_restart_keeps_a_window_that_log_and_kernel_agree_on() {
    let mut host = Host::new();
    host.request().await;
    host.approve().await;
    host.stop();
    host.start("boot-1").expect("starts");
    assert_eq!(host.engine().windows().borrow().len(), 1);
    assert!(host.status().await.grants.iter().any(|grant| grant.open));
}

#[tokio::test]
async fn a_window_is_gone_after_a_reboot_or_when_the_kernel_lost_it() {
    let mut host = Host::new();
    host.request().await;
    host.approve().await;
    host.stop();
    host.start("boot-2").expect("starts");
    assert!(host.engine().windows().borrow().is_empty());
    assert!(
        host.held.lock().expect("no panic").windows.is_empty(),
        "the stray entry is removed"
    );
    host.stop();

    let mut host = Host::new();
    host.request().await;
    host.approve().await;
    host.stop();
    host.held.lock().expect("no panic").windows.clear();
    host.start("boot-1").expect("starts");
    assert!(host.engine().windows().borrow().is_empty());
}

#[tokio::test]
async fn nothing_opens_while_the_log_cannot_be_written_and_the_next_start_refuses_a_broken_log() {
    let mut host = Host::new();
    host.request().await;
    host.stop();
    let path = host.dir.path().join("audit/log-000001.jsonl");
    let text = std::fs::read_to_string(&path)
        .expect("text")
        .replacen("month end", "month-end", 1);
    std::fs::write(&path, text).expect("writes");
    assert!(matches!(host.start("boot-1"), Err(StartError::Audit(_))));
}

/// What the proxy records of a request without a window.
fn refused_query(session: enforcer_proto::id::SessionId) -> Event {
    Event::QueryRefused {
        grant: None,
        agent: "bot".parse().expect("a name"),
        session,
        process: Process {
            pid: 7,
            start_boot_ns: 1,
            uid: 2001,
            comm: "x".into(),
        },
        request: "GET /".into(),
        sql: None,
        sql_cut: None,
        refusal: enforcer_proto::refusal::Refusal::new(Code::WindowNone, "none"),
    }
}

/// The same, recorded, in a session that begins now.
async fn refused_in_a_new_session(host: &Host) -> u64 {
    let session = host.engine().begin_session();
    let event = refused_query(session);
    host.engine().record(event).await.expect("is recorded");
    session.0
}

#[tokio::test]
async fn sessions_are_numbered_on_from_the_log_after_a_restart_and_a_reboot() {
    let mut host = Host::new();
    assert_eq!(refused_in_a_new_session(&host).await, 1);
    assert_eq!(refused_in_a_new_session(&host).await, 2);
    for (boot, expected) in [("boot-1", 3), ("boot-2", 4)] {
        host.stop();
        host.start(boot).expect("starts");
        assert_eq!(refused_in_a_new_session(&host).await, expected);
    }
}

#[tokio::test]
async fn an_agent_sees_only_its_own_and_a_stranger_sees_nothing() {
    let host = Host::new();
    host.request().await;
    let Reply::Status(own) = host.ask(2001, Some("bot"), Ask::Status).await else {
        panic!("refused")
    };
    let Reply::Status(other) = host.ask(2002, Some("ops"), Ask::Status).await else {
        panic!("refused")
    };
    assert_eq!((own.requests.len(), other.requests.len()), (1, 0));
    assert!(
        matches!(host.ask(3000, None, Ask::Status).await, Reply::Refused(refusal) if refusal.code == Code::CallerForbidden)
    );
}

#[tokio::test]
async fn a_reason_that_would_not_fit_the_log_is_refused_and_recorded_shortened_and_nothing_stops() {
    let host = Host::new();
    let ask = enforcer_proto::policy::Ask {
        scope: "p.finance:read".parse().expect("a scope"),
        ttl: "10s".parse().expect("a ttl"),
        // Each of these takes six bytes in JSON.
        reason: "\u{1}".repeat(1_000_000),
        bytes_max: None,
        queries_max: None,
    };
    let Reply::Refused(refusal) = host.ask(3000, Some("bot"), Ask::Request(ask)).await else {
        panic!("opened")
    };
    assert_eq!(refusal.code, Code::InputInvalid);
    assert!(matches!(host.request().await, Reply::Requested { .. }));
    assert!(matches!(host.approve().await, Reply::Opened(_)));
    let text = std::fs::read_to_string(host.dir.path().join("audit/log-000001.jsonl"));
    assert!(text.expect("text").len() < 100_000);
}

fn requester() -> Requester {
    Requester {
        agent: "bot".parse().expect("a name"),
        session: enforcer_proto::id::SessionId(1),
        process: Process {
            pid: 7,
            start_boot_ns: 1,
            uid: 2001,
            comm: "x".into(),
        },
    }
}

/// A query that reads so many bytes.
fn select(bytes: u64) -> QueryFacts {
    QueryFacts {
        method: Method::JobsInsert,
        project: Some("p".into()),
        touch: Touch::Query(DryRun {
            statement: "SELECT".into(),
            tables: vec!["p.finance.daily".parse().expect("a table")],
            routines: Vec::new(),
            bytes,
        }),
        sql: None,
        is_dry_run: false,
    }
}

impl Host {
    async fn admit(&self, facts: QueryFacts, plan: Plan) -> Result<Permit, Code> {
        let admitted = self.engine().admit(requester(), GrantId(1), facts, plan);
        admitted.await.map_err(|refusal| refusal.code)
    }
}

#[tokio::test]
async fn queries_that_ask_at_once_never_get_more_than_the_budget_together() {
    let host = Host::new();
    host.request().await;
    host.approve().await;
    let plan = Plan {
        bytes_max: Some(300),
        ..Plan::default()
    };
    let asked = (0..8).map(|_| host.admit(select(200), plan.clone()));
    let permits: Vec<_> = futures_util::future::join_all(asked).await;
    let (given, refused): (Vec<_>, Vec<_>) = permits.into_iter().partition(Result::is_ok);
    let ceilings: Vec<u64> = given
        .iter()
        .map(|permit| permit.as_ref().expect("given").ceiling().expect("held"))
        .collect();
    assert_eq!(
        ceilings,
        [300, 300, 300],
        "of 1000 bytes; 100 are too few for one more"
    );
    for permit in refused {
        assert_eq!(permit.map(|_| ()), Err(Code::WindowBudget));
    }
}

/// The events of one kind that are on disk.
fn on_disk(host: &Host, kind: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(host.dir.path().join("audit/log-000001.jsonl"));
    let text = text.expect("text");
    let events = text.lines().map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        record["event"].clone()
    });
    events.filter(|event| event["kind"] == kind).collect()
}

#[tokio::test]
async fn a_flood_of_refusals_is_counted_on_record_and_not_recorded_one_by_one() {
    let mut host = Host::new();
    for _ in 0..500 {
        let _ = refused_in_a_new_session(&host).await;
        let _ = host
            .ask(3000, None, Ask::Revoke { grant: GrantId(9) })
            .await;
    }
    let burst = crate::tally::REFUSALS_BURST_MAX as usize;
    host.stop();
    assert_eq!(on_disk(&host, "query_refused").len(), burst);
    assert_eq!(on_disk(&host, "decision_refused").len(), burst);
    let further: Vec<_> = on_disk(&host, "further_refused")
        .iter()
        .map(|event| {
            assert_eq!(event["count"], 500 - burst);
            (event["agent"].clone(), event["uid"].clone())
        })
        .collect();
    assert_eq!(
        further,
        [
            ("bot".into(), serde_json::Value::Null),
            (serde_json::Value::Null, 3000.into())
        ]
    );
}

#[tokio::test]
async fn the_size_of_the_log_and_the_room_it_has_are_shown() {
    let host = Host::new();
    let log = host.status().await.log;
    let bytes = std::fs::metadata(host.dir.path().join("audit/log-000001.jsonl"));
    assert_eq!((log.records, log.bytes), (1, bytes.expect("a file").len()));
    assert!(log.free_bytes.is_some());
}

#[tokio::test]
async fn a_window_that_the_kernel_did_not_let_go_does_not_take_the_next_one_with_it() {
    let host = Host::new();
    host.request().await;
    host.approve().await;
    host.held.lock().expect("no panic").clings = true;
    let grant = GrantId(1);
    host.ask(2001, Some("bot"), Ask::Close { grant }).await;
    assert_eq!(host.status().await.unhealthy.len(), 1);
    host.request().await;
    assert!(matches!(host.approve_the("r-2").await, Reply::Opened(view) if view.open));
    host.held.lock().expect("no panic").clings = false;
    assert!(host.status().await.unhealthy.is_empty());
    tokio::time::sleep(HEARTBEAT * 2).await;
    let held = host.held.lock().expect("no panic").windows.clone();
    assert_eq!(held.values().collect::<Vec<_>>(), [&GrantId(2)]);
}

#[tokio::test]
async fn a_permit_that_nobody_waits_for_any_more_holds_nothing() {
    let mut host = Host::new();
    host.request().await;
    host.approve().await;
    let whole = Plan {
        bytes_max: Some(1000),
        ..Plan::default()
    };
    {
        // Asks, and goes away before the answer.
        let asking = host.admit(select(200), whole.clone());
        tokio::pin!(asking);
        assert!(futures_util::poll!(&mut asking).is_pending());
    }
    // Takes its answer, and goes away with it.
    loop {
        match host.admit(select(200), whole.clone()).await {
            Ok(permit) => break drop(permit),
            Err(code) => assert_eq!(code, Code::WindowBudget),
        }
    }
    loop {
        match host.admit(select(200), whole.clone()).await {
            Ok(permit) => {
                host.engine().finished(permit, Outcome::default()).await;
                break;
            }
            Err(code) => assert_eq!(code, Code::WindowBudget),
        }
    }
    host.stop();
    let kinds = host.events();
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert_eq!((count("query_admitted"), count("query_finished")), (3, 3));
}

fn job(name: &str) -> enforcer_proto::query::JobRef {
    enforcer_proto::query::JobRef {
        project: "p".into(),
        job: name.into(),
        location: Some("US".into()),
    }
}

fn seen(permit: &Permit, name: &str) -> Event {
    Event::JobSeen {
        query: permit.query(),
        grant: GrantId(1),
        job: job(name),
        destination: None,
        is_done: false,
        billed: None,
        processed: None,
        read_outside: None,
    }
}

impl Host {
    /// A job that runs, one whose start has no answer, and one that is refused.
    async fn start_jobs(&self) {
        for name in ["runs", "lost", "refused"] {
            let plan = Plan {
                job: Some(job(name)),
                bytes_max: Some(300),
            };
            let permit = self.admit(select(0), plan).await.expect("room");
            if name == "runs" {
                self.engine().note(seen(&permit, name)).await;
            }
            let is_void = name == "refused";
            let outcome = Outcome {
                is_void,
                ..Outcome::default()
            };
            self.engine().finished(permit, outcome).await;
        }
        // The engine answers in order: all of it is taken in.
        let _ = self.status().await;
    }

    /// What the start of the daemon hands over: running and unanswered jobs.
    fn handed_over(&mut self) -> Vec<(Vec<String>, Vec<String>)> {
        let closings = &mut self.running.as_mut().expect("running").closings;
        let names = |jobs: &[enforcer_proto::query::JobRef]| -> Vec<String> {
            jobs.iter().map(|job| job.job.clone()).collect()
        };
        std::iter::from_fn(|| closings.try_recv().ok())
            .map(|closed| (names(&closed.jobs), names(&closed.unanswered)))
            .collect()
    }
}

fn left() -> (Vec<String>, Vec<String>) {
    (vec!["runs".to_owned()], vec!["lost".to_owned()])
}

#[tokio::test]
async fn a_window_that_ended_while_the_daemon_was_dead_is_handed_over_with_its_jobs() {
    for (boot, seconds) in [("boot-1", 30), ("boot-2", 0)] {
        let mut host = Host::new();
        host.request().await;
        host.approve().await;
        host.start_jobs().await;
        host.stop();
        host.clock.advance_ns(seconds * NS_PER_S);
        host.start(boot).expect("starts");
        assert_eq!(host.handed_over(), [left()], "{boot}");
    }
}

#[tokio::test]
async fn jobs_that_a_dying_daemon_did_not_get_to_are_handed_over_at_the_next_start_and_once() {
    let mut host = Host::new();
    host.request().await;
    host.approve().await;
    host.start_jobs().await;
    let grant = GrantId(1);
    host.ask(2001, Some("bot"), Ask::Close { grant }).await;
    host.stop();
    host.start("boot-1").expect("starts");
    assert_eq!(host.handed_over(), [left()]);
    for name in ["runs", "lost"] {
        let cancelled = Event::JobCancelled {
            grant,
            job: job(name),
            outcome: "cancelled".into(),
        };
        host.engine().note(cancelled).await;
    }
    host.stop();
    host.start("boot-1").expect("starts");
    assert!(host.handed_over().is_empty());
}

#[tokio::test]
async fn a_job_that_is_heard_of_after_the_close_is_handed_over_then() {
    let mut host = Host::new();
    host.request().await;
    host.approve().await;
    let permit = host.admit(select(0), Plan::default()).await.expect("room");
    let grant = GrantId(1);
    host.ask(2001, Some("bot"), Ask::Close { grant }).await;
    assert_eq!(host.handed_over(), [(vec![], vec![])]);
    for _ in 0..2 {
        host.engine().note(seen(&permit, "late")).await;
    }
    let _ = host.status().await;
    assert_eq!(host.handed_over(), [(vec!["late".to_owned()], vec![])]);
    host.engine().finished(permit, Outcome::default()).await;
}
