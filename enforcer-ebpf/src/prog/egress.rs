//! The net under the hooks: a packet toward an endpoint leaves only from the daemon's own cgroup or, where only agents are enforced on, from
//! outside every agent's. No window logic, no state. Questions for names are tied to their askers on the way.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use enforcer_ebpf::record::hook;

use super::names;
use super::packet::{dropped, may_leave, read};

const ALLOW: i32 = 1;
const DROP: i32 = 0;

#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the kernel gives a valid context for the whole call.
    let ethertype = u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16);
    // The packet begins at its IP header here.
    let Some(packet) = read(&ctx.skb, ethertype, 0) else {
        return ALLOW;
    };
    match packet.guarded {
        Some(reason) if !may_leave(&ctx.skb, reason) => {
            dropped(&ctx.skb, hook::EGRESS, &packet, reason);
            DROP
        }
        Some(_) => ALLOW,
        None => {
            names::tie(&ctx.skb, &packet);
            ALLOW
        }
    }
}
