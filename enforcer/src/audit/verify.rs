//! Checking a log from its files alone, on whichever machine: what is wrong with it, where, and whether it is still what was signed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use enforcer_proto::audit::{Broken, Chain, GENESIS, Hash, Named, Record, out_of_order};
use enforcer_proto::checkpoint::Checkpoint;
use serde::Serialize;

use super::read::{Lines, ReadError};
use super::scan::Removed;
use super::segment::numbered;

/// The most faults that are named; those past it are counted.
pub const FAULTS_MAX: usize = 32;

/// How often a log is read of which old segments are just being removed.
const TRIES_MAX: u32 = 3;

/// What is wrong at one place of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The record that is bad, or the first that is missing.
    pub record: u64,
    /// What kind of fault it is.
    pub kind: FaultKind,
    /// What is wrong, as a sentence.
    pub why: String,
    /// The file it is in, where it is in one.
    pub file: Option<PathBuf>,
}

impl Fault {
    /// What is wrong, with the record that it is wrong with.
    #[must_use]
    pub fn why_with_record(&self) -> String {
        format!("record {} is bad: {}", self.record, self.why)
    }
}

/// The kinds of what can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The record's bytes are not those that were sealed, or it does not follow the one before it.
    Changed,
    /// Records are missing where others follow.
    Missing,
    /// A line has no end, and others were written behind it.
    Torn,
    /// A checkpoint was signed of more records than there are.
    CutOff,
    /// The chain holds, and at a checkpoint's record it is another than was signed.
    Rewritten,
    /// Checkpoints were given, and none is of a record that is there: an invented log may begin behind them.
    NotCompared,
}

/// A line without an end behind the last record: it is being written just now, or the disk was full, or the host died, in the middle of it. The
/// daemon cuts it off before it writes on. Nothing was allowed by it: only what is durable is acted on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// The record that it would have been.
    pub record: u64,
    /// How much of it there is, bytes.
    pub bytes: u64,
    /// The segment.
    pub file: PathBuf,
}

/// What checking a log found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Nothing is wrong with it.
    pub whole: bool,
    /// The oldest record that is there: 1, unless old ones were removed on record.
    pub first_record: u64,
    /// The number of the last.
    pub records: u64,
    /// Its hash.
    pub head: String,
    /// The last record that has been compared with a checkpoint, and was the same; absent where none was. What is behind it may have been
    /// rewritten or cut off unseen.
    pub signed_record: Option<u64>,
    /// When that was signed, unix time, nanoseconds.
    pub signed_unix_ns: Option<u64>,
    /// How many checkpoints were compared.
    pub checkpoints: u64,
    /// A line at the very end that has no end yet: no fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<Unfinished>,
    /// What is wrong, in the order of the records.
    pub faults: Vec<Fault>,
    /// How many more faults there are.
    pub faults_left_out: u64,
}

/// Checks the whole log in `dir`, handing every record and its line to `each`; gives the end of the chain.
///
/// # Errors
/// [`ReadError`], naming the first record that is bad.
pub fn verify(dir: &Path, each: impl FnMut(&Record, &[u8])) -> Result<Chain, ReadError> {
    let (report, head) = walk(dir, &[], each)?;
    let Some(fault) = report.faults.into_iter().next() else {
        return Ok(Chain::after(report.records, head));
    };
    Err(ReadError::Broken {
        file: fault.file.unwrap_or_else(|| dir.to_owned()),
        broken: Broken {
            seq: fault.record,
            why: fault.why,
        },
    })
}

/// Checks the whole log in `dir`, and compares it with checkpoints, whose signatures were verified before.
///
/// # Errors
/// [`ReadError`], when it cannot be read, or is not there.
pub fn examine(dir: &Path, checkpoints: &[Checkpoint]) -> Result<Report, ReadError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match walk(dir, checkpoints, |_, _| ()) {
            // A segment that was listed may have been removed, on record, before it was opened.
            Err(ReadError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < TRIES_MAX => {}
            walked => return walked.map(|(report, _)| report),
        }
    }
}

fn walk(
    dir: &Path,
    checkpoints: &[Checkpoint],
    each: impl FnMut(&Record, &[u8]),
) -> Result<(Report, Hash), ReadError> {
    let io = |source| ReadError::Io {
        dir: dir.to_owned(),
        source,
    };
    let found = numbered(dir).map_err(io)?;
    let mut walk = Walk::new(checkpoints, each);
    for (at, segment) in found.iter().enumerate() {
        let is_newest = at + 1 == found.len();
        walk.segment(&segment.path, is_newest).map_err(io)?;
    }
    if walk.expected == 1 && walk.faults.is_empty() && walk.unfinished.is_none() {
        let missing = checkpoints.iter().max_by_key(|made| made.records);
        return match missing {
            Some(made) if made.records > 0 => {
                walk.check_end();
                Ok(walk.report())
            }
            Some(_) | None => Err(ReadError::Missing {
                dir: dir.to_owned(),
            }),
        };
    }
    walk.check_start();
    walk.check_end();
    Ok(walk.report())
}

struct Walk<'a, F> {
    /// What was signed, by the number of records; several where a log was signed twice at one.
    signed: BTreeMap<u64, Vec<&'a Checkpoint>>,
    each: F,
    /// The record that comes next.
    expected: u64,
    /// The hash of the one before; unknown behind a line that says nothing.
    head: Option<Hash>,
    /// The chain before the oldest record.
    start: Option<Removed>,
    /// Number and hash of the last record of each segment.
    ends: Vec<Removed>,
    removed: Option<Removed>,
    agreed: Option<&'a Checkpoint>,
    compared: u64,
    unfinished: Option<Unfinished>,
    faults: Vec<Fault>,
    faults_left_out: u64,
}

impl<'a, F: FnMut(&Record, &[u8])> Walk<'a, F> {
    fn new(checkpoints: &'a [Checkpoint], each: F) -> Self {
        let mut signed = BTreeMap::<u64, Vec<&Checkpoint>>::new();
        for checkpoint in checkpoints {
            signed
                .entry(checkpoint.records)
                .or_default()
                .push(checkpoint);
        }
        Self {
            signed,
            each,
            expected: 1,
            head: Some(GENESIS),
            start: None,
            ends: Vec::new(),
            removed: None,
            agreed: None,
            compared: 0,
            unfinished: None,
            faults: Vec::new(),
            faults_left_out: 0,
        }
    }

    fn segment(&mut self, path: &Path, is_newest: bool) -> io::Result<()> {
        let mut lines = Lines::open(path)?;
        while let Some(line) = lines.next_line()? {
            self.line(path, line);
        }
        if lines.is_too_long() {
            let why = "it is longer than a record may be".to_owned();
            self.fault(self.expected, FaultKind::Changed, why, Some(path));
        } else if lines.torn_bytes() > 0 && is_newest {
            self.unfinished = Some(Unfinished {
                record: self.expected,
                bytes: lines.torn_bytes(),
                file: path.to_owned(),
            });
        } else if lines.torn_bytes() > 0 {
            let why = "it has no end, and the log goes on behind it".to_owned();
            self.fault(self.expected, FaultKind::Torn, why, Some(path));
        }
        if let Some(head) = self.head {
            self.ends.push(Removed {
                last_seq: self.expected - 1,
                head,
            });
        }
        Ok(())
    }

    fn line(&mut self, path: &Path, line: &[u8]) {
        let sealed = Named::sealed(line);
        if self.start.is_none() {
            // What is missing before the first record is judged at the end: a record may say that it was removed.
            if let Some(first) = sealed.as_ref().filter(|first| first.seq > 1) {
                (self.expected, self.head) = (first.seq, Some(first.prev));
            }
            self.start = Some(Removed {
                last_seq: self.expected - 1,
                head: self.head.unwrap_or(GENESIS),
            });
            self.compare();
        }
        match (&sealed, self.head) {
            (Some(named), head) if head.is_none() || named.seq != self.expected => {
                if named.seq != self.expected {
                    let why = out_of_order(self.expected, named.seq);
                    self.fault(self.expected, FaultKind::Missing, why, Some(path));
                }
                (self.expected, self.head) = (named.seq, Some(named.prev));
            }
            (Some(_) | None, _) => {}
        }
        let mut chain = Chain::after(self.expected - 1, self.head.unwrap_or(GENESIS));
        match chain.follow(line) {
            Ok(record) => {
                self.removed = Removed::of(&record.event).or(self.removed);
                self.head = Some(chain.head());
                (self.each)(&record, line);
            }
            Err(broken) => {
                self.fault(self.expected, FaultKind::Changed, broken.why, Some(path));
                // The hash it names is what the next one follows, if it is only this one that was changed.
                self.head = sealed.or_else(|| Named::of(line)).map(|named| named.hash);
            }
        }
        self.expected += 1;
        self.compare();
    }

    /// Compares the record before the next with what was signed of it.
    fn compare(&mut self) {
        let at = self.expected - 1;
        let Some(signed) = self.signed.remove(&at) else {
            return;
        };
        for checkpoint in signed {
            self.compared += 1;
            if self.head == Some(checkpoint.head) {
                self.agreed = Some(checkpoint);
                continue;
            }
            let since = self.agreed.map_or_else(String::new, |agreed| {
                format!("; up to record {} it is what was signed", agreed.records)
            });
            let why = format!(
                "at record {at} the log is another than the one that was signed there: it was rewritten, up to this record or from the first on{since}"
            );
            self.fault(at, FaultKind::Rewritten, why, None);
        }
    }

    /// What is missing at the beginning must have been removed on record.
    fn check_start(&mut self) {
        let Some(start) = self.start.filter(|start| start.last_seq > 0) else {
            return;
        };
        let mut ends = [start].into_iter().chain(self.ends.iter().copied());
        let is_said = self
            .removed
            .is_some_and(|removed| ends.any(|end| end == removed));
        if !is_said {
            let why = format!(
                "records 1 to {} are missing, and no record says that they were removed",
                start.last_seq
            );
            self.fault(1, FaultKind::Missing, why, None);
        }
    }

    /// What was signed of records that are not there.
    fn check_end(&mut self) {
        let records = self.expected - 1;
        let behind = self.signed.range(records + 1..).next_back();
        if let Some((signed, _)) = behind {
            let why = format!(
                "the log ends with record {records}, and a checkpoint was signed when it had {signed}: its last {} records were cut off",
                signed - records
            );
            self.fault(records + 1, FaultKind::CutOff, why, None);
        }
        if !self.signed.is_empty() && self.compared == 0 && self.faults.is_empty() {
            let first = self.start.map_or(0, |start| start.last_seq) + 1;
            let why = "no checkpoint is of a record that is still there, so nothing was compared: give a newer one".to_owned();
            self.fault(first, FaultKind::NotCompared, why, None);
        }
    }

    fn fault(&mut self, record: u64, kind: FaultKind, why: String, file: Option<&Path>) {
        if self.faults.len() == FAULTS_MAX {
            self.faults_left_out += 1;
            return;
        }
        self.faults.push(Fault {
            record,
            kind,
            why,
            file: file.map(Path::to_owned),
        });
    }

    fn report(mut self) -> (Report, Hash) {
        self.faults.sort_by_key(|fault| fault.record);
        let head = self.head.unwrap_or(GENESIS);
        let report = Report {
            whole: self.faults.is_empty(),
            first_record: self.start.map_or(0, |start| start.last_seq) + 1,
            records: self.expected - 1,
            head: head.to_string(),
            signed_record: self.agreed.map(|agreed| agreed.records),
            signed_unix_ns: self.agreed.map(|agreed| agreed.unix_ns),
            checkpoints: self.compared,
            unfinished: self.unfinished,
            faults: self.faults,
            faults_left_out: self.faults_left_out,
        };
        (report, head)
    }
}
