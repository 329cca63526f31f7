//! What people and agents are told of how things are. Changes nothing.

use enforcer_proto::id::RequestId;
use enforcer_proto::ledger::Request;
use enforcer_proto::principal::{AgentName, Caller};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::text::safe_line;
use enforcer_proto::time::Now;
use enforcer_proto::wire::{LogView, Reply};

use super::super::views::{self, Shown};
use super::Owner;

/// How much room the file system of the log must have, bytes: with less, `status` says that the host is not well.
const LOG_RESERVE_BYTES: u64 = 256 * 1024 * 1024;

/// What an agent is told of whatever is wrong with the host.
const UNWELL_FOR_AGENTS: &str =
    "something on this host needs its operator, who sees what (enforcer status)";

impl Owner {
    /// Whether the caller may see windows, an agent its own.
    fn check_may_see(&self, caller: &Caller) -> Result<(), Refusal> {
        let may_see = caller.agent.is_some()
            || caller.process.uid == 0
            || self.parts.policy.rules.iter().any(|rule| {
                let glass = rule.break_glass.as_ref();
                rule.approvers.names(caller) || glass.is_some_and(|glass| glass.who.names(caller))
            });
        if may_see {
            return Ok(());
        }
        Err(Refusal::new(
            Code::CallerForbidden,
            format!("Uid {} may not see the windows", caller.process.uid),
        ))
    }

    pub(super) fn status(&self, now: Now, caller: &Caller) -> Reply {
        match self.check_may_see(caller) {
            Ok(()) => self.shown(now, caller, Shown::All),
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    /// One request, however many wait: what nobody can see nobody can decide on.
    pub(super) fn show(&self, now: Now, caller: &Caller, id: RequestId) -> Reply {
        let own = |held: &&Request| caller.agent.as_ref().is_none_or(|own| *own == held.agent);
        let found = self.check_may_see(caller).and_then(|()| {
            self.ledger.request(id).filter(own).ok_or_else(|| {
                let what =
                    format!("Request {id} is none of the caller's to see, or is not remembered");
                Refusal::new(Code::NotPending, what)
            })
        });
        match found {
            Ok(request) => self.shown(now, caller, Shown::One(request)),
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    fn shown(&self, now: Now, caller: &Caller, what: Shown<'_>) -> Reply {
        let mut status = views::status(
            now,
            &self.parts,
            &self.ledger,
            &self.waiting,
            (caller, what),
            LogView {
                checkpoint: self.parts.watched.checkpoint(),
                ..self.log.room()
            },
            self.faults(caller),
        );
        if caller.agent.is_none() {
            status.started_unix_ns = self.started_unix_ns;
        }
        for agent in &mut status.agents {
            agent.refused = self.refused.get(&agent.agent).copied().unwrap_or(0);
        }
        Reply::Status(Box::new(status))
    }

    /// What is wrong with the host, whoever's windows are open: for people.
    fn faults_of_host(&self) -> Vec<String> {
        let mut faults = self.parts.kernel.drift();
        match self.log.room().free_bytes {
            Some(free) if free < LOG_RESERVE_BYTES => faults.push(format!(
                "the file system of the audit log has {free} bytes left, less than the {LOG_RESERVE_BYTES} it should have: when it is full, nothing is allowed"
            )),
            Some(_) => {}
            None => faults.push("how much room the audit log has cannot be told".to_owned()),
        }
        faults.extend(self.disk_fault(self.parts.clock.now()));
        if let Some(fault) = &self.audit_fault {
            faults.push(format!(
                "the audit log cannot be written, so nothing is allowed: {fault}"
            ));
        }
        if self.log.is_dirty() {
            faults.push("what was refused, since it could not be recorded, may still be in the audit log's file: it could not be cut off, or not durably, and a daemon that starts now would take it for what has happened. It is tried again until it is cut off".to_owned());
        }
        if self.unrecorded.lost() > 0 {
            faults.push(format!(
                "{} events could not be recorded, and there was no room to keep them: that they are lost is put on record once the log can be written",
                self.unrecorded.lost()
            ));
        }
        if let Some(fault) = &self.policy_fault {
            faults.push(format!(
                "the changed policy file cannot be used, and the rules stay as they were: {fault}"
            ));
        }
        faults
    }

    /// What is wrong, as far as it is the caller's to know. What the host's faults say names agents, people, files and interfaces that are
    /// nothing to an agent: it is told that there are some.
    fn faults(&self, caller: &Caller) -> Vec<String> {
        let mut faults = self.faults_of_host();
        if caller.agent.is_some() && !faults.is_empty() {
            faults = vec![UNWELL_FOR_AGENTS.to_owned()];
        }
        let own = |agent: &AgentName| caller.agent.as_ref().is_none_or(|own| own == agent);
        for (grant, how) in self.ledger.unreviewed().filter(|(_, how)| own(&how.agent)) {
            faults.push(format!(
                "window {grant} of agent {} was opened in an emergency by {}, and nobody else has looked at it yet (enforcer review {grant} --note WHAT): {}",
                how.agent,
                how.by,
                safe_line(&how.reason, 200)
            ));
        }
        // Where the log is kept besides is nothing to an agent.
        if caller.agent.is_none() {
            faults.extend(self.parts.watched.faults());
        }
        for agent in self.stuck.iter().filter(|agent| own(agent)) {
            faults.push(format!(
                "the kernel did not let go of the window of agent {agent}; the proxy refuses it"
            ));
        }
        faults
    }
}
