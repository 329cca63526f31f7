//! When the ledger is kept, and by whom: a thread of its own writes it while the engine goes on. Nothing here decides anything.

use std::path::Path;
use std::thread::JoinHandle;

use enforcer_proto::event::Event;
use enforcer_proto::ledger::Ledger;

use crate::audit::snapshot::{Snapshot, Written, forget_old};
use crate::audit::{AuditError, Log};
use crate::causes::Causes;

/// At which segment the ledger was kept last, and what is being written.
#[derive(Debug)]
pub(super) struct Snapshots {
    segment: u32,
    writing: Option<JoinHandle<Result<Written, AuditError>>>,
}

impl Snapshots {
    /// The next is due when another segment than this one is written.
    pub(super) const fn since(segment: u32) -> Self {
        Self {
            segment,
            writing: None,
        }
    }

    pub(super) const fn is_due(&self, segment: u32) -> bool {
        self.writing.is_none() && segment != self.segment
    }

    /// Has the ledger written, which is what the log's records have made of it.
    pub(super) fn take(&mut self, log: &Log, ledger: &Ledger) {
        self.segment = log.segment();
        let Some(snapshot) = log.snapshot(ledger) else {
            return;
        };
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        match thread.spawn(move || snapshot.write()) {
            Ok(writing) => self.writing = Some(writing),
            Err(error) => tracing::warn!(%error, "no snapshot of the ledger is written"),
        }
    }

    /// The record that names what has been written meanwhile.
    pub(super) fn written(&mut self, dir: &Path) -> Option<Event> {
        self.writing
            .as_ref()
            .filter(|writing| writing.is_finished())?;
        let named = named(self.writing.take()?.join().ok()?);
        forget(dir);
        named
    }

    /// Keeps the ledger at the end, and gives the record that names it.
    pub(super) fn take_last(&mut self, log: &Log, ledger: &Ledger, dir: &Path) -> Option<Event> {
        if let Some(writing) = self.writing.take() {
            // It is older than the one that follows.
            drop(writing.join());
        }
        let written = log.snapshot(ledger).as_ref().map(Snapshot::write)?;
        forget(dir);
        named(written)
    }
}

fn forget(dir: &Path) {
    if let Err(error) = forget_old(dir) {
        tracing::warn!(%error, "an old snapshot of the ledger could not be removed");
    }
}

fn named(written: Result<Written, AuditError>) -> Option<Event> {
    match written {
        Ok(Written { records, sha256 }) => Some(Event::SnapshotTaken { records, sha256 }),
        Err(error) => {
            // Nothing is lost but time at the next start.
            tracing::warn!(error = %Causes(&error), "the ledger was not kept");
            None
        }
    }
}
