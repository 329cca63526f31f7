"""An agent's process that goes into network namespaces of its own, step by step: each line is a word and its arguments, each answer a line of JSON.

Its first argument is the bundle of roots to trust. Nothing but Python's own library, so that what is asked of the kernel is what is written here.
"""

import ctypes
import errno
import fcntl
import http.client
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
LIBC = ctypes.CDLL(None, use_errno=True)
KEPT = []


def called(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "refused")


def unshare():
    """A network namespace of its own, in which it is root."""
    uid, gid = os.getuid(), os.getgid()
    called(LIBC.unshare(CLONE_NEWUSER | CLONE_NEWNET))
    for name, text in (("uid_map", f"0 {uid} 1"), ("setgroups", "deny"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def again():
    """Another one, inside the first."""
    called(LIBC.unshare(CLONE_NEWNET))


def lo(how):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP if how == "up" else 0))


def blinks(count):
    """Has its loopback be down for a moment so often: long enough to be found so, and shorter than what is told of."""
    for _ in range(int(count)):
        for how in ("down", "up"):
            lo(how)
            time.sleep(0.1)


def connect(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.settimeout(5)
        made.connect((address, int(port)))


def reach(address, port):
    """Tries until it is led somewhere, and says what it was told before."""
    before = []
    for _ in range(1000):
        try:
            connect(address, port)
            return before
        except OSError as error:
            before.append(errno.errorcode.get(error.errno, str(error)))
            time.sleep(0.005)
    raise OSError(errno.ETIMEDOUT, json.dumps(before[-1:]))


def bind(address, port):
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    KEPT.append(made)
    made.bind((address, int(port)))
    made.listen()
    threading.Thread(target=answer, args=(made,), daemon=True).start()


def answer(listener):
    """Takes what comes, and says what it is not."""
    while True:
        accepted, _ = listener.accept()
        accepted.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno")


def relay(address, port, to):
    """Carries whatever comes there to port 443 of another address, and back."""
    made = socket.create_server((address, int(port)))
    KEPT.append(made)

    def carry(whence, whither):
        while part := whence.recv(65536):
            whither.sendall(part)
        whither.shutdown(socket.SHUT_WR)

    def take_turns():
        while True:
            ends = made.accept()[0], socket.create_connection((to, 443), 10)
            for pair in (ends, ends[::-1]):
                threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=take_turns, daemon=True).start()


def listen(family="4"):
    """Without a bind: the kernel gives it a port by itself, on every address of a family."""
    made = socket.socket(socket.AF_INET6 if family == "6" else socket.AF_INET)
    if family == "6":
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    KEPT.append(made)
    made.listen()
    return made.getsockname()[1]


def setting(name, *values):
    """One of the namespace's own settings, below /proc/sys/net."""
    with open(f"/proc/sys/net/{name}", "w") as file:
        file.write(" ".join(values))


def datagram(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.sendto(b"x", (address, int(port)))


def frame(device, router, source, to):
    """A datagram to port 443 in a frame made by hand, by way of the router that has this address on the wire."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(to))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as wire:
        wire.bind((device, 0x0800))
        wire.send(bytes.fromhex(router.replace(":", "")) + b"\2\0\0\0\0\1\x08\0" + head + struct.pack("!HHHH", 5000, 443, 8, 0))


def ask(name, server, how, port=53, own=0):
    """A question for a name's IPv4 address, in a datagram or over a connection: the addresses that are told. One whose answer was cut is asked again over a
    connection, as every resolver does."""
    asked = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if how == "tcp" else socket.SOCK_DGRAM) as made:
        made.settimeout(5)
        if own:
            made.bind(("", int(own)))
        if how == "tcp":
            made.connect((server, int(port)))
            made.sendall(struct.pack("!H", len(asked)) + asked)
            told = made.recv(4096)[2:]
        else:
            made.sendto(asked, (server, int(port)))
            told, whence = made.recvfrom(4096)
            assert whence[0] == server, whence
    _, flags, _, count, *_ = struct.unpack("!6H", told[:12])
    if how == "udp" and flags & 0x0200:
        return ask(name, server, "tcp", port)
    return [socket.inet_ntoa(told[-4:])] if count else []


def pair(name, server):
    """Questions for both families' addresses in one write over a connection: how many each is told."""
    head = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"
    asked = [struct.pack("!6H", kind, 0x100, 1, 0, 0, 0) + head + struct.pack("!2H", kind, 1) for kind in (1, 28)]
    with socket.create_connection((server, 53), 5) as made:
        made.sendall(b"".join(struct.pack("!H", len(one)) + one for one in asked))
        told = made.makefile("rb")
        answers = [told.read(*struct.unpack("!H", told.read(2))) for _ in asked]
    return [struct.unpack("!6H", answer[:12])[3] for answer in answers]


def in_turn(count, name, server):
    """So many questions by one connection, each when the one before it was answered: how many are."""
    return by_one(count, name, server, 1)


def by_one(count, name, server, at_once=0):
    """So many questions by one connection, so many in one write: how many are answered before it ends, or all are."""
    asked = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
    asked = struct.pack("!H", len(asked)) + asked
    answered, at_once = 0, at_once or int(count)
    with socket.create_connection((server, 53), 5) as made:
        told = made.makefile("rb")
        while answered < int(count):
            if answered % at_once == 0:
                made.sendall(asked * at_once)
            length = told.read(2)
            if not length:
                break
            told.read(*struct.unpack("!H", length))
            answered += 1
    return answered


def many(count, name, server):
    """Asks so often at once, as a resolver does. How many were told something."""
    told = []

    def asks():
        told.extend(ask(name, server, "udp"))

    threads = [threading.Thread(target=asks) for _ in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(told)


def drips(count, server, port):
    """Begins so many connections with questions, and does not go on with any."""
    for _ in range(int(count)):
        KEPT.append(socket.create_connection((server, int(port)), 5))
        KEPT[-1].sendall(b"GE" if port == "80" else b"\xff\xff")


def hold(address):
    """Opens a connection with BigQuery, and keeps it."""
    context = ssl.create_default_context(cafile=sys.argv[1])
    plain = socket.create_connection((address, 443), 10)
    KEPT.append(context.wrap_socket(plain, server_hostname="bigquery.googleapis.com"))


def opens(address):
    """Opens a connection, says nothing, and keeps it."""
    KEPT.append(socket.create_connection((address, 443), 10))


def held():
    """Waits for the end of what it has kept last, and says how it came."""
    KEPT[-1].settimeout(20)
    try:
        return "ended" if KEPT[-1].recv(1) == b"" else "told more"
    except ConnectionResetError:
        return "reset"


def holds():
    """Whether what it has kept last is open, and nothing was said on it."""
    KEPT[-1].setblocking(False)
    try:
        return KEPT[-1].recv(1) != b"" and "told more"
    except ssl.SSLWantReadError:
        return True


def query(address, port=443, sql="SELECT COUNT(*) FROM finance.daily"):
    """A query over a connection of its own; the status and the beginning of what came."""
    context = ssl.create_default_context(cafile=sys.argv[1])
    with socket.create_connection((address, int(port)), 10) as plain, context.wrap_socket(plain, server_hostname="bigquery.googleapis.com") as agreed:
        # Who speaks TLS with it will answer: the first who asks for rows waits until the far side has its engine.
        agreed.settimeout(60)
        connection = http.client.HTTPSConnection("bigquery.googleapis.com")
        connection.sock = agreed
        body = json.dumps({"query": sql, "useLegacySql": False})
        connection.request("POST", "/bigquery/v2/projects/demo-project/queries", body, {"content-type": "application/json"})
        answered = connection.getresponse()
        return [answered.status, answered.read().decode()[:2000]]


def give(path):
    """Makes a socket here, and gives it to whoever listens at that path."""
    with socket.socket() as made, socket.socket(socket.AF_UNIX) as to:
        to.connect(path)
        socket.send_fds(to, [b"x"], [made.fileno()])


def take(path):
    """Takes a socket that was made elsewhere; it is used by `with_taken`."""
    with socket.socket(socket.AF_UNIX) as at:
        at.bind(path)
        at.listen()
        print(json.dumps({"ok": "listens"}), flush=True)
        come, _ = at.accept()
        _, fds, _, _ = socket.recv_fds(come, 1, 1)
        KEPT.append(socket.socket(fileno=fds[0]))


def with_taken(address):
    """Connects the socket that was taken."""
    KEPT[-1].settimeout(5)
    KEPT[-1].connect((address, 443))
    context = ssl.create_default_context(cafile=sys.argv[1])
    with context.wrap_socket(KEPT[-1], server_hostname="bigquery.googleapis.com") as agreed:
        return agreed.version()


def thread(*words):
    """Does something on a thread that goes into a namespace of its own first."""
    got = []

    def alone():
        again()
        lo("up")
        got.append(WORDS[words[0]](*words[1:]))

    started = threading.Thread(target=alone)
    started.start()
    started.join()
    return got[0]


TRIES = []


def lost(address, port):
    """Has a thread go into a namespace of its own whose loopback is down, and try from there as long as the process lives."""

    def tries():
        again()
        while True:
            try:
                connect(address, port)
            except OSError:
                TRIES.append(1)
            time.sleep(0.01)

    threading.Thread(target=tries, daemon=True).start()


def tries():
    return len(TRIES)


def flood(count, address, port):
    """Has so many threads go each into a namespace of its own whose loopback is down, and knock there as long as the process lives. Ends when all have."""
    begun = threading.Semaphore(0)

    def knocks():
        again()
        while True:
            try:
                connect(address, port)
            except OSError:
                begun.release()
            time.sleep(0.05)

    for _ in range(int(count)):
        threading.Thread(target=knocks, daemon=True).start()
    for _ in range(int(count)):
        begun.acquire()


def multipath(address):
    """Connects over multipath TCP."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_MPTCP) as made:
        made.settimeout(5)
        made.connect((address, 443))


def destroys():
    """Ends whoever listens in its namespace, again and again as long as the process lives."""

    def destroy():
        while True:
            subprocess.run(["ss", "-K", "-l", "-t", "-n", "-H"], stdout=subprocess.DEVNULL, check=False)
            time.sleep(0.02)

    threading.Thread(target=destroy, daemon=True).start()


def run(*words):
    """Runs a program; its exit code and words."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return [done.returncode, (done.stdout + done.stderr)[-500:]]


def pid():
    return os.getpid()


WORDS = {word.__name__: word for word in (unshare, again, lo, blinks, connect, reach, bind, listen, relay, setting, datagram, frame, ask, pair, in_turn, by_one, many, drips, hold, opens, held, holds, query, multipath, give, take, with_taken, thread, lost, tries, flood, destroys, run, pid)}

for line in sys.stdin:
    word, *arguments = line.split()
    try:
        told = {"ok": WORDS[word](*arguments)}
    except OSError as error:
        told = {"error": errno.errorcode.get(error.errno, str(error))}
    except Exception as error:
        told = {"error": repr(error)}
    print(json.dumps(told), flush=True)
