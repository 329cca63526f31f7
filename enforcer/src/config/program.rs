//! Programs that the daemon runs for the operator, as written, and their checks.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Agent;

/// The longest command, in words.
const WORDS_MAX: usize = 64;
/// Whom a program runs as that names nobody: the uid and gid that hold nothing.
const NOBODY: u32 = 65534;

/// A program and whom it runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its file and arguments; the file by its whole path.
    pub words: Vec<String>,
    /// The uid it runs as; not root.
    pub user: u32,
    /// The gid it runs as.
    pub group: u32,
}

impl Program {
    /// The program with these words, user and group, whose keys in the configuration begin with `prefix`.
    pub(super) fn of(
        prefix: &str,
        (words, user, group): (Vec<String>, Option<u32>, Option<u32>),
        agents: &[Agent],
    ) -> Result<Self, String> {
        let is_absolute = words
            .first()
            .is_some_and(|file| Path::new(file).is_absolute());
        if !is_absolute || words.len() > WORDS_MAX {
            return Err(format!(
                "`{prefix}command` is a program by its whole path, and its arguments: at most {WORDS_MAX} words"
            ));
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err(format!("`{prefix}command` holds a zero byte"));
        }
        let user = user.unwrap_or(NOBODY);
        if user == 0 {
            return Err(format!(
                "`{prefix}user` must not be root: a command that must do what root may asks for it by other means"
            ));
        }
        if let Some(agent) = agents.iter().find(|agent| agent.uid == Some(user)) {
            return Err(format!(
                "`{prefix}user` {user} is the uid of agent {}, which could look into the command",
                agent.name
            ));
        }
        Ok(Self {
            words,
            user,
            group: group.unwrap_or(user),
        })
    }
}

/// The cgroup that programs run in: beside the daemon's.
pub(super) fn cgroup_beside(daemon: &Path) -> PathBuf {
    let mut name = daemon.file_name().unwrap_or_default().to_owned();
    name.push("-helpers");
    daemon.with_file_name(name)
}
