//! Ties a redirected connection's source port to its origin, before the SYN leaves: what the proxy sees at accept is a port.

use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use enforcer_ebpf::PortKey;

use super::maps::{COOKIES, PORTS, config};
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
    let config = config();
    if config.proxy_port == 0 || u32::from(u16::from_be(port as u16)) != config.proxy_port {
        return;
    }
    // SAFETY: the helpers read the socket of a valid context; the origin is copied at once.
    let (cookie, netns) = unsafe {
        (
            bpf_get_socket_cookie(raw(ctx)),
            bpf_get_netns_cookie(raw(ctx)),
        )
    };
    let family = if ctx.family() == AF_INET { 4 } else { 6 };
    let key = PortKey {
        netns,
        client_port: ctx.local_port(),
        family,
    };
    // SAFETY: as above.
    match unsafe { COOKIES.get(&cookie) }.copied() {
        Some(origin) => {
            let _ = PORTS.insert(&key, &origin, 0);
        }
        // A port that is used again by a connection that was not redirected: what the last one left must go.
        None => {
            let _ = PORTS.remove(&key);
        }
    }
}
