//! Ends connections to protected addresses that are older than their protection. The programs let none of their packets out any more; without
//! this their owners would wait for a timeout instead of being told.
//!
//! Only in this process's own network namespace: elsewhere `egress` alone holds them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use enforcer_ebpf::address::embedded_v4;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{SOCK_DESTROY, SockDiagMessage};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

use crate::config::AddressClass;
use crate::dns::endpoints::Endpoints;

/// The largest message of the kernel's, bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The most connections of one family and protocol that are ended at once; the others wait for their timeout.
const ENDED_MAX: usize = 65_536;
/// What the kernel calls the cgroup in which a socket was made (`INET_DIAG_CGROUP_ID`, Linux 5.9).
const INET_DIAG_CGROUP_ID: u16 = 21;

/// Whose connections are ended, by the id of the cgroup in which they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's but those of this cgroup, the daemon's own.
    AllBut(u64),
    /// Those of these cgroups alone.
    Of(BTreeSet<u64>),
}

impl Whose {
    /// Of one whose cgroup is not told nobody knows that it is not the daemon's.
    fn has(&self, cgroup: Option<u64>) -> bool {
        cgroup.is_some_and(|cgroup| match self {
            Self::AllBut(own) => cgroup != *own,
            Self::Of(these) => these.contains(&cgroup),
        })
    }
}

/// Ends those connections, and those connected datagram sockets, whose other end is protected. Gives how many there were.
///
/// # Errors
/// When the kernel does not list or end sockets (`CONFIG_INET_DIAG_DESTROY`). What was not ended still sends nothing.
pub fn end(endpoints: &Endpoints, whose: &Whose) -> io::Result<usize> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut ended = 0;
    for family in [AF_INET, AF_INET6] {
        for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
            let is_old = |seen: &Seen| {
                whose.has(seen.cgroup) && is_protected(endpoints, seen.id.destination_address)
            };
            let old = list(&socket, family, protocol)?.into_iter().filter(is_old);
            for seen in old.take(ENDED_MAX) {
                destroy(&socket, family, protocol, seen.id)?;
                ended += 1;
            }
        }
    }
    Ok(ended)
}

fn is_protected(endpoints: &Endpoints, ip: IpAddr) -> bool {
    // In whatever spelling, as the programs read it.
    let ip = match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => embedded_v4(v6.octets()).map_or(ip, |v4| Ipv4Addr::from(v4).into()),
    };
    endpoints.iter().any(|(net, class)| match class {
        AddressClass::Dedicated | AddressClass::Shared => net.contains(&ip),
        // Whoever is no agent may go on.
        AddressClass::Metadata => false,
    })
}

/// A socket that has another end.
struct Seen {
    id: SocketId,
    /// Where it was made.
    cgroup: Option<u64>,
}

impl Seen {
    fn of(response: &InetResponse) -> Self {
        let cgroup = response.nlas.iter().find_map(|nla| {
            let Nla::Other(other) = nla else {
                return None;
            };
            if netlink_packet_core::Nla::kind(other) != INET_DIAG_CGROUP_ID {
                return None;
            }
            let mut id = [0; 8];
            if netlink_packet_core::Nla::value_len(other) != id.len() {
                return None;
            }
            netlink_packet_core::Nla::emit_value(other, &mut id);
            Some(u64::from_ne_bytes(id))
        });
        Self {
            id: response.header.socket_id.clone(),
            cgroup,
        }
    }
}

/// Those of one family and protocol.
fn list(socket: &Socket, family: u8, protocol: u8) -> io::Result<Vec<Seen>> {
    let id = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    let states = StateFlags::all() - StateFlags::LISTEN - StateFlags::CLOSE - StateFlags::TIME_WAIT;
    let request = request(family, protocol, states, id);
    send(socket, request, NLM_F_REQUEST | NLM_F_DUMP, None)?;
    let mut found = Vec::new();
    let mut is_last = false;
    while !is_last {
        is_last = receive(socket, |message| {
            if let SockDiagMessage::InetResponse(response) = message {
                found.push(Seen::of(&response));
            }
        })?;
    }
    Ok(found)
}

fn destroy(socket: &Socket, family: u8, protocol: u8, id: SocketId) -> io::Result<()> {
    let request = request(family, protocol, StateFlags::all(), id);
    send(
        socket,
        request,
        NLM_F_REQUEST | NLM_F_ACK,
        Some(SOCK_DESTROY),
    )?;
    match receive(socket, |_| ()) {
        // It has ended by itself.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}

const fn request(family: u8, protocol: u8, states: StateFlags, socket_id: SocketId) -> InetRequest {
    InetRequest {
        family,
        protocol,
        extensions: ExtensionFlags::empty(),
        states,
        socket_id,
    }
}

/// Sends a request, as another kind of message than the library takes it for where one is named.
fn send(socket: &Socket, request: InetRequest, flags: u16, kind: Option<u16>) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    if let Some(kind) = kind {
        message.header.message_type = kind;
    }
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

/// Reads what the kernel sends next, and whether that was the last of an answer.
fn receive(socket: &Socket, mut each: impl FnMut(SockDiagMessage)) -> io::Result<bool> {
    let mut buffer = Vec::with_capacity(MESSAGE_BYTES_MAX);
    socket.recv(&mut buffer, 0)?;
    let mut rest = buffer.as_slice();
    while !rest.is_empty() {
        let message =
            NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
        match message.payload {
            NetlinkPayload::Done(_) => return Ok(true),
            NetlinkPayload::Error(error) => {
                return match error.code {
                    None => Ok(true),
                    Some(_) => Err(error.to_io()),
                };
            }
            NetlinkPayload::Overrun(_) => {
                return Err(io::Error::other("the kernel's answer overran"));
            }
            NetlinkPayload::InnerMessage(message) => each(message),
            NetlinkPayload::Noop | _ => {}
        }
        // Messages are aligned to four bytes.
        let length = (message.header.length as usize).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_to_a_protected_address_ends_and_no_other_does() {
        // 127.9.9.9 stands for BigQuery; it is this host's own.
        let listener = TcpListener::bind("0.0.0.0:0").expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let old = TcpStream::connect(("127.9.9.9", port)).expect("connects");
        let other = TcpStream::connect(("127.9.9.8", port)).expect("connects");
        let net = "127.9.9.9/32".parse().expect("a prefix");
        let own = seen_of(port);
        let protected = [(net, AddressClass::Shared)].into();
        let end = |whose| end(&protected, &whose).expect("ends");
        assert_eq!(end(Whose::AllBut(own)), 0, "the daemon's own go on");
        assert_eq!(end(Whose::Of([own + 1].into())), 0, "somebody else's");
        assert_eq!(end(Whose::AllBut(own + 1)), 1);
        let error = |stream: &TcpStream| stream.take_error().expect("asks");
        assert_eq!(
            error(&old).map(|error| error.kind()),
            Some(io::ErrorKind::ConnectionAborted)
        );
        assert!(error(&other).is_none());
    }

    /// The cgroup that the kernel tells of this process's connections to `port`.
    fn seen_of(port: u16) -> u64 {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).expect("opens");
        socket.bind_auto().expect("binds");
        let all = list(&socket, AF_INET, IPPROTO_TCP).expect("lists");
        let ours = all
            .iter()
            .find(|seen| seen.id.destination_port == port)
            .expect("is there");
        ours.cgroup.expect("is told")
    }

    #[test]
    fn an_address_is_known_in_every_spelling() {
        let net = "10.9.8.7/32".parse().expect("a prefix");
        for (spelling, is_it) in [
            ("10.9.8.7", true),
            ("::ffff:10.9.8.7", true),
            ("64:ff9b::10.9.8.7", true),
            ("64:ff9b::10.9.8.6", false),
            ("2001:db8::1", false),
        ] {
            for (class, is_ended) in [
                (AddressClass::Dedicated, is_it),
                (AddressClass::Shared, is_it),
                (AddressClass::Metadata, false),
            ] {
                let ip = spelling.parse().expect("an address");
                let protected = [(net, class)].into();
                assert_eq!(is_protected(&protected, ip), is_ended, "{spelling}");
            }
        }
    }
}
