//! Addresses as the kernel hands them over, and the IPv4 address that an IPv6 one stands for.

/// The IPv4 address, in the order of its bytes on the wire, that an IPv6 address is another spelling of.
///
/// Covers v4-mapped and v4-compatible (RFC 4291), the NAT64 well-known prefix 64:ff9b::/96 (RFC 6052) and the last bits of the local one
/// 64:ff9b:1::/48 (RFC 8215), 6to4 2002::/16 (RFC 3056) and Teredo's client (RFC 4380): a network that translates those must not be a way
/// around. A translator with a prefix of the network's own is known only to its operator, who names it among the prefixes.
#[must_use]
#[inline(always)]
pub const fn embedded_v4(ip: [u8; 16]) -> Option<[u8; 4]> {
    let last = [ip[12], ip[13], ip[14], ip[15]];
    if all_zero(ip, 0, 10) {
        let is_mapped = ip[10] == 0xff && ip[11] == 0xff;
        // No IPv4 host is in 0/8: `::` and `::1` are addresses of their own.
        let is_compatible = ip[10] == 0 && ip[11] == 0 && last[0] != 0;
        return if is_mapped || is_compatible {
            Some(last)
        } else {
            None
        };
    }
    if ip[0] == 0 && ip[1] == 0x64 && ip[2] == 0xff && ip[3] == 0x9b {
        let is_well_known = all_zero(ip, 4, 12);
        let is_local = ip[4] == 0 && ip[5] == 1;
        return if is_well_known || is_local {
            Some(last)
        } else {
            None
        };
    }
    if ip[0] == 0x20 && ip[1] == 0x02 {
        return Some([ip[2], ip[3], ip[4], ip[5]]);
    }
    if ip[0] == 0x20 && ip[1] == 0x01 && ip[2] == 0 && ip[3] == 0 {
        return Some([!last[0], !last[1], !last[2], !last[3]]);
    }
    None
}

/// Whether the address is one of this host's own: 127/8, ::1, or mapped 127/8; also unspecified, which connects to this host.
#[must_use]
#[inline(always)]
pub const fn is_own_v4(ip: [u8; 4]) -> bool {
    ip[0] == 127 || (ip[0] == 0 && ip[1] == 0 && ip[2] == 0 && ip[3] == 0)
}

/// As [`is_own_v4`], for IPv6.
#[must_use]
#[inline(always)]
pub const fn is_own_v6(ip: [u8; 16]) -> bool {
    match embedded_v4(ip) {
        Some(v4) => is_own_v4(v4),
        None => all_zero(ip, 0, 15) && ip[15] <= 1,
    }
}

#[inline(always)]
const fn all_zero(ip: [u8; 16], from: usize, to: usize) -> bool {
    let mut at = from;
    while at < to {
        if ip[at] != 0 {
            return false;
        }
        at += 1;
    }
    true
}

/// The one address the proxy listens on for IPv4, in the mapped spelling.
pub const LOOPBACK_V4: [u8; 16] = mapped([127, 0, 0, 1]);
/// The one address the proxy listens on for IPv6.
pub const LOOPBACK_V6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// The v4-mapped spelling of an IPv4 address: how records hold both families in one field.
#[must_use]
#[inline(always)]
pub const fn mapped(ip: [u8; 4]) -> [u8; 16] {
    [
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ip[0], ip[1], ip[2], ip[3],
    ]
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::net::Ipv6Addr;

    use super::*;

    fn embedded(text: &str) -> Option<[u8; 4]> {
        embedded_v4(text.parse::<Ipv6Addr>().expect("an address").octets())
    }

    #[test]
    fn every_spelling_of_a_v4_address_is_known() {
        assert_eq!(embedded("::ffff:10.9.8.7"), Some([10, 9, 8, 7]));
        assert_eq!(embedded("64:ff9b::10.9.8.7"), Some([10, 9, 8, 7]));
        assert_eq!(embedded("64:ff9b:1::10.9.8.7"), Some([10, 9, 8, 7]));
        assert_eq!(embedded("64:ff9b:1:2::10.9.8.7"), Some([10, 9, 8, 7]));
        assert_eq!(embedded("::10.9.8.7"), Some([10, 9, 8, 7]));
        assert_eq!(embedded("2002:a09:807::1"), Some([10, 9, 8, 7]));
        assert_eq!(embedded("2001::f5f6:f7f8"), Some([10, 9, 8, 7]));
        for text in [
            "fd09:8::7",
            "::",
            "::1",
            "::2",
            "64:ff9b:2::a09:807",
            "2001:db8::7",
        ] {
            assert_eq!(embedded(text), None, "{text}");
        }
    }

    #[test]
    fn own_addresses_are_known_in_every_spelling() {
        for text in [
            "::1",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:127.9.9.9",
            "::ffff:0.0.0.0",
        ] {
            assert!(
                is_own_v6(text.parse::<Ipv6Addr>().expect("an address").octets()),
                "{text}"
            );
        }
        assert!(!is_own_v6(
            "::2".parse::<Ipv6Addr>().expect("an address").octets()
        ));
    }
}
