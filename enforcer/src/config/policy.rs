//! The policy file as written, resolved into numbers: users and groups by the host's own name service, bytes by unit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use enforcer_proto::audit::sha256_hex;
use enforcer_proto::bucket::BucketRef;
use enforcer_proto::ledger::BILLED_PER_TABLE_MIN;
use enforcer_proto::policy::{
    Alone, ApproverSet, BREAK_GLASS_TTL_CEILING, BreakGlass, Budget, DUTY_PERCENT_CEILING, Limits,
    PENDING_TTL_S_MAX, Policy, QUORUM_MAX, Quorum, REQUESTS_PER_HOUR_CEILING, Rule, Signer,
    WAIT_S_MAX,
};
use enforcer_proto::principal::AgentName;
use enforcer_proto::scope::{Access, DatasetPattern, SCOPE_DATASETS_MAX};
use enforcer_proto::time::Ttl;
use serde::Deserialize;

use super::schedule::{ScheduleFile, parse_seconds};
use super::{AGENTS_MAX, ConfigError, malformed, parse, read};
use crate::signature;

/// The most rules a policy may have.
const RULES_MAX: usize = 1000;
/// The most keys of signers it may name.
const SIGNERS_MAX: usize = 1000;
/// What a rule allows that names no budget: 10 GB and 200 queries, one query all of it, 20 jobs at once, and 1 GB of rows.
const DEFAULT_BYTES: u64 = 10_000_000_000;
const DEFAULT_QUERIES: u64 = 200;
const DEFAULT_JOBS_AT_ONCE: u64 = 20;
const DEFAULT_RETURNED_BYTES: u64 = 1_000_000_000;
/// The most jobs at once that a rule may allow: as many are cancelled at once when a window closes.
const JOBS_AT_ONCE_CEILING: u64 = 200;
/// The largest query budget: a window keeps its jobs in memory.
const QUERIES_CEILING: u64 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "rule")]
    rules: Vec<RuleFile>,
    #[serde(default, rename = "signer")]
    signers: Vec<SignerFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignerFile {
    user: NameOrId,
    /// Lines as in `authorized_keys`.
    keys: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleFile {
    agents: BTreeSet<AgentName>,
    #[serde(default)]
    datasets: Vec<DatasetPattern>,
    #[serde(default)]
    writable: Vec<DatasetPattern>,
    #[serde(default)]
    ddl: Vec<DatasetPattern>,
    #[serde(default)]
    buckets: BTreeSet<BucketRef>,
    #[serde(default)]
    writable_buckets: BTreeSet<BucketRef>,
    #[serde(default = "default_ttl")]
    ttl_max: Ttl,
    bytes_max: Option<String>,
    query_bytes_max: Option<String>,
    returned_bytes_max: Option<String>,
    queries_max: Option<u64>,
    jobs_at_once_max: Option<u64>,
    datasets_max: Option<u64>,
    #[serde(default)]
    approvers: Approvers,
    #[serde(default)]
    signed: bool,
    #[serde(default)]
    auto_approve: AutoApprove,
    break_glass: Option<BreakGlassFile>,
    pending_ttl: Option<String>,
    cooldown: Option<String>,
    backoff: Option<String>,
    requests_per_hour: Option<u64>,
    windows_at_once: Option<u64>,
    duty_cycle_percent: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Approvers {
    users: Vec<NameOrId>,
    groups: Vec<NameOrId>,
    /// How many different people.
    count: Option<u64>,
    /// Groups of each of which one must be among them.
    each_group: Vec<NameOrId>,
}

/// `false`, `true`, or when.
#[derive(Deserialize)]
#[serde(untagged)]
enum AutoApprove {
    At(bool),
    During(ScheduleFile),
}

impl Default for AutoApprove {
    fn default() -> Self {
        Self::At(false)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakGlassFile {
    #[serde(default)]
    users: Vec<NameOrId>,
    #[serde(default)]
    groups: Vec<NameOrId>,
    #[serde(default = "default_ttl")]
    ttl_max: Ttl,
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

/// Reads and checks the policy at `path`, in which only `agents` may be named, where they are known, each with the uids of its own.
///
/// # Errors
/// [`ConfigError`], naming the rule and what to correct.
pub fn load_policy(
    path: &Path,
    agents: Option<&BTreeMap<AgentName, BTreeSet<u32>>>,
) -> Result<Policy, ConfigError> {
    policy_of_text(path, &read(path)?, agents)
}

/// The same for a text that was read already; `path` is what faults name.
///
/// # Errors
/// [`ConfigError`], naming the rule and what to correct.
pub fn policy_of_text(
    path: &Path,
    text: &str,
    agents: Option<&BTreeMap<AgentName, BTreeSet<u32>>>,
) -> Result<Policy, ConfigError> {
    let file: File = parse(path, text)?;
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
    let rules: Vec<Rule> = file
        .rules
        .into_iter()
        .enumerate()
        .map(resolve)
        .collect::<Result<_, _>>()?;
    let signers = signers(file.signers).map_err(|why| malformed(path, why))?;
    if rules.iter().any(|rule| rule.must_sign) && signers.is_empty() {
        let why = "a rule asks for signatures (`signed`), and no [[signer]] may sign".to_owned();
        return Err(malformed(path, why));
    }
    Ok(Policy {
        rules,
        signers,
        own_uids: agents.cloned().unwrap_or_default(),
        digest: sha256_hex(text.as_bytes()),
    })
}

fn signers(files: Vec<SignerFile>) -> Result<Vec<Signer>, String> {
    let mut signers: Vec<Signer> = Vec::new();
    for SignerFile { user, keys } in files {
        let uid = user_id(user)?;
        for line in keys {
            let (key, fingerprint) = signature::key(&line)?;
            let is_anothers = |other: &Signer| other.uid != uid && other.fingerprint == fingerprint;
            if let Some(other) = signers.iter().find(|other| is_anothers(other)) {
                return Err(format!(
                    "the key {fingerprint} is named for uid {} and for uid {uid}: whoever holds it would count as both",
                    other.uid
                ));
            }
            signers.push(Signer {
                uid,
                key,
                fingerprint,
            });
        }
    }
    if signers.len() > SIGNERS_MAX {
        return Err(format!(
            "it names {} keys of signers; {SIGNERS_MAX} is the most",
            signers.len()
        ));
    }
    Ok(signers)
}

impl RuleFile {
    fn resolve(self, agents: Option<&BTreeMap<AgentName, BTreeSet<u32>>>) -> Result<Rule, String> {
        let is_unknown = |name: &&AgentName| agents.is_some_and(|known| !known.contains_key(*name));
        let unknown = self.agents.iter().find(is_unknown);
        if let Some(unknown) = unknown {
            return Err(format!("agent `{unknown}` is not configured"));
        }
        if self.agents.is_empty()
            || [&self.datasets, &self.writable, &self.ddl]
                .into_iter()
                .all(Vec::is_empty)
        {
            return Err("it names no agent or no dataset".into());
        }
        let budget = self.budget()?;
        let of = |buckets: BTreeSet<BucketRef>, access| {
            buckets.into_iter().map(move |bucket| (bucket, access))
        };
        let limits = self.limits()?;
        let (approvers, quorum) = self.approvers.resolve()?;
        let alone = match self.auto_approve {
            AutoApprove::At(false) => Alone::Never,
            AutoApprove::At(true) => Alone::Always,
            AutoApprove::During(schedule) => Alone::During(schedule.resolve()?),
        };
        if approvers.is_empty() && alone == Alone::Never {
            return Err(
                "nobody could ever approve: name `approvers`, or set `auto_approve = true`".into(),
            );
        }
        Ok(Rule {
            agents: self.agents,
            datasets: self.datasets,
            writable: self.writable,
            ddl: self.ddl,
            buckets: of(self.buckets, Access::Read)
                .chain(of(self.writable_buckets, Access::Write))
                .collect(),
            ttl_max: self.ttl_max,
            budget,
            approvers,
            quorum,
            must_sign: self.signed,
            alone,
            break_glass: self.break_glass.map(BreakGlassFile::resolve).transpose()?,
            limits,
        })
    }

    fn limits(&self) -> Result<Limits, String> {
        let seconds = |name: &str, text: &Option<String>, absent: u64, least: u64, most: u64| {
            let Some(text) = text else {
                return Ok(absent);
            };
            match parse_seconds(text) {
                Some(value) if (least..=most).contains(&value) => Ok(value),
                Some(_) | None => Err(format!(
                    "`{name}` must be a duration between {least}s and {}h, such as 90s, 15m or 1h, not `{text}`",
                    most / 3600
                )),
            }
        };
        let tight = Limits::TIGHT;
        let count = |name: &str, value: Option<u64>, absent: usize, most: usize| {
            let count = within(name, value, absent as u64, most as u64)?;
            usize::try_from(count).map_err(|_| format!("`{name}` is too large"))
        };
        let small = |name: &str, value: Option<u64>, absent: u32, most: u32| {
            let value = within(name, value, absent.into(), most.into())?;
            u32::try_from(value).map_err(|_| format!("`{name}` is too large"))
        };
        Ok(Limits {
            datasets_max: count(
                "datasets_max",
                self.datasets_max,
                tight.datasets_max,
                SCOPE_DATASETS_MAX,
            )?,
            pending_ttl_s: seconds(
                "pending_ttl",
                &self.pending_ttl,
                tight.pending_ttl_s,
                1,
                PENDING_TTL_S_MAX,
            )?,
            cooldown_s: seconds("cooldown", &self.cooldown, tight.cooldown_s, 0, WAIT_S_MAX)?,
            backoff_s: seconds("backoff", &self.backoff, tight.backoff_s, 0, WAIT_S_MAX)?,
            requests_per_hour_max: small(
                "requests_per_hour",
                self.requests_per_hour,
                tight.requests_per_hour_max,
                REQUESTS_PER_HOUR_CEILING,
            )?,
            windows_at_once_max: count(
                "windows_at_once",
                self.windows_at_once,
                tight.windows_at_once_max,
                AGENTS_MAX,
            )?,
            duty_percent_max: small(
                "duty_cycle_percent",
                self.duty_cycle_percent,
                tight.duty_percent_max,
                DUTY_PERCENT_CEILING,
            )?,
        })
    }
}

impl Approvers {
    fn resolve(self) -> Result<(ApproverSet, Quorum), String> {
        let each_group = group_ids(self.each_group)?;
        let mut who = approver_set(self.users, self.groups)?;
        // Who speaks for a group may decide.
        who.gids.extend(&each_group);
        let least = each_group.len().max(1) as u64;
        let count = self.count.unwrap_or(least);
        if !(least..=u64::from(QUORUM_MAX)).contains(&count) {
            return Err(format!(
                "`approvers.count` must lie between {least} and {QUORUM_MAX}, not {count}: one for each of `each_group` at least"
            ));
        }
        if who.gids.is_empty() && (who.uids.len() as u64) < count && !who.uids.is_empty() {
            return Err(format!(
                "{count} people must agree, and only {} may",
                who.uids.len()
            ));
        }
        let count = u32::try_from(count).map_err(|_| "`approvers.count` is too large")?;
        Ok((who, Quorum { count, each_group }))
    }
}

impl BreakGlassFile {
    fn resolve(self) -> Result<BreakGlass, String> {
        let who = approver_set(self.users, self.groups)?;
        if who.is_empty() {
            return Err("`break_glass` names nobody who may".into());
        }
        if self.ttl_max.seconds() > BREAK_GLASS_TTL_CEILING {
            return Err(format!(
                "`break_glass.ttl_max` must not be longer than {} min, not {}: what is opened in an emergency is short",
                BREAK_GLASS_TTL_CEILING / 60,
                self.ttl_max
            ));
        }
        Ok(BreakGlass {
            who,
            ttl_max: self.ttl_max,
        })
    }
}

fn approver_set(users: Vec<NameOrId>, groups: Vec<NameOrId>) -> Result<ApproverSet, String> {
    Ok(ApproverSet {
        uids: users.into_iter().map(user_id).collect::<Result<_, _>>()?,
        gids: group_ids(groups)?,
    })
}

fn group_ids(groups: Vec<NameOrId>) -> Result<BTreeSet<u32>, String> {
    groups.into_iter().map(group_id).collect()
}

impl RuleFile {
    fn budget(&self) -> Result<Budget, String> {
        let bytes = |text: &Option<String>, absent: u64| {
            text.as_ref().map_or(Ok(absent), |text| parse_bytes(text))
        };
        let bytes_max = bytes(&self.bytes_max, DEFAULT_BYTES)?;
        let query_bytes_max = bytes(&self.query_bytes_max, bytes_max)?;
        if query_bytes_max < BILLED_PER_TABLE_MIN.min(bytes_max) {
            return Err(format!(
                "`query_bytes_max` is less than the {BILLED_PER_TABLE_MIN} bytes that BigQuery bills for any query: none could run"
            ));
        }
        Ok(Budget {
            bytes_max,
            query_bytes_max,
            returned_bytes_max: bytes(&self.returned_bytes_max, DEFAULT_RETURNED_BYTES)?,
            queries_max: within(
                "queries_max",
                self.queries_max,
                DEFAULT_QUERIES,
                QUERIES_CEILING,
            )?,
            jobs_at_once_max: within(
                "jobs_at_once_max",
                self.jobs_at_once_max,
                DEFAULT_JOBS_AT_ONCE,
                JOBS_AT_ONCE_CEILING,
            )?,
        })
    }
}

fn within(name: &str, value: Option<u64>, absent: u64, most: u64) -> Result<u64, String> {
    match value.unwrap_or(absent) {
        value if (1..=most).contains(&value) => Ok(value),
        value => Err(format!(
            "`{name}` must lie between 1 and {most}, not {value}"
        )),
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
