//! Attempts with packets of one's own making, handed to the kernel's IP layer.
#![expect(unsafe_code, reason = "IP_OPTIONS has no safe binding")]

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use super::flow::{Kind, socket};
use super::{PAYLOAD, PORT};

const TCP: u8 = 6;
const ROUTING: u8 = 43;
/// The port that packets of our own making come from.
const FROM: u16 = 40_000;

/// An echo request over the kernel's own ping socket.
pub(super) fn ping(to: IpAddr) -> io::Result<()> {
    echo_over(Type::DGRAM, to)
}

/// An echo request over a raw socket.
pub(super) fn echo(to: IpAddr) -> io::Result<()> {
    echo_over(Type::RAW, to)
}

fn echo_over(kind: Type, to: IpAddr) -> io::Result<()> {
    let to = SocketAddr::new(to, 0);
    let (protocol, request) = match to {
        SocketAddr::V4(_) => (Protocol::ICMPV4, [8, 0, 0xf7, 0xff, 0, 0, 0, 0]),
        // The kernel computes this one's checksum.
        SocketAddr::V6(_) => (Protocol::ICMPV6, [128, 0, 0, 0, 0, 0, 0, 0]),
    };
    let socket = Socket::new(Domain::for_address(to), kind, Some(protocol))?;
    socket.send_to(&request, &to.into()).map(drop)
}

/// A datagram by way of another address: IPv4's loose source route.
pub(super) fn source_route(by_way_of: IpAddr, to: SocketAddr) -> io::Result<()> {
    let IpAddr::V4(hop) = by_way_of else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let [a, b, c, d] = hop.octets();
    let option = [1, 131, 7, 4, a, b, c, d];
    let socket = socket(Kind::Udp, to)?;
    // SAFETY: the option's value is readable for its size.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_OPTIONS,
            option.as_ptr().cast(),
            8,
        )
    };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.send_to(PAYLOAD, &to.into()).map(drop)
}

/// A TCP segment under the kernel's own IP header.
pub(super) fn tcp(from: IpAddr, to: IpAddr) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(SocketAddr::new(to, 0)),
        Type::RAW,
        Some(Protocol::TCP),
    )?;
    socket
        .send_to(&segment(from, to), &SocketAddr::new(to, 0).into())
        .map(drop)
}

/// A whole packet to `to`; `told` is what the kernel is told.
pub(super) fn header(from: IpAddr, to: IpAddr, told: IpAddr) -> io::Result<()> {
    let told = SocketAddr::new(told, 0);
    let raw = Protocol::from(libc::IPPROTO_RAW);
    let socket = Socket::new(Domain::for_address(told), Type::RAW, Some(raw))?;
    socket.send_to(&packet(from, to), &told.into()).map(drop)
}

/// A packet whose routing header sends it on to `to`. The routing type is one that no router obeys: what counts is that it leaves.
pub(super) fn routing_header(from: IpAddr, to: IpAddr, by_way_of: IpAddr) -> io::Result<()> {
    let (IpAddr::V6(from), IpAddr::V6(to), IpAddr::V6(hop)) = (from, to, by_way_of) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let payload = segment(from.into(), to.into());
    let mut routing = vec![TCP, 2, 0, 1, 0, 0, 0, 0];
    routing.extend(to.octets());
    routing.extend(payload);
    let packet = header6(from, hop, ROUTING, &routing);
    let raw = Protocol::from(libc::IPPROTO_RAW);
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(raw))?;
    socket
        .send_to(&packet, &SocketAddr::new(hop.into(), 0).into())
        .map(drop)
}

/// A whole TCP packet.
pub(super) fn packet(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let payload = segment(from, to);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => header4(from, to, &payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => header6(from, to, TCP, &payload),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => payload,
    }
}

fn header4(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 1, 0, 0, 64, TCP, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

fn header6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(length.to_be_bytes());
    header.extend([next, 64]);
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(payload);
    header
}

/// The first segment of a TCP connection.
fn segment(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(FROM.to_be_bytes());
    segment.extend(PORT.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0]);
    let mut pseudo = Vec::new();
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => pseudo.extend(ip.octets()),
            IpAddr::V6(ip) => pseudo.extend(ip.octets()),
        }
    }
    pseudo.extend([0, TCP, 0, 20]);
    pseudo.extend(&segment);
    let sum = checksum(&pseudo).to_be_bytes();
    segment[16..18].copy_from_slice(&sum);
    segment
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(u16::from_be_bytes([*high, 0])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_of_our_own_making_has_true_checksums() {
        let packet = packet(
            Ipv4Addr::new(192, 0, 2, 65).into(),
            Ipv4Addr::new(192, 0, 2, 67).into(),
        );
        assert_eq!(packet.len(), 40);
        assert_eq!(checksum(&packet[..20]), 0);
    }
}
