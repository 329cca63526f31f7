//! The address that a hook on sockets is given: where a connection or a datagram goes, or a socket is bound to.

use core::ptr::read_volatile;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_ebpf::Endpoint;
use enforcer_ebpf::address::{is_own_v4, is_own_v6, mapped};

use super::maps::{endpoint4, endpoint6};

/// 127.0.0.1 as the context holds it.
pub const LOOPBACK4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
/// The last word of ::1 as the context holds it; the others are zero.
pub const LOOPBACK6_LAST: u32 = u32::from_ne_bytes([0, 0, 0, 1]);

/// An address and a port.
pub struct Place {
    /// IPv4 in its mapped spelling.
    pub ip: [u8; 16],
    /// Host order.
    pub port: u16,
    /// Whether it is one of this host's own: loopback, or none in particular.
    pub is_own: bool,
}

/// A place, and what answers there.
pub struct Destination {
    pub ip: [u8; 16],
    pub port: u16,
    pub endpoint: Option<Endpoint>,
    pub is_own: bool,
}

impl Place {
    #[inline(always)]
    pub fn v4(ctx: &SockAddrContext) -> (Self, [u8; 4]) {
        // SAFETY: the kernel gives a valid context for the whole call.
        let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
        let ip = ip.to_ne_bytes();
        let place = Self {
            ip: mapped(ip),
            port: port_of(port),
            is_own: is_own_v4(ip),
        };
        (place, ip)
    }

    #[inline(always)]
    pub fn v6(ctx: &SockAddrContext) -> Self {
        // SAFETY: as above. The words are read one by one, as the verifier wants it.
        let (words, port) = unsafe {
            let addr: *const bpf_sock_addr = ctx.sock_addr;
            let words = [
                (*addr).user_ip6[0],
                (*addr).user_ip6[1],
                (*addr).user_ip6[2],
                (*addr).user_ip6[3],
            ];
            (words, (*addr).user_port)
        };
        let ip = bytes_of(words);
        Self {
            ip,
            port: port_of(port),
            is_own: is_own_v6(ip),
        }
    }

    /// Where a socket is, once it is bound.
    #[inline(always)]
    pub fn bound_v4(ctx: &SockContext) -> Self {
        // SAFETY: as above. The socket holds its port in host order.
        let (ip, port) = unsafe { ((*ctx.sock).src_ip4, (*ctx.sock).src_port) };
        let ip = ip.to_ne_bytes();
        Self {
            ip: mapped(ip),
            port: port as u16,
            is_own: is_own_v4(ip),
        }
    }

    /// The same, on IPv6.
    #[inline(always)]
    pub fn bound_v6(ctx: &SockContext) -> Self {
        // SAFETY: as above. Volatile, or two words would be read at once, which the verifier does not have.
        let (words, port) = unsafe {
            let sock: *const bpf_sock = ctx.sock;
            let words = [
                read_volatile(&raw const (*sock).src_ip6[0]),
                read_volatile(&raw const (*sock).src_ip6[1]),
                read_volatile(&raw const (*sock).src_ip6[2]),
                read_volatile(&raw const (*sock).src_ip6[3]),
            ];
            (words, (*sock).src_port)
        };
        let ip = bytes_of(words);
        Self {
            ip,
            port: port as u16,
            is_own: is_own_v6(ip),
        }
    }
}

impl Destination {
    #[inline(always)]
    pub fn v4(ctx: &SockAddrContext) -> Self {
        let (Place { ip, port, is_own }, v4) = Place::v4(ctx);
        Self {
            ip,
            port,
            endpoint: endpoint4(v4),
            is_own,
        }
    }

    #[inline(always)]
    pub fn v6(ctx: &SockAddrContext) -> Self {
        let Place { ip, port, is_own } = Place::v6(ctx);
        Self {
            ip,
            port,
            endpoint: endpoint6(ip),
            is_own,
        }
    }
}

/// An address's words as the context holds them, in the order of its bytes.
#[inline(always)]
fn bytes_of(words: [u32; 4]) -> [u8; 16] {
    let mut ip = [0; 16];
    let mut at = 0;
    while at < 4 {
        let bytes = words[at].to_ne_bytes();
        ip[at * 4] = bytes[0];
        ip[at * 4 + 1] = bytes[1];
        ip[at * 4 + 2] = bytes[2];
        ip[at * 4 + 3] = bytes[3];
        at += 1;
    }
    ip
}

/// The context holds the port in network order in its low half.
#[inline(always)]
fn port_of(port: u32) -> u16 {
    u16::from_be(port as u16)
}
