//! The rows of each view: what they are, in which order, and which have the text that is looked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

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
    /// A line about the host's health: what it is about, and which one of several about the same.
    Health(String, usize),
}

/// Whether a text has another, whatever their case.
fn has(text: &str, wanted: &str) -> bool {
    text.to_lowercase().contains(wanted)
}

/// The rows of a view as they were made last: they are made anew only when what they are made of has changed. And which records have the text that is
/// looked for: what was looked at once is not looked at again.
#[derive(Debug, Default)]
pub(crate) struct Made(RefCell<Last>);

#[derive(Debug, Default)]
struct Last {
    /// The view, what was looked for in it, in lower case, and the state of what it shows.
    of: Option<(View, String, u64)>,
    rows: Rc<[Row]>,
    /// By the number of a record that never changes.
    has: BTreeMap<u64, bool>,
    /// How many were looked at in all.
    #[cfg(test)]
    looked: u64,
}

impl Last {
    /// Which answers stand for another search: all for the same; for a longer text those that had not even the shorter one.
    fn standing(&mut self, view: View, wanted: &str) -> BTreeMap<u64, bool> {
        let mut has = std::mem::take(&mut self.has);
        match &self.of {
            Some((of, text, _)) if *of == view && text == wanted => {}
            Some((of, text, _)) if *of == view && !text.is_empty() && wanted.contains(&**text) => {
                has.retain(|_, has| !*has);
            }
            Some(_) | None => has.clear(),
        }
        has
    }
}

/// A search through a view: what is looked for, and what is known of it from before.
struct Looking<'a> {
    wanted: &'a str,
    before: BTreeMap<u64, bool>,
    has: BTreeMap<u64, bool>,
    looked: u64,
}

impl Looking<'_> {
    fn wants(&mut self, texts: &[&str]) -> bool {
        if self.wanted.is_empty() {
            return true;
        }
        self.looked += 1;
        texts.iter().any(|text| has(text, self.wanted))
    }

    /// The same of a record, which stays what it is.
    fn wants_record(&mut self, seq: u64, texts: &[&str]) -> bool {
        if self.wanted.is_empty() {
            return true;
        }
        let known = self.before.get(&seq).copied();
        let has = known.unwrap_or_else(|| self.wants(texts));
        self.has.insert(seq, has);
        has
    }
}

impl Model {
    /// The rows of the view that is shown, as they stand on screen.
    pub(crate) fn rows(&self) -> Rc<[Row]> {
        let view = self.view;
        let wanted = self.place().search.to_lowercase();
        let state = match view {
            View::Windows | View::Requests | View::Agents => Some(self.statuses),
            View::Sessions | View::Log | View::Refusals => Some(self.records),
            // A few lines, which move with time as well.
            View::Health => None,
        };
        let mut last = self.made.0.borrow_mut();
        let of = state.map(|state| (view, wanted.clone(), state));
        if of.is_some() && last.of == of {
            return Rc::clone(&last.rows);
        }
        let mut looking = Looking {
            before: last.standing(view, &wanted),
            wanted: &wanted,
            has: BTreeMap::new(),
            looked: 0,
        };
        last.rows = self.filtered(&mut looking).into();
        last.has = looking.has;
        last.of = of;
        #[cfg(test)]
        {
            last.looked += looking.looked;
        }
        Rc::clone(&last.rows)
    }

    fn filtered(&self, looking: &mut Looking<'_>) -> Vec<Row> {
        match self.view {
            View::Windows => self.windows_with(looking),
            View::Requests => {
                let waiting = self.waiting().filter(|request| {
                    looking.wants(&[
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
            View::Sessions => self.queries_with(looking),
            View::Log => {
                let entries = self.tail.iter();
                let entries = entries
                    .filter(|entry| looking.wants_record(entry.record.seq, &[&entry.sentence]));
                entries.map(|entry| Row::Record(entry.record.seq)).collect()
            }
            View::Refusals => {
                let all = self.refusals.iter().filter(|(like, burst)| {
                    looking.wants(&[
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
                let agents =
                    agents.filter(|agent| looking.wants(&[agent.agent.as_str(), &agent.workload]));
                agents
                    .map(|agent| Row::Agent(agent.agent.clone()))
                    .collect()
            }
            View::Health => {
                let lines = crate::view::health_lines(self);
                let lines = lines
                    .iter()
                    .filter(|line| looking.wants(&[&line.what, &line.said]));
                lines
                    .map(|line| Row::Health(line.what.clone(), line.nth))
                    .collect()
            }
        }
    }

    /// Open ones first, the next to close at the top.
    fn windows_with(&self, looking: &mut Looking<'_>) -> Vec<Row> {
        let status = self.status().into_iter();
        let grants = status.flat_map(|status| &status.grants).rev();
        let (mut open, closed): (Vec<_>, Vec<_>) = grants
            .filter(|grant| {
                looking.wants(&[
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

    fn queries_with(&self, looking: &mut Looking<'_>) -> Vec<Row> {
        let queries = self.queries.iter().filter(|query| {
            let sql = query.sql.as_deref().unwrap_or_default();
            let resource = query.resource.as_deref().unwrap_or_default();
            let texts = [
                query.agent.as_str(),
                sql,
                resource,
                &query.method,
                &query.grant.to_string(),
                &query.query.to_string(),
            ];
            looking.wants_record(query.seq, &texts)
        });
        queries.map(|query| Row::Query(query.query)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Mode, Msg, tail::Entry};

    fn admitted(seq: u64, sql: &str) -> Msg {
        let line = format!(
            r#"{{"seq":{seq},"boot_id":"b","boot_ns":1,"unix_ns":1,"event":{{"kind":"query_admitted","query":"q-{seq}","grant":"g-5","agent":"finance-bot","session":"s-9","process":{{"pid":1,"start_boot_ns":1,"uid":1,"comm":"x"}},"method":"jobs.query","sql":"{sql}","tables":[],"bytes":1}},"prev":"x"}}"#
        );
        Msg::Records(vec![Entry::read(&line).expect("a record")], Vec::new())
    }

    fn looked(model: &Model) -> u64 {
        model.made.0.borrow().looked
    }

    #[test]
    fn what_was_looked_at_once_is_not_looked_at_again() {
        let mut model = Model::new(Mode::Full);
        for seq in 1..=1_000 {
            model.update(
                0,
                admitted(
                    seq,
                    if seq % 2 == 0 {
                        "FROM hr.pay"
                    } else {
                        "FROM fin"
                    },
                ),
            );
        }
        model.view = View::Sessions;
        let search = |model: &mut Model, text: &str| {
            text.clone_into(&mut model.places[View::Sessions.place()].search);
        };
        search(&mut model, "from HR");
        assert_eq!(model.rows().len(), 500);
        assert_eq!(looked(&model), 1_000);
        // A frame in which nothing has changed.
        let rows = model.rows();
        model.update(500, Msg::Tick);
        assert!(Rc::ptr_eq(&rows, &model.rows()));
        assert_eq!(looked(&model), 1_000);
        // Only what is new is looked at.
        model.update(600, admitted(1_001, "FROM hr.pay"));
        assert_eq!((model.rows().len(), looked(&model)), (501, 1_001));
        // A longer text is looked for only where the shorter one was.
        search(&mut model, "from hr.p");
        assert_eq!((model.rows().len(), looked(&model)), (501, 1_502));
        search(&mut model, "fin");
        assert_eq!(
            (model.rows().len(), looked(&model)),
            (1_001, 2_503),
            "each is an agent's of that name"
        );
        search(&mut model, "");
        assert_eq!((model.rows().len(), looked(&model)), (1_001, 2_503));
    }
}
