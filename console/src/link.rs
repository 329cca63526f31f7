//! The connection to the daemon: one question, one answer, with a bound on waiting. Reconnects when it is asked again.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use enforcer_proto::wire::{self, Ask, Hello, Reply, Status};

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection that is made when it is needed.
pub(crate) struct Link {
    socket: PathBuf,
    stream: Option<UnixStream>,
}

impl Link {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            stream: None,
        }
    }

    /// The state of things now.
    pub(crate) fn status(&mut self) -> Result<Status> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let reply = exchange(&mut stream, &Ask::Status)?;
        // Kept only when all went well: a half-read answer must not be taken for the next one.
        self.stream = Some(stream);
        match reply {
            Reply::Status(status) => Ok(*status),
            Reply::Refused(refusal) => bail!("refused: {refusal}"),
            Reply::Requested { .. }
            | Reply::Opened(_)
            | Reply::Done
            | Reply::Records(_)
            | Reply::Joined(_) => {
                bail!("the daemon answered something else than its status")
            }
        }
    }

    fn connect(&self) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket).with_context(|| {
            format!(
                "the daemon cannot be reached at {}: is it running, and --socket right?",
                self.socket.display()
            )
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&wire::encode(&Hello::ours())?)?;
        receive::<Hello>(&mut stream)?.check()?;
        Ok(stream)
    }
}

fn exchange(stream: &mut UnixStream, ask: &Ask) -> Result<Reply> {
    stream.write_all(&wire::encode(ask)?)?;
    receive(stream)
}

fn receive<T: serde::de::DeserializeOwned>(stream: &mut UnixStream) -> Result<T> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; wire::body_length(head, wire::FRAME_BYTES_MAX)?];
    stream.read_exact(&mut body)?;
    Ok(wire::decode(&body)?)
}
