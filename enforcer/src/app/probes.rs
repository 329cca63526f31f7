//! Keeps proving the lock while the daemon runs: the cheap ways out are tried again and again toward the canaries, and who else is in the
//! daemon's own cgroup is looked for. What is "attached" may still not hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::uplinks::Guarded;
use crate::abilities;
use crate::prove;
use crate::workload;
use crate::workloads::Workloads;

/// How long after one round of probes the next begins.
const ROUND: Duration = Duration::from_secs(20);

/// On how many interfaces a frame is tried in one round: a host with containers has hundreds, and each takes a process.
const INTERFACES_MAX: usize = 8;

/// What is looked at.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// A cgroup that is enforced on: probes are tried below it. Absent: any workload that is there.
    pub(super) root: Option<PathBuf>,
    /// The daemon's own cgroup.
    pub(super) daemon: PathBuf,
    /// The agents' workloads.
    pub(super) workloads: Arc<Workloads>,
    /// The interfaces that lead out.
    pub(super) uplinks: watch::Receiver<Guarded>,
    /// Which of them is next.
    pub(super) turn: Arc<AtomicUsize>,
    /// The id of the cgroup in which probes are tried; 0 until they are.
    pub(super) probing: Arc<AtomicU64>,
}

impl Host {
    /// Tries the cheap ways out; where nobody is enforced on yet there is nothing to try.
    async fn probe(&self) -> Result<Vec<String>> {
        let any = || self.workloads.all().into_values().next();
        let Some(root) = self.root.clone().or_else(|| Some(any()?.folder)) else {
            return Ok(Vec::new());
        };
        let id = workload::cgroup_id(&prove::probe_cgroup(&root)?)?;
        self.probing.store(id, Ordering::Relaxed);
        let mut problems = prove::probe(&root).await?;
        let on = self.interfaces();
        for framed in prove::frames(|| prove::probe_procs(&root), &on).await? {
            if !framed.is_refused() && !framed.is_nowhere() {
                problems.push(format!(
                    "a frame toward a protected address was not refused on {}: {}. Run `enforcer prove`",
                    framed.interface, framed.ended
                ));
            }
        }
        Ok(problems)
    }

    /// Some of the interfaces, others in each round: every one has its turn.
    fn interfaces(&self) -> Vec<(String, u32)> {
        let all = self.uplinks.borrow().ethernet.clone();
        let from = self.turn.fetch_add(INTERFACES_MAX, Ordering::Relaxed);
        let turned = (0..all.len().min(INTERFACES_MAX)).map(|at| (from + at) % all.len());
        turned.filter_map(|at| all.get(at).cloned()).collect()
    }
}

/// Probes now, and from then on. On its return the first round is done.
pub(super) async fn keep(
    host: Host,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<watch::Receiver<Vec<String>>> {
    let (sender, problems) = watch::channel(round(&host).await);
    tasks.spawn(async move {
        let again = async {
            loop {
                tokio::time::sleep(ROUND).await;
                let now = round(&host).await;
                sender.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
            }
        };
        stop.run_until_cancelled(again).await;
    });
    Ok(problems)
}

async fn round(host: &Host) -> Vec<String> {
    let mut problems = match host.probe().await {
        Ok(problems) => problems,
        Err(error) => vec![format!("the lock cannot be probed: {error:#}")],
    };
    // The probes have ended: nobody but this process belongs there.
    let others = workload::processes(&host.daemon).map(|all| {
        let others = all.into_iter().filter(|pid| *pid != std::process::id());
        others.collect::<Vec<_>>()
    });
    match others {
        Ok(others) if others.is_empty() => {}
        Ok(others) => problems.push(format!(
            "processes {others:?} are in the daemon's own cgroup, which is its alone: move them out"
        )),
        Err(error) => problems.push(format!("the daemon's own cgroup cannot be read: {error}")),
    }
    match host.workloads.daemon_problem() {
        Ok(problem) => problems.extend(problem),
        Err(error) => problems.push(format!("the daemon's own cgroup cannot be read: {error}")),
    }
    let workloads = host.workloads.all();
    let too_able = workloads
        .iter()
        .filter_map(|(agent, found)| abilities::too_able(agent, &found.folder));
    problems.extend(too_able);
    problems
}
