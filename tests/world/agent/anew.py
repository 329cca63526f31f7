"""Begins a connection to the daemon in the middle of what a connected socket says, while the rules of its network namespace, of which it is root, make a
later packet of the socket's look like a first one. The socket has spoken with somebody else until then.

Its arguments: the bundle of roots to trust, the address to connect to, the daemon's port. It prints in a line of JSON what it was answered.
"""

import json
import socket
import sys

from packets import ACK, SYN, Segment, Wire, hello, ip, rules, tcp, without_timestamps

ROOTS, ADDRESS, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])
#: Where it listens itself.
ELSEWHERE = 8441
ELSEWHERE_FIRST = f"add rule inet t out tcp dport {PORT} tcp dport set {ELSEWHERE}"


def connected(wire, listener):
    """A connection whose other end is not the daemon's, that end, and the number of the first byte said on it."""
    without_timestamps()
    rules(f"""add table inet t
        add chain inet t out {{ type filter hook output priority 0 ; }}
        add chain inet t back {{ type filter hook output priority 1 ; }}
        add chain inet t in {{ type filter hook input priority 0 ; }}
        add rule inet t back tcp sport {ELSEWHERE} tcp sport set {PORT}
        {ELSEWHERE_FIRST}""")
    made = socket.create_connection((ADDRESS, 443), 4)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    first = wire.segment(lambda seen: seen.destination == ELSEWHERE and seen.flags & (SYN | ACK) == SYN)
    return made, listener.accept()[0], first.sequence + 1 & 0xFFFFFFFF


def begins_anew(wire):
    listener = socket.create_server(("127.0.0.1", ELSEWHERE))
    made, other, number = connected(wire, listener)
    own = made.getsockname()[1]
    # What acknowledges the next byte is made a first packet, for the daemon; what that answers is kept from the socket.
    rules(f"""flush chain inet t out
        add rule inet t out tcp dport {PORT} tcp sequence {number} tcp flags == ack tcp flags set syn accept
        {ELSEWHERE_FIRST}
        add rule inet t in tcp sport {PORT} tcp flags & syn == syn drop""")
    other.sendall(b"x")
    met = wire.segment(lambda seen: seen.source == PORT and seen.flags & SYN and seen.acknowledged == number + 1 & 0xFFFFFFFF)
    acknowledged = met.sequence + 1 & 0xFFFFFFFF
    # Then a byte that stands for the first packet, where numbers are counted; the daemon does not get it.
    rules(f"flush chain inet t out\n{ELSEWHERE_FIRST}")
    made.sendall(b"\1")
    other.recv(1)
    number = number + 1 & 0xFFFFFFFF
    wire.sends(ip(tcp(Segment(own, PORT, number, acknowledged, ACK, b""))))
    rules(f"""flush chain inet t out
        add rule inet t out tcp dport {PORT} tcp sequence {number} meta length > 100 tcp ackseq set {acknowledged} accept
        {ELSEWHERE_FIRST}""")
    made.sendall(hello(ROOTS))
    return wire.answer(PORT).data[:3].hex()


try:
    told = {"ok": begins_anew(Wire(4))}
except OSError as error:
    told = {"error": type(error).__name__}
rules("delete table inet t")
print(json.dumps(told))
