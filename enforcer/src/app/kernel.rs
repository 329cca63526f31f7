//! The engine's view of the kernel: agents by name, where the maps know cgroup ids.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

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

/// How many interfaces the status names.
const NAMES_SHOWN: usize = 16;

/// Writes windows for agents by name.
pub(super) struct AgentWindows {
    /// Only the engine writes; the lock is for the one write before it starts.
    kernel: Mutex<Kernel>,
    cgroups: BTreeMap<AgentName, u64>,
    watched: Watched,
    enforce: Enforce,
}

/// What others watch over, and say what is wrong with.
pub(super) struct Watched {
    pub(super) endpoints: watch::Receiver<Protected>,
    pub(super) uplinks: watch::Receiver<Guarded>,
    pub(super) probes: watch::Receiver<Vec<String>>,
}

impl AgentWindows {
    pub(super) fn new(
        kernel: Kernel,
        cgroups: &[(AgentName, PathBuf, u64)],
        watched: Watched,
        enforce: Enforce,
    ) -> Self {
        let cgroups = cgroups
            .iter()
            .map(|(name, _, id)| (name.clone(), *id))
            .collect();
        Self {
            kernel: Mutex::new(kernel),
            cgroups,
            watched,
            enforce,
        }
    }

    /// Makes these the agents; only then may whoever is none be left alone.
    pub(super) fn set_agents(&self, agents: &BTreeMap<u64, Agent>) -> Result<(), KernelError> {
        let mut kernel = self.kernel();
        kernel.set_agents(agents)?;
        kernel.enforce(self.enforce)
    }

    fn kernel(&self) -> std::sync::MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cgroup(&self, agent: &AgentName) -> Result<u64, KernelFault> {
        self.cgroups
            .get(agent)
            .copied()
            .ok_or_else(|| KernelFault(format!("agent {agent} is not configured any more")))
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
        let cgroup = self.cgroup(agent)?;
        self.kernel()
            .open(
                cgroup,
                Window {
                    grant: grant.0,
                    opens_boot_ns,
                    closes_boot_ns,
                },
            )
            .map_err(fault)
    }

    fn close(&mut self, agent: &AgentName) -> Result<(), KernelFault> {
        // An agent that is not configured is not in the kernel's map of agents: its window leads nowhere.
        self.cgroup(agent)
            .map_or(Ok(()), |cgroup| self.kernel().close(cgroup).map_err(fault))
    }

    fn held(&self) -> Result<BTreeMap<AgentName, GrantId>, KernelFault> {
        let windows = self.kernel().windows().map_err(fault)?;
        let held = self
            .cgroups
            .iter()
            .filter_map(|(name, id)| Some((name.clone(), GrantId(windows.get(id)?.grant))));
        Ok(held.collect())
    }

    fn heartbeat(&mut self, boot_ns: u64) -> Result<(), KernelFault> {
        self.kernel().heartbeat(boot_ns).map_err(fault)
    }

    fn counters(&self) -> KernelCounters {
        self.kernel().counters().map_or_else(
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
        let mut drift = self.kernel().drift();
        drift.extend(self.watched.uplinks.borrow().problems.iter().cloned());
        drift.extend(self.watched.probes.borrow().iter().cloned());
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
        vec![format!(
            "uplinks guarded against frames made by hand: {names}{more}"
        )]
    }

    fn endpoints(&self) -> u64 {
        self.watched.endpoints.borrow().count
    }

    fn enforced(&self) -> Enforce {
        self.enforce
    }
}
