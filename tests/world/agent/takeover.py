"""Speaks in the place of whoever connects to the daemon in this network namespace next: it may make packets here, and makes them under the numbers of
a connection that another process has made, with TLS and a query of its own.

Its arguments: the bundle of roots to trust, the daemon's port, and by which socket it sends, `raw` or `frame`. It says when it is ready, and then in
a line of JSON what it was answered, or how it ended.
"""

import json
import socket
import ssl
import sys
import time

from packets import ACK, NAME, PSH, RST, SYN, Segment, Wire, ip, tcp

ROOTS, PORT, HOW = sys.argv[1], int(sys.argv[2]), sys.argv[3]
BODY = json.dumps({"query": "SELECT COUNT(*) FROM finance.daily", "useLegacySql": False}).encode()
QUERY = b"POST /bigquery/v2/projects/demo-project/queries HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (NAME.encode(), len(BODY), BODY)


class Taken:
    """A connection of somebody else's, from its second packet on."""

    def __init__(self):
        self.wire = Wire()
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) if HOW == "raw" else None

    def awaits(self):
        met = self.wire.segment(lambda seen: seen.source == PORT and seen.flags & (SYN | ACK) == SYN | ACK)
        self.port, self.next, self.wanted = met.destination, met.acknowledged, met.sequence + 1 & 0xFFFFFFFF

    def sends(self, data=b""):
        packet = ip(tcp(Segment(self.port, PORT, self.next, self.wanted, PSH | ACK if data else ACK, data)))
        if self.raw:
            self.raw.sendto(packet, ("127.0.0.1", 0))
        else:
            self.wire.sends(packet)
        self.next = self.next + len(data) & 0xFFFFFFFF

    def is_next(self, seen):
        """Whether it is what the daemon says next, or its end."""
        is_here = (seen.source, seen.destination) == (PORT, self.port)
        return is_here and (seen.flags & RST or (seen.data and seen.sequence == self.wanted))

    def receives(self):
        said = self.wire.segment(self.is_next)
        if said.flags & RST:
            raise ConnectionResetError
        self.wanted = self.wanted + len(said.data) & 0xFFFFFFFF
        self.sends()
        return said.data


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
