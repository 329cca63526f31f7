//! The decision, pure: the same function in the kernel, in the tests and in the daemon's fake. Nothing allows by default.

use crate::map::{
    Agent, CLASS_METADATA, CLASS_SHARED, CLOSED_DROP_DEDICATED, CLOSED_EXPLAIN, CLOSED_IN_DOUBT,
    ENCRYPTED_NAMES_PORT, ENDPOINT_PORT, ENFORCE_AGENTS, Endpoint, HEARTBEAT_NS_MAX, METADATA_PORT,
    NAMES_FORWARD, NAMES_PORT, UID_ANY, Window,
};

/// What one socket operation is, as the kernel sees it. Everything is as of now, and of the task that acts.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The boot-time clock, nanoseconds.
    pub now_boot_ns: u64,
    /// The daemon's last sign of life on that clock; 0 for none.
    pub heartbeat_boot_ns: u64,
    /// What answers at the destination, where that is protected.
    pub endpoint: Option<Endpoint>,
    /// On whom is enforced: [`ENFORCE_AGENTS`], or else on everybody.
    pub enforce: u32,
    /// Whether the destination is one of the daemon's own ports on this host.
    pub is_own_port: bool,
    /// Whether the task is in the daemon's own cgroup.
    pub is_daemon: bool,
    /// Whether this is a TCP connection being made (and not a datagram).
    pub is_tcp_connect: bool,
    /// Whether this is UDP, be it connected or sent.
    pub is_udp: bool,
    /// Destination port, host order.
    pub port: u16,
    /// Whether the daemon listens in the socket's network namespace.
    pub is_served_netns: bool,
    /// Whether this is multipath TCP in another network namespace than the daemon's: what is said then goes by several connections, whose ways the root of that
    /// namespace chooses, so that what one of them says first need not be what the process says first.
    pub is_multipath_apart: bool,
    /// The task's uid.
    pub uid: u32,
    /// Whether an agent is configured to run as that uid.
    pub is_agents_uid: bool,
    /// The agent whose workload the task is in.
    pub agent: Option<Agent>,
    /// That agent's cgroup; 0 for none.
    pub agent_cgroup: u64,
    /// The cgroup of the agent in whose workload the socket was made; 0 for none.
    pub creator_cgroup: u64,
    /// Whether the metadata server is stood in for.
    pub has_metadata: bool,
    /// That agent's window, open or not.
    pub window: Option<Window>,
}

/// Why something was refused. Numbers are part of the record: only added, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// The task is in no agent's workload.
    NotAnAgent = 1,
    /// The task is in an agent's workload under another uid.
    WrongUid = 2,
    /// No window, and this agent gets no explanation.
    NoWindow = 3,
    /// Not TCP: QUIC and everything else.
    NotTcp = 4,
    /// Not the one port that is served.
    WrongPort = 5,
    /// A network namespace that the daemon does not listen in, or not yet.
    OtherNetns = 6,
    /// The daemon gave no sign of life.
    DaemonSilent = 7,
    /// A connection to the proxy's port that was not led there.
    ProxyDirect = 8,
    /// A packet toward an endpoint that is not the daemon's.
    Egress = 9,
    /// A map operation failed, or the operation could not be read.
    Internal = 10,
    /// A packet that names its own route: its destination field does not say where it ends.
    SourceRoute = 11,
    /// A socket option that puts frames on a wire past the other programs.
    Bypass = 12,
    /// A port of the daemon's that somebody else would listen on.
    OwnPort = 13,
    /// The metadata server, where the host's own credentials are.
    Metadata = 14,
    /// A name server of the agent's own choice, over TLS or QUIC.
    OwnResolver = 15,
    /// A socket made in one agent's workload, or in none, and used in another.
    Ambiguous = 16,
    /// A family of sockets whose way out no program sees.
    SocketFamily = 17,
    /// A look into a process, from outside its workload or out of one.
    Traced = 18,
    /// The system call that loads and reads kernel programs.
    KernelPrograms = 19,
    /// A frame that carries something else than a packet that is read, or carries it too deep.
    Encapsulated = 20,
    /// A task that runs as an agent's uid, and is in no workload.
    OutsideWorkload = 21,
    /// A packet that was led to the daemon, and would leave by an interface.
    Astray = 22,
    /// A packet that looks like a connection's first, with another number than its socket's or after the socket was answered.
    NotFirst = 23,
    /// Multipath TCP in another network namespace than the daemon's.
    Multipath = 24,
    /// Data in a connection's first packet.
    DataWithFirst = 25,
    /// A cgroup that was an agent's workload, or may be one, and is not known to be it.
    InDoubt = 26,
}

impl Reason {
    /// The reason with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::NotAnAgent,
            2 => Self::WrongUid,
            3 => Self::NoWindow,
            4 => Self::NotTcp,
            5 => Self::WrongPort,
            6 => Self::OtherNetns,
            7 => Self::DaemonSilent,
            8 => Self::ProxyDirect,
            9 => Self::Egress,
            10 => Self::Internal,
            11 => Self::SourceRoute,
            12 => Self::Bypass,
            13 => Self::OwnPort,
            14 => Self::Metadata,
            15 => Self::OwnResolver,
            16 => Self::Ambiguous,
            17 => Self::SocketFamily,
            18 => Self::Traced,
            19 => Self::KernelPrograms,
            20 => Self::Encapsulated,
            21 => Self::OutsideWorkload,
            22 => Self::Astray,
            23 => Self::NotFirst,
            24 => Self::Multipath,
            25 => Self::DataWithFirst,
            26 => Self::InDoubt,
            _ => return None,
        })
    }

    /// The reason in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NotAnAgent => "the process is in no agent's workload",
            Self::WrongUid => "the process does not run as the agent's uid",
            Self::NoWindow => "no window is open",
            Self::NotTcp => "only TCP is served, not QUIC or other datagrams",
            Self::WrongPort => "only port 443 is served",
            Self::OtherNetns => "the proxy does not listen in this network namespace",
            Self::DaemonSilent => "the daemon gave no sign of life",
            Self::ProxyDirect => "the daemon's ports cannot be dialled directly",
            Self::Egress => "a packet toward BigQuery that is not the daemon's",
            Self::Internal => "the kernel program could not read or remember it",
            Self::SourceRoute => "a packet that names its own route could end anywhere",
            Self::Bypass => "the socket option would put frames on the wire unseen",
            Self::OwnPort => "the port is the daemon's",
            Self::Metadata => "the metadata server is closed to agents",
            Self::OwnResolver => "this agent asks no name server but the daemon",
            Self::Ambiguous => "the socket was made outside the workload that uses it",
            Self::SocketFamily => {
                "agents make no sockets of this family: no program sees where they lead"
            }
            Self::Traced => {
                "a workload's processes are looked into from inside it only, and look at nothing outside"
            }
            Self::OutsideWorkload => "the process runs as an agent's uid, and outside its workload",
            Self::Astray => "what is led to the daemon does not leave by an interface",
            Self::Multipath => "multipath TCP is served on this host's own network alone",
            Self::DataWithFirst => "data does not go with a connection's first packet",
            Self::InDoubt => "whether the workload is the agent's is in doubt",
            Self::NotFirst => "the packet is not the first of its socket's",
            Self::Encapsulated => "what the frame carries is not read",
            Self::KernelPrograms => "agents have no say over the kernel's programs",
        }
    }
}

/// The answer for one socket operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As if we were not there.
    Allow,
    /// `EPERM`, and an event.
    Deny(Reason),
    /// To the proxy; the grant whose window is open, or 0 where the proxy is to explain, or to find out by name what is wanted.
    Redirect {
        /// The grant's number, or 0.
        grant: u64,
    },
    /// To where the daemon answers questions for names.
    ToNames,
    /// To where the daemon stands in for the metadata server.
    ToMetadata,
}

/// Decides on one socket operation.
#[must_use]
#[inline(always)]
pub const fn decide(facts: &Facts) -> Verdict {
    if facts.is_daemon {
        return Verdict::Allow;
    }
    if facts.is_own_port {
        return Verdict::Deny(Reason::ProxyDirect);
    }
    if let Some(agent) = facts.agent {
        // Whichever server it names, an address of Google's or of this host included.
        if facts.port == NAMES_PORT && (facts.is_tcp_connect || facts.is_udp) {
            // Who asks is left with the socket: one that several agents hold would answer for the wrong one.
            if facts.creator_cgroup != facts.agent_cgroup {
                return Verdict::Deny(Reason::Ambiguous);
            }
            return to_names(facts);
        }
        if facts.port == ENCRYPTED_NAMES_PORT && agent.names != NAMES_FORWARD {
            return Verdict::Deny(Reason::OwnResolver);
        }
    } else if facts.is_agents_uid && (facts.endpoint.is_some() || is_for_names(facts.port)) {
        // What an agent started elsewhere, by cron or a service manager of its user's, is the agent all the same.
        return Verdict::Deny(Reason::OutsideWorkload);
    }
    let Some(endpoint) = facts.endpoint else {
        return Verdict::Allow;
    };
    if endpoint.class == CLASS_METADATA {
        return to_metadata(facts);
    }
    if facts.creator_cgroup != facts.agent_cgroup {
        return Verdict::Deny(Reason::Ambiguous);
    }
    let is_shared = endpoint.class == CLASS_SHARED;
    match facts.agent {
        Some(agent) => of_agent(facts, &agent, is_shared),
        None => of_nobody(facts, is_shared),
    }
}

/// Whether name servers are asked there.
#[must_use]
#[inline(always)]
pub const fn is_for_names(port: u16) -> bool {
    port == NAMES_PORT || port == ENCRYPTED_NAMES_PORT
}

/// A process in an agent's workload that asks for names.
#[inline(always)]
const fn to_names(facts: &Facts) -> Verdict {
    match cannot_lead(facts) {
        Some(reason) => Verdict::Deny(reason),
        None => Verdict::ToNames,
    }
}

/// Toward the metadata server: nobody's concern but agents'.
#[inline(always)]
const fn to_metadata(facts: &Facts) -> Verdict {
    if facts.agent.is_none() && facts.creator_cgroup == 0 {
        return Verdict::Allow;
    }
    let is_led = facts.has_metadata
        && facts.is_tcp_connect
        && facts.port == METADATA_PORT
        && facts.creator_cgroup == facts.agent_cgroup;
    match cannot_lead(facts) {
        None if is_led => Verdict::ToMetadata,
        None => Verdict::Deny(Reason::Metadata),
        Some(reason) => Verdict::Deny(reason),
    }
}

/// A process in an agent's workload, toward an endpoint.
#[inline(always)]
const fn of_agent(facts: &Facts, agent: &Agent, is_shared: bool) -> Verdict {
    if is_in_doubt(facts) {
        return Verdict::Deny(Reason::InDoubt);
    }
    if agent.uid != UID_ANY && agent.uid != facts.uid {
        return Verdict::Deny(Reason::WrongUid);
    }
    if let Some(reason) = not_served(facts) {
        return Verdict::Deny(reason);
    }
    match facts.window {
        Some(window) if is_open(&window, facts.now_boot_ns) => Verdict::Redirect {
            grant: window.grant,
        },
        _ if agent.closed == CLOSED_EXPLAIN => Verdict::Redirect { grant: 0 },
        _ if is_shared && agent.closed == CLOSED_DROP_DEDICATED => Verdict::Redirect { grant: 0 },
        _ => Verdict::Deny(Reason::NoWindow),
    }
}

/// A process in no agent's workload, toward an endpoint. Where other names answer too, the proxy reads which one is wanted.
#[inline(always)]
const fn of_nobody(facts: &Facts, is_shared: bool) -> Verdict {
    if facts.enforce == ENFORCE_AGENTS {
        return Verdict::Allow;
    }
    if !is_shared {
        return Verdict::Deny(Reason::NotAnAgent);
    }
    match not_served(facts) {
        Some(reason) => Verdict::Deny(reason),
        None => Verdict::Redirect { grant: 0 },
    }
}

/// Why the proxy cannot serve this, if it cannot.
#[inline(always)]
const fn not_served(facts: &Facts) -> Option<Reason> {
    if !facts.is_tcp_connect {
        return Some(Reason::NotTcp);
    }
    if facts.port != ENDPOINT_PORT {
        return Some(Reason::WrongPort);
    }
    match cannot_lead(facts) {
        None if facts.is_multipath_apart => Some(Reason::Multipath),
        reason => reason,
    }
}

/// Why nothing can be led to the daemon, if so.
#[inline(always)]
const fn cannot_lead(facts: &Facts) -> Option<Reason> {
    if !facts.is_served_netns {
        // For an agent the daemon comes there, and who is told so tries again; for one in doubt nobody does.
        return Some(if is_in_doubt(facts) {
            Reason::InDoubt
        } else {
            Reason::OtherNetns
        });
    }
    if !is_alive(facts) {
        return Some(Reason::DaemonSilent);
    }
    None
}

/// Whether the task's cgroup is an agent's in doubt.
#[inline(always)]
const fn is_in_doubt(facts: &Facts) -> bool {
    matches!(facts.agent, Some(agent) if agent.closed == CLOSED_IN_DOUBT)
}

/// Whether the window is open at `now`: `[opens, closes)`.
#[must_use]
#[inline(always)]
pub const fn is_open(window: &Window, now_boot_ns: u64) -> bool {
    window.opens_boot_ns <= now_boot_ns && now_boot_ns < window.closes_boot_ns
}

#[inline(always)]
const fn is_alive(facts: &Facts) -> bool {
    is_recent(facts.heartbeat_boot_ns, facts.now_boot_ns)
}

/// Whether the daemon lives, by its last sign of it. One from the future is none: nothing but the daemon's own clock writes it.
#[must_use]
#[inline(always)]
pub const fn is_recent(beat: u64, now_boot_ns: u64) -> bool {
    // The writer samples the clock before the map is written, so a beat is never ahead of a reader by more than it takes to read.
    beat != 0
        && (now_boot_ns < beat || now_boot_ns - beat < HEARTBEAT_NS_MAX)
        && beat < now_boot_ns + HEARTBEAT_NS_MAX
}

/// Whether a socket of the daemon's may still say something to an endpoint: the daemon lives, and the socket's window is open, where it has one.
#[must_use]
#[inline(always)]
pub const fn may_say(beat: u64, deadline_boot_ns: Option<u64>, now_boot_ns: u64) -> bool {
    is_recent(beat, now_boot_ns)
        && match deadline_boot_ns {
            Some(deadline) => now_boot_ns < deadline,
            None => true,
        }
}

#[cfg(test)]
mod tests;
