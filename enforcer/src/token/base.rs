//! The host's own identity, by gcp_auth: its calls have no bound of their own, so every one gets one here.
//! gcp_auth logs answers' bodies at WARN: telemetry must keep its target at ERROR.

use std::sync::Arc;
use std::time::Duration;

use gcp_auth::TokenProvider;
use secrecy::SecretString;

use super::{AccessToken, Endpoint, SCOPE_CLOUD_PLATFORM, TokenError};

/// The bound on one call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Finds the host's base identity: the file `GOOGLE_APPLICATION_CREDENTIALS` names, application-default credentials, the metadata server, gcloud.
///
/// # Errors
/// [`TokenError::NoBaseIdentity`] or [`TokenError::Timeout`].
pub async fn base_identity() -> Result<Arc<dyn TokenProvider>, TokenError> {
    match tokio::time::timeout(TIMEOUT, gcp_auth::provider()).await {
        Ok(Ok(provider)) => Ok(provider),
        Ok(Err(_)) => Err(TokenError::NoBaseIdentity),
        Err(_) => Err(late()),
    }
}

/// The base identity's token.
pub(super) async fn token(base: &dyn TokenProvider) -> Result<AccessToken, TokenError> {
    let scopes = [SCOPE_CLOUD_PLATFORM];
    let asked = tokio::time::timeout(TIMEOUT, base.token(&scopes));
    // The error is dropped: it can quote what the source answered.
    let token = asked
        .await
        .map_err(|_| late())?
        .map_err(|_| TokenError::NoBaseIdentity)?;
    AccessToken::new(SecretString::from(token.as_str())).ok_or(TokenError::Unusable {
        endpoint: Endpoint::Base,
        why: "its token cannot stand in a header",
    })
}

const fn late() -> TokenError {
    TokenError::Timeout {
        endpoint: Endpoint::Base,
    }
}
