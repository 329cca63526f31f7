//! Private keys on disk: read only when nobody but the owner may, written atomically with mode 0600. Never logs content.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::atomic_file::{self, Rights};

/// The largest key file, bytes.
const KEY_BYTES_MAX: u64 = 64 * 1024;

/// A key file that cannot be used; the text names the cure.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system said no.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "{path} holds a private key but its mode is {mode:04o}: others can use it. Run: chmod 0600 {path}"
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Somebody else owns it.
    #[error("{path} holds a private key but belongs to uid {owner}. Run: chown root {path}")]
    Owner {
        /// Which file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// It is no regular file of sensible size.
    #[error("{path} is not a key file (a regular file of at most 64 KiB)")]
    NotAFile {
        /// Which.
        path: PathBuf,
    },
}

/// Reads a private file; `None` when there is none.
///
/// # Errors
/// [`KeyFileError`], naming the `chmod` or `chown` that cures it.
pub fn read(path: &Path) -> Result<Option<Zeroizing<String>>, KeyFileError> {
    let io = |source| at("read", path, source);
    // O_NOFOLLOW: a link could point the daemon at a file others control. O_NONBLOCK: a FIFO must not hang it.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(io)?,
    };
    // Asked of the open file, not of the path: nothing can be swapped in between.
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() || metadata.len() > KEY_BYTES_MAX {
        let path = path.to_owned();
        return Err(KeyFileError::NotAFile { path });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(KeyFileError::Open {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    let me = rustix::process::geteuid().as_raw();
    if metadata.uid() != me && metadata.uid() != 0 {
        return Err(KeyFileError::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(io)?;
    Ok(Some(text))
}

/// Writes a private file: mode 0600 from the first byte, durable, in place only when whole.
///
/// # Errors
/// [`KeyFileError::Io`].
pub fn write(path: &Path, text: &str) -> Result<(), KeyFileError> {
    atomic_file::replace(path, text.as_bytes(), Rights::of_mode(0o600))
        .map_err(|source| at("write", path, source))
}

fn at(doing: &'static str, path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_written_key_is_private_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.pem");
        assert!(read(&path).unwrap().is_none());
        write(&path, "secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path).unwrap().unwrap().as_str(), "secret");
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no draft is left"
        );
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_chmod_that_cures_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("k.pem");
        write(&path, "secret").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(
                error.contains(&format!("chmod 0600 {}", path.display())),
                "{error}"
            );
        }
    }

    #[test]
    fn a_link_a_folder_and_a_fifo_are_no_keys() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        write(&target, "secret").unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(read(&link).is_err());
        assert!(read(folder.path()).is_err());
    }
}
