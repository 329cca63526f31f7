//! Asks container runtimes which containers run: by the API that Docker and Podman serve, each at its socket. What they say is what an agent's container
//! is found by where the configuration knows it by its name or a label. Never on the way of a decision, and never believed further than it has to
//! be: a runtime says names, and the kernel's cgroups say what is there.

mod ask;
mod question;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use enforcer_proto::principal::ContainerOrigin;
use futures_util::future::join_all;

pub use question::Wanted;
pub use trust::Untrusted;

use crate::config::Workload;

/// How long one runtime may take to answer.
pub const ASK_MAX: Duration = Duration::from_secs(2);
/// How long after one answer the next is asked for.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The longest answer, bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The most containers of one answer.
pub(crate) const CONTAINERS_MAX: usize = 1024;
/// The length of a container's id, in hexadecimal digits.
pub const ID_CHARS: usize = 64;
/// How much of an id people are shown.
const ID_CHARS_SHOWN: usize = 12;

/// A container that runs, as its runtime says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id: 64 hexadecimal digits.
    pub id: String,
    /// Its names, without the slash before them.
    pub names: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What image it was made of; absent where it was made of none.
    pub image: Option<String>,
}

impl Container {
    /// The beginning of its id, as people know it.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.id.get(..ID_CHARS_SHOWN).unwrap_or(&self.id)
    }

    /// What people call it: its first name, or the beginning of its id.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.names
            .first()
            .map_or_else(|| self.short_id(), String::as_str)
    }

    /// What is recorded of it.
    #[must_use]
    pub fn origin(&self) -> ContainerOrigin {
        let mut origin = ContainerOrigin {
            name: self.shown().to_owned(),
            image: self.image.clone(),
        };
        origin.bound();
        origin
    }
}

/// What one runtime said, when it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// At which socket.
    pub socket: PathBuf,
    /// The containers that run there; or why that is not known, in words.
    pub said: Result<Vec<Container>, String>,
    /// Of which workloads that is not known all the same: what is said of theirs alone is too long, or was not asked for.
    pub unheard: BTreeSet<Workload>,
}

impl Answer {
    /// The containers among which those are that a workload means; nothing where that is not known.
    #[must_use]
    pub fn of(&self, workload: &Workload) -> Option<&[Container]> {
        let said = self.said.as_deref().ok()?;
        (!self.unheard.contains(workload)).then_some(said)
    }
}

/// Why what a runtime says is not known, or not believed; the text names the cure where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Unheard {
    /// Nobody listens at the socket.
    #[error(
        "nobody listens there: start the runtime's API (systemctl enable --now podman.socket, or docker.socket), or leave the socket out"
    )]
    Missing,
    /// Others than root could answer.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// It did not answer in time.
    #[error("it did not answer within {} s", ASK_MAX.as_secs())]
    Slow,
    /// The connection failed.
    #[error("it did not answer: {0}")]
    Failed(String),
    /// It answered that it would not.
    #[error("it answered {0} in place of a list of containers")]
    Status(u16),
    /// It answered more than is read.
    #[error("it answered more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// What it answered is no list of containers.
    #[error("what it answered is no list of containers (line {line}, column {column})")]
    NoList {
        /// Where it went wrong.
        line: usize,
        /// Where in that line.
        column: usize,
    },
    /// It named more than are looked at.
    #[error("it named more than {CONTAINERS_MAX} containers")]
    TooMany,
    /// It named a container by what is no id.
    #[error("it named a container by an id that is not {ID_CHARS} hexadecimal digits")]
    NoId,
}

/// Asks each runtime, all at the same time: which containers run and, where that is too long an answer, which of those that are wanted. Takes no longer
/// than [`ASK_MAX`].
pub async fn ask_all(sockets: &[PathBuf], wanted: &Wanted) -> Vec<Answer> {
    join_all(sockets.iter().map(|socket| ask(socket, wanted))).await
}

async fn ask(socket: &Path, wanted: &Wanted) -> Answer {
    let asked = tokio::time::timeout(ASK_MAX, ask::containers(socket, wanted)).await;
    let (said, unheard) = match asked.unwrap_or(Err(Unheard::Slow)) {
        Ok((containers, unheard)) => (Ok(containers), unheard),
        Err(why) => (Err(why.to_string()), BTreeSet::new()),
    };
    Answer {
        socket: socket.to_owned(),
        said,
        unheard,
    }
}

#[cfg(test)]
mod tests;
