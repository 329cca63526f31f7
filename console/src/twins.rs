//! Every view and every action once more as a command, for scripts: the same words, as text or as JSON, with exit codes that do not change.

mod ended;
mod print;
mod rows;

use std::io;
use std::path::Path;

use enforcer_proto::checkpoint::Verifier;
use enforcer_proto::id::{GrantId, QueryId, RequestId};
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::Filter;
use enforcer_proto::text::{one_line, safe_line};
use enforcer_proto::why::{self, Id, Outcome};
use enforcer_proto::wire::Reply;
use serde_json::json;

use crate::app::find::filter_of;
use crate::app::popup::{Approval, Deed, request_lines};
use crate::app::signed::{self, Signed, Signer};
use crate::app::tail::Entry;
use crate::app::{Mode, Model, Msg};
use crate::link::feed::RECORDS_BEFORE;
use crate::link::lookup::{Log, explained};
use crate::link::{Link, LinkError, causes};
use crate::view::{agent_lines, query_lines, window_lines};
use print::{print, print_json, print_record};

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
    /// Say why something was allowed or refused, with all that the log has on it.
    Why {
        /// What: 17 (a record, by its number), g-17, r-17 or q-17.
        id: Id,
    },
    /// Everything the log has about a window, a record a line.
    Story {
        /// Which.
        grant: GrantId,
    },
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
    key: Option<Verifier>,
) -> Result<(), TwinError> {
    let act = |deed: Deed| act(socket, &deed, is_read_only, json);
    match twin {
        Twin::List { what } => {
            let is_checked = key.is_some();
            let model = match seen(socket, what.is_of_records(), key) {
                // Who may not read the log may still be told how all is.
                Err(LinkError::Refused(_)) if what == Listed::Health && !is_checked => {
                    seen(socket, false, None)?
                }
                seen => seen?,
            };
            list(&model, what, json)
        }
        Twin::Show { what } => show(
            &seen(socket, what.parse::<QueryId>().is_ok(), None)?,
            &what,
            json,
        ),
        Twin::Why { id } => why(socket, id, json),
        Twin::Story { grant } => story(socket, grant, json),
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
    let thought = ended::ends(&seen(socket, false, None)?, deed);
    let reply = Link::to(socket)?.ask(&deed.ask())?;
    // What the daemon names is what it ended, whatever was known to be open a moment ago.
    let named = crate::link::feed::ended_by(&reply);
    let closed = named.clone().unwrap_or_default();
    let ended = named.unwrap_or(thought);
    // It is done: that its proof cannot be read is said, and is no failure of it.
    let proofs = if ended.is_empty() {
        Ok(Vec::new())
    } else {
        ended::proofs(socket, &ended).map_err(|why| causes(&why))
    };
    if json {
        let proof = proofs.as_ref().map(|proofs| {
            let proofs = proofs.iter().map(|(of, proof)| ended::as_json(of, proof));
            proofs.collect::<Vec<_>>()
        });
        return print_json(&json!({
            "done": deed.said(), "grant": opened(&reply),
            "closed": closed.iter().map(|(grant, _)| grant).collect::<Vec<_>>(),
            "proof": proof.as_ref().ok(), "no_proof": proof.err(),
        }));
    }
    let mut lines = vec![crate::link::feed::said_of(deed, &reply)];
    match &proofs {
        Ok(proofs) => lines.extend(
            proofs
                .iter()
                .flat_map(|(of, proof)| proof.lines(of.0, &of.1)),
        ),
        Err(why) => lines.push(format!("what the log shows of it could not be read: {why}")),
    }
    print(&lines)
}

fn opened(reply: &Reply) -> Option<String> {
    if let Reply::Opened(grant) = reply {
        return Some(grant.grant.to_string());
    }
    None
}

impl Listed {
    /// Whether it is made of the log's newest records.
    const fn is_of_records(self) -> bool {
        match self {
            Self::Sessions | Self::Refusals | Self::Health => true,
            Self::Windows | Self::Requests | Self::Agents => false,
        }
    }
}

/// The same model as the screen's, so that both say the same: with the newest records, where they are wanted. With a key the record that was signed last
/// is among what is looked at, however old it is.
fn seen(socket: &Path, with_records: bool, key: Option<Verifier>) -> Result<Model, LinkError> {
    let mut model = Model::new(Mode::Full);
    model.signer = Signer::new(key);
    let status = Link::to(socket)?.status()?;
    model.update(0, Msg::Status(Box::new(status)));
    if with_records {
        let mut each = |lines: Vec<String>| {
            let entries = lines.iter().filter_map(|line| Entry::read(line)).collect();
            model.update(0, Msg::Records(entries, Vec::new()));
            true
        };
        let newest = (1, Some(RECORDS_BEFORE));
        Link::to(socket)?.records(newest, false, Filter::default(), &mut each)?;
    }
    if let Signed::OfElsewhere { records } = signed::of(&model) {
        let alone = Filter {
            first: Some(records),
            last: Some(records),
            ..Filter::default()
        };
        let found = crate::link::lookup::newest(socket, alone, 1)?;
        found.iter().for_each(|entry| model.signer.compare(entry));
    }
    Ok(model)
}

fn list(model: &Model, what: Listed, json: bool) -> Result<(), TwinError> {
    let mut rows = rows::of(model, what);
    rows.extend(rows::left_out(model, what));
    if json {
        return rows.iter().try_for_each(|(value, _)| print_json(value));
    }
    if rows.is_empty() {
        return print(&["There is none.".to_owned()]);
    }
    // Each is one line, whatever an agent wrote into it.
    let lines: Vec<String> = rows.iter().map(|(_, line)| one_line(line)).collect();
    print(&lines)
}

fn show(model: &Model, what: &str, json: bool) -> Result<(), TwinError> {
    let unknown = || TwinError::Unknown(format!("there is no {} here", safe_line(what, 80)));
    if let Ok(id) = what.parse::<GrantId>() {
        let grant = model.grant(id).ok_or_else(unknown)?;
        if json {
            return print_json(grant);
        }
        return print(&window_lines(model, grant));
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
        let printed = lines.iter().try_for_each(|line| print_record(line, json));
        failed = printed.err();
        failed.is_none()
    };
    Link::to(socket)?.records((1, Some(limit)), follow, filter, &mut each)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// Every record of a window, the oldest first.
fn story(socket: &Path, grant: GrantId, json: bool) -> Result<(), TwinError> {
    let filter = Filter {
        grant: Some(grant),
        ..Filter::default()
    };
    let (mut failed, mut count) = (None, 0);
    let mut each = |lines: Vec<String>| {
        count += lines.len();
        let printed = lines.iter().try_for_each(|line| print_record(line, json));
        failed = printed.err();
        failed.is_none()
    };
    Link::to(socket)?.records((1, None), false, filter, &mut each)?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if count == 0 {
        return Err(TwinError::Unknown(format!(
            "nothing in the log concerns {grant}"
        )));
    }
    Ok(())
}

/// Why something was allowed or refused, with all that the log has on it.
fn why(socket: &Path, id: Id, json: bool) -> Result<(), TwinError> {
    let log = Log(socket);
    let decisions = why::decisions(&log, id)?;
    if decisions.is_empty() {
        return Err(TwinError::Unknown(format!(
            "nothing in the log decides on {id}; a refused query has no number of its own: find its record with `tail code=CODE`"
        )));
    }
    for record in &decisions {
        if json {
            let facts = why::facts(&log, record)?.0.into_iter();
            let facts: serde_json::Map<String, serde_json::Value> = facts
                .map(|(name, fact)| (name.replace(' ', "_"), fact.into()))
                .collect();
            let outcome = Outcome::of(&record.event).word();
            print_json(&json!({"outcome": outcome, "facts": facts, "record": record}))?;
        } else {
            print(&explained(socket, record)?)?;
        }
    }
    Ok(())
}
