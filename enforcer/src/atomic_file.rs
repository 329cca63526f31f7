//! Files that are replaced whole or not at all: a reader sees the old content or the new, also after a crash.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Who may do what with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    mode: u32,
    /// Uid and gid; whoever writes, when absent.
    owner: Option<(u32, u32)>,
}

impl Rights {
    /// This mode, and whoever writes as the owner.
    #[must_use]
    pub const fn of_mode(mode: u32) -> Self {
        Self { mode, owner: None }
    }

    /// This mode, with whoever this process is named as the owner.
    #[must_use]
    pub fn of_ours(mode: u32) -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self {
            mode,
            owner: Some((uid.as_raw(), gid.as_raw())),
        }
    }

    /// The same, with no right besides those in `mode`.
    #[must_use]
    pub const fn at_most(self, mode: u32) -> Self {
        Self {
            mode: self.mode & mode,
            owner: self.owner,
        }
    }

    /// Mode and owner of a file that exists.
    #[must_use]
    pub fn of_file(metadata: &Metadata) -> Self {
        Self {
            mode: metadata.mode() & 0o7777,
            owner: Some((metadata.uid(), metadata.gid())),
        }
    }
}

/// Puts a file with this content and these rights in the place of whatever `path` names; a link is replaced and not followed.
///
/// # Errors
/// What the system said; the old file is still there then, unless only the folder's sync failed.
pub fn replace(path: &Path, content: &[u8], rights: Rights) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    replace_in(File::open(folder_of(path))?.as_fd(), name, content, rights)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Puts a file with this content and these rights where `path` names nothing.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where it names something, which is left as it is; else what the system said.
pub fn create(path: &Path, content: &[u8], rights: Rights) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let folder = File::open(folder_of(path))?;
    write_as(
        folder.as_fd(),
        name,
        content,
        rights,
        RenameFlags::NOREPLACE,
    )
}

/// The same in a folder that is open: whatever its path leads to meanwhile, all of it is done there.
///
/// # Errors
/// As [`replace`].
pub fn replace_in(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    content: &[u8],
    rights: Rights,
) -> io::Result<()> {
    write_as(folder, name, content, rights, RenameFlags::empty())
}

fn write_as(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    content: &[u8],
    rights: Rights,
    how: RenameFlags,
) -> io::Result<()> {
    let mut draft = name.to_owned();
    draft.push(format!(".new-{}", std::process::id()));
    let written = write_draft(folder, &draft, content, rights).and_then(|()| {
        Ok(rustix::fs::renameat_with(
            folder, &draft, folder, name, how,
        )?)
    });
    if let Err(error) = written {
        // The draft may hold a key: better gone. It may also never have come to be.
        let _ = rustix::fs::unlinkat(folder, &draft, AtFlags::empty());
        return Err(error);
    }
    Ok(rustix::fs::fsync(folder)?)
}

fn write_draft(
    folder: BorrowedFd<'_>,
    draft: &OsStr,
    content: &[u8],
    rights: Rights,
) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, draft, AtFlags::empty()) {
        Err(error) if error != Errno::NOENT => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    // Private until it has its owner, so that it is never open to more people than in the end. A name that exists is not opened, be it a link.
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(rights.mode & 0o600);
    let mut file = File::from(rustix::fs::openat(folder, draft, flags, mode)?);
    if let Some((uid, gid)) = rights.owner {
        rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    // Set and not only asked for: the umask may have taken bits away that a published file needs.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(rights.mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_created_where_there_is_none_and_one_that_is_there_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        create(&path, b"first", Rights::of_mode(0o600)).unwrap();
        let again = create(&path, b"second", Rights::of_mode(0o600)).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        let there = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(there, 1, "no draft is left");
    }

    #[test]
    fn a_file_is_replaced_with_its_rights_and_no_draft_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        replace(&path, b"old", Rights::of_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap();
        assert_eq!(before.mode() & 0o7777, 0o640);
        replace(&path, b"new", Rights::of_file(&before)).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(Rights::of_file(&after), Rights::of_file(&before));
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_and_what_it_led_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("target"), folder.path().join("link"));
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        replace(&link, b"new", Rights::of_mode(0o600)).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"kept");
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
    }

    #[test]
    fn what_cannot_be_replaced_stays_and_no_draft_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a-folder");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"new", Rights::of_mode(0o600)).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
