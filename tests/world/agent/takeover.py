"""Speaks in the place of whoever connects to the daemon in this network namespace next: it may make packets here, and makes them under the numbers of
a connection that another process has made, with TLS and a query of its own.

Its arguments: the bundle of roots to trust, the daemon's port, and by which socket it sends, `raw` or `frame`. It says when it is ready, and then in
a line of JSON what it was answered, or how it ended.
"""

import json
import socket
import ssl
import struct
import sys
import time

ROOTS, PORT, HOW = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LOOPBACK = socket.inet_aton("127.0.0.1")
SYN_ACK, RST, PSH_ACK, ACK = 0x12, 0x04, 0x18, 0x10
ETHERTYPE = 0x0800
NAME = "bigquery.googleapis.com"
BODY = json.dumps({"query": "SELECT COUNT(*) FROM finance.daily", "useLegacySql": False}).encode()
QUERY = b"POST /bigquery/v2/projects/demo-project/queries HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (NAME.encode(), len(BODY), BODY)


def summed(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Taken:
    """A connection of somebody else's, from its second packet on."""

    def __init__(self):
        self.seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE))
        self.seen.bind(("lo", ETHERTYPE))
        self.seen.settimeout(10)
        if HOW == "raw":
            self.out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        else:
            self.out = self.seen

    def packet(self):
        """The next one from the daemon's port: the other port, the flags, the numbers, what it carries."""
        while True:
            ip = self.seen.recv(65600)[14:]
            if ip[9] != socket.IPPROTO_TCP:
                continue
            tcp = ip[(ip[0] & 15) * 4 : struct.unpack("!H", ip[2:4])[0]]
            whence, whither, sequence, wanted, length, flags = struct.unpack("!HHIIBB", tcp[:14])
            if whence == PORT:
                return whither, flags, sequence, wanted, tcp[(length >> 4) * 4 :]

    def awaits(self):
        flags = 0
        while flags & SYN_ACK != SYN_ACK:
            self.port, flags, sequence, self.next, _ = self.packet()
        self.wanted = sequence + 1 & 0xFFFFFFFF

    def sends(self, data=b""):
        tcp = struct.pack("!HHIIBBHHH", self.port, PORT, self.next, self.wanted, 5 << 4, PSH_ACK if data else ACK, 65535, 0, 0)
        total = summed(LOOPBACK * 2 + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp) + len(data)) + tcp + data)
        tcp = tcp[:16] + struct.pack("!H", total) + tcp[18:] + data
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, socket.IPPROTO_TCP, 0, LOOPBACK, LOOPBACK)
        head = head[:10] + struct.pack("!H", summed(head)) + head[12:]
        if HOW == "raw":
            self.out.sendto(head + tcp, ("127.0.0.1", 0))
        else:
            self.out.send(b"\0" * 12 + struct.pack("!H", ETHERTYPE) + head + tcp)
        self.next = self.next + len(data) & 0xFFFFFFFF

    def receives(self):
        while True:
            port, flags, sequence, _, data = self.packet()
            if port != self.port:
                continue
            if flags & RST:
                raise ConnectionResetError
            if data and sequence == self.wanted:
                self.wanted = sequence + len(data) & 0xFFFFFFFF
                self.sends()
                return data


def speaks(taken):
    come, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    agreed = ssl.create_default_context(cafile=ROOTS).wrap_bio(come, going, server_hostname=NAME)

    def until_done(step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                if said := going.read():
                    taken.sends(said)
                come.write(taken.receives())

    until_done(agreed.do_handshake)
    agreed.write(QUERY)
    taken.sends(going.read())
    answer = b""
    while b"}" not in answer:
        answer += until_done(lambda: agreed.read(65536))
    return answer.decode(errors="replace")[:2000]


taken = Taken()
print(json.dumps({"ok": "listens"}), flush=True)
try:
    taken.awaits()
    # Long after its hello could have come, had whose it is had one to send.
    time.sleep(0.05)
    print(json.dumps({"ok": speaks(taken)}), flush=True)
except OSError as error:
    print(json.dumps({"error": type(error).__name__}), flush=True)
