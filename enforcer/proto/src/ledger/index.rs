//! What of the ledger is due, whose it is, and what has ended, without a walk over all of it: a host may have ten thousand open windows, and
//! this is asked at every request.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{ENDED_KEPT, Grant, Request, RequestState};
use crate::id::{GrantId, RequestId};
use crate::principal::AgentName;

/// How many ended grants are looked at each time one more has ended: those that must stay are passed over again and again.
const LOOKED_AT_ONCE: usize = 64;

/// One agent's, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Own {
    grants: BTreeSet<GrantId>,
    pending: BTreeSet<RequestId>,
}

/// Follows every change of a request or a grant. What it says is what the entries say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    /// Open grants by when they close as things are, boot clock.
    closing: BTreeSet<(u64, GrantId)>,
    /// Under which time each of them stands there.
    due: BTreeMap<GrantId, u64>,
    /// Pending requests by when they expire, boot clock.
    expiring: BTreeSet<(u64, RequestId)>,
    /// Open grants that must close whatever the time: spent, or something outside was read.
    over: BTreeSet<GrantId>,
    own: BTreeMap<AgentName, Own>,
    ended_grants: BTreeSet<GrantId>,
    ended_requests: BTreeSet<RequestId>,
    /// Pending requests that were made of queries.
    of_queries: BTreeSet<RequestId>,
}

impl Index {
    /// Takes in a new grant.
    pub(super) fn new_grant(&mut self, grant: &Grant) {
        self.own_of(&grant.agent).grants.insert(grant.id);
        self.grant(grant);
    }

    /// Takes in a grant that has changed.
    pub(super) fn grant(&mut self, grant: &Grant) {
        let id = grant.id;
        self.forget_due(id);
        if grant.closed.is_some() {
            self.over.remove(&id);
            self.ended_grants.insert(id);
            return;
        }
        let due = grant.due_boot_ns();
        self.closing.insert((due, id));
        self.due.insert(id, due);
        if grant.usage.has_read_outside() || grant.is_spent() {
            self.over.insert(id);
        } else {
            self.over.remove(&id);
        }
    }

    /// Takes in a request as it is now, new or changed.
    pub(super) fn request(&mut self, request: &Request) {
        let (due, id) = ((request.expires_boot_ns, request.id), request.id);
        match request.state {
            RequestState::Pending => {
                self.expiring.insert(due);
                self.own_of(&request.agent).pending.insert(id);
                if request.from_query.is_some() {
                    self.of_queries.insert(id);
                }
            }
            RequestState::Approved(_)
            | RequestState::Denied(_)
            | RequestState::Expired
            | RequestState::Withdrawn => {
                self.expiring.remove(&due);
                self.of_queries.remove(&id);
                self.own_of(&request.agent).pending.remove(&id);
                self.forget_idle(&request.agent);
                self.ended_requests.insert(id);
            }
        }
    }

    /// The oldest ended grants past those that are kept, so many of them as are looked at in one go.
    pub(super) fn old_grants(&self) -> Vec<GrantId> {
        let past = self.ended_grants.len().saturating_sub(ENDED_KEPT);
        let oldest = self.ended_grants.iter().take(past.min(LOOKED_AT_ONCE));
        oldest.copied().collect()
    }

    /// The oldest ended request past those that are kept; its owner has forgotten it when it asks again.
    pub(super) fn take_old_request(&mut self) -> Option<RequestId> {
        (self.ended_requests.len() > ENDED_KEPT).then(|| self.ended_requests.pop_first())?
    }

    fn forget_due(&mut self, id: GrantId) {
        if let Some(due) = self.due.remove(&id) {
            self.closing.remove(&(due, id));
        }
    }

    /// A grant is not remembered any more, or not as it was.
    pub(super) fn forget_grant(&mut self, grant: &Grant) {
        self.forget_due(grant.id);
        self.over.remove(&grant.id);
        self.ended_grants.remove(&grant.id);
        self.own_of(&grant.agent).grants.remove(&grant.id);
        self.forget_idle(&grant.agent);
    }

    /// Likewise of a request.
    pub(super) fn forget_request(&mut self, request: &Request) {
        self.expiring.remove(&(request.expires_boot_ns, request.id));
        self.ended_requests.remove(&request.id);
        self.of_queries.remove(&request.id);
        self.own_of(&request.agent).pending.remove(&request.id);
        self.forget_idle(&request.agent);
    }

    /// The earliest deadline, boot clock.
    pub(super) fn due(&self) -> Option<u64> {
        let closing = self.closing.first().map(|(at, _)| *at);
        let expiring = self.expiring.first().map(|(at, _)| *at);
        closing.into_iter().chain(expiring).min()
    }

    /// The open grants that must close at `boot_ns`, oldest first.
    pub(super) fn closing_at(&self, boot_ns: u64) -> BTreeSet<GrantId> {
        let due = self.closing.range(..=(boot_ns, GrantId(u64::MAX)));
        due.map(|(_, id)| *id)
            .chain(self.over.iter().copied())
            .collect()
    }

    /// The pending requests that expire at `boot_ns`, oldest first.
    pub(super) fn expiring_at(&self, boot_ns: u64) -> BTreeSet<RequestId> {
        let due = self.expiring.range(..=(boot_ns, RequestId(u64::MAX)));
        due.map(|(_, id)| *id).collect()
    }

    /// All open grants, past their end or not.
    pub(super) fn open(&self) -> impl Iterator<Item = GrantId> {
        self.closing.iter().map(|(_, id)| *id)
    }

    /// An agent's grants that are remembered, newest first.
    pub(super) fn grants_of(&self, agent: &AgentName) -> impl Iterator<Item = GrantId> {
        let own = self.own.get(agent).into_iter();
        own.flat_map(|own| own.grants.iter().rev().copied())
    }

    /// How many requests of an agent's wait.
    pub(super) fn pending_of(&self, agent: &AgentName) -> usize {
        self.own.get(agent).map_or(0, |own| own.pending.len())
    }

    /// An agent's requests that wait, oldest first.
    pub(super) fn pending_ids(&self, agent: &AgentName) -> impl Iterator<Item = RequestId> {
        let own = self.own.get(agent).into_iter();
        own.flat_map(|own| own.pending.iter().copied())
    }

    /// How many requests wait that were made of queries, of all agents.
    pub(super) fn of_queries(&self) -> usize {
        self.of_queries.len()
    }

    /// Whether a request waits that was made of a query.
    pub(super) fn is_of_query(&self, id: RequestId) -> bool {
        self.of_queries.contains(&id)
    }

    fn own_of(&mut self, agent: &AgentName) -> &mut Own {
        self.own.entry(agent.clone()).or_default()
    }

    /// An agent of whom nothing is remembered is not held.
    fn forget_idle(&mut self, agent: &AgentName) {
        let is_idle = |own: &Own| own.grants.is_empty() && own.pending.is_empty();
        if self.own.get(agent).is_some_and(is_idle) {
            self.own.remove(agent);
        }
    }
}
