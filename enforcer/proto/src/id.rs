//! Numbered ids. The log numbers them: one host, one log, one sequence per kind. They carry no secret and are safe to show.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the id it should be, such as `g-01` or `x-1`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {kind}: write it as {example}")]
pub struct IdError {
    text: String,
    kind: &'static str,
    example: &'static str,
}

macro_rules! id {
    ($name:ident, $prefix:literal, $kind:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The id after this one. Saturates: the log cannot hold 2^64 records.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "-{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Accepts only the canonical spelling, so that two texts never name one thing.
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "-"))
                    .and_then(|digits| digits.parse::<u64>().ok())
                    .map(Self)
                    .filter(|id| id.to_string() == text)
                    .ok_or_else(|| IdError {
                        text: text.chars().take(64).collect(),
                        kind: $kind,
                        example: concat!($prefix, "-17"),
                    })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(RequestId, "r", "a request id", "One asking for a window.");
id!(
    GrantId,
    "g",
    "a grant id",
    "What an approval creates; its window has the same id."
);
id!(
    SessionId,
    "s",
    "a session id",
    "One agent connection through the proxy."
);
id!(
    QueryId,
    "q",
    "a query id",
    "One admitted BigQuery API request."
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_only_in_its_canonical_spelling() {
        assert_eq!("g-17".parse(), Ok(GrantId(17)));
        for text in [
            "g-017",
            "g-",
            "g-+1",
            "G-1",
            "r-1",
            "g-99999999999999999999",
            " g-1",
            "",
        ] {
            assert!(text.parse::<GrantId>().is_err(), "{text:?}");
        }
    }
}
