//! Behaviour of the ledger: examples, and one model driven by random commands, failures and restarts.

mod budget;
mod clocks;
mod deciding;
mod guards;
mod jobs;
mod locking;
mod of_query;
mod pace;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::admission::admit;
use crate::policy::{
    Alone, ApproverSet, Budget, DUTY_PERCENT_CEILING, Limits, PENDING_TTL_S, Policy, Quorum,
    REQUESTS_PER_HOUR_CEILING, Rule,
};
use crate::principal::Caller;
use crate::query::{DryRun, JobRef, Layout, Method, QueryFacts, Touch, Transfer};
use crate::refusal::Code;
use crate::scope::Access;
use crate::time::{NS_PER_S, Ttl};

const ALICE: u32 = 5001;
/// As much as a rule may allow.
const LOOSE: Limits = Limits {
    datasets_max: 16,
    pending_ttl_s: PENDING_TTL_S,
    cooldown_s: 0,
    requests_per_hour_max: REQUESTS_PER_HOUR_CEILING,
    backoff_s: 0,
    windows_at_once_max: 16,
    duty_percent_max: DUTY_PERCENT_CEILING,
};

fn at(second: u64) -> Now {
    Now {
        boot_ns: second * NS_PER_S,
        unix_ns: 1_700_000_000 * NS_PER_S + second * NS_PER_S,
    }
}

fn caller(uid: u32, agent: Option<&str>) -> Caller {
    let process = Process {
        pid: 7,
        start_boot_ns: 1,
        uid,
        comm: "x".into(),
    };
    Caller {
        process,
        gids: [uid].into(),
        agent: agent.map(|name| name.parse().expect("a name")),
    }
}

fn bot() -> Caller {
    caller(2001, Some("bot"))
}

const MIB: u64 = 1024 * 1024;

fn policy(auto_approve: bool) -> Policy {
    let rule = Rule {
        agents: ["bot".parse().expect("a name")].into(),
        datasets: vec![
            "p.finance".parse().expect("exact"),
            "p.sales_*".parse().expect("prefix"),
        ],
        writable: Vec::new(),
        ddl: vec!["p.scratch".parse().expect("exact")],
        buckets: [
            ("gs://in-1".parse().expect("a bucket"), Access::Read),
            ("gs://out-1".parse().expect("a bucket"), Access::Write),
        ]
        .into(),
        ttl_max: "15m".parse().expect("a ttl"),
        budget: Budget {
            bytes_max: 1000 * MIB,
            query_bytes_max: 1000 * MIB,
            returned_bytes_max: 1000,
            queries_max: 3,
            jobs_at_once_max: 3,
        },
        approvers: ApproverSet {
            uids: [ALICE].into(),
            gids: [].into(),
        },
        quorum: Quorum::one(),
        must_sign: false,
        alone: if auto_approve {
            Alone::Always
        } else {
            Alone::Never
        },
        break_glass: None,
        limits: LOOSE,
    };
    Policy {
        rules: vec![rule],
        signers: Vec::new(),
        own_uids: Default::default(),
        digest: "d".into(),
    }
}

fn ask(scope: &str, ttl: &str) -> Command {
    Command::Request(Ask {
        scope: scope.parse().expect("a scope"),
        ttl: ttl.parse().expect("a ttl"),
        reason: "month end".into(),
        bytes_max: None,
        queries_max: None,
    })
}

#[derive(Default)]
struct Host {
    ledger: Ledger,
    log: Vec<(Now, Event)>,
}

impl Host {
    fn run(
        &mut self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        command: Command,
    ) -> Result<Decision, Code> {
        let decision = self
            .ledger
            .decide(now, policy, caller, command)
            .map_err(|refusal| refusal.code)?;
        self.record(now, &decision);
        Ok(decision)
    }

    fn record(&mut self, now: Now, decision: &Decision) {
        for event in &decision.events {
            self.ledger.apply(now, event);
            self.log.push((now, event.clone()));
        }
    }

    fn open(&mut self, now: Now, ttl: &str) -> GrantId {
        self.open_for(now, "p.finance:read", ttl)
    }

    fn open_for(&mut self, now: Now, scope: &str, ttl: &str) -> GrantId {
        self.run(now, &policy(false), &bot(), ask(scope, ttl))
            .expect("asked");
        let request = self.ledger.requests().last().expect("one").id;
        self.run(
            now,
            &policy(false),
            &caller(ALICE, None),
            self.approving(request),
        )
        .expect("approved");
        self.ledger.grants().last().expect("one").id
    }

    /// Agrees to a request as it stands.
    fn approving(&self, id: RequestId) -> Command {
        Command::Approve(id, self.as_shown(id))
    }

    fn as_shown(&self, id: RequestId) -> ApproveTerms {
        let request = self.ledger.request(id);
        ApproveTerms {
            seen: request.map_or_else(String::new, |request| request.digest.clone()),
            ..ApproveTerms::default()
        }
    }

    fn rebuilt(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for (now, event) in &self.log {
            ledger.apply(*now, event);
        }
        ledger
    }
}

fn select(table: &str, bytes: u64) -> QueryFacts {
    QueryFacts {
        method: Method::JobsInsert,
        project: Some("p".into()),
        touch: Touch::Query(DryRun {
            statement: "SELECT".into(),
            tables: vec![table.parse().expect("a table")],
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

/// A query that is to be sent.
fn starting(query: QueryId, grant: GrantId, ceiling: Option<u64>) -> Event {
    Event::QueryAdmitted {
        query,
        grant,
        agent: "bot".parse().expect("a name"),
        session: SessionId(1),
        process: bot().process,
        container: None,
        method: Method::JobsInsert,
        sql: Some("SELECT 1".into()),
        tables: vec!["p.finance.daily".parse().expect("a table")],
        writes: Vec::new(),
        imports: Vec::new(),
        exports: Vec::new(),
        resource: None,
        bytes: 0,
        ceiling,
        returned_ceiling: None,
        is_dry_run: false,
        dry_run_us: None,
        job: None,
        in_parts: false,
        asked: None,
    }
}

/// The answer to it, which names its job.
fn seen(query: QueryId, grant: GrantId, job: JobRef) -> Event {
    Event::JobSeen {
        query,
        grant,
        job,
        destination: None,
        is_done: false,
        billed: None,
        processed: None,
        is_compared: false,
        names_no_table: false,
        read_outside: None,
    }
}

/// The end of that answer.
fn finishing(query: QueryId, grant: GrantId) -> Event {
    Event::QueryFinished {
        query,
        grant,
        status: Some(200),
        job: None,
        destination: None,
        bytes: 0,
        body_bytes: 0,
        duration_us: 1,
        trouble: None,
        is_void: false,
    }
}

#[test]
fn an_approved_request_opens_one_window_that_closes_at_its_deadline() {
    let mut host = Host::default();
    let grant = host.open(at(100), "10s");
    assert_eq!(host.ledger.poll_timeout(), Some(at(110).boot_ns));
    let agent = "bot".parse().expect("a name");
    assert!(host.ledger.open_grant(&agent, at(109)).is_some());
    assert!(
        host.ledger.open_grant(&agent, at(110)).is_none(),
        "the deadline itself is outside"
    );
    let due = host.ledger.tick(at(110));
    assert_eq!(
        due.first,
        [Effect::CloseWindow {
            agent,
            grant,
            reason: CloseReason::Expired
        }]
    );
    host.record(at(110), &due);
    assert_eq!(
        host.ledger.tick(at(111)),
        Decision::default(),
        "closed once"
    );
}

#[test]
fn policy_ceilings_hold_for_ttl_and_datasets() {
    let mut host = Host::default();
    assert_eq!(
        host.run(at(1), &policy(false), &bot(), ask("p.finance:read", "16m")),
        Err(Code::PolicyExceeded)
    );
    assert_eq!(
        host.run(at(1), &policy(false), &bot(), ask("p.hr:read", "1m")),
        Err(Code::PolicyNone)
    );
    assert_eq!(
        host.run(
            at(1),
            &policy(false),
            &bot(),
            ask("p.finance,p.hr:read", "1m")
        ),
        Err(Code::PolicyNone)
    );
    assert_eq!(
        host.run(
            at(1),
            &policy(false),
            &caller(2001, None),
            ask("p.finance:read", "1m")
        ),
        Err(Code::CallerUnknown)
    );
}

#[test]
fn nobody_approves_their_own_request_by_uid_or_from_a_workload() {
    let mut host = Host::default();
    let mut rules = policy(false);
    rules.rules[0].approvers.uids.insert(2001);
    host.run(at(1), &rules, &bot(), ask("p.finance:read", "1m"))
        .expect("asked");
    let approving = host.approving(RequestId(1));
    let approve = || approving.clone();
    assert_eq!(
        host.run(at(1), &rules, &caller(2001, None), approve()),
        Err(Code::SelfApproval)
    );
    assert_eq!(
        host.run(at(1), &rules, &caller(ALICE, Some("bot")), approve()),
        Err(Code::SelfApproval)
    );
    assert_eq!(
        host.run(at(1), &rules, &caller(ALICE, Some("other")), approve()),
        Err(Code::SelfApproval)
    );
    assert_eq!(
        host.run(at(1), &rules, &caller(0, None), approve()),
        Err(Code::CallerForbidden),
        "root is no approver by being root"
    );
}

#[test]
fn an_approver_narrows_and_never_widens() {
    let mut host = Host::default();
    host.run(
        at(1),
        &policy(false),
        &bot(),
        ask("p.finance,p.sales_eu:read,p.scratch:write", "1m"),
    )
    .expect("asked");
    let approve = |host: &mut Host, ttl: &str, scope: &str| {
        let scope = Some(scope.parse().expect("a scope"));
        let terms = ApproveTerms {
            ttl: Some(ttl.parse().expect("a ttl")),
            scope,
            ..host.as_shown(RequestId(1))
        };
        host.run(
            at(2),
            &policy(false),
            &caller(ALICE, None),
            Command::Approve(RequestId(1), terms),
        )
        .map(|_| ())
    };
    assert_eq!(
        approve(&mut host, "2m", "p.finance:read"),
        Err(Code::ApprovalWider)
    );
    for wider in ["p.hr:read", "p.finance:write", "p.finance:read,p.hr:read"] {
        assert_eq!(approve(&mut host, "1m", wider), Err(Code::ApprovalWider));
    }
    let narrower = "p.finance,p.scratch:read";
    assert_eq!(approve(&mut host, "30s", narrower), Ok(()));
    assert_eq!(
        host.ledger.grants().last().expect("one").scope.to_string(),
        narrower
    );
}

#[test]
fn an_approval_of_something_else_than_was_shown_is_void() {
    let mut host = Host::default();
    host.run(at(1), &policy(false), &bot(), ask("p.finance:read", "1m"))
        .expect("asked");
    let terms = ApproveTerms {
        seen: "0".repeat(64),
        ..ApproveTerms::default()
    };
    assert_eq!(
        host.run(
            at(1),
            &policy(false),
            &caller(ALICE, None),
            Command::Approve(RequestId(1), terms)
        ),
        Err(Code::DigestChanged)
    );
}

#[test]
fn an_automatic_rule_opens_without_a_person_and_names_itself() {
    let mut host = Host::default();
    let decision = host
        .run(at(1), &policy(true), &bot(), ask("p.finance:read", "1m"))
        .expect("opened");
    assert_eq!(decision.then.len(), 1);
    assert_eq!(
        host.ledger
            .grants()
            .last()
            .expect("one")
            .approver
            .to_string(),
        "policy rule 1"
    );
}

#[test]
fn a_job_is_the_windows_own_only_by_project_id_and_location() {
    let job = |location: Option<&str>| JobRef {
        project: "p".into(),
        job: "j".into(),
        location: location.map(str::to_owned),
    };
    let reads = |own: &[Option<&str>], asked: Option<&str>| {
        let mut host = Host::default();
        let id = host.open(at(100), "10s");
        for (number, location) in own.iter().enumerate() {
            let query = QueryId(number as u64);
            host.ledger.apply(at(101), &starting(query, id, None));
            host.ledger.apply(at(101), &seen(query, id, job(*location)));
        }
        let grant = host.ledger.grant(id).expect("open");
        let facts = QueryFacts {
            method: Method::GetQueryResults,
            project: Some("p".into()),
            touch: Touch::Job(job(asked)),
            sql: None,
            is_dry_run: false,
        };
        let admitted = admit(at(102), grant, &facts, None).ok()?;
        admitted.job().and_then(|job| job.location.clone())
    };
    assert_eq!(reads(&[Some("US")], None).as_deref(), Some("US"));
    assert_eq!(reads(&[Some("US")], Some("us")).as_deref(), Some("US"));
    assert_eq!(reads(&[Some("US")], Some("EU")), None);
    assert_eq!(reads(&[Some("US"), Some("EU")], None), None, "which one?");
    assert_eq!(
        reads(&[None], None),
        None,
        "a job without a place is nobody's"
    );
}

#[test]
fn admission_holds_scope_statement_budget_and_time() {
    let mut host = Host::default();
    let id = host.open(at(100), "10s");
    let grant = host.ledger.grant(id).expect("open").clone();
    let refused = |now, facts: &QueryFacts| {
        admit(now, &grant, facts, None)
            .map_err(|refusal| refusal.code)
            .map(|_| ())
    };
    assert_eq!(refused(at(105), &select("p.finance.daily", 10)), Ok(()));
    assert_eq!(
        refused(at(110), &select("p.finance.daily", 10)),
        Err(Code::WindowClosed)
    );
    assert_eq!(
        refused(at(105), &select("p.hr.salaries", 10)),
        Err(Code::ScopeOutside)
    );
    assert_eq!(
        refused(at(105), &select("p.finance.daily", 1000 * MIB + 1)),
        Err(Code::WindowBudget)
    );
    let mut script = select("p.finance.daily", 10);
    script.touch = Touch::Query(DryRun {
        statement: "SCRIPT".into(),
        tables: vec![],
        routines: vec![],
        targets: Vec::new(),
        layout: Layout::Kept,
        to: Vec::new(),
        bytes: 0,
    });
    assert_eq!(refused(at(105), &script), Err(Code::StatementKind));
    let mut elsewhere = select("p.finance.daily", 10);
    elsewhere.project = Some("q".into());
    assert_eq!(refused(at(105), &elsewhere), Err(Code::ScopeProject));
}

#[test]
fn data_comes_from_and_goes_to_the_buckets_of_the_window_alone() {
    let mut host = Host::default();
    for (scope, code) in [
        ("p.finance:read,gs://in-1:write", Err(Code::PolicyNone)),
        ("p.finance:read,gs://elsewhere:read", Err(Code::PolicyNone)),
    ] {
        let asked = host.run(at(100), &policy(false), &bot(), ask(scope, "10s"));
        assert_eq!(asked.map(|_| ()), code, "{scope}");
    }
    let scope = "p.finance,gs://in-1:read,p.scratch,gs://out-1:write";
    let id = host.open_for(at(100), scope, "10s");
    let grant = host.ledger.grant(id).expect("open").clone();
    let bucket = |name: &str| vec![name.parse().expect("a bucket")];
    let judged = |moved: Transfer| {
        let facts = QueryFacts {
            touch: Touch::Transfer(moved),
            ..select("p.finance.daily", 0)
        };
        let admitted = admit(at(101), &grant, &facts, None);
        let most = admitted.and_then(|_| grant.ceilings(&facts, None));
        most.map(|most| most.returned_bytes)
            .map_err(|refusal| refusal.code)
    };
    let import = |from: &str| {
        judged(Transfer {
            from: bucket(from),
            into: "p.scratch.t".parse().ok(),
            layout: Layout::Kept,
            ..Transfer::default()
        })
    };
    assert_eq!(import("gs://in-1"), Ok(None));
    assert_eq!(
        import("gs://out-1"),
        Ok(None),
        "what is written may be read"
    );
    assert_eq!(import("gs://elsewhere"), Err(Code::ScopeBucket));
    let export = |table: &str, to: &str, exported| {
        judged(Transfer {
            reads: vec![table.parse().expect("a table")],
            to: bucket(to),
            exported,
            ..Transfer::default()
        })
    };
    let table = "p.finance.daily";
    assert_eq!(export(table, "gs://out-1", 1000), Ok(Some(1000)));
    assert_eq!(export(table, "gs://out-1", 1001), Err(Code::WindowBudget));
    assert_eq!(export(table, "gs://in-1", 1), Err(Code::ScopeBucket));
    assert_eq!(
        export("p.hr.salaries", "gs://out-1", 1),
        Err(Code::ScopeOutside)
    );
    let of_query = |to: &[&str]| {
        let mut facts = select(table, 700);
        if let Touch::Query(run) = &mut facts.touch {
            run.statement = "EXPORT_DATA".into();
            run.to = to.iter().flat_map(|name| bucket(name)).collect();
        }
        let admitted = admit(at(101), &grant, &facts, None);
        let most = admitted.and_then(|_| grant.ceilings(&facts, None));
        most.map(|most| most.returned_bytes)
            .map_err(|refusal| refusal.code)
    };
    assert_eq!(of_query(&["gs://out-1"]), Ok(Some(700)));
    assert_eq!(of_query(&["gs://in-1"]), Err(Code::ScopeBucket));
    assert_eq!(of_query(&[]), Err(Code::StatementKind));
}

#[test]
fn a_reboot_closes_every_window_and_a_window_the_kernel_lost_stays_closed() {
    let mut host = Host::default();
    let grant = host.open(at(100), "10m");
    let reason = |decision: Decision| match decision.first.as_slice() {
        [
            Effect::CloseWindow {
                grant: closed,
                reason,
                ..
            },
        ] if *closed == grant => Some(*reason),
        _ => None,
    };
    assert_eq!(
        reason(host.rebuilt().resume(at(5), false, |_| true)),
        Some(CloseReason::Rebooted)
    );
    assert_eq!(
        reason(host.rebuilt().resume(at(101), true, |_| false)),
        Some(CloseReason::KernelMissing)
    );
    assert_eq!(
        host.rebuilt().resume(at(101), true, |_| true),
        Decision::default()
    );
}

#[derive(Debug, Clone)]
enum Step {
    Ask { seconds: u64, auto: bool },
    Approve { request: u64 },
    Deny { request: u64 },
    Revoke { grant: u64 },
    GiveBack { grant: u64 },
    Query { bytes: u64 },
    Wait { seconds: u64 },
    Restart { same_boot: bool },
    Lock { locked: bool },
    CloseAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u64..900, any::<bool>()).prop_map(|(seconds, auto)| Step::Ask { seconds, auto }),
        (1_u64..12).prop_map(|request| Step::Approve { request }),
        (1_u64..12).prop_map(|request| Step::Deny { request }),
        (1_u64..12).prop_map(|grant| Step::Revoke { grant }),
        (1_u64..12).prop_map(|grant| Step::GiveBack { grant }),
        (0_u64..800).prop_map(|mib| Step::Query { bytes: mib * MIB }),
        (0_u64..700).prop_map(|seconds| Step::Wait { seconds }),
        any::<bool>().prop_map(|same_boot| Step::Restart { same_boot }),
        any::<bool>().prop_map(|locked| Step::Lock { locked }),
        Just(Step::CloseAll),
    ]
}

/// Lets one of them happen; gives the second it is then.
fn play(host: &mut Host, second: u64, step: Step) -> u64 {
    let now = at(second);
    let alice = caller(ALICE, None);
    let mut second = second;
    let _ = match step {
        Step::Ask { seconds, auto } => {
            let ttl = Ttl::from_seconds(seconds).expect("in range").to_string();
            host.run(now, &policy(auto), &bot(), ask("p.finance:read", &ttl))
        }
        Step::Approve { request } => {
            let approving = host.approving(RequestId(request));
            host.run(now, &policy(false), &alice, approving)
        }
        Step::Deny { request } => host.run(
            now,
            &policy(false),
            &alice,
            Command::Deny(RequestId(request), "no".into()),
        ),
        Step::Revoke { grant } => {
            host.run(now, &policy(false), &alice, Command::Revoke(GrantId(grant)))
        }
        Step::GiveBack { grant } => {
            host.run(now, &policy(false), &bot(), Command::Close(GrantId(grant)))
        }
        Step::Lock { locked } => {
            let bot = "bot".parse().expect("a name");
            let command = if locked {
                Command::Lock(bot, "no".into())
            } else {
                Command::Unlock(bot)
            };
            host.run(now, &policy(false), &alice, command)
        }
        Step::CloseAll => host.run(now, &policy(false), &alice, Command::CloseAll),
        Step::Query { bytes } => {
            run_query(host, now, bytes);
            Ok(Decision::default())
        }
        Step::Wait { seconds } => {
            second = wait(host, second, seconds);
            Ok(Decision::default())
        }
        Step::Restart { same_boot } => {
            host.ledger = host.rebuilt();
            let due = host.ledger.resume(now, same_boot, |_| true);
            host.record(now, &due);
            Ok(Decision::default())
        }
    };
    second
}

proptest! {
    #[test]
    fn every_window_closes_exactly_once_and_on_time_whatever_the_order_of_commands(steps in prop::collection::vec(step(), 0..60)) {
        let mut host = Host::default();
        let mut second = 1;
        for step in steps {
            second = play(&mut host, second, step);
            let open = host.ledger.grants().filter(|grant| grant.closed.is_none()).count();
            prop_assert!(open <= 1, "one window per agent");
            let is_locked = host.ledger.lock_of(&"bot".parse().expect("a name")).is_some();
            let waits = host.ledger.requests().any(|request| request.state == RequestState::Pending);
            prop_assert!(!is_locked || (open == 0 && !waits), "who is locked holds nothing and waits for nothing");
            prop_assert_eq!(&host.ledger.index, &index_of(&host.ledger));
            // Whatever was kept at whichever record, what follows makes the same of it.
            let kept = serde_json::to_string(&host.ledger).expect("its keys are texts");
            prop_assert_eq!(&serde_json::from_str::<Ledger>(&kept).expect("reads"), &host.ledger);
        }
        wait(&mut host, second, 13 * 3600);
        check_log(&host.log)?;
    }
}

proptest! {
    #[test]
    fn a_snapshot_and_the_rest_of_the_log_make_what_the_whole_log_makes(steps in prop::collection::vec(step(), 0..40), at_record in any::<prop::sample::Index>()) {
        let mut host = Host::default();
        let mut second = 1;
        for step in steps {
            second = play(&mut host, second, step);
        }
        let (before, rest) = host.log.split_at(at_record.index(host.log.len() + 1));
        let mut kept = Ledger::default();
        before.iter().for_each(|(now, event)| kept.apply(*now, event));
        let kept = serde_json::to_string(&kept).expect("its keys are texts");
        let mut resumed: Ledger = serde_json::from_str(&kept).expect("reads");
        rest.iter().for_each(|(now, event)| resumed.apply(*now, event));
        prop_assert_eq!(resumed, host.rebuilt());
    }
}

#[test]
fn numbers_of_records_that_were_removed_are_not_given_again() {
    let mut ledger = Ledger::default();
    let numbers = crate::event::Numbers {
        request: 7,
        grant: 5,
        query: 90,
        session: 30,
    };
    ledger.apply(
        at(1),
        &Event::SegmentsRemoved {
            first_seq: 1,
            last_seq: 9,
            head: String::new(),
            numbers,
        },
    );
    assert_eq!((ledger.numbers(), ledger.next_query().0), (numbers, 91));
}

#[test]
fn what_is_open_or_waits_keeps_its_records() {
    let mut host = Host::default();
    host.ledger.in_boot("a");
    host.ledger.apply(at(50), &Event::DaemonStopped {});
    let long_after = at(40 * 24 * 3600);
    let needs = |host: &Host, second: u64| {
        let needed = host.ledger.needed(long_after);
        !needed.is_after("a", at(second).boot_ns)
    };
    let two_days = NEEDED_NS / NS_PER_S;
    assert!(needs(&host, 40 * 24 * 3600 - two_days));
    assert!(!needs(&host, 40 * 24 * 3600 - two_days - 1));
    host.run(
        at(100),
        &policy(false),
        &bot(),
        ask("p.finance:read", "10m"),
    )
    .expect("is asked");
    assert!(needs(&host, 100));
    assert!(!needs(&host, 99));
}

#[test]
fn a_wall_clock_that_is_set_makes_no_record_of_the_last_days_dispensable() {
    let mut host = Host::default();
    host.ledger.in_boot("a");
    host.ledger.apply(at(50), &Event::DaemonStopped {});
    let day_ns = 24 * 3600 * NS_PER_S;
    for unix_ns in [
        0,
        at(0).unix_ns - 9 * day_ns,
        at(0).unix_ns + 9 * day_ns,
        u64::MAX,
    ] {
        let is_needed = |second: u64| {
            let set = Now {
                unix_ns,
                ..at(3 * 24 * 3600)
            };
            !host.ledger.needed(set).is_after("a", at(second).boot_ns)
        };
        assert!(is_needed(24 * 3600));
        assert!(!is_needed(24 * 3600 - 1));
    }
}

/// What the index must be, from the entries alone.
fn index_of(ledger: &Ledger) -> Index {
    let mut index = Index::default();
    ledger.requests().for_each(|request| index.request(request));
    ledger.grants().for_each(|grant| index.new_grant(grant));
    index
}

/// Moves time on, ticking at each deadline as the daemon does.
fn wait(host: &mut Host, from: u64, seconds: u64) -> u64 {
    let until = from + seconds;
    while let Some(deadline) = host
        .ledger
        .poll_timeout()
        .filter(|deadline| *deadline <= at(until).boot_ns)
    {
        let now = at((deadline / NS_PER_S).max(from));
        let due = host.ledger.tick(now);
        assert_ne!(
            due,
            Decision::default(),
            "a deadline that is due does something"
        );
        host.record(now, &due);
    }
    until
}

fn run_query(host: &mut Host, now: Now, bytes: u64) {
    let agent = "bot".parse().expect("a name");
    let Some(grant) = host.ledger.open_grant(&agent, now) else {
        return;
    };
    let facts = select("p.finance.daily", bytes);
    let Ok(admitted) = admit(now, grant, &facts, None) else {
        return;
    };
    let (query, grant) = (host.ledger.next_query(), grant.id);
    assert_eq!(admitted.method(), Method::JobsInsert);
    let ceiling = host
        .ledger
        .grant(grant)
        .expect("open")
        .ceiling(&facts, None);
    // Less may be left than BigQuery bills at least.
    let Ok(ceiling) = ceiling else {
        return;
    };
    let mut started = starting(query, grant, ceiling);
    if let Event::QueryAdmitted {
        bytes: estimate, ..
    } = &mut started
    {
        *estimate = bytes;
    }
    let job = JobRef {
        project: "p".into(),
        job: query.to_string(),
        location: Some("US".into()),
    };
    let mut ended = seen(query, grant, job);
    if let Event::JobSeen {
        is_done, billed, ..
    } = &mut ended
    {
        (*is_done, *billed) = (true, Some(bytes));
    }
    host.record(
        now,
        &Decision {
            events: vec![started, ended, finishing(query, grant)],
            ..Decision::default()
        },
    );
    let due = host.ledger.tick(now);
    host.record(now, &due);
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these events bear on the property"
)]
fn check_log(log: &[(Now, Event)]) -> Result<(), TestCaseError> {
    let mut deadlines = BTreeMap::new();
    let mut closed = BTreeMap::new();
    let mut used = BTreeMap::<GrantId, u64>::new();
    for (now, event) in log {
        match event {
            Event::Approved {
                grant,
                closes_boot_ns,
                ..
            } => prop_assert!(deadlines.insert(*grant, *closes_boot_ns).is_none()),
            Event::Closed { grant, .. } => {
                prop_assert!(
                    closed.insert(*grant, *now).is_none(),
                    "{grant} closed twice"
                );
                prop_assert!(now.boot_ns <= deadlines[grant], "{grant} closed late");
            }
            Event::QueryAdmitted { grant, bytes, .. } => {
                prop_assert!(
                    !closed.contains_key(grant),
                    "a query after the close of {grant}"
                );
                let bytes_used = used.entry(*grant).or_default();
                *bytes_used += bytes;
                prop_assert!(*bytes_used <= 1000 * MIB, "{grant} over its byte budget");
            }
            _ => {}
        }
    }
    prop_assert_eq!(deadlines.len(), closed.len(), "every window closes");
    Ok(())
}
