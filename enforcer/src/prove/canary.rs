//! Addresses that nobody has: from the ranges that are set aside for documentation (RFC 5737, RFC 3849), so that no packet to them can
//! reach anybody. The canaries are protected on every host, always; whatever reaches them would reach BigQuery.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protected as BigQuery is.
pub const CANARY4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);
/// Protected as BigQuery is.
pub const CANARY6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66);
/// Not protected: shows that a way out works at all.
pub const OPEN4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 67);
/// Not protected.
pub const OPEN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x67);
/// Not protected: where ways begin that then turn elsewhere.
pub const ELSEWHERE4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 68);
/// Not protected.
pub const ELSEWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x68);
/// The near end of the scratch wire.
pub const NEAR4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 65);
/// The near end of the scratch wire.
pub const NEAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x65);

/// Whether this is a canary.
#[must_use]
pub fn is_canary(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip == CANARY4,
        IpAddr::V6(ip) => ip == CANARY6,
    }
}

/// An open address of the same family.
#[must_use]
pub const fn elsewhere(of: IpAddr) -> IpAddr {
    match of {
        IpAddr::V4(_) => IpAddr::V4(ELSEWHERE4),
        IpAddr::V6(_) => IpAddr::V6(ELSEWHERE6),
    }
}
