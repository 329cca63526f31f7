//! Issuer keys in an HSM, by its PKCS#11 module: made in it, never out of it, and nothing signs without it. What of a rotation is the HSM's is the
//! keys' labels; only when a key came to what it is stands in the state folder.
//!
//! A module is foreign code that may hang. One thread of its own (`worker.rs`) makes all calls, so that a call that does not come back costs that
//! thread and no other; who asks waits in bounded time.

mod error;
mod key;
mod pin;
mod rotation;
#[cfg(test)]
mod tests;
mod token;
mod worker;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};

pub use self::error::HsmError;
use self::key::{Held, Labels};
use self::pin::Pins;
use self::token::Token;
use self::worker::Worker;
use super::keys::{RotationError, Step, say_if_another};
use super::signer::{PublicKey, SignError, Signature, Signer};
use crate::causes::Causes;
use crate::config::Hsm;
use crate::executables::trusted_code;

/// How long a signature may take, logging in anew included.
const SIGN_WITHIN: Duration = Duration::from_secs(10);
/// How long the start may take, and a step of a rotation: a smart card takes its time to make a key.
const MAKE_WITHIN: Duration = Duration::from_secs(40);

/// The keys of one host in an HSM.
#[derive(Debug)]
pub(super) struct HsmKeys {
    worker: Arc<Worker>,
    labels: Labels,
    times: rotation::Times,
    /// What signed last, to say when another does.
    signed: Mutex<Option<PublicKey>>,
}

/// One of them.
#[derive(Debug)]
struct HsmKey {
    worker: Arc<Worker>,
    labels: Labels,
    public: PublicKey,
}

/// What of an HSM can be told to be wrong without a login: its module, and where its PIN is.
///
/// # Errors
/// [`HsmError`]; the text names the cure.
pub fn check(hsm: &Hsm) -> Result<(), HsmError> {
    trusted_code(&hsm.module).map_err(|why| HsmError::module(hsm, why))?;
    pin::read(&hsm.pin).map(drop)
}

impl HsmKeys {
    /// Opens the keys, and has the HSM make the one that signs where there is none.
    pub(super) async fn open(dir: &Path, hsm: &Hsm) -> Result<Self, HsmError> {
        let keys = Self::reach(dir, hsm)?;
        let labels = keys.labels.clone();
        let held = keys.worker.ask(MAKE_WITHIN, move |token| {
            let held = token.read(|session| Held::look(session, &labels))?;
            if !held.is_empty() {
                return Ok(held);
            }
            token.write(|session| match key::find(session, &labels.signing)? {
                Some(_) => Ok(()),
                None => key::generate(session, &labels.signing),
            })?;
            token.read(|session| Held::look(session, &labels))
        });
        let held = held.await?;
        let Some(signing) = held.signs() else {
            return Err(HsmError::Torn {
                label: keys.labels.signing.clone(),
            });
        };
        if signing.was_outside {
            tracing::warn!(
                "key {hsm} was not made there, or could once be read from it: there may be a copy. Have a new one made by `enforcer gcp rotate-key`"
            );
        }
        Ok(keys)
    }

    /// The way to the keys; none is looked for yet.
    pub(super) fn reach(dir: &Path, hsm: &Hsm) -> Result<Self, HsmError> {
        let module = trusted_code(&hsm.module).map_err(|why| HsmError::module(hsm, why))?;
        let pins = Pins::new(hsm, dir);
        let token = Token::new(module, hsm.token.clone(), pins);
        Ok(Self {
            worker: Arc::new(Worker::start(token)?),
            labels: Labels::of(&hsm.key),
            times: rotation::Times::in_dir(dir),
            signed: Mutex::default(),
        })
    }

    /// The key that signs now.
    pub(super) async fn signing(&self) -> Result<Arc<dyn Signer>, HsmError> {
        let labels = self.labels.clone();
        let found = self.worker.ask(SIGN_WITHIN, move |token| {
            token.read(|session| key::signing(session, &labels))
        });
        let public = found.await?;
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = signed.replace(public.clone()) {
            say_if_another(&before, &public);
        }
        Ok(Arc::new(HsmKey {
            worker: Arc::clone(&self.worker),
            labels: self.labels.clone(),
            public,
        }))
    }

    /// The public halves of all keys that there are, the signing one first.
    pub(super) async fn published(&self) -> Result<Vec<PublicKey>, HsmError> {
        let held = self.held().await?;
        let keys = [&held.signing, &held.next, &held.last];
        let keys = keys.into_iter().flatten();
        Ok(keys.map(|key| key.public.clone()).collect())
    }

    /// Takes a step of a rotation, where it may be taken at `now`.
    pub(super) async fn rotate(
        &self,
        step: Step,
        now: SystemTime,
        is_forced: bool,
    ) -> Result<(), RotationError> {
        let held = self.held().await.map_err(RotationError::from)?;
        if held.is_empty() {
            return Err(RotationError::None(self.labels.signing.clone()));
        }
        let deed = rotation::deed(&held, step)?;
        if !is_forced {
            self.times.waited(&held, deed, now)?;
        }
        let labels = self.labels.clone();
        let done = self.worker.ask(MAKE_WITHIN, move |token| {
            token.write(|session| rotation::act(session, &labels, deed))?;
            token.read(|session| Held::look(session, &labels))
        });
        let held = done.await.map_err(RotationError::from)?;
        Ok(self.times.keep(&held, step)?)
    }

    async fn held(&self) -> Result<Held, HsmError> {
        let labels = self.labels.clone();
        let held = self.worker.ask(MAKE_WITHIN, move |token| {
            token.read(|session| Held::look(session, &labels))
        });
        held.await
    }
}

impl HsmKey {
    async fn signed(&self, input: &[u8]) -> Result<Signature, HsmError> {
        // The mechanism that all have signs a digest.
        let digest = digest(&SHA256, input);
        let (labels, public) = (self.labels.clone(), self.public.clone());
        let signature = self.worker.ask(SIGN_WITHIN, move |token| {
            token.read(|session| key::sign(session, &labels, &public, digest.as_ref()))
        });
        let signature = signature.await?;
        // A module that signs with another key, or not at all, is found here and not by Google.
        if self.public.has_signed(input, &signature) {
            Ok(signature)
        } else {
            Err(HsmError::BadSignature)
        }
    }
}

#[async_trait]
impl Signer for HsmKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    async fn sign(&self, input: &[u8]) -> Result<Signature, SignError> {
        self.signed(input).await.map_err(|error| {
            tracing::warn!(error = %Causes(&error), "the issuer key");
            error.to_caller()
        })
    }
}
