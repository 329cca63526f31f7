//! Why a key did nothing. Pure. A key that cannot act says so where people look, and nobody waits for what does not come; what a key does is not here.

use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;

use super::key::{BINDINGS, Cmd, Key, pressed};
use super::rows::Row;
use super::{Effect, Model, Of, View};

/// How long what a key was told stands beside what comes of something asked before, milliseconds: nobody reads it in less.
const BESIDE_MS: u64 = 2_000;

/// What of a screen a key of the table can change.
#[derive(Debug, PartialEq, Eq)]
struct Face {
    view: View,
    detail: Option<usize>,
    at: Option<(usize, Row)>,
    search: String,
    follows: bool,
    has_popup: bool,
    is_typing: bool,
    notices: u64,
}

impl Model {
    /// Takes in a key; one that changes nothing says why.
    pub(super) fn take_key(&mut self, key: Key) -> Vec<Effect> {
        self.is_dirty = true;
        self.notice = self.notice.take().filter(|notice| notice.of != Of::Idle);
        let notices = self.notices;
        // Keys of a popup, and of a text that is typed, are none of the table.
        let is_of_table = self.popup.is_none() && self.typing.is_none();
        let before = is_of_table.then(|| self.face());
        let effects = self.key(key);
        crate::view::keep_within(self);
        if effects.is_empty() {
            if let Some(notice) = self.notice.as_mut().filter(|_| self.notices != notices) {
                notice.of = if notice.is_bad { Of::Key } else { Of::Deed };
            }
            if let Some(before) = before {
                self.say_if_idle(&before, key);
            }
        }
        effects
    }

    /// An answer of the daemon, with what a key was told a moment ago: what was asked before that key has it not taken away unread.
    pub(super) fn beside_key(&self, said: String, is_bad: bool) -> (String, bool) {
        let notice = self.notice.as_ref().filter(|notice| {
            notice.of == Of::Key && self.at_ms.saturating_sub(notice.at_ms) < BESIDE_MS
        });
        match notice {
            Some(notice) => (format!("{}; {said}", notice.text), true),
            None => (said, is_bad),
        }
    }

    fn face(&self) -> Face {
        let place = self.place();
        Face {
            view: self.view,
            detail: self.detail,
            at: self.selected(&self.rows()),
            search: place.search.clone(),
            follows: place.follows,
            has_popup: self.popup.is_some(),
            is_typing: self.typing.is_some(),
            notices: self.notices,
        }
    }

    /// Says why a key changed nothing of such a face, where it did not.
    fn say_if_idle(&mut self, before: &Face, key: Key) {
        if *before != self.face() {
            return;
        }
        match pressed(self.view, key) {
            // Whoever holds a key down at an end is told only where nothing else is said: that may be what came of a deed.
            Some(cmd) if self.notice.is_none() || !is_move(cmd) => {
                let why = self.idle(cmd);
                self.notice(why, false);
            }
            Some(_) => return,
            None => self.notice(elsewhere(key), true),
        }
        if let Some(notice) = &mut self.notice {
            notice.of = Of::Idle;
        }
    }

    fn idle(&self, cmd: Cmd) -> String {
        let end = |list: &str, text: &str| match self.chosen() {
            _ if self.detail.is_some() => format!("this is {text} of it"),
            Some(_) => format!("this is the {list} here"),
            None => self.nothing(),
        };
        match cmd {
            Cmd::Go(view) => format!("{} is what is shown already", view.name()),
            Cmd::Up | Cmd::PageUp | Cmd::First => end("first", "the beginning"),
            Cmd::Down | Cmd::PageDown | Cmd::Last => end("last", "the end"),
            Cmd::Back => "there is nothing to go back from".to_owned(),
            // These show something whenever they do something; what hinders them they say themselves.
            Cmd::NextView
            | Cmd::PreviousView
            | Cmd::Detail
            | Cmd::Approve
            | Cmd::ApproveLess
            | Cmd::Deny
            | Cmd::Revoke
            | Cmd::Lock
            | Cmd::Unlock
            | Cmd::CloseAll
            | Cmd::Proof
            | Cmd::Follow
            | Cmd::Story
            | Cmd::Why
            | Cmd::Search
            | Cmd::Find
            | Cmd::CommandLine
            | Cmd::Help
            | Cmd::Quit => "there is nothing here to do that to".to_owned(),
        }
    }

    /// Why there is nothing to select. A window may have opened since the daemon told last: of none it is said that it is not there.
    pub(super) fn nothing(&self) -> String {
        if self.view == View::Windows && self.place().search.is_empty() && self.known.is_some() {
            return "no window is known here: of a new one the daemon tells within a second"
                .to_owned();
        }
        crate::view::nothing_shown(self)
    }

    /// Why there is no window to do something to.
    pub(super) fn no_window(&self) -> String {
        match self.chosen() {
            Some(Row::Record(seq)) => format!("record {seq} is of no window"),
            Some(Row::Query(query)) => format!("the window of {query} is not known here"),
            Some(Row::Grant(_) | Row::Request(_) | Row::Refusal(_) | Row::Agent(_))
            | Some(Row::Health(..)) => "what is selected is of no window".to_owned(),
            None => self.nothing(),
        }
    }

    /// Why a window cannot be ended: it is not open, as far as is known here.
    pub(super) fn not_open(&self, id: GrantId) -> String {
        if let Some(grant) = self.grant(id) {
            let why = grant.closed.as_deref().unwrap_or("its time is over");
            return format!("{id} is not open any more: {why}");
        }
        let closed = self.tail.iter().rev().find_map(|entry| {
            let Event::Closed { grant, reason, .. } = &entry.record.event else {
                return None;
            };
            (*grant == id).then(|| reason.to_string())
        });
        closed.map_or_else(
            || format!("the daemon has not told of {id}: just opened (again in a moment), or long closed"),
            |why| format!("{id} is not open any more: {why}"),
        )
    }
}

const fn is_move(cmd: Cmd) -> bool {
    matches!(
        cmd,
        Cmd::Up | Cmd::Down | Cmd::PageUp | Cmd::PageDown | Cmd::First | Cmd::Last
    )
}

/// Where a key does something that does nothing here.
fn elsewhere(key: Key) -> String {
    let name = key.name();
    let Some(binding) = BINDINGS.iter().find(|known| known.keys.contains(&key)) else {
        return format!("{name} is no key here; ? lists all");
    };
    let views: Vec<&str> = binding.views.iter().map(|view| view.name()).collect();
    format!(
        "{name} ({}) is a key of: {}",
        binding.word,
        views.join(", ")
    )
}
