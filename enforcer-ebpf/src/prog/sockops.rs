//! The daemon's end of a connection, once it stands: the origin that its first packet came with is left with it, and is that socket's own from
//! then on, whatever becomes of the client's.

use core::ptr::read_volatile;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_ktime_get_boot_ns, bpf_sk_storage_get,
};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use enforcer_ebpf::FlowKey;
use enforcer_ebpf::address::mapped;
use enforcer_ebpf::record::{is_fresh, tied_now};

use super::maps::{ACCEPTED, ORIGINS, config, is_own_port};
use super::task::raw;

const PASSIVE_ESTABLISHED_CB: u32 = 5;
const AF_INET: u32 = 2;

#[sock_ops]
pub fn established(ctx: SockOpsContext) -> u32 {
    if ctx.op() == PASSIVE_ESTABLISHED_CB {
        stands(&ctx);
    }
    1
}

/// The daemon's end, before the daemon is told of it.
#[inline(always)]
fn stands(ctx: &SockOpsContext) {
    let server_port = ctx.local_port();
    if !is_own_port(&config(), server_port as u16) {
        return;
    }
    let (_, client) = ends(ctx);
    let port = ctx.remote_port();
    let port = if port > 0xffff { port >> 16 } else { port };
    // SAFETY: the field is readable at this operation.
    let next = unsafe { read_volatile(&raw const (*ctx.ops).rcv_nxt) };
    let key = FlowKey {
        netns: netns(ctx),
        client,
        client_port: u32::from(u16::from_be(port as u16)),
        server_port,
        // Nothing but the client's first packet has come yet.
        first_sequence: next.wrapping_sub(1),
        reserved: 0,
    };
    // SAFETY: the origin is copied at once.
    let Some(mut origin) = unsafe { ORIGINS.get(&key) }.copied() else {
        return;
    };
    let _ = ORIGINS.remove(&key);
    // SAFETY: the helper reads the clock.
    if !is_fresh(&origin, tied_now(unsafe { bpf_ktime_get_boot_ns() })) {
        return;
    }
    // SAFETY: the socket of a valid context, which is a whole one at this operation, and a map of this value's size. Where it cannot be left
    // there, the daemon finds no origin, and refuses.
    unsafe {
        let socket = (*ctx.ops).__bindgen_anon_2.sk;
        if !socket.is_null() {
            bpf_sk_storage_get(
                (&raw const ACCEPTED).cast_mut().cast(),
                socket.cast(),
                (&raw mut origin).cast(),
                u64::from(BPF_SK_STORAGE_GET_F_CREATE),
            );
        }
    }
}

#[inline(always)]
fn netns(ctx: &SockOpsContext) -> u64 {
    // SAFETY: the helper reads the socket of a valid context.
    unsafe { bpf_get_netns_cookie(raw(ctx)) }
}

/// This end's address and the other's, IPv4 in its mapped spelling. A socket of the other family that speaks IPv4 has it so already.
///
/// All fields are read, whatever the family, and volatile: the verifier wants constant offsets into the context, and the compiler would
/// otherwise make one read at a computed offset out of one in each branch.
#[inline(always)]
fn ends(ctx: &SockOpsContext) -> ([u8; 16], [u8; 16]) {
    let ops = ctx.ops;
    // SAFETY: the kernel passes a valid context, and every field is readable at this operation.
    unsafe {
        let family = read_volatile(&raw const (*ops).family);
        let own4 = read_volatile(&raw const (*ops).local_ip4);
        let other4 = read_volatile(&raw const (*ops).remote_ip4);
        let own6 = words(&raw const (*ops).local_ip6);
        let other6 = words(&raw const (*ops).remote_ip6);
        if family == AF_INET {
            (mapped(own4.to_ne_bytes()), mapped(other4.to_ne_bytes()))
        } else {
            (bytes(own6), bytes(other6))
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
