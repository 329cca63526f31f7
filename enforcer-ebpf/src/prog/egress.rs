//! The net under the hooks: a packet toward an endpoint leaves only from the daemon's own cgroup. No window logic, no state.

use aya_ebpf::helpers::generated::{bpf_ktime_get_boot_ns, bpf_skb_cgroup_id};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use enforcer_ebpf::address::mapped;
use enforcer_ebpf::record::hook;
use enforcer_ebpf::{Event, Reason};

use super::maps::{config, count, is_endpoint4, is_endpoint6, report};

const ALLOW: i32 = 1;
const DROP: i32 = 0;
const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;
/// IPv4's header length, in words, when nothing follows the fixed part.
const WORDS_WITHOUT_OPTIONS: u8 = 5;
/// The fixed part of the IPv4 header, bytes.
const HEADER_BYTES: usize = 20;
/// The most options there is room for: forty of one byte.
const OPTIONS_MAX: u32 = 40;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_LOOSE_ROUTE: u8 = 131;
const OPTION_STRICT_ROUTE: u8 = 137;
/// The IPv6 routing header: its last address, not the one in the header, is where the packet goes.
const NEXT_ROUTING: u8 = 43;

#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the kernel gives a valid context for the whole call.
    let protocol = u32::from(u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16));
    match protocol {
        ETH_P_IP => egress4(&ctx),
        ETH_P_IPV6 => egress6(&ctx),
        // Not IP: there is no endpoint it could reach.
        _ => ALLOW,
    }
}

#[inline(always)]
fn egress4(ctx: &SkBuffContext) -> i32 {
    let (Ok(ip), Ok(first), Ok(proto)) = (
        ctx.load::<[u8; 4]>(16),
        ctx.load::<u8>(0),
        ctx.load::<u8>(9),
    ) else {
        return drop_packet(ctx, [0; 16], 0, Reason::Internal);
    };
    if is_endpoint4(ip) {
        if is_daemon(ctx) {
            return ALLOW;
        }
        return drop_packet(ctx, mapped(ip), u32::from(proto), Reason::Egress);
    }
    // Nearly every packet: no options.
    if first & 0x0f == WORDS_WITHOUT_OPTIONS || !is_source_routed(ctx, first) || is_daemon(ctx) {
        return ALLOW;
    }
    drop_packet(ctx, mapped(ip), u32::from(proto), Reason::SourceRoute)
}

#[inline(always)]
fn egress6(ctx: &SkBuffContext) -> i32 {
    let (Ok(ip), Ok(next)) = (ctx.load::<[u8; 16]>(24), ctx.load::<u8>(6)) else {
        return drop_packet(ctx, [0; 16], 0, Reason::Internal);
    };
    let reason = if is_endpoint6(ip) {
        Reason::Egress
    } else if next == NEXT_ROUTING {
        Reason::SourceRoute
    } else {
        return ALLOW;
    };
    if is_daemon(ctx) {
        return ALLOW;
    }
    drop_packet(ctx, ip, u32::from(next), reason)
}

/// Whether an IPv4 header with options holds a loose or strict source route (RFC 791). What cannot be read counts as one.
#[inline(always)]
fn is_source_routed(ctx: &SkBuffContext, first: u8) -> bool {
    let end = usize::from(first & 0x0f) * 4;
    let mut at = HEADER_BYTES;
    let mut seen = 0;
    while seen < OPTIONS_MAX {
        if at >= end {
            return false;
        }
        match ctx.load::<u8>(at) {
            Ok(OPTION_END) => return false,
            Ok(OPTION_NOTHING) => at += 1,
            Ok(OPTION_LOOSE_ROUTE | OPTION_STRICT_ROUTE) | Err(_) => return true,
            Ok(_) => match ctx.load::<u8>(at + 1) {
                Ok(bytes) if bytes >= 2 => at += usize::from(bytes),
                Ok(_) | Err(_) => return true,
            },
        }
        seen += 1;
    }
    at < end
}

/// Whether the packet's socket belongs to the daemon's cgroup. A packet without a socket belongs to nobody.
#[inline(always)]
fn is_daemon(ctx: &SkBuffContext) -> bool {
    let daemon = config().daemon_cgroup;
    // SAFETY: the helper reads the packet's socket.
    daemon != 0 && unsafe { bpf_skb_cgroup_id(ctx.skb.skb) } == daemon
}

#[inline(always)]
fn drop_packet(ctx: &SkBuffContext, destination: [u8; 16], protocol: u32, reason: Reason) -> i32 {
    count(|counters| counters.egress_dropped += 1);
    // SAFETY: helpers that read the clock and the packet's socket.
    let (boot_ns, cgroup) = unsafe { (bpf_ktime_get_boot_ns(), bpf_skb_cgroup_id(ctx.skb.skb)) };
    report(Event {
        boot_ns,
        cgroup,
        agent_cgroup: 0,
        start_boot_ns: 0,
        destination,
        port: 0,
        hook: hook::EGRESS,
        reason: reason as u32,
        protocol,
        pid: 0,
        uid: 0,
        comm: [0; 16],
    });
    DROP
}
