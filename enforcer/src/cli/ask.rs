//! Commands that are one question to the daemon.

use std::path::Path;
use std::time::Duration;

use enforcer_proto::id::RequestId;
use enforcer_proto::policy::Ask as Terms;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{Ask, Reply, Status};

use super::{Failure, log, show};
use crate::control::client::Client;

/// How often a waiting request looks whether it was decided.
const POLL: Duration = Duration::from_millis(500);

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
    let reply = client
        .ask(ask)
        .await
        .map_err(|error| Failure::Unreachable(socket.to_owned(), error))?;
    match reply {
        Reply::Refused(refusal) => Err(Failure::Refused(refusal)),
        reply @ (Reply::Requested { .. }
        | Reply::Opened(_)
        | Reply::Done
        | Reply::Status(_)
        | Reply::Records(_)
        | Reply::Joined(_)) => Ok(reply),
    }
}

/// Asks one thing and prints the answer.
pub(super) fn one(socket: &Path, ask: Ask, json: bool) -> Result<(), Failure> {
    let reply = runtime()?.block_on(ask_once(socket, &ask))?;
    show::reply(&reply, json)
}

/// Asks for a window, and with `wait` for the decision on it.
pub(super) fn request(socket: &Path, terms: Terms, wait: bool, json: bool) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let reply = ask_once(socket, &Ask::Request(terms)).await?;
        let waiting_for = if let Reply::Requested {
            request,
            grant: None,
        } = &reply
        {
            Some(*request)
        } else {
            None
        };
        match waiting_for {
            Some(request) if wait => {
                if !json {
                    eprintln!("enforcer: request {request} waits for a decision");
                }
                decided(socket, request, json).await
            }
            _ => show::reply(&reply, json),
        }
    })
}

async fn decided(socket: &Path, id: RequestId, json: bool) -> Result<(), Failure> {
    loop {
        let Reply::Status(status) = ask_once(socket, &Ask::Status).await? else {
            return Err(Failure::Other(anyhow::anyhow!(
                "the daemon answered something else than its status"
            )));
        };
        match outcome(&status, id) {
            Some(Ok(grant)) => return show::reply(&Reply::Opened(grant), json),
            Some(Err(refusal)) => return Err(Failure::Refused(refusal)),
            None => tokio::time::sleep(POLL).await,
        }
    }
}

fn outcome(
    status: &Status,
    id: RequestId,
) -> Option<Result<enforcer_proto::wire::GrantView, Refusal>> {
    let request = status
        .requests
        .iter()
        .find(|request| request.request == id)?;
    if request.state == "pending" {
        return None;
    }
    if let Some(grant) = request
        .grant
        .and_then(|id| status.grants.iter().find(|grant| grant.grant == id))
    {
        return Some(Ok(grant.clone()));
    }
    let why = request
        .reason
        .clone()
        .unwrap_or_else(|| "nobody decided in time".to_owned());
    Some(Err(Refusal::new(
        Code::NotPending,
        format!("Request {id} was {}: {why}", request.state),
    )))
}

/// Prints the log from its beginning.
pub(super) fn log(
    socket: &Path,
    filter: &log::Filter,
    follow: bool,
    json: bool,
) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut client = connect(socket).await?;
        let unreachable = |error| Failure::Unreachable(socket.to_owned(), error);
        let mut reply = client
            .ask(&Ask::Log { from: 1, follow })
            .await
            .map_err(unreachable)?;
        loop {
            match reply {
                Reply::Records(lines) if lines.is_empty() => return Ok(()),
                Reply::Records(lines) => {
                    lines.iter().for_each(|line| log::print(line, filter, json))
                }
                Reply::Refused(refusal) => return Err(Failure::Refused(refusal)),
                Reply::Requested { .. }
                | Reply::Opened(_)
                | Reply::Done
                | Reply::Status(_)
                | Reply::Joined(_) => {
                    return Err(Failure::Other(anyhow::anyhow!(
                        "the daemon answered something else than the log"
                    )));
                }
            }
            reply = client.next().await.map_err(unreachable)?;
        }
    })
}
