//! What goes on beside the log, for `status`: the newest checkpoint, and what is wrong with witnesses and with what is checked in the background.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use enforcer_proto::wire::CheckpointView;

/// Written by those who sign, publish and check; read by the engine. Nobody waits in it.
#[derive(Debug, Default)]
pub struct Watched {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    checkpoint: Option<CheckpointView>,
    faults: BTreeMap<String, String>,
}

impl Watched {
    /// The newest checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> Option<CheckpointView> {
        self.state().checkpoint.clone()
    }

    /// What is wrong, one sentence each.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        self.state().faults.values().cloned().collect()
    }

    /// A checkpoint was signed, and is on disk.
    pub(crate) fn signed(&self, checkpoint: CheckpointView) {
        self.state().checkpoint = Some(checkpoint);
    }

    /// Something is wrong with one part, or is right again.
    pub(crate) fn say(&self, part: &str, fault: Option<String>) {
        let Some(fault) = fault else {
            self.state().faults.remove(part);
            return;
        };
        let before = self.state().faults.insert(part.to_owned(), fault.clone());
        // Not while the state is held: who writes the daemon's log may have to wait.
        if before.as_ref() != Some(&fault) {
            tracing::error!(fault, "the audit log");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
