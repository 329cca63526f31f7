//! What of a host's clients is set up, and where: each place is known by what stands there, below a root that need not be the running host's.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::place::Place;

/// Where packages put the Cloud SDK.
const SDKS: [&str; 3] = [
    "usr/lib/google-cloud-sdk",
    "usr/share/google-cloud-sdk",
    "opt/google-cloud-sdk",
];

/// What was found, in the daemon's own folder.
const KEPT: &str = "clients.json";

/// The root below which files are written.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn running() -> Self {
        Self { root: "/".into() }
    }

    /// An unpacked one at `root`.
    ///
    /// # Errors
    /// When that is no folder, is this host's own root, or is not root's: who owns it would choose what root reads and writes.
    pub fn unpacked(root: &Path) -> Result<Self> {
        let shown = root.display();
        let root = root
            .canonicalize()
            .with_context(|| format!("--root {shown}"))?;
        let metadata = root.metadata().with_context(|| format!("--root {shown}"))?;
        ensure!(metadata.is_dir(), "--root {shown} is no folder");
        let own = Path::new("/").metadata()?;
        // By whatever name: also of a link, or of a mount of it.
        ensure!(
            (metadata.dev(), metadata.ino()) != (own.dev(), own.ino()),
            "--root {shown} is this host's own root: leave it out to set up this host"
        );
        ensure!(
            metadata.uid() == 0,
            "--root {shown} belongs to uid {}: an unpacked root is to be root's, and written by root alone",
            metadata.uid()
        );
        Ok(Self { root })
    }

    /// Whether it is the one that runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A path of the host's, as it is reached from here.
    #[must_use]
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The other way round: what the host itself calls a path of its own that is reached from here. An unpacked root keeps that name wherever
    /// it is put next, and when it runs.
    pub(super) fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(&self.root).unwrap_or(path))
    }

    /// The same as a place, with nothing above the root to be looked at: that is the operator's word.
    pub(super) fn place(&self, path: impl AsRef<Path>) -> Result<Place> {
        self.place_of(&self.path(path))
    }

    /// The place of a path that is reached from here.
    pub(super) fn place_of(&self, path: &Path) -> Result<Place> {
        Place::below(&self.root, path)
    }

    /// Where what was found is kept: with the daemon's keys and its log.
    ///
    /// # Errors
    /// When that is no place below the root.
    pub fn kept(&self, state_dir: &Path) -> Result<Place> {
        if self.is_running() {
            return Ok(Place::in_folder(state_dir, KEPT));
        }
        self.place(state_dir.join(KEPT))
    }

    /// Whether a Cloud SDK that is found through `PATH` is found through folders of root's alone.
    ///
    /// # Errors
    /// Where somebody else could have it lead elsewhere.
    pub(super) fn looks_at_path(&self) -> Result<()> {
        match self.is_running().then(|| on_path("gcloud")).flatten() {
            Some(program) => self.place_of(&program)?.follow(),
            None => Ok(()),
        }
    }

    fn is_sdk(&self, folder: &Path) -> bool {
        self.has_file(&folder.join("bin/gcloud"))
    }

    /// Whether there is a file; no link leads out of the root.
    fn has_file(&self, path: &Path) -> bool {
        self.has(path, OFlags::empty())
    }

    /// Whether there is a file at a path of the host's, and not a link to one.
    pub(super) fn has_itself(&self, path: &str) -> bool {
        self.has(&self.path(path), OFlags::NOFOLLOW)
    }

    fn has(&self, path: &Path, how: OFlags) -> bool {
        let is_file = || {
            let root = rustix::fs::open(&self.root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let path = path.strip_prefix(&self.root).unwrap_or(path);
            let flags = OFlags::PATH | OFlags::CLOEXEC | how;
            let file =
                rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
            let mode = rustix::fs::fstat(file)?.st_mode;
            rustix::io::Result::Ok(FileType::from_raw_mode(mode) == FileType::RegularFile)
        };
        is_file().unwrap_or(false)
    }

    /// The Cloud SDKs: the one that is named, or else those that are found.
    ///
    /// # Errors
    /// When the one that is named is none.
    pub fn sdks(&self, named: Option<&Path>) -> Result<Vec<PathBuf>> {
        if let Some(named) = named {
            let named = self.path(named);
            ensure!(
                self.is_sdk(&named),
                "there is no Cloud SDK in {}: it has no bin/gcloud",
                named.display()
            );
            return Ok(vec![named]);
        }
        let by_path = self.is_running().then(|| on_path("gcloud")).flatten();
        let by_path = by_path.and_then(|program| program.canonicalize().ok());
        let by_path = by_path.and_then(|program| Some(program.parent()?.parent()?.to_owned()));
        let mut found: Vec<PathBuf> = by_path
            .into_iter()
            .chain(SDKS.map(|folder| self.path(folder)))
            .filter(|folder| self.is_sdk(folder))
            .collect();
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The trust store of the system, where it is of a kind that is known here.
    #[must_use]
    pub fn store(&self) -> Option<Store> {
        [Store::Debian, Store::RedHat]
            .into_iter()
            .find(|store| self.has_file(&self.path(store.tool())))
    }
}

/// A program by its name, as a shell finds it.
fn on_path(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    programs(name.as_ref()).next()
}

/// A program by its name that everybody can run: root's `PATH` may lead into root's own folders.
pub(super) fn open_to_all(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let may_pass = |path: &Path| {
        let metadata = std::fs::metadata(path);
        metadata.is_ok_and(|metadata| metadata.mode() & 0o001 != 0)
    };
    programs(name.as_ref()).find(|program| program.ancestors().all(may_pass))
}

fn programs(name: &OsStr) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let candidates = folders.into_iter().map(move |folder| folder.join(name));
    candidates.filter(|program| program.is_absolute() && program.is_file())
}

/// How a system keeps the roots it trusts: certificates are put into a folder, and a tool of its own makes the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Debian's and its like: `update-ca-certificates`.
    Debian,
    /// Red Hat's and its like: `update-ca-trust`.
    RedHat,
}

impl Store {
    /// Where our certificate goes.
    #[must_use]
    pub const fn place(self) -> &'static str {
        match self {
            Self::Debian => "/usr/local/share/ca-certificates/enforcer.crt",
            Self::RedHat => "/etc/pki/ca-trust/source/anchors/enforcer.pem",
        }
    }

    /// What makes the rest.
    #[must_use]
    pub const fn tool(self) -> &'static str {
        match self {
            Self::Debian => "/usr/sbin/update-ca-certificates",
            Self::RedHat => "/usr/bin/update-ca-trust",
        }
    }

    /// Its arguments: everything is made anew, or what has gone would stay.
    #[must_use]
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Debian => &["--fresh"],
            Self::RedHat => &["extract"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(root: &Path, path: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        std::fs::write(path, "").expect("writes");
    }

    #[test]
    fn what_is_no_unpacked_root_of_roots_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        file(dir.path(), "file");
        std::os::unix::fs::symlink("/", dir.path().join("link")).expect("links");
        std::fs::create_dir(dir.path().join("theirs")).expect("makes");
        std::os::unix::fs::chown(dir.path().join("theirs"), Some(64321), None).expect("gives away");
        for (name, says) in [
            ("/", "is this host's own root"),
            ("/..", "is this host's own root"),
            ("/proc/self/root", "is this host's own root"),
            ("link", "is this host's own root"),
            ("file", "is no folder"),
            ("none", "No such file"),
            ("theirs", "belongs to uid 64321"),
        ] {
            let error = Host::unpacked(&dir.path().join(name)).expect_err(name);
            assert!(format!("{error:#}").contains(says), "{error:#}");
        }
    }

    #[test]
    fn what_stands_below_a_root_is_found_and_what_does_not_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = Host::unpacked(dir.path()).expect("is root's");
        assert_eq!(
            (host.store(), host.sdks(None).expect("none")),
            (None, vec![])
        );
        file(dir.path(), "usr/bin/update-ca-trust");
        assert_eq!(host.store(), Some(Store::RedHat));
        file(dir.path(), "opt/google-cloud-sdk/bin/gcloud");
        let sdk = dir.path().join("opt/google-cloud-sdk");
        assert_eq!(host.sdks(None).expect("finds"), [sdk]);
        let error = host.sdks(Some(Path::new("/opt/none"))).expect_err("none");
        assert!(
            error.to_string().contains("it has no bin/gcloud"),
            "{error}"
        );
    }
}
