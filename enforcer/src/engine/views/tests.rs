//! What finds room in a status, and what is told to whom.

use enforcer_proto::ledger::{ApproveTerms, Command};
use enforcer_proto::policy::{Alone, ApproverSet, Limits, Quorum, Rule};
use enforcer_proto::principal::{AgentName, Process, ProcessOrigin};

use super::*;

#[test]
fn long_views_are_left_out_before_the_frame_is_full() {
    let of = |current: &[u32], ended: &[u32], bytes: usize| {
        let held = ByRoom {
            current: current.iter().collect(),
            ended: ended.iter().collect(),
        };
        let seen = shown(&held, |_| "x".repeat(bytes));
        (seen.views.len(), seen.current_left_out, seen.ended_left_out)
    };
    assert_eq!(of(&[0; 64], &[0; 9], 100_000), (7, 57, 9));
    assert_eq!(of(&[0; 2], &[0; 64], 100_000), (7, 0, 59));
    let (open, ended) = (WAITING_MAX + 3, ENDED_MAX + 5);
    assert_eq!(
        of(&vec![0; open], &vec![0; ended], 9),
        (WAITING_MAX + ENDED_MAX, 3, 5)
    );
}

#[test]
fn what_the_caller_may_decide_on_finds_room_first_and_each_agents_oldest_before_the_next_of_any() {
    let policy = policy(["a", "b"].into_iter().map(str::to_owned));
    let now = at(1);
    let mut ledger = Ledger::default();
    // The first is of whoever looks, who cannot decide on it.
    for (uid, agent) in [(5001, "a"), (1, "a"), (1, "a"), (1, "a"), (1, "b")] {
        let ask = Ask {
            scope: "p.finance:read".parse().expect("a scope"),
            ttl: "1m".parse().expect("a ttl"),
            reason: "x".into(),
            bytes_max: None,
            queries_max: None,
        };
        let asked = Command::Request(ask);
        let asked = ledger.decide(now, &policy, &caller(uid, Some(agent)), asked);
        for event in asked.expect("asked").events {
            ledger.apply(now, &event);
        }
    }
    let denied = Command::Deny("r-3".parse().expect("an id"), "no".into());
    let denied = ledger.decide(now, &policy, &caller(5001, None), denied);
    for event in denied.expect("denied").events {
        ledger.apply(now, &event);
    }
    let order = |caller: &Caller| -> Vec<u64> {
        let ByRoom { current, ended } = by_room(&policy, &ledger, caller);
        let order = current.into_iter().chain(ended);
        order.map(|held| held.id.0).collect()
    };
    assert_eq!(order(&caller(5001, None)), [2, 5, 4, 1, 3]);
    assert_eq!(order(&caller(1, Some("b"))), [5]);
}

/// One rule for these agents, decided on by uid 5001.
fn policy(agents: impl Iterator<Item = String>) -> Policy {
    let rule = Rule {
        agents: agents.map(|name| name.parse().expect("a name")).collect(),
        datasets: vec!["p.finance".parse().expect("exact")],
        writable: Vec::new(),
        ddl: Vec::new(),
        buckets: BTreeMap::new(),
        ttl_max: "1h".parse().expect("a ttl"),
        budget: Budget::UNBOUNDED,
        approvers: ApproverSet {
            uids: [5001].into(),
            gids: [].into(),
        },
        quorum: Quorum::one(),
        must_sign: false,
        alone: Alone::Never,
        break_glass: None,
        limits: Limits {
            windows_at_once_max: usize::MAX,
            ..Limits::TIGHT
        },
    };
    Policy {
        rules: vec![rule],
        signers: Vec::new(),
        own_uids: BTreeMap::new(),
        digest: String::new(),
    }
}

const fn at(ns: u64) -> Now {
    Now {
        boot_ns: ns,
        unix_ns: ns,
    }
}

fn process(uid: u32) -> Process {
    Process {
        pid: 7,
        start_boot_ns: 1,
        uid,
        comm: "x".into(),
    }
}

fn caller(uid: u32, agent: Option<&str>) -> Caller {
    Caller {
        process: process(uid),
        gids: [].into(),
        agent: agent.map(|name| name.parse().expect("a name")),
    }
}

fn bot(number: usize) -> String {
    format!("bot-{number:04}")
}

fn asks_for() -> Ask {
    Ask {
        scope: "p.finance:read".parse().expect("a scope"),
        ttl: "1m".parse().expect("a ttl"),
        reason: "month end: the totals of October".into(),
        bytes_max: None,
        queries_max: None,
    }
}

/// Has each of these agents ask, from a shell that somebody logged in for.
fn ask(ledger: &mut Ledger, policy: &Policy, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let caller = caller(2001, Some(&bot(number)));
        let asked = ledger.decide(at(1), policy, &caller, Command::Request(asks_for()));
        let origin = ProcessOrigin {
            ancestors: vec![process(2001); 3],
            cgroup: format!("/system.slice/{}.service", bot(number)),
            ..ProcessOrigin::default()
        };
        let asked = crate::engine::asking::with_origin(asked.expect("asked"), Some(origin));
        for event in asked.events {
            ledger.apply(at(1), &event);
        }
    }
}

/// Has everything that waits approved.
fn approve(ledger: &mut Ledger, policy: &Policy) {
    let waiting = ledger.requests();
    let waiting = waiting.filter(|held| held.state == RequestState::Pending);
    let waiting: Vec<_> = waiting
        .map(|held| (held.id, held.offered(&policy.rules[0]).digest))
        .collect();
    for (id, seen) in waiting {
        let terms = ApproveTerms {
            seen,
            ..ApproveTerms::default()
        };
        let command = Command::Approve(id, terms);
        let done = ledger.decide(at(1), policy, &caller(5001, None), command);
        for event in done.expect("approved").events {
            ledger.apply(at(1), &event);
        }
    }
}

#[test]
fn a_thousand_windows_requests_and_agents_find_room_in_one_status() {
    let policy = policy((0..1000).map(bot));
    let mut ledger = Ledger::default();
    ask(&mut ledger, &policy, 0..1000);
    approve(&mut ledger, &policy);
    ask(&mut ledger, &policy, 0..1000);
    let root = caller(0, None);
    let grants = grants(at(2), &ledger, &root);
    assert_eq!((grants.views.len(), grants.current_left_out), (1000, 0));
    let held = by_room(&policy, &ledger, &root);
    let requests = requests(at(2), &policy, &ledger, &Waiting::default(), &root, &held);
    let pending = requests.views.iter().filter(|view| view.state == "pending");
    assert_eq!((pending.count(), requests.current_left_out), (1000, 0));
    let (agents, left_out) = agents(at(2), &policy, &ledger, &root);
    assert_eq!((agents.len(), left_out), (1000, 0));
    let bytes = encoded_bytes(&(&grants.views, &requests.views, &agents));
    assert!(bytes <= 2 * SHOWN_BYTES_MAX + AGENTS_BYTES_MAX);
}

#[test]
fn agents_with_windows_or_requests_find_room_before_others_and_the_rest_are_counted() {
    let policy = policy((0..1100).map(bot));
    let mut ledger = Ledger::default();
    ask(&mut ledger, &policy, 1090..1095);
    approve(&mut ledger, &policy);
    ask(&mut ledger, &policy, 1095..1100);
    let (seen, left_out) = agents(at(2), &policy, &ledger, &caller(0, None));
    assert_eq!((seen.len(), left_out), (1024, 76));
    assert!(seen.iter().map(|view| &view.agent).is_sorted());
    let has = |number| {
        let name: AgentName = bot(number).parse().expect("a name");
        seen.iter().any(|view| view.agent == name)
    };
    assert!((1090..1100).all(has) && has(0) && !has(1089));
    let (own, left_out) = agents(at(2), &policy, &ledger, &caller(1, Some(&bot(7))));
    assert_eq!((own.len(), left_out), (1, 0));
}

#[test]
fn the_rules_of_what_waits_are_told_to_those_who_watch_over_an_agent_of_theirs_alone() {
    let policy = policy((0..200).map(bot));
    let mut ledger = Ledger::default();
    ask(&mut ledger, &policy, 1..3);
    let told = |caller: &Caller| {
        let held = by_room(&policy, &ledger, caller);
        let seen = requests(at(2), &policy, &ledger, &Waiting::default(), caller, &held);
        rules(&policy, caller, &seen.views)
    };
    let said = told(&caller(0, None));
    assert_eq!((said.len(), said[0].rule), (1, 1));
    assert!(said[0].said.starts_with("agents "), "{said:?}");
    assert!(said[0].said.len() <= RULE_BYTES_MAX);
    assert_eq!(told(&caller(77, None)), []);
    approve(&mut ledger, &policy);
    let held = by_room(&policy, &ledger, &caller(0, None));
    let seen = requests(
        at(2),
        &policy,
        &ledger,
        &Waiting::default(),
        &caller(0, None),
        &held,
    );
    assert_eq!(
        rules(&policy, &caller(0, None), &seen.views),
        [],
        "nothing waits"
    );
}

#[test]
fn where_who_asks_comes_from_is_told_to_those_who_watch_over_the_agent_alone() {
    let policy = policy(std::iter::once(bot(1)));
    let mut ledger = Ledger::default();
    ask(&mut ledger, &policy, 1..2);
    let seen = |caller: &Caller| {
        let held = by_room(&policy, &ledger, caller);
        let mut seen = requests(at(2), &policy, &ledger, &Waiting::default(), caller, &held);
        let view = seen.views.pop().expect("it waits");
        (view.comm, view.origin.map(|origin| origin.cgroup))
    };
    let told = (
        "x".to_owned(),
        Some("/system.slice/bot-0001.service".to_owned()),
    );
    assert_eq!(seen(&caller(0, None)), told);
    assert_eq!(seen(&caller(5001, None)), told);
    let nothing = (String::new(), None);
    assert_eq!(seen(&caller(2001, Some(&bot(1)))), nothing);
    assert_eq!(
        seen(&caller(5001, Some(&bot(1)))),
        nothing,
        "whoever's uid it has"
    );
    assert_eq!(seen(&caller(3000, None)), nothing);
}

#[test]
fn where_who_asks_comes_from_is_no_part_of_what_is_agreed_to() {
    let policy = policy(std::iter::once(bot(1)));
    let (mut with, mut without) = (Ledger::default(), Ledger::default());
    ask(&mut with, &policy, 1..2);
    let asked = Command::Request(asks_for());
    let asked = without.decide(at(1), &policy, &caller(2001, Some(&bot(1))), asked);
    for event in asked.expect("asked").events {
        without.apply(at(1), &event);
    }
    let digest = |ledger: &Ledger| {
        let mut held = ledger.requests();
        held.next()
            .map(|held| held.digest.clone())
            .expect("it waits")
    };
    assert_eq!(digest(&with), digest(&without));
}

#[test]
fn where_a_signature_is_asked_for_whoever_looks_is_told_and_how_to_give_it() {
    let mut policy = policy((0..1).map(bot));
    let mut ledger = Ledger::default();
    ask(&mut ledger, &policy, 0..1);
    let wanting = |policy: &Policy, ledger: &Ledger| {
        let held = ledger.requests().next().expect("one waits");
        let view = request(at(2), policy, ledger, &Waiting::default(), held);
        view.wanting.expect("somebody must agree")
    };
    assert_eq!(
        wanting(&policy, &ledger),
        "one more person, of: one of uids 5001"
    );
    policy.rules[0].must_sign = true;
    let said = wanting(&policy, &ledger);
    assert!(
        said.ends_with(
            "; only signed, which the console cannot do: enforcer approve r-1 --sign KEY"
        ),
        "{said}"
    );
}
