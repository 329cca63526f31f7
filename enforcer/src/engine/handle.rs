//! How the rest of the daemon speaks to the engine: permits for queries, records for refusals, and the windows that are open now.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::admission::{Admitted, Start};
use enforcer_proto::event::{CloseReason, Event, Refuser};
use enforcer_proto::id::{GrantId, QueryId, RequestId, SessionId};
use enforcer_proto::ledger::{Ceilings, UnsettledJob, Wanted};
use enforcer_proto::policy::Policy;
use enforcer_proto::principal::{
    AgentName, Approver, Caller, ContainerOrigin, Process, ProcessOrigin,
};
use enforcer_proto::query::{JobRef, QueryFacts};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::Scope;
use enforcer_proto::wire::{Ask, GrantView, Reply};
use tokio::sync::{mpsc, oneshot, watch};

use crate::tally::{Refusals, Refused, Who};

/// The most messages that wait for the engine; past it a query is refused as [`Code::Overloaded`].
pub const QUEUE_MAX: usize = 4096;
/// How long a question from the control socket waits for room among them; then it is refused as [`Code::Overloaded`].
const CONTROL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the record of a refusal is waited for before whoever is refused hears that it cannot be had.
const RECORD_PATIENCE: Duration = Duration::from_secs(5);

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
    /// The SHA-256 of why it was asked for, hex; goes into the claims too. Absent where that is not remembered.
    pub reason_digest: Option<String>,
    /// Its request was made of a query's text alone: what a view reads is not in its scope.
    pub is_of_text: bool,
    /// Closes on the boot clock. The proxy asks the clock itself and does not wait to be told.
    pub closes_boot_ns: u64,
}

/// The windows that are open now, by agent.
pub type OpenWindows = Arc<BTreeMap<AgentName, Arc<OpenWindow>>>;

/// Windows of these grants, each of an agent of its own.
#[cfg(test)]
pub(crate) fn open_windows(grants: &[u64]) -> OpenWindows {
    let window = |grant: &u64| {
        let agent: AgentName = format!("bot-{grant}").parse().expect("a name");
        let window = OpenWindow {
            grant: GrantId(*grant),
            agent: agent.clone(),
            scope: "p.d:read".parse().expect("a scope"),
            approver: Approver::Policy { rule: 1 },
            reason_digest: None,
            is_of_text: false,
            closes_boot_ns: u64::MAX,
        };
        (agent, Arc::new(window))
    };
    Arc::new(grants.iter().map(window).collect())
}

/// A window that has closed, for whoever cancels its jobs and drops its token.
#[derive(Debug, Clone)]
pub struct ClosedWindow {
    /// The window.
    pub window: Arc<OpenWindow>,
    /// Why it closed.
    pub reason: CloseReason,
    /// The jobs that it started, or may have, and that are not settled.
    pub jobs: Vec<UnsettledJob>,
}

/// A policy file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadPolicy {
    /// SHA-256 of the file, where it could be read.
    pub digest: Option<String>,
    /// Why.
    pub why: String,
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
    /// The container that it is in, as a runtime has said by then.
    pub container: Option<Box<ContainerOrigin>>,
}

/// That one request was admitted **and recorded**: the only key to the upstream. Made by the engine alone.
#[derive(Debug)]
pub struct Permit {
    query: QueryId,
    window: Arc<OpenWindow>,
    admitted: Admitted,
    most: Ceilings,
    /// Where to say so when it is dropped without having been used.
    unused: Option<mpsc::WeakSender<Message>>,
}

impl Permit {
    pub(super) const fn new(
        query: QueryId,
        window: Arc<OpenWindow>,
        admitted: Admitted,
        most: Ceilings,
    ) -> Self {
        Self {
            query,
            window,
            admitted,
            most,
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
        self.most.bytes
    }

    /// The bytes of its rows that may be passed on; none where its answer has no rows, as that of an export.
    #[must_use]
    pub fn passed_on_max(&self) -> Option<u64> {
        let is_export = !self.admitted.exports().is_empty();
        self.most.returned_bytes.filter(|_| !is_export)
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
        send_or_wait(&queue, Message::Note(Box::new(outcome.event(self))));
    }
}

/// Queues what must not be lost from where nothing can be waited for.
fn send_or_wait(queue: &mpsc::Sender<Message>, message: Message) {
    match queue.try_send(message) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(message)) => {
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let queue = queue.clone();
                runtime.spawn(async move { queue.send(message).await });
            }
        }
        Err(mpsc::error::TrySendError::Closed(_)) => {
            tracing::warn!("the engine has stopped: an event was not recorded");
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
    /// The digest of what it is asked to do, where it may be asked again under its name.
    pub asked: Option<String>,
    /// How long its dry run took, microseconds; 0 where the verdict was there already, absent where none is needed.
    pub dry_run_us: Option<u64>,
}

impl Plan {
    /// The start that it is of, where it has a name.
    pub(super) fn start(&self) -> Option<Start<'_>> {
        let asked = self.asked.as_deref();
        self.job.as_ref().map(|name| Start { name, asked })
    }
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

/// What became of a request: its window, or why there is none.
pub type Decided = Result<GrantView, Refusal>;

/// A query that has no window.
#[derive(Debug, Clone)]
pub struct NewQuery {
    /// Who sends it.
    pub requester: Requester,
    /// What it needs, and what is shown of it.
    pub wanted: Wanted,
    /// Where the process comes from that sends it, for people; absent where that could not be read.
    pub origin: Option<ProcessOrigin>,
    /// Where a new request would be made of it, none is made, and that is said: BigQuery's dry run is to be asked before.
    pub is_tried: bool,
}

/// What a query without a window has come to.
#[derive(Debug)]
pub enum Waits {
    /// There is a window now.
    Open(Arc<OpenWindow>),
    /// This request waits for a decision, of which it is told.
    For(RequestId, oneshot::Receiver<Decided>),
    /// A request would be made of it: it was only tried.
    WouldAsk,
}

/// A message to the engine.
#[derive(Debug)]
pub(super) enum Message {
    /// Something over the control socket that changes the ledger or reads it.
    /// Where the caller comes from is told where it asks for a window.
    Control(
        Caller,
        Ask,
        Option<Box<ProcessOrigin>>,
        oneshot::Sender<Reply>,
    ),
    /// Tell what is decided on a request, once it is.
    Wait(Caller, RequestId, oneshot::Sender<Decided>),
    /// A query that has no window: make a request of it, or let it join one.
    OfQuery(Box<NewQuery>, oneshot::Sender<Result<Waits, Refusal>>),
    /// The process has ended that this request, or its window, was for.
    RunEnded(Caller, RequestId),
    /// May this be forwarded.
    Admit(Box<Asking>, oneshot::Sender<Result<Permit, Refusal>>),
    /// Only to be recorded; answered when durable.
    Record(Box<Event>, oneshot::Sender<Result<(), Refusal>>),
    /// Only to be recorded; nobody waits.
    Note(Box<Event>),
    /// Which jobs of a window are not settled.
    Unsettled(GrantId, oneshot::Sender<Vec<UnsettledJob>>),
    /// The policy file has changed; answered once that is on record.
    Policy(
        Box<Result<Policy, BadPolicy>>,
        oneshot::Sender<Result<(), Refusal>>,
    ),
    /// The daemon stops: record that, and end, whoever still holds a handle.
    Stop,
}

/// What ends windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// A person ends this one.
    Revoke(GrantId),
    /// Its agent gives this one back.
    Close(GrantId),
    /// An agent gives back whatever it holds.
    Done,
    /// A person ends what an agent holds, and keeps it from more.
    Lock(AgentName, String),
    /// A person ends every window.
    CloseAll,
}

/// What is answered also while the log's disk is waited for: it takes away, or looks.
#[derive(Debug)]
pub(super) enum Pressing {
    /// Windows are to end.
    End(Caller, Ending, oneshot::Sender<Reply>),
    /// How things are.
    Status(Caller, oneshot::Sender<Reply>),
}

/// A way to speak to the engine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) queue: mpsc::Sender<Message>,
    pub(super) pressing: mpsc::Sender<Pressing>,
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
            pressing: mpsc::channel(1).0,
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

    /// Records an event that must be durable before it is answered: refusals of queries. Those of a flood are only counted. Where the disk does
    /// not answer in time it is recorded later, and whoever is refused hears of that instead.
    ///
    /// # Errors
    /// [`Code::AuditUnavailable`] where it could not be recorded, or the daemon is stopping or overloaded.
    pub async fn record(&self, event: Event) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let refused = Refused::of(&event).map(|refused| overloaded(refused.who, refused.by));
        self.try_send(Message::Record(Box::new(event), reply), refused)?;
        let recorded = tokio::time::timeout(RECORD_PATIENCE, answer).await;
        recorded.map_or_else(
            |_| Err(not_recorded_yet()),
            |answer| answer.unwrap_or_else(|_| Err(stopping())),
        )
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

    /// Says how an admitted query ended. Nobody waits for it; where the queue is full, a task does until there is room.
    pub fn finished(&self, mut permit: Permit, outcome: Outcome) {
        permit.used();
        let message = Message::Note(Box::new(outcome.event(&permit)));
        send_or_wait(&self.queue, message);
    }

    /// The jobs of a window that are not settled: those that it started, or may have, and that somebody must look at. None where the engine has
    /// ended. What was noted before is taken in.
    pub async fn unsettled(&self, grant: GrantId) -> Option<Vec<UnsettledJob>> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .send(Message::Unsettled(grant, reply))
            .await
            .ok()?;
        answer.await.ok()
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
        self.control_from(caller, ask, None).await
    }

    /// The same of a caller that asks for a window, with where it comes from.
    pub async fn control_from(
        &self,
        caller: Caller,
        ask: Ask,
        origin: Option<ProcessOrigin>,
    ) -> Reply {
        let who = (&caller).into();
        let (reply, answer) = oneshot::channel();
        let sent = match ask {
            Ask::Revoke { grant } => {
                let message = Pressing::End(caller, Ending::Revoke(grant), reply);
                in_turn(&self.pressing, message).await
            }
            Ask::Lock { agent, reason } => {
                let message = Pressing::End(caller, Ending::Lock(agent, reason), reply);
                in_turn(&self.pressing, message).await
            }
            Ask::CloseAll => {
                let message = Pressing::End(caller, Ending::CloseAll, reply);
                in_turn(&self.pressing, message).await
            }
            Ask::Close { grant } => {
                let message = Pressing::End(caller, Ending::Close(grant), reply);
                in_turn(&self.pressing, message).await
            }
            Ask::Done => {
                let message = Pressing::End(caller, Ending::Done, reply);
                in_turn(&self.pressing, message).await
            }
            Ask::Status => in_turn(&self.pressing, Pressing::Status(caller, reply)).await,
            ask @ (Ask::Request(_)
            | Ask::RequestForRun { .. }
            | Ask::Approve { .. }
            | Ask::BreakGlass { .. }
            | Ask::Review { .. }
            | Ask::Unlock { .. }
            | Ask::Deny { .. }
            | Ask::Show { .. }
            | Ask::Log { .. }
            | Ask::Join { .. }
            | Ask::Wait { .. }
            | Ask::NotifyTest { .. }
            | Ask::Doctor { .. }) => {
                let origin = origin.map(Box::new);
                in_turn(&self.queue, Message::Control(caller, ask, origin, reply)).await
            }
        };
        if let Err(refusal) = sent {
            if refusal.code == Code::Overloaded && !self.queue.is_closed() {
                self.count_refused(overloaded(who, Refuser::Control));
            }
            return Reply::Refused(refusal);
        }
        answer.await.unwrap_or_else(|_| Reply::Refused(stopping()))
    }

    /// Says that the policy file is another now, or cannot be used. It waits for room in the queue.
    ///
    /// # Errors
    /// When it could not be recorded: the rules stay as they are.
    pub async fn policy(&self, found: Result<Policy, BadPolicy>) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Policy(Box::new(found), reply);
        if self.queue.send(message).await.is_err() {
            return Err(stopping());
        }
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Waits for what is decided on a request, for as long as that takes.
    ///
    /// # Errors
    /// Why there is no window.
    pub async fn decided(&self, caller: Caller, request: RequestId) -> Decided {
        let (reply, answer) = oneshot::channel();
        let refused = overloaded((&caller).into(), Refuser::Control);
        self.try_send(Message::Wait(caller, request, reply), Some(refused))?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Makes a request of a query that has no window, or lets it wait with one that covers it.
    ///
    /// # Errors
    /// Why not; it is not recorded yet.
    pub async fn of_query(&self, query: NewQuery) -> Result<Waits, Refusal> {
        let (reply, answer) = oneshot::channel();
        let refused = overloaded(Who::Agent(query.requester.agent.clone()), Refuser::Proxy);
        self.try_send(Message::OfQuery(Box::new(query), reply), Some(refused))?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Says that the process has ended that a request was for. It waits for room in the queue: nothing else would end the window.
    pub async fn run_ended(&self, caller: Caller, request: RequestId) {
        if self
            .queue
            .send(Message::RunEnded(caller, request))
            .await
            .is_err()
        {
            tracing::debug!("the engine has stopped: its next start looks for the process");
        }
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

/// Sends a message once there is room for it, which is waited for a while.
async fn in_turn<T>(queue: &mpsc::Sender<T>, message: T) -> Result<(), Refusal> {
    match tokio::time::timeout(CONTROL_PATIENCE, queue.reserve()).await {
        Ok(Ok(room)) => {
            room.send(message);
            Ok(())
        }
        Ok(Err(_)) => Err(stopping()),
        Err(_) => Err(too_many_wait()),
    }
}

const fn overloaded(who: Who, by: Refuser) -> Refused {
    Refused {
        who,
        by,
        code: Code::Overloaded,
    }
}

fn not_recorded_yet() -> Refusal {
    let patience = RECORD_PATIENCE.as_secs();
    Refusal::new(
        Code::AuditUnavailable,
        format!(
            "It is refused, and why is not on record yet: the audit log has not answered for {patience} s"
        ),
    )
}

fn too_many_wait() -> Refusal {
    Refusal::new(
        Code::Overloaded,
        format!("More than {QUEUE_MAX} requests wait for a decision"),
    )
}

pub(super) fn stopping() -> Refusal {
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
