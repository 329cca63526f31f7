//! An issuer key that the service manager hands over as a credential (systemd.exec(5), `LoadCredentialEncrypted=`): encrypted where it is kept, and
//! in no file of the daemon's. Private halves come from there alone. In the state folder are public halves: of the key that signs, of the next one,
//! which Google is told of before it is handed over, and of the last one, which Google knows until nothing that it has signed is on its way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rcgen::KeyPair;
use serde_json::Value;
use zeroize::Zeroizing;

use super::files::{Stamp, remove, stamp, waited_since};
use super::issuer::{IssuerError, IssuerKey};
use super::keys::{KNOWN_AFTER, LAST_FOR, RotationError, Step, jwks_of, say_if_another};
use super::signer::{PublicKey, Signer};
use crate::config::KeyPlace;
use crate::keyfile::{self, KeyFileError};

/// The public half of the key that signs.
const SIGNING: &str = "issuer.jwk";
/// Of the one that is to be handed over next.
const NEXT: &str = "issuer-next.jwk";
/// Of the one that was handed over before.
const LAST: &str = "issuer-last.jwk";

/// The keys of one host whose signing one is handed over.
#[derive(Debug)]
pub(super) struct HandedKeys {
    dir: PathBuf,
    name: String,
    signing: Arc<IssuerKey>,
    stamp: Option<Stamp>,
}

impl HandedKeys {
    /// Takes the credential `name`; what is known of the keys is in the state folder `dir`. Makes no key.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub(super) fn open(dir: &Path, name: &str) -> Result<Self, IssuerError> {
        let (signing, stamp) = handed_over(name)?;
        takes_over(dir, signing.public())?;
        Ok(Self {
            dir: dir.to_owned(),
            name: name.to_owned(),
            signing: Arc::new(signing),
            stamp,
        })
    }

    /// The key that signs: the one that is handed over now, also where that has changed while the daemon runs.
    ///
    /// # Errors
    /// [`IssuerError`]; the old one is not used then.
    pub(super) fn signing(&mut self) -> Result<Arc<IssuerKey>, IssuerError> {
        let now = place(&self.name).path().as_deref().and_then(stamp);
        if now != self.stamp {
            let (key, stamp) = handed_over(&self.name)?;
            takes_over(&self.dir, key.public())?;
            say_if_another(self.signing.public(), key.public());
            self.signing = Arc::new(key);
            self.stamp = stamp;
        }
        Ok(Arc::clone(&self.signing))
    }

    /// The public halves of all keys that there are, the signing one first.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub(super) fn jwks(&self) -> Result<Value, IssuerError> {
        Ok(jwks_of(&known(&self.dir)?))
    }
}

/// The public halves of the keys that are known in `dir`; no private one is needed.
///
/// # Errors
/// [`IssuerError::NotHandedOver`] where none is.
pub(super) fn jwks(dir: &Path, name: &str) -> Result<Value, RotationError> {
    let known = known(dir)?;
    if known.is_empty() {
        let name = name.to_owned();
        return Err(IssuerError::NotHandedOver { name }.into());
    }
    Ok(jwks_of(&known))
}

/// Takes a step of a rotation in `dir`, where it may be taken at `now`. The first makes a key and gives it away: it is kept nowhere here. The second
/// is the service manager's, which hands it over; here it is said whether that may be.
///
/// # Errors
/// [`RotationError`]; nothing has changed then.
pub(super) fn rotate(
    dir: &Path,
    step: Step,
    now: SystemTime,
    is_forced: bool,
) -> Result<Option<Zeroizing<String>>, RotationError> {
    let (signing, next, last) = (dir.join(SIGNING), dir.join(NEXT), dir.join(LAST));
    match step {
        Step::Begin if last.exists() => return Err(RotationError::NotEnded),
        // Also where one was begun: who has lost what it gave away has another made.
        Step::Begin => return Ok(Some(make(&next)?)),
        Step::Switch if !next.exists() => return Err(RotationError::NotBegun),
        Step::Switch if last.exists() => return Err(RotationError::NotEnded),
        // Of the first key nothing has been signed by another.
        Step::Switch if !signing.exists() => {}
        Step::Switch => waited_since(&next, KNOWN_AFTER, now, is_forced)?,
        Step::End if !last.exists() => return Err(RotationError::NothingToEnd),
        Step::End => {
            waited_since(&signing, LAST_FOR, now, is_forced)?;
            remove(&last)?;
        }
    }
    Ok(None)
}

/// Makes a key, keeps its public half in `path`, and gives the private one away.
fn make(path: &Path) -> Result<Zeroizing<String>, IssuerError> {
    let pem = Zeroizing::new(
        KeyPair::generate()
            .map_err(IssuerError::Make)?
            .serialize_pem(),
    );
    let key = IssuerKey::of(path, &pem)?;
    keep(path, key.public())?;
    Ok(pem)
}

fn place(name: &str) -> KeyPlace {
    KeyPlace::Credential(name.to_owned())
}

fn handed_over(name: &str) -> Result<(IssuerKey, Option<Stamp>), IssuerError> {
    let missing = || IssuerError::NotHandedOver {
        name: name.to_owned(),
    };
    let path = place(name).path().ok_or_else(missing)?;
    let stamp = stamp(&path);
    let pem = keyfile::read(&path)?.ok_or_else(missing)?;
    let key = IssuerKey::from_pem(&pem).ok_or_else(|| IssuerError::BadCredential {
        name: name.to_owned(),
    })?;
    Ok((key, stamp))
}

/// Keeps which key signs. Cut off anywhere, all keys are known, and it is done again.
fn takes_over(dir: &Path, key: &PublicKey) -> Result<(), IssuerError> {
    let (signing, next, last) = (dir.join(SIGNING), dir.join(NEXT), dir.join(LAST));
    let before = read(&signing)?;
    if before.as_ref() != Some(key) {
        if let Some(before) = &before {
            keep(&last, before)?;
        }
        keep(&signing, key)?;
    }
    if read(&next)?.as_ref() == Some(key) {
        remove(&next)?;
    }
    Ok(())
}

fn known(dir: &Path) -> Result<Vec<PublicKey>, IssuerError> {
    let keys = [SIGNING, NEXT, LAST].map(|name| read(&dir.join(name)));
    let keys: Result<Vec<_>, _> = keys.into_iter().collect();
    Ok(keys?.into_iter().flatten().collect())
}

fn read(path: &Path) -> Result<Option<PublicKey>, IssuerError> {
    let Some(text) = keyfile::read(path)? else {
        return Ok(None);
    };
    let key = serde_json::from_str(&text).ok();
    let key = key.and_then(|jwk: Value| PublicKey::of_jwk(&jwk));
    key.map(Some).ok_or_else(|| IssuerError::NotPublic {
        path: path.to_owned(),
    })
}

fn keep(path: &Path, key: &PublicKey) -> Result<(), KeyFileError> {
    keyfile::write(path, &key.jwk().to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(SystemClock.now().unix_ns)
    }

    fn kids(dir: &Path) -> Vec<String> {
        let jwks = jwks(dir, "issuer-key").expect("keys");
        let keys = jwks["keys"].as_array().expect("a list");
        let kid = |key: &Value| key["kid"].as_str().expect("a kid").to_owned();
        keys.iter().map(kid).collect()
    }

    /// What a start with this key does.
    fn start(dir: &Path, pem: &str) -> String {
        let key = IssuerKey::of(dir, pem).expect("a key");
        takes_over(dir, key.public()).expect("takes over");
        key.public().kid().to_owned()
    }

    fn begin(dir: &Path) -> Zeroizing<String> {
        let made = rotate(dir, Step::Begin, now(), false).expect("begun");
        made.expect("is given away")
    }

    #[test]
    fn a_handed_over_key_takes_over_when_it_is_handed_over_and_the_last_is_known_until_it_is_ended()
    {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let first = begin(dir);
        assert!(rotate(dir, Step::Switch, now(), false).is_ok(), "the first");
        let first = start(dir, &first);
        assert_eq!(kids(dir), std::slice::from_ref(&first));

        let second = begin(dir);
        let [signing, next] = kids(dir).try_into().expect("two keys");
        assert_eq!(signing, first);
        assert!(matches!(
            rotate(dir, Step::Switch, now(), false),
            Err(RotationError::TooSoon(299..=300))
        ));
        let later = now() + KNOWN_AFTER + Duration::from_secs(1);
        let switched = rotate(dir, Step::Switch, later, false).expect("may be");
        assert!(switched.is_none(), "no key leaves");
        assert_eq!(start(dir, &second), next);
        assert_eq!(start(dir, &second), next, "and once more");
        assert_eq!(kids(dir), [next.clone(), first]);

        assert!(matches!(
            rotate(dir, Step::Begin, now(), false),
            Err(RotationError::NotEnded)
        ));
        assert!(matches!(
            rotate(dir, Step::End, now(), false),
            Err(RotationError::TooSoon(_))
        ));
        let later = now() + LAST_FOR + Duration::from_secs(5);
        rotate(dir, Step::End, later, false).expect("ended");
        assert_eq!(kids(dir), [next]);
    }

    #[test]
    fn no_private_half_is_in_the_state_folder_and_a_key_that_was_lost_is_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        for step in [Step::Switch, Step::End] {
            assert!(rotate(dir, step, now(), true).is_err());
        }
        assert!(matches!(
            jwks(dir, "issuer-key"),
            Err(RotationError::Key(IssuerError::NotHandedOver { .. }))
        ));
        let lost = begin(dir);
        let kept = begin(dir);
        assert_ne!(*lost, *kept);
        let kid = start(dir, &kept);
        assert_eq!(kids(dir), [kid]);
        for entry in std::fs::read_dir(dir).expect("lists") {
            let text = std::fs::read_to_string(entry.expect("is there").path()).expect("reads");
            assert!(
                !text.contains("PRIVATE") && !text.contains("\"d\""),
                "{text}"
            );
        }
    }

    #[test]
    fn a_takeover_that_was_cut_off_is_taken_up_and_no_key_is_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let first = start(dir, &begin(dir));
        let second = begin(dir);
        // As far as the last key's copy.
        std::fs::copy(dir.join(SIGNING), dir.join(LAST)).expect("a copy");
        // As far as the new one in its place.
        std::fs::copy(dir.join(NEXT), dir.join(SIGNING)).expect("a copy");
        let second = start(dir, &second);
        assert_eq!(kids(dir), [second, first]);
        assert!(!dir.join(NEXT).exists());
    }

    #[test]
    fn what_is_no_public_key_is_said_to_be_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        start(dir, &begin(dir));
        for text in ["", "{}", r#"{"x":"AA","y":"AA"}"#, "[]"] {
            keyfile::write(&dir.join(LAST), text).expect("writes");
            let error = jwks(dir, "issuer-key").expect_err("is none").to_string();
            assert!(
                error.contains("issuer-last.jwk is no public key"),
                "{error}"
            );
        }
    }
}
