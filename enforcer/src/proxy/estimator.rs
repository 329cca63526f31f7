//! Asks BigQuery, under an identity of the daemon's own, what a query without a window needs. It can do nothing but dry runs, which return no rows
//! and start no job; what comes of one goes into the request for approvers, and never into anything that an agent is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::audit;
use enforcer_proto::event::Event;
use enforcer_proto::principal::AgentName;
use enforcer_proto::query::Method;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::Scope;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::forward::{self, Answer};
use super::verdicts::key;
use super::{Proxy, Session};
use crate::bigquery::estimate::{self, Needed};
use crate::bigquery::job::QueryJob;
use crate::causes::Causes;
use crate::pace::{Bucket, Pace};
use crate::token::EstimatorTokens;
use crate::upstream::Upstream;

/// How long an estimate may take, its token included; then the request is made of the text alone.
pub const ESTIMATE: Duration = Duration::from_secs(10);
/// How long a query waits for its agent's other estimates, of which one is under way at a time; then its request is made of the text alone.
pub const TURN: Duration = Duration::from_secs(10);
/// The most estimates of all agents that are under way; one more is not asked, and its request is made of the text alone.
pub const ESTIMATES_MAX: usize = 16;
/// How often BigQuery is asked for one agent; more often it is not, and the request is made of the text alone.
pub const ESTIMATE_PACE: Pace = Pace {
    burst: 20,
    per_second: 1,
};
/// The longest answer of BigQuery's to an estimate, bytes; a longer one is none.
pub const ESTIMATE_BYTES_MAX: usize = 1024 * 1024;
/// How long what BigQuery said is kept for the same query of the same agent. What it did not say is not.
const KEPT: Duration = Duration::from_secs(60);
/// The most that are kept for one agent; past it the oldest goes.
const KEPT_PER_AGENT_MAX: usize = 8;
/// The key of its connections: no window, session or other part of the daemon has it.
const POOL_KEY: u64 = u64::MAX - 2;

/// The estimator.
#[derive(Debug)]
pub struct Estimator {
    tokens: EstimatorTokens,
    upstream: Arc<Upstream>,
    under_way: Semaphore,
    agents: Mutex<BTreeMap<AgentName, Own>>,
}

/// What there is of one agent. There are no more of them than agents in the configuration.
#[derive(Debug)]
struct Own {
    turn: Arc<Semaphore>,
    pace: Bucket,
    kept: BTreeMap<String, Kept>,
}

#[derive(Debug)]
struct Kept {
    needed: Needed,
    since_boot_ns: u64,
}

impl Default for Own {
    fn default() -> Self {
        Self {
            turn: Arc::new(Semaphore::new(1)),
            pace: Bucket::new(ESTIMATE_PACE),
            kept: BTreeMap::new(),
        }
    }
}

impl Own {
    fn kept(&self, key: &str, now_boot_ns: u64) -> Option<Needed> {
        let kept = self.kept.get(key)?;
        is_young(kept, now_boot_ns).then(|| kept.needed.clone())
    }

    fn keep(&mut self, key: String, needed: Needed, now_boot_ns: u64) {
        self.kept.retain(|_, kept| is_young(kept, now_boot_ns));
        if self.kept.len() >= KEPT_PER_AGENT_MAX {
            let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.since_boot_ns);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                self.kept.remove(&oldest);
            }
        }
        let kept = Kept {
            needed,
            since_boot_ns: now_boot_ns,
        };
        self.kept.insert(key, kept);
    }
}

fn is_young(kept: &Kept, now_boot_ns: u64) -> bool {
    let age_ns = now_boot_ns.saturating_sub(kept.since_boot_ns);
    u128::from(age_ns) < KEPT.as_nanos()
}

/// A query whose needs are wanted.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) method: Method,
    pub(super) job: QueryJob,
    /// The client's project: names without one mean tables of it, and it would be billed if a dry run cost anything.
    pub(super) project: String,
}

impl Estimator {
    /// An estimator with these tokens.
    #[must_use]
    pub fn new(tokens: EstimatorTokens, upstream: Arc<Upstream>) -> Self {
        Self {
            tokens,
            upstream,
            under_way: Semaphore::new(ESTIMATES_MAX),
            agents: Mutex::default(),
        }
    }

    fn of<T>(&self, agent: &AgentName, what: impl FnOnce(&mut Own) -> T) -> T {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        what(agents.entry(agent.clone()).or_default())
    }

    /// Waits for the turn of an agent's query, for at most [`TURN`]; none where it did not come.
    pub(super) async fn turn_of(&self, agent: &AgentName) -> Option<OwnedSemaphorePermit> {
        let turn = self.of(agent, |own| Arc::clone(&own.turn));
        let turn = tokio::time::timeout(TURN, turn.acquire_owned()).await;
        turn.ok()?.ok()
    }

    /// What a query needs, whose text names `named`. Within its agent's turn.
    ///
    /// # Errors
    /// Why it could not be put on record, in which case nothing has left the host.
    pub(super) async fn needed(
        &self,
        proxy: &Proxy,
        session: &Session,
        query: &Query,
        named: &Scope,
    ) -> Result<Needed, Refusal> {
        let agent = &session.requester.agent;
        let labels = [("agent", agent.as_str()), ("host", proxy.host.as_str())];
        let body = estimate::body(&query.job, &labels);
        let key = key(&session.name, &query.project, &body);
        let now = proxy.clock.now().boot_ns;
        if let Some(needed) = self.of(agent, |own| own.kept(&key, now)) {
            return Ok(needed);
        }
        let Ok(_place) = self.under_way.try_acquire() else {
            return Ok(Needed::unknown(&format!(
                "{ESTIMATES_MAX} estimates are under way, and no more may be"
            )));
        };
        if !self.of(agent, |own| own.pace.take(1, now)) {
            return Ok(Needed::unknown(&format!(
                "estimates were asked for this agent more often than {} a second",
                ESTIMATE_PACE.per_second
            )));
        }
        let event = Event::EstimateAsked {
            agent: agent.clone(),
            session: session.requester.session,
            process: session.requester.process.clone(),
            method: query.method,
            project: query.project.clone(),
            sql: query.job.sql().to_owned(),
        };
        if !audit::fits(&event) {
            let why = "the text is too long to be put on record before it would leave the host";
            return Ok(Needed::unknown(why));
        }
        proxy.engine.record(event).await?;
        let dry_run = self.dry_run((&session.name, &query.project), &body);
        let answer = match tokio::time::timeout(ESTIMATE, dry_run).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Ok(Needed::unknown(&why)),
            Err(_) => {
                return Ok(Needed::unknown(&format!(
                    "BigQuery did not answer within {} s",
                    ESTIMATE.as_secs()
                )));
            }
        };
        let said = (answer.status, &answer.json());
        let needed = estimate::read(&query.job, &query.project, named, said).await;
        if answer.status >= 500 {
            return Ok(needed);
        }
        let now = proxy.clock.now().boot_ns;
        self.of(agent, |own| own.keep(key, needed.clone(), now));
        Ok(needed)
    }

    /// The one thing that is done with its tokens.
    async fn dry_run(
        &self,
        place: (&str, &str),
        body: &serde_json::Value,
    ) -> Result<Answer, String> {
        let credential = self.tokens.for_dry_run().await.map_err(|error| {
            tracing::warn!(error = %Causes(&error), "no token for an estimate");
            error.to_string()
        })?;
        let to = (self.upstream.as_ref(), POOL_KEY);
        let asked =
            forward::dry_run_of_nobody(to, &credential, place, body, ESTIMATE_BYTES_MAX).await;
        if let Err(refusal) = &asked
            && refusal.code == Code::TokenDenied
        {
            self.tokens.refused(&credential).await;
        }
        asked.map_err(|refusal| refusal.what)
    }
}

#[cfg(test)]
mod tests {
    use enforcer_proto::time::NS_PER_S;

    use super::*;

    #[test]
    fn what_came_of_an_estimate_is_kept_a_minute_and_only_so_many_are() {
        let mut own = Own::default();
        let needed = |why: usize| Needed::unknown(&why.to_string());
        for at in 0..KEPT_PER_AGENT_MAX + 1 {
            own.keep(at.to_string(), needed(at), at as u64);
        }
        assert_eq!(own.kept.len(), KEPT_PER_AGENT_MAX);
        assert_eq!(own.kept("0", 1), None, "the oldest went");
        assert_eq!(own.kept("1", 60 * NS_PER_S), Some(needed(1)));
        assert_eq!(own.kept("1", 1 + 60 * NS_PER_S), None);
        own.keep("late".into(), needed(0), 120 * NS_PER_S);
        assert_eq!(own.kept.len(), 1);
    }

    #[test]
    fn a_flood_of_different_queries_has_bigquery_asked_no_faster_than_the_pace() {
        let mut own = Own::default();
        let second = |at: u64| (1 + at) * NS_PER_S;
        let asked = (0..1000).filter(|_| own.pace.take(1, second(0)));
        assert_eq!(asked.count(), 20);
        let asked = (0..1000).filter(|_| own.pace.take(1, second(1)));
        assert_eq!(asked.count(), 1);
    }
}
