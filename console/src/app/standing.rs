//! Whether a question has stood on screen for long enough that whoever answers it can have seen it. Pure: it is told what was drawn, what was pressed,
//! and when, on the console's own clock; it never reads one.
//!
//! Pasted text and keys that were pressed ahead come faster than anybody reads, and some terminals tell them as keys. So a question takes an answer
//! only when all of it that must be read, and the line that names its keys, have stood drawn while nothing else was pressed.

/// How long a question stands drawn, as far as it must be read, without any key but those that scroll, before it takes an answer, milliseconds.
pub(crate) const STANDS_MS: u64 = 500;
/// How long before an answer nothing was scrolled, milliseconds: what comes closer behind another key was poured in.
pub(crate) const APART_MS: u64 = 100;
/// The shortest time in which a word counts as typed, from its first letter to enter, milliseconds: what comes faster was pasted.
pub(crate) const WORD_MS_MIN: u64 = 200;

/// From when on a question takes an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// When it does, on the console's clock, milliseconds; none while it cannot be answered for another reason.
    from_ms: Option<u64>,
    /// Whether that was drawn, with nothing pressed since.
    is_said: bool,
}

impl Standing {
    /// Takes in that it was drawn: whether all that must be was read by then, and whether its keys were said to be taken.
    pub(super) fn drawn(&mut self, at_ms: u64, is_read: bool, is_said: bool) {
        let begins = at_ms.saturating_add(STANDS_MS);
        self.from_ms = is_read.then(|| self.from_ms.unwrap_or(begins));
        self.is_said = is_said && self.is_due(at_ms);
    }

    /// Takes in a key that scrolls.
    pub(super) fn scrolled(&mut self, at_ms: u64) {
        self.waits_until(at_ms.saturating_add(APART_MS));
    }

    /// Takes in any other key, and what was pasted.
    pub(super) fn pressed(&mut self, at_ms: u64) {
        self.waits_until(at_ms.saturating_add(STANDS_MS));
    }

    /// Takes in that it may not be on screen any more.
    pub(super) fn hidden(&mut self) {
        *self = Self::default();
    }

    fn waits_until(&mut self, at_ms: u64) {
        self.from_ms = self.from_ms.map(|from_ms| from_ms.max(at_ms));
        self.is_said = false;
    }

    /// Whether it is to be said that its keys are taken.
    pub(crate) fn is_due(&self, at_ms: u64) -> bool {
        self.from_ms.is_some_and(|from_ms| from_ms <= at_ms)
    }

    /// Whether they are: that this is so has been on screen.
    pub(super) fn takes(&self, at_ms: u64) -> bool {
        self.is_said && self.is_due(at_ms)
    }

    /// When it comes to be so by time alone, on the console's clock, milliseconds.
    pub(crate) const fn due_ms(&self) -> Option<u64> {
        self.from_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_once_the_question_has_stood_and_that_was_said() {
        let mut standing = Standing::default();
        standing.drawn(0, false, false);
        assert!(!standing.is_due(10_000), "not all was read");
        standing.drawn(10_000, true, false);
        assert!(!standing.is_due(10_499) && standing.is_due(10_500));
        assert!(!standing.takes(10_500), "nobody was told");
        standing.drawn(10_510, true, true);
        assert!(standing.takes(10_510));
        standing.drawn(10_600, true, false);
        assert!(!standing.takes(10_600), "the screen says otherwise");
    }

    #[test]
    fn keys_make_it_wait_anew_and_those_that_scroll_for_a_moment() {
        let mut standing = Standing::default();
        standing.drawn(0, true, false);
        standing.scrolled(100);
        assert!(standing.is_due(500), "scrolling does not begin it anew");
        standing.scrolled(490);
        assert!(!standing.is_due(589) && standing.is_due(590));
        standing.pressed(600);
        assert!(!standing.is_due(1_099) && standing.is_due(1_100));
        standing.drawn(1_100, true, true);
        assert!(standing.takes(1_100));
        standing.scrolled(1_200);
        standing.drawn(1_250, true, true);
        assert!(!standing.takes(1_250));
        standing.drawn(1_300, true, true);
        assert!(standing.takes(1_300));
        standing.hidden();
        assert!(!standing.takes(1_300) && !standing.is_due(9_999));
    }
}
