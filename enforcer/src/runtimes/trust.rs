//! Whether root alone can answer at a socket: it, and the folders that lead to it, are root's to write and to replace. Changes nothing.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The mode bits that let a file's group write it, and that let everybody.
const BY_GROUP: u32 = 0o020;
const BY_EVERYBODY: u32 = 0o002;
/// In a folder with this bit nobody renames or removes what is somebody else's.
const STICKY: u32 = 0o1000;

/// Why a socket is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// Others could write, or replace, something on the way to it.
    #[error(
        "it is not believed, since others than root could answer there, or have any container started: {} belongs to {uid}:{gid} and has the mode {mode:o}; {}", .at.display(), cure(*.uid)
    )]
    ByOthers {
        /// What they can write.
        at: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Whose group's.
        gid: u32,
        /// Its mode, without its kind.
        mode: u32,
    },
    /// Somebody else listens there.
    #[error(
        "it is not believed: a process of uid {0} listens there, and not one of root's; {cure}", cure = cure(*.0)
    )]
    Listener(u32),
    /// There is something else in its place.
    #[error("it is not believed: {} is no socket", .0.display())]
    NoSocket(PathBuf),
}

/// What to do about it. A user's own runtime (without root) is no wrong one, and its containers are nobody's but the user's.
fn cure(uid: u32) -> String {
    if uid == 0 {
        return "give it to root alone (a socket of systemd's: SocketMode=0600)".to_owned();
    }
    format!(
        "if the runtime is root's, give it to root alone (a socket of systemd's: SocketMode=0600); what a user's own says is the user's word, so name all that the user runs (`user = {uid}`) in place of a container"
    )
}

/// Looks at a socket and at everything that leads to it.
///
/// # Errors
/// Outside what cannot be looked at, where it is missing for example; inside what is wrong.
pub(super) fn check(socket: &Path) -> io::Result<Result<(), Untrusted>> {
    let place = socket.canonicalize()?;
    let about = std::fs::symlink_metadata(&place)?;
    if !about.file_type().is_socket() {
        return Ok(Err(Untrusted::NoSocket(place)));
    }
    // By its name as well as where that leads: who can change a link on the way can lead it elsewhere.
    for path in [&place, socket] {
        for (depth, at) in path.ancestors().enumerate() {
            let about = std::fs::symlink_metadata(at)?;
            if is_open(&about, depth == 0) {
                return Ok(Err(Untrusted::ByOthers {
                    at: at.to_owned(),
                    uid: about.uid(),
                    gid: about.gid(),
                    mode: about.mode() & 0o7777,
                }));
            }
        }
    }
    Ok(Ok(()))
}

/// Whether others than root can write it; a folder that everybody may add to keeps what is root's there all the same, where it is sticky.
fn is_open(about: &Metadata, is_last: bool) -> bool {
    let mode = about.mode();
    if about.uid() != 0 {
        return true;
    }
    if about.file_type().is_symlink() || (!is_last && mode & STICKY != 0) {
        return false;
    }
    mode & BY_EVERYBODY != 0 || (mode & BY_GROUP != 0 && about.gid() != 0)
}
