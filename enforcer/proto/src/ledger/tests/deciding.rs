//! Who agrees, how many, and to what: quorums, emergencies, and that a request ends once whatever the order.

use std::collections::BTreeSet;

use super::*;
use crate::policy::{BreakGlass, Signer};

const BOB: u32 = 5002;
const CAROL: u32 = 5003;
const MALLORY: u32 = 6001;

/// Alice, Bob and Carol may decide, and two of them must; Carol may open alone in an emergency.
fn two_of_three() -> Policy {
    let mut rules = policy(false);
    let rule = &mut rules.rules[0];
    rule.approvers.uids = [ALICE, BOB, CAROL].into();
    rule.quorum.count = 2;
    rule.break_glass = Some(BreakGlass {
        who: ApproverSet {
            uids: [CAROL].into(),
            gids: [].into(),
        },
        ttl_max: "1m".parse().expect("a ttl"),
    });
    rules
}

fn asked(rules: &Policy) -> Host {
    let mut host = Host::default();
    host.run(
        at(1),
        rules,
        &bot(),
        ask("p.finance,p.sales_eu:read", "10m"),
    )
    .expect("asked");
    host
}

fn agrees(host: &mut Host, rules: &Policy, uid: u32) -> Result<bool, Code> {
    let approving = host.approving(RequestId(1));
    host.run(at(2), rules, &caller(uid, None), approving)
        .map(|decision| !decision.then.is_empty())
}

#[test]
fn it_opens_with_the_last_of_those_who_must_agree_and_names_them_all() {
    let rules = two_of_three();
    let mut host = asked(&rules);
    assert_eq!(
        agrees(&mut host, &rules, MALLORY),
        Err(Code::CallerForbidden)
    );
    assert_eq!(agrees(&mut host, &rules, ALICE), Ok(false));
    assert_eq!(agrees(&mut host, &rules, ALICE), Err(Code::ApprovedAlready));
    host.ledger = host.rebuilt();
    assert_eq!(agrees(&mut host, &rules, BOB), Ok(true));
    let approved = host.log.iter().find_map(|(_, event)| {
        let Event::Approved {
            approver, agreed, ..
        } = event
        else {
            return None;
        };
        Some((approver.clone(), agreed.clone()))
    });
    let person = |uid| Approver::Person { uid };
    assert_eq!(approved, Some((person(BOB), vec![person(ALICE)])));
}

#[test]
fn one_of_each_group_must_agree() {
    let (security, data) = (70, 80);
    let mut rules = two_of_three();
    let rule = &mut rules.rules[0];
    rule.approvers.gids = [security, data].into();
    rule.quorum.each_group = [security, data].into();
    let mut host = asked(&rules);
    let agrees = |host: &mut Host, uid, gid| {
        let mut who = caller(uid, None);
        who.gids = [gid].into();
        let approving = host.approving(RequestId(1));
        host.run(at(2), &rules, &who, approving)
            .map(|decision| !decision.then.is_empty())
    };
    assert_eq!(agrees(&mut host, ALICE, security), Ok(false));
    assert_eq!(
        agrees(&mut host, BOB, security),
        Ok(false),
        "two of one group"
    );
    assert_eq!(agrees(&mut host, MALLORY, data), Ok(true));
}

#[test]
fn what_one_has_narrowed_is_what_the_next_is_shown() {
    let rules = two_of_three();
    let mut host = asked(&rules);
    let before = host.as_shown(RequestId(1));
    let narrower = ApproveTerms {
        ttl: Some("5m".parse().expect("a ttl")),
        scope: Some("p.finance:read".parse().expect("a scope")),
        ..before.clone()
    };
    let alice = caller(ALICE, None);
    host.run(
        at(2),
        &rules,
        &alice,
        Command::Approve(RequestId(1), narrower),
    )
    .expect("counted");
    let bob = caller(BOB, None);
    let stale = host.run(at(2), &rules, &bob, Command::Approve(RequestId(1), before));
    assert_eq!(stale, Err(Code::DigestChanged));
    let wider = ApproveTerms {
        ttl: Some("10m".parse().expect("a ttl")),
        ..host.as_shown(RequestId(1))
    };
    let widened = host.run(at(2), &rules, &bob, Command::Approve(RequestId(1), wider));
    assert_eq!(widened, Err(Code::ApprovalWider));
    assert_eq!(agrees(&mut host, &rules, BOB), Ok(true));
    let grant = host.ledger.grants().last().expect("one");
    assert_eq!(
        (grant.scope.to_string(), grant.closes_boot_ns),
        ("p.finance:read".to_owned(), at(302).boot_ns)
    );
}

/// What is shown of the first request under these rules.
fn offered(host: &Host, rules: &Policy) -> Offered {
    let request = host.ledger.request(RequestId(1)).expect("asked");
    request.offered(&rules.rules[0])
}

#[test]
fn what_a_window_may_use_is_what_was_shown_whatever_the_policy_has_become_since() {
    let mut rules = two_of_three();
    let shown = rules.rules[0].budget;
    let mut host = asked(&rules);
    assert_eq!(agrees(&mut host, &rules, ALICE), Ok(false));
    let bob_was_shown = offered(&host, &rules);
    assert_eq!(bob_was_shown.offer.budget, shown);
    let seen = |offered: &Offered| {
        let terms = ApproveTerms {
            seen: offered.digest.clone(),
            ..ApproveTerms::default()
        };
        Command::Approve(RequestId(1), terms)
    };
    let bob = caller(BOB, None);
    // Less than was shown is something else.
    for less in [
        Budget {
            bytes_max: 999,
            ..shown
        },
        Budget {
            query_bytes_max: 999,
            ..shown
        },
        Budget {
            returned_bytes_max: 999,
            ..shown
        },
        Budget {
            queries_max: 2,
            ..shown
        },
        Budget {
            jobs_at_once_max: 2,
            ..shown
        },
    ] {
        rules.rules[0].budget = less;
        let stale = host
            .ledger
            .decide(at(3), &rules, &bob, seen(&bob_was_shown));
        assert_eq!(
            stale.map_err(|refusal| refusal.code),
            Err(Code::DigestChanged)
        );
        assert_eq!(offered(&host, &rules).offer.budget, less);
    }
    // More is not given to what has been asked.
    rules.rules[0].budget = Budget::UNBOUNDED;
    assert_eq!(offered(&host, &rules), bob_was_shown);
    host.run(at(3), &rules, &bob, seen(&bob_was_shown))
        .expect("opens");
    assert_eq!(host.ledger.grants().last().expect("one").budget, shown);
}

#[test]
fn an_approver_gives_fewer_bytes_and_queries_and_the_next_no_more_than_that() {
    let rules = two_of_three();
    let mut host = asked(&rules);
    let agrees = |host: &mut Host, uid, bytes_max, queries_max| {
        let terms = ApproveTerms {
            bytes_max,
            queries_max,
            ..host.as_shown(RequestId(1))
        };
        let command = Command::Approve(RequestId(1), terms);
        host.run(at(2), &rules, &caller(uid, None), command)
            .map(|decision| !decision.then.is_empty())
    };
    let wider = Err(Code::ApprovalWider);
    assert_eq!(agrees(&mut host, ALICE, Some(1000 * MIB + 1), None), wider);
    assert_eq!(agrees(&mut host, ALICE, None, Some(4)), wider);
    let none = Err(Code::InputInvalid);
    assert_eq!(agrees(&mut host, ALICE, Some(0), None), none);
    assert_eq!(agrees(&mut host, ALICE, None, Some(0)), none);
    assert_eq!(agrees(&mut host, ALICE, Some(500), None), Ok(false));
    host.ledger = host.rebuilt();
    assert_eq!(agrees(&mut host, BOB, Some(501), None), wider);
    assert_eq!(agrees(&mut host, BOB, None, Some(2)), Ok(true));
    let budget = host.ledger.grants().last().expect("one").budget;
    assert_eq!((budget.bytes_max, budget.queries_max), (500, 2));
}

#[test]
fn another_reason_or_another_budget_is_another_digest() {
    let digest = |reason: &str, bytes_max, queries_max| {
        let mut host = Host::default();
        let asking = Command::Request(Ask {
            scope: "p.finance:read".parse().expect("a scope"),
            ttl: "1m".parse().expect("a ttl"),
            reason: reason.into(),
            bytes_max,
            queries_max,
        });
        host.run(at(1), &policy(false), &bot(), asking)
            .expect("asked");
        host.as_shown(RequestId(1)).seen
    };
    let digests: BTreeSet<String> = [
        digest("month end", None, None),
        digest("month end, and to my bucket", None, None),
        digest("month end", Some(999), None),
        digest("month end", None, Some(2)),
    ]
    .into();
    assert_eq!(digests.len(), 4);
}

#[test]
fn who_asked_does_not_review_the_emergency_that_was_opened_for_them() {
    let rules = two_of_three();
    let mut host = Host::default();
    // Alice asks for a command of the agent's, and Carol opens it.
    let runs = caller(ALICE, Some("bot"));
    host.run(at(1), &rules, &runs, ask("p.finance:read", "1m"))
        .expect("asked");
    let breaking = Command::BreakGlass {
        request: RequestId(1),
        seen: host.as_shown(RequestId(1)).seen,
        reason: "now".into(),
        signer: None,
    };
    host.run(at(1), &rules, &caller(CAROL, None), breaking)
        .expect("opens");
    host.ledger = host.rebuilt();
    let review = |host: &mut Host, uid| {
        let command = Command::Review(GrantId(1), "seen".into());
        host.run(at(2), &rules, &caller(uid, None), command)
            .map(|_| ())
    };
    assert_eq!(review(&mut host, ALICE), Err(Code::ReviewRefused));
    assert_eq!(review(&mut host, CAROL), Err(Code::ReviewRefused));
    assert_eq!(host.ledger.unreviewed().count(), 1);
    assert_eq!(review(&mut host, BOB), Ok(()));
}

#[test]
fn an_agents_own_uid_decides_on_nothing_of_that_agent_whoever_asked() {
    let own = 2001;
    let mut rules = two_of_three();
    rules.own_uids = [("bot".parse().expect("a name"), [own].into())].into();
    let rule = &mut rules.rules[0];
    rule.quorum.count = 1;
    // By its number, and by a group that it is in.
    rule.approvers.gids = [own].into();
    let glass = rule.break_glass.as_mut().expect("there is one");
    glass.who.gids = [own].into();
    let agent = caller(own, None);
    let mut host = Host::default();
    let Command::Request(asking) = ask("p.finance:read", "1m") else {
        unreachable!("it asks")
    };
    // Root asks, for a command of the agent's.
    let root = caller(0, Some("bot"));
    host.run(at(1), &rules, &root, Command::RequestForRun(asking))
        .expect("asked");
    let itself = Err(Code::SelfApproval);
    let approving = host.approving(RequestId(1));
    assert_eq!(host.run(at(1), &rules, &agent, approving.clone()), itself);
    let breaking = Command::BreakGlass {
        request: RequestId(1),
        seen: host.as_shown(RequestId(1)).seen,
        reason: "now".into(),
        signer: None,
    };
    assert_eq!(host.run(at(1), &rules, &agent, breaking.clone()), itself);
    host.run(at(1), &rules, &caller(CAROL, None), breaking)
        .expect("opens");
    let review = || Command::Review(GrantId(1), "fine".into());
    assert_eq!(
        host.run(at(2), &rules, &agent, review()),
        Err(Code::ReviewRefused)
    );
    // Of another agent it may be an approver.
    rules.own_uids = [("other".parse().expect("a name"), [own].into())].into();
    host.run(at(2), &rules, &agent, review()).expect("reviewed");
}

#[test]
fn who_the_policy_no_longer_names_no_longer_counts() {
    let mut rules = two_of_three();
    let mut host = asked(&rules);
    assert_eq!(agrees(&mut host, &rules, ALICE), Ok(false));
    rules.rules[0].approvers.uids.remove(&ALICE);
    assert_eq!(agrees(&mut host, &rules, BOB), Ok(false));
    assert_eq!(agrees(&mut host, &rules, CAROL), Ok(true));
}

#[test]
fn where_signatures_have_come_to_be_asked_for_only_what_was_signed_by_a_key_that_still_may_counts()
{
    let mut rules = two_of_three();
    let mut host = asked(&rules);
    assert_eq!(agrees(&mut host, &rules, ALICE), Ok(false));
    rules.rules[0].must_sign = true;
    let key = |uid, name: &str| Signer {
        uid,
        key: name.to_owned(),
        fingerprint: name.to_owned(),
    };
    rules.signers = vec![key(ALICE, "alice"), key(BOB, "bob"), key(CAROL, "carol")];
    let signs = |host: &mut Host, rules: &Policy, uid, name: &str| {
        let terms = ApproveTerms {
            signer: Some(name.to_owned()),
            ..host.as_shown(RequestId(1))
        };
        let command = Command::Approve(RequestId(1), terms);
        host.run(at(2), rules, &caller(uid, None), command)
            .map(|decision| !decision.then.is_empty())
    };
    assert_eq!(agrees(&mut host, &rules, BOB), Err(Code::SignatureNeeded));
    assert_eq!(
        signs(&mut host, &rules, BOB, "bob"),
        Ok(false),
        "Alice has not signed"
    );
    rules.signers.remove(1);
    assert_eq!(
        signs(&mut host, &rules, CAROL, "carol"),
        Ok(false),
        "Bob's key is gone"
    );
    host.ledger = host.rebuilt();
    let again = signs(&mut host, &rules, CAROL, "carol");
    assert_eq!(again, Err(Code::ApprovedAlready));
    assert_eq!(
        signs(&mut host, &rules, ALICE, "alice"),
        Ok(true),
        "she signs now"
    );
    let agreed = host.log.iter().find_map(|(_, event)| {
        let Event::Approved { agreed, .. } = event else {
            return None;
        };
        Some(agreed.clone())
    });
    assert_eq!(agreed, Some(vec![Approver::Person { uid: CAROL }]));
}

#[test]
fn a_decision_names_the_rule_of_the_policy_it_was_made_under() {
    let mut rules = two_of_three();
    let mut host = asked(&rules);
    let elsewhere = Rule {
        datasets: vec!["p.hr".parse().expect("exact")],
        ..rules.rules[0].clone()
    };
    rules.rules.insert(0, elsewhere.clone());
    assert_eq!(agrees(&mut host, &rules, ALICE), Ok(false));
    let rule_of = |ledger: &Ledger| ledger.request(RequestId(1)).map(|held| held.rule);
    assert_eq!(rule_of(&host.ledger), Some(2));
    rules.rules.insert(0, elsewhere);
    assert_eq!(agrees(&mut host, &rules, BOB), Ok(true));
    let named = host.log.iter().filter_map(|(_, event)| {
        if let Event::ApprovalGiven { rule, .. } | Event::Approved { rule, .. } = event {
            *rule
        } else {
            None
        }
    });
    assert_eq!(named.collect::<Vec<_>>(), [2, 3]);
    assert_eq!(rule_of(&host.rebuilt()), Some(3));
}

#[test]
fn one_denial_is_enough_whoever_has_agreed() {
    let rules = two_of_three();
    let mut host = asked(&rules);
    assert_eq!(agrees(&mut host, &rules, ALICE), Ok(false));
    let denying = Command::Deny(RequestId(1), "not today".into());
    host.run(at(2), &rules, &caller(BOB, None), denying)
        .expect("denied");
    assert_eq!(agrees(&mut host, &rules, CAROL), Err(Code::NotPending));
}

#[test]
fn an_emergency_is_for_whom_the_rule_names_and_stays_red_until_another_has_looked() {
    let rules = two_of_three();
    let mut host = asked(&rules);
    let breaking = |host: &Host, reason: &str| Command::BreakGlass {
        request: RequestId(1),
        seen: host.as_shown(RequestId(1)).seen,
        reason: reason.into(),
        signer: None,
    };
    let (alice, carol) = (caller(ALICE, None), caller(CAROL, None));
    let command = breaking(&host, "payroll is stuck");
    assert_eq!(
        host.run(at(2), &rules, &alice, command.clone()),
        Err(Code::CallerForbidden)
    );
    let unsaid = breaking(&host, " ");
    assert_eq!(
        host.run(at(2), &rules, &carol, unsaid),
        Err(Code::InputInvalid)
    );
    host.run(at(2), &rules, &carol, command).expect("open");
    let grant = host.ledger.grants().last().expect("one");
    assert_eq!(grant.closes_boot_ns, at(62).boot_ns);

    let review = || Command::Review(GrantId(1), "it was".into());
    assert_eq!(
        host.run(at(3), &rules, &carol, review()),
        Err(Code::ReviewRefused)
    );
    assert_eq!(
        host.run(at(3), &rules, &caller(MALLORY, None), review()),
        Err(Code::CallerForbidden)
    );
    wait(&mut host, 3, 7200);
    host.ledger = host.rebuilt();
    assert_eq!(
        host.ledger.unreviewed().count(),
        1,
        "neither its end nor a restart clears it"
    );
    host.run(at(7300), &rules, &alice, review())
        .expect("reviewed");
    assert_eq!(host.ledger.unreviewed().count(), 0);
    assert_eq!(
        host.run(at(7301), &rules, &alice, review()),
        Err(Code::ReviewRefused)
    );
}

#[derive(Debug, Clone)]
enum Step {
    Ask,
    Agree {
        uid: u32,
        request: u64,
        ttl: Option<u64>,
    },
    Stale {
        uid: u32,
        request: u64,
    },
    Deny {
        uid: u32,
        request: u64,
    },
    Break {
        request: u64,
    },
    Revoke {
        grant: u64,
    },
    Review {
        uid: u32,
        grant: u64,
    },
    Wait {
        seconds: u64,
    },
    Restart {
        same_boot: bool,
    },
    Policy {
        count: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let uid = || prop::sample::select(vec![ALICE, BOB, CAROL, MALLORY, 2001]);
    let id = || 1_u64..8;
    prop_oneof![
        3 => Just(Step::Ask),
        6 => (uid(), id(), prop::option::of(1_u64..700)).prop_map(|(uid, request, ttl)| Step::Agree { uid, request, ttl }),
        1 => (uid(), id()).prop_map(|(uid, request)| Step::Stale { uid, request }),
        1 => (uid(), id()).prop_map(|(uid, request)| Step::Deny { uid, request }),
        1 => id().prop_map(|request| Step::Break { request }),
        1 => id().prop_map(|grant| Step::Revoke { grant }),
        1 => (uid(), id()).prop_map(|(uid, grant)| Step::Review { uid, grant }),
        2 => (0_u64..700).prop_map(|seconds| Step::Wait { seconds }),
        1 => any::<bool>().prop_map(|same_boot| Step::Restart { same_boot }),
        1 => (1_u32..4).prop_map(|count| Step::Policy { count }),
    ]
}

fn take(host: &mut Host, second: &mut u64, rules: &mut Policy, step: Step) {
    let now = at(*second);
    let person = |uid| caller(uid, None);
    match step {
        Step::Ask => drop(host.run(now, rules, &bot(), ask("p.finance,p.sales_eu:read", "10m"))),
        Step::Agree { uid, request, ttl } => {
            let terms = ApproveTerms {
                ttl: ttl.map(|ttl| Ttl::from_seconds(ttl).expect("in range")),
                ..host.as_shown(RequestId(request))
            };
            let approving = Command::Approve(RequestId(request), terms);
            drop(host.run(now, rules, &person(uid), approving));
        }
        Step::Stale { uid, request } => {
            let approving = Command::Approve(RequestId(request), ApproveTerms::default());
            assert!(host.run(now, rules, &person(uid), approving).is_err());
        }
        Step::Deny { uid, request } => {
            let denying = Command::Deny(RequestId(request), "no".into());
            drop(host.run(now, rules, &person(uid), denying));
        }
        Step::Break { request } => {
            let breaking = Command::BreakGlass {
                request: RequestId(request),
                seen: host.as_shown(RequestId(request)).seen,
                reason: "now".into(),
                signer: None,
            };
            drop(host.run(now, rules, &person(CAROL), breaking));
        }
        Step::Revoke { grant } => {
            drop(host.run(now, rules, &person(ALICE), Command::Revoke(GrantId(grant))));
        }
        Step::Review { uid, grant } => {
            let review = Command::Review(GrantId(grant), "seen".into());
            drop(host.run(now, rules, &person(uid), review));
        }
        Step::Wait { seconds } => *second = wait(host, *second, seconds),
        Step::Restart { same_boot } => {
            host.ledger = host.rebuilt();
            let due = host.ledger.resume(now, same_boot, |_| true);
            host.record(now, &due);
        }
        Step::Policy { count } => rules.rules[0].quorum.count = count,
    }
}

/// What the log says of each request.
#[derive(Default)]
struct Told {
    agreed: BTreeSet<u32>,
    ends: u32,
    ttl_s: u64,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these events bear on the property"
)]
fn check(log: &[(Now, Event, u32)]) -> Result<(), TestCaseError> {
    let mut told = BTreeMap::<RequestId, Told>::new();
    for (_, event, count) in log {
        match event {
            Event::Requested { request, ask, .. } => {
                let ttl_s = ask.ttl.seconds();
                told.insert(
                    *request,
                    Told {
                        ttl_s,
                        ..Told::default()
                    },
                );
            }
            Event::ApprovalGiven {
                request,
                approver: Approver::Person { uid },
                ttl,
                ..
            } => {
                let told = told.get_mut(request).expect("asked");
                prop_assert_eq!(told.ends, 0, "agreed to after it had ended");
                prop_assert!(told.agreed.insert(*uid), "agreed twice");
                prop_assert!(ttl.seconds() <= told.ttl_s, "widened");
                told.ttl_s = ttl.seconds();
            }
            Event::Approved {
                request,
                approver: Approver::Person { uid },
                ttl,
                break_glass,
                ..
            } => {
                let told = told.get_mut(request).expect("asked");
                told.ends += 1;
                told.agreed.insert(*uid);
                prop_assert!(ttl.seconds() <= told.ttl_s, "widened");
                prop_assert!(
                    break_glass.is_some() || told.agreed.len() >= *count as usize,
                    "too few agreed"
                );
                prop_assert!(!told.agreed.contains(&2001), "who asked has agreed");
                prop_assert!(
                    !told.agreed.contains(&MALLORY),
                    "nobody's approver has agreed"
                );
            }
            Event::Denied { request, .. } | Event::RequestExpired { request, .. } => {
                told.get_mut(request).expect("asked").ends += 1;
            }
            _ => {}
        }
    }
    prop_assert!(
        told.values().all(|told| told.ends == 1),
        "a request ends once"
    );
    Ok(())
}

proptest! {
    #[test]
    fn every_request_ends_once_by_as_many_people_as_the_policy_asks_for_whatever_the_races(steps in prop::collection::vec(step(), 0..80)) {
        let mut host = Host::default();
        let mut rules = two_of_three();
        let mut second = 1;
        let mut log = Vec::new();
        for step in steps {
            take(&mut host, &mut second, &mut rules, step);
            let count = rules.rules[0].quorum.count;
            let new = host.log[log.len()..].iter().map(|(now, event)| (*now, event.clone(), count));
            log.extend(new.collect::<Vec<_>>());
            let open = host.ledger.open_grants().count();
            prop_assert!(open <= 1, "one window per agent");
            prop_assert_eq!(&host.ledger.index, &index_of(&host.ledger));
        }
        wait(&mut host, second, 13 * 3600);
        let new = host.log[log.len()..].iter().map(|(now, event)| (*now, event.clone(), 0));
        log.extend(new.collect::<Vec<_>>());
        check(&log)?;
        // What a restart makes of the log is what was there.
        prop_assert_eq!(&host.rebuilt(), &host.ledger);
    }
}
