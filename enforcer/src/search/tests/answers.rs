//! The daemon's answers: whatever its index has got to, and whatever becomes of that, they are what reading through gives.

use std::sync::Arc;

use super::super::keeper::Round;
use super::*;
use crate::audit::Watched;

/// A keeper that has no index: all is read through.
fn without(log: &Path) -> Arc<Keeper> {
    Arc::new(Keeper::new(log, Arc::default()))
}

/// A keeper whose index has got to the record `until`, and what it says.
fn kept(log: &Path, until: u64) -> (Arc<Keeper>, Arc<Watched>) {
    let watched = Arc::<Watched>::default();
    let keeper = Arc::new(Keeper::new(log, Arc::clone(&watched)));
    assert_eq!(keep(&keeper, until), Round::Done);
    (keeper, watched)
}

fn keep(keeper: &Keeper, until: u64) -> Round {
    keeper.round(&mut None, until)
}

fn has_index(keeper: &Keeper) -> bool {
    keeper.ask(Index::covered).flatten().is_some()
}

fn asked(filter: Filter, limit: Option<usize>) -> Asked {
    Asked {
        from: 1,
        filter,
        limit,
    }
}

fn seq(line: &str) -> u64 {
    let record: Record = serde_json::from_str(line).expect("a record");
    record.seq
}

/// The rest of an answer, `between` being done after each part.
fn rest(answer: &mut Answer, mut between: impl FnMut()) -> Vec<u64> {
    let mut found = Vec::new();
    while let Given::Lines(lines) = answer.part().expect("reads") {
        found.extend(lines.iter().map(|line| seq(line)));
        between();
    }
    found
}

fn answered(log: &Path, keeper: &Arc<Keeper>, asked: &Asked, until: u64) -> Vec<u64> {
    rest(&mut Answer::new(log, keeper, asked.clone(), until), || ())
}

fn closed() -> Filter {
    Filter {
        kind: Some("closed".into()),
        ..Filter::default()
    }
}

#[test]
fn an_answer_is_the_same_however_far_the_index_has_got() {
    let written = Written::new(50, 20);
    // Each index is in a folder of its own, of the same records.
    let logs: Vec<_> = [1, 20, 70, 139, 140]
        .map(|covered| {
            let log = Written::new(50, 20);
            let (keeper, _) = kept(log.path(), covered);
            (log, keeper)
        })
        .into();
    let none = without(written.path());
    proptest!(ProptestConfig::with_cases(300), |(
        filter in filters(),
        limit in prop::option::of(1_usize..12),
        from in prop_oneof![3 => Just(1_u64), 1 => 1_u64..150],
        until in prop_oneof![2 => Just(140_u64), 1 => 0_u64..=140],
    )| {
        let asked = Asked { from, filter: filter.clone(), limit };
        let through = answered(written.path(), &none, &asked, until);
        if (from, until) == (1, 140) {
            prop_assert_eq!(&through, &written.scanned(filter, limit));
        }
        for (log, keeper) in &logs {
            prop_assert!(has_index(keeper));
            prop_assert_eq!(&through, &answered(log.path(), keeper, &asked, until));
        }
    });
}

#[test]
fn an_answer_that_is_followed_goes_on_where_the_index_ended_while_the_log_grows() {
    proptest!(ProptestConfig::with_cases(60), |(
        filter in filters(),
        limit in prop::option::of(1_usize..12),
        covered in 1_u64..70,
    )| {
        let mut written = Written::new(50, 10);
        let (keeper, _) = kept(written.path(), covered);
        let asked = asked(filter.clone(), limit);
        let mut by_index = Answer::new(written.path(), &keeper, asked.clone(), 70);
        let mut through = Answer::new(written.path(), &without(written.path()), asked, 70);
        prop_assert_eq!(rest(&mut by_index, || ()), rest(&mut through, || ()));
        for n in 11..15 {
            written.add(n);
            // The index comes after, in part.
            keep(&keeper, n * 7 - 3);
            by_index.go_on(n * 7);
            through.go_on(n * 7);
            let more = rest(&mut through, || ());
            prop_assert_eq!(&rest(&mut by_index, || ()), &more);
            let all = written.scanned(filter.clone(), None);
            let grown: Vec<u64> = all.into_iter().filter(|seq| *seq > (n - 1) * 7).collect();
            prop_assert_eq!(more, grown);
        }
    });
}

#[test]
fn an_answer_is_the_same_where_old_segments_are_not_kept_any_more() {
    let written = Written::new(50, 20);
    let (keeper, _) = kept(written.path(), 140);
    std::fs::remove_file(written.path().join("log-000001.jsonl")).expect("removes");
    let none = without(written.path());
    proptest!(ProptestConfig::with_cases(200), |(filter in filters(), limit in prop::option::of(1_usize..12))| {
        let asked = asked(filter.clone(), limit);
        let through = answered(written.path(), &none, &asked, 140);
        prop_assert_eq!(&through, &written.scanned(filter, limit));
        prop_assert_eq!(&through, &answered(written.path(), &keeper, &asked, 140));
    });
    assert!(has_index(&keeper));
}

#[test]
fn an_answer_is_the_same_after_a_torn_end_was_repaired() {
    let mut written = Written::new(500, 5);
    let file = written.path().join("log-000001.jsonl");
    let whole = std::fs::read(&file).expect("reads");
    // A whole line that was never durable, and half of one: both are cut off, and others come.
    let line = |n| {
        let mut chain = written.chain.clone();
        let now = Now {
            boot_ns: n,
            unix_ns: n,
        };
        chain
            .seal(now, "boot", &Event::DaemonStopped {})
            .expect("short")
    };
    let torn = format!("{}\n{{\"seq\":37,", line(9));
    std::fs::write(&file, [whole.clone(), torn.into_bytes()].concat()).expect("writes");
    let (keeper, _) = kept(written.path(), 35);
    // Somebody else's index of that moment took in the line that was not durable.
    let mut theirs = written.index();
    assert_eq!(theirs.update(false).expect("goes on").last, 36);
    std::fs::write(&file, &whole).expect("repairs");
    written.add(6);
    let none = without(written.path());
    for until in [35, 42] {
        let through = answered(written.path(), &none, &asked(closed(), None), until);
        assert_eq!(
            answered(written.path(), &keeper, &asked(closed(), None), until),
            through
        );
    }
    assert_eq!(keep(&keeper, 42), Round::Done);
    assert!(has_index(&keeper), "built anew");
    let found = answered(written.path(), &keeper, &asked(closed(), None), 42);
    assert_eq!(found, [6, 13, 20, 27, 34, 41]);
}

#[test]
fn an_index_that_fails_in_the_middle_of_an_answer_loses_and_repeats_nothing() {
    for limit in [None, Some(400)] {
        for fails_after in 1..8 {
            let written = Written::new(1000, 100);
            let (keeper, _) = kept(written.path(), 690);
            let filter = Filter {
                agent: Some("a".parse().expect("a name")),
                ..Filter::default()
            };
            let asked = asked(filter.clone(), limit);
            let mut answer = Answer::new(written.path(), &keeper, asked, 700);
            let mut parts = 0;
            let found = rest(&mut answer, || {
                parts += 1;
                if parts == fails_after {
                    std::fs::remove_file(written.file()).expect("removes");
                }
            });
            assert_eq!(found, written.scanned(filter, limit), "{fails_after}");
        }
    }
}

#[test]
fn a_broken_index_is_said_passed_over_and_built_anew() {
    use std::os::unix::fs::FileExt;
    let written = Written::new(50, 20);
    let (keeper, watched) = kept(written.path(), 140);
    let file = std::fs::File::options()
        .write(true)
        .open(written.file())
        .expect("opens");
    let bytes = file.metadata().expect("is there").len();
    // All but the first page's head, which says whose it is.
    for at in (100..bytes).step_by(64) {
        file.write_all_at(&[0xa5; 64], at).expect("writes");
    }
    let through = written.scanned(closed(), None);
    assert_eq!(
        answered(written.path(), &keeper, &asked(closed(), None), 140),
        through
    );
    assert!(!has_index(&keeper), "it is not asked again");
    assert!(watched.faults().join(" ").contains("built anew"));
    assert_eq!(keep(&keeper, 140), Round::Done);
    assert!(has_index(&keeper) && watched.faults().is_empty());
    assert_eq!(
        answered(written.path(), &keeper, &asked(closed(), None), 140),
        through
    );
}

#[test]
fn an_index_that_cannot_be_written_is_said_and_the_log_is_read_through() {
    let written = Written::new(50, 20);
    std::fs::create_dir(written.file()).expect("is in the way");
    let watched = Arc::<Watched>::default();
    let keeper = Arc::new(Keeper::new(written.path(), Arc::clone(&watched)));
    assert_eq!(keep(&keeper, 140), Round::Failed);
    let said = watched.faults().join(" ");
    assert!(said.contains("searches read the log through"), "{said}");
    assert_eq!(
        answered(written.path(), &keeper, &asked(closed(), Some(2)), 140),
        [132, 139]
    );
    std::fs::remove_dir(written.file()).expect("is gone");
    assert_eq!(keep(&keeper, 140), Round::Done);
    assert!(has_index(&keeper) && watched.faults().is_empty());
}

#[test]
fn a_file_in_the_indexs_place_that_is_none_is_left_alone_and_said() {
    let written = Written::new(50, 2);
    let text = "do not lose this\n".repeat(100);
    std::fs::write(written.file(), &text).expect("writes");
    let watched = Arc::<Watched>::default();
    let keeper = Arc::new(Keeper::new(written.path(), Arc::clone(&watched)));
    assert_eq!(keep(&keeper, 14), Round::Failed);
    assert!(watched.faults().join(" ").contains("is no index of a log"));
    assert_eq!(
        std::fs::read_to_string(written.file()).expect("reads"),
        text
    );
    assert_eq!(
        answered(written.path(), &keeper, &asked(closed(), None), 14),
        [6, 13]
    );
}

#[test]
fn a_changed_record_does_not_hide_others_and_the_index_ends_before_it() {
    let written = Written::new(50, 20);
    let (keeper, watched) = kept(written.path(), 140);
    let file = written.path().join("log-000002.jsonl");
    let text = std::fs::read_to_string(&file).expect("reads");
    std::fs::write(&file, text.replacen("\"expired\"", "\"revoked\"", 1)).expect("writes");
    let through = written.scanned(closed(), None);
    assert_eq!(
        answered(written.path(), &keeper, &asked(closed(), None), 140),
        through
    );
    assert_eq!(keep(&keeper, 140), Round::Failed, "it cannot be built anew");
    assert!(watched.faults().join(" ").contains("enforcer log verify"));
    assert_eq!(
        answered(written.path(), &keeper, &asked(closed(), None), 140),
        through
    );
}

#[test]
fn an_index_that_somebody_builds_anew_meanwhile_hides_nothing() {
    let written = Written::new(1000, 100);
    let (keeper, watched) = kept(written.path(), 700);
    let mut answer = Answer::new(written.path(), &keeper, asked(Filter::default(), None), 700);
    assert_eq!(rest(&mut answer, || ()).len(), 700);
    for limit in [None, Some(300)] {
        let filter = Filter {
            agent: Some("a".parse().expect("a name")),
            ..Filter::default()
        };
        let mut answer = Answer::new(written.path(), &keeper, asked(filter.clone(), limit), 700);
        let mut parts = 0;
        let found = rest(&mut answer, || {
            parts += 1;
            if parts == 3 {
                let mut theirs = written.index();
                theirs.take_in_anew(7).expect("begins");
            }
        });
        assert_eq!(found, written.scanned(filter, limit));
        assert!(watched.faults().is_empty(), "{:?}", watched.faults());
        assert_eq!(keep(&keeper, 700), Round::Done);
    }
}
