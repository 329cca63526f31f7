//! Keeps the kernel's view of the agents true while units restart and containers come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
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

use super::kernel::{Followed, Shared};
use super::lasting::Lasting;
use crate::causes::Causes;
use crate::clock::Clock;
use crate::config::{Config, WhenClosed, WhichNames};
use crate::dns::marks::Marks;
use crate::kernel::KernelError;
use crate::{prove, workload};

/// How long after one look the next begins at the latest, but for its rest. What runs in a workload that was not seen yet is nobody's.
const LOOK: Duration = Duration::from_millis(250);
/// A look takes at most one part of so many of the time, however many cgroups the host has.
const LOOK_SHARE: u32 = 10;

/// What the kernel is told of each agent. Numbers are those of the configuration, in its order.
pub(super) fn settings(config: &Config, marks: &Marks) -> BTreeMap<AgentName, KernelAgent> {
    let agents = config.agents.iter().zip(1..).map(|(agent, number)| {
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
            mark: marks.of(number),
        };
        (agent.name.clone(), settings)
    });
    agents.collect()
}

/// The daemon's own agent, which asks it for names again and again and may do nothing else: the id of its cgroup, and what the kernel is told.
pub(super) fn asking(root: &Path, marks: &Marks) -> anyhow::Result<(u64, KernelAgent)> {
    let cgroup = prove::asking_cgroup(root)?;
    let agent = KernelAgent {
        uid: UID_ANY,
        closed: CLOSED_DROP,
        names: NAMES_STRICT,
        mark: marks.of(marks.probe()),
    };
    Ok((workload::cgroup_id(&cgroup)?, agent))
}

/// Tells the kernel where the workloads are now, and from then on. Gives what is wrong with them.
pub(super) fn keep(
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<watch::Receiver<Vec<String>>, KernelError> {
    let mut lasting = Lasting::default();
    let first = said(shared.follow(true)?, &mut lasting, clock.now().boot_ns);
    let (sender, problems) = watch::channel(first);
    tasks.spawn(async move {
        let again = async {
            let mut rest = Duration::ZERO;
            loop {
                tokio::time::sleep(rest).await;
                let left = LOOK.saturating_sub(rest);
                // What a runtime has told of is looked for at once.
                let _ = tokio::time::timeout(left, shared.told_more()).await;
                let (now, took) = look_again(Arc::clone(&shared), Arc::clone(&clock)).await;
                let now = said(now, &mut lasting, clock.now().boot_ns);
                rest = took * LOOK_SHARE;
                sender.send_if_modified(|before| {
                    let is_news = *before != now;
                    if is_news {
                        let known: BTreeSet<&String> = before.iter().collect();
                        for problem in now.iter().filter(|problem| !known.contains(problem)) {
                            tracing::error!(problem, "something is wrong with a workload");
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

/// What is said of what a look found to be wrong.
fn said(followed: Followed, lasting: &mut Lasting, boot_ns: u64) -> Vec<String> {
    let Followed {
        mut problems,
        passing,
    } = followed;
    problems.extend(lasting.of(passing, boot_ns));
    problems
}

/// Looks once more, on a thread that may wait for the file system. Gives what is wrong, and how long it took.
async fn look_again(shared: Arc<Shared>, clock: Arc<dyn Clock>) -> (Followed, Duration) {
    let looked = tokio::task::spawn_blocking(move || {
        let began_ns = clock.now().boot_ns;
        let followed = shared.follow(false);
        let took_ns = clock.now().boot_ns.saturating_sub(began_ns);
        (followed, Duration::from_nanos(took_ns))
    });
    let (problems, took) = match looked.await {
        Ok((Ok(followed), took)) => return (followed, took),
        Ok((Err(error), took)) => (Causes(&error).to_string(), took),
        Err(error) => (error.to_string(), LOOK),
    };
    let problem = format!("the kernel was not told where the workloads are: {problems}");
    let followed = Followed {
        problems: vec![problem],
        passing: Vec::new(),
    };
    (followed, took)
}
