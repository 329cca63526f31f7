//! A hook's queue: bounded, in order, each notice tried a bounded number of times within a bounded time. What is given up is counted, told
//! with the next notice that arrives, and handed out for the log. Pure: time and chance are arguments.

use std::collections::VecDeque;

use super::{Notice, NoticeKind};
use crate::time::{NS_PER_S, Now, Ttl};

/// The most notices that wait for one hook; past it the oldest is given up.
pub const WAITING_MAX: usize = 256;
/// The most often one notice is tried.
pub const ATTEMPTS_MAX: u32 = 12;
/// How long after the first failure a notice is tried again, nanoseconds; doubled with each further one.
pub const BACKOFF_FIRST_NS: u64 = NS_PER_S;
/// The longest time between two attempts, nanoseconds.
pub const BACKOFF_MAX_NS: u64 = 60 * NS_PER_S;
/// How often at most it is put on record that notices of a hook were given up, nanoseconds.
pub const RECORD_INTERVAL_NS: u64 = 60 * NS_PER_S;

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Try this one, and say what came of it.
    Send(Box<Notice>),
    /// Ask again at this time, boot clock.
    At(u64),
    /// Nothing waits.
    Idle,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It arrived.
    Delivered,
    /// It may arrive later.
    Failed(String),
    /// It never will.
    Rejected(String),
}

/// Notices that were given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenUp {
    /// How many.
    pub count: u64,
    /// Why the last of them was.
    pub why: String,
}

/// What one hook has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Notices that arrived.
    pub delivered: u64,
    /// Those that were given up.
    pub given_up: u64,
    /// Those that wait.
    pub waiting: u64,
    /// Why the last attempt failed; absent when it did not.
    pub trouble: Option<String>,
}

#[derive(Debug)]
struct Waiting {
    notice: Notice,
    /// The last record that was read when it was made.
    read: u64,
    since_boot_ns: u64,
    attempts: u32,
    /// It is a summary, and tells of so many.
    tells: Option<u64>,
}

/// The queue of one hook.
#[derive(Debug)]
pub struct Queue {
    host: String,
    retry_for: Ttl,
    waiting: VecDeque<Waiting>,
    /// The one that is being tried.
    current: Option<Waiting>,
    retry_boot_ns: u64,
    /// The last record that was read for this hook.
    read: u64,
    /// Those given up that the receiver has not been told of.
    untold: u64,
    /// Whether telling it of them failed since anything arrived last.
    is_telling_vain: bool,
    unrecorded: Option<GivenUp>,
    recorded_boot_ns: Option<u64>,
    counts: Counts,
}

impl Queue {
    /// An empty one, for a hook that has been told of everything up to the record `read`.
    #[must_use]
    pub const fn new(host: String, retry_for: Ttl, read: u64) -> Self {
        Self {
            host,
            retry_for,
            waiting: VecDeque::new(),
            current: None,
            retry_boot_ns: 0,
            read,
            untold: 0,
            is_telling_vain: false,
            unrecorded: None,
            recorded_boot_ns: None,
            counts: Counts {
                delivered: 0,
                given_up: 0,
                waiting: 0,
                trouble: None,
            },
        }
    }

    /// The record up to which the hook's notices have been made.
    #[must_use]
    pub const fn read(&self) -> u64 {
        self.read
    }

    /// All notices up to the record `seq` have been made.
    pub fn has_read(&mut self, seq: u64) {
        self.read = self.read.max(seq);
    }

    /// The record up to which every notice has arrived or was given up: where a restart goes on.
    #[must_use]
    pub fn settled(&self) -> u64 {
        let real = self
            .current
            .iter()
            .filter(|current| current.tells.is_none());
        let oldest = real.chain(self.waiting.front()).map(|waiting| waiting.read);
        oldest
            .min()
            .map_or(self.read, |read| read.saturating_sub(1))
    }

    /// One more notice, made when the record `read` was read.
    pub fn push(&mut self, now: Now, notice: Notice, read: u64) {
        if self.waiting.len() >= WAITING_MAX && self.waiting.pop_front().is_some() {
            self.give_up(1, &format!("more than {WAITING_MAX} notices waited"));
        }
        self.has_read(read);
        self.waiting.push_back(Waiting {
            notice,
            read,
            since_boot_ns: now.boot_ns,
            attempts: 0,
            tells: None,
        });
    }

    /// Notices that cannot be made any more, of records that are gone or cannot be read.
    pub fn pass_over(&mut self, count: u64, why: &str) {
        self.give_up(count, why);
    }

    /// What to do at `now`.
    pub fn next(&mut self, now: Now) -> Next {
        if now.boot_ns < self.retry_boot_ns && self.current.is_some() {
            return Next::At(self.retry_boot_ns);
        }
        if self.current.is_none() {
            self.current = self.summary(now).or_else(|| self.first_young(now));
        }
        self.current.as_ref().map_or(Next::Idle, |current| {
            Next::Send(Box::new(current.notice.clone()))
        })
    }

    /// What came of the notice that [`Queue::next`] gave. `jitter` is any number: chance, so that hosts do not retry all at once.
    pub fn settle(&mut self, now: Now, attempt: Attempt, jitter: u16) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        let (why, is_final) = match attempt {
            Attempt::Delivered => {
                self.counts.trouble = None;
                self.is_telling_vain = false;
                match current.tells {
                    Some(count) => self.untold = self.untold.saturating_sub(count),
                    None => self.counts.delivered += 1,
                }
                return;
            }
            Attempt::Failed(why) => (why, false),
            Attempt::Rejected(why) => (why, true),
        };
        current.attempts += 1;
        let is_old = self.is_old(now, &current);
        self.counts.trouble = Some(why.clone());
        if !is_final && !is_old && current.attempts < ATTEMPTS_MAX {
            self.retry_boot_ns = now
                .boot_ns
                .saturating_add(backoff_ns(current.attempts, jitter));
            self.current = Some(current);
        } else if current.tells.is_some() {
            self.is_telling_vain = true;
        } else {
            self.give_up(
                1,
                &format!("tried {} times, at last: {why}", current.attempts),
            );
        }
    }

    /// What was given up and is not on record yet; now and then, so that a receiver that is gone does not fill the log.
    pub fn to_record(&mut self, now: Now) -> Option<GivenUp> {
        let is_soon = self
            .recorded_boot_ns
            .is_some_and(|at| now.boot_ns.saturating_sub(at) < RECORD_INTERVAL_NS);
        if is_soon || self.unrecorded.is_none() {
            return None;
        }
        self.recorded_boot_ns = Some(now.boot_ns);
        self.unrecorded.take()
    }

    /// The same, when there will be no later.
    pub const fn to_record_last(&mut self) -> Option<GivenUp> {
        self.unrecorded.take()
    }

    /// What has been done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let current = self
            .current
            .iter()
            .filter(|current| current.tells.is_none());
        Counts {
            waiting: (self.waiting.len() + current.count()) as u64,
            ..self.counts.clone()
        }
    }

    fn is_old(&self, now: Now, waiting: &Waiting) -> bool {
        now.boot_ns.saturating_sub(waiting.since_boot_ns) >= self.retry_for.ns()
    }

    fn give_up(&mut self, count: u64, why: &str) {
        self.untold = self.untold.saturating_add(count);
        self.counts.given_up = self.counts.given_up.saturating_add(count);
        let before = self
            .unrecorded
            .as_ref()
            .map_or(0, |given_up| given_up.count);
        self.unrecorded = Some(GivenUp {
            count: before.saturating_add(count),
            why: why.to_owned(),
        });
    }

    fn first_young(&mut self, now: Now) -> Option<Waiting> {
        while let Some(first) = self.waiting.pop_front() {
            if !self.is_old(now, &first) {
                return Some(first);
            }
            let seconds = self.retry_for.seconds();
            self.give_up(
                1,
                &format!("it waited longer than {seconds} s for those before it"),
            );
        }
        None
    }

    fn summary(&self, now: Now) -> Option<Waiting> {
        if self.untold == 0 || self.is_telling_vain {
            return None;
        }
        let count = self.untold;
        let summary = format!(
            "{count} notices before this one were given up; the log has all that they told of"
        );
        let notice = Notice {
            count: Some(count),
            ..Notice::new(
                &self.host,
                self.read,
                now.unix_ns,
                NoticeKind::Lost,
                &summary,
            )
        };
        Some(Waiting {
            notice,
            read: self.read,
            since_boot_ns: now.boot_ns,
            attempts: 0,
            tells: Some(count),
        })
    }
}

/// How long after so many failed attempts the next one comes: between half of the doubled time and all of it.
fn backoff_ns(attempts: u32, jitter: u16) -> u64 {
    let doubled = BACKOFF_FIRST_NS.saturating_mul(1 << attempts.saturating_sub(1).min(32));
    let most = doubled.min(BACKOFF_MAX_NS);
    let half = most / 2;
    half + half / u64::from(u16::MAX) * u64::from(jitter)
}
