//! Two hosts on a wire: "host", where the enforcer and the agents live, and "internet", where the far side answers.
//!
//! The namespaces have no names; they live as long as their file descriptors. The host also has a mount namespace of its own, with a
//! bpffs for pins and its own resolver files, so that nothing of it is seen by, or left to, the machine the tests run on.

use std::ffi::CString;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::mount::{MountFlags, mount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::cgroup::Cgroups;
use crate::janitor::Janitor;
use crate::mounts::{bind_host_files, lay_over, new_mounts};
use crate::require_root;
use crate::world::{APPROVER_UID, COLLEAGUE_UID};

/// The host's address on the wire.
pub const HOST4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The internet's address on the wire; its DNS server as well.
pub const INTERNET4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The internet's IPv6 address on the wire.
pub const INTERNET6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// Where BigQuery answers.
pub const BIGQUERY4: Ipv4Addr = Ipv4Addr::new(10, 77, 8, 7);
/// Where BigQuery answers on IPv6.
pub const BIGQUERY6: Ipv6Addr = Ipv6Addr::new(0xfd77, 8, 0, 0, 0, 0, 0, 7);
/// Where STS and IAM Credentials answer.
pub const STS4: Ipv4Addr = Ipv4Addr::new(10, 77, 8, 8);
/// Where STS and IAM Credentials answer on IPv6.
pub const STS6: Ipv6Addr = Ipv6Addr::new(0xfd77, 8, 0, 0, 0, 0, 0, 8);
/// Where BigQuery's storage API answers.
pub const STORAGE4: Ipv4Addr = Ipv4Addr::new(10, 77, 8, 9);
/// Where BigQuery's storage API answers on IPv6.
pub const STORAGE6: Ipv6Addr = Ipv6Addr::new(0xfd77, 8, 0, 0, 0, 0, 0, 9);
/// A host that nobody protects.
pub const OTHER4: Ipv4Addr = Ipv4Addr::new(10, 77, 9, 9);
/// A host that nobody protects, on IPv6.
pub const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd77, 9, 0, 0, 0, 0, 0, 9);

/// Which side of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Where the enforcer and the agents live.
    Host,
    /// Where the far side answers.
    Internet,
}

/// The two hosts, and the host's cgroups.
#[derive(Debug)]
pub struct Stage {
    host: OwnedFd,
    internet: OwnedFd,
    mounts: OwnedFd,
    dir: PathBuf,
    /// The host's cgroups.
    pub cgroups: Cgroups,
    /// Last, so that nothing here is in use any more when it clears up.
    _janitor: Janitor,
}

impl Stage {
    /// Builds the stage.
    #[must_use]
    pub fn new() -> Self {
        require_root();
        let dir = tempfile::Builder::new()
            .prefix("enforcer-stage-")
            .tempdir()
            .expect("makes a folder")
            .keep();
        let cgroups = Cgroups::new();
        let janitor = Janitor::of(cgroups.root(), &dir);
        // Everyone in the world must be able to reach what is published in it.
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("opens the folder");
        for name in ["bpf", "etc"] {
            std::fs::create_dir(dir.join(name)).expect("makes a folder");
        }
        let resolv = format!("nameserver {INTERNET4}\noptions timeout:2 attempts:2\n");
        std::fs::write(dir.join("etc/resolv.conf"), resolv).expect("writes");
        std::fs::write(
            dir.join("etc/hosts"),
            "127.0.0.1 localhost\n::1 localhost\n",
        )
        .expect("writes");
        std::fs::write(dir.join("etc/passwd"), users()).expect("writes");
        let stage = Self {
            host: new_netns(),
            internet: new_netns(),
            mounts: new_mounts(&dir),
            dir,
            cgroups,
            _janitor: janitor,
        };
        stage.wire();
        stage
    }

    /// A folder of the test's own, readable by everyone.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The host's bpffs.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.dir.join("bpf")
    }

    /// A command that will run on one side, with the host's mounts, and die with the thread that started it.
    #[must_use]
    pub fn command(&self, side: Side, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.command_in(side, None, None, program)
    }

    /// As [`Stage::command`], in a cgroup and under a uid (and the gid of the same number).
    #[must_use]
    pub fn command_in(
        &self,
        side: Side,
        cgroup: Option<&Path>,
        uid: Option<u32>,
        program: impl AsRef<std::ffi::OsStr>,
    ) -> Command {
        let net = self.netns(side).try_clone().expect("clones");
        let mounts = self.mounts.try_clone().expect("clones");
        let procs = cgroup.map(|path| {
            File::options()
                .write(true)
                .open(path.join("cgroup.procs"))
                .expect("opens the cgroup")
        });
        let mut command = Command::new(program);
        // SAFETY: between fork and exec only system calls are made, on descriptors that were opened before.
        unsafe {
            command.pre_exec(move || {
                if let Some(procs) = &procs {
                    rustix::io::write(procs, b"0")?;
                }
                move_into_link_name_space(mounts.as_fd(), Some(LinkNameSpaceType::Mount))?;
                move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))?;
                if let Some(uid) = uid {
                    become_user(uid)?;
                }
                rustix::process::set_parent_process_death_signal(Some(
                    rustix::process::Signal::KILL,
                ))?;
                Ok(())
            });
        }
        command
    }

    /// Mounts a file system of one megabyte on a folder of the host's.
    pub fn mount_small(&self, at: &Path) {
        self.on(Side::Host, || {
            mount("small", at, "tmpfs", MountFlags::empty(), Some(c"size=1m"))
                .expect("mounts a tmpfs");
        });
    }

    /// Mounts a file system of the kernel's own on a folder of the host's: ext4 on a file of so many megabytes. The file lies on a memory file
    /// system of `room_mib` megabytes: where that is less, the disk fails when it is full, as one that was promised more than there is.
    ///
    /// # Panics
    /// When it cannot be made or mounted.
    pub fn mount_disk(&self, at: &Path, size_mib: u32, room_mib: u32) -> Disk {
        let shelf = self.dir.join("disk");
        std::fs::create_dir_all(&shelf).expect("makes a folder");
        let room = CString::new(format!("size={room_mib}m")).expect("no zero");
        self.on(Side::Host, || {
            mount(
                "disk",
                &shelf,
                "tmpfs",
                MountFlags::empty(),
                Some(room.as_c_str()),
            )
            .expect("mounts a tmpfs");
        });
        let image = shelf.join("image");
        let run = |program: &str, args: &[&std::ffi::OsStr]| {
            let output = self.command(Side::Host, program).args(args).output();
            let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program}: {said}");
        };
        run(
            "truncate",
            &[
                "-s".as_ref(),
                format!("{size_mib}M").as_ref(),
                image.as_ref(),
            ],
        );
        // Without a journal: one that could not be written would end the file system, and not only the writing of it.
        run(
            "mkfs.ext4",
            &[
                "-q".as_ref(),
                "-O".as_ref(),
                "^has_journal".as_ref(),
                image.as_ref(),
            ],
        );
        run(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), image.as_ref(), at.as_ref()],
        );
        Disk {
            shelf,
            at: at.to_owned(),
        }
    }

    /// Keeps what is written into some folders of the machine's to the stage: a layer of its own is laid over each.
    ///
    /// # Panics
    /// When a layer cannot be laid.
    pub fn shadow(&self, folders: &[&Path]) {
        let layers = self.dir.join("layers");
        std::fs::create_dir_all(&layers).expect("makes a folder");
        self.on(Side::Host, || {
            mount("layers", &layers, "tmpfs", MountFlags::empty(), None).expect("mounts a tmpfs");
            for (number, folder) in folders.iter().enumerate() {
                lay_over(&layers.join(number.to_string()), folder);
            }
            // The layer over /etc hides the stage's own resolver files.
            bind_host_files(&self.dir);
        });
    }

    /// Writes into a folder of the host's until its file system is full.
    pub fn fill(&self, dir: &Path) {
        self.on(Side::Host, || {
            use std::io::Write;
            let mut file = File::create(dir.join("filler")).expect("makes a file");
            while file.write_all(&[0; 512]).is_ok() {}
        });
    }

    /// Runs `work` on a thread that is on one side of the wire.
    ///
    /// # Panics
    /// When `work` does.
    pub fn on<T: Send>(&self, side: Side, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let run = || {
                self.enter(side);
                work()
            };
            scope
                .spawn(run)
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread to one side, mounts included. It cannot come back.
    pub fn enter(&self, side: Side) {
        // SAFETY: this thread no longer shares its working folder with others, which setns of a mount namespace demands.
        unsafe { unshare_unsafe(UnshareFlags::FS) }.expect("unshares");
        move_into_link_name_space(self.mounts.as_fd(), Some(LinkNameSpaceType::Mount))
            .expect("enters the mounts");
        move_into_link_name_space(self.netns(side).as_fd(), Some(LinkNameSpaceType::Network))
            .expect("enters the network");
    }

    /// The options with which `nsenter` enters one side, while this process lives.
    #[must_use]
    pub fn nsenter(&self, side: Side) -> String {
        let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        format!(
            "--mount={} --net={}",
            path(&self.mounts),
            path(self.netns(side))
        )
    }

    fn netns(&self, side: Side) -> &OwnedFd {
        match side {
            Side::Host => &self.host,
            Side::Internet => &self.internet,
        }
    }

    fn wire(&self) {
        let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let ip = |side: Side, args: &str| {
            let status = self
                .command(side, "ip")
                .args(args.split(' '))
                .status()
                .expect("ip runs: install iproute2");
            assert!(status.success(), "ip {args}");
        };
        ip(
            Side::Host,
            &format!(
                "link add wire0 type veth peer name wire1 netns {}",
                path(&self.internet)
            ),
        );
        for (side, device, v4, v6) in [
            (Side::Host, "wire0", HOST4, "fd77::1"),
            (Side::Internet, "wire1", INTERNET4, "fd77::2"),
        ] {
            ip(side, "link set lo up");
            ip(side, &format!("addr add {v4}/24 dev {device}"));
            ip(side, &format!("addr add {v6}/64 dev {device} nodad"));
            ip(side, &format!("link set {device} up"));
        }
        for address in [BIGQUERY4, STORAGE4, STS4, OTHER4]
            .map(IpAddr::from)
            .into_iter()
            .chain([BIGQUERY6, STORAGE6, STS6, OTHER6].map(IpAddr::from))
        {
            let (length, more) = if address.is_ipv4() {
                (32, "")
            } else {
                (128, " nodad")
            };
            ip(
                Side::Internet,
                &format!("addr add {address}/{length} dev lo{more}"),
            );
        }
        // As most distributions have it: everybody may ping.
        self.on(Side::Host, || {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
                .expect("lets everybody ping");
        });
        ip(Side::Host, &format!("route add default via {INTERNET4}"));
        ip(Side::Host, &format!("-6 route add default via {INTERNET6}"));
    }
}

/// A disk of the host's that can be made to fail.
#[derive(Debug)]
pub struct Disk {
    shelf: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Takes away what room the disk itself has left.
    pub fn exhaust(&self, stage: &Stage) {
        stage.fill(&self.shelf);
    }

    /// Gives it back.
    ///
    /// # Panics
    /// When there is nothing to give back.
    pub fn replenish(&self, stage: &Stage) {
        let filler = self.shelf.join("filler");
        stage.on(Side::Host, || {
            std::fs::remove_file(filler).expect("removes")
        });
    }

    /// Lets nobody write, as a disk that does not answer, until the guard is dropped, or the test is killed.
    ///
    /// # Panics
    /// When it cannot be frozen.
    #[must_use]
    pub fn freeze(&self, stage: &Stage) -> Frozen {
        use std::io::{BufRead, BufReader};
        use std::os::unix::process::CommandExt;
        // Not in the stage's cgroup, nor with the test: whoever kills those spares it, and nothing that waits for a frozen disk can be killed.
        let spawned = stage.on(Side::Host, || {
            Command::new("/bin/sh")
                .args(["-c", FREEZE, "freeze"])
                .arg(&self.at)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
        });
        let mut holder = spawned.expect("starts a shell");
        let mut said = String::new();
        let out = holder.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut said).expect("reads");
        assert_eq!(said, "frozen\n");
        Frozen(holder)
    }
}

/// Freezes a file system, until its input ends.
const FREEZE: &str = r#"
fsfreeze --freeze "$1" && echo frozen && read -r _
fsfreeze --unfreeze "$1"
"#;

/// A disk that does not answer.
#[derive(Debug)]
pub struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        // Waiting closes the input first, which is what the shell waits for.
        let _ = self.0.wait();
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

fn become_user(uid: u32) -> std::io::Result<()> {
    // SAFETY: plain system calls of the only thread of a process that is about to exec.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0
            && libc::setgid(uid) == 0
            && libc::setuid(uid) == 0
    };
    if done {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

/// A new network namespace, held by its descriptor alone.
fn new_netns() -> OwnedFd {
    let make = || {
        // SAFETY: only this thread moves, and it ends at once.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.expect("makes a network namespace");
        OwnedFd::from(File::open("/proc/thread-self/ns/net").expect("opens it"))
    };
    std::thread::spawn(make).join().expect("does not panic")
}

/// The machine's users, and the people of the world: some programs ask who somebody is.
fn users() -> String {
    let mut users = std::fs::read_to_string("/etc/passwd").expect("reads");
    for (name, uid) in [("alice", APPROVER_UID), ("bob", COLLEAGUE_UID)] {
        users += &format!("{name}:x:{uid}:{uid}::/:/usr/sbin/nologin\n");
    }
    users
}
