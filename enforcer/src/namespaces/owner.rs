//! Whose a network namespace is: who made it, in which user namespace. Reads, and changes nothing.
#![expect(
    unsafe_code,
    reason = "the ioctl that gives a namespace's owner has no safe binding"
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::os::unix::fs::MetadataExt;

/// `NS_GET_USERNS` (ioctl_ns(2)): another file, of the user namespace that owns this one.
const NS_GET_USERNS: libc::Ioctl = 0xb701;

/// Whether a network namespace belongs to the user namespace that this process is in. To one of another's its own root may add any interface, whatever
/// leads nowhere; who is root in this one alone was let do so by this host's root.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn is_this_hosts(netns: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the ioctl takes no argument, and gives a file that nobody else has.
    let owner = unsafe {
        match libc::ioctl(netns.as_raw_fd(), NS_GET_USERNS) {
            -1 => return Err(io::Error::last_os_error()),
            owner => File::from_raw_fd(owner),
        }
    };
    let own = std::fs::metadata("/proc/self/ns/user")?;
    Ok(owner.metadata()?.ino() == own.ino())
}
