//! Who: the agent as a named principal, the process that acts for it, and the person who decides.
//!
//! Nothing here is believed because a client said it: the daemon fills these from the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::event::COMM_BYTES_MAX;
use crate::text::{keep_end, safe_line, shorten};

/// The longest agent name, bytes. It goes into job labels (63) and JWT subjects (127).
pub const AGENT_NAME_BYTES_MAX: usize = 31;

/// How many characters of a process's name are shown.
const COMM_CHARS: usize = 64;

/// An agent's configured name: the principal that requests, is granted and is recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AgentName(String);

/// A name an agent cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an agent name: use a lower-case letter, then up to 30 of a-z, 0-9 and -")]
pub struct AgentNameError(String);

impl AgentName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AgentName {
    type Err = AgentNameError;

    fn from_str(text: &str) -> Result<Self, AgentNameError> {
        let tail = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let good = text.len() <= AGENT_NAME_BYTES_MAX
            && text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && text.bytes().all(tail);
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(AgentNameError(text.chars().take(64).collect()))
        }
    }
}

impl<'de> Deserialize<'de> for AgentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The uid of nobody (`(uid_t)-1`, setresuid(2)): of a process of which nothing is known but its number.
pub const UID_UNKNOWN: u32 = u32::MAX;

/// One life of a process, as the kernel reports it: a pid may be used again, its start time may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// `start_boottime`, nanoseconds on the boot-time clock; 0 when the kernel did not say.
    pub start_boot_ns: u64,
    /// User id in the initial user namespace; [`UID_UNKNOWN`] where the process had ended before that was read.
    pub uid: u32,
    /// The task's name. Evidence for people, chosen by the process itself; never decides.
    pub comm: String,
}

impl Process {
    /// One of which nothing is known but its number, if that.
    #[must_use]
    pub const fn unknown(pid: u32) -> Self {
        Self {
            pid,
            start_boot_ns: 0,
            uid: UID_UNKNOWN,
            comm: String::new(),
        }
    }

    /// In words: its number, what it is called in at most so many characters, and its uid.
    #[must_use]
    pub fn words(&self, name_chars: usize) -> String {
        match (self.pid, self.uid) {
            (0, UID_UNKNOWN) => "a process that is not known any more".to_owned(),
            (pid, UID_UNKNOWN) => format!("pid {pid} (ended by then)"),
            (pid, uid) => format!(
                "pid {pid} ({}, uid {uid})",
                safe_line(&self.comm, name_chars)
            ),
        }
    }

    /// Whether both are one life of one process. A start that the kernel did not say is nobody's.
    #[must_use]
    pub const fn is_same_life(&self, other: &Self) -> bool {
        self.start_boot_ns != 0
            && self.pid == other.pid
            && self.start_boot_ns == other.start_boot_ns
    }
}

/// The most processes above one that asks that are told of, the next above it first.
pub const ANCESTORS_MAX: usize = 8;
/// The longest path of a cgroup that is recorded, bytes; of a longer one the end is, where the unit stands.
pub const CGROUP_BYTES_MAX: usize = 512;
/// The longest name of a container, and of an image, that is recorded, bytes; a longer one is cut.
pub const CONTAINER_BYTES_MAX: usize = 256;

/// Where a process that asks comes from: the processes above it, and its cgroup, as they were when it asked.
///
/// Evidence for people. Every name in it was chosen by the processes themselves or by whoever may make cgroups, and a process can have itself
/// started by another: nothing is decided by it, and it is not among what an approval's digest is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessOrigin {
    /// The process that started it, then the one that started that, and so on: as many as [`ANCESTORS_MAX`], up to the first of the host. Fewer
    /// where one of them had ended, or could not be looked at.
    pub ancestors: Vec<Process>,
    /// Its cgroup in the v2 hierarchy, as a path from the hierarchy's root; empty where it could not be told.
    pub cgroup: String,
    /// The container that it is in; absent where it is in none, where that could not be read, and in older records.
    // Never left out, as none of what goes over the control socket is: nothing there tells one field from the next.
    #[serde(default)]
    pub container: Option<Box<ContainerOrigin>>,
}

/// A container, as its runtime says; by its id alone where none that is asked tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerOrigin {
    /// Its name, or the beginning of its id.
    pub name: String,
    /// What image it was made of; absent where it was made of none, or no runtime tells.
    pub image: Option<String>,
}

/// The name of a process as people are shown it: in quotes where it could be taken for more than a name, such as for a chain of processes.
#[must_use]
pub fn shown_name(comm: &str) -> String {
    let name = safe_line(comm, COMM_CHARS);
    let is_plain =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '+' | '@');
    if !name.is_empty() && name.chars().all(is_plain) {
        name
    } else {
        format!("\"{}\"", name.replace('"', "'"))
    }
}

impl ContainerOrigin {
    /// As people read it: its name, and what image it was made of.
    #[must_use]
    pub fn shown(&self) -> String {
        let image = self.image.as_ref().map_or_else(String::new, |image| {
            format!(" of the image {}", safe_line(image, usize::MAX))
        });
        format!("{}{image}", safe_line(&self.name, usize::MAX))
    }

    /// Keeps it within its bounds.
    pub fn bound(&mut self) {
        shorten(&mut self.name, CONTAINER_BYTES_MAX);
        let image = self.image.iter_mut();
        image.for_each(|image| shorten(image, CONTAINER_BYTES_MAX));
    }
}

impl ProcessOrigin {
    /// The systemd unit that the cgroup's path names: its last part that is called like a service or a scope.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        let mut parts = self.cgroup.rsplit('/');
        parts.find(|part| {
            let name = part.strip_suffix(".service");
            let name = name.or_else(|| part.strip_suffix(".scope"));
            name.is_some_and(|name| !name.is_empty())
        })
    }

    /// The processes above it as people read them, the next above it first: `bash 4100 ← sshd 812 (uid 0)`. A uid is said where it is another
    /// than that of the process below, which `uid` is for the first. Names are made safe to show. Empty where there are none.
    #[must_use]
    pub fn chain(&self, uid: u32) -> String {
        let mut below = uid;
        let said = self.ancestors.iter().map(|process| {
            let name = shown_name(&process.comm);
            let other = process.uid != below;
            below = process.uid;
            if other {
                format!("{name} {} (uid {})", process.pid, process.uid)
            } else {
                format!("{name} {}", process.pid)
            }
        });
        said.collect::<Vec<_>>().join(" ← ")
    }

    /// The unit and the cgroup as people read them; nothing where neither is known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        let cgroup = safe_line(&self.cgroup, usize::MAX);
        match self.unit() {
            Some(unit) => Some(format!("{} ({cgroup})", safe_line(unit, usize::MAX))),
            None => Some(cgroup).filter(|cgroup| !cgroup.is_empty()),
        }
    }

    /// The container as people read it, and what image it was made of; nothing where it is in none.
    #[must_use]
    pub fn container(&self) -> Option<String> {
        self.container.as_ref().map(|container| container.shown())
    }

    /// Keeps it within its bounds.
    pub fn bound(&mut self) {
        self.ancestors.truncate(ANCESTORS_MAX);
        for process in &mut self.ancestors {
            shorten(&mut process.comm, COMM_BYTES_MAX);
        }
        keep_end(&mut self.cgroup, CGROUP_BYTES_MAX);
        if let Some(container) = &mut self.container {
            container.bound();
        }
    }
}

/// Whoever is at the other end of the control socket: peer credentials and the cgroup's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The process, from the socket's peer credentials.
    pub process: Process,
    /// The group ids of the peer: primary and supplementary.
    pub gids: BTreeSet<u32>,
    /// The agent in whose workload the process runs, if any. Such a caller is that agent, whatever its uid.
    pub agent: Option<AgentName>,
}

/// The person (or the rule) that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Approver {
    /// A person, by unix uid.
    Person {
        /// The uid that approved.
        uid: u32,
    },
    /// A policy rule that opens without a person, by its place in the file, from 1.
    Policy {
        /// The rule's number.
        rule: u32,
    },
}

impl fmt::Display for Approver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { uid } => write!(f, "uid {uid}"),
            Self::Policy { rule } => write!(f, "policy rule {rule}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, uid: u32, comm: &str) -> Process {
        Process {
            pid,
            start_boot_ns: 1,
            uid,
            comm: comm.to_owned(),
        }
    }

    #[test]
    fn the_unit_is_the_last_service_or_scope_of_the_path() {
        let unit = |cgroup: &str| {
            let origin = ProcessOrigin {
                cgroup: cgroup.to_owned(),
                ..ProcessOrigin::default()
            };
            origin.unit().map(str::to_owned)
        };
        let found = |cgroup| unit(cgroup).expect("one is named");
        assert_eq!(
            found("/system.slice/finance-bot.service"),
            "finance-bot.service"
        );
        assert_eq!(
            found("/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope/below"),
            "a.scope"
        );
        for none in [
            "",
            "/",
            "/enforcer/agents/finance-bot",
            "/system.slice/.service",
        ] {
            assert_eq!(unit(none), None, "{none}");
        }
    }

    #[test]
    fn a_chain_says_a_uid_where_it_changes_and_names_in_it_are_shown_safely() {
        let origin = ProcessOrigin {
            ancestors: vec![
                process(4100, 2001, "ba\u{1b}[2Jsh"),
                process(4099, 2001, "a ← cron 7"),
                process(812, 0, "sshd"),
                process(1, 0, "systemd"),
            ],
            ..ProcessOrigin::default()
        };
        assert_eq!(
            origin.chain(2001),
            "\"ba\\u{1b}[2Jsh\" 4100 ← \"a ← cron 7\" 4099 ← sshd 812 (uid 0) ← systemd 1"
        );
        assert_eq!(origin.place(), None);
    }

    #[test]
    fn a_container_is_said_with_its_image_and_both_are_shown_safely() {
        let said = |name: &str, image: Option<&str>| {
            let origin = ProcessOrigin {
                container: Some(Box::new(ContainerOrigin {
                    name: name.to_owned(),
                    image: image.map(str::to_owned),
                })),
                ..ProcessOrigin::default()
            };
            origin.container().expect("is in one")
        };
        assert_eq!(
            said("agent\nbox", Some("localhost/a:1")),
            "agent box of the image localhost/a:1"
        );
        assert_eq!(said("agentbox", None), "agentbox");
        assert_eq!(ProcessOrigin::default().container(), None);
    }

    #[test]
    fn an_origin_keeps_the_nearest_processes_and_the_end_of_its_cgroup() {
        let mut origin = ProcessOrigin {
            ancestors: (1..100)
                .map(|pid| process(pid, 0, &"x".repeat(999)))
                .collect(),
            cgroup: format!("/{}/bot.service", "é".repeat(999)),
            container: Some(Box::new(ContainerOrigin {
                name: "é".repeat(999),
                image: Some("i".repeat(999)),
            })),
        };
        origin.bound();
        assert_eq!(origin.ancestors.len(), ANCESTORS_MAX);
        assert_eq!(origin.ancestors[0].pid, 1);
        assert_eq!(origin.ancestors[0].comm.len(), COMM_BYTES_MAX);
        assert!(origin.cgroup.len() <= CGROUP_BYTES_MAX && origin.cgroup.starts_with('…'));
        assert_eq!(origin.unit(), Some("bot.service"));
        let container = origin.container.as_ref().expect("kept");
        for name in [Some(&container.name), container.image.as_ref()] {
            assert!(name.expect("kept").len() <= CONTAINER_BYTES_MAX);
        }
        let again = origin.clone();
        origin.bound();
        assert_eq!(origin, again);
    }

    #[test]
    fn an_agent_name_fits_labels_and_subjects() {
        assert!("finance-bot".parse::<AgentName>().is_ok());
        for text in [
            "",
            "1bot",
            "-bot",
            "Bot",
            "bot_1",
            "bot bot",
            "é",
            &"a".repeat(32),
        ] {
            assert!(text.parse::<AgentName>().is_err(), "{text:?}");
        }
    }
}
