//! What became of agents' questions for names, counted. Whose they were and what was asked is not here: refusals go on record.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use hickory_resolver::proto::op::ResponseCode;

/// Counts since the daemon started.
#[derive(Debug, Default)]
pub struct Questions {
    answered: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Questions {
    /// One more, which was answered with `code`.
    pub(super) fn add(&self, code: ResponseCode) {
        // That there is no such name, or no such type, is an answer.
        let count = if code == ResponseCode::Refused {
            &self.refused
        } else if code == ResponseCode::ServFail {
            &self.failed
        } else {
            &self.answered
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Questions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            f,
            "agents' questions for names since the start: {} answered, {} refused, {} without an answer of the resolvers",
            count(&self.answered),
            count(&self.refused),
            count(&self.failed)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_became_of_questions_is_said() {
        let questions = Questions::default();
        for code in [
            ResponseCode::NoError,
            ResponseCode::NXDomain,
            ResponseCode::Refused,
            ResponseCode::ServFail,
        ] {
            questions.add(code);
        }
        assert_eq!(
            questions.to_string(),
            "agents' questions for names since the start: 2 answered, 1 refused, 1 without an answer of the resolvers"
        );
    }
}
