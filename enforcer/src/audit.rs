//! The log on disk: append, make durable, read back. What a record is and how the chain holds is `enforcer_proto::audit`.
//!
//! Segments `log-000001.jsonl`, `log-000002.jsonl`, … in one folder, each up to [`SEGMENT_BYTES`] unless told otherwise. A batch is durable
//! when [`Log::append`] returns: written, then `fdatasync`. A crash may leave half a line at the very end; that is cut off at the next start,
//! kept beside the log, and said in a record. Anything else that is wrong stops the daemon: a log that does not verify is not continued.
//!
//! Old segments go as the operator's retention says ([`retention`]); a start reads what follows the newest snapshot ([`rebuild`]); what the log
//! was is signed now and then ([`publish`]), and anybody can check all of it ([`verify()`]).

pub mod publish;
mod read;
pub mod rebuild;
pub mod retention;
mod scan;
mod segment;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod verify;
mod watched;
pub mod witness;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use enforcer_proto::audit::{Broken, Chain, Hash, Record, TooLong};
use enforcer_proto::event::Event;
use enforcer_proto::time::Now;
use enforcer_proto::wire::LogView;

pub use read::{Lines, Place, ReadError, Spot};
use scan::{LineAt, Scanned, scan};
pub use segment::{Segment, numbered, segments};
pub use verify::verify;
pub use watched::Watched;

/// A segment that has reached this size is followed by a new one, unless the configuration says otherwise, bytes.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The log cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The log does not verify.
    #[error(
        "the log in {dir} does not verify: {broken}. Keep it as evidence: move the folder away, then start anew"
    )]
    Broken {
        /// The log's folder.
        dir: PathBuf,
        /// Where it breaks.
        broken: Broken,
    },
    /// Somebody else writes it.
    #[error("another enforcer writes the log in {dir}: stop it first, or name another `state_dir`")]
    Taken {
        /// The log's folder.
        dir: PathBuf,
    },
    /// A record is too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The thread that writes it has ended.
    #[error("the thread that writes the log has ended: restart the daemon")]
    Lost,
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AuditError {
    let path = path.to_owned();
    move |source| AuditError::Io {
        action,
        path,
        source,
    }
}

/// The log, open for appending. There is one, and the engine owns it.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    boot_id: String,
    segment: u32,
    segment_bytes: u64,
    file: File,
    /// Held while this log is open: nobody else writes it meanwhile.
    _lock: File,
    /// Bytes of the current segment that are whole records. What lies behind them is cut off where an append fails, and before the next one.
    good_bytes: u64,
    /// There may be something behind them, which the next start would take for records.
    is_dirty: bool,
    /// Bytes of the segments before it.
    earlier_bytes: u64,
    chain: Chain,
    /// The oldest record that is there.
    first_seq: u64,
    /// Where the last record's line begins.
    last_line: Option<LineAt>,
}

/// Records as they are to be written behind the log's end.
#[derive(Debug)]
pub struct Sealed {
    bytes: Vec<u8>,
    /// As it is behind them.
    chain: Chain,
    /// Where the last of them begins.
    last_begins: u64,
}

/// The end of the log, as it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// How many records there are: the number of the last.
    pub records: u64,
    /// Its hash.
    pub head: Hash,
}

/// What opening the log found.
#[derive(Debug)]
pub struct Opened {
    /// The log, ready to append.
    pub log: Log,
    /// Bytes of a torn last line that were set aside.
    pub torn_bytes: u64,
    /// The boot id of the last record, if there is one.
    pub last_boot_id: Option<String>,
}

impl Log {
    /// Opens the log in `dir` (made 0700 when absent), checks the whole chain and hands every record to `each`.
    ///
    /// # Errors
    /// [`AuditError`]: unreadable, unwritable, or a chain that does not verify.
    pub fn open(
        dir: &Path,
        boot_id: &str,
        mut each: impl FnMut(&Record),
    ) -> Result<Opened, AuditError> {
        let lock = take(dir)?;
        let scanned = scan(dir, None, &mut each)?;
        Self::continued(dir, boot_id, lock, scanned)
    }

    /// Goes on behind what was read. From here on files are changed: what is torn is set aside, and what was to be removed goes.
    fn continued(
        dir: &Path,
        boot_id: &str,
        lock: File,
        scanned: Scanned,
    ) -> Result<Opened, AuditError> {
        let torn_bytes = match &scanned.torn {
            Some(torn) => {
                set_aside(&torn.path, torn.whole_bytes, scanned.chain.count() + 1)?;
                torn.bytes
            }
            None => 0,
        };
        let (file, good_bytes) = open_segment(dir, scanned.segment)?;
        let mut log = Self {
            dir: dir.to_owned(),
            boot_id: boot_id.to_owned(),
            segment: scanned.segment,
            segment_bytes: SEGMENT_BYTES,
            file,
            _lock: lock,
            good_bytes,
            is_dirty: false,
            earlier_bytes: scanned.earlier_bytes,
            chain: scanned.chain,
            first_seq: scanned.first_seq,
            last_line: scanned.last_line,
        };
        if let Some(removed) = scanned.removed {
            log.remove_up_to(removed.last_seq)?;
        }
        Ok(Opened {
            log,
            torn_bytes,
            last_boot_id: scanned.last_boot_id,
        })
    }

    /// Begins a new segment at this size from now on.
    pub const fn set_segment_bytes(&mut self, bytes: u64) {
        self.segment_bytes = bytes;
    }

    /// How many records are durable.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.chain.count()
    }

    /// Where the log ends.
    #[must_use]
    pub const fn end(&self) -> End {
        End {
            records: self.chain.count(),
            head: self.chain.head(),
        }
    }

    /// The number of the segment that is written.
    #[must_use]
    pub const fn segment(&self) -> u32 {
        self.segment
    }

    /// How long the log is, and how much room its file system has left.
    #[must_use]
    pub fn room(&self) -> LogView {
        let free_bytes = rustix::fs::fstatvfs(&self.file)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .ok();
        LogView {
            records: self.count(),
            first_record: self.first_seq,
            bytes: self.earlier_bytes + self.good_bytes,
            free_bytes,
            checkpoint: None,
        }
    }

    /// Appends `events` as one batch and makes them durable. All or nothing: after an error none of them is in the log, but where
    /// [`Self::is_dirty`] says that they could not be cut off again.
    ///
    /// # Errors
    /// As for [`Self::seal`] and [`Self::write`].
    pub fn append<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a (Now, Event)>,
    ) -> Result<(), AuditError> {
        let sealed = self.seal(events)?;
        self.write(sealed)
    }

    /// Makes `events` the records that come next. Nothing is written, and the chain has not moved.
    ///
    /// An event whose record would be too long is a fault of that one: another that says so is recorded in its place. An admission has no
    /// such stand-in, since it allows something.
    ///
    /// # Errors
    /// [`AuditError::TooLong`].
    pub fn seal<'a>(
        &self,
        events: impl IntoIterator<Item = &'a (Now, Event)>,
    ) -> Result<Sealed, AuditError> {
        let mut chain = self.chain.clone();
        let mut bytes = Vec::new();
        let mut last_begins = 0;
        for (now, event) in events {
            let line = match chain.seal(*now, &self.boot_id, event) {
                Err(TooLong(bytes)) if !matches!(event, Event::QueryAdmitted { .. }) => {
                    chain.seal(*now, &self.boot_id, &event.stand_in(bytes))
                }
                sealed => sealed,
            }?;
            last_begins = bytes.len() as u64;
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        Ok(Sealed {
            bytes,
            chain,
            last_begins,
        })
    }

    /// Makes records durable that were sealed for this end of the log. All or nothing, as for [`Self::append`].
    ///
    /// # Errors
    /// [`AuditError`]; the chain has not moved then.
    pub fn write(&mut self, sealed: Sealed) -> Result<(), AuditError> {
        let Sealed {
            bytes,
            chain,
            last_begins,
        } = sealed;
        if bytes.is_empty() {
            return Ok(());
        }
        self.roll_if_full()?;
        let begins = self.good_bytes;
        self.write_durably(&bytes)?;
        self.chain = chain;
        self.last_line = Some(LineAt {
            segment: self.segment,
            offset: begins + last_begins,
        });
        Ok(())
    }

    /// Whether what was refused may still be in the file, behind the log's end: a start would take it for records.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// Cuts off what a failed append has left behind the log's end, durably. Nothing to do where there is none.
    ///
    /// # Errors
    /// When it cannot be cut off, or that cannot be made durable: it is still to be done then.
    pub fn cut_back(&mut self) -> Result<(), AuditError> {
        if !self.is_dirty {
            return Ok(());
        }
        self.cut()?;
        self.file
            .sync_data()
            .map_err(io_error("make the end durable of", &self.path()))?;
        self.is_dirty = false;
        Ok(())
    }

    fn cut(&self) -> Result<(), AuditError> {
        self.file
            .set_len(self.good_bytes)
            .map_err(io_error("cut back", &self.path()))
    }

    fn path(&self) -> PathBuf {
        Segment::of(&self.dir, self.segment).path
    }

    fn write_durably(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        if self.is_dirty {
            // A shorter batch would leave whole lines of the last behind its end.
            self.cut()?;
        }
        // From here until the sync, what is on disk behind `good_bytes` is unknown.
        self.is_dirty = true;
        if let Err(error) = self.write_behind(bytes) {
            // At once: whoever kills the daemon now, the next start must not find what is refused. Where it fails it stays to be done.
            let _ = self.cut_back();
            return Err(error);
        }
        self.is_dirty = false;
        self.good_bytes += bytes.len() as u64;
        Ok(())
    }

    fn write_behind(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        let path = self.path();
        self.file
            .seek(io::SeekFrom::Start(self.good_bytes))
            .map_err(io_error("append to", &path))?;
        self.file
            .write_all(bytes)
            .map_err(io_error("append to", &path))?;
        self.file
            .sync_data()
            .map_err(io_error("make durable", &path))
    }

    fn roll_if_full(&mut self) -> Result<(), AuditError> {
        if self.good_bytes < self.segment_bytes || self.is_dirty {
            return Ok(());
        }
        let (file, good_bytes) = open_segment(&self.dir, self.segment + 1)?;
        self.segment += 1;
        self.earlier_bytes += self.good_bytes;
        self.file = file;
        self.good_bytes = good_bytes;
        Ok(())
    }
}

/// Makes the names in a folder survive a crash.
fn sync_dir(dir: &Path) -> Result<(), AuditError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("make durable", dir))
}

/// The folder, and the right to write in it alone.
fn take(dir: &Path) -> Result<File, AuditError> {
    make_dir(dir)?;
    lock(dir)
}

fn make_dir(dir: &Path) -> Result<(), AuditError> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("make the folder", dir))
}

/// Keeps a second writer out: two would each go on from their own end, and the chain would be broken for good.
fn lock(dir: &Path) -> Result<File, AuditError> {
    let folder = File::open(dir).map_err(io_error("open", dir))?;
    match folder.try_lock() {
        Ok(()) => Ok(folder),
        Err(TryLockError::WouldBlock) => Err(AuditError::Taken {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(io_error("lock", dir)(source)),
    }
}

fn open_segment(dir: &Path, number: u32) -> Result<(File, u64), AuditError> {
    let path = Segment::of(dir, number).path;
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    let bytes = file.metadata().map_err(io_error("open", &path))?.len();
    // The name of a new segment must survive a crash as well as its bytes. Where that fails it is not begun: it would stand there empty.
    if let Err(error) = sync_dir(dir) {
        if is_new {
            let _ = std::fs::remove_file(&path);
        }
        return Err(error);
    }
    Ok((file, bytes))
}

/// Moves the torn end of a segment into a file of its own.
fn set_aside(path: &Path, whole_bytes: u64, seq: u64) -> Result<(), AuditError> {
    let aside = path.with_file_name(format!("torn-before-{seq}"));
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    let torn = usize::try_from(whole_bytes)
        .ok()
        .and_then(|whole| bytes.get(whole..))
        .unwrap_or_default();
    std::fs::write(&aside, torn).map_err(io_error("write", &aside))?;
    let file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(io_error("repair", path))?;
    file.set_len(whole_bytes)
        .and_then(|()| file.sync_all())
        .map_err(io_error("repair", path))
}
