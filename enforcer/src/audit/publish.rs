//! Signs what the log is, at an interval, when a segment is full and at the end, and hands it on: into a file, and to witnesses. It runs beside
//! the engine and is asked nothing: whatever fails here is said in `status`, and nothing waits for it.

use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::checkpoint::{Checkpoint, CheckpointError, Keyholder, Verifier, notes};
use enforcer_proto::wire::CheckpointView;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::witness::{self, Witness};
use super::{End, Watched};
use crate::causes::Causes;
use crate::clock::Clock;
use crate::keyfile::{self, KeyFileError};
use crate::random;

/// The file of checkpoints is followed by a new one at this size, bytes; of the full ones the last is kept.
pub const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How long witnesses have for the last checkpoint when the daemon stops.
const LAST_DELIVERY: Duration = Duration::from_secs(3);

/// The key that signs cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// What is in it.
    #[error(
        "{path} is not the key that signs checkpoints of `{name}`: put the right one back, or move it away and give the new key to whoever verifies (enforcer log key)"
    )]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Whose log it is for.
        name: String,
        /// What is wrong with it.
        #[source]
        source: CheckpointError,
    },
    /// No randomness.
    #[error("a key for checkpoints cannot be made: the system gives no random numbers")]
    Random,
}

/// The key's file in the state folder.
#[must_use]
pub fn key_path(state_dir: &Path) -> PathBuf {
    state_dir.join("checkpoint-key")
}

/// The file of checkpoints in the state folder.
#[must_use]
pub fn notes_path(state_dir: &Path) -> PathBuf {
    state_dir.join("checkpoints.txt")
}

/// Whose log it is, in checkpoints: their origin, and the name of the key.
#[must_use]
pub fn origin(host: &str) -> String {
    format!("enforcer/{host}")
}

/// The key of this host's log; `None` where none was made yet.
///
/// # Errors
/// [`KeyError`]; a key that others can read is refused, never repaired silently.
pub fn read_key(state_dir: &Path, host: &str) -> Result<Option<Keyholder>, KeyError> {
    let path = key_path(state_dir);
    let Some(text) = keyfile::read(&path)? else {
        return Ok(None);
    };
    let name = origin(host);
    let unusable = |source| KeyError::Unusable {
        path: path.clone(),
        name: name.clone(),
        source,
    };
    let key = Keyholder::parse(&text).map_err(unusable)?;
    let found = key.verifier().name().to_owned();
    if found != name {
        return Err(unusable(CheckpointError::Origin {
            found,
            expected: name.clone(),
        }));
    }
    Ok(Some(key))
}

/// The key of this host's log, made (mode 0600) when there is none.
///
/// # Errors
/// [`KeyError`].
pub fn open_key(state_dir: &Path, host: &str) -> Result<Keyholder, KeyError> {
    if let Some(key) = read_key(state_dir, host)? {
        return Ok(key);
    }
    let seed = Zeroizing::new(random::bytes::<32>().map_err(|_| KeyError::Random)?);
    let path = key_path(state_dir);
    let key = Keyholder::from_seed(&origin(host), &seed);
    let key = key.map_err(|source| KeyError::Unusable {
        path: path.clone(),
        name: origin(host),
        source,
    })?;
    keyfile::write(&path, &key.encoded())?;
    Ok(key)
}

/// Signs and hands on.
#[derive(Debug)]
pub struct Publisher {
    /// The key.
    pub key: Keyholder,
    /// The folder of the file.
    pub state_dir: PathBuf,
    /// How often, where the log has grown.
    pub every: Duration,
    /// To whom besides.
    pub witnesses: Vec<Arc<dyn Witness>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where it is said.
    pub watched: Arc<Watched>,
}

impl Publisher {
    /// Goes on until the engine has ended, and then signs once more. `segments` changes when a segment is full.
    pub async fn run(self, ends: watch::Receiver<End>, mut segments: watch::Receiver<u32>) {
        let (news, _) = watch::channel(None::<Arc<str>>);
        let witnesses: Vec<_> = self
            .witnesses
            .iter()
            .map(|witness| {
                let delivery = witness::deliver(
                    Arc::clone(witness),
                    news.subscribe(),
                    Arc::clone(&self.watched),
                );
                tokio::spawn(delivery)
            })
            .collect();
        let mut signed = self.last_signed().await;
        let mut interval = tokio::time::interval(self.every);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let this = Arc::new(self);
        loop {
            let is_over = tokio::select! {
                _ = interval.tick() => false,
                changed = segments.changed() => changed.is_err(),
            };
            let end = *ends.borrow();
            if end.records != signed
                && let Some(note) = sign(&this, end).await
            {
                signed = end.records;
                news.send_replace(Some(note.into()));
            }
            if is_over {
                break;
            }
        }
        drop(news);
        for mut witness in witnesses {
            if tokio::time::timeout(LAST_DELIVERY, &mut witness)
                .await
                .is_err()
            {
                witness.abort();
            }
        }
    }

    /// How many records were signed last, before this start.
    async fn last_signed(&self) -> u64 {
        let (dir, key) = (self.state_dir.clone(), self.key.verifier());
        let read = tokio::task::spawn_blocking(move || {
            let text = read_notes(&notes_path(&dir)).ok()?;
            let all: Vec<&str> = notes(&text).collect();
            let signed = |note: &&str| Some((key.verify(note).ok()?, (*note).to_owned()));
            all.iter().rev().find_map(signed)
        });
        let Some((last, note)) = read.await.ok().flatten() else {
            return 0;
        };
        self.watched.signed(CheckpointView {
            records: last.records,
            unix_ns: last.unix_ns,
            note,
        });
        last.records
    }
}

/// What was signed of a log, as the files beside it say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// The checkpoints, oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// Why the newest of them is not among them, as a sentence.
    pub fault: Option<String>,
}

/// The files of checkpoints in the state folder as they are now, oldest first.
#[derive(Debug)]
pub struct Kept(Vec<(PathBuf, io::Result<String>)>);

impl Kept {
    /// Reads them. They are judged later: that takes up to some seconds, in which more may be signed.
    #[must_use]
    pub fn read(state_dir: &Path) -> Self {
        let newest = notes_path(state_dir);
        let files = [before_path(&newest), newest].map(|path| {
            let text = read_notes(&path);
            (path, text)
        });
        Self(files.into())
    }

    /// What this key has signed, as far as it is in them.
    #[must_use]
    pub fn signed(self, key: &Verifier) -> Signed {
        let mut all = Signed::default();
        for (path, text) in self.0 {
            let at = path.display();
            match text {
                Ok(text) => {
                    for note in notes(&text) {
                        // A crash may have torn one; what follows it was signed of a log that is longer.
                        all.fault = match key.verify(note) {
                            Ok(checkpoint) => {
                                all.checkpoints.push(checkpoint);
                                None
                            }
                            Err(error) => Some(format!(
                                "the newest checkpoint in {at} is none ({error}): what was signed last of the audit log is not known, compare it with what witnesses have (enforcer log verify --checkpoint)"
                            )),
                        };
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    all.fault = Some(format!(
                        "the checkpoints of the audit log in {at} cannot be read, so that it was not compared with them: {error}"
                    ));
                }
            }
        }
        all
    }
}

/// A file of checkpoints, which nobody but root has written: what is not text in it is no note.
fn read_notes(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(FILE_BYTES_MAX * 2).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The file before it, which is full.
fn before_path(path: &Path) -> PathBuf {
    path.with_file_name("checkpoints-before.txt")
}

/// Signs, and appends to the file. Gives the note, also where it could not be written: a witness may still have it.
async fn sign(this: &Arc<Publisher>, end: End) -> Option<String> {
    let publisher = Arc::clone(this);
    let signing = tokio::task::spawn_blocking(move || {
        let unix_ns = publisher.clock.now().unix_ns;
        let note = publisher.key.sign(end.records, end.head, unix_ns);
        let fault = match append(&publisher.state_dir, &note) {
            Ok(()) => {
                let records = end.records;
                publisher.watched.signed(CheckpointView {
                    records,
                    unix_ns,
                    note: note.clone(),
                });
                None
            }
            Err(error) => Some(format!(
                "checkpoints of the audit log cannot be written to {}: {}",
                notes_path(&publisher.state_dir).display(),
                Causes(&error)
            )),
        };
        publisher.watched.say("checkpoints", fault);
        note
    });
    signing.await.ok()
}

fn append(state_dir: &Path, note: &str) -> io::Result<()> {
    let path = notes_path(state_dir);
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(&path)?;
    if file.metadata()?.len() >= FILE_BYTES_MAX {
        std::fs::rename(&path, before_path(&path))?;
        return append(state_dir, note);
    }
    // One write: what a crash tears is at the end, and the next note begins on a line of its own. Half a note would spoil that one as well.
    let whole_bytes = file.metadata()?.len();
    let written = file.write_all(format!("\n{note}").as_bytes());
    written
        .and_then(|()| file.sync_data())
        .inspect_err(|_| drop(file.set_len(whole_bytes)))
}
