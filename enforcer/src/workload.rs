//! Workloads: cgroups of the v2 hierarchy, and the processes in them, as `/proc` and the cgroup file system show them.

use rustix::fs::{AtFlags, StatxFlags};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The clock ticks per second in `/proc/PID/stat` (`USER_HZ`, 100 on every architecture Linux supports).
const TICK_NS: u64 = 10_000_000;
/// Of how many cgroups below one the ids are told.
const IDS_MAX: usize = 4096;

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

/// The same of the cgroup alone, whoever can write those above it.
///
/// # Errors
/// When it is not there.
pub fn writable_itself(folder: &Path) -> io::Result<Writable> {
    writable(folder.parent().unwrap_or(folder), folder)
}

/// The processes directly in a cgroup.
///
/// # Errors
/// When the folder does not exist.
pub fn processes(folder: &Path) -> io::Result<Vec<u32>> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// The same; none where it has gone, or is one of threads alone, whose processes are those of a cgroup above it.
fn processes_if_there(folder: &Path) -> io::Result<Vec<u32>> {
    match processes(folder) {
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            Ok(Vec::new())
        }
        found => found,
    }
}

/// The processes in a cgroup and in those below it, of which as many as `most` are looked at, and whether those are all. A process or a cgroup that
/// goes meanwhile is left out.
///
/// # Errors
/// When the folder does not exist, or something in it cannot be looked at.
pub fn all_processes(folder: &Path, most: usize) -> io::Result<(Vec<u32>, bool)> {
    let mut found = processes(folder)?;
    let (below, is_all) = below(folder, most)?;
    for cgroup in below {
        found.extend(processes_if_there(&cgroup)?);
    }
    Ok((found, is_all))
}

/// The cgroups below one that hold processes themselves, of as many below it as `most`, and whether those are all. One that goes meanwhile is
/// left out.
///
/// # Errors
/// When the folder does not exist, or something in it cannot be looked at.
pub fn populated(folder: &Path, most: usize) -> io::Result<(Vec<PathBuf>, bool)> {
    let (below, is_all) = below(folder, most)?;
    let mut populated = Vec::new();
    for cgroup in below {
        if !processes_if_there(&cgroup)?.is_empty() {
            populated.push(cgroup);
        }
    }
    Ok((populated, is_all))
}

/// Whether nobody is in a cgroup or below it, as the kernel says. One that cannot be asked about is not empty.
#[must_use]
pub fn is_empty(folder: &Path) -> bool {
    let events = std::fs::read_to_string(folder.join("cgroup.events"));
    events.is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
}

/// The ids of the cgroups below one, of as many as are looked at; those that cannot be looked at are left out.
#[must_use]
pub fn ids_below(folder: &Path) -> Vec<u64> {
    let (below, _) = below(folder, IDS_MAX).unwrap_or_default();
    below
        .iter()
        .filter_map(|path| cgroup_id(path).ok())
        .collect()
}

/// The cgroups below one, as many as `most`, and whether those are all: who may make some may make many, and one inside the other.
fn below(folder: &Path, most: usize) -> io::Result<(Vec<PathBuf>, bool)> {
    let mut found = Vec::new();
    let mut looked_in = 0;
    let mut entries = std::fs::read_dir(folder)?;
    loop {
        for entry in entries {
            let kind = entry.and_then(|entry| Ok((entry.file_type()?, entry.path())));
            let Some((kind, path)) = unless_gone(kind)? else {
                continue;
            };
            if !kind.is_dir() {
                continue;
            }
            if found.len() == most {
                return Ok((found, false));
            }
            found.push(path);
        }
        // One that has gone holds none.
        entries = loop {
            let Some(next) = found.get(looked_in) else {
                return Ok((found, true));
            };
            looked_in += 1;
            if let Some(entries) = unless_gone(std::fs::read_dir(next))? {
                break entries;
            }
        };
    }
}

/// What was found, or nothing where it has gone.
fn unless_gone<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What one thread of a process is and holds: each has its own. Numbers are this host's, whatever namespace the thread is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Uids: real, effective, saved, and that of the file system.
    pub uids: Vec<u32>,
    /// Groups: the same four, and the supplementary ones.
    pub gids: Vec<u32>,
    /// The capabilities that it can use, now or by asking for them, as the kernel numbers them (`capabilities(7)`: its permitted set).
    pub capabilities: u64,
    /// Whether it is in the user namespace of this process: only there are its capabilities this host's. One that cannot be told is.
    pub is_of_our_users: bool,
}

/// The threads of a process that live: the first may have ended before the others. None where the process is gone.
///
/// # Errors
/// When they cannot be read.
pub fn threads(pid: u32) -> io::Result<Vec<Thread>> {
    let folders = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        folders => folders?,
    };
    let mut threads = Vec::new();
    for folder in folders {
        match thread(&folder?.path()) {
            Ok(thread) => threads.extend(thread),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(threads)
}

/// A thread, unless it has ended and is only not taken note of yet.
fn thread(folder: &Path) -> io::Result<Option<Thread>> {
    let status = std::fs::read_to_string(folder.join("status"))?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(str::trim)
            .ok_or_else(|| io::Error::other(format!("{} has no line {name}", folder.display())))
    };
    if line("State:")?.starts_with(['Z', 'X']) {
        return Ok(None);
    }
    let of_its = std::fs::read_link(folder.join("ns/user"));
    let ours = std::fs::read_link("/proc/self/ns/user")?;
    Ok(Some(Thread {
        uids: numbers(line("Uid:")?)?,
        gids: [numbers(line("Gid:")?)?, numbers(line("Groups:")?)?].concat(),
        capabilities: u64::from_str_radix(line("CapPrm:")?, 16).map_err(io::Error::other)?,
        is_of_our_users: of_its.map_or(true, |its| its == ours),
    }))
}

/// Whether an error says that a process, a folder or a cgroup is not there, and not that it could not be looked at.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENODEV))
}

/// Whether a cgroup has gone: nothing is at its folder, or another cgroup is. One never moves, and what cannot be looked at may be there.
#[must_use]
pub fn has_gone(folder: &Path, id: u64) -> bool {
    match cgroup_id(folder) {
        Ok(now) => now != id,
        Err(error) => is_gone(&error),
    }
}

/// The numbers in a line.
fn numbers(line: &str) -> io::Result<Vec<u32>> {
    let numbers: Result<_, _> = line.split_whitespace().map(str::parse).collect();
    numbers.map_err(io::Error::other)
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

/// Whether a process sees the files that this one sees, or that the host's first one does, and so is in no container: it shares their mount namespace, or, as
/// a unit with a mount namespace of its own, their root.
///
/// # Errors
/// When the process is gone, or may not be looked at.
pub fn is_among_our_files(pid: u32) -> io::Result<bool> {
    let files = |who: &str| {
        // As the kernel knows it: the root may be on a file system that an agent answers for, which is not asked.
        let root = rustix::fs::statx(
            rustix::fs::CWD,
            format!("/proc/{who}/root"),
            AtFlags::STATX_DONT_SYNC,
            StatxFlags::INO,
        )?;
        let device = rustix::fs::makedev(root.stx_dev_major, root.stx_dev_minor);
        let mounts = std::fs::read_link(format!("/proc/{who}/ns/mnt"))?;
        io::Result::Ok((mounts, (device, root.stx_ino)))
    };
    let its = match files(&pid.to_string()) {
        // This host's own root can be looked at: one that cannot is another, such as an agent's own that lets nobody in.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        its => its?,
    };
    let is_shared = |ours: (PathBuf, (u64, u64))| ours.0 == its.0 || ours.1 == its.1;
    // Where this one is in a container itself the first may be another one's, and not be looked at.
    Ok(is_shared(files("self")?) || files("1").is_ok_and(is_shared))
}

/// What `/proc/PID/stat` says of a process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Its name, which it chose; what is no text in it is made some.
    pub comm: String,
    /// The process that started it, or that has taken it over since; 0 where there is none in this pid namespace.
    pub parent: u32,
    /// When it started, nanoseconds on the boot-time clock, in steps of 10 ms.
    pub start_boot_ns: u64,
}

/// What `/proc/PID/stat` says of a process.
///
/// # Errors
/// When the process is gone.
pub fn stat(pid: u32) -> io::Result<Stat> {
    let text = lossy(&format!("/proc/{pid}/stat"))?;
    read_stat(&text)
        .ok_or_else(|| io::Error::other(format!("what /proc says of process {pid} cannot be read")))
}

fn read_stat(text: &str) -> Option<Stat> {
    // The name may hold anything, spaces and brackets too: the fields begin behind its last bracket. The parent is the 4th, starttime the 22nd.
    let (before, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks: u64 = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        comm: before.split_once('(')?.1.to_owned(),
        parent,
        start_boot_ns: ticks.saturating_mul(TICK_NS),
    })
}

/// A file of `/proc` as text: a process may choose a name that is none, and is not to be overlooked by that.
fn lossy(path: &str) -> io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// When a process started, nanoseconds on the boot-time clock, in steps of 10 ms.
///
/// # Errors
/// When the process is gone.
pub fn start_boot_ns(pid: u32) -> io::Result<u64> {
    stat(pid).map(|stat| stat.start_boot_ns)
}

/// Whether two starts are one: the kernel's programs say them to the nanosecond, `/proc` in steps of 10 ms.
#[must_use]
pub const fn is_same_start(one_boot_ns: u64, other_boot_ns: u64) -> bool {
    one_boot_ns / TICK_NS == other_boot_ns / TICK_NS
}

/// Whether a process was forked by this one and has not become another program yet. Such a one moves to a cgroup of its own before it does.
#[must_use]
pub fn is_own_fork(pid: u32) -> bool {
    let program = |who: &str| {
        let file = std::fs::metadata(format!("/proc/{who}/exe")).ok()?;
        Some((file.dev(), file.ino()))
    };
    let is_our_program = program(&pid.to_string()).is_some_and(|its| Some(its) == program("self"));
    is_our_program && stat(pid).is_ok_and(|stat| stat.parent == std::process::id())
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
    let status = lossy(&format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uids = numbers(line.unwrap_or_default())?;
    let effective = uids.get(1).copied();
    effective.ok_or_else(|| io::Error::other(format!("process {pid} has no uid")))
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
    use std::collections::BTreeSet;

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
        let gid = rustix::process::getegid().as_raw();
        let held = rustix::thread::capabilities(None).expect("reads").permitted;
        let threads = threads(pid).expect("reads");
        assert!(!threads.is_empty());
        for thread in threads {
            assert!(thread.gids.contains(&gid) && thread.is_of_our_users);
            assert_eq!(thread.capabilities, held.bits());
        }
        assert_eq!(super::threads(u32::MAX).expect("reads"), []);
        assert!(start_boot_ns(u32::MAX).is_err());
        assert!(!is_traced(pid).expect("reads"));
    }

    #[test]
    fn the_fields_of_a_process_are_read_whatever_it_calls_itself() {
        let rest = "S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 123 0 0";
        let read = |comm: &str| read_stat(&format!("42 ({comm}) {rest}")).expect("is well made");
        for comm in ["bash", "a) S 1 (b", "a b", ""] {
            let stat = read(comm);
            assert_eq!((stat.comm.as_str(), stat.parent), (comm, 7));
            assert_eq!(stat.start_boot_ns, 123 * TICK_NS);
        }
        assert_eq!(read_stat("42 (bash) S"), None);
        assert_eq!(read_stat(""), None);
    }

    #[test]
    fn cgroups_below_one_are_found_at_any_depth_and_no_more_than_asked_for() {
        let dir = tempfile::tempdir().expect("makes a folder");
        // Folders stand in for cgroups: what is asked of them is the same.
        let cgroup = |name: &str, processes: &str| {
            let folder = dir.path().join(name);
            std::fs::create_dir_all(&folder).expect("makes a folder");
            std::fs::write(folder.join("cgroup.procs"), processes).expect("writes");
            folder
        };
        cgroup("", "1\n");
        cgroup("a", "");
        let deep = cgroup("a/b/c", "2\n3\n");
        cgroup("a/b", "");
        let wide = cgroup("d", "4\n");
        let (mut all, is_all) = all_processes(dir.path(), 4).expect("reads");
        all.sort_unstable();
        assert_eq!((all, is_all), (vec![1, 2, 3, 4], true));
        let (found, is_all) = populated(dir.path(), 4).expect("reads");
        assert_eq!(
            (BTreeSet::from_iter(found), is_all),
            (BTreeSet::from([deep, wide]), true)
        );
        for most in 0..4 {
            assert!(!populated(dir.path(), most).expect("reads").1, "{most}");
            assert!(!all_processes(dir.path(), most).expect("reads").1, "{most}");
        }
        assert!(populated(&dir.path().join("gone"), 4).is_err());
    }
}
