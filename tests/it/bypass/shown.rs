//! What a test of the suite has shown so far, so that no line of the table stands on less than it says. Kept for the thread: each test has its
//! own, and what it asserts, it asserts there.

use std::cell::Cell;

use harness::capture::Capture;

use super::Shows;

thread_local! {
    static SO_FAR: Cell<Shown> = const { Cell::new(Shown { wire: false, record: false, words: false, refuses: false, absent: false }) };
}

/// What was asserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shown {
    /// That nothing got out: a sniffer on the far side of the wire saw nothing.
    pub(super) wire: bool,
    /// That the attempt is in the log.
    pub(super) record: bool,
    /// That `status`, the daemon's own words or the log say what fails.
    pub(super) words: bool,
    /// That what is a limit elsewhere is refused on this kernel, which has programs at its security hooks.
    pub(super) refuses: bool,
    /// That this kernel does not have the way, so that there is nothing to refuse. The line says so too.
    pub(super) absent: bool,
}

/// Nothing that the sniffer looks for has come by.
pub(super) fn nothing_on(wire: &Capture, what: &str) {
    assert_eq!(wire.packets(), 0, "on the wire: {what}");
    add(|shown| shown.wire = true);
}

/// No more has come by than before, of what was let through then.
pub(super) fn nothing_more_on(wire: &Capture, before: u64) {
    assert_eq!(wire.settled(), before, "more on the wire");
    add(|shown| shown.wire = true);
}

/// The attempt is on record.
pub(super) fn on_record() {
    add(|shown| shown.record = true);
}

/// What fails is said.
pub(super) fn said_so(is_said: bool, words: &str) {
    assert!(is_said, "{words}");
    add(|shown| shown.words = true);
}

/// What is a limit elsewhere is refused here.
pub(super) fn refuses() {
    add(|shown| shown.refuses = true);
}

/// This kernel does not have the way.
pub(super) fn absent() {
    add(|shown| shown.absent = true);
}

fn add(what: impl FnOnce(&mut Shown)) {
    SO_FAR.with(|so_far| {
        let mut shown = so_far.get();
        what(&mut shown);
        so_far.set(shown);
    });
}

/// The test has ended, and must have shown what its line says.
#[track_caller]
pub(super) fn is_enough_for(shows: Shows) {
    let shown = SO_FAR.with(Cell::get);
    let lacks = lacks(shows, shown);
    assert!(
        lacks.is_none(),
        "the line says more than the test: {lacks:?}"
    );
}

/// What a test that has shown so much lacks for its line.
fn lacks(shows: Shows, shown: Shown) -> Option<&'static str> {
    let refused = || match shown {
        Shown { wire: false, .. } => Some("no sniffer was asked"),
        Shown {
            record: false,
            absent: false,
            ..
        } => Some("no record was looked for"),
        Shown { .. } => None,
    };
    match shows {
        Shows::Refused | Shows::RefusedToCapability | Shows::NoEffect => refused(),
        Shows::FailsClosed if !shown.wire => Some("no sniffer was asked"),
        Shows::FailsClosed if !shown.words && !shown.record => Some("nothing says what fails"),
        Shows::Noticed if !shown.record => Some("no record was looked for"),
        Shows::LimitWithoutHooks if shown.refuses => refused(),
        Shows::FailsClosed | Shows::Noticed | Shows::LimitWithoutHooks | Shows::Limit => None,
    }
}

#[test]
fn a_line_that_says_refused_on_record_needs_both() {
    let none = Shown {
        wire: false,
        record: false,
        words: false,
        refuses: false,
        absent: false,
    };
    let wire = Shown { wire: true, ..none };
    let record = Shown {
        record: true,
        ..none
    };
    let both = Shown {
        record: true,
        ..wire
    };
    for shows in [Shows::Refused, Shows::RefusedToCapability, Shows::NoEffect] {
        for too_little in [none, wire, record] {
            assert!(
                lacks(shows, too_little).is_some(),
                "{shows:?} {too_little:?}"
            );
        }
        assert_eq!(lacks(shows, both), None);
        assert_eq!(
            lacks(
                shows,
                Shown {
                    absent: true,
                    ..wire
                }
            ),
            None
        );
    }
    assert!(lacks(Shows::FailsClosed, wire).is_some());
    assert_eq!(
        lacks(
            Shows::FailsClosed,
            Shown {
                words: true,
                ..wire
            }
        ),
        None
    );
    assert!(lacks(Shows::Noticed, wire).is_some());
    assert_eq!(lacks(Shows::LimitWithoutHooks, none), None);
    assert!(
        lacks(
            Shows::LimitWithoutHooks,
            Shown {
                refuses: true,
                ..record
            }
        )
        .is_some()
    );
}
