//! Links, which aya offers for some kinds of programs only: making and pinning one, reading where it is attached, and swapping the program
//! behind it in one step. See `bpf(2)` and `include/uapi/linux/bpf.h`.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;
use enforcer_ebpf::Origin;

const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_PROG_QUERY: libc::c_int = 16;
/// How many entries of a map are read at once. More than ever share a bucket.
const ENTRIES_AT_ONCE: usize = 4096;
/// The most programs at one place that are told apart.
const PROGRAMS_MAX: usize = 64;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
/// `BPF_F_BEFORE`: before everything that is attached there already.
const BEFORE: u32 = 1 << 3;

#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// The last fields are zero.
#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    reserved: u32,
    revision: u64,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Whole: the kernel answers in the last field too, whatever length it is told.
/// Of `BPF_PROG_QUERY`: what runs, and not what is attached.
const BPF_F_QUERY_EFFECTIVE: u32 = 1;

#[repr(C)]
struct Query {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u32,
    reserved: u32,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

#[repr(C)]
struct GetInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_link_info`, as far as it concerns links to a cgroup.
#[repr(C)]
#[derive(Debug, Default)]
struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    cgroup: u64,
    attach_type: u32,
    reserved_too: u32,
}

/// `struct bpf_link_info`, as far as it concerns tcx links.
#[repr(C)]
#[derive(Debug, Default)]
struct DeviceLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    interface: u32,
    attach_type: u32,
}

/// `struct bpf_link_info`, as far as it is the same for all links.
#[repr(C)]
#[derive(Debug, Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
}

/// What stands behind a pinned link, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    /// The program's id.
    pub(super) program: u32,
    /// The cgroup it is attached to; zero once that cgroup is gone, which detaches the program.
    pub(super) cgroup: u64,
}

/// For the commands that only read their attributes.
pub(super) fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    call(command, std::ptr::from_ref(attributes))
}

/// For the commands that answer in them.
pub(super) fn bpf_mut<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    call(command, std::ptr::from_mut(attributes))
}

fn call<T>(command: libc::c_int, attributes: *const T) -> io::Result<i32> {
    // SAFETY: `attributes` is a complete attribute block of the command, readable for its size, and writable where the command answers in it;
    // the kernel keeps no pointer to it.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        i32::try_from(done).map_err(io::Error::other)
    }
}

#[repr(C)]
struct LookUp {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// What a map of socket storage holds of a socket of ours (`BPF_MAP_LOOKUP_ELEM`).
pub(super) fn look_up_socket(map: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<Origin> {
    let key: libc::c_int = socket.as_raw_fd();
    let mut value = MaybeUninit::<Origin>::zeroed();
    bpf(
        BPF_MAP_LOOKUP_ELEM,
        &LookUp {
            map: number(map),
            reserved: 0,
            key: std::ptr::from_ref(&key) as u64,
            value: value.as_mut_ptr() as u64,
            flags: 0,
        },
    )?;
    // SAFETY: the kernel has written a value of the map, which is of this type; every bit pattern is one.
    Ok(unsafe { value.assume_init() })
}

#[repr(C)]
struct Update {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Leaves a number with a socket of ours in a map of socket storage (`BPF_MAP_UPDATE_ELEM`).
pub(super) fn leave_with_socket(
    map: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    number_of: u64,
) -> io::Result<()> {
    let key: libc::c_int = socket.as_raw_fd();
    bpf(
        BPF_MAP_UPDATE_ELEM,
        &Update {
            map: number(map),
            reserved: 0,
            key: std::ptr::from_ref(&key) as u64,
            value: std::ptr::from_ref(&number_of) as u64,
            flags: 0,
        },
    )?;
    Ok(())
}

/// Every entry of a hash, as its buckets are when they are read.
pub(super) fn entries<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let mut found = Vec::new();
    let mut keys = Vec::<K>::with_capacity(ENTRIES_AT_ONCE);
    let mut values = Vec::<V>::with_capacity(ENTRIES_AT_ONCE);
    let (mut place, mut is_first) = (0_u32, true);
    loop {
        let at = &raw mut place;
        let mut batch = Batch {
            from: if is_first { 0 } else { at as u64 },
            to: at as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: ENTRIES_AT_ONCE as u32,
            map: number(map),
            element_flags: 0,
            flags: 0,
        };
        let read = bpf_mut(BPF_MAP_LOOKUP_BATCH, &mut batch);
        let is_last = match read {
            Ok(_) => false,
            // So the kernel says that the last bucket has been read.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        let count = (batch.count as usize).min(ENTRIES_AT_ONCE);
        // SAFETY: the kernel has written so many of both, which there is room for; every bit pattern is valid for either.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        found.extend(keys.drain(..).zip(values.drain(..)));
        if is_last {
            return Ok(found);
        }
        is_first = false;
    }
}

/// Opens what is pinned at `path`.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = bpf(
        BPF_OBJ_GET,
        &ObjGet {
            path: path.as_ptr() as u64,
            fd: 0,
            flags: 0,
        },
    )?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins what `fd` refers to at `path`.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    bpf(
        BPF_OBJ_PIN,
        &ObjGet {
            path: path.as_ptr() as u64,
            fd: number(fd),
            flags: 0,
        },
    )
    .map(drop)
}

/// What a program is attached to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// A cgroup, beside what is attached there already.
    Cgroup(BorrowedFd<'a>),
    /// The hook that the program was loaded for, beside what is attached there already.
    Hook,
    /// A network interface, before what is attached there already: a program before ours could let a frame pass for good.
    Device(u32),
}

impl Target<'_> {
    fn number(self) -> u32 {
        match self {
            Target::Cgroup(cgroup) => number(cgroup),
            Target::Hook => 0,
            Target::Device(index) => index,
        }
    }
}

/// Attaches `program`; it stays attached as long as the link is open or pinned.
pub(super) fn create_link(
    program: BorrowedFd<'_>,
    target: Target<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let flags = match target {
        Target::Cgroup(_) | Target::Hook => 0,
        Target::Device(_) => BEFORE,
    };
    let fd = bpf(
        BPF_LINK_CREATE,
        &LinkCreate {
            program: number(program),
            target: target.number(),
            attach_type,
            flags,
            relative: 0,
            reserved: 0,
            revision: 0,
        },
    )?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The ids of the programs that are attached at one place.
pub(super) fn programs_at(target: Target<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    query(target, attach_type, 0)
}

/// The ids of the programs that run for whoever is in a cgroup, those of the cgroups above included, in the order in which they do.
pub(super) fn running_at(target: Target<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    query(target, attach_type, BPF_F_QUERY_EFFECTIVE)
}

fn query(target: Target<'_>, attach_type: u32, query_flags: u32) -> io::Result<Vec<u32>> {
    let mut programs = vec![0_u32; PROGRAMS_MAX];
    let mut query = Query {
        target: target.number(),
        attach_type,
        query_flags,
        attach_flags: 0,
        programs: programs.as_mut_ptr() as u64,
        count: PROGRAMS_MAX as u32,
        reserved: 0,
        program_flags: 0,
        links: 0,
        link_flags: 0,
        revision: 0,
    };
    bpf_mut(BPF_PROG_QUERY, &mut query)?;
    programs.truncate(query.count as usize);
    Ok(programs)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Puts `program` behind `link` in one step: there is no instant without a program.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    bpf(
        BPF_LINK_UPDATE,
        &LinkUpdate {
            link: number(link),
            program: number(program),
            flags: 0,
            old_program: 0,
        },
    )
    .map(drop)
}

/// What stands behind a link to a network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BehindDevice {
    /// The program's id.
    pub(super) program: u32,
    /// The interface's index; zero once it is gone.
    pub(super) interface: u32,
}

/// Reads a link to a network interface (tcx).
pub(super) fn behind_device(link: BorrowedFd<'_>) -> io::Result<BehindDevice> {
    let mut info = DeviceLinkInfo::default();
    read_info(link, &mut info)?;
    Ok(BehindDevice {
        program: info.program,
        interface: info.interface,
    })
}

/// Reads a link to a cgroup.
pub(super) fn behind(link: BorrowedFd<'_>) -> io::Result<Behind> {
    let mut info = CgroupLinkInfo::default();
    read_info(link, &mut info)?;
    Ok(Behind {
        program: info.program,
        cgroup: info.cgroup,
    })
}

/// The id of the program behind a link, whatever it is attached to.
pub(super) fn program_behind(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = LinkInfo::default();
    read_info(link, &mut info)?;
    Ok(info.program)
}

fn read_info<T>(link: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &GetInfo {
            fd: link.as_raw_fd().unsigned_abs(),
            length: u32::try_from(size_of::<T>()).map_err(io::Error::other)?,
            info: std::ptr::from_mut(info) as u64,
        },
    )
    .map(drop)
}
