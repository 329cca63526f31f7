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

/// What of it found no room in what the daemon told, or is not kept here: as JSON, and in a line.
pub(super) fn left_out(model: &Model, what: Listed) -> Option<Row> {
    let status = model.status()?;
    let may_be_open = status.open_left_out_max();
    let (count, said) = match what {
        Listed::Windows if may_be_open > 0 => (
            status.grants_left_out,
            "windows that find no room here and may be open; the log has them",
        ),
        Listed::Windows => (
            status.grants_left_out,
            "windows that have ended and find no room here; the log has them",
        ),
        Listed::Requests => (
            status.requests_waiting_left_out,
            "requests that wait and find no room here: `enforcer status --request REQUEST` shows one",
        ),
        Listed::Agents => (status.agents_left_out, "agents that find no room here"),
        Listed::Refusals => (
            model.refusals.let_go(),
            "kinds of refusals that find no room here; the log has them",
        ),
        Listed::Sessions | Listed::Health => return None,
    };
    let mut value = json!({"left_out": count});
    if what == Listed::Windows {
        value["may_be_open"] = may_be_open.into();
    }
    (count > 0).then(|| (value, format!("and {count} more {said}")))
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
    let may_be_open = model.open_left_out_max() > 0;
    let line = |agent: &AgentView| {
        // No window is listed for it, and yet it may have one.
        let is_unsure = may_be_open && !model.open().any(|grant| grant.agent == agent.agent);
        let unsure = if is_unsure {
            "  whether it has a window is not known here"
        } else {
            ""
        };
        let lock = agent.locked.as_ref();
        let lock = lock.map_or_else(String::new, |lock| {
            format!("  LOCKED by {}: {}", lock.by, lock.reason)
        });
        format!(
            "{}  {} min of 24 h  {} processes{unsure}{lock}",
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

#[cfg(test)]
mod tests {
    use enforcer_proto::wire::CURRENT_TOLD_MAX;

    use super::*;
    use crate::app::{Mode, Msg};

    fn told(change: impl FnOnce(&mut enforcer_proto::wire::Status)) -> Model {
        let mut model = Model::new(Mode::Full);
        for msg in crate::demo::story().expect("it is well made") {
            model.update(0, msg);
        }
        let mut status = model.status().expect("one came").clone();
        change(&mut status);
        model.update(0, Msg::Status(Box::new(status)));
        model
    }

    #[test]
    fn what_found_no_room_is_listed_as_that_for_people_and_scripts() {
        let whole = told(|_| {});
        for what in [
            Listed::Windows,
            Listed::Requests,
            Listed::Agents,
            Listed::Refusals,
        ] {
            assert_eq!(left_out(&whole, what), None, "{what:?}");
        }
        let model = told(|status| {
            status.grants.retain(|grant| grant.open);
            status.grants_left_out = 5;
            status.requests_waiting_left_out = 6;
            status.agents_left_out = 7;
        });
        let (value, line) = left_out(&model, Listed::Windows).expect("some are");
        assert_eq!(value, json!({"left_out": 5, "may_be_open": 5}));
        assert!(
            line.starts_with("and 5 more windows") && line.contains("may be open"),
            "{line}"
        );
        let (value, _) = left_out(&model, Listed::Requests).expect("some are");
        assert_eq!(value, json!({"left_out": 6}));
        let (value, _) = left_out(&model, Listed::Agents).expect("some are");
        assert_eq!(value, json!({"left_out": 7}));
        let unsure = agents(&model)
            .iter()
            .filter(|(_, line)| line.contains("not known"))
            .count();
        assert_eq!(
            unsure,
            status_agents(&model) - 2,
            "two are known to have one"
        );
        // Open ones come first: beside one that has ended only others that have can be left out.
        let model = told(|status| status.grants_left_out = 5);
        let (value, line) = left_out(&model, Listed::Windows).expect("some are");
        assert_eq!(value, json!({"left_out": 5, "may_be_open": 0}));
        assert!(line.contains("have ended"), "{line}");
        // Unless as many are open as are told of at most.
        let model = told(|status| {
            let open = status.grants.iter().find(|grant| grant.open).cloned();
            let open = open.expect("one is open");
            status.grants.extend(vec![open; CURRENT_TOLD_MAX]);
            status.grants_left_out = 5;
        });
        let (value, _) = left_out(&model, Listed::Windows).expect("some are");
        assert_eq!(value["may_be_open"], 5);
        let model = told(|status| status.grants_left_out = 5);
        assert!(
            agents(&model)
                .iter()
                .all(|(_, line)| !line.contains("not known"))
        );
    }

    fn status_agents(model: &Model) -> usize {
        model.status().map_or(0, |status| status.agents.len())
    }
}
