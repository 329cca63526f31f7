//! What the console finds wrong with the log: an alarm, counted in the header, and a line of Health, at every size.

use enforcer_proto::checkpoint::Keyholder;
use enforcer_proto::wire::CheckpointView;

use super::*;
use crate::app::signed::Signer;

/// A console that has found all of it wrong: a log that is another one, and in that a record that was changed, a checkpoint of another's key, and
/// records that do not come.
fn model_of_all() -> Model {
    let key = |seed| Keyholder::from_seed("enforcer/host-a", &[seed; 32]).expect("a name");
    let mut model = model(State::Busy);
    model.signer = Signer::new(Some(key(7).verifier()));
    let entries: Vec<Entry> = model.tail.iter().cloned().collect();
    let head = entries[0].record.hash.as_ref().expect("it is sealed");
    let note = key(8).sign(4, head.parse().expect("a hash"), 1);
    model.update(0, Msg::Replaced { had: 12, has: 5 });
    model.update(
        0,
        Msg::Records(vec![entries[0].clone(), entries[2].clone()], Vec::new()),
    );
    let changed = Entry {
        is_sealed: false,
        ..entries[3].clone()
    };
    model.update(0, Msg::Records(vec![changed], Vec::new()));
    let mut status = status_of(&model);
    status.log.checkpoint = Some(CheckpointView {
        records: 4,
        unix_ns: 1,
        note,
    });
    for at_ms in (0..8).map(|second| second * 500) {
        model.update(at_ms, Msg::Status(Box::new(status.clone())));
    }
    model
}

#[test]
fn what_is_wrong_with_the_log_is_counted_in_the_header_and_is_all_in_health() {
    for size in [(60, 12), (80, 24), (120, 40)] {
        let mut model = model_of_all();
        types(&mut model, "7");
        let said = shown(&mut model, size);
        assert!(said.contains("✗ UNHEALTHY (4)"), "{said}");
        assert!(!said.contains("healthy"), "{said}");
        assert!(said.contains("more: 7)"), "{said}");
        let head = ["log behind", "log chain", "log signature", "log replaced"];
        for what in head {
            assert!(said.contains(&format!("✗ {what}")), "{what}: {said}");
        }
    }
}

#[test]
fn what_is_wrong_now_comes_before_what_was_found_once() {
    let mut model = model(State::Busy);
    model.update(0, Msg::Replaced { had: 12, has: 5 });
    let mut status = status_of(&model);
    status.unhealthy = vec!["the program connect4 is not attached any more".to_owned()];
    status.log.records = 0;
    model.update(0, Msg::Status(Box::new(status)));
    let said = shown(&mut model, (80, 24));
    let at = |text: &str| said.find(text).expect(text);
    assert!(
        at("UNHEALTHY: the program") < at("THE LOG IS ANOTHER ONE"),
        "{said}"
    );
    let said = shown(&mut model, (60, 12));
    assert!(said.contains("UNHEALTHY: the program"), "{said}");
}

#[test]
fn a_log_that_is_well_says_what_was_checked_of_it() {
    let key = Keyholder::from_seed("enforcer/host-a", &[7; 32]).expect("a name");
    let mut model = model(State::Busy);
    model.signer = Signer::new(Some(key.verifier()));
    let entry = model.tail.get(12).expect("it came").clone();
    let head = entry.record.hash.expect("it is sealed");
    let mut status = status_of(&model);
    status.log.checkpoint = Some(CheckpointView {
        records: 12,
        unix_ns: 1,
        note: key.sign(12, head.parse().expect("a hash"), 1),
    });
    model.update(0, Msg::Status(Box::new(status)));
    types(&mut model, "7");
    let said = shown(&mut model, (120, 40));
    for part in [
        "✓ log chain",
        "the hashes of records 4 to 12 hold, checked here",
        "✓ log signature  record 12 is the one that the key has signed",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
