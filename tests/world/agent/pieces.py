"""Has the kernel put a packet together of a fragment made by hand, with a TLS hello of its own, and of what a connected socket says by itself, so that
the whole passes for that socket's. It is root of its network namespace, whose rules make the socket's packet the last fragment.

Its arguments: the bundle of roots to trust, the address to connect to, the daemon's port. It prints in a line of JSON what it was answered.
"""

import json
import socket
import struct
import sys
import threading

from packets import ACK, HEAD, MORE, PSH, SYN, Segment, Wire, hello, ip, rules, tcp, without_timestamps

ROOTS, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
IDENTITY = 4711
#: A fragment begins at a multiple of so many bytes.
UNIT = 8


def settles():
    """Rules that see packets before fragments are put together, and one that has them put together at all. The answer to a first packet is kept away."""
    without_timestamps()
    rules(f"""add table inet t
        add chain inet t early {{ type filter hook output priority -450 ; }}
        add chain inet t out {{ type filter hook output priority 0 ; }}
        add rule inet t out ct state invalid accept
        add chain inet t in {{ type filter hook input priority 0 ; }}
        add rule inet t in tcp sport {PORT} drop""")


def whole(begins, tail):
    """What is to come of it all: a hello that ends in what the socket's own packet carries, so long that this can be a fragment."""
    shortest = hello(ROOTS, tail)
    spare = -(HEAD + len(shortest) - len(tail)) % UNIT
    return tcp(begins._replace(data=hello(ROOTS, b"\0" * spare + tail)))


def puts_together(wire, connects):
    connects.start()
    first = wire.segment(lambda seen: seen.destination == PORT and seen.flags & (SYN | ACK) == SYN)
    met = wire.segment(lambda seen: seen.source == PORT and seen.flags & SYN)
    begins = Segment(first.source, PORT, first.sequence + 1 & 0xFFFFFFFF, met.sequence + 1 & 0xFFFFFFFF, PSH | ACK, b"")
    # The socket's packet is a head alone: its window and its sum are written over, since nobody knows them before.
    tail = struct.pack("!HHIIBBHHH", *begins[:4], 5 << 4, ACK, 0, 0, 0)
    made = whole(begins, tail)
    at = len(made) - len(tail)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(ip(made[:at], IDENTITY, MORE), ("127.0.0.1", 0))
    rules(f"""add rule inet t early tcp dport {PORT} tcp sequence {begins.sequence} @th,112,32 set 0 ip id set {IDENTITY} ip frag-off set {at // UNIT}
        flush chain inet t in""")
    return wire.answer(PORT).data[:3].hex()


settles()
made = socket.socket()
connects = threading.Thread(target=made.connect_ex, args=((ADDRESS, 443),), daemon=True)
try:
    told = {"ok": puts_together(Wire(), connects)}
except OSError as error:
    told = {"error": type(error).__name__}
rules("delete table inet t")
print(json.dumps(told))
