//! Which segments stay, and what a start makes of snapshots.

use std::time::Duration;

use enforcer_proto::event::Numbers;
use enforcer_proto::id::RequestId;
use enforcer_proto::ledger::Ledger;
use enforcer_proto::policy::Ask;
use enforcer_proto::principal::Process;
use enforcer_proto::time::NS_PER_S;

use super::super::rebuild::{Rebuilt, rebuild};
use super::super::retention::Keep;
use super::super::verify::examine;
use super::*;

const DAY_NS: u64 = 24 * 3600 * NS_PER_S;

fn on_day(day: u64, n: u64) -> (Now, Event) {
    let now = Now {
        boot_ns: day * DAY_NS,
        unix_ns: day * DAY_NS,
    };
    (now, event(n).1)
}

/// A log with a segment for each of ten days, three records each.
fn ten_days(dir: &Path) -> Log {
    let mut log = open(dir).0.log;
    for day in 1..=10 {
        log.set_segment_bytes(1);
        log.append(&[on_day(day, day), on_day(day, day), on_day(day, day)])
            .expect("appends");
    }
    log.set_segment_bytes(u64::MAX);
    log
}

fn today() -> Now {
    on_day(10, 0).0
}

const fn days(days: u64) -> Keep {
    Keep {
        age: Some(Duration::from_secs(days * 24 * 3600)),
        bytes: None,
    }
}

/// The ledger that such a log makes, in which a request has waited since that day.
fn waiting_since(day: u64) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.in_boot("boot");
    ledger.apply(on_day(1, 0).0, &on_day(1, 0).1);
    let asked = Event::Requested {
        request: RequestId(1),
        agent: "bot".parse().expect("a name"),
        process: Process {
            pid: 1,
            start_boot_ns: 1,
            uid: 1,
            comm: "x".into(),
        },
        ask: Ask {
            scope: "p.d:read".parse().expect("a scope"),
            ttl: "1m".parse().expect("a ttl"),
            reason: "x".into(),
            bytes_max: None,
            queries_max: None,
        },
        rule: 1,
        digest: String::new(),
        expires_boot_ns: u64::MAX,
        from_query: None,
        ends_with_process: false,
        budget: None,
        origin: None,
    };
    ledger.apply(on_day(day, 0).0, &asked);
    ledger
}

/// Long after, so that only what waits is needed.
fn free(log: &Log, keep: Keep, now: Now, ledger: &Ledger) -> Option<Event> {
    let later = Now {
        boot_ns: 90 * DAY_NS,
        ..now
    };
    let needed = ledger.needed(later);
    log.removable(keep, now, &needed, Numbers::default())
        .expect("reads")
}

/// What goes, as the first and the last record, where a request has waited since that day.
fn removable(log: &Log, keep: Keep, needed: u64) -> Option<(u64, u64)> {
    let event = free(log, keep, today(), &waiting_since(needed))?;
    let Event::SegmentsRemoved {
        first_seq,
        last_seq,
        ..
    } = event
    else {
        panic!("{event:?}")
    };
    Some((first_seq, last_seq))
}

#[test]
fn old_segments_may_go_and_what_the_ledger_needs_stays() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = ten_days(dir.path());
    let none = 80;
    assert_eq!(removable(&log, Keep::default(), none), None);
    // The segment of the third day ends when the fourth begins, six days ago.
    assert_eq!(removable(&log, days(5), none), Some((1, 9)));
    assert_eq!(removable(&log, days(5), 3), Some((1, 3)));
    assert_eq!(removable(&log, days(5), 1), None);
    let few = Keep {
        age: None,
        bytes: Some(1),
    };
    assert_eq!(
        removable(&log, few, none),
        Some((1, 27)),
        "the last one stays"
    );
    assert_eq!(removable(&log, few, 8), Some((1, 18)));
}

#[test]
fn a_log_without_its_oldest_segments_verifies_and_is_continued() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = ten_days(dir.path());
    let event = free(&log, days(5), today(), &waiting_since(80));
    let event = event.expect("some go");
    log.append(&[(today(), event)]).expect("appends");
    let before = log.room();
    log.remove_up_to(9).expect("removes");
    let after = log.room();
    assert_eq!((before.first_record, after.first_record), (1, 10));
    assert!(after.bytes < before.bytes);
    drop(log);

    let report = examine(dir.path(), &[]).expect("reads");
    assert_eq!(
        (report.whole, report.first_record, report.records),
        (true, 10, 31),
        "{report:?}"
    );
    let (mut opened, seen) = open(dir.path());
    assert_eq!((seen, opened.log.room().bytes), (22, after.bytes));
    opened.log.append(&[event_of_today()]).expect("goes on");
    assert_eq!(opened.log.count(), 32);
    // The segment goes on being numbered from where it was.
    assert_eq!(opened.log.segment(), 10);
}

fn event_of_today() -> (Now, Event) {
    on_day(10, 99)
}

#[test]
fn what_a_crash_left_of_a_removal_goes_at_the_next_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = ten_days(dir.path());
    let event = free(&log, days(5), today(), &waiting_since(80)).expect("some go");
    log.append(&[(today(), event)]).expect("appends");
    drop(log);
    // The first of three files had gone.
    std::fs::remove_file(Segment::of(dir.path(), 1).path).expect("removes");
    assert!(examine(dir.path(), &[]).expect("reads").whole);
    let (opened, seen) = open(dir.path());
    assert_eq!((seen, opened.log.room().first_record), (28, 10));
    assert_eq!(segments(dir.path()).expect("lists").len(), 7);
}

#[test]
fn a_removal_that_says_another_hash_excuses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = ten_days(dir.path());
    let lie = Event::SegmentsRemoved {
        first_seq: 1,
        last_seq: 12,
        head: "0".repeat(64),
        numbers: Numbers::default(),
    };
    log.append(&[(today(), lie)]).expect("appends");
    log.remove_up_to(12).expect("removes");
    drop(log);
    assert!(!examine(dir.path(), &[]).expect("reads").whole);
    assert!(Log::open(dir.path(), "boot", |_| ()).is_err());
}

/// A log with a snapshot at its twentieth record, named by its twenty-first, and nine more.
fn with_snapshot(dir: &Path) -> Ledger {
    let mut ledger = Ledger::default();
    ledger.in_boot("boot");
    let mut log = open(dir).0.log;
    let put = |log: &mut Log, ledger: &mut Ledger, event: (Now, Event)| {
        ledger.apply(event.0, &event.1);
        log.append(&[event]).expect("appends");
    };
    let asked = |n| {
        let event = Event::SegmentsRemoved {
            first_seq: 0,
            last_seq: 0,
            head: String::new(),
            numbers: Numbers {
                query: n,
                ..Numbers::default()
            },
        };
        (NOW, event)
    };
    for n in 1..=20 {
        log.set_segment_bytes(if n % 8 == 0 { 1 } else { u64::MAX });
        put(&mut log, &mut ledger, asked(n));
    }
    let written = log.snapshot(&ledger).expect("has records").write();
    let super::super::snapshot::Written { records, sha256 } = written.expect("writes");
    put(
        &mut log,
        &mut ledger,
        (NOW, Event::SnapshotTaken { records, sha256 }),
    );
    for n in 21..=29 {
        put(&mut log, &mut ledger, asked(n));
    }
    ledger
}

fn snapshot_path(dir: &Path) -> PathBuf {
    dir.join("snapshot-000000000020.json")
}

fn rebuilt(dir: &Path) -> Rebuilt {
    rebuild(dir, "boot").expect("opens")
}

#[test]
fn a_start_reads_only_what_follows_the_snapshot() {
    let dir = tempfile::tempdir().expect("a folder");
    let ledger = with_snapshot(dir.path());
    // That it is not read is seen by what is wrong with it: that is for the check in the background to find.
    std::fs::write(Segment::of(dir.path(), 1).path, "nonsense\n").expect("writes");
    let error = rebuild(dir.path(), "boot");
    assert!(
        error.is_err(),
        "the oldest segment begins with a record in any case"
    );
    let dir = tempfile::tempdir().expect("a folder");
    with_snapshot(dir.path());
    let second = Segment::of(dir.path(), 2).path;
    std::fs::write(&second, "nonsense\n").expect("writes");
    let found = rebuilt(dir.path());
    assert_eq!(found.ledger, ledger);
    assert_eq!(found.resumed.map(|end| end.records), Some(20));
    assert_eq!((found.opened.log.count(), found.aside.len()), (30, 0));
    assert_eq!(found.opened.last_boot_id.as_deref(), Some("boot"));
}

/// Spoils the snapshot; the ledger must be made of the whole log then, and it must be said why.
fn set_aside_where(spoil: impl FnOnce(&Path), why: &str) {
    let dir = tempfile::tempdir().expect("a folder");
    let ledger = with_snapshot(dir.path());
    spoil(&snapshot_path(dir.path()));
    let found = rebuilt(dir.path());
    assert_eq!((&found.ledger, found.resumed), (&ledger, None), "{why}");
    assert_eq!((found.opened.log.count(), found.aside.len()), (30, 1));
    assert!(found.aside[0].contains(why), "{:?} says {why}", found.aside);
    assert!(!snapshot_path(dir.path()).exists() && dir.path().join("snapshot-set-aside").exists());
}

/// Writes the body anew with the digest that belongs to it.
fn rewrite(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let text = std::fs::read_to_string(path).expect("reads");
    let mut body = serde_json::from_str(text.lines().next().expect("a body")).expect("JSON");
    change(&mut body);
    let body = body.to_string();
    let digest = enforcer_proto::audit::sha256_hex(body.as_bytes());
    std::fs::write(path, format!("{body}\n{digest}\n")).expect("writes");
}

#[test]
fn a_snapshot_that_is_torn_changed_or_of_another_version_is_set_aside_and_the_whole_log_is_read() {
    set_aside_where(
        |path| {
            let text = std::fs::read(path).expect("reads");
            std::fs::write(path, &text[..text.len() / 2]).expect("writes");
        },
        "torn",
    );
    set_aside_where(
        |path| {
            let text = std::fs::read_to_string(path).expect("reads");
            let text = text.replacen("\"last_query\":20", "\"last_query\":10", 1);
            std::fs::write(path, text).expect("writes");
        },
        "changed",
    );
    set_aside_where(
        |path| rewrite(path, |body| body["ledger_version"] = 0.into()),
        "another version",
    );
    // Whoever changes it, digest and all, must change the log as well.
    set_aside_where(
        |path| rewrite(path, |body| body["ledger"]["last_query"] = 10.into()),
        "no record of the log names it",
    );
    set_aside_where(
        |path| rewrite(path, |body| body["head"] = "0".repeat(64).into()),
        "not the record that was there",
    );
    set_aside_where(
        |path| rewrite(path, |body| body["records"] = 2000.into()),
        "the log",
    );
    set_aside_where(
        |path| rewrite(path, |body| body["offset"] = 7.into()),
        "the log does not go on from it",
    );
}

#[test]
fn without_a_snapshot_the_whole_log_is_read_and_nothing_is_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let ledger = with_snapshot(dir.path());
    std::fs::remove_file(snapshot_path(dir.path())).expect("removes");
    let found = rebuilt(dir.path());
    assert_eq!((&found.ledger, found.resumed), (&ledger, None));
    assert!(found.aside.is_empty());
}

#[test]
fn a_log_that_is_broken_behind_the_snapshot_is_not_continued() {
    let dir = tempfile::tempdir().expect("a folder");
    with_snapshot(dir.path());
    let last = segments(dir.path()).expect("lists").pop().expect("some");
    let text = std::fs::read_to_string(&last).expect("reads");
    std::fs::write(&last, text.replace("\"query\":25", "\"query\":15")).expect("writes");
    assert!(rebuild(dir.path(), "boot").is_err());
    assert!(
        snapshot_path(dir.path()).exists(),
        "what is evidence is left as it is"
    );
}
