//! `connect()` and datagrams: allow, refuse, or lead to the daemon with the origin left behind.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile};

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_ktime_get_boot_ns, bpf_set_retval, bpf_sk_storage_get,
    bpf_skc_to_mptcp_sock,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use enforcer_ebpf::record::hook;
use enforcer_ebpf::verdict::is_for_names;
use enforcer_ebpf::{Event, Facts, Reason, Verdict, decide};

use super::maps::{
    ASKED, CREATORS, HEARTBEAT, LED, WINDOWS, config, count, is_own_port, is_served, report,
};
use super::sockaddr::{Destination, LOOPBACK4, LOOPBACK6_LAST};
use super::task::{Task, offset, raw};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_MPTCP: u32 = 262;
const ECONNREFUSED: i32 = 111;

/// Whether the kernel has multipath TCP; the loader asks the running kernel's BTF.
#[unsafe(no_mangle)]
static HAS_MPTCP: u32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    judge(&ctx, hook::CONNECT4, Destination::v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    judge(&ctx, hook::CONNECT6, Destination::v6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    judge(&ctx, hook::SENDMSG4, Destination::v4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    judge(&ctx, hook::SENDMSG6, Destination::v6(&ctx))
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, hook: u32, to: Destination) -> i32 {
    let config = config();
    let is_own_port = to.is_own && is_own_port(&config, to.port);
    // Everyone's path: neither an endpoint nor the daemon nor a question for names.
    if to.endpoint.is_none() && !is_own_port && !is_for_names(to.port) {
        return ALLOW;
    }
    let task = Task::current();
    let is_daemon = task.is_daemon(&config);
    let agent = task.agent();
    let agent_cgroup = match agent {
        Some((cgroup, _)) => cgroup,
        None => 0,
    };
    // SAFETY: helpers that read the clock and the socket of a valid context; the window is copied at once.
    let (now_boot_ns, netns, window) = unsafe {
        let window = match agent {
            Some((cgroup, _)) => WINDOWS.get(&cgroup).copied(),
            None => None,
        };
        (
            bpf_ktime_get_boot_ns(),
            bpf_get_netns_cookie(raw(ctx)),
            window,
        )
    };
    // SAFETY: reading the context. Each by itself: kernels before 6.12 do not read two fields at once right.
    let (socket_type, protocol) = unsafe {
        (
            read_volatile(&raw const (*ctx.sock_addr).type_),
            read_volatile(&raw const (*ctx.sock_addr).protocol),
        )
    };
    let is_tcp =
        socket_type == SOCK_STREAM && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
    let facts = Facts {
        now_boot_ns,
        heartbeat_boot_ns: HEARTBEAT.get(0).copied().unwrap_or(0),
        endpoint: to.endpoint,
        enforce: config.enforce,
        is_own_port,
        is_daemon,
        is_tcp_connect: is_tcp && (hook == hook::CONNECT4 || hook == hook::CONNECT6),
        is_udp: socket_type == SOCK_DGRAM && protocol == IPPROTO_UDP,
        port: to.port,
        is_served_netns: is_served(&config, netns),
        is_multipath_apart: is_tcp
            && netns != config.daemon_netns
            && is_multipath(ctx.sock_addr, protocol),
        uid: task.uid,
        is_agents_uid: task.is_of_agents_uid(),
        agent: match agent {
            Some((_, agent)) => Some(agent),
            None => None,
        },
        agent_cgroup,
        creator_cgroup: creator(ctx.sock_addr),
        has_metadata: config.metadata_port != 0,
        window,
    };
    let (port, grant, reason) = match decide(&facts) {
        Verdict::Allow => return ALLOW,
        Verdict::Redirect { grant } => (config.proxy_port, grant, Reason::Internal),
        Verdict::ToNames => (config.names_port, 0, Reason::Internal),
        Verdict::ToMetadata => (config.metadata_port, 0, Reason::Internal),
        Verdict::Deny(reason) => (0, 0, reason),
    };
    // One place that refuses: the programs have half a kilobyte of stack. A port that is not set leads nowhere.
    if port != 0 && lead(ctx, &facts, &to, &task, netns, grant) {
        rewrite(ctx, hook, port);
        count(|counters| counters.redirected += 1);
        return ALLOW;
    }
    deny(ctx, hook, &to, &task, agent_cgroup, reason, now_boot_ns)
}

/// Leaves the origin with the socket, for the programs that see its packets leave and answers come; without it nothing is led anywhere. A
/// socket that asks several servers in turn is told every answer as the last one's.
///
/// It is written in its place, field by field: the programs have half a kilobyte of stack.
#[inline(always)]
fn lead(
    ctx: &SockAddrContext,
    facts: &Facts,
    to: &Destination,
    task: &Task,
    netns: u64,
    grant: u64,
) -> bool {
    let map = if facts.is_tcp_connect { &LED } else { &ASKED };
    // SAFETY: the kernel gives a valid socket; two threads that write at once both write an origin of the same workload.
    unsafe {
        let held = map.get_or_insert_ptr_mut(ctx, None);
        if held.is_null() {
            return false;
        }
        (*held).boot_ns = facts.now_boot_ns;
        (*held).agent_cgroup = facts.agent_cgroup;
        (*held).netns = netns;
        (*held).start_boot_ns = task.start_boot_ns();
        (*held).grant = grant;
        (*held).destination = to.ip;
        (*held).port = u32::from(to.port);
        (*held).pid = task.pid;
        (*held).uid = task.uid;
        (*held).tied = 0;
        (*held).comm = task.comm();
    }
    true
}

/// The cgroup of the agent in whose workload the socket was made; 0 for none. Of multipath TCP the kernel makes each connection's socket itself,
/// at `connect()`: it is whose the socket is that the process has.
///
/// A function of its own: the programs have half a kilobyte of stack.
#[inline(never)]
fn creator(addr: *mut bpf_sock_addr) -> u64 {
    // SAFETY: the kernel gives a valid context with a socket, and maps of this value's size; an entry is written once, before anybody has the
    // socket. Where the kernel has no multipath TCP, it is not asked: the verifier knows the global.
    unsafe {
        let socket: *mut c_void = (*addr).__bindgen_anon_1.sk.cast();
        let held = bpf_sk_storage_get(map(), socket, null_mut(), 0);
        if !held.is_null() {
            return *held.cast::<u64>();
        }
        if offset(&HAS_MPTCP) == 0 {
            return 0;
        }
        let whole = bpf_skc_to_mptcp_sock(socket);
        if whole.is_null() {
            return 0;
        }
        let held = bpf_sk_storage_get(map(), whole.cast(), null_mut(), 0);
        if held.is_null() {
            0
        } else {
            *held.cast::<u64>()
        }
    }
}

/// Whether the socket is one of multipath TCP's, or the kernel's own for one.
///
/// A function of its own: the programs have half a kilobyte of stack.
#[inline(never)]
fn is_multipath(addr: *mut bpf_sock_addr, protocol: u32) -> bool {
    // SAFETY: the kernel gives a valid context with a socket. Where it has no multipath TCP, it is not asked: the verifier knows the global.
    unsafe {
        let socket: *mut c_void = (*addr).__bindgen_anon_1.sk.cast();
        protocol == IPPROTO_MPTCP
            || (offset(&HAS_MPTCP) != 0 && !bpf_skc_to_mptcp_sock(socket).is_null())
    }
}

#[inline(always)]
const fn map() -> *mut c_void {
    (&raw const CREATORS).cast_mut().cast()
}

/// Rewrites the destination to a port of the daemon's.
#[inline(always)]
fn rewrite(ctx: &SockAddrContext, hook: u32, port: u32) {
    let port = u32::from((port as u16).to_be());
    // SAFETY: the fields are writable in this hook; each is written as a whole word.
    unsafe {
        let addr = ctx.sock_addr;
        if hook == hook::CONNECT4 || hook == hook::SENDMSG4 {
            (*addr).user_ip4 = LOOPBACK4;
        } else {
            (*addr).user_ip6[0] = 0;
            (*addr).user_ip6[1] = 0;
            (*addr).user_ip6[2] = 0;
            (*addr).user_ip6[3] = LOOPBACK6_LAST;
        }
        (*addr).user_port = port;
    }
}

#[inline(always)]
fn deny(
    ctx: &SockAddrContext,
    hook: u32,
    to: &Destination,
    task: &Task,
    agent_cgroup: u64,
    reason: Reason,
    boot_ns: u64,
) -> i32 {
    count(|counters| counters.denied += 1);
    // The daemon comes as soon as it knows: who tries again, as clients do that are refused so, is led to it.
    if matches!(reason, Reason::OtherNetns) && agent_cgroup != 0 {
        // SAFETY: the helper sets what the system call gives.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
    }
    // SAFETY: reading the context.
    let protocol = unsafe { (*ctx.sock_addr).protocol };
    report(Event {
        boot_ns,
        cgroup: task.cgroup,
        agent_cgroup,
        start_boot_ns: task.start_boot_ns(),
        destination: to.ip,
        port: u32::from(to.port),
        hook,
        reason: reason as u32,
        protocol,
        pid: task.pid,
        uid: task.uid,
        comm: task.comm(),
    });
    DENY
}
