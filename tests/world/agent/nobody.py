"""Makes up a connection to the daemon and a question for a name in a network namespace of which it is root: packets that no socket has sent.

Its arguments: the daemon's ports for connections and for questions. It prints in a line of JSON from which ports of its own.
"""

import json
import socket
import struct
import sys

from packets import ACK, LOOPBACK, NAME, SYN, Segment, Wire, ip, rules, summed, tcp

PROXY, NAMES = int(sys.argv[1]), int(sys.argv[2])
OWN = 2047
QUESTION = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(part)]) + part.encode() for part in NAME.split(".")) + b"\0\0\1\0\1"


def connects(wire):
    wire.sends(ip(tcp(Segment(OWN, PROXY, 1000, 0, SYN, b""))))
    met = wire.segment(lambda seen: seen.source == PROXY and seen.destination == OWN and seen.flags & (SYN | ACK) == SYN | ACK)
    wire.sends(ip(tcp(Segment(OWN, PROXY, 1001, met.sequence + 1 & 0xFFFFFFFF, ACK, b""))))


def asks(wire):
    datagram = struct.pack("!HHHH", OWN, NAMES, 8 + len(QUESTION), 0) + QUESTION
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(datagram), 0, 0x4000, 64, socket.IPPROTO_UDP, 0, LOOPBACK, LOOPBACK)
    wire.sends(head[:10] + struct.pack("!H", summed(head)) + head[12:] + datagram)


# What comes by a frame is taken as from the loopback; what answers it is kept from the kernel, which has no such socket.
for name in ("route_localnet", "accept_local"):
    for device in ("all", "lo"):
        with open(f"/proc/sys/net/ipv4/conf/{device}/{name}", "w") as file:
            file.write("1")
rules(f"add table inet n\nadd chain inet n in {{ type filter hook input priority 0 ; }}\nadd rule inet n in tcp sport {PROXY} tcp dport {OWN} drop")
wire = Wire(4)
connects(wire)
asks(wire)
rules("delete table inet n")
print(json.dumps({"ok": OWN}))
