//! Connections to the daemon: one question, one answer, with a bound on waiting. What is asked for over one that broke is not asked again by itself.

#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod feed;
pub(crate) mod lookup;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enforcer_proto::refusal::Refusal;
use enforcer_proto::search::Filter;
use enforcer_proto::wire::{self, Ask, Hello, Reply, Status};

/// How long the daemon may take over an answer. A decision may wait for the log's disk.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// It cannot be reached.
    #[error("the daemon cannot be reached at {} (is it running, and --socket right?)", .0.display())]
    Unreachable(PathBuf, #[source] std::io::Error),
    /// The connection broke, or it took too long.
    #[error("the daemon did not answer")]
    Broken(#[from] std::io::Error),
    /// It speaks another version, or not at all.
    #[error(transparent)]
    Wire(#[from] wire::WireError),
    /// It said no.
    #[error("{0}")]
    Refused(Refusal),
    /// It answered something else than was asked.
    #[error("the daemon answered something else than {0}")]
    SomethingElse(&'static str),
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: UnixStream,
}

impl Link {
    /// Connects, and makes sure that both speak the same version.
    pub(crate) fn to(socket: &Path) -> Result<Self, LinkError> {
        let stream = UnixStream::connect(socket)
            .map_err(|why| LinkError::Unreachable(socket.to_owned(), why))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut link = Self { stream };
        link.stream.write_all(&wire::encode(&Hello::ours())?)?;
        link.receive::<Hello>()?.check()?;
        Ok(link)
    }

    /// Asks one thing.
    pub(crate) fn ask(&mut self, ask: &Ask) -> Result<Reply, LinkError> {
        self.stream.write_all(&wire::encode(ask)?)?;
        let reply: Reply = self.receive()?;
        reply.or_refused().map_err(LinkError::Refused)
    }

    /// How things are.
    pub(crate) fn status(&mut self) -> Result<Status, LinkError> {
        let Reply::Status(status) = self.ask(&Ask::Status)? else {
            return Err(LinkError::SomethingElse("its status"));
        };
        Ok(*status)
    }

    /// Asks for records from one on, and hands over each answer until there are no more, or `each` says so. What is followed never ends by itself.
    pub(crate) fn records(
        &mut self,
        (from, limit): (u64, Option<u32>),
        follow: bool,
        filter: Filter,
        each: &mut dyn FnMut(Vec<String>) -> bool,
    ) -> Result<(), LinkError> {
        let ask = Ask::Log {
            from,
            follow,
            limit,
            filter: Box::new(filter),
        };
        let mut reply = self.ask(&ask)?;
        if follow {
            // A log may stand still for as long as it likes.
            self.stream.set_read_timeout(None)?;
        }
        loop {
            let Reply::Records(lines) = reply else {
                return Err(LinkError::SomethingElse("the log"));
            };
            if lines.is_empty() || !each(lines) {
                return Ok(());
            }
            reply = self
                .receive::<Reply>()?
                .or_refused()
                .map_err(LinkError::Refused)?;
        }
    }

    fn receive<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, LinkError> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head)?;
        let mut body = vec![0; wire::body_length(head, wire::FRAME_BYTES_MAX)?];
        self.stream.read_exact(&mut body)?;
        Ok(wire::decode(&body)?)
    }
}

/// An error with all that caused it, in a line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
