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
        patient(send(&mut stream, &Hello::ours())).await?;
        let hello: Option<Hello> = patient(receive(&mut stream, FRAME_BYTES_MAX)).await?;
        hello.ok_or_else(gone)?.check()?;
        Ok(Self { stream })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Reply, LinkError> {
        send(&mut self.stream, ask).await?;
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

fn gone() -> LinkError {
    LinkError::Io(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the daemon closed the connection",
    ))
}
