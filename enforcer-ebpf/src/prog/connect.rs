//! `connect()` and datagrams: allow, refuse, or lead to the proxy with the origin left behind.

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_boot_ns,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use enforcer_ebpf::address::{is_own_v4, is_own_v6, mapped};
use enforcer_ebpf::record::hook;
use enforcer_ebpf::{Endpoint, Event, Facts, Origin, Reason, Verdict, decide};

use super::maps::{COOKIES, HEARTBEAT, WINDOWS, config, count, endpoint4, endpoint6, report};
use super::task::{Task, raw};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;
const LOOPBACK4: u32 = u32::from_ne_bytes([127, 0, 0, 1]);
const LOOPBACK6_LAST: u32 = u32::from_ne_bytes([0, 0, 0, 1]);

/// A destination as the hook sees it.
struct Destination {
    ip: [u8; 16],
    port: u16,
    endpoint: Option<Endpoint>,
    is_own: bool,
}

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    judge(&ctx, hook::CONNECT4, v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    judge(&ctx, hook::CONNECT6, v6(&ctx))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    judge(&ctx, hook::SENDMSG4, v4(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    judge(&ctx, hook::SENDMSG6, v6(&ctx))
}

#[inline(always)]
fn v4(ctx: &SockAddrContext) -> Destination {
    // SAFETY: the kernel gives a valid context for the whole call.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    let ip = ip.to_ne_bytes();
    Destination {
        ip: mapped(ip),
        port: port_of(port),
        endpoint: endpoint4(ip),
        is_own: is_own_v4(ip),
    }
}

#[inline(always)]
fn v6(ctx: &SockAddrContext) -> Destination {
    // SAFETY: as above. The words are read one by one, as the verifier wants it.
    let (words, port) = unsafe {
        let addr: *const bpf_sock_addr = ctx.sock_addr;
        let words = [
            (*addr).user_ip6[0],
            (*addr).user_ip6[1],
            (*addr).user_ip6[2],
            (*addr).user_ip6[3],
        ];
        (words, (*addr).user_port)
    };
    let mut ip = [0; 16];
    let mut at = 0;
    while at < 4 {
        let bytes = words[at].to_ne_bytes();
        ip[at * 4] = bytes[0];
        ip[at * 4 + 1] = bytes[1];
        ip[at * 4 + 2] = bytes[2];
        ip[at * 4 + 3] = bytes[3];
        at += 1;
    }
    Destination {
        ip,
        port: port_of(port),
        endpoint: endpoint6(ip),
        is_own: is_own_v6(ip),
    }
}

/// The context holds the port in network order in its low half.
#[inline(always)]
fn port_of(port: u32) -> u16 {
    u16::from_be(port as u16)
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, hook: u32, to: Destination) -> i32 {
    let config = config();
    let is_proxy = to.is_own && config.proxy_port != 0 && u32::from(to.port) == config.proxy_port;
    // Everyone's path: neither an endpoint nor the proxy.
    if to.endpoint.is_none() && !is_proxy {
        return ALLOW;
    }
    let task = Task::current();
    let is_daemon = config.daemon_cgroup != 0 && task.cgroup == config.daemon_cgroup;
    let agent = task.agent();
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
        is_proxy,
        is_daemon,
        is_tcp_connect: is_tcp && (hook == hook::CONNECT4 || hook == hook::CONNECT6),
        port: to.port,
        is_daemon_netns: config.daemon_netns != 0 && netns == config.daemon_netns,
        uid: task.uid,
        agent: match agent {
            Some((_, agent)) => Some(agent),
            None => None,
        },
        window,
    };
    let agent_cgroup = match agent {
        Some((cgroup, _)) => cgroup,
        None => 0,
    };
    let reason = match decide(&facts) {
        Verdict::Allow => return ALLOW,
        Verdict::Deny(reason) => reason,
        Verdict::Redirect { grant } => {
            let origin = Origin {
                boot_ns: now_boot_ns,
                agent_cgroup,
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
            if redirect(ctx, hook, &origin, config.proxy_port) {
                count(|counters| counters.redirected += 1);
                return ALLOW;
            }
            Reason::Internal
        }
    };
    // In one place: inlined twice, the events would take more stack than a kernel of 6.1 gives.
    deny(ctx, hook, &to, &task, agent_cgroup, reason, now_boot_ns)
}

/// Leaves the origin, then rewrites the destination. Without the origin nothing is rewritten.
#[inline(always)]
fn redirect(ctx: &SockAddrContext, hook: u32, origin: &Origin, proxy_port: u32) -> bool {
    // SAFETY: the helper reads the socket of a valid context.
    let cookie = unsafe { bpf_get_socket_cookie(raw(ctx)) };
    if cookie == 0 || COOKIES.insert(&cookie, origin, 0).is_err() {
        return false;
    }
    let port = u32::from((proxy_port as u16).to_be());
    // SAFETY: the fields are writable in this hook; each is written as a whole word.
    unsafe {
        let addr = ctx.sock_addr;
        if hook == hook::CONNECT4 {
            (*addr).user_ip4 = LOOPBACK4;
        } else {
            (*addr).user_ip6[0] = 0;
            (*addr).user_ip6[1] = 0;
            (*addr).user_ip6[2] = 0;
            (*addr).user_ip6[3] = LOOPBACK6_LAST;
        }
        (*addr).user_port = port;
    }
    true
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
