//! When the resolvers were heard last, by the daemon's own look-ups: those that keep the protected addresses true. Agents' questions are not counted
//! here: whoever asks for a name whose servers are broken would say of ours that they are.

use std::collections::BTreeMap;
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

#[derive(Debug, Clone)]
struct Seen {
    /// When the last answer came, or when nothing had been asked yet (boot-time clock).
    since_boot_ns: u64,
    has_answered: bool,
    /// Names whose last look-up has failed, in the family that is named with them, and since when. As many as are protected at most.
    failing: BTreeMap<(String, &'static str), u64>,
    /// Look-ups that have failed since the start.
    failed: u64,
}

impl Heard {
    /// Nothing was asked yet.
    #[must_use]
    pub fn new(names: Arc<dyn Lookup>, clock: Arc<dyn Clock>) -> Self {
        let seen = Mutex::new(Seen {
            since_boot_ns: clock.now().boot_ns,
            has_answered: false,
            failing: BTreeMap::new(),
            failed: 0,
        });
        Self { names, clock, seen }
    }

    /// What there is to say of the resolvers. Something is wrong where none has answered for `SILENT_S_MAX` seconds though it was asked, and
    /// something is to be looked at where the last look-up of a name has failed, whatever became of others.
    #[must_use]
    pub fn check(&self) -> (CheckState, String) {
        let seen = self.seen().clone();
        let silent_s = self.silent_s(&seen);
        let last = if seen.has_answered {
            format!("the resolvers answered {silent_s} s ago")
        } else {
            format!("no resolver has answered since the start, {silent_s} s ago")
        };
        let state = if seen.failing.is_empty() {
            CheckState::Well
        } else if silent_s > SILENT_S_MAX {
            CheckState::Bad
        } else {
            CheckState::Warning
        };
        let longest = seen.failing.iter().min_by_key(|(_, since)| **since);
        let failing = longest.map_or_else(String::new, |((name, family), since_ns)| {
            let now = self.clock.now().boot_ns;
            let age_s = now.saturating_sub(*since_ns) / NS_PER_S;
            let others = seen.failing.len() - 1;
            let others = if others == 0 {
                String::new()
            } else {
                format!(" and {others} more")
            };
            format!("; {name} ({family}){others} not answered, for {age_s} s")
        });
        let said = format!(
            "{last}{failing}; {} look-ups of the daemon's failed since the start",
            seen.failed
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
        let family = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let name = (name.to_owned(), family);
        if answer.is_ok() {
            seen.since_boot_ns = now;
            seen.has_answered = true;
            seen.failing.remove(&name);
        } else {
            seen.failing.entry(name).or_insert(now);
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
            heard.check().1.contains("answered 7 s ago; 0 look-ups of"),
            "{}",
            heard.check().1
        );
        servers.are_silent.store(true, Ordering::Relaxed);
        let (state, said) = ask().await;
        assert_eq!(state, CheckState::Warning, "{said}");
        assert!(
            said.contains("bigquery.googleapis.com (IPv4) not answered, for 0 s"),
            "{said}"
        );
        assert_eq!(heard.fault(), None);
        clock.advance_ns(SILENT_S_MAX * NS_PER_S);
        let (state, said) = ask().await;
        assert_eq!(state, CheckState::Bad, "{said}");
        assert!(
            heard
                .fault()
                .is_some_and(|fault| fault.contains("bigquery.googleapis.com"))
        );
        servers.are_silent.store(false, Ordering::Relaxed);
        let (state, said) = ask().await;
        assert_eq!((state, heard.fault()), (CheckState::Well, None), "{said}");
        assert!(
            said.contains("2 look-ups of the daemon's failed since the start"),
            "{said}"
        );
    }

    #[tokio::test]
    async fn a_name_that_is_not_answered_is_told_though_others_are() {
        let servers = Arc::new(Servers::default());
        let clock = Arc::new(ManualClock::at(enforcer_proto::time::Now {
            boot_ns: 1,
            unix_ns: 1,
        }));
        let heard = Heard::new(Arc::clone(&servers) as _, Arc::clone(&clock) as _);
        for _ in 0..5 {
            for (name, is_silent) in [
                ("bigquery.googleapis.com", true),
                ("sts.googleapis.com", false),
            ] {
                servers.are_silent.store(is_silent, Ordering::Relaxed);
                let _ = heard.lookup(name, Family::V4).await;
            }
            clock.advance_ns(60 * NS_PER_S);
        }
        let (state, said) = heard.check();
        assert_eq!(state, CheckState::Warning, "{said}");
        assert!(
            said.contains("bigquery.googleapis.com (IPv4) not answered, for 300 s"),
            "{said}"
        );
    }
}
