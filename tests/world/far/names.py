"""DNS for the test world: the names it serves, and nothing else. What it answers can change while it runs: see `Zones.now`."""

import json
import socketserver

from dnslib import AAAA, CNAME, A, DNSRecord, QTYPE, RCODE, RR
from dnslib.dns import DNSError
from dnslib.server import BaseResolver, DNSHandler, DNSServer, TCPServer, UDPServer

TTL_S = 30
UDP_BYTES_MAX = 1232


class Zones(BaseResolver):
    def __init__(self, zones, changes):
        self.zones = zones
        self.changes = changes

    def now(self, name):
        """The addresses, the ttl and the alias of a name, or None: as started, unless the test has said
        {NAME: {"addresses": […], "ttl_s": …, "alias": NAME}}, of which the last may be left out: then the addresses are the name's own."""
        try:
            changes = json.loads(self.changes.read_text())
        except FileNotFoundError:
            changes = {}
        if changes == "down":
            raise DNSError("the test has asked for silence")
        if name in changes:
            return changes[name]["addresses"], changes[name]["ttl_s"], changes[name].get("alias")
        return (self.zones[name], TTL_S, None) if name in self.zones else None

    def resolve(self, request, handler):
        reply = request.reply()
        name = str(request.q.qname).rstrip(".").lower()
        with self.changes.with_name("asked.jsonl").open("a") as asked:
            asked.write(json.dumps({"name": name, "type": QTYPE[request.q.qtype]}) + "\n")
        known = self.now(name)
        if known is None:
            reply.header.rcode = RCODE.NXDOMAIN
            return reply
        addresses, ttl_s, alias = known
        owner = alias or request.q.qname
        if alias:
            reply.add_answer(RR(request.q.qname, QTYPE.CNAME, rdata=CNAME(alias), ttl=ttl_s))
        for address in addresses:
            kind, data = ("AAAA", AAAA) if ":" in address else ("A", A)
            if QTYPE[request.q.qtype] == kind:
                reply.add_answer(RR(owner, getattr(QTYPE, kind), rdata=data(address), ttl=ttl_s))
        return reply


class Handler(DNSHandler):
    def get_reply(self, data):
        """What does not fit a packet is to be asked for once more over TCP, as everywhere; the library's own word on it lacks the question."""
        whole = super().get_reply(data)
        if self.protocol != "udp" or len(whole) <= UDP_BYTES_MAX:
            return whole
        short = DNSRecord.parse(data).reply()
        short.header.tc = 1
        return short.pack()


class UDPServer6(UDPServer):
    address_family = socketserver.socket.AF_INET6


class TCPServer6(TCPServer):
    address_family = socketserver.socket.AF_INET6


class Quiet:
    def __getattr__(self, _):
        return lambda *_: None


def serve(zones, addresses, changes):
    for address in addresses:
        for server in ((UDPServer6, TCPServer6) if ":" in address else (UDPServer, TCPServer)):
            is_tcp = issubclass(server, TCPServer)
            DNSServer(Zones(zones, changes), address=address, port=53, tcp=is_tcp, server=server, handler=Handler, logger=Quiet()).start_thread()
