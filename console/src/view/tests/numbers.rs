//! Numbers from elsewhere, however large: whoever makes them up makes nothing panic, and nothing wrap around.

use std::sync::OnceLock;

use enforcer_proto::audit::Record;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

/// The places of all numbers of a value that may be as large as a number can be, or as a shorter number can.
fn places<T: DeserializeOwned>(value: &Value) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    numbers(value, String::new(), &mut all);
    let takes = |place: &String, most: u64| {
        let mut changed = value.clone();
        *changed.pointer_mut(place).expect("it is there") = most.into();
        serde_json::from_value::<T>(changed).is_ok()
    };
    let most = |place: String| {
        let mut widths = [
            u64::MAX,
            u64::from(u32::MAX),
            u64::from(u16::MAX),
            u64::from(u8::MAX),
        ]
        .into_iter();
        let most = widths.find(|most| takes(&place, *most))?;
        Some((place, most))
    };
    all.into_iter().filter_map(most).collect()
}

fn numbers(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Number(_) => all.push(at),
        Value::Array(each) => {
            let each = each.iter().enumerate();
            each.for_each(|(nth, value)| numbers(value, format!("{at}/{nth}"), all));
        }
        Value::Object(each) => {
            let each = each.iter();
            each.for_each(|(name, value)| numbers(value, format!("{at}/{name}"), all));
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// A value with its numbers made others: each of `with` is a share of what the place takes.
fn other<T: Serialize + DeserializeOwned>(
    value: &Value,
    places: &[(String, u64)],
    with: &[u64],
) -> T {
    let mut changed = value.clone();
    for ((place, most), with) in places.iter().zip(with.iter().cycle()) {
        *changed.pointer_mut(place).expect("it is there") = (*with).min(*most).into();
    }
    serde_json::from_value(changed).expect("each place takes it")
}

type Numbered = (Value, Vec<(String, u64)>);

/// The demonstration's status, and its records, each with the places of its numbers.
fn told() -> &'static (Numbered, Vec<Numbered>) {
    static TOLD: OnceLock<(Numbered, Vec<Numbered>)> = OnceLock::new();
    TOLD.get_or_init(|| {
        let model = model(State::Busy);
        let status = serde_json::to_value(status_of(&model)).expect("JSON");
        let found = places::<Status>(&status);
        let records = model.tail.iter().map(|entry| {
            let record = serde_json::to_value(&entry.record).expect("JSON");
            let found = places::<Record>(&record);
            (record, found)
        });
        ((status, found), records.collect())
    })
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        any::<u64>()
    ]
}

/// A console that was told such numbers, twice.
fn lied_to(with: &[u64]) -> Model {
    let ((status, found), records) = told();
    let mut model = model(State::Busy);
    for round in 0..2_usize {
        let with: Vec<u64> = with
            .iter()
            .cycle()
            .skip(round)
            .take(with.len())
            .copied()
            .collect();
        let status: Status = other(status, found, &with);
        model.update(u64::MAX * round as u64, Msg::Status(Box::new(status)));
        for (record, found) in records {
            let record: Record = other(record, found, &with);
            let line = serde_json::to_string(&record).expect("JSON");
            let entry = Entry::read(&line).expect("a record");
            model.update(0, Msg::Records(vec![entry], vec![u64::MAX]));
        }
    }
    model
}

fn looked_at_everywhere(model: &mut Model, size: (u16, u16)) {
    for keys in [
        "1",
        "1⏎",
        "1r",
        "1jry",
        "p",
        "2",
        "2⏎",
        "2a",
        "2e",
        "3k",
        "3⏎",
        "3w",
        "4",
        "4⏎",
        "5",
        "5⏎",
        "5w",
        "6",
        "6⏎",
        "6L",
        "7",
        "7⏎",
        "Xclose all⏎",
    ] {
        types(model, keys);
        drawn(model, size, Theme::Dark);
        types(model, "⎋⎋⎋");
    }
}

#[test]
fn the_largest_numbers_make_nothing_panic() {
    assert!(told().0.1.len() > 100, "{:?}", told().0.1);
    for most in [u64::MAX, 0] {
        for size in SIZES {
            looked_at_everywhere(&mut lied_to(&[most]), size);
        }
    }
    // Several that count as many as can be counted.
    let mut model = model(State::Busy);
    for nth in 0..3 {
        let line = format!(
            r#"{{"seq":{},"boot_id":"b","boot_ns":1,"unix_ns":1,"event":{{"kind":"kernel_refused","agent":null,"process":{{"pid":1,"start_boot_ns":1,"uid":1,"comm":"x{nth}"}},"verdict":"v","destination":"d","count":18446744073709551615}},"prev":"x"}}"#,
            50 + nth
        );
        model.update(
            0,
            Msg::Records(vec![Entry::read(&line).expect("a record")], Vec::new()),
        );
    }
    assert_eq!(model.refusals.count(), u64::MAX);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_number_makes_it_panic(with in prop::collection::vec(number(), 1..40), width in 60_u16..160, height in 12_u16..50) {
        looked_at_everywhere(&mut lied_to(&with), (width, height));
    }
}
