//! The net under the net, on every interface that leads out: frames that no socket of IP's has seen (AF_PACKET) and packets that this host
//! forwards for others (containers, guests) leave toward an endpoint only if they are the daemon's or, where only agents are enforced on, of a
//! socket that is no agent's. What is forwarded has no socket here, so it stays in either case: it could be an agent's.
//!
//! The frame's own bytes are read, not what its sender told the kernel about them.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use aya_ebpf::programs::sk_buff::SkBuff;
use enforcer_ebpf::Reason;
use enforcer_ebpf::record::hook;

use super::packet::{ETH_P_IP, ETH_P_IPV6, IpPacket, dropped, is_of_agent, may_leave, read};

/// The next program of the chain decides.
const NEXT: i32 = -1;
const SHOT: i32 = 2;
/// Where an Ethernet header names what is in the frame.
const ETHERTYPE_AT: usize = 12;
const ETHERTYPE_BYTES: usize = 2;
/// A VLAN tag: what kind it is, and then its number. The next one, or what is in the frame, is named behind it.
const TAG_BYTES: usize = 4;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
/// What some switches take for one.
const ETH_P_QINQ: u16 = 0x9100;
const ETH_P_ARP: u16 = 0x0806;
/// How many VLAN tags are looked behind; more is refused.
const TAGS_MAX: u32 = 2;

/// For interfaces with an Ethernet header.
#[classifier]
pub fn uplink_frame(ctx: TcContext) -> i32 {
    let mut at = ETHERTYPE_AT;
    let mut ethertype = ETH_P_8021Q;
    let mut seen = 0;
    while seen <= TAGS_MAX && is_tag(ethertype) {
        let Ok(read) = ctx.skb.load::<u16>(at) else {
            // Too short to hold a packet.
            return NEXT;
        };
        ethertype = u16::from_be(read);
        at += TAG_BYTES;
        seen += 1;
    }
    if is_tag(ethertype) {
        return refuse(&ctx.skb, &IpPacket::unreadable(), Reason::Encapsulated);
    }
    judge(&ctx.skb, ethertype, at - TAG_BYTES + ETHERTYPE_BYTES)
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETH_P_8021Q | ETH_P_8021AD | ETH_P_QINQ)
}

/// For interfaces without a link-layer header, such as tunnels: the packet begins at once.
#[classifier]
pub fn uplink_packet(ctx: TcContext) -> i32 {
    match ctx.skb.load::<u8>(0).map(|first| first >> 4) {
        Ok(4) => judge(&ctx.skb, ETH_P_IP, 0),
        Ok(6) => judge(&ctx.skb, ETH_P_IPV6, 0),
        Ok(_) | Err(_) => unread(&ctx.skb, 0),
    }
}

#[inline(always)]
fn judge(skb: &SkBuff, ethertype: u16, at: usize) -> i32 {
    let Some(packet) = read(skb, ethertype, at) else {
        return unread(skb, ethertype);
    };
    match packet.guarded {
        Some(reason) if !may_leave(skb, reason) => refuse(skb, &packet, reason),
        Some(_) | None => NEXT,
    }
}

/// What carries no packet that is read here: it may hold one all the same (MPLS, PPPoE, LLC), and an agent has no business making such.
#[inline(always)]
fn unread(skb: &SkBuff, ethertype: u16) -> i32 {
    if ethertype != ETH_P_ARP && is_of_agent(skb) {
        return refuse(skb, &IpPacket::unreadable(), Reason::Encapsulated);
    }
    NEXT
}

#[inline(always)]
fn refuse(skb: &SkBuff, packet: &IpPacket, reason: Reason) -> i32 {
    dropped(skb, hook::UPLINK, packet, reason);
    SHOT
}
