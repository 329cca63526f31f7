//! `enforcer policy`: what a policy file would say to a request, and what there is to say of it. Asks no daemon, and changes nothing.
#![expect(clippy::print_stdout, reason = "this is the command line")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use enforcer_proto::policy::{ApproverSet, Ask, Covered, Policy, Rule, lint};
use enforcer_proto::principal::AgentName;
use enforcer_proto::scope::Scope;
use enforcer_proto::size;
use enforcer_proto::time::Ttl;
use jiff::Timestamp;
use serde_json::json;

use super::{EXIT_ERROR, Failure};
use crate::config::{Config, DEFAULT_PATH, load_policy};

#[derive(Subcommand, Debug)]
pub(super) enum PolicyCommand {
    /// Whether a request would be let through, by which rule, and who must decide. What depends on what the agent has asked and held lately is
    /// named, and not looked at.
    Test {
        #[command(flatten)]
        file: PolicyFile,
        /// Which agent asks.
        #[arg(long)]
        agent: AgentName,
        /// For what.
        #[arg(long)]
        scope: Scope,
        /// For how long.
        #[arg(long, default_value = "15m")]
        ttl: Ttl,
        /// With which byte budget; the rule's when absent.
        #[arg(long)]
        bytes_max: Option<u64>,
        /// With which query budget; the rule's when absent.
        #[arg(long)]
        queries_max: Option<u64>,
        /// When, such as 2026-11-26T03:00:00Z; now when absent.
        #[arg(long)]
        at: Option<Timestamp>,
    },
    /// Warn of what may not be meant: standing access that wears a timer, rules that are never asked, quorums that bind nobody.
    Lint(PolicyFile),
}

/// Which file.
#[derive(Args, Debug)]
pub(super) struct PolicyFile {
    /// The policy file. Absent: the one that the configuration names, whose agents are then the only ones it may name.
    #[arg(long)]
    policy: Option<PathBuf>,
    /// The configuration file.
    #[arg(long, default_value = DEFAULT_PATH, conflicts_with = "policy")]
    config: PathBuf,
}

impl PolicyFile {
    fn load(&self) -> Result<Policy, Failure> {
        Ok(match &self.policy {
            Some(path) => load_policy(path, None)?,
            None => Config::load(&self.config)?.load_policy()?,
        })
    }
}

pub(super) fn run(command: PolicyCommand, json: bool) -> Result<ExitCode, Failure> {
    match command {
        PolicyCommand::Test {
            file,
            agent,
            scope,
            ttl,
            bytes_max,
            queries_max,
            at,
        } => {
            let ask = Ask {
                scope,
                ttl,
                reason: "policy test".to_owned(),
                bytes_max,
                queries_max,
            };
            let at = at.unwrap_or_else(Timestamp::now);
            test(&file.load()?, &agent, &ask, at, json)?;
            Ok(ExitCode::SUCCESS)
        }
        PolicyCommand::Lint(file) => Ok(warn(&file.load()?, json)),
    }
}

fn test(
    policy: &Policy,
    agent: &AgentName,
    ask: &Ask,
    at: Timestamp,
    json: bool,
) -> Result<(), Failure> {
    let unix_ns = u64::try_from(at.as_nanosecond()).unwrap_or_default();
    let covered = policy.could_grant(agent, ask, |rule| rule.alone.opens_at(unix_ns));
    let Covered { number, rule } = covered.map_err(Failure::Refused)?;
    let opens_alone = rule.alone.opens_at(unix_ns);
    // Nobody decides with a uid of the agent's own.
    let others = |who: &ApproverSet| people(&policy.others(agent, who));
    let budget = ask.within(&rule.budget);
    let glass = rule.break_glass.as_ref();
    let glass = glass.map(|glass| json!({"people": others(&glass.who), "ttl_max": glass.ttl_max}));
    if json {
        let said = json!({
            "allowed": true, "rule": number, "digest": policy.digest, "opens_alone": opens_alone, "decided_by": rule.who_decides(),
            "approvers": rule.approvers, "count": rule.quorum.count, "each_group": rule.quorum.each_group,
            "people": others(&rule.approvers), "signed": rule.must_sign, "break_glass": glass,
            "bytes_max": budget.bytes_max, "queries_max": budget.queries_max, "limits": limits(rule),
        });
        crate::cli::say_json(&said);
        return Ok(());
    }
    println!("rule {number} covers it (policy {})", &policy.digest[..12]);
    if opens_alone {
        println!("  it opens without a person");
    } else {
        println!("  it waits for {}", rule.who_decides());
        println!("  who are {}", others(&rule.approvers).join(", "));
        if rule.must_sign {
            println!("  each of whom must sign (enforcer approve REQUEST --sign KEY)");
        }
    }
    if let Some(glass) = &rule.break_glass {
        println!(
            "  in an emergency {} may open it alone, for {} at most",
            others(&glass.who).join(", "),
            glass.ttl_max
        );
    }
    println!(
        "  {} and {} queries at most",
        size::whole(budget.bytes_max),
        budget.queries_max
    );
    println!("  unless: {}", limits(rule).join("; "));
    Ok(())
}

/// People by the names that this host knows them by.
fn people(who: &ApproverSet) -> Vec<String> {
    use nix::unistd::{Gid, Group, Uid, User};
    let users = who.uids.iter().map(|uid| {
        let known = User::from_uid(Uid::from_raw(*uid)).ok().flatten();
        let name = known.map_or_else(|| "no user of this host".to_owned(), |user| user.name);
        format!("{name} (uid {uid})")
    });
    let groups = who.gids.iter().map(|gid| {
        let known = Group::from_gid(Gid::from_raw(*gid)).ok().flatten();
        let name = known.map_or_else(|| "no group of this host".to_owned(), |group| group.name);
        format!("members of {name} (gid {gid})")
    });
    users.chain(groups).collect()
}

/// What a request is refused for that the rule covers.
fn limits(rule: &Rule) -> Vec<String> {
    let limits = &rule.limits;
    let mut said = vec![
        format!(
            "{} requests were made in the last hour",
            limits.requests_per_hour_max
        ),
        format!(
            "with this window more than {} % of the last 24 h were held",
            limits.duty_percent_max
        ),
        format!(
            "{} windows are open under the rule",
            limits.windows_at_once_max
        ),
    ];
    if limits.cooldown_s > 0 {
        said.push(format!(
            "a window ended less than {} s ago",
            limits.cooldown_s
        ));
    }
    if limits.backoff_s > 0 {
        said.push(format!(
            "a request was denied less than {} s ago, or more after several",
            limits.backoff_s
        ));
    }
    said
}

/// Prints the warnings; where there is one the exit code is 1, so that a pipeline can stop for it.
fn warn(policy: &Policy, json: bool) -> ExitCode {
    let warnings = lint(policy);
    if json {
        let said = warnings
            .iter()
            .map(|warning| json!({"rule": warning.rule, "what": warning.what}));
        crate::cli::say_json(&json!({"warnings": said.collect::<Vec<_>>()}));
    } else {
        for warning in &warnings {
            println!("rule {}: {}", warning.rule, warning.what);
        }
        if warnings.is_empty() {
            println!("nothing to warn of: {} rules", policy.rules.len());
        }
    }
    if warnings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_ERROR)
    }
}
