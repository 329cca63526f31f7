//! What is wrong only where it lasts, since for a moment it is how things go. Of what was seen now and before, and when, it gives what has lasted.

use std::collections::BTreeMap;

use crate::runtimes::{ASK_AGAIN, ASK_MAX};

/// For how long something must have been wrong: a runtime that told of a container which has just ended has been asked again, and has answered.
const LASTING_NS: u64 = (ASK_AGAIN.as_secs() + ASK_MAX.as_secs() + 1) * 1_000_000_000;

/// What may be wrong, and since when.
#[derive(Debug, Default)]
pub(super) struct Lasting(BTreeMap<String, u64>);

impl Lasting {
    /// Of what one look saw, what each look has seen for long enough. What a look does not see begins anew.
    pub(super) fn of(&mut self, seen: Vec<String>, boot_ns: u64) -> Vec<String> {
        let before = std::mem::take(&mut self.0);
        let since = |what: String| {
            let since = before.get(&what).copied().unwrap_or(boot_ns);
            (what, since)
        };
        self.0 = seen.into_iter().map(since).collect();
        let all = self.0.iter();
        let lasting = all.filter(|(_, since)| boot_ns.saturating_sub(**since) >= LASTING_NS);
        lasting.map(|(what, _)| what.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_look_sees_is_said_once_it_has_lasted_and_what_one_did_not_see_begins_anew() {
        let mut lasting = Lasting::default();
        let mut of = |seen: &[&str], boot_ns| {
            lasting.of(seen.iter().map(ToString::to_string).collect(), boot_ns)
        };
        let none: [&str; 0] = [];
        assert_eq!(of(&["a"], 7), none);
        assert_eq!(of(&["a", "b"], LASTING_NS + 6), none);
        assert_eq!(of(&["a", "b"], LASTING_NS + 7), ["a"]);
        assert_eq!(of(&["b"], LASTING_NS + 8), none);
        assert_eq!(of(&["a", "b"], 2 * LASTING_NS + 6), ["b"]);
        assert_eq!(of(&["a"], 3 * LASTING_NS + 5), none);
        assert_eq!(of(&["a"], 3 * LASTING_NS + 6), ["a"]);
    }
}
