//! The ways out of a host, by name: what is done, and how the address is spelled. Pure data; [`super::attempt`] goes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Who can go a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Every process.
    Anyone,
    /// Root, or whoever holds CAP_NET_RAW or CAP_NET_ADMIN.
    CapabilityHolder,
}

macro_rules! ways {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $who:ident, $spellings:ident;)+) => {
        /// What is done to get a packet out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Way {
            $($(#[doc = $doc])+ #[serde(rename = $text)] $name,)+
        }

        impl Way {
            /// Every way there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The way's stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The way in words.
            #[must_use]
            pub const fn words(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+)),+ }
            }

            /// Who can go it.
            #[must_use]
            pub const fn who(self) -> Who {
                match self { $(Self::$name => Who::$who),+ }
            }

            /// How the address can be spelled for it.
            #[must_use]
            pub const fn spellings(self) -> &'static [Spelling] {
                match self { $(Self::$name => $spellings),+ }
            }
        }
    };
}

impl Way {
    /// Whether the way is closed toward every address, and not only toward BigQuery's: where a packet that goes it ends cannot be seen.
    #[must_use]
    pub const fn is_closed_everywhere(self) -> bool {
        matches!(
            self,
            Self::SourceRoute | Self::RoutingHeader | Self::PacketBypass
        )
    }
}

/// Every spelling: for the plainest ways.
const EVERY: &[Spelling] = &[
    Spelling::V4,
    Spelling::V6,
    Spelling::Mapped,
    Spelling::Compatible,
    Spelling::Nat64,
    Spelling::LocalNat64,
    Spelling::SixToFour,
    Spelling::Teredo,
];
/// The spellings that a socket's own family decides.
const FAMILIES: &[Spelling] = &[Spelling::V4, Spelling::V6, Spelling::Mapped];
/// Both families.
const BOTH: &[Spelling] = &[Spelling::V4, Spelling::V6];
/// IPv4's own.
const V4: &[Spelling] = &[Spelling::V4];
/// None: what is no way out by itself.
const NONE: &[Spelling] = &[];
/// IPv6's own.
const V6: &[Spelling] = &[Spelling::V6];

ways! {
    /// a TCP connection
    TcpConnect = "tcp-connect", Anyone, EVERY;
    /// a TCP connection from a port of its choice
    TcpBound = "tcp-bound", Anyone, BOTH;
    /// a TCP socket that is connected elsewhere, let go and connected again
    TcpReconnect = "tcp-reconnect", Anyone, BOTH;
    /// data with the first packet: sendto(MSG_FASTOPEN)
    TcpFastOpen = "tcp-fastopen", Anyone, FAMILIES;
    /// data with the first packet: TCP_FASTOPEN_CONNECT
    TcpFastOpenConnect = "tcp-fastopen-connect", Anyone, FAMILIES;
    /// a TCP connection bound to a device
    TcpOnDevice = "tcp-on-device", Anyone, BOTH;
    /// a TCP connection with a mark for routing
    TcpMarked = "tcp-marked", CapabilityHolder, BOTH;
    /// a multipath TCP connection
    MptcpConnect = "mptcp-connect", Anyone, FAMILIES;
    /// multipath TCP with data in the first packet
    MptcpFastOpen = "mptcp-fastopen", Anyone, BOTH;
    /// an SCTP association
    SctpConnect = "sctp-connect", Anyone, BOTH;
    /// an SCTP message to an association that is made for it
    SctpSend = "sctp-send", Anyone, BOTH;
    /// a TCP connection by io_uring
    UringConnect = "uring-connect", Anyone, BOTH;
    /// a datagram by io_uring
    UringSend = "uring-send", Anyone, BOTH;
    /// a datagram, as QUIC sends it
    UdpSend = "udp-send", Anyone, EVERY;
    /// a datagram socket that is connected, and sends nothing
    UdpConnect = "udp-connect", Anyone, NONE;
    /// a datagram over a connected socket
    UdpConnected = "udp-connected", Anyone, FAMILIES;
    /// several datagrams with one call: sendmmsg
    UdpSendMany = "udp-sendmmsg", Anyone, BOTH;
    /// a datagram that is sent in parts: MSG_MORE
    UdpCorked = "udp-corked", Anyone, BOTH;
    /// a datagram over a socket that is connected elsewhere
    UdpElsewhere = "udp-elsewhere", Anyone, BOTH;
    /// a UDP socket that is connected elsewhere, let go and connected again
    UdpReconnect = "udp-reconnect", Anyone, BOTH;
    /// a UDP-Lite datagram
    UdpLite = "udplite-send", Anyone, BOTH;
    /// an echo request over an unprivileged ping socket
    Ping = "ping", Anyone, BOTH;
    /// a datagram with a loose source route by way of another address
    SourceRoute = "source-route", CapabilityHolder, V4;
    /// an echo request over a raw socket
    RawEcho = "raw-echo", CapabilityHolder, BOTH;
    /// a TCP segment over a raw socket
    RawTcp = "raw-tcp", CapabilityHolder, BOTH;
    /// a packet with a header of its own making
    RawHeader = "raw-header", CapabilityHolder, BOTH;
    /// a packet whose own header names another address than the kernel is told
    RawLie = "raw-lie", CapabilityHolder, V4;
    /// a packet with a routing header by way of another address
    RoutingHeader = "routing-header", CapabilityHolder, V6;
    /// a frame of its own making: AF_PACKET
    PacketFrame = "packet-frame", CapabilityHolder, BOTH;
    /// a packet that the kernel puts into a frame: AF_PACKET, SOCK_DGRAM
    PacketDatagram = "packet-datagram", CapabilityHolder, BOTH;
    /// a frame inside a VLAN tag
    PacketVlan = "packet-vlan", CapabilityHolder, BOTH;
    /// a frame that bypasses the queues: PACKET_QDISC_BYPASS
    PacketBypass = "packet-bypass", CapabilityHolder, BOTH;
}

/// How an address is spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Spelling {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
    /// IPv4 in an IPv6 socket: `::ffff:a.b.c.d`.
    Mapped,
    /// IPv4 in the first, deprecated spelling: `::a.b.c.d`.
    Compatible,
    /// IPv4 behind the well-known prefix of a translator: `64:ff9b::a.b.c.d`.
    Nat64,
    /// IPv4 behind the prefix for local translators (RFC 8215).
    LocalNat64,
    /// IPv4 by 6to4: `2002:ab:cd::1`.
    SixToFour,
    /// IPv4 by Teredo (RFC 4380): the client's address, inverted.
    Teredo,
}

impl Spelling {
    const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Mapped => "mapped",
            Self::Compatible => "compatible",
            Self::Nat64 => "nat64",
            Self::LocalNat64 => "local-nat64",
            Self::SixToFour => "6to4",
            Self::Teredo => "teredo",
        }
    }

    /// Whether packets in this spelling are IPv6's.
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        match self {
            Self::V4 | Self::Mapped => false,
            Self::V6
            | Self::Compatible
            | Self::Nat64
            | Self::LocalNat64
            | Self::SixToFour
            | Self::Teredo => true,
        }
    }

    /// The address in this spelling. IPv6 addresses have one only.
    #[must_use]
    pub fn of(self, ip: IpAddr) -> IpAddr {
        let IpAddr::V4(v4) = ip else { return ip };
        let [a, b] = [0, 2].map(|at| u16::from_be_bytes([v4.octets()[at], v4.octets()[at + 1]]));
        match self {
            Self::V4 | Self::V6 => ip,
            Self::Mapped => v4.to_ipv6_mapped().into(),
            Self::Compatible => Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b).into(),
            Self::Nat64 => Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b).into(),
            Self::LocalNat64 => Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, a, b).into(),
            Self::SixToFour => Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1).into(),
            Self::Teredo => Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, !a, !b).into(),
        }
    }

    /// Every IPv6 address that is another spelling of this one on the wire.
    pub fn on_the_wire(v4: Ipv4Addr) -> impl Iterator<Item = Ipv6Addr> {
        EVERY.iter().filter_map(move |spelling| match spelling {
            Self::V4 | Self::V6 | Self::Mapped => None,
            Self::Compatible | Self::Nat64 | Self::LocalNat64 | Self::SixToFour | Self::Teredo => {
                match spelling.of(v4.into()) {
                    IpAddr::V4(_) => None,
                    IpAddr::V6(ip) => Some(ip),
                }
            }
        })
    }
}

/// A way, toward an address that is spelled so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// What is done.
    pub way: Way,
    /// How the address is spelled.
    pub spelling: Spelling,
}

impl Path {
    /// The path's stable name, such as `tcp-connect/v4`.
    #[must_use]
    pub fn name(self) -> String {
        format!("{}/{}", self.way.as_str(), self.spelling.as_str())
    }

    /// The path in words.
    #[must_use]
    pub fn words(self) -> String {
        self.way.words().trim().to_owned()
    }

    /// Who can go it.
    #[must_use]
    pub const fn who(self) -> Who {
        self.way.who()
    }
}

/// Every path, in the order of the report.
pub fn all() -> impl Iterator<Item = Path> {
    Way::ALL.iter().flat_map(|way| {
        way.spellings().iter().map(|spelling| Path {
            way: *way,
            spelling: *spelling,
        })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_has_a_name_of_its_own() {
        let names: Vec<String> = all().map(Path::name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        assert!(names.len() > 60, "{}", names.len());
    }

    #[test]
    fn every_spelling_of_a_protected_address_is_one_that_the_kernel_reads() {
        let v4 = Ipv4Addr::new(192, 0, 2, 66);
        for spelling in EVERY {
            if let IpAddr::V6(ip) = spelling.of(v4.into()) {
                let read = enforcer_ebpf::address::embedded_v4(ip.octets());
                assert_eq!(read, Some(v4.octets()), "{spelling:?} {ip}");
            }
        }
    }
}
