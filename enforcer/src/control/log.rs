//! The log over the control socket: lines as they are on disk, those that were asked for. Not for agents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use enforcer_proto::event::Refuser;
use enforcer_proto::principal::Caller;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::search::Filter;
use enforcer_proto::wire::Reply;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Control, LinkError, patient, refused, send};
use crate::search::{Answer, Asked, Given};
use crate::tally::{Refused, Who};

/// The most parts of answers that are looked for at once, whoever asked.
const AT_ONCE_MAX: usize = 4;
/// Parts that are looked for at once for one agent or uid, on however many connections: its others wait, and nobody else behind them.
const AT_ONCE_PER_WHO: usize = 1;

/// Whose turn it is to have the log looked through.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    /// No more than there are connections.
    by_who: Mutex<BTreeMap<Who, Weak<Semaphore>>>,
}

/// A turn: given back on drop.
#[derive(Debug)]
struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(AT_ONCE_MAX)),
            by_who: Mutex::default(),
        }
    }
}

impl Turns {
    /// What `who` takes turns by, on all of its connections.
    fn own(&self, who: Who) -> Arc<Semaphore> {
        let mut by_who = self.by_who.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_who.get(&who).and_then(Weak::upgrade) {
            return own;
        }
        by_who.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(AT_ONCE_PER_WHO));
        by_who.insert(who, Arc::downgrade(&own));
        own
    }

    /// The next turn of whoever takes turns by `own`; `None` where nobody takes turns any more.
    async fn take(&self, own: &Arc<Semaphore>) -> Option<Turn> {
        let own = Arc::clone(own).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn {
            _own: own,
            _all: all,
        })
    }
}

/// What is asked, as it came.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) from: u64,
    pub(super) follow: bool,
    pub(super) limit: Option<u32>,
    pub(super) filter: Filter,
}

/// Sends the lines that are wanted, then an empty reply; with `follow`, goes on as records come.
pub(super) async fn serve(
    stream: &mut UnixStream,
    control: &Control,
    caller: &Caller,
    wanted: Wanted,
) -> Result<(), LinkError> {
    if !control.identify.may_decide(caller) {
        control.engine.count_refused(Refused {
            who: caller.into(),
            by: Refuser::Control,
            code: Code::CallerForbidden,
        });
        let refusal = Refusal::new(
            Code::CallerForbidden,
            format!("Uid {} may not read the log", caller.process.uid),
        );
        return patient(send(stream, &refused(refusal))).await;
    }
    let own = control.turns.own(caller.into());
    let mut records = control.engine.records();
    let until = *records.borrow_and_update();
    let asked = Asked {
        from: wanted.from,
        filter: wanted.filter,
        limit: wanted.limit.map(|limit| limit as usize),
    };
    let mut answer = Answer::new(&control.audit_dir, &control.index, asked, until);
    loop {
        let given;
        tokio::select! {
            part = part(control, &own, answer) => (answer, given) = part?,
            // Whoever waits for an answer says nothing: what can be read is that it hung up, or what does not belong here.
            _ = stream.read_u8() => return Ok(()),
        }
        match given {
            Given::Lines(lines) if lines.is_empty() => {}
            Given::Lines(lines) => patient(send(stream, &Reply::Records(lines))).await?,
            Given::End if wanted.follow => {
                tokio::select! {
                    grown = records.changed() => if grown.is_err() { return Ok(()) },
                    _ = stream.read_u8() => return Ok(()),
                }
                answer.go_on(*records.borrow_and_update());
            }
            Given::End => return patient(send(stream, &Reply::Records(Vec::new()))).await,
        }
    }
}

/// The next part of an answer, when it is its turn.
async fn part(
    control: &Control,
    own: &Arc<Semaphore>,
    mut answer: Answer,
) -> Result<(Answer, Given), LinkError> {
    let turn = control.turns.take(own).await;
    let part = tokio::task::spawn_blocking(move || {
        // Also where nobody waits for it any more: until then it is work.
        let _turn = turn;
        let given = answer.part();
        (answer, given)
    });
    let (answer, given) = part.await.map_err(std::io::Error::other)?;
    Ok((answer, given?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_who_asks_on_many_connections_has_one_turn_and_keeps_nobody_out() {
        let turns = Turns::default();
        let (one, other) = (turns.own(Who::Uid(1)), turns.own(Who::Uid(2)));
        let held = turns.take(&one).await;
        assert!(held.is_some());
        let again = turns.own(Who::Uid(1));
        assert!(again.try_acquire().is_err());
        assert!(turns.take(&other).await.is_some());
        drop(held);
        assert!(turns.take(&again).await.is_some());
    }

    #[tokio::test]
    async fn whoever_asks_no_more_is_forgotten() {
        let turns = Turns::default();
        (0..100).for_each(|uid| drop(turns.own(Who::Uid(uid))));
        assert_eq!(turns.by_who.lock().expect("no panic").len(), 1);
    }
}
