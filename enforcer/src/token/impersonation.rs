//! Service-account tokens from IAM Credentials: for the federation minter, and as a minter of its own on the host's base identity.

use std::sync::Arc;

use async_trait::async_trait;
use enforcer_proto::time::NS_PER_S;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::exchange::{Post, post};
use super::{
    AccessToken, BEYOND_WINDOW, BaseIdentity, Endpoint, MintRequest, Minted, Minter,
    SCOPE_BIGQUERY, TokenError, plus,
};
use crate::upstream::Upstream;

/// The shortest life Google documents, seconds.
const LIFE_S_MIN: u64 = 300;
/// The life asked for when the shortest was not accepted, seconds.
const LIFE_S_RETRY: u64 = 600;
/// The longest life asked for, seconds: 3600 fails when the clocks differ.
const LIFE_S_MAX: u64 = 3300;

/// The minter that has no issuer key: the host's base identity becomes the agent's service account.
pub struct Impersonation {
    base: BaseIdentity,
    iam_url: String,
    upstream: Arc<Upstream>,
}

impl std::fmt::Debug for Impersonation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Impersonation")
            .field("iam_url", &self.iam_url)
            .finish_non_exhaustive()
    }
}

impl Impersonation {
    /// A minter on this base identity.
    #[must_use]
    pub const fn new(base: BaseIdentity, iam_url: String, upstream: Arc<Upstream>) -> Self {
        Self {
            base,
            iam_url,
            upstream,
        }
    }
}

#[async_trait]
impl Minter for Impersonation {
    async fn mint(&self, request: &MintRequest) -> Result<Minted, TokenError> {
        let account = request
            .service_account
            .as_ref()
            .ok_or(TokenError::NoServiceAccount)?;
        let base = self.base.token().await?;
        let by = |base| async move {
            impersonate(&self.upstream, &self.iam_url, account, &base, request).await
        };
        let (token, expires_boot_ns) = match by(base.clone()).await {
            // It has ended before its time, or was revoked: the source may have another.
            Err(refused @ TokenError::Refused { status: 401, .. }) => {
                match self.base.instead_of(&base).await? {
                    Some(base) => by(base).await?,
                    None => return Err(refused),
                }
            }
            other => other?,
        };
        Ok(Minted {
            token,
            expires_boot_ns,
            principal: impersonated_principal(account),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    access_token: SecretString,
    expire_time: jiff::Timestamp,
}

/// How a service account is named in records.
pub(super) fn impersonated_principal(account: &str) -> String {
    format!("serviceAccount:{account}")
}

/// Asks for the account's token; with the shortest lives, Google's floor is found by one second try.
pub(super) async fn impersonate(
    upstream: &Upstream,
    iam_url: &str,
    account: &str,
    with: &AccessToken,
    request: &MintRequest,
) -> Result<(AccessToken, u64), TokenError> {
    if !is_account(account) {
        return Err(TokenError::BadServiceAccount);
    }
    let wanted_s = request.remaining.saturating_add(BEYOND_WINDOW).as_secs();
    let life_s = wanted_s.clamp(LIFE_S_MIN, LIFE_S_MAX);
    let url = format!(
        "{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken",
        iam_url.trim_end_matches('/')
    );
    let first = generate(upstream, &url, with, life_s).await;
    let answer = match first {
        Err(TokenError::Refused { status: 400, .. }) if life_s < LIFE_S_RETRY => {
            generate(upstream, &url, with, LIFE_S_RETRY).await?
        }
        other => other?,
    };
    checked(answer, request)
}

async fn generate(
    upstream: &Upstream,
    url: &str,
    with: &AccessToken,
    life_s: u64,
) -> Result<Answer, TokenError> {
    let body = json!({
        "scope": [SCOPE_BIGQUERY],
        "lifetime": format!("{life_s}s"),
        "delegates": [],
    });
    let body = Zeroizing::new(body.to_string());
    let request = Post {
        endpoint: Endpoint::IamCredentials,
        url,
        content_type: "application/json",
        body,
        bearer: Some(with),
    };
    post(upstream, request).await
}

fn checked(answer: Answer, request: &MintRequest) -> Result<(AccessToken, u64), TokenError> {
    let unusable = |why| TokenError::Unusable {
        endpoint: Endpoint::IamCredentials,
        why,
    };
    let expires_s = u64::try_from(answer.expire_time.as_second()).unwrap_or(0);
    let now_s = request.now.unix_ns / NS_PER_S;
    let life_s = expires_s
        .checked_sub(now_s)
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| unusable("its token has expired already; is the host's clock right?"))?;
    let token = AccessToken::new(answer.access_token)
        .ok_or_else(|| unusable("its token cannot stand in a header"))?;
    // Nothing longer was asked for: believing it would only keep the token too long.
    Ok((token, plus(request.now.boot_ns, life_s.min(LIFE_S_MAX))))
}

/// The name goes into a path: nothing that could change it.
fn is_account(account: &str) -> bool {
    let sound = |part: &str, extra: u8| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == extra)
    };
    account.len() <= 254
        && account.split_once('@').is_some_and(|(name, domain)| {
            sound(name, b'_') && sound(domain, b'.') && !domain.contains("..")
        })
}
