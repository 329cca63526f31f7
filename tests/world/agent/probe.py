"""One socket operation toward an address, and what became of it: `ok`, an errno name, or `timeout`. Knows nothing of the enforcer."""

import ctypes
import errno
import socket
import struct
import sys

how, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
# A first packet that is lost, as while a neighbour is still looked for, is sent again after a second.
PATIENCE_S = 5.0
# For the probes that bind: the source address, and the port after a comma.
source = sys.argv[4].split(",") if len(sys.argv) > 4 else None
family = socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp():
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_S)
    if source:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind((source[0], int(source[1])))
    connection.connect((address, port))


def multipath():
    connection = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_MPTCP)
    connection.settimeout(PATIENCE_S)
    connection.connect((address, port))


def says():
    """Says 600 bytes in three pieces."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_S)
    connection.connect((address, port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for size in (13, 500, 87):
        connection.sendall(b"s" * size)


def led_then_elsewhere():
    """Is led to the proxy, lets go, and dials the proxy's port number on a host that nobody protects, from the source given."""
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_S)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    connection.connect((address, 443))
    unspecified = ctypes.create_string_buffer(16)
    if ctypes.CDLL(None, use_errno=True).connect(connection.fileno(), unspecified, 16) != 0:
        raise OSError(ctypes.get_errno(), "disconnect")
    connection.bind((source[0], int(source[1])))
    connection.connect((source[2], port))


def udp():
    datagram = socket.socket(family, socket.SOCK_DGRAM)
    datagram.sendto(b"payload", (address, port))


def udp_connected():
    datagram = socket.socket(family, socket.SOCK_DGRAM)
    datagram.connect((address, port))
    datagram.send(b"payload")


def ping():
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    raw = socket.socket(family, socket.SOCK_RAW, protocol)
    raw.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", (address, 0))


def raw_header():
    """A packet whose header names the endpoint, handed to the kernel with a harmless address."""
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, socket.IPPROTO_UDP, 0, b"\0" * 4, socket.inet_aton(address))
    packet += struct.pack("!HHHH", 5000, 443, 8, 0)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    raw.sendto(packet, (source[0], 0))


def source_route():
    """A datagram to the address by way of another: IPv4's loose source route, which takes CAP_NET_RAW."""
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    option = b"\x01" + struct.pack("!BBB4s", 131, 7, 4, socket.inet_aton(source[0]))
    datagram.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, option)
    datagram.sendto(b"payload", (address, port))


def record_route():
    """A datagram with an option that routes nothing."""
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x07\x07\x04\0\0\0\0")
    datagram.sendto(b"payload", (address, port))


def fast_open():
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE_S)
    connection.sendto(b"payload", socket.MSG_FASTOPEN, (address, port))


probes = [tcp, multipath, says, udp, udp_connected, ping, fast_open, led_then_elsewhere, raw_header, source_route, record_route]
try:
    {probe.__name__: probe for probe in probes}[how]()
    print("ok")
except TimeoutError:
    print("timeout")
except OSError as error:
    print(errno.errorcode.get(error.errno, str(error)))
