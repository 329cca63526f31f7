//! What is shown of agents besides what the ledger knows: by what they are known, and which processes they have now. Looks, and decides nothing.

use std::sync::Arc;

use enforcer_proto::text::shorten;
use enforcer_proto::wire::{AgentView, ProcessView};

use crate::workload;
use crate::workloads::Workloads;

/// The most processes of an agent that are shown one by one.
const SHOWN_MAX: usize = 8;
/// The most cgroups below a workload that are looked at.
const BELOW_MAX: usize = 64;
/// The longest description of a workload, bytes; a longer one is shortened.
const WORKLOAD_BYTES_MAX: usize = 256;

/// Fills in what is to be looked for on the host.
pub(super) async fn looked_at(
    workloads: Arc<Workloads>,
    mut agents: Vec<AgentView>,
) -> Vec<AgentView> {
    let before = agents.clone();
    let look = move || {
        for agent in &mut agents {
            look_at(&workloads, agent);
        }
        agents
    };
    // Files are read; nobody else is to wait for them.
    tokio::task::spawn_blocking(look).await.unwrap_or(before)
}

fn look_at(workloads: &Workloads, view: &mut AgentView) {
    if let Some(workload) = workloads.workload(&view.agent) {
        view.workload = workload.to_string();
        shorten(&mut view.workload, WORKLOAD_BYTES_MAX);
    }
    let Some(found) = workloads.of(&view.agent) else {
        return;
    };
    // One that goes meanwhile has none.
    let (pids, _) = workload::all_processes(&found.folder, BELOW_MAX).unwrap_or_default();
    view.processes = pids.len() as u64;
    let some = pids.into_iter().filter_map(|pid| {
        Some(ProcessView {
            pid,
            uid: workload::uid_of(pid).ok()?,
            comm: workload::comm(pid).ok()?,
        })
    });
    view.some = some.take(SHOWN_MAX).collect();
}
