//! A subtree of the cgroup v2 hierarchy for one test. The janitor removes it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "enforcer-test-";
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A folder of cgroups.
#[derive(Debug)]
pub struct Cgroups {
    root: PathBuf,
}

impl Cgroups {
    /// Makes a subtree of its own below the cgroup2 mount.
    #[must_use]
    pub fn new() -> Self {
        let mount = mount();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = mount.join(format!("{PREFIX}{}-{number}", std::process::id()));
        std::fs::create_dir(&root).expect("makes a cgroup: cgroup v2 must be writable");
        Self { root }
    }

    /// The subtree's root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A cgroup in it, made when absent.
    #[must_use]
    pub fn make(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        std::fs::create_dir_all(&path).expect("makes a cgroup");
        path
    }
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::new()
    }
}

/// The kernel's id of a cgroup.
#[must_use]
pub fn id(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).expect("a cgroup").ino()
}

/// Does something with this whole process in a cgroup, and puts it back: a socket belongs to the cgroup that it was made in.
pub fn within<T>(cgroup: &Path, work: impl FnOnce() -> T) -> T {
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("reads /proc/self/cgroup");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = mount().join(own.expect("this process is in a cgroup of version two"));
    let enter = |cgroup: &Path| {
        std::fs::write(cgroup.join("cgroup.procs"), "0").expect("enters a cgroup");
    };
    enter(cgroup);
    let done = work();
    enter(&own);
    done
}

/// The cgroup2 mount, wherever this host has it.
#[must_use]
pub fn mount() -> PathBuf {
    let mut mounts = mounts();
    assert!(!mounts.is_empty(), "cgroup v2 is mounted somewhere");
    mounts.swap_remove(0)
}

/// Every mount of cgroup2, the first that was made first.
#[must_use]
pub fn mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("reads /proc/self/mounts");
    let found = mounts.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    });
    found.collect()
}
