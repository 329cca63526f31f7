//! The default minter: a JWT per window, signed by the host's own key, exchanged at STS, and optionally for a service
//! account's token at IAM Credentials. No long-lived Google secret exists on the host.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enforcer_proto::time::NS_PER_S;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::exchange::{Post, post};
use super::impersonation::{impersonate, impersonated_principal};
use super::signer::jwt;
use super::{
    AccessToken, BEYOND_WINDOW, Bearer, Endpoint, IssuerError, IssuerKeys, LIFE_S_MAX, MintRequest,
    Minted, Minter, SCOPE_BIGQUERY, SCOPE_CLOUD_PLATFORM, TokenError, plus,
};
use crate::causes::Causes;
use crate::upstream::Upstream;

/// Assertions begin this long ago, for clocks that differ; Google refuses one from the future.
const BACKDATE_S: u64 = 10;
/// The longest subject Google maps, bytes.
const SUBJECT_BYTES_MAX: usize = 127;
/// What all mapped attributes may have together, bytes.
const CLAIMS_BYTES_MAX: usize = 8192;
/// The default bound on `exp - iat`; the provider's attribute condition should hold the same number.
pub const ASSERTION_LIFE_MAX: Duration = Duration::from_secs(900);
/// What an exchange has beside its assertion, at most: names, and an audience, bytes.
const FORM_BYTES_MAX: usize = 4096;
/// What stands in a claim that has nothing to say.
const NONE: &str = "none";
/// RFC 8693's name for an access token.
const ACCESS_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Where the host is known, and as what.
#[derive(Debug, Clone)]
pub struct FederationOptions {
    /// The workload identity provider's resource name: `//iam.googleapis.com/projects/…/providers/…`.
    pub audience: String,
    /// The JWT's `iss`.
    pub issuer: String,
    /// STS's token address.
    pub sts_url: String,
    /// IAM Credentials' address, without path.
    pub iam_url: String,
    /// The bound on `exp - iat` of an assertion; [`ASSERTION_LIFE_MAX`] unless the provider's condition says otherwise.
    pub assertion_life_max: Duration,
}

impl FederationOptions {
    /// Options with the default bound on an assertion's life.
    #[must_use]
    pub const fn new(audience: String, issuer: String, sts_url: String, iam_url: String) -> Self {
        Self {
            audience,
            issuer,
            sts_url,
            iam_url,
            assertion_life_max: ASSERTION_LIFE_MAX,
        }
    }
}

/// The federation minter.
#[derive(Debug)]
pub struct Federation {
    options: FederationOptions,
    keys: IssuerKeys,
    upstream: Arc<Upstream>,
    /// The key's id that signed last.
    signs: watch::Sender<Option<String>>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    iat: u64,
    exp: u64,
    jti: &'a str,
    host: &'a str,
    agent: &'a str,
    session: &'a str,
    grant: &'a str,
    approver: &'a str,
    /// `none` where there is none: Google's mapping fails where a claim is missing.
    reason: &'a str,
    /// `ds:project.dataset`: Google maps them to groups.
    datasets: Vec<String>,
}

#[derive(Deserialize)]
struct StsAnswer {
    access_token: SecretString,
    token_type: String,
    issued_token_type: Option<String>,
    /// A number; some servers send it as text, or with a fraction, or not at all.
    expires_in: Option<Value>,
}

/// A signed JWT, and how long it lasts.
struct Assertion {
    jwt: Zeroizing<String>,
    life_s: u64,
    /// The id of the key that signed it.
    kid: String,
}

impl Federation {
    /// A minter with these keys.
    #[must_use]
    pub fn new(options: FederationOptions, keys: IssuerKeys, upstream: Arc<Upstream>) -> Self {
        Self {
            options,
            keys,
            upstream,
            signs: watch::Sender::new(None),
        }
    }

    /// By which key assertions are signed, once one was; and whenever it is another.
    #[must_use]
    pub fn signs(&self) -> watch::Receiver<Option<String>> {
        self.signs.subscribe()
    }

    fn has_signed(&self, kid: &str) {
        self.signs.send_if_modified(|known| {
            let is_other = known.as_deref() != Some(kid);
            if is_other {
                *known = Some(kid.to_owned());
            }
            is_other
        });
    }

    /// The public halves of the keys that it signs with, the one that signs now first.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub async fn published(&self) -> Result<Value, IssuerError> {
        // Another may have taken over since the last look.
        self.keys.signing().await?;
        self.keys.jwks().await
    }

    /// The JWT for one window.
    async fn assertion(&self, request: &MintRequest) -> Result<Assertion, TokenError> {
        let subject = subject(request);
        if subject.len() > SUBJECT_BYTES_MAX {
            return Err(TokenError::SubjectTooLong(subject.len()));
        }
        let now_s = request.now.unix_ns / NS_PER_S;
        let iat = now_s.saturating_sub(BACKDATE_S);
        let wanted = request.remaining.saturating_add(BEYOND_WINDOW).as_secs();
        let cap = iat.saturating_add(self.options.assertion_life_max.as_secs());
        let exp = now_s.saturating_add(wanted).min(cap);
        let read = request.datasets.iter().map(|name| format!("ds:{name}"));
        let written = request.writable.iter().map(|name| format!("dsw:{name}"));
        let claims = Claims {
            iss: &self.options.issuer,
            aud: &self.options.audience,
            sub: &subject,
            iat,
            exp,
            jti: &request.session,
            host: &request.host,
            agent: &agent_claim(request),
            session: &request.session,
            grant: &request.grant,
            approver: &request.approver,
            reason: request.reason_digest.as_deref().unwrap_or(NONE),
            datasets: read.chain(written).collect(),
        };
        let claims = serde_json::to_vec(&claims).map_err(|_| TokenError::Sign)?;
        if claims.len() > CLAIMS_BYTES_MAX {
            return Err(TokenError::ClaimsTooLarge(claims.len()));
        }
        let key = self.keys.signing().await.map_err(|error| {
            tracing::warn!(error = %Causes(&error), "the issuer key");
            TokenError::from(error.to_caller())
        })?;
        let jwt = jwt(key.as_ref(), &claims).await?;
        self.has_signed(key.public().kid());
        Ok(Assertion {
            jwt,
            life_s: exp.saturating_sub(now_s),
            kid: key.public().kid().to_owned(),
        })
    }

    async fn exchange(&self, request: &MintRequest, scope: &str) -> Result<Minted, TokenError> {
        let assertion = self.assertion(request).await?;
        // Made once in its whole size: growing would leave copies of the assertion.
        let room = FORM_BYTES_MAX + assertion.jwt.len();
        let body = form_urlencoded::Serializer::new(String::with_capacity(room))
            .append_pair(
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            )
            .append_pair("audience", &self.options.audience)
            .append_pair("scope", scope)
            .append_pair("requested_token_type", ACCESS_TOKEN_TYPE)
            .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
            .append_pair("subject_token", &assertion.jwt)
            .finish();
        let answer: StsAnswer = post(
            &self.upstream,
            Post {
                endpoint: Endpoint::Sts,
                url: &self.options.sts_url,
                content_type: "application/x-www-form-urlencoded",
                body: Zeroizing::new(body),
                bearer: None,
            },
        )
        .await?;
        let (token, life_s) = answer.checked(assertion.life_s)?;
        self.keys.known(&assertion.kid);
        Ok(Minted {
            token,
            expires_boot_ns: plus(request.now.boot_ns, life_s),
            principal: format!(
                "principal:{}/subject/{}",
                pool(&self.options.audience),
                subject(request)
            ),
        })
    }
}

#[async_trait]
impl Minter for Federation {
    fn doubts(&self) -> Vec<String> {
        self.keys.doubt().into_iter().collect()
    }

    async fn mint(&self, request: &MintRequest) -> Result<Minted, TokenError> {
        let Some(account) = &request.service_account else {
            return self.exchange(request, SCOPE_BIGQUERY).await;
        };
        let federated = self.exchange(request, SCOPE_CLOUD_PLATFORM).await?;
        let (token, expires_boot_ns) = impersonate(
            &self.upstream,
            &self.options.iam_url,
            account,
            &federated.token,
            request,
        )
        .await?;
        Ok(Minted {
            token,
            expires_boot_ns,
            principal: impersonated_principal(account),
        })
    }
}

impl StsAnswer {
    /// The token and its life in seconds: where none is said, no more than is left of what was exchanged for it.
    fn checked(self, assertion_life_s: u64) -> Result<(AccessToken, u64), TokenError> {
        let unusable = |why| TokenError::Unusable {
            endpoint: Endpoint::Sts,
            why,
        };
        if !self.token_type.eq_ignore_ascii_case("Bearer") {
            return Err(unusable("its token is no bearer token"));
        }
        if self
            .issued_token_type
            .is_some_and(|kind| kind != ACCESS_TOKEN_TYPE)
        {
            return Err(unusable("its token is no access token"));
        }
        let life_s = match &self.expires_in {
            None => assertion_life_s,
            Some(said) => seconds(said)
                .ok_or_else(|| unusable("what it says of its token's life is no time"))?,
        };
        let life_s = life_s.min(LIFE_S_MAX);
        if life_s == 0 {
            return Err(unusable("its token has ended already"));
        }
        let token = AccessToken::new(self.access_token)
            .ok_or_else(|| unusable("its token cannot stand in a header"))?;
        Ok((token, life_s))
    }
}

/// The estimator's is of another kind than agents', so that no agent that is named like it has ever had its rights.
fn subject(request: &MintRequest) -> String {
    let kind = match request.bearer {
        Bearer::Agent => "agent",
        Bearer::Estimator => "estimator",
    };
    format!("{}/{kind}/{}", request.host, request.agent)
}

/// The claim that Google may map to `attribute.agent`. All claims are there for the estimator too, since a mapping that finds none fails; a slash
/// is in no agent's name, so no binding to an agent is one to the estimator.
fn agent_claim(request: &MintRequest) -> String {
    match request.bearer {
        Bearer::Agent => request.agent.clone(),
        Bearer::Estimator => format!("estimator/{}", request.agent),
    }
}

/// The pool a provider belongs to.
fn pool(audience: &str) -> &str {
    audience.split("/providers/").next().unwrap_or(audience)
}

/// Whole seconds of what is a time; none of what is not. One that is past is zero, and one that no number can hold is very long.
fn seconds(said: &Value) -> Option<u64> {
    let seconds = match said {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    let seconds = seconds.filter(|seconds| seconds.is_finite())?;
    let most = Duration::from_secs(LIFE_S_MAX).as_secs_f64();
    Some(Duration::from_secs_f64(seconds.clamp(0.0, most)).as_secs())
}
