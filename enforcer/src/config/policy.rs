//! The policy file as written, resolved into numbers: users and groups by the host's own name service, bytes by unit.

use std::collections::BTreeSet;
use std::path::Path;

use enforcer_proto::audit::sha256_hex;
use enforcer_proto::policy::{ApproverSet, Policy, Rule};
use enforcer_proto::principal::AgentName;
use enforcer_proto::scope::DatasetPattern;
use enforcer_proto::time::Ttl;
use serde::Deserialize;

use super::{ConfigError, malformed, parse, read};

/// The most rules a policy may have.
const RULES_MAX: usize = 1000;
/// What a rule allows that names no budget: 10 GB and 200 queries.
const DEFAULT_BYTES: u64 = 10_000_000_000;
const DEFAULT_QUERIES: u64 = 200;
/// The largest query budget: a window keeps its jobs in memory.
const QUERIES_CEILING: u64 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "rule")]
    rules: Vec<RuleFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    agents: BTreeSet<AgentName>,
    datasets: Vec<DatasetPattern>,
    #[serde(default = "default_ttl")]
    ttl_max: Ttl,
    bytes_max: Option<String>,
    queries_max: Option<u64>,
    #[serde(default)]
    approvers: Approvers,
    #[serde(default)]
    auto_approve: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Approvers {
    users: Vec<NameOrId>,
    groups: Vec<NameOrId>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NameOrId {
    Id(u32),
    Name(String),
}

fn default_ttl() -> Ttl {
    // 15 minutes lie within the bounds of a ttl.
    Ttl::from_seconds(900).unwrap_or(Ttl::MAX)
}

/// Reads and checks the policy at `path`, in which only `agents` may be named.
///
/// # Errors
/// [`ConfigError`], naming the rule and what to correct.
pub fn load_policy(path: &Path, agents: &BTreeSet<AgentName>) -> Result<Policy, ConfigError> {
    let text = read(path)?;
    let file: File = parse(path, &text)?;
    if file.rules.len() > RULES_MAX {
        return Err(malformed(
            path,
            format!("it has {} rules; {RULES_MAX} is the most", file.rules.len()),
        ));
    }
    let resolve = |(at, rule): (usize, RuleFile)| {
        rule.resolve(agents)
            .map_err(|why| malformed(path, format!("rule {}: {why}", at + 1)))
    };
    let rules = file
        .rules
        .into_iter()
        .enumerate()
        .map(resolve)
        .collect::<Result<_, _>>()?;
    Ok(Policy {
        rules,
        digest: sha256_hex(text.as_bytes()),
    })
}

impl RuleFile {
    fn resolve(self, agents: &BTreeSet<AgentName>) -> Result<Rule, String> {
        if let Some(unknown) = self.agents.difference(agents).next() {
            return Err(format!("agent `{unknown}` is not configured"));
        }
        if self.agents.is_empty() || self.datasets.is_empty() {
            return Err("it names no agent or no dataset".into());
        }
        let approvers = ApproverSet {
            uids: self
                .approvers
                .users
                .into_iter()
                .map(user_id)
                .collect::<Result<_, _>>()?,
            gids: self
                .approvers
                .groups
                .into_iter()
                .map(group_id)
                .collect::<Result<_, _>>()?,
        };
        if approvers == ApproverSet::default() && !self.auto_approve {
            return Err(
                "nobody could ever approve: name `approvers`, or set `auto_approve = true`".into(),
            );
        }
        let queries_max = self.queries_max.unwrap_or(DEFAULT_QUERIES);
        if !(1..=QUERIES_CEILING).contains(&queries_max) {
            return Err(format!(
                "`queries_max` must lie between 1 and {QUERIES_CEILING}, not {queries_max}"
            ));
        }
        Ok(Rule {
            agents: self.agents,
            datasets: self.datasets,
            ttl_max: self.ttl_max,
            bytes_max: self
                .bytes_max
                .map_or(Ok(DEFAULT_BYTES), |text| parse_bytes(&text))?,
            queries_max,
            approvers,
            auto_approve: self.auto_approve,
        })
    }
}

fn user_id(user: NameOrId) -> Result<u32, String> {
    match user {
        NameOrId::Id(id) => Ok(id),
        NameOrId::Name(name) => match nix::unistd::User::from_name(&name) {
            Ok(Some(user)) => Ok(user.uid.as_raw()),
            Ok(None) => Err(format!("user `{name}` does not exist on this host")),
            Err(error) => Err(format!("user `{name}` could not be looked up: {error}")),
        },
    }
}

fn group_id(group: NameOrId) -> Result<u32, String> {
    match group {
        NameOrId::Id(id) => Ok(id),
        NameOrId::Name(name) => match nix::unistd::Group::from_name(&name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            Ok(None) => Err(format!("group `{name}` does not exist on this host")),
            Err(error) => Err(format!("group `{name}` could not be looked up: {error}")),
        },
    }
}

/// Bytes with a decimal unit, as BigQuery bills them: `500MB`, `10GB`, `1TB`.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number of bytes: write it as 500MB, 10GB or 1TB");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "B" | "" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count
        .checked_mul(unit)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(wrong)
}
