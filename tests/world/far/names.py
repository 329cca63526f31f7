"""DNS for the test world: the names it serves, and nothing else."""

import socketserver

from dnslib import AAAA, A, QTYPE, RCODE, RR
from dnslib.server import BaseResolver, DNSServer, TCPServer, UDPServer

TTL_S = 30


class Zones(BaseResolver):
    def __init__(self, zones):
        self.zones = zones

    def resolve(self, request, handler):
        reply = request.reply()
        name = str(request.q.qname).rstrip(".").lower()
        if name not in self.zones:
            reply.header.rcode = RCODE.NXDOMAIN
            return reply
        for address in self.zones[name]:
            kind, data = ("AAAA", AAAA) if ":" in address else ("A", A)
            if QTYPE[request.q.qtype] == kind:
                reply.add_answer(RR(request.q.qname, getattr(QTYPE, kind), rdata=data(address), ttl=TTL_S))
        return reply


class UDPServer6(UDPServer):
    address_family = socketserver.socket.AF_INET6


class TCPServer6(TCPServer):
    address_family = socketserver.socket.AF_INET6


class Quiet:
    def __getattr__(self, _):
        return lambda *_: None


def serve(zones, addresses):
    for address in addresses:
        for server in ((UDPServer6, TCPServer6) if ":" in address else (UDPServer, TCPServer)):
            is_tcp = issubclass(server, TCPServer)
            DNSServer(Zones(zones), address=address, port=53, tcp=is_tcp, server=server, logger=Quiet()).start_thread()
