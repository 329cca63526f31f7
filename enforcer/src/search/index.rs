//! An index of the log, in SQLite: which records have which terms, and where each record is. It is derived from the log and never the truth:
//! it holds no record, what it finds is read from the log, checked there, and judged again. It can be removed at any time.
//!
//! `records` is an inverted index (FTS5) of terms, words and pairs of words by record number; `blocks` says where runs of records are and from when; `lengths` how long
//! each line of a run is; `owners` whose each window is, and which record says so; `head` how far the log is in it, with that record's hash.

mod build;
mod find;
mod hunt;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::{Filter, GRANTS_KEPT};
use rusqlite::{Connection, OpenFlags, params};

pub use build::Built;
use build::{Portion, to_sql};
pub(super) use hunt::{Hunt, Order, Part};

use super::terms::TERM_CHARS;
use super::{Each, SearchError, io_error};

/// The index of a log is kept beside its segments under this name, unless told otherwise.
pub const INDEX_NAME: &str = "index.sqlite";

/// SQLite's mark of whose file it is: `enfi`.
const APPLICATION_ID: i32 = 0x656e_6669;
/// The shape of the tables. An index of another one is built anew.
const VERSION: i32 = 2;
/// How long to wait for somebody else who is writing the index.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of terms that FTS5 gathers before it writes them out: fewer, larger parts are faster to search.
const GATHERED_BYTES: i64 = 64 * 1024 * 1024;
/// How long one who only asks waits for the end of a transaction of whoever writes.
const ASKERS_PATIENCE: Duration = Duration::from_secs(2);

/// How far the log is in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Covered {
    /// Up to this record.
    pub(super) seq: u64,
    /// The number of its segment.
    pub(super) segment: u32,
    /// Where the line behind it begins there, bytes.
    pub(super) next: u64,
}

/// An open index.
#[derive(Debug)]
pub struct Index {
    file: PathBuf,
    log: PathBuf,
    db: Connection,
}

impl Index {
    /// Opens the index `file` of the log in `log`, made (0600) when absent.
    ///
    /// # Errors
    /// [`SearchError`]: not ours, or not to be read or written.
    pub fn open(log: &Path, file: &Path) -> Result<Self, SearchError> {
        OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(file)
            .map_err(io_error("open the index", file))?;
        let sqlite = |source| SearchError::Sqlite {
            file: file.to_owned(),
            source,
        };
        let db = Connection::open(file).map_err(sqlite)?;
        let this = Self {
            file: file.to_owned(),
            log: log.to_owned(),
            db,
        };
        this.db.busy_timeout(PATIENCE).map_err(sqlite)?;
        this.prepare()?;
        Ok(this)
    }

    /// Opens the index `file` of the log in `log` to ask it: nothing is made, and nothing written.
    pub(super) fn open_to_ask(log: &Path, file: &Path) -> Result<Self, SearchError> {
        let sqlite = |source| SearchError::Sqlite {
            file: file.to_owned(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(file, flags).map_err(sqlite)?;
        db.busy_timeout(ASKERS_PATIENCE).map_err(sqlite)?;
        let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let id = pragma("application_id").map_err(sqlite)?;
        let version = pragma("user_version").map_err(sqlite)?;
        if id != APPLICATION_ID || version != VERSION {
            return Err(SearchError::Foreign(file.to_owned()));
        }
        db.execute_batch("PRAGMA query_only = ON; PRAGMA trusted_schema = OFF;")
            .map_err(sqlite)?;
        Ok(Self {
            file: file.to_owned(),
            log: log.to_owned(),
            db,
        })
    }

    /// Whether `file` says of itself that it is an index, however broken the rest of it is.
    pub(super) fn is_ours(file: &Path) -> bool {
        /// Where SQLite's files have the mark of whose they are.
        const AT: u64 = 68;
        let mut id = [0; 4];
        std::fs::File::open(file).is_ok_and(|file| {
            use std::os::unix::fs::FileExt;
            file.read_exact_at(&mut id, AT).is_ok() && i32::from_be_bytes(id) == APPLICATION_ID
        })
    }

    /// Takes in up to `records` records that the log has more than the index, none of them after `until`, as one transaction. Where the index is
    /// of another chain, the first ones.
    pub(super) fn take_in(&mut self, until: u64, records: u64) -> Result<Built, SearchError> {
        build::portion(self, false, Portion { until, records })
    }

    /// Begins anew with the first `records` records.
    #[cfg(test)]
    pub(super) fn take_in_anew(&mut self, records: u64) -> Result<Built, SearchError> {
        let until = u64::MAX;
        build::portion(self, true, Portion { until, records })
    }

    /// Gives back the memory that it does not need while nothing is taken in.
    pub(super) fn rest(&self) -> Result<(), SearchError> {
        self.db
            .execute_batch("PRAGMA shrink_memory")
            .map_err(self.sqlite())
    }

    /// How far the log is in it; `None` where nothing is, or where the log does not hold that record any more.
    pub(super) fn covered(&self) -> Result<Option<Covered>, SearchError> {
        if !build::fits(self)? {
            return Ok(None);
        }
        let head = build::head(&self.db).map_err(self.sqlite())?;
        let digits = head.segment.strip_prefix("log-");
        let digits = digits.and_then(|rest| rest.strip_suffix(".jsonl"));
        let number = digits.and_then(|digits| digits.parse().ok());
        Ok(number.map(|segment| Covered {
            seq: head.seq,
            segment,
            next: head.next,
        }))
    }

    /// The oldest record that is in it, whether the log still has that or not.
    pub(super) fn oldest(&self) -> Result<Option<u64>, SearchError> {
        self.db
            .query_row("SELECT min(first) FROM blocks", [], |row| row.get(0))
            .map_err(self.sqlite())
    }

    /// The newest record that is in it.
    pub(super) fn last(&self) -> Result<u64, SearchError> {
        let head = build::head(&self.db).map_err(self.sqlite())?;
        Ok(head.seq)
    }

    /// The newest windows of `agent` of which a record from `since` to `until` says whose they are.
    pub(super) fn windows_of(
        &self,
        agent: &AgentName,
        since: u64,
        until: u64,
    ) -> Result<Vec<GrantId>, SearchError> {
        let windows = || {
            let mut statement = self.db.prepare(
                "SELECT window FROM owners WHERE agent = ? AND since BETWEEN ? AND ? ORDER BY window DESC LIMIT ?",
            )?;
            let asked = params![agent.as_str(), to_sql(since), to_sql(until), GRANTS_KEPT];
            let rows = statement.query_map(asked, |row| {
                Ok(GrantId(row.get::<_, i64>(0)?.cast_unsigned()))
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        windows().map_err(self.sqlite())
    }

    /// The file it is in.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Takes in what the log has more than the index; all of it, where the index is of another chain, or `anew`.
    ///
    /// # Errors
    /// [`SearchError`]: the log cannot be read or is bad, or the index cannot be written.
    pub fn update(&mut self, anew: bool) -> Result<Built, SearchError> {
        build::update(self, anew)
    }

    /// Hands each record that `filter` wants to `each`, oldest first; with `limit`, only the newest so many.
    ///
    /// # Errors
    /// [`SearchError`], [`SearchError::Stale`] where a record is not what the index says; and what `each` fails with.
    pub fn search(
        &self,
        filter: Filter,
        limit: Option<usize>,
        each: &mut Each<'_>,
    ) -> Result<(), SearchError> {
        find::search(self, filter, limit, each)
    }

    fn sqlite(&self) -> impl Fn(rusqlite::Error) -> SearchError + 'static {
        let file = self.file.clone();
        move |source| SearchError::Sqlite {
            file: file.clone(),
            source,
        }
    }

    fn prepare(&self) -> Result<(), SearchError> {
        let sqlite = self.sqlite();
        let pragma = |name: &str| {
            self.db
                .pragma_query_value(None, name, |row| row.get::<_, i32>(0))
        };
        let id = match pragma("application_id") {
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) => {
                return Err(SearchError::Foreign(self.file.clone()));
            }
            id => id.map_err(&sqlite)?,
        };
        let has_tables = self
            .db
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
                row.get::<_, i64>(0)
            })
            .map_err(&sqlite)?
            > 0;
        if has_tables && id != APPLICATION_ID {
            return Err(SearchError::Foreign(self.file.clone()));
        }
        let version = pragma("user_version").map_err(&sqlite)?;
        // What a crash of the host loses is built again: it needs no more than that a transaction is whole.
        self.db
            .execute_batch("PRAGMA journal_mode = TRUNCATE; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -65536; PRAGMA trusted_schema = OFF;")
            .map_err(&sqlite)?;
        if !has_tables || version != VERSION {
            self.make_tables().map_err(&sqlite)?;
        }
        Ok(())
    }

    /// Empty tables, in place of whatever is there.
    fn make_tables(&self) -> rusqlite::Result<()> {
        self.db.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             DROP TABLE IF EXISTS head; DROP TABLE IF EXISTS blocks; DROP TABLE IF EXISTS lengths;
             DROP TABLE IF EXISTS owners; DROP TABLE IF EXISTS records;
             CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL,
                 segment TEXT NOT NULL, at INTEGER NOT NULL, next INTEGER NOT NULL);
             CREATE TABLE blocks (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, segment TEXT NOT NULL, at INTEGER NOT NULL,
                 since_ns INTEGER NOT NULL, until_ns INTEGER NOT NULL);
             CREATE TABLE lengths (first INTEGER PRIMARY KEY, lengths BLOB NOT NULL);
             CREATE TABLE owners (window INTEGER PRIMARY KEY, agent TEXT NOT NULL, since INTEGER NOT NULL);
             CREATE VIRTUAL TABLE records USING fts5(terms, content = '', detail = none, columnsize = 0,
                 tokenize = \"ascii tokenchars '{TERM_CHARS}'\");
             INSERT INTO records(records, rank) VALUES ('hashsize', {GATHERED_BYTES});
             PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {VERSION};
             COMMIT;"
        ))
    }
}
