//! The engine's view of the kernel: agents by name, where the maps know cgroup ids.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use enforcer_ebpf::map::{AGENTS_MAX, CLOSED_IN_DOUBT};
use enforcer_ebpf::{Agent as KernelAgent, Window};
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::wire::{CheckState, CheckView, Enforce, KernelCounters};
use tokio::sync::watch;

use super::minting::Minting;
use super::namespaces::Told;
use super::probes::{Asked, Probed};
use super::protect::Protected;
use super::uplinks::Guarded;
use crate::causes::Causes;
use crate::dns::heard::Heard;
use crate::dns::marks::Marks;
use crate::dns::questions::Questions;
use crate::engine::{KernelFault, Windows};
use crate::kernel::{Kernel, KernelError};
use crate::loopback::{WITHOUT_IPV6, has_ipv6};
use crate::proxy::quota::Quota;
use crate::subordinate::{Prefix, Subordinate};
use crate::workload;
use crate::workloads::{Closed, Found, Looked, Workloads};

/// In how many cgroups below one workload somebody else's programs are looked for.
const BELOW_MAX: usize = 256;
/// How many interfaces the status names.
const NAMES_SHOWN: usize = 16;

/// What the engine and the watch over the workloads have in common: the maps, and which windows are open in them.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Who is subordinate to an agent's uid.
    subordinate: Mutex<Subordinate>,
    workloads: Arc<Workloads>,
    settings: BTreeMap<AgentName, KernelAgent>,
    /// The daemon's own, by which it asks itself.
    asking: (u64, KernelAgent),
    uids: BTreeSet<u32>,
    enforce: Enforce,
}

/// What is wrong with the workloads, by one look.
#[derive(Debug, Default)]
pub(super) struct Followed {
    pub(super) problems: Vec<String>,
    /// What is wrong only where it lasts.
    pub(super) passing: Vec<String>,
}

struct State {
    kernel: Kernel,
    /// The agents that were told to the kernel, with their cgroup's id.
    told: BTreeMap<AgentName, u64>,
    /// What else was told: cgroups in which an agent has no window.
    closed: BTreeMap<u64, KernelAgent>,
    /// What the daemon before this one told the kernel of, as long as not everything could be looked at.
    left: BTreeMap<u64, KernelAgent>,
    /// Whether everything could be looked at once, and there is room for all that may be an agent's: only then is anybody known to be none.
    is_settled: bool,
    /// Open windows. That of an agent whose workload has gone waits here for it to come back, as long as it lasts.
    open: BTreeMap<AgentName, Window>,
}

impl Shared {
    /// Takes up the windows that the kernel holds for the workloads there are.
    pub(super) fn new(
        kernel: Kernel,
        workloads: Arc<Workloads>,
        settings: BTreeMap<AgentName, KernelAgent>,
        asking: (u64, KernelAgent),
        (uids, subordinate): (BTreeSet<u32>, Subordinate),
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
                closed: BTreeMap::new(),
                left: BTreeMap::new(),
                is_settled: false,
                open,
            }),
            subordinate: Mutex::new(subordinate),
            workloads,
            settings,
            asking,
            uids,
            enforce,
        })
    }

    /// What runs before ours in the workloads and in what is below them: each cgroup may have programs of its own.
    fn overtaken(&self, found: &BTreeMap<AgentName, Found>) -> Vec<String> {
        let (ours, everywhere) = {
            let kernel = &self.state().kernel;
            (kernel.ours(), kernel.before_everywhere())
        };
        let folders: BTreeSet<&PathBuf> = found.values().map(|found| &found.folder).collect();
        let mut problems = Vec::new();
        for folder in folders {
            // Programs come before ours for who is in a cgroup: where nobody is, they wait.
            let (below, is_all) = match workload::populated(folder, BELOW_MAX) {
                Ok(populated) => populated,
                Err(error) if workload::is_gone(&error) => continue,
                Err(error) => {
                    problems.push(format!(
                        "whether somebody else's programs run before ours below {} is not known: {error}",
                        folder.display()
                    ));
                    (Vec::new(), true)
                }
            };
            if !is_all {
                problems.push(format!(
                    "{} has more cgroups below it than the {BELOW_MAX} that are looked at for programs of somebody else's: a container engine in a workload belongs in one of its own",
                    folder.display()
                ));
            }
            let all = std::iter::once(folder).chain(below.iter());
            // What runs before ours everywhere is said once.
            problems.extend(all.flat_map(|cgroup| ours.overtaken_in(cgroup, &everywhere)));
        }
        problems
    }

    /// Who is subordinate to an agent's uid, where that is known. Under a lock of its own: it may wait for a directory, and whoever revokes does not.
    fn subordinate(&self, problems: &mut Vec<String>) -> Option<BTreeSet<Prefix>> {
        let subordinate = self.subordinate.lock();
        let mut subordinate = subordinate.unwrap_or_else(PoisonError::into_inner);
        let found = subordinate.look().clone();
        problems.extend(found.problems);
        subordinate.is_known().then_some(found.prefixes)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when runtimes have said another thing of an agent's container than before.
    pub(super) async fn told_more(&self) {
        self.workloads.told_more().await;
    }

    /// Looks where the workloads are, and where that has changed tells the kernel: windows of those that have gone go first, those of who
    /// has come back come last. What is in doubt stays an agent's, without a window. Gives what is wrong with the others. `first`: until
    /// everything could be looked at once, whoever is no agent is enforced on like before.
    pub(super) fn follow(&self, first: bool) -> Result<Followed, KernelError> {
        let mut looked = self.workloads.look();
        let passing = std::mem::take(&mut looked.passing);
        let problems = self.take(looked, first)?;
        Ok(Followed { problems, passing })
    }

    /// Takes what a look gave for what there is now, and tells the kernel where that is another than before.
    fn take(&self, looked: Looked, first: bool) -> Result<Vec<String>, KernelError> {
        let Looked {
            found,
            closed,
            is_partial,
            mut problems,
            passing: _,
        } = looked;
        problems.extend(self.overtaken(&found));
        let now: BTreeMap<AgentName, u64> = found
            .iter()
            .map(|(agent, found)| (agent.clone(), found.id))
            .collect();
        let subordinate = self.subordinate(&mut problems);
        let mut state = self.state();
        if let Some(prefixes) = subordinate.filter(|known| state.kernel.subordinate() != known)
            && let Err(error) = state.kernel.set_subordinate(&prefixes)
        {
            // The rest is done all the same.
            if first {
                return Err(error);
            }
            problems.push(Causes(&error).to_string());
        }
        if first && is_partial {
            state.left = state.kernel.agents()?;
        } else if !is_partial {
            state.left.clear();
        }
        let (shut, is_all) = self.closed(&state.left, &closed, &now, &mut problems);
        if !is_all && state.is_settled {
            state.kernel.enforce(Enforce::Host)?;
            state.is_settled = false;
        }
        let is_settling = !is_partial && is_all && !state.is_settled;
        if !is_settling && !first && (&state.told, &state.closed) == (&now, &shut) {
            return Ok(problems);
        }
        self.tell(&mut state, &now, shut)?;
        self.workloads.set(found, closed);
        state.reopen(&now)?;
        state.told = now;
        if first {
            state.kernel.set_uids(&self.uids)?;
        }
        if is_settling {
            state.kernel.enforce(self.enforce)?;
            state.is_settled = true;
        }
        Ok(problems)
    }

    /// What the kernel is told of cgroups in which nobody has a window: they are refused, and nothing is explained there. As many as there is
    /// room for beside the agents, and whether those are all: where they are not, who is no agent cannot be told.
    fn closed(
        &self,
        left: &BTreeMap<u64, KernelAgent>,
        closed: &BTreeMap<u64, Closed>,
        now: &BTreeMap<AgentName, u64>,
        problems: &mut Vec<String>,
    ) -> (BTreeMap<u64, KernelAgent>, bool) {
        let open: BTreeSet<u64> = now.values().copied().chain([self.asking.0]).collect();
        let settings = |closed: &Closed| self.settings.get(&closed.agent).copied();
        let known = closed
            .iter()
            .filter_map(|(id, closed)| Some((*id, settings(closed)?)));
        let left = left.iter().map(|(id, agent)| (*id, *agent));
        let mut shut: BTreeMap<u64, KernelAgent> = left
            .chain(known)
            .filter(|(id, _)| !open.contains(id))
            .map(|(id, agent)| {
                let closed = CLOSED_IN_DOUBT;
                (id, KernelAgent { closed, ..agent })
            })
            .collect();
        let room = (AGENTS_MAX as usize).saturating_sub(open.len());
        let is_all = shut.len() <= room;
        if !is_all {
            problems.push(format!(
                "{} cgroups may be agents', and there is room for {room}: until they are fewer everybody on this host is held to what agents are",
                shut.len()
            ));
            shut = shut.into_iter().take(room).collect();
        }
        (shut, is_all)
    }

    /// Tells the kernel who is an agent now. Windows of whoever has none any more go first.
    fn tell(
        &self,
        state: &mut State,
        now: &BTreeMap<AgentName, u64>,
        shut: BTreeMap<u64, KernelAgent>,
    ) -> Result<(), KernelError> {
        let open: BTreeSet<u64> = now.values().copied().collect();
        for id in state.kernel.windows()?.keys() {
            if !open.contains(id) {
                state.kernel.close(*id)?;
            }
        }
        let settings = |agent: &AgentName| self.settings.get(agent).copied();
        let agents = now
            .iter()
            .filter_map(|(agent, id)| Some((*id, settings(agent)?)))
            .chain([self.asking])
            .chain(shut.clone());
        state.kernel.set_agents(&agents.collect())?;
        state.closed = shut;
        Ok(())
    }
}

impl State {
    /// Opens the windows of those who have come back.
    fn reopen(&mut self, now: &BTreeMap<AgentName, u64>) -> Result<(), KernelError> {
        for (agent, id) in now {
            if let (true, Some(window)) = (self.told.get(agent) != Some(id), self.open.get(agent)) {
                self.kernel.open(*id, *window)?;
            }
        }
        Ok(())
    }
}

/// What others watch over, and say what is wrong with.
pub(super) struct Watched {
    pub(super) endpoints: watch::Receiver<Protected>,
    pub(super) uplinks: watch::Receiver<Guarded>,
    pub(super) probes: watch::Receiver<Probed>,
    /// What came of the daemon's own questions for names.
    pub(super) asked: watch::Receiver<Asked>,
    /// When the resolvers were heard last.
    pub(super) heard: Arc<Heard>,
    /// What became of agents' questions for names.
    pub(super) questions: Arc<Questions>,
    /// What became of tokens that were asked for.
    pub(super) minting: Arc<Minting>,
    pub(super) marks: Marks,
    pub(super) workloads: watch::Receiver<Vec<String>>,
    /// In which network namespaces agents are served.
    pub(super) namespaces: watch::Receiver<Told>,
    /// What the configuration says of addresses that no name has resolved to.
    pub(super) prefixes: String,
    /// How many connections there are, and may be.
    pub(super) quota: Arc<Quota>,
}

impl Watched {
    /// What is wrong with the addresses that are protected, and how many those are.
    fn addresses(&self) -> (Vec<String>, usize) {
        let endpoints = self.endpoints.borrow();
        let mut faults: Vec<String> = endpoints.problem.iter().cloned().collect();
        if endpoints.known.is_empty() {
            faults.push("no address of BigQuery is known, so none is protected: check [names] and the resolvers".to_owned());
        }
        (faults, endpoints.known.len())
    }

    fn prefixes_check(&self) -> CheckView {
        CheckView::of("prefixes", self.prefixes.clone(), &[])
    }

    /// What the probes have shown, and what they show nothing of.
    fn probes_checks(&self) -> Vec<CheckView> {
        let probes = self.probes.borrow();
        let mut checks = vec![CheckView::of("probes", probes.shown(), &probes.problems)];
        checks.extend(probes.unshown().map(|said| CheckView {
            what: "not probed".to_owned(),
            state: CheckState::Unknown,
            said,
        }));
        checks
    }
}

/// The interfaces that are guarded, as many as are named.
fn shown_uplinks(names: &[String]) -> String {
    let shown = names.len().min(NAMES_SHOWN);
    let more = match names.len() - shown {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = match shown {
        0 => "none, no interface leads out".to_owned(),
        shown => names[..shown].join(", "),
    };
    format!("uplinks guarded against frames made by hand: {names}{more}")
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
                "the workload of agent {agent} is not there, or is in doubt: start its unit or container, and see `enforcer status`"
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
        drift.extend(self.watched.probes.borrow().problems.iter().cloned());
        drift.extend(self.watched.asked.borrow().fault());
        drift.extend(self.watched.heard.fault());
        drift.extend(self.watched.minting.troubles());
        drift.extend(self.watched.workloads.borrow().iter().cloned());
        drift.extend(self.watched.namespaces.borrow().problems.iter().cloned());
        drift.extend(self.watched.addresses().0);
        drift
    }

    fn checks(&self) -> Vec<CheckView> {
        let mut checks = self.shared.state().kernel.checks();
        let watched = &self.watched;
        let (addresses, known) = watched.addresses();
        checks.push(CheckView::of(
            "protected",
            format!("{known} addresses and prefixes in the kernel"),
            &addresses,
        ));
        checks.push(watched.prefixes_check());
        let uplinks = watched.uplinks.borrow();
        checks.push(CheckView::of(
            "uplinks",
            shown_uplinks(&uplinks.names),
            &uplinks.problems,
        ));
        checks.extend(watched.probes_checks());
        let (state, heard) = watched.heard.check();
        checks.push(CheckView {
            what: "DNS".to_owned(),
            state,
            said: format!("{heard}; {}", watched.questions),
        });
        checks.push(watched.asked.borrow().check(&watched.marks));
        checks.push(CheckView::of(
            "token endpoint",
            watched.minting.to_string(),
            &watched.minting.troubles(),
        ));
        let workloads = watched.workloads.borrow();
        checks.push(CheckView::of(
            "workloads",
            format!("{} agents are configured", self.shared.settings.len()),
            &workloads,
        ));
        let namespaces = watched.namespaces.borrow();
        checks.push(CheckView::of(
            "namespaces",
            format!(
                "{} network namespaces of agents' are served besides this host's own",
                namespaces.served
            ),
            &namespaces.problems,
        ));
        checks.push(watched.quota.check());
        let here = (!has_ipv6()).then(|| WITHOUT_IPV6.to_owned());
        let without = here.into_iter().chain(namespaces.without_ipv6.clone());
        checks.extend(without.map(|said| CheckView::of("IPv6", said, &[])));
        checks
    }

    fn endpoints(&self) -> u64 {
        self.watched.endpoints.borrow().known.len() as u64
    }

    fn enforced(&self) -> Enforce {
        self.shared.enforce
    }
}
