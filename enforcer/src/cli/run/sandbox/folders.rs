//! Which of the host's folders a sandbox has: what is empty in it, what of that is shown nonetheless, and what it cannot be started in.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is empty in a sandbox, and its own: sockets by which others could be had to act for the command are in the first. A socket that has a
/// path is reached from every network namespace.
const EMPTY: [&str; 5] = ["/run", "/var/run", "/tmp", "/var/tmp", "/dev/shm"];
/// What no command is given to write, nor anything below it: the sockets of the host's services are in the first, and of the others the sandbox
/// has its own, or one that cannot be written.
const NEVER: [&str; 5] = ["/run", "/var/run", "/proc", "/dev", "/sys"];

/// These folders, where they are on a host.
#[derive(Debug)]
pub(super) struct Folders {
    empty: BTreeSet<PathBuf>,
    never: BTreeSet<PathBuf>,
}

/// What there is to be shown of a folder that is empty otherwise.
#[derive(Debug, Default)]
pub(in super::super) struct Shown {
    /// The daemon's socket, and the files that it names to clients. The daemon puts new ones in their places, the socket when it starts and the
    /// files when they change.
    pub(in super::super) of_daemon: Vec<PathBuf>,
    /// Files that are shown as they are now.
    pub(in super::super) files: Vec<PathBuf>,
}

impl Folders {
    /// Those of this host, behind whatever links. One that it does not have needs nothing.
    pub(super) fn of_this_host() -> Self {
        let real = |folder: &&str| match Path::new(folder).canonicalize() {
            Ok(real) => Some(real),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(PathBuf::from(folder)),
        };
        Self {
            empty: EMPTY.iter().filter_map(real).collect(),
            never: NEVER.iter().filter_map(real).collect(),
        }
    }

    /// What keeps this folder from being given to a command to write: it is that one, or shows it from above, or lies in it. The root is
    /// none, since it is not given to anybody.
    pub(super) fn in_the_way_of(&self, working: &Path) -> Option<&Path> {
        if working == Path::new("/") {
            return None;
        }
        let or_below = |never: &&PathBuf| working.starts_with(never);
        let or_above = |own: &&PathBuf| own.starts_with(working);
        let never = self.never.iter().find(or_below);
        never
            .or_else(|| self.never.iter().chain(&self.empty).find(or_above))
            .or_else(|| self.shown_elsewhere(working))
            .map(PathBuf::as_path)
    }

    /// The same by what a folder is, whatever it is called: what is mounted in one place can be in another as well.
    fn shown_elsewhere(&self, working: &Path) -> Option<&PathBuf> {
        let given = Identity::of(working)?;
        let above: Vec<Identity> = working.ancestors().filter_map(Identity::of).collect();
        let is_or_below = |never: &&PathBuf| {
            let is_it = |never: Identity| above.contains(&never);
            Identity::of(never).is_some_and(is_it) || own_device(never) == Some(given.device)
        };
        let is_or_above = |own: &&PathBuf| {
            let mut above = own.ancestors().filter_map(Identity::of);
            above.any(|above| above == given)
        };
        let never = self.never.iter().find(is_or_below);
        never.or_else(|| self.never.iter().chain(&self.empty).find(is_or_above))
    }

    /// bubblewrap's words for all that is not the host's as it is. `working` is what can be written.
    pub(super) fn mounts(&self, working: Option<&Path>, shown: &Shown) -> Vec<OsString> {
        let mut mounts: Vec<(&str, &Path)> = Vec::new();
        mounts.extend(
            self.empty
                .iter()
                .map(|folder| ("--tmpfs", folder.as_path())),
        );
        mounts.extend(working.map(|folder| ("--bind", folder)));
        let shown = self.places(shown);
        // What lies elsewhere is there already. In the working folder it is there as well, and stays as it is.
        let is_hidden = |place: &&PathBuf| {
            let empty = self.empty.iter().map(PathBuf::as_path);
            empty.chain(working).any(|above| place.starts_with(above))
        };
        let shown = shown.iter().filter(is_hidden);
        mounts.extend(shown.map(|place| ("--ro-bind", place.as_path())));
        // A folder before what lies in it, whichever of them is what: what is mounted later covers what was there. The order of the same
        // place's is kept.
        mounts.sort_by_key(|(_, place)| *place);
        let words = mounts.into_iter().flat_map(|(how, place)| {
            let twice = (how != "--tmpfs").then_some(place.as_os_str());
            [Some(OsStr::new(how)), twice, Some(place.as_os_str())]
        });
        words.flatten().map(OsStr::to_owned).collect()
    }

    fn places(&self, shown: &Shown) -> BTreeSet<PathBuf> {
        let mut by_folder: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for file in shown.of_daemon.iter().filter_map(|file| real(file)) {
            let folder = file.parent().map(Path::to_owned).unwrap_or_default();
            by_folder.entry(folder).or_default().insert(file);
        }
        let of_daemon = by_folder.into_iter().flat_map(|(folder, files)| {
            if self.is_daemons(&folder, &files) {
                BTreeSet::from([folder])
            } else {
                files
            }
        });
        let files = shown.files.iter().filter_map(|file| real(file));
        of_daemon.chain(files).collect()
    }

    /// Whether a folder is the daemon's run folder and holds nothing of others. It is shown as a whole then, since a mount of one file shows that
    /// file for good, and not the one that has taken its place. Where others have their things beside the daemon's, theirs are not shown for
    /// that: the files are there alone, as they were when the sandbox was made, and a command that outlives the daemon's restart asks a socket
    /// at which nobody is. What it asks of BigQuery does not go by the socket.
    fn is_daemons(&self, folder: &Path, files: &BTreeSet<PathBuf>) -> bool {
        let is_regular = |file: &PathBuf| file.symlink_metadata().is_ok_and(|file| file.is_file());
        let is_above = self.empty.iter().any(|empty| empty.starts_with(folder));
        if is_above || !files.iter().any(is_regular) {
            return false;
        }
        let Ok(mut entries) = folder.read_dir() else {
            return false;
        };
        entries.all(|entry| {
            let is_known = |entry: std::fs::DirEntry| {
                let is_regular = entry.file_type().is_ok_and(|kind| kind.is_file());
                is_regular || files.contains(&entry.path())
            };
            entry.is_ok_and(is_known)
        })
    }
}

/// What a folder is, as the kernel tells folders apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// None of one that cannot be looked at, as one of a user's own file system by root: that one is none of this host's, which can.
    fn of(folder: &Path) -> Option<Self> {
        let found = folder.metadata().ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
        })
    }
}

/// The device of the file system that begins with this folder; none where the folder is one of what is above it.
fn own_device(folder: &Path) -> Option<u64> {
    let own = Identity::of(folder)?.device;
    let above = Identity::of(folder.parent()?)?.device;
    (own != above).then_some(own)
}

/// The file's place behind whatever links lead to its folder.
fn real(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?.canonicalize().ok()?;
    Some(folder.join(file.file_name()?))
}

#[cfg(test)]
#[expect(unsafe_code, reason = "a thread's own mounts have no safe binding")]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    fn paths(of: &[&str]) -> BTreeSet<PathBuf> {
        of.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn no_folder_is_given_to_a_command_that_is_above_or_in_what_is_the_sandboxs_own() {
        let folders = Folders {
            empty: paths(&["/run", "/tmp", "/var/tmp", "/dev/shm"]),
            never: paths(&["/run", "/proc", "/dev", "/sys"]),
        };
        for (working, own) in [
            ("/run", "/run"),
            ("/run/dbus", "/run"),
            ("/run/user/1000", "/run"),
            ("/run/podman", "/run"),
            ("/tmp", "/tmp"),
            ("/var/tmp", "/var/tmp"),
            ("/var", "/var/tmp"),
            ("/dev", "/dev"),
            ("/dev/shm", "/dev"),
            ("/dev/shm/job", "/dev"),
            ("/proc", "/proc"),
            ("/proc/1", "/proc"),
            ("/sys", "/sys"),
            ("/sys/fs/cgroup", "/sys"),
        ] {
            let in_the_way = folders.in_the_way_of(Path::new(working));
            assert_eq!(in_the_way, Some(Path::new(own)), "{working}");
        }
        for working in [
            "/",
            "/tmp/job",
            "/var/tmp/job",
            "/tmpfiles",
            "/runs",
            "/var/lib/bot",
            "/home/bot/run",
            "/srv",
        ] {
            let in_the_way = folders.in_the_way_of(Path::new(working));
            assert_eq!(in_the_way, None, "{working}");
        }
    }

    /// Does it on a thread whose mounts are its own.
    fn with_mounts_of_its_own(work: impl FnOnce() + Send) {
        let apart = || {
            // SAFETY: only this thread's root, working folder and mounts are its own from now on, and it opens no file descriptor that others have.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
                .expect("unshares: run the tests as root");
            let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", propagation).expect("keeps mounts to itself");
            work();
        };
        std::thread::scope(|scope| scope.spawn(apart).join().expect("ends"));
    }

    #[test]
    fn a_folder_is_known_for_what_it_is_wherever_it_is_mounted() {
        let (_dir, at) = a_folder();
        for name in [
            "run/host", "tmp/job", "run_too", "host_too", "tmp_too", "all", "job",
        ] {
            std::fs::create_dir_all(at.join(name)).expect("makes a folder");
        }
        let (run, tmp) = (at.join("run"), at.join("tmp"));
        let folders = Folders {
            empty: BTreeSet::from([run.clone(), tmp.clone()]),
            never: BTreeSet::from([run.clone()]),
        };
        let in_the_way = |name: &str| folders.in_the_way_of(&at.join(name));
        with_mounts_of_its_own(|| {
            let shows = |what: &str, name: &str| {
                mount_bind(at.join(what), at.join(name)).expect("mounts");
            };
            shows("run", "run_too");
            shows("tmp", "tmp_too");
            shows(".", "all");
            for name in ["run_too", "run_too/host", "all", "all/run"] {
                assert_eq!(in_the_way(name), Some(run.as_path()), "{name}");
            }
            assert_eq!(in_the_way("tmp_too"), Some(tmp.as_path()));
            for name in ["tmp_too/job", "all/job", "job", "host_too"] {
                assert_eq!(in_the_way(name), None, "{name}");
            }
            // What is on no file system of its own is not known by that. Where there is one, each of its folders is.
            shows("run/host", "host_too");
            assert_eq!(in_the_way("host_too"), None);
            mount("small", &run, "tmpfs", MountFlags::empty(), None).expect("mounts a tmpfs");
            std::fs::create_dir(run.join("host")).expect("makes a folder");
            shows("run/host", "host_too");
            assert_eq!(in_the_way("host_too"), Some(run.as_path()));
            assert_eq!(in_the_way("job"), None);
        });
    }

    #[test]
    fn the_hosts_own_folders_are_meant_whatever_links_lead_to_them() {
        let folders = Folders::of_this_host();
        for own in ["/run", "/var/run", "/proc", "/dev", "/sys", "/tmp"] {
            let Ok(own) = Path::new(own).canonicalize() else {
                continue;
            };
            assert!(folders.in_the_way_of(&own).is_some(), "{}", own.display());
        }
        assert_eq!(folders.in_the_way_of(Path::new("/home")), None);
    }

    /// A folder `at/NAME` as the daemon makes its run folder, with its socket, and what of it clients are named.
    fn run_folder(at: &Path, name: &str) -> (PathBuf, UnixListener, Shown) {
        let run = at.join(name);
        std::fs::create_dir_all(&run).expect("makes a folder");
        let socket = run.join("control.sock");
        let listener = UnixListener::bind(&socket).expect("listens");
        for name in ["ca.pem", "jwks.json"] {
            std::fs::write(run.join(name), name).expect("writes");
        }
        let shown = Shown {
            of_daemon: vec![socket, run.join("ca.pem")],
            files: Vec::new(),
        };
        (run, listener, shown)
    }

    /// What is mounted where `empty` is what is emptied, with `AT` for the folder of all this.
    fn mounted(at: &Path, empty: &Path, working: Option<&Path>, shown: &Shown) -> String {
        let folders = Folders {
            empty: BTreeSet::from([empty.to_owned()]),
            never: BTreeSet::new(),
        };
        let words = folders.mounts(working, shown).join(OsStr::new(" "));
        let words = words.into_string().expect("is text");
        words.replace(&at.display().to_string(), "AT")
    }

    fn a_folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let at = dir.path().canonicalize().expect("is there");
        (dir, at)
    }

    #[test]
    fn the_daemons_run_folder_is_shown_as_a_whole_and_of_a_folder_of_others_the_files_alone() {
        let (_dir, at) = a_folder();
        let (run, _listener, mut shown) = run_folder(&at, "run");
        let program = at.join("enforcer");
        std::fs::write(&program, "").expect("writes");
        std::fs::write(at.join("secret"), "").expect("writes");
        shown.files.push(program);
        let all = mounted(&at, &at, None, &shown);
        let program = "--tmpfs AT --ro-bind AT/enforcer AT/enforcer";
        assert_eq!(all, format!("{program} --ro-bind AT/run AT/run"));
        // What is somebody else's, and a folder, which can hold anything.
        let bus = UnixListener::bind(run.join("bus")).expect("listens");
        let alone = "--ro-bind AT/run/ca.pem AT/run/ca.pem --ro-bind AT/run/control.sock AT/run/control.sock";
        let all = mounted(&at, &at, None, &shown);
        assert_eq!(all, format!("{program} {alone}"));
        drop(bus);
        std::fs::remove_file(run.join("bus")).expect("goes");
        std::fs::create_dir(run.join("user")).expect("makes a folder");
        let all = mounted(&at, &at, None, &shown);
        assert_eq!(all, format!("{program} {alone}"));
    }

    #[test]
    fn what_is_emptied_is_shown_again_by_nothing_that_the_daemon_has_in_it() {
        let (_dir, at) = a_folder();
        let (run, _listener, shown) = run_folder(&at, "run");
        let all = mounted(&at, &run, None, &shown);
        let alone = "--ro-bind AT/run/ca.pem AT/run/ca.pem --ro-bind AT/run/control.sock AT/run/control.sock";
        assert_eq!(all, format!("--tmpfs AT/run {alone}"));
        // What lies in no folder that is emptied is there already.
        let all = mounted(&at, &at.join("tmp"), None, &shown);
        assert_eq!(all, "--tmpfs AT/tmp");
    }

    #[test]
    fn a_folder_is_mounted_before_what_lies_in_it_so_that_nothing_that_is_shown_is_covered() {
        let (_dir, at) = a_folder();
        let (run, _listener, shown) = run_folder(&at, "job/run");
        let all = |working: PathBuf| mounted(&at, &at, Some(&working), &shown);
        let (job, daemons) = ("--bind AT/job AT/job", "--ro-bind AT/job/run AT/job/run");
        assert_eq!(all(at.join("job")), format!("--tmpfs AT {job} {daemons}"));
        let within = "--bind AT/job/run/x AT/job/run/x";
        assert_eq!(all(run.join("x")), format!("--tmpfs AT {daemons} {within}"));
        // Of the daemon's own nothing is written.
        let same = "--bind AT/job/run AT/job/run";
        assert_eq!(all(run.clone()), format!("--tmpfs AT {same} {daemons}"));
        // Nor where nothing is emptied.
        let all = mounted(&at, &at.join("tmp"), Some(&at.join("job")), &shown);
        assert_eq!(all, format!("{job} {daemons} --tmpfs AT/tmp"));
    }

    #[test]
    fn a_link_to_the_run_folder_shows_the_folder_that_it_leads_to() {
        let (_dir, at) = a_folder();
        let (run, _listener, _) = run_folder(&at, "run/enforcer");
        let link = at.join("link");
        std::os::unix::fs::symlink(&run, &link).expect("links");
        let shown = Shown {
            of_daemon: vec![link.join("control.sock"), link.join("ca.pem")],
            files: Vec::new(),
        };
        let all = mounted(&at, &at.join("run"), None, &shown);
        let daemons = "--ro-bind AT/run/enforcer AT/run/enforcer";
        assert_eq!(all, format!("--tmpfs AT/run {daemons}"));
    }
}
