//! What is done also while the log's disk is waited for: windows are ended at once, by whoever may and by their deadlines, and it is said how
//! things are. Whatever must be on record
//! first waits, like everything else.

use std::collections::VecDeque;
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::ledger::{Command, Decision};
use enforcer_proto::principal::Caller;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::time::Now;
use enforcer_proto::wire::{GrantView, Reply};
use tokio::sync::{mpsc, oneshot};

use super::super::handle::{Ending, Pressing};
use super::super::{HEARTBEAT, views};
use super::Owner;

/// How long the disk may be waited for before that is said.
const PATIENCE: Duration = Duration::from_secs(1);

/// Who waits for such an answer.
#[derive(Debug)]
pub(super) struct Waiters {
    from: mpsc::Receiver<Pressing>,
    held: VecDeque<Pressing>,
    /// What could not be answered while the disk was waited for. Bounded by the connections that wait for it.
    put_off: VecDeque<Pressing>,
    /// Who has ended something while the disk was waited for, and hears of it once it is on record. Bounded likewise.
    ended: Vec<Ended>,
    /// Who has ended every window while the disk was waited for, and does so again once it has answered. Bounded likewise.
    again: Vec<Again>,
}

/// What was ended ahead of its record.
#[derive(Debug)]
struct Ended {
    at: Now,
    said: Reply,
    reply: oneshot::Sender<Reply>,
}

/// Every window is to end, also one that was being recorded when this was asked: what was known then has ended, and the rest does when it is known.
#[derive(Debug)]
struct Again {
    at: Now,
    caller: Caller,
    ended: Vec<GrantId>,
    /// None for who has been told already.
    reply: Option<oneshot::Sender<Reply>>,
}

impl Waiters {
    pub(super) const fn new(from: mpsc::Receiver<Pressing>) -> Self {
        Self {
            from,
            held: VecDeque::new(),
            put_off: VecDeque::new(),
            ended: Vec::new(),
            again: Vec::new(),
        }
    }

    /// Waits for one.
    pub(super) async fn come(&mut self) {
        if self.are_there() {
            return;
        }
        match self.from.recv().await {
            Some(pressing) => self.held.push_back(pressing),
            // Nobody holds a handle: that ends the engine by itself.
            None => std::future::pending().await,
        }
    }

    pub(super) fn are_there(&self) -> bool {
        let is_done = self.ended.is_empty() && self.again.is_empty();
        !(self.held.is_empty() && self.from.is_empty() && is_done)
    }

    /// Tells those that have waited for their record for long that it has none yet.
    fn tell_late(&mut self, now: Now) {
        let patience = PATIENCE.as_nanos() as u64;
        let is_late = |at: Now| now.boot_ns.saturating_sub(at.boot_ns) >= patience;
        let late = self.ended.extract_if(.., |ended| is_late(ended.at));
        for Ended { said, reply, .. } in late {
            drop(reply.send(as_recorded(said, false)));
        }
        for again in self.again.iter_mut().filter(|again| is_late(again.at)) {
            if let Some(reply) = again.reply.take() {
                drop(reply.send(Reply::Refused(ended_so_far(again.ended.len()))));
            }
        }
    }

    /// The disk is not waited for any more.
    pub(super) fn go_on(&mut self) {
        // Before those that came later.
        self.put_off.append(&mut self.held);
        std::mem::swap(&mut self.put_off, &mut self.held);
    }

    fn next(&mut self) -> Option<Pressing> {
        self.held.pop_front().or_else(|| self.from.try_recv().ok())
    }
}

impl Owner {
    /// Answers those who are there now.
    pub(super) fn answer_pressing(&mut self) {
        self.answer_ended();
        self.end_the_rest();
        for _ in 0..self.pressing.held.len() + self.pressing.from.len() {
            let Some(pressing) = self.pressing.next() else {
                return;
            };
            self.commit(&mut Vec::new());
            let now = self.parts.clock.now();
            // Whoever asked may have gone: what was decided stands all the same.
            match pressing {
                Pressing::Status(caller, reply) => drop(reply.send(self.status(now, &caller))),
                Pressing::End(caller, ending, reply) => {
                    let said = self.end(now, &caller, ending);
                    let is_recorded = self.commit(&mut Vec::new());
                    drop(reply.send(as_recorded(said, is_recorded)));
                }
            }
        }
    }

    /// Tells those who have ended something of its record.
    fn answer_ended(&mut self) {
        let ended = std::mem::take(&mut self.pressing.ended);
        if ended.is_empty() {
            return;
        }
        let is_recorded = self.is_all_committed();
        for Ended { said, reply, .. } in ended {
            drop(reply.send(as_recorded(said, is_recorded)));
        }
    }

    /// Ends what was being recorded when every window was to end, and tells who wanted it what has ended in all.
    fn end_the_rest(&mut self) {
        let all = std::mem::take(&mut self.pressing.again);
        if all.is_empty() {
            return;
        }
        let all: Vec<_> = all
            .into_iter()
            .map(|again| self.ended_again(again))
            .collect();
        let is_recorded = self.is_all_committed();
        let now = self.parts.clock.now();
        for Again { ended, reply, .. } in all {
            let Some(reply) = reply else { continue };
            let said = Reply::GivenBack(self.views_of(now, &ended));
            drop(reply.send(as_recorded(said, is_recorded)));
        }
    }

    /// Ends what is known now of every window, also while the disk is waited for.
    pub(super) fn end_again(&mut self) {
        let all = std::mem::take(&mut self.pressing.again);
        let all = all.into_iter().map(|again| self.ended_again(again));
        self.pressing.again = all.collect();
    }

    fn ended_again(&mut self, mut again: Again) -> Again {
        let now = self.parts.clock.now();
        let (policy, command) = (&self.parts.policy, Command::CloseAll);
        // Whoever might then and may not any more, by a policy that has changed, has ended what was known then.
        if let Ok(rest) = self.ledger.decide(now, policy, &again.caller, command) {
            self.restrict(now, &rest);
            again.ended.extend(closed_by(&rest));
        }
        again
    }

    /// Makes what is staged durable, and says whether all that has happened is on record: what has ended may have been recorded, or not, before.
    fn is_all_committed(&mut self) -> bool {
        self.commit(&mut Vec::new()) && self.is_all_recorded()
    }

    fn end(&mut self, now: Now, caller: &Caller, ending: Ending) -> Reply {
        let action = match ending {
            Ending::Revoke(grant) => format!("revoke {grant}"),
            Ending::Close(grant) => format!("close {grant}"),
            Ending::Done => {
                return self.gives_back(now, caller, Command::Done, "give back what is open");
            }
            Ending::Lock(ref agent, _) => format!("lock agent {agent}"),
            Ending::CloseAll => {
                return self.gives_back(now, caller, Command::CloseAll, "close every window");
            }
        };
        self.decided(now, caller, command(ending), action)
    }

    /// While the disk is waited for, which is said once it has taken long.
    pub(super) fn meanwhile(&mut self, is_said: &mut bool) {
        let now = self.parts.clock.now();
        if now.boot_ns.saturating_sub(self.beaten_boot_ns) >= HEARTBEAT.as_nanos() as u64 {
            self.tell_alive(now);
        }
        if !*is_said && self.log.waits(now).is_some_and(|waited| waited >= PATIENCE) {
            *is_said = true;
            tracing::error!(
                "the disk of the audit log does not answer: nothing is allowed until it does"
            );
        }
        self.close_what_has_ended(now);
        self.pressing.tell_late(now);
        while let Some(pressing) = self.pressing.next() {
            match pressing {
                Pressing::Status(caller, reply) => drop(reply.send(self.status(now, &caller))),
                Pressing::End(caller, ending, reply) => {
                    if let Some(reply) = self.end_at_once(now, &caller, &ending, reply) {
                        let put_off = Pressing::End(caller, ending, reply);
                        self.pressing.put_off.push_back(put_off);
                    }
                }
            }
        }
    }

    /// Closes windows at their end, ahead of the record of it: a disk that does not answer lets none of their jobs run on. What is being recorded
    /// opens no window that is known yet, and closes none twice, since a close holds before it is recorded.
    fn close_what_has_ended(&mut self, now: Now) {
        if !self.is_resumed {
            return;
        }
        let ended = self.ledger.ended(now);
        if !ended.events.is_empty() {
            self.restrict(now, &ended);
        }
    }

    /// Ends windows ahead of the record of it, which is said once it is on record, or has not been for long; gives the reply back where more is to be
    /// done than that. What is being recorded is decided already,
    /// and no decision on a request may come in between: who ends every window ends such a one when the disk has answered.
    fn end_at_once(
        &mut self,
        now: Now,
        caller: &Caller,
        ending: &Ending,
        reply: oneshot::Sender<Reply>,
    ) -> Option<oneshot::Sender<Reply>> {
        let policy = &self.parts.policy;
        let command = command(ending.clone());
        let decided = self.ledger.decide(now, policy, caller, command);
        let closes = |event: &Event| matches!(event, Event::Closed { .. });
        match decided {
            Ok(decision)
                if decision.then.is_empty()
                    && (decision.events.iter().any(closes) || *ending == Ending::CloseAll) =>
            {
                let all = decision.events.len();
                // What else there is to it waits: a window may be part of what is being recorded, and a lock that came in between would not
                // keep it closed.
                let closing = Decision {
                    events: decision.events.into_iter().filter(closes).collect(),
                    ..decision
                };
                self.restrict(now, &closing);
                if closing.events.len() < all {
                    return Some(reply);
                }
                self.answer_later(now, caller, ending, (closed_by(&closing), reply));
                None
            }
            Ok(_) | Err(_) => Some(reply),
        }
    }

    /// What is said of windows that have ended: which, where they were not named. It is said once that is on record, or has not been for long.
    fn answer_later(
        &mut self,
        at: Now,
        caller: &Caller,
        ending: &Ending,
        (ended, reply): (Vec<GrantId>, oneshot::Sender<Reply>),
    ) {
        let said = match ending {
            Ending::Revoke(_) | Ending::Close(_) | Ending::Lock(..) => Reply::Done,
            Ending::Done => Reply::GivenBack(self.views_of(at, &ended)),
            Ending::CloseAll => {
                let (caller, reply) = (caller.clone(), Some(reply));
                self.pressing.again.push(Again {
                    at,
                    caller,
                    ended,
                    reply,
                });
                return;
            }
        };
        self.pressing.ended.push(Ended { at, said, reply });
    }

    fn views_of(&self, now: Now, grants: &[GrantId]) -> Vec<GrantView> {
        let known = grants.iter().filter_map(|grant| self.ledger.grant(*grant));
        known.map(|grant| views::grant(now, grant)).collect()
    }

    /// What is wrong with the disk, where it is waited for.
    pub(super) fn disk_fault(&self, now: Now) -> Option<String> {
        let waited = self.log.waits(now).filter(|waited| *waited >= PATIENCE)?;
        Some(format!(
            "the disk of the audit log has not answered for {} s, and nothing is allowed until it does; windows can be ended all the same",
            waited.as_secs()
        ))
    }
}

/// The windows that a decision closes.
fn closed_by(decision: &Decision) -> Vec<GrantId> {
    let closed = decision.events.iter().filter_map(|event| {
        let Event::Closed { grant, .. } = event else {
            return None;
        };
        Some(*grant)
    });
    closed.collect()
}

/// What is said to who ends every window while the disk does not answer for long.
fn ended_so_far(windows: usize) -> Refusal {
    Refusal::new(
        Code::AuditUnavailable,
        format!(
            "What was open has ended ({windows} windows), and that holds, but it is not on record, and a window that is being recorded can open yet: the disk of the audit log does not answer. Once it does, that window ends as well, and all is recorded; who ended them is forgotten if the daemon ends before"
        ),
    )
}

fn command(ending: Ending) -> Command {
    match ending {
        Ending::Revoke(grant) => Command::Revoke(grant),
        Ending::Close(grant) => Command::Close(grant),
        Ending::Done => Command::Done,
        Ending::Lock(agent, reason) => Command::Lock(agent, reason),
        Ending::CloseAll => Command::CloseAll,
    }
}

/// What is said of what takes something away: that it is in force is no word of its being on record.
pub(super) fn as_recorded(said: Reply, is_recorded: bool) -> Reply {
    match said {
        Reply::Done | Reply::GivenBack(_) if !is_recorded => Reply::Refused(Refusal::new(
            Code::AuditUnavailable,
            "It is done and holds, but it is not on record: the audit log cannot be written. It is recorded as soon as that can be, and forgotten if the daemon ends before",
        )),
        said @ (Reply::Done
        | Reply::GivenBack(_)
        | Reply::Refused(_)
        | Reply::Requested { .. }
        | Reply::Counted(_)
        | Reply::Opened(_)
        | Reply::Status(_)
        | Reply::Records(_)
        | Reply::Joined(_)
        | Reply::Notified(_)
        | Reply::Checked(_)) => said,
    }
}
