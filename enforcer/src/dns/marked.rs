//! Datagrams with the marks that the kernel programs have given them: whose they are, whoever has their port now.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// A datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    /// How long it is, bytes.
    pub(super) length: usize,
    /// Whence it came.
    pub(super) peer: SocketAddr,
    /// Its mark.
    pub(super) mark: u32,
}

/// Waits for the next datagram of a socket that tells marks; one without is no question.
pub(super) async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Received> {
    socket
        .async_io(Interest::READABLE, || {
            let mut parts = [IoSliceMut::new(buffer)];
            let mut control = cmsg_space!(u32);
            let received = recvmsg::<SockaddrStorage>(
                socket.as_raw_fd(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            )?;
            let mark = received.cmsgs()?.find_map(|message| mark(&message));
            let peer = received.address.as_ref().and_then(peer);
            let (Some(mark), Some(peer)) = (mark, peer) else {
                return Err(io::Error::other("a datagram without a mark or a sender"));
            };
            Ok(Received {
                length: received.bytes,
                peer,
                mark,
            })
        })
        .await
}

fn mark(message: &ControlMessageOwned) -> Option<u32> {
    let ControlMessageOwned::Unknown(message) = message else {
        return None;
    };
    let header = message.cmsg_header;
    let is_mark = header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SO_MARK;
    let bytes = message.data_bytes.first_chunk::<4>().filter(|_| is_mark)?;
    Some(u32::from_ne_bytes(*bytes))
}

fn peer(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    })
}
