//! The laws of effects, on a real log and a kernel that can be made to fail.

use std::path::Path;
use std::sync::Mutex;

use enforcer_proto::id::RequestId;
use enforcer_proto::ledger::{JobState, UnsettledJob};
use enforcer_proto::policy::{Alone, ApproverSet, Budget, Limits, Quorum, Rule};
use enforcer_proto::principal::{Caller, Process};
use enforcer_proto::query::{DryRun, Layout, Method, QueryFacts, Touch};
use enforcer_proto::refusal::Code;
use enforcer_proto::time::NS_PER_S;
use enforcer_proto::wire::{Ask, CheckView, Enforce, Reply, Status};

use super::*;
use crate::audit::ReadError;
use crate::clock::ManualClock;

#[derive(Debug, Default)]
struct Held {
    windows: BTreeMap<AgentName, GrantId>,
    /// How many records were on disk when a window was opened.
    records_at_open: Vec<usize>,
    refuses: bool,
    /// Lets no window go.
    clings: bool,
    drift: Vec<String>,
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
        self.held.lock().expect("no panic").drift.clone()
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

struct Host {
    dir: tempfile::TempDir,
    held: Arc<Mutex<Held>>,
    clock: Arc<ManualClock>,
    segment_bytes: u64,
    keep: Keep,
    /// Whom the policy's rule speaks of.
    agents: Vec<String>,
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
            segment_bytes: crate::audit::SEGMENT_BYTES,
            keep: Keep::default(),
            agents: vec!["bot".to_owned()],
            running: None,
        };
        host.start("boot-1").expect("starts");
        host
    }

    fn start(&mut self, boot_id: &str) -> Result<(), StartError> {
        let rule = Rule {
            agents: self
                .agents
                .iter()
                .map(|name| name.parse().expect("a name"))
                .collect(),
            datasets: vec!["p.finance".parse().expect("a dataset")],
            writable: Vec::new(),
            ddl: Vec::new(),
            buckets: std::collections::BTreeMap::new(),
            ttl_max: "1h".parse().expect("a ttl"),
            budget: Budget {
                bytes_max: 1000 * MIB,
                query_bytes_max: 1000 * MIB,
                returned_bytes_max: 1000,
                queries_max: 10,
                jobs_at_once_max: 10,
            },
            approvers: ApproverSet {
                uids: [5001].into(),
                gids: [].into(),
            },
            quorum: Quorum::one(),
            must_sign: false,
            alone: Alone::Never,
            break_glass: None,
            limits: Limits::TIGHT,
        };
        let audit_dir = self.dir.path().join("audit");
        let kernel = Box::new(FakeKernel {
            held: Arc::clone(&self.held),
            audit_dir: audit_dir.clone(),
        });
        let policy = Policy {
            rules: vec![rule],
            signers: Vec::new(),
            own_uids: Default::default(),
            digest: "d".into(),
        };
        let (host, clock) = (
            "host-a".to_owned(),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
        );
        self.running = Some(start(Parts {
            host,
            audit_dir,
            segment_bytes: self.segment_bytes,
            keep: self.keep,
            watched: Arc::default(),
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
        self.request_of(2001, "bot").await
    }

    async fn request_of(&self, uid: u32, agent: &str) -> Reply {
        let ask = enforcer_proto::policy::Ask {
            scope: "p.finance:read".parse().expect("a scope"),
            ttl: "10s".parse().expect("a ttl"),
            reason: "month end".into(),
            bytes_max: None,
            queries_max: None,
        };
        self.ask(uid, Some(agent), Ask::Request(ask)).await
    }

    async fn approve(&self) -> Reply {
        self.approve_the("r-1").await
    }

    async fn approve_the(&self, request: &str) -> Reply {
        let request = request.parse().expect("an id");
        let status = self.status().await;
        let mut requests = status.requests.iter();
        let shown = requests.find(|shown| shown.request == request);
        let seen = shown.map_or_else(String::new, |shown| shown.digest.clone());
        self.ask(
            5001,
            None,
            Ask::Approve {
                bytes_max: None,
                queries_max: None,
                request,
                seen,
                signature: None,
                ttl: None,
                scope: None,
            },
        )
        .await
    }

    async fn status(&self) -> Status {
        self.status_for(0, None).await
    }

    async fn status_for(&self, uid: u32, agent: Option<&str>) -> Status {
        match self.ask(uid, agent, Ask::Status).await {
            Reply::Status(status) => *status,
            Reply::Refused(_)
            | Reply::Requested { .. }
            | Reply::Opened(_)
            | Reply::Counted(_)
            | Reply::GivenBack(_)
            | Reply::Done
            | Reply::Records(_)
            | Reply::Joined(_)
            | Reply::Notified(_)
            | Reply::Checked(_) => panic!("no status"),
        }
    }

    /// The kinds of all events, but for the snapshot that every stop leaves.
    fn events(&self) -> Vec<String> {
        let mut kinds = self.all_events();
        kinds.retain(|kind| kind != "snapshot_taken");
        kinds
    }

    fn all_events(&self) -> Vec<String> {
        let dir = self.dir.path().join("audit");
        loop {
            let mut kinds = Vec::new();
            let read = crate::audit::verify(&dir, |record, _| {
                let json = serde_json::to_value(&record.event).expect("plain data");
                kinds.push(json["kind"].as_str().expect("a kind").to_owned());
            });
            match read {
                Ok(_) => return kinds,
                // A segment went, on record, after it was listed.
                Err(ReadError::Io { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("the chain is whole: {error:?}"),
            }
        }
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

impl Host {
    /// Keeps the log from being written until the folders are removed that it gives: they are where the next segments would be, and every segment is
    /// full.
    fn block_the_log(&self) -> Vec<std::path::PathBuf> {
        let segment = *self.running.as_ref().expect("running").segments.borrow();
        let dir = self.dir.path().join("audit");
        let next = (segment + 1..segment + 20).rev();
        let next = next.map(|number| dir.join(format!("log-{number:06}.jsonl")));
        next.filter(|path| std::fs::create_dir(path).is_ok())
            .collect()
    }
}

#[tokio::test]
async fn what_an_agent_asks_for_while_the_log_cannot_be_written_takes_no_revocation_from_the_record()
 {
    let mut host = Host::new();
    host.stop();
    host.segment_bytes = 1;
    host.start("boot-1").expect("starts");
    host.request().await;
    host.approve().await;
    let blocked = host.block_the_log();
    let Requester {
        agent,
        session,
        process,
        container: _,
    } = requester();
    let asked = Event::QueryAsked {
        grant: GrantId(1),
        agent: agent.clone(),
        session,
        process: process.clone(),
        method: Method::JobsQuery,
        sql: "x".repeat(400_000),
    };
    let joined = Event::ProcessJoined { agent, process };
    let refused = host.engine().record(joined).await;
    assert!(refused.is_err_and(|refusal| refusal.code == Code::AuditUnavailable));
    for _ in 0..50 {
        let refused = host.engine().record(asked.clone()).await;
        assert!(refused.is_err_and(|refusal| refusal.code == Code::AuditUnavailable));
    }
    let revoked = host
        .ask(5001, None, Ask::Revoke { grant: GrantId(1) })
        .await;
    assert!(
        matches!(revoked, Reply::Refused(refusal) if refusal.what.contains("It is done and holds"))
    );
    let mut records = host.engine().records();
    for path in blocked {
        std::fs::remove_dir(path).expect("removes");
    }
    let is_closed = |_: &u64| host.all_events().contains(&"closed".to_owned());
    records
        .wait_for(is_closed)
        .await
        .expect("goes on by itself");
    drop(records);
    let status = host.status().await;
    let dropped = |fault: &String| fault.contains("could not be recorded");
    assert!(
        !status.unhealthy.iter().any(dropped),
        "{:?}",
        status.unhealthy
    );
    host.stop();
    let kinds = host.all_events();
    let is_of_agent = |kind: &String| ["query_asked", "process_joined"].contains(&kind.as_str());
    assert!(
        !kinds.iter().any(is_of_agent),
        "what did not happen: {kinds:?}"
    );
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
        container: None,
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
    assert_eq!(
        (own.log, own.kernel),
        Default::default(),
        "what happens on the host"
    );
    assert!(own.checks.is_empty() && host.status().await.log.records > 0);
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
        container: None,
    }
}

const MIB: u64 = 1024 * 1024;

/// A query that reads so many bytes.
fn select(bytes: u64) -> QueryFacts {
    QueryFacts {
        method: Method::JobsInsert,
        project: Some("p".into()),
        touch: Touch::Query(DryRun {
            statement: "SELECT".into(),
            tables: vec!["p.finance.daily".parse().expect("a table")],
            routines: Vec::new(),
            targets: Vec::new(),
            layout: Layout::Kept,
            to: Vec::new(),
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
        bytes_max: Some(300 * MIB),
        ..Plan::default()
    };
    let asked = (0..8).map(|_| host.admit(select(200 * MIB), plan.clone()));
    let permits: Vec<_> = futures_util::future::join_all(asked).await;
    let (given, refused): (Vec<_>, Vec<_>) = permits.into_iter().partition(Result::is_ok);
    let ceilings: Vec<u64> = given
        .iter()
        .map(|permit| permit.as_ref().expect("given").ceiling().expect("held"))
        .collect();
    assert_eq!(
        ceilings,
        [300 * MIB, 300 * MIB, 300 * MIB],
        "of 1000 MiB; 100 are too few for one more"
    );
    for permit in refused {
        assert_eq!(permit.map(|_| ()), Err(Code::WindowBudget));
    }
}

#[tokio::test]
async fn how_a_query_ended_is_on_record_soon_though_nobody_waits_for_it() {
    let mut host = Host::new();
    host.request().await;
    host.approve().await;
    let permit = host.admit(select(1), Plan::default()).await;
    let mut records = host.engine().records();
    let before = *records.borrow_and_update();
    host.engine()
        .finished(permit.expect("is admitted"), Outcome::default());
    let recorded = records.wait_for(|count| *count > before);
    // Far above what it waits for a sync, and below the heartbeat.
    let recorded = tokio::time::timeout(Duration::from_millis(200), recorded).await;
    assert!(recorded.is_ok_and(|count| count.is_ok()));
    assert_eq!(on_disk(&host, "query_finished").len(), 1);
    host.stop();
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
    // What is not on record yet does not count yet.
    let status = host.status().await;
    assert!(
        (1..=status.now.unix_ns).contains(&status.started_unix_ns),
        "since when it is counted is told"
    );
    let bot = status
        .agents
        .iter()
        .find(|agent| agent.agent.as_str() == "bot");
    assert!(
        bot.is_some_and(|bot| bot.refused >= burst as u64),
        "{bot:?}"
    );
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
async fn an_agent_is_told_that_something_is_wrong_with_the_host_and_not_what() {
    let host = Host::new();
    assert!(
        host.status_for(2001, Some("bot"))
            .await
            .unhealthy
            .is_empty()
    );
    let bad = BadPolicy {
        digest: None,
        why: "/etc/enforcer/policy.toml: rule 2: agent `hr-bot` is not configured".into(),
    };
    host.engine().policy(Err(bad)).await.expect("recorded");
    host.held.lock().expect("no panic").drift = vec!["eth7 has no guard".into()];
    let people = host.status().await.unhealthy.join("; ");
    assert!(
        people.contains("hr-bot") && people.contains("eth7"),
        "{people}"
    );
    let own = host.status_for(2001, Some("bot")).await.unhealthy;
    assert_eq!(
        own,
        ["something on this host needs its operator, who sees what (enforcer status)"]
    );
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
        bytes_max: Some(1000 * MIB),
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
                host.engine().finished(permit, Outcome::default());
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
        is_compared: false,
        names_no_table: false,
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
                ..Plan::default()
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
            self.engine().finished(permit, outcome);
        }
        // The engine answers in order: all of it is taken in.
        let _ = self.status().await;
    }

    /// What the start of the daemon hands over: running and unanswered jobs.
    fn handed_over(&mut self) -> Vec<(Vec<String>, Vec<String>)> {
        let closings = &mut self.running.as_mut().expect("running").closings;
        let names = |jobs: &[UnsettledJob], state: JobState| -> Vec<String> {
            let jobs = jobs.iter().filter(|job| job.state == state);
            jobs.map(|job| job.job.job.clone()).collect()
        };
        let so_far = |closed: &ClosedWindow| {
            let names = |state| names(&closed.jobs, state);
            (names(JobState::Running), names(JobState::Unanswered))
        };
        std::iter::from_fn(|| closings.try_recv().ok())
            .map(|closed| so_far(&closed))
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
            is_settled: Some(true),
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
    host.engine().finished(permit, Outcome::default());
}

const DAY_NS: u64 = 86_400 * NS_PER_S;

impl Host {
    /// Sets the wall clock, and leaves the boot clock alone.
    fn set_wall(&self, unix_ns: u64) {
        let now = self.clock.now();
        self.clock.set(Now { unix_ns, ..now });
    }

    async fn seen(&self) -> Box<Status> {
        let Reply::Status(status) = self.ask(0, None, Ask::Status).await else {
            panic!("the operator sees all")
        };
        status
    }
}

#[tokio::test]
async fn a_wall_clock_that_is_set_a_day_either_way_moves_no_deadline_and_no_record() {
    let mut host = Host::new();
    host.set_wall(10 * DAY_NS);
    host.request().await;
    host.approve().await;
    let shown = host.seen().await.grants[0].clone();
    assert_eq!(shown.closes_unix_ns, 10 * DAY_NS + 10 * NS_PER_S);
    for (unix_ns, left_s) in [(11 * DAY_NS, 8), (9 * DAY_NS, 6), (0, 4)] {
        host.set_wall(unix_ns);
        host.clock.advance_ns(2 * NS_PER_S);
        let shown = host.seen().await.grants[0].clone();
        assert!(shown.open, "{left_s} s are left");
        assert_eq!(shown.closes_in_ns, left_s * NS_PER_S);
        host.engine()
            .note(refused_query(host.engine().begin_session()))
            .await;
    }
    host.set_wall(0);
    host.clock.advance_ns(4 * NS_PER_S - 1);
    assert!(host.seen().await.grants[0].open);
    host.set_wall(0);
    host.clock.advance_ns(1);
    assert!(!host.seen().await.grants[0].open);
    assert!(host.held.lock().expect("no panic").windows.is_empty());
    // A start in between makes it no longer, whatever the wall clock says by then.
    host.request().await;
    host.approve_the("r-2").await;
    host.clock.advance_ns(9 * NS_PER_S);
    host.stop();
    host.set_wall(20 * DAY_NS);
    host.start("boot-1").expect("starts");
    assert!(host.seen().await.grants[1].open);
    host.clock.advance_ns(NS_PER_S);
    assert!(!host.seen().await.grants[1].open);
    host.stop();
    let chain = crate::audit::verify(&host.dir.path().join("audit"), |_, _| ());
    assert!(
        chain.expect("is whole").count() > 0,
        "records stay in the order in which they happened"
    );
}

#[tokio::test]
async fn the_jobs_of_a_closed_window_are_looked_after_though_the_wall_clock_is_set_a_day_either_way()
 {
    for unix_ns in [9 * DAY_NS, 11 * DAY_NS] {
        let mut host = Host::new();
        host.set_wall(10 * DAY_NS);
        host.request().await;
        host.approve().await;
        host.start_jobs().await;
        let grant = GrantId(1);
        host.ask(5001, None, Ask::Revoke { grant }).await;
        assert_eq!(host.handed_over(), [left()]);
        host.set_wall(unix_ns);
        let jobs = host.engine().unsettled(grant).await.expect("answers");
        assert_eq!(jobs.len(), 2, "the closer goes on");
        host.stop();
        host.start("boot-1").expect("starts");
        assert_eq!(host.handed_over(), [left()], "and so does a start");
    }
}

#[tokio::test]
async fn a_restart_in_one_boot_after_the_wall_clock_was_set_counts_no_less_of_a_day() {
    let mut host = Host::new();
    host.set_wall(10 * DAY_NS);
    host.request().await;
    host.approve().await;
    host.clock.advance_ns(10 * NS_PER_S);
    host.request().await;
    let held = |status: &Status| status.requests.last().map(|asked| asked.held_in_day_s);
    assert_eq!(held(&*host.seen().await), Some(10));
    host.stop();
    host.set_wall(11 * DAY_NS + 3600 * NS_PER_S);
    host.start("boot-1").expect("starts");
    assert_eq!(held(&*host.seen().await), Some(10));
    host.stop();
    host.set_wall(13 * DAY_NS);
    host.start("boot-2").expect("starts");
    assert_eq!(held(&*host.seen().await), Some(0), "the host was down");
}

#[tokio::test]
async fn after_a_suspend_what_ended_meanwhile_is_gone_before_anything_else_is_answered() {
    let host = Host::new();
    host.request().await;
    host.approve().await;
    // In suspend the boot clock goes on, timers do not: nothing wakes the engine but what asks it.
    host.clock.advance_ns(DAY_NS);
    let permit = host
        .engine()
        .admit(requester(), GrantId(1), select(1), Plan::default())
        .await;
    assert!(permit.is_err(), "the window's end has passed");
    assert!(!host.seen().await.grants[0].open);
    assert!(host.held.lock().expect("no panic").windows.is_empty());
    // Likewise what waits for a decision.
    let waits = host.request().await;
    assert!(matches!(waits, Reply::Requested { .. }));
    host.clock.advance_ns(DAY_NS);
    let late = host.approve_the("r-2").await;
    assert!(matches!(late, Reply::Refused(refusal) if refusal.code == Code::NotPending));
    assert_eq!(host.seen().await.requests[1].state, "expired");
}

#[tokio::test]
async fn after_a_suspend_a_window_closes_though_nobody_asks() {
    let host = Host::new();
    let mut windows = host.engine().windows();
    host.request().await;
    host.approve().await;
    assert_eq!(windows.borrow_and_update().len(), 1);
    host.clock.advance_ns(DAY_NS);
    // The timer that was set before counts what is left by another clock; the heartbeat looks anew.
    let closed = windows.wait_for(|open| open.is_empty());
    let closed = tokio::time::timeout(20 * HEARTBEAT, closed).await;
    assert!(closed.expect("within a few heartbeats").is_ok());
}

#[tokio::test]
async fn a_full_segment_leaves_a_snapshot_and_the_next_start_goes_on_from_it() {
    let mut host = Host::new();
    host.stop();
    host.segment_bytes = 1;
    host.start("boot-1").expect("starts");
    host.request().await;
    host.approve().await;
    let before = host.status().await;
    // Every record fills a segment; what is kept is named by a record within a heartbeat or two.
    let mut records = host.engine().records();
    let is_kept = |_: &u64| {
        let kinds = host.all_events();
        let opened = kinds.iter().rposition(|kind| kind == "opened");
        let kept = kinds.iter().rposition(|kind| kind == "snapshot_taken");
        opened < kept
    };
    records.wait_for(is_kept).await.expect("runs");
    host.stop();
    host.start("boot-1").expect("starts");
    assert!(host.running.as_ref().expect("running").resumed.is_some());
    let after = host.status().await;
    assert_eq!(after.grants[0].grant, before.grants[0].grant);
    assert!(after.grants[0].open);
    let files = std::fs::read_dir(host.dir.path().join("audit")).expect("lists");
    let names = files.map(|entry| entry.expect("lists").file_name());
    let kept = names.filter(|name| name.to_string_lossy().starts_with("snapshot-"));
    assert!(kept.count() <= 3, "old ones go");
}

#[tokio::test]
async fn what_the_retention_does_not_keep_goes_once_that_is_on_record() {
    let mut host = Host::new();
    host.stop();
    host.segment_bytes = 1;
    host.keep.age = Some(Duration::from_secs(7 * 24 * 3600));
    host.start("boot-1").expect("starts");
    host.request().await;
    host.clock.advance_ns(30 * 24 * 3600 * NS_PER_S);
    host.request().await;
    let mut records = host.engine().records();
    // A look may come before what waited for somebody has expired, and so is needed no more: the next, ten minutes later, finds it then. Meanwhile
    // records come without end: with segments of one, each snapshot is a reason for another.
    for _ in 0..20 {
        let removed =
            records.wait_for(|_| host.all_events().contains(&"segments_removed".to_owned()));
        if tokio::time::timeout(4 * HEARTBEAT, removed).await.is_ok() {
            break;
        }
        host.clock.advance_ns(3600 * NS_PER_S);
    }
    host.stop();
    let kinds = host.all_events();
    assert!(!kinds.contains(&"daemon_started".to_owned()), "{kinds:?}");
    host.start("boot-1").expect("goes on");
    let status = host.status().await;
    assert!(status.log.first_record > 1);
    // No number is given a second time. (Who is left undecided may not ask again at once.)
    host.clock.advance_ns(DAY_NS);
    let reply = host.request().await;
    assert!(
        matches!(&reply, Reply::Requested { request, .. } if request.0 == 3),
        "{reply:?}"
    );
}

#[tokio::test]
async fn what_was_held_is_kept_on_record_though_the_wall_clock_makes_it_look_old() {
    let mut host = Host::new();
    host.stop();
    host.segment_bytes = 1;
    host.set_wall(10 * DAY_NS);
    host.start("boot-1").expect("starts");
    host.request().await;
    host.clock.advance_ns(3 * DAY_NS);
    host.request().await;
    host.approve_the("r-2").await;
    host.clock.advance_ns(10 * NS_PER_S);
    host.request().await;
    let held = |status: &Status| status.requests.last().map(|asked| asked.held_in_day_s);
    assert_eq!(held(&*host.seen().await), Some(10));
    host.stop();
    // Within the boot the wall clock is set ahead, and the operator lets go of what need not be kept.
    host.set_wall(16 * DAY_NS);
    host.keep.bytes = Some(1);
    host.start("boot-1").expect("starts");
    let mut records = host.engine().records();
    records
        .wait_for(|_| host.all_events().contains(&"segments_removed".to_owned()))
        .await
        .expect("runs");
    host.stop();
    // As where the daemon is another version, which uses no snapshot of this one.
    for entry in std::fs::read_dir(host.dir.path().join("audit")).expect("lists") {
        let path = entry.expect("lists").path();
        let name = path.file_name().expect("a file").to_string_lossy();
        if name.starts_with("snapshot-") {
            std::fs::remove_file(&path).expect("removes");
        }
    }
    host.start("boot-1").expect("starts");
    host.request().await;
    let status = host.seen().await;
    assert!(status.log.first_record > 1);
    assert_eq!(held(&status), Some(10));
}

/// As many other agents as have more requests than one status shows.
const CROWD: u32 = 128;

/// A host on which one agent's request waits among the 1 024 of others, asked `first` or last.
async fn crowded(first: bool) -> (Host, RequestId) {
    let mut host = Host::new();
    host.stop();
    host.agents = (0..=CROWD).map(|at| format!("bot-{at}")).collect();
    host.start("boot-1").expect("starts");
    let ask = async |host: &Host, at: u32| {
        let asked = host.request_of(2000 + at, &format!("bot-{at}")).await;
        let Reply::Requested { request, .. } = asked else {
            panic!("{asked:?}")
        };
        request
    };
    let mut own = None;
    if first {
        own = Some(ask(&host, CROWD).await);
    }
    for at in 0..CROWD {
        for _ in 0..8 {
            ask(&host, at).await;
        }
    }
    let own = match own {
        Some(own) => own,
        None => ask(&host, CROWD).await,
    };
    (host, own)
}

#[tokio::test]
async fn a_request_among_more_than_are_shown_is_seen_and_approved_whenever_it_was_asked() {
    for first in [true, false] {
        let (host, own) = crowded(first).await;
        let status = host.status_for(5001, None).await;
        assert_eq!(status.requests.len(), 1024);
        assert_eq!(
            (status.requests_waiting_left_out, status.requests_left_out),
            (1, 0)
        );
        let shown = status.requests.iter().map(|shown| shown.request);
        assert!(shown.clone().any(|shown| shown == own), "each has a share");
        assert!(shown.is_sorted(), "newest last");
        let approved = host.approve_the(&own.to_string()).await;
        assert!(matches!(approved, Reply::Opened(_)), "{approved:?}");
    }
}

#[tokio::test]
async fn one_request_is_shown_by_its_number_to_who_may_see_it() {
    let (host, own) = crowded(true).await;
    let left_out = {
        let status = host.status_for(5001, None).await;
        let shown: Vec<_> = status.requests.iter().map(|shown| shown.request).collect();
        let mut all = (1..=1025).map(RequestId);
        all.find(|id| !shown.contains(id)).expect("one is left out")
    };
    let show = async |uid, agent: Option<&str>, request| {
        let said = host.ask(uid, agent, Ask::Show { request }).await;
        match said {
            Reply::Status(status) => Ok((status.requests, status.grants.len())),
            Reply::Refused(refusal) => Err(refusal.code),
            Reply::Requested { .. }
            | Reply::Counted(_)
            | Reply::Opened(_)
            | Reply::GivenBack(_)
            | Reply::Done
            | Reply::Records(_)
            | Reply::Joined(_)
            | Reply::Notified(_)
            | Reply::Checked(_) => panic!("no status"),
        }
    };
    let (requests, grants) = show(5001, None, left_out).await.expect("is shown");
    assert_eq!((requests.len(), grants), (1, 0));
    assert_eq!(requests[0].request, left_out);
    assert!(!requests[0].digest.is_empty(), "it can be agreed to");
    assert!(show(2000 + CROWD, Some("bot-128"), own).await.is_ok());
    assert_eq!(
        show(2000, Some("bot-0"), own).await,
        Err(Code::NotPending),
        "another agent's"
    );
    assert_eq!(show(3000, None, own).await, Err(Code::CallerForbidden));
    assert_eq!(
        show(5001, None, RequestId(9000)).await,
        Err(Code::NotPending)
    );
}
