//! Keeps proving the lock while the daemon runs: the cheap ways out are tried again and again toward the canaries, and who else is in the
//! daemon's own cgroup is looked for. What is "attached" may still not hold.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::prove;
use crate::workload;

/// How long after one round of probes the next begins.
const ROUND: Duration = Duration::from_secs(20);

/// Probes now, and from then on. On its return the first round is done.
pub(super) async fn keep(
    root: &Path,
    daemon: &Path,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<watch::Receiver<Vec<String>>> {
    let (root, daemon) = (root.to_owned(), daemon.to_owned());
    let (sender, problems) = watch::channel(round(&root, &daemon).await);
    tasks.spawn(async move {
        let again = async {
            loop {
                tokio::time::sleep(ROUND).await;
                let now = round(&root, &daemon).await;
                sender.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
            }
        };
        stop.run_until_cancelled(again).await;
    });
    Ok(problems)
}

async fn round(root: &Path, daemon: &Path) -> Vec<String> {
    let mut problems = match prove::probe(root).await {
        Ok(problems) => problems,
        Err(error) => vec![format!("the lock cannot be probed: {error:#}")],
    };
    // The probes have ended: nobody but this process belongs there.
    let others = workload::processes(daemon).map(|all| {
        let others = all.into_iter().filter(|pid| *pid != std::process::id());
        others.collect::<Vec<_>>()
    });
    match others {
        Ok(others) if others.is_empty() => {}
        Ok(others) => problems.push(format!(
            "processes {others:?} are in the daemon's own cgroup and pass as the daemon: move them out"
        )),
        Err(error) => problems.push(format!("the daemon's own cgroup cannot be read: {error}")),
    }
    problems
}
