use proptest::prelude::*;

use super::burst::*;
use super::queue::*;
use super::*;
use crate::event::Event;
use crate::principal::{Caller, Process};
use crate::refusal::Refusal;
use crate::time::NS_PER_S;

const BOOT: &str = "boot-a";

fn at(seconds: u64) -> Now {
    Now {
        boot_ns: seconds * NS_PER_S,
        unix_ns: (1_700_000_000 + seconds) * NS_PER_S,
    }
}

fn record(seq: u64, seconds: u64, event: Event) -> Record {
    let now = at(seconds);
    Record {
        seq,
        boot_id: BOOT.into(),
        boot_ns: now.boot_ns,
        unix_ns: now.unix_ns,
        event,
        prev: String::new(),
        hash: None,
    }
}

fn agent() -> AgentName {
    "finance-bot".parse().expect("a name")
}

fn process() -> Process {
    Process {
        pid: 7,
        start_boot_ns: 1,
        uid: 2001,
        comm: "x".into(),
    }
}

fn requested(reason: &str) -> Event {
    Event::Requested {
        request: RequestId(3),
        agent: agent(),
        process: process(),
        ask: crate::policy::Ask {
            scope: "p.finance:read".parse().expect("a scope"),
            ttl: "15m".parse().expect("a ttl"),
            reason: reason.into(),
            bytes_max: None,
            queries_max: None,
        },
        rule: 1,
        digest: "d1".into(),
        expires_boot_ns: 9,
        from_query: None,
        ends_with_process: false,
        budget: Some(crate::policy::Budget {
            bytes_max: 1000,
            query_bytes_max: 900,
            returned_bytes_max: 800,
            queries_max: 3,
            jobs_at_once_max: 2,
        }),
        origin: None,
    }
}

fn refused(agent: Option<AgentName>) -> Event {
    Event::RequestRefused {
        caller: Caller {
            process: process(),
            gids: BTreeSet::new(),
            agent,
        },
        ask: None,
        refusal: Refusal::new(Code::ScopeOutside, "no such dataset"),
    }
}

fn limits(refusals: u64) -> BurstLimits {
    BurstLimits {
        refusals,
        within: "1m".parse().expect("a time"),
        interval: "5m".parse().expect("a time"),
    }
}

fn wanted(events: &[NoticeKind]) -> Wanted {
    Wanted {
        events: events.iter().copied().collect(),
        agents: BTreeSet::new(),
        burst: limits(10),
    }
}

#[test]
fn a_notice_of_a_request_says_who_what_how_long_and_why_with_nothing_deceptive_in_it() {
    let mut watcher = Watcher::new("host-a", wanted(&[NoticeKind::Request]));
    let reason = "month\u{202e}end <!channel> & \u{1b}[2J";
    let notice = watcher
        .take(&record(12, 1, requested(reason)))
        .expect("is told");
    let json = serde_json::to_value(&notice).expect("JSON");
    assert_eq!(
        json,
        serde_json::json!({
            "version": 1, "host": "host-a", "seq": 12, "unix_ms": 1_700_000_001_000_u64, "event": "request",
            "summary": "r-3: finance-bot asks for p.finance:read for 15m: month\\u{202e}end <!channel> & \\u{1b}[2J",
            "agent": "finance-bot", "request": "r-3", "scope": "p.finance:read", "ttl": "15m",
            "reason": "month\\u{202e}end <!channel> & \\u{1b}[2J", "digest": "d1", "by": "uid 2001",
            "budget": {"bytes_max": 1000, "query_bytes_max": 900, "returned_bytes_max": 800, "queries_max": 3, "jobs_at_once_max": 2}
        })
    );
    assert!(
        notice
            .slack_text()
            .ends_with("month\\u{202e}end &lt;!channel&gt; &amp; \\u{1b}[2J")
    );
}

#[test]
fn only_what_is_wanted_is_told_and_of_the_agents_that_are_named() {
    let take = |wanted: Wanted, event: Event| Watcher::new("h", wanted).take(&record(1, 1, event));
    assert_eq!(take(wanted(&[NoticeKind::Close]), requested("x")), None);
    let of_another = Wanted {
        agents: ["ops-bot".parse().expect("a name")].into(),
        ..wanted(&[NoticeKind::Request, NoticeKind::Daemon])
    };
    assert_eq!(take(of_another.clone(), requested("x")), None);
    assert!(
        take(of_another, Event::DaemonStopped {}).is_some(),
        "that concerns the host"
    );
}

#[test]
fn an_emergency_is_told_to_whoever_wants_decisions_or_emergencies() {
    let approved = |break_glass: Option<&str>| Event::Approved {
        request: RequestId(3),
        grant: GrantId(4),
        agent: agent(),
        approver: crate::principal::Approver::Person { uid: 5001 },
        digest: String::new(),
        scope: "p.finance:read".parse().expect("a scope"),
        ttl: "5m".parse().expect("a ttl"),
        bytes_max: 1,
        queries_max: 1,
        query_bytes_max: None,
        returned_bytes_max: None,
        jobs_at_once_max: None,
        opens_boot_ns: 0,
        closes_boot_ns: 1,
        closes_unix_ns: 2_000_000,
        agreed: Vec::new(),
        signer: None,
        rule: Some(1),
        break_glass: break_glass.map(str::to_owned),
    };
    let take = |kind, event| Watcher::new("h", wanted(&[kind])).take(&record(1, 1, event));
    for kind in [NoticeKind::Decision, NoticeKind::BreakGlass] {
        let told = take(kind, approved(Some("prod is down"))).expect("is told");
        assert_eq!(
            (told.event, told.reason.as_deref()),
            (NoticeKind::BreakGlass, Some("prod is down"))
        );
        assert!(told.summary.contains("IN AN EMERGENCY (prod is down)"));
    }
    assert!(take(NoticeKind::BreakGlass, approved(None)).is_none());
    let told = take(NoticeKind::Decision, approved(None)).expect("is told");
    assert_eq!(
        (told.event, told.closes_unix_ms),
        (NoticeKind::Decision, Some(2))
    );
}

#[test]
fn a_notice_given_up_is_told_as_no_notice() {
    let failed = Event::NotificationFailed {
        hook: "pager".into(),
        count: 1,
        why: "gone".into(),
    };
    let record = record(1, 1, failed);
    assert!(Notice::of("h", &record).is_none() && Counted::of(&record).is_none());
}

#[test]
fn ten_refusals_within_a_minute_are_one_notice_and_those_that_follow_one_more_after_the_interval() {
    let mut watcher = Watcher::new("h", wanted(&[NoticeKind::RefusalBurst]));
    let mut take = |seq, seconds| watcher.take(&record(seq, seconds, refused(Some(agent()))));
    // Nine in a minute are none, nor are nine more a while later.
    assert!((0..9).all(|n| take(n, n).is_none()));
    assert!((0..9).all(|n| take(10 + n, 100 + n).is_none()));
    let told = take(20, 109).expect("the tenth");
    assert_eq!(
        (told.count, told.seq, told.code),
        (Some(10), 20, Some(Code::ScopeOutside))
    );
    assert!(
        told.summary
            .starts_with("10 refusals of finance-bot, the last [scope.outside]")
    );
    assert!((0..500).all(|n| take(21 + n, 110 + n / 2).is_none()));
    assert_eq!(watcher.poll_timeout(), Some(at(409).boot_ns));
    assert!(watcher.poll(at(408), BOOT).is_empty());
    let further = watcher.poll(at(409), BOOT);
    assert_eq!(further.len(), 1);
    assert_eq!(further[0].count, Some(500));
    assert!(watcher.poll(at(410), BOOT).is_empty());
    assert!(watcher.poll(at(709), BOOT).is_empty());
    assert_eq!(
        watcher.poll_timeout(),
        None,
        "nothing is kept of a flood that is over"
    );
}

#[test]
fn refusals_of_another_boot_do_not_count_with_these() {
    let mut watcher = Watcher::new("h", wanted(&[NoticeKind::RefusalBurst]));
    for n in 0..9 {
        assert!(watcher.take(&record(n, 1, refused(None))).is_none());
    }
    let other = Record {
        boot_id: "boot-b".into(),
        ..record(9, 1, refused(None))
    };
    assert!(watcher.take(&other).is_none());
}

fn queue() -> Queue {
    Queue::new("h".into(), "15m".parse().expect("a time"), 0)
}

fn notice(seq: u64) -> Notice {
    Notice::new("h", seq, 0, NoticeKind::Daemon, "x")
}

fn sent(queue: &mut Queue, now: Now) -> Option<Notice> {
    match queue.next(now) {
        Next::Send(notice) => Some(*notice),
        Next::At(_) | Next::Idle => None,
    }
}

#[test]
fn a_notice_is_tried_again_later_and_later_and_those_behind_it_wait() {
    let mut queue = queue();
    queue.push(at(0), notice(1), 1);
    queue.push(at(0), notice(2), 2);
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(sent(&mut queue, now).expect("is tried").seq, 1);
        queue.settle(now, Attempt::Failed("refused".into()), u16::MAX);
        let Next::At(next) = queue.next(now) else {
            panic!("it is tried again")
        };
        waits.push((next - now.boot_ns).div_ceil(NS_PER_S));
        assert_eq!(queue.settled(), 0);
        now = Now {
            boot_ns: next,
            ..now
        };
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(sent(&mut queue, now).expect("is tried").seq, 1);
    queue.settle(now, Attempt::Delivered, 0);
    assert_eq!(queue.settled(), 1);
    assert_eq!(sent(&mut queue, now).expect("the next").seq, 2);
    queue.settle(now, Attempt::Delivered, 0);
    assert_eq!((queue.settled(), queue.next(now)), (2, Next::Idle));
    assert_eq!(queue.to_record(now), None);
}

#[test]
fn a_full_queue_gives_up_the_oldest_counts_them_and_tells_so_once() {
    let mut queue = queue();
    queue.push(at(0), notice(1), 1);
    assert!(sent(&mut queue, at(0)).is_some(), "the first is on its way");
    for seq in 2..=WAITING_MAX as u64 + 4 {
        queue.push(at(0), notice(seq), seq);
    }
    assert_eq!(queue.counts().given_up, 3);
    assert_eq!(
        queue.to_record(at(0)).map(|given_up| given_up.count),
        Some(3)
    );
    queue.settle(at(1), Attempt::Delivered, 0);
    let summary = sent(&mut queue, at(1)).expect("the summary");
    assert_eq!((summary.event, summary.count), (NoticeKind::Lost, Some(3)));
    queue.settle(at(1), Attempt::Delivered, 0);
    assert_eq!(sent(&mut queue, at(1)).expect("goes on").seq, 5);
}

#[test]
fn a_rejected_notice_is_not_tried_again_and_an_old_one_not_at_all() {
    let mut queue = queue();
    queue.push(at(0), notice(1), 1);
    assert!(sent(&mut queue, at(0)).is_some());
    queue.settle(at(0), Attempt::Rejected("404".into()), 0);
    assert_eq!(queue.counts().given_up, 1);
    assert_eq!(
        sent(&mut queue, at(0)).expect("a summary").event,
        NoticeKind::Lost
    );
    queue.settle(at(0), Attempt::Rejected("404".into()), 0);
    assert_eq!(queue.next(at(0)), Next::Idle, "it is not told for ever");
    queue.push(at(0), notice(2), 2);
    assert_eq!(queue.next(at(15 * 60)), Next::Idle);
    assert_eq!(queue.counts().given_up, 2);
    assert_eq!(queue.settled(), 2);
}

#[test]
fn what_was_given_up_is_on_record_once_a_minute_at_most() {
    let mut queue = queue();
    queue.pass_over(4, "they are gone");
    assert_eq!(
        queue.to_record(at(0)).map(|given_up| given_up.count),
        Some(4)
    );
    queue.pass_over(1, "a");
    queue.pass_over(1, "b");
    assert_eq!(queue.to_record(at(59)), None);
    let given_up = queue.to_record(at(60)).expect("is due");
    assert_eq!((given_up.count, given_up.why.as_str()), (2, "b"));
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    Try(u8, u16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Push),
        3 => (0_u8..3, any::<u16>()).prop_map(|(outcome, jitter)| Step::Try(outcome, jitter)),
        1 => (0_u64..400).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn every_notice_arrives_in_order_or_is_counted_and_no_bound_is_passed(
        steps in prop::collection::vec(step(), 0..900)
    ) {
        let mut queue = queue();
        let (mut now, mut pushed) = (at(0), 0);
        let (mut arrived, mut told, mut tries) = (Vec::new(), 0, std::collections::BTreeMap::new());
        let mut settled = 0;
        for step in steps {
            match step {
                Step::Push => {
                    pushed += 1;
                    queue.push(now, notice(pushed), pushed);
                    queue.has_read(pushed);
                }
                Step::Wait(seconds) => now = now.plus_ns(seconds * NS_PER_S),
                Step::Try(outcome, jitter) => {
                    let Some(tried) = sent(&mut queue, now) else { continue };
                    let is_summary = tried.event == NoticeKind::Lost;
                    if !is_summary {
                        let count: &mut u32 = tries.entry(tried.seq).or_default();
                        *count += 1;
                        prop_assert!(*count <= ATTEMPTS_MAX);
                    }
                    let attempt = match outcome {
                        0 => Attempt::Delivered,
                        1 => Attempt::Failed("x".into()),
                        _ => Attempt::Rejected("x".into()),
                    };
                    if attempt == Attempt::Delivered {
                        if is_summary {
                            told += tried.count.expect("counts");
                        } else {
                            arrived.push(tried.seq);
                        }
                    }
                    queue.settle(now, attempt, jitter);
                    if let Next::At(next) = queue.next(now) {
                        prop_assert!(next > now.boot_ns && next - now.boot_ns <= BACKOFF_MAX_NS);
                    }
                }
            }
            let counts = queue.counts();
            prop_assert_eq!(counts.delivered + counts.given_up + counts.waiting, pushed);
            prop_assert!(counts.waiting <= WAITING_MAX as u64 + 1);
            prop_assert!(told <= counts.given_up);
            prop_assert!(queue.settled() >= settled && queue.settled() <= pushed);
            settled = queue.settled();
        }
        prop_assert!(arrived.is_sorted() && arrived.len() as u64 == queue.counts().delivered);
    }

    #[test]
    fn no_refusal_is_told_twice_and_two_notices_of_an_agent_are_an_interval_apart(
        gaps in prop::collection::vec((0_u64..90, 1_u64..4, any::<bool>()), 0..300),
        refusals in 1_u64..20,
    ) {
        let mut bursts = Bursts::new(limits(refusals));
        let (mut seconds, mut counted, mut told) = (0, 0, 0);
        let mut last_told: Option<u64> = None;
        for (seq, (gap, count, is_poll)) in gaps.into_iter().enumerate() {
            seconds += gap;
            let now = at(seconds).boot_ns;
            let burst = if is_poll {
                let mut due = bursts.poll(now, BOOT);
                prop_assert!(due.len() <= 1);
                due.pop()
            } else {
                counted += count;
                let one = Counted { seq: seq as u64, unix_ns: 0, agent: None, count, code: None, message: String::new() };
                bursts.count(now, BOOT, one)
            };
            if let Some(burst) = burst {
                told += burst.count;
                prop_assert!(last_told.is_none_or(|before| now - before >= limits(1).interval.ns()));
                prop_assert!(burst.is_further || burst.count >= refusals);
                last_told = Some(now);
            }
            prop_assert!(told <= counted);
        }
    }
}
