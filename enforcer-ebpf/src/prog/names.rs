//! Questions for names in datagrams: who asks is tied to the client's end as the question leaves, where that can be believed; and an answer is shown as
//! if it came from the server that was asked.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_ebpf::programs::sk_buff::SkBuff;
use enforcer_ebpf::address::{LOOPBACK_V4, LOOPBACK_V6};
use enforcer_ebpf::{Config, Origin, PortKey, Reason};

use super::maps::{AGENTS, ASKED, ASKERS, config};
use super::packet::{IpPacket, left_with_socket};
use super::sockaddr::Place;

/// What is received is never refused here.
const GO_ON: i32 = 1;
const IPPROTO_UDP: u32 = 17;

/// Marks a question as its agent's in the daemon's own network namespace, and ties the client's end to its asker, before it is delivered. What is for the
/// daemon's port and was not led there, or cannot be read, is refused: the daemon believes the mark.
#[inline(always)]
pub fn tie(skb: &SkBuff, packet: &IpPacket) -> Option<Reason> {
    if packet.protocol != IPPROTO_UDP
        || (packet.destination != LOOPBACK_V4 && packet.destination != LOOPBACK_V6)
    {
        return None;
    }
    let config = config();
    let (Ok(from), Ok(to)) = (
        skb.load::<u16>(packet.payload_at),
        skb.load::<u16>(packet.payload_at + 2),
    ) else {
        return Some(Reason::Internal);
    };
    if config.names_port == 0 || u32::from(u16::from_be(to)) != config.names_port {
        return None;
    }
    let Some(origin) = left_with_socket(skb, &ASKED) else {
        return Some(Reason::ProxyDirect);
    };
    // SAFETY: what is found is copied at once.
    let mark = match unsafe { AGENTS.get(&origin.agent_cgroup) } {
        Some(agent) => agent.mark,
        None => 0,
    };
    let Some(client) = packet.source(skb).filter(|_| mark != 0) else {
        return Some(Reason::Internal);
    };
    // Elsewhere others may read it and put it on what they send, so that it would say nothing there, and tell them that of every other agent.
    let mark = if origin.netns == config.daemon_netns {
        mark
    } else {
        0
    };
    // SAFETY: the field is writable in this hook.
    unsafe { (*skb.skb).mark = mark };
    let key = PortKey {
        // Of the socket when it was led here, and it stays there: kernels before 6.15 do not say it of a packet.
        netns: origin.netns,
        client,
        client_port: u32::from(u16::from_be(from)),
        server_port: config.names_port,
    };
    // Where it is forgotten, the question is the agent's all the same, and no process's.
    let _ = ASKERS.insert(&key, &origin, 0);
    None
}

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    let (from, _) = Place::v4(&ctx);
    if let Some(origin) = answered(&ctx, &config(), &from) {
        // SAFETY: the fields are writable in this hook; each is written as a whole word.
        unsafe {
            (*ctx.sock_addr).user_ip4 = word(&origin.destination, 12);
            (*ctx.sock_addr).user_port = u32::from((origin.port as u16).to_be());
        }
    }
    GO_ON
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    if let Some(origin) = answered(&ctx, &config(), &Place::v6(&ctx)) {
        let to = &origin.destination;
        // SAFETY: as above.
        unsafe {
            (*ctx.sock_addr).user_ip6[0] = word(to, 0);
            (*ctx.sock_addr).user_ip6[1] = word(to, 4);
            (*ctx.sock_addr).user_ip6[2] = word(to, 8);
            (*ctx.sock_addr).user_ip6[3] = word(to, 12);
            (*ctx.sock_addr).user_port = u32::from((origin.port as u16).to_be());
        }
    }
    GO_ON
}

/// Whom the socket asked, where this is the daemon's answer.
#[inline(always)]
fn answered(ctx: &SockAddrContext, config: &Config, from: &Place) -> Option<Origin> {
    if config.names_port == 0 || u32::from(from.port) != config.names_port || !from.is_own {
        return None;
    }
    // SAFETY: the kernel gives a valid socket; what is found is copied at once.
    unsafe {
        let held = ASKED.get_ptr_mut(ctx);
        if held.is_null() { None } else { Some(*held) }
    }
}

/// Four bytes of an address as the context holds them.
#[inline(always)]
fn word(ip: &[u8; 16], at: usize) -> u32 {
    u32::from_ne_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]])
}
