//! Keeps the kernel's view of the agents true while units restart and containers come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use enforcer_ebpf::Agent as KernelAgent;
use enforcer_ebpf::map::{
    CLOSED_DROP, CLOSED_DROP_DEDICATED, CLOSED_EXPLAIN, NAMES_FORWARD, NAMES_STRICT, UID_ANY,
};
use enforcer_proto::principal::AgentName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::kernel::Shared;
use crate::causes::Causes;
use crate::config::{Config, WhenClosed, WhichNames};
use crate::kernel::KernelError;

/// How often it is looked where the workloads are. What runs in one that was not seen yet is nobody's.
const LOOK: Duration = Duration::from_millis(250);

/// What the kernel is told of each agent.
pub(super) fn settings(config: &Config) -> BTreeMap<AgentName, KernelAgent> {
    let agents = config.agents.iter().map(|agent| {
        let settings = KernelAgent {
            uid: agent.uid.unwrap_or(UID_ANY),
            closed: match agent.closed {
                WhenClosed::Explain => CLOSED_EXPLAIN,
                WhenClosed::Drop if agent.allow.is_empty() => CLOSED_DROP,
                WhenClosed::Drop => CLOSED_DROP_DEDICATED,
            },
            names: match agent.names {
                WhichNames::Forward => NAMES_FORWARD,
                WhichNames::Strict => NAMES_STRICT,
            },
            reserved: 0,
        };
        (agent.name.clone(), settings)
    });
    agents.collect()
}

/// Tells the kernel where the workloads are now, and from then on. Gives what is wrong with them.
pub(super) fn keep(
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<watch::Receiver<Vec<String>>, KernelError> {
    let (sender, problems) = watch::channel(shared.follow(true)?);
    tasks.spawn(async move {
        let again = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let now = shared.follow(false).unwrap_or_else(|error| {
                    vec![format!(
                        "the kernel was not told where the workloads are: {}",
                        Causes(&error)
                    )]
                });
                sender.send_if_modified(|before| {
                    let is_news = *before != now;
                    if is_news {
                        for problem in &now {
                            tracing::error!(problem, "an agent has no workload");
                        }
                    }
                    *before = now;
                    is_news
                });
            }
        };
        stop.run_until_cancelled(again).await;
    });
    Ok(problems)
}
