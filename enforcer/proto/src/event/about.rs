//! What a record concerns: whose it is, which request, window, query and tables it is about. Each kind of event says so once, here.

use super::Event;
use crate::id::{GrantId, QueryId, RequestId, SessionId};
use crate::principal::{AgentName, ContainerOrigin, Process};
use crate::refusal::{Code, Refusal};
use crate::scope::{DatasetRef, Scope, TableRef};

/// What one record concerns. What a kind of event does not name is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About<'a> {
    /// The agent.
    pub agent: Option<&'a AgentName>,
    /// The request for a window.
    pub request: Option<RequestId>,
    /// The window.
    pub grant: Option<GrantId>,
    /// The query.
    pub query: Option<QueryId>,
    /// The connection.
    pub session: Option<SessionId>,
    /// The datasets that are asked for or granted; those of `tables` are not named again.
    pub datasets: Vec<DatasetRef>,
    /// The tables that are read, written or kept out of reach.
    pub tables: Vec<TableRef>,
    /// Why not, where something was refused.
    pub code: Option<Code>,
    /// The process that acted.
    pub process: Option<&'a Process>,
    /// The container that it is in.
    pub container: Option<&'a ContainerOrigin>,
    /// The text of the query, or as much of it as is on record.
    pub sql: Option<&'a str>,
}

impl<'a> About<'a> {
    /// What `event` concerns.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of event")]
    pub fn of(event: &'a Event) -> Self {
        match event {
            Event::Requested {
                request,
                agent,
                process,
                ask,
                origin,
                ..
            } => Self {
                request: Some(*request),
                agent: Some(agent),
                process: Some(process),
                container: origin
                    .as_ref()
                    .and_then(|origin| origin.container.as_deref()),
                datasets: datasets(&ask.scope),
                ..Self::default()
            },
            Event::RequestRefused {
                caller,
                ask,
                refusal,
            } => Self {
                agent: caller.agent.as_ref(),
                process: Some(&caller.process),
                datasets: ask
                    .as_ref()
                    .map_or_else(Vec::new, |ask| datasets(&ask.scope)),
                code: Some(refusal.code),
                ..Self::default()
            },
            Event::Approved {
                request,
                grant,
                agent,
                scope,
                ..
            } => Self {
                request: Some(*request),
                grant: Some(*grant),
                agent: Some(agent),
                datasets: datasets(scope),
                ..Self::default()
            },
            Event::ApprovalGiven {
                request,
                agent,
                scope,
                ..
            } => Self {
                request: Some(*request),
                agent: Some(agent),
                datasets: datasets(scope),
                ..Self::default()
            },
            Event::Opened { grant, agent } | Event::Reviewed { grant, agent, .. } => Self {
                grant: Some(*grant),
                agent: Some(agent),
                ..Self::default()
            },
            Event::AgentLocked { agent, .. } | Event::AgentUnlocked { agent, .. } => Self {
                agent: Some(agent),
                ..Self::default()
            },
            Event::Closed {
                grant, agent, by, ..
            } => Self {
                grant: Some(*grant),
                agent: Some(agent),
                process: by.as_ref(),
                ..Self::default()
            },
            Event::Denied { request, agent, .. }
            | Event::RequestWithdrawn { request, agent, .. }
            | Event::RequestExpired { request, agent } => Self {
                request: Some(*request),
                agent: Some(agent),
                ..Self::default()
            },
            Event::RequestJoined {
                request,
                agent,
                process,
            } => Self {
                request: Some(*request),
                agent: Some(agent),
                process: Some(process),
                ..Self::default()
            },
            Event::DecisionRefused {
                caller,
                action,
                refusal,
            } => Self {
                request: named(action),
                grant: named(action),
                agent: caller.agent.as_ref(),
                process: Some(&caller.process),
                code: Some(refusal.code),
                ..Self::default()
            },
            Event::QueryAsked {
                grant,
                agent,
                session,
                process,
                sql,
                ..
            } => Self {
                grant: Some(*grant),
                agent: Some(agent),
                session: Some(*session),
                process: Some(process),
                sql: Some(sql),
                ..Self::default()
            },
            Event::EstimateAsked {
                agent,
                session,
                process,
                sql,
                ..
            } => Self {
                agent: Some(agent),
                session: Some(*session),
                process: Some(process),
                sql: Some(sql),
                ..Self::default()
            },
            Event::QueryAdmitted {
                query,
                grant,
                agent,
                session,
                process,
                container,
                sql,
                tables,
                writes,
                ..
            } => Self {
                query: Some(*query),
                grant: Some(*grant),
                agent: Some(agent),
                session: Some(*session),
                process: Some(process),
                container: container.as_deref(),
                tables: tables.iter().chain(writes).cloned().collect(),
                sql: sql.as_deref(),
                ..Self::default()
            },
            Event::JobSeen {
                query,
                grant,
                destination,
                read_outside,
                ..
            } => Self {
                query: Some(*query),
                grant: Some(*grant),
                tables: destination
                    .iter()
                    .cloned()
                    .chain(read_outside.iter().filter_map(|table| table.parse().ok()))
                    .collect(),
                ..Self::default()
            },
            Event::QueryFinished {
                query,
                grant,
                destination,
                ..
            } => Self {
                query: Some(*query),
                grant: Some(*grant),
                tables: destination.iter().cloned().collect(),
                ..Self::default()
            },
            Event::JobCancelled { grant, .. } => Self {
                grant: Some(*grant),
                ..Self::default()
            },
            Event::QueryRefused {
                grant,
                agent,
                session,
                process,
                container,
                sql,
                refusal,
                ..
            } => Self {
                grant: *grant,
                agent: Some(agent),
                session: Some(*session),
                process: Some(process),
                container: container.as_deref(),
                tables: refused(refusal),
                datasets: refused(refusal),
                code: Some(refusal.code),
                sql: sql.as_deref(),
                ..Self::default()
            },
            Event::ConnectionRefused {
                agent,
                process,
                refusal,
                ..
            } => Self {
                agent: agent.as_ref(),
                process: process.as_ref(),
                code: Some(refusal.code),
                ..Self::default()
            },
            Event::KernelRefused { agent, process, .. } => Self {
                agent: agent.as_ref(),
                process: Some(process),
                ..Self::default()
            },
            Event::FurtherRefused { agent, code, .. } => Self {
                agent: agent.as_ref(),
                code: *code,
                ..Self::default()
            },
            Event::NamespaceLeft { agent, .. } | Event::ContainerChanged { agent, .. } => Self {
                agent: Some(agent),
                ..Self::default()
            },
            Event::ProcessJoined { agent, process }
            | Event::NamespaceServed { agent, process, .. }
            | Event::NamespaceRefused { agent, process, .. } => Self {
                agent: Some(agent),
                process: Some(process),
                ..Self::default()
            },
            Event::WayExamined { process, .. } => Self {
                process: Some(process),
                ..Self::default()
            },
            Event::CredentialPresented { agent, process, .. }
            | Event::Forwarded { agent, process, .. } => Self {
                agent: Some(agent),
                process: process.as_ref(),
                ..Self::default()
            },
            Event::DaemonStarted { .. }
            | Event::DaemonStopped {}
            | Event::IssuerKeySigns { .. }
            | Event::TailRepaired { .. }
            | Event::HealthChanged { .. }
            | Event::Detached { .. }
            | Event::PolicyLoaded { .. }
            | Event::NotificationFailed { .. }
            | Event::SegmentsRemoved { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotSetAside { .. }
            | Event::PolicyRejected { .. }
            | Event::EventsLost { .. }
            | Event::TooLong { .. } => Self::default(),
        }
    }

    /// Whether it is about this dataset, or a table of it.
    #[must_use]
    pub fn names_dataset(&self, dataset: &DatasetRef) -> bool {
        self.datasets.contains(dataset)
            || self.tables.iter().any(|table| table.dataset() == dataset)
    }

    /// Whether it is about this table, or a partition of it.
    #[must_use]
    pub fn names_table(&self, table: &TableRef) -> bool {
        self.tables
            .iter()
            .any(|named| named.is_same_but_for_part(table))
    }
}

fn datasets(scope: &Scope) -> Vec<DatasetRef> {
    scope
        .datasets()
        .map(|(dataset, _)| dataset.clone())
        .collect()
}

/// The id that an action such as `approve r-3` ends with, if it is one of this kind.
fn named<T: std::str::FromStr>(action: &str) -> Option<T> {
    action.rsplit(' ').next().and_then(|last| last.parse().ok())
}

/// What a refusal for being outside the scope names. Its sentence is all that is on record of that; what stands behind the window's name is
/// what the window covers.
fn refused<T: std::str::FromStr>(refusal: &Refusal) -> Vec<T> {
    if !matches!(refusal.code, Code::ScopeOutside | Code::ScopeReadOnly) {
        return Vec::new();
    }
    let named = refusal.what.split(" window ").next().unwrap_or_default();
    let words = named.split(|c: char| c.is_whitespace() || matches!(c, ',' | ';' | '`'));
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_for_its_scope_concerns_the_table_it_names_and_not_what_the_window_covers() {
        let refusal = Refusal::new(
            Code::ScopeOutside,
            "Access Denied: table p-one.hr.salaries is outside window g-1 of agent bot, which covers p-one.finance:read",
        );
        let tables: Vec<TableRef> = refused(&refusal);
        assert_eq!(tables, ["p-one.hr.salaries".parse().expect("a table")]);
        let other = Refusal::new(Code::WindowNone, "table p-one.hr.salaries");
        assert!(refused::<TableRef>(&other).is_empty());
    }

    #[test]
    fn a_refused_decision_concerns_the_request_or_window_it_was_about() {
        assert_eq!(named("approve r-3"), Some(RequestId(3)));
        assert_eq!(named::<GrantId>("approve r-3"), None);
        assert_eq!(named::<GrantId>("join bot"), None);
    }
}
