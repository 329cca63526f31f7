//! Reading the log: whole lines only, in order, without holding more than one in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use enforcer_proto::audit::{Broken, Chain, LINE_BYTES_MAX, Record};

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

/// The segments of a log, oldest first.
///
/// # Errors
/// When the folder cannot be listed.
pub fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_segment = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("log-") && name.ends_with(".jsonl"));
        if is_segment {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
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

    fn open_at(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(io::SeekFrom::Start(offset))?;
        Ok(Self {
            reader: BufReader::new(file),
            line: Vec::new(),
            whole_bytes: 0,
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

    /// Bytes of the whole lines read so far.
    #[must_use]
    pub const fn whole_bytes(&self) -> u64 {
        self.whole_bytes
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
    /// The record that comes next. The n-th line of the log has the sequence number n.
    next: u64,
    /// The segment it is in, counted from 0, or the one before that when it begins one.
    segment: usize,
    /// Where it begins there, bytes.
    offset: u64,
}

impl Place {
    /// Before the record `from` of the log in `dir`.
    #[must_use]
    pub fn at_record(dir: &Path, from: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            from: from.max(1),
            next: 1,
            segment: 0,
            offset: 0,
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
        let (mut found, mut bytes) = (Vec::new(), 0);
        if self.next > until {
            return Ok(found);
        }
        let segments = segments(&self.dir)?;
        while let Some(path) = segments.get(self.segment) {
            let mut lines = Lines::open_at(path, self.offset)?;
            while self.next <= until && found.len() < lines_max {
                let Some(line) = lines.next_line()? else {
                    break;
                };
                if self.next >= self.from {
                    bytes += line.len();
                    if bytes > bytes_max && !found.is_empty() {
                        return Ok(found);
                    }
                    found.push(String::from_utf8_lossy(line).into_owned());
                }
                self.next += 1;
                self.offset += line.len() as u64 + 1;
            }
            let is_done = self.next > until || found.len() == lines_max;
            if is_done || self.segment + 1 == segments.len() {
                break;
            }
            self.segment += 1;
            self.offset = 0;
        }
        Ok(found)
    }
}

/// Checks the whole log in `dir`, handing every record and its line to `each`; gives the end of the chain.
///
/// # Errors
/// [`ReadError`], naming the first record that is bad.
pub fn verify(dir: &Path, mut each: impl FnMut(&Record, &[u8])) -> Result<Chain, ReadError> {
    let io = |source| ReadError::Io {
        dir: dir.to_owned(),
        source,
    };
    let mut chain = Chain::default();
    let found = segments(dir).map_err(io)?;
    if found.is_empty() {
        return Err(ReadError::Missing {
            dir: dir.to_owned(),
        });
    }
    for path in found {
        let mut lines = Lines::open(&path).map_err(io)?;
        while let Some(line) = lines.next_line().map_err(io)? {
            let record = chain.follow(line).map_err(|broken| ReadError::Broken {
                file: path.clone(),
                broken,
            })?;
            each(&record, line);
        }
        if lines.torn_bytes() > 0 {
            let broken = Broken {
                seq: chain.count() + 1,
                why: "it has no end: it was torn or is being written".to_owned(),
            };
            return Err(ReadError::Broken { file: path, broken });
        }
    }
    if chain.count() == 0 {
        return Err(ReadError::Missing {
            dir: dir.to_owned(),
        });
    }
    Ok(chain)
}
