//! Keys as data: what each does, where, and what is said of it. Dispatch, footer, help and the README's table are all made of [`BINDINGS`].

use serde::{Deserialize, Serialize};

use super::View;

/// A key as it is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Key {
    /// A character; capitals are their own.
    Char(char),
    /// With the control key.
    Ctrl(char),
    /// Enter.
    Enter,
    /// Escape.
    Esc,
    /// Tabulator.
    Tab,
    /// The same with shift.
    BackTab,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// A page up.
    PageUp,
    /// A page down.
    PageDown,
    /// To the beginning.
    Home,
    /// To the end.
    End,
    /// Erases what is before.
    Backspace,
    /// Erases what is under.
    Delete,
}

impl Key {
    /// How it is called on screen.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Char(' ') => "space".to_owned(),
            Self::Char(c) => c.to_string(),
            Self::Ctrl(c) => format!("^{}", c.to_ascii_uppercase()),
            Self::Enter => "enter".to_owned(),
            Self::Esc => "esc".to_owned(),
            Self::Tab => "tab".to_owned(),
            Self::BackTab => "shift-tab".to_owned(),
            Self::Up => "↑".to_owned(),
            Self::Down => "↓".to_owned(),
            Self::Left => "←".to_owned(),
            Self::Right => "→".to_owned(),
            Self::PageUp => "pgup".to_owned(),
            Self::PageDown => "pgdn".to_owned(),
            Self::Home => "home".to_owned(),
            Self::End => "end".to_owned(),
            Self::Backspace => "backspace".to_owned(),
            Self::Delete => "del".to_owned(),
        }
    }
}

/// What a key does to a text that is being typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    /// This comes behind it.
    Put(char),
    /// Its last character goes.
    Erase,
    /// All of it goes.
    Clear,
}

impl Key {
    /// What it does where text is being typed; none for one that types nothing.
    pub(crate) const fn edit(self) -> Option<Edit> {
        match self {
            Self::Char(c) => Some(Edit::Put(c)),
            Self::Backspace => Some(Edit::Erase),
            Self::Delete => Some(Edit::Clear),
            Self::Ctrl(_)
            | Self::Enter
            | Self::Esc
            | Self::Tab
            | Self::BackTab
            | Self::Up
            | Self::Down
            | Self::Left
            | Self::Right
            | Self::PageUp
            | Self::PageDown
            | Self::Home
            | Self::End => None,
        }
    }
}

/// What a key, or a word of the command line, does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cmd {
    /// Go to a view.
    Go(View),
    /// The next view.
    NextView,
    /// The view before.
    PreviousView,
    /// A row, or a line, up.
    Up,
    /// Down.
    Down,
    /// A page up.
    PageUp,
    /// Down.
    PageDown,
    /// To the first.
    First,
    /// To the last; where rows come, to follow them.
    Last,
    /// Show all there is of what is selected.
    Detail,
    /// Back: out of a detail, a search.
    Back,
    /// Agree to a request as it is offered.
    Approve,
    /// Agree to less.
    ApproveLess,
    /// Deny it.
    Deny,
    /// End a window.
    Revoke,
    /// Keep an agent from windows, and end what it has.
    Lock,
    /// Let it have windows again.
    Unlock,
    /// End every window.
    CloseAll,
    /// What shows that the last windows ended are ended.
    Proof,
    /// Follow what comes, or stay.
    Follow,
    /// Everything about the window of what is selected.
    Story,
    /// Why what is selected was allowed or refused.
    Why,
    /// Look for a text in this view.
    Search,
    /// Look for records in the daemon's whole log.
    Find,
    /// Type a command.
    CommandLine,
    /// All keys.
    Help,
    /// End.
    Quit,
}

/// A key, what it does and where.
#[derive(Debug)]
pub(crate) struct Binding {
    /// The keys that do it.
    pub(crate) keys: &'static [Key],
    /// What they do.
    pub(crate) cmd: Cmd,
    /// In which views; none named: in all.
    pub(crate) views: &'static [View],
    /// The word of the command line that does it too.
    pub(crate) word: &'static str,
    /// What is said of it.
    pub(crate) help: &'static str,
    /// The same in a word, for the footer; empty where it does not stand there.
    pub(crate) short: &'static str,
}

const fn everywhere(
    keys: &'static [Key],
    cmd: Cmd,
    word: &'static str,
    help: &'static str,
) -> Binding {
    Binding {
        keys,
        cmd,
        views: &[],
        word,
        help,
        short: "",
    }
}

const fn within(
    views: &'static [View],
    keys: &'static [Key],
    cmd: Cmd,
    word: &'static str,
    short: &'static str,
    help: &'static str,
) -> Binding {
    Binding {
        keys,
        cmd,
        views,
        word,
        help,
        short,
    }
}

/// Every key there is, in the order in which help lists them.
pub(crate) const BINDINGS: &[Binding] = &[
    within(
        &[View::Requests],
        &[Key::Char('a')],
        Cmd::Approve,
        "approve",
        "approve",
        "agree to the request as it is offered",
    ),
    within(
        &[View::Requests],
        &[Key::Char('e')],
        Cmd::ApproveLess,
        "less",
        "less",
        "agree to less: shorter, narrower",
    ),
    within(
        &[View::Requests],
        &[Key::Char('d')],
        Cmd::Deny,
        "deny",
        "deny",
        "deny the request, with a reason",
    ),
    within(
        &[View::Windows, View::Sessions],
        &[Key::Char('r')],
        Cmd::Revoke,
        "revoke",
        "revoke",
        "end the window at once",
    ),
    within(
        &[View::Windows],
        &[Key::Char('p')],
        Cmd::Proof,
        "proof",
        "proof",
        "what shows that the windows ended from here have ended",
    ),
    within(
        &[View::Agents, View::Windows, View::Requests],
        &[Key::Char('L')],
        Cmd::Lock,
        "lock",
        "lock",
        "lock the agent: its window ends and it gets no other",
    ),
    within(
        &[View::Agents],
        &[Key::Char('U')],
        Cmd::Unlock,
        "unlock",
        "unlock",
        "unlock the agent (a word must be typed)",
    ),
    within(
        &[View::Log, View::Sessions, View::Refusals],
        &[Key::Char('f')],
        Cmd::Follow,
        "follow",
        "follow",
        "follow what comes, or stay",
    ),
    within(
        &[View::Log, View::Windows, View::Sessions],
        &[Key::Char('s')],
        Cmd::Story,
        "story",
        "story",
        "everything the log has about the window",
    ),
    within(
        &[View::Log, View::Sessions, View::Refusals],
        &[Key::Char('w')],
        Cmd::Why,
        "why",
        "why",
        "why it was allowed or refused",
    ),
    everywhere(
        &[Key::Char('X')],
        Cmd::CloseAll,
        "close-all",
        "end every window (a word must be typed)",
    ),
    everywhere(
        &[Key::Enter],
        Cmd::Detail,
        "detail",
        "all of what is selected",
    ),
    everywhere(&[Key::Esc], Cmd::Back, "back", "back; clears a search"),
    everywhere(
        &[Key::Char('/')],
        Cmd::Search,
        "search",
        "search in this view",
    ),
    everywhere(
        &[Key::Char('F')],
        Cmd::Find,
        "find",
        "find in the whole log: agent=NAME code=CODE dataset=P.D sql=WORDS",
    ),
    everywhere(
        &[Key::Char(':')],
        Cmd::CommandLine,
        "command",
        "type a command",
    ),
    everywhere(
        &[Key::Char('1')],
        Cmd::Go(View::Windows),
        "windows",
        "windows",
    ),
    everywhere(
        &[Key::Char('2')],
        Cmd::Go(View::Requests),
        "requests",
        "requests",
    ),
    everywhere(
        &[Key::Char('3')],
        Cmd::Go(View::Sessions),
        "sessions",
        "queries of the windows",
    ),
    everywhere(&[Key::Char('4')], Cmd::Go(View::Log), "log", "the log"),
    everywhere(
        &[Key::Char('5')],
        Cmd::Go(View::Refusals),
        "refusals",
        "refusals and attempts to get past",
    ),
    everywhere(&[Key::Char('6')], Cmd::Go(View::Agents), "agents", "agents"),
    everywhere(&[Key::Char('7')], Cmd::Go(View::Health), "health", "health"),
    everywhere(
        &[Key::Tab, Key::Right],
        Cmd::NextView,
        "next",
        "the next view",
    ),
    everywhere(
        &[Key::BackTab, Key::Left],
        Cmd::PreviousView,
        "previous",
        "the view before",
    ),
    everywhere(&[Key::Char('k'), Key::Up], Cmd::Up, "up", "up"),
    everywhere(&[Key::Char('j'), Key::Down], Cmd::Down, "down", "down"),
    everywhere(
        &[Key::PageUp, Key::Ctrl('b')],
        Cmd::PageUp,
        "page-up",
        "a page up",
    ),
    everywhere(
        &[Key::PageDown, Key::Ctrl('f')],
        Cmd::PageDown,
        "page-down",
        "a page down",
    ),
    everywhere(
        &[Key::Char('g'), Key::Home],
        Cmd::First,
        "first",
        "to the first",
    ),
    everywhere(
        &[Key::Char('G'), Key::End],
        Cmd::Last,
        "last",
        "to the last",
    ),
    everywhere(&[Key::Char('?')], Cmd::Help, "help", "all keys"),
    everywhere(
        &[Key::Char('q'), Key::Ctrl('c')],
        Cmd::Quit,
        "quit",
        "end the console; nothing else ends",
    ),
];

impl Binding {
    /// Whether it is one of this view's.
    pub(crate) fn is_in(&self, view: View) -> bool {
        self.views.is_empty() || self.views.contains(&view)
    }

    /// Its keys, as they are called.
    pub(crate) fn names(&self) -> String {
        let names: Vec<String> = self.keys.iter().map(|key| key.name()).collect();
        names.join(" ")
    }
}

/// What `key` does in `view`.
pub(crate) fn pressed(view: View, key: Key) -> Option<Cmd> {
    let mut bindings = BINDINGS.iter();
    let found = bindings.find(|binding| binding.is_in(view) && binding.keys.contains(&key));
    found.map(|binding| binding.cmd)
}

/// What a word of the command line does in `view`: `Err` says in which views it does something.
pub(crate) fn typed(view: View, word: &str) -> Result<Cmd, String> {
    let Some(binding) = BINDINGS.iter().find(|binding| binding.word == word) else {
        return Err(format!("there is no command `{word}`; ? lists all"));
    };
    if binding.is_in(view) {
        return Ok(binding.cmd);
    }
    let views: Vec<&str> = binding.views.iter().map(|view| view.name()).collect();
    Err(format!("`{word}` is a command of: {}", views.join(", ")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_key_does_two_things_in_one_view() {
        for view in View::ALL {
            let mut seen = Vec::new();
            for binding in BINDINGS.iter().filter(|binding| binding.is_in(view)) {
                for key in binding.keys {
                    assert!(!seen.contains(key), "{key:?} twice in {view:?}");
                    seen.push(*key);
                }
            }
        }
    }

    #[test]
    fn every_word_is_one_commands_and_every_command_is_said_in_words() {
        let words: BTreeSet<&str> = BINDINGS.iter().map(|binding| binding.word).collect();
        assert_eq!(words.len(), BINDINGS.len());
        assert!(BINDINGS.iter().all(|binding| !binding.help.is_empty()));
        assert_eq!(typed(View::Log, "quit"), Ok(Cmd::Quit));
        assert_eq!(
            typed(View::Log, "approve"),
            Err("`approve` is a command of: requests".to_owned())
        );
        assert!(typed(View::Log, "nonsense").is_err());
    }

    const BEGIN: &str = "<!-- keys: made from the console's table -->\n";
    const END: &str = "<!-- end of keys -->";

    fn table() -> String {
        let row = |binding: &Binding| {
            let keys: Vec<String> = binding
                .keys
                .iter()
                .map(|key| format!("`{}`", key.name()))
                .collect();
            let views: Vec<&str> = binding.views.iter().map(|view| view.name()).collect();
            let views = if views.is_empty() {
                "all".to_owned()
            } else {
                views.join(", ")
            };
            format!(
                "| {} | `:{}` | {views} | {} |\n",
                keys.join(" "),
                binding.word,
                binding.help
            )
        };
        let rows: String = BINDINGS.iter().map(row).collect();
        format!("| keys | command | in | |\n|---|---|---|---|\n{rows}")
    }

    #[test]
    fn the_readme_lists_the_keys_that_there_are() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
        let text = std::fs::read_to_string(path).expect("reads");
        let (before, rest) = text.split_once(BEGIN).expect("it has a place for them");
        let (kept, after) = rest.split_once(END).expect("which ends");
        if std::env::var_os("WRITE_TABLES").is_some() {
            let whole = format!("{before}{BEGIN}{}{END}{after}", table());
            std::fs::write(path, whole).expect("writes");
            return;
        }
        assert_eq!(
            kept,
            table(),
            "run this test with WRITE_TABLES=1 to write it anew"
        );
    }

    #[test]
    fn every_view_has_its_key() {
        for view in View::ALL {
            assert!(
                BINDINGS.iter().any(|binding| binding.cmd == Cmd::Go(view)),
                "{view:?}"
            );
        }
    }
}
