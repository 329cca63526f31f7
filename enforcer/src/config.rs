//! The operator's configuration: TOML, every key known, parsed once into values that cannot be wrong. Read at start, never believed twice.

mod file;
mod policy;
mod prefixes;
mod resolver;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enforcer_proto::policy::Policy;
use enforcer_proto::principal::AgentName;
use enforcer_proto::wire::Enforce;
use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use policy::load_policy;
pub use resolver::{Resolver, Secured};

/// Where the configuration is looked for when no file is named.
pub const DEFAULT_PATH: &str = "/etc/enforcer/enforcer.toml";
/// The most agents one host may have.
pub const AGENTS_MAX: usize = 256;
/// The most names besides BigQuery's that one agent may be allowed.
pub const ALLOWED_NAMES_MAX: usize = 64;

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
}

/// What an agent's processes are found by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// A cgroup below the cgroup root, which the daemon makes.
    Cgroup(PathBuf),
    /// A systemd unit, by its whole name: a service, a scope or a slice.
    Unit(String),
    /// Everything that runs under a login of this uid's, its own service manager included.
    User(u32),
    /// A container, by its id or the beginning of it.
    Container(String),
    /// A Kubernetes pod, by its uid.
    Pod(String),
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Unit(name) => write!(f, "unit {name}"),
            Self::User(uid) => write!(f, "everything of user {uid}"),
            Self::Container(id) => write!(f, "container {id}"),
            Self::Pod(uid) => write!(f, "pod {uid}"),
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
    /// Names besides BigQuery's that it may reach on shared addresses; normalised, exact.
    pub allow: BTreeSet<String>,
    /// What it is told of names.
    pub names: WhichNames,
    /// The service account its tokens are for; absent: the federated identity itself.
    pub service_account: Option<String>,
}

/// Where upstream tokens come from.
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
    },
    /// The host's base identity impersonates the agent's service account.
    Impersonation {
        /// IAM Credentials.
        iam_url: String,
    },
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
    /// Names whose addresses are protected; absent: the built-in list.
    pub protected: Option<Vec<String>>,
    /// Resolvers; empty: the host's.
    pub resolvers: Vec<Resolver>,
    /// The port on 127.0.0.1 and ::1 where agents' questions for names are answered.
    pub names_port: u16,
    /// What stands in for the metadata server; absent: nothing does.
    pub metadata: Option<Metadata>,
    /// Prefixes that are protected whatever DNS says.
    pub prefixes: Vec<(IpNet, AddressClass)>,
    /// The proxy's port on 127.0.0.1 and ::1.
    pub proxy_port: u16,
    /// Roots trusted upstream besides the system's.
    pub upstream_ca: Option<PathBuf>,
    /// How long a connection upstream may take.
    pub connect_timeout: Duration,
    /// Where tokens come from.
    pub token: TokenSource,
    /// The agents.
    pub agents: Vec<Agent>,
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
        let shared = match file.shared_prefixes_file() {
            Some(name) => prefixes::load(&folder.join(name))?,
            None => Vec::new(),
        };
        let mut config = file.resolve().map_err(|why| malformed(path, why))?;
        config.policy = folder.join(&config.policy);
        let shared = shared.into_iter().map(|net| (net, AddressClass::Shared));
        config.prefixes.extend(shared);
        Ok(config)
    }

    /// Reads the policy this configuration names.
    ///
    /// # Errors
    /// [`ConfigError`], naming what to correct.
    pub fn load_policy(&self) -> Result<Policy, ConfigError> {
        let names: BTreeSet<_> = self.agents.iter().map(|agent| agent.name.clone()).collect();
        load_policy(&self.policy, &names)
    }

    /// The log's folder.
    #[must_use]
    pub fn audit_dir(&self) -> PathBuf {
        self.state_dir.join("audit")
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("control.sock")
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })
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
