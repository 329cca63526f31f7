//! The only reader of clocks in the daemon. Everything else gets a [`Now`] as an argument.

use std::sync::Mutex;

use enforcer_proto::time::Now;
use rustix::time::{ClockId, clock_gettime};

/// Where time comes from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// This instant on both clocks.
    fn now(&self) -> Now;
}

/// The host's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        Now {
            boot_ns: read(ClockId::Boottime),
            unix_ns: read(ClockId::Realtime),
        }
    }
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// A clock that stands still until it is told.
#[derive(Debug)]
pub struct ManualClock(Mutex<Now>);

impl ManualClock {
    /// Stands at `now`.
    #[must_use]
    pub const fn at(now: Now) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves on by `ns`, on both clocks.
    pub fn advance_ns(&self, ns: u64) {
        let now = self.now();
        self.set(now.plus_ns(ns));
    }

    /// Stands at `now` from now on: somebody set the wall clock.
    pub fn set(&self, now: Now) {
        *self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        *self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
