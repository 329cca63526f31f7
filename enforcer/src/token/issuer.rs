//! The host as an OIDC issuer: one ES256 key on disk, its public half as a JWKS, and signed assertions. The private
//! half is in no other file, no log, no error.

use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::keyfile::{self, KeyFileError};

/// An issuer key that cannot be used; the text names the cure.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// Its file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// Its content.
    #[error(
        "{path} is not an ECDSA P-256 private key in PKCS#8 PEM. Move it away and a new one is made; then give Google the new jwks.json"
    )]
    Unusable {
        /// Which file.
        path: PathBuf,
    },
    /// No key could be made.
    #[error("making the issuer key failed")]
    Make(#[source] rcgen::Error),
}

/// The issuer's key.
pub struct IssuerKey {
    signing: EncodingKey,
    kid: String,
    x: String,
    y: String,
}

impl std::fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuerKey")
            .field("kid", &self.kid)
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
        let key = KeyPair::generate().map_err(IssuerError::Make)?;
        let pem = Zeroizing::new(key.serialize_pem());
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

    fn from_pem(pem: &str) -> Option<Self> {
        // Also proves that it is P-256 and whole.
        let key = KeyPair::from_pem(pem).ok()?;
        if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return None;
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let signing = EncodingKey::from_ec_der(der.secret_pkcs8_der());
        let public = Jwk::from_encoding_key(&signing, Algorithm::ES256).ok()?;
        let kid = public.thumbprint(ThumbprintHash::SHA256).ok()?;
        let AlgorithmParameters::EllipticCurve(curve) = public.algorithm else {
            return None;
        };
        Some(Self {
            signing,
            kid,
            x: curve.x,
            y: curve.y,
        })
    }

    /// The key's id: its RFC 7638 thumbprint.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half. Only members that Google accepts.
    #[must_use]
    pub fn jwk(&self) -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "x": self.x, "y": self.y,
            "alg": "ES256", "use": "sig", "kid": self.kid,
        })
    }

    /// Signs claims into a JWT; `None` when the library fails.
    pub(super) fn sign<C: Serialize>(&self, claims: &C) -> Option<Zeroizing<String>> {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.clone());
        let jwt = jsonwebtoken::encode(&header, claims, &self.signing).ok()?;
        Some(Zeroizing::new(jwt))
    }
}
