//! Commands that are one question to the daemon.

use std::path::Path;

use enforcer_proto::policy::Ask as Terms;
use enforcer_proto::wire::{Ask, Reply};
use tokio::signal::unix::{SignalKind, signal};

use super::wait::{self, Pending};
use super::{Failure, show};
use crate::control::client::Client;

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

pub(super) async fn connect(socket: &Path) -> Result<Client, Failure> {
    Client::connect(socket)
        .await
        .map_err(|error| Failure::Unreachable(socket.to_owned(), error))
}

pub(super) async fn ask_once(socket: &Path, ask: &Ask) -> Result<Reply, Failure> {
    let mut client = connect(socket).await?;
    asked(socket, &mut client, ask).await
}

/// Asks over a connection that is there.
pub(super) async fn asked(socket: &Path, client: &mut Client, ask: &Ask) -> Result<Reply, Failure> {
    let reply = client
        .ask(ask)
        .await
        .map_err(|error| Failure::Unreachable(socket.to_owned(), error))?;
    reply.or_refused().map_err(Failure::Refused)
}

/// Asks one thing and prints the answer.
pub(super) fn one(socket: &Path, ask: Ask, json: bool) -> Result<(), Failure> {
    let reply = runtime()?.block_on(ask_once(socket, &ask))?;
    show::reply(&reply, json)
}

/// Asks for a window, and with `wait` for the decision on it.
pub(super) fn request(socket: &Path, terms: Terms, wait: bool, json: bool) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut client = connect(socket).await?;
        let reply = asked(socket, &mut client, &Ask::Request(terms)).await?;
        let pending = match &reply {
            Reply::Requested {
                request,
                grant: None,
                wanting,
                expires_in_ns,
            } if wait => Pending::new(*request, wanting.as_deref(), *expires_in_ns),
            Reply::Requested { .. }
            | Reply::Opened(_)
            | Reply::Counted(_)
            | Reply::Notified(_)
            | Reply::Checked(_)
            | Reply::GivenBack(_)
            | Reply::Done
            | Reply::Status(_)
            | Reply::Records(_)
            | Reply::Joined(_)
            | Reply::Refused(_) => return show::reply(&reply, json),
        };
        if json {
            show::reply(&reply, json)?;
        }
        let mut terminated = signal(SignalKind::terminate())?;
        let grant = tokio::select! {
            grant = wait::decided(socket, &mut client, &pending) => grant?,
            _ = tokio::signal::ctrl_c() => return Err(interrupted(&pending)),
            _ = terminated.recv() => return Err(interrupted(&pending)),
        };
        show::reply(&Reply::Opened(grant), json)
    })
}

fn interrupted(pending: &Pending) -> Failure {
    Failure::Other(anyhow::anyhow!(
        "not waiting any more: {} stays pending; see: enforcer status",
        pending.request
    ))
}

pub(super) fn something_else(than: &str) -> Failure {
    Failure::Other(anyhow::anyhow!(
        "the daemon answered something else than {than}"
    ))
}
