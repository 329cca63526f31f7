//! Who: the agent as a named principal, the process that acts for it, and the person who decides.
//!
//! Nothing here is believed because a client said it: the daemon fills these from the kernel.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// The longest agent name, bytes. It goes into job labels (63) and JWT subjects (127).
pub const AGENT_NAME_BYTES_MAX: usize = 31;

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

/// One life of a process, as the kernel reports it: a pid may be used again, its start time may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// `start_boottime`, nanoseconds on the boot-time clock; 0 when the kernel did not say.
    pub start_boot_ns: u64,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// The task's name. Evidence for people, chosen by the process itself; never decides.
    pub comm: String,
}

impl Process {
    /// Whether both are one life of one process. A start that the kernel did not say is nobody's.
    #[must_use]
    pub const fn is_same_life(&self, other: &Self) -> bool {
        self.start_boot_ns != 0
            && self.pid == other.pid
            && self.start_boot_ns == other.start_boot_ns
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
