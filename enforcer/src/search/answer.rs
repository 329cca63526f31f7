//! The daemon's answer to a search, made in parts of bounded work: what the index has got to is looked up there, what came since is read through;
//! where there is no index, all is. Whichever way, it is the same records in the same order.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use enforcer_proto::audit::Record;
use enforcer_proto::search::{Filter, Search};
use enforcer_proto::wire::RECORDS_PER_REPLY_MAX;

use super::index::{Hunt, Order, Part};
use super::{Keeper, LIMIT_MAX, Needles};
use crate::audit::{Place, Spot, numbered};

/// What one part of several log lines may hold, bytes. A longer line goes alone: a frame holds any.
const PART_BYTES_MAX: usize = 512 * 1024;

/// What is asked of the log.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// No record before this one.
    pub from: u64,
    /// Which records.
    pub filter: Filter,
    /// Only the newest so many, at most [`LIMIT_MAX`]; all where absent.
    pub limit: Option<usize>,
}

/// An answer under way.
#[derive(Debug)]
pub struct Answer {
    log: PathBuf,
    keeper: Arc<Keeper>,
    asked: Asked,
    /// It ends with this record.
    until: u64,
    /// The last record that was given.
    given: u64,
    /// Where the log is read through, or would be gone on with.
    through: Through,
    phase: Phase,
}

/// How far an answer is.
#[derive(Debug)]
enum Phase {
    Begin,
    /// Reading through.
    Through,
    /// Reading through for the newest, whose places are kept; behind that, by the index.
    Newest(Option<Box<Hunt>>, VecDeque<Spot>),
    /// Looking up, newest first, the rest of them; these numbers were found, oldest first.
    LookBack(Box<Hunt>, VecDeque<u64>, VecDeque<Spot>),
    /// Giving what the index finds, oldest first; then what is at these places, or what is read through.
    LookUp(Box<Hunt>, VecDeque<Spot>),
    /// Giving what is at these places.
    Places(VecDeque<Spot>),
    End,
}

/// One part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Given {
    /// Lines that are wanted; there may be none in a part.
    Lines(Vec<String>),
    /// There is no more.
    End,
}

impl Answer {
    /// An answer to what is `asked` of the log in `log`, up to the record `until`.
    #[must_use]
    pub fn new(log: &Path, keeper: &Arc<Keeper>, mut asked: Asked, until: u64) -> Self {
        asked.from = asked.from.max(1);
        asked.limit = asked.limit.map(|limit| limit.min(LIMIT_MAX));
        let last = asked.filter.last.unwrap_or(u64::MAX);
        let until = until.min(last);
        if asked.filter.is_of_numbers() {
            // Which records these are is known, and none hangs on what was before.
            let first = asked.filter.first.unwrap_or(1);
            let newest = asked.limit.take();
            let newest = newest.map_or(1, |newest| (until + 1).saturating_sub(newest as u64));
            asked.from = asked.from.max(first).max(newest);
        }
        Self {
            through: Through::new(log, &asked),
            log: log.to_owned(),
            keeper: Arc::clone(keeper),
            asked,
            until,
            given: 0,
            phase: Phase::Begin,
        }
    }

    /// Goes on up to the record `until`, once it has come to its end.
    pub fn go_on(&mut self, until: u64) {
        self.until = until.min(self.asked.filter.last.unwrap_or(u64::MAX));
        self.phase = Phase::Through;
    }

    /// The next part.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn part(&mut self) -> io::Result<Given> {
        let lines = match std::mem::replace(&mut self.phase, Phase::End) {
            Phase::Begin => {
                self.begin()?;
                Vec::new()
            }
            Phase::Through => self.read_through()?,
            Phase::Newest(hunt, places) => {
                self.find_newest(hunt, places)?;
                Vec::new()
            }
            Phase::LookBack(hunt, found, places) => {
                self.look_back(hunt, found, places);
                Vec::new()
            }
            Phase::LookUp(hunt, places) => self.look_up(hunt, places),
            Phase::Places(places) => self.give_places(places)?,
            Phase::End => return Ok(Given::End),
        };
        Ok(Given::Lines(lines))
    }

    fn begin(&mut self) -> io::Result<()> {
        let hunt = if self.asked.filter.is_of_numbers() {
            None
        } else {
            self.by_index()?.map(Box::new)
        };
        self.phase = match hunt {
            hunt if self.asked.limit.is_some() => Phase::Newest(hunt, VecDeque::new()),
            Some(hunt) => Phase::LookUp(hunt, VecDeque::new()),
            None => Phase::Through,
        };
        Ok(())
    }

    /// A hunt in what the index has got to; what is behind that is what is read through then.
    fn by_index(&mut self) -> io::Result<Option<Hunt>> {
        let (asked, until) = (&self.asked, self.until);
        let order = if asked.limit.is_some() {
            Order::Newest
        } else {
            Order::Oldest
        };
        let since = asked.from.max(oldest_kept(&self.log)?);
        let found = self.keeper.ask(|index| {
            let Some(covered) = index.covered()?.filter(|covered| covered.seq >= since) else {
                return Ok(None);
            };
            let last = covered.seq.min(until);
            let agent = asked.filter.agent.as_ref();
            let windows = agent.map(|agent| index.windows_of(agent, since, last));
            let windows = windows.transpose()?.unwrap_or_default();
            let hunt = Hunt::begin(index, asked.filter.clone(), order, since, last)?;
            Ok(Some((hunt, covered, windows)))
        });
        let Some((hunt, covered, windows)) = found.flatten() else {
            return Ok(None);
        };
        self.through.search = Search::knowing(asked.filter.clone(), windows);
        self.through.place = if covered.seq <= until {
            Place::behind(&self.log, covered.seq + 1, covered.segment, covered.next)
        } else {
            Place::at_record(&self.log, until + 1)
        };
        Ok(Some(hunt))
    }

    /// The index has failed, or is being built anew: all is read through, but for what was given.
    fn without_index(&mut self) {
        self.through = Through::new(&self.log, &self.asked);
        self.phase = if self.asked.limit.is_some() {
            Phase::Newest(None, VecDeque::new())
        } else {
            Phase::Through
        };
    }

    fn read_through(&mut self) -> io::Result<Vec<String>> {
        let Some(found) = self.through.read(self.until)? else {
            return Ok(Vec::new());
        };
        self.phase = Phase::Through;
        let found = found.into_iter().map(|(spot, line)| (spot.seq, line));
        Ok(self.give(found))
    }

    fn find_newest(
        &mut self,
        hunt: Option<Box<Hunt>>,
        mut places: VecDeque<Spot>,
    ) -> io::Result<()> {
        let limit = self.asked.limit.unwrap_or(LIMIT_MAX);
        let Some(found) = self.through.read(self.until)? else {
            self.phase = match hunt {
                Some(hunt) => Phase::LookBack(hunt, VecDeque::new(), places),
                None => Phase::Places(places),
            };
            return Ok(());
        };
        places.extend(found.into_iter().map(|(spot, _)| spot));
        let too_many = places.len().saturating_sub(limit);
        places.drain(..too_many);
        self.phase = Phase::Newest(hunt, places);
        Ok(())
    }

    fn look_back(&mut self, mut hunt: Box<Hunt>, mut found: VecDeque<u64>, places: VecDeque<Spot>) {
        let limit = self.asked.limit.unwrap_or(LIMIT_MAX);
        let wanted = limit.saturating_sub(found.len() + places.len());
        if wanted == 0 {
            self.phase = Phase::LookUp(Box::new(hunt.again(found)), places);
            return;
        }
        let most = RECORDS_PER_REPLY_MAX.min(wanted);
        let part = self
            .keeper
            .ask(|index| hunt.part(index, most, PART_BYTES_MAX));
        let Some(part) = part.flatten() else {
            return self.without_index();
        };
        for (seq, _) in part.found {
            found.push_front(seq);
        }
        self.phase = if part.is_end {
            Phase::LookUp(Box::new(hunt.again(found)), places)
        } else {
            Phase::LookBack(hunt, found, places)
        };
    }

    fn look_up(&mut self, mut hunt: Box<Hunt>, places: VecDeque<Spot>) -> Vec<String> {
        let part = self
            .keeper
            .ask(|index| hunt.part(index, RECORDS_PER_REPLY_MAX, PART_BYTES_MAX));
        let Some(Part { found, is_end }) = part.flatten() else {
            self.without_index();
            return Vec::new();
        };
        self.phase = match (is_end, self.asked.limit) {
            (false, _) => Phase::LookUp(hunt, places),
            (true, Some(_)) => Phase::Places(places),
            (true, None) => Phase::Through,
        };
        self.give(found)
    }

    fn give_places(&mut self, mut places: VecDeque<Spot>) -> io::Result<Vec<String>> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        while let Some(spot) = places.pop_front() {
            bytes += spot.bytes();
            if !found.is_empty() && (bytes > PART_BYTES_MAX || found.len() == RECORDS_PER_REPLY_MAX)
            {
                places.push_front(spot);
                break;
            }
            found.extend(spot.line(&self.log)?.map(|line| (spot.seq, line)));
        }
        if !places.is_empty() {
            self.phase = Phase::Places(places);
        }
        Ok(self.give(found))
    }

    /// What of it was not given yet.
    fn give(&mut self, found: impl IntoIterator<Item = (u64, String)>) -> Vec<String> {
        let given = self.given;
        let mut lines = Vec::new();
        for (seq, line) in found.into_iter().filter(|(seq, _)| *seq > given) {
            self.given = seq;
            lines.push(line);
        }
        lines
    }
}

/// Reading the log through for what is wanted.
#[derive(Debug)]
struct Through {
    place: Place,
    needles: Needles,
    search: Search,
}

impl Through {
    fn new(log: &Path, asked: &Asked) -> Self {
        Self {
            place: Place::at_record(log, asked.from),
            needles: Needles::of(&asked.filter),
            search: Search::new(asked.filter.clone()),
        }
    }

    /// What is wanted of the next lines, up to the record `until`; `None` where there are none.
    fn read(&mut self, until: u64) -> io::Result<Option<Vec<(Spot, String)>>> {
        let mut lines = self
            .place
            .read_placed(until, RECORDS_PER_REPLY_MAX, PART_BYTES_MAX)?;
        if lines.is_empty() {
            return Ok(None);
        }
        lines.retain(|(_, line)| self.lets_through(line));
        Ok(Some(lines))
    }

    /// Whether a line is wanted. One that cannot be read is: whoever reads the log is to see it.
    fn lets_through(&mut self, line: &str) -> bool {
        *self.search.filter() == Filter::default()
            || self.needles.may_be_in(line.as_bytes())
                && serde_json::from_str::<Record>(line)
                    .map_or(true, |record| self.search.wants(&record))
    }
}

/// The oldest record that is still there: what says whose an older window is was removed.
pub(super) fn oldest_kept(log: &Path) -> io::Result<u64> {
    let first = match numbered(log)?.first() {
        Some(oldest) => oldest.first()?,
        None => None,
    };
    Ok(first.map_or(0, |first| first.seq))
}
