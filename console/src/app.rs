//! The console's state, and what each message makes of it. Pure: no clock, no terminal, no socket. [`Model::update`] takes a message and gives the
//! effects that the loop is to perform; the screen is drawn from the model alone.

mod age;
pub(crate) mod asked;
pub(crate) mod chain;
mod deciding;
pub(crate) mod evidence;
pub(crate) mod find;
pub(crate) mod form;
mod idle;
pub(crate) mod key;
pub(crate) mod lag;
pub(crate) mod popup;
pub(crate) mod proof;
pub(crate) mod queries;
pub(crate) mod reading;
pub(crate) mod refusals;
pub(crate) mod rows;
pub(crate) mod signed;
pub(crate) mod standing;
pub(crate) mod tail;
#[cfg(test)]
pub(crate) mod tests;
mod update;

pub(crate) use age::{Moving, ago};
pub(crate) use update::why_title;

use enforcer_proto::audit::Record;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::Filter;
use enforcer_proto::wire::{AgentView, GrantView, RequestView, Status};
use serde::{Deserialize, Serialize};

use chain::Checked;
use find::Found;
use form::Field;
use key::Key;
use lag::Lag;
use popup::{Deed, Popup};
use proof::Proofs;
use queries::Queries;
use reading::Shown;
use refusals::Refusals;
use rows::{Made, Row};
use signed::Signer;
use tail::{Entry, Tail};

/// A part of the screen to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum View {
    /// Windows, open and closed.
    Windows,
    /// Requests that wait.
    Requests,
    /// Queries of windows.
    Sessions,
    /// The log.
    Log,
    /// Refusals.
    Refusals,
    /// Agents.
    Agents,
    /// Whether all is well.
    Health,
}

impl View {
    /// All of them, in their order on screen.
    pub(crate) const ALL: [Self; 7] = [
        Self::Windows,
        Self::Requests,
        Self::Sessions,
        Self::Log,
        Self::Refusals,
        Self::Agents,
        Self::Health,
    ];

    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Windows => "windows",
            Self::Requests => "requests",
            Self::Sessions => "sessions",
            Self::Log => "log",
            Self::Refusals => "refusals",
            Self::Agents => "agents",
            Self::Health => "health",
        }
    }

    /// Its place among all.
    pub(crate) const fn place(self) -> usize {
        self as usize
    }

    fn beside(self, step: usize) -> Self {
        Self::ALL[(self.place() + step) % Self::ALL.len()]
    }
}

/// What happens to the console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Msg {
    /// A key was pressed.
    Key(Key),
    /// Text was pasted: it is never taken for keys.
    Paste(String),
    /// A row of the screen was clicked on.
    Click(u16, u16),
    /// The terminal has another size, or what was on it may be gone.
    Resize,
    /// The screen was drawn, so many columns wide and rows high.
    Drawn(u16, u16),
    /// What is seen and typed is kept no more in a recording: why. No part of one.
    #[serde(skip)]
    Unrecorded(String),
    /// Time has passed.
    Tick,
    /// A signal came that stops the process, lets it go on, or ends it at once. No part of a recording.
    #[serde(skip)]
    Signal(i32),
    /// What a recording has of this moment of it, milliseconds. No part of a recording itself.
    #[serde(skip)]
    Recorded(u64, Box<Self>),
    /// The daemon said how things are.
    Status(Box<Status>),
    /// Records came, and the numbers of those that this release cannot read; 0 where one has not even that.
    Records(Vec<Entry>, Vec<u64>),
    /// The daemon cannot be reached.
    Lost {
        /// Why.
        why: String,
        /// When it is tried again, milliseconds from now.
        retry_ms: u64,
        /// How often it was tried.
        tries: u32,
    },
    /// What came of what was asked of it: a sentence, good or bad.
    Answered {
        /// What was asked, in words; empty where it was nothing in particular.
        #[serde(default)]
        of: String,
        /// Whether it was done.
        is_done: bool,
        /// What was said.
        said: String,
        /// The windows that were ended by it, where the daemon named them.
        #[serde(default)]
        ended: Option<Vec<(GrantId, AgentName)>>,
    },
    /// What was to be asked for was not: too much waits already.
    NotAsked {
        /// What, in words; empty where it was nothing in particular.
        of: String,
    },
    /// What was looked for in the log.
    Found {
        /// What it is.
        title: String,
        /// Its records; or why there are none.
        found: Result<Found, String>,
    },
    /// The log is another one than that which was followed: it had so many records, and has so many.
    Replaced {
        /// The number of the newest that came.
        had: u64,
        /// How many the daemon says that there are.
        has: u64,
    },
    /// So many records came while there was no time for them; they are asked for again.
    Dropped(u64),
    /// What the daemon's log has of windows that were ended from here.
    Proven(Vec<Entry>),
    /// A question was on screen, and all keys pressed before that have been taken in.
    Shown(Shown),
    /// The facts behind a record.
    Explained {
        /// What they are of.
        title: String,
        /// What there is to say, a line each; or why it is not known.
        found: Result<Vec<String>, String>,
    },
}

/// What the loop is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Ask the daemon for something, and say what came of it.
    Do(Deed),
    /// Look for records in the daemon's log.
    Find {
        /// What they are called.
        title: String,
        /// Which.
        filter: Box<Filter>,
    },
    /// Look for what the daemon's log has of the end of these windows.
    Prove(Vec<GrantId>),
    /// Look for the facts behind a record.
    Explain(Box<Record>),
    /// End.
    Quit,
}

/// Whether the daemon can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing was heard yet.
    Never,
    /// It answers.
    Up,
    /// It does not.
    Down {
        /// Why.
        why: String,
        /// When it is tried again, on the console's clock, milliseconds.
        retry_at_ms: u64,
        /// How often it was tried.
        tries: u32,
    },
}

/// What kind of console it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// It shows and asks.
    Full,
    /// It only shows.
    ReadOnly,
    /// It shows what was made up.
    Demo,
    /// It shows what was recorded.
    Replay {
        /// Whether the console that was recorded only showed.
        is_read_only: bool,
    },
}

impl Mode {
    /// Why nothing can be asked for, where it cannot.
    pub(crate) const fn refuses(self) -> Option<&'static str> {
        match self {
            // What was asked for is part of a recording; there is nobody to hear it again.
            Self::Full
            | Self::Replay {
                is_read_only: false,
            } => None,
            Self::ReadOnly | Self::Replay { is_read_only: true } => {
                Some("this console was started with --read-only")
            }
            Self::Demo => Some("this is a demonstration: nothing here is real"),
        }
    }

    /// What is said of it on screen.
    pub(crate) const fn banner(self) -> Option<&'static str> {
        match self {
            Self::Full => None,
            Self::ReadOnly => Some("READ ONLY"),
            // As long as fits the narrowest screen with all that must stand beside it.
            Self::Demo => Some("DEMO: NOT REAL"),
            Self::Replay { .. } => Some("RECORDING"),
        }
    }

    /// Whether it shows what was recorded.
    pub(crate) const fn is_replay(self) -> bool {
        match self {
            Self::Replay { .. } => true,
            Self::Full | Self::ReadOnly | Self::Demo => false,
        }
    }
}

/// How things were when the daemon said so last.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) status: Status,
    /// When that was, on the console's clock.
    pub(crate) at_ms: u64,
}

/// How many bytes a window used in the last seconds, for its sparkline.
pub(crate) const RATES_MAX: usize = 32;

/// Queries of one window a second.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    /// What had been used when it was looked at last.
    pub(crate) last: Option<(u64, u64)>,
    /// How many more each second, newest last.
    pub(crate) each: Vec<u64>,
}

/// One line that says what came of something, until it is old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) text: String,
    pub(crate) is_bad: bool,
    pub(crate) at_ms: u64,
    pub(crate) of: Of,
}

/// What a notice comes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// Of something that was asked for, or done.
    Deed,
    /// Of a key that could not act.
    Key,
    /// Of one that had nothing to do, which matters until the next.
    Idle,
}

/// What is typed at the foot of the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typing {
    /// A text to look for in the view.
    Search(Field),
    /// A command.
    Command(Field),
}

/// What a view remembers of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// What is selected: by what it is, since rows move.
    pub(crate) selected: Option<Row>,
    /// Which row it was, for when it is gone.
    pub(crate) row: usize,
    /// Only rows with this text.
    pub(crate) search: String,
    /// The newest is selected as it comes.
    pub(crate) follows: bool,
}

/// All there is to show.
#[derive(Debug)]
pub(crate) struct Model {
    /// The console's own clock, milliseconds since it started.
    pub(crate) at_ms: u64,
    pub(crate) mode: Mode,
    pub(crate) link: Link,
    pub(crate) known: Option<Known>,
    pub(crate) tail: Tail,
    pub(crate) chain: Checked,
    pub(crate) signer: Signer,
    /// The log became another one while it was followed: how many records it had, and has.
    pub(crate) replaced: Option<(u64, u64)>,
    pub(crate) lag: Lag,
    /// Why what is seen is no longer recorded, though it was to be.
    pub(crate) unrecorded: Option<String>,
    pub(crate) queries: Queries,
    pub(crate) refusals: Refusals,
    pub(crate) rates: std::collections::BTreeMap<GrantId, Rate>,
    pub(crate) view: View,
    pub(crate) places: [Place; View::ALL.len()],
    /// All there is of what is selected is shown, from this line on.
    pub(crate) detail: Option<usize>,
    pub(crate) popup: Option<Popup>,
    pub(crate) typing: Option<Typing>,
    pub(crate) notice: Option<Notice>,
    /// How many notices there were.
    pub(crate) notices: u64,
    /// What was asked for from here that ends windows, and what shows that they have ended.
    pub(crate) proofs: Proofs,
    /// The height of the list as it was drawn, rows.
    pub(crate) page: usize,
    /// How many lines a popup or a detail shows at once.
    pub(crate) room: usize,
    /// How many questions were put.
    pub(crate) questions: u64,
    /// How many statuses have come, and batches of records with something new: what is made of them is made anew when they are more.
    pub(crate) statuses: u64,
    pub(crate) records: u64,
    /// The rows as they were made last.
    pub(crate) made: Made,
    /// The screen as it was drawn, columns and rows.
    pub(crate) size: (u16, u16),
    /// What of the screen moves with time alone, as it was when that was looked at last.
    moving: Moving,
    /// Something changed that is on screen.
    pub(crate) is_dirty: bool,
}

impl Model {
    /// A console that has heard nothing yet.
    pub(crate) fn new(mode: Mode) -> Self {
        let mut places: [Place; View::ALL.len()] = Default::default();
        for view in [View::Log, View::Sessions, View::Refusals] {
            places[view.place()].follows = true;
        }
        Self {
            at_ms: 0,
            mode,
            link: Link::Never,
            known: None,
            tail: Tail::default(),
            chain: Checked::default(),
            signer: Signer::default(),
            replaced: None,
            lag: Lag::default(),
            unrecorded: None,
            queries: Queries::default(),
            refusals: Refusals::default(),
            rates: std::collections::BTreeMap::new(),
            view: View::Windows,
            places,
            detail: None,
            popup: None,
            typing: None,
            notice: None,
            notices: 0,
            proofs: Proofs::default(),
            page: 10,
            room: 10,
            questions: 0,
            statuses: 0,
            records: 0,
            made: Made::default(),
            size: (80, 24),
            moving: Moving::default(),
            is_dirty: true,
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.places[self.view.place()]
    }

    fn place_mut(&mut self) -> &mut Place {
        &mut self.places[self.view.place()]
    }

    /// How things were last.
    pub(crate) fn status(&self) -> Option<&Status> {
        self.known.as_ref().map(|known| &known.status)
    }

    /// How old that is, milliseconds.
    pub(crate) fn age_ms(&self) -> Option<u64> {
        let known = self.known.as_ref()?;
        Some(self.at_ms.saturating_sub(known.at_ms))
    }

    /// How much is left of what the daemon said was left, nanoseconds: aged by the console's own clock, never by the wall's.
    pub(crate) fn left_ns(&self, said_ns: u64) -> u64 {
        said_ns.saturating_sub(self.age_ms().unwrap_or(0).saturating_mul(1_000_000))
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &RequestView> {
        let all = self
            .status()
            .into_iter()
            .flat_map(|status| &status.requests);
        all.filter(|request| request.state == "pending")
    }

    /// One window.
    pub(crate) fn grant(&self, id: GrantId) -> Option<&GrantView> {
        self.status()?.grants.iter().find(|grant| grant.grant == id)
    }

    /// One agent.
    pub(crate) fn agent(&self, name: &AgentName) -> Option<&AgentView> {
        self.status()?
            .agents
            .iter()
            .find(|agent| agent.agent == *name)
    }

    /// Windows that are open, as far as is known.
    pub(crate) fn open(&self) -> impl Iterator<Item = &GrantView> {
        let all = self.status().into_iter().flat_map(|status| &status.grants);
        all.filter(|grant| grant.open)
    }

    /// How many more windows may be open of which the daemon did not tell: they found no room.
    pub(crate) fn open_left_out_max(&self) -> u64 {
        self.status().map_or(0, Status::open_left_out_max)
    }
}
