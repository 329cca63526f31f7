//! Whether the log still comes: how things are is asked on one connection, and the log comes on another, which may stand still by itself.

use super::Model;
use super::age::STALE_MS;

/// How far what came of the log is behind what the daemon says of it.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// Since when it is behind, the console's own clock, milliseconds.
    since_ms: Option<u64>,
    /// When records came last.
    heard_ms: u64,
}

impl Lag {
    /// The daemon says that there are so many records, and the newest that came is this one.
    pub(super) fn status(&mut self, at_ms: u64, records: u64, newest: u64) {
        self.since_ms = (records > newest).then(|| self.since_ms.unwrap_or(at_ms));
    }

    /// Records came; of all that the daemon has told of, the newest is among them, or not.
    pub(super) const fn records(&mut self, at_ms: u64, is_all: bool) {
        self.heard_ms = at_ms;
        if is_all {
            self.since_ms = None;
        }
    }
}

impl Model {
    /// How many records are in the log that have not come, and for how long none has, milliseconds; where that is longer than it should be.
    pub(crate) fn behind(&self) -> Option<(u64, u64)> {
        let since_ms = self.lag.since_ms?.max(self.lag.heard_ms);
        let age_ms = self.at_ms.saturating_sub(since_ms);
        let records = self.status()?.log.records.saturating_sub(self.tail.heard());
        (age_ms >= STALE_MS && records > 0).then_some((records, age_ms))
    }
}
