//! The tokens of one window: minted once however many ask, kept for this grant alone, refused from the close on, also to
//! requests that were already waiting. The last token stays for cancelling jobs, or one is minted for that; then it is dropped and wiped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use enforcer_proto::time::NS_PER_S;
use serde::Serialize;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{AccessToken, Credential, MintRequest, Minted, Minter, TokenError};
use crate::clock::Clock;

/// How long after the close, and after the end of the window as it was granted, a token may still cancel jobs. It is dropped as soon as they are.
pub const CANCEL_GRACE: Duration = super::BEYOND_WINDOW;
/// A token this close to its end is replaced; less for tokens that live shortly.
const REFRESH_MARGIN_NS: u64 = 20 * NS_PER_S;
/// What the margin may take of a token's life: a quarter.
const REFRESH_SHARE: u64 = 4;
/// How long a failure is repeated to everyone before the minter is asked again: an agent's haste is not Google's load.
const FAILURE_HOLD_NS: u64 = NS_PER_S;
/// How often at most a token that BigQuery does not take is dropped for another: a token that is new does not help where the one before was new too.
const REFUSED_PACE_NS: u64 = 10 * NS_PER_S;
/// "Not closed."
const OPEN: u64 = u64::MAX;

/// One window's tokens.
#[derive(Debug)]
pub struct WindowTokens {
    minter: Arc<dyn Minter>,
    clock: Arc<dyn Clock>,
    /// What is minted for; `remaining`, `now` and the number in `session` are set each time.
    template: MintRequest,
    closes_boot_ns: u64,
    /// When it was closed, on the boot-time clock; [`OPEN`] until then.
    closed_boot_ns: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: Option<Held>,
    /// The last failure and when it became known: those who waited for it share it instead of trying in turn.
    failed: Option<(u64, TokenError)>,
    minted: u64,
    /// When one was dropped last that BigQuery did not take, boot clock.
    dropped_boot_ns: Option<u64>,
    /// Nothing is minted any more, for nothing.
    is_forgotten: bool,
}

#[derive(Debug)]
struct Held {
    minted: Minted,
    since_boot_ns: u64,
}

impl Held {
    const fn valid(&self, now_boot_ns: u64) -> bool {
        now_boot_ns < self.minted.expires_boot_ns
    }

    /// Good enough not to be replaced: it lasts, or it outlives the window anyway.
    fn fresh(&self, now_boot_ns: u64, closes_boot_ns: u64) -> bool {
        let life = self
            .minted
            .expires_boot_ns
            .saturating_sub(self.since_boot_ns);
        let margin = REFRESH_MARGIN_NS.min(life / REFRESH_SHARE);
        let lasts = now_boot_ns.saturating_add(margin) < self.minted.expires_boot_ns;
        self.valid(now_boot_ns) && (lasts || self.minted.expires_boot_ns >= closes_boot_ns)
    }
}

impl WindowTokens {
    /// Tokens for the window that closes at `closes_boot_ns`. `template.session` names the window; each minting adds its number.
    #[must_use]
    pub fn new(
        minter: Arc<dyn Minter>,
        clock: Arc<dyn Clock>,
        template: MintRequest,
        closes_boot_ns: u64,
    ) -> Self {
        Self {
            minter,
            clock,
            template,
            closes_boot_ns,
            closed_boot_ns: AtomicU64::new(OPEN),
            state: Mutex::default(),
        }
    }

    /// A token for a query. The window is looked at before the cache, and once more after waiting.
    ///
    /// # Errors
    /// [`TokenError::Closed`] from the close or the deadline on; else why none could be minted.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        let asked_boot_ns = self.open_now()?;
        let mut state = self.state.lock().await;
        let now_boot_ns = self.open_now()?;
        if let Some(held) = &state.held
            && held.fresh(now_boot_ns, self.closes_boot_ns)
        {
            return Ok(held.minted.token.clone());
        }
        if let Some((failed_boot_ns, error)) = &state.failed
            && (*failed_boot_ns > asked_boot_ns
                || now_boot_ns < failed_boot_ns.saturating_add(FAILURE_HOLD_NS))
        {
            return state.still_valid(now_boot_ns).ok_or_else(|| error.clone());
        }
        let outcome = self.minter.mint(&self.request(&mut state)).await;
        let done_boot_ns = self.clock.now().boot_ns;
        match outcome {
            Ok(minted) => {
                let token = minted.token.clone();
                state.held = Some(Held {
                    minted,
                    since_boot_ns: now_boot_ns,
                });
                state.failed = None;
                drop(state);
                // Closed meanwhile: the token stays for cancelling, it is not handed out for a query.
                self.open_now().map(|_| token)
            }
            Err(error) => {
                state.failed = Some((done_boot_ns, error.clone()));
                self.open_now()?;
                state.still_valid(done_boot_ns).ok_or(error)
            }
        }
    }

    /// Begins to mint, where no token is held or being minted, and waits for nothing: whoever asks next shares what comes of it.
    pub fn begin(self: &Arc<Self>) {
        // Who holds the lock mints already.
        let is_wanted = self.state.try_lock().is_ok_and(|state| {
            let now_boot_ns = self.clock.now().boot_ns;
            let held = state.held.as_ref();
            !held.is_some_and(|held| held.fresh(now_boot_ns, self.closes_boot_ns))
        });
        if is_wanted && self.open_now().is_ok() {
            let own = Arc::clone(self);
            // Why none could be had is for those who ask for one.
            tokio::spawn(async move { drop(own.token().await) });
        }
    }

    /// A token for cancelling this window's jobs, only until shortly after the close: the last one, or, when the window has closed and
    /// none is held (the daemon was dead), one that is minted with the shortest life. [`Self::token`] never gives it out: that asks
    /// first whether the window is open.
    ///
    /// # Errors
    /// [`TokenError::Closed`] when the window is open and holds no token, or the grace is over; what is held is wiped then. Else why none
    /// could be minted.
    pub async fn for_cancel(&self) -> Result<AccessToken, TokenError> {
        let mut state = self.state.lock().await;
        let now_boot_ns = self.clock.now().boot_ns;
        if now_boot_ns >= self.cancel_until_boot_ns() {
            state.held = None;
            return Err(TokenError::Closed);
        }
        if let Some(token) = state.still_valid(now_boot_ns) {
            return Ok(token);
        }
        if state.is_forgotten || self.open_now().is_ok() {
            return Err(TokenError::Closed);
        }
        if let Some((failed_boot_ns, error)) = &state.failed
            && now_boot_ns < failed_boot_ns.saturating_add(FAILURE_HOLD_NS)
        {
            return Err(error.clone());
        }
        let request = MintRequest {
            remaining: Duration::ZERO,
            ..self.request(&mut state)
        };
        match self.minter.mint(&request).await {
            Ok(minted) => {
                let token = minted.token.clone();
                state.held = Some(Held {
                    minted,
                    since_boot_ns: now_boot_ns,
                });
                Ok(token)
            }
            Err(error) => {
                state.failed = Some((self.clock.now().boot_ns, error.clone()));
                Err(error)
            }
        }
    }

    /// BigQuery does not take what this credential carries: where that is held, it is dropped, and who asks next has another minted. No more often
    /// than once in ten seconds.
    pub async fn refused(&self, credential: &Credential) {
        let mut state = self.state.lock().await;
        let now_boot_ns = self.clock.now().boot_ns;
        let is_held = |held: &Held| held.minted.token.bearer() == credential.authorization();
        let is_due = state
            .dropped_boot_ns
            .is_none_or(|dropped| now_boot_ns >= dropped.saturating_add(REFUSED_PACE_NS));
        if is_due && state.held.as_ref().is_some_and(is_held) {
            tracing::warn!(session = %self.template.session, "BigQuery does not take a token that should be good still: it is dropped");
            state.held = None;
            state.dropped_boot_ns = Some(now_boot_ns);
        }
    }

    /// Closes: from now on no token is handed out for a query, whatever is cached or under way. Closing again changes nothing.
    pub fn close(&self) {
        let now_boot_ns = self.clock.now().boot_ns;
        // A second close must not lengthen the grace.
        let _ = self.closed_boot_ns.compare_exchange(
            OPEN,
            now_boot_ns,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
    }

    /// Closes, and drops and wipes what is held.
    pub async fn forget(&self) {
        self.close();
        *self.state.lock().await = State {
            is_forgotten: true,
            ..State::default()
        };
    }

    /// Whom Google sees, once a token has been minted.
    pub async fn principal(&self) -> Option<String> {
        let state = self.state.lock().await;
        let held = state.held.as_ref()?;
        Some(held.minted.principal.clone())
    }

    fn cancel_until_boot_ns(&self) -> u64 {
        let grace = u64::try_from(CANCEL_GRACE.as_nanos()).unwrap_or(u64::MAX);
        // As long as BigQuery may run its jobs: each has a timeout that ends with the window as it was granted. Whoever was dead or frozen at the
        // deadline closes late, and has its jobs to cancel all the same.
        let ended_boot_ns = match self.closed_boot_ns.load(Ordering::SeqCst) {
            OPEN => self.closes_boot_ns,
            closed => closed.max(self.closes_boot_ns),
        };
        ended_boot_ns.saturating_add(grace)
    }

    /// Now, while the window is open.
    fn open_now(&self) -> Result<u64, TokenError> {
        let now_boot_ns = self.clock.now().boot_ns;
        let closed = self.closed_boot_ns.load(Ordering::SeqCst) != OPEN;
        if closed || now_boot_ns >= self.closes_boot_ns {
            Err(TokenError::Closed)
        } else {
            Ok(now_boot_ns)
        }
    }

    fn request(&self, state: &mut State) -> MintRequest {
        state.minted = state.minted.saturating_add(1);
        let now = self.clock.now();
        MintRequest {
            session: format!("{}-{}", self.template.session, state.minted),
            remaining: Duration::from_nanos(self.closes_boot_ns.saturating_sub(now.boot_ns)),
            now,
            ..self.template.clone()
        }
    }
}

impl State {
    fn still_valid(&self, now_boot_ns: u64) -> Option<AccessToken> {
        let held = self.held.as_ref().filter(|held| held.valid(now_boot_ns))?;
        Some(held.minted.token.clone())
    }
}

#[async_trait]
impl gcp_auth::TokenProvider for WindowTokens {
    /// The scopes are the minter's: a window's token is for BigQuery alone.
    async fn token(&self, _scopes: &[&str]) -> Result<Arc<gcp_auth::Token>, gcp_auth::Error> {
        #[derive(Serialize)]
        struct Shape<'a> {
            access_token: &'a str,
            expires_in: u64,
        }
        let token = Self::token(self)
            .await
            .map_err(|error| gcp_auth::Error::Other("no token for this window", Box::new(error)))?;
        let now_boot_ns = self.clock.now().boot_ns;
        let shape = Shape {
            access_token: token.expose(),
            expires_in: self.closes_boot_ns.saturating_sub(now_boot_ns) / NS_PER_S,
        };
        // Its only public constructor is Deserialize.
        let unfit = |error| gcp_auth::Error::Json("no token for this window", error);
        let json = Zeroizing::new(serde_json::to_string(&shape).map_err(unfit)?);
        serde_json::from_str(&json).map(Arc::new).map_err(unfit)
    }

    async fn project_id(&self) -> Result<Arc<str>, gcp_auth::Error> {
        Err(gcp_auth::Error::Str("a window has no project of its own"))
    }
}
