"""Asks for names in the place of whoever has asked from a port in this network namespace: datagrams of its own making to the daemon's port at ::1, one by
a frame on the loopback and one as a fragment that is whole.

Its arguments: the daemon's port, that port, and the two names. It prints in a line of JSON what came of each: that the answer was cut, its code, that
nothing came, or how the system refused it.
"""

import errno
import json
import socket
import struct
import sys

from packets import summed

NAMES, PORT = int(sys.argv[1]), int(sys.argv[2])
LOOPBACK6 = socket.inet_pton(socket.AF_INET6, "::1")
ETHERTYPE6 = 0x86DD
FRAGMENT, UDP = 44, socket.IPPROTO_UDP
CUT, CODE = 0x0200, 0x000F


def datagram(name):
    asked = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
    head = struct.pack("!HHH", PORT, NAMES, 8 + len(asked))
    total = summed(LOOPBACK6 * 2 + struct.pack("!II", 8 + len(asked), UDP) + head + b"\0\0" + asked)
    return head + struct.pack("!H", total) + asked


def answer(wire):
    while True:
        try:
            seen = wire.recv(65600)[14:]
        except TimeoutError:
            return "nothing"
        if seen[6] == UDP and struct.unpack("!HH", seen[40:44]) == (NAMES, PORT):
            flags = struct.unpack("!H", seen[50:52])[0]
            return "cut" if flags & CUT else flags & CODE


def by_frame(wire, name):
    asked = datagram(name)
    head = struct.pack("!IHBB", 6 << 28, len(asked), UDP, 64) + LOOPBACK6 * 2
    wire.send(b"\0" * 12 + struct.pack("!H", ETHERTYPE6) + head + asked)


def by_fragment(_, name):
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, FRAGMENT) as raw:
        raw.sendto(struct.pack("!BBHI", UDP, 0, 0, 7) + datagram(name), ("::1", 0))


def came(send, name):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE6)) as wire:
        wire.bind(("lo", ETHERTYPE6))
        wire.settimeout(2)
        try:
            send(wire, name)
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))
        return answer(wire)


print(json.dumps([came(by_frame, sys.argv[3]), came(by_fragment, sys.argv[4])]), flush=True)
