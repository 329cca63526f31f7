//! The control socket: one connection per client, peer credentials from the kernel, bounded in number, size and patience.
//!
//! It authenticates and passes on. What may be done is the ledger's to say; only joining a workload and reading the log are done here.

pub mod client;
mod join;
mod log;
pub mod peer;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::principal::Caller;
use enforcer_proto::wire::{self, ASK_BYTES_MAX, Ask, Hello, Reply, WireError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::causes::Causes;
use crate::engine::Engine;
use peer::Identify;

/// The most control connections at once, over all callers.
pub const CONNECTIONS_MAX: usize = 256;
/// How long a client may take to say hello or to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the control socket needs.
#[derive(Debug)]
pub struct Control {
    /// The engine.
    pub engine: Engine,
    /// The log's folder.
    pub audit_dir: PathBuf,
    /// Who the caller is.
    pub identify: Arc<Identify>,
    /// The environment that a client in a workload needs.
    pub client_env: Vec<(String, String)>,
}

/// A control connection that ended badly.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket failed.
    #[error("the control connection failed")]
    Io(#[from] io::Error),
    /// The other side does not speak the protocol.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The other side took too long.
    #[error("the other side took longer than {} s", PATIENCE.as_secs())]
    Slow,
}

/// Binds the control socket at `path`, replacing one that nobody listens on.
///
/// # Errors
/// When another daemon listens there, or the path cannot be bound.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another enforcer listens on {}", path.display()),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Everyone may connect: who they are is asked of the kernel, and what they may is the ledger's to say.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Serves the control socket until the listener fails.
pub async fn serve(listener: UnixListener, control: Arc<Control>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The place is taken before accepting: past the bound, clients wait in the kernel's backlog.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = link(stream, &control).await {
                tracing::debug!(error = %Causes(&error), "a control connection ended");
            }
        });
    }
}

async fn link(mut stream: UnixStream, control: &Control) -> Result<(), LinkError> {
    let caller = control.identify.caller(&stream)?;
    let hello: Option<Hello> = patient(receive(&mut stream, ASK_BYTES_MAX)).await?;
    let Some(hello) = hello else { return Ok(()) };
    patient(send(&mut stream, &Hello::ours())).await?;
    hello.check()?;
    while let Some(ask) = receive::<Ask>(&mut stream, ASK_BYTES_MAX).await? {
        match ask {
            Ask::Log { from, follow } => {
                log::serve(&mut stream, control, &caller, from, follow).await?
            }
            Ask::Join { agent } => {
                patient(send(
                    &mut stream,
                    &join::join(control, &caller, &agent).await,
                ))
                .await?
            }
            ask @ (Ask::Request(_)
            | Ask::Approve { .. }
            | Ask::Deny { .. }
            | Ask::Revoke { .. }
            | Ask::Close { .. }
            | Ask::Status) => {
                let reply = control
                    .engine
                    .control(fresh(control, &stream, &caller)?, ask)
                    .await;
                patient(send(&mut stream, &reply)).await?;
            }
        }
    }
    Ok(())
}

/// The caller as it is now: a process may have been moved into a workload since it connected. It never becomes less bound.
fn fresh(control: &Control, stream: &UnixStream, first: &Caller) -> io::Result<Caller> {
    let now = control.identify.caller(stream)?;
    Ok(if first.agent.is_some() {
        first.clone()
    } else {
        now
    })
}

async fn patient<T>(work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or(Err(LinkError::Slow))
}

/// Sends one frame.
async fn send(stream: &mut UnixStream, message: &impl Serialize) -> Result<(), LinkError> {
    stream.write_all(&wire::encode(message)?).await?;
    Ok(())
}

/// Receives one frame of up to `bytes_max`; `None` where the other side closed between frames.
async fn receive<T: DeserializeOwned>(
    stream: &mut UnixStream,
    bytes_max: usize,
) -> Result<Option<T>, LinkError> {
    let mut head = [0; 4];
    match stream.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut body = vec![0; wire::body_length(head, bytes_max)?];
    patient(async { Ok(stream.read_exact(&mut body).await?) }).await?;
    Ok(Some(wire::decode(&body)?))
}

fn refused(refusal: enforcer_proto::refusal::Refusal) -> Reply {
    Reply::Refused(refusal)
}
