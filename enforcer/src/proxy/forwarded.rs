//! Requests that were passed on unjudged, counted and recorded once a second: whoever sends thousands cannot fill the log with them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use enforcer_proto::event::Event;
use enforcer_proto::principal::{AgentName, Process};
use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Requester};
use crate::tally::{KINDS_PER_AGENT_MAX, keep_recording};

/// Stands for the requests of more kinds than are told apart.
const FURTHER: &str = "requests of more kinds than are told apart in a second";

/// One agent's requests since the last record: what was asked by which process, how often, and how many more of further kinds.
#[derive(Debug, Default)]
struct Share {
    kinds: BTreeMap<(u32, String), (Process, u64)>,
    further: u64,
}

/// Counts requests by agent, process, and what was asked.
#[derive(Debug, Default)]
pub struct Forwarded {
    /// One for each configured agent that asks.
    shares: Mutex<BTreeMap<AgentName, Share>>,
}

impl Forwarded {
    /// Counts one.
    pub(super) fn add(&self, requester: &Requester, request: &str) {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = shares.entry(requester.agent.clone()).or_default();
        let kind = (requester.process.pid, request.to_owned());
        let is_room = share.kinds.len() < KINDS_PER_AGENT_MAX;
        let count = match share.kinds.get_mut(&kind) {
            Some((_, count)) => count,
            None if is_room => {
                let first = (requester.process.clone(), 0);
                &mut share.kinds.entry(kind).or_insert(first).1
            }
            None => &mut share.further,
        };
        *count = count.saturating_add(1);
    }

    /// Records what was counted, until `stop` and once more then.
    pub async fn run(&self, engine: &Engine, stop: CancellationToken) {
        keep_recording(engine, stop, |_| self.take()).await;
    }

    fn take(&self) -> Vec<Event> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let mut events = Vec::new();
        for (agent, Share { kinds, further }) in std::mem::take(&mut *shares) {
            let mut event = |process, request, count| {
                events.push(Event::Forwarded {
                    agent: agent.clone(),
                    process,
                    request,
                    count,
                });
            };
            for ((_, request), (process, count)) in kinds {
                event(Some(process), request, count);
            }
            if further > 0 {
                event(None, FURTHER.to_owned(), further);
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use enforcer_proto::id::SessionId;

    use super::*;

    #[test]
    fn each_request_is_counted_once_and_what_is_too_many_to_tell_apart_together() {
        let forwarded = Forwarded::default();
        let requester = Requester {
            agent: "bot".parse().expect("a name"),
            session: SessionId(1),
            process: Process {
                pid: 7,
                start_boot_ns: 1,
                uid: 2001,
                comm: "client".to_owned(),
            },
            container: None,
        };
        for at in 0..100 {
            forwarded.add(&requester, &format!("GET a.example/{at}"));
            forwarded.add(&requester, "GET a.example/0");
        }
        let count = |event| {
            let Event::Forwarded { process, count, .. } = event else {
                panic!("{event:?}")
            };
            (process.is_some(), count)
        };
        let counts: Vec<(bool, u64)> = forwarded.take().into_iter().map(count).collect();
        assert_eq!(counts.len(), KINDS_PER_AGENT_MAX + 1);
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 200);
        assert_eq!(counts[0], (true, 101));
        assert_eq!(
            counts.last(),
            Some(&(false, 100 - KINDS_PER_AGENT_MAX as u64))
        );
        assert!(forwarded.take().is_empty());
    }
}
