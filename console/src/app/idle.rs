//! Why a key did nothing. Pure. A key that cannot act says so where people look, and nobody waits for what does not come; what a key does is not here.

use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;

use super::deciding::ends_windows;
use super::form::FIELD_CHARS_MAX;
use super::key::{BINDINGS, Cmd, Key, pressed};
use super::popup::{Confirm, Popup};
use super::reading::scroll;
use super::rows::Row;
use super::{Effect, Model, Of, View};

/// How long what a key was told stands beside what comes of something asked before, milliseconds: nobody reads it in less.
const BESIDE_MS: u64 = 2_000;

/// What of a popup a key can change that is seen.
#[derive(Debug, PartialEq, Eq)]
struct Over {
    kind: std::mem::Discriminant<Popup>,
    /// Which question it is.
    number: u64,
    from: usize,
    /// What is typed, and in which field.
    text: String,
    at: usize,
    /// What is said to be wrong with it.
    wrong: Option<String>,
}

impl Over {
    fn of(popup: &Popup) -> Self {
        let mut over = Self {
            kind: std::mem::discriminant(popup),
            number: 0,
            from: 0,
            text: String::new(),
            at: 0,
            wrong: None,
        };
        match popup {
            Popup::Help(from) | Popup::Proof(from) => over.from = *from,
            Popup::Story { from, .. } | Popup::Why { from, .. } => over.from = *from,
            Popup::Confirm(confirm) => {
                over.number = confirm.number;
                over.from = confirm.from;
                let typed = confirm.word.as_ref().map(|(_, typed)| typed.clone());
                over.text = typed.unwrap_or_default();
            }
            Popup::Reason(reason) => over.text.clone_from(&reason.field.text),
            Popup::Terms(terms) => {
                over.at = terms.at;
                over.text.clone_from(&terms.fields[terms.at].text);
                over.wrong.clone_from(&terms.wrong);
            }
        }
        over
    }
}

/// What of a screen a key of the table can change.
#[derive(Debug, PartialEq, Eq)]
struct Face {
    view: View,
    detail: Option<usize>,
    at: Option<(usize, Row)>,
    search: String,
    follows: bool,
    over: Option<Over>,
    is_typing: bool,
    notices: u64,
}

impl Model {
    /// Takes in a key; one that changes nothing says why.
    pub(super) fn take_key(&mut self, key: Key) -> Vec<Effect> {
        self.is_dirty = true;
        self.notice = self.notice.take().filter(|notice| notice.of != Of::Idle);
        let notices = self.notices;
        // Keys of a text that is typed are none of the table.
        let is_of_table = self.popup.is_some() || self.typing.is_none();
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
            over: self.popup.as_ref().map(Over::of),
            is_typing: self.typing.is_some(),
            notices: self.notices,
        }
    }

    /// Says why a key changed nothing of such a face, where it did not.
    fn say_if_idle(&mut self, before: &Face, key: Key) {
        if *before != self.face() {
            return;
        }
        if let Some(popup) = &self.popup {
            let (why, is_move) = self.idle_over(popup, key);
            if self.notice.is_some() && is_move {
                return;
            }
            self.notice(why, !is_move);
            if let Some(notice) = &mut self.notice {
                notice.of = Of::Idle;
            }
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

    /// Why a key changed nothing of a popup, and whether that is only that it is at an end.
    fn idle_over(&self, popup: &Popup, key: Key) -> (String, bool) {
        let name = key.name();
        let at_end = || {
            let is_back = matches!(key, Key::Up | Key::Char('k') | Key::PageUp | Key::Home);
            let end = if is_back { "beginning" } else { "end" };
            (format!("this is the {end} of it"), true)
        };
        let why = match popup {
            Popup::Help(_) | Popup::Story { .. } | Popup::Why { .. } | Popup::Proof(_) => {
                if scroll(key, 0, 1).is_some() {
                    return at_end();
                }
                under(self.view, key)
            }
            Popup::Confirm(confirm) if confirm.scrolls(key) => return at_end(),
            Popup::Confirm(confirm) => no_answer(confirm, key),
            Popup::Reason(_) | Popup::Terms(_) if matches!(key, Key::Char(_)) => {
                format!("no more than {FIELD_CHARS_MAX} characters find room")
            }
            Popup::Reason(_) | Popup::Terms(_) if key.edit().is_some() => {
                "there is nothing to take away".to_owned()
            }
            Popup::Reason(_) => {
                format!("{name} does nothing here: enter goes on, esc leaves it")
            }
            Popup::Terms(terms) => match &terms.wrong {
                Some(wrong) if key == Key::Enter => wrong.clone(),
                Some(_) | None => format!(
                    "{name} does nothing here: tab goes to the next, enter goes on, esc leaves it"
                ),
            },
        };
        (why, false)
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
            || {
                let no_room = match self.open_left_out_max() {
                    0 => String::new(),
                    more => format!(", or among {more} windows that find no room here (enforcer-console revoke {id})"),
                };
                format!("the daemon has not told of {id}: just opened (again in a moment), or long closed{no_room}")
            },
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

/// Why a key that does something below does nothing in what lies over it and only shows.
fn under(view: View, key: Key) -> String {
    let name = key.name();
    let Some(binding) = BINDINGS.iter().find(|known| known.keys.contains(&key)) else {
        return format!("{name} is no key here; esc closes this");
    };
    if ends_windows(binding.cmd) && pressed(view, key).is_none() {
        return elsewhere(key);
    }
    format!("{name} ({}): esc closes this first", binding.word)
}

/// Why a key is no answer to a question.
fn no_answer(confirm: &Confirm, key: Key) -> String {
    let name = key.name();
    match &confirm.word {
        None => format!("{name} is no answer: y is yes, n or esc is no and closes this"),
        Some((word, _)) if matches!(key, Key::Char(_)) => {
            format!("that is longer than “{word}”: backspace takes a letter away")
        }
        Some((word, _)) => {
            format!("{name} is no answer: type “{word}” and enter, or esc")
        }
    }
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
