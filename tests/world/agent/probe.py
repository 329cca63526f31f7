"""One socket operation toward an address, and what became of it: `ok`, an errno name, or `timeout`. Knows nothing of the enforcer."""

import errno
import socket
import sys

how, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET


def tcp():
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(1.0)
    connection.connect((address, port))
    return connection.getsockname()[1]


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


def fast_open():
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(1.0)
    connection.sendto(b"payload", socket.MSG_FASTOPEN, (address, port))


try:
    {"tcp": tcp, "udp": udp, "udp_connected": udp_connected, "ping": ping, "fast_open": fast_open}[how]()
    print("ok")
except TimeoutError:
    print("timeout")
except OSError as error:
    print(errno.errorcode.get(error.errno, str(error)))
