//! Time as a value. Deadlines stand on the boot-time clock (`CLOCK_BOOTTIME`, which counts suspend and never steps); people read unix time.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanoseconds in a second.
pub const NS_PER_S: u64 = 1_000_000_000;

/// One instant on both clocks, sampled once per event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// `CLOCK_BOOTTIME`, nanoseconds since boot; the only clock that decides.
    pub boot_ns: u64,
    /// `CLOCK_REALTIME`, nanoseconds since 1970; only shown and recorded.
    pub unix_ns: u64,
}

impl Now {
    /// This instant moved on by `ns`, on both clocks.
    #[must_use]
    pub const fn plus_ns(self, ns: u64) -> Self {
        Self {
            boot_ns: self.boot_ns.saturating_add(ns),
            unix_ns: self.unix_ns.saturating_add(ns),
        }
    }
}

/// How long a window is asked for or granted, whole seconds, at least 1 and at most [`Ttl::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ttl(u32);

/// A ttl outside 1 s ..= 12 h, or one that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TtlError {
    /// The text is not `<number>s`, `m` or `h`.
    #[error("`{0}` is not a duration: write it as 90s, 15m or 1h")]
    Unreadable(String),
    /// Zero, or longer than the hard ceiling.
    #[error("a window lasts between 1s and 12h, not {0}")]
    OutOfRange(String),
}

impl Ttl {
    /// The hard ceiling of any window, whatever a policy says: 12 hours.
    pub const MAX: Self = Self(12 * 3600);

    /// A ttl of `seconds`.
    ///
    /// # Errors
    /// [`TtlError::OutOfRange`] for zero or more than 12 hours.
    pub fn from_seconds(seconds: u64) -> Result<Self, TtlError> {
        u32::try_from(seconds)
            .ok()
            .map(Self)
            .filter(|ttl| ttl.0 > 0 && *ttl <= Self::MAX)
            .ok_or_else(|| TtlError::OutOfRange(format!("{seconds}s")))
    }

    /// The shortest ttl: a second.
    pub const MIN: Self = Self(1);

    /// Whole seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.0 as u64
    }

    /// Nanoseconds.
    #[must_use]
    pub const fn ns(self) -> u64 {
        self.seconds() * NS_PER_S
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

impl std::str::FromStr for Ttl {
    type Err = TtlError;

    fn from_str(text: &str) -> Result<Self, TtlError> {
        let unreadable = || TtlError::Unreadable(text.chars().take(32).collect());
        let (digits, unit) = match text.char_indices().last() {
            Some((at, 's')) => (&text[..at], 1),
            Some((at, 'm')) => (&text[..at], 60),
            Some((at, 'h')) => (&text[..at], 3600),
            _ => return Err(unreadable()),
        };
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(unreadable());
        }
        let count: u64 = digits
            .parse()
            .map_err(|_| TtlError::OutOfRange(text.chars().take(32).collect()))?;
        Self::from_seconds(count.saturating_mul(unit))
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_read_with_a_unit_and_held_to_twelve_hours() {
        assert_eq!("15m".parse::<Ttl>().map(Ttl::seconds), Ok(900));
        assert_eq!("12h".parse::<Ttl>(), Ok(Ttl::MAX));
        for text in [
            "",
            "15",
            "m",
            "-1m",
            "1.5h",
            "0s",
            "13h",
            "43201s",
            "99999999999999999999h",
            "15 m",
            "1é",
        ] {
            assert!(text.parse::<Ttl>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_ttl_is_shown_as_it_is_read() {
        for text in ["1s", "90s", "15m", "1h", "12h"] {
            assert_eq!(
                text.parse::<Ttl>().map(|ttl| ttl.to_string()),
                Ok(text.to_owned())
            );
        }
    }
}
