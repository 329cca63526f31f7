//! What keeps just-in-time from becoming always-on: how often an agent may ask, how soon again, and how much of a day it may hold a window.

use crate::time::{NS_PER_S, Ttl};

/// How long a request waits for a decision where a rule does not say, seconds.
pub const PENDING_TTL_S: u64 = 600;
/// The longest that a rule may let a request wait, seconds: a day.
pub const PENDING_TTL_S_MAX: u64 = 24 * 3600;
/// The most requests of one agent that wait at once.
pub const PENDING_PER_AGENT_MAX: usize = 8;
/// The most requests in an hour that a rule may allow.
pub const REQUESTS_PER_HOUR_CEILING: u32 = 1000;
/// The largest share of a day that a rule may allow, per cent: what is open for longer is no window.
pub const DUTY_PERCENT_CEILING: u32 = 50;
/// The longest cooldown and the longest backoff that a rule may name, seconds: a day.
pub const WAIT_S_MAX: u64 = 24 * 3600;
/// How often a backoff doubles, at most.
pub const BACKOFF_DOUBLINGS_MAX: u32 = 6;

/// Nanoseconds of the day that slides.
pub const DAY_NS: u64 = 24 * 3600 * NS_PER_S;

/// How a rule bounds asking and holding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most datasets that one request may name.
    pub datasets_max: usize,
    /// How long a request waits for a decision, seconds.
    pub pending_ttl_s: u64,
    /// How long after the end of a window the agent may not ask again, seconds.
    pub cooldown_s: u64,
    /// The most requests in a sliding hour.
    pub requests_per_hour_max: u32,
    /// How long after a denial the agent may not ask again, seconds; twice as long after each further one, until a
    /// person grants it something.
    pub backoff_s: u64,
    /// The most windows that the rule's agents, all together, may hold at once.
    pub windows_at_once_max: usize,
    /// The largest share of a sliding 24 hours that the agent may hold a window, per cent.
    pub duty_percent_max: u32,
}

impl Limits {
    /// What holds where a rule says nothing.
    pub const TIGHT: Self = Self {
        datasets_max: 1,
        pending_ttl_s: PENDING_TTL_S,
        cooldown_s: 0,
        requests_per_hour_max: 12,
        backoff_s: 30,
        windows_at_once_max: 16,
        duty_percent_max: 25,
    };

    /// How long of a sliding day the agent may hold a window, nanoseconds.
    #[must_use]
    pub const fn duty_ns_max(&self) -> u64 {
        DAY_NS / 100 * self.duty_percent_max as u64
    }

    /// Whether a window of this length fits into what the agent may hold of a day, where it has held none.
    #[must_use]
    pub const fn lets_hold(&self, ttl: Ttl) -> bool {
        ttl.ns() <= self.duty_ns_max()
    }

    /// How long the agent waits after so many denials in a row, nanoseconds; nothing after none.
    #[must_use]
    pub fn backoff_ns(&self, denials: u32) -> u64 {
        let Some(doublings) = denials.checked_sub(1) else {
            return 0;
        };
        let times = 1_u64 << doublings.min(BACKOFF_DOUBLINGS_MAX);
        self.backoff_s
            .saturating_mul(times)
            .min(WAIT_S_MAX)
            .saturating_mul(NS_PER_S)
    }

    /// The share of a day that a window of this length takes, per cent, rounded up.
    #[must_use]
    pub const fn share_of(ttl: Ttl) -> u64 {
        (ttl.ns() * 100).div_ceil(DAY_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_and_has_an_end() {
        let limits = Limits {
            backoff_s: 30,
            ..Limits::TIGHT
        };
        let seconds = |denials| limits.backoff_ns(denials) / NS_PER_S;
        assert_eq!(
            [seconds(0), seconds(1), seconds(2), seconds(3)],
            [0, 30, 60, 120]
        );
        assert_eq!(seconds(u32::MAX), 30 << BACKOFF_DOUBLINGS_MAX);
    }
}
