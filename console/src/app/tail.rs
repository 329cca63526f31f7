//! The newest records of the log, as far as they are kept here. Bounded in number and in bytes: what is older is in the daemon's log.

use std::collections::VecDeque;

use enforcer_proto::audit::Record;
use enforcer_proto::event::{About, Event};
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
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
}

impl Entry {
    /// Reads one from its line; `None` where it is none that this release knows.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let record: Record = serde_json::from_str(line).ok()?;
        Some(Self {
            sentence: sentence(&record.event),
            record,
            bytes: line.len(),
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
    /// Records that came while there was no time for them, and were let go: they are in the log.
    pub(crate) skipped: u64,
    /// Lines that this release cannot read.
    pub(crate) unreadable: u64,
}

impl Tail {
    /// Takes one in, and gives it back. One that is there already, as after a reconnection, changes nothing.
    pub(crate) fn take(&mut self, entry: Entry) -> Option<&Entry> {
        let last = self.last_seq();
        if entry.record.seq <= last {
            return None;
        }
        if last > 0 {
            self.skipped = self.skipped.saturating_add(entry.record.seq - last - 1);
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

    /// The number of the newest; 0 where there is none.
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

    /// What shows that a window of `agent` has ended, as far as the records here say.
    pub(crate) fn proof(&self, grant: GrantId, agent: &AgentName) -> Proof {
        let mut proof = Proof::default();
        for entry in self.iter() {
            let about = About::of(&entry.record.event);
            if about.grant == Some(grant) {
                proof.take_own(&entry.record);
            } else if about.agent == Some(agent) {
                proof.take_other(&entry.record);
            }
        }
        proof
    }
}

/// What shows that a window has ended. Times are unix time, nanoseconds.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    /// When it was closed, and why.
    pub(crate) closed: Option<(u64, String)>,
    /// When the last answer of it was through, or cut.
    pub(crate) last_byte: Option<u64>,
    /// How many answers were cut short.
    pub(crate) cut: u64,
    /// Jobs that were cancelled, or could not be.
    pub(crate) cancelled: Vec<String>,
    /// How many requests were refused since it closed, and when the last of them was.
    pub(crate) refused: u64,
    /// When that was.
    pub(crate) last_refused: Option<u64>,
    /// The agent has got another window since: what is refused to it now says nothing of this one.
    is_over: bool,
}

impl Proof {
    fn take_own(&mut self, record: &Record) {
        if let Event::Closed { reason, .. } = &record.event {
            self.closed = Some((record.unix_ns, reason.to_string()));
        } else if let Event::QueryFinished { trouble, .. } = &record.event {
            self.last_byte = Some(record.unix_ns);
            let is_cut = trouble.as_deref().is_some_and(|why| why.starts_with("cut"));
            self.cut += u64::from(is_cut);
        } else if let Event::JobCancelled { job, outcome, .. } = &record.event {
            self.cancelled.push(format!("{job}: {outcome}"));
        } else {
            self.take_other(record);
        }
    }

    /// What was refused to the agent once the window was closed, until it has another.
    fn take_other(&mut self, record: &Record) {
        if let Event::QueryRefused { .. } = &record.event
            && self.closed.is_some()
            && !self.is_over
        {
            self.refused += 1;
            self.last_refused = Some(record.unix_ns);
        } else if let Event::Opened { .. } = &record.event
            && self.closed.is_some()
        {
            self.is_over = true;
        }
    }
}
