//! What `log show`, `story` and `why` can be asked about: something in the log that has a number.

use std::fmt;
use std::str::FromStr;

use crate::id::{GrantId, QueryId, RequestId};

/// Something in the log that has a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// A request for a window.
    Request(RequestId),
    /// A window.
    Grant(GrantId),
    /// A query.
    Query(QueryId),
    /// A record.
    Record(u64),
}

/// A text that names nothing in a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` names nothing in a log: write it as g-17 (a window), r-17 (a request), q-17 (a query) or 17 (a record, by its number)"
)]
pub struct IdError(String);

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let record = || text.parse().ok().filter(|seq| *seq > 0).map(Self::Record);
        text.parse()
            .map(Self::Request)
            .or_else(|_| text.parse().map(Self::Grant))
            .or_else(|_| text.parse().map(Self::Query))
            .ok()
            .or_else(record)
            .ok_or_else(|| IdError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(id) => id.fmt(f),
            Self::Grant(id) => id.fmt(f),
            Self::Query(id) => id.fmt(f),
            Self::Record(seq) => write!(f, "record {seq}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_by_its_letter_and_a_number_is_a_record() {
        assert_eq!("g-17".parse(), Ok(Id::Grant(GrantId(17))));
        assert_eq!("r-1".parse(), Ok(Id::Request(RequestId(1))));
        assert_eq!("q-2".parse(), Ok(Id::Query(QueryId(2))));
        assert_eq!("17".parse(), Ok(Id::Record(17)));
        for text in ["", "0", "x-1", "g17", "g-01"] {
            let error = text.parse::<Id>().expect_err(text).to_string();
            assert!(error.contains("q-17"), "{error}");
        }
    }
}
