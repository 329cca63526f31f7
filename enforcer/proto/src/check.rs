//! What one look at the way to Google found, and the line that says so. Nothing here looks: the daemon does, and people and programs read it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::safe_line;

/// The most checks of one look; where there would be more, the last one says that the rest was not tried.
pub const CHECKS_MAX: usize = 4096;
/// The longest text of a check, characters; a longer one is cut, and ends with `…`.
pub const CHECK_CHARS_MAX: usize = 800;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    /// It is as it should be.
    Ok,
    /// It is not, and this keeps somebody from their data or gives them too much.
    Fail,
    /// Nobody looked: something that it needs has failed, or looking would do something.
    NotTried,
    /// It works, and there is something to know of it.
    Note,
}

impl Mark {
    /// The word that a line begins with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "FAIL",
            Self::NotTried => "not tried",
            Self::Note => "note",
        }
    }
}

/// Which link of the chain to Google was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Link {
    /// The configuration and the policy.
    Files,
    /// Names and their addresses.
    Names,
    /// Connections, and certificates.
    Tls,
    /// This host as an issuer: its key, what is published of it, its clock.
    Issuer,
    /// A token.
    Token,
    /// Jobs in a project.
    Jobs,
    /// A dataset.
    Dataset,
}

impl Link {
    /// The word in a line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Names => "names",
            Self::Tls => "tls",
            Self::Issuer => "issuer",
            Self::Token => "token",
            Self::Jobs => "jobs",
            Self::Dataset => "dataset",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What came of it.
    pub mark: Mark,
    /// Of which link.
    pub link: Link,
    /// Of what of it: a name, an agent, a dataset.
    pub of: String,
    /// What was found.
    pub said: String,
    /// What to do about it; absent where nothing is to be done.
    pub cure: Option<String>,
}

impl Check {
    /// A check, its texts on one line each and none longer than [`CHECK_CHARS_MAX`].
    #[must_use]
    pub fn new(mark: Mark, link: Link, of: &str, said: &str, cure: Option<&str>) -> Self {
        let line = |text: &str| safe_line(text, CHECK_CHARS_MAX);
        Self {
            mark,
            link,
            of: line(of),
            said: line(said),
            cure: cure.map(line),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, link) = (self.mark.as_str(), self.link.as_str());
        write!(f, "{mark:<9}  {link:<7}  {}: {}", self.of, self.said)?;
        match &self.cure {
            Some(cure) => write!(f, ". Cure: {cure}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_with_its_cure_at_the_end() {
        let check = Check::new(
            Mark::Fail,
            Link::Token,
            "agent bot",
            "refused\nwith 400",
            Some("do this"),
        );
        assert_eq!(
            check.to_string(),
            "FAIL       token    agent bot: refused with 400. Cure: do this"
        );
        let check = Check::new(Mark::NotTried, Link::Tls, "x", "needs a name", None);
        assert_eq!(check.to_string(), "not tried  tls      x: needs a name");
    }

    #[test]
    fn no_text_is_longer_than_the_bound() {
        let long = "a".repeat(2 * CHECK_CHARS_MAX);
        let check = Check::new(Mark::Note, Link::Names, &long, &long, Some(&long));
        for text in [&check.of, &check.said, check.cure.as_ref().expect("one")] {
            assert_eq!(text.chars().count(), CHECK_CHARS_MAX + 1);
        }
    }
}
