//! Ways past the kernel's programs.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener};
use std::process::Stdio;

use aya::maps::{Array, Map, MapData};
use enforcer::prove::path::Way;
use enforcer_ebpf::Config;
use enforcer_ebpf::map::ENFORCE_AGENTS;
use harness::capture::Capture;
use harness::stage::{BIGQUERY4, BIGQUERY6, OTHER4, OTHER6, Side};
use harness::world::{AGENT_UID, Who, wait_for};
use rustix::process::Signal;

use super::shown::{absent, nothing_more_on, on_record};
use super::{EPERM, Helper, Lock, agents, cases, said};

/// The agent tries these, nothing gets out, and a refusal by `hook` is on record as the agent's.
fn refused(ways: &[Way], hook: &str) {
    let lock = Lock::new();
    for way in ways {
        lock.agent_goes(*way);
    }
    lock.nothing_got_out();
    lock.is_on_record(hook, agents);
}

/// The same for ways that no socket's hook sees: a packet names no process, and its socket whose it is.
fn dropped(ways: &[Way], hook: &str) {
    let lock = Lock::new();
    for way in ways {
        lock.agent_goes(*way);
    }
    lock.nothing_got_out();
    lock.is_on_record(hook, agents);
}

/// The same for frames. Where the programs stand at the kernel's security hooks an agent does not even get the socket: there somebody outside
/// every workload shows that the guard holds, too.
fn framed(ways: &[Way], hook: &str) {
    let lock = Lock::new();
    for way in ways {
        lock.agent_goes(*way);
    }
    if lock.has_hooks() {
        lock.is_on_record("socket", agents);
        let other = lock.world.stage.cgroups.make("other");
        for way in ways {
            lock.go(&other, None, *way, BIGQUERY4.into());
        }
        lock.is_on_record(hook, |event| event["agent"].is_null());
    } else {
        lock.is_on_record(hook, agents);
    }
    lock.nothing_got_out();
}

/// Connects to BigQuery before the daemon runs, and goes on when told.
const OLD_SOCKETS: &str = r#"
import socket, sys
addresses = [(socket.AF_INET, sys.argv[1]), (socket.AF_INET6, sys.argv[2])]
held = []
for family, address in addresses:
    udp = socket.socket(family, socket.SOCK_DGRAM); udp.connect((address, 443)); held.append(udp)
    tcp = socket.socket(family, socket.SOCK_STREAM); tcp.connect((address, 443)); held.append(tcp)
print("connected", flush=True)
sys.stdin.readline()
for old in held:
    try:
        old.send(b"payload")
        print("sent", end=" ")
    except OSError as error:
        print(error.errno, end=" ")
print(flush=True)
"#;

/// Makes a socket, moves into a cgroup (which is given by its procs file), becomes a uid, and connects that socket and a new one.
const FROM_OUTSIDE: &str = r#"
import os, socket, sys
old = socket.socket()
open(sys.argv[2], "w").write(str(os.getpid()))
os.setuid(int(sys.argv[3]))
for s in (old, socket.socket()):
    s.settimeout(5)
    try:
        s.connect((sys.argv[1], 443)); print("ok")
    except OSError as error:
        print(error.strerror)
"#;

/// Makes a socket, has it used by a process of another cgroup (which is given by its procs file), and says what that was told.
const PASSED: &str = r#"
import os, socket, sys
s = socket.socket(); s.setblocking(False)
child = os.fork()
if child == 0:
    open(sys.argv[2], "w").write("0")
    try:
        s.connect((sys.argv[1], 443))
        said = "ok"
    except BlockingIOError:
        said = "ok"
    except OSError as error:
        said = error.strerror
    print(said, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"#;

/// Has a process in a workload (which is given by its procs file), under a uid, make a socket of a protocol or accept one from itself, takes it,
/// and connects it.
const MADE_INSIDE: &str = r#"
import ctypes, os, socket, sys
procs, uid, address, protocol, how = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
ours, theirs = socket.socketpair()
if os.fork() == 0:
    open(procs, "w").write("0"); os.setgroups([]); os.setgid(uid); os.setuid(uid)
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    if how == "accepted":
        s.bind(("127.0.0.1", 0)); s.listen()
        client = socket.socket(); client.connect(s.getsockname())
        s, _ = s.accept()
        # As if it never had been: connect() to AF_UNSPEC.
        assert ctypes.CDLL(None).connect(s.fileno(), bytes(16), 16) == 0
    socket.send_fds(theirs, [b"x"], [s.fileno()])
    os._exit(0)
_, fds, _, _ = socket.recv_fds(ours, 1, 1)
os.wait()
s = socket.socket(fileno=fds[0]); s.settimeout(1)
try:
    s.connect((address, 443)); print("ok")
except OSError as error:
    print(error.strerror or error)
"#;

/// Asks for a list of tables over multipath TCP.
const OVER_MPTCP: &str = concat!(
    python_tls!(),
    r#"
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); s.settimeout(10)
s.connect((sys.argv[1], 443))
print(listed(s))
"#
);

/// The same with the connection's first packet put off until there is data to go with it.
const OVER_FAST_OPEN: &str = concat!(
    python_tls!(),
    r#"
s = socket.socket(); s.settimeout(10)
s.setsockopt(socket.IPPROTO_TCP, 30, 1); s.setsockopt(socket.IPPROTO_TCP, 34, 1)
s.connect((sys.argv[1], 443))
print(listed(s))
"#
);

/// Tries to connect so many times, and says how often that was not refused at once.
const LOOP: &str = r#"
import socket, sys
through = 0
for _ in range(int(sys.argv[2])):
    s = socket.socket(); s.setblocking(False)
    try:
        s.connect((sys.argv[1], 443)); through += 1
    except PermissionError:
        pass
    except OSError:
        through += 1
    s.close()
print(through)
"#;

/// Gives a process in a network namespace of its own a wire to this host, which forwards, and says the host's end's hardware address.
const WIRED: &str = r#"
inside() { nsenter --net=/proc/$0/ns/net "$@"; }
ip link add guest0 type veth peer name guest1 netns $0
inside ip addr add 10.78.0.2/24 dev guest1
inside ip link set guest1 up
ip addr add 10.78.0.1/24 dev guest0
ip link set guest0 up
inside ip route add default via 10.78.0.1
echo 1 > /proc/sys/net/ipv4/ip_forward
sleep 0.3
ip -o link show guest0 | sed 's/.*link.ether \([0-9a-f:]*\).*/\1/'
"#;

/// In a network namespace of its own, once it has a wire out: sends to one address a datagram and a frame made by hand, and tries those and a
/// connection toward another.
const APART: &str = r#"
import socket, struct, sys
print("apart", flush=True)
router = bytes.fromhex(sys.stdin.readline().strip().replace(":", ""))
def frame(to):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton("10.78.0.2"), socket.inet_aton(to))
    total = sum(struct.unpack("!10H", head)); total = (total & 0xffff) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xffff) + head[12:]
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); wire.bind(("guest1", 0x0800))
    wire.send(router + b"\2\0\0\0\0\1" + b"\x08\0" + head + struct.pack("!HHHH", 5000, 443, 8, 0))
def datagram(to):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (to, 443))
def said(how, *to):
    try:
        how(*to)
        return "sent"
    except OSError as error:
        return error.strerror or str(error)
other, bigquery = sys.argv[1:3]
datagram(other); said(frame, other)
print(f"connection {said(socket.create_connection, (bigquery, 443), 2)}, datagram {said(datagram, bigquery)}, frame {said(frame, bigquery)}", flush=True)
"#;

/// A guest behind this host, in a namespace of its own, puts a frame on its wire for each address, which this host forwards.
const GUEST: &str = r#"
set -e
unshare -n sleep 60 & guest=$!
until [ "$(readlink /proc/$guest/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
inside() { nsenter --net=/proc/$guest/ns/net "$@"; }
inside ip link add guest1 type veth peer name guest0 netns $$
inside ip link set guest1 up
ip addr add 10.78.0.1/24 dev guest0
ip link set guest0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
router=$(ip -o link show guest0 | sed 's/.*link.ether \([0-9a-f:]*\).*/\1/')
sleep 0.3
inside /usr/bin/python3 -c "$0" $router "$@"
kill $guest
"#;

/// Sends one UDP packet in a frame made by hand to each address, by way of the router that owns the MAC.
const FRAMES: &str = r#"
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); wire.bind(("guest1", 0x0800))
for to in sys.argv[2:]:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton("10.78.0.2"), socket.inet_aton(to))
    total = sum(struct.unpack("!10H", head)); total = (total & 0xffff) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xffff) + head[12:]
    wire.send(bytes.fromhex(sys.argv[1].replace(":", "")) + b"\2\0\0\0\0\1" + b"\x08\0" + head + struct.pack("!HHHH", 5000, 443, 8, 0))
"#;

/// A privileged daemon that starts processes for whoever asks at its socket, as container runtimes and service managers do: under the uid
/// that is asked for, in another cgroup, and in a network namespace of their own where that is asked for. Each tries to connect.
const RUNTIME: &str = r#"
import ctypes, os, socket, sys
path, procs, address = sys.argv[1:4]
server = socket.socket(socket.AF_UNIX)
server.bind(path); os.chmod(path, 0o666); server.listen()
print("ready", flush=True)
while True:
    client, _ = server.accept()
    uid, is_apart = client.recv(100).decode().split()
    child = os.fork()
    if child == 0:
        open(procs, "w").write("0")
        if is_apart == "apart":
            assert ctypes.CDLL(None).unshare(0x40000000) == 0
        os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
        try:
            socket.create_connection((address, 443), 1)
            said = "ok"
        except OSError as error:
            said = error.strerror
        client.sendall(said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    client.close()
"#;

/// Asks such a daemon for one process.
const ASK: &str = r#"
import socket, sys
runtime = socket.socket(socket.AF_UNIX)
runtime.connect(sys.argv[1])
runtime.sendall(" ".join(sys.argv[2:]).encode())
print(runtime.recv(1000).decode())
"#;

/// A process that passes on what it is handed at an abstract socket: as a datagram, then over a connection.
const RELAY: &str = r#"
import socket
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind("\0relay")
print("ready", flush=True)
while True:
    message, client = server.recvfrom(65536)
    address, payload = message.split(b" ", 1)
    said = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        out = socket.socket(socket.AF_INET, kind); out.settimeout(1)
        try:
            out.connect((address.decode(), 443)); out.send(payload)
            said.append("sent")
        except OSError as error:
            said.append(error.strerror)
    server.sendto(", ".join(said).encode(), client)
"#;

/// Hands such a process something for an address.
const HAND: &str = r#"
import socket, sys
mine = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
mine.bind("")
mine.sendto(sys.argv[1].encode() + b" payload", "\0relay")
print(mine.recv(1000).decode())
"#;

/// Makes a TUN device, and lets a packet for each address come in by it, which this host forwards.
const TUN: &str = r#"
import fcntl, os, socket, struct, subprocess, sys
tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun7", 0x1001))
for words in ("addr add 10.79.0.1/24 dev tun7", "link set tun7 up"):
    subprocess.run(["ip"] + words.split(), check=True)
open("/proc/sys/net/ipv4/ip_forward", "w").write("1")
for to in sys.argv[1:]:
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton("10.79.0.2"), socket.inet_aton(to))
    total = sum(struct.unpack("!10H", head)); total = (total & 0xffff) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xffff) + head[12:]
    os.write(tun, head + struct.pack("!HHHH", 5000, 443, 8, 0))
"#;

/// Sends a UDP packet for an address in frames that carry it in something else, the last two in VLAN tags.
const WRAPPED: &str = r#"
import socket, struct, sys
head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28, 1, 0, 64, 17, 0, socket.inet_aton("10.77.0.1"), socket.inet_aton(sys.argv[1]))
packet = head + struct.pack("!HHHH", 5000, 443, 8, 0)
tag = b"\x81\0\0\7"
wraps = [
    b"\x88\x47" + b"\0\x01\x01\x40",
    b"\x88\x64" + struct.pack("!BBHHH", 0x11, 0, 1, len(packet) + 2, 0x21),
    struct.pack("!H", len(packet) + 8) + b"\xaa\xaa\3\0\0\0\x08\0",
    tag * 3 + b"\x08\0",
    b"\x91\0\0\7" + b"\x08\0",
]
try:
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); wire.bind(("wire0", 0x0800))
    for wrap in wraps:
        try:
            wire.send(b"\xff" * 6 + b"\2\0\0\0\0\1" + wrap + packet)
            print("sent", end=" ")
        except OSError as error:
            print(error.errno, end=" ")
except OSError as error:
    print(error.strerror)
"#;

/// Makes a socket of a family.
const MAKE: &str = r#"
import socket, sys
try:
    socket.socket(int(sys.argv[1]), socket.SOCK_STREAM, 0)
    print("made")
except OSError as error:
    print(error.strerror)
"#;

/// Sends a TCP segment that has nothing but the flag that asks for a connection.
const BARE_SYN: &str = r#"
import socket, struct, sys
try:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    raw.sendto(struct.pack("!HHIIBBHHH", 5000, 443, 1, 0, 0x50, 0x02, 1024, 0, 0), (sys.argv[1], 0))
    print("sent")
except OSError as error:
    print(error.strerror)
"#;

/// Makes a tunnel, and when its input ends says how much has left by it that begins like no packet.
const TUNNEL: &str = r#"
import fcntl, os, struct, subprocess, sys
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun7", 0x1001))
subprocess.run(["ip", "link", "set", "tun7", "up"], check=True)
print("up", flush=True)
sys.stdin.read()
came = 0
try:
    while True:
        came += os.read(tun, 2048)[0] == 0
except BlockingIOError:
    print(came, "came by")
"#;

/// Sends on that tunnel what is no packet.
const UNREAD: &str = r#"
import socket
try:
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    frames.sendto(bytes(64), ("tun7", 0x8847))
    print("sent")
except OSError as error:
    print(error.strerror)
"#;

/// Makes sockets of SMC by the families of IP.
const MAKE_SMC: &str = r#"
import socket
for family in (socket.AF_INET, socket.AF_INET6):
    try:
        socket.socket(family, socket.SOCK_STREAM, 256)
        print("made")
    except OSError as error:
        print(error.strerror)
"#;

/// Makes a socket of AF_XDP, and its sending ring.
const XDP_RING: &str = r#"
import socket
try:
    xdp = socket.socket(44, socket.SOCK_RAW, 0)
    print("made")
    xdp.setsockopt(283, 3, 64)
    print("set")
except OSError as error:
    print(error.strerror)
"#;

/// Sends packets of its own making to a hop, with these headers before UDP's (by their numbers): those of options say nothing, a routing header
/// names where it goes on to. Prints what became of each.
const CHAINED: &str = r#"
import socket, struct, sys
near, hop, to = (socket.inet_pton(socket.AF_INET6, address) for address in sys.argv[1:4])
def packet(headers):
    following, body = 17, struct.pack("!HHHH", 5000, 443, 8, 0)
    for header in reversed(headers):
        if header == 43:
            body = struct.pack("!BBBBI", following, 2, 4, 1, 0) + to + body
        elif header == 44:
            body = struct.pack("!BBHI", following, 0, 0, 7) + body
        elif header == 51:
            body = struct.pack("!BBHIII", following, 2, 0, 1, 1, 1) + body
        else:
            body = struct.pack("!BBBBI", following, 0, 1, 4, 0) + body
        following = header
    return struct.pack("!IHBB", 0x60000000, len(body), following, 64) + near + hop + body
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
for chain in sys.argv[4:]:
    try:
        s.sendto(packet([int(header) for header in chain.split(",")]), (sys.argv[2], 0)); print("sent")
    except OSError as error:
        print(error.strerror)
"#;

/// Opens a map that is pinned (BPF_OBJ_GET).
const OPEN_MAP: &str = r#"
import ctypes, os, platform, struct, sys
path = ctypes.create_string_buffer(sys.argv[1].encode())
attributes = ctypes.create_string_buffer(struct.pack("QII", ctypes.addressof(path), 0, 0), 16)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
print("opened" if libc.syscall(number, 7, attributes, 16) >= 0 else os.strerror(ctypes.get_errno()))
"#;

/// Sends a datagram.
const DATAGRAM: &str = r#"
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"for bigquery", (sys.argv[1], 443))
"#;

fn python(lock: &Lock, who: Who, script: &str, args: &[&str]) -> String {
    let mut command = lock.world.run_as(who, "/usr/bin/python3");
    said(command.args(["-c", script]).args(args))
}

cases! {
    /// an IPv4 address in an IPv6 socket: `::ffff:a.b.c.d`
    1 Refused fn a_mapped_address_is_bigquerys_address() {
        let lock = Lock::new();
        let agent = lock.world.cgroup_of(Who::Agent);
        for way in [Way::TcpConnect, Way::UdpSend, Way::UdpConnected, Way::MptcpConnect] {
            let ended = lock.go(&agent, Some(AGENT_UID), way, BIGQUERY4.to_ipv6_mapped().into());
            assert!(ended.is("EPERM"), "{way:?}: {ended}");
        }
        lock.nothing_got_out();
        lock.is_on_record("connect6", agents);
        // The kernel hands a datagram to a mapped address to IPv4.
        lock.is_on_record("sendmsg4", agents);
    }

    /// native IPv6
    2 Refused fn ipv6_is_no_way_around() {
        let lock = Lock::new();
        let agent = lock.world.cgroup_of(Who::Agent);
        for way in [Way::TcpConnect, Way::UdpSend, Way::UdpConnected, Way::TcpBound] {
            assert!(lock.go(&agent, Some(AGENT_UID), way, BIGQUERY6.into()).is("EPERM"), "{way:?}");
        }
        lock.nothing_got_out();
        lock.is_on_record("connect6", agents);
    }

    /// NAT64, 6to4, Teredo and v4-compatible addresses that stand for BigQuery's
    3 Refused fn translated_spellings_are_bigquerys_address() {
        refused(&[Way::TcpConnect, Way::UdpSend], "connect6");
    }

    /// unconnected datagrams: sendto, sendmmsg, in parts, from a socket connected elsewhere; QUIC
    4 Refused fn datagrams_do_not_leave() {
        refused(&[Way::UdpSend, Way::UdpSendMany, Way::UdpCorked, Way::UdpElsewhere, Way::UdpLite, Way::UdpReconnect], "sendmsg4");
    }

    /// TCP Fast Open
    5 Refused fn data_with_the_first_packet_does_not_leave() {
        refused(&[Way::TcpFastOpen, Way::TcpFastOpenConnect], "connect4");
    }

    /// data with the first packet of a connection to the daemon: it goes without
    5 Refused fn data_with_a_first_packet_to_the_daemon_is_sent_again_behind_it() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        assert_eq!(python(&lock, Who::Agent, OVER_FAST_OPEN, &[&BIGQUERY4.to_string()]), "HTTP/1.1 403");
        super::refusal_is_on_record(&lock.world, "token.unavailable", agents);
        lock.is_on_record("egress refused: data does not go with a connection's first packet", agents);
        lock.nothing_got_out();
    }

    /// multipath TCP
    6 Refused fn multipath_tcp_does_not_leave() {
        refused(&[Way::MptcpConnect, Way::MptcpFastOpen], "connect4");
    }

    /// io_uring
    7 Refused fn io_uring_does_not_leave() {
        refused(&[Way::UringConnect, Way::UringSend], "connect4");
    }

    /// ping sockets, which every process may have
    8 Refused fn pings_do_not_leave() {
        dropped(&[Way::Ping], "egress");
    }

    /// raw sockets, also with headers of their own that lie, source routes and routing headers
    8 RefusedToCapability fn raw_packets_do_not_leave() {
        dropped(&[Way::RawEcho, Way::RawTcp, Way::RawHeader, Way::RawLie, Way::SourceRoute, Way::RoutingHeader], "egress");
    }

    /// a routing header behind other headers of IPv6's (options, a fragment's, authentication, mobility, host identity, shim6), and more headers than
    /// are looked behind
    8 RefusedToCapability fn a_routing_header_behind_other_headers_does_not_leave() {
        let lock = Lock::new();
        let hop = Capture::start(&lock.world.stage, [OTHER6.into()]);
        let other = lock.world.stage.cgroups.make("other");
        let (to, by) = (BIGQUERY6.to_string(), OTHER6.to_string());
        let sends = |chains: &[&str]| {
            let fixed = ["fd77::1", by.as_str(), to.as_str()];
            let args: Vec<&str> = fixed.into_iter().chain(chains.iter().copied()).collect();
            said(&mut lock.script(&other, None, CHAINED, &args))
        };
        assert_eq!(sends(&["60", "0,60", "60,60,60", "44,51"]), ["sent"; 4].join("\n"), "others alone route nothing");
        // The neighbour may have to be asked for twice, a second apart.
        wait_for("what routes nothing to arrive", || hop.packets() >= 4);
        let before = hop.settled();
        let routed = ["43", "60,43", "0,43", "0,60,43", "60,60,60,43", "60,60,60,60", "44,43", "51,43", "44,60,43", "135,43", "139,43", "140,51,43"];
        assert_eq!(sends(&routed), [EPERM; 12].join("\n"));
        nothing_more_on(&hop, before);
        lock.nothing_got_out();
        lock.is_on_record("egress refused: a packet that names its own route", |event| event["agent"].is_null());
    }

    /// frames made by hand, also inside a VLAN tag
    9 RefusedToCapability fn frames_made_by_hand_do_not_leave() {
        framed(&[Way::PacketFrame, Way::PacketDatagram, Way::PacketVlan], "uplink");
    }

    /// frames of an agent's that carry a packet in something else: MPLS, PPPoE, LLC, more VLAN tags than are looked behind
    9 RefusedToCapability fn frames_that_wrap_a_packet_do_not_leave() {
        let lock = Lock::new();
        let agent = lock.world.cgroup_of(Who::Agent);
        let other = lock.world.stage.cgroups.make("other");
        let wrapped = |cgroup: &std::path::Path| said(&mut lock.script(cgroup, None, WRAPPED, &[&BIGQUERY4.to_string()]));
        if lock.has_hooks() {
            assert_eq!(wrapped(&agent), EPERM);
            lock.is_on_record("socket", agents);
        } else {
            assert_eq!(wrapped(&agent), "105 105 105 105 105", "ENOBUFS");
            lock.is_on_record("uplink refused: what the frame carries is not read", agents);
        }
        // Whoever is no agent may have a use for such, and no packet in them is looked for; too many tags are nobody's.
        assert_eq!(wrapped(&other), "sent sent sent 105 105");
        lock.nothing_got_out();
    }

    /// frames that bypass the queues, where the guard stands
    9 RefusedToCapability fn the_bypass_of_the_queues_is_refused() {
        framed(&[Way::PacketBypass], "setsockopt");
    }

    /// sockets that were connected before the enforcer first ran
    10 Refused fn old_sockets_send_nothing_more() {
        let mut lock = Lock::without_daemon();
        let _far = lock.world.stage.on(Side::Internet, || {
            [IpAddr::from(BIGQUERY4), BIGQUERY6.into()].map(|ip| TcpListener::bind((ip, 443)).expect("binds"))
        });
        let mut command = lock.world.run_as(Who::Agent, "/usr/bin/python3");
        command.args(["-c", OLD_SOCKETS, &BIGQUERY4.to_string(), &BIGQUERY6.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python runs");
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("reads");
        assert_eq!(line.trim(), "connected");
        lock.world.start_daemon();
        let before = lock.capture.settled();
        child.stdin.take().expect("piped").write_all(b"go on\n").expect("writes");
        line.clear();
        said.read_line(&mut line).expect("reads");
        // Told at once instead of left to wait: EDESTADDRREQ for datagrams, ECONNABORTED for connections, of both families.
        assert_eq!(line.trim(), "89 103 89 103");
        nothing_more_on(&lock.capture, before);
        lock.is_on_record("egress", |_| true);
        child.wait().expect("ends");
    }

    /// a socket that another process made, or that another process connects
    11 Refused fn a_socket_is_judged_by_who_connects_it() {
        let lock = Lock::new();
        let other = lock.world.stage.cgroups.make("other");
        let procs = other.join("cgroup.procs").display().to_string();
        // Root makes it in the agent's workload, and a process outside connects it.
        let agent = lock.world.cgroup_of(Who::Agent);
        let mut command = lock.world.stage.command_in(Side::Host, Some(&agent), None, "/usr/bin/python3");
        let output = command.args(["-c", PASSED, &BIGQUERY4.to_string(), &procs]).output().expect("python runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "Operation not permitted");
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null());
    }

    /// a socket that was made outside the workload, connected inside it while a window is open
    11 Refused fn a_socket_from_outside_does_not_use_the_window() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let agent = lock.world.cgroup_of(Who::Agent);
        let other = lock.world.stage.cgroups.make("other");
        let procs = agent.join("cgroup.procs").display().to_string();
        let told = said(&mut lock.script(&other, None, FROM_OUTSIDE, &[&BIGQUERY4.to_string(), &procs, &AGENT_UID.to_string()]));
        assert_eq!(told, "Operation not permitted\nok", "the old one, and one of its own");
        lock.nothing_got_out();
        lock.is_on_record("connect4 refused: the socket was made outside", agents);
    }

    /// sockets of the agent's that nobody's process connects, where the kernel has made them: of multipath TCP, and accepted ones
    11 Refused fn a_socket_that_the_kernel_makes_is_whose_it_makes_it_for() {
        let mut lock = Lock::without_daemon();
        // Where others are left alone, they would get out.
        lock.world.edit_config("[kernel]", "[kernel]\nenforce = \"agents\"");
        lock.world.start_daemon();
        let other = lock.world.stage.cgroups.make("other");
        let procs = lock.world.cgroup_of(Who::Agent).join("cgroup.procs").display().to_string();
        let (uid, to) = (AGENT_UID.to_string(), BIGQUERY4.to_string());
        for (protocol, how) in [("6", "made"), ("262", "made"), ("6", "accepted")] {
            let told = said(&mut lock.script(&other, None, MADE_INSIDE, &[&procs, &uid, &to, protocol, how]));
            assert_eq!(told, EPERM, "{protocol} {how}");
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4 refused: the socket was made outside", |event| event["agent"].is_null());
        // The agent's own is the agent's: without a far side there is no token.
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        assert_eq!(python(&lock, Who::Agent, OVER_MPTCP, &[&to]), "HTTP/1.1 403");
        super::refusal_is_on_record(&lock.world, "token.unavailable", agents);
    }

    /// a process that moves out of the agent's workload
    12 Refused fn who_leaves_the_workload_is_still_governed() {
        let lock = Lock::new();
        for name in ["other", "agents", "agents/finance-bot/deep/er"] {
            let cgroup = lock.world.stage.cgroups.make(name);
            for uid in [Some(AGENT_UID), None] {
                assert!(lock.go(&cgroup, uid, Way::TcpConnect, BIGQUERY4.into()).is("EPERM"), "{name}");
            }
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null());
    }

    /// a user and network namespace of the agent's own, from which the host forwards: connections, datagrams, and frames by hand
    13 Refused fn a_namespace_of_its_own_is_no_way_out() {
        let lock = Lock::new();
        let control = Capture::start(&lock.world.stage, [OTHER4.into()]);
        let mut command = lock.world.run_as(Who::Agent, "unshare");
        let mut apart = Helper::start(command.args(["-Urn", "/usr/bin/python3", "-c", APART, &OTHER4.to_string(), &BIGQUERY4.to_string()]));
        assert_eq!(apart.line(), "apart");
        let mut wires = lock.world.stage.command(Side::Host, "sh");
        let wired = wires.args(["-ec", WIRED, &apart.pid().to_string()]).output().expect("sh runs");
        assert!(wired.status.success(), "{}", String::from_utf8_lossy(&wired.stderr));
        apart.tell(String::from_utf8_lossy(&wired.stdout).trim());
        // Where the programs stand at the kernel's security hooks, there is no socket to make a frame with.
        let (frame, hook, through) = if lock.has_hooks() { (EPERM, "socket", 1) } else { ("sent", "uplink", 2) };
        // Its loopback is down, so that nothing is led to the daemon there.
        assert_eq!(apart.line(), format!("connection Connection refused, datagram {EPERM}, frame {frame}"), "toward BigQuery");
        lock.nothing_got_out();
        assert_eq!(control.packets(), through, "the host forwards the datagram, and the frame");
        lock.is_on_record("connect4", agents);
        lock.is_on_record("sendmsg4", agents);
        lock.is_on_record(hook, |_| true);
    }

    /// a container runtime's or service manager's socket: what a privileged daemon starts for the agent, in another cgroup and network namespace
    14 Refused fn what_a_privileged_daemon_starts_for_the_agent_is_governed() {
        let lock = Lock::new();
        let stage = &lock.world.stage;
        let socket = stage.dir().join("runtime.sock").display().to_string();
        let container = stage.cgroups.make("machine/container").join("cgroup.procs").display().to_string();
        let arguments = [&socket, &container, &BIGQUERY4.to_string()];
        let mut runtime = Helper::start(&mut lock.script(&stage.cgroups.make("runtime"), None, RUNTIME, &arguments.map(String::as_str)));
        assert_eq!(runtime.line(), "ready");
        for uid in [AGENT_UID.to_string(), "0".to_owned()] {
            for place in ["here", "apart"] {
                assert_eq!(python(&lock, Who::Agent, ASK, &[&socket, &uid, place]), EPERM, "{uid} {place}");
            }
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null() && event["process"]["uid"] == AGENT_UID);
    }

    /// frames of a guest or a container, which the host forwards: no socket of the host's has seen them
    15 RefusedToCapability fn what_is_forwarded_for_a_guest_does_not_leave() {
        let lock = Lock::new();
        let control = Capture::start(&lock.world.stage, [OTHER4.into()]);
        let mut command = lock.world.stage.command(Side::Host, "sh");
        let sent = command.args(["-c", GUEST, FRAMES, &OTHER4.to_string(), &BIGQUERY4.to_string()]).output().expect("sh runs");
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
        assert_eq!(control.packets(), 1, "the host forwards for its guest");
        lock.nothing_got_out();
        lock.is_on_record("uplink", |_| true);
    }

    /// a relay in a process that is no agent
    16 Refused fn a_relay_outside_the_workload_is_refused_itself() {
        let lock = Lock::new();
        let relay = lock.world.stage.cgroups.make("relay");
        for uid in [Some(2002), None] {
            assert!(lock.go(&relay, uid, Way::TcpConnect, BIGQUERY4.into()).is("EPERM"));
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null());
    }

    /// a relay on another host, which the agent may reach: it carries what the agent says, and no credential but the agent's own
    16 Limit fn what_a_relay_on_another_host_carries_is_not_seen() {
        let lock = Lock::new();
        let elsewhere = Capture::start(&lock.world.stage, [OTHER4.into()]);
        let payload = Capture::of_text(&lock.world.stage, ["for bigquery".to_owned()]);
        python(&lock, Who::Agent, DATAGRAM, &[&OTHER4.to_string()]);
        assert_eq!([elsewhere.packets(), payload.packets()], [1, 1], "seen by where it goes and by what it says");
        lock.nothing_got_out();
    }

    /// a relay that is no agent, reached by an abstract socket: what it is handed, it cannot send
    17 Refused fn what_is_handed_to_a_relay_over_a_local_socket_does_not_leave() {
        let lock = Lock::new();
        let relay = lock.world.stage.cgroups.make("relay");
        let mut relay = Helper::start(&mut lock.script(&relay, Some(3001), RELAY, &[]));
        assert_eq!(relay.line(), "ready");
        let elsewhere = Capture::start(&lock.world.stage, [OTHER4.into()]);
        let told = python(&lock, Who::Agent, HAND, &[&OTHER4.to_string()]);
        assert!(told.starts_with("sent, ") && elsewhere.packets() > 0, "it passes on to others: {told}");
        let told = python(&lock, Who::Agent, HAND, &[&BIGQUERY4.to_string()]);
        assert_eq!(told, format!("{EPERM}, {EPERM}"));
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null() && event["process"]["uid"] == 3001);
    }

    /// packets that come in by a TUN device of the agent's making, which the host forwards
    18 RefusedToCapability fn what_comes_in_by_a_tun_device_is_not_forwarded() {
        let lock = Lock::new();
        let control = Capture::start(&lock.world.stage, [OTHER4.into()]);
        let agent = lock.world.cgroup_of(Who::Agent);
        said(&mut lock.script(&agent, None, TUN, &[&OTHER4.to_string(), &BIGQUERY4.to_string()]));
        assert_eq!(control.packets(), 1, "the host forwards what comes in there");
        lock.nothing_got_out();
        lock.is_on_record("uplink", |_| true);
    }

    /// packets that come in by a TUN device of somebody else's making, where only agents are enforced on: they have no socket here and could be an agent's
    18 RefusedToCapability fn where_only_agents_are_enforced_on_what_is_forwarded_stays_too() {
        let mut lock = Lock::without_daemon();
        lock.world.edit_config("[kernel]", "[kernel]\nenforce = \"agents\"");
        lock.world.start_daemon();
        let control = Capture::start(&lock.world.stage, [OTHER4.into()]);
        let other = lock.world.stage.cgroups.make("other");
        said(&mut lock.script(&other, None, TUN, &[&OTHER4.to_string(), &BIGQUERY4.to_string()]));
        assert_eq!(control.packets(), 1, "the host forwards what comes in there");
        lock.nothing_got_out();
        lock.is_on_record("uplink", |_| true);
    }

    /// SCTP, where the kernel has it
    18 Refused fn sctp_does_not_leave() {
        let lock = Lock::new();
        let is_there = lock.agent_goes(Way::SctpConnect) | lock.agent_goes(Way::SctpSend);
        lock.nothing_got_out();
        if is_there {
            lock.is_on_record("egress", |_| true);
        } else {
            absent();
        }
    }

    /// sockets of families that no program sees the way out of: VSOCK, to a hypervisor or a guest, and SMC
    18 LimitWithoutHooks fn a_family_that_is_not_seen_is_not_made() {
        let lock = Lock::new();
        for family in ["40", "43"] {
            let told = python(&lock, Who::Agent, MAKE, &[family]);
            if lock.has_hooks() {
                assert_eq!(told, EPERM);
            } else {
                assert!(["made", "Address family not supported by protocol"].contains(&told.as_str()), "{told}");
            }
        }
        if lock.has_hooks() {
            lock.is_on_record("socket refused: agents make no sockets of this family", agents);
        }
        lock.nothing_got_out();
    }

    /// a first segment without data over a raw socket, by root outside every workload: it asks for a connection, and is no late acknowledgement
    8 RefusedToCapability fn a_bare_first_segment_does_not_leave_unsaid() {
        let lock = Lock::new();
        let other = lock.world.stage.cgroups.make("other");
        assert_eq!(said(&mut lock.script(&other, None, BARE_SYN, &[&BIGQUERY4.to_string()])), EPERM);
        lock.nothing_got_out();
        lock.is_on_record("egress", |event| event["agent"].is_null());
    }

    /// what is no packet of IP's, on an interface without a link-layer header: something in it could be one
    9 RefusedToCapability fn what_is_no_packet_does_not_leave_by_a_tunnel() {
        let lock = Lock::new();
        let mut tunnel = lock.world.stage.command(Side::Host, "/usr/bin/python3");
        let mut tunnel = Helper::start(tunnel.args(["-c", TUNNEL]));
        assert_eq!(tunnel.line(), "up");
        wait_for("its guard", || lock.world.status()["checks"].to_string().contains("tun7"));
        let sends = |cgroup: &std::path::Path| said(&mut lock.script(cgroup, None, UNREAD, &[]));
        let told = sends(&lock.world.cgroup_of(Who::Agent));
        if lock.has_hooks() {
            assert_eq!(told, EPERM);
            lock.is_on_record("socket", agents);
        } else {
            assert_eq!(told, "No buffer space available");
            lock.is_on_record("uplink refused: what the frame carries is not read", agents);
        }
        assert_eq!(sends(&lock.world.stage.cgroups.make("other")), "sent", "it is nobody else's concern");
        assert_eq!(tunnel.close_and_line(), "1 came by");
        lock.nothing_got_out();
    }

    /// SMC by a family of IP's, which kernels have since 6.11
    18 Refused fn smc_is_not_made_by_another_family_either() {
        let lock = Lock::new();
        let told = [Who::Agent, Who::Operator].map(|who| python(&lock, who, MAKE_SMC, &[]));
        // A kernel without SMC says so to everybody, but where its security hooks are asked first.
        if told[1].contains("made") || lock.has_hooks() {
            assert_eq!(told[0], [EPERM; 2].join("\n"));
            lock.is_on_record("socket", agents);
        } else {
            assert_eq!(told[0], told[1]);
            absent();
        }
        lock.nothing_got_out();
    }

    /// the sending ring of AF_XDP, which no program on the way out sees
    18 RefusedToCapability fn the_sending_ring_of_xdp_is_refused() {
        let lock = Lock::new();
        let agent = lock.world.cgroup_of(Who::Agent);
        let go = |cgroup: &std::path::Path| said(&mut lock.script(cgroup, None, XDP_RING, &[]));
        if lock.has_hooks() {
            assert_eq!(go(&agent), EPERM);
            lock.is_on_record("socket", agents);
            assert_eq!(go(&lock.world.stage.cgroups.make("other")), format!("made\n{EPERM}"));
            lock.is_on_record("setsockopt", |_| true);
        } else {
            assert_eq!(go(&agent), format!("made\n{EPERM}"));
            lock.is_on_record("setsockopt", agents);
        }
        // Without the ring there is nothing to send with.
        lock.nothing_got_out();
    }

    /// ten thousand connections in a loop
    19 Refused fn ten_thousand_connections_are_ten_thousand_refusals() {
        let lock = Lock::new();
        let through = python(&lock, Who::Agent, LOOP, &[&BIGQUERY4.to_string(), "10000"]);
        assert_eq!(through, "0");
        lock.nothing_got_out();
        wait_for("all of them", || {
            let refused = lock.world.events("kernel_refused");
            let counted: u64 = refused.iter().filter(|event| agents(event)).filter_map(|event| event["count"].as_u64()).sum();
            let status = lock.world.json(Who::Operator, &["status"]);
            counted + status["kernel"]["events_lost"].as_u64().unwrap_or(0) >= 10_000
        });
        lock.is_on_record("connect4", agents);
    }

    /// an agent that holds CAP_BPF, and opens the enforcer's own maps
    21 LimitWithoutHooks fn who_may_write_the_kernels_maps_is_kept_from_them() {
        let lock = Lock::new();
        let agent = lock.world.cgroup_of(Who::Agent);
        let map = lock.world.stage.bpffs().join("enforcer/maps-v1/WINDOWS-2").display().to_string();
        let told = said(&mut lock.script(&agent, None, OPEN_MAP, &[&map]));
        if lock.has_hooks() {
            assert_eq!(told, EPERM);
            lock.is_on_record("bpf", agents);
        } else {
            assert_eq!(told, "opened");
        }
        lock.nothing_got_out();
    }

    /// a full ring of events
    20 Refused fn a_full_ring_of_events_refuses_all_the_same_and_counts_what_is_lost() {
        let lock = Lock::new();
        lock.world.signal_daemon(Signal::STOP);
        let through = python(&lock, Who::Agent, LOOP, &[&BIGQUERY4.to_string(), "20000"]);
        assert_eq!(through, "0");
        lock.nothing_got_out();
        lock.world.signal_daemon(Signal::CONT);
        // What the ring held is on record, and how many more there were is counted.
        wait_for("the count", || {
            let refused = lock.world.events("kernel_refused");
            let counted: u64 = refused.iter().filter(|event| agents(event)).filter_map(|event| event["count"].as_u64()).sum();
            let status = lock.world.json(Who::Operator, &["status"]);
            let lost = status["kernel"]["events_lost"].as_u64().unwrap_or(0);
            lost > 0 && counted > 0 && counted + lost >= 20_000
        });
        lock.is_on_record("connect4", agents);
    }

    /// programs that are attached and let everything through
    21 Noticed fn programs_that_are_attached_and_do_nothing_are_found_by_probing() {
        let lock = Lock::new();
        let faults = || lock.world.json(Who::Operator, &["status"])["unhealthy"].to_string();
        assert_eq!(faults(), "[]");
        let path = lock.world.stage.bpffs().join("enforcer/maps-v1/CONFIG-3");
        let data = lock.world.stage.on(Side::Host, || MapData::from_pin(path).expect("opens the map"));
        let mut configs: Array<_, Config> = Map::from_map_data(data).expect("a map").try_into().expect("typed");
        let config = configs.get(&0, 0).expect("reads");
        // Every program stays attached, and has nothing more to say to whoever is no agent, as the probes are not.
        configs.set(0, Config { enforce: ENFORCE_AGENTS, ..config }, 0).expect("root can");
        let found = "tcp-connect/v4 toward a protected address was not refused";
        wait_for("the probe", || faults().contains(found));
        wait_for("the record", || {
            let changes = lock.world.events("health_changed");
            changes.iter().any(|event| event["faults"].to_string().contains(found))
        });
        on_record();
        lock.nothing_got_out();
    }

    /// a process that ran before the daemon did
    22 Refused fn who_was_there_before_the_daemon_is_governed() {
        let mut lock = Lock::without_daemon();
        let script = "import socket, sys\nsys.stdin.readline()\ntry:\n    socket.create_connection((sys.argv[1], 443), 1)\n    print('ok')\nexcept OSError as error:\n    print(error.strerror)";
        let mut command = lock.world.run_as(Who::Agent, "/usr/bin/python3");
        command.args(["-c", script, &BIGQUERY4.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python runs");
        lock.world.start_daemon();
        child.stdin.take().expect("piped").write_all(b"go on\n").expect("writes");
        let output = child.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "Operation not permitted");
        lock.nothing_got_out();
        lock.is_on_record("connect4", agents);
    }
}
