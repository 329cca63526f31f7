//! The log on a real file system.

use std::os::unix::fs::FileExt;

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
    let path = segment_path(dir.path(), 1);
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
fn a_changed_byte_stops_the_log_from_being_continued_and_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut opened, _) = open(dir.path());
    opened
        .log
        .append(&[event(1), event(2), event(3)])
        .expect("appends");
    drop(opened);
    let path = segment_path(dir.path(), 1);
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
        File::open(segment_path(dir.path(), 1)).expect("reads"),
    );
    assert!(opened.log.append(&[event(2)]).is_err());
    assert_eq!(opened.log.count(), 1);
    opened.log.file = writable;
    opened.log.append(&[event(3)]).expect("appends again");
    assert_eq!(verify(dir.path(), |_, _| ()).expect("verifies").count(), 2);
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

#[test]
fn a_reader_goes_on_from_where_it_was_over_segments_and_behind_a_line_that_was_being_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let write = |number, text: &str| {
        std::fs::write(segment_path(dir.path(), number), text).expect("writes");
    };
    write(1, "a\nb\n");
    write(2, "c\nd");
    let mut place = Place::at_record(dir.path(), 2);
    assert_eq!(place.read(3, 10, 100).expect("reads"), ["b", "c"]);
    assert!(place.read(4, 10, 100).expect("reads").is_empty());
    // What it has read is not read again: it could not be any more.
    write(1, "");
    write(2, "x\nlonger than d\n");
    assert_eq!(place.read(4, 10, 100).expect("reads"), ["longer than d"]);
    write(3, "e\nf\ng\n");
    assert_eq!(place.read(7, 2, 100).expect("reads"), ["e", "f"]);
    assert_eq!(place.read(7, 2, 0).expect("reads"), ["g"]);
    assert!(place.read(7, 2, 100).expect("reads").is_empty());
}

#[test]
fn a_reply_ends_before_the_line_that_would_make_it_too_long() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(segment_path(dir.path(), 1), "aaa\nbbb\nc\n").expect("writes");
    let mut place = Place::at_record(dir.path(), 1);
    assert_eq!(place.read(3, 10, 5).expect("reads"), ["aaa"]);
    assert_eq!(place.read(3, 10, 5).expect("reads"), ["bbb", "c"]);
}
