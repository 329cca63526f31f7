//! `[runtimes]`: the container runtimes that are asked which containers run, and by what an agent's container is told from others. Asks nobody.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Agent, Workload};

/// The most runtimes that one host may name.
pub const RUNTIMES_MAX: usize = 8;
/// The longest name of a container's, bytes.
const NAME_BYTES_MAX: usize = 255;
/// The longest label, `key=value`, bytes.
const LABEL_BYTES_MAX: usize = 1024;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RuntimesFile {
    sockets: Vec<PathBuf>,
}

impl RuntimesFile {
    /// The sockets, each once; some where an agent's container is known to runtimes alone.
    pub(super) fn resolve(self, agents: &[Agent]) -> Result<Vec<PathBuf>, String> {
        let sockets = self.sockets;
        if sockets.len() > RUNTIMES_MAX {
            return Err(format!(
                "`runtimes.sockets` may name {RUNTIMES_MAX} sockets, not {}",
                sockets.len()
            ));
        }
        let mut seen: BTreeSet<&Path> = BTreeSet::new();
        for socket in &sockets {
            let shown = socket.display();
            if !socket.is_absolute() {
                return Err(format!(
                    "`runtimes.sockets` must hold absolute paths, not `{shown}`"
                ));
            }
            if !seen.insert(socket) {
                return Err(format!("`runtimes.sockets` names {shown} twice"));
            }
        }
        let known_by_runtime = agents.iter().find(|agent| agent.workload.is_told());
        match known_by_runtime {
            Some(agent) if sockets.is_empty() => Err(format!(
                "agent {}: `container_name` and `container_label` are known to container runtimes alone: name their sockets, `[runtimes]` with sockets = [\"/run/podman/podman.sock\"]",
                agent.name
            )),
            Some(_) | None => Ok(sockets),
        }
    }
}

impl Workload {
    /// Whether it is found by what a container runtime tells.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        match self {
            Self::ContainerName(_) | Self::ContainerLabel(_) => true,
            Self::Cgroup(_)
            | Self::CgroupLike(_)
            | Self::Unit(_)
            | Self::UnitLike(_)
            | Self::User(_)
            | Self::Container(_)
            | Self::Pod(_) => false,
        }
    }
}

/// What is wrong with the name of a container.
pub(super) fn wrong_name(name: &str) -> Option<&'static str> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let begins = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let is_name = begins && name.len() <= NAME_BYTES_MAX && name.bytes().all(good);
    (!is_name).then_some(
        "`container_name` is the name of a container as `podman ps` or `docker ps` shows it",
    )
}

/// What is wrong with a label.
pub(super) fn wrong_label(label: &str) -> Option<&'static str> {
    let is_label = label
        .split_once('=')
        .is_some_and(|(key, _)| !key.is_empty())
        && label.len() <= LABEL_BYTES_MAX
        && !label.chars().any(char::is_control);
    (!is_label).then_some("`container_label` is a label and its value, such as role=finance-bot")
}
