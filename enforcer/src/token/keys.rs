//! The keys of this host as an issuer, wherever they are kept: in files (`files.rs`) or in an HSM (`hsm.rs`). One signs; while another takes over
//! from it, Google is given both.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::files::{self, FileKeys};
use super::hsm::{HsmError, HsmKeys};
use super::issuer::IssuerError;
use super::signer::{PublicKey, Signer};
use super::{ASSERTION_LIFE_MAX, BEYOND_WINDOW};
use crate::config::Hsm;
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
    Hsm(HsmKeys),
}

impl IssuerKeys {
    /// Opens the keys in the HSM, where there is one, or those in the state folder `dir`. Makes the one that signs where there is none.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub async fn open(dir: &Path, hsm: Option<&Hsm>) -> Result<Self, IssuerError> {
        Ok(Self(match hsm {
            None => Kept::Files(Mutex::new(FileKeys::open(dir)?)),
            Some(hsm) => Kept::Hsm(HsmKeys::open(dir, hsm).await?),
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
            Kept::Hsm(keys) => Ok(jwks_of(&keys.published().await?)),
        }
    }
}

/// The same of the keys that there are, without making any.
///
/// # Errors
/// [`RotationError::None`] where there is none.
pub async fn jwks(dir: &Path, hsm: Option<&Hsm>) -> Result<Value, RotationError> {
    match hsm {
        None => files::jwks(dir),
        Some(hsm) => {
            let published = HsmKeys::reach(dir, hsm)?.published().await?;
            if published.is_empty() {
                return Err(RotationError::None(hsm.to_string()));
            }
            Ok(jwks_of(&published))
        }
    }
}

/// Takes a step of a rotation, where it may be taken at `now`.
///
/// # Errors
/// [`RotationError`]; nothing has changed then.
pub async fn rotate(
    dir: &Path,
    hsm: Option<&Hsm>,
    step: Step,
    now: SystemTime,
    is_forced: bool,
) -> Result<(), RotationError> {
    match hsm {
        None => files::rotate(dir, step, now, is_forced),
        Some(hsm) => HsmKeys::reach(dir, hsm)?.rotate(step, now, is_forced).await,
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
