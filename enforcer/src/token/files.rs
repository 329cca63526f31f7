//! The issuer's keys on disk while one takes over from another: the one that signs, the next one, which Google is told of before it signs, and
//! the last one, which Google knows until nothing that it has signed is on its way. Which step comes when is the operator's to say; none is taken
//! before it is safe.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::issuer::{IssuerError, IssuerKey};
use super::keys::{KNOWN_AFTER, LAST_FOR, RotationError, Step, jwks_of, say_if_another, waited};
use super::signer::Signer;
use crate::keyfile::{self, KeyFileError};

/// The key that signs.
pub(super) const SIGNING: &str = "issuer.pem";
/// The one that is to sign next.
const NEXT: &str = "issuer-next.pem";
/// The one that has signed.
const LAST: &str = "issuer-last.pem";
/// The keys of one host in its state folder.
#[derive(Debug)]
pub(super) struct FileKeys {
    dir: PathBuf,
    signing: Arc<IssuerKey>,
    stamp: Option<Stamp>,
}

/// What a file is told from the one before it by: it is replaced, and never written to. Its time alone is as coarse as the kernel's tick.
pub(super) type Stamp = (u64, SystemTime);

impl FileKeys {
    /// Loads the keys in the state folder `dir`, or makes the one that signs where there is none.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub(super) fn open(dir: &Path) -> Result<Self, IssuerError> {
        let stamp = stamp(&dir.join(SIGNING));
        Ok(Self {
            signing: Arc::new(IssuerKey::open(&dir.join(SIGNING))?),
            dir: dir.to_owned(),
            // Of a key that was made just now it is seen the next time.
            stamp,
        })
    }

    /// The key that signs: the one on disk, also where another has taken over since the last look.
    ///
    /// # Errors
    /// [`IssuerError`]; the old one is not used then.
    pub(super) fn signing(&mut self) -> Result<Arc<IssuerKey>, IssuerError> {
        let path = self.dir.join(SIGNING);
        let stamp = stamp(&path);
        if stamp != self.stamp {
            let key = IssuerKey::load(&path)?.ok_or(IssuerError::Unusable { path })?;
            say_if_another(self.signing.public(), key.public());
            self.signing = Arc::new(key);
            self.stamp = stamp;
        }
        Ok(Arc::clone(&self.signing))
    }

    /// The public halves of all keys that there are, the signing one first: what Google is to be given. Only members that Google accepts.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub(super) fn jwks(&self) -> Result<Value, IssuerError> {
        published(&self.dir, &self.signing)
    }
}

/// The same of the keys in `dir`, without making any.
///
/// # Errors
/// [`RotationError::None`] where there is none.
pub(super) fn jwks(dir: &Path) -> Result<Value, RotationError> {
    let path = dir.join(SIGNING);
    let signing =
        IssuerKey::load(&path)?.ok_or_else(|| RotationError::None(path.display().to_string()))?;
    Ok(published(dir, &signing)?)
}

/// Takes a step of a rotation in `dir`, where it may be taken at `now`.
///
/// # Errors
/// [`RotationError`]; nothing has changed then.
pub(super) fn rotate(
    dir: &Path,
    step: Step,
    now: SystemTime,
    is_forced: bool,
) -> Result<(), RotationError> {
    let (signing, next, last) = (dir.join(SIGNING), dir.join(NEXT), dir.join(LAST));
    let Some(current) = keyfile::read(&signing)? else {
        return Err(RotationError::None(signing.display().to_string()));
    };
    match step {
        Step::Begin if next.exists() => return Err(RotationError::Begun),
        Step::Begin if last.exists() => return Err(RotationError::NotEnded),
        Step::Begin => drop(IssuerKey::open(&next)?),
        Step::Switch if last.exists() && !next.exists() => return Err(RotationError::NotEnded),
        Step::Switch => {
            let Some(new) = keyfile::read(&next)? else {
                return Err(RotationError::NotBegun);
            };
            IssuerKey::of(&next, &new)?;
            waited_since(&next, KNOWN_AFTER, now, is_forced)?;
            // Cut off anywhere, the keys are all there, and the step can be taken again.
            if *current != *new {
                keyfile::write(&last, &current)?;
                keyfile::write(&signing, &new)?;
            }
            remove(&next)?;
        }
        Step::End if !last.exists() => return Err(RotationError::NothingToEnd),
        Step::End if next.exists() => return Err(RotationError::Begun),
        Step::End => {
            waited_since(&signing, LAST_FOR, now, is_forced)?;
            remove(&last)?;
        }
    }
    Ok(())
}

fn published(dir: &Path, signing: &IssuerKey) -> Result<Value, IssuerError> {
    let mut keys = vec![signing.public().clone()];
    for name in [NEXT, LAST] {
        let key = IssuerKey::load(&dir.join(name))?;
        keys.extend(key.map(|key| key.public().clone()));
    }
    Ok(jwks_of(&keys))
}

/// Whether what is in this file has been there long enough.
pub(super) fn waited_since(
    path: &Path,
    bound: Duration,
    now: SystemTime,
    is_forced: bool,
) -> Result<(), RotationError> {
    if is_forced {
        return Ok(());
    }
    let since = stamp(path).and_then(|(_, changed)| now.duration_since(changed).ok());
    waited(since.unwrap_or_default(), bound)
}

pub(super) fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.modified().ok()?))
}

pub(super) fn remove(path: &Path) -> Result<(), KeyFileError> {
    std::fs::remove_file(path).map_err(|source| KeyFileError::Io {
        doing: "remove",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(SystemClock.now().unix_ns)
    }

    fn kids(dir: &Path) -> Vec<String> {
        let jwks = jwks(dir).expect("keys");
        let keys = jwks["keys"].as_array().expect("a list");
        let kid = |key: &Value| key["kid"].as_str().expect("a kid").to_owned();
        keys.iter().map(kid).collect()
    }

    #[test]
    fn a_key_takes_over_only_after_google_was_told_and_the_last_is_known_until_it_is_ended() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let mut keys = FileKeys::open(dir).expect("a key");
        let first = keys.signing().expect("it").public().kid().to_owned();
        let now = self::now();
        rotate(dir, Step::Begin, now, false).expect("begun");
        let [signing, next] = kids(dir).try_into().expect("two keys");
        assert_eq!(
            (&signing, keys.signing().expect("it").public().kid()),
            (&first, first.as_str())
        );

        let early = rotate(dir, Step::Switch, now, false);
        assert!(
            matches!(early, Err(RotationError::TooSoon(299..=300))),
            "{early:?}"
        );
        let later = now + KNOWN_AFTER + Duration::from_secs(1);
        rotate(dir, Step::Switch, later, false).expect("switched");
        assert_eq!(kids(dir), [next.clone(), first]);
        assert_eq!(
            keys.signing().expect("it").public().kid(),
            next,
            "the daemon signs with it at once"
        );

        assert!(matches!(
            rotate(dir, Step::End, now, false),
            Err(RotationError::TooSoon(_))
        ));
        let later = now + LAST_FOR + Duration::from_secs(5);
        rotate(dir, Step::End, later, false).expect("ended");
        assert_eq!(kids(dir), [next]);
    }

    #[test]
    fn a_step_out_of_order_changes_nothing_and_says_what_is_to_be_done() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let now = self::now();
        let step = |step| rotate(dir, step, now, true);
        for any in [Step::Begin, Step::Switch, Step::End] {
            assert!(matches!(step(any), Err(RotationError::None(_))));
        }
        assert!(!dir.join(SIGNING).exists(), "no key is made on the way");
        FileKeys::open(dir).expect("a key");
        assert!(matches!(step(Step::Switch), Err(RotationError::NotBegun)));
        assert!(matches!(step(Step::End), Err(RotationError::NothingToEnd)));
        step(Step::Begin).expect("begun");
        assert!(matches!(step(Step::Begin), Err(RotationError::Begun)));
        step(Step::Switch).expect("switched");
        assert!(matches!(step(Step::Begin), Err(RotationError::NotEnded)));
        assert!(matches!(step(Step::Switch), Err(RotationError::NotEnded)));
        step(Step::End).expect("ended");
        step(Step::Begin).expect("and once more");
    }

    #[test]
    fn a_switch_that_was_cut_off_is_taken_up_and_no_key_is_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let now = self::now();
        FileKeys::open(dir).expect("a key");
        rotate(dir, Step::Begin, now, true).expect("begun");
        let before = kids(dir);
        // As far as the last key's copy.
        std::fs::copy(dir.join(SIGNING), dir.join(LAST)).expect("a copy");
        assert_eq!(kids(dir), before);
        // As far as the new one in its place.
        std::fs::copy(dir.join(NEXT), dir.join(SIGNING)).expect("a copy");
        rotate(dir, Step::Switch, now, true).expect("taken up");
        assert_eq!(kids(dir), [before[1].clone(), before[0].clone()]);
        assert!(!dir.join(NEXT).exists());
    }
}
