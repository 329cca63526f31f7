//! The newest records of the log, as far as they are kept here. Bounded in number and in bytes: what is older is in the daemon's log.

use std::collections::VecDeque;

use enforcer_proto::audit::{Named, Record};
use enforcer_proto::event::About;
use enforcer_proto::id::GrantId;
use enforcer_proto::sentence::sentence;
use serde::{Deserialize, Serialize};

/// The most records that are kept.
pub(crate) const RECORDS_MAX: usize = 5_000;
/// The most bytes that they may have together.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A record, with what is shown of it in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The record.
    pub(crate) record: Record,
    /// Its sentence.
    pub(crate) sentence: String,
    /// How long its line is, bytes.
    pub(crate) bytes: usize,
    /// Its line has the hash that it names.
    pub(crate) is_sealed: bool,
}

impl Entry {
    /// Reads one from its line; `None` where it is none that this release knows.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let record: Record = serde_json::from_str(line).ok()?;
        Some(Self {
            sentence: sentence(&record.event),
            record,
            bytes: line.len(),
            is_sealed: Named::sealed(line.as_bytes()).is_some(),
        })
    }

    /// The window that it concerns.
    pub(crate) fn grant(&self) -> Option<GrantId> {
        About::of(&self.record.event).grant
    }
}

/// The newest records, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The number of the newest that came, whether or not it could be read; 0 where there is none.
    heard: u64,
    /// Records that came while there was no time for them, and were let go: they are in the log.
    pub(crate) skipped: u64,
    /// Records that were let go a moment ago, and are asked for again: until others come.
    pub(crate) missing: u64,
    /// Lines that this release cannot read.
    pub(crate) unreadable: u64,
}

impl Tail {
    /// Takes one in, and gives it back. One that is there already, as after a reconnection, changes nothing.
    pub(crate) fn take(&mut self, entry: Entry) -> Option<&Entry> {
        if !self.hear(entry.record.seq) {
            return None;
        }
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.entries.push_back(entry);
        while self.entries.len() > RECORDS_MAX || self.bytes > BYTES_MAX {
            let Some(old) = self.entries.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(old.bytes);
        }
        self.entries.back()
    }

    /// Takes in that a record came which this release cannot read.
    pub(crate) fn pass_over(&mut self, seq: u64) {
        if seq == 0 || self.hear(seq) {
            self.unreadable = self.unreadable.saturating_add(1);
        }
    }

    /// Takes in that a record of this number came, and gives whether it is new. Those between it and the one before did not come.
    fn hear(&mut self, seq: u64) -> bool {
        if seq <= self.heard {
            return false;
        }
        if self.heard > 0 {
            self.skipped = self.skipped.saturating_add(seq - self.heard - 1);
        }
        self.heard = seq;
        true
    }

    /// The number of the newest that came, whether or not it could be read; 0 where there is none.
    pub(crate) const fn heard(&self) -> u64 {
        self.heard
    }

    /// The number of the newest that is kept; 0 where there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.entries.back().map_or(0, |entry| entry.record.seq)
    }

    /// One by its number.
    pub(crate) fn get(&self, seq: u64) -> Option<&Entry> {
        let at = self
            .entries
            .binary_search_by_key(&seq, |entry| entry.record.seq)
            .ok()?;
        self.entries.get(at)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }
}
