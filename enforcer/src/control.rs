//! The control socket: one connection per client, peer credentials from the kernel, bounded in number, size and patience.
//!
//! It authenticates and passes on. What may be done is the ledger's to say; only joining a workload, reading the log and having the
//! doctor look are done here.

mod agents;
pub mod client;
mod doctor;
mod join;
mod log;
pub mod peer;
mod places;
pub mod runs;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::event::Refuser;
use enforcer_proto::principal::Caller;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{self, ASK_BYTES_MAX, Ask, Hello, Reply, WireError};
use rustix::net::SendFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::causes::Causes;
use crate::clock::Clock;
use crate::doctor::Doctor;
use crate::engine::Engine;
use crate::notify::Notifier;
use crate::origin;
use crate::search::Keeper;
use crate::tally::{Refused, Who};
pub use agents::OnHost;
pub use join::{JOINS, Joins};
pub use log::Turns;
use peer::{Identify, Peer};
pub use places::{CONNECTIONS_MAX, CONNECTIONS_PER_WHO_MAX, CONNECTIONS_RESERVED};
use places::{Comings, Places};
use runs::Runs;

/// How long a client may take to say hello or to take an answer; then its connection ends.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may say nothing between an answer and its next question; then its connection ends.
const IDLE: Duration = Duration::from_secs(30);

/// What the control socket needs.
#[derive(Debug)]
pub struct Control {
    /// The engine.
    pub engine: Engine,
    /// The log's folder.
    pub audit_dir: PathBuf,
    /// The log's index.
    pub index: Arc<Keeper>,
    /// Whose turn it is to have the log looked through.
    pub turns: Turns,
    /// Who the caller is.
    pub identify: Arc<Identify>,
    /// Where callers come from.
    pub processes: origin::Reader,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How often workloads are joined.
    pub joins: Joins,
    /// What was looked at of the agents on the host.
    pub on_host: OnHost,
    /// The processes that something ends with.
    pub runs: Arc<Runs>,
    /// The environment that a client in a workload needs.
    pub client_env: Vec<(String, String)>,
    /// The hooks that are told of what happens.
    pub notifier: Arc<Notifier>,
    /// What looks at the way to Google.
    pub doctor: Arc<Doctor>,
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
    /// The other side asked nothing.
    #[error("the other side said nothing for {} s", IDLE.as_secs())]
    Idle,
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
    let places = Arc::new(Places::default());
    let mut comings = Comings::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let accepted = control.clock.now();
        let Ok(credentials) = rustix::net::sockopt::socket_peercred(&stream) else {
            continue;
        };
        let uid = credentials.uid.as_raw();
        if uid != 0 && !comings.take(uid, accepted.boot_ns) {
            // Nothing more is done for it: the others wait behind it.
            turn_away(&stream, &control, Who::Uid(uid), too_often());
            continue;
        }
        let peer = match control.identify.peer(&stream, accepted.boot_ns) {
            Ok(peer) => peer,
            Err(error) => {
                let who = Who::Uid(uid);
                let what = format!("Whoever made this connection cannot be told: {error}");
                turn_away(
                    &stream,
                    &control,
                    who,
                    Refusal::new(Code::CallerUnknown, what),
                );
                continue;
            }
        };
        let caller = peer.caller();
        let Some(place) = places.take(caller.into(), control.identify.may_decide(caller)) else {
            turn_away(&stream, &control, caller.into(), no_place());
            continue;
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = link(stream, &control, peer).await {
                tracing::debug!(error = %Causes(&error), "a control connection ended");
            }
        });
    }
}

fn too_often() -> Refusal {
    let pace = places::CONNECTS.per_second;
    Refusal::new(
        Code::Overloaded,
        format!("One uid may connect {pace} times a second"),
    )
}

fn no_place() -> Refusal {
    Refusal::new(
        Code::Overloaded,
        format!(
            "There are {CONNECTIONS_PER_WHO_MAX} control connections of one agent or uid, or as many in all as there may be"
        ),
    )
}

/// Refuses a connection. Nobody waits for it: what the kernel does not take at once is not said.
fn turn_away(stream: &UnixStream, control: &Control, who: Who, refusal: Refusal) {
    control.engine.count_refused(Refused {
        who,
        by: Refuser::Control,
        code: refusal.code,
    });
    let said = [
        wire::encode(&Hello::ours()),
        wire::encode(&refused(refusal)),
    ];
    for frame in said.into_iter().flatten() {
        // Past the runtime, which does not know yet that a connection this young can be written to.
        let sent = rustix::net::send(stream, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
        if let Err(error) = sent {
            tracing::debug!(%error, "a control connection was closed without a word");
        }
    }
}

async fn link(mut stream: UnixStream, control: &Control, mut peer: Peer) -> Result<(), LinkError> {
    let hello: Option<Hello> = patient(receive(&mut stream, ASK_BYTES_MAX)).await?;
    let Some(hello) = hello else { return Ok(()) };
    patient(send(&mut stream, &Hello::ours())).await?;
    hello.check()?;
    while let Some(ask) = soon(receive::<Ask>(&mut stream, ASK_BYTES_MAX)).await? {
        match ask {
            Ask::Log {
                from,
                follow,
                limit,
                filter,
            } => {
                let caller = caller_now(control, &mut peer)?;
                let wanted = log::Wanted {
                    from,
                    follow,
                    limit,
                    filter: *filter,
                };
                log::serve(&mut stream, control, caller, wanted).await?
            }
            Ask::Join { agent, run } => {
                let reply = join::join(control, &mut peer, &agent, run).await;
                patient(send(&mut stream, &reply)).await?
            }
            Ask::Wait { request } => {
                let caller = caller_now(control, &mut peer)?.clone();
                let reply = tokio::select! {
                    decided = control.engine.decided(caller, request) => match decided {
                        Ok(grant) => Reply::Opened(grant),
                        Err(refusal) => refused(refusal),
                    },
                    // Whoever waits says nothing: what can be read is that it hung up, or what does not belong here.
                    _ = stream.read_u8() => return Ok(()),
                };
                patient(send(&mut stream, &reply)).await?;
            }
            Ask::RequestForRun { agent, ask } => {
                caller_now(control, &mut peer)?;
                let reply = runs::request(control, &peer, agent, ask).await;
                patient(send(&mut stream, &reply)).await?;
            }
            ask @ Ask::Request(_) => {
                let caller = caller_now(control, &mut peer)?.clone();
                let origin = control.processes.of(&caller.process).await;
                // Whoever it was read of is still at the other end.
                caller_now(control, &mut peer)?;
                let reply = control.engine.control_from(caller, ask, origin).await;
                patient(send(&mut stream, &reply)).await?;
            }
            ask @ (Ask::Approve { .. }
            | Ask::Deny { .. }
            | Ask::BreakGlass { .. }
            | Ask::Review { .. }
            | Ask::Revoke { .. }
            | Ask::Lock { .. }
            | Ask::Unlock { .. }
            | Ask::CloseAll
            | Ask::Close { .. }
            | Ask::Done
            | Ask::Show { .. }
            | Ask::Status) => {
                let caller = caller_now(control, &mut peer)?.clone();
                let reply = by_ledger(control, caller, ask).await;
                patient(send(&mut stream, &reply)).await?;
            }
            Ask::Doctor { agent, config } => {
                let caller = caller_now(control, &mut peer)?;
                doctor::serve(&mut stream, control, caller, (agent, config)).await?
            }
            Ask::NotifyTest { hook } => {
                let caller = caller_now(control, &mut peer)?;
                let reply = notify_test(control, caller, hook.as_deref()).await;
                patient(send(&mut stream, &reply)).await?;
            }
        }
    }
    Ok(())
}

/// What the ledger says, and to people what else there is to say of the host.
async fn by_ledger(control: &Control, caller: Caller, ask: Ask) -> Reply {
    let is_agent = caller.agent.is_some();
    let mut reply = control.engine.control(caller, ask).await;
    if let (Reply::Status(status), false) = (&mut reply, is_agent) {
        status.hooks = control.notifier.views();
        let now = control.clock.now();
        control.on_host.tell(now, &mut status.agents).await;
    }
    reply
}

/// Tries whether notices arrive, for whoever may read the log that they tell of.
async fn notify_test(control: &Control, caller: &Caller, hook: Option<&str>) -> Reply {
    if !control.identify.may_decide(caller) {
        control.engine.count_refused(Refused {
            who: caller.into(),
            by: Refuser::Control,
            code: Code::CallerForbidden,
        });
        let what = format!("Uid {} may not send notices", caller.process.uid);
        return refused(Refusal::new(Code::CallerForbidden, what));
    }
    match control.notifier.test(hook).await {
        Ok(tested) => Reply::Notified(tested),
        Err(refusal) => refused(refusal),
    }
}

/// The caller as it is now. Where it has ended, somebody else holds its connection: that is refused, and counted on record.
fn caller_now<'a>(control: &Control, peer: &'a mut Peer) -> Result<&'a Caller, LinkError> {
    let who = Who::from(peer.caller());
    peer.look_again(&control.identify).map_err(|error| {
        control.engine.count_refused(Refused {
            who,
            by: Refuser::Control,
            code: Code::CallerUnknown,
        });
        LinkError::from(error)
    })
}

async fn patient<T>(work: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or(Err(LinkError::Slow))
}

/// Waits for the next question, if it comes while a connection may be idle.
async fn soon<T>(
    next: impl Future<Output = Result<Option<T>, LinkError>>,
) -> Result<Option<T>, LinkError> {
    tokio::time::timeout(IDLE, next)
        .await
        .unwrap_or(Err(LinkError::Idle))
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

fn refused(refusal: Refusal) -> Reply {
    Reply::Refused(refusal)
}
