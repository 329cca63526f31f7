//! The net under the hooks: a packet toward an endpoint leaves only from the daemon's own cgroup or, where only agents are enforced on, from
//! outside every agent's. The daemon's own says nothing there without a sign of life of the daemon's, and past its socket's deadline: what it was
//! given to send does not outlive the window, whatever the daemon does. No other window logic, no state. Connections and questions to the daemon are tied to whoever makes them on the way.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use enforcer_ebpf::Reason;
use enforcer_ebpf::record::hook;

use super::packet::{dropped, is_too_late, may_leave, read};
use super::{astray, begun, names};

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
    let refused = match packet.guarded {
        Some(reason) if !may_leave(&ctx.skb, reason) => Some(reason),
        Some(_) if is_too_late(&ctx.skb, &packet) => return DROP,
        Some(_) => None,
        None if astray::is(&ctx.skb, &packet) => Some(Reason::Astray),
        None => match begun::tie(&ctx.skb, &packet) {
            Some(reason) => Some(reason),
            None => names::tie(&ctx.skb, &packet),
        },
    };
    match refused {
        Some(reason) => {
            dropped(&ctx.skb, hook::EGRESS, &packet, reason);
            DROP
        }
        None => ALLOW,
    }
}
