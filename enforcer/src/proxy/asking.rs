//! Requests without a window, of agents whose queries may ask: each becomes a request for a window that names what it needs, or joins one that
//! waits. Its client is held until that is decided, for a while, or is told the request's number at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::asking::FromQuery;
use enforcer_proto::id::RequestId;
use enforcer_proto::ledger::Wanted;
use enforcer_proto::principal::{AgentName, ProcessOrigin};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::Scope;
use enforcer_proto::time::Ttl;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::asked::{Asked, What};
use super::request::{No, current_window, record};
use super::{Proxy, Session, estimator};
use crate::bigquery::estimate::Needed;
use crate::bigquery::job::Job;
use crate::bigquery::needs;
use crate::bigquery::route::Target;
use crate::config::WhenAsked;
use crate::engine::{Decided, NewQuery, OpenWindow, Waits};

/// How long a client is held at most, with the time in which BigQuery is asked what its query needs: clients wait for 130 s without complaint.
pub const HOLD: Duration = Duration::from_secs(110);
/// The most requests of one agent that are held at once; one more is answered at once with the number of the request that waits.
pub const HELD_PER_AGENT_MAX: usize = 32;
/// The most of all agents; likewise.
pub const HELD_MAX: usize = 1024;

/// What an agent's queries do without a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asks {
    /// What becomes of them.
    pub when: WhenAsked,
    /// For how long a window is asked, at most.
    pub ttl: Ttl,
}

/// Who is held, and when that ends for all.
#[derive(Debug, Default)]
pub struct Asking {
    held: Arc<Holds>,
    stop: CancellationToken,
    /// Waited for when the daemon stops: each is still answered, on record.
    tasks: TaskTracker,
}

impl Asking {
    /// Nobody is held. All are answered at `stop`, and counted among `tasks` until they are.
    #[must_use]
    pub fn new(stop: CancellationToken, tasks: TaskTracker) -> Self {
        Self {
            held: Arc::default(),
            stop,
            tasks,
        }
    }
}

#[derive(Debug, Default)]
struct Holds(Mutex<BTreeMap<AgentName, usize>>);

/// A place for one that is held; given back on drop, when its client goes away as well.
#[derive(Debug)]
struct Held {
    holds: Arc<Holds>,
    agent: AgentName,
}

impl Holds {
    fn take(self: &Arc<Self>, agent: &AgentName) -> Option<Held> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.get(agent).copied().unwrap_or(0);
        if own >= HELD_PER_AGENT_MAX || held.values().sum::<usize>() >= HELD_MAX {
            return None;
        }
        held.insert(agent.clone(), own + 1);
        Some(Held {
            holds: Arc::clone(self),
            agent: agent.clone(),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut held = self.holds.0.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.agent) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(held.remove(&self.agent)),
        }
    }
}

/// What the configuration says of an agent's queries without a window; none where they ask for nothing.
pub(super) fn asks(proxy: &Proxy, session: &Session) -> Option<Asks> {
    let rules = proxy.rules.get(&session.requester.agent)?;
    rules.asks.filter(|asks| match asks.when {
        WhenAsked::Hold | WhenAsked::Refuse => true,
        WhenAsked::Off => false,
    })
}

async fn origin_of(proxy: &Proxy, session: &Session) -> Option<ProcessOrigin> {
    proxy.processes.of(&session.requester.process).await
}

/// A window for a request that has none; `none` is what it would be told otherwise, `line` its method and path.
pub(super) async fn window(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    (asked, line): (&Asked, &str),
    none: Refusal,
) -> Result<Arc<OpenWindow>, No> {
    let Some(asks) = asks(proxy, session) else {
        return Err(No::New(none));
    };
    let until = Instant::now() + HOLD;
    let Some(scope) = needed(asked).await? else {
        return Err(No::New(none));
    };
    let sql = asked.sql();
    let query = NewQuery {
        requester: session.requester.clone(),
        wanted: Wanted {
            scope,
            ttl: asks.ttl,
            from: FromQuery::of_text(asked.route.method, sql),
            needs: None,
        },
        origin: origin_of(proxy, session).await,
        is_tried: false,
    };
    let (request, told) = match come_to(proxy, session, asked, query).await? {
        Waits::Open(window) => return Ok(window),
        Waits::For(request, told) => (request, told),
        // It was not only tried.
        Waits::WouldAsk => return Err(No::New(none)),
    };
    let place = match asks.when {
        WhenAsked::Hold => proxy.asking.held.take(&session.requester.agent),
        WhenAsked::Refuse | WhenAsked::Off => None,
    };
    let Some(_place) = place else {
        return Err(No::New(waits(session, request)));
    };
    let _answered = proxy.asking.tasks.token();
    match held(&proxy.asking.stop, told, until).await {
        End::Decided(Ok(())) => Ok(current_window(proxy, session)?),
        End::Decided(Err(refusal)) => Err(No::New(said(refusal))),
        End::Late => Err(No::New(waits(session, request))),
        // On record before the engine ends.
        End::Stopping => {
            let (line, sql) = (line.to_owned(), sql.map(str::to_owned));
            let refusal = record(proxy, session, None, line, sql, waits(session, request)).await;
            Err(No::Recorded(refusal))
        }
    }
}

/// What a query comes to: a window, or a request that waits. Where the estimator is on, BigQuery is asked first what a query needs; the policy must
/// let its agent ask for what the text names before that leaves the host.
async fn come_to(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    asked: &Asked,
    query: NewQuery,
) -> Result<Waits, Refusal> {
    let (Some(_), What::Job(Job::Query(job)), Target::NewJob { project }) =
        (&proxy.estimator, &asked.what, &asked.route.target)
    else {
        return proxy.engine.of_query(query).await;
    };
    let of = estimator::Query {
        method: asked.route.method,
        job: job.clone(),
        project: project.clone(),
    };
    // On its own task: whoever goes away leaves a request all the same, of which there can be only so many.
    let estimated = estimated(Arc::clone(proxy), Arc::clone(session), of, query);
    let answered = proxy.asking.tasks.token();
    let done = tokio::spawn(async move {
        let done = estimated.await;
        drop(answered);
        done
    });
    done.await
        .unwrap_or_else(|_| Err(Refusal::new(Code::UpstreamFailed, "The request was lost")))
}

async fn estimated(
    proxy: Arc<Proxy>,
    session: Arc<Session>,
    of: estimator::Query,
    mut query: NewQuery,
) -> Result<Waits, Refusal> {
    let Some(estimator) = &proxy.estimator else {
        return proxy.engine.of_query(query).await;
    };
    let tried = |query: &NewQuery| NewQuery {
        is_tried: true,
        ..query.clone()
    };
    // What joins, or is refused, needs no estimate; and what waited for another of its agent's may join what came of that.
    match proxy.engine.of_query(tried(&query)).await? {
        Waits::WouldAsk => {}
        done @ (Waits::Open(_) | Waits::For(..)) => return Ok(done),
    }
    let stop = &proxy.asking.stop;
    let turn = estimator.turn_of(&session.requester.agent);
    let turn = stop.run_until_cancelled(turn).await.flatten();
    match proxy.engine.of_query(tried(&query)).await? {
        Waits::WouldAsk => {}
        done @ (Waits::Open(_) | Waits::For(..)) => return Ok(done),
    }
    let needed = match &turn {
        Some(_) => {
            let needed = estimator.needed(&proxy, &session, &of, &query.wanted.scope);
            match stop.run_until_cancelled(needed).await {
                Some(needed) => needed?,
                None => Needed::unknown("the daemon was stopped"),
            }
        }
        None => Needed::unknown(&format!(
            "other queries of this agent's were asked about for {} s",
            estimator::TURN.as_secs()
        )),
    };
    query.wanted.from.estimate = Some(needed.estimate);
    query.wanted.needs = needed.scope;
    proxy.engine.of_query(query).await
}

/// How the holding of a client ends.
#[derive(Debug)]
enum End {
    /// It is open, or this is why not.
    Decided(Result<(), Refusal>),
    /// Nobody has decided yet.
    Late,
    Stopping,
}

async fn held(stop: &CancellationToken, told: oneshot::Receiver<Decided>, until: Instant) -> End {
    tokio::select! {
        biased;
        decided = told => decided.map_or(End::Stopping, |decided| End::Decided(decided.map(drop))),
        () = stop.cancelled() => End::Stopping,
        () = tokio::time::sleep_until(until) => End::Late,
    }
}

/// What a request needs, as far as it says so itself; none where nobody is to be asked for it.
async fn needed(asked: &Asked) -> Result<Option<Scope>, Refusal> {
    match (&asked.what, &asked.route.target) {
        (What::Job(Job::Query(job)), Target::NewJob { project }) => {
            needs::of_query(job, project).await
        }
        (What::Job(Job::Transfer(job)), Target::NewJob { project }) => {
            needs::of_transfer(job, project)
        }
        (What::Nothing, _) => Ok(needs::of_call(asked.route.method, &asked.touch().0)),
        (What::Job(_) | What::Table(..) | What::Rows(..) | What::Load(..) | What::Part(_), _) => {
            Ok(None)
        }
    }
}

fn waits(session: &Session, request: RequestId) -> Refusal {
    let agent = &session.requester.agent;
    Refusal::new(
        Code::WindowAsked,
        format!(
            "Access Denied: BigQuery: agent {agent} has no open window; request {request} was made of this, and waits for a decision"
        ),
    )
}

fn said(refusal: Refusal) -> Refusal {
    let what = format!("Access Denied: BigQuery: {}", refusal.what);
    Refusal::new(refusal.code, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_held_for_less_than_it_would_wait_and_not_past_the_daemons_stop() {
        let began = Instant::now();
        let until = began + HOLD;
        let (_undecided, told) = oneshot::channel();
        let stop = CancellationToken::new();
        assert!(matches!(held(&stop, told, until).await, End::Late));
        let waited = began.elapsed();
        assert!(waited >= HOLD && waited < Duration::from_secs(130));

        let (_undecided, told) = oneshot::channel();
        stop.cancel();
        assert!(matches!(held(&stop, told, until).await, End::Stopping));

        let (decide, told) = oneshot::channel();
        let denied = Refusal::new(Code::RequestDenied, "no");
        decide.send(Err(denied)).expect("somebody waits");
        let stop = CancellationToken::new();
        assert!(
            matches!(held(&stop, told, until).await, End::Decided(Err(refusal)) if refusal.code == Code::RequestDenied)
        );
    }

    #[test]
    fn an_agent_is_held_so_often_and_no_other_pays_for_it() {
        let holds = Arc::new(Holds::default());
        let bot = |at: usize| format!("bot-{at}").parse::<AgentName>().expect("a name");
        let own: Vec<_> = (0..HELD_PER_AGENT_MAX)
            .map(|_| holds.take(&bot(0)).expect("a place"))
            .collect();
        assert!(holds.take(&bot(0)).is_none());
        let others: Vec<_> = (HELD_PER_AGENT_MAX..HELD_MAX)
            .map(|at| holds.take(&bot(at)).expect("a place"))
            .collect();
        assert!(holds.take(&bot(1)).is_none(), "as many as there may be");
        drop((own, others));
        assert!(holds.0.lock().expect("no panic").is_empty());
    }
}
