//! The net under the net, on every interface that leads out: frames that no socket of IP's has seen (AF_PACKET) and packets that this host
//! forwards for others (containers, guests) leave toward an endpoint only if they are the daemon's or, where only agents are enforced on, of a
//! socket that is no agent's. What is forwarded has no socket here, so it stays in either case: it could be an agent's.
//!
//! The frame's own bytes are read, not what its sender told the kernel about them.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use aya_ebpf::programs::sk_buff::SkBuff;
use enforcer_ebpf::record::hook;

use super::packet::{ETH_P_IP, ETH_P_IPV6, dropped, may_leave, read};

/// The next program of the chain decides.
const NEXT: i32 = -1;
const SHOT: i32 = 2;
/// Where an Ethernet header names what is in the frame.
const ETHERTYPE_AT: usize = 12;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;
/// How many VLAN tags are looked behind; more is refused.
const TAGS_MAX: u32 = 2;

/// For interfaces with an Ethernet header.
#[classifier]
pub fn uplink_frame(ctx: TcContext) -> i32 {
    let mut at = ETHERTYPE_AT;
    let mut tags = 0;
    while tags <= TAGS_MAX {
        match ctx.skb.load::<u16>(at).map(u16::from_be) {
            Ok(ETH_P_8021Q | ETH_P_8021AD) => at += 4,
            Ok(ethertype) => return judge(&ctx.skb, ethertype, at + 2),
            // Too short to hold a packet.
            Err(_) => return NEXT,
        }
        tags += 1;
    }
    SHOT
}

/// For interfaces without a link-layer header, such as tunnels: the packet begins at once.
#[classifier]
pub fn uplink_packet(ctx: TcContext) -> i32 {
    match ctx.skb.load::<u8>(0).map(|first| first >> 4) {
        Ok(4) => judge(&ctx.skb, ETH_P_IP, 0),
        Ok(6) => judge(&ctx.skb, ETH_P_IPV6, 0),
        Ok(_) | Err(_) => NEXT,
    }
}

#[inline(always)]
fn judge(skb: &SkBuff, ethertype: u16, at: usize) -> i32 {
    let Some(packet) = read(skb, ethertype, at) else {
        return NEXT;
    };
    match packet.guarded {
        Some(reason) if !may_leave(skb, reason) => {
            dropped(skb, hook::UPLINK, &packet, reason);
            SHOT
        }
        Some(_) | None => NEXT,
    }
}
