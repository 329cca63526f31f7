//! The queries of windows as they happen, put together from the log's records: what was asked, what came of it. Bounded: the oldest goes first.

use std::collections::{BTreeMap, VecDeque};

use enforcer_proto::audit::Record;
use enforcer_proto::event::Event;
use enforcer_proto::id::{GrantId, QueryId, SessionId};
use enforcer_proto::principal::AgentName;

use serde::Serialize;

/// The most queries that are kept.
pub(crate) const QUERIES_MAX: usize = 2_000;

/// Where a query is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Its answer is not through.
    Running,
    /// Answered, with this HTTP status.
    Answered(u16),
    /// Its answer was cut short, or lost: why.
    Ended(String),
}

/// A query of a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Query {
    pub(crate) query: QueryId,
    pub(crate) grant: GrantId,
    pub(crate) agent: AgentName,
    pub(crate) session: SessionId,
    pub(crate) process: String,
    pub(crate) method: String,
    pub(crate) sql: Option<String>,
    pub(crate) tables: Vec<String>,
    pub(crate) writes: Vec<String>,
    pub(crate) resource: Option<String>,
    /// BigQuery's estimate, or what it cost once that is known, bytes.
    pub(crate) bytes: u64,
    pub(crate) body_bytes: u64,
    pub(crate) asked_unix_ns: u64,
    pub(crate) duration_us: Option<u64>,
    pub(crate) job: Option<String>,
    pub(crate) state: State,
    pub(crate) is_dry_run: bool,
    /// A table that it read outside its window.
    pub(crate) read_outside: Option<String>,
    /// The number of the record that admitted it.
    pub(crate) seq: u64,
}

/// The newest queries, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    all: BTreeMap<QueryId, Query>,
    order: VecDeque<QueryId>,
}

impl Queries {
    pub(crate) fn take(&mut self, record: &Record) {
        if let Event::QueryAdmitted { query, .. } = &record.event {
            let Some(admitted) = admitted(record) else {
                return;
            };
            // The parts of an upload name their query again.
            if self.all.insert(*query, admitted).is_none() {
                self.order.push_back(*query);
            }
            while self.order.len() > QUERIES_MAX {
                if let Some(oldest) = self.order.pop_front() {
                    self.all.remove(&oldest);
                }
            }
        } else if let Event::QueryFinished {
            query,
            status,
            job,
            bytes,
            body_bytes,
            duration_us,
            trouble,
            ..
        } = &record.event
        {
            let Some(held) = self.all.get_mut(query) else {
                return;
            };
            held.state = match (trouble, status) {
                (Some(why), _) => State::Ended(why.clone()),
                (None, Some(status)) => State::Answered(*status),
                (None, None) => State::Ended("no answer".to_owned()),
            };
            held.duration_us = Some(*duration_us);
            held.body_bytes = *body_bytes;
            if *bytes > 0 {
                held.bytes = *bytes;
            }
            if let Some(job) = job {
                held.job = Some(job.to_string());
            }
        } else if let Event::JobSeen {
            query,
            job,
            billed,
            read_outside,
            ..
        } = &record.event
            && let Some(held) = self.all.get_mut(query)
        {
            held.job = Some(job.to_string());
            held.bytes = billed.unwrap_or(held.bytes);
            held.read_outside.clone_from(read_outside);
        }
    }

    /// Newest last.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Query> {
        self.order.iter().filter_map(|query| self.all.get(query))
    }

    pub(crate) fn get(&self, query: QueryId) -> Option<&Query> {
        self.all.get(&query)
    }
}

fn admitted(record: &Record) -> Option<Query> {
    let Event::QueryAdmitted {
        query,
        grant,
        agent,
        session,
        process,
        method,
        sql,
        tables,
        writes,
        resource,
        bytes,
        is_dry_run,
        job,
        ..
    } = &record.event
    else {
        return None;
    };
    Some(Query {
        query: *query,
        grant: *grant,
        agent: agent.clone(),
        session: *session,
        process: format!(
            "pid {} ({}, uid {})",
            process.pid, process.comm, process.uid
        ),
        method: method.to_string(),
        sql: sql.clone(),
        tables: tables.iter().map(ToString::to_string).collect(),
        writes: writes.iter().map(ToString::to_string).collect(),
        resource: resource.clone(),
        bytes: *bytes,
        body_bytes: 0,
        asked_unix_ns: record.unix_ns,
        duration_us: None,
        job: job.as_ref().map(ToString::to_string),
        state: State::Running,
        is_dry_run: *is_dry_run,
        read_outside: None,
        seq: record.seq,
    })
}
