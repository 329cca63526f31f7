//! Socket options that no safe library offers: who the peer of a unix socket is, and which network namespace a TCP socket lives in.
#![expect(
    unsafe_code,
    reason = "getsockopt has no safe binding for these options"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SO_PEERGROUPS: libc::c_int = 59;
const SO_NETNS_COOKIE: libc::c_int = 71;
const SO_PEERPIDFD: libc::c_int = 77;
/// The most supplementary groups a process can have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;

/// Reads an option into `out` and gives the bytes the kernel wrote. `T` must be plain integers.
fn get<T: Copy>(fd: BorrowedFd<'_>, option: libc::c_int, out: &mut [T]) -> io::Result<usize> {
    let mut bytes = libc::socklen_t::try_from(size_of_val(out)).map_err(io::Error::other)?;
    // SAFETY: `out` is writable for `bytes` bytes, and the callers use integer types, for which every bit pattern is valid.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            out.as_mut_ptr().cast(),
            &raw mut bytes,
        )
    };
    if done == 0 {
        Ok(bytes as usize)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A pidfd of the process at the other end of a unix socket; `None` on kernels before 6.5, which do not give it by the socket.
///
/// # Errors
/// When the process is gone.
pub fn peer_pidfd(fd: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut raw = [-1_i32];
    match get(fd, SO_PEERPIDFD, &mut raw) {
        // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
        Ok(_) if raw[0] >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(raw[0]) })),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("the kernel gave no pidfd for the peer")),
    }
}

/// The supplementary groups of the process at the other end of a unix socket, as they were when it connected.
///
/// # Errors
/// When the kernel does not say.
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        match get(fd, SO_PEERGROUPS, &mut groups) {
            Ok(bytes) => {
                groups.truncate(bytes / size_of::<u32>());
                return Ok(groups);
            }
            Err(error)
                if error.raw_os_error() == Some(libc::ERANGE) && groups.len() < GROUPS_MAX =>
            {
                groups.resize(groups.len() * 4, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

/// The cookie of the network namespace that a socket lives in: stable, unique within a boot.
///
/// # Errors
/// When the kernel does not say (before 5.14).
pub fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = [0_u64];
    get(fd, SO_NETNS_COOKIE, &mut cookie)?;
    Ok(cookie[0])
}

/// The cookie of this process's own network namespace.
///
/// # Errors
/// As [`netns_cookie`].
pub fn own_netns() -> io::Result<u64> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    netns_cookie(socket.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_socket_pair_is_this_process_and_lives() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert!(peer_pidfd(a.as_fd()).is_ok());
        assert!(peer_groups(a.as_fd()).is_ok());
    }

    #[test]
    fn two_sockets_of_one_namespace_have_one_cookie() {
        let a = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        let b = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
        let cookies = (
            netns_cookie(a.as_fd()).expect("a cookie"),
            netns_cookie(b.as_fd()).expect("a cookie"),
        );
        assert_eq!(cookies.0, cookies.1);
    }
}
