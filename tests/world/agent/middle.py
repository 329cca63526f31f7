"""Says something of which a part in the middle is a TLS hello, while the rules of its network namespace, of which it is root, write into the heads of its
packets alone, so that the other end takes that part for what came first.

Its arguments: the bundle of roots to trust, the address to connect to, the daemon's port, and what of the heads is written:
`sequence` (what goes before is another segment, led elsewhere, and the hello's has its number), `first` (the same, and the number that the first packet
says is the hello's), `offset` (what goes before is in the hello's segment, and belongs to its head). It prints in a line of JSON what it was answered.
"""

import json
import socket
import sys
import threading

from packets import ACK, SYN, Wire, hello, rules

ROOTS, ADDRESS, PORT, HOW = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
#: What TCP takes for options that say nothing.
BEFORE = b"\1" * (28 if HOW == "offset" else 500)
#: Where nobody listens.
ELSEWHERE = 9


def first_number(wire):
    """The number of the first packet that goes to the daemon, or to where it is led instead."""
    return wire.segment(lambda seen: seen.destination in (PORT, ELSEWHERE) and seen.flags & (SYN | ACK) == SYN).sequence


def connected(wire):
    """A connection, and the number of the first byte said on it."""
    made = socket.socket()
    made.settimeout(4)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if HOW != "first":
        made.connect((ADDRESS, 443))
        return made, first_number(wire) + 1
    # It goes elsewhere until its number is known; it is sent again after a second.
    rules(f"add rule inet t out tcp dport {PORT} tcp flags & (syn | ack) == syn tcp dport set {ELSEWHERE}")
    connects = threading.Thread(target=made.connect_ex, args=((ADDRESS, 443),))
    connects.start()
    number = first_number(wire)
    other = (number + len(BEFORE)) % 2**32
    rules(f"""flush chain inet t out
        add rule inet t out tcp dport {PORT} tcp sequence {number} tcp sequence set {other}
        add rule inet t in tcp sport {PORT} tcp ackseq {(other + 1) % 2**32} tcp ackseq set {(number + 1) % 2**32}""")
    connects.join()
    return made, number + 1


def says(made, first):
    said = hello(ROOTS)
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
try:
    made, first = connected(Wire())
    says(made, first % 2**32)
    told = {"ok": made.recv(3).hex()}
except OSError as error:
    told = {"error": type(error).__name__}
rules("delete table inet t")
print(json.dumps(told))
