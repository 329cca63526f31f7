//! A socket's first moments: in whose workload it was made is left with it, and the daemon's ports are nobody else's to bind.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_ktime_get_boot_ns, bpf_sk_storage_get,
};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_ebpf::confine::PROTOCOL_SMC;
use enforcer_ebpf::map::MADE_OUTSIDE;
use enforcer_ebpf::record::hook;
use enforcer_ebpf::{Event, Reason};

use super::maps::{CREATORS, config, count, is_own_port, is_served, report};
use super::sockaddr::Place;
use super::task::{Task, raw};

const ALLOW: i32 = 1;
const DENY: i32 = 0;

/// No agent makes one of SMC's, which a family of IP's gives since Linux 6.11. A socket made in an agent's workload, by who runs as an agent's uid outside it, or by the daemon, says so for as long as it lives. Where that
/// cannot be left with it, it is not made: it would pass for nobody's.
#[cgroup_sock(sock_create)]
pub fn created(ctx: SockContext) -> i32 {
    let (task, config) = (Task::current(), config());
    let mut creator = match task.agent() {
        Some((cgroup, _)) => cgroup,
        None if task.is_daemon(&config) => config.daemon_cgroup,
        None if task.is_of_agents_uid() => MADE_OUTSIDE,
        None => return ALLOW,
    };
    // SAFETY: reading the context.
    let protocol = unsafe { (*ctx.sock).protocol };
    if protocol == PROTOCOL_SMC as u32 && creator != config.daemon_cgroup {
        let agent = if creator == MADE_OUTSIDE { 0 } else { creator };
        task.refused(agent, hook::SOCKET_CREATE, Reason::SocketFamily);
        return DENY;
    }
    // SAFETY: the kernel gives a valid socket that nobody else has yet, and a map of this value's size.
    let held = unsafe {
        bpf_sk_storage_get(
            (&raw const CREATORS).cast_mut().cast(),
            raw(&ctx),
            (&raw mut creator).cast(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
    };
    if held.is_null() { DENY } else { ALLOW }
}

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    let (place, _) = Place::v4(&ctx);
    asked(&ctx, hook::BIND4, &place)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    asked(&ctx, hook::BIND6, &Place::v6(&ctx))
}

/// Who asks for no port in particular is given one by the kernel, from a range that the root of a namespace sets: `bind4` has not seen it. The
/// kernel takes it back from whom it is refused to.
#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    given(&ctx, hook::BIND4, &Place::bound_v4(&ctx))
}

#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    given(&ctx, hook::BIND6, &Place::bound_v6(&ctx))
}

#[inline(always)]
fn asked(ctx: &SockAddrContext, hook: u32, place: &Place) -> i32 {
    // SAFETY: reading the context.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    bound(raw(ctx), protocol, hook, place)
}

#[inline(always)]
fn given(ctx: &SockContext, hook: u32, place: &Place) -> i32 {
    // SAFETY: reading the context.
    let protocol = unsafe { (*ctx.sock).protocol };
    bound(raw(ctx), protocol, hook, place)
}

/// Who listened on a port of the daemon's while it is away would be asked in its stead, and would keep it from coming back.
#[inline(always)]
fn bound(ctx: *mut c_void, protocol: u32, hook: u32, place: &Place) -> i32 {
    let config = config();
    if !place.is_own || !is_own_port(&config, place.port) {
        return ALLOW;
    }
    let task = Task::current();
    // SAFETY: helpers that read the socket of a valid context, and the clock.
    let (netns, boot_ns) = unsafe { (bpf_get_netns_cookie(ctx), bpf_ktime_get_boot_ns()) };
    let agent = task.agent();
    // Where it does not listen yet, whoever is to be served there may not be first.
    if task.is_daemon(&config) || (agent.is_none() && !is_served(&config, netns)) {
        return ALLOW;
    }
    count(|counters| counters.denied += 1);
    report(Event {
        boot_ns,
        cgroup: task.cgroup,
        agent_cgroup: match agent {
            Some((cgroup, _)) => cgroup,
            None => 0,
        },
        start_boot_ns: task.start_boot_ns(),
        destination: place.ip,
        port: u32::from(place.port),
        hook,
        reason: Reason::OwnPort as u32,
        protocol,
        pid: task.pid,
        uid: task.uid,
        comm: task.comm(),
    });
    DENY
}
