//! The daemon's index of its log: brought up to date in the background, and lent to searches. It is never the truth, and nothing waits for it: what
//! it has not got to, or where it cannot be used, the log is read through, and `status` says why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::{INDEX_NAME, Index, SearchError, io_error};
use crate::audit::{Watched, numbered};
use crate::causes::Causes;

/// How little it asks of the processor.
const NICE: i32 = 19;
/// How long it rests when it is up to date: searches read what came meanwhile from the log.
const REST: Duration = Duration::from_secs(2);
/// How long it rests between two transactions, so that whoever asks comes in between.
const BREATH: Duration = Duration::from_millis(5);
/// After how many rests it tries again what failed.
const RESTS_AFTER_FAILURE: u32 = 30;
/// Records of one transaction, during whose end nobody can ask.
const PORTION: u64 = 10_000;
/// How much room it leaves on the log's file system, bytes: the log needs it more.
const ROOM_LEFT_BYTES: u64 = 256 * 1024 * 1024;
/// It is built anew once more records than this are in it that the log does not have any more, and more than it has.
const GONE_MAX: u64 = 100_000;
/// What it is called where faults are said.
const PART: &str = "index";

/// Keeps the index.
#[derive(Debug)]
pub struct Keeper {
    log: PathBuf,
    file: PathBuf,
    watched: Arc<Watched>,
    /// Whether searches may ask it.
    is_usable: AtomicBool,
    /// Whether it is to be begun anew.
    is_to_be_anew: AtomicBool,
}

/// What one round of keeping came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// There is more to take in.
    More,
    /// It is up to date.
    Done,
    /// It failed, and that is said.
    Failed,
}

impl Keeper {
    /// One for the log in `log`, beside which the index is kept; what is wrong with it is said to `watched`. Searches read through until
    /// [`Keeper::keep`] has looked at it.
    #[must_use]
    pub fn new(log: &Path, watched: Arc<Watched>) -> Self {
        Self {
            log: log.to_owned(),
            file: log.join(INDEX_NAME),
            watched,
            is_usable: AtomicBool::new(false),
            is_to_be_anew: AtomicBool::new(false),
        }
    }

    /// Keeps it up to date with the durable records, whose number is `records`, on a thread of its own, until nobody counts them any more.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn keep(self: &Arc<Self>, records: watch::Receiver<u64>) -> std::io::Result<()> {
        let keeper = Arc::clone(self);
        std::thread::Builder::new()
            .name("log-index".to_owned())
            .spawn(move || keeper.run(records))
            .map(drop)
    }

    fn run(&self, mut records: watch::Receiver<u64>) {
        // Of this thread alone; where it is refused the index is built as fast as it is.
        let _ = rustix::process::setpriority_process(None, NICE);
        let mut index = None;
        let (mut round, mut rests) = (Round::More, 0);
        loop {
            let Ok(has_grown) = records.has_changed() else {
                return;
            };
            let is_due = match round {
                Round::More => true,
                Round::Done => has_grown || self.is_to_be_anew.load(Ordering::Relaxed),
                Round::Failed => rests >= RESTS_AFTER_FAILURE,
            };
            if is_due {
                let until = *records.borrow_and_update();
                round = self.round(&mut index, until);
                rests = 0;
            }
            rests += 1;
            std::thread::sleep(if round == Round::More { BREATH } else { REST });
        }
    }

    /// Takes in the next records; says what is wrong where that fails.
    pub(super) fn round(&self, index: &mut Option<Index>, until: u64) -> Round {
        let fault = match self.take_in(index, until) {
            Ok(round) => {
                if round == Round::Done {
                    self.watched.say(PART, None);
                }
                self.is_usable.store(true, Ordering::Relaxed);
                return round;
            }
            // The log's first record is still to come, or its oldest segment has just been removed.
            Err(Fault::Search(SearchError::Missing(_))) => return Round::Done,
            Err(fault) => fault,
        };
        *index = None;
        if let Fault::Search(error) = &fault
            && error.is_of_broken_index()
            && Index::is_ours(&self.file)
        {
            self.begin_anew(error);
            return Round::Done;
        }
        let why = match &fault {
            Fault::Room(free) => format!(
                "the file system has {free} bytes left, less than the {ROOM_LEFT_BYTES} that are the log's"
            ),
            Fault::Search(error) => Causes(error).to_string(),
        };
        self.watched.say(
            PART,
            Some(format!(
                "the index of the audit log is not kept up to date, and searches read the log through where it ends: {why}"
            )),
        );
        Round::Failed
    }

    fn take_in(&self, kept: &mut Option<Index>, until: u64) -> Result<Round, Fault> {
        if until == 0 {
            return Err(SearchError::Missing(self.log.clone()).into());
        }
        if self.is_to_be_anew.swap(false, Ordering::Relaxed) {
            *kept = None;
            self.remove();
        }
        self.check_room()?;
        let index = match kept {
            Some(index) if index.file().exists() => index,
            Some(_) | None => kept.insert(Index::open(&self.log, &self.file)?),
        };
        if is_mostly_gone(index, &self.log)? {
            self.is_to_be_anew.store(true, Ordering::Relaxed);
            return Ok(Round::Done);
        }
        let built = index.take_in(until, PORTION)?;
        if built.last < until && built.added > 0 {
            return Ok(Round::More);
        }
        index.rest()?;
        Ok(Round::Done)
    }

    /// Has the index built anew, and says why.
    fn begin_anew(&self, why: &SearchError) {
        self.is_usable.store(false, Ordering::Relaxed);
        self.is_to_be_anew.store(true, Ordering::Relaxed);
        let why = Causes(why);
        self.watched.say(
            PART,
            Some(format!(
                "the index of the audit log does not fit it or is broken, and is built anew; until then searches read the log through: {why}"
            )),
        );
    }

    /// Removes the index, if it is one. What cannot be removed is opened again, and that fails and is said.
    fn remove(&self) {
        if !Index::is_ours(&self.file) {
            return;
        }
        let _ = std::fs::remove_file(&self.file);
        // Of a transaction that was under way: it is none of the next index's.
        let mut journal = self.file.clone().into_os_string();
        journal.push("-journal");
        let _ = std::fs::remove_file(journal);
    }

    /// The log needs what room there is.
    fn check_room(&self) -> Result<(), Fault> {
        let stat = rustix::fs::statvfs(&self.log)
            .map_err(|error| io_error("look at", &self.log)(error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free < ROOM_LEFT_BYTES {
            return Err(Fault::Room(free));
        }
        Ok(())
    }

    /// Up to which record searches are answered by it; 0 where it cannot be asked.
    #[must_use]
    pub fn covers(&self) -> u64 {
        let covered = self.ask(Index::covered).flatten();
        covered.map_or(0, |covered| covered.seq)
    }

    /// Asks the index; `None` where it cannot be asked now, so that the log is to be read through.
    pub(super) fn ask<T>(&self, ask: impl FnOnce(&Index) -> Result<T, SearchError>) -> Option<T> {
        if !self.is_usable.load(Ordering::Relaxed) {
            return None;
        }
        let asked = Index::open_to_ask(&self.log, &self.file).and_then(|index| ask(&index));
        asked
            .inspect_err(|error| {
                tracing::warn!(error = %Causes(error), "the index of the audit log cannot be asked: the log is read through");
                if error.is_of_broken_index() || matches!(error, SearchError::Stale { .. }) {
                    self.begin_anew(error);
                }
            })
            .ok()
    }
}

/// Whether most of what is in the index is of records that the log has not any more.
fn is_mostly_gone(index: &Index, log: &Path) -> Result<bool, SearchError> {
    let Some(oldest) = index.oldest()? else {
        return Ok(false);
    };
    let segments = numbered(log).map_err(io_error("list", log))?;
    let Some(first) = segments.first() else {
        return Ok(false);
    };
    let first = first.first().map_err(io_error("read", &first.path))?;
    let Some(first) = first.map(|first| first.seq) else {
        return Ok(false);
    };
    let gone = first.saturating_sub(oldest);
    let kept = index.last()?.saturating_sub(first);
    Ok(gone > GONE_MAX && gone > kept)
}

/// Why the index is not kept.
#[derive(Debug)]
enum Fault {
    /// So few bytes are left.
    Room(u64),
    Search(SearchError),
}

impl From<SearchError> for Fault {
    fn from(error: SearchError) -> Self {
        Self::Search(error)
    }
}
