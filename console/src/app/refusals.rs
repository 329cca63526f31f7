//! What was refused, and by whom it was tried: like ones together, with how many there were. Bounded, each agent by itself: of whoever has the most
//! kinds, what has been silent longest goes first. What goes is counted, and its refusals stay in the sum of all.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_proto::audit::Record;
use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, Process};

use serde::Serialize;

/// The most kinds that are kept apart, of all agents together.
pub(crate) const KINDS_MAX: usize = 1_000;
/// The most kinds of one agent, or of all that is no agent: whoever makes up names takes no room from others.
pub(crate) const KINDS_OF_ONE_MAX: usize = 250;

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
    /// The same by who tried: the number of the newest record of each of its kinds.
    of: BTreeMap<String, BTreeSet<u64>>,
    /// How many refusals there were, those of kinds let go among them.
    count: u64,
    /// How many kinds were let go; one that comes again begins anew.
    let_go: u64,
}

impl Refusals {
    pub(crate) fn take(&mut self, record: &Record, sentence: &str) {
        let Some((like, count)) = refused(&record.event) else {
            return;
        };
        self.count = self.count.saturating_add(count);
        let burst = self.all.entry(like.clone()).or_insert_with(|| Burst {
            count: 0,
            first_unix_ns: record.unix_ns,
            last_unix_ns: record.unix_ns,
            seq: record.seq,
            sentence: String::new(),
        });
        let own = self.of.entry(like.who.clone()).or_default();
        self.by_seq.remove(&burst.seq);
        own.remove(&burst.seq);
        burst.count = burst.count.saturating_add(count);
        burst.last_unix_ns = record.unix_ns;
        burst.seq = record.seq;
        sentence.clone_into(&mut burst.sentence);
        own.insert(record.seq);
        if own.len() > KINDS_OF_ONE_MAX {
            let oldest = own.first().copied();
            self.forget(oldest);
        }
        self.by_seq.insert(record.seq, like);
        while self.all.len() > KINDS_MAX {
            let oldest = self.oldest_of_the_most();
            self.forget(oldest);
        }
    }

    /// What has been silent longest of whoever has the most kinds; of those who have as many, whichever of theirs that is.
    fn oldest_of_the_most(&self) -> Option<u64> {
        let ranked = self.of.values().filter_map(|own| {
            let oldest = *own.first()?;
            Some((own.len(), std::cmp::Reverse(oldest)))
        });
        ranked.max().map(|(_, oldest)| oldest.0)
    }

    fn forget(&mut self, seq: Option<u64>) {
        let Some(like) = seq.and_then(|seq| self.by_seq.remove(&seq)) else {
            return;
        };
        let Some(burst) = self.all.remove(&like) else {
            return;
        };
        self.let_go = self.let_go.saturating_add(1);
        if let Some(own) = self.of.get_mut(&like.who) {
            own.remove(&burst.seq);
            if own.is_empty() {
                self.of.remove(&like.who);
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

    /// How many there were together, those of kinds that were let go among them: it never falls.
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// How many kinds are not kept any more.
    pub(crate) const fn let_go(&self) -> u64 {
        self.let_go
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::app::tail::Entry;

    fn takes(refusals: &mut Refusals, seq: u64, agent: &str, comm: &str) {
        let line = json!({"seq": seq, "boot_id": "b", "boot_ns": 1, "unix_ns": seq, "prev": "x", "event": {
            "kind": "kernel_refused", "agent": agent, "process": {"pid": 1, "start_boot_ns": 1, "uid": 1, "comm": comm},
            "verdict": "udp", "destination": "192.0.2.1:443", "count": 2,
        }});
        let entry = Entry::read(&line.to_string()).expect("a record");
        refusals.take(&entry.record, &entry.sentence);
    }

    fn kinds_of(refusals: &Refusals, agent: &str) -> usize {
        let kinds = refusals.iter().filter(|(like, _)| like.who == agent);
        kinds.count()
    }

    #[test]
    fn an_agent_that_makes_up_names_takes_no_room_from_another_and_the_sum_never_falls() {
        let mut refusals = Refusals::default();
        for seq in 1..=3 {
            takes(&mut refusals, seq, "quiet-bot", &format!("python{seq}"));
        }
        let mut before = refusals.count();
        for seq in 4..5_000 {
            takes(&mut refusals, seq, "loud-bot", &format!("x{seq}"));
            assert_eq!(refusals.count(), before + 2);
            before = refusals.count();
        }
        assert_eq!(kinds_of(&refusals, "quiet-bot"), 3);
        assert_eq!(kinds_of(&refusals, "loud-bot"), KINDS_OF_ONE_MAX);
        assert_eq!(refusals.let_go(), 4_996 - 250);
    }

    #[test]
    fn many_that_make_up_names_share_what_the_quiet_ones_leave() {
        let mut refusals = Refusals::default();
        takes(&mut refusals, 1, "quiet-bot", "python3");
        for seq in 2..10_000 {
            takes(
                &mut refusals,
                seq,
                &format!("loud-{}", seq % 20),
                &format!("x{seq}"),
            );
        }
        assert_eq!(kinds_of(&refusals, "quiet-bot"), 1);
        assert_eq!(refusals.iter().count(), KINDS_MAX);
        let of_one = kinds_of(&refusals, "loud-7");
        assert!((49..=50).contains(&of_one), "{of_one}");
        assert_eq!(refusals.count(), 2 * 9_999);
        assert_eq!(refusals.let_go(), 9_999 - 1_000);
    }
}
