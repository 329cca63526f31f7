//! Bursts of refusals: so many of an agent within a time are one notice; those that follow are counted, and told once an interval at most.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use crate::audit::Record;
use crate::event::Event;
use crate::principal::AgentName;
use crate::refusal::Code;
use crate::time::{NS_PER_S, Ttl};

/// When refusals are a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BurstLimits {
    /// So many.
    pub refusals: u64,
    /// Within this time.
    pub within: Ttl,
    /// How long after a notice the next one of the same agent comes at the earliest.
    pub interval: Ttl,
}

/// Refusals that one record stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The record's number.
    pub seq: u64,
    /// When it was recorded.
    pub unix_ns: u64,
    /// Whose they are; absent for what is no agent.
    pub agent: Option<AgentName>,
    /// How many.
    pub count: u64,
    /// Why.
    pub code: Option<Code>,
    /// What was said, as it was recorded.
    pub message: String,
}

impl Counted {
    /// The refusals of a record, if it is one of refusals.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
    pub fn of(record: &Record) -> Option<Self> {
        let (agent, count, code, message) = match &record.event {
            Event::RequestRefused {
                caller, refusal, ..
            }
            | Event::DecisionRefused {
                caller, refusal, ..
            } => (
                caller.agent.as_ref(),
                1,
                Some(refusal.code),
                refusal.what.clone(),
            ),
            Event::QueryRefused { agent, refusal, .. } => {
                (Some(agent), 1, Some(refusal.code), refusal.what.clone())
            }
            Event::ConnectionRefused {
                agent,
                refusal,
                count,
                ..
            } => (
                agent.as_ref(),
                *count,
                Some(refusal.code),
                refusal.what.clone(),
            ),
            Event::KernelRefused {
                agent,
                verdict,
                destination,
                count,
                ..
            } => (
                agent.as_ref(),
                *count,
                None,
                format!("the kernel refused {verdict} to {destination}"),
            ),
            Event::FurtherRefused {
                by,
                agent,
                code,
                count,
                ..
            } => (
                agent.as_ref(),
                *count,
                *code,
                format!("refused by {by}, more than are recorded one by one"),
            ),
            Event::DaemonStarted { .. }
            | Event::DaemonStopped {}
            | Event::TailRepaired { .. }
            | Event::SegmentsRemoved { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotSetAside { .. }
            | Event::Requested { .. }
            | Event::ApprovalGiven { .. }
            | Event::Reviewed { .. }
            | Event::AgentLocked { .. }
            | Event::AgentUnlocked { .. }
            | Event::PolicyLoaded { .. }
            | Event::PolicyRejected { .. }
            | Event::Approved { .. }
            | Event::Opened { .. }
            | Event::Denied { .. }
            | Event::RequestExpired { .. }
            | Event::RequestWithdrawn { .. }
            | Event::Closed { .. }
            | Event::HealthChanged { .. }
            | Event::QueryAsked { .. }
            | Event::EstimateAsked { .. }
            | Event::QueryAdmitted { .. }
            | Event::JobSeen { .. }
            | Event::QueryFinished { .. }
            | Event::JobCancelled { .. }
            | Event::EventsLost { .. }
            | Event::TooLong { .. }
            | Event::RequestJoined { .. }
            | Event::ProcessJoined { .. }
            | Event::Detached { .. }
            | Event::Forwarded { .. }
            | Event::CredentialPresented { .. }
            | Event::IssuerKeySigns { .. }
            | Event::NamespaceServed { .. }
            | Event::NamespaceLeft { .. }
            | Event::NamespaceRefused { .. }
            | Event::ContainerChanged { .. }
            | Event::WayExamined { .. }
            | Event::NotificationFailed { .. } => return None,
        };
        Some(Self {
            seq: record.seq,
            unix_ns: record.unix_ns,
            agent: agent.cloned(),
            count,
            code,
            message,
        })
    }
}

/// What one notice tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burst {
    /// How many refusals; none of them is told twice.
    pub count: u64,
    /// The last of them.
    pub last: Counted,
    /// Whether a notice of the same burst came before.
    pub is_further: bool,
}

/// Counts refusals by agent.
#[derive(Debug)]
pub struct Bursts {
    limits: BurstLimits,
    /// Times compare only within one boot.
    boot_id: String,
    /// At most as many as there are agents, and one.
    by_agent: BTreeMap<Option<AgentName>, Flood>,
}

#[derive(Debug)]
enum Flood {
    /// Refusals that are no burst yet, by when they were recorded, boot clock. Fewer than make one.
    Rising(VecDeque<(u64, u64)>),
    /// A notice was sent: until then what comes is only counted.
    Quiet {
        until_boot_ns: u64,
        count: u64,
        last: Box<Counted>,
    },
}

impl Bursts {
    /// Nothing is counted yet.
    #[must_use]
    pub const fn new(limits: BurstLimits) -> Self {
        Self {
            limits,
            boot_id: String::new(),
            by_agent: BTreeMap::new(),
        }
    }

    /// Counts refusals that were recorded at `boot_ns`; gives what is to be told now.
    pub fn count(&mut self, boot_ns: u64, boot_id: &str, counted: Counted) -> Option<Burst> {
        self.enter(boot_id);
        let BurstLimits {
            refusals,
            within,
            interval,
        } = self.limits;
        let quiet = |last: &Counted| Flood::Quiet {
            until_boot_ns: boot_ns.saturating_add(interval.ns()),
            count: 0,
            last: Box::new(last.clone()),
        };
        let flood = self.by_agent.entry(counted.agent.clone());
        let flood = flood.or_insert_with(|| Flood::Rising(VecDeque::new()));
        match flood {
            Flood::Quiet {
                until_boot_ns,
                count,
                last,
            } if boot_ns < *until_boot_ns || *count > 0 => {
                *count = count.saturating_add(counted.count);
                **last = counted;
                if boot_ns < *until_boot_ns {
                    return None;
                }
                let told = Burst {
                    count: *count,
                    last: (**last).clone(),
                    is_further: true,
                };
                *flood = quiet(&told.last);
                Some(told)
            }
            Flood::Quiet { .. } => {
                *flood = Flood::Rising(VecDeque::new());
                self.count(boot_ns, boot_id, counted)
            }
            Flood::Rising(recent) => {
                expire(recent, boot_ns, within);
                recent.push_back((boot_ns, counted.count));
                let count = recent
                    .iter()
                    .fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
                if count < refusals {
                    return None;
                }
                *flood = quiet(&counted);
                Some(Burst {
                    count,
                    last: counted,
                    is_further: false,
                })
            }
        }
    }

    /// What is to be told at `boot_ns` though nothing more was refused. What is over is forgotten.
    pub fn poll(&mut self, boot_ns: u64, boot_id: &str) -> Vec<Burst> {
        self.enter(boot_id);
        let BurstLimits {
            within, interval, ..
        } = self.limits;
        let mut told = Vec::new();
        self.by_agent.retain(|_, flood| match flood {
            Flood::Rising(recent) => {
                expire(recent, boot_ns, within);
                !recent.is_empty()
            }
            Flood::Quiet {
                until_boot_ns,
                count,
                last,
            } => {
                if boot_ns < *until_boot_ns {
                    return true;
                }
                if *count == 0 {
                    return false;
                }
                told.push(Burst {
                    count: std::mem::take(count),
                    last: (**last).clone(),
                    is_further: true,
                });
                *until_boot_ns = boot_ns.saturating_add(interval.ns());
                true
            }
        });
        told
    }

    /// When [`Bursts::poll`] has something to do next, boot clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let due = self.by_agent.values().filter_map(|flood| match flood {
            Flood::Rising(recent) => recent
                .back()
                .map(|(at, _)| at.saturating_add(self.limits.within.ns())),
            Flood::Quiet { until_boot_ns, .. } => Some(*until_boot_ns),
        });
        due.min()
    }

    fn enter(&mut self, boot_id: &str) {
        if self.boot_id != boot_id {
            boot_id.clone_into(&mut self.boot_id);
            self.by_agent.clear();
        }
    }
}

fn expire(recent: &mut VecDeque<(u64, u64)>, boot_ns: u64, within: Ttl) {
    let from = boot_ns.saturating_sub(within.seconds() * NS_PER_S);
    while recent.front().is_some_and(|(at, _)| *at < from) {
        recent.pop_front();
    }
}
