//! Workloads: cgroups of the v2 hierarchy, and the processes in them, as `/proc` and the cgroup file system show them.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The clock ticks per second in `/proc/PID/stat` (`USER_HZ`, 100 on every architecture Linux supports).
const TICK_NS: u64 = 10_000_000;

/// Finds the cgroup v2 mount: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hosts that mix versions.
///
/// # Errors
/// When no cgroup v2 is mounted.
pub fn find_mount() -> io::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (target, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(target))
    });
    mount.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup v2 is mounted: mount it with `mount -t cgroup2 none /sys/fs/cgroup`",
        )
    })
}

/// The kernel's id of a cgroup: the inode of its folder.
///
/// # Errors
/// When the folder does not exist.
pub fn cgroup_id(folder: &Path) -> io::Result<u64> {
    std::fs::metadata(folder).map(|meta| meta.ino())
}

/// Makes a cgroup and those above it. One that exists is left as it is.
///
/// # Errors
/// When it cannot be made.
pub fn make(folder: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)
}

/// Moves a process into a cgroup.
///
/// # Errors
/// When the kernel refuses.
pub fn move_into(folder: &Path, pid: u32) -> io::Result<()> {
    std::fs::write(folder.join("cgroup.procs"), pid.to_string())
}

/// The lists by which processes and threads are moved.
const LISTS: [&str; 2] = ["cgroup.procs", "cgroup.threads"];

/// Who can write a cgroup: its folder, its lists of processes and threads, and those above it up to the hierarchy's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Writable {
    /// Nobody but root.
    ByRoot,
    /// Others.
    ByOthers {
        /// What they can write.
        at: PathBuf,
        /// Whose that is.
        uid: u32,
    },
}

/// Who can write the cgroup at `folder`. Whoever can may put processes into it, or another cgroup in its place.
///
/// # Errors
/// When it is not there.
pub fn writable(mount: &Path, folder: &Path) -> io::Result<Writable> {
    const BY_GROUP_OR_OTHERS: u32 = 0o022;
    let above = || folder.ancestors().take_while(|path| *path != mount);
    // Who may write those above may leave: a process is moved within what it may write.
    let lists = above()
        .chain([mount])
        .flat_map(|cgroup| LISTS.map(|list| cgroup.join(list)));
    for at in above().map(Path::to_owned).chain(lists) {
        let meta = match std::fs::metadata(&at) {
            // Not every cgroup has a list of threads.
            Err(error) if error.kind() == io::ErrorKind::NotFound && at != folder => continue,
            meta => meta?,
        };
        if meta.uid() != 0 || meta.mode() & BY_GROUP_OR_OTHERS != 0 {
            return Ok(Writable::ByOthers {
                uid: meta.uid(),
                at,
            });
        }
    }
    Ok(Writable::ByRoot)
}

/// The processes directly in a cgroup.
///
/// # Errors
/// When the folder does not exist.
pub fn processes(folder: &Path) -> io::Result<Vec<u32>> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The processes in a cgroup and in all below it. One that goes meanwhile is left out.
///
/// # Errors
/// When the folder does not exist.
pub fn all_processes(folder: &Path) -> io::Result<Vec<u32>> {
    let mut found = processes(folder)?;
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(all_processes(&entry.path()).unwrap_or_default());
        }
    }
    Ok(found)
}

/// The capabilities that a process can use, now or by asking for them, as the kernel numbers them (`capabilities(7)`: its permitted set).
///
/// # Errors
/// When the process is gone.
pub fn capabilities_of(pid: u32) -> io::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    permitted
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .ok_or_else(|| {
            io::Error::other(format!(
                "process {pid} has no capabilities that can be read"
            ))
        })
}

/// Whether a process is in the user namespace of this one: only there are its capabilities this host's.
///
/// # Errors
/// When the process is gone.
pub fn is_in_our_user_namespace(pid: u32) -> io::Result<bool> {
    is_in_ours(pid, "user")
}

/// Whether a process is in the mount namespace of this one, and sees the files that this one does.
///
/// # Errors
/// When the process is gone.
pub fn is_in_our_mount_namespace(pid: u32) -> io::Result<bool> {
    is_in_ours(pid, "mnt")
}

fn is_in_ours(pid: u32, kind: &str) -> io::Result<bool> {
    let of = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/{kind}"));
    Ok(of(&pid.to_string())? == of("self")?)
}

/// Whether any thread of a process is traced now: each is by itself, and any can become the whole process.
///
/// # Errors
/// When the process is gone.
pub fn is_traced(pid: u32) -> io::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that has ended is not traced. That the process has is said below.
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else {
            continue;
        };
        let tracer = status
            .lines()
            .find_map(|line| line.strip_prefix("TracerPid:"));
        if tracer.is_none_or(|tracer| tracer.trim() != "0") {
            return Ok(true);
        }
    }
    start_boot_ns(pid).map(|_| false)
}

/// The v2 cgroup of a process, as a path from the hierarchy's root.
///
/// # Errors
/// When the process is gone, or the path cannot be trusted: outside our cgroup namespace, or deleted.
pub fn cgroup_of(pid: u32) -> io::Result<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    path.filter(|path| {
        path.starts_with('/') && !path.starts_with("/..") && !path.ends_with(" (deleted)")
    })
    .map(PathBuf::from)
    .ok_or_else(|| io::Error::other(format!("process {pid} is in no cgroup that can be named")))
}

/// When a process started, nanoseconds on the boot-time clock, in steps of 10 ms.
///
/// # Errors
/// When the process is gone.
pub fn start_boot_ns(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold anything, spaces and brackets too: the fields begin behind its last bracket. starttime is the 22nd field.
    let ticks = stat
        .rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse::<u64>().ok());
    ticks
        .map(|ticks| ticks.saturating_mul(TICK_NS))
        .ok_or_else(|| io::Error::other(format!("process {pid} has no start time")))
}

/// A process's name, as it calls itself.
///
/// # Errors
/// When the process is gone.
pub fn comm(pid: u32) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).map(|text| text.trim_end().to_owned())
}

/// The effective uid of a process now.
///
/// # Errors
/// When the process is gone.
pub fn uid_of(pid: u32) -> io::Result<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved and of the file system.
    uids.and_then(|uids| uids.split_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("process {pid} has no uid")))
}

/// The kernel's id of this boot.
///
/// # Errors
/// When `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_cgroup_a_start_and_a_name() {
        let pid = std::process::id();
        assert!(cgroup_of(pid).expect("a cgroup").starts_with("/"));
        assert!(start_boot_ns(pid).expect("a start") > 0);
        assert!(!comm(pid).expect("a name").is_empty());
        assert_eq!(
            uid_of(pid).expect("a uid"),
            rustix::process::geteuid().as_raw()
        );
        assert!(start_boot_ns(u32::MAX).is_err());
        let held = rustix::thread::capabilities(None).expect("reads").permitted;
        assert_eq!(capabilities_of(pid).expect("reads"), held.bits());
        assert!(!is_traced(pid).expect("reads"));
    }
}
