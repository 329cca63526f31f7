//! The operator's configuration: TOML, every key known, parsed once into values that cannot be wrong. Read at start, never believed twice.

mod audit;
mod estimator;
mod file;
mod hsm;
mod notify;
pub(crate) mod pattern;
mod policy;
mod prefixes;
mod program;
mod resolver;
mod runtimes;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enforcer_proto::audit::sha256_hex;
use enforcer_proto::policy::Policy;
use enforcer_proto::principal::AgentName;
use enforcer_proto::time::Ttl;
use enforcer_proto::wire::Enforce;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dns::protected::{Universe, protected_default};

pub use audit::Audit;
pub use estimator::Estimator;
pub use hsm::{Hsm, KeyStore};
pub use notify::{Format, HOOKS_MAX, Hook, KeyPlace, Send, Webhook};
pub use policy::{load_policy, policy_of_text};
pub use program::Program;
pub use resolver::{Resolver, Secured};
pub use runtimes::RUNTIMES_MAX;

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_PATH: &str = "/etc/enforcer/enforcer.toml";
/// The most agents one host may have: as many as the kernel's maps have room for, but for the place of the daemon's own questions. A configuration
/// with more is refused.
pub const AGENTS_MAX: usize = enforcer_ebpf::map::AGENTS_MAX as usize - 1;
/// The most names besides BigQuery's that one agent may be allowed.
pub const ALLOWED_NAMES_MAX: usize = 64;

/// Bits of a mode that let others than the owner write.
const BY_OTHERS: u32 = 0o022;

/// A configuration that cannot be used; the text names the file, the cause and the cure.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "cannot read {path} (--config names the configuration, its keys `policy` and `names.shared_prefixes_file` the other files)"
    )]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not the TOML it should be: a syntax error, an unknown or missing key, a value out of range.
    #[error("{path} cannot be used: {why}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Where and why.
        why: String,
    },
}

/// What a protected address answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressClass {
    /// The host's credentials are handed out there: closed to agents.
    Metadata,
    /// Only BigQuery answers there.
    Dedicated,
    /// Other Google names answer there too.
    Shared,
}

/// What an agent without a window meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenClosed {
    /// A local answer in BigQuery's own words.
    Explain,
    /// `EPERM` from `connect()`.
    Drop,
}

/// What becomes of an agent's query while it has no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenAsked {
    /// A request is made of it, and its client is held until that is decided.
    Hold,
    /// A request is made of it, and its client is told the number at once.
    Refuse,
    /// It is refused, and nobody is asked.
    #[default]
    Off,
}

/// What an agent is told of names that are not BigQuery's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhichNames {
    /// They are looked up for it.
    Forward,
    /// Only those that it is allowed are.
    Strict,
}

/// What stands in for the metadata server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// Its port on 127.0.0.1 and ::1.
    pub port: u16,
    /// The project that clients are told they are in.
    pub project: Option<String>,
    /// That project's number.
    pub project_number: Option<u64>,
    /// The domain below which clients are told that Google's services answer.
    pub universe: String,
}

/// What an agent's processes are found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// A cgroup below the cgroup root, which the daemon makes.
    Cgroup(PathBuf),
    /// The one cgroup below the cgroup root whose path is like this one: `*` is any part of a name.
    CgroupLike(PathBuf),
    /// A systemd unit, by its whole name: a service, a scope or a slice.
    Unit(String),
    /// The one unit whose name is like this one.
    UnitLike(String),
    /// Everything that runs under a login of this uid's, its own service manager included.
    User(u32),
    /// A container, by its id or the beginning of it.
    Container(String),
    /// A Kubernetes pod, by its uid.
    Pod(String),
    /// The container of this name, as a runtime says.
    ContainerName(String),
    /// The container with this label, `key=value`, as a runtime says.
    ContainerLabel(String),
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::CgroupLike(path) => write!(f, "the cgroup like {}", path.display()),
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::UnitLike(name) => write!(f, "the unit like {name}"),
            Self::User(uid) => write!(f, "everything of user {uid}"),
            Self::Container(id) => write!(f, "container {id}"),
            Self::Pod(uid) => write!(f, "pod {uid}"),
            Self::ContainerName(name) => write!(f, "the container named {name}"),
            Self::ContainerLabel(label) => write!(f, "the container labelled {label}"),
        }
    }
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// Its name.
    pub name: AgentName,
    /// Its processes.
    pub workload: Workload,
    /// The uid it must run as; absent: any.
    pub uid: Option<u32>,
    /// The files that its processes must run, absolute; empty: any.
    pub executables: Vec<PathBuf>,
    /// What it meets without a window.
    pub closed: WhenClosed,
    /// What becomes of its queries without a window.
    pub ask: WhenAsked,
    /// For how long a window is asked for them, at most.
    pub ask_ttl: Ttl,
    /// Names besides BigQuery's that it may reach on shared addresses; normalised, exact.
    pub allow: BTreeSet<String>,
    /// What it is told of names.
    pub names: WhichNames,
    /// By what its tokens are made.
    pub minter: MinterKind,
    /// The service account its tokens are for; absent: the federated identity itself.
    pub service_account: Option<String>,
    /// The project that its requests are counted against; absent: the one that Google takes by itself.
    pub quota_project: Option<String>,
}

impl Agent {
    /// The uids that its processes run as, as far as its configuration says.
    #[must_use]
    pub fn own_uids(&self) -> BTreeSet<u32> {
        let of_workload = match &self.workload {
            Workload::User(uid) => Some(*uid),
            Workload::Cgroup(_)
            | Workload::CgroupLike(_)
            | Workload::Unit(_)
            | Workload::UnitLike(_)
            | Workload::Container(_)
            | Workload::Pod(_)
            | Workload::ContainerName(_)
            | Workload::ContainerLabel(_) => None,
        };
        self.uid.into_iter().chain(of_workload).collect()
    }
}

/// By what tokens are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MinterKind {
    /// This host's own key, by STS.
    Federation,
    /// The host's base identity, by IAM Credentials.
    Impersonation,
}

/// Where a host's own identity comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseSource {
    /// A service account's key in the file that `GOOGLE_APPLICATION_CREDENTIALS` names.
    KeyFile,
    /// The application-default credentials of the user that the daemon runs as.
    ApplicationDefault,
    /// The metadata server of a machine of Google's.
    Metadata,
    /// Whoever is logged in to the Cloud SDK as that user.
    Gcloud,
}

impl std::fmt::Display for BaseSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::KeyFile => "the key file that GOOGLE_APPLICATION_CREDENTIALS names",
            Self::ApplicationDefault => "application-default credentials",
            Self::Metadata => "the machine's metadata server",
            Self::Gcloud => "gcloud's login",
        })
    }
}

/// Where upstream tokens come from, for whom nothing else is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum TokenSource {
    /// This host is an OIDC issuer: own key, per-window JWT, exchanged at STS.
    Federation {
        /// The workload identity provider's resource name.
        audience: String,
        /// The `iss` of the JWT.
        issuer: String,
        /// STS.
        sts_url: String,
        /// IAM Credentials, for agents with a service account.
        iam_url: String,
        /// What has the key.
        keys: KeyStore,
        /// The id of the project that the provider is in, of which `audience` has the number.
        project: Option<String>,
    },
    /// The host's base identity impersonates the agent's service account.
    Impersonation {
        /// IAM Credentials.
        iam_url: String,
    },
}

impl TokenSource {
    /// By what tokens are made for whom nothing else is said.
    #[must_use]
    pub const fn kind(&self) -> MinterKind {
        match self {
            Self::Federation { .. } => MinterKind::Federation,
            Self::Impersonation { .. } => MinterKind::Impersonation,
        }
    }

    /// By what they are made for somebody with this service account of whom the configuration says so.
    fn minter(
        &self,
        whose: &str,
        said: Option<MinterKind>,
        account: Option<&String>,
    ) -> Result<MinterKind, String> {
        let kind = said.unwrap_or_else(|| self.kind());
        match (kind, self, account) {
            (MinterKind::Federation, Self::Impersonation { .. }, _) => Err(format!(
                "{whose}: `token = \"federation\"` needs token.kind = \"federation\", whose `audience` and `issuer` say as whom this host is known; others may have `token = \"impersonation\"` then"
            )),
            (MinterKind::Impersonation, _, None) => Err(format!(
                "{whose}: `service_account` is needed with impersonation (`token`, or token.kind)"
            )),
            (MinterKind::Federation, Self::Federation { .. }, _)
            | (MinterKind::Impersonation, _, Some(_)) => Ok(kind),
        }
    }

    /// What has the issuer's key; where this host is no issuer, what would have it.
    #[must_use]
    pub const fn keys(&self) -> &KeyStore {
        match self {
            Self::Federation { keys, .. } => keys,
            Self::Impersonation { .. } => &KeyStore::File,
        }
    }
}

/// The whole configuration, resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The host's name in records, JWT subjects and job labels.
    pub host: String,
    /// Keys and the log; 0700.
    pub state_dir: PathBuf,
    /// The control socket and what is published to agents.
    pub run_dir: PathBuf,
    /// The policy file.
    pub policy: PathBuf,
    /// Where the programs attach; absent: the cgroup2 mount.
    pub cgroup_root: Option<PathBuf>,
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// The daemon's own cgroup, below the root.
    pub daemon_cgroup: PathBuf,
    /// On whom is enforced.
    pub enforce: Enforce,
    /// The file of subordinate uids.
    pub subuid_file: PathBuf,
    /// The domain below which Google's services answer.
    pub universe: Universe,
    /// Names whose addresses are protected; absent: the built-in list.
    pub protected: Option<Vec<String>>,
    /// Resolvers; empty: the host's.
    pub resolvers: Vec<Resolver>,
    /// The port on 127.0.0.1 and ::1 where agents' questions for names are answered.
    pub names_port: u16,
    /// Which bits of a packet's mark are the enforcer's.
    pub mark_mask: u32,
    /// What stands in for the metadata server; absent: nothing does.
    pub metadata: Option<Metadata>,
    /// Prefixes that are protected whatever DNS says.
    pub prefixes: Vec<(IpNet, AddressClass)>,
    /// How many of these are from `names.shared_prefixes_file`; absent: none is named.
    pub shared_prefixes: Option<usize>,
    /// The proxy's port on 127.0.0.1 and ::1.
    pub proxy_port: u16,
    /// Roots trusted upstream besides the system's.
    pub upstream_ca: Option<PathBuf>,
    /// How long a connection upstream may take.
    pub connect_timeout: Duration,
    /// Where tokens come from.
    pub token: TokenSource,
    /// Where the host's own identity comes from, for those whose tokens are made by it; absent: the first source that is there.
    pub base: Option<BaseSource>,
    /// As whom BigQuery is asked what queries without a window need; absent: it is not.
    pub estimator: Option<Estimator>,
    /// How the log is kept.
    pub audit: Audit,
    /// The sockets of the container runtimes that are asked which containers run.
    pub runtimes: Vec<PathBuf>,
    /// The agents.
    pub agents: Vec<Agent>,
    /// Who is told of what happens.
    pub hooks: Vec<Hook>,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`], naming what to correct.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let file: file::File = parse(path, &text)?;
        // Beside the configuration, wherever that is: the files belong together.
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let shared = file
            .shared_prefixes_file()
            .map(|name| prefixes::load(&folder.join(name)))
            .transpose()?;
        let mut config = file.resolve().map_err(|why| malformed(path, why))?;
        config.policy = folder.join(&config.policy);
        config.shared_prefixes = shared.as_ref().map(Vec::len);
        let shared = shared.into_iter().flatten();
        config
            .prefixes
            .extend(shared.map(|net| (net, AddressClass::Shared)));
        Ok(config)
    }

    /// The agents, and the uids that each runs as: no others may stand in a policy, and nobody with such a uid decides for that agent.
    #[must_use]
    pub fn known_agents(&self) -> BTreeMap<AgentName, BTreeSet<u32>> {
        let known = self.agents.iter();
        known
            .map(|agent| (agent.name.clone(), agent.own_uids()))
            .collect()
    }

    /// The uids that agents run as, and that are nobody else's: root is no agent's.
    #[must_use]
    pub fn agent_uids(&self) -> BTreeSet<u32> {
        let uids = self.agents.iter().flat_map(Agent::own_uids);
        uids.filter(|uid| *uid != 0).collect()
    }

    /// What tells it from another one: two with the same say the same.
    #[must_use]
    pub fn digest(&self) -> String {
        // What is read from TOML can be written as JSON.
        sha256_hex(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads the policy this configuration names.
    ///
    /// # Errors
    /// [`ConfigError`], naming what to correct.
    pub fn load_policy(&self) -> Result<Policy, ConfigError> {
        load_policy(&self.policy, Some(&self.known_agents()))
    }

    /// What is known of the addresses that BigQuery shares, besides those that its names have resolved to.
    #[must_use]
    pub fn shared_prefixes_said(&self) -> String {
        match self.shared_prefixes {
            Some(count) => format!("shared prefixes: {count} are protected, whatever names resolve to"),
            None => "shared prefixes: none, no file is named (`names.shared_prefixes_file`); of Google's addresses only those that a protected name has resolved to are protected, and the prefixes under [names]"
                .to_owned(),
        }
    }

    /// The log's folder.
    #[must_use]
    pub fn audit_dir(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// The cgroup, below the root, in which the programs run that the daemon starts: beside the daemon's own, which is not enforced on.
    #[must_use]
    pub fn helpers_cgroup(&self) -> PathBuf {
        program::cgroup_beside(&self.daemon_cgroup)
    }

    /// The names that are protected, normalised.
    #[must_use]
    pub fn protected_names(&self) -> Vec<String> {
        let named = self.protected.clone();
        named.unwrap_or_else(|| protected_default(&self.universe))
    }

    /// Whether anybody's tokens are made like this.
    #[must_use]
    pub fn mints_by(&self, kind: MinterKind) -> bool {
        let agents = self.agents.iter().map(|agent| agent.minter);
        let estimator = self.estimator.iter().map(|estimator| estimator.minter);
        agents.chain(estimator).any(|minter| minter == kind)
    }

    /// Whether the daemon runs programs at all.
    #[must_use]
    pub fn has_helpers(&self) -> bool {
        let runs = |hook: &Hook| match hook.send {
            Send::Command(_) => true,
            Send::Webhook(_) => false,
        };
        self.audit.witness_command.is_some() || self.hooks.iter().any(runs) || self.may_run_gcloud()
    }

    /// Whether the host's own identity may be that of gcloud's login.
    #[must_use]
    pub fn may_run_gcloud(&self) -> bool {
        let is_meant = match self.base {
            None | Some(BaseSource::Gcloud) => true,
            Some(BaseSource::KeyFile | BaseSource::ApplicationDefault | BaseSource::Metadata) => {
                false
            }
        };
        is_meant && self.mints_by(MinterKind::Impersonation)
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    // Whoever can write it decides who gets what.
    let is_own = about.uid() == 0 || about.uid() == rustix::process::geteuid().as_raw();
    if !is_own || about.mode() & BY_OTHERS != 0 {
        let why = format!(
            "others than root can change it (owner {}, mode {:o}): chown root, chmod go-w",
            about.uid(),
            about.mode() & 0o7777
        );
        return Err(malformed(path, why));
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    Ok(text)
}

/// Reads TOML. A mistake in it is named in one line, by its place: it ends up in a log, or in a list of services that failed.
fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let why = error.message().replace('\n', " ");
        let before = error.span().and_then(|span| text.get(..span.start));
        let placed = before.map(|before| {
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            format!("line {line}, column {column}: {why}")
        });
        malformed(path, placed.unwrap_or(why))
    })
}

fn malformed(path: &Path, why: String) -> ConfigError {
    ConfigError::Malformed {
        path: path.to_owned(),
        why: why.trim_end().to_owned(),
    }
}
