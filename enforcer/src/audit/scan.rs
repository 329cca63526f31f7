//! Reading the log at a start: every record from a place on, checked and handed on. It changes no file.

use std::path::{Path, PathBuf};

use enforcer_proto::audit::{Broken, Chain, GENESIS, Hash, Named, Record};
use enforcer_proto::event::Event;

use super::read::Lines;
use super::segment::{Segment, numbered};
use super::{AuditError, io_error};

/// Where a record's line begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LineAt {
    /// In which segment.
    pub(crate) segment: u32,
    /// How many bytes of it are before the line.
    pub(crate) offset: u64,
}

/// A record that is known already: what was before it need not be read.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) records: u64,
    pub(crate) head: Hash,
    pub(crate) at: LineAt,
}

/// A line without an end, behind the last whole one.
#[derive(Debug)]
pub(super) struct Torn {
    pub(super) path: PathBuf,
    pub(super) whole_bytes: u64,
    pub(super) bytes: u64,
}

/// What reading found.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) chain: Chain,
    pub(super) last_boot_id: Option<String>,
    pub(super) torn: Option<Torn>,
    /// The number of the segment that is written.
    pub(super) segment: u32,
    /// Bytes of the segments before it.
    pub(super) earlier_bytes: u64,
    /// The oldest record that is there.
    pub(super) first_seq: u64,
    /// Where the last record's line begins.
    pub(super) last_line: Option<LineAt>,
    /// The last record that was removed on purpose, as the newest record of a removal among those that were read says.
    pub(super) removed: Option<Removed>,
}

/// Up to where records were removed on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) last_seq: u64,
    pub(crate) head: Hash,
}

impl Removed {
    /// What an event says of it.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let Event::SegmentsRemoved { last_seq, head, .. } = event else {
            return None;
        };
        Some(Self {
            last_seq: *last_seq,
            head: head.parse().ok()?,
        })
    }
}

/// Reads the log in `dir`, from the record behind `known` on or whole, and hands every record to `each`.
pub(super) fn scan(
    dir: &Path,
    known: Option<&Known>,
    each: impl FnMut(&Record),
) -> Result<Scanned, AuditError> {
    let found = numbered(dir).map_err(io_error("list", dir))?;
    let first = first_record(dir, &found)?;
    let mut reading = Reading {
        dir,
        chain: known.map_or_else(|| beginning(first.as_ref()), before),
        start: beginning(first.as_ref()),
        ends: Vec::new(),
        last_boot_id: None,
        last_line: None,
        removed: None,
        each,
    };
    let (mut torn, mut earlier_bytes) = (None, 0);
    for (at, segment) in found.iter().enumerate() {
        let is_last = at + 1 == found.len();
        let read_from = match known {
            Some(known) if segment.number < known.at.segment => None,
            Some(known) if segment.number == known.at.segment => Some(known.at.offset),
            Some(_) | None => Some(0),
        };
        if let Some(offset) = read_from {
            let left = reading.segment(segment, offset, known)?;
            if left.is_some() && !is_last {
                return Err(reading.broken("it is torn, and not at the end of the log"));
            }
            torn = left;
        }
        if !is_last {
            earlier_bytes += segment.bytes().map_err(io_error("read", &segment.path))?;
        }
    }
    if known.is_none() {
        reading.check_start()?;
    }
    Ok(Scanned {
        first_seq: reading.start.count() + 1,
        chain: reading.chain,
        last_boot_id: reading.last_boot_id,
        torn,
        segment: found.last().map_or(1, |segment| segment.number),
        earlier_bytes,
        last_line: reading.last_line,
        removed: reading.removed,
    })
}

fn first_record(dir: &Path, found: &[Segment]) -> Result<Option<Named>, AuditError> {
    let Some(segment) = found.first() else {
        return Ok(None);
    };
    segment.first().map_err(|error| {
        if error.kind() != std::io::ErrorKind::InvalidData {
            return io_error("read", &segment.path)(error);
        }
        let broken = Broken {
            seq: 1,
            why: error.to_string(),
        };
        AuditError::Broken {
            dir: dir.to_owned(),
            broken,
        }
    })
}

/// The chain before the first record that is there.
fn beginning(first: Option<&Named>) -> Chain {
    match first {
        Some(first) if first.seq > 1 => Chain::after(first.seq - 1, first.prev),
        Some(_) | None => Chain::default(),
    }
}

/// The chain before a record that is known: its line is read again, so that the log itself says that it is there. Which record it follows, its
/// line says.
fn before(known: &Known) -> Chain {
    Chain::after(known.records.saturating_sub(1), GENESIS)
}

/// Says where the line begins that does not verify: whoever decides to go on without it cuts the file there.
fn placed(error: AuditError, segment: &Segment, begins: u64) -> AuditError {
    match error {
        AuditError::Broken { dir, mut broken } => {
            let path = segment.path.display();
            broken.why = format!("{} (behind the first {begins} bytes of {path})", broken.why);
            AuditError::Broken { dir, broken }
        }
        error @ (AuditError::Io { .. }
        | AuditError::Taken { .. }
        | AuditError::TooLong(_)
        | AuditError::Lost) => error,
    }
}

struct Reading<'a, F> {
    dir: &'a Path,
    chain: Chain,
    /// The chain before the oldest record.
    start: Chain,
    /// Number and hash of the last record of each segment that was read.
    ends: Vec<Removed>,
    last_boot_id: Option<String>,
    last_line: Option<LineAt>,
    removed: Option<Removed>,
    each: F,
}

impl<F: FnMut(&Record)> Reading<'_, F> {
    /// Reads a segment's lines from `offset` on; gives what is torn behind them.
    fn segment(
        &mut self,
        segment: &Segment,
        offset: u64,
        known: Option<&Known>,
    ) -> Result<Option<Torn>, AuditError> {
        let io = |source| io_error("read", &segment.path)(source);
        let mut lines = Lines::open_at(&segment.path, offset).map_err(io)?;
        let mut begins = offset;
        while let Some(line) = lines.next_line().map_err(io)? {
            let at = LineAt {
                segment: segment.number,
                offset: begins,
            };
            let is_known = known.filter(|known| known.at == at);
            let read = match is_known {
                Some(known) => self.again(known, line),
                None => self.next(line),
            };
            read.map_err(|error| placed(error, segment, begins))?;
            self.last_line = Some(at);
            begins = lines.whole_bytes();
        }
        self.ends.push(Removed {
            last_seq: self.chain.count(),
            head: self.chain.head(),
        });
        if lines.is_too_long() {
            return Err(self.broken("it is longer than a record may be"));
        }
        Ok((lines.torn_bytes() > 0).then(|| Torn {
            path: segment.path.clone(),
            whole_bytes: lines.whole_bytes(),
            bytes: lines.torn_bytes(),
        }))
    }

    fn next(&mut self, line: &[u8]) -> Result<(), AuditError> {
        let record = self
            .chain
            .follow(line)
            .map_err(|broken| AuditError::Broken {
                dir: self.dir.to_owned(),
                broken,
            })?;
        (self.each)(&record);
        self.removed = Removed::of(&record.event).or(self.removed);
        self.last_boot_id = Some(record.boot_id);
        Ok(())
    }

    /// Reads the record that is known: it must be the one that it was.
    fn again(&mut self, known: &Known, line: &[u8]) -> Result<(), AuditError> {
        let named = Named::of(line).filter(|named| named.seq == known.records);
        let Some(named) = named.filter(|named| named.hash == known.head) else {
            return Err(self.broken("it is not the record that was there"));
        };
        self.chain = Chain::after(known.records.saturating_sub(1), named.prev);
        let record = self
            .chain
            .follow(line)
            .map_err(|broken| AuditError::Broken {
                dir: self.dir.to_owned(),
                broken,
            })?;
        self.last_boot_id = Some(record.boot_id);
        Ok(())
    }

    /// What is missing at the beginning must have been removed on purpose.
    fn check_start(&self) -> Result<(), AuditError> {
        let missing = self.start.count();
        if missing == 0 {
            return Ok(());
        }
        let start = Removed {
            last_seq: missing,
            head: self.start.head(),
        };
        // Not all of what was to go may be gone: then it is still there to be compared.
        let mut ends = [start].into_iter().chain(self.ends.iter().copied());
        if self
            .removed
            .is_some_and(|removed| ends.any(|end| end == removed))
        {
            return Ok(());
        }
        Err(AuditError::Broken {
            dir: self.dir.to_owned(),
            broken: Broken {
                seq: 1,
                why: format!(
                    "records 1 to {missing} are missing, and no record says that they were removed"
                ),
            },
        })
    }

    fn broken(&self, why: &str) -> AuditError {
        AuditError::Broken {
            dir: self.dir.to_owned(),
            broken: Broken {
                seq: self.chain.count() + 1,
                why: why.to_owned(),
            },
        }
    }
}
