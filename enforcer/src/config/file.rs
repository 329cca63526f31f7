//! The configuration file as written, and its checks. Every struct denies unknown keys.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use enforcer_proto::principal::AgentName;
use enforcer_proto::time::Ttl;
use enforcer_proto::wire::Enforce;
use ipnet::IpNet;
use serde::Deserialize;

use super::{
    AGENTS_MAX, ALLOWED_NAMES_MAX, AddressClass, Agent, Config, Metadata, Resolver, TokenSource,
    WhenClosed, WhichNames, Workload,
};
use crate::dns::protected;
use crate::executables::EXECUTABLES_MAX;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    host: String,
    #[serde(default = "default_state_dir")]
    state_dir: PathBuf,
    #[serde(default = "default_run_dir")]
    run_dir: PathBuf,
    #[serde(default = "default_policy")]
    policy: PathBuf,
    #[serde(default)]
    kernel: Kernel,
    #[serde(default)]
    names: Names,
    #[serde(default)]
    proxy: Proxy,
    #[serde(default)]
    metadata: MetadataFile,
    #[serde(default)]
    upstream: Upstream,
    token: Token,
    #[serde(rename = "agent")]
    agents: Vec<AgentFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Kernel {
    cgroup_root: Option<PathBuf>,
    pin_dir: PathBuf,
    daemon_cgroup: PathBuf,
    enforce: Enforce,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            cgroup_root: None,
            pin_dir: "/sys/fs/bpf/enforcer".into(),
            daemon_cgroup: "enforcer".into(),
            enforce: Enforce::Host,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Names {
    protected: Option<Vec<String>>,
    resolvers: Vec<Resolver>,
    prefixes: Vec<Prefix>,
    shared_prefixes_file: Option<PathBuf>,
    port: u16,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            protected: None,
            resolvers: Vec::new(),
            prefixes: Vec::new(),
            shared_prefixes_file: None,
            port: 842,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MetadataFile {
    emulate: bool,
    port: u16,
    project: Option<String>,
    project_number: Option<u64>,
}

impl Default for MetadataFile {
    fn default() -> Self {
        Self {
            emulate: true,
            port: 843,
            project: None,
            project_number: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prefix {
    prefix: IpNet,
    class: AddressClass,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Proxy {
    port: u16,
}

impl Default for Proxy {
    fn default() -> Self {
        Self { port: 841 }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Upstream {
    ca_file: Option<PathBuf>,
    connect_timeout: Option<Ttl>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase", tag = "kind")]
enum Token {
    Federation {
        audience: String,
        issuer: String,
        #[serde(default = "default_sts")]
        sts_url: String,
        #[serde(default = "default_iam")]
        iam_url: String,
    },
    Impersonation {
        #[serde(default = "default_iam")]
        iam_url: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentFile {
    name: AgentName,
    cgroup: Option<PathBuf>,
    unit: Option<String>,
    user: Option<u32>,
    container: Option<String>,
    pod: Option<String>,
    uid: Option<u32>,
    #[serde(default)]
    executables: Vec<PathBuf>,
    #[serde(default = "default_closed")]
    closed: WhenClosed,
    service_account: Option<String>,
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default = "default_names")]
    dns: WhichNames,
}

fn default_state_dir() -> PathBuf {
    "/var/lib/enforcer".into()
}

fn default_run_dir() -> PathBuf {
    "/run/enforcer".into()
}

fn default_policy() -> PathBuf {
    "/etc/enforcer/policy.toml".into()
}

fn default_sts() -> String {
    "https://sts.googleapis.com/v1/token".into()
}

fn default_iam() -> String {
    "https://iamcredentials.googleapis.com".into()
}

const fn default_names() -> WhichNames {
    WhichNames::Forward
}

const fn default_closed() -> WhenClosed {
    WhenClosed::Explain
}

impl File {
    pub(super) fn shared_prefixes_file(&self) -> Option<&Path> {
        self.names.shared_prefixes_file.as_deref()
    }

    pub(super) fn resolve(self) -> Result<Config, String> {
        check_host(&self.host)?;
        for (key, path) in [
            ("state_dir", &self.state_dir),
            ("run_dir", &self.run_dir),
            ("kernel.pin_dir", &self.kernel.pin_dir),
        ] {
            if !path.is_absolute() {
                return Err(format!(
                    "`{key}` must be an absolute path, not `{}`",
                    path.display()
                ));
            }
        }
        check_ports(&[
            ("proxy.port", self.proxy.port),
            ("names.port", self.names.port),
            ("metadata.port", self.metadata.port),
        ])?;
        let metadata = self.metadata.resolve()?;
        check_below("kernel.daemon_cgroup", &self.kernel.daemon_cgroup)?;
        let protected = self.names.protected.map(normalised).transpose()?;
        if protected.as_ref().is_some_and(Vec::is_empty) && self.names.prefixes.is_empty() {
            return Err(
                "`names.protected` is empty and no prefix is named, so nothing would be protected: leave `names.protected` out for the built-in list"
                    .to_owned(),
            );
        }
        let token = self.token.resolve()?;
        let agents = resolve_agents(self.agents, &self.kernel.daemon_cgroup, &token)?;
        check_allowed(&agents, protected.as_deref())?;
        Ok(Config {
            host: self.host,
            state_dir: self.state_dir,
            run_dir: self.run_dir,
            policy: self.policy,
            cgroup_root: self.kernel.cgroup_root,
            pin_dir: self.kernel.pin_dir,
            daemon_cgroup: self.kernel.daemon_cgroup,
            enforce: self.kernel.enforce,
            protected,
            resolvers: self.names.resolvers,
            prefixes: self
                .names
                .prefixes
                .into_iter()
                .map(|prefix| (prefix.prefix.trunc(), prefix.class))
                .collect(),
            proxy_port: self.proxy.port,
            names_port: self.names.port,
            metadata,
            upstream_ca: self.upstream.ca_file,
            connect_timeout: self
                .upstream
                .connect_timeout
                .map_or(Duration::from_secs(10), |ttl| {
                    Duration::from_secs(ttl.seconds())
                }),
            token,
            agents,
        })
    }
}

impl MetadataFile {
    fn resolve(self) -> Result<Option<Metadata>, String> {
        // It is told in a path of an answer that clients take apart.
        let is_sound = |project: &String| {
            let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'.');
            (1..=64).contains(&project.len()) && project.bytes().all(good)
        };
        if let Some(wrong) = self.project.as_ref().filter(|project| !is_sound(project)) {
            return Err(format!(
                "`metadata.project` is `{wrong}`, which is no project's id"
            ));
        }
        Ok(self.emulate.then_some(Metadata {
            port: self.port,
            project: self.project,
            project_number: self.project_number,
        }))
    }
}

/// Ports below 1024, which no agent can bind, and no two alike.
fn check_ports(ports: &[(&str, u16)]) -> Result<(), String> {
    for (at, (key, port)) in ports.iter().enumerate() {
        if !(1..1024).contains(port) {
            return Err(format!(
                "`{key}` must lie between 1 and 1023, so that no agent can bind it, not {port}"
            ));
        }
        if let Some((other, _)) = ports[..at].iter().find(|(_, other)| other == port) {
            return Err(format!("`{other}` and `{key}` are both {port}"));
        }
    }
    Ok(())
}

impl Token {
    fn resolve(self) -> Result<TokenSource, String> {
        let https = |key: &str, url: &str| {
            if url.starts_with("https://") {
                Ok(())
            } else {
                Err(format!("`token.{key}` must be an https URL, not `{url}`"))
            }
        };
        match self {
            Self::Federation {
                audience,
                issuer,
                sts_url,
                iam_url,
            } => {
                https("issuer", &issuer)?;
                https("sts_url", &sts_url)?;
                https("iam_url", &iam_url)?;
                if audience.is_empty() {
                    return Err("`token.audience` is empty: write the provider's resource name, //iam.googleapis.com/projects/…".into());
                }
                Ok(TokenSource::Federation {
                    audience,
                    issuer,
                    sts_url,
                    iam_url,
                })
            }
            Self::Impersonation { iam_url } => {
                https("iam_url", &iam_url)?;
                Ok(TokenSource::Impersonation { iam_url })
            }
        }
    }
}

/// The host's name goes into JWT subjects and job labels: `[a-z0-9-]`, at most 40 bytes.
fn check_host(host: &str) -> Result<(), String> {
    let good = !host.is_empty()
        && host.len() <= 40
        && host
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if good {
        Ok(())
    } else {
        Err(format!(
            "`host` must be 1 to 40 of a-z, 0-9 and -, not `{host}`"
        ))
    }
}

/// A cgroup is named below the root, without tricks: no `..`, not absolute, not the root itself.
fn check_below(key: &str, path: &Path) -> Result<(), String> {
    let plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if plain && path.components().next().is_some() {
        Ok(())
    } else {
        Err(format!(
            "`{key}` must be a path below the cgroup root, such as agents/finance-bot, not `{}`",
            path.display()
        ))
    }
}

fn normalised(names: Vec<String>) -> Result<Vec<String>, String> {
    let each = names.into_iter();
    each.map(|name| dns_name("names.protected", &name))
        .collect()
}

/// A complete DNS name of host-name letters, in the one form that everything compares.
fn dns_name(key: &str, name: &str) -> Result<String, String> {
    let good = protected::normalise(name).filter(|name| name.contains('.'));
    good.ok_or_else(|| format!("`{key}` holds `{name}`, which is not a DNS name (no wildcards)"))
}

/// The names that an agent may reach besides BigQuery's: exact, each once.
fn allowed(agent: &AgentName, names: Vec<String>) -> Result<BTreeSet<String>, String> {
    let key = format!("agent {agent}: allow");
    if names.len() > ALLOWED_NAMES_MAX {
        return Err(format!(
            "`{key}` may hold {ALLOWED_NAMES_MAX} names, not {}",
            names.len()
        ));
    }
    let each = names.into_iter();
    each.map(|name| dns_name(&key, &name)).collect()
}

/// A name of BigQuery's is never merely allowed: what is sent to it is judged, and needs a window. That holds for the built-in names too
/// where a shorter list is protected.
fn check_allowed(agents: &[Agent], protected: Option<&[String]>) -> Result<(), String> {
    let built_in = protected::protected_default();
    let is_bigquerys = |name: &String| {
        protected::is_bigquerys(name)
            || built_in.contains(name)
            || protected.is_some_and(|names| names.contains(name))
    };
    for agent in agents {
        if let Some(name) = agent.allow.iter().find(|name| is_bigquerys(name)) {
            return Err(format!(
                "agent {}: `allow` holds `{name}`, by which BigQuery is reached: that takes a window",
                agent.name
            ));
        }
    }
    Ok(())
}

fn resolve_agents(
    files: Vec<AgentFile>,
    daemon: &Path,
    token: &TokenSource,
) -> Result<Vec<Agent>, String> {
    if files.is_empty() || files.len() > AGENTS_MAX {
        return Err(format!(
            "there must be between 1 and {AGENTS_MAX} [[agent]] sections, not {}",
            files.len()
        ));
    }
    let mut agents: Vec<Agent> = Vec::new();
    for file in files {
        let workload = workload_of(&file, daemon)?;
        if let Some(other) = agents
            .iter()
            .find(|other| other.name == file.name || is_shared(&other.workload, &workload))
        {
            return Err(format!(
                "agents {} and {} have the same name or workload, or cgroups inside one another",
                other.name, file.name
            ));
        }
        if file.service_account.is_none() && matches!(token, TokenSource::Impersonation { .. }) {
            return Err(format!(
                "agent {}: `service_account` is needed with token.kind = \"impersonation\"",
                file.name
            ));
        }
        let AgentFile {
            name,
            uid,
            executables,
            closed,
            service_account,
            allow,
            dns,
            ..
        } = file;
        let allow = allowed(&name, allow)?;
        check_executables(&name, &executables)?;
        agents.push(Agent {
            name,
            workload,
            uid,
            executables,
            closed,
            allow,
            names: dns,
            service_account,
        });
    }
    Ok(agents)
}

fn check_executables(agent: &AgentName, paths: &[PathBuf]) -> Result<(), String> {
    if paths.len() > EXECUTABLES_MAX {
        return Err(format!(
            "agent {agent}: `executables` names {} files, and {EXECUTABLES_MAX} is the most",
            paths.len()
        ));
    }
    match paths.iter().find(|path| !path.is_absolute()) {
        Some(path) => Err(format!(
            "agent {agent}: `executables` names {}: name it by its whole path",
            path.display()
        )),
        None => Ok(()),
    }
}

/// The one workload that a section names.
fn workload_of(file: &AgentFile, daemon: &Path) -> Result<Workload, String> {
    let agent = &file.name;
    let named = [
        file.cgroup.clone().map(Workload::Cgroup),
        file.unit.clone().map(Workload::Unit),
        file.user.map(Workload::User),
        file.container.clone().map(Workload::Container),
        file.pod.clone().map(Workload::Pod),
    ];
    let mut named = named.into_iter().flatten();
    let (Some(workload), None) = (named.next(), named.next()) else {
        return Err(format!(
            "agent {agent}: name its workload by one of `cgroup`, `unit`, `user`, `container` and `pod`"
        ));
    };
    let is_plain = |text: &str| !text.is_empty() && text.len() <= 255 && !text.contains('/');
    let wrong = match &workload {
        Workload::Cgroup(path) => {
            check_below(&format!("agent {agent}: cgroup"), path)?;
            is_nested(path, daemon).then_some("its cgroup and the daemon's lie inside one another")
        }
        Workload::Unit(name) => {
            let kinds = [".service", ".scope", ".slice"];
            let is_unit = is_plain(name) && kinds.iter().any(|kind| name.ends_with(kind));
            if name.starts_with("user@") {
                Some(
                    "a user's own service manager belongs to the user: name everything of the user's (`user = UID`)",
                )
            } else {
                (!is_unit).then_some("`unit` is the whole name of a .service, .scope or .slice")
            }
        }
        Workload::User(uid) => (*uid == 0).then_some("root is no agent: `user` must not be 0"),
        Workload::Container(id) => {
            let is_id = (12..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            (!is_id).then_some("`container` is its id, or at least the first twelve digits of it; a name is not known to the kernel")
        }
        Workload::Pod(uid) => {
            let is_uid = uid.len() == 36 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            (!is_uid).then_some(
                "`pod` is the pod's uid: kubectl get pod NAME -o jsonpath={.metadata.uid}",
            )
        }
    };
    match wrong {
        Some(why) => Err(format!("agent {agent}: {why}")),
        None => Ok(workload),
    }
}

/// Whether two workloads are one, or lie inside one another, as far as their names tell.
fn is_shared(a: &Workload, b: &Workload) -> bool {
    match (a, b) {
        (Workload::Cgroup(a), Workload::Cgroup(b)) => is_nested(a, b),
        _ => a == b,
    }
}

fn is_nested(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}
