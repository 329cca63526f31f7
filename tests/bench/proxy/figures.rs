//! Samples and what is told of them.

use serde_json::{Value, json};

/// Nanoseconds of many.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<u64>);

impl Samples {
    /// Takes in what a worker printed.
    pub(crate) fn read(&mut self, said: &str) {
        let numbers = said
            .split_whitespace()
            .map(|number| number.parse().expect("a number"));
        self.0.extend(numbers.collect::<Vec<u64>>());
    }

    pub(crate) fn push(&mut self, ns: u64) {
        self.0.push(ns);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The one that so many thousandths are not above, microseconds.
    pub(crate) fn at(&self, thousandths: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * thousandths / 1000).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |ns| *ns as f64 / 1000.0)
    }

    pub(crate) fn p50(&self) -> f64 {
        self.at(500)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.at(990)
    }

    pub(crate) fn max(&self) -> f64 {
        self.at(1000)
    }

    /// In microseconds.
    pub(crate) fn figure(&self) -> Value {
        json!({"count": self.count(), "p50": round(self.p50()), "p99": round(self.p99()), "max": round(self.max())})
    }
}

/// Hundredths are enough.
pub(crate) fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}
