//! The only reader of clocks in the console: how long it has been running, which nobody can set back.

use std::time::{Duration, Instant};

/// A clock that began when it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// One that begins now.
    #[expect(clippy::disallowed_methods, reason = "this is where time comes from")]
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    /// How long ago that was.
    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    /// The same, milliseconds.
    pub(crate) fn ms(self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
