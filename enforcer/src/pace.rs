//! How fast somebody may do something: a bucket of tokens that refills with time. Pure: the time comes from the caller.

use std::time::Duration;

/// So many at once, and so many a second from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The most tokens there can be.
    pub burst: u32,
    /// How many come back in a second.
    pub per_second: u32,
}

/// One bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    pace: Pace,
    /// What was taken and has not come back, thousandths of a token.
    spent: u64,
    /// When `spent` was true, nanoseconds on the boot-time clock.
    at_boot_ns: u64,
}

/// Nanoseconds for one thousandth of a token at one token a second.
const NS_PER_MILLI: u64 = 1_000_000;

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(pace: Pace) -> Self {
        Self {
            pace,
            spent: 0,
            at_boot_ns: 0,
        }
    }

    /// Takes `tokens`, if there are as many; takes none otherwise. More than the burst are never there.
    pub fn take(&mut self, tokens: u32, now_boot_ns: u64) -> bool {
        self.refill(now_boot_ns);
        let spent = self.spent.saturating_add(u64::from(tokens) * 1000);
        let is_there = spent <= u64::from(self.pace.burst) * 1000;
        if is_there {
            self.spent = spent;
        }
        is_there
    }

    /// Whether nothing is spent: then it need not be remembered.
    pub fn is_full(&mut self, now_boot_ns: u64) -> bool {
        self.refill(now_boot_ns);
        self.spent == 0
    }

    fn refill(&mut self, now_boot_ns: u64) {
        let passed = now_boot_ns.saturating_sub(self.at_boot_ns);
        let back = u128::from(passed) * u128::from(self.pace.per_second) / u128::from(NS_PER_MILLI);
        // What is not yet a whole thousandth is left for the next time.
        if back > 0 {
            self.spent = self
                .spent
                .saturating_sub(u64::try_from(back).unwrap_or(u64::MAX));
            self.at_boot_ns = now_boot_ns;
        }
    }
}

impl Pace {
    /// How long one token takes to come back.
    #[must_use]
    pub fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACE: Pace = Pace {
        burst: 10,
        per_second: 5,
    };
    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_as_many_as_come_back() {
        let mut bucket = Bucket::new(PACE);
        let passed = |bucket: &mut Bucket, now| (0..100).filter(|_| bucket.take(1, now)).count();
        assert_eq!(passed(&mut bucket, SECOND), 10);
        assert_eq!(passed(&mut bucket, 2 * SECOND), 5);
        assert_eq!(passed(&mut bucket, 100 * SECOND), 10);
        assert!(!bucket.is_full(100 * SECOND) && bucket.is_full(103 * SECOND));
    }

    #[test]
    fn what_is_dearer_than_the_burst_never_passes() {
        assert!(!Bucket::new(PACE).take(11, u64::MAX));
    }

    proptest! {
        #[test]
        fn never_more_pass_than_burst_and_time_allow(steps in prop::collection::vec((0_u64..SECOND, 1_u32..4), 1..200)) {
            let mut bucket = Bucket::new(PACE);
            let (mut now, mut passed) = (SECOND, 0_u64);
            let began = now;
            for (wait, tokens) in steps {
                now += wait;
                if bucket.take(tokens, now) {
                    passed += u64::from(tokens);
                }
            }
            prop_assert!(passed <= 10 + (now - began) * 5 / SECOND + 1);
        }
    }
}
