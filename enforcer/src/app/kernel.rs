//! The engine's view of the kernel: agents by name, where the maps know cgroup ids.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use enforcer_ebpf::{Agent, Window};
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::wire::{Enforce, KernelCounters};
use tokio::sync::watch;

use super::Protected;
use super::uplinks::Guarded;
use crate::causes::Causes;
use crate::engine::{KernelFault, Windows};
use crate::kernel::{Kernel, KernelError};
use crate::workloads::{Looked, Workloads};

/// How many interfaces the status names.
const NAMES_SHOWN: usize = 16;

/// What the engine and the watch over the workloads have in common: the maps, and which windows are open in them.
pub(super) struct Shared {
    state: Mutex<State>,
    workloads: Arc<Workloads>,
    settings: BTreeMap<AgentName, Agent>,
    enforce: Enforce,
}

struct State {
    kernel: Kernel,
    /// The agents that were told to the kernel, with their cgroup's id.
    told: BTreeMap<AgentName, u64>,
    /// Open windows. That of an agent whose workload has gone waits here for it to come back, as long as it lasts.
    open: BTreeMap<AgentName, Window>,
}

impl Shared {
    /// Takes up the windows that the kernel holds for the workloads there are.
    pub(super) fn new(
        kernel: Kernel,
        workloads: Arc<Workloads>,
        settings: BTreeMap<AgentName, Agent>,
        enforce: Enforce,
    ) -> Result<Self, KernelError> {
        let held = kernel.windows()?;
        let open = workloads.all().into_iter();
        let open = open.filter_map(|(agent, found)| Some((agent, *held.get(&found.id)?)));
        let open = open.collect();
        Ok(Self {
            state: Mutex::new(State {
                kernel,
                told: BTreeMap::new(),
                open,
            }),
            workloads,
            settings,
            enforce,
        })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks where the workloads are, and where that has changed tells the kernel: windows of those that have gone go first, those of who
    /// has come back come last. Gives what is wrong with the others. `first`: only then may whoever is no agent be left alone.
    pub(super) fn follow(&self, first: bool) -> Result<Vec<String>, KernelError> {
        let Looked { found, problems } = self.workloads.look();
        let now: BTreeMap<AgentName, u64> = found
            .iter()
            .map(|(agent, found)| (agent.clone(), found.id))
            .collect();
        let mut state = self.state();
        if state.told == now && !first {
            return Ok(problems);
        }
        let State { kernel, told, open } = &mut *state;
        for (_, id) in told
            .iter()
            .filter(|(agent, id)| now.get(*agent) != Some(*id))
        {
            kernel.close(*id)?;
        }
        let settings = |agent: &AgentName| self.settings.get(agent).copied();
        let agents = now
            .iter()
            .filter_map(|(agent, id)| Some((*id, settings(agent)?)));
        kernel.set_agents(&agents.collect())?;
        self.workloads.set(found);
        for (agent, id) in &now {
            if let (true, Some(window)) = (told.get(agent) != Some(id), open.get(agent)) {
                kernel.open(*id, *window)?;
            }
        }
        *told = now;
        if first {
            kernel.enforce(self.enforce)?;
        }
        Ok(problems)
    }
}

/// What others watch over, and say what is wrong with.
pub(super) struct Watched {
    pub(super) endpoints: watch::Receiver<Protected>,
    pub(super) uplinks: watch::Receiver<Guarded>,
    pub(super) probes: watch::Receiver<Vec<String>>,
    pub(super) workloads: watch::Receiver<Vec<String>>,
}

/// Writes windows for agents by name.
pub(super) struct AgentWindows {
    shared: Arc<Shared>,
    watched: Watched,
}

impl AgentWindows {
    pub(super) const fn new(shared: Arc<Shared>, watched: Watched) -> Self {
        Self { shared, watched }
    }
}

fn fault(error: KernelError) -> KernelFault {
    KernelFault(Causes(&error).to_string())
}

impl Windows for AgentWindows {
    fn open(
        &mut self,
        agent: &AgentName,
        grant: GrantId,
        opens_boot_ns: u64,
        closes_boot_ns: u64,
    ) -> Result<(), KernelFault> {
        if !self.shared.settings.contains_key(agent) {
            return Err(KernelFault(format!(
                "agent {agent} is not configured any more"
            )));
        }
        let mut state = self.shared.state();
        let id = state.told.get(agent).copied().ok_or_else(|| {
            KernelFault(format!(
                "the workload of agent {agent} is not there: start its unit or container"
            ))
        })?;
        let window = Window {
            grant: grant.0,
            opens_boot_ns,
            closes_boot_ns,
        };
        state.kernel.open(id, window).map_err(fault)?;
        state.open.insert(agent.clone(), window);
        Ok(())
    }

    fn close(&mut self, agent: &AgentName) -> Result<(), KernelFault> {
        let mut state = self.shared.state();
        // First, so that a window does not come back with its unit though the kernel would not let go of it now.
        state.open.remove(agent);
        // An agent without a workload is not in the kernel's map of agents: a window of its leads nowhere.
        match state.told.get(agent).copied() {
            Some(id) => state.kernel.close(id).map_err(fault),
            None => Ok(()),
        }
    }

    fn held(&self) -> Result<BTreeMap<AgentName, GrantId>, KernelFault> {
        let state = self.shared.state();
        let windows = state.kernel.windows().map_err(fault)?;
        let held = state
            .told
            .iter()
            .filter_map(|(name, id)| Some((name.clone(), GrantId(windows.get(id)?.grant))));
        Ok(held.collect())
    }

    fn heartbeat(&mut self, boot_ns: u64) -> Result<(), KernelFault> {
        self.shared.state().kernel.heartbeat(boot_ns).map_err(fault)
    }

    fn counters(&self) -> KernelCounters {
        self.shared.state().kernel.counters().map_or_else(
            |error| {
                tracing::error!(error = %Causes(&error), "the kernel's counters could not be read");
                KernelCounters::default()
            },
            |counted| KernelCounters {
                redirected: counted.redirected,
                denied: counted.denied,
                egress_dropped: counted.egress_dropped,
                events_lost: counted.events_lost,
            },
        )
    }

    fn drift(&self) -> Vec<String> {
        let mut drift = self.shared.state().kernel.drift();
        drift.extend(self.watched.uplinks.borrow().problems.iter().cloned());
        drift.extend(self.watched.probes.borrow().iter().cloned());
        drift.extend(self.watched.workloads.borrow().iter().cloned());
        let endpoints = self.watched.endpoints.borrow().clone();
        drift.extend(endpoints.problem);
        if endpoints.count == 0 {
            drift.push("no address of BigQuery is known, so none is protected: check [names] and the resolvers".to_owned());
        }
        drift
    }

    fn guards(&self) -> Vec<String> {
        let uplinks = self.watched.uplinks.borrow();
        let shown = uplinks.names.len().min(NAMES_SHOWN);
        let more = match uplinks.names.len() - shown {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let names = match shown {
            0 => "none, no interface leads out".to_owned(),
            shown => uplinks.names[..shown].join(", "),
        };
        vec![
            format!("uplinks guarded against frames made by hand: {names}{more}"),
            self.shared.state().kernel.hooks(),
        ]
    }

    fn endpoints(&self) -> u64 {
        self.watched.endpoints.borrow().count
    }

    fn enforced(&self) -> Enforce {
        self.shared.enforce
    }
}
