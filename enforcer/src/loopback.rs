//! Which addresses the loopback has here: an agent is led to the one of the family in which it asked, and a host may have IPv6 switched off.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

/// What `status` says of a host without the second one.
pub const WITHOUT_IPV6: &str = "IPv6 is switched off on this host (it has no ::1), so the daemon serves 127.0.0.1 alone: what agents ask over IPv6 sockets, an IPv4 address in one included, is refused. Clients must use IPv4 sockets (Java: -Djava.net.preferIPv4Stack=true). Once IPv6 is switched on it is served";

/// Where the daemon listens: 127.0.0.1, and ::1 where the kernel has IPv6, though it may be switched off here. It may be switched on later.
///
/// # Errors
/// When the kernel gives no socket for another reason than that it has no IPv6.
pub fn addresses() -> io::Result<&'static [IpAddr]> {
    const BOTH: &[IpAddr] = &[
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    match Socket::new(Domain::IPV6, Type::DGRAM, None) {
        Ok(_) => Ok(BOTH),
        Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => Ok(&BOTH[..1]),
        Err(error) => Err(error),
    }
}

/// Whether there is ::1; where that cannot be found out, it is taken to be.
#[must_use]
pub fn has_ipv6() -> bool {
    let bound = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0));
    bound.map_or_else(|error| !says_that_there_is_none(&error), |_| true)
}

/// Switched off at run time (`disable_ipv6`), or when the kernel started (`ipv6.disable=1`) or was built.
fn says_that_there_is_none(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_or_a_family_that_is_missing_is_done_without() {
        for (errno, is_none) in [
            (Errno::ADDRNOTAVAIL, true),
            (Errno::AFNOSUPPORT, true),
            (Errno::ADDRINUSE, false),
            (Errno::ACCESS, false),
            (Errno::MFILE, false),
        ] {
            assert_eq!(says_that_there_is_none(&errno.into()), is_none, "{errno}");
        }
    }
}
