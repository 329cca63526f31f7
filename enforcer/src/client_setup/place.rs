//! Where a file of a host's is: a folder that the operator names, a way below it, and a name. The way is walked once, and from then on
//! everything is done in the folder that was opened: whoever puts another in its place changes nothing.
//!
//! Nobody but root may have a say on that way, or root would read, show and write what somebody else has chosen.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// How many links are followed on one way; as many as the kernel follows.
const LINKS_MAX: usize = 40;
/// Write permission for the group and for everybody. It stands for what an access list gives as well: the group's bits bound that.
const BY_OTHERS: u32 = 0o022;

/// Something that others than root have a say in.
#[derive(Debug)]
pub(super) struct Untrusted {
    path: PathBuf,
    uid: u32,
    mode: u32,
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, uid, mode) = (self.path.display(), self.uid, self.mode);
        write!(
            f,
            "{path} belongs to uid {uid} and has mode {mode:04o}: who else may write there would choose what root reads and writes, so it and all above it are to be root's, and written by root alone"
        )
    }
}

impl std::error::Error for Untrusted {}

/// Whether only root may change what this is about; who runs this is trusted as well, as nothing is done that they could not do.
pub(super) fn is_trusted(stat: &Stat, path: &Path) -> Result<(), Untrusted> {
    let is_ours = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
    if is_ours && stat.st_mode & BY_OTHERS == 0 {
        return Ok(());
    }
    Err(Untrusted {
        path: path.to_owned(),
        uid: stat.st_uid,
        mode: stat.st_mode & 0o7777,
    })
}

/// What becomes of folders that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing.
    Stays,
    /// They are made, with this mode.
    Made(u32),
}

/// Where a file is, or would be.
#[derive(Debug, Clone)]
pub struct Place {
    /// Taken as the operator names it, whatever is above; no way leads out of it.
    base: PathBuf,
    /// The way from there to the file's folder.
    below: PathBuf,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// The file at `path`, which is below `base`.
    ///
    /// # Errors
    /// When it is not, or has no name.
    pub(super) fn below(base: &Path, path: &Path) -> Result<Self> {
        let said = || format!("{} is no file below {}", path.display(), base.display());
        let below = path.strip_prefix(base).with_context(said)?;
        let name = below.file_name().with_context(said)?.to_owned();
        Ok(Self {
            base: base.to_owned(),
            below: below.parent().unwrap_or_else(|| Path::new("")).to_owned(),
            name,
            path: path.to_owned(),
        })
    }

    /// A file in a folder that the configuration names.
    pub(super) fn in_folder(folder: &Path, name: &str) -> Self {
        Self {
            base: folder.to_owned(),
            below: PathBuf::new(),
            name: name.into(),
            path: folder.join(name),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    /// The place of the folder it is in, where that is not the base itself.
    pub(super) fn folder(&self) -> Option<Self> {
        Self::below(&self.base, self.path.parent()?).ok()
    }

    /// Opens its folder; `None` where there is none.
    ///
    /// # Errors
    /// [`Untrusted`] where others have a say on the way; what the system said.
    pub(super) fn open(&self, missing: Missing) -> Result<Option<Folder>> {
        let Some(mut way) = Way::begin(&self.base, missing)? else {
            return Ok(None);
        };
        way.add(&self.below);
        Ok(if way.walk(missing)? {
            Some(Folder(way.end()?))
        } else {
            None
        })
    }

    /// How many folders would have to be made for it.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub(super) fn missing(&self) -> Result<usize> {
        let Some(mut way) = Way::begin(&self.base, Missing::Stays)? else {
            return Ok(0);
        };
        way.add(&self.below);
        if way.walk(Missing::Stays)? {
            return Ok(0);
        }
        let further = way.rest.iter().filter(|name| *name != "..");
        Ok(1 + further.count())
    }

    /// Follows links to the file as well, for what only is found by it.
    ///
    /// # Errors
    /// As [`Place::open`].
    pub(super) fn follow(&self) -> Result<()> {
        let Some(mut way) = Way::begin(&self.base, Missing::Stays)? else {
            return Ok(());
        };
        way.add(&self.below.join(&self.name));
        match way.walk(Missing::Stays) {
            // A file at the end is what is looked for.
            Err(error) if error.downcast_ref::<Errno>() == Some(&Errno::NOTDIR) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}

/// A folder that only root can change, open.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A way through folders, each of which is held open.
struct Way {
    base: OwnedFd,
    base_path: PathBuf,
    /// Below the base.
    folders: Vec<(OwnedFd, OsString)>,
    /// What is still to be walked, the next last.
    rest: Vec<OsString>,
    links: usize,
}

impl Way {
    fn begin(base_path: &Path, missing: Missing) -> Result<Option<Self>> {
        let open = || rustix::fs::open(base_path, FOLDER, Mode::empty());
        let base = match (open(), missing) {
            (Err(Errno::NOENT), Missing::Stays) => return Ok(None),
            (Err(Errno::NOENT), Missing::Made(mode)) => {
                let mut builder = DirBuilder::new();
                builder.recursive(true).mode(mode).create(base_path)?;
                open()?
            }
            (other, Missing::Stays | Missing::Made(_)) => other?,
        };
        is_trusted(&rustix::fs::fstat(&base)?, base_path)?;
        Ok(Some(Self {
            base,
            base_path: base_path.to_owned(),
            folders: Vec::new(),
            rest: Vec::new(),
            links: 0,
        }))
    }

    /// What is walked next.
    fn add(&mut self, path: &Path) {
        let components = path.components().rev();
        let names = components.filter_map(|component| match component {
            Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
        });
        self.rest.extend(names);
    }

    fn top(&self) -> BorrowedFd<'_> {
        let last = self.folders.last();
        last.map_or_else(|| self.base.as_fd(), |(folder, _)| folder.as_fd())
    }

    fn path_of(&self, name: &OsStr) -> PathBuf {
        let names = self.folders.iter().map(|(_, name)| name.as_os_str());
        let names = names.chain([name]);
        self.base_path.join(names.collect::<PathBuf>())
    }

    /// Walks to the end; false where the way ends before.
    fn walk(&mut self, missing: Missing) -> Result<bool> {
        while let Some(name) = self.rest.pop() {
            if name == ".." {
                // Above the base there is nothing, as above a root.
                self.folders.pop();
                continue;
            }
            let opened = match (self.step(&name), missing) {
                (Err(Errno::NOENT), Missing::Stays) => return Ok(false),
                (Err(Errno::NOENT), Missing::Made(mode)) => {
                    let mode = Mode::from_raw_mode(mode);
                    rustix::fs::mkdirat(self.top(), &name, mode)?;
                    // Whatever the operator's umask is: clients of any uid pass here.
                    rustix::fs::chmodat(self.top(), &name, mode, AtFlags::empty())?;
                    self.step(&name)
                }
                (other, Missing::Stays | Missing::Made(_)) => other,
            };
            match opened {
                // What a link says is walked by ourselves: the kernel would not look at whose the folders are.
                Err(Errno::NOTDIR | Errno::LOOP) => self.link(&name)?,
                other => {
                    let folder = other?;
                    is_trusted(&rustix::fs::fstat(&folder)?, &self.path_of(&name))?;
                    self.folders.push((folder, name));
                }
            }
        }
        Ok(true)
    }

    fn step(&self, name: &OsStr) -> rustix::io::Result<OwnedFd> {
        let flags = FOLDER.union(OFlags::NOFOLLOW);
        rustix::fs::openat(self.top(), name, flags, Mode::empty())
    }

    /// Goes on where a link leads. It cannot become another meanwhile: its folder is root's.
    fn link(&mut self, name: &OsStr) -> Result<()> {
        let stat = rustix::fs::statat(self.top(), name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            return Err(Errno::NOTDIR.into());
        }
        self.links += 1;
        ensure!(self.links <= LINKS_MAX, Errno::LOOP);
        let target = rustix::fs::readlinkat(self.top(), name, Vec::new())?;
        let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
        if target.is_absolute() {
            self.folders.clear();
        }
        self.add(&target);
        Ok(())
    }

    /// The folder it leads to, open for more than the way.
    fn end(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.top(), ".", flags, Mode::empty())?)
    }
}

/// A folder on the way: only passed.
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    /// A root with a folder and a file in it.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(root.path().join("a/b")).expect("makes");
        root
    }

    fn open(root: &Path, path: &str) -> Result<Option<Folder>> {
        Place::below(root, &root.join(path))?.open(Missing::Stays)
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("changes");
    }

    #[test]
    fn a_folder_in_which_others_have_a_say_is_refused_by_its_name_wherever_on_the_way() {
        let root = root();
        let folder = root.path().join("a/b");
        for at in folder.ancestors().take(3) {
            let refused = |whose: &str| {
                let error = open(root.path(), "a/b/f").expect_err("others have a say");
                let said = format!("{} belongs to uid {whose}", at.display());
                assert!(error.to_string().starts_with(&said), "{error}");
            };
            for bits in [0o775, 0o757, 0o1777] {
                mode(at, bits);
                refused(&format!("0 and has mode {bits:04o}"));
            }
            mode(at, 0o755);
            chown(at, Some(64321), None).expect("gives away");
            refused("64321");
            chown(at, Some(0), None).expect("takes back");
        }
        assert!(open(root.path(), "a/b/f").expect("is root's").is_some());
        assert!(open(root.path(), "a/none/f").expect("is root's").is_none());
    }

    #[test]
    fn a_link_of_roots_is_followed_to_its_end_and_never_out_of_the_base() {
        let (root, outside) = (root(), root());
        let inode = |path: &Path| rustix::fs::stat(path).expect("is there").st_ino;
        let same = inode(&root.path().join("a/b"));
        for (name, target) in [
            ("short", "a/b"),
            ("absolute", "/a/b"),
            ("up", "../../../../a/./b"),
            ("twice", "short"),
        ] {
            symlink(target, root.path().join(name)).expect("links");
            let folder = open(root.path(), &format!("{name}/f")).expect("opens");
            let folder = folder.unwrap_or_else(|| panic!("{name} leads there"));
            assert_eq!(rustix::fs::fstat(&folder).expect("open").st_ino, same);
        }
        symlink(outside.path(), root.path().join("out")).expect("links");
        assert!(open(root.path(), "out/f").expect("nothing there").is_none());
        symlink("round", root.path().join("round")).expect("links");
        assert!(open(root.path(), "round/f").is_err());
    }

    #[test]
    fn a_link_through_a_folder_of_somebody_elses_is_refused_though_its_end_is_roots() {
        let root = root();
        std::fs::create_dir(root.path().join("home")).expect("makes");
        symlink("../a", root.path().join("home/link")).expect("links");
        chown(root.path().join("home"), Some(64321), None).expect("gives away");
        symlink("home/link/b", root.path().join("sdk")).expect("links");
        let error = open(root.path(), "sdk/f").expect_err("through home");
        assert!(error.is::<Untrusted>(), "{error}");
        let place = Place::below(root.path(), &root.path().join("sdk")).expect("below");
        assert!(place.follow().expect_err("the same").is::<Untrusted>());
    }

    #[test]
    fn folders_are_made_for_root_alone_to_write() {
        let root = root();
        let place = Place::below(root.path(), &root.path().join("x/y/f")).expect("below");
        assert!(place.open(Missing::Made(0o755)).expect("makes").is_some());
        assert!(place.open(Missing::Stays).expect("is root's").is_some());
        assert!(Place::below(root.path(), Path::new("/elsewhere/f")).is_err());
    }
}
