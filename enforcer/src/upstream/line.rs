//! Kept connections in the order in which they were last used, all keys' together: past their bound the one that was used longest ago goes.

use std::collections::BTreeMap;

/// The most connections that are kept for later at once, whosever they are. Each has a file descriptor and some ten kilobytes.
pub const KEPT_MAX: usize = 1024;

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// The line. `T` says where a connection is kept.
#[derive(Debug)]
pub(super) struct Line<T> {
    last: u64,
    waiting: BTreeMap<Ticket, T>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            last: 0,
            waiting: BTreeMap::new(),
        }
    }
}

impl<T> Line<T> {
    /// One more is kept, at `place`. Gives who must go for it.
    pub(super) fn join(&mut self, place: T) -> (Ticket, Option<(Ticket, T)>) {
        self.last += 1;
        let ticket = Ticket(self.last);
        self.waiting.insert(ticket, place);
        let is_over = self.waiting.len() > KEPT_MAX;
        let oldest = is_over.then(|| self.waiting.pop_first());
        (ticket, oldest.flatten())
    }

    /// One is not kept any more.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_bound_the_one_that_was_used_longest_ago_goes() {
        let mut line = Line::default();
        let tickets: Vec<Ticket> = (0..KEPT_MAX).map(|at| line.join(at).0).collect();
        line.leave(tickets[0]);
        assert_eq!(line.join(KEPT_MAX).1, None, "there is room");
        let (_, oldest) = line.join(KEPT_MAX + 1);
        assert_eq!(oldest, Some((tickets[1], 1)));
        assert_eq!(line.waiting.len(), KEPT_MAX);
    }
}
