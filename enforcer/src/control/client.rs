//! The client's side of the control socket: connect, say hello, ask.

use std::io;
use std::path::Path;

use enforcer_proto::wire::{Ask, FRAME_BYTES_MAX, Hello, Reply};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixStream;

use super::{LinkError, PATIENCE, patient, receive, send};

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
        let mut stream = connect(socket).await?;
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

/// Connects, and waits where others wait as well: a socket that did not want to wait would fail while they are many.
async fn connect(socket: &Path) -> Result<UnixStream, LinkError> {
    let address = SocketAddrUnix::new(socket).map_err(io::Error::from)?;
    let connected = tokio::task::spawn_blocking(move || {
        let stream = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        set_socket_timeout(&stream, Timeout::Send, Some(PATIENCE))?;
        rustix::net::connect(&stream, &address)?;
        set_socket_timeout(&stream, Timeout::Send, None)?;
        rustix::io::ioctl_fionbio(&stream, true)?;
        UnixStream::from_std(stream.into())
    });
    let connected = connected.await.map_err(io::Error::other)?;
    connected.map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            LinkError::Slow
        } else {
            LinkError::Io(error)
        }
    })
}

/// A daemon that has no place left says so and hangs up before it is asked: what it said can still be read.
fn unless_hung_up(sent: Result<(), LinkError>) -> Result<(), LinkError> {
    match sent {
        Err(LinkError::Io(error))
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        sent => sent,
    }
}

fn gone() -> LinkError {
    LinkError::Io(io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the daemon closed the connection",
    ))
}
