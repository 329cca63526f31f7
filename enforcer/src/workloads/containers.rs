//! Agents' containers that runtimes tell of, among the workloads: what was told becomes cgroups that are looked for by their ids. Speaks to no runtime.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use enforcer_proto::principal::{AgentName, ContainerOrigin};

use super::called::{container_at, container_ids};
use super::find::{Sought, find_beside};
use super::told::{Meant, Seen, Told, short};
use super::unknown::Containers;
use super::{Workloads, no_workload};
use crate::config::Workload;
use crate::runtimes::{Answer, Container};
use crate::workload;

impl Workloads {
    /// Where each agent's workload is, in their order. One that runtimes tell of is looked for by the ids that they said.
    pub(super) fn seek(&self, told: &Told) -> Vec<Sought> {
        let ids = |meant: &Meant| {
            let ids = meant.containers.iter();
            ids.map(|seen| Workload::Container(seen.id.clone()))
                .collect::<Vec<_>>()
        };
        let wanted: Vec<Vec<Workload>> = self
            .agents
            .iter()
            .map(|(agent, workload, _)| {
                if workload.is_told() {
                    ids(told.of(agent))
                } else {
                    vec![workload.clone()]
                }
            })
            .collect();
        let all: Vec<&Workload> = wanted.iter().flatten().collect();
        let is_told = self
            .agents
            .iter()
            .any(|(_, workload, _)| workload.is_told());
        let mut containers = is_told.then(Containers::default);
        let mut found = find_beside(&self.root, &all, &mut containers).into_iter();
        if let Some(containers) = containers {
            let ids = containers.into_ids();
            self.unknown
                .see(ids.filter(|id| told.container(id).is_none()));
        }
        let sought = self.agents.iter().zip(&wanted);
        let sought = sought.map(|((agent, workload, _), wanted)| {
            let mut found: Vec<Sought> = found.by_ref().take(wanted.len()).collect();
            if workload.is_told() {
                self.of_told(agent, told.of(agent), found)
            } else {
                found.pop().unwrap_or(Sought::Absent)
            }
        });
        sought.collect()
    }

    /// Where an agent's container is, of which runtimes told, and what was found of those that it may be.
    fn of_told(&self, agent: &AgentName, meant: &Meant, found: Vec<Sought>) -> Sought {
        let why = match (&meant.doubt, meant.containers.as_slice()) {
            (None, [one]) if !one.is_remembered => None,
            (None, [one]) => self.why_not_remembered(agent, one, &found),
            (None, [] | [_, ..]) => None,
            (Some(why), _) => Some(why.clone()),
        };
        let Some(why) = why else {
            let mut found = found;
            return match (found.pop(), meant.is_whole) {
                (Some(found), _) => found,
                (None, true) => Sought::Absent,
                (None, false) => Sought::InDoubt {
                    any: Vec::new(),
                    is_whole: false,
                    why: "no container runtime was asked yet".to_owned(),
                },
            };
        };
        let mut doubt = (Vec::new(), meant.is_whole);
        for sought in found {
            match sought {
                Sought::Absent => {}
                Sought::At(folder) => doubt.0.push(folder),
                Sought::InDoubt { any, is_whole, .. } => {
                    doubt.0.extend(any);
                    doubt.1 &= is_whole;
                }
            }
        }
        let (any, is_whole) = doubt;
        Sought::InDoubt { any, is_whole, why }
    }

    /// Why an agent's container is not the one that a runtime which is silent now told of, if so. Its id may be another's by now: its cgroup is the one
    /// that it was, or it has gone, and a new one in its place is not known.
    fn why_not_remembered(
        &self,
        agent: &AgentName,
        one: &Seen,
        found: &[Sought],
    ) -> Option<String> {
        match found {
            [Sought::At(folder)] => {
                let known = self.of(agent).map(|known| known.id);
                let is_same = workload::cgroup_id(folder).is_ok_and(|id| known == Some(id));
                (!is_same).then(|| {
                    "its container's cgroup is not the one that it was when a runtime told of it last, and none tells of it now".to_owned()
                })
            }
            [Sought::Absent] => Some(format!(
                "its container {} has gone, and whether another is called so now is not known while {} does not say which run",
                short(&one.id),
                one.socket.display()
            )),
            // Said for what it is.
            [] | [Sought::InDoubt { .. }] | [_, _, ..] => None,
        }
    }

    /// Takes what runtimes said for what is known of containers, from the next look on.
    pub fn tell(&self, answers: &[Answer]) {
        let agents = self.agents.iter();
        let agents = agents.map(|(agent, workload, _)| (agent, workload));
        let before = self.told();
        let after = Arc::new(before.after(answers, agents));
        let is_news = !after.means_the_same(&before);
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = after;
        if is_news {
            self.told_more.notify_one();
        }
    }

    /// Ends when runtimes have said another thing of an agent's container than before: for the one who looks.
    pub async fn told_more(&self) {
        self.told_more.notified().await;
    }

    /// Ends when a look has seen a container of which no runtime has told: for the one who asks them.
    pub async fn unknown(&self) {
        self.unknown.come().await;
    }

    /// What was told last. A look that takes long holds up nobody who is told more.
    pub(super) fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The container that a process is in: as a runtime said last, or by the beginning of its id where none tells of it (containerd, CRI-O). None
    /// where it is in none, and where others than root could have called its cgroup so.
    ///
    /// # Errors
    /// When the process is gone, or what is asked cannot be read.
    pub fn container_of(&self, pid: u32) -> io::Result<Option<ContainerOrigin>> {
        let cgroup = workload::cgroup_of(pid)?;
        let Some((container, id)) = container_at(&cgroup) else {
            return Ok(None);
        };
        // One that was put into its cgroup from outside sees the host's files, and is not in it.
        if workload::is_among_our_files(pid)? || !self.is_made_by_root(container)? {
            return Ok(None);
        }
        let told = self.told();
        let untold = || Container {
            id: id.to_owned(),
            names: Vec::new(),
            labels: BTreeMap::new(),
            image: None,
        };
        let known = told.container(id).cloned().unwrap_or_else(untold);
        Ok(Some(known.origin()))
    }

    /// Whether root alone could make a cgroup there: all that is above it is root's. Itself it may be its container's, where that has a user namespace.
    pub(super) fn is_made_by_root(&self, cgroup: &Path) -> io::Result<bool> {
        let folder = self.mount.join(cgroup.strip_prefix("/").unwrap_or(cgroup));
        let above = folder.ancestors().skip(1);
        for above in above.take_while(|path| path.starts_with(&self.mount)) {
            if std::fs::metadata(above)?.uid() != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What a runtime said of the container whose cgroup an agent's is, whoever is in that.
    #[must_use]
    pub fn container(&self, agent: &AgentName) -> Option<Container> {
        let folder = self.of(agent)?.folder;
        let told = self.told();
        let mut ids = container_ids(folder.file_name()?.to_str()?);
        ids.find_map(|id| told.container(id)).cloned()
    }
}

/// What is said of an agent whose one container runs, as a runtime says, while no cgroup of it was found: not at once, since a runtime tells of a
/// container that has just ended until it knows.
pub(super) fn untraced(agent: &AgentName, told: &Told) -> Option<String> {
    let meant = told.of(agent);
    let one = match (&meant.doubt, meant.containers.as_slice()) {
        (None, [one]) if !one.is_remembered => one,
        (None | Some(_), [] | [_, ..]) => return None,
    };
    let why = format!(
        "its container {} runs, as {} says, and no cgroup that is called like it was found where runtimes make them, below folders that are root's and outside of what is itself called like a container (a folder of 64 hexadecimal digits, a pod's as well): start it anew without such a --cgroup-parent, in its runtime's own pods and with cgroups, or name its cgroup by its path (cgroup = PATH)",
        short(&one.id),
        one.socket.display()
    );
    Some(no_workload(agent, &why))
}
