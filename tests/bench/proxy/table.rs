//! The table's shape: a column for each way, and the ratios of ours to the others.

use serde_json::{Map, Value, json};

use super::figures::round;
use super::lab::Way;

pub(super) fn head(what: &str) {
    let names = Way::ALL.map(|way| format!("{:>11}", way.name())).concat();
    println!("\n{what:<58}{names}");
}

pub(super) fn row(what: &str, figures: &[f64]) {
    let figures: String = figures
        .iter()
        .map(|figure| format!("{figure:>11.0}"))
        .collect();
    println!("{what:<58}{figures}");
}

/// An object with a figure for each way, by its place.
pub(super) fn each(figure: impl Fn(usize) -> Value) -> Value {
    let each = Way::ALL.into_iter().enumerate();
    let each = each.map(|(at, way)| (way.name().to_owned(), figure(at)));
    Value::Object(each.collect::<Map<_, _>>())
}

/// Ours by each of the others', and prints them.
pub(super) fn ratios(figures: &[f64; 5]) -> Value {
    let mut all = Map::new();
    for (at, way) in Way::ALL.into_iter().enumerate() {
        if way != Way::Enforcer {
            all.insert(
                way.name().to_owned(),
                json!(round(figures[1] / figures[at])),
            );
        }
    }
    Value::Object(all)
}
