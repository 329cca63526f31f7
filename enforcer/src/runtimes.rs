//! Asks container runtimes which containers run: by the API that Docker and Podman serve, each at its socket. What they say is what an agent's container
//! is found by where the configuration knows it by its name or a label. Never on the way of a decision, and never believed further than it has to
//! be: a runtime says names, and the kernel's cgroups say what is there.

mod ask;
mod trust;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enforcer_proto::principal::ContainerOrigin;
use futures_util::future::join_all;

pub use trust::Untrusted;

/// How long one runtime may take to answer.
pub const ASK_MAX: Duration = Duration::from_secs(2);
/// How long after one answer the next is asked for.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The longest answer, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// The most containers of one answer.
const CONTAINERS_MAX: usize = 1024;
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

/// Asks each runtime once, all at the same time. Takes no longer than [`ASK_MAX`].
pub async fn ask_all(sockets: &[PathBuf]) -> Vec<Answer> {
    join_all(sockets.iter().map(|socket| ask(socket))).await
}

async fn ask(socket: &Path) -> Answer {
    let asked = tokio::time::timeout(ASK_MAX, ask::containers(socket)).await;
    let said = asked.unwrap_or(Err(Unheard::Slow));
    Answer {
        socket: socket.to_owned(),
        said: said.map_err(|why| why.to_string()),
    }
}

#[cfg(test)]
mod tests;
