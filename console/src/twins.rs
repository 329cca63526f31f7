//! Every view and every action once more as a command, for scripts: the same words, as text or as JSON, with exit codes that do not change.

use std::io::{self, Write};
use std::path::Path;

use enforcer_proto::id::{GrantId, QueryId, RequestId};
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::Filter;
use enforcer_proto::text::{safe_line, wrapped};
use enforcer_proto::wire::{Reply, Status};
use serde::Serialize;
use serde_json::json;

use crate::app::find::filter_of;
use crate::app::popup::{Approval, Deed, clock, grant_lines, request_lines};
use crate::app::tail::Entry;
use crate::app::{Mode, Model, Msg};
use crate::link::feed::RECORDS_BEFORE;
use crate::link::{Link, LinkError};
use crate::view::{agent_lines, health_lines, query_line, query_lines};

/// How wide lines of text are, characters.
const WIDTH: usize = 100;

/// What can be done without a screen.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Twin {
    /// List what is open, what waits, what was asked and refused lately, the agents, or how all is.
    List {
        /// What to list.
        #[arg(value_enum, default_value = "windows")]
        what: Listed,
    },
    /// Show all of a window, a request, one of the newest queries, or an agent.
    Show {
        /// Which: g-17, r-17, q-17 or an agent's name.
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
    /// Follow the log, or what is wanted of it.
    Tail {
        /// Only what all of this is true of: agent=NAME window=g-1 code=CODE dataset=PROJECT.DATASET kind=KIND sql=WORDS, as the console's :find.
        wanted: Vec<String>,
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
    /// The newest queries of windows.
    Sessions,
    /// What was refused lately, like ones together.
    Refusals,
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
        Twin::List { what } => list(&seen(socket, what.is_of_records())?, what, json),
        Twin::Show { what } => show(&seen(socket, what.parse::<QueryId>().is_ok())?, &what, json),
        Twin::Tail {
            wanted,
            limit,
            no_follow,
        } => {
            let wanted = wanted.join(" ");
            let filter = if wanted.is_empty() {
                Filter::default()
            } else {
                filter_of(&wanted).map_err(TwinError::Unknown)?
            };
            tail(socket, (limit, filter), !no_follow, json)
        }
        Twin::Approve(approval) => act(Deed::Approve(approval)),
        Twin::Deny { request, reason } => act(Deed::Deny { request, reason }),
        Twin::Revoke { grant } => act(Deed::Revoke(grant)),
        Twin::Lock { agent, reason } => act(Deed::Lock { agent, reason }),
        Twin::Unlock { agent } => act(Deed::Unlock { agent, shown: None }),
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

impl Listed {
    /// Whether it is made of the log's newest records.
    const fn is_of_records(self) -> bool {
        match self {
            Self::Sessions | Self::Refusals => true,
            Self::Windows | Self::Requests | Self::Agents | Self::Health => false,
        }
    }
}

/// The same model as the screen's, so that both say the same: with the newest records, where they are wanted.
fn seen(socket: &Path, with_records: bool) -> Result<Model, TwinError> {
    let mut model = Model::new(Mode::Full);
    let status = Link::to(socket)?.status()?;
    model.update(0, Msg::Status(Box::new(status)));
    if with_records {
        let mut each = |lines: Vec<String>| {
            let entries = lines.iter().filter_map(|line| Entry::read(line)).collect();
            model.update(0, Msg::Records(entries, 0));
            true
        };
        let newest = (1, Some(RECORDS_BEFORE));
        Link::to(socket)?.records(newest, false, Filter::default(), &mut each)?;
    }
    Ok(model)
}

/// What is listed: as JSON, and a line each.
type Rows = (serde_json::Value, Vec<String>);

fn list(model: &Model, what: Listed, json: bool) -> Result<(), TwinError> {
    let Some(status) = model.status() else {
        return Ok(());
    };
    let (value, lines) = match what {
        Listed::Windows => windows(status),
        Listed::Requests => requests(model),
        Listed::Sessions => sessions(model),
        Listed::Refusals => refusals(model),
        Listed::Agents => agents(status),
        Listed::Health => health(model),
    };
    if json {
        return print_json(&value);
    }
    if lines.is_empty() {
        return print(&["There is none.".to_owned()]);
    }
    print(&lines)
}

fn windows(status: &Status) -> Rows {
    let mut grants: Vec<_> = status.grants.iter().rev().collect();
    grants.sort_by_key(|grant| !grant.open);
    let line = |grant: &&enforcer_proto::wire::GrantView| {
        let state = grant.closed.clone().unwrap_or_else(|| "open".to_owned());
        format!("{}  {}  {}  {state}", grant.grant, grant.agent, grant.scope)
    };
    (json!(grants), grants.iter().map(line).collect())
}

fn requests(model: &Model) -> Rows {
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

fn sessions(model: &Model) -> Rows {
    let queries: Vec<_> = model.queries.iter().collect();
    let lines = queries.iter().map(|query| query_line(query));
    (json!(queries), lines.collect())
}

fn refusals(model: &Model) -> Rows {
    let value = model
        .refusals
        .iter()
        .map(|(like, burst)| json!({"of": like, "seen": burst}));
    let lines = model.refusals.iter().map(|(like, burst)| {
        format!(
            "{}×  {}  {}  {}: {}",
            burst.count,
            clock(burst.last_unix_ns),
            like.who,
            like.why,
            burst.sentence
        )
    });
    (value.collect(), lines.collect())
}

fn agents(status: &Status) -> Rows {
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

fn health(model: &Model) -> Rows {
    let lines = health_lines(model);
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

fn show(model: &Model, what: &str, json: bool) -> Result<(), TwinError> {
    let unknown = || TwinError::Unknown(format!("there is no {} here", safe_line(what, 80)));
    if let Ok(id) = what.parse::<GrantId>() {
        let grant = model.grant(id).ok_or_else(unknown)?;
        if json {
            return print_json(grant);
        }
        return print(&grant_lines(model, grant));
    }
    if let Ok(id) = what.parse::<QueryId>() {
        let query = model.queries.get(id).ok_or_else(unknown)?;
        if json {
            return print_json(query);
        }
        return print(&query_lines(query));
    }
    if let Ok(id) = what.parse::<RequestId>() {
        let mut requests = model
            .status()
            .into_iter()
            .flat_map(|status| &status.requests);
        let request = requests.find(|request| request.request == id);
        let request = request.ok_or_else(unknown)?;
        if json {
            return print_json(request);
        }
        let mut lines = request_lines(model, request);
        lines.push(format!("digest   {}", request.digest));
        return print(&lines);
    }
    let name = what.parse().map_err(|_| unknown())?;
    let agent = model.agent(&name).ok_or_else(unknown)?;
    if json {
        return print_json(agent);
    }
    print(&agent_lines(model, &agent.agent).unwrap_or_default())
}

fn tail(
    socket: &Path,
    (limit, filter): (u32, Filter),
    follow: bool,
    json: bool,
) -> Result<(), TwinError> {
    let mut failed = None;
    let mut each = |lines: Vec<String>| {
        let printed = lines.iter().try_for_each(|line| record(line, json));
        failed = printed.err();
        failed.is_none()
    };
    Link::to(socket)?.records((1, Some(limit)), follow, filter, &mut each)?;
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
            clock(entry.record.unix_ns),
            entry.sentence
        ),
        None => writeln!(out, "     ?  a record that this release cannot read"),
    }
}
