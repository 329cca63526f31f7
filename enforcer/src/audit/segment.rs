//! The files of the log: their names, their order, and which record each begins with. The numbers of files only grow; the first may be gone.

use std::io;
use std::path::{Path, PathBuf};

use enforcer_proto::audit::Named;

use super::read::Lines;

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its number, from 1.
    pub number: u32,
    /// Where it is.
    pub path: PathBuf,
}

impl Segment {
    /// The segment of this number of the log in `dir`, whether it exists or not.
    #[must_use]
    pub fn of(dir: &Path, number: u32) -> Self {
        Self {
            number,
            path: dir.join(format!("log-{number:06}.jsonl")),
        }
    }

    fn at(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let digits = name.strip_prefix("log-")?.strip_suffix(".jsonl")?;
        let number = digits.parse().ok()?;
        let is_ours = digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit());
        is_ours.then_some(Self { number, path })
    }

    /// What its first record says of its place in the chain; `None` where it holds no whole record yet.
    ///
    /// # Errors
    /// When it cannot be read, or when its first line is no record.
    pub fn first(&self) -> io::Result<Option<Named>> {
        let mut lines = Lines::open(&self.path)?;
        let Some(line) = lines.next_line()? else {
            return Ok(None);
        };
        let named = Named::of(line).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the first line of {} is no record", self.path.display()),
            )
        })?;
        Ok(Some(named))
    }

    /// Its length, bytes.
    ///
    /// # Errors
    /// When it is not there.
    pub fn bytes(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.path)?.len())
    }
}

/// The segments of a log, oldest first.
///
/// # Errors
/// When the folder cannot be listed.
pub fn numbered(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        found.extend(Segment::at(entry?.path()));
    }
    found.sort_by_key(|segment| segment.number);
    Ok(found)
}

/// Their paths alone.
///
/// # Errors
/// When the folder cannot be listed.
pub fn segments(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let found = numbered(dir)?.into_iter();
    Ok(found.map(|segment| segment.path).collect())
}
