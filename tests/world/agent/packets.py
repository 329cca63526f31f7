"""Packets over IPv4 on the loopback of a network namespace: seen, made by hand, and written into by rules. For who is root there, or may make packets."""

import collections
import socket
import ssl
import struct
import subprocess

LOOPBACK = socket.inet_aton("127.0.0.1")
NAME = "bigquery.googleapis.com"
SYN, RST, PSH, ACK = 0x02, 0x04, 0x08, 0x10
ETHERTYPE = 0x0800
#: The bit of an IP header's eighth word of bits that says that more fragments follow, and the one that says that none may be made.
MORE, WHOLE = 0x2000, 0x4000
#: The head of TCP without options, bytes.
HEAD = 20

Segment = collections.namedtuple("Segment", "source destination sequence acknowledged flags data")


def hello(roots, more=b""):
    """What a TLS client says first. What is to be more at its end is an extension that nobody knows."""
    come, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    agreed = ssl.create_default_context(cafile=roots).wrap_bio(come, going, server_hostname=NAME)
    try:
        agreed.do_handshake()
    except ssl.SSLWantReadError:
        said = going.read()
    return grown(said, struct.pack("!HH", 0xFAFA, len(more)) + more) if more else said


def grown(said, extension):
    """A hello with an extension more, in all the lengths that count it: the record's, the message's, the extensions'."""
    at = 9 + 2 + 32
    at += 1 + said[at]
    at += 2 + int.from_bytes(said[at : at + 2], "big")
    at += 1 + said[at]
    made = bytearray(said + extension)
    for where, bytes_ in ((3, 2), (6, 3), (at, 2)):
        length = int.from_bytes(said[where : where + bytes_], "big") + len(extension)
        made[where : where + bytes_] = length.to_bytes(bytes_, "big")
    return bytes(made)


def rules(text):
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def without_timestamps():
    """From now on heads have no options but in first packets: what is made by hand is like what the kernel makes."""
    with open("/proc/sys/net/ipv4/tcp_timestamps", "w") as file:
        file.write("0")


def summed(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(segment):
    """A segment as it is on the wire, without options."""
    head = struct.pack("!HHIIBBHHH", *segment[:4], 5 << 4, segment.flags, 65535, 0, 0)
    total = summed(LOOPBACK * 2 + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(head) + len(segment.data)) + head + segment.data)
    return head[:16] + struct.pack("!H", total) + head[18:] + segment.data


def ip(payload, identity=0, fragment=WHOLE):
    """A packet of IP's, or a fragment of one, that carries this."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identity, fragment, 64, socket.IPPROTO_TCP, 0, LOOPBACK, LOOPBACK)
    return head[:10] + struct.pack("!H", summed(head)) + head[12:] + payload


class Wire:
    """What goes over the loopback, and what is put on it past every rule and program."""

    def __init__(self, patience=10):
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
        self.socket.bind(("lo", ETHERTYPE))
        self.socket.settimeout(patience)

    def segment(self, is_it):
        """The next one of which that is so."""
        while True:
            seen = self.socket.recv(65600)[14:]
            if seen[9] != socket.IPPROTO_TCP:
                continue
            seen = seen[(seen[0] & 15) * 4 : struct.unpack("!H", seen[2:4])[0]]
            *numbers, length, flags = struct.unpack("!HHIIBB", seen[:14])
            segment = Segment(*numbers, flags, seen[(length >> 4) * 4 :])
            if is_it(segment):
                return segment

    def answer(self, port):
        """What is said next from that port, in records of TLS's."""
        said = self.segment(lambda seen: seen.source == port and (seen.flags & RST or seen.data[:1] in (b"\x15", b"\x16")))
        if said.flags & RST:
            raise ConnectionResetError
        return said

    def sends(self, packet):
        self.socket.send(b"\0" * 12 + struct.pack("!H", ETHERTYPE) + packet)
