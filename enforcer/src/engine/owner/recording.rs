//! What the owner does with the log: records, in the order in which things happened, and looks after it.

use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::refusal::Refusal;
use enforcer_proto::time::Now;

use super::super::at;
use super::{BATCH_MAX, Owner, Waiting, audit_unavailable};
use crate::audit::{AuditError, Log};
use crate::causes::Causes;
use crate::tally::{Counted, Who};

/// How often old segments are looked for.
const RETENTION_LOOK: Duration = Duration::from_secs(600);
/// How often it is looked who presses while the disk is waited for.
const LOOK: Duration = Duration::from_millis(2);

impl Owner {
    /// Makes what is staged durable, then lets the answers go, and says whether it is. Without durability every answer is a refusal.
    pub(super) fn commit(&mut self, waiting: &mut Vec<Waiting>) -> bool {
        let staged = std::mem::take(&mut self.staged);
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
        recorded.is_ok()
    }

    pub(super) fn append(&mut self, events: &[(Now, Event)]) -> Result<(), Refusal> {
        if events.is_empty() {
            return Ok(());
        }
        // What happened before is recorded before.
        if !self.staged.is_empty() {
            self.commit(&mut Vec::new());
        }
        self.record_the_unrecorded();
        if !self.unrecorded.is_empty() {
            return Err(audit_unavailable());
        }
        self.append_now(events)
    }

    fn append_now(&mut self, events: &[(Now, Event)]) -> Result<(), Refusal> {
        match self.write(events) {
            Ok(()) => {
                self.audit_fault = None;
                self.count_refused(events);
                self.publish_end();
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

    /// Counts what was refused to agents, once it is on record.
    fn count_refused(&mut self, events: &[(Now, Event)]) {
        let counted = events.iter().filter_map(|(_, event)| Counted::of(event));
        for Counted { who, count, .. } in counted {
            if let Who::Agent(agent) = who {
                let refused = self.refused.entry(agent).or_insert(0);
                *refused = refused.saturating_add(count);
            }
        }
    }

    /// Writes to the log. While its disk is waited for, windows can be ended all the same.
    pub(super) fn write(&mut self, events: &[(Now, Event)]) -> Result<(), AuditError> {
        self.log.begin(self.parts.clock.now(), events)?;
        self.waited()
    }

    /// Tries again to cut off what was refused and could not be cut off when it was: a start that found it would take it for what has happened.
    pub(super) fn cut_back(&mut self, now: Now) {
        if !self.log.begin_cut_back(now) {
            return;
        }
        match self.waited() {
            Ok(()) => tracing::info!("what was refused is no more in the audit log's file"),
            // That it stays to be done is said by `status`.
            Err(error) => {
                tracing::debug!(error = %Causes(&error), "what was refused is still in the audit log's file");
            }
        }
    }

    /// What has come of what was begun.
    fn waited(&mut self) -> Result<(), AuditError> {
        // What is known by now ends before the disk is waited for again.
        self.end_again();
        let mut is_said = false;
        loop {
            if let Some(written) = self.log.wait(LOOK) {
                self.pressing.go_on();
                return written;
            }
            self.meanwhile(&mut is_said);
        }
    }

    /// Tells everybody where the log ends now.
    pub(super) fn publish_end(&self) {
        let Some(log) = self.log.here() else { return };
        let (end, segment) = (log.end(), log.segment());
        self.news.records.send_replace(end.records);
        self.news.ends.send_replace(end);
        self.news
            .segments
            .send_if_modified(|before| std::mem::replace(before, segment) != segment);
    }

    /// Keeps what the ledger is where a segment has been filled since, and removes what the operator's retention does not keep.
    pub(super) fn look_after_the_log(&mut self, now: Now) {
        if let Some(written) = self.snapshots.written(&self.parts.audit_dir) {
            self.stage(now, written);
        }
        let segment = self.log.here().map(Log::segment);
        if segment.is_some_and(|segment| self.snapshots.is_due(segment)) {
            // What the ledger has taken in must be in the log: only then is it what the log makes of it.
            self.commit(&mut Vec::new());
            if let Some(log) = self.log.here().filter(|_| self.is_all_recorded()) {
                self.snapshots.take(log, &self.ledger);
            }
        }
        let is_due = self
            .retained_boot_ns
            .is_none_or(|at| now.boot_ns.saturating_sub(at) >= RETENTION_LOOK.as_nanos() as u64);
        if is_due {
            // However often something is to be recorded, what is old goes.
            self.commit(&mut Vec::new());
            if self.is_all_recorded() {
                self.retained_boot_ns = Some(now.boot_ns);
                self.retain(now);
            }
        }
    }

    pub(super) fn is_all_recorded(&self) -> bool {
        self.staged.is_empty() && self.unrecorded.is_empty()
    }

    /// Record, then remove.
    fn retain(&mut self, now: Now) {
        let needed = self.ledger.needed(now);
        let numbers = self.ledger.numbers();
        let Some(log) = self.log.here() else { return };
        let removable = log.removable(self.parts.keep, now, &needed, numbers);
        let done = removable.and_then(|event| {
            let Some(event) = event else { return Ok(()) };
            let Event::SegmentsRemoved { last_seq, .. } = event else {
                return Ok(());
            };
            if self.append(&at(now, &[event])).is_err() {
                // Said already; nothing goes before it is on record.
                return Ok(());
            }
            match self.log.here_mut() {
                Some(log) => log.remove_up_to(last_seq),
                None => Ok(()),
            }
        });
        let fault = done.err().map(|error| {
            format!(
                "old segments of the audit log cannot be removed: {}",
                Causes(&error)
            )
        });
        self.parts.watched.say("retention", fault);
    }

    pub(super) fn record_the_unrecorded(&mut self) {
        while !self.unrecorded.is_empty() {
            let oldest = self.unrecorded.oldest(BATCH_MAX);
            if self.append_now(&oldest).is_err() {
                return;
            }
            self.unrecorded.recorded(&oldest);
        }
    }

    pub(super) fn keep_unrecorded(&mut self, staged: Vec<(Now, Event)>) {
        for (now, event) in staged {
            if let Some(refused) = self.unrecorded.keep(now, event) {
                self.refusals().count(refused);
            }
        }
    }
}
