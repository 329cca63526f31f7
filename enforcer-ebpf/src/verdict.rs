//! The decision, pure: the same function in the kernel, in the tests and in the daemon's fake. Nothing allows by default.

use crate::map::{
    Agent, CLASS_SHARED, CLOSED_DROP_DEDICATED, CLOSED_EXPLAIN, ENDPOINT_PORT, ENFORCE_AGENTS,
    Endpoint, HEARTBEAT_NS_MAX, UID_ANY, Window,
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
    /// Whether the destination is the proxy's own port on this host.
    pub is_proxy: bool,
    /// Whether the task is in the daemon's own cgroup.
    pub is_daemon: bool,
    /// Whether this is a TCP connection being made (and not a datagram).
    pub is_tcp_connect: bool,
    /// Destination port, host order.
    pub port: u16,
    /// Whether the task is in the network namespace the proxy listens in.
    pub is_daemon_netns: bool,
    /// The task's uid.
    pub uid: u32,
    /// The agent whose workload the task is in.
    pub agent: Option<Agent>,
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
    /// A network namespace the proxy does not listen in.
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
            Self::ProxyDirect => "the proxy's port cannot be dialled directly",
            Self::Egress => "a packet toward BigQuery that is not the daemon's",
            Self::Internal => "the kernel program could not read or remember it",
            Self::SourceRoute => "a packet that names its own route could end anywhere",
            Self::Bypass => "the socket option would put frames on the wire unseen",
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
}

/// Decides on one socket operation.
#[must_use]
#[inline(always)]
pub const fn decide(facts: &Facts) -> Verdict {
    if facts.is_daemon {
        return Verdict::Allow;
    }
    if facts.is_proxy {
        return Verdict::Deny(Reason::ProxyDirect);
    }
    let Some(endpoint) = facts.endpoint else {
        return Verdict::Allow;
    };
    let is_shared = endpoint.class == CLASS_SHARED;
    match facts.agent {
        Some(agent) => of_agent(facts, &agent, is_shared),
        None => of_nobody(facts, is_shared),
    }
}

/// A process in an agent's workload, toward an endpoint.
#[inline(always)]
const fn of_agent(facts: &Facts, agent: &Agent, is_shared: bool) -> Verdict {
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
    if !facts.is_daemon_netns {
        return Some(Reason::OtherNetns);
    }
    if !is_alive(facts) {
        return Some(Reason::DaemonSilent);
    }
    None
}

/// Whether the window is open at `now`: `[opens, closes)`.
#[must_use]
#[inline(always)]
pub const fn is_open(window: &Window, now_boot_ns: u64) -> bool {
    window.opens_boot_ns <= now_boot_ns && now_boot_ns < window.closes_boot_ns
}

/// A heartbeat from the future is none: nothing but the daemon's own clock writes it.
#[inline(always)]
const fn is_alive(facts: &Facts) -> bool {
    let beat = facts.heartbeat_boot_ns;
    // The writer samples the clock before the map is written, so a beat is never ahead of a reader by more than it takes to read.
    beat != 0
        && (facts.now_boot_ns < beat || facts.now_boot_ns - beat < HEARTBEAT_NS_MAX)
        && beat < facts.now_boot_ns + HEARTBEAT_NS_MAX
}

#[cfg(test)]
mod tests;
