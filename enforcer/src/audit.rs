//! The log on disk: append, make durable, read back. What a record is and how the chain holds is `enforcer_proto::audit`.
//!
//! Segments `log-000001.jsonl`, `log-000002.jsonl`, … in one folder, each up to [`SEGMENT_BYTES`]. A batch is durable when
//! [`Log::append`] returns: written, then `fdatasync`. A crash may leave half a line at the very end; that is cut off at the next start,
//! kept beside the log, and said in a record. Anything else that is wrong stops the daemon: a log that does not verify is not continued.

mod read;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use enforcer_proto::audit::{Broken, Chain, Record, TooLong};
use enforcer_proto::event::Event;
use enforcer_proto::time::Now;
use enforcer_proto::wire::LogView;

pub use read::{Lines, Place, ReadError, segments, verify};

/// A segment that has reached this size is followed by a new one, bytes.
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
    file: File,
    /// Held while this log is open: nobody else writes it meanwhile.
    _lock: File,
    /// Bytes of the current segment that are whole records. What lies behind them is cut off before the next append.
    good_bytes: u64,
    is_dirty: bool,
    /// Bytes of the segments before it.
    earlier_bytes: u64,
    chain: Chain,
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
        make_dir(dir)?;
        let lock = lock(dir)?;
        let mut chain = Chain::default();
        let mut last_boot_id = None;
        let found = segments(dir).map_err(io_error("list", dir))?;
        let (mut torn_bytes, mut earlier_bytes) = (0, 0);
        for (at, path) in found.iter().enumerate() {
            let is_last = at + 1 == found.len();
            let mut lines = Lines::open(path).map_err(io_error("read", path))?;
            while let Some(line) = lines.next_line().map_err(io_error("read", path))? {
                let record = chain.follow(line).map_err(|broken| AuditError::Broken {
                    dir: dir.to_owned(),
                    broken,
                })?;
                each(&record);
                last_boot_id = Some(record.boot_id);
            }
            if !is_last {
                earlier_bytes += lines.whole_bytes();
            }
            if lines.torn_bytes() > 0 {
                if !is_last {
                    let broken = Broken {
                        seq: chain.count() + 1,
                        why: "it is torn, and not at the end of the log".to_owned(),
                    };
                    return Err(AuditError::Broken {
                        dir: dir.to_owned(),
                        broken,
                    });
                }
                torn_bytes = lines.torn_bytes();
                set_aside(path, lines.whole_bytes(), chain.count() + 1)?;
            }
        }
        let segment = u32::try_from(found.len()).unwrap_or(u32::MAX).max(1);
        let (file, good_bytes) = open_segment(dir, segment)?;
        let log = Self {
            dir: dir.to_owned(),
            boot_id: boot_id.to_owned(),
            segment,
            file,
            _lock: lock,
            good_bytes,
            is_dirty: false,
            earlier_bytes,
            chain,
        };
        Ok(Opened {
            log,
            torn_bytes,
            last_boot_id,
        })
    }

    /// How many records are durable.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.chain.count()
    }

    /// How long the log is, and how much room its file system has left.
    #[must_use]
    pub fn room(&self) -> LogView {
        let free_bytes = rustix::fs::fstatvfs(&self.file)
            .map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize))
            .ok();
        LogView {
            records: self.count(),
            bytes: self.earlier_bytes + self.good_bytes,
            free_bytes,
        }
    }

    /// Appends `events` as one batch and makes them durable. All or nothing: after an error none of them is in the log.
    ///
    /// An event whose record would be too long is a fault of that one: another that says so is recorded in its place. An admission has no
    /// such stand-in, since it allows something.
    ///
    /// # Errors
    /// [`AuditError`]; the chain has not moved then.
    pub fn append<'a>(
        &mut self,
        events: impl IntoIterator<Item = &'a (Now, Event)>,
    ) -> Result<(), AuditError> {
        let mut chain = self.chain.clone();
        let mut bytes = Vec::new();
        for (now, event) in events {
            let line = match chain.seal(*now, &self.boot_id, event) {
                Err(TooLong(bytes)) if !matches!(event, Event::QueryAdmitted { .. }) => {
                    chain.seal(*now, &self.boot_id, &event.stand_in(bytes))
                }
                sealed => sealed,
            }?;
            bytes.extend_from_slice(line.as_bytes());
            bytes.push(b'\n');
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.roll_if_full()?;
        self.write_durably(&bytes)?;
        self.chain = chain;
        Ok(())
    }

    fn write_durably(&mut self, bytes: &[u8]) -> Result<(), AuditError> {
        let path = segment_path(&self.dir, self.segment);
        if self.is_dirty {
            self.file
                .set_len(self.good_bytes)
                .map_err(io_error("cut back", &path))?;
        }
        // From here until the sync, what is on disk behind `good_bytes` is unknown.
        self.is_dirty = true;
        self.file
            .seek(io::SeekFrom::Start(self.good_bytes))
            .map_err(io_error("append to", &path))?;
        self.file
            .write_all(bytes)
            .map_err(io_error("append to", &path))?;
        self.file
            .sync_data()
            .map_err(io_error("make durable", &path))?;
        self.is_dirty = false;
        self.good_bytes += bytes.len() as u64;
        Ok(())
    }

    fn roll_if_full(&mut self) -> Result<(), AuditError> {
        if self.good_bytes < SEGMENT_BYTES || self.is_dirty {
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

fn segment_path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("log-{number:06}.jsonl"))
}

fn open_segment(dir: &Path, number: u32) -> Result<(File, u64), AuditError> {
    let path = segment_path(dir, number);
    let file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io_error("open", &path))?;
    let bytes = file.metadata().map_err(io_error("open", &path))?.len();
    // The name of a new segment must survive a crash as well as its bytes.
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io_error("make durable", dir))?;
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
