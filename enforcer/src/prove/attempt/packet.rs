//! Attempts below IP: frames that no socket of the kernel's protocols has seen.
#![expect(unsafe_code, reason = "a link-layer address has no safe binding")]

use std::io;
use std::net::IpAddr;

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use super::flow::switch_on;
use super::{Wire, raw};
use crate::kernel::Framing;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
/// Anybody's: who sniffs the far end sees every frame.
const TO_ALL: [u8; 6] = [0xff; 6];
const FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// How a frame is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Plain,
    Tagged,
    Bypassing,
}

const fn ethertype(to: IpAddr) -> u16 {
    match to {
        IpAddr::V4(_) => ETH_P_IP,
        IpAddr::V6(_) => ETH_P_IPV6,
    }
}

/// A frame with its own link-layer header, where the interface has one.
pub(super) fn frame(wire: &Wire, from: IpAddr, to: IpAddr, how: How) -> io::Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    if matches!(how, How::Bypassing) {
        switch_on(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS)?;
    }
    let mut frame = match wire.framing {
        Framing::Ethernet => ethernet(how, to),
        Framing::None => Vec::new(),
    };
    frame.extend(raw::packet(from, to));
    socket.send_to(&frame, &link(wire, ethertype(to))).map(drop)
}

fn ethernet(how: How, to: IpAddr) -> Vec<u8> {
    let mut header = [TO_ALL, FROM].concat();
    if matches!(how, How::Tagged) {
        header.extend(ETH_P_8021Q.to_be_bytes());
        header.extend([0, 7]);
    }
    header.extend(ethertype(to).to_be_bytes());
    header
}

/// A packet that the kernel puts into a frame.
pub(super) fn datagram(wire: &Wire, from: IpAddr, to: IpAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, None)?;
    socket
        .send_to(&raw::packet(from, to), &link(wire, ethertype(to)))
        .map(drop)
}

/// Everybody on the wire.
fn link(wire: &Wire, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is larger than any address, aligned for every one, and zero is a valid link-layer address.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = libc::c_int::try_from(wire.index).unwrap_or(0);
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&TO_ALL);
    // SAFETY: the length is that of the address that was just written.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
