//! Has the agents' workloads told what container runtimes say, again and again. Nobody waits for it: what is asked meanwhile is decided by what was told
//! last.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::runtimes::{ASK_AGAIN, Wanted, ask_all};
use crate::workloads::Workloads;

/// Asks the runtimes that the configuration names, if any, until `stop`.
pub(super) fn keep(
    config: &Config,
    workloads: &Arc<Workloads>,
    stop: &CancellationToken,
    tasks: &TaskTracker,
) {
    let (sockets, workloads, stop) = (config.runtimes.clone(), Arc::clone(workloads), stop.clone());
    if sockets.is_empty() {
        return;
    }
    let wanted = Wanted::of(&config.agents);
    tasks.spawn(async move {
        let again = async {
            loop {
                tokio::time::sleep(ASK_AGAIN).await;
                workloads.tell(&ask_all(&sockets, &wanted).await);
            }
        };
        stop.run_until_cancelled(again).await;
    });
}
