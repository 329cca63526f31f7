//! Refusals that may come in floods, counted and recorded once a second: who floods cannot fill the log, nor hide in it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::refusal::Refusal;
use tokio_util::sync::CancellationToken;

use super::connection_refused;
use crate::engine::Engine;

/// How often what was counted is recorded.
const FLUSH: Duration = Duration::from_secs(1);
/// The most different ones that are kept apart between two records; further ones are counted under the last.
const KINDS_MAX: usize = 256;

/// Agent, pid and code: what is counted together.
type Key = (Option<AgentName>, u32, &'static str);

#[derive(Debug)]
struct Counted {
    agent: Option<AgentName>,
    process: Option<Process>,
    refusal: Refusal,
    count: u64,
}

/// Counts connection refusals by agent, process and code.
#[derive(Debug, Default)]
pub struct Coalesce {
    kinds: Mutex<BTreeMap<Key, Counted>>,
}

impl Coalesce {
    /// Counts one.
    pub fn add(&self, agent: Option<AgentName>, process: Option<Process>, refusal: Refusal) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (
            agent.clone(),
            process.as_ref().map_or(0, |process| process.pid),
            refusal.code.as_str(),
        );
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&key) {
            if let Some(mut last) = kinds.last_entry() {
                last.get_mut().count = last.get().count.saturating_add(1);
            }
            return;
        }
        let counted = kinds.entry(key).or_insert(Counted {
            agent,
            process,
            refusal,
            count: 0,
        });
        counted.count = counted.count.saturating_add(1);
    }

    /// Records what was counted, until `stop` and once more then.
    pub async fn run(&self, engine: &Engine, stop: CancellationToken) {
        loop {
            let stopped = stop
                .run_until_cancelled(tokio::time::sleep(FLUSH))
                .await
                .is_none();
            let counted =
                std::mem::take(&mut *self.kinds.lock().unwrap_or_else(PoisonError::into_inner));
            for (
                _,
                Counted {
                    agent,
                    process,
                    refusal,
                    count,
                },
            ) in counted
            {
                engine
                    .note(connection_refused(agent, process, refusal, count))
                    .await;
            }
            if stopped {
                return;
            }
        }
    }
}
