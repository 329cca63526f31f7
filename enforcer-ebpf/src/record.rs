//! What the programs leave for the daemon: the origin of a redirected connection, and events. Read with `from_bytes`, never cast.

/// `Event::hook`.
pub mod hook {
    /// `connect()` on IPv4.
    pub const CONNECT4: u32 = 1;
    /// `connect()` on IPv6.
    pub const CONNECT6: u32 = 2;
    /// A datagram on IPv4.
    pub const SENDMSG4: u32 = 3;
    /// A datagram on IPv6.
    pub const SENDMSG6: u32 = 4;
    /// A packet on its way out of a socket.
    pub const EGRESS: u32 = 5;
    /// A frame on its way out of an interface.
    pub const UPLINK: u32 = 6;
    /// A socket option.
    pub const SETSOCKOPT: u32 = 7;
    /// `bind()` on IPv4.
    pub const BIND4: u32 = 8;
    /// `bind()` on IPv6.
    pub const BIND6: u32 = 9;
    /// A socket being made.
    pub const SOCKET_CREATE: u32 = 10;
    /// Something sent on a connected socket.
    pub const SOCKET_SENDMSG: u32 = 11;
    /// A process that looks into another.
    pub const PTRACE: u32 = 12;
    /// The system call `bpf()`.
    pub const BPF: u32 = 13;

    /// The hook in words.
    #[must_use]
    pub const fn words(hook: u32) -> &'static str {
        match hook {
            CONNECT4 => "connect4",
            CONNECT6 => "connect6",
            SENDMSG4 => "sendmsg4",
            SENDMSG6 => "sendmsg6",
            EGRESS => "egress",
            UPLINK => "uplink",
            SETSOCKOPT => "setsockopt",
            BIND4 => "bind4",
            BIND6 => "bind6",
            SOCKET_CREATE => "socket",
            SOCKET_SENDMSG => "send",
            PTRACE => "ptrace",
            BPF => "bpf",
            _ => "unknown hook",
        }
    }
}

/// Where a redirected connection wanted to go, and whose it is. Left at `connect()`, and with the daemon's end of it once that stands.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// When it was redirected, or of datagrams the last was sent, `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
    /// The cgroup of the agent whose workload the task was in.
    pub agent_cgroup: u64,
    /// The network namespace's cookie.
    pub netns: u64,
    /// When the process started, `CLOCK_BOOTTIME`, nanoseconds.
    pub start_boot_ns: u64,
    /// The grant whose window was open, or 0.
    pub grant: u64,
    /// The destination; IPv4 in its mapped spelling.
    pub destination: [u8; 16],
    /// Destination port, host order.
    pub port: u32,
    /// Thread group id in the initial pid namespace.
    pub pid: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// When the connection's first packet left, by [`tied_now`]; zero before.
    pub tied: u32,
    /// The task's name, padded with zeros.
    pub comm: [u8; 16],
}

impl Origin {
    /// Whether both are of one agent, or of one user who is none.
    #[must_use]
    pub const fn is_same_owner(&self, other: &Self) -> bool {
        self.agent_cgroup == other.agent_cgroup && self.uid == other.uid
    }
}

/// How long the two ends of a connection may take to find each other behind a first packet, in units of [`tied_now`]: two seconds. One that is
/// sent again begins anew.
pub const TIED_MAX: u32 = 2_000;

/// An instant of `CLOCK_BOOTTIME` in units of 2^20 ns, about a millisecond; they begin anew after 52 days.
#[must_use]
pub const fn tied_now(boot_ns: u64) -> u32 {
    (boot_ns >> 20) as u32
}

/// Whether a first packet left recently enough for its connection to be standing only now.
#[must_use]
pub const fn is_fresh(origin: &Origin, now: u32) -> bool {
    now.wrapping_sub(origin.tied) <= TIED_MAX
}

/// What ties the two ends of a connection to the daemon together, from each first packet that leaves until it stands: then its origin is left
/// with the daemon's end. Written as the packet leaves the very socket, so that no earlier one counts, whatever numbers it had. The ends'
/// addresses alone would not do: two sockets may use one port at once where one is bound to an interface.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    /// The network namespace's cookie.
    pub netns: u64,
    /// The client's address; IPv4 in its mapped spelling.
    pub client: [u8; 16],
    /// The client's port, host order.
    pub client_port: u32,
    /// The daemon's port, host order.
    pub server_port: u32,
    /// The sequence number that the client began with. It is no secret, and may be had again.
    pub first_sequence: u32,
    /// Zero.
    pub reserved: u32,
}

/// How the daemon finds which process sent a datagram: the client's end, and the daemon's port. Whose agent it is stands in the datagram's own
/// mark, since a port may be another's by the time the daemon looks.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortKey {
    /// The network namespace's cookie.
    pub netns: u64,
    /// The client's address; IPv4 in its mapped spelling.
    pub client: [u8; 16],
    /// The client's port, host order.
    pub client_port: u32,
    /// The daemon's port, host order.
    pub server_port: u32,
}

/// A refusal by the kernel.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When, `CLOCK_BOOTTIME`, nanoseconds.
    pub boot_ns: u64,
    /// The task's own cgroup.
    pub cgroup: u64,
    /// The cgroup of the agent whose workload the task was in, or 0.
    pub agent_cgroup: u64,
    /// When the process started, `CLOCK_BOOTTIME`, nanoseconds; 0 for packets.
    pub start_boot_ns: u64,
    /// The destination; IPv4 in its mapped spelling.
    pub destination: [u8; 16],
    /// Destination port, host order; 0 where there is none.
    pub port: u32,
    /// A [`hook`].
    pub hook: u32,
    /// The number of a [`crate::verdict::Reason`].
    pub reason: u32,
    /// The IP protocol.
    pub protocol: u32,
    /// Thread group id; 0 for packets.
    pub pid: u32,
    /// User id; 0 for packets.
    pub uid: u32,
    /// The task's name, padded with zeros.
    pub comm: [u8; 16],
}

/// The bytes of an event.
pub const EVENT_BYTES: usize = size_of::<Event>();
const _: () = assert!(EVENT_BYTES == 88);
const _: () = assert!(size_of::<Origin>() == 88);
const _: () = assert!(size_of::<PortKey>() == 32);
const _: () = assert!(size_of::<FlowKey>() == 40);

impl Event {
    /// Reads an event as the kernel wrote it; `None` for another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; EVENT_BYTES] = bytes.try_into().ok()?;
        let u64_at = |at: usize| {
            u64::from_ne_bytes([
                bytes[at],
                bytes[at + 1],
                bytes[at + 2],
                bytes[at + 3],
                bytes[at + 4],
                bytes[at + 5],
                bytes[at + 6],
                bytes[at + 7],
            ])
        };
        let u32_at = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let text_at = |at: usize| {
            let mut text = [0; 16];
            text.copy_from_slice(&bytes[at..at + 16]);
            text
        };
        Some(Self {
            boot_ns: u64_at(0),
            cgroup: u64_at(8),
            agent_cgroup: u64_at(16),
            start_boot_ns: u64_at(24),
            destination: text_at(32),
            port: u32_at(48),
            hook: u32_at(52),
            reason: u32_at(56),
            protocol: u32_at(60),
            pid: u32_at(64),
            uid: u32_at(68),
            comm: text_at(72),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn two_are_of_one_owner_only_as_one_agent_and_one_user() {
        let origin = |agent_cgroup, uid| Origin {
            boot_ns: 0,
            agent_cgroup,
            netns: 1,
            start_boot_ns: 0,
            grant: 0,
            destination: [0; 16],
            port: 443,
            pid: 7,
            uid,
            tied: 0,
            comm: [0; 16],
        };
        assert!(origin(7, 2001).is_same_owner(&origin(7, 2001)));
        assert!(origin(0, 1000).is_same_owner(&origin(0, 1000)));
        for other in [origin(8, 2001), origin(7, 2002), origin(0, 2001)] {
            assert!(!origin(7, 2001).is_same_owner(&other), "{other:?}");
        }
        assert!(!origin(0, 1000).is_same_owner(&origin(0, 1001)));
    }
}
