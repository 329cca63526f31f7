//! Notices: what is told elsewhere of what is on record, such as to a pager or a chat. Pure: records in, notices out. A notice is made of a
//! durable record and of nothing else, so nobody is told what is not on record; what is told decides nothing.
//!
//! [`Watcher`] makes notices for one hook, [`burst`] counts refusals, [`queue`] says what is sent next and what is given up.

pub mod burst;
pub mod queue;
mod told;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::audit::Record;
use crate::id::{GrantId, RequestId};
use crate::policy::Budget;
use crate::principal::AgentName;
use crate::refusal::Code;
use crate::text::safe_line;
use crate::time::{Now, Ttl};
use burst::{Burst, BurstLimits, Bursts, Counted};

/// The version of a notice's form. Fields are only ever added within one.
pub const VERSION: u32 = 1;
/// The longest text in a notice, characters: reasons, messages. A longer one is cut, with `…` at its end.
pub const TEXT_CHARS_MAX: usize = 500;

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// An agent asks for a window.
    Request,
    /// A request was approved, denied, or nobody decided in time.
    Decision,
    /// The kernel holds a window.
    Open,
    /// A window has ended.
    Close,
    /// An agent, or what is no agent, was refused many times within a short time.
    RefusalBurst,
    /// What is wrong with the enforcement changed, or it was ended on purpose.
    Health,
    /// A window was opened in an emergency, without those whom the policy asks for, or such a one was reviewed. Whoever wants decisions is told
    /// as well.
    BreakGlass,
    /// An agent sent a credential of its own.
    Credential,
    /// The rules in force changed, or a changed file cannot be used.
    Policy,
    /// The daemon started or stopped.
    Daemon,
    /// Notices before this one were given up. Every hook is told.
    #[serde(skip_deserializing)]
    Lost,
    /// Somebody tries whether notices arrive.
    #[serde(skip_deserializing)]
    Test,
}

/// One notice, as it is sent: one JSON object. What it does not concern is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// [`VERSION`].
    pub version: u32,
    /// The host's configured name.
    pub host: String,
    /// The record's number in the log of that host. A notice may come twice, and then has the same number and kind.
    pub seq: u64,
    /// When it was recorded, unix time, milliseconds.
    pub unix_ms: u64,
    /// What it is about.
    pub event: NoticeKind,
    /// All of it in one line, for people. Safe to show: no control character, nothing that reorders text.
    pub summary: String,
    /// The agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// The window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// What is asked, or granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// For how long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// Why: the agent's words of a request, an approver's of a denial, the enforcer's of a close. Safe to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a window of a request may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// SHA-256 of what approvers are shown of a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `agreed` (others must as well), `approved`, `denied`, `expired`, or `reviewed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Who decided, or who asked or closed, such as `uid 5001`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When a window closes, unix time, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closes_unix_ms: Option<u64>,
    /// Queries admitted in a window that has closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<u64>,
    /// Bytes billed in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The code of the last refusal of a burst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What was said with it, or what is wrong. Safe to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many refusals, or notices given up, this one stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

impl Notice {
    /// A notice of this kind with nothing in it but its summary.
    #[must_use]
    pub fn new(host: &str, seq: u64, unix_ns: u64, event: NoticeKind, summary: &str) -> Self {
        Self {
            version: VERSION,
            host: host.to_owned(),
            seq,
            unix_ms: unix_ns / 1_000_000,
            event,
            summary: safe_line(summary, 2 * TEXT_CHARS_MAX),
            agent: None,
            request: None,
            grant: None,
            scope: None,
            ttl: None,
            reason: None,
            budget: None,
            digest: None,
            outcome: None,
            by: None,
            closes_unix_ms: None,
            queries: None,
            bytes: None,
            code: None,
            message: None,
            count: None,
        }
    }

    /// The text of a chat message: what that takes for markup is escaped, so that no text of an agent's makes a link or a mention.
    #[must_use]
    pub fn slack_text(&self) -> String {
        let text = format!("[{}] {}", self.host, self.summary);
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                c => out.push(c),
            }
        }
        out
    }
}

/// Which notices a hook wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wanted {
    /// What they are about.
    pub events: BTreeSet<NoticeKind>,
    /// Of which agents; empty: of all, and of what is no agent. What concerns the host is wanted in any case.
    pub agents: BTreeSet<AgentName>,
    /// When refusals are a burst.
    pub burst: BurstLimits,
}

impl Wanted {
    fn concerns(&self, agent: Option<&AgentName>) -> bool {
        self.agents.is_empty() || agent.is_some_and(|agent| self.agents.contains(agent))
    }

    fn wants(&self, notice: &Notice) -> bool {
        let is_the_hosts = match notice.event {
            NoticeKind::Health
            | NoticeKind::Policy
            | NoticeKind::Daemon
            | NoticeKind::Lost
            | NoticeKind::Test => true,
            NoticeKind::Request
            | NoticeKind::Decision
            | NoticeKind::BreakGlass
            | NoticeKind::Open
            | NoticeKind::Close
            | NoticeKind::Credential
            | NoticeKind::RefusalBurst => false,
        };
        // An emergency is a decision too: nobody has to ask for it by its name.
        let is_decision =
            notice.event == NoticeKind::BreakGlass && self.events.contains(&NoticeKind::Decision);
        (self.events.contains(&notice.event) || is_decision)
            && (is_the_hosts || self.concerns(notice.agent.as_ref()))
    }
}

/// Makes a hook's notices of the records, which it is given in their order.
#[derive(Debug)]
pub struct Watcher {
    host: String,
    wanted: Wanted,
    bursts: Bursts,
}

impl Watcher {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(host: &str, wanted: Wanted) -> Self {
        let bursts = Bursts::new(wanted.burst);
        Self {
            host: host.to_owned(),
            wanted,
            bursts,
        }
    }

    /// What the hook is told of the next record.
    pub fn take(&mut self, record: &Record) -> Option<Notice> {
        if let Some(notice) = Notice::of(&self.host, record) {
            return Some(notice).filter(|notice| self.wanted.wants(notice));
        }
        let counted = Counted::of(record)?;
        let is_wanted = self.wanted.events.contains(&NoticeKind::RefusalBurst)
            && self.wanted.concerns(counted.agent.as_ref());
        let burst =
            is_wanted.then(|| self.bursts.count(record.boot_ns, &record.boot_id, counted))?;
        burst.map(|burst| self.told(burst))
    }

    /// What the hook is told as time goes by: how a burst went on that it was told of.
    pub fn poll(&mut self, now: Now, boot_id: &str) -> Vec<Notice> {
        let ended = self.bursts.poll(now.boot_ns, boot_id);
        ended.into_iter().map(|burst| self.told(burst)).collect()
    }

    /// When [`Watcher::poll`] may have something to tell next, boot clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.bursts.poll_timeout()
    }

    fn told(&self, burst: Burst) -> Notice {
        let who = burst.last.agent.as_ref();
        let who = who.map_or_else(|| "what is no agent".to_owned(), ToString::to_string);
        let further = if burst.is_further { "further " } else { "" };
        let code = burst.last.code.map_or("of several kinds", Code::as_str);
        let message = safe_line(&burst.last.message, TEXT_CHARS_MAX);
        let summary = format!(
            "{} {further}refusals of {who}, the last [{code}]: {message}",
            burst.count
        );
        let (seq, unix_ns) = (burst.last.seq, burst.last.unix_ns);
        Notice {
            agent: burst.last.agent,
            code: burst.last.code,
            message: Some(message),
            count: Some(burst.count),
            ..Notice::new(&self.host, seq, unix_ns, NoticeKind::RefusalBurst, &summary)
        }
    }
}

#[cfg(test)]
mod tests;
