//! Every map, with its bound. Windows and agents are preallocated hashes: a full one refuses the daemon, it never forgets by itself.

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use enforcer_ebpf::address::embedded_v4;
use enforcer_ebpf::map::{
    AGENTS_MAX, ASKERS_MAX, ENDPOINTS_MAX, EVENTS_BYTES, ORIGINS_MAX, WINDOWS_MAX,
};
use enforcer_ebpf::{Agent, Config, Counters, Endpoint, Event, Origin, PortKey, Window};

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
/// Origins of redirected connections by socket cookie.
#[map]
pub static COOKIES: LruHashMap<u64, Origin> = LruHashMap::with_max_entries(ORIGINS_MAX, 0);
/// Origins by the client's end of the loopback connection, for the daemon.
#[map]
pub static ORIGINS: LruHashMap<PortKey, Origin> = LruHashMap::with_max_entries(ORIGINS_MAX, 0);
/// Who asks for names in datagrams, by the client's end, for the daemon. The oldest is forgotten first, and its question not answered.
#[map]
pub static ASKERS: LruHashMap<PortKey, Origin> = LruHashMap::with_max_entries(ASKERS_MAX, 0);
/// Whom a socket last asked for names before it was led to the daemon. Goes with the socket.
#[btf_map]
pub static ASKED: SkStorage<Origin> = SkStorage::new();
/// The cgroup of the agent in whose workload a socket was made, or the daemon's where the daemon made it. Goes with the socket; others have no
/// entry.
#[btf_map]
pub static CREATORS: SkStorage<u64> = SkStorage::new();
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
