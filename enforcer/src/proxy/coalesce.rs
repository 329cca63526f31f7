//! Connections that were refused, counted and recorded once a second.

use std::sync::{Mutex, PoisonError};

use enforcer_proto::event::{Event, Refuser};
use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::refusal::Refusal;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::tally::{Tally, keep_recording};

/// Pid and code: what is counted together of one agent.
type Kind = (u32, &'static str);

#[derive(Debug)]
struct Refused {
    process: Option<Process>,
    refusal: Refusal,
}

/// Counts connection refusals by agent, process and code.
#[derive(Debug, Default)]
pub struct Coalesce {
    tally: Mutex<Tally<Kind, Refused>>,
}

impl Coalesce {
    /// Counts one.
    pub fn add(&self, agent: Option<AgentName>, process: Option<Process>, refusal: Refusal) {
        let pid = process.as_ref().map_or(0, |process| process.pid);
        let kind = (pid, refusal.code.as_str());
        let refused = Refused { process, refusal };
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(agent, kind, refused);
    }

    /// Records what was counted, until `stop` and once more then.
    pub async fn run(&self, engine: &Engine, stop: CancellationToken) {
        keep_recording(engine, stop, |_| self.take()).await;
    }

    fn take(&self) -> Vec<Event> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.take(Refuser::Proxy, |agent, refused, count| {
            Event::ConnectionRefused {
                agent,
                process: refused.process,
                refusal: refused.refusal,
                count,
            }
        })
    }
}
