//! Tokens by window: one holder for each grant, made when it is first needed, dropped after its close.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::{Code, Refusal};
use http::HeaderValue;

use crate::atomic_file::{self, Rights};
use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::{Config, TokenSource};
use crate::engine::OpenWindow;
use crate::proxy::Tokens;
use crate::token::{
    Federation, FederationOptions, Impersonation, IssuerKey, MintRequest, Minter, TokenError,
    WindowTokens, base_identity,
};
use crate::upstream::Upstream;

/// The minter that the configuration names. Publishes the issuer's public key where the operator and Google's set-up find it.
pub(super) async fn minter(config: &Config, upstream: &Arc<Upstream>) -> Result<Arc<dyn Minter>> {
    match &config.token {
        TokenSource::Federation {
            audience,
            issuer,
            sts_url,
            iam_url,
        } => {
            let key = IssuerKey::open(&config.state_dir.join("issuer.pem"))?;
            let jwks = config.run_dir.join("jwks.json");
            let published = key.jwks().to_string();
            atomic_file::replace(&jwks, published.as_bytes(), Rights::of_mode(0o644))
                .with_context(|| {
                    format!("publishing the issuer's public key at {}", jwks.display())
                })?;
            let options = FederationOptions::new(
                audience.clone(),
                issuer.clone(),
                sts_url.clone(),
                iam_url.clone(),
            );
            Ok(Arc::new(Federation::new(
                options,
                key,
                Arc::clone(upstream),
            )))
        }
        TokenSource::Impersonation { iam_url } => {
            let base = base_identity().await?;
            Ok(Arc::new(Impersonation::new(
                base,
                iam_url.clone(),
                Arc::clone(upstream),
            )))
        }
    }
}

/// The holders of tokens, by grant.
pub(super) struct ByWindow {
    host: String,
    accounts: BTreeMap<AgentName, Option<String>>,
    minter: Arc<dyn Minter>,
    clock: Arc<dyn Clock>,
    windows: Mutex<BTreeMap<GrantId, Arc<WindowTokens>>>,
}

impl ByWindow {
    pub(super) fn new(config: &Config, minter: Arc<dyn Minter>, clock: Arc<dyn Clock>) -> Self {
        let accounts = config
            .agents
            .iter()
            .map(|agent| (agent.name.clone(), agent.service_account.clone()))
            .collect();
        Self {
            host: config.host.clone(),
            accounts,
            minter,
            clock,
            windows: Mutex::default(),
        }
    }

    /// The window's holder, made when there is none.
    fn of(&self, window: &OpenWindow) -> Arc<WindowTokens> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let request = MintRequest {
                agent: window.agent.to_string(),
                host: self.host.clone(),
                grant: window.grant.to_string(),
                session: format!("{}-{}", self.host, window.grant),
                datasets: window
                    .scope
                    .datasets()
                    .iter()
                    .map(ToString::to_string)
                    .collect(),
                approver: window.approver.to_string(),
                service_account: self.accounts.get(&window.agent).cloned().flatten(),
                remaining: Duration::ZERO,
                now: self.clock.now(),
            };
            Arc::new(WindowTokens::new(
                Arc::clone(&self.minter),
                Arc::clone(&self.clock),
                request,
                window.closes_boot_ns,
            ))
        };
        Arc::clone(windows.entry(window.grant).or_insert_with(made))
    }
}

fn unavailable(window: &OpenWindow, error: &TokenError) -> Refusal {
    tracing::warn!(grant = %window.grant, error = %Causes(error), "no token");
    Refusal::new(
        Code::TokenUnavailable,
        format!("Access Denied: BigQuery: {error}"),
    )
}

#[async_trait]
impl Tokens for ByWindow {
    async fn for_query(&self, window: &OpenWindow) -> Result<HeaderValue, Refusal> {
        let token = self
            .of(window)
            .token()
            .await
            .map_err(|error| unavailable(window, &error))?;
        Ok(token.bearer())
    }

    async fn for_cancel(&self, window: &OpenWindow) -> Result<HeaderValue, Refusal> {
        let held = self
            .windows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&window.grant)
            .cloned();
        let none = || {
            Refusal::new(
                Code::TokenUnavailable,
                format!("No token is held for window {}", window.grant),
            )
        };
        let token = held
            .ok_or_else(none)?
            .for_cancel()
            .await
            .map_err(|error| unavailable(window, &error))?;
        Ok(token.bearer())
    }

    fn forget(&self, grant: GrantId) {
        let held = self
            .windows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&grant);
        if let Some(held) = held {
            held.close();
        }
    }
}
