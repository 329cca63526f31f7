//! Refusals that are answered one by one: the first of somebody's take a record each, those of a flood are counted together.

use std::collections::BTreeMap;

use enforcer_proto::event::{Event, Refuser};
use enforcer_proto::principal::{AgentName, Caller, Process};
use enforcer_proto::refusal::Code;

/// How many refusals of one agent or uid take a record each before further ones are only counted.
pub const REFUSALS_BURST_MAX: u32 = 60;
/// How many of these come back between two flushes: what a lasting flood adds to the log beside its counts.
pub const REFUSALS_PER_FLUSH: u32 = 2;
/// The most uids outside every workload that are told apart between two flushes; those past it share one count, without a name. Every agent
/// has a count of its own.
pub const UIDS_MAX: usize = 256;

/// Whose refusals share an allowance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// An agent.
    Agent(AgentName),
    /// Somebody outside every workload.
    Uid(u32),
    /// Every uid past [`UIDS_MAX`].
    Others,
}

impl From<&Caller> for Who {
    fn from(caller: &Caller) -> Self {
        let uid = caller.process.uid;
        caller.agent.clone().map_or(Self::Uid(uid), Self::Agent)
    }
}

/// One refusal, as far as it is counted.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Of whom.
    pub who: Who,
    /// By whom.
    pub by: Refuser,
    /// Why.
    pub code: Code,
}

impl Refused {
    /// What `event` refused, where it is the record of one refusal.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        if let Event::QueryRefused { agent, refusal, .. } = event {
            Some(Self {
                who: Who::Agent(agent.clone()),
                by: Refuser::Proxy,
                code: refusal.code,
            })
        } else if let Event::RequestRefused {
            caller, refusal, ..
        }
        | Event::DecisionRefused {
            caller, refusal, ..
        } = event
        {
            Some(Self {
                who: caller.into(),
                by: Refuser::Control,
                code: refusal.code,
            })
        } else {
            None
        }
    }
}

/// Refusals of somebody's that have no record of their own, only a count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Of whom.
    pub who: Who,
    /// By whom.
    pub by: Refuser,
    /// Why; absent where they are of more kinds than are told apart.
    pub code: Option<Code>,
    /// How many.
    pub count: u64,
}

impl From<Refused> for Counted {
    fn from(Refused { who, by, code }: Refused) -> Self {
        Self {
            who,
            by,
            code: Some(code),
            count: 1,
        }
    }
}

impl Counted {
    /// What `event` refused, where it is the record of refusals, whether of one or of many.
    #[must_use]
    pub fn of(event: &Event) -> Option<Self> {
        if let Some(refused) = Refused::of(event) {
            return Some(refused.into());
        }
        let (who, by, code, count) = if let Event::ConnectionRefused {
            agent,
            process,
            refusal,
            count,
        } = event
        {
            let who = whose(agent.as_ref(), process.as_ref().map(|process| process.uid));
            (who, Refuser::Proxy, Some(refusal.code), *count)
        } else if let Event::KernelRefused {
            agent,
            process: Process { uid, .. },
            count,
            ..
        } = event
        {
            let who = whose(agent.as_ref(), Some(*uid));
            (who, Refuser::Kernel, None, *count)
        } else if let Event::FurtherRefused {
            by,
            agent,
            uid,
            code,
            count,
        } = event
        {
            (whose(agent.as_ref(), *uid), *by, *code, *count)
        } else {
            return None;
        };
        Some(Self {
            who,
            by,
            code,
            count,
        })
    }
}

fn whose(agent: Option<&AgentName>, uid: Option<u32>) -> Who {
    match (agent, uid) {
        (Some(agent), _) => Who::Agent(agent.clone()),
        (None, Some(uid)) => Who::Uid(uid),
        (None, None) => Who::Others,
    }
}

/// Whose, by whom, and why: the text of the code orders them.
type Kind = (Who, Refuser, Option<&'static str>);

/// What was refused since the last flush.
#[derive(Debug, Default)]
pub struct Refusals {
    /// How many records of their own each has had; falls with every flush.
    spent: BTreeMap<Who, u32>,
    /// Refusals without a record of their own.
    counted: BTreeMap<Kind, (Option<Code>, u64)>,
}

impl Refusals {
    /// Whether this one takes a record of its own. If not it is counted.
    pub fn takes_record(&mut self, refused: Refused) -> bool {
        let who = self.known(refused.who.clone());
        let spent = self.spent.entry(who).or_insert(0);
        if *spent < REFUSALS_BURST_MAX {
            *spent += 1;
            return true;
        }
        self.count(refused);
        false
    }

    /// Counts what takes no record of its own.
    pub fn count(&mut self, refused: impl Into<Counted>) {
        let Counted {
            who,
            by,
            code,
            count: more,
        } = refused.into();
        let who = self.known(who);
        self.spent.entry(who.clone()).or_insert(0);
        let (_, count) = self
            .counted
            .entry((who, by, code.map(Code::as_str)))
            .or_insert((code, 0));
        *count = count.saturating_add(more);
    }

    /// Starts anew and gives what was counted as events.
    pub fn flush(&mut self) -> Vec<Event> {
        self.spent.retain(|_, spent| {
            *spent = spent.saturating_sub(REFUSALS_PER_FLUSH);
            *spent > 0
        });
        let counted = std::mem::take(&mut self.counted).into_iter();
        let event = |((who, by, _), (code, count))| {
            let (agent, uid) = match who {
                Who::Agent(agent) => (Some(agent), None),
                Who::Uid(uid) => (None, Some(uid)),
                Who::Others => (None, None),
            };
            Event::FurtherRefused {
                by,
                agent,
                uid,
                code,
                count,
            }
        };
        counted.map(event).collect()
    }

    fn known(&self, who: Who) -> Who {
        let uids = || self.spent.range(Who::Uid(0)..=Who::Uid(u32::MAX)).count();
        match who {
            // There are no more than are configured.
            Who::Agent(_) => who,
            Who::Uid(_) if self.spent.contains_key(&who) || uids() < UIDS_MAX => who,
            Who::Uid(_) | Who::Others => Who::Others,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(uid: u32) -> Refused {
        Refused {
            who: Who::Uid(uid),
            by: Refuser::Control,
            code: Code::CallerUnknown,
        }
    }

    fn counts(events: &[Event]) -> Vec<(Option<u32>, u64)> {
        let count = |event: &Event| {
            let Event::FurtherRefused { uid, count, .. } = event else {
                panic!("{event:?}")
            };
            (*uid, *count)
        };
        events.iter().map(count).collect()
    }

    #[test]
    fn a_flood_is_counted_and_leaves_another_its_own_records() {
        let mut refusals = Refusals::default();
        let own = (0..100)
            .filter(|_| refusals.takes_record(refused(1)))
            .count();
        assert_eq!(own, REFUSALS_BURST_MAX as usize);
        assert!(refusals.takes_record(refused(2)));
        assert_eq!(counts(&refusals.flush()), [(Some(1), 40)]);
        let own = (0..100)
            .filter(|_| refusals.takes_record(refused(1)))
            .count();
        assert_eq!(own, REFUSALS_PER_FLUSH as usize, "a lasting flood");
    }

    proptest! {
        #[test]
        fn no_refusal_is_lost_and_memory_is_bounded(uids in prop::collection::vec(0_u32..600, 0..3000)) {
            let mut refusals = Refusals::default();
            let own = uids.iter().filter(|uid| refusals.takes_record(refused(**uid))).count() as u64;
            prop_assert!(refusals.spent.len() <= UIDS_MAX + 1);
            let counted: u64 = counts(&refusals.flush()).iter().map(|(_, count)| count).sum();
            prop_assert_eq!(own + counted, uids.len() as u64);
        }
    }
}
