//! Keeps proving the lock while the daemon runs: the cheap ways out are tried again and again toward the canaries, and who else is in the
//! daemon's own cgroup is looked for. What is "attached" may still not hold.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use enforcer_proto::wire::{CheckState, CheckView};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::protect::Protected;
use super::uplinks::Guarded;
use crate::abilities;
use crate::dns::marks::Marks;
use crate::prove;
use crate::workload;
use crate::workloads::Workloads;

/// How long after one round of probes the next begins.
const ROUND: Duration = Duration::from_secs(20);

/// On how many interfaces a frame is tried in one round: a host with containers has hundreds, and each takes a process.
const INTERFACES_MAX: usize = 8;

/// Toward how many of the addresses that are protected now a socket is tried in one round.
const ADDRESSES_MAX: usize = 8;

/// What one round gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Probed {
    /// How many ways out were refused, as they are to be.
    refused: u64,
    /// What is wrong.
    pub(super) problems: Vec<String>,
    /// What was tried and shows nothing, since this host has no route to there.
    nothing_of: Vec<String>,
}

impl Probed {
    /// A sentence on what the probes show nothing of, if that is so of any.
    pub(super) fn unshown(&self) -> Option<String> {
        (!self.nothing_of.is_empty()).then(|| {
            format!(
                "the daemon's own probes show nothing of these, to which this host has no route: {}",
                self.nothing_of.join(", ")
            )
        })
    }

    /// A sentence on what the round has shown.
    pub(super) fn shown(&self) -> String {
        format!(
            "the daemon's own probes: {} ways out were refused in the last round, rounds are {} s apart",
            self.refused,
            ROUND.as_secs()
        )
    }

    fn take(&mut self, tried: prove::Tried) {
        self.refused += tried.refused;
        self.problems.extend(tried.problems);
        self.nothing_of.extend(tried.nothing_of);
    }
}

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
    /// The addresses that are protected now.
    pub(super) endpoints: watch::Receiver<Protected>,
    /// Which of these are next.
    pub(super) turn: Arc<AtomicUsize>,
    /// The id of the cgroup in which probes are tried; 0 until they are.
    pub(super) probing: Arc<AtomicU64>,
}

impl Host {
    /// Tries the cheap ways out; where nobody is enforced on yet there is nothing to try.
    async fn probe(&self) -> Result<Probed> {
        let any = || self.workloads.any();
        let Some(root) = self.root.clone().or_else(|| Some(any()?.folder)) else {
            return Ok(Probed::default());
        };
        let id = workload::cgroup_id(&prove::probe_cgroup(&root)?)?;
        self.probing.store(id, Ordering::Relaxed);
        let mut probed = Probed::default();
        probed.take(prove::probe(&root).await?);
        let round = self.turn.fetch_add(1, Ordering::Relaxed);
        let known = self.endpoints.borrow().known.clone();
        let some = some_of(&known, round, ADDRESSES_MAX);
        probed.take(prove::probe_addresses(&root, &some).await?);
        let all = self.uplinks.borrow().interfaces.clone();
        let on = some_of(&all, round, INTERFACES_MAX);
        for framed in prove::frames(|| prove::probe_procs(&root), &on).await? {
            if framed.may_have_left() {
                probed.problems.push(format!(
                    "a frame toward a protected address was not refused on {}: {}. Run `enforcer prove`",
                    framed.interface, framed.ended
                ));
            } else {
                probed.refused += 1;
            }
        }
        Ok(probed)
    }
}

/// Some of all, others in each round: every one has its turn.
fn some_of<T: Clone>(all: &[T], round: usize, most: usize) -> Vec<T> {
    let from = round.wrapping_mul(most);
    let turned = (0..all.len().min(most)).map(|at| from.wrapping_add(at) % all.len());
    turned.filter_map(|at| all.get(at).cloned()).collect()
}

/// Probes now, and from then on. On its return the first round is done.
pub(super) async fn keep(
    host: Host,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> Result<watch::Receiver<Probed>> {
    let (sender, probed) = watch::channel(round(&host).await);
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
    Ok(probed)
}

/// What came of the daemon's own questions for names, which are marked as agents' are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// None has been asked yet.
    NotYet,
    /// The last came back.
    CameBack,
    /// It did not: why.
    Lost(String),
}

impl Asked {
    /// What is wrong, where something is.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::NotYet | Self::CameBack => None,
            Self::Lost(why) => Some(why.clone()),
        }
    }

    /// Whether such marks come through on this host.
    pub(super) fn check(&self, marks: &Marks) -> CheckView {
        let (state, said) = match self {
            Self::NotYet => (
                CheckState::Unknown,
                format!("the daemon's own question was not asked yet; {marks}"),
            ),
            Self::CameBack => (
                CheckState::Well,
                format!(
                    "the daemon's own question came back in the last round, rounds are {} s apart; {marks}",
                    ROUND.as_secs()
                ),
            ),
            Self::Lost(why) => (CheckState::Bad, format!("{why} ({marks})")),
        };
        CheckView {
            what: "DNS marks".to_owned(),
            state,
            said,
        }
    }
}

/// Asks the daemon itself for names as an agent does, again and again: on the way a firewall may drop packets by their mark.
pub(super) async fn keep_asking(
    root: PathBuf,
    said: watch::Sender<Asked>,
    stop: CancellationToken,
) {
    let again = async {
        loop {
            let now = match prove::ask_again(&root).await {
                Ok(None) => Asked::CameBack,
                Ok(Some(why)) => Asked::Lost(why),
                Err(error) => Asked::Lost(format!(
                    "whether agents are told names cannot be probed: {error:#}"
                )),
            };
            said.send_if_modified(|before| std::mem::replace(before, now.clone()) != now);
            tokio::time::sleep(ROUND).await;
        }
    };
    stop.run_until_cancelled(again).await;
}

async fn round(host: &Host) -> Probed {
    let mut probed = match host.probe().await {
        Ok(probed) => probed,
        Err(error) => Probed {
            problems: vec![format!("the lock cannot be probed: {error:#}")],
            ..Probed::default()
        },
    };
    let problems = &mut probed.problems;
    // The probes have ended: nobody but this process belongs there.
    let others = workload::processes(&host.daemon).map(|all| {
        let is_ours = |pid| pid == std::process::id() || workload::is_own_fork(pid);
        let others = all.into_iter().filter(|pid| !is_ours(*pid));
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
    // On a thread that may wait for files: there may be ten thousand workloads to look into.
    let workloads = host.workloads.all();
    let looked = tokio::task::spawn_blocking(move || {
        let running = workloads.iter();
        abilities::problems(running.map(|(agent, found)| (agent, found.folder.as_path())))
    });
    match looked.await {
        Ok(able) => problems.extend(able),
        Err(error) => problems.push(format!(
            "the agents' processes cannot be looked at: {error}"
        )),
    }
    probed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_well_only_once_the_daemons_own_question_came_back() {
        let marks = Marks::new(u32::MAX, 1, 7).expect("room");
        for (asked, state, said) in [
            (Asked::NotYet, CheckState::Unknown, "was not asked yet"),
            (
                Asked::CameBack,
                CheckState::Well,
                "came back in the last round",
            ),
            (
                Asked::Lost("a firewall drops it".to_owned()),
                CheckState::Bad,
                "a firewall drops it (",
            ),
        ] {
            let check = asked.check(&marks);
            assert_eq!(check.state, state);
            assert!(check.said.contains(said), "{}", check.said);
            assert_eq!(asked.fault().is_some(), state == CheckState::Bad);
        }
    }

    #[test]
    fn every_one_has_its_turn() {
        assert!(some_of::<u8>(&[], 7, 2).is_empty());
        assert_eq!(some_of(&[1, 2, 3], 0, 2), [1, 2]);
        assert_eq!(some_of(&[1, 2, 3], 1, 2), [3, 1]);
        assert_eq!(some_of(&[1], 9, 2), [1]);
    }
}
