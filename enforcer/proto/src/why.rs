//! Why something was allowed or refused: what a record decided, by which rule and policy, from which facts. All of it is read from the log,
//! which the caller reaches: the daemon's commands and the console tell the same. It decides nothing and keeps nothing.

mod facts;
mod id;
pub mod verdict;

pub use id::{Id, IdError};

use crate::audit::Record;
use crate::event::Event;
use crate::search::Filter;

/// A log that can be asked.
pub trait Records {
    /// Why it cannot be read.
    type Error;

    /// Hands each record that `filter` wants to `each`, oldest first; with `limit`, only the newest so many.
    ///
    /// # Errors
    /// Where the log cannot be read.
    fn each(
        &self,
        filter: Filter,
        limit: Option<u32>,
        each: &mut dyn FnMut(&Record),
    ) -> Result<(), Self::Error>;

    /// The newest record that `filter` wants.
    ///
    /// # Errors
    /// As [`Records::each`].
    fn newest(&self, filter: Filter) -> Result<Option<Record>, Self::Error> {
        let mut found = None;
        self.each(filter, Some(1), &mut |record| found = Some(record.clone()))?;
        Ok(found)
    }
}

/// Facts by their names, in the order in which they are told.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Facts(pub Vec<(&'static str, String)>);

impl Facts {
    fn add(&mut self, name: &'static str, fact: impl ToString) {
        self.0.push((name, fact.to_string()));
    }
}

/// The facts behind `record`.
///
/// # Errors
/// Where the log cannot be read.
pub fn facts<S: Records>(log: &S, record: &Record) -> Result<Facts, S::Error> {
    facts::of(log, record)
}

/// The most decisions of one kind that are explained: the newest.
const DECISIONS_MAX: u32 = 16;

/// The records that decide on `id`; where it is a request that still waits, the one that asks.
///
/// # Errors
/// Where the log cannot be read.
pub fn decisions<S: Records>(log: &S, id: Id) -> Result<Vec<Record>, S::Error> {
    let mut found = Vec::new();
    let mut look = |filter: Filter, limit: u32| {
        log.each(filter, Some(limit), &mut |record| {
            found.push(record.clone())
        })
    };
    let none = Filter::default();
    let (filter, kinds): (_, &[&str]) = match id {
        Id::Record(seq) => {
            let filter = Filter {
                first: Some(seq),
                last: Some(seq),
                ..none
            };
            look(filter, 1)?;
            return Ok(found);
        }
        Id::Query(query) => (
            Filter {
                query: Some(query),
                ..none
            },
            &["query_admitted"],
        ),
        Id::Grant(grant) => (
            Filter {
                grant: Some(grant),
                ..none
            },
            &["approved", "closed", "reviewed"],
        ),
        Id::Request(request) => (
            Filter {
                request: Some(request),
                ..none
            },
            &[
                "approval_given",
                "approved",
                "denied",
                "request_expired",
                "request_withdrawn",
            ],
        ),
    };
    let of_kind = |kind: &str| Filter {
        kind: Some(kind.to_owned()),
        ..filter.clone()
    };
    for kind in kinds {
        look(of_kind(kind), DECISIONS_MAX)?;
    }
    if found.is_empty() && matches!(id, Id::Request(_)) {
        // It waits: what covers it can be told.
        found.extend(log.newest(of_kind("requested"))?);
    }
    Ok(found)
}

/// What the record says became of what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was let be.
    Allowed,
    /// It was not.
    Refused,
    /// Something ended.
    Ended,
    /// It is only told.
    Told,
}

impl Outcome {
    /// What `event` says.
    #[must_use]
    pub const fn of(event: &Event) -> Self {
        match event {
            Event::Approved { .. }
            | Event::ApprovalGiven { .. }
            | Event::Opened { .. }
            | Event::QueryAdmitted { .. }
            | Event::ProcessJoined { .. }
            | Event::RequestJoined { .. }
            | Event::NamespaceServed { .. }
            | Event::ContainerChanged { .. }
            | Event::Forwarded { .. } => Self::Allowed,
            Event::RequestRefused { .. }
            | Event::PolicyRejected { .. }
            | Event::Denied { .. }
            | Event::RequestExpired { .. }
            | Event::RequestWithdrawn { .. }
            | Event::DecisionRefused { .. }
            | Event::QueryRefused { .. }
            | Event::ConnectionRefused { .. }
            | Event::KernelRefused { .. }
            | Event::NamespaceRefused { .. }
            | Event::FurtherRefused { .. } => Self::Refused,
            Event::Closed { .. } | Event::NamespaceLeft { .. } | Event::JobCancelled { .. } => {
                Self::Ended
            }
            Event::DaemonStarted { .. }
            | Event::DaemonStopped {}
            | Event::TailRepaired { .. }
            | Event::Requested { .. }
            | Event::PolicyLoaded { .. }
            | Event::NotificationFailed { .. }
            | Event::SegmentsRemoved { .. }
            | Event::SnapshotTaken { .. }
            | Event::SnapshotSetAside { .. }
            | Event::Reviewed { .. }
            | Event::AgentLocked { .. }
            | Event::AgentUnlocked { .. }
            | Event::HealthChanged { .. }
            | Event::QueryAsked { .. }
            | Event::EstimateAsked { .. }
            | Event::JobSeen { .. }
            | Event::QueryFinished { .. }
            | Event::EventsLost { .. }
            | Event::TooLong { .. }
            | Event::CredentialPresented { .. }
            | Event::IssuerKeySigns { .. }
            | Event::WayExamined { .. }
            | Event::Detached { .. } => Self::Told,
        }
    }

    /// In a word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Told => "told",
        }
    }
}
