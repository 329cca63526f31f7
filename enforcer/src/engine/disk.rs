//! The thread that waits for the log's disk, so that its owner need not: a disk that does not answer must keep nobody from taking away what was
//! allowed. It writes what it is given, one batch at a time, and decides nothing.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::time::Now;
use enforcer_proto::wire::LogView;

use crate::audit::{AuditError, Log, Sealed};

/// What is to be done with the log.
#[derive(Debug)]
pub(super) enum Work {
    /// These become its next records.
    Write(Sealed),
    /// What a failed write has left behind its end is cut off.
    CutBack,
}

impl Work {
    fn on(self, log: &mut Log) -> Result<(), AuditError> {
        match self {
            Self::Write(sealed) => log.write(sealed),
            Self::CutBack => log.cut_back(),
        }
    }
}

/// The log, and what has come of working on it.
pub(super) type Written = (Log, Result<(), AuditError>);

/// The way to it. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Disk {
    work: Sender<(Log, Work)>,
    done: Receiver<Written>,
}

/// How waiting went.
#[derive(Debug)]
pub(super) enum Wait {
    /// It is done.
    Done(Box<Written>),
    /// Not yet.
    Longer,
    /// The thread has ended, and the log with it.
    Lost,
}

impl Disk {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn start() -> io::Result<Self> {
        let (work, given) = channel::<(Log, Work)>();
        let (tell, done) = channel();
        let write = move || {
            for (mut log, work) in given {
                let done = work.on(&mut log);
                if tell.send((log, done)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(write)?;
        Ok(Self { work, done })
    }

    /// Begins to work. The log comes back with [`Self::wait`]; where it does not, the thread has ended.
    pub(super) fn begin(&self, log: Log, work: Work) {
        // That the thread has ended is seen where it is waited for.
        let _ = self.work.send((log, work));
    }

    /// Waits for what was begun, for so long at most.
    pub(super) fn wait(&self, most: Duration) -> Wait {
        match self.done.recv_timeout(most) {
            Ok(written) => Wait::Done(Box::new(written)),
            Err(RecvTimeoutError::Timeout) => Wait::Longer,
            Err(RecvTimeoutError::Disconnected) => Wait::Lost,
        }
    }
}

/// The log, which is away while its disk is waited for.
#[derive(Debug)]
pub(super) struct Recorder {
    log: Option<Log>,
    disk: Disk,
    /// What it was like when it was last here.
    room: LogView,
    is_dirty: bool,
    /// Since when it has been away, boot clock.
    since_boot_ns: Option<u64>,
}

impl Recorder {
    pub(super) fn new(log: Log, disk: Disk) -> Self {
        Self {
            room: log.room(),
            is_dirty: log.is_dirty(),
            log: Some(log),
            disk,
            since_boot_ns: None,
        }
    }

    /// The log, where it is here.
    pub(super) const fn here(&self) -> Option<&Log> {
        self.log.as_ref()
    }

    /// The same, for what waits for its disk by itself.
    pub(super) const fn here_mut(&mut self) -> Option<&mut Log> {
        self.log.as_mut()
    }

    /// How long it is, and how much room it has left; while it is away, as it was before.
    pub(super) fn room(&self) -> LogView {
        self.log
            .as_ref()
            .map_or_else(|| self.room.clone(), Log::room)
    }

    /// Whether what was refused may still be in its file; while it is away, as it was before.
    pub(super) fn is_dirty(&self) -> bool {
        self.log.as_ref().map_or(self.is_dirty, Log::is_dirty)
    }

    /// For how long its disk has been waited for.
    pub(super) fn waits(&self, now: Now) -> Option<Duration> {
        let since = self.since_boot_ns?;
        Some(Duration::from_nanos(now.boot_ns.saturating_sub(since)))
    }

    /// Begins to record these. They are on record once [`Self::wait`] says so.
    ///
    /// # Errors
    /// When it cannot be begun: a record is too long, or the log is not here.
    pub(super) fn begin(&mut self, now: Now, events: &[(Now, Event)]) -> Result<(), AuditError> {
        let log = self.log.as_ref().ok_or(AuditError::Lost)?;
        let sealed = log.seal(events)?;
        self.hand_over(now, Work::Write(sealed));
        Ok(())
    }

    /// Begins to cut off what a failed write has left; gives whether there is any. It is cut off once [`Self::wait`] says so.
    pub(super) fn begin_cut_back(&mut self, now: Now) -> bool {
        let is_dirty = self.log.as_ref().is_some_and(Log::is_dirty);
        if is_dirty {
            self.hand_over(now, Work::CutBack);
        }
        is_dirty
    }

    fn hand_over(&mut self, now: Now, work: Work) {
        if let Some(log) = self.log.take() {
            self.room = log.room();
            self.is_dirty = log.is_dirty();
            self.since_boot_ns = Some(now.boot_ns);
            self.disk.begin(log, work);
        }
    }

    /// What has come of it, once that is known.
    pub(super) fn wait(&mut self, most: Duration) -> Option<Result<(), AuditError>> {
        let (log, written) = match self.disk.wait(most) {
            Wait::Longer => return None,
            Wait::Done(written) => {
                let (log, written) = *written;
                (Some(log), written)
            }
            Wait::Lost => (None, Err(AuditError::Lost)),
        };
        (self.log, self.since_boot_ns) = (log, None);
        Some(written)
    }
}
