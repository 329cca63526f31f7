//! The sockets that agents are led to: bound on the loopback of whichever network namespace the calling thread is in. Serves nothing.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;

use socket2::{Domain, Socket, Type};

use crate::kernel::Ports;
use crate::loopback;
use crate::sockopt::{netns_cookie, tell_marks};

/// How many connections of all agents wait to be taken, as long as the kernel lets so many (`net.core.somaxconn`): past it a client tries again a
/// second later.
const BACKLOG: i32 = 4096;

/// The sockets of one network namespace.
#[derive(Debug)]
pub struct Sockets {
    /// The namespace's cookie.
    pub netns: u64,
    /// Whether it has no network that this host's root has given it: whoever is in it is to have no way out but what a window opens, and no names are
    /// asked for that carry word out.
    pub is_strict: bool,
    /// Whether it has ::1 now, to which agents' IPv6 sockets are led. The daemon listens there in any case.
    pub has_ipv6: bool,
    /// For what is led to the proxy.
    pub proxy: Vec<TcpListener>,
    /// For what is served beside it.
    pub beside: Beside,
}

/// What else agents are led to.
#[derive(Debug)]
pub struct Beside {
    /// For questions for names, over connections.
    pub names: Vec<TcpListener>,
    /// The same in datagrams, which tell their marks.
    pub datagrams: Vec<UdpSocket>,
    /// For what is led to the metadata server's stand-in.
    pub metadata: Vec<TcpListener>,
}

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind {address} ({key})")]
pub struct Unbound {
    /// Which.
    pub address: SocketAddr,
    /// The configuration's word for its port.
    pub key: Key,
    /// What the system said.
    pub source: io::Error,
}

/// What a port is for, as the configuration calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// The proxy's.
    Proxy,
    /// For questions for names.
    Names,
    /// The metadata server's stand-in's.
    Metadata,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proxy => "proxy.port",
            Self::Names => "names.port",
            Self::Metadata => "metadata.port",
        })
    }
}

impl Sockets {
    /// Binds them all, on each address that the loopback has here, or may come to have.
    ///
    /// # Errors
    /// [`Unbound`]: the first that could not be; none is bound then.
    pub fn bind(ports: Ports) -> Result<Self, Unbound> {
        let at_all = |source| Unbound {
            address: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), ports.proxy),
            key: Key::Proxy,
            source,
        };
        let addresses = loopback::addresses().map_err(at_all)?;
        let listen = |key, port| {
            let each = addresses
                .iter()
                .map(|ip| listener(SocketAddr::new(*ip, port), key));
            each.collect::<Result<Vec<_>, _>>()
        };
        let proxy = listen(Key::Proxy, ports.proxy)?;
        let names = listen(Key::Names, ports.names)?;
        let metadata = match ports.metadata {
            Some(port) => listen(Key::Metadata, port)?,
            None => Vec::new(),
        };
        let datagrams = addresses
            .iter()
            .map(|ip| datagrams(SocketAddr::new(*ip, ports.names)));
        let datagrams: Vec<_> = datagrams.collect::<Result<_, _>>()?;
        let netns = match datagrams.first() {
            Some(socket) => netns_cookie(socket.as_fd()),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        Ok(Self {
            netns: netns.map_err(at_all)?,
            is_strict: false,
            has_ipv6: loopback::has_ipv6(),
            proxy,
            beside: Beside {
                names,
                datagrams,
                metadata,
            },
        })
    }
}

fn listener(address: SocketAddr, key: Key) -> Result<TcpListener, Unbound> {
    let bound = || {
        let socket = socket(address, Type::STREAM)?;
        // A start does not wait for connections of the last run to be forgotten.
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    bound().map_err(|source| Unbound {
        address,
        key,
        source,
    })
}

/// One that can be bound at ::1 also where that is not there: once it comes, agents are led to it at once, and nobody else can have taken its port.
fn socket(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_freebind_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn datagrams(address: SocketAddr) -> Result<UdpSocket, Unbound> {
    let bound = || {
        let socket = socket(address, Type::DGRAM)?;
        socket.bind(&address.into())?;
        tell_marks(socket.as_fd())?;
        Ok(socket.into())
    };
    bound().map_err(|source| Unbound {
        address,
        key: Key::Names,
        source,
    })
}
