//! `enforcer check`: whether the daemon could be started with these files on this host. Changes nothing.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line"
)]

use std::path::Path;

use anyhow::Context;

use super::Failure;
use crate::abilities;
use crate::config::Config;
use crate::kernel::why_no_hooks;
use crate::workload;
use crate::workloads::{Looked, Workloads};

/// Checks the files, and what of the host they speak of: the kernel, and the agents that run.
pub(super) fn check(path: &Path, json: bool) -> Result<(), Failure> {
    let config = Config::load(path)?;
    let policy = config.load_policy()?;
    for agent in &config.agents {
        let decides = |uid: u32| {
            policy
                .rules
                .iter()
                .any(|rule| rule.approvers.uids.contains(&uid))
        };
        if let Some(uid) = agent.uid.filter(|uid| decides(*uid)) {
            eprintln!(
                "enforcer: warning: uid {uid} of agent {} is named as an approver; what it asked for itself it cannot decide on",
                agent.name
            );
        }
    }
    host(&config)?;
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&config).context("printing the configuration")?
        );
        return Ok(());
    }
    println!(
        "{} is good: host {}, {} agents, {} policy rules",
        path.display(),
        config.host,
        config.agents.len(),
        policy.rules.len()
    );
    if let Some(warning) = config.enforce.warning() {
        println!("  NOTE: {warning}");
    }
    for agent in &config.agents {
        let uid = agent
            .uid
            .map_or_else(|| "any uid".to_owned(), |uid| format!("uid {uid}"));
        println!("  agent {}: {}, {uid}", agent.name, agent.workload);
    }
    for (at, rule) in policy.rules.iter().enumerate() {
        let datasets: Vec<String> = rule.datasets.iter().map(ToString::to_string).collect();
        let who = if rule.auto_approve {
            "opens without a person".to_owned()
        } else {
            format!(
                "uids {:?}, gids {:?} decide",
                rule.approvers.uids, rule.approvers.gids
            )
        };
        println!(
            "  rule {}: {} for up to {}, {who}",
            at + 1,
            datasets.join(", "),
            rule.ttl_max
        );
    }
    Ok(())
}

/// What is wrong with this host: with the workloads that are there, and what runs in them.
fn host(config: &Config) -> Result<(), Failure> {
    if let Some(why) = why_no_hooks() {
        eprintln!(
            "enforcer: note: no programs at the kernel's security hooks (BPF LSM): {why}. None are needed while agents hold none of {}",
            abilities::not_for_agents()
        );
    }
    let mount = workload::find_mount().context("looking for the cgroups")?;
    let root = config.cgroup_root.clone().unwrap_or_else(|| mount.clone());
    let daemon = root.join(&config.daemon_cgroup);
    let workloads = Workloads::new(mount, root, daemon, &config.agents);
    let Looked {
        found,
        mut problems,
    } = workloads.look();
    // Where it is not there yet, the daemon makes it.
    problems.extend(workloads.daemon_problem().ok().flatten());
    let too_able = found
        .iter()
        .filter_map(|(agent, found)| abilities::too_able(agent, &found.folder));
    problems.extend(too_able);
    if problems.is_empty() {
        return Ok(());
    }
    Err(anyhow::anyhow!("{}", problems.join("; ")).into())
}
