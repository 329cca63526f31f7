//! The net under the hooks: a packet toward an endpoint leaves only from the daemon's own cgroup or, where only agents are enforced on, from
//! outside every agent's. No window logic, no state.

use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use enforcer_ebpf::record::hook;

use super::packet::{dropped, guarded, may_leave};

const ALLOW: i32 = 1;
const DROP: i32 = 0;

#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the kernel gives a valid context for the whole call.
    let ethertype = u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16);
    // The packet begins at its IP header here.
    match guarded(&ctx.skb, ethertype, 0) {
        Some(what) if !may_leave(&ctx.skb) => {
            dropped(&ctx.skb, hook::EGRESS, &what);
            DROP
        }
        Some(_) | None => ALLOW,
    }
}
