//! The log on a real file system.

mod checking;
mod keeping;

use std::os::unix::fs::FileExt;

use enforcer_proto::audit::Named;
use enforcer_proto::id::GrantId;

use super::*;

const NOW: Now = Now {
    boot_ns: 1,
    unix_ns: 2,
};

fn event(n: u64) -> (Now, Event) {
    (
        NOW,
        Event::Opened {
            grant: GrantId(n),
            agent: "bot".parse().expect("a name"),
        },
    )
}

fn open(dir: &Path) -> (Opened, u64) {
    let mut seen = 0;
    let opened = Log::open(dir, "boot", |_| seen += 1).expect("opens");
    (opened, seen)
}

#[test]
fn what_was_appended_is_there_after_reopening() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut opened, seen) = open(dir.path());
    assert_eq!(seen, 0);
    opened.log.append(&[event(1), event(2)]).expect("appends");
    drop(opened);
    let (mut opened, seen) = open(dir.path());
    assert_eq!((seen, opened.last_boot_id.as_deref()), (2, Some("boot")));
    opened.log.append(&[event(3)]).expect("appends");
    assert_eq!(verify(dir.path(), |_, _| ()).expect("verifies").count(), 3);
}

#[test]
fn a_torn_last_line_is_set_aside_and_the_chain_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut opened, _) = open(dir.path());
    opened.log.append(&[event(1)]).expect("appends");
    let path = Segment::of(dir.path(), 1).path;
    let bytes = std::fs::metadata(&path).expect("a file").len();
    OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("a file")
        .write_all_at(b"{\"seq\":2,", bytes)
        .expect("writes");
    drop(opened);
    let (mut opened, seen) = open(dir.path());
    assert_eq!((seen, opened.torn_bytes), (1, 9));
    opened.log.append(&[event(2)]).expect("appends");
    assert_eq!(verify(dir.path(), |_, _| ()).expect("verifies").count(), 2);
    assert_eq!(
        std::fs::read(dir.path().join("torn-before-2")).expect("kept"),
        b"{\"seq\":2,"
    );
}

#[test]
fn a_hole_before_the_very_end_could_be_anybodys_and_is_named_with_its_place() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut opened, _) = open(dir.path());
    opened.log.append(&[event(1)]).expect("appends");
    drop(opened);
    let path = Segment::of(dir.path(), 1).path;
    let whole = std::fs::read(&path).expect("reads");
    // As a power cut may leave a batch of which a later page has reached the disk and an earlier one has not.
    let torn = [&whole[..], &[0; 4096], b"\"}\n"].concat();
    std::fs::write(&path, torn).expect("writes");
    let error = Log::open(dir.path(), "boot", |_| ()).expect_err("is refused");
    let said = error.to_string();
    let place = format!(
        "behind the first {} bytes of {}",
        whole.len(),
        path.display()
    );
    assert!(
        said.contains("record 2 is bad") && said.contains(&place),
        "{said}"
    );
    // Whoever has looked at it cuts it off there, and the log goes on.
    let file = OpenOptions::new().write(true).open(&path).expect("a file");
    file.set_len(whole.len() as u64).expect("cuts");
    assert_eq!(open(dir.path()).1, 1);
}

#[test]
fn a_changed_byte_stops_the_log_from_being_continued_and_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut opened, _) = open(dir.path());
    opened
        .log
        .append(&[event(1), event(2), event(3)])
        .expect("appends");
    drop(opened);
    let path = Segment::of(dir.path(), 1).path;
    let text = std::fs::read_to_string(&path)
        .expect("text")
        .replacen("\"g-2\"", "\"g-9\"", 1);
    std::fs::write(&path, text).expect("writes");
    let error = Log::open(dir.path(), "boot", |_| ()).expect_err("is refused");
    assert!(error.to_string().contains("record 2 is bad"), "{error}");
}

#[test]
fn a_batch_that_cannot_be_written_is_not_in_the_log_and_does_not_move_the_chain() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut opened, _) = open(dir.path());
    opened.log.append(&[event(1)]).expect("appends");
    // A file that is open for reading only refuses every write, as a full or failed disk does.
    let writable = std::mem::replace(
        &mut opened.log.file,
        File::open(Segment::of(dir.path(), 1).path).expect("reads"),
    );
    assert!(opened.log.append(&[event(2)]).is_err());
    assert_eq!(opened.log.count(), 1);
    opened.log.file = writable;
    opened.log.append(&[event(3)]).expect("appends again");
    assert_eq!(verify(dir.path(), |_, _| ()).expect("verifies").count(), 2);
}

/// A log on whose file whole lines were left that it has refused: a batch of three behind its one record, which could not be cut off.
fn with_refused_lines(dir: &Path) -> Log {
    let mut log = open(dir).0.log;
    log.append(&[event(1)]).expect("appends");
    let refused = [event(2), event(3), event(4)];
    let lines = log.seal(&refused).expect("seals").bytes;
    // Takes whatever is written, makes nothing durable, and cannot be cut back.
    let device = OpenOptions::new().write(true).open("/dev/null");
    let file = std::mem::replace(&mut log.file, device.expect("a device"));
    let error = log.append(&refused).expect_err("is refused").to_string();
    assert!(error.contains("make durable") && log.is_dirty(), "{error}");
    log.file = file;
    log.file
        .write_all_at(&lines, log.good_bytes)
        .expect("writes");
    log
}

#[test]
fn of_a_batch_that_was_refused_nothing_is_left_behind_a_shorter_one_that_follows() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = with_refused_lines(dir.path());
    log.append(&[event(5)]).expect("appends");
    assert!(!log.is_dirty());
    drop(log);
    let (mut opened, seen) = open(dir.path());
    assert_eq!((seen, opened.torn_bytes), (2, 0));
    opened.log.append(&[event(6)]).expect("appends");
    assert_eq!(verify(dir.path(), |_, _| ()).expect("verifies").count(), 3);
}

#[test]
fn what_was_refused_can_be_cut_off_though_nothing_else_is_to_be_recorded() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = with_refused_lines(dir.path());
    log.cut_back().expect("cuts");
    assert!(!log.is_dirty());
    drop(log);
    let (opened, seen) = open(dir.path());
    assert_eq!((seen, opened.torn_bytes), (1, 0));
}

#[test]
fn a_record_that_is_too_long_is_replaced_by_one_that_says_so_and_keeps_no_other_out() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut opened, _) = open(dir.path());
    let long = Event::DaemonStarted {
        host: "x".repeat(enforcer_proto::audit::LINE_BYTES_MAX),
        version: String::new(),
        policy_digest: String::new(),
    };
    opened
        .log
        .append(&[event(1), (NOW, long), event(2)])
        .expect("appends");
    let mut kinds = Vec::new();
    verify(dir.path(), |record, _| kinds.push(record.event.clone())).expect("verifies");
    let stand_in = matches!(&kinds[1], Event::TooLong { event, bytes } if event == "daemon_started" && *bytes > 2_000_000);
    assert!(stand_in && kinds.len() == 3, "{kinds:?}");
}

/// A line that says what a reader needs to find its place, and is told from others by its length.
fn named(seq: u64, pad: usize) -> String {
    let hash = "0".repeat(64);
    format!(
        r#"{{"seq":{seq},"boot_id":"boot","boot_ns":1,"unix_ns":1,"prev":"{hash}","hash":"{hash}","pad":"{}"}}"#,
        "x".repeat(pad)
    )
}

fn seqs(lines: &[String]) -> Vec<u64> {
    let seq = |line: &String| Named::of(line.as_bytes()).expect("a place").seq;
    lines.iter().map(seq).collect()
}

#[test]
fn a_reader_goes_on_from_where_it_was_over_segments_and_behind_a_line_that_was_being_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |number, lines: &[String], torn: &str| {
        let text = lines.iter().map(|line| format!("{line}\n"));
        let text = text.collect::<String>() + torn;
        std::fs::write(Segment::of(dir.path(), number).path, text).expect("writes");
    };
    let mut read = {
        let mut place = Place::at_record(dir.path(), 2);
        move |until, lines, bytes| seqs(&place.read(until, lines, bytes).expect("reads"))
    };
    write(1, &[named(1, 0), named(2, 0)], "");
    write(2, &[named(3, 0)], "{\"seq\":4");
    assert_eq!(read(3, 10, 1000), [2, 3]);
    assert!(read(4, 10, 1000).is_empty());
    // What it has read is not read again: it could not be any more.
    write(1, &[], "");
    write(2, &[named(3, 0), named(4, 30)], "");
    assert_eq!(read(4, 10, 1000), [4]);
    write(3, &[named(5, 0), named(6, 0), named(7, 0)], "");
    assert_eq!(read(7, 2, 1000), [5, 6]);
    assert_eq!(read(7, 2, 0), [7]);
    assert!(read(7, 2, 1000).is_empty());
}

#[test]
fn a_reader_finds_its_record_among_segments_whose_first_are_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    for number in 4_u32..9 {
        let first = u64::from(number) * 10;
        let lines: String = (first..first + 10).map(|n| named(n, 0) + "\n").collect();
        std::fs::write(Segment::of(dir.path(), number).path, lines).expect("writes");
    }
    let read = |from| {
        let mut place = Place::at_record(dir.path(), from);
        seqs(&place.read(89, 3, 100_000).expect("reads"))
    };
    assert_eq!(read(1), [40, 41, 42], "the oldest that is there");
    assert_eq!(read(55), [55, 56, 57]);
    assert_eq!(read(60), [60, 61, 62]);
    assert_eq!(read(88), [88, 89]);
    // One who is still in a segment that goes away is led to the next that is there.
    let mut place = Place::at_record(dir.path(), 40);
    assert_eq!(seqs(&place.read(89, 2, 100_000).expect("reads")), [40, 41]);
    for number in 4..6 {
        std::fs::remove_file(Segment::of(dir.path(), number).path).expect("removes");
    }
    assert_eq!(seqs(&place.read(89, 2, 100_000).expect("reads")), [60, 61]);
}

#[test]
fn a_reply_ends_before_the_line_that_would_make_it_too_long() {
    let dir = tempfile::tempdir().expect("a folder");
    let lines = [named(1, 0), named(2, 0), named(3, 0)];
    let long = lines[0].len();
    std::fs::write(Segment::of(dir.path(), 1).path, lines.join("\n") + "\n").expect("writes");
    let mut place = Place::at_record(dir.path(), 1);
    assert_eq!(seqs(&place.read(3, 10, long + 1).expect("reads")), [1]);
    assert_eq!(seqs(&place.read(3, 10, 2 * long).expect("reads")), [2, 3]);
}
