//! Loading, attaching and pinning: fail closed, atomically, and say why not.

use std::fs::{File, TryLockError};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aya::programs::{Program, ProgramError, ProgramFd};
use aya::{Ebpf, EbpfLoader};
use enforcer_ebpf::Config;
use enforcer_ebpf::map::{
    AGENTS_MAX, ENDPOINTS_MAX, ENFORCE_HOST, SUBUIDS_MAX, TICK_NS, UIDS_MAX, WINDOWS_MAX,
};
use rustix::thread::{CapabilitySet, capabilities};

use super::btf::Btf;
use super::carried;
use super::deadlines::Deadlines;
use super::hooks::Hooks;
use super::maps::{EndpointMaps, Kernel, Namespaces, Origins, Pinned};
use super::pins::{self, Needed, Pin};
use super::sys::{Behind, Target};
use super::uplinks::{self, Uplinks};
use super::{Events, KernelConfig, KernelError, clsact, io, refused, sys};
use crate::sockopt::own_netns;
use crate::workload;

/// The kernel object, proven by `cargo xtask build-ebpf --check` to come from the source.
static OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../../enforcer-ebpf/prebuilt/enforcer.bpf.o");
/// Stays: a restart must find the protected addresses of the daemon before it, or nothing would be protected until names are resolved
/// again. A map whose layout or size changes gets another file in it instead.
const MAPS_DIR: &str = "maps-v1";
const LINKS_DIR: &str = "links";
/// The oldest kernel that has everything that is used.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// What loading and attaching need.
const CAPABILITIES: [(CapabilitySet, &str); 3] = [
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];
const PID_NAMESPACE: &str = "/proc/self/ns/pid";
/// The initial one has this number always (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// The maps, and the file that each is pinned as.
const PINNED_MAPS: [(&str, &str); 20] = [
    ("WINDOWS", WINDOWS),
    ("AGENTS", AGENTS),
    ("ENDPOINTS4", "ENDPOINTS4"),
    ("ENDPOINTS6", "ENDPOINTS6"),
    ("CONFIG", "CONFIG-3"),
    ("HEARTBEAT", "HEARTBEAT"),
    ("LED", "LED"),
    ("ORIGINS", "ORIGINS-4"),
    ("ACCEPTED", ACCEPTED),
    ("OPENINGS", OPENINGS),
    ("OPENING_KEY", "OPENING_KEY"),
    ("UIDS", UIDS),
    ("SUBUIDS", SUBUIDS),
    ("NAMESPACES", "NAMESPACES"),
    ("ASKERS", ASKERS),
    ("ASKED", "ASKED"),
    ("CREATORS", "CREATORS-2"),
    ("DEADLINES", DEADLINES),
    ("EVENTS", "EVENTS"),
    ("COUNTERS", "COUNTERS"),
];
/// What must not be made anew while programs are attached.
const NEEDED: [Needed; 6] = [
    Needed {
        name: "AGENTS",
        files: &[AGENTS, "AGENTS-3"],
        entries: AGENTS_MAX,
        is_new: false,
    },
    Needed {
        name: "UIDS",
        files: &[UIDS, "UIDS"],
        entries: UIDS_MAX,
        is_new: false,
    },
    Needed {
        name: "SUBUIDS",
        files: &[SUBUIDS],
        entries: SUBUIDS_MAX,
        is_new: true,
    },
    Needed {
        name: "WINDOWS",
        files: &[WINDOWS, "WINDOWS"],
        entries: WINDOWS_MAX,
        is_new: false,
    },
    Needed {
        name: "ENDPOINTS4",
        files: &["ENDPOINTS4"],
        entries: ENDPOINTS_MAX,
        is_new: false,
    },
    Needed {
        name: "ENDPOINTS6",
        files: &["ENDPOINTS6"],
        entries: ENDPOINTS_MAX,
        is_new: false,
    },
];
pub(super) const WINDOWS: &str = "WINDOWS-2";
pub(super) const AGENTS: &str = "AGENTS-4";
pub(super) const UIDS: &str = "UIDS-2";
const SUBUIDS: &str = "SUBUIDS";
/// What the daemon asks for the origins of connections.
pub(super) const ACCEPTED: &str = "ACCEPTED";
/// What it asks for what they said first.
pub(super) const OPENINGS: &str = "OPENINGS";
/// Where it says until when a connection of its own may say anything.
pub(super) const DEADLINES: &str = "DEADLINES";
/// What it asks for those of datagrams.
pub(super) const ASKERS: &str = "ASKERS";
/// The programs at the cgroup root, and where each is attached (`enum bpf_attach_type`). Egress first: it is the net under the others.
///
/// The kernel lets programs of others stand beside ours: what one of them refuses is refused, and where one rewrites an address to a
/// protected one after us, `egress` drops the packets.
const AT_THE_ROOT: [(&str, u32); 14] = [
    ("egress", 1),
    ("created", 2),
    ("connect4", 10),
    ("connect6", 11),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("established", 3),
    ("bind4", 8),
    ("bind6", 9),
    ("post_bind4", 12),
    ("post_bind6", 13),
    ("setsockopt", 22),
];

/// The programs' globals, and the members of the kernel's structures whose offsets they are.
const OFFSETS: [(&str, &str, &str); 10] = [
    ("OFFSET_SKB_SK", "sk_buff", "sk"),
    ("OFFSET_SKB_HEAD", "sk_buff", "head"),
    ("OFFSET_SKB_LEN", "sk_buff", "len"),
    ("OFFSET_SOCK_QUEUE", "sock", "sk_write_queue"),
    ("OFFSET_GROUP_LEADER", "task_struct", "group_leader"),
    ("OFFSET_START_BOOTTIME", "task_struct", "start_boottime"),
    ("OFFSET_TASK_CRED", "task_struct", "cred"),
    ("OFFSET_CRED_USER_NS", "cred", "user_ns"),
    ("OFFSET_USER_NS_PARENT", "user_namespace", "parent"),
    ("OFFSET_USER_NS_OWNER", "user_namespace", "owner"),
];
/// The same, of the programs at its security hooks.
const OFFSETS_OF_HOOKS: [(&str, &str, &str); 8] = [
    ("OFFSET_TASK_CGROUPS", "task_struct", "cgroups"),
    ("OFFSET_CSS_SET_CGROUP", "css_set", "dfl_cgrp"),
    ("OFFSET_CGROUP_LEVEL", "cgroup", "level"),
    ("OFFSET_CGROUP_ANCESTORS", "cgroup", "ancestors"),
    ("OFFSET_CGROUP_NODE", "cgroup", "kn"),
    ("OFFSET_NODE_ID", "kernfs_node", "id"),
    ("OFFSET_SOCKET_SK", "socket", "sk"),
    ("OFFSET_SOCK_DPORT", "sock_common", "skc_dport"),
];

/// Everything that is attached, for its owners.
#[derive(Debug)]
pub struct Attached {
    /// Writes the maps.
    pub kernel: Kernel,
    /// Writes the protected addresses.
    pub endpoints: EndpointMaps,
    /// Says in which network namespaces the daemon listens besides its own.
    pub namespaces: Namespaces,
    /// Asks where a connection came from.
    pub origins: Origins,
    /// Tells the kernel until when the daemon's connections may say anything.
    pub deadlines: Deadlines,
    /// What the kernel refused.
    pub events: Events,
    /// Guards the interfaces that lead out.
    pub uplinks: Uplinks,
}

/// A program's link: where it is pinned, and what stands behind it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: &'static str,
    pub(super) attach_type: u32,
    pub(super) pin: PathBuf,
    pub(super) behind: Behind,
}

/// The cgroup that the programs are attached to.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) path: PathBuf,
    folder: File,
    id: u64,
}

impl Root {
    fn open(path: &Path) -> Result<Self, KernelError> {
        let action = format!("open the cgroup {}", path.display());
        Ok(Self {
            path: path.to_owned(),
            folder: File::open(path).map_err(io(&action))?,
            id: workload::cgroup_id(path).map_err(io(&action))?,
        })
    }

    /// Whether the path still leads to this cgroup. The kernel detaches from a removed one only some time later.
    pub(super) fn is_in_place(&self) -> bool {
        workload::cgroup_id(&self.path).is_ok_and(|id| id == self.id)
    }
}

/// Loads the programs, attaches them at the cgroup root (or swaps them into links that are pinned there) and pins everything. From its
/// return on, every endpoint is refused to everybody but the daemon, whatever becomes of the daemon.
///
/// # Errors
/// [`KernelError`]; what was enforced before still is.
pub fn attach(config: &KernelConfig) -> Result<Attached, KernelError> {
    check_kernel()?;
    check_capabilities()?;
    let pid = own_pid()?;
    let lock = prepare_pins(&config.pin_dir)?;
    let root = Root::open(&config.cgroup_root)?;
    let daemon_cgroup =
        workload::cgroup_id(&config.daemon_cgroup).map_err(io("read the daemon's cgroup"))?;
    let (links_dir, maps_dir) = (
        config.pin_dir.join(LINKS_DIR),
        config.pin_dir.join(MAPS_DIR),
    );
    pins::put_back(&maps_dir, &programs_behind(&links_dir)?, &NEEDED)?;
    let (mut ebpf, unknown) = load(&config.pin_dir)?;
    carried::over(&maps_dir)?;
    let daemon_netns = own_netns().map_err(io("read the network namespace's cookie"))?;
    let kernel_config = Config {
        daemon_cgroup,
        daemon_netns,
        proxy_port: u32::from(config.ports.proxy),
        enforce: ENFORCE_HOST,
        names_port: u32::from(config.ports.names),
        metadata_port: config.ports.metadata.map_or(0, u32::from),
        daemon_start_ticks: workload::start_boot_ns(pid)
            .map_err(io("read when the daemon started"))?
            / TICK_NS,
        daemon_pid: pid,
        reserved: 0,
    };

    let mut links = Vec::new();
    for (name, attach_type) in AT_THE_ROOT {
        links.push(attach_one(&mut ebpf, name, attach_type, &root, &links_dir)?);
    }

    let hooks = Hooks::attach(&mut ebpf, &links_dir, unknown)?;
    carried::done(&maps_dir)?;
    let maps = PINNED_MAPS.map(|(name, file)| Pin::of(name, maps_dir.join(file)));
    let maps = maps.into_iter().collect::<Result<_, _>>()?;

    let mut pinned = Pinned::take(&mut ebpf)?;
    let secret = pinned.begin(kernel_config, config.enforce)?;
    let endpoints = pinned.take_endpoints()?;
    let namespaces = pinned.take_namespaces()?;
    let events = Events::new(pinned.take_events()?)?;
    let origins = Origins::open(&maps_dir, secret)?;
    Ok(Attached {
        kernel: Kernel::new(pinned, (root, links, maps), hooks, lock)?,
        endpoints,
        namespaces,
        origins,
        deadlines: Deadlines::open(&maps_dir)?,
        events,
        uplinks: Uplinks::load(ebpf, links_dir)?,
    })
}

/// The programs that stand behind the links that are pinned.
fn programs_behind(links: &Path) -> Result<Vec<u32>, KernelError> {
    let at_the_root = AT_THE_ROOT.iter().map(|(name, _)| links.join(name));
    let pinned = at_the_root.filter(|pin| pin.exists());
    pinned.map(|pin| Ok(behind(&pin)?.program)).collect()
}

/// Detaches everything that is pinned, and lets go of the maps. `before` runs when nothing stands in the way any more and nothing has been
/// detached yet; where it fails nothing is. Gives the names of what was detached.
///
/// # Errors
/// When a daemon holds the pins, nothing is pinned, `before` failed, or a pin cannot be removed.
pub fn let_go<E: From<KernelError>>(
    pin_dir: &Path,
    before: impl FnOnce() -> Result<(), E>,
) -> Result<Vec<String>, E> {
    let nothing = || {
        KernelError::Unsuited(format!(
            "nothing is pinned at {}, so nothing is attached from there",
            pin_dir.display()
        ))
    };
    if !pin_dir.exists() {
        return Err(nothing().into());
    }
    let _lock = lock_pins(pin_dir)?;
    let links = pins(&pin_dir.join(LINKS_DIR))?;
    if links.is_empty() {
        return Err(nothing().into());
    }
    before()?;
    // Filters and links first: while one is left, its program needs the maps.
    let filters = clsact::remove(&uplinks::PROGRAMS)?;
    for pin in links.iter().chain(&pins(&pin_dir.join(MAPS_DIR))?) {
        std::fs::remove_file(pin).map_err(io(format!("remove {}", pin.display())))?;
    }
    let names = links.iter().filter_map(|pin| pin.file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let filters = filters
        .into_iter()
        .map(|interface| format!("the filter of {interface}"));
    Ok(names.chain(filters).collect())
}

/// What is pinned in a folder, in the order of names.
fn pins(dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let action = format!("read {}", dir.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io(&action))? {
        found.push(entry.map_err(io(&action))?.path());
    }
    found.sort();
    Ok(found)
}

pub(super) fn check_kernel() -> Result<(), KernelError> {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= KERNEL_MIN => Ok(()),
        _ => Err(KernelError::Unsuited(format!(
            "this kernel is {release}, and 6.1 is the oldest that is supported: boot a newer one"
        ))),
    }
}

/// This process's number as the kernel's programs see it.
fn own_pid() -> Result<u32, KernelError> {
    let space = std::fs::read_link(PID_NAMESPACE).map_err(io("read the daemon's pid namespace"))?;
    if space != Path::new(INITIAL_PID_NAMESPACE) {
        return Err(KernelError::Unsuited(
            "the daemon is in a pid namespace of its own, where it cannot tell processes by the kernel's numbers: run it in the host's (a container: --pid=host)".to_owned(),
        ));
    }
    Ok(std::process::id())
}

/// Asked before the kernel is: without them it only says that something is not supported, or nothing at all.
pub(super) fn check_capabilities() -> Result<(), KernelError> {
    let held = capabilities(None)
        .map_err(|error| io("read the daemon's capabilities")(error.into()))?
        .effective;
    if held.contains(CapabilitySet::SYS_ADMIN) {
        // It implies the others.
        return Ok(());
    }
    let missing: Vec<&str> = CAPABILITIES
        .into_iter()
        .filter(|(capability, _)| !held.contains(*capability))
        .map(|(_, name)| name)
        .collect();
    match missing.split_last() {
        None => Ok(()),
        Some((last, [])) => Err(KernelError::NotCapable {
            missing: (*last).to_owned(),
        }),
        Some((last, others)) => Err(KernelError::NotCapable {
            missing: format!("{} and {last}", others.join(", ")),
        }),
    }
}

/// Makes the pin folders and takes the lock that keeps a second daemon out.
fn prepare_pins(pin_dir: &Path) -> Result<File, KernelError> {
    let default = Path::new("/sys/fs/bpf");
    if pin_dir.starts_with(default) && !is_bpffs(default) {
        mount_bpffs(default)?;
    }
    let existing = pin_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(default);
    if !is_bpffs(existing) {
        return Err(KernelError::Unsuited(format!(
            "{} is not on a bpffs: mount one with `mount -t bpf bpf /sys/fs/bpf`, or name another `kernel.pin_dir`",
            pin_dir.display()
        )));
    }
    for dir in [
        pin_dir.to_owned(),
        pin_dir.join(MAPS_DIR),
        pin_dir.join(LINKS_DIR),
    ] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(io(format!("make {}", dir.display())))?;
    }
    lock_pins(pin_dir)
}

/// A bpffs holds no plain files, so the lock stands on the folder itself.
fn lock_pins(pin_dir: &Path) -> Result<File, KernelError> {
    let dir = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(pin_dir)
        .map_err(io(format!("open {}", pin_dir.display())))?;
    match dir.try_lock() {
        Ok(()) => Ok(dir),
        Err(TryLockError::WouldBlock) => Err(KernelError::Unsuited(format!(
            "another enforcer holds {}: stop it first, or name another `kernel.pin_dir`",
            pin_dir.display()
        ))),
        Err(TryLockError::Error(source)) => Err(KernelError::Io {
            action: format!("lock {}", pin_dir.display()),
            source,
        }),
    }
}

fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| {
        u64::try_from(stat.f_type).is_ok_and(|kind| kind & 0xffff_ffff == BPFFS_MAGIC)
    })
}

fn mount_bpffs(at: &Path) -> Result<(), KernelError> {
    rustix::mount::mount("bpf", at, "bpf", rustix::mount::MountFlags::empty(), None)
        .map_err(|error| io(format!("mount a bpffs on {}", at.display()))(error.into()))
}

/// The object, and what of this kernel's structures the programs at its security hooks could not be told.
fn load(pin_dir: &Path) -> Result<(Ebpf, Option<String>), KernelError> {
    let btf = Btf::of_this_kernel()?;
    let needed = offsets(&btf, &OFFSETS)?;
    // Without these there are no security hooks, and everything else.
    let (wanted, unknown) = match offsets(&btf, &OFFSETS_OF_HOOKS) {
        Ok(found) => (found, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let has_mptcp = u32::from(btf.has("mptcp_sock"));
    let mut loader = EbpfLoader::new();
    loader.override_global("HAS_MPTCP", &has_mptcp, true);
    for (global, offset) in needed.iter().chain(&wanted) {
        loader.override_global(global, offset, true);
    }
    for (name, file) in PINNED_MAPS {
        loader.map_pin_path(name, pin_dir.join(MAPS_DIR).join(file));
    }
    let ebpf = loader
        .load(OBJECT)
        .map_err(|error| refused("load the kernel programs")(&error))?;
    Ok((ebpf, unknown))
}

fn offsets(
    btf: &Btf,
    wanted: &[(&'static str, &str, &str)],
) -> Result<Vec<(&'static str, u32)>, KernelError> {
    let found = wanted
        .iter()
        .map(|(global, structure, member)| Ok((*global, btf.offset(structure, member)?)));
    found.collect()
}

fn attach_one(
    ebpf: &mut Ebpf,
    name: &'static str,
    attach_type: u32,
    root: &Root,
    links: &Path,
) -> Result<Link, KernelError> {
    let missing = || {
        KernelError::Unsuited(format!(
            "the kernel object has no program {name}: it was not built from this source"
        ))
    };
    let fail = || refused(format!("attach {name}"));
    let pin = links.join(name);
    let program = ebpf.program_mut(name).ok_or_else(missing)?;
    load_one(program).map_err(|error| fail()(&error))?;
    let behind = Behind {
        program: program.info().map_err(|error| fail()(&error))?.id(),
        cgroup: root.id,
    };
    let program = program.fd().map_err(|error| fail()(&error))?;
    if is_attached_to(&pin, root.id)? {
        swap(&pin, program)?;
    } else {
        let target = Target::Cgroup(root.folder.as_fd());
        let link = sys::create_link(program.as_fd(), target, attach_type)
            .map_err(io(format!("attach {name}")))?;
        pin_over(link.as_fd(), &pin)?;
    }
    Ok(Link {
        name,
        attach_type,
        pin,
        behind,
    })
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "aya's kinds of programs, of which five are ours"
)]
fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Puts the new program behind the pinned link, in one step.
fn swap(pin: &Path, program: &ProgramFd) -> Result<(), KernelError> {
    let action = format!("swap the program behind {}", pin.display());
    let link = sys::open_pin(pin).map_err(io(&action))?;
    sys::update_link(link.as_fd(), program.as_fd()).map_err(io(&action))
}

/// Whether a link is pinned here that holds its program at this cgroup. One that does not belongs to another root, or to one that was
/// removed, and enforces nothing where the configuration wants it.
fn is_attached_to(pin: &Path, cgroup: u64) -> Result<bool, KernelError> {
    Ok(pin.exists() && behind(pin)?.cgroup == cgroup)
}

/// Pins a new link in place of what is pinned there, if anything: the new one enforces before the old one is let go.
pub(super) fn pin_over(link: BorrowedFd<'_>, pin: &Path) -> Result<(), KernelError> {
    let action = format!("pin {}", pin.display());
    // A bpffs allows no dots in names.
    let mut fresh = pin.as_os_str().to_owned();
    fresh.push("-fresh");
    let fresh = PathBuf::from(fresh);
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io(&action)(error));
        }
        Ok(()) | Err(_) => {}
    }
    sys::pin(link, &fresh).map_err(io(&action))?;
    std::fs::rename(&fresh, pin).map_err(io(&action))
}

/// What stands behind a pinned link, now.
pub(super) fn behind(pin: &Path) -> Result<Behind, KernelError> {
    let action = format!("read {}", pin.display());
    let link = sys::open_pin(pin).map_err(io(&action))?;
    sys::behind(link.as_fd()).map_err(io(&action))
}
