//! Locks: what is held ends, what waits is denied, nothing opens, and only people let go.

use super::*;

fn bot_name() -> AgentName {
    "bot".parse().expect("a name")
}

fn lock() -> Command {
    Command::Lock(bot_name(), "asks for hr at night".into())
}

fn person(uid: u32) -> Caller {
    caller(uid, None)
}

#[test]
fn a_lock_ends_the_window_denies_what_waits_and_keeps_everything_shut_until_it_is_taken_away() {
    let rules = policy(true);
    let mut host = Host::default();
    host.run(at(1), &rules, &bot(), ask("p.finance:read", "5m"))
        .expect("opens alone");
    host.run(at(2), &rules, &bot(), ask("p.sales_eu:read", "5m"))
        .expect("waits: another is open");
    let decision = host
        .run(at(3), &rules, &person(ALICE), lock())
        .expect("locks");
    assert_eq!(decision.first.len(), 1, "the kernel lets go first");
    assert!(host.ledger.open_grant(&bot_name(), at(3)).is_none());
    assert!(matches!(
        host.ledger.request(RequestId(2)).map(|request| &request.state),
        Some(RequestState::Denied(why)) if why.contains("asks for hr at night")
    ));
    // Neither a rule that opens alone nor the records of another start of the daemon's let it in.
    host.ledger = host.rebuilt();
    let refused = host.run(at(4), &rules, &bot(), ask("p.finance:read", "5m"));
    assert_eq!(refused, Err(Code::AgentLocked));
    assert_eq!(
        host.run(at(5), &rules, &bot(), Command::Unlock(bot_name())),
        Err(Code::CallerForbidden)
    );
    host.run(at(6), &rules, &person(ALICE), Command::Unlock(bot_name()))
        .expect("unlocks");
    host.run(at(7), &rules, &bot(), ask("p.finance:read", "5m"))
        .expect("opens again");
}

#[test]
fn only_who_watches_over_an_agent_locks_it_and_nobody_unlocks_an_agent_of_their_own() {
    let mut rules = policy(false);
    rules.own_uids.insert(bot_name(), [ALICE].into());
    let mut host = Host::default();
    for caller in [person(6001), bot()] {
        assert_eq!(
            host.run(at(1), &rules, &caller, lock()),
            Err(Code::CallerForbidden)
        );
    }
    let nobody = Command::Lock("nobody".parse().expect("a name"), "x".into());
    assert_eq!(
        host.run(at(1), &rules, &person(0), nobody),
        Err(Code::InputInvalid)
    );
    assert_eq!(
        host.run(
            at(1),
            &rules,
            &person(0),
            Command::Lock(bot_name(), " ".into())
        ),
        Err(Code::InputInvalid)
    );
    // To take something from an agent of one's own is nothing to keep anybody from.
    host.run(at(2), &rules, &person(ALICE), lock())
        .expect("locks");
    let unlock = Command::Unlock(bot_name());
    assert_eq!(
        host.run(at(3), &rules, &person(ALICE), unlock.clone()),
        Err(Code::CallerForbidden)
    );
    host.run(at(4), &rules, &person(0), unlock.clone())
        .expect("root unlocks");
    assert_eq!(
        host.run(at(5), &rules, &person(0), unlock),
        Err(Code::InputInvalid)
    );
}

#[test]
fn a_lock_is_never_forgotten_with_old_records() {
    let mut host = Host::default();
    host.ledger.in_boot("a");
    host.ledger.apply(at(50), &Event::DaemonStopped {});
    host.run(at(100), &policy(false), &person(ALICE), lock())
        .expect("locks");
    let long_after = host.ledger.needed(at(40 * 24 * 3600));
    assert!(!long_after.is_after("a", at(100).boot_ns));
    assert!(long_after.is_after("a", at(99).boot_ns));
}

#[test]
fn every_window_ends_at_once_and_none_is_no_refusal() {
    let rules = policy(true);
    let mut host = Host::default();
    let none = host.run(at(1), &rules, &person(ALICE), Command::CloseAll);
    assert_eq!(none, Ok(Decision::default()));
    host.run(at(1), &rules, &bot(), ask("p.finance:read", "5m"))
        .expect("opens");
    for caller in [person(6001), bot()] {
        assert_eq!(
            host.run(at(2), &rules, &caller, Command::CloseAll),
            Err(Code::CallerForbidden)
        );
    }
    let decision = host
        .run(at(3), &rules, &person(ALICE), Command::CloseAll)
        .expect("ends");
    assert_eq!(decision.first.len(), 1);
    assert!(host.ledger.open_grant(&bot_name(), at(3)).is_none());
}

#[test]
fn what_a_lock_denies_keeps_nobody_from_asking_once_it_is_taken_away() {
    let mut rules = policy(false);
    rules.rules[0].limits.backoff_s = 600;
    let mut host = Host::default();
    for second in 1..4 {
        host.run(at(second), &rules, &bot(), ask("p.finance:read", "5m"))
            .expect("waits");
    }
    host.run(at(4), &rules, &person(ALICE), lock())
        .expect("locks");
    host.run(at(5), &rules, &person(ALICE), Command::Unlock(bot_name()))
        .expect("unlocks");
    host.run(at(6), &rules, &bot(), ask("p.finance:read", "5m"))
        .expect("waits again");
    // A person's own denial still does.
    host.run(
        at(7),
        &rules,
        &person(ALICE),
        Command::Deny(RequestId(4), "no".into()),
    )
    .expect("denies");
    host.ledger = host.rebuilt();
    assert_eq!(
        host.run(at(8), &rules, &bot(), ask("p.finance:read", "5m")),
        Err(Code::TooSoon)
    );
}
