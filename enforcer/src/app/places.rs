//! The cgroups that a daemon starts with: its own, which it enters, and its agents'. Attaches nothing.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use enforcer_proto::wire::Enforce;
use tokio::sync::watch;

use super::protect::Protected;
use super::{probes, uplinks};
use crate::config::{self, Config};
use crate::runtimes::Answer;
use crate::workload;
use crate::workloads::Workloads;

/// The cgroups: found, made and entered.
pub(super) struct Places {
    pub(super) root: PathBuf,
    pub(super) daemon: PathBuf,
    pub(super) workloads: Arc<Workloads>,
}

impl Places {
    /// `told`: what container runtimes said.
    pub(super) fn prepare(config: &Config, told: &[Answer]) -> Result<Self> {
        let mount = workload::find_mount()?;
        let root = config.cgroup_root.clone().unwrap_or_else(|| mount.clone());
        ensure!(
            root.starts_with(&mount),
            "kernel.cgroup_root {} is not below the cgroup v2 mount {}",
            root.display(),
            mount.display()
        );
        let daemon = root.join(&config.daemon_cgroup);
        workload::make(&daemon)
            .with_context(|| format!("making the daemon's cgroup {}", daemon.display()))?;
        let workloads = Workloads::new(mount, root.clone(), daemon.clone(), &config.agents);
        if let Some(problem) = workloads.daemon_problem()? {
            bail!("{problem}: name another as `kernel.daemon_cgroup`");
        }
        // A service manager may have put this process there already.
        let mut others = workload::processes(&daemon)?;
        others.retain(|pid| *pid != std::process::id());
        if !others.is_empty() {
            bail!(
                "processes {others:?} are in the daemon's own cgroup {}, which is its alone: stop the other enforcer, or move them out",
                daemon.display()
            );
        }
        workload::move_into(&daemon, std::process::id())
            .with_context(|| format!("moving into {}", daemon.display()))?;
        workloads.make().context("making the agents' cgroups")?;
        // A cgroup that is named by its path is there from the start, so what is wrong with it is wrong with the configuration.
        if let (true, Some(problem)) = (are_fixed(config), workloads.look().problems.first()) {
            bail!("{problem}");
        }
        // A runtime that does not say what such a cgroup's containers are called keeps nobody out of it.
        workloads.tell(told);
        let looked = workloads.look();
        workloads.set(looked.found, looked.closed);
        Ok(Self {
            root,
            daemon,
            workloads: Arc::new(workloads),
        })
    }

    pub(super) fn looked_at(
        &self,
        config: &Config,
        uplinks: watch::Receiver<uplinks::Guarded>,
        endpoints: watch::Receiver<Protected>,
    ) -> probes::Host {
        probes::Host {
            root: match config.enforce {
                Enforce::Host => Some(self.root.clone()),
                Enforce::Agents => None,
            },
            daemon: self.daemon.clone(),
            uplinks,
            endpoints,
            turn: Arc::default(),
            workloads: Arc::clone(&self.workloads),
            probing: Arc::default(),
        }
    }
}

/// Whether every workload is a cgroup named by its path.
fn are_fixed(config: &Config) -> bool {
    config.agents.iter().all(|agent| match agent.workload {
        config::Workload::Cgroup(_) => true,
        config::Workload::CgroupLike(_)
        | config::Workload::Unit(_)
        | config::Workload::UnitLike(_)
        | config::Workload::User(_)
        | config::Workload::Container(_)
        | config::Workload::Pod(_)
        | config::Workload::ContainerName(_)
        | config::Workload::ContainerLabel(_) => false,
    })
}
