//! The keys of this host as an issuer, wherever they are kept: in files (`files.rs`), with the service manager (`handed.rs`) or in an HSM (`hsm.rs`). One signs; while another takes over
//! from it, Google is given both.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use zeroize::Zeroizing;

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

/// Takes a step of a rotation, where it may be taken at `now`. Gives away the key that it makes, where the service manager is to hand it over (PEM).
///
/// # Errors
/// [`RotationError`]; nothing has changed then.
pub async fn rotate(
    dir: &Path,
    store: &KeyStore,
    step: Step,
    now: SystemTime,
    is_forced: bool,
) -> Result<Option<Zeroizing<String>>, RotationError> {
    match store {
        KeyStore::File => files::rotate(dir, step, now, is_forced)?,
        KeyStore::Credential(_) => return handed::rotate(dir, step, now, is_forced),
        KeyStore::Hsm(hsm) => {
            let keys = HsmKeys::reach(dir, hsm)?;
            keys.rotate(step, now, is_forced).await?;
        }
    }
    Ok(None)
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
