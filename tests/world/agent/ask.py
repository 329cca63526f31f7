"""An agent that asks a name server: `ask.py HOW SERVER NAME TYPE`, HOW one of sent, connected, bound, tcp, system. Knows nothing of the enforcer.

Prints one JSON line: the code, the answers, and the address that the answer came from, or the errno's name. `system` asks the C library.
"""

import errno
import json
import socket
import struct
import sys

from dnslib import QTYPE, RCODE, DNSRecord

how, server, name, kind = sys.argv[1:5]
family = socket.AF_INET6 if ":" in server else socket.AF_INET
question = DNSRecord.question(name, kind).pack()


def datagram():
    asking = socket.socket(family, socket.SOCK_DGRAM)
    asking.settimeout(3.0)
    return asking


def sent():
    asking = datagram()
    asking.sendto(question, (server, 53))
    return asking.recvfrom(4096)


def connected():
    asking = datagram()
    asking.connect((server, 53))
    asking.send(question)
    return asking.recvfrom(4096)


def bound():
    asking = datagram()
    asking.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    asking.sendto(question, (server, 53))
    return asking.recvfrom(4096)


def tcp():
    asking = socket.create_connection((server, 53), 3.0)
    asking.sendall(struct.pack("!H", len(question)) + question)
    whole = asking.makefile("rb")
    return whole.read(struct.unpack("!H", whole.read(2))[0]), (server, 53)


def system():
    found = socket.getaddrinfo(name, 443, type=socket.SOCK_STREAM)
    return {"code": "NOERROR", "answers": [place[4][0] for place in found]}


try:
    if how == "system":
        said = system()
    else:
        answer, peer = {ask.__name__: ask for ask in (sent, connected, bound, tcp)}[how]()
        record = DNSRecord.parse(answer)
        said = {
            "code": RCODE[record.header.rcode],
            "answers": [str(rr.rdata) for rr in record.rr if rr.rtype == QTYPE.reverse[kind]],
            "from": f"{peer[0]}:{peer[1]}",
        }
except TimeoutError:
    said = {"error": "timeout"}
except socket.gaierror as error:
    said = {"error": str(error)}
except OSError as error:
    said = {"error": errno.errorcode.get(error.errno, str(error))}
print(json.dumps(said))
