//! What was refused, and by whom it was tried: like ones together, with how many there were. Bounded: what has been silent longest goes first.

use std::collections::BTreeMap;

use enforcer_proto::audit::Record;
use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, Process};

use serde::Serialize;

/// The most kinds that are kept apart.
pub(crate) const KINDS_MAX: usize = 1_000;

/// What makes refusals like ones: whoever tried the same thing, and was refused it for the same reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Like {
    /// The agent, or `no agent`.
    pub(crate) who: String,
    /// The name of the process, as it calls itself, and its uid.
    pub(crate) process: String,
    /// By which way: `kernel`, `proxy`, `request`, `decision`.
    pub(crate) way: &'static str,
    /// The code, or the kernel's verdict.
    pub(crate) why: String,
    /// What was tried, or where it led.
    pub(crate) what: String,
}

/// Refusals of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Burst {
    /// How many.
    pub(crate) count: u64,
    /// When the first was, unix time, nanoseconds.
    pub(crate) first_unix_ns: u64,
    /// When the last was.
    pub(crate) last_unix_ns: u64,
    /// The number of the newest record of it.
    pub(crate) seq: u64,
    /// The newest in words.
    pub(crate) sentence: String,
}

/// All kinds of refusals that were seen.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    all: BTreeMap<Like, Burst>,
    by_seq: BTreeMap<u64, Like>,
}

impl Refusals {
    pub(crate) fn take(&mut self, record: &Record, sentence: &str) {
        let Some((like, count)) = refused(&record.event) else {
            return;
        };
        let burst = self.all.entry(like.clone()).or_insert_with(|| Burst {
            count: 0,
            first_unix_ns: record.unix_ns,
            last_unix_ns: record.unix_ns,
            seq: record.seq,
            sentence: String::new(),
        });
        self.by_seq.remove(&burst.seq);
        burst.count = burst.count.saturating_add(count);
        burst.last_unix_ns = record.unix_ns;
        burst.seq = record.seq;
        sentence.clone_into(&mut burst.sentence);
        self.by_seq.insert(record.seq, like);
        while self.all.len() > KINDS_MAX {
            if let Some((_, oldest)) = self.by_seq.pop_first() {
                self.all.remove(&oldest);
            }
        }
    }

    /// The newest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Like, &Burst)> {
        let newest = self.by_seq.values().rev();
        newest.filter_map(|like| self.all.get_key_value(like))
    }

    /// Those like one.
    pub(crate) fn get(&self, like: &Like) -> Option<(&Like, &Burst)> {
        self.all.get_key_value(like)
    }

    /// How many there are together.
    pub(crate) fn count(&self) -> u64 {
        let counts = self.all.values().map(|burst| burst.count);
        counts.fold(0, u64::saturating_add)
    }
}

fn named(agent: Option<&AgentName>) -> String {
    agent.map_or_else(|| "no agent".to_owned(), ToString::to_string)
}

fn of(process: &Process) -> String {
    format!("{} uid {}", process.comm, process.uid)
}

#[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
fn refused(event: &Event) -> Option<(Like, u64)> {
    let (who, process, way, why, what, count) = if let Event::KernelRefused {
        agent,
        process,
        verdict,
        destination,
        count,
    } = event
    {
        let agent = named(agent.as_ref());
        (
            agent,
            of(process),
            "kernel",
            verdict.clone(),
            destination.clone(),
            *count,
        )
    } else if let Event::ConnectionRefused {
        agent,
        process,
        refusal,
        count,
    } = event
    {
        let process = process.as_ref().map_or_else(String::new, of);
        let code = refusal.code.as_str().to_owned();
        (
            named(agent.as_ref()),
            process,
            "connection",
            code,
            String::new(),
            *count,
        )
    } else if let Event::QueryRefused {
        agent,
        process,
        request,
        refusal,
        ..
    } = event
    {
        let code = refusal.code.as_str().to_owned();
        (
            named(Some(agent)),
            of(process),
            "query",
            code,
            request.clone(),
            1,
        )
    } else if let Event::RequestRefused {
        caller, refusal, ..
    } = event
    {
        let code = refusal.code.as_str().to_owned();
        (
            named(caller.agent.as_ref()),
            of(&caller.process),
            "request",
            code,
            String::new(),
            1,
        )
    } else if let Event::DecisionRefused {
        caller,
        action,
        refusal,
    } = event
    {
        let code = refusal.code.as_str().to_owned();
        (
            named(caller.agent.as_ref()),
            of(&caller.process),
            "decision",
            code,
            action.clone(),
            1,
        )
    } else if let Event::FurtherRefused {
        by,
        agent,
        uid,
        code,
        count,
    } = event
    {
        let process = uid.map_or_else(String::new, |uid| format!("uid {uid}"));
        let code = code.map_or("several", |code| code.as_str()).to_owned();
        (
            named(agent.as_ref()),
            process,
            "more",
            code,
            by.to_string(),
            *count,
        )
    } else {
        return None;
    };
    Some((
        Like {
            who,
            process,
            way,
            why,
            what,
        },
        count,
    ))
}
