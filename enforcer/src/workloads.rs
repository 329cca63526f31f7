//! Which cgroup is whose workload, now: what the configuration names is found among the host's cgroups, and found anew as units restart and
//! containers come and go. Nothing here writes to the kernel or to a cgroup, but for the cgroups that the configuration has the daemon make.

mod find;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use enforcer_ebpf::map::CGROUP_LEVELS;
use enforcer_proto::principal::AgentName;

pub use find::find;

use crate::config::{Agent, Workload};
use crate::executables::Executables;
use crate::workload::{self, Writable};

/// An agent's cgroup as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its absolute folder.
    pub folder: PathBuf,
    /// The kernel's id of it.
    pub id: u64,
}

/// The agents' workloads.
#[derive(Debug)]
pub struct Workloads {
    /// The cgroup v2 mount.
    mount: PathBuf,
    /// Below which workloads are looked for.
    root: PathBuf,
    /// The daemon's own cgroup.
    daemon: PathBuf,
    agents: Vec<(AgentName, Workload, Option<u32>)>,
    executables: Vec<(AgentName, Executables)>,
    now: RwLock<BTreeMap<AgentName, Found>>,
}

/// What one look gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// The workloads there are.
    pub found: BTreeMap<AgentName, Found>,
    /// Why others cannot be one, and what is wrong with the executables that agents are narrowed to: one sentence each.
    pub problems: Vec<String>,
}

impl Workloads {
    /// The configured workloads, none of them found yet.
    #[must_use]
    pub fn new(mount: PathBuf, root: PathBuf, daemon: PathBuf, agents: &[Agent]) -> Self {
        let executables = agents.iter().map(|agent| {
            let executables = Executables::new(agent.executables.clone());
            (agent.name.clone(), executables)
        });
        let executables = executables.collect();
        let agents = agents
            .iter()
            .map(|agent| (agent.name.clone(), agent.workload.clone(), agent.uid));
        Self {
            executables,
            mount,
            root,
            daemon,
            agents: agents.collect(),
            now: RwLock::default(),
        }
    }

    /// The cgroup v2 mount.
    #[must_use]
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Makes the cgroups that are named by their path.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn make(&self) -> std::io::Result<()> {
        for (_, workload, _) in &self.agents {
            match workload {
                Workload::Cgroup(path) => workload::make(&self.root.join(path))?,
                Workload::Unit(_)
                | Workload::User(_)
                | Workload::Container(_)
                | Workload::Pod(_) => {}
            }
        }
        Ok(())
    }

    /// Looks where each workload is now. Changes nothing: see [`Workloads::set`].
    #[must_use]
    pub fn look(&self) -> Looked {
        let mut looked = Looked::default();
        let wanted: Vec<&Workload> = self.agents.iter().map(|(_, wanted, _)| wanted).collect();
        for ((agent, workload, _), folder) in self.agents.iter().zip(find(&self.root, &wanted)) {
            let folder = self.is_shallow(workload).and(folder);
            match folder.and_then(|folder| self.checked(folder, &looked.found)) {
                Ok(Some(found)) => {
                    looked.found.insert(agent.clone(), found);
                }
                Ok(None) => {}
                Err(why) => looked.problems.push(format!(
                    "agent {agent} has no workload, so no window opens for it: {why}"
                )),
            }
        }
        for (agent, executables) in &self.executables {
            looked.problems.extend(executables.problems(agent));
        }
        looked
    }

    /// Whether a cgroup that is named by its path lies as deep as the kernel looks, there or not.
    fn is_shallow(&self, workload: &Workload) -> Result<(), String> {
        match workload {
            Workload::Cgroup(path) => check_depth(&self.mount, &self.root.join(path)),
            Workload::Unit(_) | Workload::User(_) | Workload::Container(_) | Workload::Pod(_) => {
                Ok(())
            }
        }
    }

    /// What is wrong with the daemon's own cgroup: others than root can write it.
    ///
    /// # Errors
    /// When it is not there.
    pub fn daemon_problem(&self) -> std::io::Result<Option<String>> {
        Ok(match workload::writable(&self.mount, &self.daemon)? {
            Writable::ByRoot => None,
            Writable::ByOthers { at, uid } => Some(format!(
                "the daemon's own cgroup can be written by others than root: {} belongs to uid {uid}, or others may write it",
                at.display()
            )),
        })
    }

    /// The workload at a folder, if it can be one beside the others.
    fn checked(
        &self,
        folder: Option<PathBuf>,
        others: &BTreeMap<AgentName, Found>,
    ) -> Result<Option<Found>, String> {
        let Some(folder) = folder else {
            return Ok(None);
        };
        // It may have gone since.
        let Ok(id) = workload::cgroup_id(&folder) else {
            return Ok(None);
        };
        let shown = folder.display();
        if folder == self.mount {
            return Err("every process of the host is in the root cgroup".to_owned());
        }
        if is_nested(&folder, &self.daemon) {
            return Err(format!(
                "{shown} and the daemon's cgroup lie inside one another"
            ));
        }
        if let Some((other, _)) = others
            .iter()
            .find(|(_, found)| is_nested(&folder, &found.folder))
        {
            return Err(format!(
                "{shown} and the workload of agent {other} lie inside one another"
            ));
        }
        check_depth(&self.mount, &folder)?;
        match workload::writable(&self.mount, &folder) {
            Ok(Writable::ByRoot) => Ok(Some(Found { folder, id })),
            Ok(Writable::ByOthers { at, uid }) => Err(format!(
                "{} belongs to uid {uid} or can be written by others than root, who could enter the workload or take its place: name one that root alone writes, or all that a user runs (`user = UID`)",
                at.display()
            )),
            Err(_) => Ok(None),
        }
    }

    /// Takes what a look gave for what there is now.
    pub fn set(&self, found: BTreeMap<AgentName, Found>) {
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// The workload of an agent, if it is there.
    #[must_use]
    pub fn of(&self, agent: &AgentName) -> Option<Found> {
        self.now().get(agent).cloned()
    }

    /// The agent whose workload has this cgroup id.
    #[must_use]
    pub fn agent(&self, id: u64) -> Option<AgentName> {
        let now = self.now();
        let mut found = now.iter().filter(|(_, found)| found.id == id);
        found.next().map(|(agent, _)| agent.clone())
    }

    /// The agent whose workload holds a cgroup, named by its absolute folder.
    #[must_use]
    pub fn agent_at(&self, folder: &Path) -> Option<AgentName> {
        let now = self.now();
        let mut found = now
            .iter()
            .filter(|(_, found)| folder.starts_with(&found.folder));
        found.next().map(|(agent, _)| agent.clone())
    }

    /// The uid an agent must run as, if any; `None` for no such agent.
    #[must_use]
    pub fn uid(&self, agent: &AgentName) -> Option<Option<u32>> {
        let mut agents = self.agents.iter();
        agents
            .find(|(name, _, _)| name == agent)
            .map(|(_, _, uid)| *uid)
    }

    /// All that are there.
    #[must_use]
    pub fn all(&self) -> BTreeMap<AgentName, Found> {
        self.now().clone()
    }

    fn now(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<AgentName, Found>> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_nested(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

/// The kernel finds an agent by its cgroup only so deep below the root; deeper, what runs below it would be nobody's.
fn check_depth(mount: &Path, cgroup: &Path) -> Result<(), String> {
    let below = cgroup.strip_prefix(mount).unwrap_or(cgroup);
    let levels = below.components().count();
    if i32::try_from(levels).is_ok_and(|levels| levels <= CGROUP_LEVELS) {
        return Ok(());
    }
    Err(format!(
        "its cgroup {} lies {levels} levels below the cgroup root, and {CGROUP_LEVELS} is the most",
        cgroup.display()
    ))
}
