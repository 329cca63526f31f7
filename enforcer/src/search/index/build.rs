//! Taking the log into the index, from where that has got to.

use std::path::{Path, PathBuf};

use enforcer_proto::audit::Record;
use enforcer_proto::event::{About, Event};
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};

use super::Index;
use crate::audit::{Lines, segments};
use crate::search::{SearchError, io_error, read_record, terms};

/// Records that are taken in by one transaction: so much is done again after a crash.
const BATCH: u64 = 100_000;
/// Records of one block.
const BLOCK: usize = 1024;

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Built {
    /// Records that are in the index now: up to this number.
    pub last: u64,
    /// Records that were taken in.
    pub added: u64,
    /// Whether it was begun anew.
    pub is_anew: bool,
}

/// Where the index has got to in the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    pub(super) seq: u64,
    hash: String,
    /// The segment of that record; none before the first.
    pub(super) segment: String,
    /// Where its line begins, bytes.
    at: u64,
    /// Where the line after it begins.
    pub(super) next: u64,
}

/// A run of records in one segment.
#[derive(Debug)]
struct Block {
    first: u64,
    last: u64,
    segment: String,
    at: u64,
    since_ns: u64,
    until_ns: u64,
    lengths: Vec<u8>,
}

/// What of the log is taken in by one transaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Portion {
    /// No record after this one.
    pub(super) until: u64,
    /// So many records at most.
    pub(super) records: u64,
}

pub(super) fn update(index: &mut Index, anew: bool) -> Result<Built, SearchError> {
    let all = Portion {
        until: u64::MAX,
        records: BATCH,
    };
    let mut built = portion(index, anew, all)?;
    let mut added = built.added;
    while added == BATCH {
        (added, built.last) = batch(index, all)?;
        built.added += added;
    }
    Ok(built)
}

/// Takes in one portion; the first, where the index is of another chain, or `anew`.
pub(super) fn portion(
    index: &mut Index,
    anew: bool,
    portion: Portion,
) -> Result<Built, SearchError> {
    if segments(&index.log)
        .map_err(io_error("list", &index.log))?
        .is_empty()
    {
        return Err(SearchError::Missing(index.log.clone()));
    }
    let is_anew = anew || !fits(index)?;
    if is_anew {
        let sqlite = index.sqlite();
        index.make_tables().map_err(sqlite)?;
    }
    let (added, last) = batch(index, portion)?;
    Ok(Built {
        last,
        added,
        is_anew,
    })
}

/// Whether the log still holds the record that the index has got to, or has not begun.
pub(super) fn fits(index: &Index) -> Result<bool, SearchError> {
    let head = head(&index.db).map_err(index.sqlite())?;
    if head.segment.is_empty() {
        return Ok(true);
    }
    let path = index.log.join(&head.segment);
    let line = Lines::open_at(&path, head.at).and_then(|mut lines| {
        let line = lines.next_line()?;
        Ok(line.map(<[u8]>::to_vec))
    });
    Ok(match line {
        Ok(Some(line)) => read_record(&line)
            .is_ok_and(|record| record.seq == head.seq && record.hash.as_ref() == Some(&head.hash)),
        Ok(None) => false,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(io_error("read", &path)(error)),
    })
}

pub(super) fn head(db: &rusqlite::Connection) -> rusqlite::Result<Head> {
    let found = db
        .query_row("SELECT seq, hash, segment, at, next FROM head", [], |row| {
            Ok(Head {
                seq: row.get(0)?,
                hash: row.get(1)?,
                segment: row.get(2)?,
                at: row.get(3)?,
                next: row.get(4)?,
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Takes in the next records, as one transaction; gives how many, and the last one's number.
fn batch(index: &mut Index, portion: Portion) -> Result<(u64, u64), SearchError> {
    let sqlite = index.sqlite();
    let log = index.log.clone();
    let transaction = index
        .db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(&sqlite)?;
    let mut writer = Writer::begin(&transaction).map_err(&sqlite)?;
    let mut added = 0;
    'segments: for path in later_segments(&log, &writer.head.segment)? {
        let name = name_of(&path);
        let from = if name == writer.head.segment {
            writer.head.next
        } else {
            0
        };
        let mut lines = Lines::open_at(&path, from).map_err(io_error("read", &path))?;
        let mut offset = from;
        while added < portion.records && writer.head.seq < portion.until {
            let Some(line) = lines.next_line().map_err(io_error("read", &path))? else {
                continue 'segments;
            };
            let bad = |why| SearchError::Bad {
                file: path.clone(),
                offset,
                why,
            };
            let record = read_record(line).map_err(bad)?;
            writer.follows(&record).map_err(bad)?;
            let length = line.len() as u64 + 1;
            writer
                .take(&record, &name, offset, length)
                .map_err(&sqlite)?;
            offset += length;
            added += 1;
        }
        break;
    }
    let last = writer.end().map_err(&sqlite)?;
    transaction.commit().map_err(&sqlite)?;
    Ok((added, last))
}

/// The segments from the one named `from` on; all, where none is.
fn later_segments(log: &Path, from: &str) -> Result<Vec<PathBuf>, SearchError> {
    let mut found = segments(log).map_err(io_error("list", log))?;
    found.retain(|path| name_of(path).as_str() >= from);
    Ok(found)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// One batch being written.
struct Writer<'a> {
    db: &'a Transaction<'a>,
    head: Head,
    block: Option<Block>,
}

impl<'a> Writer<'a> {
    fn begin(db: &'a Transaction<'a>) -> rusqlite::Result<Self> {
        let head = head(db)?;
        let block = db
            .query_row(
                "SELECT first, last, segment, at, since_ns, until_ns, lengths FROM blocks JOIN lengths USING (first)
                 ORDER BY first DESC LIMIT 1",
                [],
                |row| {
                    Ok(Block {
                        first: row.get(0)?,
                        last: row.get(1)?,
                        segment: row.get(2)?,
                        at: row.get(3)?,
                        since_ns: from_sql(row.get(4)?),
                        until_ns: from_sql(row.get(5)?),
                        lengths: row.get(6)?,
                    })
                },
            )
            .optional()?;
        Ok(Self { db, head, block })
    }

    /// Whether `record` comes directly after what is in the index. The first one there is may have any number: older ones may be gone.
    fn follows(&self, record: &Record) -> Result<(), String> {
        if self.head.segment.is_empty()
            || (record.seq == self.head.seq + 1 && record.prev == self.head.hash)
        {
            return Ok(());
        }
        Err(format!("it does not follow record {}", self.head.seq))
    }

    fn take(
        &mut self,
        record: &Record,
        segment: &str,
        at: u64,
        length: u64,
    ) -> rusqlite::Result<()> {
        let owner = self.owner(record)?;
        self.db
            .prepare_cached("INSERT INTO records (rowid, terms) VALUES (?, ?)")?
            .execute(params![
                record.seq,
                terms::of_record(record, owner.as_ref())
            ])?;
        let is_full = self
            .block
            .as_ref()
            .is_none_or(|block| block.segment != segment || block.lengths.len() >= 4 * BLOCK);
        if is_full {
            self.write_block()?;
            self.block = Some(Block {
                first: record.seq,
                last: record.seq,
                segment: segment.to_owned(),
                at,
                since_ns: record.unix_ns,
                until_ns: record.unix_ns,
                lengths: Vec::new(),
            });
        }
        if let Some(block) = &mut self.block {
            block.last = record.seq;
            block.since_ns = block.since_ns.min(record.unix_ns);
            block.until_ns = block.until_ns.max(record.unix_ns);
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            block.lengths.extend_from_slice(&length.to_le_bytes());
        }
        segment.clone_into(&mut self.head.segment);
        self.head.seq = record.seq;
        self.head.hash = record.hash.clone().unwrap_or_default();
        self.head.at = at;
        self.head.next = at + length;
        Ok(())
    }

    /// Whose window it is that the event names without its agent. Remembers whose a new one is.
    fn owner(&self, record: &Record) -> rusqlite::Result<Option<AgentName>> {
        let (event, about) = (&record.event, About::of(&record.event));
        let Some(GrantId(grant)) = about.grant else {
            return Ok(None);
        };
        if let Some(agent) = about.agent {
            if matches!(event, Event::Approved { .. }) {
                self.db
                    .prepare_cached(
                        "INSERT OR REPLACE INTO owners (window, agent, since) VALUES (?, ?, ?)",
                    )?
                    .execute(params![grant.cast_signed(), agent.as_str(), record.seq])?;
            }
            return Ok(None);
        }
        owner_of(self.db, GrantId(grant), 0)
    }

    fn write_block(&self) -> rusqlite::Result<()> {
        let Some(block) = &self.block else {
            return Ok(());
        };
        self.db
            .prepare_cached("INSERT OR REPLACE INTO blocks (first, last, segment, at, since_ns, until_ns) VALUES (?, ?, ?, ?, ?, ?)")?
            .execute(params![
                block.first,
                block.last,
                block.segment,
                block.at,
                to_sql(block.since_ns),
                to_sql(block.until_ns),
            ])?;
        self.db
            .prepare_cached("INSERT OR REPLACE INTO lengths (first, lengths) VALUES (?, ?)")?
            .execute(params![block.first, block.lengths])?;
        Ok(())
    }

    fn end(&self) -> rusqlite::Result<u64> {
        self.write_block()?;
        let head = &self.head;
        if !head.segment.is_empty() {
            self.db.execute(
                "INSERT OR REPLACE INTO head (id, seq, hash, segment, at, next) VALUES (1, ?, ?, ?, ?, ?)",
                params![head.seq, head.hash, head.segment, head.at, head.next],
            )?;
        }
        Ok(head.seq)
    }
}

/// The agent that a window was made for, by the record `since` or a later one.
pub(super) fn owner_of(
    db: &rusqlite::Connection,
    GrantId(grant): GrantId,
    since: u64,
) -> rusqlite::Result<Option<AgentName>> {
    let agent: Option<String> = db
        .prepare_cached("SELECT agent FROM owners WHERE window = ? AND since >= ?")?
        .query_row([grant.cast_signed(), to_sql(since)], |row| row.get(0))
        .optional()?;
    Ok(agent.and_then(|agent| agent.parse().ok()))
}

/// Times as SQLite keeps numbers: past 2262 they are all the last one.
pub(super) fn to_sql(ns: u64) -> i64 {
    i64::try_from(ns).unwrap_or(i64::MAX)
}

const fn from_sql(ns: i64) -> u64 {
    ns.cast_unsigned()
}
