//! Upstream credentials: who mints them, for whom, for how long. A token is a value that cannot be printed; it never
//! leaves the daemon and is never used for a query past its window. Errors say which step failed, never what was sent or answered.

mod base;
mod credential;
mod estimator;
mod exchange;
mod federation;
mod files;
mod handed;
mod hsm;
mod impersonation;
mod issuer;
mod keys;
mod signer;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enforcer_proto::refusal::Code;
use enforcer_proto::time::Now;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

pub use base::BaseIdentity;
pub use credential::Credential;
pub use estimator::EstimatorTokens;
pub use federation::{ASSERTION_LIFE_MAX, Federation, FederationOptions};
pub use hsm::{HsmError, check as check_hsm};
pub use impersonation::Impersonation;
pub use issuer::{IssuerError, IssuerKey};
pub use keys::{Give, IssuerKeys, KNOWN_AFTER, LAST_FOR, RotationError, Step, Turn, jwks, rotate};
pub use signer::{PublicKey, SignError, Signature, Signer};
pub use window::{CANCEL_GRACE, WindowTokens};

use crate::config::{BaseSource, MinterKind};
use crate::upstream::UpstreamError;

/// The scope of a token that is sent to BigQuery.
pub const SCOPE_BIGQUERY: &str = "https://www.googleapis.com/auth/bigquery";
/// The scope of a token that is only shown to IAM Credentials.
pub const SCOPE_CLOUD_PLATFORM: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long a token outlives its window: the daemon still has to cancel jobs.
pub const BEYOND_WINDOW: Duration = Duration::from_secs(60);
/// The longest life of an access token, which Google documents: one that is said to live longer is believed no longer, seconds.
const LIFE_S_MAX: u64 = 3600;
/// The longest access token (Google's documented maximum), bytes.
const TOKEN_BYTES_MAX: usize = 12_288;

/// An access token. `Debug` masks it, there is no `Display`, and it is zeroized when dropped.
#[derive(Debug, Clone)]
pub struct AccessToken(SecretString);

impl AccessToken {
    /// Takes a token if it can stand in a header.
    pub(crate) fn new(secret: SecretString) -> Option<Self> {
        let text = secret.expose_secret();
        let sound = (1..=TOKEN_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        sound.then_some(Self(secret))
    }

    /// The `Authorization` header, marked sensitive: HTTP/2 does not index it and `Debug` masks it.
    #[must_use]
    pub fn bearer(&self) -> HeaderValue {
        let text = Zeroizing::new(format!("Bearer {}", self.0.expose_secret()));
        // `new` admitted visible ASCII only, which every header value may hold; an empty header would be refused upstream.
        let mut value =
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }

    fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Whose token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer {
    /// An agent's, for one of its windows.
    Agent,
    /// The daemon's own, for dry runs.
    Estimator,
}

/// For which window a token is wanted, or for the daemon's own dry runs.
#[derive(Debug, Clone)]
pub struct MintRequest {
    /// Whose it is.
    pub bearer: Bearer,
    /// The agent's name, or the estimator's: the subject.
    pub agent: String,
    /// The host's name.
    pub host: String,
    /// The grant, `g-N`; `none` for the estimator, which has no window.
    pub grant: String,
    /// This minting's own id: the JWT's `jti` and `session`.
    pub session: String,
    /// The datasets granted, `project.dataset`; Google can scope by them a second time.
    pub datasets: Vec<String>,
    /// Those of them that may be written.
    pub writable: Vec<String>,
    /// Who approved; `none` for the estimator.
    pub approver: String,
    /// The SHA-256 of why the window was asked for, hex; absent for the estimator, and where it is not remembered.
    pub reason_digest: Option<String>,
    /// By what it is minted.
    pub minter: MinterKind,
    /// The service account to become; `None`: the federated identity itself.
    pub service_account: Option<String>,
    /// What is left of the window.
    pub remaining: Duration,
    /// This instant.
    pub now: Now,
}

/// A minted token.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The token.
    pub token: AccessToken,
    /// When Google stops accepting it, on the boot-time clock.
    pub expires_boot_ns: u64,
    /// Whom Google sees.
    pub principal: String,
}

/// Which service was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The Security Token Service.
    Sts,
    /// IAM Credentials.
    IamCredentials,
    /// The source of the host's base identity.
    Base,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sts => "the security token service",
            Self::IamCredentials => "IAM Credentials",
            Self::Base => "the host's base identity",
        })
    }
}

/// Why there is no token. The text never holds what was sent or answered: both can carry claims and tokens.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// The subject would be longer than Google allows.
    #[error(
        "token could not be had: the subject `host/agent/NAME` (or `host/estimator/NAME`) has {0} bytes, Google allows 127. Shorten the host's name"
    )]
    SubjectTooLong(usize),
    /// The claims would be larger than Google allows.
    #[error(
        "token could not be had: the claims have {0} bytes, Google allows 8192. Ask for fewer datasets"
    )]
    ClaimsTooLarge(usize),
    /// Signing failed.
    #[error("token could not be had: signing with the issuer key failed")]
    Sign,
    /// The HSM that has the issuer key does not answer.
    #[error("token could not be had: the HSM that has the issuer key does not answer")]
    SignerAway,
    /// The minter needs a service account and the agent has none.
    #[error(
        "token could not be had: impersonation needs a service account. Set `service_account` for the agent"
    )]
    NoServiceAccount,
    /// The service account's name cannot be one.
    #[error(
        "token could not be had: `service_account` must be NAME@PROJECT.iam.gserviceaccount.com"
    )]
    BadServiceAccount,
    /// The service could not be reached.
    #[error("token could not be had: {endpoint} cannot be reached")]
    Unreachable {
        /// Which.
        endpoint: Endpoint,
        /// Why.
        #[source]
        source: Arc<UpstreamError>,
    },
    /// The service took too long.
    #[error("token could not be had: {endpoint} did not answer in time")]
    Timeout {
        /// Which.
        endpoint: Endpoint,
    },
    /// The service said no.
    #[error("token could not be had: {endpoint} refused with status {status}{}", code_shown(*code))]
    Refused {
        /// Which.
        endpoint: Endpoint,
        /// The HTTP status.
        status: u16,
        /// Its error code, if it is one of the standard's words.
        code: Option<&'static str>,
    },
    /// The answer cannot be used.
    #[error("token could not be had: {endpoint} answered unusably ({why})")]
    Unusable {
        /// Which.
        endpoint: Endpoint,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The configuration was read without anybody who is minted for like this.
    #[error("token could not be had: nothing mints by {}. Start the daemon anew", kind_shown(*.0))]
    NoMinter(MinterKind),
    /// The base identity failed.
    #[error(
        "token could not be had: the host has no usable base identity. See `gcloud auth application-default login`, or run on a machine with a service account; `token.base` names which is meant"
    )]
    NoBaseIdentity,
    /// The source of it that the configuration names is not there.
    #[error("token could not be had: `token.base` names {0}, and there is none on this host")]
    BaseNotThere(BaseSource),
    /// The window has closed.
    #[error("token could not be had: the window is closed")]
    Closed,
}

impl From<SignError> for TokenError {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Unusable => Self::Sign,
            SignError::Away => Self::SignerAway,
        }
    }
}

impl TokenError {
    /// The code that tells its kind to who has to do something about it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::SubjectTooLong(_)
            | Self::ClaimsTooLarge(_)
            | Self::Sign
            | Self::NoServiceAccount
            | Self::BadServiceAccount
            | Self::NoMinter(_)
            | Self::NoBaseIdentity
            | Self::BaseNotThere(_) => Code::TokenMisconfigured,
            Self::SignerAway
            | Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Unusable { .. } => Code::TokenUnavailable,
            Self::Refused { status, code, .. } => of_refusal(*status, *code),
            Self::Closed => Code::WindowClosed,
        }
    }
}

/// RFC 6749 §5.2 answers what is wrong with a request by 400 and 401; Google says by 403 that somebody may not, by 429 that it was too much.
fn of_refusal(status: u16, code: Option<&str>) -> Code {
    match (status, code) {
        (429, _) | (_, Some("RESOURCE_EXHAUSTED")) => Code::TokenThrottled,
        (500.., _) => Code::TokenUnavailable,
        (403, _) | (_, Some("PERMISSION_DENIED" | "unauthorized_client")) => Code::TokenDenied,
        (400..500, _) => Code::TokenMisconfigured,
        // A redirect is not followed, and what is no answer of theirs comes from somebody between.
        _ => Code::TokenUnavailable,
    }
}

const fn kind_shown(kind: MinterKind) -> &'static str {
    match kind {
        MinterKind::Federation => "federation",
        MinterKind::Impersonation => "impersonation",
    }
}

fn code_shown(code: Option<&'static str>) -> String {
    code.map_or_else(String::new, |code| format!(" ({code})"))
}

/// Makes tokens for windows.
#[async_trait]
pub trait Minter: Send + Sync + std::fmt::Debug {
    /// Mints one token; its life follows the window's.
    ///
    /// # Errors
    /// [`TokenError`].
    async fn mint(&self, request: &MintRequest) -> Result<Minted, TokenError>;

    /// What may keep it from minting, though nothing has yet; sentences.
    fn doubts(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Makes this process unreadable to others: no core dumps, no ptrace by equals, `/proc` entries owned by root.
///
/// # Errors
/// What the system said.
pub fn harden() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    Ok(())
}

const fn plus(boot_ns: u64, seconds: u64) -> u64 {
    boot_ns.saturating_add(seconds.saturating_mul(enforcer_proto::time::NS_PER_S))
}
