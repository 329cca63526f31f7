//! What aya does not offer of `bpf(2)`: opening a pinned link, reading where it is attached, and swapping the program behind it in one step.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_UPDATE: libc::c_int = 29;

#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
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

/// What stands behind a pinned link, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behind {
    /// The program's id.
    pub(super) program: u32,
    /// The cgroup it is attached to; zero once that cgroup is gone, which detaches the program.
    pub(super) cgroup: u64,
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: `attributes` is a complete attribute block of the command, readable for its size; the kernel keeps no pointer to it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        i32::try_from(done).map_err(io::Error::other)
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

/// Puts `program` behind `link` in one step: there is no instant without a program.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let number = |fd: BorrowedFd<'_>| fd.as_raw_fd().unsigned_abs();
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

/// Reads a link to a cgroup.
pub(super) fn behind(link: BorrowedFd<'_>) -> io::Result<Behind> {
    let mut info = CgroupLinkInfo::default();
    bpf(
        BPF_OBJ_GET_INFO_BY_FD,
        &GetInfo {
            fd: link.as_raw_fd().unsigned_abs(),
            length: u32::try_from(size_of::<CgroupLinkInfo>()).map_err(io::Error::other)?,
            info: &raw mut info as u64,
        },
    )?;
    Ok(Behind {
        program: info.program,
        cgroup: info.cgroup,
    })
}
