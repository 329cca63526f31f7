//! What the host has of each agent: its workload and the processes in it. It is looked for on behalf of people only, never by the engine.
//!
//! Each console asks twice a second and a host may have a thousand agents, so what was looked at is kept for a while and shared by all who ask; one
//! of them looks at a time, and those who wait for it find it done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::event::COMM_BYTES_MAX;
use enforcer_proto::principal::AgentName;
use enforcer_proto::text::shorten;
use enforcer_proto::time::Now;
use enforcer_proto::wire::{AgentView, ProcessView, encoded_bytes};
use tokio::sync::Mutex;

use crate::engine::ON_HOST_BYTES_MAX;
use crate::workload;
use crate::workloads::Workloads;

/// The most processes of an agent that are shown one by one.
const SHOWN_MAX: usize = 8;
/// The most cgroups below a workload that are looked at.
const BELOW_MAX: usize = 64;
/// The longest description of a workload, bytes; a longer one is shortened.
const WORKLOAD_BYTES_MAX: usize = 256;
/// For how long what was looked at is told again.
const KEPT: Duration = Duration::from_secs(2);

/// What the host has of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    workload: String,
    processes: u64,
    some: Vec<ProcessView>,
}

/// The same, and when that was looked at, boot clock.
#[derive(Debug)]
struct Held {
    looked_boot_ns: u64,
    found: Found,
}

/// What was looked at of the agents on the host. As many are held as one status shows, but for those of the last moment.
#[derive(Debug)]
pub struct OnHost {
    workloads: Arc<Workloads>,
    held: Mutex<BTreeMap<AgentName, Held>>,
}

impl OnHost {
    /// Nothing was looked at yet.
    #[must_use]
    pub fn new(workloads: Arc<Workloads>) -> Self {
        Self {
            workloads,
            held: Mutex::default(),
        }
    }

    /// Fills in what the host has of these agents, as it was at most [`KEPT`] ago.
    pub(super) async fn tell(&self, now: Now, agents: &mut [AgentView]) {
        let workloads = Arc::clone(&self.workloads);
        let look = move |agent: &AgentName| look_at(&workloads, agent);
        self.tell_of(now, agents, look).await;
    }

    async fn tell_of(
        &self,
        now: Now,
        agents: &mut [AgentView],
        look: impl Fn(&AgentName) -> Found + Send + 'static,
    ) {
        let mut held = self.held.lock().await;
        // One that was looked at while this one waited is as good as new.
        held.retain(|_, held| is_fresh(now, held));
        let wanted = agents.iter().map(|agent| &agent.agent);
        let wanted: Vec<_> = wanted
            .filter(|agent| !held.contains_key(*agent))
            .cloned()
            .collect();
        if !wanted.is_empty() {
            let all = move || {
                let found = wanted.into_iter().map(|agent| (look(&agent), agent));
                found.collect::<Vec<_>>()
            };
            // Files are read; nobody else is to wait for them. A look that failed is tried again by the next who asks.
            let found = tokio::task::spawn_blocking(all).await;
            for (found, agent) in found.unwrap_or_default() {
                let looked_boot_ns = now.boot_ns;
                held.insert(
                    agent,
                    Held {
                        looked_boot_ns,
                        found,
                    },
                );
            }
        }
        fill(agents, &held);
    }
}

fn is_fresh(now: Now, held: &Held) -> bool {
    let age = Duration::from_nanos(now.boot_ns.saturating_sub(held.looked_boot_ns));
    age < KEPT
}

/// Fills in what was found, as long as it finds room: past that the numbers of processes are told and not which they are.
fn fill(agents: &mut [AgentView], held: &BTreeMap<AgentName, Held>) {
    let mut room = ON_HOST_BYTES_MAX;
    for agent in agents {
        let Some(Held { found, .. }) = held.get(&agent.agent) else {
            continue;
        };
        agent.processes = found.processes;
        let bytes = encoded_bytes(&(&found.workload, &found.some));
        if let Some(left) = room.checked_sub(bytes) {
            room = left;
            agent.workload.clone_from(&found.workload);
            agent.some.clone_from(&found.some);
        }
    }
}

fn look_at(workloads: &Workloads, agent: &AgentName) -> Found {
    let mut found = Found::default();
    if let Some(workload) = workloads.workload(agent) {
        found.workload = workload.to_string();
        shorten(&mut found.workload, WORKLOAD_BYTES_MAX);
    }
    let Some(at) = workloads.of(agent) else {
        return found;
    };
    // One that goes meanwhile has none.
    let (pids, _) = workload::all_processes(&at.folder, BELOW_MAX).unwrap_or_default();
    found.processes = pids.len() as u64;
    let some = pids.into_iter().filter_map(|pid| {
        let mut comm = workload::stat(pid).ok()?.comm;
        shorten(&mut comm, COMM_BYTES_MAX);
        Some(ProcessView {
            pid,
            uid: workload::uid_of(pid).ok()?,
            comm,
        })
    });
    found.some = some.take(SHOWN_MAX).collect();
    found
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn on_host() -> OnHost {
        let folder = || PathBuf::from("/nowhere");
        OnHost::new(Arc::new(Workloads::new(folder(), folder(), folder(), &[])))
    }

    fn agents(count: usize) -> Vec<AgentView> {
        let view = |at| AgentView {
            agent: format!("bot-{at}").parse().expect("a name"),
            workload: String::new(),
            processes: 0,
            some: Vec::new(),
            day: Vec::new(),
            held_in_day_s: 0,
            approved: 0,
            denied: 0,
            undecided: 0,
            refused: 0,
            locked: None,
        };
        (0..count).map(view).collect()
    }

    const fn at(boot_ns: u64) -> Now {
        Now {
            boot_ns,
            unix_ns: 0,
        }
    }

    fn counting(looks: &Arc<AtomicUsize>) -> impl Fn(&AgentName) -> Found + Send + 'static {
        let looks = Arc::clone(looks);
        move |_| {
            looks.fetch_add(1, Ordering::SeqCst);
            Found {
                processes: 3,
                ..Found::default()
            }
        }
    }

    #[tokio::test]
    async fn a_second_status_within_the_time_looks_at_nothing_and_one_after_it_does() {
        let (on_host, looks) = (on_host(), Arc::new(AtomicUsize::new(0)));
        let kept = u64::try_from(KEPT.as_nanos()).expect("is short");
        for (boot_ns, count, looked) in [
            (1, 1000, 1000),
            (kept, 1000, 1000),
            // One that is new is looked at by itself.
            (kept, 1001, 1001),
            (kept + 1, 1000, 2001),
        ] {
            let mut agents = agents(count);
            on_host
                .tell_of(at(boot_ns), &mut agents, counting(&looks))
                .await;
            assert_eq!(looks.load(Ordering::SeqCst), looked);
            assert!(agents.iter().all(|agent| agent.processes == 3));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn those_who_ask_at_once_share_one_look() {
        let (on_host, looks) = (Arc::new(on_host()), Arc::new(AtomicUsize::new(0)));
        let ask = |_| {
            let (on_host, look) = (Arc::clone(&on_host), counting(&looks));
            tokio::spawn(async move {
                let mut agents = agents(50);
                on_host.tell_of(at(1), &mut agents, look).await;
                agents.iter().all(|agent| agent.processes == 3)
            })
        };
        for asked in (0..10).map(ask).collect::<Vec<_>>() {
            assert!(asked.await.expect("answers"));
        }
        assert_eq!(looks.load(Ordering::SeqCst), 50);
    }

    #[test]
    fn what_finds_no_room_leaves_the_number_of_processes() {
        let process = |pid| ProcessView {
            pid,
            uid: u32::MAX,
            comm: "x".repeat(COMM_BYTES_MAX),
        };
        let found = Found {
            workload: "w".repeat(WORKLOAD_BYTES_MAX),
            processes: 9,
            some: (0..8).map(process).collect(),
        };
        let mut agents = agents(1024);
        let held = agents.iter().map(|agent| {
            let held = Held {
                looked_boot_ns: 1,
                found: found.clone(),
            };
            (agent.agent.clone(), held)
        });
        fill(&mut agents.clone(), &BTreeMap::new());
        let held = held.collect();
        let before = encoded_bytes(&agents);
        fill(&mut agents, &held);
        assert!(encoded_bytes(&agents) <= before + ON_HOST_BYTES_MAX);
        assert!(agents.iter().all(|agent| agent.processes == 9));
        assert!(!agents[0].some.is_empty() && agents[1023].some.is_empty());
    }
}
