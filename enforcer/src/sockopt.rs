//! Socket options that no safe library offers: who the peer of a unix socket is, and which network namespace a TCP socket lives in.
#![expect(
    unsafe_code,
    reason = "getsockopt and setsockopt have no safe binding for these options"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const SO_PEERGROUPS: libc::c_int = 59;
const SO_NETNS_COOKIE: libc::c_int = 71;
const SO_RCVMARK: libc::c_int = 75;
const SO_PEERPIDFD: libc::c_int = 77;
const SIOCOUTQNSD: libc::Ioctl = 0x894b;
/// The most supplementary groups a process can have (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65_536;
/// The loopback is the first interface of each network namespace (`LOOPBACK_IFINDEX`, include/net/flow.h), and stays so.
const LOOPBACK_INDEX: libc::c_int = 1;

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

/// Has the kernel say of each datagram which mark it has (`SO_RCVMARK`).
///
/// # Errors
/// When the kernel does not: those before 5.19.
pub fn tell_marks(fd: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let bytes = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the value is readable for its size.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_RCVMARK,
            (&raw const on).cast(),
            bytes,
        )
    };
    if done == 0 {
        Ok(())
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

/// How many bytes that were written to a TCP socket the other end has not acknowledged, those among them that have not left.
///
/// # Errors
/// When the kernel does not say.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // `SIOCOUTQ` has this number.
    queued(fd, libc::TIOCOUTQ)
}

/// How many bytes that were written to a TCP socket have not left.
///
/// # Errors
/// When the kernel does not say.
pub fn unsent(fd: BorrowedFd<'_>) -> io::Result<u32> {
    queued(fd, SIOCOUTQNSD)
}

fn queued(fd: BorrowedFd<'_>, which: libc::Ioctl) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one integer.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), which, &raw mut bytes) };
    if done == 0 {
        u32::try_from(bytes).map_err(io::Error::other)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Resets a TCP connection at once, whoever else holds its socket: what has not left never does.
///
/// # Errors
/// When the kernel does not.
pub fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    let nowhere = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    let bytes = libc::socklen_t::try_from(size_of_val(&nowhere)).map_err(io::Error::other)?;
    // SAFETY: the address is readable for its size.
    let done = unsafe { libc::connect(fd.as_raw_fd(), &raw const nowhere, bytes) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether the loopback is up in the network namespace that a socket lives in; `None` where its root has called it otherwise: by a name that another chose the
/// kernel would look for a module to load.
///
/// # Errors
/// When the kernel does not say.
pub fn is_loopback_up(fd: BorrowedFd<'_>) -> io::Result<Option<bool>> {
    // SAFETY: it is bytes and integers, for which zeros are valid.
    let mut named: libc::ifreq = unsafe { std::mem::zeroed() };
    named.ifr_ifru.ifru_ifindex = LOOPBACK_INDEX;
    // SAFETY: the request reads and writes one of these.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFNAME, &raw mut named) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut lo = [0; libc::IFNAMSIZ];
    for (to, from) in lo.iter_mut().zip(*b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    if named.ifr_name != lo {
        return Ok(None);
    }
    let mut asked = named;
    asked.ifr_name = lo;
    // SAFETY: as above.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut asked) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written the flags.
    let flags = unsafe { asked.ifr_ifru.ifru_flags };
    Ok(Some(libc::c_int::from(flags) & libc::IFF_UP != 0))
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
    fn what_a_connection_still_holds_back_is_known_and_gone_once_it_is_reset() {
        use std::io::{Read, Write};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("an address");
        let mut client = std::net::TcpStream::connect(address).expect("connects");
        let (mut server, _) = listener.accept().expect("accepts");
        assert_eq!(unacknowledged(client.as_fd()).expect("a count"), 0);
        client.set_nonblocking(true).expect("sets it");
        // Until the other side, which reads nothing, takes no more.
        while client.write(&[7; 65536]).is_ok() {}
        let held = unsent(client.as_fd()).expect("a count");
        assert!(held > 0 && unacknowledged(client.as_fd()).expect("a count") >= held);
        disconnect(client.as_fd()).expect("resets it");
        let mut came = Vec::new();
        let ended = server.read_to_end(&mut came).expect_err("is reset");
        assert_eq!(ended.kind(), io::ErrorKind::ConnectionReset);
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
