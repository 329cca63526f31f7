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
    // IP options can route a packet elsewhere than its destination field says; no client of BigQuery sends any, so toward an endpoint
    // they change nothing, and a source route through a harmless hop is left to the network, which has refused them for decades.
    let _ = first;
    if !is_endpoint4(ip) || is_daemon(ctx) {
        return ALLOW;
    }
    drop_packet(ctx, mapped(ip), u32::from(proto), Reason::Egress)
}

#[inline(always)]
fn egress6(ctx: &SkBuffContext) -> i32 {
    let (Ok(ip), Ok(next)) = (ctx.load::<[u8; 16]>(24), ctx.load::<u8>(6)) else {
        return drop_packet(ctx, [0; 16], 0, Reason::Internal);
    };
    if is_daemon(ctx) || (next != NEXT_ROUTING && !is_endpoint6(ip)) {
        return ALLOW;
    }
    drop_packet(ctx, ip, u32::from(next), Reason::Egress)
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
