//! Tokens by window: one holder for each grant, made when it is first needed, dropped after its close.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::Access;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::atomic_file::{self, Rights};
use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::{Agent, Config, KeyStore, MinterKind, TokenSource};
use crate::doctor::Keys;
use crate::engine::{Engine, OpenWindow};
use crate::proxy::Tokens;
use crate::token::{
    self, AccessToken, BaseIdentity, Bearer, Credential, EstimatorTokens, Federation,
    FederationOptions, Impersonation, IssuerKeys, MintRequest, Minted, Minter, RotationError,
    TokenError, WindowTokens,
};
use crate::upstream::Upstream;

/// Those that mint, each for whom the configuration says.
#[derive(Debug)]
pub(super) struct Minters {
    federation: Option<Federation>,
    impersonation: Option<Impersonation>,
}

impl Minters {
    /// By which key the host's own assertions are signed; none where it makes none.
    pub(super) fn signs(&self) -> Option<watch::Receiver<Option<String>>> {
        self.federation.as_ref().map(Federation::signs)
    }
}

/// Records which key signs, until `stop`.
pub(super) async fn record_keys(
    mut signs: watch::Receiver<Option<String>>,
    engine: Engine,
    stop: CancellationToken,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(signs.changed()).await {
        let kid = signs.borrow_and_update().clone();
        if let Some(kid) = kid {
            engine.note(Event::IssuerKeySigns { kid }).await;
        }
    }
}

/// The keys of the minter that is there: an HSM's module has one state in a process, and a second user of it would end the first one's sessions.
#[derive(Debug)]
pub(super) struct TheirKeys {
    pub(super) minters: Arc<Minters>,
    pub(super) state_dir: PathBuf,
    pub(super) store: KeyStore,
}

#[async_trait]
impl Keys for TheirKeys {
    async fn published(&self) -> Result<Value, RotationError> {
        match &self.minters.federation {
            Some(federation) => Ok(federation.published().await?),
            None => token::jwks(&self.state_dir, &self.store).await,
        }
    }
}

#[async_trait]
impl Minter for Minters {
    fn doubts(&self) -> Vec<String> {
        let federation = self.federation.as_ref();
        federation.map(Minter::doubts).unwrap_or_default()
    }

    async fn mint(&self, request: &MintRequest) -> Result<Minted, TokenError> {
        let minter: Option<&dyn Minter> = match request.minter {
            MinterKind::Federation => self.federation.as_ref().map(|minter| minter as _),
            MinterKind::Impersonation => self.impersonation.as_ref().map(|minter| minter as _),
        };
        let minter = minter.ok_or(TokenError::NoMinter(request.minter))?;
        minter.mint(request).await
    }
}

/// The minters that the configuration names. Publishes the issuer's public key where the operator and Google's set-up find it. Programs are run in
/// cgroups of their own in `helpers`.
pub(super) async fn minters(
    config: &Config,
    upstream: &Arc<Upstream>,
    helpers: &Path,
) -> Result<Minters> {
    let keys = match &config.token {
        TokenSource::Federation { keys, .. } => {
            let keys = IssuerKeys::open(&config.state_dir, keys).await?;
            publish(&config.run_dir, &keys.jwks().await?)?;
            Some(keys)
        }
        TokenSource::Impersonation { .. } => None,
    };
    let base = if config.mints_by(MinterKind::Impersonation) {
        Some(BaseIdentity::find(config.base, helpers).await?)
    } else {
        None
    };
    Ok(with(config, keys, base, upstream))
}

/// The same of what is there: makes no key and publishes none, and what is missing fails where it is needed.
pub(super) async fn minters_there(
    config: &Config,
    upstream: &Arc<Upstream>,
    helpers: &Path,
) -> Minters {
    let store = config.token.keys();
    // Opened only where there is one: opening makes one.
    let keys = match token::jwks(&config.state_dir, store).await {
        Ok(_) => IssuerKeys::open(&config.state_dir, store).await.ok(),
        Err(_) => None,
    };
    let base = if config.mints_by(MinterKind::Impersonation) {
        BaseIdentity::find(config.base, helpers).await.ok()
    } else {
        None
    };
    with(config, keys, base, upstream)
}

fn with(
    config: &Config,
    keys: Option<IssuerKeys>,
    base: Option<BaseIdentity>,
    upstream: &Arc<Upstream>,
) -> Minters {
    let (iam_url, options) = match &config.token {
        TokenSource::Federation {
            audience,
            issuer,
            sts_url,
            iam_url,
            keys: _,
            project: _,
        } => {
            let options = FederationOptions::new(
                audience.clone(),
                issuer.clone(),
                sts_url.clone(),
                iam_url.clone(),
            );
            (iam_url, Some(options))
        }
        TokenSource::Impersonation { iam_url } => (iam_url, None),
    };
    let federation = options.zip(keys);
    let federation =
        federation.map(|(options, keys)| Federation::new(options, keys, Arc::clone(upstream)));
    let impersonation =
        base.map(|base| Impersonation::new(base, iam_url.clone(), Arc::clone(upstream)));
    Minters {
        federation,
        impersonation,
    }
}

/// Puts the issuer's public keys where the operator and Google's set-up find them.
pub(crate) fn publish(run_dir: &Path, jwks: &Value) -> Result<()> {
    let path = run_dir.join("jwks.json");
    atomic_file::replace(&path, jwks.to_string().as_bytes(), Rights::of_mode(0o644))
        .with_context(|| format!("publishing the issuer's public keys at {}", path.display()))
}

/// The estimator's tokens, where the operator has turned it on.
pub(super) fn of_estimator(
    config: &Config,
    minter: &Arc<dyn Minter>,
    clock: &Arc<dyn Clock>,
) -> Option<EstimatorTokens> {
    let estimator = config.estimator.as_ref()?;
    Some(EstimatorTokens::new(
        Arc::clone(minter),
        Arc::clone(clock),
        &config.host,
        estimator,
    ))
}

/// As whom an agent asks Google.
struct Identity {
    minter: MinterKind,
    service_account: Option<String>,
    quota_project: Option<String>,
}

/// The holders of tokens, by grant.
pub(super) struct ByWindow {
    host: String,
    identities: BTreeMap<AgentName, Identity>,
    /// Whoever has left the configuration while its window was open: its jobs are still to be cancelled.
    others: Identity,
    minter: Arc<dyn Minter>,
    clock: Arc<dyn Clock>,
    windows: Mutex<BTreeMap<GrantId, Arc<WindowTokens>>>,
}

impl ByWindow {
    pub(super) fn new(config: &Config, minter: Arc<dyn Minter>, clock: Arc<dyn Clock>) -> Self {
        let identity = |agent: &Agent| Identity {
            minter: agent.minter,
            service_account: agent.service_account.clone(),
            quota_project: agent.quota_project.clone(),
        };
        let identities = config
            .agents
            .iter()
            .map(|agent| (agent.name.clone(), identity(agent)))
            .collect();
        Self {
            host: config.host.clone(),
            identities,
            others: Identity {
                minter: config.token.kind(),
                service_account: None,
                quota_project: None,
            },
            minter,
            clock,
            windows: Mutex::default(),
        }
    }

    fn identity(&self, agent: &AgentName) -> &Identity {
        self.identities.get(agent).unwrap_or(&self.others)
    }

    fn credential(&self, window: &OpenWindow, token: &AccessToken) -> Credential {
        let identity = self.identity(&window.agent);
        Credential::new(token, identity.quota_project.as_deref())
    }

    /// The window's holder, where there is one.
    fn held(&self, window: &OpenWindow) -> Option<Arc<WindowTokens>> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.get(&window.grant).cloned()
    }

    /// The window's holder, made when there is none.
    fn of(&self, window: &OpenWindow) -> Arc<WindowTokens> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || {
            let all = window.scope.datasets();
            let writable = window
                .scope
                .datasets()
                .filter(|(_, access)| *access >= Access::Write);
            let identity = self.identity(&window.agent);
            let now = self.clock.now();
            let request = MintRequest {
                bearer: Bearer::Agent,
                agent: window.agent.to_string(),
                host: self.host.clone(),
                grant: window.grant.to_string(),
                // Also of a window that a daemon before had begun: no two assertions have one name.
                session: format!("{}-{}-{}", self.host, window.grant, now.unix_ns),
                datasets: all.map(|(dataset, _)| dataset.to_string()).collect(),
                writable: writable.map(|(dataset, _)| dataset.to_string()).collect(),
                approver: window.approver.to_string(),
                reason_digest: window.reason_digest.clone(),
                minter: identity.minter,
                service_account: identity.service_account.clone(),
                remaining: Duration::ZERO,
                now,
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
    Refusal::new(error.code(), format!("Access Denied: BigQuery: {error}"))
}

#[async_trait]
impl Tokens for ByWindow {
    async fn for_query(&self, window: &OpenWindow) -> Result<Credential, Refusal> {
        let token = self
            .of(window)
            .token()
            .await
            .map_err(|error| unavailable(window, &error))?;
        Ok(self.credential(window, &token))
    }

    fn begin(&self, window: &OpenWindow) {
        self.of(window).begin();
    }

    async fn for_cancel(&self, window: &OpenWindow) -> Result<Credential, Refusal> {
        let held = self.held(window);
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
        Ok(self.credential(window, &token))
    }

    async fn refused(&self, window: &OpenWindow, credential: &Credential) {
        if let Some(held) = self.held(window) {
            held.refused(credential).await;
        }
    }

    fn close(&self, window: &OpenWindow) {
        // Made where there is none yet, so that a request that is on its way finds it closed instead of making its own.
        self.of(window).close();
    }

    async fn forget(&self, grant: GrantId) {
        let held = self
            .windows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&grant);
        // A request that still waits for the holder keeps it alive, but empty.
        if let Some(held) = held {
            held.forget().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use enforcer_proto::principal::Approver;
    use enforcer_proto::time::{NS_PER_S, Now};
    use secrecy::SecretString;
    use zeroize::ZeroizeOnDrop;

    use super::*;
    use crate::clock::ManualClock;

    const NOW: Now = Now {
        boot_ns: NS_PER_S,
        unix_ns: NS_PER_S,
    };

    #[derive(Debug, Default)]
    struct Mint(AtomicUsize);

    #[async_trait]
    impl Minter for Mint {
        async fn mint(&self, _: &MintRequest) -> Result<Minted, TokenError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(Minted {
                token: AccessToken::new(SecretString::from("ya29.x")).expect("sound"),
                expires_boot_ns: 600 * NS_PER_S,
                principal: "p".to_owned(),
            })
        }
    }

    fn tokens() -> (Arc<Mint>, ByWindow) {
        let mint = Arc::new(Mint::default());
        let tokens = ByWindow {
            host: "host-a".to_owned(),
            identities: BTreeMap::new(),
            others: Identity {
                minter: MinterKind::Federation,
                service_account: None,
                quota_project: None,
            },
            minter: Arc::clone(&mint) as _,
            clock: Arc::new(ManualClock::at(NOW)),
            windows: Mutex::default(),
        };
        (mint, tokens)
    }

    fn window() -> OpenWindow {
        OpenWindow {
            reason_digest: None,
            is_of_text: false,
            grant: GrantId(7),
            agent: "bot".parse().expect("a name"),
            scope: "p.finance:read".parse().expect("a scope"),
            approver: Approver::Policy { rule: 1 },
            closes_boot_ns: 300 * NS_PER_S,
        }
    }

    #[tokio::test]
    async fn a_closed_windows_token_cancels_and_does_nothing_else() {
        let (mint, tokens) = tokens();
        tokens.for_query(&window()).await.expect("open");
        tokens.close(&window());
        assert!(tokens.for_query(&window()).await.is_err());
        assert!(tokens.for_cancel(&window()).await.is_ok());
        assert_eq!(mint.0.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_token_that_is_begun_is_the_one_that_is_asked_for_later_and_none_is_begun_after_the_close()
     {
        let (mint, tokens) = tokens();
        for _ in 0..3 {
            tokens.begin(&window());
        }
        tokio::task::yield_now().await;
        assert_eq!(mint.0.load(Ordering::SeqCst), 1);
        tokens.for_query(&window()).await.expect("open");
        assert_eq!(mint.0.load(Ordering::SeqCst), 1);

        let (mint, tokens) = self::tokens();
        tokens.close(&window());
        tokens.begin(&window());
        tokio::task::yield_now().await;
        assert_eq!(mint.0.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_request_that_comes_after_the_close_mints_nothing_though_there_was_no_token_before() {
        let (mint, tokens) = tokens();
        tokens.close(&window());
        assert!(tokens.for_query(&window()).await.is_err());
        assert_eq!(mint.0.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_forgotten_token_is_dropped_and_wiped_also_for_who_still_holds_its_holder() {
        const fn wiped_on_drop<T: ZeroizeOnDrop>() {}
        wiped_on_drop::<SecretString>();
        let (_, tokens) = tokens();
        tokens.for_query(&window()).await.expect("open");
        let held = tokens.of(&window());
        assert!(held.principal().await.is_some(), "a token is held");
        tokens.close(&window());
        tokens.forget(GrantId(7)).await;
        assert!(held.principal().await.is_none(), "the token is dropped");
        assert!(tokens.for_cancel(&window()).await.is_err());
        let last = Arc::downgrade(&held);
        drop(held);
        assert_eq!(last.strong_count(), 0, "nobody keeps the holder");
    }
}
