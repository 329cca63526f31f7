//! Which cgroup is whose workload, now: what the configuration names is found among the host's cgroups, and found anew as units restart and
//! containers come and go. Nothing here writes to the kernel or to a cgroup, but for the cgroups that the configuration has the daemon make.

mod called;
mod containers;
mod find;
mod kept;
mod told;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use enforcer_ebpf::map::CGROUP_LEVELS;
use enforcer_proto::principal::AgentName;

pub use find::{Sought, find};
use tokio::sync::Notify;
use told::Told;
use unknown::Unknown;

use crate::apart::Apart;
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
    /// What runtimes said of containers.
    told: RwLock<Arc<Told>>,
    /// They have said something else of an agent's.
    told_more: Notify,
    /// Containers of which they have not told.
    unknown: Unknown,
    now: RwLock<Now>,
}

/// The workloads there are, by all that is asked for.
#[derive(Debug, Default)]
struct Now {
    found: BTreeMap<AgentName, Found>,
    by_id: BTreeMap<u64, AgentName>,
    closed: BTreeMap<u64, Closed>,
    by_folder: Apart<AgentName>,
}

/// A cgroup that is an agent's, or may be, and in which it has no window: who is in it is refused what agents are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// Whose it is, or may be.
    pub agent: AgentName,
    /// Its absolute folder.
    pub folder: PathBuf,
}

/// What one look gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    /// The workloads there are.
    pub found: BTreeMap<AgentName, Found>,
    /// What is closed, by the kernel's ids: what cannot be a workload, or may be one, and what was one and is not proven to have gone.
    pub closed: BTreeMap<u64, Closed>,
    /// Whether something could not be looked at, so that workloads may be missing here.
    pub is_partial: bool,
    /// Why others cannot be one, and what is wrong with the executables that agents are narrowed to: one sentence each.
    pub problems: Vec<String>,
    /// What is wrong only where it lasts, since it passes as containers start and end: one sentence each.
    pub passing: Vec<String>,
}

/// What one look has seen so far.
#[derive(Debug, Default)]
struct Seen {
    others: Apart<AgentName>,
    /// Folders that are root's, with all above them.
    roots: BTreeSet<PathBuf>,
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
            told: RwLock::default(),
            told_more: Notify::new(),
            unknown: Unknown::default(),
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
                Workload::CgroupLike(_)
                | Workload::Unit(_)
                | Workload::UnitLike(_)
                | Workload::User(_)
                | Workload::Container(_)
                | Workload::Pod(_)
                | Workload::ContainerName(_)
                | Workload::ContainerLabel(_) => {}
            }
        }
        Ok(())
    }

    /// Looks where each workload is now. Changes nothing: see [`Workloads::set`].
    #[must_use]
    pub fn look(&self) -> Looked {
        let mut looked = Looked::default();
        let mut seen = Seen::default();
        let told = self.told();
        for ((agent, workload, _), sought) in self.agents.iter().zip(self.seek(&told)) {
            let (any, checked) = match sought {
                Sought::Absent => {
                    looked.passing.extend(containers::untraced(agent, &told));
                    (Vec::new(), Ok(None))
                }
                Sought::At(folder) => {
                    let checked = self.checked(folder.clone(), &mut seen);
                    (vec![folder], checked)
                }
                Sought::InDoubt { any, is_whole, why } => {
                    looked.is_partial |= !is_whole;
                    (any, Err(why))
                }
            };
            match self.is_shallow(workload).and(checked) {
                Ok(Some(found)) => {
                    seen.others.insert(found.folder.clone(), agent.clone());
                    looked.found.insert(agent.clone(), found);
                }
                Ok(None) => {}
                Err(why) => {
                    for folder in any {
                        self.close(agent, folder, &mut looked);
                    }
                    looked.problems.push(no_workload(agent, &why));
                }
            }
        }
        self.keep(&mut looked);
        looked.problems.extend(told.problems().iter().cloned());
        for (agent, executables) in &self.executables {
            looked.problems.extend(executables.problems(agent));
        }
        looked
    }

    /// Closes a cgroup that is, or may be, an agent's: itself or, where the kernel does not look so deep, the last above it that it sees. Not
    /// one that the daemon is in, whose own work would be refused.
    fn close(&self, agent: &AgentName, folder: PathBuf, looked: &mut Looked) {
        let folder = self.visible(folder);
        if folder == self.mount || self.daemon.starts_with(&folder) {
            return;
        }
        match workload::cgroup_id(&folder) {
            Ok(id) => {
                let agent = agent.clone();
                looked.closed.insert(id, Closed { agent, folder });
            }
            Err(error) => looked.is_partial |= !workload::is_gone(&error),
        }
    }

    /// A cgroup, or the one above it that is the deepest in which the kernel finds an agent.
    fn visible(&self, folder: PathBuf) -> PathBuf {
        let levels = usize::try_from(CGROUP_LEVELS).unwrap_or(0);
        match folder.strip_prefix(&self.mount) {
            Ok(below) => self
                .mount
                .join(below.iter().take(levels).collect::<PathBuf>()),
            Err(_) => folder,
        }
    }

    /// Whether a cgroup that is named by its path lies as deep as the kernel looks, there or not.
    fn is_shallow(&self, workload: &Workload) -> Result<(), String> {
        match workload {
            Workload::Cgroup(path) => check_depth(&self.mount, &self.root.join(path)),
            Workload::CgroupLike(_)
            | Workload::Unit(_)
            | Workload::UnitLike(_)
            | Workload::User(_)
            | Workload::Container(_)
            | Workload::Pod(_)
            | Workload::ContainerName(_)
            | Workload::ContainerLabel(_) => Ok(()),
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

    /// The workload at a folder, if it can be one beside the others; none where it has gone since.
    fn checked(&self, folder: PathBuf, seen: &mut Seen) -> Result<Option<Found>, String> {
        let shown = folder.display();
        let unseen = |error| format!("{shown} cannot be looked at: {error}");
        let id = match workload::cgroup_id(&folder) {
            Ok(id) => id,
            Err(error) if workload::is_gone(&error) => return Ok(None),
            Err(error) => return Err(unseen(error)),
        };
        if folder == self.mount {
            return Err("every process of the host is in the root cgroup".to_owned());
        }
        if is_nested(&folder, &self.daemon) {
            return Err(format!(
                "{shown} and the daemon's cgroup lie inside one another"
            ));
        }
        if let Some(other) = seen.others.at(&folder) {
            return Err(format!(
                "{shown} is the workload of agent {other} already: the one unit, container or cgroup is called what both are known by"
            ));
        }
        if let Some(other) = seen.others.related(&folder) {
            return Err(format!(
                "{shown} and the workload of agent {other} lie inside one another"
            ));
        }
        check_depth(&self.mount, &folder)?;
        match self.writable(&folder, &mut seen.roots) {
            Ok(Writable::ByRoot) => Ok(Some(Found { folder, id })),
            Ok(Writable::ByOthers { at, uid }) => Err(format!(
                "{} belongs to uid {uid} or can be written by others than root, who could enter the workload or take its place: name one that root alone writes, or all that a user runs (`user = UID`)",
                at.display()
            )),
            Err(error) if workload::is_gone(&error) => Ok(None),
            Err(error) => Err(unseen(error)),
        }
    }

    /// Who can write a cgroup. `roots` are folders that were found to be root's, with all above them: most agents' have them in common.
    fn writable(&self, folder: &Path, roots: &mut BTreeSet<PathBuf>) -> std::io::Result<Writable> {
        let parent = folder.parent().unwrap_or(&self.mount);
        if roots.contains(parent) {
            return workload::writable_itself(folder);
        }
        let writable = workload::writable(&self.mount, folder)?;
        if writable == Writable::ByRoot {
            roots.insert(parent.to_owned());
        }
        Ok(writable)
    }

    /// Takes what a look gave for what there is now.
    pub fn set(&self, found: BTreeMap<AgentName, Found>, closed: BTreeMap<u64, Closed>) {
        let mut now = Now::default();
        for closed in closed.values() {
            let folder = closed.folder.clone();
            now.by_folder.insert(folder, closed.agent.clone());
        }
        for (agent, found) in &found {
            now.by_id.insert(found.id, agent.clone());
            now.by_folder.insert(found.folder.clone(), agent.clone());
        }
        now.found = found;
        now.closed = closed;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// The workload of an agent, if it is there.
    #[must_use]
    pub fn of(&self, agent: &AgentName) -> Option<Found> {
        self.now().found.get(agent).cloned()
    }

    /// The agent whose workload has this cgroup id.
    #[must_use]
    pub fn agent(&self, id: u64) -> Option<AgentName> {
        self.now().by_id.get(&id).cloned()
    }

    /// The same, or whose a closed cgroup is: for records alone, since nobody in one is served.
    #[must_use]
    pub fn agent_concerned(&self, id: u64) -> Option<AgentName> {
        let closed = || Some(self.now().closed.get(&id)?.agent.clone());
        self.agent(id).or_else(closed)
    }

    /// The agent whose workload, or closed cgroup, holds a cgroup, named by its absolute folder.
    #[must_use]
    pub fn agent_at(&self, folder: &Path) -> Option<AgentName> {
        self.now().by_folder.holding(folder).cloned()
    }

    /// The uid an agent must run as, if any; `None` for no such agent.
    #[must_use]
    pub fn uid(&self, agent: &AgentName) -> Option<Option<u32>> {
        let mut agents = self.agents.iter();
        agents
            .find(|(name, _, _)| name == agent)
            .map(|(_, _, uid)| *uid)
    }

    /// By what an agent's processes are found; `None` for no such agent.
    #[must_use]
    pub fn workload(&self, agent: &AgentName) -> Option<&Workload> {
        let mut agents = self.agents.iter();
        let found = agents.find(|(name, _, _)| name == agent);
        found.map(|(_, workload, _)| workload)
    }

    /// All that are there.
    #[must_use]
    pub fn all(&self) -> BTreeMap<AgentName, Found> {
        self.now().found.clone()
    }

    /// The ids of the agents' cgroups and of those below them, as many of these as are looked at.
    #[must_use]
    pub fn cgroup_ids(&self) -> BTreeSet<u64> {
        let mut ids = BTreeSet::new();
        for found in self.all().into_values() {
            ids.insert(found.id);
            ids.extend(workload::ids_below(&found.folder));
        }
        ids
    }

    /// Any that is there.
    #[must_use]
    pub fn any(&self) -> Option<Found> {
        self.now().found.values().next().cloned()
    }

    fn now(&self) -> std::sync::RwLockReadGuard<'_, Now> {
        self.now.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn no_workload(agent: &AgentName, why: &str) -> String {
    format!("agent {agent} has no workload, so no window opens for it: {why}")
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

#[cfg(test)]
mod tests;
