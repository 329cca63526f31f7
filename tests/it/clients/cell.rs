//! What an operation came to, as the client showed it and as the product's log has it.

use std::fmt;

/// The most calls of one operation that may be refused: `bq cp` looks at the dataset first and goes on without it, `bq wait` asks once more.
const REFUSED_CALLS_MAX: usize = 2;

/// What a client showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It did what it was asked, and this is what it says of that.
    Done(String),
    /// It ended with an error of this kind and these words.
    Failed { kind: String, words: String },
}

/// A refusal as it is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: String,
    pub(super) sentence: String,
}

/// One cell of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cell {
    said: Said,
    /// How many calls reached the proxy.
    calls: usize,
    /// Each of them that was refused.
    refused: Vec<Refused>,
}

impl Cell {
    pub(super) const fn new(said: Said, calls: usize, refused: Vec<Refused>) -> Self {
        Self {
            said,
            calls,
            refused,
        }
    }

    /// What is wrong with it: a refusal is to be shown with its sentence, and to be the end of it.
    pub(super) fn complaint(&self) -> Option<String> {
        let is_fine = match (&self.said, self.refused.last()) {
            (Said::Done(_), last) => last.is_none(),
            (Said::Failed { words, .. }, Some(last)) => {
                self.refused.len() <= REFUSED_CALLS_MAX
                    && last.code == code(words)
                    && unbroken(words).contains(&unbroken(&last.sentence))
            }
            (Said::Failed { .. }, None) => false,
        };
        (!is_fine).then(|| format!("{self:?}"))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.said {
            Said::Done(words) => f.write_str(words),
            Said::Failed { kind, words } => {
                let plural = if self.calls == 1 { "" } else { "s" };
                let code = code(words);
                write!(f, "{kind} `{code}`, {} call{plural}", self.calls)
            }
        }
    }
}

/// The words without the breaks that a client put between and into them.
fn unbroken(words: &str) -> String {
    words.split_whitespace().collect()
}

/// The code in a refusal's sentence, which a client may have broken into lines.
fn code(words: &str) -> String {
    let candidates = words.split('[').skip(1).filter_map(|rest| {
        let (code, _) = rest.split_once(']')?;
        let code: String = code.split_whitespace().collect();
        let is_code = code.contains('.')
            && code
                .chars()
                .all(|letter| letter.is_ascii_lowercase() || "._".contains(letter));
        is_code.then_some(code)
    });
    candidates
        .last()
        .unwrap_or_else(|| format!("no code: {words}"))
}

#[test]
fn a_code_is_found_in_a_sentence_that_was_broken_into_lines() {
    assert_eq!(
        code("no [1] table here [scope.\n   outside]"),
        "scope.outside"
    );
    assert_eq!(code("something else"), "no code: something else");
}
