//! Against SoftHSM2, which keeps its tokens in files. It reads a variable of the whole process: each test has a process of its own.

use std::path::PathBuf;
use std::process::Command;

use cryptoki::object::{Attribute, AttributeInfo, AttributeType};
use cryptoki::session::Session;
use secrecy::SecretString;
use serde_json::Value;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::config::{KeyPlace, KeyStore};
use crate::keyfile;
use crate::token::keys;
use crate::token::signer::jwt;

/// A step as the command takes it, whoever has the keys.
async fn rotated(
    state: &Path,
    hsm: &crate::config::Hsm,
    step: Step,
    now: SystemTime,
) -> Result<(), RotationError> {
    let turn = keys::Turn {
        step,
        now,
        is_forced: true,
        is_lost: false,
    };
    keys::rotate(state, &KeyStore::Hsm(hsm.clone()), turn, &mut |_| Ok(())).await
}

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const TOKEN: &str = "enforcer";
const KEY: &str = "issuer";
const PIN: &str = "926535";
const OTHER_PIN: &str = "314159";
/// The object identifier of secp384r1.
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// A software HSM of its own, with one token, and the state folder of a daemon that uses it.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        assert!(
            Path::new(MODULE).exists(),
            "there is no {MODULE}: apt-get install softhsm2"
        );
        let dir = tempfile::tempdir().expect("a folder");
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("tokens")).expect("a folder");
        std::fs::create_dir(at("state")).expect("a folder");
        let tokens = at("tokens");
        let conf = format!("directories.tokendir = {}\n", tokens.display());
        std::fs::write(at("softhsm2.conf"), conf).expect("written");
        keyfile::write(&at("pin"), &format!("{PIN}\n")).expect("written");
        #[expect(
            clippy::disallowed_methods,
            reason = "SoftHSM takes it from nowhere else, and each test has a process of its own"
        )]
        // SAFETY: the test has just begun, and this is the only thread of its own.
        unsafe {
            std::env::set_var("SOFTHSM2_CONF", at("softhsm2.conf"));
        }
        let world = Self { dir };
        world.add_token(TOKEN);
        world
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn add_token(&self, label: &str) {
        let made = Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label])
            .args(["--so-pin", "5678", "--pin", PIN])
            .output()
            .expect("apt-get install softhsm2");
        assert!(made.status.success(), "{made:?}");
    }

    fn hsm(&self) -> Hsm {
        Hsm {
            module: MODULE.into(),
            token: TOKEN.to_owned(),
            key: KEY.to_owned(),
            pin: KeyPlace::File(self.at("pin")),
        }
    }

    async fn open(&self) -> Result<HsmKeys, HsmError> {
        HsmKeys::open(&self.at("state"), &self.hsm()).await
    }

    /// Does something in the token by a way of its own, which is gone afterwards.
    async fn within<T: Send + 'static>(
        &self,
        job: impl Fn(&Session) -> T + Send + 'static,
    ) -> Result<T, HsmError> {
        let keys = HsmKeys::reach(&self.at("state"), &self.hsm())?;
        let done = keys.worker.ask(MAKE_WITHIN, move |token| {
            token.write(|session| Ok(job(session)))
        });
        done.await
    }

    /// Makes a key of these attributes.
    async fn make(&self, curve: &'static [u8], private: Vec<Attribute>) {
        let made = self.within(move |session| {
            let named = [Attribute::Token(true), Attribute::Label(KEY.into())];
            session
                .generate_key_pair(
                    &cryptoki::mechanism::Mechanism::EccKeyPairGen,
                    &[&named[..], &[Attribute::EcParams(curve.to_vec())]].concat(),
                    &[&named[..], &private[..]].concat(),
                )
                .expect("made");
        });
        made.await.expect("made");
    }

    async fn kids(&self) -> Vec<String> {
        let jwks = keys::jwks(&self.at("state"), &KeyStore::Hsm(self.hsm())).await;
        let jwks = jwks.expect("keys");
        let keys = jwks["keys"].as_array().expect("a list");
        let kid = |key: &Value| key["kid"].as_str().expect("a kid").to_owned();
        keys.iter().map(kid).collect()
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(SystemClock.now().unix_ns)
}

#[tokio::test]
async fn a_key_is_made_once_and_its_assertions_verify_by_what_is_published() {
    let world = World::new();
    let keys = world.open().await.expect("made");
    let signing = keys.signing().await.expect("there");
    let kid = signing.public().kid().to_owned();
    let jwt = jwt(signing.as_ref(), br#"{"sub":"host-a/agent/bot"}"#).await;
    let jwt = jwt.expect("signed");

    let jwk = keys.published().await.expect("there")[0].jwk();
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(jwk).expect("a JWK");
    let by = jsonwebtoken::DecodingKey::from_jwk(&jwk).expect("a key");
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    rules.required_spec_claims.clear();
    let seen = jsonwebtoken::decode::<Value>(jwt.as_bytes(), &by, &rules).expect("verifies");
    assert_eq!(seen.header.kid.as_deref(), Some(kid.as_str()));
    let thumbprint = jwk.thumbprint(jsonwebtoken::jwk::ThumbprintHash::SHA256);
    assert_eq!(thumbprint.expect("made"), kid);

    drop((signing, keys));
    let again = world.open().await.expect("found");
    assert_eq!(again.signing().await.expect("there").public().kid(), kid);
    assert_eq!(again.published().await.expect("there").len(), 1);
}

#[tokio::test]
async fn a_key_that_is_made_here_cannot_be_read_and_does_nothing_but_sign() {
    let world = World::new();
    drop(world.open().await.expect("made"));
    let told = world.within(|session| {
        let key = key::find(session, KEY).expect("found").expect("there");
        assert!(!key.was_outside);
        let value = session.get_attribute_info(key.private, &[AttributeType::Value]);
        let rest = [
            AttributeType::Private,
            AttributeType::Decrypt,
            AttributeType::Derive,
            AttributeType::Unwrap,
        ];
        let rest = session.get_attributes(key.private, &rest).expect("told");
        (value.expect("told"), rest)
    });
    let (value, rest) = told.await.expect("told");
    assert!(matches!(value.as_slice(), [AttributeInfo::Sensitive]));
    let only_signs = [
        Attribute::Private(true),
        Attribute::Decrypt(false),
        Attribute::Derive(false),
        Attribute::Unwrap(false),
    ];
    assert_eq!(rest, only_signs);
}

#[tokio::test]
async fn a_key_that_can_get_out_is_refused() {
    for (private, why) in [
        (vec![Attribute::Extractable(true)], "CKA_EXTRACTABLE"),
        (
            vec![Attribute::Sensitive(false), Attribute::Extractable(false)],
            "CKA_SENSITIVE",
        ),
    ] {
        let world = World::new();
        world.make(key::P256, private).await;
        let error = world.open().await.expect_err("refused");
        assert_eq!(error.to_caller(), SignError::Unusable);
        let said = error.to_string();
        assert!(
            said.contains("issuer can be read") && said.contains(why),
            "{said}"
        );
    }
}

#[tokio::test]
async fn a_key_of_another_kind_and_a_second_one_of_the_label_are_refused() {
    for (attribute, why) in [
        (Attribute::Sign(false), "may not sign"),
        (Attribute::AlwaysAuthenticate(true), "at each signature"),
    ] {
        let world = World::new();
        world
            .make(key::P256, [inside(), vec![attribute]].concat())
            .await;
        let said = world.open().await.expect_err("refused").to_string();
        assert!(said.contains(why), "{said}");
    }
    let world = World::new();
    world.make(P384, inside()).await;
    let said = world.open().await.expect_err("refused").to_string();
    assert!(said.contains("is not on P-256"), "{said}");
    world.make(key::P256, inside()).await;
    let said = world.open().await.expect_err("refused").to_string();
    assert!(
        said.contains("2 private keys in the token are called issuer"),
        "{said}"
    );
}

/// What a key must be.
fn inside() -> Vec<Attribute> {
    vec![Attribute::Sensitive(true), Attribute::Extractable(false)]
}

#[tokio::test]
async fn a_key_of_the_operators_own_signs_and_is_followed_by_another_also_where_it_has_no_id() {
    let world = World::new();
    world.make(key::P256, inside()).await;
    let keys = world.open().await.expect("found");
    let signing = keys.signing().await.expect("there");
    signing.sign(b"x").await.expect("signed");
    for step in [Step::Begin, Step::Switch] {
        keys.rotate(step, now(), true).await.expect("taken");
    }
    assert_eq!(keys.published().await.expect("there").len(), 2);
    signing.sign(b"on its way").await.expect("signed");
    keys.rotate(Step::End, now(), true).await.expect("ended");
    assert_eq!(keys.published().await.expect("there").len(), 1);
}

#[tokio::test]
async fn where_only_a_rotations_key_is_there_none_is_made_in_its_place() {
    let world = World::new();
    world.make(key::P256, inside()).await;
    let renamed = world.within(|session| {
        let key = key::find(session, KEY).expect("found").expect("there");
        key::rename(session, &key, "issuer-last").expect("renamed");
    });
    renamed.await.expect("renamed");
    let error = world.open().await.expect_err("refused");
    assert!(matches!(error, HsmError::Torn { .. }), "{error}");
    assert_eq!(world.kids().await.len(), 1);
}

#[tokio::test]
async fn a_label_that_no_token_has_and_one_that_two_have_are_refused() {
    let world = World::new();
    let mut hsm = world.hsm();
    hsm.token = "other".to_owned();
    let none = HsmKeys::open(&world.at("state"), &hsm).await;
    let none = none.expect_err("refused");
    assert!(none.to_string().contains("knows no token other"), "{none}");
    assert_eq!(none.to_caller(), SignError::Away);

    world.add_token(TOKEN);
    let two = world.open().await.expect_err("refused");
    assert!(two.to_string().starts_with("2 tokens are called enforcer"));
    assert_eq!(two.to_caller(), SignError::Unusable);
}

#[tokio::test]
async fn a_pin_that_the_token_refused_is_not_tried_again_not_even_by_another_process() {
    let world = World::new();
    keyfile::write(&world.at("pin"), OTHER_PIN).expect("written");
    let refused = world.open().await.expect_err("refused");
    let said = format!("{refused} {refused:?}");
    assert!(
        said.contains("does not take the PIN") && !said.contains(OTHER_PIN),
        "{said}"
    );
    assert_eq!(refused.to_caller(), SignError::Unusable);
    let memory = world.at("state").join("hsm-pin-refused");
    let remembered = keyfile::read(&memory).expect("read").expect("remembered");
    assert!(!remembered.contains(OTHER_PIN));

    // The token would take it by now: it is not asked.
    keyfile::write(&world.at("pin"), PIN).expect("written");
    let copy = world.at("copy");
    std::fs::copy(&memory, &copy).expect("copied");
    let changed = world.within(|session| {
        let [old, new] = [PIN, OTHER_PIN].map(SecretString::from);
        session.set_pin(&old, &new).expect("changed");
    });
    changed.await.expect("the right one is taken");
    assert!(!memory.exists(), "the right one was taken");
    std::fs::copy(&copy, &memory).expect("copied");
    keyfile::write(&world.at("pin"), OTHER_PIN).expect("written");
    let still = world.open().await.expect_err("refused");
    assert!(matches!(still, HsmError::PinRefused { .. }), "{still}");

    std::fs::remove_file(&memory).expect("removed");
    world.open().await.expect("taken");
}

#[tokio::test]
async fn a_missing_pin_and_one_that_others_can_read_are_refused_with_the_cure() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.at("pin"), open).expect("opened");
    for error in [
        check(&world.hsm()).expect_err("refused"),
        world.open().await.expect_err("refused"),
    ] {
        assert!(error.to_string().contains("chmod 0600"), "{error}");
    }
    std::fs::remove_file(world.at("pin")).expect("removed");
    let error = check(&world.hsm()).expect_err("refused");
    assert!(error.to_string().contains("there is no"), "{error}");
    let mut hsm = world.hsm();
    hsm.pin = KeyPlace::Credential("hsm-pin".to_owned());
    let error = check(&hsm).expect_err("refused");
    assert!(
        error
            .to_string()
            .contains("LoadCredentialEncrypted=hsm-pin"),
        "{error}"
    );
}

#[tokio::test]
async fn a_module_that_others_than_root_could_change_is_not_loaded() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let mut hsm = world.hsm();
    hsm.module = world.at("libsofthsm2.so");
    std::fs::copy(MODULE, &hsm.module).expect("copied");
    let open = std::fs::Permissions::from_mode(0o775);
    std::fs::set_permissions(world.dir.path(), open).expect("opened");
    for error in [
        check(&hsm).expect_err("refused"),
        HsmKeys::open(&world.at("state"), &hsm)
            .await
            .expect_err("refused"),
    ] {
        let said = error.to_string();
        assert!(
            said.contains("can be written by others than root") && said.contains("is root here"),
            "{said}"
        );
    }
    hsm.module = "/usr/bin/env".into();
    let no_module = HsmKeys::open(&world.at("state"), &hsm).await;
    let said = no_module.expect_err("refused").to_string();
    assert!(
        said.contains("cannot be loaded as a PKCS#11 module"),
        "{said}"
    );
}

#[tokio::test]
async fn a_token_that_is_away_is_said_to_be_and_signs_again_when_it_is_back() {
    let world = World::new();
    let keys = world.open().await.expect("made");
    let signing = keys.signing().await.expect("there");
    signing.sign(b"before").await.expect("signed");
    std::fs::rename(world.at("tokens"), world.at("elsewhere")).expect("moved");
    for _ in 0..2 {
        assert_eq!(signing.sign(b"away").await, Err(SignError::Away));
        let error = keys.signing().await.expect_err("away");
        assert_eq!(error.to_caller(), SignError::Away, "{error}");
    }
    std::fs::rename(world.at("elsewhere"), world.at("tokens")).expect("moved");
    let signature = signing.sign(b"back").await.expect("signed");
    assert!(signing.public().has_signed(b"back", &signature));
    assert!(!signing.public().has_signed(b"forth", &signature));
}

#[tokio::test]
async fn a_key_that_is_gone_is_not_made_anew_while_the_daemon_runs() {
    let world = World::new();
    let keys = world.open().await.expect("made");
    let signing = keys.signing().await.expect("there");
    let labels = keys.labels.clone();
    let gone = keys.worker.ask(MAKE_WITHIN, move |token| {
        token.write(|session| {
            let key = key::find(session, &labels.signing)?.expect("there");
            key::destroy(session, &key)
        })
    });
    gone.await.expect("destroyed");
    assert_eq!(signing.sign(b"x").await, Err(SignError::Unusable));
    let error = keys.signing().await.expect_err("none");
    assert!(matches!(error, HsmError::NoKey { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_module_that_does_not_come_back_costs_one_thread_and_everybody_a_bounded_wait() {
    let world = World::new();
    let keys = HsmKeys::reach(&world.at("state"), &world.hsm()).expect("a thread");
    let (release, held) = std::sync::mpsc::channel::<()>();
    let hang = keys.worker.ask(SIGN_WITHIN, move |_| {
        let _ = held.recv();
        Ok(())
    });
    let error = hang.await.expect_err("too long");
    assert!(matches!(error, HsmError::Timeout(SIGN_WITHIN)), "{error}");
    assert_eq!(error.to_caller(), SignError::Away);
    let error = keys.signing().await.expect_err("too long");
    assert!(matches!(error, HsmError::Timeout(_)), "{error}");
    let busy = async {
        loop {
            if let Err(error @ HsmError::Busy) = keys.worker.ask(Duration::ZERO, |_| Ok(())).await {
                return error;
            }
        }
    };
    assert_eq!(busy.await.to_caller(), SignError::Away);

    tokio::time::resume();
    drop(release);
    let asked = async {
        while let Err(error) = keys.worker.ask(SIGN_WITHIN, |_| Ok(())).await {
            assert!(matches!(error, HsmError::Busy), "{error}");
            tokio::task::yield_now().await;
        }
    };
    asked.await;
}

#[tokio::test]
async fn a_module_that_breaks_off_is_begun_anew() {
    let world = World::new();
    let keys = world.open().await.expect("made");
    let broken = keys.worker.ask(SIGN_WITHIN, |token| {
        token.read(|_| -> Result<(), HsmError> { panic!("as a wrapper may") })
    });
    let error = broken.await.expect_err("broken off");
    assert!(matches!(error, HsmError::BrokeOff), "{error}");
    let signing = keys.signing().await.expect("there");
    signing.sign(b"x").await.expect("signed");
}

#[tokio::test]
async fn a_key_takes_over_only_after_google_was_told_and_the_last_is_known_until_it_is_ended() {
    let world = World::new();
    let state = world.at("state");
    let keys = world.open().await.expect("made");
    let old = keys.signing().await.expect("there");
    let first = old.public().kid().to_owned();
    let now = now();
    let early = keys.rotate(Step::Switch, now, true).await;
    assert!(matches!(early, Err(RotationError::NotBegun)), "{early:?}");
    keys.rotate(Step::Begin, now, false).await.expect("begun");
    let again = keys.rotate(Step::Begin, now, true).await;
    assert!(matches!(again, Err(RotationError::Begun)), "{again:?}");
    let kid = async || {
        keys.signing()
            .await
            .expect("there")
            .public()
            .kid()
            .to_owned()
    };
    assert_eq!(kid().await, first);
    let early = keys.rotate(Step::Switch, now, false).await;
    assert!(
        matches!(early, Err(RotationError::TooSoon(299..=300))),
        "{early:?}"
    );

    let later = now + keys::KNOWN_AFTER + Duration::from_secs(5);
    keys.rotate(Step::Switch, later, false)
        .await
        .expect("switched");
    let next = kid().await;
    assert_ne!(next, first, "it signs at once");
    let signature = old.sign(b"on its way").await.expect("signed");
    assert!(old.public().has_signed(b"on its way", &signature));
    let not_ended = keys.rotate(Step::Begin, now, true).await;
    assert!(matches!(not_ended, Err(RotationError::NotEnded)));
    let early = keys.rotate(Step::End, now, false).await;
    assert!(matches!(early, Err(RotationError::TooSoon(_))), "{early:?}");
    let published = keys.published().await.expect("there");
    let kids: Vec<&str> = published.iter().map(PublicKey::kid).collect();
    assert_eq!(kids, [next.as_str(), &first]);

    let later = now + keys::LAST_FOR + Duration::from_secs(5);
    keys.rotate(Step::End, later, false).await.expect("ended");
    assert_eq!(old.sign(b"x").await, Err(SignError::Unusable));
    drop((old, keys));
    assert_eq!(world.kids().await, [next]);
    let hsm = world.hsm();
    let over = rotated(&state, &hsm, Step::End, now).await;
    assert!(matches!(over, Err(RotationError::NothingToEnd)), "{over:?}");
}

#[tokio::test]
async fn a_switch_that_was_cut_off_leaves_a_key_that_signs_and_is_taken_up() {
    let world = World::new();
    let keys = world.open().await.expect("made");
    keys.rotate(Step::Begin, now(), true).await.expect("begun");
    let before = keys.published().await.expect("there");
    let labels = keys.labels.clone();
    let half = keys.worker.ask(MAKE_WITHIN, move |token| {
        token.write(|session| {
            let key = key::find(session, &labels.signing)?.expect("there");
            key::rename(session, &key, &labels.last)
        })
    });
    half.await.expect("half of it");
    let signing = keys.signing().await.expect("there");
    assert_eq!(signing.public(), &before[1]);
    signing.sign(b"x").await.expect("signed");
    for (step, error) in [(Step::Begin, "begun"), (Step::End, "begun")] {
        let refused = keys.rotate(step, now(), true).await.expect_err("refused");
        assert!(refused.to_string().contains(error), "{refused}");
    }
    keys.rotate(Step::Switch, now(), false)
        .await
        .expect("taken up");
    let after = keys.published().await.expect("there");
    assert_eq!(after, [before[1].clone(), before[0].clone()]);
}

#[tokio::test]
async fn a_time_that_is_lost_or_of_another_key_counts_from_when_that_is_seen() {
    let world = World::new();
    let keys = world.open().await.expect("made");
    keys.rotate(Step::Begin, now(), true).await.expect("begun");
    std::fs::remove_file(world.at("state").join("hsm-next.kid")).expect("removed");
    let late = now() + keys::KNOWN_AFTER - Duration::from_secs(60);
    let early = keys.rotate(Step::Switch, late, false).await;
    assert!(
        matches!(early, Err(RotationError::TooSoon(55..=65))),
        "{early:?}"
    );
    let late = now() + keys::KNOWN_AFTER + Duration::from_secs(5);
    keys.rotate(Step::Switch, late, false)
        .await
        .expect("switched");
}

#[tokio::test]
async fn keys_are_not_made_by_who_only_asks_for_them() {
    let world = World::new();
    let (state, hsm) = (world.at("state"), world.hsm());
    let none = keys::jwks(&state, &KeyStore::Hsm(hsm.clone()))
        .await
        .expect_err("none");
    assert!(matches!(none, RotationError::None(_)), "{none}");
    for step in [Step::Begin, Step::Switch, Step::End] {
        let none = rotated(&state, &hsm, step, now()).await;
        assert!(matches!(none, Err(RotationError::None(_))), "{none:?}");
    }
    let found = world.within(|session| key::find(session, KEY).expect("looked").is_some());
    assert!(!found.await.expect("looked"));
}
