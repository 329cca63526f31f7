//! Requests that are made of queries, and those that end with a process.

use std::collections::BTreeSet;

use super::*;
use crate::asking::{Estimate, FromQuery, OF_QUERIES_PER_AGENT_MAX};
use crate::policy::PENDING_TTL_S;

fn from(sql: &str) -> FromQuery {
    FromQuery::of_text(Method::JobsQuery, Some(sql))
}

fn wanted(scope: &str, sql: &str) -> Wanted {
    Wanted {
        scope: scope.parse().expect("a scope"),
        ttl: "1h".parse().expect("a ttl"),
        from: from(sql),
        needs: None,
    }
}

impl Host {
    fn of_query(&mut self, now: Now, scope: &str, sql: &str) -> Result<OfQuery, Code> {
        self.of_query_under(now, &policy(false), scope, sql)
    }

    fn of_query_under(
        &mut self,
        now: Now,
        policy: &Policy,
        scope: &str,
        sql: &str,
    ) -> Result<OfQuery, Code> {
        self.of_wanted(now, policy, wanted(scope, sql))
    }

    fn of_wanted(&mut self, now: Now, policy: &Policy, wanted: Wanted) -> Result<OfQuery, Code> {
        let come_to = self
            .ledger
            .of_query(now, policy, &bot(), wanted)
            .map_err(|refusal| refusal.code)?;
        if let OfQuery::Asks(decision) = &come_to {
            self.record(now, decision);
        }
        Ok(come_to)
    }

    fn pending(&self) -> Vec<RequestId> {
        let pending = self.ledger.requests();
        let pending = pending.filter(|request| request.state == RequestState::Pending);
        pending.map(|request| request.id).collect()
    }

    fn agree(&mut self, now: Now, id: RequestId) -> Result<Decision, Code> {
        let terms = self.as_shown(id);
        self.by_alice(now, Command::Approve(id, terms))
    }

    fn by_alice(&mut self, now: Now, command: Command) -> Result<Decision, Code> {
        self.run(now, &policy(false), &caller(ALICE, None), command)
    }
}

fn for_run(seconds: u64) -> Command {
    let Command::Request(ask) = ask("p.finance:read", &format!("{seconds}s")) else {
        unreachable!("it asks")
    };
    Command::RequestForRun(ask)
}

#[test]
fn a_query_joins_what_waits_and_covers_it_and_asks_for_no_more_than_the_policy_allows() {
    let mut host = Host::default();
    let first = host.of_query(at(1), "p.finance:read", "SELECT 1");
    assert!(matches!(first, Ok(OfQuery::Asks(_))));
    let request = host.ledger.request(RequestId(1)).expect("asked").clone();
    assert_eq!(request.ask.ttl.to_string(), "15m");
    assert_eq!(request.from_query, Some(from("SELECT 1")));
    let again = host.of_query(at(2), "p.finance:read", "SELECT 2");
    assert_eq!(again, Ok(OfQuery::Joins(RequestId(1))));
    let wider = host.of_query(at(3), "p.finance,p.sales_eu:read", "SELECT 3");
    assert!(matches!(wider, Ok(OfQuery::Asks(_))));
    let narrower = host.of_query(at(4), "p.sales_eu:read", "SELECT 4");
    assert_eq!(narrower, Ok(OfQuery::Joins(RequestId(2))));
    assert_eq!(
        host.of_query(at(5), "p.hr:read", "SELECT 5"),
        Err(Code::PolicyNone)
    );
    // What has expired is joined by nobody, also before it is said to have.
    let late = host.of_query(at(2 + PENDING_TTL_S), "p.finance:read", "SELECT 6");
    assert_eq!(late, Ok(OfQuery::Joins(RequestId(2))));
    let later = host.of_query(at(4 + PENDING_TTL_S), "p.finance:read", "SELECT 7");
    assert!(matches!(later, Ok(OfQuery::Asks(_))));
}

#[test]
fn another_query_has_another_digest_and_a_rule_that_opens_at_once_names_it() {
    let digest = |sql: &str| {
        let mut host = Host::default();
        let asked = host.of_query_under(at(1), &policy(true), "p.finance:read", sql);
        let Ok(OfQuery::Asks(Decision { events, then, .. })) = asked else {
            panic!("it asks")
        };
        assert_eq!(then.len(), 1, "it opens");
        let (Event::Requested { digest, .. }, Event::Approved { digest: seen, .. }) =
            (&events[0], &events[1])
        else {
            panic!("asked and approved")
        };
        assert_eq!(digest, seen);
        assert!(host.ledger.grant(GrantId(1)).expect("open").is_of_text);
        digest.clone()
    };
    let long = "x".repeat(10_000);
    let texts = [
        "SELECT 1".to_owned(),
        format!("{long}1"),
        format!("{long}2"),
    ];
    let digests: BTreeSet<String> = texts.iter().map(|sql| digest(sql)).collect();
    assert_eq!(
        digests.len(),
        3,
        "also where they differ only past what is held"
    );
}

#[test]
fn after_a_denial_the_policys_backoff_holds_for_queries_and_says_why_it_was_denied() {
    let mut host = Host::default();
    let mut slow = policy(false);
    slow.rules[0].limits.backoff_s = 30;
    host.of_query_under(at(1), &slow, "p.finance:read", "SELECT 1")
        .expect("asks");
    host.by_alice(at(1), Command::Deny(RequestId(1), "no".into()))
        .expect("denied");
    let wanted = wanted("p.finance:read", "SELECT 1");
    let refused = host.ledger.of_query(at(2), &slow, &bot(), wanted);
    let refusal = refused.expect_err("too soon");
    assert_eq!(refusal.code, Code::TooSoon);
    assert!(
        refusal.what.ends_with("request r-1 was denied: no"),
        "{refusal}"
    );
    let later = host.of_query_under(at(31), &slow, "p.finance:read", "SELECT 1");
    assert!(matches!(later, Ok(OfQuery::Asks(_))));
}

#[test]
fn only_so_many_requests_of_queries_wait_and_others_may_still_be_asked() {
    let mut host = Host::default();
    for at_once in 0..OF_QUERIES_PER_AGENT_MAX {
        let scope = format!("p.sales_{at_once}:read");
        host.of_query(at(1), &scope, "SELECT 1").expect("asks");
    }
    let refused = host.of_query(at(1), "p.finance:read", "SELECT 1");
    assert_eq!(refused, Err(Code::TooManyPending));
    host.run(at(1), &policy(false), &bot(), ask("p.finance:read", "1m"))
        .expect("asked in its own words");
    let joins = host.of_query(at(1), "p.finance:read", "SELECT 1");
    assert!(matches!(joins, Ok(OfQuery::Joins(_))));
}

#[test]
fn whose_query_waits_with_a_request_has_asked_for_it_and_neither_decides_nor_reviews() {
    let mut rules = policy(false);
    rules.rules[0].quorum.count = 2;
    rules.rules[0].approvers.uids.extend([5002, 5003]);
    rules.rules[0].break_glass = Some(crate::policy::BreakGlass {
        who: rules.rules[0].approvers.clone(),
        ttl_max: "1m".parse().expect("a ttl"),
    });
    let mut host = Host::default();
    host.run(at(1), &rules, &bot(), ask("p.finance:read", "1m"))
        .expect("asked");
    let alice = caller(ALICE, None);
    let approving = host.approving(RequestId(1));
    host.run(at(1), &rules, &alice, approving).expect("counted");
    // Her query, from the workload of an agent that has no uid of its own.
    let join = |host: &Host, uid| {
        let query = wanted("p.finance:read", "SELECT 1");
        let process = caller(uid, Some("bot"));
        let joins = host.ledger.of_query(at(2), &rules, &process, query);
        joins.map_err(|refusal| refusal.code)
    };
    let Ok(OfQuery::JoinsAsAnother(RequestId(1), decision)) = join(&host, ALICE) else {
        panic!("she had no part in it")
    };
    host.record(at(2), &decision);
    assert_eq!(join(&host, ALICE), Ok(OfQuery::Joins(RequestId(1))));
    assert_eq!(join(&host, 2001), Ok(OfQuery::Joins(RequestId(1))));
    host.ledger = host.rebuilt();
    assert!(
        host.ledger.requests().all(|held| held.votes.is_empty()),
        "her agreement does not count any more"
    );
    let seen = host.as_shown(RequestId(1)).seen;
    let breaking = |uid| {
        let command = Command::BreakGlass {
            request: RequestId(1),
            seen: seen.clone(),
            reason: "it burns".into(),
            signer: None,
        };
        (caller(uid, None), command)
    };
    for command in [
        host.approving(RequestId(1)),
        Command::Deny(RequestId(1), "no".into()),
        breaking(ALICE).1,
    ] {
        let decided = host.run(at(3), &rules, &alice, command);
        assert_eq!(decided, Err(Code::SelfApproval));
    }
    let (bob, command) = breaking(5002);
    host.run(at(3), &rules, &bob, command).expect("opens");
    let review = Command::Review(GrantId(1), "seen".into());
    assert_eq!(
        host.run(at(4), &rules, &alice, review.clone()),
        Err(Code::ReviewRefused)
    );
    let carol = caller(5003, None);
    assert!(host.run(at(4), &rules, &carol, review).is_ok());
}

#[test]
fn only_so_many_uids_queries_wait_with_one_request() {
    let mut host = Host::default();
    host.run(at(1), &policy(false), &bot(), ask("p.finance:read", "1m"))
        .expect("asked");
    let join = |host: &Host, uid: u32| {
        let query = wanted("p.finance:read", "SELECT 1");
        let process = caller(uid, Some("bot"));
        let joins = host.ledger.of_query(at(2), &policy(false), &process, query);
        joins.map_err(|refusal| refusal.code)
    };
    let most = u32::try_from(JOINED_UIDS_MAX).expect("few");
    for uid in 3000..3000 + most {
        let Ok(OfQuery::JoinsAsAnother(_, decision)) = join(&host, uid) else {
            panic!("there is room")
        };
        host.record(at(2), &decision);
    }
    assert_eq!(join(&host, 4000), Err(Code::TooManyPending));
    assert_eq!(join(&host, 3000), Ok(OfQuery::Joins(RequestId(1))));
}

#[test]
fn what_ends_with_a_process_is_withdrawn_or_given_back_and_joined_by_no_query() {
    let mut host = Host::default();
    host.run(at(1), &policy(false), &bot(), for_run(60))
        .expect("asked");
    let joined = host.of_query(at(1), "p.finance:read", "SELECT 1");
    assert!(matches!(joined, Ok(OfQuery::Asks(_))));
    let others = caller(2002, Some("ops"));
    let nothing = host.run(
        at(2),
        &policy(false),
        &others,
        Command::Withdraw(RequestId(1)),
    );
    assert_eq!(
        nothing,
        Ok(Decision::default()),
        "another agent ends nothing"
    );
    host.run(
        at(2),
        &policy(false),
        &bot(),
        Command::Withdraw(RequestId(1)),
    )
    .expect("withdrawn");
    let late = host.agree(at(3), RequestId(1));
    assert_eq!(
        late,
        Err(Code::NotPending),
        "nobody is left who would use it"
    );

    host.run(at(4), &policy(false), &bot(), for_run(60))
        .expect("asked");
    let request = *host.pending().last().expect("one");
    host.agree(at(4), request).expect("approved");
    let watched: Vec<_> = host
        .ledger
        .ending_with_processes()
        .map(|(_, request, process)| (request, process.pid))
        .collect();
    assert_eq!(watched, [(request, 7)]);
    let closed = host.run(at(5), &policy(false), &bot(), Command::Withdraw(request));
    let closed = closed.expect("closed");
    assert_eq!(closed.first.len(), 1);
    let is_why = |event: &Event| matches!(event, Event::Closed { reason, .. } if *reason == CloseReason::ProcessEnded);
    assert!(closed.events.iter().any(is_why), "{closed:?}");
    assert_eq!(host.ledger.ending_with_processes().count(), 0);
    assert_eq!(host.rebuilt(), host.ledger);
}

#[test]
fn the_process_that_a_window_ends_with_gives_it_back_from_outside_the_workload_and_no_other_does() {
    let mut host = Host::default();
    host.run(at(1), &policy(false), &bot(), for_run(60))
        .expect("asked");
    host.agree(at(1), RequestId(1)).expect("approved");
    let runner = caller(2001, None);
    let mut other = runner.clone();
    other.process.start_boot_ns = 2;
    let give_back = || Command::Close(GrantId(1));
    assert_eq!(
        host.run(at(2), &policy(false), &other, give_back()),
        Err(Code::CallerForbidden)
    );
    let given_back = |host: &mut Host, caller: &Caller| {
        let decided = host.run(at(2), &policy(false), caller, give_back());
        decided.map(|decision| decision.events.len())
    };
    assert_eq!(given_back(&mut host, &runner), Ok(1));
    // It says so also where the daemon has seen the end itself; for others it is closed.
    assert_eq!(given_back(&mut host, &runner), Ok(0));
    let mut own = bot();
    own.process.start_boot_ns = 2;
    assert_eq!(given_back(&mut host, &own), Err(Code::NotOpen));
    assert_eq!(given_back(&mut host, &other), Err(Code::CallerForbidden));
}

/// A query whose text names `scope`, and of which the dry run says that it needs `needs`.
fn estimated(scope: &str, needs: &str) -> Wanted {
    let mut wanted = wanted(scope, "SELECT 1");
    wanted.from.estimate = Some(Estimate {
        bytes: Some(80),
        tables: vec!["p.hr.salaries".parse().expect("a table")],
        ..Estimate::default()
    });
    wanted.needs = Some(needs.parse().expect("a scope"));
    wanted
}

/// A policy whose second rule covers `p.hr` as well, for less time, by another approver.
fn with_hr() -> Policy {
    let mut policy = policy(false);
    let mut wide = policy.rules[0].clone();
    wide.datasets.push("p.hr".parse().expect("exact"));
    wide.ttl_max = "5m".parse().expect("a ttl");
    wide.approvers.uids = [ALICE + 1].into();
    wide.limits.pending_ttl_s = PENDING_TTL_S / 2;
    policy.rules.push(wide);
    policy
}

#[test]
fn a_query_asks_for_all_that_the_dry_run_says_and_its_agent_is_shown_what_its_text_names() {
    let mut host = Host::default();
    let asked = host.of_wanted(
        at(1),
        &with_hr(),
        estimated("p.finance:read", "p.finance,p.hr:read"),
    );
    assert!(matches!(asked, Ok(OfQuery::Asks(_))));
    let request = host.ledger.request(RequestId(1)).expect("asked").clone();
    assert_eq!(request.ask.scope.to_string(), "p.finance,p.hr:read");
    assert_eq!(
        (request.rule, request.ask.ttl.to_string()),
        (2, "5m".to_owned())
    );
    let from = request.from_query.as_ref().expect("of a query");
    let named = from.named.as_ref().expect("it differs");
    assert!(from.is_verified && from.estimate.is_some());
    assert_eq!(
        (named.scope.to_string(), named.rule, named.ttl.to_string()),
        ("p.finance:read".to_owned(), 1, "15m".to_owned())
    );
    assert_eq!(request.shown_scope(), &named.scope);
    // Nobody but who may decide on all of it does.
    let terms = host.as_shown(RequestId(1));
    let approve = Command::Approve(RequestId(1), terms);
    let alice = caller(ALICE, None);
    let refused = host.run(at(2), &with_hr(), &alice, approve.clone());
    assert_eq!(refused, Err(Code::CallerForbidden));
    let other = caller(ALICE + 1, None);
    assert!(host.run(at(2), &with_hr(), &other, approve).is_ok());
    let grant = host.ledger.grant(GrantId(1)).expect("open");
    assert_eq!(grant.scope.to_string(), "p.finance,p.hr:read");
    assert!(!grant.is_of_text);
    assert_eq!(host.rebuilt(), host.ledger);
}

#[test]
fn where_nobody_can_be_asked_for_all_of_it_the_request_is_that_of_the_text_and_says_why() {
    let asked = |wanted: Wanted| {
        let mut host = Host::default();
        let asked = host.of_wanted(at(1), &policy(false), wanted);
        assert!(
            matches!(asked, Ok(OfQuery::Asks(_))),
            "its agent sees no difference"
        );
        host.ledger.request(RequestId(1)).expect("asked").clone()
    };
    let plain = asked(wanted("p.finance:read", "SELECT 1"));
    for needs in ["p.finance,p.hr:read", "p.sales_eu:read"] {
        let request = asked(estimated("p.finance:read", needs));
        let from = request.from_query.clone().expect("of a query");
        assert!(!from.is_verified && from.named.is_none());
        let failed = from.estimate.as_ref().expect("it was asked").failed.clone();
        assert!(failed.is_some_and(|why| why.contains("for what the text names")));
        assert_ne!(request.digest, plain.digest);
        let shown = Request {
            from_query: Some(from.without_estimate()),
            digest: plain.digest.clone(),
            ..request
        };
        assert_eq!(shown, plain);
    }
}

#[test]
fn whether_a_query_joins_does_not_tell_what_the_dry_run_said_of_it_or_of_what_waits() {
    let mut host = Host::default();
    let policy = with_hr();
    let view = || estimated("p.finance:read", "p.finance,p.hr:read");
    assert!(matches!(
        host.of_wanted(at(1), &policy, view()),
        Ok(OfQuery::Asks(_))
    ));
    // What waits is wider than it shows: what only its hidden part covers does not join.
    let hidden = host.of_wanted(at(2), &policy, wanted("p.hr:read", "SELECT 2"));
    assert!(matches!(hidden, Ok(OfQuery::Asks(_))));
    // A query whose text it covers joins, whatever the dry run says of it.
    for needs in [
        "p.finance:read",
        "p.finance,p.hr:read",
        "p.finance,p.sales_eu:read",
    ] {
        let joins = host.of_wanted(at(3), &policy, estimated("p.finance:read", needs));
        assert_eq!(joins, Ok(OfQuery::Joins(RequestId(1))));
    }
}

proptest! {
    #[test]
    fn what_an_agent_is_shown_and_told_is_the_same_whatever_the_dry_run_says(
        names in prop::collection::vec(0_usize..4, 1..4),
        more in prop::collection::vec(prop::collection::vec(0_usize..6, 0..4), 1..4),
        fails in prop::collection::vec(any::<bool>(), 1..4),
    ) {
        const DATASETS: [&str; 6] = ["p.finance", "p.sales_eu", "p.sales_us", "p.nobody", "p.hr", "q.far"];
        let scope = |names: &[usize]| {
            let names: BTreeSet<usize> = names.iter().copied().collect();
            let names: Vec<&str> = names.iter().map(|at| DATASETS[*at]).collect();
            format!("{}:read", names.join(","))
        };
        // The same rules for all, so that time tells nothing.
        let mut policy = with_hr();
        policy.rules[1].limits = LOOSE;
        let (mut blind, mut seeing) = (Host::default(), Host::default());
        for (second, name) in (1_u64..).zip(&names) {
            let at_step = usize::try_from(second).expect("small") - 1;
            let text = scope(&[*name]);
            let extra = more.get(at_step).cloned().unwrap_or_default();
            let mut asks = estimated(&text, &scope(&[&extra[..], &[*name]].concat()));
            if fails.get(at_step).copied().unwrap_or(false) {
                asks.from.estimate = Some(Estimate::failed("it took too long"));
                asks.needs = None;
            }
            let told = |come_to: Result<OfQuery, Code>| come_to.map(|come_to| match come_to {
                OfQuery::Joins(request) | OfQuery::JoinsAsAnother(request, _) => Some(request),
                OfQuery::Asks(_) => None,
            });
            let one = told(blind.of_wanted(at(second), &policy, wanted(&text, "SELECT 1")));
            let two = told(seeing.of_wanted(at(second), &policy, asks));
            prop_assert_eq!(one, two);
        }
        let shown = |host: &Host| -> Vec<_> {
            let requests = host.ledger.requests();
            requests.map(|held| (held.id, held.shown_scope().clone(), held.expires_boot_ns, held.state.clone())).collect()
        };
        prop_assert_eq!(shown(&blind), shown(&seeing));
    }
}

#[derive(Debug, Clone)]
enum Step {
    OfQuery { dataset: u8 },
    ForRun,
    Approve { request: u64 },
    Deny { request: u64 },
    Withdraw { request: u64 },
    Done,
    Wait { seconds: u64 },
    Restart { same_boot: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u8..8).prop_map(|dataset| Step::OfQuery { dataset }),
        Just(Step::ForRun),
        (1_u64..16).prop_map(|request| Step::Approve { request }),
        (1_u64..16).prop_map(|request| Step::Deny { request }),
        (1_u64..16).prop_map(|request| Step::Withdraw { request }),
        Just(Step::Done),
        (0_u64..700).prop_map(|seconds| Step::Wait { seconds }),
        any::<bool>().prop_map(|same_boot| Step::Restart { same_boot }),
    ]
}

proptest! {
    #[test]
    fn every_request_ends_once_and_nothing_of_a_process_outlives_it(steps in prop::collection::vec(step(), 0..60)) {
        let mut host = Host::default();
        let mut second = 1;
        for step in steps {
            let now = at(second);
            match step {
                Step::OfQuery { dataset } => drop(host.of_query(now, &format!("p.sales_{dataset}:read"), "SELECT 1")),
                Step::ForRun => drop(host.run(now, &policy(false), &bot(), for_run(600))),
                Step::Approve { request } => drop(host.agree(now, RequestId(request))),
                Step::Deny { request } => drop(host.by_alice(now, Command::Deny(RequestId(request), "no".into()))),
                Step::Withdraw { request } => {
                    let request = RequestId(request);
                    host.run(now, &policy(false), &bot(), Command::Withdraw(request)).expect("never refused");
                    prop_assert!(host.ledger.ending_with_processes().all(|(_, left, _)| left != request));
                }
                Step::Done => drop(host.run(now, &policy(false), &bot(), Command::Done)),
                Step::Wait { seconds } => second = wait(&mut host, second, seconds),
                Step::Restart { same_boot } => {
                    host.ledger = host.rebuilt();
                    let due = host.ledger.resume(now, same_boot, |_| true);
                    host.record(now, &due);
                }
            }
            let waiting = host.ledger.index.of_queries();
            prop_assert!(waiting <= OF_QUERIES_PER_AGENT_MAX);
            prop_assert_eq!(&host.ledger.index, &index_of(&host.ledger));
        }
        wait(&mut host, second, 13 * 3600);
        let ended: Vec<RequestId> = host.log.iter().filter_map(|(_, event)| event.ends_request()).collect();
        let once: BTreeSet<&RequestId> = ended.iter().collect();
        prop_assert_eq!(ended.len(), once.len(), "no request ends twice");
        prop_assert_eq!(ended.len(), host.ledger.requests().count());
    }
}
