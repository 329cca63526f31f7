//! Clocks that jump: the wall clock as somebody sets it, the boot clock over a suspend in which nothing ran. No window is ever open longer on
//! the boot clock than was granted.

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Time passes, and the ledger is told of each deadline.
    Pass {
        seconds: u64,
    },
    /// Time passes on the boot clock, and nobody runs: the next thing comes before any deadline was told.
    Suspend {
        seconds: u64,
    },
    /// The wall clock is set.
    SetWall {
        second: u64,
    },
    Ask {
        seconds: u64,
    },
    Approve {
        request: u64,
    },
    Query {
        grant: u64,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let day = 86_400_u64;
    prop_oneof![
        (0_u64..900).prop_map(|seconds| Step::Pass { seconds }),
        prop_oneof![0_u64..900, Just(day)].prop_map(|seconds| Step::Suspend { seconds }),
        prop_oneof![Just(0), Just(9 * day), Just(11 * day), 0..(20 * day)]
            .prop_map(|second| Step::SetWall { second }),
        (1_u64..900).prop_map(|seconds| Step::Ask { seconds }),
        (1_u64..8).prop_map(|request| Step::Approve { request }),
        (1_u64..8).prop_map(|grant| Step::Query { grant }),
        Just(Step::Restart),
    ]
}

/// What was granted, and when, on the boot clock.
type Granted = BTreeMap<GrantId, (u64, Ttl)>;

fn check(ledger: &Ledger, now: Now, granted: &Granted) -> Result<(), TestCaseError> {
    for grant in ledger.grants() {
        let (since, ttl) = granted[&grant.id];
        let end = since + ttl.ns();
        prop_assert!(
            grant.closes_boot_ns <= end,
            "the kernel is told no later end"
        );
        prop_assert!(!grant.is_open_at(now) || now.boot_ns < end);
        let admitted = admit(now, grant, &select("p.finance.daily", 1), None);
        prop_assert!(
            admitted.is_err() || now.boot_ns < end,
            "nothing is admitted past it"
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_window_is_open_longer_on_the_boot_clock_than_was_granted_however_clocks_jump(
        steps in prop::collection::vec(step(), 0..80)
    ) {
        let mut host = Host::default();
        let mut granted = Granted::new();
        let mut now = Now { boot_ns: NS_PER_S, unix_ns: 10 * 86_400 * NS_PER_S };
        for step in steps {
            match step {
                Step::Pass { seconds } => {
                    let until = now.plus_ns(seconds * NS_PER_S);
                    while let Some(due) = host.ledger.poll_timeout().filter(|due| *due <= until.boot_ns) {
                        let at = now.plus_ns(due.saturating_sub(now.boot_ns));
                        let decision = host.ledger.tick(at);
                        prop_assert_ne!(&decision, &Decision::default());
                        host.record(at, &decision);
                    }
                    now = until;
                    prop_assert!(host.ledger.grants().all(|grant| grant.closed.is_some() || grant.closes_boot_ns > now.boot_ns));
                }
                Step::Suspend { seconds } => now = now.plus_ns(seconds * NS_PER_S),
                Step::SetWall { second } => now.unix_ns = second * NS_PER_S,
                Step::Ask { seconds } => {
                    let ttl = Ttl::from_seconds(seconds).expect("in range").to_string();
                    let _ = host.run(now, &policy(false), &bot(), ask("p.finance:read", &ttl));
                }
                Step::Approve { request } => {
                    let command = host.approving(RequestId(request));
                    let waits = host.ledger.requests().find(|held| held.id == RequestId(request)).cloned();
                    if let Ok(decision) = host.run(now, &policy(false), &caller(ALICE, None), command) {
                        let waits = waits.expect("it is known");
                        prop_assert!(now.boot_ns < waits.expires_boot_ns, "what has expired is not approved");
                        for event in &decision.events {
                            if let Event::Approved { grant, ttl, closes_unix_ns, .. } = event {
                                granted.insert(*grant, (now.boot_ns, *ttl));
                                prop_assert_eq!(*closes_unix_ns, now.unix_ns + ttl.ns(), "people are shown the wall clock as it is");
                            }
                        }
                    }
                }
                Step::Query { grant } => {
                    if let Some(grant) = host.ledger.grant(GrantId(grant)) {
                        let (since, ttl) = granted[&grant.id];
                        let admitted = admit(now, grant, &select("p.finance.daily", 1), None);
                        prop_assert!(admitted.is_err() || now.boot_ns < since + ttl.ns());
                    }
                }
                Step::Restart => {
                    host.ledger = host.rebuilt();
                    let due = host.ledger.resume(now, true, |_| true);
                    host.record(now, &due);
                    prop_assert!(host.ledger.grants().all(|grant| grant.closed.is_some() || grant.closes_boot_ns > now.boot_ns));
                }
            }
            check(&host.ledger, now, &granted)?;
        }
    }
}

/// A window of 15 minutes that was ended after three seconds, with a job that runs on.
fn ended_early() -> (Host, GrantId) {
    let mut host = Host::default();
    host.ledger.in_boot("a");
    let grant = host.open(at(100), "15m");
    let job = JobRef {
        project: "p".into(),
        job: "j".into(),
        location: Some("US".into()),
    };
    let query = QueryId(1);
    for event in [
        starting(query, grant, Some(10)),
        seen(query, grant, job.clone()),
        finishing(query, grant),
    ] {
        host.ledger.apply(at(101), &event);
        host.log.push((at(101), event));
    }
    host.run(
        at(103),
        &policy(false),
        &caller(ALICE, None),
        Command::Revoke(grant),
    )
    .expect("revoked");
    (host, grant)
}

/// The second on the boot clock, and a wall clock that somebody has set.
fn set_by(second: u64, days: i64) -> Now {
    let now = at(second);
    let day_ns = (86_400 * NS_PER_S).cast_signed();
    Now {
        unix_ns: now.unix_ns.saturating_add_signed(days * day_ns),
        ..now
    }
}

#[test]
fn a_running_job_is_kept_in_sight_until_its_windows_end_however_the_wall_clock_is_set() {
    let (host, grant) = ended_early();
    let mut started = host.ledger.clone();
    for days in [-1, 0, 1] {
        let left = |ledger: &Ledger, second| {
            let now = set_by(second, days);
            let jobs = ledger.unsettled_jobs(grant, now).len();
            assert_eq!(ledger.unsettled(now).count(), jobs);
            jobs
        };
        // The window would have ended at 1000 s; a job's timeout is exact to a minute.
        assert_eq!(
            [104, 1059, 1060].map(|second| left(&host.ledger, second)),
            [1, 1, 0],
            "{days}"
        );
        // A start after the jump finds it too.
        let event = Event::DaemonStarted {
            host: "h".into(),
            version: "1".into(),
            policy_digest: "d".into(),
        };
        started.in_boot("a");
        started.apply(set_by(105, days), &event);
        assert_eq!(
            [106, 1059, 1060].map(|second| left(&started, second)),
            [1, 1, 0],
            "{days}"
        );
    }
}

#[test]
fn a_wall_clock_that_was_set_before_a_reboot_makes_no_job_be_given_up() {
    let (host, grant) = ended_early();
    for days in [-1, 1] {
        let mut ledger = host.ledger.clone();
        // Something is on record after the jump, and the host boots a minute later.
        ledger.apply(set_by(104, days), &Event::DaemonStopped {});
        ledger.in_boot("b");
        let event = Event::DaemonStarted {
            host: "h".into(),
            version: "1".into(),
            policy_digest: "d".into(),
        };
        let booted = Now {
            boot_ns: 5 * NS_PER_S,
            unix_ns: set_by(164, days).unix_ns,
        };
        ledger.apply(booted, &event);
        assert_eq!(ledger.unsettled_jobs(grant, booted).len(), 1, "{days}");
    }
}
