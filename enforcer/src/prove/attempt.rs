//! One attempt to get a packet out, in a process that does nothing else. It knows nothing of the enforcer: it is what an agent could do.

mod flow;
mod packet;
mod raw;
mod uring;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::path::Way;
use crate::kernel::Framing;

/// The port that is tried.
pub(super) const PORT: u16 = 443;
/// What is sent.
pub(super) const PAYLOAD: &[u8] = b"enforcer prove";

/// What to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What is done.
    pub way: Way,
    /// Where the packet is to arrive.
    pub to: IpAddr,
    /// An open address, for the ways that begin elsewhere.
    pub elsewhere: IpAddr,
    /// The wire that frames are put on.
    pub wire: Wire,
}

/// The interface that leads to the address, for the ways that name one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its own addresses.
    pub near: [IpAddr; 2],
    /// How its frames begin.
    pub framing: Framing,
}

impl Wire {
    /// No wire, for the ways that name none.
    #[must_use]
    pub fn none() -> Self {
        Self {
            name: String::new(),
            index: 0,
            near: [
                std::net::Ipv4Addr::UNSPECIFIED.into(),
                std::net::Ipv6Addr::UNSPECIFIED.into(),
            ],
            framing: Framing::Ethernet,
        }
    }
}

/// How an attempt ended, for whoever made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// The kernel took it.
    Sent,
    /// The kernel did not take it, and said so.
    Refused(String),
    /// It waited for something that did not come.
    TookTooLong,
    /// It did not say.
    Crashed,
}

impl Ended {
    /// Whether the kernel said this, an errno's name.
    #[must_use]
    pub fn is(&self, said: &str) -> bool {
        matches!(self, Self::Refused(errno) if errno == said)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent => f.write_str("the caller saw no error"),
            Self::Refused(errno) => f.write_str(errno),
            Self::TookTooLong => f.write_str("the caller waited in vain"),
            Self::Crashed => f.write_str("the attempt ended without a word"),
        }
    }
}

impl From<io::Result<()>> for Ended {
    fn from(done: io::Result<()>) -> Self {
        match done {
            Ok(()) => Self::Sent,
            Err(error) => Self::Refused(error.raw_os_error().map_or_else(
                || error.to_string(),
                |number| format!("{:?}", nix::errno::Errno::from_raw(number)),
            )),
        }
    }
}

impl Attempt {
    /// Makes the attempt.
    #[must_use]
    pub fn make(&self) -> Ended {
        self.attempt().into()
    }

    fn target(&self) -> SocketAddr {
        SocketAddr::new(self.to, PORT)
    }

    fn detour(&self) -> SocketAddr {
        SocketAddr::new(self.elsewhere, PORT)
    }

    fn attempt(&self) -> io::Result<()> {
        let (to, detour) = (self.target(), self.detour());
        match self.way {
            Way::TcpConnect => flow::connect(to, |_| Ok(())),
            Way::TcpBound => flow::connect(to, |socket| flow::bind_any(socket, to)),
            Way::TcpReconnect => flow::reconnect(flow::Kind::Tcp, detour, to),
            Way::TcpFastOpen => flow::fast_open(flow::Kind::Tcp, to),
            Way::TcpFastOpenConnect => flow::connect_and_send_at_once(to),
            Way::TcpOnDevice => flow::connect(to, |socket| {
                socket.bind_device(Some(self.wire.name.as_bytes()))
            }),
            Way::TcpMarked => flow::connect(to, |socket| socket.set_mark(7)),
            Way::MptcpConnect => flow::connect_kind(flow::Kind::Mptcp, to, |_| Ok(())),
            Way::MptcpFastOpen => flow::fast_open(flow::Kind::Mptcp, to),
            Way::SctpConnect => flow::connect_kind(flow::Kind::Sctp, to, |_| Ok(())),
            Way::SctpSend => flow::send_to(flow::Kind::SctpMessages, to),
            Way::UringConnect => uring::connect(to),
            Way::UringSend => uring::send(to),
            Way::UdpSend => flow::send_to(flow::Kind::Udp, to),
            Way::UdpConnect => flow::connect_kind(flow::Kind::Udp, to, |_| Ok(())),
            Way::UdpConnected => flow::connected_send(to),
            Way::UdpSendMany => flow::send_many(to),
            Way::UdpCorked => flow::corked(to),
            Way::UdpElsewhere => flow::send_elsewhere(detour, to),
            Way::UdpReconnect => flow::reconnect(flow::Kind::Udp, detour, to),
            Way::UdpLite => flow::send_to(flow::Kind::UdpLite, to),
            Way::Ping => raw::ping(self.to),
            Way::SourceRoute => raw::source_route(self.elsewhere, to),
            Way::RawEcho => raw::echo(self.to),
            Way::RawTcp => raw::tcp(self.near(), self.to),
            Way::RawHeader => raw::header(self.near(), self.to, self.to),
            Way::RawLie => raw::header(self.near(), self.to, self.elsewhere),
            Way::RoutingHeader => raw::routing_header(self.near(), self.to, self.elsewhere),
            Way::PacketFrame => packet::frame(&self.wire, self.near(), self.to, packet::How::Plain),
            Way::PacketDatagram => packet::datagram(&self.wire, self.near(), self.to),
            Way::PacketVlan => packet::frame(&self.wire, self.near(), self.to, packet::How::Tagged),
            Way::PacketBypass => {
                packet::frame(&self.wire, self.near(), self.to, packet::How::Bypassing)
            }
        }
    }

    /// The wire's own address of the target's family.
    fn near(&self) -> IpAddr {
        let [v4, v6] = self.wire.near;
        if self.to.is_ipv4() { v4 } else { v6 }
    }
}
