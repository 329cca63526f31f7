//! Just-in-time stays just-in-time: how often, how soon again, how much of a day, and when without a person.

use super::*;
use crate::policy::{BreakGlass, Day, Schedule};

fn with(limits: Limits) -> Policy {
    let mut rules = policy(true);
    rules.rules[0].limits = limits;
    rules
}

fn asks(host: &mut Host, second: u64, rules: &Policy, ttl: &str) -> Result<(), Code> {
    host.run(at(second), rules, &bot(), ask("p.finance:read", ttl))
        .map(|_| ())
}

#[test]
fn one_request_names_one_dataset_where_a_rule_says_nothing() {
    let mut host = Host::default();
    let rules = with(Limits::TIGHT);
    let two = ask("p.finance,p.sales_eu:read", "1m");
    assert_eq!(
        host.run(at(1), &rules, &bot(), two),
        Err(Code::PolicyExceeded)
    );
    assert_eq!(asks(&mut host, 1, &rules, "1m"), Ok(()));
}

#[test]
fn after_a_window_comes_a_pause() {
    let mut host = Host::default();
    let rules = with(Limits {
        cooldown_s: 300,
        ..LOOSE
    });
    assert_eq!(asks(&mut host, 0, &rules, "10s"), Ok(()));
    wait(&mut host, 0, 20);
    assert_eq!(asks(&mut host, 309, &rules, "10s"), Err(Code::TooSoon));
    assert_eq!(asks(&mut host, 310, &rules, "10s"), Ok(()));
}

#[test]
fn the_pause_after_a_window_holds_for_what_was_asked_before_it_and_that_waits_on() {
    let mut host = Host::default();
    let mut rules = with(Limits {
        cooldown_s: 300,
        ..LOOSE
    });
    rules.rules[0].alone = Alone::Never;
    for _ in 0..2 {
        assert_eq!(asks(&mut host, 0, &rules, "10s"), Ok(()));
    }
    let approve = |host: &mut Host, second, id| {
        let approving = host.approving(RequestId(id));
        let alice = caller(ALICE, None);
        let decided = host
            .ledger
            .decide(at(second), &rules, &alice, approving.clone());
        let _ = host.run(at(second), &rules, &alice, approving);
        decided
            .map(|_| ())
            .map_err(|refusal| (refusal.code, refusal.what))
    };
    assert_eq!(approve(&mut host, 0, 1), Ok(()));
    wait(&mut host, 0, 20);
    let (code, what) = approve(&mut host, 30, 2).expect_err("too soon");
    assert_eq!(code, Code::TooSoon);
    assert!(what.contains("may hold the next in 280 s"), "{what}");
    assert_eq!(
        host.ledger.request(RequestId(2)).map(|held| &held.state),
        Some(&RequestState::Pending)
    );
    assert_eq!(approve(&mut host, 310, 2), Ok(()));
}

#[test]
fn who_is_denied_waits_and_who_is_denied_again_waits_longer() {
    let mut host = Host::default();
    let mut rules = with(Limits {
        backoff_s: 60,
        ..LOOSE
    });
    rules.rules[0].alone = Alone::Never;
    let deny = |host: &mut Host, second, id| {
        let denying = Command::Deny(RequestId(id), "no".into());
        host.run(at(second), &rules, &caller(ALICE, None), denying)
            .expect("denied");
    };
    assert_eq!(asks(&mut host, 0, &rules, "1m"), Ok(()));
    deny(&mut host, 0, 1);
    assert_eq!(asks(&mut host, 59, &rules, "1m"), Err(Code::TooSoon));
    assert_eq!(asks(&mut host, 60, &rules, "1m"), Ok(()));
    deny(&mut host, 60, 2);
    assert_eq!(asks(&mut host, 179, &rules, "1m"), Err(Code::TooSoon));
    assert_eq!(asks(&mut host, 180, &rules, "1m"), Ok(()));
}

#[test]
fn a_window_that_a_rule_opens_by_itself_undoes_no_denial_and_one_that_a_person_grants_does() {
    let mut host = Host::default();
    let mut rules = with(Limits {
        backoff_s: 60,
        ..LOOSE
    });
    rules.rules[0].alone = Alone::Never;
    let mut automatic = policy(true).rules.remove(0);
    automatic.datasets = vec!["p.public".parse().expect("exact")];
    rules.rules.push(automatic);
    let deny = |host: &mut Host, second: u64, id| {
        let denying = Command::Deny(RequestId(id), "no".into());
        host.run(at(second), &rules, &caller(ALICE, None), denying)
            .expect("denied");
        // In between its other rule opens a window, which it gives back.
        host.run(at(second), &rules, &bot(), ask("p.public:read", "1s"))
            .expect("opens by itself");
        let grant = host.ledger.grants().last().expect("one").id;
        host.run(at(second), &rules, &bot(), Command::Close(grant))
            .expect("given back");
    };
    // A minute after the first denial, two after the second, four after the third.
    let mut second = 0;
    for (id, wait) in [(1, 60), (3, 120), (5, 240)] {
        assert_eq!(asks(&mut host, second, &rules, "1m"), Ok(()));
        deny(&mut host, second, id);
        second += wait;
        assert_eq!(
            asks(&mut host, second - 1, &rules, "1m"),
            Err(Code::TooSoon)
        );
    }
    assert_eq!(asks(&mut host, second, &rules, "1m"), Ok(()));
    let approving = host.approving(RequestId(7));
    host.run(at(second), &rules, &caller(ALICE, None), approving)
        .expect("approved");
    wait(&mut host, second, 60);
    second += 60;
    assert_eq!(asks(&mut host, second, &rules, "1m"), Ok(()));
    deny(&mut host, second, 8);
    assert_eq!(asks(&mut host, second + 60, &rules, "1m"), Ok(()), "anew");
}

#[test]
fn an_hour_has_so_many_requests_and_a_restart_forgets_none() {
    let mut host = Host::default();
    let rules = with(Limits {
        requests_per_hour_max: 2,
        ..LOOSE
    });
    for second in [0, 60] {
        assert_eq!(asks(&mut host, second, &rules, "1s"), Ok(()));
        wait(&mut host, second, 10);
    }
    host.ledger = host.rebuilt();
    assert_eq!(asks(&mut host, 3599, &rules, "1s"), Err(Code::TooSoon));
    assert_eq!(asks(&mut host, 3600, &rules, "1s"), Ok(()));
}

/// What a daemon that starts in `boot` makes of a log that was all written in boot `a`.
fn started_anew(host: &Host, boot: &str, now: Now) -> Ledger {
    let mut ledger = Ledger::default();
    for (now, event) in &host.log {
        ledger.in_boot("a");
        ledger.apply(*now, event);
    }
    ledger.in_boot(boot);
    let started = Event::DaemonStarted {
        host: "h".into(),
        version: "1".into(),
        policy_digest: "d".into(),
    };
    ledger.apply(now, &started);
    ledger
}

#[test]
fn a_restart_forgets_nothing_however_the_wall_clock_was_set_and_only_a_reboot_believes_it() {
    let limits = Limits {
        duty_percent_max: 1,
        cooldown_s: 3600,
        requests_per_hour_max: 2,
        ..LOOSE
    };
    let mut host = Host::default();
    host.ledger.in_boot("a");
    assert_eq!(asks(&mut host, 1, &with(limits), "14m"), Ok(()));
    wait(&mut host, 1, 840);
    let a_day_on = |second: u64| Now {
        unix_ns: at(second).unix_ns + 25 * 3600 * NS_PER_S,
        ..at(second)
    };
    let agent = "bot".parse().expect("a name");
    let asked = |ledger: &Ledger| {
        let command = ask("p.finance:read", "14m");
        let asked = ledger.decide(a_day_on(901), &with(limits), &bot(), command);
        asked.map(|_| ()).map_err(|refusal| refusal.code)
    };
    let same = started_anew(&host, "a", a_day_on(900));
    assert_eq!(asked(&same), Err(Code::TooSoon));
    assert_eq!(same.held_in_day(&agent, a_day_on(901)), 840 * NS_PER_S);
    let other = started_anew(&host, "b", a_day_on(900));
    assert_eq!(asked(&other), Ok(()), "it was down for a day");
    // Kept and read again, it knows the boot.
    let kept = serde_json::to_string(&same).expect("its keys are texts");
    let mut kept: Ledger = serde_json::from_str(&kept).expect("reads");
    kept.in_boot("a");
    assert_eq!(asked(&kept), Err(Code::TooSoon));
}

#[test]
fn a_day_has_so_much_of_a_window_and_no_request_goes_past_it() {
    let mut host = Host::default();
    // A hundredth: 14 minutes and 24 seconds.
    let rules = with(Limits {
        duty_percent_max: 1,
        ..LOOSE
    });
    assert_eq!(asks(&mut host, 0, &rules, "15m"), Err(Code::DutyCycle));
    assert_eq!(asks(&mut host, 0, &rules, "10m"), Ok(()));
    assert_eq!(asks(&mut host, 1, &rules, "5m"), Err(Code::DutyCycle));
    wait(&mut host, 0, 600);
    assert_eq!(asks(&mut host, 3600, &rules, "5m"), Err(Code::DutyCycle));
    assert_eq!(asks(&mut host, 3600, &rules, "4m"), Ok(()));
    wait(&mut host, 3600, 600);
    let day = 24 * 3600;
    // The slot of a quarter of an hour that began with the first window is a day past.
    assert_eq!(
        asks(&mut host, day + 899, &rules, "10m"),
        Err(Code::DutyCycle)
    );
    assert_eq!(asks(&mut host, day + 900, &rules, "10m"), Ok(()));
}

#[test]
fn a_window_that_is_given_back_has_taken_only_what_it_was_open() {
    let mut host = Host::default();
    let rules = with(LOOSE);
    assert_eq!(asks(&mut host, 0, &rules, "15m"), Ok(()));
    host.run(at(60), &rules, &bot(), Command::Close(GrantId(1)))
        .expect("closed");
    let agent = "bot".parse().expect("a name");
    assert_eq!(host.ledger.held_in_day(&agent, at(900)), 60 * NS_PER_S);
}

#[test]
fn no_more_windows_are_open_under_a_rule_than_it_says() {
    let mut host = Host::default();
    let mut rules = with(Limits {
        windows_at_once_max: 1,
        ..LOOSE
    });
    rules.rules[0]
        .agents
        .insert("other".parse().expect("a name"));
    assert_eq!(asks(&mut host, 0, &rules, "1m"), Ok(()));
    let other = caller(2002, Some("other"));
    let asked = host.run(at(1), &rules, &other, ask("p.finance:read", "1m"));
    assert!(
        asked.expect("asked").then.is_empty(),
        "it waits for a person"
    );
    let approving = host.approving(RequestId(2));
    let approved = host.run(at(1), &rules, &caller(ALICE, None), approving.clone());
    assert_eq!(approved, Err(Code::WindowsAtOnce));
    wait(&mut host, 1, 60);
    let approved = host.run(at(61), &rules, &caller(ALICE, None), approving);
    assert!(approved.is_ok());
}

#[test]
fn a_rule_opens_alone_at_its_hours_and_at_others_a_person_decides() {
    let mut rules = with(LOOSE);
    // The clock of these tests begins on Tuesday, 14 November 2023, 22:13:20.
    rules.rules[0].alone = Alone::During(Schedule {
        days: [Day::Tue].into(),
        from_minute: 22 * 60 + 14,
        until_minute: 22 * 60 + 15,
        zone: jiff::tz::TimeZone::UTC,
    });
    let opens = |second: u64| {
        let mut host = Host::default();
        let asked = host.run(at(second), &rules, &bot(), ask("p.finance:read", "1s"));
        !asked.expect("asked").then.is_empty()
    };
    assert_eq!([39, 40, 99, 100].map(opens), [false, true, true, false]);
    rules.rules[0].approvers = ApproverSet::default();
    let mut host = Host::default();
    assert_eq!(asks(&mut host, 39, &rules, "1s"), Err(Code::PolicyHours));
}

#[test]
fn in_an_emergency_neither_the_share_of_a_day_nor_the_others_hold_up() {
    let mut host = Host::default();
    let mut rules = with(LOOSE);
    rules.rules[0].alone = Alone::Never;
    rules.rules[0].break_glass = Some(BreakGlass {
        who: rules.rules[0].approvers.clone(),
        ttl_max: "2m".parse().expect("a ttl"),
    });
    assert_eq!(asks(&mut host, 0, &rules, "10m"), Ok(()));
    // The policy has become tighter meanwhile.
    rules.rules[0].limits.duty_percent_max = 0;
    let seen = host.as_shown(RequestId(1)).seen;
    let breaking = Command::BreakGlass {
        request: RequestId(1),
        seen,
        reason: "the ledger is on fire".into(),
        signer: None,
    };
    let opened = host.run(at(1), &rules, &caller(ALICE, None), breaking);
    assert_eq!(opened.expect("open").then.len(), 1);
    let grant = host.ledger.grants().last().expect("one");
    assert_eq!(grant.closes_boot_ns, at(121).boot_ns, "it is short");
}

proptest! {
    #[test]
    fn no_agent_ever_holds_more_of_any_day_than_the_policy_allows(steps in prop::collection::vec((0_u64..7200, 1_u64..900, any::<bool>()), 1..80)) {
        let rules = with(Limits { duty_percent_max: 3, ..LOOSE });
        let mut host = Host::default();
        let mut second = 1;
        for (pause, ttl, gives_back) in steps {
            second = wait(&mut host, second, pause);
            let ttl = Ttl::from_seconds(ttl).expect("in range").to_string();
            let _ = asks(&mut host, second, &rules, &ttl);
            let open = host.ledger.open_grants().next().map(|grant| grant.id);
            if gives_back && let Some(grant) = open {
                second = wait(&mut host, second, 30);
                let _ = host.run(at(second), &rules, &bot(), Command::Close(grant));
            }
        }
        wait(&mut host, second, 24 * 3600);
        let mut spans = BTreeMap::new();
        for (now, event) in &host.log {
            if let Event::Approved { grant, .. } = event {
                spans.insert(*grant, (now.boot_ns, now.boot_ns));
            }
            if let Event::Closed { grant, .. } = event {
                spans.get_mut(grant).expect("opened").1 = now.boot_ns;
            }
        }
        for (_, end) in spans.values() {
            let day = end.saturating_sub(24 * 3600 * NS_PER_S);
            let held: u64 = spans.values().map(|(from, until)| until.min(end).saturating_sub(*from.max(&day))).sum();
            prop_assert!(held <= rules.rules[0].limits.duty_ns_max());
        }
    }
}
