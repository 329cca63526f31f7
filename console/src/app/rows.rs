//! The rows of each view: what they are, in which order, and which have the text that is looked for.

use enforcer_proto::id::{GrantId, QueryId, RequestId};
use enforcer_proto::principal::AgentName;

use super::refusals::Like;
use super::{Model, View};

/// What a row is of. It is selected by this, never by its place: lists move under one's finger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Row {
    /// A window.
    Grant(GrantId),
    /// A request.
    Request(RequestId),
    /// A query.
    Query(QueryId),
    /// A record, by its number.
    Record(u64),
    /// Refusals of one kind.
    Refusal(Like),
    /// An agent.
    Agent(AgentName),
    /// A line about the host's health.
    Health(usize),
}

/// Whether a text has another, whatever their case.
fn has(text: &str, wanted: &str) -> bool {
    text.to_lowercase().contains(wanted)
}

impl Model {
    /// The rows of the view that is shown, as they stand on screen.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let wanted = self.place().search.to_lowercase();
        let wants =
            |texts: &[&str]| wanted.is_empty() || texts.iter().any(|text| has(text, &wanted));
        match self.view {
            View::Windows => {
                let status = self.status().into_iter();
                let grants = status.flat_map(|status| &status.grants).rev();
                // Open ones first, the next to close at the top.
                let (mut open, closed): (Vec<_>, Vec<_>) = grants
                    .filter(|grant| {
                        wants(&[
                            grant.agent.as_str(),
                            &grant.scope.to_string(),
                            &grant.grant.to_string(),
                            &grant.approver,
                        ])
                    })
                    .partition(|grant| grant.open);
                open.sort_by_key(|grant| grant.closes_in_ns);
                let all = open.into_iter().chain(closed);
                all.map(|grant| Row::Grant(grant.grant)).collect()
            }
            View::Requests => {
                let waiting = self.waiting().filter(|request| {
                    wants(&[
                        request.agent.as_str(),
                        &request.ask.scope.to_string(),
                        &request.ask.reason,
                        &request.request.to_string(),
                    ])
                });
                waiting
                    .map(|request| Row::Request(request.request))
                    .collect()
            }
            View::Sessions => {
                let queries = self.queries.iter().filter(|query| {
                    let sql = query.sql.as_deref().unwrap_or_default();
                    let resource = query.resource.as_deref().unwrap_or_default();
                    wants(&[
                        query.agent.as_str(),
                        sql,
                        resource,
                        &query.method,
                        &query.grant.to_string(),
                        &query.query.to_string(),
                    ])
                });
                queries.map(|query| Row::Query(query.query)).collect()
            }
            View::Log => {
                let entries = self.tail.iter().filter(|entry| wants(&[&entry.sentence]));
                entries.map(|entry| Row::Record(entry.record.seq)).collect()
            }
            View::Refusals => {
                let all = self.refusals.iter().filter(|(like, burst)| {
                    wants(&[
                        &like.who,
                        &like.why,
                        &like.what,
                        &like.process,
                        &burst.sentence,
                    ])
                });
                all.map(|(like, _)| Row::Refusal(like.clone())).collect()
            }
            View::Agents => {
                let agents = self.status().into_iter().flat_map(|status| &status.agents);
                let agents = agents.filter(|agent| wants(&[agent.agent.as_str(), &agent.workload]));
                agents
                    .map(|agent| Row::Agent(agent.agent.clone()))
                    .collect()
            }
            View::Health => {
                let lines = crate::view::health_lines(self);
                let lines = lines.iter().enumerate();
                let lines = lines.filter(|(_, line)| wants(&[&line.what, &line.said]));
                lines.map(|(at, _)| Row::Health(at)).collect()
            }
        }
    }

    /// What is selected, and which of `rows` it is. What is gone leaves its place to what is there now.
    pub(crate) fn selected(&self, rows: &[Row]) -> Option<(usize, Row)> {
        let place = self.place();
        if place.follows && matches!(self.view, View::Log | View::Sessions) {
            return rows.last().map(|row| (rows.len() - 1, row.clone()));
        }
        if place.follows && self.view == View::Refusals {
            return rows.first().map(|row| (0, row.clone()));
        }
        let at = place
            .selected
            .as_ref()
            .and_then(|selected| rows.iter().position(|row| row == selected));
        let at = at.unwrap_or(place.row).min(rows.len().checked_sub(1)?);
        rows.get(at).map(|row| (at, row.clone()))
    }
}
