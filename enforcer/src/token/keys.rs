//! The keys of this host as an issuer, wherever they are kept: in files (`files.rs`), with the service manager (`handed.rs`) or in an HSM (`hsm.rs`). One signs; while another takes over
//! from it, Google is given both.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::files::{self, FileKeys};
use super::handed::{self, HandedKeys};
use super::hsm::{HsmError, HsmKeys};
use super::issuer::IssuerError;
use super::signer::{PublicKey, Signer};
use super::{ASSERTION_LIFE_MAX, BEYOND_WINDOW};
use crate::config::KeyStore;
use crate::keyfile::KeyFileError;

/// How long Google may take to know of a key that it is given. Its documentation names no bound; five minutes is what others wait.
pub const KNOWN_AFTER: Duration = Duration::from_secs(300);
/// How long what the last key has signed may be on its way: an assertion's life, and as much as clocks and cancelling may take.
pub const LAST_FOR: Duration = ASSERTION_LIFE_MAX.saturating_add(BEYOND_WINDOW);

/// Locked for as long as a step is being taken.
const LOCK: &str = "rotate-key.lock";

/// A step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A key is made that does not sign yet.
    Begin,
    /// It signs from now on.
    Switch,
    /// The one before it is gone.
    End,
}

/// A step, and what is known of whoever takes it.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// Which.
    pub step: Step,
    /// This instant.
    pub now: SystemTime,
    /// It is not waited until it is safe.
    pub is_forced: bool,
    /// The next key, which was given away, is lost: another is made in its stead.
    pub is_lost: bool,
}

/// Takes the key that is given away (PEM).
pub type Give<'a> = &'a mut (dyn FnMut(&str) -> io::Result<()> + Send);

/// Why a step cannot be taken now; the text names the cure.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] IssuerError),
    /// There is no key to take over from.
    #[error(
        "there is no issuer key ({0}): the daemon makes one when it first starts with token.kind = \"federation\""
    )]
    None(String),
    /// A rotation is under way.
    #[error("a rotation has been begun: end it with --switch and --end")]
    Begun,
    /// One was, and its key given away.
    #[error(
        "a next key was made and given away: hand that one over, and say --switch first; or say --again where it is lost, and another is made in its stead"
    )]
    GivenAway,
    /// Another is under way at this moment.
    #[error("another step is being taken at this moment: run it again when that has ended")]
    UnderWay,
    /// Nobody took the key.
    #[error("the new key could not be given away, and is forgotten: nothing has changed")]
    Given(#[source] io::Error),
    /// None is.
    #[error("no next key has been made: begin with `enforcer gcp rotate-key`")]
    NotBegun,
    /// The one before it has not been ended.
    #[error("the last key of the rotation before is still there: end that with --end")]
    NotEnded,
    /// There is nothing to end.
    #[error("there is no last key: nothing is to be ended")]
    NothingToEnd,
    /// It is too soon.
    #[error(
        "it is {0} s too soon: Google may not know the key yet, or what the last one has signed may be on its way. Wait, or say --now if you know better"
    )]
    TooSoon(u64),
}

impl From<KeyFileError> for RotationError {
    fn from(error: KeyFileError) -> Self {
        Self::Key(error.into())
    }
}

impl From<HsmError> for RotationError {
    fn from(error: HsmError) -> Self {
        Self::Key(error.into())
    }
}

/// The keys of one host.
#[derive(Debug)]
pub struct IssuerKeys(Kept);

#[derive(Debug)]
enum Kept {
    Files(Mutex<FileKeys>),
    Handed(Mutex<HandedKeys>),
    Hsm(HsmKeys),
}

impl IssuerKeys {
    /// Opens the keys in this store; what of it is in files is in the state folder `dir`. Makes the one that signs where there is none, but for one that
    /// is handed over.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub async fn open(dir: &Path, store: &KeyStore) -> Result<Self, IssuerError> {
        if !matches!(store, KeyStore::File) {
            warn_of_left(dir);
        }
        Ok(Self(match store {
            KeyStore::File => Kept::Files(Mutex::new(FileKeys::open(dir)?)),
            KeyStore::Credential(name) => Kept::Handed(Mutex::new(HandedKeys::open(dir, name)?)),
            KeyStore::Hsm(hsm) => Kept::Hsm(HsmKeys::open(dir, hsm).await?),
        }))
    }

    /// The key that signs now, also where another has taken over since the last look.
    ///
    /// # Errors
    /// [`IssuerError`]; the old one is not used then.
    pub async fn signing(&self) -> Result<Arc<dyn Signer>, IssuerError> {
        Ok(match &self.0 {
            Kept::Files(keys) => keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .signing()?,
            Kept::Handed(keys) => keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .signing()?,
            Kept::Hsm(keys) => keys.signing().await?,
        })
    }

    /// What there is to say of the key that signs, though it does; a sentence.
    pub fn doubt(&self) -> Option<String> {
        match &self.0 {
            Kept::Handed(keys) => keys.lock().unwrap_or_else(PoisonError::into_inner).doubt(),
            Kept::Files(_) | Kept::Hsm(_) => None,
        }
    }

    /// Google has taken what the key with this id has signed: it knows it.
    pub fn known(&self, kid: &str) {
        match &self.0 {
            Kept::Handed(keys) => keys
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .known(kid),
            Kept::Files(_) | Kept::Hsm(_) => {}
        }
    }

    /// The public halves of all keys that there are, the signing one first: what Google is to be given. Only members that Google accepts.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub async fn jwks(&self) -> Result<Value, IssuerError> {
        match &self.0 {
            Kept::Files(keys) => keys.lock().unwrap_or_else(PoisonError::into_inner).jwks(),
            Kept::Handed(keys) => keys.lock().unwrap_or_else(PoisonError::into_inner).jwks(),
            Kept::Hsm(keys) => Ok(jwks_of(&keys.published().await?)),
        }
    }
}

/// The same of the keys that there are, without making any.
///
/// # Errors
/// [`RotationError::None`] where there is none.
pub async fn jwks(dir: &Path, store: &KeyStore) -> Result<Value, RotationError> {
    match store {
        KeyStore::File => files::jwks(dir),
        KeyStore::Credential(name) => handed::jwks(dir, name),
        KeyStore::Hsm(hsm) => {
            let published = HsmKeys::reach(dir, hsm)?.published().await?;
            if published.is_empty() {
                return Err(RotationError::None(hsm.to_string()));
            }
            Ok(jwks_of(&published))
        }
    }
}

/// Takes a step of a rotation, where it may be taken now, and no other is being taken. The key that it makes is given away, where the service manager is
/// to hand it over.
///
/// # Errors
/// [`RotationError`]; nothing has changed then.
pub async fn rotate(
    dir: &Path,
    store: &KeyStore,
    turn: Turn,
    give: Give<'_>,
) -> Result<(), RotationError> {
    if let KeyStore::Credential(_) = store {
        // The first key is made before the daemon has ever been there.
        make(dir)?;
    }
    let _lock = lock(dir)?;
    let Turn {
        step,
        now,
        is_forced,
        is_lost: _,
    } = turn;
    match store {
        KeyStore::File => files::rotate(dir, step, now, is_forced),
        KeyStore::Credential(_) => handed::rotate(dir, turn, give),
        KeyStore::Hsm(hsm) => {
            let keys = HsmKeys::reach(dir, hsm)?;
            keys.rotate(step, now, is_forced).await
        }
    }
}

/// Makes the state folder as the daemon does, where there is none.
fn make(dir: &Path) -> Result<(), RotationError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    Ok(made.map_err(|source| KeyFileError::Io {
        doing: "make",
        path: dir.to_owned(),
        source,
    })?)
}

/// Lets one step be taken at a time, until it is dropped.
fn lock(dir: &Path) -> Result<File, RotationError> {
    let path = dir.join(LOCK);
    let failed = |source| KeyFileError::Io {
        doing: "lock",
        path: path.clone(),
        source,
    };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(RotationError::UnderWay),
        Err(TryLockError::Error(source)) => Err(failed(source).into()),
    }
}

/// A key that signed before this host's were kept elsewhere is a key that can be copied.
fn warn_of_left(dir: &Path) {
    let path = dir.join(files::SIGNING);
    if path.exists() {
        tracing::warn!(
            "{} signs no more: this host's key is elsewhere. Remove it once Google has forgotten it",
            path.display()
        );
    }
}

/// These keys as a JWKS, each once.
pub(super) fn jwks_of(keys: &[PublicKey]) -> Value {
    let is_first = |(at, key): &(usize, &PublicKey)| !keys[..*at].contains(key);
    let keys = keys.iter().enumerate().filter(is_first);
    let keys: Vec<Value> = keys.map(|(_, key)| key.jwk()).collect();
    json!({ "keys": keys })
}

/// Whether `since` is as long as it must be.
pub(super) fn waited(since: Duration, bound: Duration) -> Result<(), RotationError> {
    let left = bound.saturating_sub(since);
    if left.is_zero() {
        return Ok(());
    }
    Err(RotationError::TooSoon(left.as_secs().max(1)))
}

/// Says in the daemon's own log that a key has taken over.
pub(super) fn say_if_another(before: &PublicKey, now: &PublicKey) {
    if before != now {
        tracing::info!(kid = now.kid(), "another issuer key signs from now on");
    }
}
