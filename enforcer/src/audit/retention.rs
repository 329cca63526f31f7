//! Which old segments go. What goes is on record before the first of its files does, and the newest segment never goes; nor does any that the
//! ledger would be needed to be made of without a snapshot.

use std::time::Duration;

use enforcer_proto::audit::Named;
use enforcer_proto::event::{Event, Numbers};
use enforcer_proto::ledger::Needed;
use enforcer_proto::time::Now;
use serde::Serialize;

use super::segment::{Segment, numbered};
use super::{AuditError, Log, io_error, sync_dir};

/// What the operator wants to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Keep {
    /// Records younger than this, by the host's clock; absent: all.
    pub age: Option<Duration>,
    /// So many bytes of segments, the newest; absent: all.
    pub bytes: Option<u64>,
}

impl Keep {
    /// Whether anything ever goes.
    #[must_use]
    pub const fn is_everything(self) -> bool {
        self.age.is_none() && self.bytes.is_none()
    }
}

impl Log {
    /// What may go now: the oldest segments, as long as they are more or older than `keep` says and hold nothing that is `needed`. Gives
    /// what is to be recorded first.
    ///
    /// # Errors
    /// When the segments cannot be read.
    pub fn removable(
        &self,
        keep: Keep,
        now: Now,
        needed: &Needed<'_>,
        numbers: Numbers,
    ) -> Result<Option<Event>, AuditError> {
        if keep.is_everything() {
            return Ok(None);
        }
        let io = |source| io_error("read", &self.dir)(source);
        let mut bytes = self.earlier_bytes + self.good_bytes;
        let mut last: Option<Named> = None;
        for pair in numbered(&self.dir).map_err(io)?.windows(2) {
            let [oldest, next] = pair else { break };
            // Everything in a segment happened before the first record of the next.
            let Some(follows) = next.first().map_err(io)? else {
                break;
            };
            let age = now.unix_ns.saturating_sub(follows.unix_ns);
            let is_old = keep
                .age
                .is_some_and(|keep| u128::from(age) > keep.as_nanos());
            let is_much = keep.bytes.is_some_and(|keep| bytes > keep);
            let is_free = needed.is_after(&follows.boot_id, follows.boot_ns);
            if !is_free || !(is_old || is_much) {
                break;
            }
            bytes = bytes.saturating_sub(oldest.bytes().map_err(io)?);
            last = Some(follows);
        }
        Ok(last.map(|follows| Event::SegmentsRemoved {
            first_seq: self.first_seq,
            last_seq: follows.seq - 1,
            head: follows.prev.to_string(),
            numbers,
        }))
    }

    /// Removes the segments that hold nothing behind the record `last_seq`, oldest first. That they go is on record.
    ///
    /// # Errors
    /// When one cannot be removed; the next start goes on with it.
    pub fn remove_up_to(&mut self, last_seq: u64) -> Result<(), AuditError> {
        let found = numbered(&self.dir).map_err(io_error("list", &self.dir))?;
        let mut is_any_gone = false;
        for pair in found.windows(2) {
            let [oldest, next] = pair else { break };
            let io = |source| io_error("remove", &oldest.path)(source);
            let Some(follows) = next.first().map_err(io)? else {
                break;
            };
            if follows.seq > last_seq + 1 {
                break;
            }
            self.remove(oldest).map_err(io)?;
            self.first_seq = follows.seq;
            is_any_gone = true;
        }
        if is_any_gone {
            sync_dir(&self.dir)?;
        }
        Ok(())
    }

    fn remove(&mut self, segment: &Segment) -> std::io::Result<()> {
        let bytes = segment.bytes()?;
        std::fs::remove_file(&segment.path)?;
        self.earlier_bytes = self.earlier_bytes.saturating_sub(bytes);
        Ok(())
    }
}
