//! The values in the maps that the daemon writes. Keys are cgroup ids, addresses or array places.

/// How old the daemon's last sign of life may be, nanoseconds. Past it nothing is redirected: a proxy that is stopped answers nobody.
pub const HEARTBEAT_NS_MAX: u64 = 2_000_000_000;
/// The only TCP port of an endpoint that is led to the proxy.
pub const ENDPOINT_PORT: u16 = 443;
/// The port of name servers; where an agent asks there, the daemon answers.
pub const NAMES_PORT: u16 = 53;
/// The port of name servers that are asked over TLS or QUIC (RFC 7858, RFC 9250).
pub const ENCRYPTED_NAMES_PORT: u16 = 853;
/// The port of the metadata server that the daemon answers on in its stead.
pub const METADATA_PORT: u16 = 80;
/// What the start of a process is counted in outside the kernel's own memory (`USER_HZ`), nanoseconds.
pub const TICK_NS: u64 = 10_000_000;
/// How deep below the hierarchy's root an agent's cgroup is looked for; how deep the task itself is does not matter. The daemon refuses an
/// agent whose cgroup lies deeper: its tasks could pass for nobody's.
pub const CGROUP_LEVELS: i32 = 16;
/// The most agents.
pub const AGENTS_MAX: u32 = 16_384;
/// The most open windows; one for each agent.
pub const WINDOWS_MAX: u32 = AGENTS_MAX;
/// The most uids of agents: the one it must run as, and the one whose everything its workload is.
pub const UIDS_MAX: u32 = 2 * AGENTS_MAX;
/// The most prefixes of uids that are subordinate to agents'. A range of 65536 of them takes one to thirty-one; ranges that touch are one.
pub const SUBUIDS_MAX: u32 = 4 * AGENTS_MAX;
/// The most protected prefixes of each family.
pub const ENDPOINTS_MAX: u32 = 16_384;
/// The most redirected connections that are being made at once; the oldest is forgotten first, and the daemon refuses what has no origin.
pub const ORIGINS_MAX: u32 = 16_384;
/// The most connections whose first bytes are kept until the daemon has read them; the oldest are forgotten first, and the daemon refuses what came.
pub const OPENINGS_MAX: u32 = 4 * ORIGINS_MAX;
/// The most questions for names in datagrams, not yet read by the daemon, whose asker is remembered.
pub const ASKERS_MAX: u32 = 4096;
/// The most network namespaces besides its own that the daemon listens in.
pub const NAMESPACES_MAX: u32 = 1024;
/// The ring of events, bytes.
pub const EVENTS_BYTES: u32 = 1 << 20;

/// What is left with a socket that was made outside every workload by who runs as an agent's uid, in place of a workload's cgroup. No cgroup has
/// this id.
pub const MADE_OUTSIDE: u64 = u64::MAX;

/// `Agent::uid`: any.
pub const UID_ANY: u32 = u32::MAX;
/// `Agent::closed`: without a window the proxy answers and explains.
pub const CLOSED_EXPLAIN: u32 = 1;
/// `Agent::closed`: without a window `connect()` fails.
pub const CLOSED_DROP: u32 = 2;
/// `Agent::closed`: without a window `connect()` fails where only BigQuery answers. On a shared address the agent may want a name that it is
/// allowed, so the proxy decides there.
pub const CLOSED_DROP_DEDICATED: u32 = 3;
/// `Agent::closed`: the cgroup was an agent's, or may be one, and is not known to be it: nobody in it has a window, or is come for.
pub const CLOSED_IN_DOUBT: u32 = 4;
/// `Endpoint::class`: only BigQuery answers there.
pub const CLASS_DEDICATED: u32 = 1;
/// `Endpoint::class`: other Google names answer there too.
pub const CLASS_SHARED: u32 = 2;
/// `Endpoint::class`: the host's credentials are handed out there. Closed to agents, and to nobody else.
pub const CLASS_METADATA: u32 = 3;
/// `Agent::names`: names that are not BigQuery's are looked up for it.
pub const NAMES_FORWARD: u32 = 1;
/// `Agent::names`: it is told no names but those it is allowed, and asks nobody else over [`ENCRYPTED_NAMES_PORT`] either.
pub const NAMES_STRICT: u32 = 2;
/// `Config::enforce`: on every process of the host. Zero, so that a daemon that has written nothing yet enforces the most.
pub const ENFORCE_HOST: u32 = 0;
/// `Config::enforce`: on processes in agents' workloads only.
pub const ENFORCE_AGENTS: u32 = 1;

/// An open window, keyed by the agent's cgroup id. The kernel itself compares it with the boot-time clock.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The grant's number.
    pub grant: u64,
    /// Opens, `CLOCK_BOOTTIME`, nanoseconds.
    pub opens_boot_ns: u64,
    /// Closes, `CLOCK_BOOTTIME`, nanoseconds; the instant itself is outside.
    pub closes_boot_ns: u64,
}

/// A configured agent, keyed by its cgroup's id.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agent {
    /// The uid it must run as, or [`UID_ANY`].
    pub uid: u32,
    /// [`CLOSED_EXPLAIN`], [`CLOSED_DROP`], [`CLOSED_DROP_DEDICATED`] or [`CLOSED_IN_DOUBT`].
    pub closed: u32,
    /// [`NAMES_FORWARD`]; anything else counts as [`NAMES_STRICT`].
    pub names: u32,
    /// What marks its questions for names: the daemon's secret, another at each start. One without a mark asks for none.
    pub mark: u32,
}

/// A protected prefix.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// [`CLASS_SHARED`] or [`CLASS_METADATA`]; anything else counts as [`CLASS_DEDICATED`], where nobody but agents is led anywhere.
    pub class: u32,
}

/// What the programs need to know of the daemon. One entry, at place 0. All zero until the daemon has written it: then nobody is the
/// daemon, and nothing is redirected.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The id of the cgroup that the daemon alone is in.
    pub daemon_cgroup: u64,
    /// When the daemon's process started, in ticks of [`TICK_NS`]: what else is in its cgroup is not the daemon.
    pub daemon_start_ticks: u64,
    /// The cookie of the network namespace that the proxy listens in.
    pub daemon_netns: u64,
    /// The proxy's port, host order.
    pub proxy_port: u32,
    /// [`ENFORCE_AGENTS`]; anything else counts as [`ENFORCE_HOST`].
    pub enforce: u32,
    /// The port on which agents' questions for names are answered, host order.
    pub names_port: u32,
    /// The port on which the metadata server is stood in for, host order; 0 where it is not.
    pub metadata_port: u32,
    /// The daemon's process, in the initial pid namespace.
    pub daemon_pid: u32,
    /// Zero.
    pub reserved: u32,
}

/// What was counted on one CPU. Place 0 of a per-CPU array.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections led to the proxy.
    pub redirected: u64,
    /// Socket operations refused.
    pub denied: u64,
    /// Packets dropped at egress.
    pub egress_dropped: u64,
    /// Events that found the ring full.
    pub events_lost: u64,
}

const _: () = assert!(size_of::<Window>() == 24);
const _: () = assert!(size_of::<Agent>() == 16);
const _: () = assert!(size_of::<Endpoint>() == 4);
const _: () = assert!(size_of::<Config>() == 48);
const _: () = assert!(size_of::<Counters>() == 32);

#[cfg(feature = "user")]
mod pod {
    use super::{Agent, Config, Counters, Endpoint, Window};
    use crate::opening::{Opening, OpeningKey};
    use crate::record::{FlowKey, Origin, PortKey};

    macro_rules! pod {
        ($($name:ty),+) => {$(
            // SAFETY: repr(C), integers and byte arrays only, no padding (the sizes are asserted), valid for every bit pattern.
            unsafe impl aya::Pod for $name {}
        )+};
    }
    pod!(
        Agent, Config, Counters, Endpoint, Window, Origin, PortKey, FlowKey, Opening, OpeningKey
    );
}
