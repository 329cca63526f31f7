//! Looking for records in the log on disk: by reading it through, or where an index says. What is found is always read from the log itself,
//! so that an index can be thrown away, and can show nobody a record that is not there.

mod answer;
mod index;
mod keeper;
mod needles;
mod scan;
mod sink;
mod terms;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use enforcer_proto::audit::{LINE_BYTES_MAX, Record, sha256_hex};
use enforcer_proto::search::Filter;

pub use answer::{Answer, Asked, Given};
pub use index::{Built, INDEX_NAME, Index};
pub use keeper::Keeper;
pub use needles::Needles;
pub use sink::{Each, Sink};

/// The most records that `--limit` may ask for.
pub const LIMIT_MAX: usize = enforcer_proto::wire::LOG_LIMIT_MAX as usize;

/// A search that cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The log or the index cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no log.
    #[error("there is no log in {0}: no file log-*.jsonl is there")]
    Missing(PathBuf),
    /// A record is not what it should be.
    #[error(
        "{file}: the record at byte {offset} is bad: {why}. Check the log with: enforcer log verify"
    )]
    Bad {
        /// The segment.
        file: PathBuf,
        /// Where in it, bytes.
        offset: u64,
        /// What is wrong.
        why: String,
    },
    /// The index says something else than the log.
    #[error(
        "the index {file} does not fit the log: record {seq} is not where it says. Build it anew with: enforcer log index --rebuild"
    )]
    Stale {
        /// The index.
        file: PathBuf,
        /// The record.
        seq: u64,
    },
    /// A file that somebody else made.
    #[error("{0} is no index of a log: name another file with --index")]
    Foreign(PathBuf),
    /// SQLite failed.
    #[error(
        "the index {file} cannot be used; it can be removed at any time, and is built anew then"
    )]
    Sqlite {
        /// The index.
        file: PathBuf,
        /// What it said.
        source: rusqlite::Error,
    },
    /// Whoever takes what is found wants no more: an error of its own.
    #[error(transparent)]
    Taker(anyhow::Error),
}

impl SearchError {
    /// Whether the index is damaged, so that only a new one can be asked again.
    fn is_of_broken_index(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
            Self::Io { .. }
            | Self::Missing(_)
            | Self::Bad { .. }
            | Self::Stale { .. }
            | Self::Foreign(_)
            | Self::Taker(_) => false,
        }
    }

    /// Whether an index cannot be written here, so that the log is read through instead.
    #[must_use]
    pub fn is_for_want_of_rights(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ),
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::CannotOpen)
            ),
            Self::Missing(_)
            | Self::Bad { .. }
            | Self::Stale { .. }
            | Self::Foreign(_)
            | Self::Taker(_) => false,
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SearchError {
    let path = path.to_owned();
    move |source| SearchError::Io {
        action,
        path,
        source,
    }
}

/// Hands each record of the log in `dir` that `filter` wants to `each`, oldest first; with `limit`, only the newest so many. The log is read
/// through.
///
/// # Errors
/// [`SearchError`], and what `each` fails with.
pub fn scan(
    dir: &Path,
    filter: Filter,
    limit: Option<usize>,
    each: &mut Each<'_>,
) -> Result<(), SearchError> {
    scan::scan(dir, filter, &mut Sink::new(limit, each))
}

/// The record in `line`, if its bytes have the hash that it names. That it follows the one before is for `enforcer log verify`.
fn read_record(line: &[u8]) -> Result<Record, String> {
    /// `,"hash":"` + 64 hex digits + `"}`
    const SUFFIX_BYTES: usize = 75;
    if line.len() < SUFFIX_BYTES || line.len() > LINE_BYTES_MAX {
        return Err("its length is not that of a record".to_owned());
    }
    let (body, _) = line.split_at(line.len() - SUFFIX_BYTES);
    let record: Record =
        serde_json::from_slice(line).map_err(|error| format!("it cannot be read: {error}"))?;
    if record.hash.as_ref() == Some(&sha256_hex(body)) {
        Ok(record)
    } else {
        Err("its bytes do not have the hash it names".to_owned())
    }
}
