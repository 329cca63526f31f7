//! Every view and every action once more as a command, for scripts: the same words, as text or as JSON, with exit codes that do not change.

use std::io::{self, Write};
use std::path::Path;

use enforcer_proto::id::{GrantId, RequestId};
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::Filter;
use enforcer_proto::text::{safe_line, wrapped};
use enforcer_proto::wire::{Reply, Status};
use serde::Serialize;
use serde_json::json;

use crate::app::popup::{Approval, Deed, grant_lines, request_lines};
use crate::app::tail::Entry;
use crate::app::{Mode, Model, Msg};
use crate::link::{Link, LinkError};
use crate::view::health_lines;

/// How wide lines of text are, characters.
const WIDTH: usize = 100;

/// What can be done without a screen.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Twin {
    /// List what is open, what waits, the agents, or how all is.
    List {
        /// What to list.
        #[arg(value_enum, default_value = "windows")]
        what: Listed,
    },
    /// Show all of a window, a request or an agent.
    Show {
        /// Which: g-17, r-17 or an agent's name.
        what: String,
    },
    /// Agree to a request, as it is offered or to less.
    Approve(Approval),
    /// Deny a request.
    Deny {
        /// Which.
        request: RequestId,
        /// Why, for the one who asked.
        #[arg(long)]
        reason: String,
    },
    /// End a window at once.
    Revoke {
        /// Which.
        grant: GrantId,
    },
    /// End the window of an agent, and keep it from others.
    Lock {
        /// Which.
        agent: AgentName,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Let an agent have windows again.
    Unlock {
        /// Which.
        agent: AgentName,
    },
    /// End every window at once.
    CloseAll,
    /// Follow the log.
    Tail {
        /// How many records from before.
        #[arg(long, default_value_t = 10)]
        limit: u32,
        /// End with the last that is there.
        #[arg(long)]
        no_follow: bool,
    },
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Listed {
    /// Windows, open ones first.
    Windows,
    /// Requests that wait.
    Requests,
    /// Agents.
    Agents,
    /// Whether all is well.
    Health,
}

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TwinError {
    /// The daemon could not be asked, or said no.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// It may only look.
    #[error("this console was started with --read-only")]
    ReadOnly,
    /// It cannot be printed.
    #[error(transparent)]
    Output(#[from] io::Error),
    /// It is no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Does it, and prints what came of it.
pub(crate) fn run(
    socket: &Path,
    twin: Twin,
    is_read_only: bool,
    json: bool,
) -> Result<(), TwinError> {
    let act = |deed: Deed| act(socket, &deed, is_read_only, json);
    match twin {
        Twin::List { what } => list(&Link::to(socket)?.status()?, what, json),
        Twin::Show { what } => show(&Link::to(socket)?.status()?, &what, json),
        Twin::Tail { limit, no_follow } => tail(socket, limit, !no_follow, json),
        Twin::Approve(approval) => act(Deed::Approve(approval)),
        Twin::Deny { request, reason } => act(Deed::Deny { request, reason }),
        Twin::Revoke { grant } => act(Deed::Revoke(grant)),
        Twin::Lock { agent, reason } => act(Deed::Lock { agent, reason }),
        Twin::Unlock { agent } => act(Deed::Unlock(agent)),
        Twin::CloseAll => act(Deed::CloseAll),
    }
}

fn act(socket: &Path, deed: &Deed, is_read_only: bool, json: bool) -> Result<(), TwinError> {
    if is_read_only {
        return Err(TwinError::ReadOnly);
    }
    let reply = Link::to(socket)?.ask(&deed.ask())?;
    if json {
        return print_json(
            &json!({"done": deed.said(), "grant": opened(&reply), "closed": closed(&reply)}),
        );
    }
    print(&[crate::link::feed::said_of(deed, &reply)])
}

fn opened(reply: &Reply) -> Option<String> {
    if let Reply::Opened(grant) = reply {
        return Some(grant.grant.to_string());
    }
    None
}

fn closed(reply: &Reply) -> Vec<String> {
    if let Reply::GivenBack(grants) = reply {
        return grants.iter().map(|grant| grant.grant.to_string()).collect();
    }
    Vec::new()
}

fn print(lines: &[String]) -> Result<(), TwinError> {
    let mut out = io::stdout().lock();
    for line in lines.iter().flat_map(|line| wrapped(line, WIDTH)) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn print_json(value: &impl Serialize) -> Result<(), TwinError> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    Ok(writeln!(out)?)
}

/// The same model as the screen's, so that both say the same.
fn model_of(status: &Status) -> Model {
    let mut model = Model::new(Mode::Full);
    model.update(0, Msg::Status(Box::new(status.clone())));
    model
}

fn list(status: &Status, what: Listed, json: bool) -> Result<(), TwinError> {
    let model = model_of(status);
    let (value, lines): (serde_json::Value, Vec<String>) = match what {
        Listed::Windows => {
            let mut grants: Vec<_> = status.grants.iter().rev().collect();
            grants.sort_by_key(|grant| !grant.open);
            let line = |grant: &&enforcer_proto::wire::GrantView| {
                let state = grant.closed.clone().unwrap_or_else(|| "open".to_owned());
                format!("{}  {}  {}  {state}", grant.grant, grant.agent, grant.scope)
            };
            (json!(grants), grants.iter().map(line).collect())
        }
        Listed::Requests => {
            let waiting: Vec<_> = model.waiting().collect();
            let line = |request: &&enforcer_proto::wire::RequestView| {
                let reason = safe_line(&request.ask.reason, WIDTH);
                format!(
                    "{}  {}  {} for {}: {reason}",
                    request.request, request.agent, request.scope, request.ttl
                )
            };
            (json!(waiting), waiting.iter().map(line).collect())
        }
        Listed::Agents => {
            let line = |agent: &enforcer_proto::wire::AgentView| {
                let lock = agent.locked.as_ref();
                let lock = lock.map_or_else(String::new, |lock| {
                    format!("  LOCKED by {}: {}", lock.by, lock.reason)
                });
                format!(
                    "{}  {} min of 24 h  {} processes{lock}",
                    agent.agent,
                    agent.held_in_day_s.div_ceil(60),
                    agent.processes
                )
            };
            (
                json!(status.agents),
                status.agents.iter().map(line).collect(),
            )
        }
        Listed::Health => {
            let lines = health_lines(&model);
            let value = lines
                .iter()
                .map(|line| json!({"what": line.what, "said": line.said, "bad": line.is_bad}));
            let value = value.collect();
            let texts = lines.iter().map(|line| {
                let mark = if line.is_bad { "✗" } else { "✓" };
                format!("{mark} {}: {}", line.what, line.said)
            });
            (value, texts.collect())
        }
    };
    if json {
        return print_json(&value);
    }
    if lines.is_empty() {
        return print(&["There is none.".to_owned()]);
    }
    print(&lines)
}

fn show(status: &Status, what: &str, json: bool) -> Result<(), TwinError> {
    let model = model_of(status);
    let unknown = || TwinError::Unknown(format!("there is no {} here", safe_line(what, 80)));
    if let Ok(id) = what.parse::<GrantId>() {
        let grant = model.grant(id).ok_or_else(unknown)?;
        if json {
            return print_json(grant);
        }
        return print(&grant_lines(&model, grant));
    }
    if let Ok(id) = what.parse::<RequestId>() {
        let request = status.requests.iter().find(|request| request.request == id);
        let request = request.ok_or_else(unknown)?;
        if json {
            return print_json(request);
        }
        let mut lines = request_lines(&model, request);
        lines.push(format!("digest   {}", request.digest));
        return print(&lines);
    }
    let agent = status
        .agents
        .iter()
        .find(|agent| agent.agent.as_str() == what);
    let agent = agent.ok_or_else(unknown)?;
    if json {
        return print_json(agent);
    }
    print(&crate::view::agent_lines(&model, &agent.agent).unwrap_or_default())
}

fn tail(socket: &Path, limit: u32, follow: bool, json: bool) -> Result<(), TwinError> {
    let mut failed = None;
    let mut each = |lines: Vec<String>| {
        let printed = lines.iter().try_for_each(|line| record(line, json));
        failed = printed.err();
        failed.is_none()
    };
    Link::to(socket)?.records((1, Some(limit)), follow, Filter::default(), &mut each)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn record(line: &str, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{line}");
    }
    match Entry::read(line) {
        Some(entry) => writeln!(
            out,
            "{:>6}  {}  {}",
            entry.record.seq,
            crate::app::popup::clock(entry.record.unix_ns),
            entry.sentence
        ),
        None => writeln!(out, "     ?  a record that this release cannot read"),
    }
}
