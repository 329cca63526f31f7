//! The two socket options that put frames on a wire past every other program: AF_PACKET's bypass of the queues, where [`super::uplink`]
//! stands, and the sending ring of AF_XDP. Nobody may set them. Both take CAP_NET_RAW, which agents must not have anyhow.

use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use enforcer_ebpf::Reason;
use enforcer_ebpf::record::hook;

use super::task::Task;

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const SOL_PACKET: i32 = 263;
const PACKET_QDISC_BYPASS: i32 = 20;
const SOL_XDP: i32 = 283;
const XDP_TX_RING: i32 = 3;

#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    // SAFETY: the kernel gives a valid context for the whole call.
    let (level, option) = unsafe { ((*ctx.sockopt).level, (*ctx.sockopt).optname) };
    let bypasses = (level == SOL_PACKET && option == PACKET_QDISC_BYPASS)
        || (level == SOL_XDP && option == XDP_TX_RING);
    if !bypasses {
        // "Use the caller's own value": a program sees no more than a page of it, and without this longer ones would fail.
        // SAFETY: the field is writable in this hook.
        unsafe { (*ctx.sockopt).optlen = 0 };
        return ALLOW;
    }
    let task = Task::current();
    task.refused(task.workload(), hook::SETSOCKOPT, Reason::Bypass);
    DENY
}
