//! What lies over the screen. One that asks whether to do something holds what is to be done: what was shown is what is asked for, whatever has
//! happened to the lists since.

use enforcer_proto::id::{GrantId, RequestId};
use enforcer_proto::principal::{AgentName, shown_name};
use enforcer_proto::scope::Scope;
use enforcer_proto::size;
use enforcer_proto::text::utc;
use enforcer_proto::time::{NS_PER_S, Ttl};
use enforcer_proto::wire::{Ask, GrantView, LockView, RequestView};

use super::asked::Asked;
use super::find::Found;
use super::form::{Reason, Terms};
use super::key::Key;
use super::reading::{Reading, Shown, scroll};
use super::standing::Standing;
use super::{Link, Model};

/// What is agreed to.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(crate) struct Approval {
    /// Which request.
    pub(crate) request: RequestId,
    /// The digest of what you were shown: `show` prints it.
    #[arg(long)]
    pub(crate) seen: String,
    /// For a shorter time.
    #[arg(long)]
    pub(crate) ttl: Option<Ttl>,
    /// Less than is asked for.
    #[arg(long)]
    pub(crate) scope: Option<Scope>,
    /// Fewer bytes.
    #[arg(long)]
    pub(crate) bytes_max: Option<u64>,
    /// Fewer queries.
    #[arg(long)]
    pub(crate) queries_max: Option<u64>,
}

/// What the daemon is to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Agree to a request.
    Approve(Approval),
    /// Deny it.
    Deny {
        /// Which.
        request: RequestId,
        /// Why.
        reason: String,
    },
    /// End a window.
    Revoke(GrantId),
    /// Keep an agent from windows, and end the one that it has.
    Lock {
        /// Which.
        agent: AgentName,
        /// Why.
        reason: String,
    },
    /// Let it have windows again.
    Unlock {
        /// Which.
        agent: AgentName,
        /// The lock that was shown, where one was: another one is not lifted.
        shown: Option<LockView>,
    },
    /// End every window.
    CloseAll,
}

impl Deed {
    /// How it is asked for.
    pub(crate) fn ask(&self) -> Ask {
        match self.clone() {
            Self::Approve(Approval {
                request,
                seen,
                ttl,
                scope,
                bytes_max,
                queries_max,
            }) => Ask::Approve {
                request,
                seen,
                ttl,
                scope,
                bytes_max,
                queries_max,
                signature: None,
            },
            Self::Deny { request, reason } => Ask::Deny { request, reason },
            Self::Revoke(grant) => Ask::Revoke { grant },
            Self::Lock { agent, reason } => Ask::Lock { agent, reason },
            Self::Unlock { agent, shown: _ } => Ask::Unlock { agent },
            Self::CloseAll => Ask::CloseAll,
        }
    }

    /// What it is, in words.
    pub(crate) fn said(&self) -> String {
        match self {
            Self::Approve(approval) => format!("approve {}", approval.request),
            Self::Deny { request, .. } => format!("deny {request}"),
            Self::Revoke(grant) => format!("revoke {grant}"),
            Self::Lock { agent, .. } => format!("lock {agent}"),
            Self::Unlock { agent, .. } => format!("unlock {agent}"),
            Self::CloseAll => "close every window".to_owned(),
        }
    }
}

/// The word that must be typed before every window is ended.
pub(crate) const CLOSE_ALL_WORD: &str = "close all";
/// The word that must be typed before an agent is let have windows again.
pub(crate) const UNLOCK_WORD: &str = "unlock";

/// The most that is taken of what is typed in a word's place, bytes.
const TYPED_BYTES_MAX: usize = 64;

/// Whether to do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Confirm {
    /// Its number among all questions of this console.
    pub(crate) number: u64,
    /// What this is.
    pub(crate) title: String,
    /// What is asked for, whole.
    pub(crate) lines: Vec<String>,
    /// What happens on a yes.
    pub(crate) deed: Deed,
    /// The request that it is about, as it was shown.
    pub(crate) asked: Option<Box<Asked>>,
    /// What must be typed instead of a single key, and what has been.
    pub(crate) word: Option<(&'static str, String)>,
    /// When the first letter of that was taken, on the console's clock, milliseconds.
    pub(crate) typed_from_ms: Option<u64>,
    /// The first line that is shown.
    pub(crate) from: usize,
    /// What of it has been on screen.
    pub(crate) reading: Reading,
    /// How long that has stood.
    pub(crate) standing: Standing,
}

impl Confirm {
    /// Whether there is more of it that must be on screen before it can be agreed to. What gives something must have been there to its end; what
    /// takes something away waits for no more than its beginning.
    pub(crate) fn must_be_read(&self) -> bool {
        match self.deed {
            Deed::Approve(_) | Deed::Unlock { .. } => !self.reading.is_whole(),
            Deed::Deny { .. } | Deed::Revoke(_) | Deed::Lock { .. } | Deed::CloseAll => false,
        }
    }

    /// Takes in what a screen showed of it. What hinders it does so for as long as it stands, and then it must be read again.
    pub(super) fn drawn(&mut self, at_ms: u64, shown: &Shown, is_hindered: bool) {
        self.reading.take(shown);
        let is_read = self.reading.has_begun() && !self.must_be_read() && !is_hindered;
        self.standing.drawn(at_ms, is_read, shown.takes);
    }

    /// Whether a key scrolls it: letters may be part of a word that is typed.
    pub(super) fn scrolls(&self, key: Key) -> bool {
        let is_letter = matches!(key, Key::Char(_));
        (self.word.is_none() || !is_letter) && scroll(key, 0, 1).is_some()
    }

    /// Whether a key is an answer, or part of one.
    pub(super) fn is_answer(&self, key: Key) -> bool {
        match self.word {
            None => key == Key::Char('y'),
            Some(_) => matches!(key, Key::Char(_) | Key::Backspace | Key::Enter),
        }
    }

    /// Takes an answer, or a part of one; gives whether that is all of it.
    pub(super) fn answer(&mut self, at_ms: u64, key: Key) -> bool {
        let Some((word, typed)) = &mut self.word else {
            return key == Key::Char('y');
        };
        match key {
            Key::Char(c) if typed.len() < TYPED_BYTES_MAX => {
                typed.push(c);
                self.typed_from_ms.get_or_insert(at_ms);
                false
            }
            Key::Backspace => {
                typed.pop();
                false
            }
            Key::Enter => typed == word,
            Key::Char(_)
            | Key::Ctrl(_)
            | Key::Esc
            | Key::Tab
            | Key::BackTab
            | Key::Up
            | Key::Down
            | Key::Left
            | Key::Right
            | Key::PageUp
            | Key::PageDown
            | Key::Home
            | Key::End
            | Key::Delete => false,
        }
    }

    /// What was typed is not taken, and is typed anew.
    pub(super) fn forget_typed(&mut self) {
        if let Some((_, typed)) = &mut self.word {
            typed.clear();
        }
        self.typed_from_ms = None;
    }

    /// Why it cannot be agreed to yet, where that is for what was not on screen.
    pub(super) fn unread(&self) -> Option<String> {
        if !self.must_be_read() {
            return None;
        }
        let why = if self.reading.is_too_long() {
            "it is too long to be shown whole here, so nobody can agree to it from here".to_owned()
        } else {
            format!(
                "not all of it has been on screen yet: {} shows the rest, then you can agree",
                self.turns()
            )
        };
        Some(why)
    }

    /// The key that shows the rest: a blank may be part of a word that is typed.
    pub(crate) fn turns(&self) -> String {
        match self.word {
            None => Key::Char(' ').name(),
            Some(_) => Key::PageDown.name(),
        }
    }
}

/// What lies over the screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Popup {
    /// All keys, from this line on.
    Help(usize),
    /// Whether to do something.
    Confirm(Confirm),
    /// For what reason.
    Reason(Reason),
    /// How much of what was asked for.
    Terms(Box<Terms>),
    /// Records of a window, or why there are none.
    Story {
        /// What it is.
        title: String,
        /// Which command gives more of it.
        all: String,
        /// The records; or why there are none.
        found: Option<Result<Found, String>>,
        /// The first line that is shown.
        from: usize,
    },
    /// Why something was so.
    Why {
        /// What it is of.
        title: String,
        /// What there is to say.
        lines: Vec<String>,
        /// The first line that is shown.
        from: usize,
    },
    /// What shows that windows have ended.
    Proof(usize),
}

impl Popup {
    /// Whether it asks nothing and takes no text: it only shows.
    pub(crate) const fn only_shows(&self) -> bool {
        match self {
            Self::Help(_) | Self::Story { .. } | Self::Why { .. } | Self::Proof(_) => true,
            Self::Confirm(_) | Self::Reason(_) | Self::Terms(_) => false,
        }
    }
}

/// Everything about a request that its approver is to know, a line each, unwrapped.
pub(crate) fn request_lines(model: &Model, request: &RequestView) -> Vec<String> {
    let mut lines = vec![
        format!("agent    {}", request.agent),
        format!("scope    {}", request.scope),
        format!("for      {}", request.ttl),
        format!("at most  {}", request.budget),
    ];
    if (&request.scope, request.ttl) != (&request.ask.scope, request.ask.ttl) {
        lines.push(format!(
            "narrowed: {} for {} was asked for",
            request.ask.scope, request.ask.ttl
        ));
    }
    lines.push(format!("reason   {}", request.ask.reason));
    lines.push(format!(
        "asked by pid {} (uid {}), under rule {}, waits {} more",
        request.pid,
        request.uid,
        request.rule,
        minutes_seconds(model.left_ns(request.expires_in_ns))
    ));
    lines.extend(rule_line(model, request.rule));
    lines.extend(origin_lines(request));
    if request.ends_with_process {
        lines.push("for a command: the window ends with it".to_owned());
    }
    if let Some(from) = &request.from_query {
        lines.push(format!(
            "made of a query without a window, {} so far; {}",
            request.queries.max(1),
            from.said()
        ));
        lines.extend(
            from.named
                .as_ref()
                .map(|named| format!("its text names {}", named.scope)),
        );
        lines.extend(
            from.estimate
                .as_ref()
                .map(enforcer_proto::asking::Estimate::said),
        );
        lines.extend(from.sql.as_ref().map(|sql| format!("SQL      {sql}")));
        lines.extend(from.sql_cut.as_ref().map(|cut| {
            format!(
                "it goes on: all of it is {} bytes, SHA-256 {}",
                cut.bytes, cut.sha256
            )
        }));
    }
    let with = request.held_in_day_s.saturating_add(request.ttl.seconds());
    lines.push(format!(
        "windows for {} min of the last 24 h; with this {} of {} min that the policy allows",
        request.held_in_day_s.div_ceil(60),
        with.div_ceil(60),
        request.held_in_day_s_max / 60
    ));
    lines.extend(history_line(model, &request.agent));
    if !request.joined.is_empty() {
        let joined: Vec<String> = request.joined.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "waiting with it: queries of uids {}",
            joined.join(", ")
        ));
    }
    if !request.agreed.is_empty() {
        let agreed: Vec<String> = request.agreed.iter().map(ToString::to_string).collect();
        lines.push(format!("agreed   uids {}", agreed.join(", ")));
    }
    lines.push(match &request.wanting {
        Some(wanting) => format!("wanting  {wanting}"),
        None => "no rule of the policy covers it any more: nobody can approve it".to_owned(),
    });
    lines
}

/// Where the process that asked comes from. Every name in it was chosen by the processes themselves.
fn origin_lines(request: &RequestView) -> Vec<String> {
    let Some(origin) = &request.origin else {
        return Vec::new();
    };
    let own = format!(
        "process  {} pid {} (uid {})",
        shown_name(&request.comm),
        request.pid,
        request.uid
    );
    let above = origin.chain(request.uid);
    let chain = if above.is_empty() {
        own
    } else {
        format!("{own} ← {above}")
    };
    let place = origin.place().map(|place| format!("unit     {place}"));
    let container = origin.container();
    let container = container.map(|container| format!("in       {container}"));
    [chain].into_iter().chain(place).chain(container).collect()
}

/// What a policy rule says, where that is told.
fn rule_line(model: &Model, number: u32) -> Option<String> {
    let rules = &model.status()?.rules;
    let rule = rules.iter().find(|rule| rule.rule == number)?;
    Some(format!("rule {}   {}", rule.rule, rule.said))
}

fn history_line(model: &Model, agent: &AgentName) -> Option<String> {
    let agent = model.agent(agent)?;
    Some(format!(
        "history  {} approved, {} denied, {} undecided; {} refused since {}",
        agent.approved,
        agent.denied,
        agent.undecided,
        agent.refused,
        started(model)
    ))
}

/// Since when the daemon counts, which is its start: the time of day, with the day where that is not today's.
pub(crate) fn started(model: &Model) -> String {
    const DAY_NS: u64 = 24 * 3600 * NS_PER_S;
    let known = model
        .status()
        .map(|status| (status.started_unix_ns, status.now.unix_ns));
    let Some((at, now)) = known.filter(|(at, _)| *at > 0) else {
        return "the daemon's start".to_owned();
    };
    let said = utc(at);
    let (day, time) = said.split_once('T').unwrap_or_default();
    let time = time.get(..5).unwrap_or_default();
    if at / DAY_NS == now / DAY_NS {
        format!("{time} UTC")
    } else {
        format!("{day} {time} UTC")
    }
}

/// Everything about a window, a line each, unwrapped.
pub(crate) fn grant_lines(model: &Model, grant: &GrantView) -> Vec<String> {
    let state = match &grant.closed {
        None if grant.open => format!(
            "open, closes in {}",
            minutes_seconds(model.left_ns(grant.closes_in_ns))
        ),
        None => "past its end".to_owned(),
        Some(why) => format!("closed: {why}"),
    };
    let mut lines = vec![
        format!("agent    {}", grant.agent),
        format!("scope    {}", grant.scope),
        format!("state    {state}"),
        format!("ends     {} UTC", clock(grant.closes_unix_ns)),
        format!("queries  {} of {}", grant.queries, grant.queries_max),
        format!(
            "bytes    {} of {}, and {} held for what runs",
            size::whole(grant.bytes),
            size::whole(grant.bytes_max),
            size::whole(grant.held_bytes)
        ),
        format!(
            "rows     {} of {} passed on",
            size::whole(grant.returned_bytes),
            size::whole(grant.returned_bytes_max)
        ),
        format!(
            "jobs     {} of {} at once",
            grant.jobs_at_once, grant.jobs_at_once_max
        ),
        format!("decided  by {} on {}", grant.approver, grant.request),
    ];
    lines.extend(
        grant
            .break_glass
            .as_ref()
            .map(|why| format!("OPENED IN AN EMERGENCY: {why}")),
    );
    lines
}

/// Nanoseconds as minutes and seconds, the begun second counting.
pub(crate) fn minutes_seconds(ns: u64) -> String {
    let all = ns.div_ceil(NS_PER_S);
    if all >= 3600 {
        format!("{}:{:02}:{:02}", all / 3600, all / 60 % 60, all % 60)
    } else {
        format!("{}:{:02}", all / 60, all % 60)
    }
}

/// The time of day, UTC.
pub(crate) fn clock(unix_ns: u64) -> String {
    let all = unix_ns / NS_PER_S;
    format!(
        "{:02}:{:02}:{:02}",
        all / 3600 % 24,
        all / 60 % 60,
        all % 60
    )
}

/// The same with milliseconds.
pub(crate) fn clock_ms(unix_ns: u64) -> String {
    format!("{}.{:03}", clock(unix_ns), unix_ns / 1_000_000 % 1000)
}

impl Model {
    /// Why a deed cannot be asked for now.
    pub(crate) fn hindered(&self) -> Option<String> {
        if let Some(why) = self.mode.refuses() {
            return Some(why.to_owned());
        }
        match &self.link {
            Link::Up => None,
            Link::Never | Link::Down { .. } => {
                Some("not connected: the daemon hears nothing of it".to_owned())
            }
        }
    }

    /// The lock that keeps an agent from windows, where there is one.
    pub(crate) fn lock_of(&self, agent: &AgentName) -> Option<&LockView> {
        self.agent(agent)?.locked.as_ref()
    }

    /// Why what a popup holds can no longer be asked for: what it was shown for is no more what it was.
    pub(crate) fn outdated(&self, confirm: &Confirm) -> Option<String> {
        match &confirm.deed {
            Deed::Approve(Approval { request, seen, .. }) => {
                let Some(now) = self.waiting().find(|now| now.request == *request) else {
                    return Some(format!("{request} does not wait any more"));
                };
                let changed = confirm
                    .asked
                    .as_ref()
                    .and_then(|asked| asked.changed(self, now));
                changed.or_else(|| {
                    (now.digest != *seen).then(|| {
                        format!(
                            "{request} has changed since this was shown: esc, and look at it again"
                        )
                    })
                })
            }
            Deed::Deny { request, .. } => {
                let waits = self.waiting().any(|now| now.request == *request);
                (!waits).then(|| format!("{request} does not wait any more"))
            }
            Deed::Revoke(grant) => {
                let is_open = self.open().any(|open| open.grant == *grant);
                // One of which the daemon does not tell for want of room may be open yet: it is the daemon's to say.
                let is_told = self.grant(*grant).is_some() || self.open_left_out_max() == 0;
                (!is_open && is_told).then(|| format!("{grant} is not open any more"))
            }
            Deed::Lock { agent, .. } => {
                let lock = self.lock_of(agent)?;
                Some(format!(
                    "{agent} is locked by now, by {}: {}",
                    lock.by, lock.reason
                ))
            }
            Deed::Unlock { agent, shown } => match (self.lock_of(agent), shown) {
                (None, _) => Some(format!("{agent} is not locked any more")),
                (Some(now), Some(shown)) if now != shown => Some(format!(
                    "{agent} is under another lock than was shown, by {}: esc, and look at it again",
                    now.by
                )),
                (Some(_), _) => None,
            },
            Deed::CloseAll => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said_in_minutes_and_seconds() {
        assert_eq!(minutes_seconds(1), "0:01");
        assert_eq!(minutes_seconds(61 * NS_PER_S), "1:01");
        assert_eq!(minutes_seconds(3_661 * NS_PER_S), "1:01:01");
    }
}
