//! The owner itself: takes messages, lets the ledger decide, performs what it says.

mod deciding;
mod performing;
mod pressing;
mod recording;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enforcer_proto::admission::{Admitted, admit};
use enforcer_proto::asking::beyond_text;
use enforcer_proto::audit::fits;
use enforcer_proto::event::Event;
use enforcer_proto::id::{GrantId, QueryId};
use enforcer_proto::ledger::{ApproveTerms, Ceilings, Command, Grant, Ledger, RequestState};
use enforcer_proto::principal::{AgentName, Caller, ProcessOrigin};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::time::Now;
use enforcer_proto::wire::{Ask, Reply};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::asking::{Waiting as WhoWaits, lost, with_origin};
use super::disk::{Disk, Recorder};
use super::handle::{Asking, Message, Pressing};
use super::snapshots::Snapshots;
use super::unrecorded::{Unrecorded, is_by_record};
use super::{
    ClosedWindow, HEARTBEAT, OpenWindow, OpenWindows, Parts, Permit, StartError, at,
    too_long_to_record, views,
};
use performing::closed_window;
use pressing::{Waiters, as_recorded};

use crate::audit::{End, Log};
use crate::tally::{FLUSH, Refusals, Refused};

/// The most messages that share one sync of the log.
const BATCH_MAX: usize = 256;
/// How long a record that nobody waits for may wait for the sync of one that somebody does.
const IDLE_SYNC: Duration = Duration::from_millis(5);
/// How often the enforcement itself is looked at.
const DRIFT_LOOK: Duration = Duration::from_secs(3);

/// An answer that leaves once its record is durable.
pub(super) enum Waiting {
    Admitted(oneshot::Sender<Result<Permit, Refusal>>, Box<Permit>),
    Refused(oneshot::Sender<Result<Permit, Refusal>>, Refusal),
    Recorded(oneshot::Sender<Result<(), Refusal>>),
}

/// What the owner has in common with its handles.
pub(super) struct Shared {
    /// Refusals past what takes a record each; the handles count into it what never reached the engine.
    pub(super) refusals: Arc<Mutex<Refusals>>,
    /// The owner's own queue, for permits that nobody uses.
    pub(super) queue: mpsc::WeakSender<Message>,
}

/// What the owner tells whoever wants to know.
pub(super) struct News {
    pub(super) windows: watch::Sender<OpenWindows>,
    pub(super) closed: broadcast::Sender<Arc<ClosedWindow>>,
    /// How many records are durable.
    pub(super) records: watch::Sender<u64>,
    pub(super) ends: watch::Sender<End>,
    pub(super) segments: watch::Sender<u32>,
}

pub(super) struct Owner {
    pub(super) parts: Parts,
    pub(super) ledger: Ledger,
    log: Recorder,
    pressing: Waiters,
    /// What the ledger has taken in and the log has not yet, in the order in which it happened.
    staged: Vec<(Now, Event)>,
    news: News,
    shared: Shared,
    unrecorded: Unrecorded,
    snapshots: Snapshots,
    /// When old segments were looked for last, boot clock; `None` before the first time.
    retained_boot_ns: Option<u64>,
    /// Who waits for which decision.
    pub(super) waiting: WhoWaits,
    /// When the refusals past what takes a record each were last recorded, boot clock.
    flushed_boot_ns: u64,
    /// When the kernel was last told that the daemon lives, boot clock.
    beaten_boot_ns: u64,
    /// How much was refused to each agent and is on record since this start. As many as are configured, and those that were.
    refused: BTreeMap<AgentName, u64>,
    /// When that was, unix time, nanoseconds.
    started_unix_ns: u64,
    audit_fault: Option<String>,
    /// Why the policy file, as it is now, is not what is in force.
    policy_fault: Option<String>,
    /// What was wrong with the enforcement when it was looked at last, and when that was, boot clock.
    drift: Vec<String>,
    looked_boot_ns: u64,
    /// Agents whose window the kernel did not let go; retried until it does.
    stuck: BTreeSet<AgentName>,
    /// The ledger has been compared with the kernel and the boot: before, its deadlines may be those of another boot.
    is_resumed: bool,
}

impl Owner {
    pub(super) fn new(
        parts: Parts,
        ledger: Ledger,
        (log, disk): (Log, Disk),
        pressing: mpsc::Receiver<Pressing>,
        news: News,
        shared: Shared,
    ) -> Self {
        let snapshots = Snapshots::since(log.segment());
        let started = parts.clock.now();
        Self {
            parts,
            ledger,
            log: Recorder::new(log, disk),
            pressing: Waiters::new(pressing),
            staged: Vec::new(),
            news,
            shared,
            unrecorded: Unrecorded::default(),
            snapshots,
            retained_boot_ns: None,
            waiting: WhoWaits::default(),
            flushed_boot_ns: started.boot_ns,
            beaten_boot_ns: 0,
            refused: BTreeMap::new(),
            started_unix_ns: started.unix_ns,
            audit_fault: None,
            policy_fault: None,
            drift: Vec::new(),
            looked_boot_ns: 0,
            stuck: BTreeSet::new(),
            is_resumed: false,
        }
    }

    pub(super) fn first_records(
        &mut self,
        now: Now,
        torn_bytes: u64,
        aside: Vec<String>,
    ) -> Result<(), StartError> {
        let aside = aside.into_iter();
        let mut events: Vec<_> = aside.map(|why| Event::SnapshotSetAside { why }).collect();
        if torn_bytes > 0 {
            events.push(Event::TailRepaired { bytes: torn_bytes });
        }
        events.push(Event::DaemonStarted {
            host: self.parts.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy_digest: self.parts.policy.digest.clone(),
        });
        let records = at(now, &events);
        self.write(&records)?;
        // As the next start takes them in.
        self.ledger.in_boot(&self.parts.boot_id);
        for (now, event) in &records {
            self.ledger.apply(*now, event);
        }
        self.publish_end();
        Ok(())
    }

    pub(super) fn resume(
        &mut self,
        now: Now,
        is_same_boot: bool,
        in_kernel: impl Fn(&Grant) -> bool,
    ) -> Result<(), StartError> {
        // Windows whose close is on record and whose jobs' end is not: the daemon died in between.
        let left: Vec<_> = self.ledger.unsettled(now).map(closed_window).collect();
        let decision = self.ledger.resume(now, is_same_boot, in_kernel);
        self.restrict(now, &decision);
        self.is_resumed = true;
        self.commit(&mut Vec::new());
        for window in left.into_iter().flatten() {
            self.hand_over(window);
        }
        self.publish_all(now);
        self.parts.kernel.heartbeat(now.boot_ns)?;
        self.beaten_boot_ns = now.boot_ns;
        Ok(())
    }

    /// Closes windows that the kernel holds and the log does not know as open.
    pub(super) fn close_strays(&mut self, held: &BTreeMap<AgentName, GrantId>) {
        for (agent, grant) in held {
            let known = self
                .ledger
                .grant(*grant)
                .is_some_and(|known| known.closed.is_none() && known.agent == *agent);
            if !known {
                tracing::warn!(%agent, %grant, "the kernel held a window that the log does not know: closed");
                self.close_in_kernel(agent);
            }
        }
    }

    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH_MAX);
        loop {
            let until_due = self.until_due();
            tokio::select! {
                biased;
                () = tokio::time::sleep(until_due) => drop(self.commit(&mut Vec::new())),
                _ = heartbeat.tick() => self.beat(),
                count = messages.recv_many(&mut batch, BATCH_MAX) => if count == 0 { break },
                () = self.pressing.come() => {}
            }
            self.tick();
            let mut flow = self.take(std::mem::take(&mut batch));
            if self.pressing.are_there() {
                // What was sent before is taken in before.
                let mut queued = messages.len();
                while queued > 0 && flow.is_continue() {
                    let some: Vec<_> = std::iter::from_fn(|| messages.try_recv().ok())
                        .take(queued.min(BATCH_MAX))
                        .collect();
                    queued = if some.is_empty() {
                        0
                    } else {
                        queued - some.len()
                    };
                    flow = self.take(some);
                }
                self.answer_pressing();
            }
            if flow.is_break() {
                break;
            }
        }
        self.stop();
    }

    /// How long until something is due, in the ledger or of what is staged. The timer runs on a clock that stops in suspend, so it never sleeps long; the heartbeat wakes
    /// it anyway.
    fn until_due(&self) -> Duration {
        let now = self.parts.clock.now();
        let due = self
            .ledger
            .poll_timeout()
            .map(|due| Duration::from_nanos(due.saturating_sub(now.boot_ns)));
        let due = due.unwrap_or(HEARTBEAT).min(HEARTBEAT);
        self.until_synced(now).map_or(due, |sync| sync.min(due))
    }

    /// How long what is staged may still wait for a sync.
    fn until_synced(&self, now: Now) -> Option<Duration> {
        let (oldest, _) = self.staged.first()?;
        let waited = Duration::from_nanos(now.boot_ns.saturating_sub(oldest.boot_ns));
        Some(IDLE_SYNC.saturating_sub(waited))
    }

    fn beat(&mut self) {
        let now = self.parts.clock.now();
        self.tell_alive(now);
        self.record_the_unrecorded();
        self.cut_back(now);
        self.look_for_drift(now);
        self.look_after_the_log(now);
        let is_due = now.boot_ns.saturating_sub(self.flushed_boot_ns) >= FLUSH.as_nanos() as u64;
        // While the log cannot be written the counts stay counts.
        if is_due && self.unrecorded.is_empty() {
            self.record_the_counted(now);
        }
    }

    fn tell_alive(&mut self, now: Now) {
        self.beaten_boot_ns = now.boot_ns;
        if let Err(fault) = self.parts.kernel.heartbeat(now.boot_ns) {
            tracing::error!(%fault, "the kernel was not told that the daemon is alive");
        }
        for agent in std::mem::take(&mut self.stuck) {
            self.close_in_kernel(&agent);
        }
    }

    /// Looks at the enforcement itself now and then, and puts on record what changed.
    fn look_for_drift(&mut self, now: Now) {
        if now.boot_ns.saturating_sub(self.looked_boot_ns) < DRIFT_LOOK.as_nanos() as u64 {
            return;
        }
        self.looked_boot_ns = now.boot_ns;
        let drift = self.parts.kernel.drift();
        if drift == self.drift {
            return;
        }
        let known: BTreeSet<&String> = self.drift.iter().collect();
        for fault in drift.iter().filter(|fault| !known.contains(fault)) {
            tracing::error!(fault, "the enforcement is not as it should be");
        }
        self.drift.clone_from(&drift);
        let changed = at(now, &[Event::HealthChanged { faults: drift }.bounded()]);
        if self.append(&changed).is_err() {
            self.keep_unrecorded(changed);
        }
    }

    fn record_the_counted(&mut self, now: Now) {
        self.flushed_boot_ns = now.boot_ns;
        let counted = at(now, &self.refusals().flush());
        if self.append(&counted).is_err() {
            self.keep_unrecorded(counted);
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.shared
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event takes a record: the refusals of a flood are only counted.
    fn takes_record(&self, event: &Event) -> bool {
        Refused::of(event).is_none_or(|refused| self.refusals().takes_record(refused))
    }

    fn tick(&mut self) {
        let now = self.parts.clock.now();
        let decision = self.ledger.tick(now);
        self.restrict(now, &decision);
    }

    fn take(&mut self, batch: Vec<Message>) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        let mut waiting = Vec::new();
        for message in batch {
            let now = self.parts.clock.now();
            match message {
                Message::Admit(asking, reply) => {
                    let (event, answer) = self.judge(now, &asking, reply);
                    waiting.push(answer);
                    self.stage(now, event);
                }
                // Whoever asked has given up waiting, and so nothing has come of it.
                Message::Record(event, reply) if reply.is_closed() && is_by_record(&event) => {}
                Message::Record(event, reply) => {
                    self.stage(now, event.bounded());
                    waiting.push(Waiting::Recorded(reply));
                }
                Message::Note(event) => {
                    let event = event.bounded();
                    if self.ledger.is_news(&event) {
                        self.stage(now, event.clone());
                        self.hand_over_late(&event);
                    }
                }
                Message::Unsettled(grant, reply) => {
                    drop(reply.send(self.ledger.unsettled_jobs(grant, now)));
                }
                Message::Policy(found, reply) => {
                    self.commit(&mut waiting);
                    drop(reply.send(self.take_policy(now, *found)));
                }
                Message::Wait(caller, request, reply) => self.wait(now, &caller, request, reply),
                Message::OfQuery(query, reply) => {
                    self.commit(&mut waiting);
                    // The client may have gone: the request stays.
                    drop(reply.send(self.of_query(now, *query)));
                }
                Message::RunEnded(caller, request) => self.run_ended(now, &caller, request),
                Message::Stop => flow = ControlFlow::Break(()),
                Message::Control(caller, ask, origin, reply) => {
                    self.commit(&mut waiting);
                    let said = self.control(&caller, ask, origin.map(|origin| *origin));
                    let is_recorded = self.commit(&mut waiting);
                    // Whoever asked may have gone: what was decided stands all the same.
                    let _ = reply.send(as_recorded(said, is_recorded));
                }
            }
        }
        let is_due = self.until_synced(self.parts.clock.now()) == Some(Duration::ZERO);
        if !waiting.is_empty() || is_due || self.staged.len() >= BATCH_MAX {
            self.commit(&mut waiting);
        }
        // What just finished may have spent a budget.
        self.tick();
        flow
    }

    fn stage(&mut self, now: Now, event: Event) {
        self.ledger.apply(now, &event);
        if self.takes_record(&event) {
            self.staged.push((now, event));
        }
    }

    fn judge(
        &self,
        now: Now,
        asking: &Asking,
        reply: oneshot::Sender<Result<Permit, Refusal>>,
    ) -> (Event, Waiting) {
        let Asking {
            requester,
            grant,
            facts,
            plan,
        } = asking;
        let held = self
            .ledger
            .grant(*grant)
            .filter(|held| held.agent == requester.agent);
        let judged = held
            .ok_or_else(|| {
                Refusal::new(
                    Code::WindowNone,
                    format!(
                        "Access Denied: agent {} holds no window {grant}",
                        requester.agent
                    ),
                )
            })
            .and_then(|held| {
                let admitted = admit(now, held, facts, plan.start())
                    .map_err(|refusal| beyond_text(held.is_of_text, refusal))?;
                let most = held.ceilings(facts, plan.bytes_max)?;
                let query = self.ledger.next_query();
                let event = admitted_event(query, asking, &admitted, most);
                if fits(&event) {
                    Ok((held, admitted, most, query, event))
                } else {
                    Err(too_long_to_record())
                }
            });
        match judged {
            Ok((held, admitted, most, query, event)) => {
                let permit = Permit::new(query, Arc::new(open_window(held)), admitted, most);
                (event, Waiting::Admitted(reply, Box::new(permit)))
            }
            Err(refusal) => {
                let event = Event::QueryRefused {
                    grant: Some(*grant),
                    agent: requester.agent.clone(),
                    session: requester.session,
                    process: requester.process.clone(),
                    container: requester.container.clone(),
                    request: facts.method.to_string(),
                    sql: facts.sql.clone(),
                    sql_cut: None,
                    refusal: refusal.clone(),
                };
                (event.bounded(), Waiting::Refused(reply, refusal))
            }
        }
    }

    fn control(&mut self, caller: &Caller, ask: Ask, origin: Option<ProcessOrigin>) -> Reply {
        let now = self.parts.clock.now();
        let (command, action) = match ask {
            Ask::Request(ask) => {
                return self.request(now, caller, (&ask, origin), Command::Request);
            }
            Ask::RequestForRun { ask, .. } => {
                return self.request(now, caller, (&ask, origin), Command::RequestForRun);
            }
            Ask::Approve {
                request,
                seen,
                ttl,
                scope,
                bytes_max,
                queries_max,
                signature,
            } => {
                let terms = ApproveTerms {
                    seen,
                    ttl,
                    scope,
                    bytes_max,
                    queries_max,
                    signer: None,
                };
                return self.approve(now, caller, request, terms, signature);
            }
            Ask::BreakGlass {
                request,
                seen,
                reason,
                signature,
            } => {
                return self.break_glass(now, caller, (request, seen), reason, signature);
            }
            Ask::Review { grant, note } => {
                (Command::Review(grant, note), format!("review {grant}"))
            }
            Ask::Deny { request, reason } => {
                (Command::Deny(request, reason), format!("deny {request}"))
            }
            Ask::Unlock { agent } => {
                let action = format!("unlock agent {agent}");
                (Command::Unlock(agent), action)
            }
            Ask::Show { request } => return self.show(now, caller, request),
            Ask::Revoke { .. }
            | Ask::Lock { .. }
            | Ask::CloseAll
            | Ask::Close { .. }
            | Ask::Done
            | Ask::Status
            | Ask::Log { .. }
            | Ask::Join { .. }
            | Ask::Wait { .. }
            | Ask::NotifyTest { .. }
            | Ask::Doctor { .. } => {
                return Reply::Refused(Refusal::new(
                    Code::InputInvalid,
                    "This is answered elsewhere",
                ));
            }
        };
        self.decided(now, caller, command, action)
    }

    fn request(
        &mut self,
        now: Now,
        caller: &Caller,
        (ask, origin): (&enforcer_proto::policy::Ask, Option<ProcessOrigin>),
        command: impl FnOnce(enforcer_proto::policy::Ask) -> Command,
    ) -> Reply {
        let (policy, command) = (&self.parts.policy, command(ask.clone()));
        match self.ledger.decide(now, policy, caller, command) {
            Ok(decision) => match self.perform(now, &with_origin(decision, origin)) {
                Ok(grant) => {
                    let Some(request) = self.ledger.requests().next_back() else {
                        return Reply::Refused(lost());
                    };
                    let (policy, ledger) = (&self.parts.policy, &self.ledger);
                    let shown = views::request(now, policy, ledger, &self.waiting, request);
                    let wanting = shown.wanting;
                    let grant = grant
                        .and_then(|grant| self.ledger.grant(grant))
                        .map(|grant| views::grant(now, grant));
                    Reply::Requested {
                        request: request.id,
                        grant,
                        wanting,
                        expires_in_ns: request.expires_boot_ns.saturating_sub(now.boot_ns),
                    }
                }
                Err(refusal) => Reply::Refused(refusal),
            },
            Err(refusal) => {
                let event = Event::RequestRefused {
                    caller: caller.clone(),
                    ask: Some(ask.clone()),
                    refusal: refusal.clone(),
                };
                self.refuse(now, event, refusal)
            }
        }
    }

    pub(super) fn refuse(&mut self, now: Now, event: Event, refusal: Refusal) -> Reply {
        let staged = if self.takes_record(&event) {
            at(now, &[event])
        } else {
            Vec::new()
        };
        match self.append(&staged) {
            Ok(()) => Reply::Refused(refusal),
            Err(unavailable) => {
                self.keep_unrecorded(staged);
                Reply::Refused(unavailable)
            }
        }
    }

    fn opened_reply(&self, now: Now, grant: GrantId) -> Reply {
        match self.ledger.grant(grant) {
            Some(grant) => Reply::Opened(views::grant(now, grant)),
            None => Reply::Done,
        }
    }

    /// Says that the daemon stopped. Windows stay as they are: the kernel holds their deadlines, and nothing is served without the proxy.
    fn stop(&mut self) {
        let now = self.parts.clock.now();
        self.record_the_counted(now);
        self.commit(&mut Vec::new());
        let mut last = Vec::new();
        if self.is_all_recorded() {
            let log = self.log.here();
            last.extend(log.and_then(|log| {
                self.snapshots
                    .take_last(log, &self.ledger, &self.parts.audit_dir)
            }));
        }
        last.push(Event::DaemonStopped {});
        if self.append(&at(now, &last)).is_err() {
            tracing::error!("the stop could not be recorded");
        }
    }
}

fn audit_unavailable() -> Refusal {
    Refusal::new(
        Code::AuditUnavailable,
        "The audit log cannot be written, and nothing is allowed that cannot be recorded",
    )
}

pub(super) fn open_window(grant: &Grant) -> OpenWindow {
    OpenWindow {
        grant: grant.id,
        agent: grant.agent.clone(),
        scope: grant.scope.clone(),
        approver: grant.approver.clone(),
        reason_digest: grant.reason_digest.clone(),
        is_of_text: grant.is_of_text,
        closes_boot_ns: grant.closes_boot_ns,
    }
}

fn admitted_event(query: QueryId, asking: &Asking, admitted: &Admitted, most: Ceilings) -> Event {
    let Asking {
        requester,
        facts,
        plan,
        ..
    } = asking;
    Event::QueryAdmitted {
        query,
        grant: asking.grant,
        agent: requester.agent.clone(),
        session: requester.session,
        process: requester.process.clone(),
        container: requester.container.clone(),
        method: admitted.method(),
        sql: facts.sql.clone(),
        tables: admitted.tables().to_vec(),
        writes: admitted.writes().to_vec(),
        imports: admitted.imports().to_vec(),
        exports: admitted.exports().to_vec(),
        resource: facts.touch.resource(),
        bytes: admitted.bytes(),
        job: plan.job.clone(),
        ceiling: most.bytes,
        returned_ceiling: most.returned_bytes,
        is_dry_run: facts.is_dry_run,
        in_parts: facts.touch.in_parts(),
        asked: plan.asked.clone(),
        dry_run_us: plan.dry_run_us,
    }
}

/// What became of a request, in one word.
pub(super) const fn state_word(state: &RequestState) -> &'static str {
    match state {
        RequestState::Pending => "pending",
        RequestState::Approved(_) => "approved",
        RequestState::Denied(_) => "denied",
        RequestState::Expired => "expired",
        RequestState::Withdrawn => "withdrawn",
    }
}
