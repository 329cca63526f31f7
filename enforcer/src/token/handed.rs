//! An issuer key that the service manager hands over as a credential (systemd.exec(5), `LoadCredentialEncrypted=`): encrypted where it is kept, and
//! in no file of the daemon's. Private halves come from there alone. In the state folder are public halves: of the key that signs, of the next one,
//! which Google is told of before it is handed over, and of the last one, which Google knows until nothing that it has signed is on its way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use super::files::{Stamp, remove, stamp, waited_since};
use super::issuer::{IssuerError, IssuerKey};
use super::keys::{
    Give, KNOWN_AFTER, LAST_FOR, RotationError, Step, Turn, jwks_of, say_if_another,
};
use super::signer::{PublicKey, Signer};
use crate::config::KeyPlace;
use crate::keyfile::{self, KeyFileError};

/// The public half of the key that signs.
const SIGNING: &str = "issuer.jwk";
/// Of the one that is to be handed over next.
const NEXT: &str = "issuer-next.jwk";
/// Of the one that was handed over before.
const LAST: &str = "issuer-last.jwk";
/// The id of the key that signs, where it took over from another and nobody had announced it; until Google takes what it signs.
const UNANNOUNCED: &str = "issuer-unannounced";

/// The keys of one host whose signing one is handed over.
#[derive(Debug)]
pub(super) struct HandedKeys {
    dir: PathBuf,
    name: String,
    signing: Arc<IssuerKey>,
    stamp: Option<Stamp>,
    /// Whether the one that signs took over unannounced.
    is_doubted: bool,
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
            is_doubted: is_doubted(dir, signing.public()),
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
            self.is_doubted = is_doubted(&self.dir, key.public());
            self.signing = Arc::new(key);
            self.stamp = stamp;
        }
        Ok(Arc::clone(&self.signing))
    }

    /// That Google may not know the key that signs.
    pub(super) fn doubt(&self) -> Option<String> {
        let kid = self.signing.public().kid();
        self.is_doubted.then(|| doubt(&self.name, kid))
    }

    /// Google takes what the key with this id has signed.
    pub(super) fn known(&mut self, kid: &str) {
        if self.is_doubted && kid == self.signing.public().kid() {
            tracing::info!(kid, "Google knows the issuer key that was not announced");
            self.is_doubted = false;
            if let Err(error) = std::fs::remove_file(self.dir.join(UNANNOUNCED)) {
                tracing::debug!(%error, "what is said of an unannounced key stays");
            }
        }
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

/// Takes a step of a rotation in `dir`, where it may be taken now. The first makes a key and gives it away: it is kept nowhere here. The second
/// is the service manager's, which hands it over; here it is said whether that may be.
///
/// # Errors
/// [`RotationError`]; nothing has changed then.
pub(super) fn rotate(dir: &Path, turn: Turn, give: Give<'_>) -> Result<(), RotationError> {
    let (signing, next, last) = (dir.join(SIGNING), dir.join(NEXT), dir.join(LAST));
    let Turn {
        step,
        now,
        is_forced,
        is_lost,
    } = turn;
    match step {
        Step::Begin if last.exists() => return Err(RotationError::NotEnded),
        Step::Begin if next.exists() && !is_lost => return Err(RotationError::GivenAway),
        Step::Begin => make(&next, give)?,
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
    Ok(())
}

/// Makes a key, gives the private half away, and keeps the public one in `path` where somebody has taken that.
fn make(path: &Path, give: Give<'_>) -> Result<(), RotationError> {
    let mut pair = KeyPair::generate().map_err(IssuerError::Make)?;
    let pem = Zeroizing::new(pair.serialize_pem());
    pair.zeroize();
    let key = IssuerKey::of(path, &pem)?;
    give(&pem).map_err(RotationError::Given)?;
    Ok(keep(path, key.public())?)
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
            // Of these Google was told, or it was to be.
            let told = [read(&next)?, read(&last)?];
            if !told.contains(&Some(key.clone())) {
                keyfile::write(&dir.join(UNANNOUNCED), key.kid())?;
            }
            keep(&last, before)?;
        }
        keep(&signing, key)?;
    }
    if read(&next)?.as_ref() == Some(key) {
        remove(&next)?;
    }
    Ok(())
}

/// Whether this key took over from another unannounced, and Google has not shown yet that it knows it. Said in the daemon's log.
fn is_doubted(dir: &Path, key: &PublicKey) -> bool {
    let of = keyfile::read(&dir.join(UNANNOUNCED)).ok().flatten();
    let is = of.is_some_and(|kid| *kid == key.kid());
    if is {
        tracing::warn!("{}", doubt("token.key_credential", key.kid()));
    }
    is
}

fn doubt(name: &str, kid: &str) -> String {
    format!(
        "the issuer key {kid} ({name}) signs, and took over without `enforcer gcp rotate-key` having announced it: Google may not know it. Give it what `enforcer gcp jwks` prints, or hand the key before it over again"
    )
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
    use std::time::{Duration, SystemTime};

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

    /// What a turn gives away.
    fn given(dir: &Path, turn: Turn) -> Result<String, RotationError> {
        let mut given = String::new();
        let mut give = |key: &str| {
            given = key.to_owned();
            Ok(())
        };
        super::rotate(dir, turn, &mut give)?;
        Ok(given)
    }

    fn rotate(
        dir: &Path,
        step: Step,
        now: SystemTime,
        is_forced: bool,
    ) -> Result<String, RotationError> {
        let turn = Turn {
            step,
            now,
            is_forced,
            is_lost: false,
        };
        given(dir, turn)
    }

    fn begin(dir: &Path) -> String {
        rotate(dir, Step::Begin, now(), false).expect("begun")
    }

    fn begin_again(dir: &Path) -> String {
        let turn = Turn {
            step: Step::Begin,
            now: now(),
            is_forced: false,
            is_lost: true,
        };
        given(dir, turn).expect("begun again")
    }

    fn is_in_doubt(dir: &Path, pem: &str) -> bool {
        let key = IssuerKey::of(dir, pem).expect("a key");
        is_doubted(dir, key.public())
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
        assert!(switched.is_empty(), "no key leaves");
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
        assert!(matches!(
            rotate(dir, Step::Begin, now(), true),
            Err(RotationError::GivenAway)
        ));
        let kept = begin_again(dir);
        assert_ne!(lost, kept);
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
    fn a_key_that_nobody_took_was_not_made() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let turn = Turn {
            step: Step::Begin,
            now: now(),
            is_forced: false,
            is_lost: false,
        };
        let mut broken = |_: &str| Err(std::io::ErrorKind::BrokenPipe.into());
        let error = super::rotate(dir, turn, &mut broken);
        assert!(matches!(error, Err(RotationError::Given(_))), "{error:?}");
        assert!(!dir.join(NEXT).exists(), "Google would be told of it");
        begin(dir);
    }

    #[test]
    fn a_key_that_takes_over_unannounced_is_in_doubt_until_google_takes_what_it_signs() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let (first, second) = (
            begin(dir),
            KeyPair::generate().expect("a key").serialize_pem(),
        );
        let first_kid = start(dir, &first);
        assert!(!is_in_doubt(dir, &first), "nobody signed before it");
        let kid = start(dir, &second);
        assert!(is_in_doubt(dir, &second));
        let _ = start(dir, &second);
        assert!(is_in_doubt(dir, &second), "also after another start");
        assert_eq!(kids(dir), [kid.clone(), first_kid], "both are published");

        let _ = start(dir, &first);
        assert!(!is_in_doubt(dir, &first), "Google knows the one before");
        let _ = start(dir, &second);
        let mut keys = HandedKeys {
            dir: dir.to_owned(),
            name: "issuer-key".to_owned(),
            signing: Arc::new(IssuerKey::of(dir, &second).expect("a key")),
            stamp: None,
            is_doubted: true,
        };
        assert!(keys.doubt().expect("said").contains("enforcer gcp jwks"));
        keys.known("another");
        assert!(keys.doubt().is_some());
        keys.known(&kid);
        assert!(keys.doubt().is_none());
        assert!(!is_in_doubt(dir, &second));
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
