//! Asking the index, and reading what it names from the log.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use enforcer_proto::audit::{LINE_BYTES_MAX, Record};
use enforcer_proto::event::About;
use enforcer_proto::search::{Filter, Search};
use rusqlite::{OptionalExtension, params};

use super::Index;
use super::build::{owner_of, to_sql};
use crate::search::answer::oldest_kept;
use crate::search::{Each, SearchError, io_error, read_record, terms};

/// The numbers of records that can be wanted, as far as times and numbers say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) first: i64,
    pub(super) last: i64,
}

pub(super) fn search(
    index: &Index,
    filter: Filter,
    limit: Option<usize>,
    each: &mut Each<'_>,
) -> Result<(), SearchError> {
    let Some(range) = range(index, &filter).map_err(index.sqlite())? else {
        return Ok(());
    };
    let asked = terms::of_filter(&filter);
    let search = Search::new(filter);
    let mut reader = Reader::new(
        index,
        oldest_kept(&index.log).map_err(io_error("read", &index.log))?,
    );
    let order = if limit.is_some() { "DESC" } else { "ASC" };
    let mut kept = Vec::new();
    let mut take = |seq: u64| -> Result<bool, SearchError> {
        let Some((record, line)) = reader.wanted(seq, &search)? else {
            return Ok(true);
        };
        let Some(limit) = limit else {
            each(&record, &line).map_err(SearchError::Taker)?;
            return Ok(true);
        };
        kept.push((record, line));
        Ok(kept.len() < limit)
    };
    if limit == Some(0) {
        return Ok(());
    }
    if let Some(asked) = asked {
        let sqlite = index.sqlite();
        let mut statement = index
            .db
            .prepare(&format!(
                "SELECT rowid FROM records WHERE records MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid {order}"
            ))
            .map_err(&sqlite)?;
        let mut rows = statement
            .query(params![asked, range.first, range.last])
            .map_err(&sqlite)?;
        while let Some(row) = rows.next().map_err(&sqlite)? {
            if !take(row.get(0).map_err(&sqlite)?)? {
                break;
            }
        }
    } else {
        let mut seqs: Box<dyn Iterator<Item = i64>> = if limit.is_some() {
            Box::new((range.first..=range.last).rev())
        } else {
            Box::new(range.first..=range.last)
        };
        while let Some(seq) = seqs.next()
            && take(seq.cast_unsigned())?
        {}
    }
    for (record, line) in kept.iter().rev() {
        each(record, line).map_err(SearchError::Taker)?;
    }
    Ok(())
}

/// From the first to the last record of the blocks that can hold what is wanted; none where no block can.
pub(super) fn range(index: &Index, filter: &Filter) -> rusqlite::Result<Option<Range>> {
    let bounds: (Option<i64>, Option<i64>) = index.db.query_row(
        "SELECT min(first), max(last) FROM blocks WHERE until_ns >= ? AND since_ns < ? AND last >= ? AND first <= ?",
        params![
            filter.since_unix_ns.map_or(0, to_sql),
            filter.until_unix_ns.map_or(i64::MAX, to_sql),
            filter.first.map_or(0, to_sql),
            filter.last.map_or(i64::MAX, to_sql),
        ],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let (Some(first), Some(last)) = bounds else {
        return Ok(None);
    };
    Ok(Some(Range {
        first: first.max(filter.first.map_or(0, to_sql)),
        last: last.min(filter.last.map_or(i64::MAX, to_sql)),
    }))
}

/// A run of records, and where each line of it begins.
struct Run {
    first: u64,
    segment: String,
    /// Where the lines begin; one more than there are lines.
    begins: Vec<u64>,
}

/// Reads records where the index says they are.
pub(super) struct Reader<'a> {
    index: &'a Index,
    /// What older records say of whose a window is does not count.
    since: u64,
    run: Option<Run>,
    /// The segment that was read last; no file where that is gone.
    segment: Option<(String, Option<File>)>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(index: &'a Index, since: u64) -> Self {
        Self {
            index,
            since,
            run: None,
            segment: None,
        }
    }

    /// The record `seq` and its line, if `search` wants it; none too where its segment is not kept any more.
    pub(super) fn wanted(
        &mut self,
        seq: u64,
        search: &Search,
    ) -> Result<Option<(Record, String)>, SearchError> {
        let stale = || SearchError::Stale {
            file: self.index.file.clone(),
            seq,
        };
        self.find_run(seq).map_err(self.index.sqlite())?;
        let run = self.run.as_ref().ok_or_else(stale)?;
        let nth = usize::try_from(seq.wrapping_sub(run.first)).map_err(|_| stale())?;
        let (Some(&from), Some(&to)) = (run.begins.get(nth), run.begins.get(nth + 1)) else {
            return Err(stale());
        };
        let (segment, is_last_read) = (run.segment.clone(), self.is_open(&run.segment));
        if !is_last_read {
            self.open_segment(segment)?;
        }
        let Some((name, Some(file))) = &self.segment else {
            return Ok(None);
        };
        let length = usize::try_from(to - from)
            .unwrap_or(usize::MAX)
            .saturating_sub(1);
        if length > LINE_BYTES_MAX {
            return Err(stale());
        }
        let mut line = vec![0; length];
        match file.read_exact_at(&mut line, from) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(stale()),
            read => read.map_err(io_error("read", &self.index.log.join(name)))?,
        }
        let record = read_record(&line).map_err(|_| stale())?;
        if record.seq != seq {
            return Err(stale());
        }
        let owner = match About::of(&record.event).grant {
            Some(grant) if search.filter().agent.is_some() => {
                owner_of(&self.index.db, grant, self.since).map_err(self.index.sqlite())?
            }
            _ => None,
        };
        if !search.wants_of(&record, owner.as_ref()) {
            return Ok(None);
        }
        let line = String::from_utf8(line).map_err(|_| stale())?;
        Ok(Some((record, line)))
    }

    fn is_open(&self, segment: &str) -> bool {
        self.segment
            .as_ref()
            .is_some_and(|(name, _)| name == segment)
    }

    fn open_segment(&mut self, name: String) -> Result<(), SearchError> {
        let path = self.index.log.join(&name);
        let file = match File::open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        self.segment = Some((name, file));
        Ok(())
    }

    /// Has the run that holds `seq` at hand.
    fn find_run(&mut self, seq: u64) -> rusqlite::Result<()> {
        let holds = |run: &Run| seq >= run.first && seq - run.first + 1 < run.begins.len() as u64;
        if self.run.as_ref().is_some_and(holds) {
            return Ok(());
        }
        self.run = self
            .index
            .db
            .prepare_cached(
                "SELECT first, segment, at, lengths FROM blocks JOIN lengths USING (first) WHERE first <= ? ORDER BY first DESC LIMIT 1",
            )?
            .query_row([to_sql(seq)], |row| {
                let (at, lengths): (u64, Vec<u8>) = (row.get(2)?, row.get(3)?);
                Ok(Run {
                    first: row.get(0)?,
                    segment: row.get(1)?,
                    begins: begins(at, &lengths),
                })
            })
            .optional()?;
        Ok(())
    }
}

/// Where lines of these lengths begin, and where the last of them ends.
fn begins(at: u64, lengths: &[u8]) -> Vec<u64> {
    let (lengths, _) = lengths.as_chunks::<4>();
    let mut next = at;
    let mut begins = vec![at];
    begins.extend(lengths.iter().map(|length| {
        next += u64::from(u32::from_le_bytes(*length));
        next
    }));
    begins
}
