//! Attempts over sockets with a protocol of the kernel's: TCP, UDP and what is like them.
#![expect(
    unsafe_code,
    reason = "sendmmsg and a connect() that lets go have no safe binding"
)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::PAYLOAD;

/// What kind of socket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Tcp,
    Mptcp,
    Sctp,
    SctpMessages,
    Udp,
    UdpLite,
}

pub(super) fn socket(kind: Kind, to: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match kind {
        Kind::Tcp => (Type::STREAM, Protocol::TCP),
        Kind::Mptcp => (Type::STREAM, Protocol::MPTCP),
        Kind::Sctp => (Type::STREAM, Protocol::SCTP),
        Kind::SctpMessages => (Type::SEQPACKET, Protocol::SCTP),
        Kind::Udp => (Type::DGRAM, Protocol::UDP),
        Kind::UdpLite => (Type::DGRAM, Protocol::UDPLITE),
    };
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A connection that has sent its first packet is under way; nobody answers at the far end.
fn under_way(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        done => done,
    }
}

pub(super) fn connect(
    to: SocketAddr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<()> {
    connect_kind(Kind::Tcp, to, prepare)
}

pub(super) fn connect_kind(
    kind: Kind,
    to: SocketAddr,
    prepare: impl FnOnce(&Socket) -> io::Result<()>,
) -> io::Result<()> {
    let socket = socket(kind, to)?;
    prepare(&socket)?;
    under_way(socket.connect(&to.into()))
}

pub(super) fn bind_any(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    let any: SocketAddr = if to.is_ipv4() {
        ([0; 4], 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    socket.bind(&any.into())
}

/// Connects elsewhere, lets go, and connects where it wants to be.
pub(super) fn reconnect(kind: Kind, detour: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let socket = socket(kind, to)?;
    under_way(socket.connect(&detour.into()))?;
    let unspecified = [0_u8; 28];
    // SAFETY: the address is readable for the length given; its family, zero, means to let go.
    let done = unsafe { libc::connect(socket.as_raw_fd(), unspecified.as_ptr().cast(), 28) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    under_way(socket.connect(&to.into()))?;
    match kind {
        Kind::Tcp | Kind::Mptcp | Kind::Sctp | Kind::SctpMessages => Ok(()),
        Kind::Udp | Kind::UdpLite => socket.send(PAYLOAD).map(drop),
    }
}

pub(super) fn fast_open(kind: Kind, to: SocketAddr) -> io::Result<()> {
    let socket = socket(kind, to)?;
    let sent = socket.send_to_with_flags(PAYLOAD, &to.into(), libc::MSG_FASTOPEN);
    under_way(sent.map(drop))
}

pub(super) fn connect_and_send_at_once(to: SocketAddr) -> io::Result<()> {
    let socket = socket(Kind::Tcp, to)?;
    switch_on(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT)?;
    under_way(socket.connect(&to.into()))?;
    under_way(socket.send(PAYLOAD).map(drop))
}

/// Switches a socket option on.
pub(super) fn switch_on(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is readable for its size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

pub(super) fn send_to(kind: Kind, to: SocketAddr) -> io::Result<()> {
    under_way(socket(kind, to)?.send_to(PAYLOAD, &to.into()).map(drop))
}

pub(super) fn connected_send(to: SocketAddr) -> io::Result<()> {
    let socket = socket(Kind::Udp, to)?;
    socket.connect(&to.into())?;
    socket.send(PAYLOAD).map(drop)
}

pub(super) fn send_elsewhere(detour: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let socket = socket(Kind::Udp, to)?;
    socket.connect(&detour.into())?;
    socket.send_to(PAYLOAD, &to.into()).map(drop)
}

pub(super) fn corked(to: SocketAddr) -> io::Result<()> {
    let socket = socket(Kind::Udp, to)?;
    let address: SockAddr = to.into();
    socket.send_to_with_flags(PAYLOAD, &address, libc::MSG_MORE)?;
    socket.send_to(PAYLOAD, &address).map(drop)
}

pub(super) fn send_many(to: SocketAddr) -> io::Result<()> {
    let socket = socket(Kind::Udp, to)?;
    let address: SockAddr = to.into();
    let mut part = libc::iovec {
        iov_base: PAYLOAD.as_ptr().cast_mut().cast(),
        iov_len: PAYLOAD.len(),
    };
    // SAFETY: zero is a valid message header: no address, no parts, no control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = address.as_ptr().cast_mut().cast();
    header.msg_namelen = address.len();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    let mut messages = [libc::mmsghdr {
        msg_hdr: header,
        msg_len: 0,
    }; 2];
    // SAFETY: both headers point at what outlives the call; the kernel only reads through them.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 2, 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
