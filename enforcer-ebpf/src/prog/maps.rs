//! Every map, with its bound. Windows and agents are preallocated hashes: a full one refuses the daemon, it never forgets by itself.

use core::ptr::null;

use aya_ebpf::bindings::bpf_map_type::BPF_MAP_TYPE_SK_STORAGE;
use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use enforcer_ebpf::address::embedded_v4;
use enforcer_ebpf::map::{
    AGENTS_MAX, ASKERS_MAX, ENDPOINTS_MAX, EVENTS_BYTES, NAMESPACES_MAX, OPENINGS_MAX, ORIGINS_MAX,
    SUBUIDS_MAX, UIDS_MAX, WINDOWS_MAX,
};
use enforcer_ebpf::{
    Agent, Config, Counters, Endpoint, Event, FlowKey, Opening, OpeningKey, Origin, PortKey, Window,
};

/// What goes with a socket, and with those that are accepted from it. The library's own has no place for the flag.
#[repr(C)]
pub struct Inherited<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the fields are for the loader, which reads their types; nobody reads through them.
unsafe impl<T> Sync for Inherited<T> {}

impl<T> Inherited<T> {
    const fn new() -> Self {
        Self {
            r#type: null(),
            key: null(),
            value: null(),
            max_entries: null(),
            map_flags: null(),
        }
    }
}

/// Open windows by the agent's cgroup.
#[map]
pub static WINDOWS: HashMap<u64, Window> = HashMap::with_max_entries(WINDOWS_MAX, 0);
/// Agents by their cgroup.
#[map]
pub static AGENTS: HashMap<u64, Agent> = HashMap::with_max_entries(AGENTS_MAX, 0);
/// Protected IPv4 prefixes.
#[map]
pub static ENDPOINTS4: LpmTrie<[u8; 4], Endpoint> = LpmTrie::with_max_entries(ENDPOINTS_MAX, 1);
/// Protected IPv6 prefixes. The flag is `BPF_F_NO_PREALLOC`, which a trie must have.
#[map]
pub static ENDPOINTS6: LpmTrie<[u8; 16], Endpoint> = LpmTrie::with_max_entries(ENDPOINTS_MAX, 1);
/// The daemon, at place 0.
#[map]
pub static CONFIG: Array<Config> = Array::with_max_entries(1, 0);
/// The daemon's last sign of life, at place 0.
#[map]
pub static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);
/// Whose connection a socket was last led to the daemon for. Goes with the socket, and cannot be pushed out.
#[btf_map]
pub static LED: SkStorage<Origin> = SkStorage::new();
/// Origins of connections that are being made, from their first packets on.
#[map]
pub static ORIGINS: LruHashMap<FlowKey, Origin> = LruHashMap::with_max_entries(ORIGINS_MAX, 0);
/// The origin of a connection, with the daemon's end of it, for the daemon. Goes with the socket.
#[btf_map]
pub static ACCEPTED: SkStorage<Origin> = SkStorage::new();
/// What connections' sockets said first, for the daemon. The oldest is forgotten first, and its connection refused.
#[map]
pub static OPENINGS: LruHashMap<OpeningKey, Opening> =
    LruHashMap::with_max_entries(OPENINGS_MAX, 0);
/// Under which key that is kept: the daemon's secret, another at each start.
#[map]
pub static OPENING_KEY: Array<[u64; 2]> = Array::with_max_entries(1, 0);
/// The uids that agents are configured to run as.
#[map]
pub static UIDS: HashMap<u32, u32> = HashMap::with_max_entries(UIDS_MAX, 0);
/// The uids that are subordinate to those, as prefixes of their bits. The flag is `BPF_F_NO_PREALLOC`, which a trie must have.
#[map]
pub static SUBUIDS: LpmTrie<[u8; 4], u32> = LpmTrie::with_max_entries(SUBUIDS_MAX, 1);
/// The network namespaces besides its own that the daemon listens in, by their cookies.
#[map]
pub static NAMESPACES: HashMap<u64, u32> = HashMap::with_max_entries(NAMESPACES_MAX, 0);
/// Who asks for names in datagrams, by the client's end, for the daemon. The oldest is forgotten first, and its question not answered.
#[map]
pub static ASKERS: LruHashMap<PortKey, Origin> = LruHashMap::with_max_entries(ASKERS_MAX, 0);
/// Whom a socket last asked for names before it was led to the daemon. Goes with the socket.
#[btf_map]
pub static ASKED: SkStorage<Origin> = SkStorage::new();
/// The cgroup of the agent in whose workload a socket was made, or the daemon's where the daemon made it, or
/// [`enforcer_ebpf::map::MADE_OUTSIDE`]. Goes with the socket; others have no entry.
#[btf_map]
pub static CREATORS: Inherited<u64> = Inherited::new();
/// Until when a socket of the daemon's may say anything to an endpoint: its window's end, on the boot-time clock, nanoseconds. The daemon writes it
/// before the socket says anything; those of no window have none. Goes with the socket.
#[btf_map]
pub static DEADLINES: SkStorage<u64> = SkStorage::new();
/// What was refused.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
/// What was counted.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

/// The daemon as configured; before it is, nobody is the daemon.
#[inline(always)]
pub fn config() -> Config {
    CONFIG.get(0).copied().unwrap_or(Config {
        daemon_cgroup: 0,
        daemon_start_ticks: 0,
        daemon_netns: 0,
        proxy_port: 0,
        enforce: 0,
        names_port: 0,
        metadata_port: 0,
        daemon_pid: 0,
        reserved: 0,
    })
}

/// Whether a port, in host order, is one that the daemon listens on.
#[inline(always)]
pub const fn is_own_port(config: &Config, port: u16) -> bool {
    let port = port as u32;
    port != 0
        && (port == config.proxy_port || port == config.names_port || port == config.metadata_port)
}

/// Whether the daemon listens in this network namespace.
#[inline(always)]
pub fn is_served(config: &Config, netns: u64) -> bool {
    if config.daemon_netns == 0 {
        return false;
    }
    // SAFETY: whether an entry is there is all that is looked at.
    netns == config.daemon_netns || unsafe { NAMESPACES.get(&netns) }.is_some()
}

/// What answers at an IPv4 address, where that is protected.
#[inline(always)]
pub fn endpoint4(ip: [u8; 4]) -> Option<Endpoint> {
    ENDPOINTS4.get(&Key::new(32, ip)).copied()
}

/// What answers at an IPv6 address, or at the IPv4 address it spells, where that is protected.
#[inline(always)]
pub fn endpoint6(ip: [u8; 16]) -> Option<Endpoint> {
    if let Some(v4) = embedded_v4(ip) {
        if let Some(endpoint) = endpoint4(v4) {
            return Some(endpoint);
        }
    }
    ENDPOINTS6.get(&Key::new(128, ip)).copied()
}

/// Counts on this CPU.
#[inline(always)]
pub fn count(add: impl FnOnce(&mut Counters)) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: the entry is this CPU's own, and a program is not interrupted by itself on one CPU.
        add(unsafe { &mut *counters });
    }
}

/// Leaves an event for the daemon; a full ring is counted.
#[inline(always)]
pub fn report(event: Event) {
    if EVENTS.output::<Event>(&event, 0).is_err() {
        count(|counters| counters.events_lost += 1);
    }
}
