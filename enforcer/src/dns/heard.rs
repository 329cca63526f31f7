//! When the resolvers were heard last, by the daemon's own look-ups: those that keep the protected addresses true. Agents' questions are not counted
//! here: whoever asks for a name whose servers are broken would say of ours that they are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use enforcer_proto::time::NS_PER_S;
use enforcer_proto::wire::CheckState;

use super::endpoints::{BACKOFF_MAX, TTL_MAX};
use super::{Answer, Family, Lookup, NamesError};
use crate::clock::Clock;

/// How long the resolvers may be silent until that is a fault, seconds: as long as a name is not asked for again at most, and one more try.
const SILENT_S_MAX: u64 = TTL_MAX.as_secs() + BACKOFF_MAX.as_secs();

/// Look-ups, and what came of them.
#[derive(Debug)]
pub struct Heard {
    names: Arc<dyn Lookup>,
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When the last answer came, or when nothing had been asked yet (boot-time clock).
    since_boot_ns: u64,
    has_answered: bool,
    /// Look-ups that have failed since.
    failed_since: u64,
    /// The same since the start.
    failed: u64,
}

impl Heard {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(names: Arc<dyn Lookup>, clock: Arc<dyn Clock>) -> Self {
        let seen = Mutex::new(Seen {
            since_boot_ns: clock.now().boot_ns,
            has_answered: false,
            failed_since: 0,
            failed: 0,
        });
        Self { names, clock, seen }
    }

    /// What there is to say of the resolvers. Something is wrong where none has answered for `SILENT_S_MAX` seconds though it was asked, and
    /// something is to be looked at where a look-up has failed since the last answer.
    #[must_use]
    pub fn check(&self) -> (CheckState, String) {
        let seen = *self.seen();
        let silent_s = self.silent_s(&seen);
        let last = if seen.has_answered {
            format!("the resolvers answered {silent_s} s ago")
        } else {
            format!("no resolver has answered since the start, {silent_s} s ago")
        };
        let state = if seen.failed_since == 0 {
            CheckState::Well
        } else if silent_s > SILENT_S_MAX {
            CheckState::Bad
        } else {
            CheckState::Warning
        };
        let said = format!(
            "{last}; {} look-ups of the daemon's failed since, {} since the start",
            seen.failed_since, seen.failed
        );
        (state, said)
    }

    /// What is wrong, where something is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let (state, said) = self.check();
        match state {
            CheckState::Bad => Some(format!(
                "names are not resolved, and addresses that are new are not protected: {said}. Check the servers under [names] resolvers"
            )),
            CheckState::Well | CheckState::Warning | CheckState::Unknown => None,
        }
    }

    fn silent_s(&self, seen: &Seen) -> u64 {
        let now = self.clock.now().boot_ns;
        now.saturating_sub(seen.since_boot_ns) / NS_PER_S
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Lookup for Heard {
    async fn lookup(&self, name: &str, family: Family) -> Result<Answer, NamesError> {
        let answer = self.names.lookup(name, family).await;
        let now = self.clock.now().boot_ns;
        let mut seen = self.seen();
        if answer.is_ok() {
            seen.since_boot_ns = now;
            seen.has_answered = true;
            seen.failed_since = 0;
        } else {
            seen.failed_since = seen.failed_since.saturating_add(1);
            seen.failed = seen.failed.saturating_add(1);
        }
        drop(seen);
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::clock::ManualClock;

    #[derive(Debug, Default)]
    struct Servers {
        are_silent: AtomicBool,
    }

    #[async_trait]
    impl Lookup for Servers {
        async fn lookup(&self, name: &str, _: Family) -> Result<Answer, NamesError> {
            if self.are_silent.load(Ordering::Relaxed) {
                return Err(super::super::failed(name, &"no answer"));
            }
            Ok(Answer::default())
        }
    }

    #[tokio::test]
    async fn resolvers_are_well_while_they_answer_doubtful_once_one_failed_and_bad_after_minutes_of_silence()
     {
        let servers = Arc::new(Servers::default());
        let clock = Arc::new(ManualClock::at(enforcer_proto::time::Now {
            boot_ns: 1,
            unix_ns: 1,
        }));
        let heard = Heard::new(Arc::clone(&servers) as _, Arc::clone(&clock) as _);
        let ask = async || {
            let _ = heard.lookup("bigquery.googleapis.com", Family::V4).await;
            heard.check()
        };
        let (state, said) = ask().await;
        assert_eq!(state, CheckState::Well, "{said}");
        clock.advance_ns(7 * NS_PER_S);
        assert!(
            heard.check().1.contains("answered 7 s ago; 0 look-ups"),
            "{}",
            heard.check().1
        );
        servers.are_silent.store(true, Ordering::Relaxed);
        let (state, said) = ask().await;
        assert_eq!(state, CheckState::Warning, "{said}");
        assert!(
            said.contains("1 look-ups of the daemon's failed since"),
            "{said}"
        );
        assert_eq!(heard.fault(), None);
        clock.advance_ns(SILENT_S_MAX * NS_PER_S);
        let (state, said) = ask().await;
        assert_eq!(state, CheckState::Bad, "{said}");
        assert!(
            heard
                .fault()
                .is_some_and(|fault| fault.contains("2 look-ups"))
        );
        servers.are_silent.store(false, Ordering::Relaxed);
        let (state, said) = ask().await;
        assert_eq!((state, heard.fault()), (CheckState::Well, None), "{said}");
        assert!(said.contains("2 since the start"), "{said}");
    }
}
