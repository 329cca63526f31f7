//! Ties the client's end of a redirected connection to its origin, before the SYN leaves: that end is what the proxy sees at accept.

use core::ptr::read_volatile;

use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use enforcer_ebpf::PortKey;
use enforcer_ebpf::address::{LOOPBACK_V4, LOOPBACK_V6, mapped};

use super::maps::{COOKIES, ORIGINS, config, is_own_port};
use super::task::raw;

const TCP_CONNECT_CB: u32 = 3;
const AF_INET: u32 = 2;

#[sock_ops]
pub fn established(ctx: SockOpsContext) -> u32 {
    if ctx.op() == TCP_CONNECT_CB {
        tie(&ctx);
    }
    1
}

#[inline(always)]
fn tie(ctx: &SockOpsContext) {
    // The remote port is in network order, in the high half on little-endian machines.
    let port = ctx.remote_port();
    let port = if port > 0xffff { port >> 16 } else { port };
    let port = u16::from_be(port as u16);
    if !is_own_port(&config(), port) {
        return;
    }
    let (client, server) = ends(ctx);
    // The same port number on another host is none of ours: it must neither leave an origin nor remove one.
    if server != LOOPBACK_V4 && server != LOOPBACK_V6 {
        return;
    }
    // SAFETY: the helpers read the socket of a valid context; the origin is copied at once.
    let (cookie, netns) = unsafe {
        (
            bpf_get_socket_cookie(raw(ctx)),
            bpf_get_netns_cookie(raw(ctx)),
        )
    };
    let key = PortKey {
        netns,
        client,
        client_port: ctx.local_port(),
        server_port: u32::from(port),
    };
    // SAFETY: as above.
    match unsafe { COOKIES.get(&cookie) }.copied() {
        Some(origin) => {
            let _ = ORIGINS.insert(&key, &origin, 0);
        }
        // A port that is used again by a connection that was not redirected: what the last one left must go.
        None => {
            let _ = ORIGINS.remove(&key);
        }
    }
}

/// The client's and the server's address, IPv4 in its mapped spelling. A socket of the other family that speaks IPv4 has it so already.
///
/// All fields are read, whatever the family, and volatile: the verifier wants constant offsets into the context, and the compiler would
/// otherwise make one read at a computed offset out of one in each branch.
#[inline(always)]
fn ends(ctx: &SockOpsContext) -> ([u8; 16], [u8; 16]) {
    let ops = ctx.ops;
    // SAFETY: the kernel passes a valid context, and every field is readable at this operation.
    unsafe {
        let family = read_volatile(&raw const (*ops).family);
        let client4 = read_volatile(&raw const (*ops).local_ip4);
        let server4 = read_volatile(&raw const (*ops).remote_ip4);
        let client6 = words(&raw const (*ops).local_ip6);
        let server6 = words(&raw const (*ops).remote_ip6);
        if family == AF_INET {
            (mapped(client4.to_ne_bytes()), mapped(server4.to_ne_bytes()))
        } else {
            (bytes(client6), bytes(server6))
        }
    }
}

/// Four words of the context, each read by itself.
///
/// # Safety
/// `at` must point to four words of a valid context.
#[inline(always)]
unsafe fn words(at: *const [u32; 4]) -> [u32; 4] {
    let at = at.cast::<u32>();
    // SAFETY: as the caller promises.
    unsafe {
        [
            read_volatile(at),
            read_volatile(at.add(1)),
            read_volatile(at.add(2)),
            read_volatile(at.add(3)),
        ]
    }
}

/// The words of an address, each in network order, as its bytes.
#[inline(always)]
fn bytes(words: [u32; 4]) -> [u8; 16] {
    let [a, b, c, d] = [
        words[0].to_ne_bytes(),
        words[1].to_ne_bytes(),
        words[2].to_ne_bytes(),
        words[3].to_ne_bytes(),
    ];
    [
        a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2],
        d[3],
    ]
}
