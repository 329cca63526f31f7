//! What of a question has been on screen. Pure: it is told what was drawn, and never draws.
//!
//! A yes counts for what could be read before it. So each line of a question is remembered as it is drawn, for one width: at another the lines are
//! others, and all of them must be seen anew. How long it then stands before it is answered is in `standing.rs`. Who draws tells of a screen only when all keys that were pressed before it have been taken in
//! (`run.rs`): what is typed ahead of a question finds it unseen, and does nothing.

use serde::{Deserialize, Serialize};

use super::key::Key;

/// The most lines of a question. A longer one cannot be agreed to here.
const LINES_MAX: usize = 1_000_000;

/// What a screen showed of a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    /// Which question: its number.
    pub(crate) question: u64,
    /// How wide its lines were, columns.
    pub(crate) columns: u16,
    /// How many lines what is asked has at this width; none where it is too long to be shown whole.
    pub(crate) lines: Option<usize>,
    /// The first of them that was drawn.
    pub(crate) first: usize,
    /// The first behind it that was not.
    pub(crate) end: usize,
    /// Whether it was said that its keys are taken.
    pub(crate) takes: bool,
}

/// Which lines of a question have been on screen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    columns: u16,
    is_too_long: bool,
    /// One for each line.
    seen: Vec<bool>,
}

impl Reading {
    /// Takes in what was drawn.
    pub(crate) fn take(&mut self, shown: &Shown) {
        let lines = shown.lines.filter(|lines| *lines <= LINES_MAX);
        let count = lines.unwrap_or(0);
        if (self.columns, self.seen.len()) != (shown.columns, count) {
            self.seen = vec![false; count];
        }
        self.columns = shown.columns;
        self.is_too_long = lines.is_none();
        let end = shown.end.min(count);
        if let Some(drawn) = self.seen.get_mut(shown.first.min(end)..end) {
            drawn.fill(true);
        }
    }

    /// Whether any of it has been on screen.
    pub(crate) fn has_begun(&self) -> bool {
        self.is_too_long || self.seen.contains(&true)
    }

    /// Whether all of it has.
    pub(crate) fn is_whole(&self) -> bool {
        !self.is_too_long && !self.seen.is_empty() && !self.seen.contains(&false)
    }

    /// Whether it cannot be shown whole.
    pub(crate) const fn is_too_long(&self) -> bool {
        self.is_too_long
    }

    /// The first line that has not been on screen, as scrolling counts lines.
    pub(crate) fn next(&self) -> Option<usize> {
        self.seen.iter().position(|seen| !seen)
    }
}

/// Where a text is scrolled to; `None` for a key that scrolls nothing. A page is as many lines as are shown, so that none is passed over.
pub(super) fn scroll(key: Key, from: usize, room: usize) -> Option<usize> {
    let page = room.max(1);
    match key {
        Key::Up | Key::Char('k') => Some(from.saturating_sub(1)),
        Key::Down | Key::Char('j') => Some(from.saturating_add(1)),
        Key::PageUp => Some(from.saturating_sub(page)),
        Key::PageDown | Key::Char(' ') => Some(from.saturating_add(page)),
        Key::Home => Some(0),
        // Past its end, which whoever knows how long it is makes the last page (`view::keep_within`).
        Key::End => Some(usize::MAX),
        Key::Char(_)
        | Key::Ctrl(_)
        | Key::Enter
        | Key::Esc
        | Key::Tab
        | Key::BackTab
        | Key::Left
        | Key::Right
        | Key::Backspace
        | Key::Delete => None,
    }
}

/// The same of what only shows: `q` and enter put it away too.
pub(super) fn scrolled(key: Key, from: usize, room: usize) -> Option<usize> {
    if matches!(key, Key::Char('q' | '?') | Key::Enter) {
        return None;
    }
    Some(scroll(key, from, room).unwrap_or(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(columns: u16, lines: Option<usize>, first: usize, end: usize) -> Shown {
        Shown {
            question: 1,
            columns,
            lines,
            first,
            end,
            takes: false,
        }
    }

    #[test]
    fn it_is_whole_once_each_line_was_drawn_at_one_width() {
        let mut reading = Reading::default();
        assert!(!reading.has_begun() && !reading.is_whole());
        reading.take(&shown(40, Some(10), 0, 4));
        reading.take(&shown(40, Some(10), 8, 10));
        assert!(reading.has_begun() && !reading.is_whole());
        assert_eq!(reading.next(), Some(4));
        reading.take(&shown(41, Some(10), 4, 8));
        assert!(!reading.is_whole(), "at another width all begins anew");
        reading.take(&shown(41, Some(10), 0, 4));
        reading.take(&shown(41, Some(10), 8, 99));
        assert!(reading.is_whole());
        assert_eq!(reading.next(), None);
        reading.take(&shown(41, Some(11), 0, 11));
        assert!(reading.is_whole());
    }

    #[test]
    fn what_cannot_be_shown_whole_is_never_whole() {
        let mut reading = Reading::default();
        reading.take(&shown(40, None, 0, usize::MAX));
        assert!(reading.has_begun() && !reading.is_whole() && reading.is_too_long());
        reading.take(&shown(40, Some(LINES_MAX + 1), 0, usize::MAX));
        assert!(!reading.is_whole());
        reading.take(&shown(40, Some(0), 0, 0));
        assert!(!reading.is_whole(), "nothing was shown");
    }
}
