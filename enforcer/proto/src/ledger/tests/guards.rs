//! Each check of a decision by itself: what it alone holds back.

use super::*;
use crate::asking::FromQuery;
use crate::policy::{BreakGlass, PENDING_PER_AGENT_MAX};

const BOB: u32 = 5002;
const MALLORY: u32 = 6001;
const DAY_S: u64 = 24 * 3600;

/// Alice and Bob may decide, and either may open in an emergency.
fn rules() -> Policy {
    let mut rules = policy(false);
    let rule = &mut rules.rules[0];
    rule.approvers.uids = [ALICE, BOB].into();
    rule.break_glass = Some(BreakGlass {
        who: rule.approvers.clone(),
        ttl_max: "1m".parse().expect("a ttl"),
    });
    rules
}

fn asked(second: u64) -> Host {
    let mut host = Host::default();
    host.run(at(second), &rules(), &bot(), ask("p.finance:read", "10m"))
        .expect("asked");
    host
}

fn by(host: &mut Host, second: u64, caller: &Caller, command: Command) -> Result<(), Code> {
    host.run(at(second), &rules(), caller, command).map(|_| ())
}

/// An approver in an agent's workload.
fn inside() -> Caller {
    caller(ALICE, Some("other"))
}

fn breaking(seen: &str) -> Command {
    Command::BreakGlass {
        request: RequestId(1),
        seen: seen.to_owned(),
        reason: "payroll is stuck".into(),
        signer: None,
    }
}

#[test]
fn a_denial_takes_one_who_may_decide() {
    let mut host = asked(1);
    let deny = || Command::Deny(RequestId(1), "no".into());
    let refused = |host: &mut Host, caller| by(host, 2, &caller, deny());
    let forbidden = Err(Code::CallerForbidden);
    assert_eq!(refused(&mut host, caller(MALLORY, None)), forbidden);
    assert_eq!(refused(&mut host, caller(0, None)), forbidden);
    assert_eq!(refused(&mut host, inside()), Err(Code::SelfApproval));
    assert_eq!(refused(&mut host, bot()), Err(Code::SelfApproval));
    assert_eq!(refused(&mut host, caller(BOB, None)), Ok(()));
}

#[test]
fn an_emergency_takes_what_was_shown_and_a_signature_where_the_rule_asks_for_one() {
    let mut host = asked(1);
    let alice = caller(ALICE, None);
    let stale = by(&mut host, 2, &alice, breaking(&"0".repeat(64)));
    assert_eq!(stale, Err(Code::DigestChanged));
    let mut signed = rules();
    signed.rules[0].must_sign = true;
    let seen = host.as_shown(RequestId(1)).seen;
    let unsigned = host.run(at(2), &signed, &alice, breaking(&seen));
    assert_eq!(unsigned, Err(Code::SignatureNeeded));
    assert_eq!(
        by(&mut host, 2, &inside(), breaking(&seen)),
        Err(Code::SelfApproval)
    );
    assert_eq!(by(&mut host, 2, &alice, breaking(&seen)), Ok(()));
}

#[test]
fn nobody_in_a_workload_ends_a_window_of_anothers_or_reviews_an_emergency() {
    let mut host = asked(1);
    let seen = host.as_shown(RequestId(1)).seen;
    by(&mut host, 2, &caller(ALICE, None), breaking(&seen)).expect("opens");
    let forbidden = Err(Code::CallerForbidden);
    let root_inside = caller(0, Some("other"));
    for caller in [inside(), root_inside, caller(BOB, Some("bot"))] {
        let review = Command::Review(GrantId(1), "fine".into());
        assert_eq!(by(&mut host, 3, &caller, review), forbidden);
        assert_eq!(
            by(&mut host, 3, &caller, Command::Revoke(GrantId(1))),
            forbidden
        );
    }
    let revoke = Command::Revoke(GrantId(1));
    assert_eq!(by(&mut host, 3, &caller(BOB, None), revoke), Ok(()));
}

#[test]
fn an_agent_is_told_the_same_of_what_is_anothers_and_of_what_is_not_there() {
    let mut host = asked(1);
    let seen = host.as_shown(RequestId(1)).seen;
    let other = caller(2002, Some("other"));
    let told = |host: &mut Host, of: u64| {
        let approve = ApproveTerms {
            seen: seen.clone(),
            ..ApproveTerms::default()
        };
        [
            Command::Approve(RequestId(of), approve),
            Command::Deny(RequestId(of), "no".into()),
            Command::BreakGlass {
                request: RequestId(of),
                seen: seen.clone(),
                reason: "payroll is stuck".into(),
                signer: None,
            },
            Command::Revoke(GrantId(of)),
            Command::Close(GrantId(of)),
            Command::Review(GrantId(of), "fine".into()),
        ]
        .map(|command| host.ledger.decide(at(3), &rules(), &other, command))
        .map(|refused| {
            refused
                .map(drop)
                .map_err(|refusal| refusal.to_string().replace(&of.to_string(), "N"))
        })
    };
    // One that waits, or is open, another's; and one that never was.
    let of_one_that_waits = told(&mut host, 1);
    by(&mut host, 2, &caller(ALICE, None), breaking(&seen)).expect("opens");
    let of_one_that_is_open = told(&mut host, 1);
    by(
        &mut host,
        3,
        &caller(BOB, None),
        Command::Revoke(GrantId(1)),
    )
    .expect("ends");
    let of_one_that_is_over = told(&mut host, 1);
    let of_none = told(&mut host, 7);
    assert!(of_none.iter().all(Result::is_err));
    for of_one in [of_one_that_waits, of_one_that_is_open, of_one_that_is_over] {
        assert_eq!(of_one, of_none);
    }
    // Of its own it is told what there is.
    let own = by(&mut host, 4, &bot(), Command::Close(GrantId(1)));
    assert_eq!(own, Err(Code::NotOpen));
}

#[test]
fn what_ends_while_something_is_recorded_is_windows_whose_time_is_up_alone() {
    let mut host = Host::default();
    let grant = host.open(at(1), "10s");
    host.run(
        at(2),
        &policy(false),
        &caller(2002, Some("other")),
        ask("p.finance:read", "10s"),
    )
    .expect_err("nothing covers it");
    assert!(host.ledger.ended(at(10)).events.is_empty());
    let ended = host.ledger.ended(at(11));
    assert!(
        matches!(ended.events[..], [Event::Closed { grant: closed, reason: CloseReason::Expired, .. }] if closed == grant)
    );
    host.record(at(11), &ended);
    assert!(host.ledger.ended(at(11)).events.is_empty(), "once");
    // A request that nobody decided in time may be the one that is being decided.
    host.run(at(20), &policy(false), &bot(), ask("p.finance:read", "10s"))
        .expect("asked");
    let late = at(20 + DAY_S);
    assert!(!host.ledger.tick(late).events.is_empty() && host.ledger.ended(late).events.is_empty());
}

#[test]
fn the_share_of_a_day_holds_for_what_was_asked_before_it_was_used_up() {
    let mut rules = rules();
    // A hundredth: 14 minutes and 24 seconds.
    rules.rules[0].limits.duty_percent_max = 1;
    let mut host = Host::default();
    for _ in 0..2 {
        host.run(at(1), &rules, &bot(), ask("p.finance:read", "9m"))
            .expect("asked");
    }
    let approve = |host: &mut Host, second, id| {
        let command = host.approving(RequestId(id));
        host.run(at(second), &rules, &caller(ALICE, None), command)
            .map(|_| ())
    };
    assert_eq!(approve(&mut host, 1, 1), Ok(()));
    wait(&mut host, 1, 560);
    assert_eq!(approve(&mut host, 570, 2), Err(Code::DutyCycle));
}

#[test]
fn what_has_waited_too_long_is_not_decided_on_before_that_is_said_either() {
    let late = 1 + PENDING_TTL_S;
    let not_pending = Err(Code::NotPending);
    let host = asked(1);
    let seen = host.as_shown(RequestId(1)).seen;
    let alice = caller(ALICE, None);
    for command in [
        host.approving(RequestId(1)),
        Command::Deny(RequestId(1), "no".into()),
        breaking(&seen),
    ] {
        assert_eq!(
            by(&mut asked(1), late, &alice, command.clone()),
            not_pending
        );
        assert_eq!(by(&mut asked(1), late - 1, &alice, command), Ok(()));
    }
}

#[test]
fn only_so_many_requests_of_an_agent_wait() {
    let mut host = Host::default();
    let asks = |host: &mut Host| by(host, 1, &bot(), ask("p.finance:read", "1m"));
    for _ in 0..PENDING_PER_AGENT_MAX {
        assert_eq!(asks(&mut host), Ok(()));
    }
    assert_eq!(asks(&mut host), Err(Code::TooManyPending));
    let deny = Command::Deny(RequestId(1), "no".into());
    by(&mut host, 1, &caller(ALICE, None), deny).expect("denied");
    assert_eq!(asks(&mut host), Ok(()), "one has made room");
}

#[test]
fn an_emergency_that_nobody_has_looked_at_keeps_its_records_however_old() {
    let mut host = Host::default();
    host.ledger.in_boot("a");
    host.ledger.apply(at(0), &Event::DaemonStopped {});
    let asking = ask("p.finance:read", "10m");
    by(&mut host, 10 * DAY_S, &bot(), asking).expect("asked");
    let seen = host.as_shown(RequestId(1)).seen;
    let second = 1 + 10 * DAY_S;
    by(&mut host, second, &caller(ALICE, None), breaking(&seen)).expect("opens");
    wait(&mut host, second, 40 * DAY_S);
    let now = at(second + 40 * DAY_S);
    let is_needed = |host: &Host, second: u64| {
        let needed = host.ledger.needed(now);
        !needed.is_after("a", at(second).boot_ns)
    };
    assert!(is_needed(&host, 10 * DAY_S));
    let review = Command::Review(GrantId(1), "it was".into());
    let bob = caller(BOB, None);
    by(&mut host, second + 40 * DAY_S, &bob, review).expect("reviewed");
    assert!(!is_needed(&host, 40 * DAY_S));
}

#[test]
fn a_reboot_ends_what_waits_for_a_decision() {
    let mut host = asked(100);
    let approving = host.approving(RequestId(1));
    let due = host.rebuilt().resume(at(5), false, |_| true);
    host.record(at(5), &due);
    let state = host.ledger.request(RequestId(1)).map(|held| &held.state);
    assert_eq!(state, Some(&RequestState::Expired));
    let late = by(&mut host, 6, &caller(ALICE, None), approving);
    assert_eq!(late, Err(Code::NotPending));
    let kept = asked(100).ledger.resume(at(101), true, |_| true);
    assert_eq!(kept, Decision::default(), "a restart ends nothing");
}

#[test]
fn a_window_whose_end_was_seen_late_was_open_for_no_longer_than_was_granted() {
    let mut host = asked(1);
    let approving = host.approving(RequestId(1));
    by(&mut host, 1, &caller(ALICE, None), approving).expect("opens");
    // Nothing ran for two hours.
    let due = host.ledger.tick(at(7201));
    host.record(at(7201), &due);
    let agent = "bot".parse().expect("a name");
    assert_eq!(host.ledger.held_in_day(&agent, at(7201)), 600 * NS_PER_S);
}

#[test]
fn a_query_joins_no_request_that_an_approver_has_made_less_than_it_needs() {
    let mut rules = rules();
    rules.rules[0].quorum.count = 2;
    let mut host = Host::default();
    let both = ask("p.finance,p.sales_eu:read", "10m");
    host.run(at(1), &rules, &bot(), both).expect("asked");
    let of_query = |host: &Host, scope: &str| {
        let wanted = Wanted {
            scope: scope.parse().expect("a scope"),
            ttl: "10m".parse().expect("a ttl"),
            from: FromQuery::of_text(Method::JobsQuery, Some("SELECT 1")),
            needs: None,
        };
        host.ledger.of_query(at(2), &rules, &bot(), wanted)
    };
    let joins = Ok(OfQuery::Joins(RequestId(1)));
    assert_eq!(of_query(&host, "p.sales_eu:read"), joins);
    let terms = ApproveTerms {
        scope: Some("p.finance:read".parse().expect("a scope")),
        ..host.as_shown(RequestId(1))
    };
    let narrower = Command::Approve(RequestId(1), terms);
    host.run(at(2), &rules, &caller(ALICE, None), narrower)
        .expect("counted");
    assert_eq!(of_query(&host, "p.finance:read"), joins);
    let other = of_query(&host, "p.sales_eu:read");
    assert!(matches!(other, Ok(OfQuery::Asks(_))));
}
