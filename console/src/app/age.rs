//! How old what is shown is, and what of the screen moves with time alone. Where nothing of that has changed, nothing is drawn.

use super::{Link, Model, View};

/// Without any word from the daemon for this long, what is shown is no longer taken for how things are, milliseconds: six times as long as it is asked.
pub(crate) const STALE_MS: u64 = 3_000;
/// How often countdowns are drawn, milliseconds: each of them shows whole seconds, and none is to show one for much longer than that.
const COUNTDOWN_MS: u64 = 500;

/// What is shown that moves with time alone, as coarsely as it is shown.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Moving {
    /// Countdowns of windows and requests, and of the next try to connect.
    countdown: Option<u64>,
    /// How long ago the daemon was heard last, where that is said.
    heard: Option<String>,
    /// How old the log's checkpoint is, where that is said.
    checkpoint: Option<String>,
    /// For how long no record has come, though there are some, where that is said.
    behind: Option<String>,
    /// Whether the question on screen takes an answer.
    answer: bool,
}

impl Model {
    /// How long ago the daemon was heard last, milliseconds, where what is shown may therefore no longer be so.
    pub(crate) fn doubt_ms(&self) -> Option<u64> {
        let age = self.age_ms()?;
        match self.link {
            Link::Down { .. } => Some(age),
            Link::Never | Link::Up => Some(age).filter(|age| *age >= STALE_MS),
        }
    }

    /// When the daemon said last how things are, on its own clock, unix time, nanoseconds; where what is shown may no longer be so.
    pub(crate) fn doubt_since_unix_ns(&self) -> Option<u64> {
        self.doubt_ms()?;
        self.status().map(|status| status.now.unix_ns)
    }

    /// What the daemon's clock says now, as far as that is known, unix time, nanoseconds.
    pub(crate) fn now_unix_ns(&self) -> u64 {
        let said = self.status().map_or(0, |status| status.now.unix_ns);
        said.saturating_add(self.age_ms().unwrap_or(0).saturating_mul(1_000_000))
    }

    /// How old the log's newest checkpoint is, in words.
    pub(crate) fn checkpoint_age(&self) -> Option<String> {
        let checkpoint = self.status()?.log.checkpoint.as_ref()?;
        let age_ns = self.now_unix_ns().saturating_sub(checkpoint.unix_ns);
        Some(ago(age_ns / 1_000_000_000))
    }

    /// Has the screen drawn again where something on it has moved with time alone.
    pub(super) fn move_on(&mut self) {
        let has_countdown = self.open().next().is_some()
            || self.waiting().next().is_some()
            || self.link != Link::Up;
        let is_of_log = self.view == View::Health;
        let moving = Moving {
            countdown: has_countdown.then_some(self.at_ms / COUNTDOWN_MS),
            heard: self.doubt_ms().map(|age_ms| ago(age_ms / 1000)),
            checkpoint: is_of_log.then(|| self.checkpoint_age()).flatten(),
            behind: self.behind().map(|(_, age_ms)| ago(age_ms / 1000)),
            answer: self
                .question()
                .is_some_and(|asked| asked.standing.is_due(self.at_ms)),
        };
        if moving != self.moving {
            self.moving = moving;
            self.is_dirty = true;
        }
    }
}

/// Seconds as people say how old something is: whole seconds below a minute, whole minutes above.
pub(crate) fn ago(seconds: u64) -> String {
    const DAY_S: u64 = 86_400;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..DAY_S => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        DAY_S.. => format!("{} d {} h", seconds / DAY_S, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_as_coarsely_as_they_matter() {
        let said = [0, 59, 60, 3599, 3600, 7260, 90_000].map(ago);
        assert_eq!(
            said,
            [
                "0 s",
                "59 s",
                "1 min",
                "59 min",
                "1 h 00 min",
                "2 h 01 min",
                "1 d 1 h"
            ]
        );
    }
}
