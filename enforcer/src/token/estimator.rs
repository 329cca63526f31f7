//! The tokens of the estimator, the daemon's own identity for dry runs: minted by the same minter as windows' tokens, once however many ask, held
//! until they end, and wiped then. They belong to no window, so nothing closes them; their life is short instead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Bearer, Credential, MintRequest, Minted, Minter, TokenError, WindowTokens};
use crate::clock::Clock;
use crate::config;

/// How long a token is asked for. Google's shortest is less, but a token for each of a few queries would be one more delay for each.
const LIFE: Duration = Duration::from_secs(600);
/// What stands in claims where a window's token names the window and who approved it.
const NONE: &str = "none";

/// The estimator's tokens. No window's token comes from here, and nothing else than [`crate::proxy::estimator`] has one of these.
#[derive(Debug)]
pub struct EstimatorTokens {
    tokens: WindowTokens,
    quota_project: Option<String>,
}

impl EstimatorTokens {
    /// Tokens for this host's estimator, or for its service account.
    #[must_use]
    pub fn new(
        minter: Arc<dyn Minter>,
        clock: Arc<dyn Clock>,
        host: &str,
        estimator: &config::Estimator,
    ) -> Self {
        let name = estimator.name.as_str();
        let now = clock.now();
        let template = MintRequest {
            bearer: Bearer::Estimator,
            agent: name.to_owned(),
            host: host.to_owned(),
            grant: NONE.to_owned(),
            session: format!("{host}-{name}-{}", now.unix_ns),
            datasets: Vec::new(),
            writable: Vec::new(),
            approver: NONE.to_owned(),
            reason_digest: None,
            minter: estimator.minter,
            service_account: estimator.service_account.clone(),
            remaining: LIFE,
            now,
        };
        Self {
            tokens: WindowTokens::new(Arc::new(Shortly(minter)), clock, template, u64::MAX),
            quota_project: estimator.quota_project.clone(),
        }
    }

    /// What a dry run carries.
    ///
    /// # Errors
    /// [`TokenError`].
    pub(crate) async fn for_dry_run(&self) -> Result<Credential, TokenError> {
        let token = self.tokens.token().await?;
        Ok(Credential::new(&token, self.quota_project.as_deref()))
    }

    /// BigQuery does not take it: the next dry run has another.
    pub(crate) async fn refused(&self, credential: &Credential) {
        self.tokens.refused(credential).await;
    }
}

/// A minter whose tokens live no longer than [`LIFE`].
#[derive(Debug)]
struct Shortly(Arc<dyn Minter>);

#[async_trait]
impl Minter for Shortly {
    async fn mint(&self, request: &MintRequest) -> Result<Minted, TokenError> {
        let shortly = MintRequest {
            remaining: request.remaining.min(LIFE),
            ..request.clone()
        };
        self.0.mint(&shortly).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use enforcer_proto::time::{NS_PER_S, Now};
    use secrecy::SecretString;

    use super::*;
    use crate::clock::ManualClock;
    use crate::config::MinterKind;
    use crate::token::AccessToken;

    #[derive(Debug, Default)]
    struct Mint(Mutex<Vec<MintRequest>>);

    #[async_trait]
    impl Minter for Mint {
        async fn mint(&self, request: &MintRequest) -> Result<Minted, TokenError> {
            let mut seen = self.0.lock().expect("no panic");
            seen.push(request.clone());
            Ok(Minted {
                token: AccessToken::new(SecretString::from(format!("ya29.{}", seen.len())))
                    .expect("sound"),
                expires_boot_ns: request.now.boot_ns + 600 * NS_PER_S,
                principal: "p".to_owned(),
            })
        }
    }

    #[tokio::test]
    async fn a_token_is_minted_once_however_many_ask_and_anew_before_it_ends() {
        let start = Now {
            boot_ns: NS_PER_S,
            unix_ns: NS_PER_S,
        };
        let (mint, clock) = (Arc::new(Mint::default()), Arc::new(ManualClock::at(start)));
        let tokens = EstimatorTokens::new(
            Arc::clone(&mint) as _,
            Arc::clone(&clock) as _,
            "host-a",
            &config::Estimator {
                name: "estimator".parse().expect("a name"),
                service_account: None,
                minter: MinterKind::Federation,
                quota_project: None,
            },
        );
        let (one, two) = tokio::join!(tokens.for_dry_run(), tokens.for_dry_run());
        let one = one.expect("a token").authorization().clone();
        assert_eq!(&one, two.expect("a token").authorization());
        assert!(one.is_sensitive() && one == "Bearer ya29.1");
        clock.set(Now {
            boot_ns: 595 * NS_PER_S,
            unix_ns: 595 * NS_PER_S,
        });
        assert_eq!(
            tokens.for_dry_run().await.expect("a token").authorization(),
            "Bearer ya29.2"
        );
        let seen = mint.0.lock().expect("no panic");
        assert_eq!(seen.len(), 2);
        for request in seen.iter() {
            assert_eq!(request.bearer, Bearer::Estimator);
            assert_eq!(
                (request.grant.as_str(), request.approver.as_str()),
                ("none", "none")
            );
            assert!(request.datasets.is_empty() && request.remaining == LIFE);
        }
        assert_ne!(seen[0].session, seen[1].session);
    }
}
