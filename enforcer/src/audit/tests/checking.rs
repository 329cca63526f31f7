//! What checking a log finds, with checkpoints and without.

use enforcer_proto::checkpoint::{Checkpoint, Keyholder};

use super::super::verify::{FaultKind, Report, examine};
use super::*;

const LINES: u64 = 9;

fn key(seed: u8) -> Keyholder {
    Keyholder::from_seed("enforcer/host-a", &[seed; 32]).expect("a name")
}

/// A log of nine records in three segments, and what was signed at its third, sixth and last.
struct Signed {
    dir: tempfile::TempDir,
    checkpoints: Vec<Checkpoint>,
}

impl Signed {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut log = open(dir.path()).0.log;
        let mut checkpoints = Vec::new();
        for n in 1..=LINES {
            // Every third append begins another segment.
            log.set_segment_bytes(if n % 3 == 1 { 1 } else { u64::MAX });
            log.append(&[event(n)]).expect("appends");
            if n % 3 == 0 {
                let End { records, head } = log.end();
                let note = key(7).sign(records, head, 100 + n);
                checkpoints.push(key(7).verifier().verify(&note).expect("signed"));
            }
        }
        Self { dir, checkpoints }
    }

    fn path(&self, number: u32) -> PathBuf {
        Segment::of(self.dir.path(), number).path
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut Vec<String>)) {
        let text = std::fs::read_to_string(self.path(number)).expect("reads");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(self.path(number), text).expect("writes");
    }

    fn unsigned(&self) -> Report {
        examine(self.dir.path(), &[]).expect("reads")
    }

    fn signed(&self) -> Report {
        examine(self.dir.path(), &self.checkpoints).expect("reads")
    }
}

fn faults(report: &Report) -> Vec<(u64, FaultKind)> {
    let faults = report.faults.iter();
    faults.map(|fault| (fault.record, fault.kind)).collect()
}

#[test]
fn a_log_that_was_left_alone_is_what_was_signed() {
    let log = Signed::new();
    let report = log.signed();
    assert!(report.whole && report.first_record == 1, "{report:?}");
    assert_eq!(
        (report.records, report.signed_record, report.signed_unix_ns),
        (9, Some(9), Some(109))
    );
    assert_eq!(
        (log.unsigned().whole, log.unsigned().signed_record),
        (true, None)
    );
}

#[test]
fn a_flipped_bit_is_found_in_the_record_that_holds_it_and_in_no_other() {
    for (number, line) in [(1, 0), (2, 1), (3, 2)] {
        let log = Signed::new();
        log.change(number, |lines| {
            let mut bytes = lines[line].clone().into_bytes();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            lines[line] = String::from_utf8(bytes).expect("text");
        });
        let bad = u64::from(number - 1) * 3 + line as u64 + 1;
        let report = log.unsigned();
        assert_eq!(faults(&report), [(bad, FaultKind::Changed)], "{report:?}");
        let file = report.faults[0].file.clone();
        assert_eq!(file, Some(log.path(number)));
    }
}

#[test]
fn a_removed_line_is_named_as_missing() {
    let log = Signed::new();
    log.change(2, |lines| drop(lines.remove(1)));
    let report = log.unsigned();
    assert_eq!(faults(&report), [(5, FaultKind::Missing)]);
    assert!(
        report.faults[0].why.contains("records 5 to 5 are missing"),
        "{report:?}"
    );
}

#[test]
fn every_gap_is_named_and_a_segment_that_is_gone_is_one() {
    let log = Signed::new();
    std::fs::remove_file(log.path(2)).expect("removes");
    log.change(3, |lines| drop(lines.remove(1)));
    let report = log.unsigned();
    assert_eq!(
        faults(&report),
        [(4, FaultKind::Missing), (8, FaultKind::Missing)]
    );
    assert!(
        report.faults[0].why.contains("records 4 to 6"),
        "{report:?}"
    );
    let missing = |report: &Report| {
        report.faults[0]
            .why
            .contains("no record says that they were removed")
    };
    let log = Signed::new();
    std::fs::remove_file(log.path(1)).expect("removes");
    assert!(missing(&log.unsigned()));
    let error = Log::open(log.dir.path(), "boot", |_| ()).expect_err("is not continued");
    assert!(
        error.to_string().contains("records 1 to 3 are missing"),
        "{error}"
    );
}

#[test]
fn a_removed_end_is_seen_only_with_a_checkpoint_and_counted() {
    let log = Signed::new();
    log.change(3, |lines| lines.truncate(1));
    assert!(log.unsigned().whole);
    let report = log.signed();
    assert_eq!(faults(&report), [(8, FaultKind::CutOff)]);
    assert!(
        report.faults[0]
            .why
            .contains("its last 2 records were cut off"),
        "{report:?}"
    );
    assert_eq!(report.signed_record, Some(6));
}

#[test]
fn a_log_that_was_emptied_is_seen_with_a_checkpoint() {
    let log = Signed::new();
    for number in 1..=3 {
        std::fs::write(log.path(number), "").expect("empties");
    }
    assert_eq!(faults(&log.signed()), [(1, FaultKind::CutOff)]);
    assert!(examine(log.dir.path(), &[]).is_err());
}

#[test]
fn a_log_that_was_rewritten_as_a_whole_is_seen_only_with_a_checkpoint() {
    let log = Signed::new();
    let other = tempfile::tempdir().expect("a folder");
    let mut opened = open(other.path()).0;
    // The same, but for one grant, and chained anew.
    for n in 1..=LINES {
        let forged = if n == 5 { 50 } else { n };
        opened.log.append(&[event(forged)]).expect("appends");
    }
    assert!(examine(other.path(), &[]).expect("reads").whole);
    let report = examine(other.path(), &log.checkpoints).expect("reads");
    assert_eq!(
        faults(&report),
        [(6, FaultKind::Rewritten), (9, FaultKind::Rewritten)]
    );
    assert!(
        report.faults[0]
            .why
            .contains("up to record 3 it is what was signed"),
        "{report:?}"
    );
}

#[test]
fn a_checkpoint_by_another_key_is_no_checkpoint() {
    let note = key(8).sign(9, Hash([1; 32]), 1);
    let error = key(7).verifier().verify(&note).expect_err("is refused");
    assert!(
        error.to_string().contains("not signed by the key"),
        "{error}"
    );
}

#[test]
fn an_unfinished_line_at_the_very_end_is_said_and_is_no_fault() {
    let log = Signed::new();
    let mut text = std::fs::read_to_string(log.path(3)).expect("reads");
    text.push_str("{\"seq\":10");
    std::fs::write(log.path(3), text).expect("writes");
    for report in [log.unsigned(), log.signed()] {
        assert!(report.whole && report.records == LINES, "{report:?}");
        let unfinished = report.unfinished.expect("is said");
        assert_eq!((unfinished.record, unfinished.bytes), (10, 9));
        assert_eq!(unfinished.file, log.path(3));
    }
    assert!(open(log.dir.path()).0.torn_bytes == 9 && log.unsigned().unfinished.is_none());
}

#[test]
fn a_first_record_that_is_being_written_is_no_missing_log() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(Segment::of(dir.path(), 1).path, "{\"seq\":1").expect("writes");
    let report = examine(dir.path(), &[]).expect("reads");
    assert!(report.whole && report.records == 0 && report.unfinished.is_some());
}

#[test]
fn a_last_record_without_its_end_is_cut_off_where_it_was_signed() {
    let log = Signed::new();
    let text = std::fs::read_to_string(log.path(3)).expect("reads");
    std::fs::write(log.path(3), text.trim_end()).expect("writes");
    assert_eq!(faults(&log.signed()), [(9, FaultKind::CutOff)]);
    let unsigned = log.unsigned();
    assert!(
        unsigned.whole && unsigned.unfinished.is_some(),
        "{unsigned:?}"
    );
}

#[test]
fn a_line_without_an_end_that_others_follow_is_a_fault() {
    let log = Signed::new();
    let mut text = std::fs::read_to_string(log.path(2)).expect("reads");
    text.push_str("{\"seq\":7");
    std::fs::write(log.path(2), text).expect("writes");
    let report = log.unsigned();
    assert_eq!(faults(&report), [(7, FaultKind::Torn)]);
    assert!(!report.whole && report.unfinished.is_none(), "{report:?}");
}

#[test]
fn an_end_that_is_longer_than_any_record_was_not_torn_by_a_crash() {
    let log = Signed::new();
    let long = "x".repeat(enforcer_proto::audit::LINE_BYTES_MAX + 9);
    let mut text = std::fs::read_to_string(log.path(3)).expect("reads");
    text.push_str(&long);
    std::fs::write(log.path(3), text).expect("writes");
    assert_eq!(faults(&log.unsigned()), [(10, FaultKind::Changed)]);
}
