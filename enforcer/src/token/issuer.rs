//! An issuer key in a file: ES256, and the private half is in no other file, no log, no error.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::KeyPair;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::{Zeroize, Zeroizing};

use super::hsm::HsmError;
use super::signer::{PublicKey, SignError, Signature, Signer};
use crate::keyfile::{self, KeyFileError};

/// An issuer key that cannot be used; the text names the cure.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Its file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The HSM that has it.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// Its content.
    #[error(
        "{path} is not an ECDSA P-256 private key in PKCS#8 PEM. Move it away and a new one is made; then give Google the new jwks.json"
    )]
    Unusable {
        /// Which file.
        path: PathBuf,
    },
    /// The service manager handed over none.
    #[error(
        "the service manager handed over no credential {name}. Make a key by `enforcer gcp rotate-key --output /etc/enforcer/{name}.cred`, and say LoadCredentialEncrypted={name}:/etc/enforcer/{name}.cred in the unit"
    )]
    NotHandedOver {
        /// Which.
        name: String,
    },
    /// It handed over something else.
    #[error(
        "the credential {name} is not an ECDSA P-256 private key in PKCS#8 PEM. Have one made by `enforcer gcp rotate-key`"
    )]
    BadCredential {
        /// Which.
        name: String,
    },
    /// A public half that is none.
    #[error(
        "{path} is no public key of an issuer. Move it away: of the key that is handed over it is made anew"
    )]
    NotPublic {
        /// Which file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("making the issuer key failed")]
    Make(#[source] rcgen::Error),
}

impl IssuerError {
    /// What of it an assertion's caller is told.
    #[must_use]
    pub const fn to_caller(&self) -> SignError {
        match self {
            Self::Hsm(error) => error.to_caller(),
            Self::File(_)
            | Self::Unusable { .. }
            | Self::NotHandedOver { .. }
            | Self::BadCredential { .. }
            | Self::NotPublic { .. }
            | Self::Make(_) => SignError::Unusable,
        }
    }
}

/// The issuer's key.
pub struct IssuerKey {
    signing: EncodingKey,
    public: PublicKey,
}

impl std::fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuerKey")
            .field("kid", &self.public.kid())
            .finish_non_exhaustive()
    }
}

impl IssuerKey {
    /// Loads the key, or makes one (mode 0600) when the file does not exist.
    ///
    /// # Errors
    /// [`IssuerError`]; a key that others can read is refused, never repaired silently.
    pub fn open(path: &Path) -> Result<Self, IssuerError> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        let mut key = KeyPair::generate().map_err(IssuerError::Make)?;
        let pem = Zeroizing::new(key.serialize_pem());
        key.zeroize();
        keyfile::write(path, &pem)?;
        Self::of(path, &pem)
    }

    /// Loads the key, and makes none: `None` when the file does not exist.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn load(path: &Path) -> Result<Option<Self>, IssuerError> {
        let pem = keyfile::read(path)?;
        pem.map(|pem| Self::of(path, &pem)).transpose()
    }

    /// The key that the file at `path` holds.
    pub(super) fn of(path: &Path, pem: &str) -> Result<Self, IssuerError> {
        Self::from_pem(pem).ok_or_else(|| IssuerError::Unusable {
            path: path.to_owned(),
        })
    }

    /// The key that this text is.
    pub(super) fn from_pem(pem: &str) -> Option<Self> {
        // Also proves that it is P-256 and whole.
        let mut key = KeyPair::from_pem(pem).ok()?;
        let is_p256 = key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256;
        let public = PublicKey::of_point(key.public_key_raw());
        key.zeroize();
        if !is_p256 {
            return None;
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        Some(Self {
            signing: EncodingKey::from_ec_der(der.secret_pkcs8_der()),
            public: public?,
        })
    }
}

#[async_trait]
impl Signer for IssuerKey {
    fn public(&self) -> &PublicKey {
        &self.public
    }

    async fn sign(&self, input: &[u8]) -> Result<Signature, SignError> {
        let text = jsonwebtoken::crypto::sign(input, &self.signing, Algorithm::ES256);
        let text = text.map_err(|_| SignError::Unusable)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(SignError::Unusable)
    }
}
