//! How a decision is performed: what it takes away first and at once, what it gives only behind its record.

use std::sync::Arc;

use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::ledger::{Decision, Effect, Grant};
use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::time::Now;

use super::super::{ClosedWindow, at, only_restricts};
use super::{Owner, open_window};

impl Owner {
    /// Performs a decision: closings, then the records, then openings. Gives the grant that was opened.
    pub(in crate::engine) fn perform(
        &mut self,
        now: Now,
        decision: &Decision,
    ) -> Result<Option<GrantId>, Refusal> {
        if decision.then.is_empty() && decision.events.iter().all(only_restricts) {
            self.restrict(now, decision);
            return Ok(None);
        }
        self.append(&at(now, &decision.events))?;
        for event in &decision.events {
            self.ledger.apply(now, event);
        }
        let opened = self.open(now, decision);
        self.tell(now, &decision.events);
        opened
    }

    fn open(&mut self, now: Now, decision: &Decision) -> Result<Option<GrantId>, Refusal> {
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

    /// Performs what only takes away: in force at once, recorded some milliseconds later, or as soon as the log can be written.
    pub(in crate::engine) fn restrict(&mut self, now: Now, decision: &Decision) {
        let mut closed = Vec::new();
        for effect in &decision.first {
            if let Effect::CloseWindow { agent, grant, .. } = effect {
                self.close_in_kernel(agent);
                closed.push((agent, *grant));
            }
        }
        let mut left = Vec::new();
        for event in &decision.events {
            self.ledger.apply(now, event);
            // Each at once: where very many close together the ledger does not remember all of them to the end.
            if let Event::Closed { grant, .. } = event {
                left.extend(self.ledger.grant(*grant).and_then(closed_window));
            }
        }
        self.withdraw(&closed);
        for window in left {
            self.hand_over(window);
        }
        // Whoever is refused next because of it, on record first, shares its sync.
        self.staged.extend(at(now, &decision.events));
        self.tell(now, &decision.events);
    }

    /// Gives a closed window's jobs to whoever cancels them.
    pub(in crate::engine) fn hand_over(&self, window: ClosedWindow) {
        // Nobody listens any more only when the daemon stops; the next start finds what is left.
        let _ = self.news.closed.send(Arc::new(window));
    }

    /// A job that is heard of only after its window's close: its start was under way.
    pub(super) fn hand_over_late(&self, event: &Event) {
        let Event::JobSeen { grant, job, .. } = event else {
            return;
        };
        let grant = self.ledger.grant(*grant);
        if let Some(closed) = grant.and_then(closed_window)
            && closed.jobs.iter().any(|left| left.job.is_same_job(job))
        {
            self.hand_over(closed);
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
        self.publish(grant);
        // The window is open and its approval is on disk; a lost "opened" takes nothing from the record of who allowed what. Windows may have been
        // ended while the approval was written: it comes after those.
        let now = self.parts.clock.now();
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

    pub(super) fn close_in_kernel(&mut self, agent: &AgentName) {
        if let Err(fault) = self.parts.kernel.close(agent) {
            tracing::error!(%agent, %fault, "the kernel did not let go of the window; retrying");
            self.stuck.insert(agent.clone());
        }
    }

    /// Shows everybody all windows that are open at `now`.
    pub(super) fn publish_all(&self, now: Now) {
        let open = self.ledger.open_grants();
        let open = open.filter(|grant| grant.is_open_at(now));
        let windows = open
            .map(|grant| (grant.agent.clone(), Arc::new(open_window(grant))))
            .collect();
        self.news.windows.send_replace(Arc::new(windows));
    }

    /// Shows everybody one more. The others are not looked at: there may be ten thousand.
    fn publish(&self, grant: GrantId) {
        let Some(grant) = self.ledger.grant(grant) else {
            return;
        };
        let window = Arc::new(open_window(grant));
        self.news
            .windows
            .send_modify(|open| drop(Arc::make_mut(open).insert(grant.agent.clone(), window)));
    }

    /// Shows these windows to nobody any more.
    fn withdraw(&self, closed: &[(&AgentName, GrantId)]) {
        if closed.is_empty() {
            return;
        }
        self.news.windows.send_modify(|open| {
            let open = Arc::make_mut(open);
            for (agent, grant) in closed {
                if open.get(*agent).is_some_and(|held| held.grant == *grant) {
                    open.remove(*agent);
                }
            }
        });
    }
}

/// What a closed window leaves behind; `None` while it is open.
pub(super) fn closed_window(grant: &Grant) -> Option<ClosedWindow> {
    let (reason, _) = grant.closed?;
    Some(ClosedWindow {
        window: Arc::new(open_window(grant)),
        reason,
        jobs: grant.unsettled_jobs(),
    })
}
