//! The client's side of the control socket: connect, say hello, ask.

use std::io;
use std::path::Path;

use enforcer_proto::wire::{Ask, FRAME_BYTES_MAX, Hello, Reply};
use tokio::net::UnixStream;

use super::{LinkError, patient, receive, send};

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the daemon at `socket`.
    ///
    /// # Errors
    /// When nobody listens there, or it speaks another version.
    pub async fn connect(socket: &Path) -> Result<Self, LinkError> {
        let mut stream = UnixStream::connect(socket).await?;
        unless_hung_up(patient(send(&mut stream, &Hello::ours())).await)?;
        let hello: Option<Hello> = patient(receive(&mut stream, FRAME_BYTES_MAX)).await?;
        hello.ok_or_else(gone)?.check()?;
        Ok(Self { stream })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Reply, LinkError> {
        unless_hung_up(send(&mut self.stream, ask).await)?;
        self.next().await
    }

    /// The next answer of a log that is followed.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn next(&mut self) -> Result<Reply, LinkError> {
        receive(&mut self.stream, FRAME_BYTES_MAX)
            .await?
            .ok_or_else(gone)
    }
}

/// A daemon that has no place left says so and hangs up before it is asked: what it said can still be read.
fn unless_hung_up(sent: Result<(), LinkError>) -> Result<(), LinkError> {
    match sent {
        Err(LinkError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        sent => sent,
    }
}

fn gone() -> LinkError {
    LinkError::Io(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the daemon closed the connection",
    ))
}
