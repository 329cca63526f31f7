//! A rotation in an HSM: keys change their labels, one after another, so that at each moment every key is there and one of them signs. When a key
//! came to what it is stands in the state folder: PKCS#11 has room for days only (CKA_START_DATE), and a rotation waits for minutes. Each time is
//! beside the id of its key; one that is lost, or of another key, counts from when that is seen.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use cryptoki::session::Session;

use super::HsmError;
use super::key::{self, Held, Labels};
use crate::atomic_file::{self, Rights};
use crate::keyfile::KeyFileError;
use crate::token::keys::{KNOWN_AFTER, LAST_FOR, RotationError, Step, waited};
use crate::token::signer::PublicKey;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// The next key is made.
    Make,
    /// The signing one becomes the last, and the next one the signing.
    Switch,
    /// The second half of that: the first was done before it was cut off.
    Finish,
    /// The last one is destroyed.
    Destroy,
}

/// What a step comes to where these keys are.
pub(super) fn deed(held: &Held, step: Step) -> Result<Deed, RotationError> {
    let is = (
        held.signing.is_some(),
        held.next.is_some(),
        held.last.is_some(),
    );
    match (step, is) {
        (Step::Begin, (_, true, _)) => Err(RotationError::Begun),
        (Step::Begin, (_, false, true)) => Err(RotationError::NotEnded),
        (Step::Begin, (_, false, false)) => Ok(Deed::Make),
        (Step::Switch, (_, false, true) | (true, true, true)) => Err(RotationError::NotEnded),
        (Step::Switch, (_, false, false)) => Err(RotationError::NotBegun),
        (Step::Switch, (true, true, false)) => Ok(Deed::Switch),
        (Step::Switch, (false, true, _)) => Ok(Deed::Finish),
        (Step::End, (_, _, false)) => Err(RotationError::NothingToEnd),
        (Step::End, (false, _, true)) => Err(RotationError::Begun),
        (Step::End, (true, _, true)) => Ok(Deed::Destroy),
    }
}

/// Does it. Done again after it was cut off, it does what is left.
pub(super) fn act(session: &Session, labels: &Labels, deed: Deed) -> Result<(), HsmError> {
    let held = Held::look(session, labels)?;
    match deed {
        Deed::Make if held.next.is_none() => key::generate(session, &labels.next)?,
        Deed::Make => {}
        Deed::Switch | Deed::Finish => {
            if let (Some(signing), None) = (&held.signing, &held.last) {
                key::rename(session, signing, &labels.last)?;
            }
            if let Some(next) = &held.next {
                key::rename(session, next, &labels.signing)?;
            }
        }
        Deed::Destroy => {
            if let Some(last) = &held.last {
                key::destroy(session, last)?;
            }
        }
    }
    Ok(())
}

/// When keys came to what they are.
#[derive(Debug)]
pub(super) struct Times {
    next: PathBuf,
    signing: PathBuf,
}

impl Times {
    pub(super) fn in_dir(dir: &Path) -> Self {
        Self {
            next: dir.join("hsm-next.kid"),
            signing: dir.join("hsm-signing.kid"),
        }
    }

    /// Whether that may be done at `now`.
    pub(super) fn waited(
        &self,
        held: &Held,
        deed: Deed,
        now: SystemTime,
    ) -> Result<(), RotationError> {
        let (path, key, bound) = match deed {
            Deed::Make | Deed::Finish => return Ok(()),
            Deed::Switch => (&self.next, &held.next, KNOWN_AFTER),
            Deed::Destroy => (&self.signing, &held.signing, LAST_FOR),
        };
        let Some(key) = key else { return Ok(()) };
        if std::fs::read_to_string(path).ok().as_deref() != Some(key.public.kid()) {
            keep(path, &key.public)?;
        }
        let changed = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let since = changed
            .ok()
            .and_then(|changed| now.duration_since(changed).ok());
        waited(since.unwrap_or_default(), bound)
    }

    /// Keeps what a step has changed.
    pub(super) fn keep(&self, held: &Held, step: Step) -> Result<(), KeyFileError> {
        let (path, key) = match step {
            Step::Begin => (&self.next, &held.next),
            Step::Switch => (&self.signing, &held.signing),
            Step::End => return Ok(()),
        };
        key.as_ref().map_or(Ok(()), |key| keep(path, &key.public))
    }
}

fn keep(path: &Path, key: &PublicKey) -> Result<(), KeyFileError> {
    let kept = atomic_file::replace(path, key.kid().as_bytes(), Rights::of_mode(0o600));
    kept.map_err(|source| KeyFileError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    })
}
