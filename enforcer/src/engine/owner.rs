//! The owner itself: takes messages, lets the ledger decide, performs what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use enforcer_proto::admission::{Admitted, admit};
use enforcer_proto::audit::fits;
use enforcer_proto::event::Event;
use enforcer_proto::id::{GrantId, QueryId};
use enforcer_proto::ledger::{
    ApproveTerms, Command, Decision, Effect, Grant, Ledger, RequestState,
};
use enforcer_proto::principal::{AgentName, Caller};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::time::Now;
use enforcer_proto::wire::{Ask, Reply};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::handle::{Asking, Message};
use super::unrecorded::Unrecorded;
use super::{
    ClosedWindow, HEARTBEAT, OpenWindow, OpenWindows, Parts, Permit, StartError, at,
    only_restricts, too_long_to_record, views,
};
use crate::audit::Log;
use crate::causes::Causes;
use crate::tally::{FLUSH, Refusals, Refused};

/// The most messages that share one sync of the log.
const BATCH_MAX: usize = 256;
/// How much room the file system of the log must have, bytes: with less, `status` says that the host is not well.
const LOG_RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// How often the enforcement itself is looked at.
const DRIFT_LOOK: Duration = Duration::from_secs(3);

/// An answer that leaves once its record is durable.
enum Waiting {
    Admitted(oneshot::Sender<Result<Permit, Refusal>>, Permit),
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

pub(super) struct Owner {
    parts: Parts,
    ledger: Ledger,
    log: Log,
    windows: watch::Sender<OpenWindows>,
    closed: broadcast::Sender<Arc<ClosedWindow>>,
    records: watch::Sender<u64>,
    shared: Shared,
    unrecorded: Unrecorded,
    /// When the refusals past what takes a record each were last recorded, boot clock.
    flushed_boot_ns: u64,
    audit_fault: Option<String>,
    /// What was wrong with the enforcement when it was looked at last, and when that was, boot clock.
    drift: Vec<String>,
    looked_boot_ns: u64,
    /// Agents whose window the kernel did not let go; retried until it does.
    stuck: BTreeSet<AgentName>,
}

impl Owner {
    pub(super) fn new(
        parts: Parts,
        ledger: Ledger,
        log: Log,
        windows: watch::Sender<OpenWindows>,
        closed: broadcast::Sender<Arc<ClosedWindow>>,
        records: watch::Sender<u64>,
        shared: Shared,
    ) -> Self {
        let flushed_boot_ns = parts.clock.now().boot_ns;
        Self {
            parts,
            ledger,
            log,
            windows,
            closed,
            records,
            shared,
            unrecorded: Unrecorded::default(),
            flushed_boot_ns,
            audit_fault: None,
            drift: Vec::new(),
            looked_boot_ns: 0,
            stuck: BTreeSet::new(),
        }
    }

    pub(super) fn first_records(&mut self, now: Now, torn_bytes: u64) -> Result<(), StartError> {
        let mut events = Vec::new();
        if torn_bytes > 0 {
            events.push(Event::TailRepaired { bytes: torn_bytes });
        }
        events.push(Event::DaemonStarted {
            host: self.parts.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            policy_digest: self.parts.policy.digest.clone(),
        });
        self.log.append(&at(now, &events))?;
        self.records.send_replace(self.log.count());
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
        for window in left.into_iter().flatten() {
            self.hand_over(window);
        }
        self.publish(now);
        self.parts.kernel.heartbeat(now.boot_ns)?;
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
                () = tokio::time::sleep(until_due) => {}
                _ = heartbeat.tick() => self.beat(),
                count = messages.recv_many(&mut batch, BATCH_MAX) => if count == 0 { break },
            }
            self.tick();
            if self.take(std::mem::take(&mut batch)).is_break() {
                break;
            }
        }
        self.stop();
    }

    /// How long until something is due. The timer runs on a clock that stops in suspend, so it never sleeps long; the heartbeat wakes
    /// it anyway.
    fn until_due(&self) -> Duration {
        let now = self.parts.clock.now();
        let due = self
            .ledger
            .poll_timeout()
            .map(|due| Duration::from_nanos(due.saturating_sub(now.boot_ns)));
        due.unwrap_or(HEARTBEAT).min(HEARTBEAT)
    }

    fn beat(&mut self) {
        let now = self.parts.clock.now();
        if let Err(fault) = self.parts.kernel.heartbeat(now.boot_ns) {
            tracing::error!(%fault, "the kernel was not told that the daemon is alive");
        }
        for agent in std::mem::take(&mut self.stuck) {
            self.close_in_kernel(&agent);
        }
        self.record_the_unrecorded();
        self.look_for_drift(now);
        let is_due = now.boot_ns.saturating_sub(self.flushed_boot_ns) >= FLUSH.as_nanos() as u64;
        // While the log cannot be written the counts stay counts.
        if is_due && self.unrecorded.is_empty() {
            self.record_the_counted(now);
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
        for fault in drift.iter().filter(|fault| !self.drift.contains(fault)) {
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
        let mut staged = Vec::new();
        let mut waiting = Vec::new();
        for message in batch {
            let now = self.parts.clock.now();
            match message {
                Message::Admit(asking, reply) => {
                    let (event, answer) = self.judge(now, &asking, reply);
                    waiting.push(answer);
                    self.stage(now, event, &mut staged);
                }
                Message::Record(event, reply) => {
                    self.stage(now, event.bounded(), &mut staged);
                    waiting.push(Waiting::Recorded(reply));
                }
                Message::Note(event) => {
                    let event = event.bounded();
                    if self.ledger.is_news(&event) {
                        self.stage(now, event.clone(), &mut staged);
                        self.hand_over_late(&event);
                    }
                }
                Message::Stop => flow = ControlFlow::Break(()),
                Message::Control(caller, ask, reply) => {
                    self.commit(&mut staged, &mut waiting);
                    // Whoever asked may have gone: what was decided stands all the same.
                    let _ = reply.send(self.control(&caller, ask));
                }
            }
        }
        self.commit(&mut staged, &mut waiting);
        // What just finished may have spent a budget.
        self.tick();
        flow
    }

    fn stage(&mut self, now: Now, event: Event, staged: &mut Vec<(Now, Event)>) {
        self.ledger.apply(now, &event);
        if self.takes_record(&event) {
            staged.push((now, event));
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
                let admitted = admit(now, held, facts)?;
                let ceiling = held.ceiling(facts, plan.bytes_max)?;
                let query = self.ledger.next_query();
                let event = admitted_event(query, asking, &admitted, ceiling);
                if fits(&event) {
                    Ok((held, admitted, ceiling, query, event))
                } else {
                    Err(too_long_to_record())
                }
            });
        match judged {
            Ok((held, admitted, ceiling, query, event)) => {
                let permit = Permit::new(query, Arc::new(open_window(held)), admitted, ceiling);
                (event, Waiting::Admitted(reply, permit))
            }
            Err(refusal) => {
                let event = Event::QueryRefused {
                    grant: Some(*grant),
                    agent: requester.agent.clone(),
                    session: requester.session,
                    process: requester.process.clone(),
                    request: facts.method.to_string(),
                    sql: facts.sql.clone(),
                    sql_cut: None,
                    refusal: refusal.clone(),
                };
                (event.bounded(), Waiting::Refused(reply, refusal))
            }
        }
    }

    /// Makes what is staged durable, then lets the answers go. Without durability every answer is a refusal.
    fn commit(&mut self, staged: &mut Vec<(Now, Event)>, waiting: &mut Vec<Waiting>) {
        let staged = std::mem::take(staged);
        let recorded = self.append(&staged);
        if recorded.is_err() {
            // The ledger is what the log makes of it: what was admitted ahead of its record is taken back.
            for (_, event) in staged.iter().rev() {
                self.ledger.withdraw(event);
            }
            self.keep_unrecorded(staged);
        }
        for answer in waiting.drain(..) {
            match (&recorded, answer) {
                // Whoever asked may have gone: the permit says so itself.
                (Ok(()), Waiting::Admitted(reply, permit)) => {
                    drop(reply.send(Ok(permit.given(self.shared.queue.clone()))))
                }
                (Ok(()), Waiting::Refused(reply, refusal)) => drop(reply.send(Err(refusal))),
                (Ok(()), Waiting::Recorded(reply)) => drop(reply.send(Ok(()))),
                (Err(refusal), Waiting::Admitted(reply, _) | Waiting::Refused(reply, _)) => {
                    drop(reply.send(Err(refusal.clone())))
                }
                (Err(refusal), Waiting::Recorded(reply)) => drop(reply.send(Err(refusal.clone()))),
            }
        }
    }

    fn append(&mut self, events: &[(Now, Event)]) -> Result<(), Refusal> {
        if events.is_empty() {
            return Ok(());
        }
        self.record_the_unrecorded();
        if !self.unrecorded.is_empty() {
            return Err(audit_unavailable());
        }
        self.append_now(events)
    }

    fn append_now(&mut self, events: &[(Now, Event)]) -> Result<(), Refusal> {
        match self.log.append(events) {
            Ok(()) => {
                self.audit_fault = None;
                self.records.send_replace(self.log.count());
                Ok(())
            }
            Err(error) => {
                if self.audit_fault.is_none() {
                    tracing::error!(error = %Causes(&error), "the audit log cannot be written: nothing is allowed until it can");
                }
                self.audit_fault = Some(Causes(&error).to_string());
                Err(audit_unavailable())
            }
        }
    }

    fn record_the_unrecorded(&mut self) {
        while !self.unrecorded.is_empty() {
            let oldest = self.unrecorded.oldest(BATCH_MAX);
            if self.append_now(&oldest).is_err() {
                return;
            }
            self.unrecorded.recorded(&oldest);
        }
    }

    fn keep_unrecorded(&mut self, staged: Vec<(Now, Event)>) {
        for (now, event) in staged {
            if let Some(refused) = self.unrecorded.keep(now, event) {
                self.refusals().count(refused);
            }
        }
    }

    fn control(&mut self, caller: &Caller, ask: Ask) -> Reply {
        let now = self.parts.clock.now();
        let (command, action) = match ask {
            Ask::Request(ask) => return self.request(now, caller, ask),
            Ask::Status => return self.status(now, caller),
            Ask::Approve {
                request,
                seen,
                ttl,
                datasets,
            } => {
                let terms = ApproveTerms {
                    seen,
                    ttl,
                    datasets: datasets.map(|datasets| datasets.into_iter().collect()),
                };
                (
                    Command::Approve(request, terms),
                    format!("approve {request}"),
                )
            }
            Ask::Deny { request, reason } => {
                (Command::Deny(request, reason), format!("deny {request}"))
            }
            Ask::Revoke { grant } => (Command::Revoke(grant), format!("revoke {grant}")),
            Ask::Close { grant } => (Command::Close(grant), format!("close {grant}")),
            Ask::Log { .. } | Ask::Join { .. } => {
                return Reply::Refused(Refusal::new(
                    Code::InputInvalid,
                    "This is answered elsewhere",
                ));
            }
        };
        match self.ledger.decide(now, &self.parts.policy, caller, command) {
            Ok(decision) => match self.perform(now, &decision) {
                Ok(Some(grant)) => self.opened_reply(now, grant),
                Ok(None) => Reply::Done,
                Err(refusal) => Reply::Refused(refusal),
            },
            Err(refusal) => {
                let event = Event::DecisionRefused {
                    caller: caller.clone(),
                    action,
                    refusal: refusal.clone(),
                };
                self.refuse(now, event, refusal)
            }
        }
    }

    fn request(&mut self, now: Now, caller: &Caller, ask: enforcer_proto::policy::Ask) -> Reply {
        match self.ledger.decide(
            now,
            &self.parts.policy,
            caller,
            Command::Request(ask.clone()),
        ) {
            Ok(decision) => match self.perform(now, &decision) {
                Ok(grant) => {
                    let Some(request) = self.ledger.requests().next_back() else {
                        return Reply::Refused(Refusal::new(
                            Code::KernelFailed,
                            "The request was lost",
                        ));
                    };
                    let grant = grant
                        .and_then(|grant| self.ledger.grant(grant))
                        .map(|grant| views::grant(now, grant));
                    Reply::Requested {
                        request: request.id,
                        grant,
                    }
                }
                Err(refusal) => Reply::Refused(refusal),
            },
            Err(refusal) => {
                let event = Event::RequestRefused {
                    caller: caller.clone(),
                    ask: Some(ask),
                    refusal: refusal.clone(),
                };
                self.refuse(now, event, refusal)
            }
        }
    }

    fn refuse(&mut self, now: Now, event: Event, refusal: Refusal) -> Reply {
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

    fn status(&self, now: Now, caller: &Caller) -> Reply {
        let may_see = caller.agent.is_some()
            || caller.process.uid == 0
            || self
                .parts
                .policy
                .rules
                .iter()
                .any(|rule| rule.approvers.names(caller));
        if !may_see {
            return Reply::Refused(Refusal::new(
                Code::CallerForbidden,
                format!("Uid {} may not see the windows", caller.process.uid),
            ));
        }
        Reply::Status(Box::new(views::status(
            now,
            &self.parts,
            &self.ledger,
            caller,
            self.log.room(),
            self.faults(),
        )))
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = self.parts.kernel.drift();
        match self.log.room().free_bytes {
            Some(free) if free < LOG_RESERVE_BYTES => faults.push(format!(
                "the file system of the audit log has {free} bytes left, less than the {LOG_RESERVE_BYTES} it should have: when it is full, nothing is allowed"
            )),
            Some(_) => {}
            None => faults.push("how much room the audit log has cannot be told".to_owned()),
        }
        if let Some(fault) = &self.audit_fault {
            faults.push(format!(
                "the audit log cannot be written, so nothing is allowed: {fault}"
            ));
        }
        if self.unrecorded.lost() > 0 {
            faults.push(format!(
                "{} events could not be recorded and were dropped",
                self.unrecorded.lost()
            ));
        }
        for agent in &self.stuck {
            faults.push(format!(
                "the kernel did not let go of the window of agent {agent}; the proxy refuses it"
            ));
        }
        faults
    }

    /// Performs a decision: closings, then the records, then openings. Gives the grant that was opened.
    fn perform(&mut self, now: Now, decision: &Decision) -> Result<Option<GrantId>, Refusal> {
        if decision.then.is_empty() && decision.events.iter().all(only_restricts) {
            self.restrict(now, decision);
            return Ok(None);
        }
        self.append(&at(now, &decision.events))?;
        for event in &decision.events {
            self.ledger.apply(now, event);
        }
        let mut opened = None;
        for effect in &decision.then {
            if let Effect::OpenWindow {
                agent,
                grant,
                opens_boot_ns,
                closes_boot_ns,
            } = effect
            {
                self.open_in_kernel(now, agent, *grant, *opens_boot_ns, *closes_boot_ns)?;
                opened = Some(*grant);
            }
        }
        Ok(opened)
    }

    /// Performs what only takes away: in force at once, recorded as soon as the log can be written.
    fn restrict(&mut self, now: Now, decision: &Decision) {
        let mut closed = Vec::new();
        for effect in &decision.first {
            if let Effect::CloseWindow { agent, grant, .. } = effect {
                self.close_in_kernel(agent);
                closed.push(*grant);
            }
        }
        for event in &decision.events {
            self.ledger.apply(now, event);
        }
        if !decision.first.is_empty() {
            self.publish(now);
        }
        let closed = closed.iter().filter_map(|grant| self.ledger.grant(*grant));
        for window in closed.filter_map(closed_window) {
            self.hand_over(window);
        }
        let staged = at(now, &decision.events);
        if self.append(&staged).is_err() {
            self.keep_unrecorded(staged);
        }
    }

    /// Gives a closed window's jobs to whoever cancels them.
    fn hand_over(&self, window: ClosedWindow) {
        // Nobody listens any more only when the daemon stops; the next start finds what is left.
        let _ = self.closed.send(Arc::new(window));
    }

    /// A job that is heard of only after its window's close: its start was under way.
    fn hand_over_late(&self, event: &Event) {
        let Event::JobSeen { grant, job, .. } = event else {
            return;
        };
        let grant = self.ledger.grant(*grant);
        if let Some(closed) = grant.and_then(closed_window)
            && closed.jobs.contains(job)
        {
            self.hand_over(ClosedWindow {
                jobs: vec![job.clone()],
                unanswered: Vec::new(),
                ..closed
            });
        }
    }

    fn open_in_kernel(
        &mut self,
        now: Now,
        agent: &AgentName,
        grant: GrantId,
        opens: u64,
        closes: u64,
    ) -> Result<(), Refusal> {
        if let Err(fault) = self.parts.kernel.open(agent, grant, opens, closes) {
            tracing::error!(%agent, %grant, %fault, "the kernel did not take the window");
            let decision = self.ledger.open_failed(grant);
            self.restrict(now, &decision);
            return Err(Refusal::new(
                Code::KernelFailed,
                format!("The kernel did not take window {grant}, so it was closed"),
            ));
        }
        // The entry that the kernel did not let go is overwritten: taking it away now would take the new window.
        self.stuck.remove(agent);
        self.publish(now);
        // The window is open and its approval is on disk; a lost "opened" takes nothing from the record of who allowed what.
        let staged = at(
            now,
            &[Event::Opened {
                grant,
                agent: agent.clone(),
            }],
        );
        if self.append(&staged).is_err() {
            self.keep_unrecorded(staged);
        }
        Ok(())
    }

    fn close_in_kernel(&mut self, agent: &AgentName) {
        if let Err(fault) = self.parts.kernel.close(agent) {
            tracing::error!(%agent, %fault, "the kernel did not let go of the window; retrying");
            self.stuck.insert(agent.clone());
        }
    }

    fn publish(&self, now: Now) {
        let open = self.ledger.grants().filter(|grant| grant.is_open_at(now));
        let windows = open
            .map(|grant| (grant.agent.clone(), Arc::new(open_window(grant))))
            .collect();
        self.windows.send_replace(Arc::new(windows));
    }

    /// Says that the daemon stopped. Windows stay as they are: the kernel holds their deadlines, and nothing is served without the proxy.
    fn stop(&mut self) {
        let now = self.parts.clock.now();
        self.record_the_counted(now);
        let staged = at(now, &[Event::DaemonStopped {}]);
        if self.append(&staged).is_err() {
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

/// What a closed window leaves behind; `None` while it is open.
fn closed_window(grant: &Grant) -> Option<ClosedWindow> {
    let (reason, _) = grant.closed?;
    Some(ClosedWindow {
        window: Arc::new(open_window(grant)),
        reason,
        jobs: grant.running_jobs(),
        unanswered: grant.unanswered_jobs(),
    })
}

fn open_window(grant: &Grant) -> OpenWindow {
    OpenWindow {
        grant: grant.id,
        agent: grant.agent.clone(),
        scope: grant.scope.clone(),
        approver: grant.approver.clone(),
        closes_boot_ns: grant.closes_boot_ns,
    }
}

fn admitted_event(
    query: QueryId,
    asking: &Asking,
    admitted: &Admitted,
    ceiling: Option<u64>,
) -> Event {
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
        method: admitted.method(),
        sql: facts.sql.clone(),
        tables: admitted.tables().to_vec(),
        resource: facts.touch.resource(),
        bytes: admitted.bytes(),
        job: plan.job.clone(),
        ceiling,
        is_dry_run: facts.is_dry_run,
    }
}

/// What became of a request, in one word.
pub(super) const fn state_word(state: &RequestState) -> &'static str {
    match state {
        RequestState::Pending => "pending",
        RequestState::Approved(_) => "approved",
        RequestState::Denied(_) => "denied",
        RequestState::Expired => "expired",
    }
}
