//! Watches over the minting of tokens: how often it went well, and for whom it did not. Mints nothing itself, and keeps no token.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use enforcer_proto::time::NS_PER_S;

use crate::causes::Causes;
use crate::clock::Clock;
use crate::token::{MintRequest, Minted, Minter, TokenError};

/// How long that no token could be had is held against the daemon's health, where nobody asks for one again.
const KEPT_NS: u64 = 600 * NS_PER_S;

/// A minter that is watched.
#[derive(Debug)]
pub(super) struct Minting {
    minter: Arc<dyn Minter>,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    minted: u64,
    failed: u64,
    last_boot_ns: Option<u64>,
    /// By agent, of which there are as many as are configured.
    troubles: BTreeMap<String, Trouble>,
}

#[derive(Debug)]
struct Trouble {
    why: String,
    boot_ns: u64,
}

impl Minting {
    pub(super) fn new(minter: Arc<dyn Minter>, clock: Arc<dyn Clock>) -> Self {
        Self {
            minter,
            clock,
            seen: Mutex::default(),
        }
    }

    /// For which agents no token could be had, and why, one sentence each; and what may come to that.
    pub(super) fn troubles(&self) -> Vec<String> {
        let doubts = self.minter.doubts();
        let now = self.clock.now().boot_ns;
        let seen = self.seen();
        let lasts = |trouble: &Trouble| now.saturating_sub(trouble.boot_ns) < KEPT_NS;
        let troubles = seen.troubles.iter();
        troubles
            .filter(|(_, trouble)| lasts(trouble))
            .map(|(agent, trouble)| format!("{agent}: {}", trouble.why))
            .chain(doubts)
            .collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Minter for Minting {
    async fn mint(&self, request: &MintRequest) -> Result<Minted, TokenError> {
        let came = self.minter.mint(request).await;
        let boot_ns = self.clock.now().boot_ns;
        let mut seen = self.seen();
        match &came {
            Ok(_) => {
                seen.minted += 1;
                seen.last_boot_ns = Some(boot_ns);
                seen.troubles.remove(&request.agent);
            }
            Err(error) => {
                seen.failed += 1;
                let why = Causes(error).to_string();
                let trouble = Trouble { why, boot_ns };
                seen.troubles.insert(request.agent.clone(), trouble);
            }
        }
        drop(seen);
        came
    }
}

impl fmt::Display for Minting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.clock.now().boot_ns;
        let seen = self.seen();
        write!(
            f,
            "tokens since the start: {} minted, {} that could not be had",
            seen.minted, seen.failed
        )?;
        match seen.last_boot_ns {
            Some(last) => write!(
                f,
                ", the last minted {} s ago",
                now.saturating_sub(last) / NS_PER_S
            ),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use enforcer_proto::time::Now;
    use secrecy::SecretString;

    use super::*;
    use crate::clock::ManualClock;
    use crate::token::{AccessToken, Bearer};

    #[derive(Debug, Default)]
    struct Flaky(AtomicBool);

    #[async_trait]
    impl Minter for Flaky {
        async fn mint(&self, _: &MintRequest) -> Result<Minted, TokenError> {
            if self.0.load(Ordering::SeqCst) {
                return Err(TokenError::NoServiceAccount);
            }
            Ok(Minted {
                token: AccessToken::new(SecretString::from("ya29.x")).expect("sound"),
                expires_boot_ns: u64::MAX,
                principal: "p".to_owned(),
            })
        }
    }

    const NOW: Now = Now {
        boot_ns: 1000 * NS_PER_S,
        unix_ns: 1000 * NS_PER_S,
    };

    fn request() -> MintRequest {
        MintRequest {
            bearer: Bearer::Agent,
            agent: "bot".to_owned(),
            host: "host-a".to_owned(),
            grant: "G1".to_owned(),
            session: "host-a-G1".to_owned(),
            datasets: Vec::new(),
            writable: Vec::new(),
            approver: "uid:5001".to_owned(),
            reason_digest: None,
            minter: crate::config::MinterKind::Federation,
            service_account: None,
            remaining: Duration::from_secs(60),
            now: NOW,
        }
    }

    #[tokio::test]
    async fn a_token_that_cannot_be_had_is_said_until_one_is_had_or_nobody_asks_any_more() {
        let minter = Arc::new(Flaky::default());
        let clock = Arc::new(ManualClock::at(NOW));
        let minting = Minting::new(Arc::clone(&minter) as _, Arc::clone(&clock) as _);
        assert_eq!(
            minting.to_string(),
            "tokens since the start: 0 minted, 0 that could not be had"
        );
        minter.0.store(true, Ordering::SeqCst);
        minting.mint(&request()).await.expect_err("unreachable");
        let [said] = minting.troubles().try_into().expect("one");
        assert!(said.starts_with("bot: token could not be had: "), "{said}");

        minter.0.store(false, Ordering::SeqCst);
        minting.mint(&request()).await.expect("a token");
        assert!(minting.troubles().is_empty());
        assert_eq!(
            minting.to_string(),
            "tokens since the start: 1 minted, 1 that could not be had, the last minted 0 s ago"
        );

        minter.0.store(true, Ordering::SeqCst);
        minting.mint(&request()).await.expect_err("unreachable");
        clock.advance_ns(KEPT_NS);
        assert!(minting.troubles().is_empty(), "nobody asks any more");
    }
}
