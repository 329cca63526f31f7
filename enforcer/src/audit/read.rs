//! Reading the log: whole lines only, in order, without holding more than one in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use enforcer_proto::audit::{Broken, LINE_BYTES_MAX};

use super::segment::{Segment, numbered};

/// The log cannot be read, or does not verify.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A file cannot be read.
    #[error("cannot read the log in {dir}")]
    Io {
        /// The log's folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no log where one was expected.
    #[error("there is no log in {dir}: no file log-*.jsonl with a record is there")]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// A record is not what the chain says.
    #[error("{file}: {broken}")]
    Broken {
        /// The segment it is in.
        file: PathBuf,
        /// Which record, and why.
        broken: Broken,
    },
}

/// The lines of one segment.
#[derive(Debug)]
pub struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    whole_bytes: u64,
    torn_bytes: u64,
}

impl Lines {
    /// Starts at the beginning of the segment.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_at(path, 0)
    }

    /// Starts at `offset`, where a line begins.
    pub(crate) fn open_at(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::Start(offset))?;
        Ok(Self {
            reader: BufReader::new(file),
            line: Vec::new(),
            whole_bytes: offset,
            torn_bytes: 0,
        })
    }

    /// The next whole line without its newline; `None` at the end or before a torn line.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        // One byte more than a line may have, so that a longer one is seen as such and not split.
        let limit = LINE_BYTES_MAX as u64 + 2;
        let read = self
            .reader
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut self.line)? as u64;
        if self.line.last() != Some(&b'\n') {
            self.torn_bytes = read;
            return Ok(None);
        }
        self.line.pop();
        self.whole_bytes += read;
        Ok(Some(&self.line))
    }

    /// Where the whole lines end that were read so far, bytes from the beginning of the segment.
    #[must_use]
    pub const fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// Whether what has no end is longer than any record: no crash has torn that.
    #[must_use]
    pub const fn is_too_long(&self) -> bool {
        self.torn_bytes > LINE_BYTES_MAX as u64
    }

    /// Bytes of a line without an end, behind the whole ones.
    #[must_use]
    pub const fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }
}

/// Where somebody who reads the log has got to. It is kept between two readings, so that following a log does not read it again; the file
/// is not kept open, since what was read ahead may be cut off and written anew.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    /// The first record that is wanted.
    from: u64,
    /// Where to go on; none before the first reading.
    at: Option<At>,
}

/// Before which record, and where that is.
#[derive(Debug, Clone, Copy)]
struct At {
    /// The record that comes next.
    next: u64,
    /// The segment it is in, or the one before that when it begins one.
    segment: u32,
    /// Where it begins there, bytes.
    offset: u64,
}

/// Where a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The number of its record.
    pub seq: u64,
    segment: u32,
    offset: u64,
    bytes: usize,
}

impl Spot {
    /// How long the line is, bytes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The line, read once more; `None` where its segment was removed meanwhile.
    ///
    /// # Errors
    /// When the file cannot be read, or has become shorter.
    pub fn line(&self, dir: &Path) -> io::Result<Option<String>> {
        let file = match File::open(Segment::of(dir, self.segment).path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut line = vec![0; self.bytes];
        file.read_exact_at(&mut line, self.offset)?;
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }
}

impl At {
    const fn spot(self, bytes: usize) -> Spot {
        Spot {
            seq: self.next,
            segment: self.segment,
            offset: self.offset,
            bytes,
        }
    }

    fn beginning(segment: &Segment) -> io::Result<Option<Self>> {
        let first = segment.first()?;
        Ok(first.map(|first| Self {
            next: first.seq,
            segment: segment.number,
            offset: 0,
        }))
    }
}

impl Place {
    /// Before the record `from` of the log in `dir`; before the oldest that is still there, where that one was removed.
    #[must_use]
    pub fn at_record(dir: &Path, from: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            from: from.max(1),
            at: None,
        }
    }

    /// Directly behind a record of the log in `dir` whose place is known: `next` comes next, at `offset` of the segment of that number.
    #[must_use]
    pub fn behind(dir: &Path, next: u64, segment: u32, offset: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            from: next,
            at: Some(At {
                next,
                segment,
                offset,
            }),
        }
    }

    /// The lines that come next, up to the record `until`: at most `lines_max` of them, and `bytes_max` bytes but for one that is longer.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(
        &mut self,
        until: u64,
        lines_max: usize,
        bytes_max: usize,
    ) -> io::Result<Vec<String>> {
        let found = self.read_placed(until, lines_max, bytes_max)?;
        Ok(found.into_iter().map(|(_, line)| line).collect())
    }

    /// The same, each line with where it is.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read_placed(
        &mut self,
        until: u64,
        lines_max: usize,
        bytes_max: usize,
    ) -> io::Result<Vec<(Spot, String)>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        if self.at.is_some_and(|at| at.next > until) {
            return Ok(found);
        }
        let segments = numbered(&self.dir)?;
        let Some(mut at) = self.found(&segments)? else {
            return Ok(found);
        };
        let behind = segments.iter().position(|found| found.number == at.segment);
        for (place, segment) in segments.iter().enumerate().skip(behind.unwrap_or_default()) {
            let mut lines = Lines::open_at(&segment.path, at.offset)?;
            while at.next <= until && found.len() < lines_max {
                let Some(line) = lines.next_line()? else {
                    break;
                };
                if at.next >= self.from {
                    bytes += line.len();
                    if bytes > bytes_max && !found.is_empty() {
                        self.at = Some(at);
                        return Ok(found);
                    }
                    found.push((
                        at.spot(line.len()),
                        String::from_utf8_lossy(line).into_owned(),
                    ));
                }
                at.next += 1;
                at.offset += line.len() as u64 + 1;
            }
            let is_done = at.next > until || found.len() == lines_max;
            let Some(following) = segments.get(place + 1).filter(|_| !is_done) else {
                break;
            };
            (at.segment, at.offset) = (following.number, 0);
        }
        self.at = Some(at);
        Ok(found)
    }

    /// Where to go on. What was there may have been removed meanwhile: then at the oldest record that was not.
    fn found(&self, segments: &[Segment]) -> io::Result<Option<At>> {
        let Some(oldest) = segments.first() else {
            return Ok(None);
        };
        match self.at {
            Some(at) if at.segment >= oldest.number => return Ok(Some(at)),
            Some(_) => return At::beginning(oldest),
            None => {}
        }
        // The last segment that begins at or before the record: their first records ascend.
        let (mut low, mut high) = (0, segments.len());
        while high - low > 1 {
            let middle = low.midpoint(high);
            match segments[middle].first()? {
                Some(first) if first.seq <= self.from => low = middle,
                Some(_) | None => high = middle,
            }
        }
        At::beginning(&segments[low])
    }
}
