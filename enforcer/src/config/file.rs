//! The configuration file as written, and its checks. Every struct denies unknown keys.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use enforcer_proto::principal::AgentName;
use enforcer_proto::time::Ttl;
use enforcer_proto::wire::Enforce;
use ipnet::IpNet;
use serde::Deserialize;

use super::audit::AuditFile;
use super::estimator::EstimatorFile;
use super::hsm::{HsmFile, KeyStore};
use super::notify::{self, HookFile};
use super::pattern;
use super::program;
use super::runtimes::{self, RuntimesFile};
use super::{
    AGENTS_MAX, ALLOWED_NAMES_MAX, AddressClass, Agent, BaseSource, Config, Metadata, MinterKind,
    Resolver, TokenSource, WhenAsked, WhenClosed, WhichNames, Workload,
};
use crate::apart::Apart;
use crate::dns::marks::{MASK_DEFAULT, Marks};
use crate::dns::protected::{self, Universe};
use crate::executables::EXECUTABLES_MAX;

/// How long connecting may take where the configuration does not say it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

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
    estimator: Option<EstimatorFile>,
    #[serde(default)]
    audit: AuditFile,
    #[serde(default)]
    runtimes: RuntimesFile,
    #[serde(rename = "agent")]
    agents: Vec<AgentFile>,
    #[serde(rename = "notify", default)]
    hooks: Vec<HookFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Kernel {
    cgroup_root: Option<PathBuf>,
    pin_dir: PathBuf,
    daemon_cgroup: PathBuf,
    enforce: Enforce,
    subuid_file: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            cgroup_root: None,
            pin_dir: "/sys/fs/bpf/enforcer".into(),
            daemon_cgroup: "enforcer".into(),
            enforce: Enforce::Host,
            subuid_file: "/etc/subuid".into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Names {
    universe_domain: Option<String>,
    protected: Option<Vec<String>>,
    resolvers: Vec<Resolver>,
    prefixes: Vec<Prefix>,
    shared_prefixes_file: Option<PathBuf>,
    port: u16,
    mark_mask: u32,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            universe_domain: None,
            protected: None,
            resolvers: Vec::new(),
            prefixes: Vec::new(),
            shared_prefixes_file: None,
            port: 842,
            mark_mask: MASK_DEFAULT,
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
    quota_project: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase", tag = "kind")]
enum Token {
    Federation {
        audience: String,
        issuer: String,
        sts_url: Option<String>,
        iam_url: Option<String>,
        signer: Option<Box<HsmFile>>,
        key_credential: Option<String>,
        project: Option<String>,
        base: Option<BaseSource>,
    },
    Impersonation {
        iam_url: Option<String>,
        base: Option<BaseSource>,
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
    container_name: Option<String>,
    container_label: Option<String>,
    uid: Option<u32>,
    #[serde(default)]
    executables: Vec<PathBuf>,
    #[serde(default = "default_closed")]
    closed: WhenClosed,
    #[serde(default)]
    ask: WhenAsked,
    #[serde(default = "default_ask_ttl")]
    ask_ttl: Ttl,
    token: Option<MinterKind>,
    service_account: Option<String>,
    quota_project: Option<String>,
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

fn default_ask_ttl() -> Ttl {
    // 15 minutes lie within the bounds of a ttl.
    Ttl::from_seconds(900).unwrap_or(Ttl::MIN)
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
            ("kernel.subuid_file", &self.kernel.subuid_file),
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
        let universe = self.names.universe()?;
        let metadata = self.metadata.resolve(&universe)?;
        check_below("kernel.daemon_cgroup", &self.kernel.daemon_cgroup)?;
        let prefixes = self.names.prefixes();
        let protected = self.names.protected.map(normalised).transpose()?;
        if protected.as_ref().is_some_and(Vec::is_empty) && prefixes.is_empty() {
            return Err(
                "`names.protected` is empty and no prefix is named, so nothing would be protected: leave `names.protected` out for the built-in list"
                    .to_owned(),
            );
        }
        let base = self.token.base();
        let token = self.token.resolve(&universe)?;
        let quota_project = self.upstream.quota_project()?;
        let agents = resolve_agents(
            self.agents,
            &self.kernel.daemon_cgroup,
            &token,
            quota_project.as_deref(),
        )?;
        let estimator = self.estimator;
        let estimator = estimator.map(|file| file.resolve(&agents, &token, quota_project.clone()));
        let estimator = estimator.transpose()?;
        let is_bigquerys = bigquerys_names(protected.as_deref(), &universe);
        check_allowed(&agents, &is_bigquerys)?;
        let hooks = notify::resolve(self.hooks, &agents, is_bigquerys)?;
        let audit = self.audit.resolve(&agents)?;
        let runtimes = self.runtimes.resolve(&agents)?;
        check_apart_from_helpers(&agents, &program::cgroup_beside(&self.kernel.daemon_cgroup))?;
        Marks::new(self.names.mark_mask, agents.len(), 0)?;
        Ok(Config {
            host: self.host,
            state_dir: self.state_dir,
            run_dir: self.run_dir,
            policy: self.policy,
            cgroup_root: self.kernel.cgroup_root,
            pin_dir: self.kernel.pin_dir,
            daemon_cgroup: self.kernel.daemon_cgroup,
            enforce: self.kernel.enforce,
            subuid_file: self.kernel.subuid_file,
            universe,
            protected,
            prefixes,
            resolvers: self.names.resolvers,
            // Its file is read by who knows where the configuration is.
            shared_prefixes: None,
            proxy_port: self.proxy.port,
            names_port: self.names.port,
            mark_mask: self.names.mark_mask,
            metadata,
            connect_timeout: self.upstream.connect_timeout(),
            upstream_ca: self.upstream.ca_file,
            token,
            base,
            estimator,
            audit,
            runtimes,
            agents,
            hooks,
        })
    }
}

impl Names {
    fn universe(&self) -> Result<Universe, String> {
        let Some(domain) = &self.universe_domain else {
            return Ok(Universe::default());
        };
        Universe::named(domain).ok_or_else(|| {
            format!("`names.universe_domain` is `{domain}`, which is no domain like googleapis.com")
        })
    }

    fn prefixes(&self) -> Vec<(IpNet, AddressClass)> {
        let prefixes = self.prefixes.iter();
        prefixes
            .map(|prefix| (prefix.prefix.trunc(), prefix.class))
            .collect()
    }
}

impl Upstream {
    fn quota_project(&self) -> Result<Option<String>, String> {
        let project = self.quota_project.clone();
        let project = project.map(|project| project_id("`upstream.quota_project`", project));
        project.transpose()
    }

    fn connect_timeout(&self) -> Duration {
        let said = self.connect_timeout;
        said.map_or(CONNECT_TIMEOUT, |ttl| Duration::from_secs(ttl.seconds()))
    }
}

impl MetadataFile {
    fn resolve(self, universe: &Universe) -> Result<Option<Metadata>, String> {
        let project = self.project;
        let project = project.map(|project| project_id("`metadata.project`", project));
        let project = project.transpose()?;
        Ok(self.emulate.then_some(Metadata {
            port: self.port,
            project,
            project_number: self.project_number,
            universe: universe.domain().to_owned(),
        }))
    }
}

/// A project's id. It is told in a path of an answer that clients take apart, and in a header.
fn project_id(key: &str, project: String) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'.');
    if (1..=64).contains(&project.len()) && project.bytes().all(good) {
        Ok(project)
    } else {
        Err(format!("{key} is `{project}`, which is no project's id"))
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
    const fn base(&self) -> Option<BaseSource> {
        match self {
            Self::Federation { base, .. } | Self::Impersonation { base, .. } => *base,
        }
    }

    fn resolve(self, universe: &Universe) -> Result<TokenSource, String> {
        let sts = || format!("https://{}/v1/token", universe.name("sts"));
        let iam = || format!("https://{}", universe.name("iamcredentials"));
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
                signer,
                key_credential,
                project,
                base: _,
            } => {
                let (sts_url, iam_url) = (sts_url.unwrap_or_else(sts), iam_url.unwrap_or_else(iam));
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
                    keys: KeyStore::resolve(signer, key_credential)?,
                    project: project
                        .map(|project| project_id("`token.project`", project))
                        .transpose()?,
                })
            }
            Self::Impersonation { iam_url, base: _ } => {
                let iam_url = iam_url.unwrap_or_else(iam);
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
pub(super) fn dns_name(key: &str, name: &str) -> Result<String, String> {
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
fn check_allowed(agents: &[Agent], is_bigquerys: impl Fn(&str) -> bool) -> Result<(), String> {
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

/// Says of a normalised name whether BigQuery is reached by it: one that is protected, or would be.
fn bigquerys_names(protected: Option<&[String]>, universe: &Universe) -> impl Fn(&str) -> bool {
    let built_in = protected::protected_default(universe);
    move |name| {
        protected::is_bigquerys(name, universe)
            || built_in.iter().any(|known| known == name)
            || protected.is_some_and(|names| names.iter().any(|known| known == name))
    }
}

/// The programs that the daemon runs have cgroups of their own: who is in them is no agent.
fn check_apart_from_helpers(agents: &[Agent], helpers: &Path) -> Result<(), String> {
    for agent in agents {
        match &agent.workload {
            Workload::Cgroup(path) if is_nested(path, helpers) => {
                return Err(format!(
                    "agent {}: its cgroup and that of the programs that the daemon runs, {}, lie inside one another",
                    agent.name,
                    helpers.display()
                ));
            }
            Workload::CgroupLike(path) if pattern::may_be_nested(path, helpers) => {
                return Err(format!(
                    "agent {}: a cgroup that is called like {}, and that of the programs that the daemon runs, {}, may lie inside one another",
                    agent.name,
                    path.display(),
                    helpers.display()
                ));
            }
            Workload::UnitLike(name) if is_called(name, helpers) => {
                return Err(format!(
                    "agent {}: the cgroup of the programs that the daemon runs, {}, may be called like {name}",
                    agent.name,
                    helpers.display()
                ));
            }
            Workload::Cgroup(_)
            | Workload::CgroupLike(_)
            | Workload::Unit(_)
            | Workload::UnitLike(_)
            | Workload::User(_)
            | Workload::Container(_)
            | Workload::Pod(_)
            | Workload::ContainerName(_)
            | Workload::ContainerLabel(_) => {}
        }
    }
    Ok(())
}

fn resolve_agents(
    files: Vec<AgentFile>,
    daemon: &Path,
    token: &TokenSource,
    quota_project: Option<&str>,
) -> Result<Vec<Agent>, String> {
    if files.is_empty() || files.len() > AGENTS_MAX {
        return Err(format!(
            "there must be between 1 and {AGENTS_MAX} [[agent]] sections, not {}",
            files.len()
        ));
    }
    let mut agents: Vec<Agent> = Vec::new();
    let mut taken = Taken::default();
    for file in files {
        let workload = workload_of(&file, daemon)?;
        if let Some(other) = taken.by(&file.name, &workload) {
            return Err(format!(
                "agents {other} and {} have the same name or workload, or cgroups inside one another",
                file.name
            ));
        }
        taken.take(&file.name, &workload);
        let whose = format!("agent {}", file.name);
        let minter = token.minter(&whose, file.token, file.service_account.as_ref())?;
        let AgentFile {
            name,
            uid,
            executables,
            closed,
            ask,
            ask_ttl,
            service_account,
            quota_project: own_quota,
            allow,
            dns,
            ..
        } = file;
        check_ask(&name, ask, closed)?;
        let allow = allowed(&name, allow)?;
        check_executables(&name, &executables)?;
        agents.push(Agent {
            name,
            workload,
            uid,
            executables,
            closed,
            ask,
            ask_ttl,
            allow,
            names: dns,
            minter,
            service_account,
            quota_project: own_quota
                .map(|project| project_id(&format!("{whose}: `quota_project`"), project))
                .transpose()?
                .or_else(|| quota_project.map(str::to_owned)),
        });
    }
    Ok(agents)
}

/// A connection that ends without a word carries no query of which a request could be made.
fn check_ask(agent: &AgentName, ask: WhenAsked, closed: WhenClosed) -> Result<(), String> {
    match (ask, closed) {
        (WhenAsked::Off, _) | (_, WhenClosed::Explain) => Ok(()),
        (WhenAsked::Hold | WhenAsked::Refuse, WhenClosed::Drop) => Err(format!(
            "agent {agent}: `ask` needs `closed = \"explain\"`: with \"drop\" no query arrives while there is no window"
        )),
    }
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

/// A cgroup, by its path or what that is like.
fn by_path(path: PathBuf) -> Workload {
    let is_pattern = path.to_str().is_some_and(pattern::is_pattern);
    if is_pattern {
        Workload::CgroupLike(path)
    } else {
        Workload::Cgroup(path)
    }
}

/// A unit, by its name or what that is like.
fn by_unit(name: String) -> Workload {
    if pattern::is_pattern(&name) {
        Workload::UnitLike(name)
    } else {
        Workload::Unit(name)
    }
}

/// The one workload that a section names.
fn workload_of(file: &AgentFile, daemon: &Path) -> Result<Workload, String> {
    let agent = &file.name;
    let named = [
        file.cgroup.clone().map(by_path),
        file.unit.clone().map(by_unit),
        file.user.map(Workload::User),
        file.container.clone().map(Workload::Container),
        file.pod.clone().map(Workload::Pod),
        file.container_name.clone().map(Workload::ContainerName),
        file.container_label.clone().map(Workload::ContainerLabel),
    ];
    let mut named = named.into_iter().flatten();
    let (Some(workload), None) = (named.next(), named.next()) else {
        return Err(format!(
            "agent {agent}: name its workload by one of `cgroup`, `unit`, `user`, `container`, `pod`, `container_name` and `container_label`"
        ));
    };
    let is_plain = |text: &str| !text.is_empty() && text.len() <= 255 && !text.contains('/');
    let wrong = match &workload {
        Workload::Cgroup(path) => {
            check_below(&format!("agent {agent}: cgroup"), path)?;
            let is_nested = is_nested(path, daemon);
            let wrong = is_nested.then_some("its cgroup and the daemon's lie inside one another");
            pattern::wrong_path(path).or(wrong)
        }
        Workload::CgroupLike(path) => {
            check_below(&format!("agent {agent}: cgroup"), path)?;
            let is_nested = pattern::may_be_nested(path, daemon);
            let wrong = is_nested.then_some(
                "a cgroup that is called so, and the daemon's, may lie inside one another",
            );
            pattern::wrong_path(path).or(wrong)
        }
        Workload::UnitLike(name) if is_called(name, daemon) => {
            Some("the daemon's own unit may be called so")
        }
        Workload::Unit(name) | Workload::UnitLike(name) => {
            let kinds = [".service", ".scope", ".slice"];
            let is_unit = is_plain(name) && kinds.iter().any(|kind| name.ends_with(kind));
            if name.starts_with("user@") {
                Some(
                    "a user's own service manager belongs to the user: name everything of the user's (`user = UID`)",
                )
            } else {
                let wrong = "`unit` is the whole name of a .service, .scope or .slice";
                let wrong = (!is_unit).then_some(wrong);
                wrong.or_else(|| pattern::wrong_unit(name))
            }
        }
        Workload::User(uid) => (*uid == 0).then_some("root is no agent: `user` must not be 0"),
        Workload::Container(id) => {
            let is_id = (12..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            (!is_id).then_some("`container` is its id, or at least the first twelve digits of it; a name is `container_name`, which a runtime is asked for")
        }
        Workload::Pod(uid) => {
            let is_uid = uid.len() == 36 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
            (!is_uid).then_some(
                "`pod` is the pod's uid: kubectl get pod NAME -o jsonpath={.metadata.uid}",
            )
        }
        Workload::ContainerName(name) => runtimes::wrong_name(name),
        Workload::ContainerLabel(label) => runtimes::wrong_label(label),
    };
    match wrong {
        Some(why) => Err(format!("agent {agent}: {why}")),
        None => Ok(workload),
    }
}

/// Whether a pattern of units' names means a cgroup's.
fn is_called(pattern: &str, cgroup: &Path) -> bool {
    let name = cgroup.file_name().unwrap_or_default();
    pattern::means(pattern, &name.to_string_lossy())
}

/// Which names and workloads agents have already.
#[derive(Default)]
struct Taken {
    names: BTreeSet<AgentName>,
    cgroups: Apart<AgentName>,
    others: BTreeMap<Workload, AgentName>,
    /// Those that are patterns, and those that patterns may mean: the first is often empty, and each of the one is held against each of the other.
    patterns: Vec<(Workload, AgentName)>,
    plain: Vec<(Workload, AgentName)>,
}

impl Taken {
    /// The agent that has this name, or a workload that is this one or lies inside of it or around it, as far as their names tell.
    fn by(&self, name: &AgentName, workload: &Workload) -> Option<AgentName> {
        let of_name = self.names.get(name);
        let of_pattern = || {
            let mut patterns = self.patterns.iter();
            let means = patterns.find(|(pattern, _)| may_mean(pattern, workload));
            means.map(|(_, name)| name)
        };
        let of_workload = || match workload {
            Workload::Cgroup(path) => self.cgroups.related(path).or_else(of_pattern),
            Workload::Unit(_) => self.others.get(workload).or_else(of_pattern),
            Workload::CgroupLike(_) | Workload::UnitLike(_) => {
                let mut plain = self.plain.iter();
                let meant = plain.find(|(other, _)| may_mean(workload, other));
                let same = self.others.get(workload);
                same.or_else(|| meant.map(|(_, name)| name))
            }
            Workload::User(_)
            | Workload::Container(_)
            | Workload::Pod(_)
            | Workload::ContainerName(_)
            | Workload::ContainerLabel(_) => self.others.get(workload),
        };
        of_name.or_else(of_workload).cloned()
    }

    fn take(&mut self, name: &AgentName, workload: &Workload) {
        self.names.insert(name.clone());
        let both = || (workload.clone(), name.clone());
        match workload {
            Workload::Cgroup(path) => {
                self.cgroups.insert(path.clone(), name.clone());
                return self.plain.push(both());
            }
            Workload::CgroupLike(_) | Workload::UnitLike(_) => self.patterns.push(both()),
            Workload::Unit(_) => self.plain.push(both()),
            Workload::User(_)
            | Workload::Container(_)
            | Workload::Pod(_)
            | Workload::ContainerName(_)
            | Workload::ContainerLabel(_) => {}
        }
        self.others.insert(workload.clone(), name.clone());
    }
}

/// Whether what a pattern means may be this one, or lie inside of it or around it: a section that names one has it for itself.
fn may_mean(pattern: &Workload, plain: &Workload) -> bool {
    match pattern {
        Workload::CgroupLike(pattern) => {
            matches!(plain, Workload::Cgroup(path) if pattern::may_be_nested(pattern, path))
        }
        Workload::UnitLike(pattern) => {
            matches!(plain, Workload::Unit(name) if pattern::means(pattern, name))
        }
        Workload::Cgroup(_)
        | Workload::Unit(_)
        | Workload::User(_)
        | Workload::Container(_)
        | Workload::Pod(_)
        | Workload::ContainerName(_)
        | Workload::ContainerLabel(_) => false,
    }
}

fn is_nested(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}
