//! One file as it is and as it should be: read, shown, written.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use enforcer_proto::text::safe_line;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::bundle::certificates;
use super::diff::{self, Line};
use super::place::{Folder, Missing, Place, is_trusted};
use crate::atomic_file::{self, Rights};

/// What a new file may be: read by everybody, as clients of any uid must.
pub(super) const PUBLISHED: u32 = 0o644;
/// What a new folder may be: passed by everybody, written by its owner.
const PASSABLE: u32 = 0o755;
/// The largest file that is changed, bytes; a bundle of roots has some 250 KB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The longest line that is shown, characters.
const SHOWN_CHARS_MAX: usize = 500;

/// What a file held, and whose it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    pub(super) text: String,
    pub(super) rights: Rights,
}

/// One file as it is, and as it should be.
#[derive(Debug)]
pub struct Change {
    place: Place,
    /// Its folder, open since it was read: what was planned is done there, wherever its path leads by then.
    folder: Option<Folder>,
    /// What it holds, if it is there.
    pub(super) before: Option<Content>,
    /// What it is to hold; it is to go when absent.
    pub(super) after: Option<Content>,
}

impl Change {
    /// What `edit` makes of the file at `place`; a file that is there keeps its owner and of its mode what a text needs: nobody runs it.
    pub(super) fn of(place: Place, edit: impl FnOnce(&str) -> Result<String>) -> Result<Self> {
        let now = Now::of(place)?;
        let (text, rights) = match &now.content {
            Some(content) => (content.text.as_str(), content.rights.at_most(PUBLISHED)),
            None => ("", Rights::of_ours(PUBLISHED)),
        };
        let text = edit(text).with_context(|| now.place.path().display().to_string())?;
        Ok(now.becoming(Some(Content { text, rights })))
    }

    /// Which.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// How many folders are to be made for it, as it is now.
    pub(super) fn missing_folders(&self) -> Result<usize> {
        self.place.missing()
    }

    /// Whether the file is not as it should be already.
    #[must_use]
    pub fn is_needed(&self) -> bool {
        self.before != self.after
    }

    /// What changes, one indented line each: lines that go and come, and certificates only by their number. Lines that stay are not
    /// shown: a properties file may hold a password.
    #[must_use]
    pub fn shown(&self) -> String {
        let text = |content: &'_ Option<Content>| {
            content
                .as_ref()
                .map_or_else(String::new, |content| content.text.clone())
        };
        let (before, after) = (text(&self.before), text(&self.after));
        let (old, new) = (certificates(&before), certificates(&after));
        if old.len() + new.len() > 0 {
            let (gone, added) = (old.difference(&new).count(), new.difference(&old).count());
            let (old, new) = (old.len(), new.len());
            return format!("  certificates: {old} before, {new} after; {gone} go, {added} come\n");
        }
        let changed = diff::lines(&before, &after).into_iter();
        changed
            .filter_map(|line| match line {
                Line::Kept(_) => None,
                Line::Gone(text) => Some(('-', text)),
                Line::New(text) => Some(('+', text)),
            })
            .map(|(sign, text)| format!("  {sign}{}\n", safe_line(text, SHOWN_CHARS_MAX)))
            .collect()
    }

    /// Writes it, whole or not at all, or takes it away.
    ///
    /// # Errors
    /// When that cannot be done.
    pub(super) fn apply(&self) -> Result<()> {
        let made;
        let folder = match &self.folder {
            Some(folder) => folder,
            None => {
                made = folder_for(&self.place, PASSABLE)?;
                &made
            }
        };
        match &self.after {
            Some(content) => write_in(folder, &self.place, &content.text, content.rights),
            None => unlink(folder, &self.place),
        }
    }
}

/// A file as it is now, and its folder.
#[derive(Debug)]
pub(super) struct Now {
    place: Place,
    folder: Option<Folder>,
    pub(super) content: Option<Content>,
}

impl Now {
    /// Looks.
    pub(super) fn of(place: Place) -> Result<Self> {
        let reading = || format!("reading {}", place.path().display());
        let folder = place.open(Missing::Stays).with_context(reading)?;
        let content = match &folder {
            Some(folder) => read_in(folder, &place).with_context(reading)?,
            None => None,
        };
        Ok(Self {
            place,
            folder,
            content,
        })
    }

    /// What is to become of it.
    pub(super) fn becoming(self, after: Option<Content>) -> Change {
        Change {
            place: self.place,
            folder: self.folder,
            before: self.content,
            after,
        }
    }
}

/// A file's text and rights; `None` where there is none. A link is not followed, and nobody but root has a say in it.
pub(super) fn read(place: &Place) -> Result<Option<Content>> {
    Ok(Now::of(place.clone())?.content)
}

fn read_in(folder: &Folder, place: &Place) -> Result<Option<Content>> {
    // Looked at before it is opened: opening a device is a deed of its own. Only root could change it meanwhile.
    match rustix::fs::statat(folder, place.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
        Ok(stat) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            let is_expected = kind == FileType::RegularFile || kind == FileType::Symlink;
            ensure!(is_expected, "it is no file of sensible size");
        }
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, place.name(), flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP) => bail!(
            "it is a link, which is neither followed nor replaced: put a file there, or take it away"
        ),
        other => File::from(other?),
    };
    let metadata = file.metadata()?;
    ensure!(
        metadata.is_file() && metadata.len() <= FILE_BYTES_MAX,
        "it is no file of sensible size"
    );
    is_trusted(&rustix::fs::fstat(&file)?, place.path())?;
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let rights = Rights::of_file(&metadata);
    Ok(Some(Content { text, rights }))
}

/// Writes a file; its folder is made, with this mode, where there is none.
pub(super) fn write(place: &Place, text: &str, rights: Rights, folder_mode: u32) -> Result<()> {
    write_in(&folder_for(place, folder_mode)?, place, text, rights)
}

/// Takes a file away, if it is there.
pub(super) fn remove(place: &Place) -> Result<()> {
    let removing = || format!("removing {}", place.path().display());
    match place.open(Missing::Stays).with_context(removing)? {
        Some(folder) => unlink(&folder, place),
        None => Ok(()),
    }
}

/// Takes away the folders above a file, this many, as far as nothing else is in them: whoever has put something there keeps it.
pub(super) fn remove_folders(place: &Place, count: usize) -> Result<()> {
    let mut at = place.clone();
    for _ in 0..count {
        let Some(folder) = at.folder() else {
            return Ok(());
        };
        let removing = || format!("removing {}", folder.path().display());
        let Some(above) = folder.open(Missing::Stays).with_context(removing)? else {
            return Ok(());
        };
        match rustix::fs::unlinkat(&above, folder.name(), AtFlags::REMOVEDIR) {
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => return Ok(()),
            other => other.with_context(removing)?,
        }
        at = folder;
    }
    Ok(())
}

fn folder_for(place: &Place, mode: u32) -> Result<Folder> {
    let making = || format!("making the folder of {}", place.path().display());
    let folder = place.open(Missing::Made(mode)).with_context(making)?;
    folder.with_context(making)
}

fn write_in(folder: &Folder, place: &Place, text: &str, rights: Rights) -> Result<()> {
    atomic_file::replace_in(folder.as_fd(), place.name(), text.as_bytes(), rights)
        .with_context(|| format!("writing {}", place.path().display()))
}

fn unlink(folder: &Folder, place: &Place) -> Result<()> {
    let done = match rustix::fs::unlinkat(folder, place.name(), AtFlags::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => Err(error),
        Ok(()) => rustix::fs::fsync(folder),
    };
    done.with_context(|| format!("removing {}", place.path().display()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::pem_of;
    use super::*;

    fn change(before: &str, after: &str) -> Change {
        let content = |text: &str| {
            Some(Content {
                text: text.to_owned(),
                rights: Rights::of_mode(PUBLISHED),
            })
        };
        Change {
            place: Place::in_folder(Path::new("/etc"), "f"),
            folder: None,
            before: content(before),
            after: content(after),
        }
    }

    #[test]
    fn what_changes_is_shown_line_by_line_and_what_stays_is_not() {
        let before = "[core]\na = /old\n[proxy]\npassword = secret\n";
        let after = "[core]\na = /new\n[proxy]\npassword = secret\n";
        assert_eq!(change(before, after).shown(), "  -a = /old\n  +a = /new\n");
        let (old, new) = (pem_of(b"gone") + &pem_of(b"one"), pem_of(b"one"));
        assert_eq!(
            change(&old, &new).shown(),
            "  certificates: 2 before, 1 after; 1 go, 0 come\n"
        );
    }

    #[test]
    fn a_link_is_neither_followed_nor_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("elsewhere"), "kept").expect("writes");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).expect("links");
        let error = Change::of(Place::in_folder(dir.path(), "link"), |_| Ok(String::new()))
            .expect_err("a link");
        assert!(format!("{error:#}").contains("it is a link"), "{error:#}");
    }

    #[test]
    fn a_file_that_somebody_else_owns_or_can_write_is_refused() {
        use std::os::unix::fs::{PermissionsExt, chown};
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("f");
        std::fs::write(&file, "").expect("writes");
        let refused = || {
            let error = read(&Place::in_folder(dir.path(), "f")).expect_err("others have a say");
            let error = format!("{error:#}");
            assert!(
                error.contains("f belongs to uid") && error.contains("written by root alone"),
                "{error}"
            );
        };
        for mode in [0o664, 0o646, 0o2775] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("opens");
            refused();
        }
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("closes");
        chown(&file, Some(64321), None).expect("gives away");
        refused();
    }

    #[test]
    fn what_is_no_file_or_no_text_is_said_by_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("bytes"), b"\xff\xfe").expect("writes");
        std::fs::create_dir(dir.path().join("folder")).expect("makes");
        for name in ["bytes", "folder"] {
            let error = Change::of(Place::in_folder(dir.path(), name), |_| Ok(String::new()));
            let error = format!("{:#}", error.expect_err("no text"));
            assert!(error.contains(name), "{error}");
        }
    }
}
