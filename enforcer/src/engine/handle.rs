//! How the rest of the daemon speaks to the engine: permits for queries, records for refusals, and the windows that are open now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::admission::Admitted;
use enforcer_proto::event::{CloseReason, Event, Refuser};
use enforcer_proto::id::{GrantId, QueryId, SessionId};
use enforcer_proto::principal::{AgentName, Approver, Caller, Process};
use enforcer_proto::query::{JobRef, QueryFacts};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::Scope;
use enforcer_proto::wire::{Ask, Reply};
use tokio::sync::{mpsc, oneshot, watch};

use crate::tally::{Refusals, Refused, Who};

/// The most messages that wait for the engine; past it a query is refused as [`Code::Overloaded`].
pub const QUEUE_MAX: usize = 4096;
/// How long a question from the control socket waits for room among them; then it is refused as [`Code::Overloaded`].
const CONTROL_PATIENCE: Duration = Duration::from_secs(5);

/// A window as the proxy sees it: a snapshot, true as long as it stands in [`OpenWindows`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenWindow {
    /// The grant.
    pub grant: GrantId,
    /// Its agent.
    pub agent: AgentName,
    /// What it covers.
    pub scope: Scope,
    /// Who decided; goes into the subject token's claims.
    pub approver: Approver,
    /// Closes on the boot clock. The proxy asks the clock itself and does not wait to be told.
    pub closes_boot_ns: u64,
}

/// The windows that are open now, by agent.
pub type OpenWindows = Arc<BTreeMap<AgentName, Arc<OpenWindow>>>;

/// A window that has closed, for whoever cancels its jobs and drops its token.
#[derive(Debug, Clone)]
pub struct ClosedWindow {
    /// The window.
    pub window: Arc<OpenWindow>,
    /// Why it closed.
    pub reason: CloseReason,
    /// The jobs it started that are not known to have ended.
    pub jobs: Vec<JobRef>,
    /// The jobs that it may have started: the answers to their starts were lost. Somebody else's may have the same name.
    pub unanswered: Vec<JobRef>,
}

/// Who sends a request through the proxy, and on which connection.
#[derive(Debug, Clone)]
pub struct Requester {
    /// The agent.
    pub agent: AgentName,
    /// The connection.
    pub session: SessionId,
    /// The process that connected.
    pub process: Process,
}

/// That one request was admitted **and recorded**: the only key to the upstream. Made by the engine alone.
#[derive(Debug)]
pub struct Permit {
    query: QueryId,
    window: Arc<OpenWindow>,
    admitted: Admitted,
    ceiling: Option<u64>,
    /// Where to say so when it is dropped without having been used.
    unused: Option<mpsc::WeakSender<Message>>,
}

impl Permit {
    pub(super) const fn new(
        query: QueryId,
        window: Arc<OpenWindow>,
        admitted: Admitted,
        ceiling: Option<u64>,
    ) -> Self {
        Self {
            query,
            window,
            admitted,
            ceiling,
            unused: None,
        }
    }

    /// From here on it is somebody's: dropping it unused ends the query.
    pub(super) fn given(mut self, queue: mpsc::WeakSender<Message>) -> Self {
        self.unused = Some(queue);
        self
    }

    /// Whoever holds it says how the query ended.
    pub(crate) fn used(&mut self) {
        self.unused = None;
    }

    /// The query's number.
    #[must_use]
    pub const fn query(&self) -> QueryId {
        self.query
    }

    /// The window it was admitted in.
    #[must_use]
    pub const fn window(&self) -> &Arc<OpenWindow> {
        &self.window
    }

    /// What was admitted.
    #[must_use]
    pub const fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// The bytes of the budget that are held for it: its `maximumBytesBilled`.
    #[must_use]
    pub const fn ceiling(&self) -> Option<u64> {
        self.ceiling
    }
}

impl Drop for Permit {
    /// The client went away while its request was judged: what is held for the query must not stay held.
    fn drop(&mut self) {
        let Some(queue) = self.unused.take().and_then(|queue| queue.upgrade()) else {
            return;
        };
        let outcome = Outcome {
            trouble: Some("the client went away before anything was sent".to_owned()),
            is_void: true,
            ..Outcome::default()
        };
        let message = Message::Note(Box::new(outcome.event(self)));
        if let Err(mpsc::error::TrySendError::Full(message)) = queue.try_send(message)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { queue.send(message).await });
        }
    }
}

/// What a client chose for the job that it asks for.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The name under which it goes out, the client's or ours.
    pub job: Option<JobRef>,
    /// The most bytes it may bill.
    pub bytes_max: Option<u64>,
}

/// A request that is to be judged.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) requester: Requester,
    pub(super) grant: GrantId,
    pub(super) facts: QueryFacts,
    pub(super) plan: Plan,
}

/// How an admitted query ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// The HTTP status, absent where none came.
    pub status: Option<u16>,
    /// The job BigQuery named.
    pub job: Option<JobRef>,
    /// The table that holds its result.
    pub destination: Option<enforcer_proto::scope::TableRef>,
    /// Bytes billed or processed, as BigQuery says.
    pub bytes: u64,
    /// Body bytes sent to the agent.
    pub body_bytes: u64,
    /// From admission to the last byte, microseconds.
    pub duration_us: u64,
    /// What went wrong.
    pub trouble: Option<String>,
    /// It started nothing: it never left, or BigQuery refused it.
    pub is_void: bool,
}

impl Outcome {
    fn event(self, permit: &Permit) -> Event {
        Event::QueryFinished {
            query: permit.query,
            grant: permit.window.grant,
            status: self.status,
            job: self.job,
            destination: self.destination,
            bytes: self.bytes,
            body_bytes: self.body_bytes,
            duration_us: self.duration_us,
            trouble: self.trouble,
            is_void: self.is_void,
        }
    }
}

/// A message to the engine.
#[derive(Debug)]
pub(super) enum Message {
    /// Something over the control socket that changes the ledger or reads it.
    Control(Caller, Ask, oneshot::Sender<Reply>),
    /// May this be forwarded.
    Admit(Box<Asking>, oneshot::Sender<Result<Permit, Refusal>>),
    /// Only to be recorded; answered when durable.
    Record(Box<Event>, oneshot::Sender<Result<(), Refusal>>),
    /// Only to be recorded; nobody waits.
    Note(Box<Event>),
    /// The daemon stops: record that, and end, whoever still holds a handle.
    Stop,
}

/// A way to speak to the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) queue: mpsc::Sender<Message>,
    pub(super) windows: watch::Receiver<OpenWindows>,
    pub(super) records: watch::Receiver<u64>,
    /// The last session's number.
    pub(super) sessions: Arc<AtomicU64>,
    /// Refusals that are only counted; the engine records the counts.
    pub(super) refusals: Arc<Mutex<Refusals>>,
}

impl Engine {
    /// A way to speak to an engine that has ended: it records nothing and allows nothing.
    #[cfg(test)]
    pub(crate) fn ended() -> Self {
        Self {
            queue: mpsc::channel(1).0,
            windows: watch::channel(OpenWindows::default()).1,
            records: watch::channel(0).1,
            sessions: Arc::default(),
            refusals: Arc::default(),
        }
    }

    /// The number of a session that begins now: one more than the last, also after a restart, as far as records name sessions.
    #[must_use]
    pub fn begin_session(&self) -> SessionId {
        SessionId(self.sessions.fetch_add(1, Ordering::Relaxed)).next()
    }

    /// The windows that are open, and a way to be told when that changes.
    #[must_use]
    pub fn windows(&self) -> watch::Receiver<OpenWindows> {
        self.windows.clone()
    }

    /// How many records are durable; changes as the log grows.
    #[must_use]
    pub fn records(&self) -> watch::Receiver<u64> {
        self.records.clone()
    }

    /// Asks to forward a request in the window `grant`. When this gives a permit, the query is durable in the log. Every permit must be
    /// answered with [`Engine::finished`].
    ///
    /// # Errors
    /// The refusal to answer with. It is already recorded.
    pub async fn admit(
        &self,
        requester: Requester,
        grant: GrantId,
        facts: QueryFacts,
        plan: Plan,
    ) -> Result<Permit, Refusal> {
        let (reply, answer) = oneshot::channel();
        let refused = overloaded(Who::Agent(requester.agent.clone()), Refuser::Proxy);
        let asking = Asking {
            requester,
            grant,
            facts,
            plan,
        };
        self.try_send(Message::Admit(Box::new(asking), reply), Some(refused))?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Records an event that must be durable before it is answered: refusals of queries. Those of a flood are only counted.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`] where it could not be recorded, or the daemon is stopping or overloaded.
    pub async fn record(&self, event: Event) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let refused = Refused::of(&event).map(|refused| overloaded(refused.who, refused.by));
        self.try_send(Message::Record(Box::new(event), reply), refused)?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Records an event that nobody waits for. It waits for room in the queue rather than being lost.
    pub async fn note(&self, event: Event) {
        if self
            .queue
            .send(Message::Note(Box::new(event)))
            .await
            .is_err()
        {
            tracing::warn!("the engine has stopped: an event was not recorded");
        }
    }

    /// Says how an admitted query ended.
    pub async fn finished(&self, mut permit: Permit, outcome: Outcome) {
        permit.used();
        self.note(outcome.event(&permit)).await;
    }

    /// Tells the engine to end after what is queued. Later messages are refused.
    pub async fn stop(&self) {
        if self.queue.send(Message::Stop).await.is_err() {
            tracing::warn!("the engine had stopped already");
        }
    }

    /// Passes on what came over the control socket. It waits for room in the queue: agents that fill it delay a revocation, and do not
    /// keep it out.
    pub async fn control(&self, caller: Caller, ask: Ask) -> Reply {
        let room = tokio::time::timeout(CONTROL_PATIENCE, self.queue.reserve()).await;
        let (reply, answer) = oneshot::channel();
        match room {
            Ok(Ok(room)) => room.send(Message::Control(caller, ask, reply)),
            Ok(Err(_)) => return Reply::Refused(stopping()),
            Err(_) => {
                self.count_refused(overloaded((&caller).into(), Refuser::Control));
                return Reply::Refused(too_many_wait());
            }
        }
        answer.await.unwrap_or_else(|_| Reply::Refused(stopping()))
    }

    /// Counts a refusal that takes no record of its own; its count is recorded within a second or two.
    pub fn count_refused(&self, refused: Refused) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.count(refused);
    }

    /// Queues a message. Where there is no room, whoever is `refused` by that is counted: the engine cannot be asked to record it.
    fn try_send(&self, message: Message, refused: Option<Refused>) -> Result<(), Refusal> {
        self.queue.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                if let Some(refused) = refused {
                    self.count_refused(refused);
                }
                too_many_wait()
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })
    }
}

const fn overloaded(who: Who, by: Refuser) -> Refused {
    Refused {
        who,
        by,
        code: Code::Overloaded,
    }
}

fn too_many_wait() -> Refusal {
    Refusal::new(
        Code::Overloaded,
        format!("More than {QUEUE_MAX} requests wait for a decision"),
    )
}

fn stopping() -> Refusal {
    Refusal::new(Code::Overloaded, "The enforcer is stopping")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_the_queue_full_is_counted_by_whom_it_refuses() {
        let (queue, _nobody_takes) = mpsc::channel(1);
        let engine = Engine {
            queue,
            ..Engine::ended()
        };
        let refused = |uid| Event::DecisionRefused {
            caller: Caller {
                process: Process {
                    pid: 7,
                    start_boot_ns: 1,
                    uid,
                    comm: "x".into(),
                },
                gids: std::collections::BTreeSet::new(),
                agent: None,
            },
            action: "join bot".into(),
            refusal: Refusal::new(Code::CallerForbidden, "no"),
        };
        engine.note(refused(1)).await;
        let answered = engine.record(refused(2)).await;
        assert_eq!(
            answered.map_err(|refusal| refusal.code),
            Err(Code::Overloaded)
        );
        let counted = engine.refusals.lock().expect("no panic").flush();
        assert_eq!(
            counted,
            [Event::FurtherRefused {
                by: Refuser::Control,
                agent: None,
                uid: Some(2),
                code: Some(Code::Overloaded),
                count: 1,
            }]
        );
    }
}
