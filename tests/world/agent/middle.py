"""Says something of which a part in the middle is a TLS hello, while the rules of its network namespace, of which it is root, write into the heads of its
packets alone, so that the other end takes that part for what came first.

Its arguments: the bundle of roots to trust, the address to connect to, the daemon's port, and what of the heads is written:
`sequence` (what goes before is another segment, led elsewhere, and the hello's has its number), `first` (the same, and the number that the first packet
says is the hello's), `offset` (what goes before is in the hello's segment, and belongs to its head). It prints in a line of JSON what it was answered.
"""

import json
import socket
import ssl
import struct
import subprocess
import sys
import threading

ROOTS, ADDRESS, PORT, HOW = sys.argv[1:5]
NAME = "bigquery.googleapis.com"
SYN, ACK = 0x02, 0x10
#: What TCP takes for options that say nothing.
BEFORE = b"\1" * (28 if HOW == "offset" else 500)
#: Where nobody listens.
ELSEWHERE = 9


def hello():
    come, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    agreed = ssl.create_default_context(cafile=ROOTS).wrap_bio(come, going, server_hostname=NAME)
    try:
        agreed.do_handshake()
    except ssl.SSLWantReadError:
        return going.read()


def rules(text):
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)


def first_number(seen):
    """The number of the first packet that goes to the daemon, or to where it is led instead."""
    while True:
        ip = seen.recv(65600)[14:]
        _, to, number, _, _, flags = struct.unpack("!HHIIBB", ip[20:34])
        if ip[9] == socket.IPPROTO_TCP and to in (int(PORT), ELSEWHERE) and flags & (SYN | ACK) == SYN:
            return number


def connected(seen):
    """A connection, and the number of the first byte said on it."""
    made = socket.socket()
    made.settimeout(4)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if HOW != "first":
        made.connect((ADDRESS, 443))
        return made, first_number(seen) + 1
    # It goes elsewhere until its number is known; it is sent again after a second.
    rules(f"add rule inet t out tcp dport {PORT} tcp flags & (syn | ack) == syn tcp dport set {ELSEWHERE}")
    connects = threading.Thread(target=made.connect_ex, args=((ADDRESS, 443),))
    connects.start()
    number = first_number(seen)
    other = (number + len(BEFORE)) % 2**32
    rules(f"""flush chain inet t out
        add rule inet t out tcp dport {PORT} tcp sequence {number} tcp sequence set {other}
        add rule inet t in tcp sport {PORT} tcp ackseq {(other + 1) % 2**32} tcp ackseq set {(number + 1) % 2**32}""")
    connects.join()
    return made, number + 1


def says(made, first):
    said = hello()
    after = (first + len(BEFORE)) % 2**32
    led_elsewhere = f"add rule inet t out tcp dport {PORT} tcp sequence {first} meta length > 60 tcp dport set {ELSEWHERE}"
    if HOW == "offset":
        # Fifteen words of head: five, three of options of its own, and what goes before.
        rules(f"add rule inet t out tcp dport {PORT} tcp sequence {first} meta length > 60 @th,96,8 set 0xf0")
        made.sendall(BEFORE + said)
        return
    rules("flush chain inet t out\n" + led_elsewhere)
    if HOW == "sequence":
        rules(f"add rule inet t out tcp dport {PORT} tcp sequence {after} tcp sequence set {first}")
    made.sendall(BEFORE)
    made.sendall(said)


rules("""add table inet t
    add chain inet t out { type filter hook output priority 0 ; }
    add chain inet t in { type filter hook input priority 0 ; }""")
seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
seen.bind(("lo", 0x0800))
seen.settimeout(10)
try:
    made, first = connected(seen)
    says(made, first % 2**32)
    told = {"ok": made.recv(3).hex()}
except OSError as error:
    told = {"error": type(error).__name__}
rules("delete table inet t")
print(json.dumps(told))
