//! Up to which record each hook has been told: one small file in the state folder, replaced whole. What it lacks is told again, never left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_file::{self, Rights};

/// Its name.
const FILE: &str = "notify.json";

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// By the hook's name: the last record of which every notice is settled.
    told: BTreeMap<String, u64>,
}

/// The file.
#[derive(Debug)]
pub(super) struct Cursor {
    path: PathBuf,
    saved: Told,
}

impl Cursor {
    /// What the last run left. Without a file that can be read every hook begins at the end of the log.
    pub(super) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        let saved = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "it cannot be read: hooks are told from now on, and of nothing before");
                Told::default()
            }),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "it cannot be read: hooks are told from now on, and of nothing before");
                }
                Told::default()
            }
        };
        Self { path, saved }
    }

    /// Up to which record a hook has been told. A new one begins at the end of the log, `newest`; so does one that is beyond it, since then the
    /// log is another one.
    pub(super) fn of(&self, hook: &str, newest: u64) -> u64 {
        let told = self.saved.told.get(hook).copied();
        told.filter(|told| *told <= newest).unwrap_or(newest)
    }

    /// Keeps what hooks have been told, where it has changed. Blocks.
    pub(super) fn save(&mut self, told: BTreeMap<String, u64>) {
        let told = Told { told };
        if told == self.saved {
            return;
        }
        let text = serde_json::to_vec(&told).unwrap_or_default();
        match atomic_file::replace(&self.path, &text, Rights::of_mode(0o600)) {
            Ok(()) => self.saved = told,
            Err(error) => {
                tracing::warn!(%error, path = %self.path.display(), "it cannot be written: after a restart hooks are told again what they were told")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_goes_on_where_it_stopped_and_a_new_one_begins_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let mut cursor = Cursor::open(folder.path());
        assert_eq!(cursor.of("pager", 40), 40);
        cursor.save([("pager".to_owned(), 7)].into());
        let cursor = Cursor::open(folder.path());
        assert_eq!((cursor.of("pager", 40), cursor.of("chat", 40)), (7, 40));
        assert_eq!(cursor.of("pager", 3), 3, "the log is another one");
        std::fs::write(folder.path().join(FILE), "torn").unwrap();
        assert_eq!(Cursor::open(folder.path()).of("pager", 40), 40);
    }
}
