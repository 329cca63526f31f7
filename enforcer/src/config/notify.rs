//! `[[notify]]`: who is told of what happens, as written, and its checks.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use enforcer_proto::notice::burst::BurstLimits;
use enforcer_proto::notice::{NoticeKind, Wanted};
use enforcer_proto::principal::AgentName;
use enforcer_proto::time::Ttl;
use http::Uri;
use serde::{Deserialize, Serialize, Serializer};

use super::file::dns_name;
use super::{Agent, Program};

/// The most hooks one host may have.
pub const HOOKS_MAX: usize = 16;
/// The longest time that one attempt may take, seconds.
const TIME_LIMIT_MAX_S: u64 = 60;
/// The most refusals that a burst may begin at.
const BURST_REFUSALS_MAX: u64 = 1000;
/// The longest times of a burst, seconds.
const BURST_TIME_MAX_S: u64 = 3600;

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// What it is told of.
    pub wanted: Wanted,
    /// How.
    pub send: Send,
    /// The form of what it is sent.
    pub format: Format,
    /// How long one attempt may take.
    pub time_limit: Duration,
    /// How long a notice is tried.
    pub retry_for: Ttl,
}

/// How notices are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Send {
    /// By a program that reads each on its standard input.
    Command(Program),
    /// By HTTPS.
    Webhook(Webhook),
}

/// The form of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// All fields.
    #[default]
    Json,
    /// A chat message, as Slack and its like take it.
    Slack,
}

/// Where notices are posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Webhook {
    /// The address. Its path may be a secret, as that of chats is: it is never shown.
    #[serde(serialize_with = "host_only")]
    pub url: Uri,
    /// Where the key is that notices are signed with.
    pub key: Option<KeyPlace>,
}

impl Webhook {
    /// The host it is at.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host().unwrap_or_default()
    }
}

/// Where a key is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPlace {
    /// In a file that only root can read.
    File(PathBuf),
    /// Among the credentials that the service manager gave (`LoadCredential=`), by name.
    Credential(String),
}

impl KeyPlace {
    /// The file that it is in; `None` where the service manager gave this process no credentials.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Credential(name) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY")?;
                Some(PathBuf::from(folder).join(name))
            }
        }
    }

    /// Whether that can be a credential's name.
    pub(super) fn is_credential(name: &str) -> bool {
        !name.is_empty() && !name.contains('/') && !name.starts_with('.')
    }
}

fn host_only<S: Serializer>(url: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!(
        "https://{}/…",
        url.host().unwrap_or_default()
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HookFile {
    name: String,
    events: Vec<NoticeKind>,
    #[serde(default)]
    agents: Vec<AgentName>,
    command: Option<Vec<String>>,
    user: Option<u32>,
    group: Option<u32>,
    webhook: Option<String>,
    key_file: Option<PathBuf>,
    key_credential: Option<String>,
    #[serde(default)]
    format: Format,
    time_limit: Option<Ttl>,
    retry_for: Option<Ttl>,
    #[serde(default)]
    burst: BurstFile,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct BurstFile {
    refusals: Option<u64>,
    within: Option<Ttl>,
    interval: Option<Ttl>,
}

pub(super) fn resolve(
    files: Vec<HookFile>,
    agents: &[Agent],
    is_bigquerys: impl Fn(&str) -> bool,
) -> Result<Vec<Hook>, String> {
    if files.len() > HOOKS_MAX {
        let count = files.len();
        return Err(format!(
            "there may be {HOOKS_MAX} [[notify]] sections, not {count}"
        ));
    }
    let mut names = BTreeSet::new();
    let mut hooks = Vec::new();
    for file in files {
        let name = file.name.clone();
        if !names.insert(name.clone()) {
            return Err(format!("two [[notify]] sections have the name `{name}`"));
        }
        let hook = file.resolve(agents, &is_bigquerys);
        hooks.push(hook.map_err(|why| format!("notify {name}: {why}"))?);
    }
    Ok(hooks)
}

impl HookFile {
    fn resolve(
        self,
        agents: &[Agent],
        is_bigquerys: impl Fn(&str) -> bool,
    ) -> Result<Hook, String> {
        // It is part of a cgroup's name and of records.
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=40).contains(&self.name.len()) || !self.name.bytes().all(is_plain) {
            return Err("its name must be 1 to 40 of a-z, 0-9 and -".to_owned());
        }
        if self.events.is_empty() {
            return Err("`events` is empty, so it would be told of nothing: name some of request, decision, open, close, refusal_burst, health, break_glass, policy and daemon".to_owned());
        }
        let is_known = |name: &&AgentName| agents.iter().any(|agent| agent.name == **name);
        if let Some(unknown) = self.agents.iter().find(|name| !is_known(name)) {
            return Err(format!(
                "`agents` names {unknown}, and no [[agent]] section does"
            ));
        }
        let time_limit = self.time_limit.map_or(10, Ttl::seconds);
        if time_limit > TIME_LIMIT_MAX_S {
            return Err(format!(
                "`time_limit` may be {TIME_LIMIT_MAX_S}s, not {time_limit}s"
            ));
        }
        let burst = self.burst.resolve()?;
        let retry_for = self.retry_for.map_or_else(|| seconds(900), Ok)?;
        let send = match (self.command, self.webhook) {
            (Some(words), None) => {
                if self.key_file.is_some() || self.key_credential.is_some() {
                    return Err(
                        "a key signs what is posted to a `webhook`; a `command` has none"
                            .to_owned(),
                    );
                }
                Send::Command(Program::of("", (words, self.user, self.group), agents)?)
            }
            (None, Some(url)) => {
                if self.user.is_some() || self.group.is_some() {
                    return Err("`user` and `group` are a command's; a webhook has none".to_owned());
                }
                let key = key_place(self.key_file, self.key_credential)?;
                let url = webhook(&url, is_bigquerys)?;
                Send::Webhook(Webhook { url, key })
            }
            (None, None) | (Some(_), Some(_)) => {
                return Err("name one of `command` and `webhook`".to_owned());
            }
        };
        Ok(Hook {
            name: self.name,
            wanted: Wanted {
                events: self.events.into_iter().collect(),
                agents: self.agents.into_iter().collect(),
                burst,
            },
            send,
            format: self.format,
            time_limit: Duration::from_secs(time_limit),
            retry_for,
        })
    }
}

impl BurstFile {
    fn resolve(self) -> Result<BurstLimits, String> {
        let limits = BurstLimits {
            refusals: self.refusals.unwrap_or(10),
            within: self.within.map_or_else(|| seconds(60), Ok)?,
            interval: self.interval.map_or_else(|| seconds(300), Ok)?,
        };
        if !(1..=BURST_REFUSALS_MAX).contains(&limits.refusals) {
            return Err(format!(
                "`burst.refusals` must lie between 1 and {BURST_REFUSALS_MAX}"
            ));
        }
        let longest = limits.within.max(limits.interval);
        if longest.seconds() > BURST_TIME_MAX_S {
            return Err("`burst.within` and `burst.interval` may be 1h".to_owned());
        }
        Ok(limits)
    }
}

fn seconds(count: u64) -> Result<Ttl, String> {
    Ttl::from_seconds(count).map_err(|error| error.to_string())
}

fn key_place(
    file: Option<PathBuf>,
    credential: Option<String>,
) -> Result<Option<KeyPlace>, String> {
    match (file, credential) {
        (None, None) => Ok(None),
        (Some(file), None) if file.is_absolute() => Ok(Some(KeyPlace::File(file))),
        (Some(_), None) => Err("`key_file` must be an absolute path".to_owned()),
        (None, Some(name)) if KeyPlace::is_credential(&name) => {
            Ok(Some(KeyPlace::Credential(name)))
        }
        (None, Some(_)) => Err("`key_credential` is the name of a credential".to_owned()),
        (Some(_), Some(_)) => Err("name one of `key_file` and `key_credential`".to_owned()),
    }
}

/// An address that is not BigQuery's. It is named by a DNS name, so that its certificate says who answers there.
fn webhook(url: &str, is_bigquerys: impl Fn(&str) -> bool) -> Result<Uri, String> {
    // The address itself is not repeated: its path may be a secret.
    let wrong = || {
        "`webhook` must be an https URL with a DNS name, such as https://hooks.example.com/…"
            .to_owned()
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let is_https = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
    let has_user = uri
        .authority()
        .is_none_or(|authority| authority.as_str().contains('@'));
    let host = uri
        .host()
        .filter(|_| is_https && !has_user)
        .ok_or_else(wrong)?;
    let name = dns_name("webhook", host).map_err(|_| wrong())?;
    if name.parse::<IpAddr>().is_ok() {
        return Err(wrong());
    }
    if is_bigquerys(&name) {
        return Err(format!(
            "`webhook` is at {name}, by which BigQuery is reached: nothing is told there"
        ));
    }
    Ok(uri)
}
