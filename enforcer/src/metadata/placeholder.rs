//! What agents are given for a token: opaque, another one for each window, and no way to anything. Nobody can tell by it which grant it is of, or guess
//! the next one's: it is made from the grant's number by a secret that lives as long as this daemon. Who presents it is known by the kernel; it opens nothing.

use aws_lc_rs::hmac;
use enforcer_proto::principal::AgentName;
use tokio::sync::watch;

use crate::client_setup::PLACEHOLDER_TOKEN;
use crate::engine::OpenWindows;
use crate::random::{self, NoRandom};

/// How much of the digest is shown, hex digits.
const DIGITS: usize = 16;

/// The placeholders of one daemon's.
pub struct Placeholders {
    key: hmac::Key,
    windows: watch::Receiver<OpenWindows>,
}

impl std::fmt::Debug for Placeholders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Placeholders").finish_non_exhaustive()
    }
}

impl Placeholders {
    /// For these windows.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(windows: watch::Receiver<OpenWindows>) -> std::io::Result<Self> {
        let secret: [u8; 32] =
            random::bytes().map_err(|error: NoRandom| std::io::Error::other(error))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Ok(Self { key, windows })
    }

    /// That of the window that the agent has open; without one, what says nothing.
    pub(super) fn of(&self, agent: &AgentName) -> String {
        let window = self.windows.borrow().get(agent).map(|window| window.grant);
        let Some(grant) = window else {
            return PLACEHOLDER_TOKEN.to_owned();
        };
        let tag = hmac::sign(&self.key, &grant.0.to_be_bytes());
        let digits: String = tag
            .as_ref()
            .iter()
            .take(DIGITS / 2)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("{PLACEHOLDER_TOKEN}-{digits}")
    }
}

/// Whether a text is one, of this daemon's or of another's.
pub(crate) fn is_placeholder(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PLACEHOLDER_TOKEN) else {
        return false;
    };
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    rest.is_empty()
        || rest
            .strip_prefix('-')
            .is_some_and(|digits| digits.len() == DIGITS && digits.bytes().all(is_digit))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::engine::open_windows;

    fn bot(number: u64) -> AgentName {
        format!("bot-{number}").parse().expect("a name")
    }

    #[test]
    fn each_window_has_its_own_and_none_is_of_another_daemons_secret() {
        let (tell, windows) = watch::channel(open_windows(&[1, 2]));
        let placeholders = Placeholders::new(windows.clone()).expect("random");
        let [one, two] = [1, 2].map(|number| placeholders.of(&bot(number)));
        let other = Placeholders::new(windows).expect("random").of(&bot(1));
        assert_eq!(one, placeholders.of(&bot(1)), "the same while it is open");
        let all: BTreeSet<&String> = [&one, &two, &other].into();
        assert_eq!(all.len(), 3, "{all:?}");
        for text in all {
            assert!(is_placeholder(text), "{text}");
            assert_eq!(text.len(), PLACEHOLDER_TOKEN.len() + 1 + DIGITS);
        }
        tell.send_replace(open_windows(&[2]));
        assert_eq!(placeholders.of(&bot(1)), PLACEHOLDER_TOKEN);
    }

    #[test]
    fn what_only_begins_like_one_is_none() {
        for none in [
            "enforcer-placeholder-",
            "enforcer-placeholder-0123",
            "enforcer-placeholder-0123456789ABCDEF",
            "enforcer-placeholder-0123456789abcdef0",
            "enforcer-placeholderya29.x",
            "ya29.enforcer-placeholder",
            "",
        ] {
            assert!(!is_placeholder(none), "{none}");
        }
        assert!(is_placeholder("enforcer-placeholder"));
    }
}
