//! `connect()` and datagrams: allow, refuse, or lead to the daemon with the origin left behind.

use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use enforcer_ebpf::map::{ENCRYPTED_NAMES_PORT, NAMES_PORT};
use enforcer_ebpf::record::hook;
use enforcer_ebpf::{Event, Facts, Origin, Reason, Verdict, decide};

use super::maps::{
    ASKED, COOKIES, CREATORS, HEARTBEAT, WINDOWS, config, count, is_own_port, report,
};
use super::sockaddr::{Destination, LOOPBACK4, LOOPBACK6_LAST};
use super::task::{Task, raw};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_MPTCP: u32 = 262;

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
    let is_names = to.port == NAMES_PORT || to.port == ENCRYPTED_NAMES_PORT;
    // Everyone's path: neither an endpoint nor the daemon nor a question for names.
    if to.endpoint.is_none() && !is_own_port && !is_names {
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
    // SAFETY: reading the context.
    let (socket_type, protocol) = unsafe { ((*ctx.sock_addr).type_, (*ctx.sock_addr).protocol) };
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
        is_daemon_netns: config.daemon_netns != 0 && netns == config.daemon_netns,
        uid: task.uid,
        agent: match agent {
            Some((_, agent)) => Some(agent),
            None => None,
        },
        agent_cgroup,
        creator_cgroup: creator(ctx),
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

/// Leaves the origin. Without it nothing is led anywhere.
#[inline(always)]
fn lead(
    ctx: &SockAddrContext,
    facts: &Facts,
    to: &Destination,
    task: &Task,
    netns: u64,
    grant: u64,
) -> bool {
    let origin = Origin {
        boot_ns: facts.now_boot_ns,
        agent_cgroup: facts.agent_cgroup,
        netns,
        start_boot_ns: task.start_boot_ns(),
        grant,
        destination: to.ip,
        port: u32::from(to.port),
        pid: task.pid,
        uid: task.uid,
        reserved: 0,
        comm: task.comm(),
    };
    if facts.is_tcp_connect {
        leave(ctx, &origin)
    } else {
        leave_with_socket(ctx, &origin)
    }
}

/// The cgroup of the agent in whose workload the socket was made; 0 for none.
#[inline(always)]
fn creator(ctx: &SockAddrContext) -> u64 {
    // SAFETY: the kernel gives a valid socket, and an entry is written once, before anybody has the socket.
    unsafe {
        let creator = CREATORS.get_ptr_mut(ctx);
        if creator.is_null() { 0 } else { *creator }
    }
}

/// Leaves the origin of a connection, for the program that sees its first packet.
#[inline(always)]
fn leave(ctx: &SockAddrContext, origin: &Origin) -> bool {
    // SAFETY: the helper reads the socket of a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(raw(ctx)) };
    cookie != 0 && COOKIES.insert(&cookie, origin, 0).is_ok()
}

/// Leaves the origin of datagrams with their socket, for the programs that see them leave and the answers come. A socket that asks several
/// servers in turn is told every answer as the last one's.
#[inline(always)]
fn leave_with_socket(ctx: &SockAddrContext, origin: &Origin) -> bool {
    // SAFETY: the kernel gives a valid socket; two threads that write at once both write an origin of the same workload.
    unsafe {
        let held = ASKED.get_or_insert_ptr_mut(ctx, None);
        if held.is_null() {
            return false;
        }
        *held = *origin;
    }
    true
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
