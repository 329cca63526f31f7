//! Where a packet goes, read from its own header: shared by the programs that see packets. What cannot be read is refused.

use core::ffi::c_void;
use core::ptr::{from_ref, null_mut, read_volatile, write_volatile};

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{
    bpf_get_prandom_u32, bpf_ktime_get_boot_ns, bpf_sk_storage_get, bpf_skb_ancestor_cgroup_id,
    bpf_skb_cgroup_id,
};
use aya_ebpf::programs::sk_buff::SkBuff;
use enforcer_ebpf::address::mapped;
use enforcer_ebpf::map::{CGROUP_LEVELS, CLASS_METADATA, ENFORCE_AGENTS, MADE_OUTSIDE};
use enforcer_ebpf::verdict::may_say;
use enforcer_ebpf::{Endpoint, Event, Origin, Reason};

use super::maps::{
    AGENTS, ASKED, CREATORS, DEADLINES, HEARTBEAT, LED, config, count, endpoint4, endpoint6, report,
};

pub const ETH_P_IP: u16 = 0x0800;
pub const ETH_P_IPV6: u16 = 0x86dd;
/// IPv4's header length, in words, when nothing follows the fixed part.
const WORDS_WITHOUT_OPTIONS: u8 = 5;
/// The fixed part of the IPv4 header, bytes.
const HEADER4_BYTES: usize = 20;
const IPPROTO_TCP: u32 = 6;
const TCP_SYN: u8 = 0x02;
/// The IPv6 header, bytes.
const HEADER6_BYTES: usize = 40;
/// The most options there is room for: forty of one byte.
const OPTIONS_MAX: u32 = 40;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_LOOSE_ROUTE: u8 = 131;
const OPTION_STRICT_ROUTE: u8 = 137;
/// Extension headers that may stand before a routing header (RFC 8200, 4302, 6275, 7401, 5533). Behind what is encrypted nothing is read, here
/// or by who takes it for a header.
const NEXT_HOP_BY_HOP: u8 = 0;
const NEXT_FRAGMENT: u8 = 44;
const NEXT_AUTHENTICATION: u8 = 51;
const NEXT_DESTINATION: u8 = 60;
const NEXT_MOBILITY: u8 = 135;
const NEXT_HOST_IDENTITY: u8 = 139;
const NEXT_SHIM6: u8 = 140;
/// The IPv6 routing header: its last address, not the one in the header, is where the packet goes.
const NEXT_ROUTING: u8 = 43;
/// How many extension headers are looked behind; more is refused.
const EXTENSIONS_MAX: u32 = 4;

/// The header of an IP packet.
pub struct IpPacket {
    /// IPv4 in its mapped spelling.
    pub destination: [u8; 16],
    /// Of what follows: IPv4's protocol, or IPv6's first next header.
    pub protocol: u32,
    /// Where that begins.
    pub payload_at: usize,
    at: usize,
    is_v4: bool,
    /// What is guarded about it; nothing about nearly every one.
    pub guarded: Option<Reason>,
}

impl IpPacket {
    /// One of which nothing could be read.
    pub const fn unreadable() -> Self {
        Self {
            destination: [0; 16],
            protocol: 0,
            payload_at: 0,
            at: 0,
            is_v4: true,
            guarded: Some(Reason::Internal),
        }
    }

    /// Where it says that it comes from; IPv4 in its mapped spelling.
    #[inline(always)]
    pub fn source(&self, skb: &SkBuff) -> Option<[u8; 16]> {
        if self.is_v4 {
            skb.load::<[u8; 4]>(self.at + 12).ok().map(mapped)
        } else {
            skb.load::<[u8; 16]>(self.at + 8).ok()
        }
    }
}

/// Reads the IP packet that begins at `at`, as far as it is of concern here; what cannot be read is guarded. `None` for what is not IP: there
/// is no endpoint it could reach.
#[inline(always)]
pub fn read(skb: &SkBuff, ethertype: u16, at: usize) -> Option<IpPacket> {
    let at = unknown(at);
    match ethertype {
        ETH_P_IP => Some(read4(skb, at)),
        ETH_P_IPV6 => Some(read6(skb, at)),
        _ => None,
    }
}

/// The same number, of which the kernel's verifier knows nothing: it would look at everything that follows once for each that it can be, and
/// give up.
#[inline(always)]
fn unknown(number: usize) -> usize {
    // SAFETY: the helper reads a counter.
    let other = unsafe { bpf_get_prandom_u32() } as usize;
    let mut mixed = 0;
    // SAFETY: a local variable. Volatile, or the compiler would see through it.
    unsafe {
        write_volatile(&raw mut mixed, number ^ other);
        read_volatile(&raw const mixed) ^ other
    }
}

#[inline(always)]
fn read4(skb: &SkBuff, at: usize) -> IpPacket {
    let (Ok(ip), Ok(first), Ok(protocol)) = (
        skb.load::<[u8; 4]>(at + 16),
        skb.load::<u8>(at),
        skb.load::<u8>(at + 9),
    ) else {
        return IpPacket::unreadable();
    };
    let guarded = match endpoint4(ip) {
        Some(endpoint) => Some(reason_of(endpoint)),
        None if first & 0x0f != WORDS_WITHOUT_OPTIONS && is_source_routed(skb, at, first) => {
            Some(Reason::SourceRoute)
        }
        None => None,
    };
    IpPacket {
        destination: mapped(ip),
        protocol: u32::from(protocol),
        payload_at: at + usize::from(first & 0x0f) * 4,
        at,
        is_v4: true,
        guarded,
    }
}

#[inline(always)]
fn read6(skb: &SkBuff, at: usize) -> IpPacket {
    let (Ok(ip), Ok(next)) = (skb.load::<[u8; 16]>(at + 24), skb.load::<u8>(at + 6)) else {
        return IpPacket::unreadable();
    };
    let guarded = match endpoint6(ip) {
        Some(endpoint) => Some(reason_of(endpoint)),
        None if is_routed(skb, at + HEADER6_BYTES, next) => Some(Reason::SourceRoute),
        None => None,
    };
    IpPacket {
        destination: ip,
        protocol: u32::from(next),
        payload_at: at + HEADER6_BYTES,
        at,
        is_v4: false,
        guarded,
    }
}

#[inline(always)]
const fn reason_of(endpoint: Endpoint) -> Reason {
    if endpoint.class == CLASS_METADATA {
        Reason::Metadata
    } else {
        Reason::Egress
    }
}

/// Whether a routing header stands among the first extension headers. What cannot be read, or has too many of them, counts as one.
#[inline(always)]
fn is_routed(skb: &SkBuff, at: usize, next: u8) -> bool {
    let (mut at, mut next) = (at, next);
    let mut seen = 0;
    while seen < EXTENSIONS_MAX {
        // A header is so many units of so many bytes long, beside the first eight.
        let unit = match next {
            NEXT_ROUTING => return true,
            NEXT_HOP_BY_HOP | NEXT_DESTINATION | NEXT_MOBILITY | NEXT_HOST_IDENTITY
            | NEXT_SHIM6 => 8,
            NEXT_AUTHENTICATION => 4,
            NEXT_FRAGMENT => 0,
            _ => return false,
        };
        let (Ok(after), Ok(units)) = (skb.load::<u8>(at), skb.load::<u8>(at + 1)) else {
            return true;
        };
        next = after;
        at += 8 + usize::from(units) * unit;
        seen += 1;
    }
    true
}

/// Whether an IPv4 header with options holds a loose or strict source route (RFC 791). What cannot be read counts as one.
#[inline(always)]
fn is_source_routed(skb: &SkBuff, start: usize, first: u8) -> bool {
    let end = start + usize::from(first & 0x0f) * 4;
    let mut at = start + HEADER4_BYTES;
    let mut seen = 0;
    while seen < OPTIONS_MAX {
        if at >= end {
            return false;
        }
        match skb.load::<u8>(at) {
            Ok(OPTION_END) => return false,
            Ok(OPTION_NOTHING) => at += 1,
            Ok(OPTION_LOOSE_ROUTE | OPTION_STRICT_ROUTE) | Err(_) => return true,
            Ok(_) => match skb.load::<u8>(at + 1) {
                Ok(bytes) if bytes >= 2 => at += usize::from(bytes),
                Ok(_) | Err(_) => return true,
            },
        }
        seen += 1;
    }
    at < end
}

/// What a map holds of the packet's socket; null for nothing.
#[inline(always)]
fn held(skb: &SkBuff, map: *mut c_void) -> *mut c_void {
    // SAFETY: the socket of a valid packet; the map is one of those that go with sockets.
    unsafe {
        let socket = (*skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return null_mut();
        }
        bpf_sk_storage_get(map, socket.cast(), null_mut(), 0)
    }
}

/// The number that a map holds of the packet's socket.
///
/// # Safety
/// The map's values must be of eight bytes.
#[inline(always)]
unsafe fn number(skb: &SkBuff, map: *mut c_void) -> Option<u64> {
    let held = held(skb, map);
    if held.is_null() {
        None
    } else {
        // SAFETY: the map's values are of this size; it is copied at once.
        Some(unsafe { *held.cast::<u64>() })
    }
}

/// The cgroup that the packet's socket was marked with when it was made; 0 for none.
#[inline(always)]
fn creator(skb: &SkBuff) -> u64 {
    // SAFETY: the map's values are of this size.
    unsafe { number(skb, (&raw const CREATORS).cast_mut().cast()) }.unwrap_or(0)
}

/// Whether a packet of the daemon's toward an endpoint says something, and the daemon is silent or the window is over that it belongs to. What
/// says nothing may go: it acknowledges an answer, or ends the connection. It is counted, and in no other record: the daemon has it in its own.
///
/// A function of its own: the kernel looks at every way through what is inlined, at each place.
#[inline(never)]
fn is_late(skb: &SkBuff) -> bool {
    if creator(skb) != config().daemon_cgroup {
        return false;
    }
    // SAFETY: the map's values are of this size.
    let deadline = unsafe { number(skb, (&raw const DEADLINES).cast_mut().cast()) };
    let beat = HEARTBEAT.get(0).copied().unwrap_or(0);
    // SAFETY: the helper reads the clock.
    !may_say(beat, deadline, unsafe { bpf_ktime_get_boot_ns() })
}

/// The same, of a packet that has been read; the metadata server's is none of a window's.
#[inline(always)]
pub fn is_too_late(skb: &SkBuff, packet: &IpPacket) -> bool {
    let is_late = !matches!(packet.guarded, Some(Reason::Metadata))
        && is_late(skb)
        && !is_farewell(skb, packet);
    if is_late {
        count(|counters| counters.egress_dropped += 1);
    }
    is_late
}

/// The origin that was left with the packet's socket when it was led to the daemon, where it is.
#[inline(always)]
pub fn held_with_socket<'a>(
    skb: &'a SkBuff,
    map: &'static SkStorage<Origin>,
) -> Option<&'a Origin> {
    let held = held(skb, from_ref(map).cast_mut().cast());
    if held.is_null() {
        None
    } else {
        // SAFETY: the map's values are of this size, and go with the socket, which the packet holds.
        Some(unsafe { &*held.cast::<Origin>() })
    }
}

/// A copy of it.
#[inline(always)]
pub fn left_with_socket(skb: &SkBuff, map: &'static SkStorage<Origin>) -> Option<Origin> {
    held_with_socket(skb, map).copied()
}

/// Whether the packet's socket was ever led to the daemon, for a connection or with a question.
#[inline(always)]
pub fn was_led(skb: &SkBuff) -> bool {
    !held(skb, (&raw const LED).cast_mut().cast()).is_null()
        || !held(skb, (&raw const ASKED).cast_mut().cast()).is_null()
}

/// Whether a guarded packet's socket is the daemon's own or, where only agents are enforced on, to no agent. A packet without a
/// socket belongs to nobody who could be told, and stays. To the metadata server whatever is no agent's may go. What an agent's uid has made
/// outside its workload is an agent's: of a ping no other program knows where it goes.
#[inline(always)]
pub fn may_leave(skb: &SkBuff, reason: Reason) -> bool {
    let config = config();
    // SAFETY: the helper reads the packet's socket.
    let cgroup = unsafe { bpf_skb_cgroup_id(skb.skb) };
    let creator = creator(skb);
    if reason as u32 == Reason::Metadata as u32 {
        return creator != MADE_OUTSIDE && agent_of(skb, cgroup) == 0;
    }
    if cgroup == 0 {
        return false;
    }
    (cgroup == config.daemon_cgroup && creator == config.daemon_cgroup)
        || (config.enforce == ENFORCE_AGENTS
            && creator != MADE_OUTSIDE
            && agent_of(skb, cgroup) == 0)
}

/// The agent's cgroup that the packet's socket belongs to, itself or one above; 0 for none. Levels count from the root.
///
/// A function of its own: the kernel looks at every way through what is inlined, at each place.
#[inline(never)]
fn agent_of(skb: &SkBuff, cgroup: u64) -> u64 {
    if AGENTS.get_ptr(&cgroup).is_some() {
        return cgroup;
    }
    let mut level = 1;
    while level <= CGROUP_LEVELS {
        // SAFETY: the helper reads the packet's socket.
        let ancestor = unsafe { bpf_skb_ancestor_cgroup_id(skb.skb, level) };
        if ancestor == 0 {
            return 0;
        }
        if AGENTS.get_ptr(&ancestor).is_some() {
            return ancestor;
        }
        level += 1;
    }
    0
}

/// The cgroup of the agent whose the packet's socket is; 0 for none.
#[inline(always)]
pub fn workload_of(skb: &SkBuff) -> u64 {
    // SAFETY: the helper reads the packet's socket.
    match unsafe { bpf_skb_cgroup_id(skb.skb) } {
        0 => 0,
        cgroup => agent_of(skb, cgroup),
    }
}

/// Whether the packet's socket is an agent's.
#[inline(always)]
pub fn is_of_agent(skb: &SkBuff) -> bool {
    workload_of(skb) != 0
}

/// Whether a packet says nothing and asks for nothing: TCP, with neither data nor a SYN. The kernel still sends such for connections that it
/// has let go (late acknowledgements and resets), and they are nobody's attempt.
#[inline(always)]
fn is_farewell(skb: &SkBuff, packet: &IpPacket) -> bool {
    if packet.protocol != IPPROTO_TCP {
        return false;
    }
    let length_at = if packet.is_v4 {
        packet.at + 2
    } else {
        packet.at + 4
    };
    let (Ok(length), Ok(words), Ok(flags)) = (
        skb.load::<u16>(length_at),
        skb.load::<u8>(packet.payload_at + 12),
        skb.load::<u8>(packet.payload_at + 13),
    ) else {
        return false;
    };
    let headers = if packet.is_v4 {
        packet.payload_at - packet.at
    } else {
        0
    };
    let headers = headers + usize::from(words >> 4) * 4;
    flags & TCP_SYN == 0 && usize::from(u16::from_be(length)) == headers
}

/// Counts and reports a packet that is dropped; a farewell that is no agent's is only counted. The kernel sends its resets from a socket of its
/// own, which is in the hierarchy's root.
#[inline(always)]
pub fn dropped(skb: &SkBuff, hook: u32, packet: &IpPacket, reason: Reason) {
    count(|counters| counters.egress_dropped += 1);
    // SAFETY: helpers that read the clock and the packet's socket.
    let (boot_ns, cgroup) = unsafe { (bpf_ktime_get_boot_ns(), bpf_skb_cgroup_id(skb.skb)) };
    let agent_cgroup = workload_of(skb);
    if agent_cgroup == 0 && is_farewell(skb, packet) {
        return;
    }
    report(Event {
        boot_ns,
        cgroup,
        agent_cgroup,
        start_boot_ns: 0,
        destination: packet.destination,
        port: 0,
        hook,
        reason: reason as u32,
        protocol: packet.protocol,
        pid: 0,
        uid: 0,
        comm: [0; 16],
    });
}
