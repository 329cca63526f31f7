//! `enforcer check`: whether the daemon could be started with these files on this host. Changes nothing.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line"
)]

use enforcer_proto::text::safe_json;
use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use enforcer_proto::policy::lint;

use super::Failure;
use crate::abilities;
use enforcer_proto::policy::Policy;

use crate::config::{Config, Format, Hook, KeyStore, Send};
use crate::kernel::why_no_hooks;
use crate::runtimes::{Answer, Wanted, ask_all};
use crate::subordinate::Subordinate;
use crate::workload;
use crate::workloads::{Looked, Workloads};

/// Checks the files, and what of the host they speak of: the kernel, and the agents that run.
pub(super) fn check(path: &Path, json: bool) -> Result<(), Failure> {
    let config = Config::load(path)?;
    let policy = config.load_policy()?;
    for agent in &config.agents {
        for uid in agent.own_uids() {
            for warning in who_decides(&policy, uid, &groups_of(uid)) {
                eprintln!(
                    "enforcer: warning: uid {uid} of agent {} {warning}",
                    agent.name
                );
            }
        }
    }
    for warning in lint(&policy) {
        eprintln!(
            "enforcer: warning: policy rule {}: {}",
            warning.rule, warning.what
        );
    }
    host(&config)?;
    crate::notify::check(&config.hooks)?;
    match config.token.keys() {
        // What is handed over is handed to the daemon, and not to here.
        KeyStore::File | KeyStore::Credential(_) => {}
        KeyStore::Hsm(hsm) => {
            crate::token::check_hsm(hsm).context("looking at token.signer")?;
        }
    }
    warn_of_hooks(&config.hooks, &policy);
    if json {
        println!(
            "{}",
            safe_json(
                &serde_json::to_string_pretty(&config).context("printing the configuration")?
            )
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
    println!("  {}", config.shared_prefixes_said());
    match config.token.keys() {
        KeyStore::File => {}
        KeyStore::Credential(name) => println!(
            "  the issuer's key: the credential {name} of the daemon's unit; not looked at here"
        ),
        KeyStore::Hsm(hsm) => println!(
            "  the issuer's key: {hsm}, by {}; not logged in to here",
            hsm.module.display()
        ),
    }
    for agent in &config.agents {
        let uid = agent
            .uid
            .map_or_else(|| "any uid".to_owned(), |uid| format!("uid {uid}"));
        println!("  agent {}: {}, {uid}", agent.name, agent.workload);
    }
    for hook in &config.hooks {
        let how = match &hook.send {
            Send::Command(command) => {
                format!("runs {} as uid {}", command.words.join(" "), command.user)
            }
            Send::Webhook(webhook) => format!("posts to {}", webhook.host()),
        };
        println!("  notify {}: {how}", hook.name);
    }
    say_rules(&policy);
    Ok(())
}

fn say_rules(policy: &Policy) {
    for (at, rule) in policy.rules.iter().enumerate() {
        let read = rule
            .datasets
            .iter()
            .map(|pattern| format!("{pattern}:read"));
        let written = rule
            .writable
            .iter()
            .map(|pattern| format!("{pattern}:write"));
        let defined = rule.ddl.iter().map(|pattern| format!("{pattern}:ddl"));
        let datasets: Vec<String> = read.chain(written).chain(defined).collect();
        println!(
            "  rule {}: {} for up to {}, decided by: {}",
            at + 1,
            datasets.join(", "),
            rule.ttl_max,
            rule.who_decides()
        );
    }
}

/// Where the policy lets an agent's uid decide: for other agents it can.
fn who_decides(policy: &Policy, uid: u32, gids: &BTreeSet<u32>) -> Vec<String> {
    let mut said = Vec::new();
    for (at, rule) in policy.rules.iter().enumerate() {
        let glass = rule.break_glass.as_ref().map(|glass| &glass.who);
        let lists = [("approvers", Some(&rule.approvers)), ("break_glass", glass)];
        for (list, who) in lists {
            if who.is_some_and(|who| who.name(uid, gids)) {
                said.push(format!(
                    "is among the `{list}` of policy rule {}: what is asked for that agent it cannot decide on, whoever asks, and what is asked for others it can. Name people who are no agent",
                    at + 1
                ));
            }
        }
    }
    said
}

/// The groups of a uid, as this host knows them; of a uid that it does not know, the group of the same number.
fn groups_of(uid: u32) -> BTreeSet<u32> {
    let known = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)).ok();
    let Some(user) = known.flatten() else {
        return [uid].into();
    };
    let mut gids: BTreeSet<u32> = [user.gid.as_raw()].into();
    if let Ok(name) = std::ffi::CString::new(user.name)
        && let Ok(groups) = nix::unistd::getgrouplist(&name, user.gid)
    {
        gids.extend(groups.iter().map(|gid| gid.as_raw()));
    }
    gids
}

/// Hooks that do more, or less, than meets the eye.
fn warn_of_hooks(hooks: &[Hook], policy: &Policy) {
    for hook in hooks {
        let warning = match &hook.send {
            Send::Command(command) => {
                let mut rules = policy.rules.iter();
                let decides = rules.any(|rule| {
                    let who = &rule.approvers;
                    who.uids.contains(&command.user) || who.gids.contains(&command.group)
                });
                decides.then(|| {
                    let user = command.user;
                    format!("its command runs as uid {user}, which the policy lets decide: it could approve what it is told of")
                })
            }
            Send::Webhook(webhook) => match (hook.format, &webhook.key) {
                (Format::Json, None) => {
                    Some("it has no key, so that its receiver cannot tell who sends".to_owned())
                }
                (Format::Json, Some(_)) | (Format::Slack, _) => None,
            },
        };
        if let Some(warning) = warning {
            eprintln!("enforcer: warning: notify {}: {warning}", hook.name);
        }
    }
}

/// What is wrong with this host: with the workloads that are there, and what runs in them.
fn host(config: &Config) -> Result<(), Failure> {
    if let Some(why) = why_no_hooks() {
        eprintln!(
            "enforcer: note: no programs at the kernel's security hooks (BPF LSM): {why}. Without them agents must not be root, and hold no capability but {}; start them by `enforcer run`, or with what SECURITY.md names for a unit, or they make sockets that no program sees; and give each a uid that nothing else has, or what has it may look into their processes",
            abilities::harmless()
        );
    }
    let mount = workload::find_mount().context("looking for the cgroups")?;
    let root = config.cgroup_root.clone().unwrap_or_else(|| mount.clone());
    let daemon = root.join(&config.daemon_cgroup);
    let workloads = Workloads::new(mount, root, daemon, &config.agents);
    workloads.tell(&told(config)?);
    let Looked {
        found,
        mut problems,
        closed: _,
        is_partial: _,
        // One look does not show whether it lasts.
        passing: _,
    } = workloads.look();
    // Where it is not there yet, the daemon makes it.
    problems.extend(workloads.daemon_problem().ok().flatten());
    let running = found.iter();
    let running = running.map(|(agent, found)| (agent, found.folder.as_path()));
    problems.extend(abilities::problems(running));
    let mut subordinate = Subordinate::new(config);
    problems.extend(subordinate.look().problems.iter().cloned());
    if problems.is_empty() {
        return Ok(());
    }
    Err(anyhow::anyhow!("{}", problems.join("; ")).into())
}

/// What the container runtimes say that the configuration names.
fn told(config: &Config) -> Result<Vec<Answer>, Failure> {
    if config.runtimes.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = Wanted::of(&config.agents);
    Ok(super::ask::runtime()?.block_on(ask_all(&config.runtimes, &wanted)))
}
