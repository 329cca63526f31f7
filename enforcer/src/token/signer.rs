//! What signs an assertion: a key that is known by its public half, wherever its private half is. Puts the JWT together; knows no claim, and reads
//! no key.

use async_trait::async_trait;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters,
    EllipticCurveKeyType, Jwk, ThumbprintHash,
};
use jsonwebtoken::{Algorithm, Header};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// An ES256 signature as JWS has it (RFC 7518 §3.4): r and s, 32 bytes each.
pub type Signature = [u8; 64];
/// A point of P-256, uncompressed (SEC 1 §2.3.3): 4, x, y.
const POINT_BYTES: usize = 65;

/// Why nothing was signed. What exactly was wrong is in the daemon's own log: the reason that an agent is told names no path and no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignError {
    /// The key cannot be used: somebody has to put something right.
    Unusable,
    /// What has the key does not answer.
    Away,
}

/// A private P-256 key, wherever it is.
#[async_trait]
pub trait Signer: Send + Sync + std::fmt::Debug {
    /// Its public half.
    fn public(&self) -> &PublicKey;

    /// Signs a JWS signing input (RFC 7515 §5.1) with ES256, in bounded time and beside the runtime's own threads where that waits for anything.
    ///
    /// # Errors
    /// [`SignError`].
    async fn sign(&self, input: &[u8]) -> Result<Signature, SignError>;
}

/// The public half of an issuer key, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    point: [u8; POINT_BYTES],
    kid: String,
}

impl PublicKey {
    /// Of an uncompressed point; `None` where it is none.
    #[must_use]
    pub fn of_point(point: &[u8]) -> Option<Self> {
        let point: [u8; POINT_BYTES] = point.try_into().ok()?;
        if point[0] != 4 {
            return None;
        }
        let mut key = Self {
            point,
            kid: String::new(),
        };
        let (x, y) = key.coordinates();
        let jwk = Jwk {
            common: CommonParameters::default(),
            algorithm: AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                key_type: EllipticCurveKeyType::EC,
                curve: EllipticCurve::P256,
                x,
                y,
            }),
        };
        key.kid = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        Some(key)
    }

    /// Of a JWK, as [`Self::jwk`] has it; `None` where it is none. Its name is made anew.
    #[must_use]
    pub fn of_jwk(jwk: &Value) -> Option<Self> {
        let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
        let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
        // Sixty-four bytes split elsewhere would be another point.
        let key = Self::of_point(&point)?;
        (key.jwk()["x"] == jwk["x"]).then_some(key)
    }

    /// Its id: its RFC 7638 thumbprint.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The key as a JWK. Only members that Google accepts.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let (x, y) = self.coordinates();
        json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y,
            "alg": "ES256", "use": "sig", "kid": self.kid,
        })
    }

    /// Whether this key has signed that.
    #[must_use]
    pub fn has_signed(&self, input: &[u8], signature: &Signature) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        key.verify(input, signature).is_ok()
    }

    fn coordinates(&self) -> (String, String) {
        let (x, y) = self.point[1..].split_at(POINT_BYTES / 2);
        (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
    }
}

/// A JWT of these claims, which are JSON, signed by this key.
///
/// # Errors
/// [`SignError`].
pub(super) async fn jwt(
    signer: &dyn Signer,
    claims: &[u8],
) -> Result<Zeroizing<String>, SignError> {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(signer.public().kid().to_owned());
    let header = serde_json::to_vec(&header).map_err(|_| SignError::Unusable)?;
    let length = |bytes: usize| bytes.div_ceil(3) * 4;
    let room = length(header.len()) + length(claims.len()) + length(size_of::<Signature>()) + 2;
    // Made with room for all of it, so that no copy is left where it grew.
    let mut jwt = Zeroizing::new(String::with_capacity(room));
    URL_SAFE_NO_PAD.encode_string(header, &mut jwt);
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut jwt);
    let signature = signer.sign(jwt.as_bytes()).await?;
    jwt.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
    Ok(jwt)
}
