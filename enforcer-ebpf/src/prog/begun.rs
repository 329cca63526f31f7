//! The client's end of a connection to the daemon: each first packet, sent again or not, says whose it is before it is delivered, and of what follows
//! the first bytes are kept, so that the daemon can tell whether what came is what this socket said.
//!
//! The origin is the sending socket's own, left with it at `connect()`. Nothing that is kept elsewhere is believed here: a port, a sequence
//! number or an entry of the one before may be had again by somebody else.

use aya_ebpf::bindings::{BPF_EXIST, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::sk_buff::SkBuff;
use enforcer_ebpf::address::{LOOPBACK_V4, LOOPBACK_V6};
use enforcer_ebpf::opening::{OPENING_BYTES_MAX, UNKNOWN};
use enforcer_ebpf::record::{is_fresh, tied_now};
use enforcer_ebpf::{FlowKey, Opening, OpeningKey, Origin, Reason};

use super::maps::{LED, OPENING_KEY, OPENINGS, ORIGINS, config, is_own_port};
use super::packet::{IpPacket, held_with_socket, left_with_socket, workload_of};
use super::stream::{Stream, is_connecting, sends_next};

const IPPROTO_TCP: u32 = 6;
/// IPv6's headers behind which TCP would stand unseen.
const IPPROTO_HOPOPTS: u32 = 0;
const IPPROTO_DSTOPTS: u32 = 60;
const IPPROTO_ROUTING: u32 = 43;
const IPPROTO_FRAGMENT: u32 = 44;
const IPPROTO_MOBILITY: u32 = 135;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const WORD_BYTES: usize = 8;

/// Ties a first packet for a port of the daemon's to its socket's origin, in place of whatever stood there. One whose socket was not led here is
/// refused; so is one that meets another's under the same numbers, since whose connection will stand cannot be told.
#[inline(always)]
pub fn tie(skb: &SkBuff, packet: &IpPacket) -> Option<Reason> {
    if packet.destination != LOOPBACK_V4 && packet.destination != LOOPBACK_V6 {
        return None;
    }
    let (mut protocol, mut at) = (packet.protocol, packet.payload_at);
    // The kernel has put nothing together or apart yet.
    if packet.destination == LOOPBACK_V6 && is_never_the_kernels(protocol) {
        return Some(Reason::Internal);
    }
    // One such header is behind the kernel's own segments of more than 64 KiB; TCP that hides behind more is nobody's.
    if packet.destination == LOOPBACK_V6 && is_extension(protocol) {
        let (Ok(next), Ok(words)) = (skb.load::<u8>(at), skb.load::<u8>(at + 1)) else {
            return Some(Reason::Internal);
        };
        protocol = u32::from(next);
        at += (usize::from(words) + 1) * 8;
        // What is no segment has no such header of the kernel's: a question behind one would not get its mark.
        if protocol != IPPROTO_TCP {
            return Some(Reason::Internal);
        }
    }
    if protocol != IPPROTO_TCP {
        return None;
    }
    let Ok(to) = skb.load::<u16>(at + 2) else {
        return Some(Reason::Internal);
    };
    let to = u16::from_be(to);
    if !is_own_port(&config(), to) {
        return None;
    }
    let (Ok(from), Ok(first_sequence), Ok(flags), Some(client)) = (
        skb.load::<u16>(at),
        skb.load::<u32>(at + 4),
        skb.load::<u8>(at + 13),
        packet.source(skb),
    ) else {
        return Some(Reason::Internal);
    };
    let first_sequence = u32::from_be(first_sequence);
    if flags & SYN == 0 {
        return said(skb, at, u16::from_be(from), first_sequence);
    }
    if flags & ACK != 0 {
        return None;
    }
    let Some(mut origin) = left_with_socket(skb, &LED) else {
        return Some(Reason::ProxyDirect);
    };
    // Of what goes with it nothing could be taken up: its socket has it in no queue yet. The kernel sends it again without.
    match data_at(skb, at) {
        Some(data) if data >= skb.len() as usize => {}
        Some(_) => return Some(Reason::DataWithFirst),
        None => return Some(Reason::Internal),
    }
    // What is said later is known by where it stands in what the socket says, and so by the number that the socket began with.
    match Stream::of(skb) {
        Some(stream) if stream.acknowledged == first_sequence && is_connecting(skb) => {}
        Some(_) => return Some(Reason::NotFirst),
        None => return Some(Reason::Internal),
    }
    // The socket is still in the cgroup in which it was made, also where it is one of the kernel's making, of which `connect()` knew no maker.
    if workload_of(skb) != origin.agent_cgroup {
        return Some(Reason::Ambiguous);
    }
    let key = FlowKey {
        // Of the socket when it was led here, and it stays there: kernels before 6.15 do not say it of a packet.
        netns: origin.netns,
        client,
        client_port: u32::from(u16::from_be(from)),
        server_port: u32::from(to),
        first_sequence,
        reserved: 0,
    };
    // SAFETY: the helper reads the clock.
    let now = tied_now(unsafe { bpf_ktime_get_boot_ns() });
    origin.tied = now;
    if !is_begun(&key, &origin) {
        return Some(Reason::Internal);
    }
    // In one step where nothing stands there: of two that leave at the same instant on two CPUs one meets the other.
    if ORIGINS
        .insert(&key, &origin, u64::from(BPF_NOEXIST))
        .is_ok()
    {
        return None;
    }
    // SAFETY: what is found is looked at at once.
    let met = unsafe { ORIGINS.get(&key) };
    if met.is_some_and(|met| is_fresh(met, now) && !met.is_same_owner(&origin)) {
        let _ = ORIGINS.remove(&key);
        return Some(Reason::Internal);
    }
    match ORIGINS.insert(&key, &origin, 0) {
        Ok(()) => None,
        Err(_) => Some(Reason::Internal),
    }
}

/// Keeps that nothing was said yet.
#[inline(always)]
fn is_begun(flow: &FlowKey, origin: &Origin) -> bool {
    let config = config();
    // Questions for names are asked in the clear: what of them is the socket's matters where others may make packets.
    let is_question = flow.server_port == config.names_port && flow.netns != config.daemon_netns;
    if flow.server_port != config.proxy_port && !is_question {
        return true;
    }
    let key = OpeningKey::of(origin, flow.client_port as u16);
    let Some(secret) = OPENING_KEY.get(0) else {
        return false;
    };
    let opening = Opening::new(*secret, flow.first_sequence.wrapping_add(1));
    OPENINGS.insert(&key, &opening, 0).is_ok()
}

/// Where a segment's data begins, if it has any.
#[inline(always)]
fn data_at(skb: &SkBuff, at: usize) -> Option<usize> {
    let words = skb.load::<u8>(at + 12).ok()?;
    Some(at + usize::from(words >> 4) * 4)
}

/// Takes up what a connection's own socket says first. What was never led here says nothing at the daemon's ports, whoever it is that speaks so.
#[inline(always)]
fn said(skb: &SkBuff, at: usize, from: u16, sequence: u32) -> Option<Reason> {
    let Some(head) = data_at(skb, at) else {
        return Some(Reason::Internal);
    };
    let end = skb.len() as usize;
    if head >= end {
        return None;
    }
    let Some(origin) = held_with_socket(skb, &LED) else {
        return Some(Reason::ProxyDirect);
    };
    let key = OpeningKey::of(origin, from);
    // SAFETY: copied at once. Where the entry has been given to another connection by then, it is written under this one's key all the same.
    let Some(mut opening) = unsafe { OPENINGS.get(&key) }.copied() else {
        return None;
    };
    let Some(stream) = Stream::of(skb) else {
        return Some(Reason::Internal);
    };
    // A packet's own numbers are what it says, and the socket's are what is so: where it stands while it sends what it has not sent before, and where
    // that begins in the packet. What is sent again is not taken up once more.
    if sequence != stream.next || !opening.goes_on_at(stream.next, stream.acknowledged_bytes) {
        return None;
    }
    let is_whole = sends_next(skb).is_some_and(|bytes| head + bytes == end);
    if !is_whole || (take_up(skb, &mut opening, head) != end && !opening.is_full()) {
        opening.bytes = UNKNOWN;
    }
    // What is forgotten by now stays so.
    let _ = OPENINGS.insert(&key, &opening, u64::from(BPF_EXIST));
    None
}

/// Takes up what stands there and there is room for, and gives where that ends. How much it is is known by where nothing can be read any more: the verifier counts a loop
/// by its bound alone.
#[inline(always)]
fn take_up(skb: &SkBuff, opening: &mut Opening, mut at: usize) -> usize {
    let mut seen = 0;
    while seen < WORD_BYTES && !opening.is_at_word() {
        let Ok(byte) = skb.load::<u8>(at) else {
            return at;
        };
        opening.byte(byte);
        at += 1;
        seen += 1;
    }
    seen = 0;
    while seen < OPENING_BYTES_MAX as usize / WORD_BYTES && !opening.is_full() {
        let Ok(word) = skb.load::<u64>(at) else {
            break;
        };
        opening.word(u64::from_le(word));
        at += WORD_BYTES;
        seen += 1;
    }
    seen = 0;
    while seen < WORD_BYTES && !opening.is_full() {
        let Ok(byte) = skb.load::<u8>(at) else {
            break;
        };
        opening.byte(byte);
        at += 1;
        seen += 1;
    }
    at
}

#[inline(always)]
const fn is_extension(protocol: u32) -> bool {
    protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_DSTOPTS
}

/// Whether it is a header behind which another would stand unseen, and which the kernel itself puts before nothing until later.
#[inline(always)]
const fn is_never_the_kernels(protocol: u32) -> bool {
    protocol == IPPROTO_ROUTING || protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_MOBILITY
}
