//! A search by the index that is made in parts, each of which looks at a bounded number of records and holds no lock on the index behind its
//! end. What it looks for is what was in the index when it began.

use std::collections::VecDeque;

use enforcer_proto::search::{Filter, Search};
use rusqlite::params;

use super::Index;
use super::build::{self, to_sql};
use super::find::{Range, Reader, range};
use crate::search::{SearchError, terms};

/// The numbers of records that the index is asked for at a time: few at first, since often few are wanted.
const AHEAD: usize = 512;
/// The most of them.
const AHEAD_MAX: usize = 16 * 1024;
/// The most records that one part looks at.
const LOOKED_AT_MAX: usize = 4096;

/// In which order a hunt finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::search) enum Order {
    /// Oldest first.
    Oldest,
    /// Newest first.
    Newest,
}

/// A search under way.
#[derive(Debug)]
pub(in crate::search) struct Hunt {
    search: Search,
    /// What the index is asked for; `None` where it knows of nothing that is asked, and every record is looked at.
    asked: Option<String>,
    order: Order,
    /// The records that the index has not been asked about yet.
    left: Option<Range>,
    /// What it has said, and is not looked at yet.
    ahead: VecDeque<u64>,
    ahead_max: usize,
    /// The index must have got so far: less, and it is another.
    until: u64,
    /// What records before this one say of whose a window is does not count.
    since: u64,
}

/// What one part of a hunt found.
#[derive(Debug)]
pub(in crate::search) struct Part {
    /// Numbers of records, and their lines.
    pub(in crate::search) found: Vec<(u64, String)>,
    /// Whether there is nothing more.
    pub(in crate::search) is_end: bool,
}

impl Hunt {
    /// A hunt for what `filter` wants among the records from `since` to `until`.
    pub(in crate::search) fn begin(
        index: &Index,
        filter: Filter,
        order: Order,
        since: u64,
        until: u64,
    ) -> Result<Self, SearchError> {
        let found = range(index, &filter).map_err(index.sqlite())?;
        let left = found.map(|found| Range {
            first: found.first.max(to_sql(since)),
            last: found.last.min(to_sql(until)),
        });
        Ok(Self {
            asked: terms::of_filter(&filter),
            search: Search::new(filter),
            order,
            left,
            ahead: VecDeque::new(),
            ahead_max: AHEAD,
            until,
            since,
        })
    }

    /// The same hunt, of these records alone, which it has found before.
    pub(in crate::search) fn again(self, found: impl IntoIterator<Item = u64>) -> Self {
        Self {
            left: None,
            ahead: found.into_iter().collect(),
            order: Order::Oldest,
            ..self
        }
    }

    /// The next part: at most `lines_max` lines, and `bytes_max` bytes but for one that is longer. `None` where the index has not got so far any
    /// more: it is being built anew.
    pub(in crate::search) fn part(
        &mut self,
        index: &Index,
        lines_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Part>, SearchError> {
        // All of a part is of one state of the index, whoever builds it anew meanwhile.
        let _state = index.db.unchecked_transaction().map_err(index.sqlite())?;
        if build::head(&index.db).map_err(index.sqlite())?.seq < self.until {
            return Ok(None);
        }
        let mut reader = Reader::new(index, self.since);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for _ in 0..LOOKED_AT_MAX {
            if self.ahead.is_empty() {
                self.ask(index).map_err(index.sqlite())?;
            }
            let Some(seq) = self.ahead.pop_front() else {
                break;
            };
            let Some((_, line)) = reader.wanted(seq, &self.search)? else {
                continue;
            };
            bytes += line.len();
            if bytes > bytes_max && !found.is_empty() {
                self.ahead.push_front(seq);
                break;
            }
            found.push((seq, line));
            if found.len() == lines_max {
                break;
            }
        }
        Ok(Some(Part {
            found,
            is_end: self.ahead.is_empty() && self.left.is_none(),
        }))
    }

    /// Asks the index for the next numbers.
    fn ask(&mut self, index: &Index) -> rusqlite::Result<()> {
        let Some(left) = self.left.take().filter(|left| left.first <= left.last) else {
            return Ok(());
        };
        let found = match &self.asked {
            Some(asked) => asked_of(index, asked, left, self.order, self.ahead_max)?,
            None => counted(left, self.order, self.ahead_max),
        };
        if found.len() == self.ahead_max
            && let Some(&last) = found.last()
        {
            self.left = Some(match self.order {
                Order::Oldest => Range {
                    first: last + 1,
                    ..left
                },
                Order::Newest => Range {
                    last: last - 1,
                    ..left
                },
            })
            .filter(|left| left.first <= left.last);
        }
        self.ahead_max = AHEAD_MAX.min(self.ahead_max * 4);
        self.ahead = found.into_iter().map(i64::cast_unsigned).collect();
        Ok(())
    }
}

fn asked_of(
    index: &Index,
    asked: &str,
    left: Range,
    order: Order,
    most: usize,
) -> rusqlite::Result<Vec<i64>> {
    let order = match order {
        Order::Oldest => "ASC",
        Order::Newest => "DESC",
    };
    let mut statement = index.db.prepare(&format!(
        "SELECT rowid FROM records WHERE records MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid {order} LIMIT ?"
    ))?;
    let rows = statement.query_map(params![asked, left.first, left.last, most], |row| {
        row.get(0)
    })?;
    rows.collect()
}

fn counted(left: Range, order: Order, most: usize) -> Vec<i64> {
    match order {
        Order::Oldest => (left.first..=left.last).take(most).collect(),
        Order::Newest => (left.first..=left.last).rev().take(most).collect(),
    }
}
