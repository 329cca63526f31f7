//! What was found before anything was set up: kept on disk before a file is changed, so that it can be put back byte for byte.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::change::{Content, read, remove, remove_folders, write};
use super::place::Place;
use crate::atomic_file::Rights;

/// Root alone reads it: a properties file may hold a password.
const PRIVATE: Rights = Rights::of_mode(0o600);
/// The file's form; another is not read.
const VERSION: u32 = 1;

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Owner {
    /// Somebody else's, in which some properties are ours.
    Shared,
    /// Ours as a whole.
    Ours,
    /// Somebody else's bundle of roots, in which our CA is.
    Roots,
}

/// One file that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// As the host that is set up calls it.
    pub(super) path: PathBuf,
    pub(super) owner: Owner,
    /// What was found; nothing when absent.
    pub(super) before: Option<Content>,
    /// What was written.
    pub(super) after: Content,
    /// The folder was made for it as well.
    pub(super) made_folder: bool,
    /// So were this many above that one.
    #[serde(default)]
    pub(super) made_above: usize,
}

/// All files that were changed, in the order in which they were.
#[derive(Debug, Serialize, Deserialize)]
pub struct Found {
    version: u32,
    pub(super) files: Vec<Entry>,
    /// How many folders were made for this very file.
    #[serde(default)]
    made: usize,
}

impl Found {
    /// What is kept there; nothing was changed yet where nothing is there.
    ///
    /// # Errors
    /// When it cannot be read, or is not what this version wrote.
    pub fn load(kept: &Place) -> Result<Self> {
        let Some(content) = read(kept)? else {
            return Ok(Self {
                version: VERSION,
                files: Vec::new(),
                made: kept.missing()?,
            });
        };
        let found: Self = serde_json::from_str(&content.text).with_context(|| {
            format!(
                "{} is not what `enforcer client setup` wrote: what it found cannot be put back by it",
                kept.path().display()
            )
        })?;
        ensure!(
            found.version == VERSION,
            "{} is of another version of the enforcer: use that one's `enforcer client remove` first",
            kept.path().display()
        );
        Ok(found)
    }

    /// Keeps it; where nothing is changed any more nothing is kept.
    pub(super) fn save(&self, kept: &Place) -> Result<()> {
        if self.files.is_empty() {
            remove(kept)?;
            return remove_folders(kept, self.made);
        }
        write(kept, &serde_json::to_string_pretty(self)?, PRIVATE, 0o700)
    }

    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.files.iter().find(|entry| entry.path == path)
    }

    pub(super) fn put(&mut self, entry: Entry) {
        match self.files.iter_mut().find(|old| old.path == entry.path) {
            Some(old) => *old = entry,
            None => self.files.push(entry),
        }
    }
}
