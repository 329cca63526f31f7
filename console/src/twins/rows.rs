//! What `list` prints: of each thing one object, or one line.

use enforcer_proto::size;
use enforcer_proto::wire::{AgentView, GrantView, RequestView};
use serde_json::{Value, json};

use super::Listed;
use crate::app::Model;
use crate::app::popup::{clock, minutes_seconds};
use crate::view::{health_lines, query_line};

/// One thing: as JSON, and in a line.
type Row = (Value, String);

/// All that is listed.
pub(super) fn of(model: &Model, what: Listed) -> Vec<Row> {
    match what {
        Listed::Windows => windows(model),
        Listed::Requests => requests(model),
        Listed::Sessions => sessions(model),
        Listed::Refusals => refusals(model),
        Listed::Agents => agents(model),
        Listed::Health => health(model),
    }
}

fn windows(model: &Model) -> Vec<Row> {
    let status = model.status().into_iter();
    let mut grants: Vec<_> = status.flat_map(|status| &status.grants).rev().collect();
    grants.sort_by_key(|grant| !grant.open);
    let row = |grant: &GrantView| (json!(grant), window(model, grant));
    grants.into_iter().map(row).collect()
}

fn window(model: &Model, grant: &GrantView) -> String {
    let state = match &grant.closed {
        None if grant.open => {
            let left = minutes_seconds(model.left_ns(grant.closes_in_ns));
            let emergency = if grant.break_glass.is_some() {
                " IN AN EMERGENCY"
            } else {
                ""
            };
            format!("open{emergency}, closes in {left}")
        }
        None => "past its end".to_owned(),
        Some(why) => format!("closed: {why}"),
    };
    format!(
        "{}  {}  {}  {state}; {}/{} queries, {} of {} and {} held; by {}",
        grant.grant,
        grant.agent,
        grant.scope,
        grant.queries,
        grant.queries_max,
        size::short(grant.bytes),
        size::short(grant.bytes_max),
        size::short(grant.held_bytes),
        grant.approver
    )
}

fn requests(model: &Model) -> Vec<Row> {
    let line = |request: &RequestView| {
        format!(
            "{}  {}  {} for {}, waits {} more: {}",
            request.request,
            request.agent,
            request.scope,
            request.ttl,
            minutes_seconds(model.left_ns(request.expires_in_ns)),
            request.ask.reason
        )
    };
    let waiting = model.waiting();
    waiting
        .map(|request| (json!(request), line(request)))
        .collect()
}

fn sessions(model: &Model) -> Vec<Row> {
    let queries = model.queries.iter();
    queries
        .map(|query| (json!(query), query_line(query)))
        .collect()
}

fn refusals(model: &Model) -> Vec<Row> {
    let rows = model.refusals.iter().map(|(like, burst)| {
        let line = format!(
            "{}×  {}  {}  {}: {}",
            burst.count,
            clock(burst.last_unix_ns),
            like.who,
            like.why,
            burst.sentence
        );
        (json!({"of": like, "seen": burst}), line)
    });
    rows.collect()
}

fn agents(model: &Model) -> Vec<Row> {
    let line = |agent: &AgentView| {
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
    let status = model.status().into_iter();
    let agents = status.flat_map(|status| &status.agents);
    agents.map(|agent| (json!(agent), line(agent))).collect()
}

fn health(model: &Model) -> Vec<Row> {
    let row = |line: crate::view::HealthLine| {
        (
            json!({"what": line.what, "said": line.said, "state": line.state.word()}),
            format!("{} {}: {}", line.state.mark(), line.what, line.said),
        )
    };
    health_lines(model).into_iter().map(row).collect()
}
