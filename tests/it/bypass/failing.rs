//! What breaks, and what is broken on purpose: nothing gets out because of it, and it is said.

use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use enforcer::proxy::authority::{AUTHORITY_LIFE, Authority, AuthorityOptions};
use enforcer_proto::time::Now;
use harness::capture::Capture;
use harness::stage::{BIGQUERY4, OTHER4, Side};
use harness::world::{AGENT_UID, Who, World, enforcer, wait_for};
use rustix::process::{Resource, Signal, getrlimit};
use serde_json::{Value, json};

use super::shown::{nothing_on, said_so};
use super::talk::{BIGQUERY, DATASETS, JOBS, Talk, each, each_is_refused, get, post, query, talk};
use super::{CONNECT, EPERM, Helper, Lock, agents, cases, refusal_is_on_record, said};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
/// How old the daemon's last sign of life may get, and a little more.
const NO_LIFE: Duration = Duration::from_millis(2_200);
/// How many requests a flood has: more than the pace lets through.
const FLOOD_REQUESTS: usize = 2_500;

/// Connects, says something that is no TLS, and what comes of it once it is told to read.
const WAIT: &str = r#"
import socket, sys
stream = socket.create_connection((sys.argv[1], 443), 5)
stream.sendall(b"GET / HTTP/1.1\r\n\r\n")
stream.settimeout(0.5)
for _ in range(2):
    try:
        print(stream.recv(1), flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
    sys.stdin.readline()
    stream.settimeout(30)
"#;

/// Tries BigQuery, the metadata server beside the port that is stood in for, and a name server of its own choice.
const EVERYTHING: &str = r#"
import errno, socket, sys
def tell(what, how):
    try:
        how()
        print(what, "ok")
    except OSError as error:
        print(what, errno.errorcode.get(error.errno, error))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tell("bigquery", lambda: socket.create_connection((sys.argv[1], 443), 1))
tell("metadata", lambda: socket.create_connection(("169.254.169.254", 8080), 1))
tell("names", lambda: datagrams.sendto(b"a secret question", (sys.argv[2], 53)))
"#;

/// Sends a request so many times over one connection, the last of them with its end, and counts the refusals.
/// One thread both writes and reads: OpenSSL's connections are not for two threads at once.
const FLOOD: &str = r#"
import select, socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
name = "bigquery.googleapis.com"
stream = context.wrap_socket(socket.create_connection((sys.argv[2], 443), 60), server_hostname=name)
stream.setblocking(False)
count = int(sys.argv[3])
junk = b"GET /junk HTTP/1.1\r\nHost: bigquery.googleapis.com\r\n\r\n"
left = junk * (count - 1) + junk[:-2] + b"Connection: close\r\n\r\n"
refused, rest, part = 0, b"", None
while part != b"":
    select.select([stream], [stream] if left else [], [], 60)
    try:
        left = left[stream.send(left[:16384]):] if left else left
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass
    try:
        part = stream.recv(65536)
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        continue
    whole = rest + part
    refused += whole.count(b"HTTP/1.1 403")
    rest = whole[-11:]
print(refused)
"#;

/// What the agent's connection is told.
fn connect(lock: &Lock) -> String {
    let agent = lock.world.cgroup_of(Who::Agent);
    said(&mut lock.script(&agent, Some(AGENT_UID), CONNECT, &[&BIGQUERY4.to_string()]))
}

fn unhealthy(lock: &Lock) -> String {
    lock.world.json(Who::Operator, &["status"])["unhealthy"].to_string()
}

fn in_a_window() -> Lock {
    let lock = Lock::new();
    let _ = lock.world.open_window("demo-project.finance:read", "5m");
    lock
}

/// How many refusals are on record: those with a record of their own, and those that are only counted.
fn refusals(lock: &Lock) -> u64 {
    let alone = lock
        .world
        .events("query_refused")
        .iter()
        .filter(|event| agents(event))
        .count() as u64;
    let further = lock.world.events("further_refused");
    let counted = further
        .iter()
        .filter(|event| agents(event) && event["by"] == "proxy")
        .filter_map(|event| event["count"].as_u64());
    alone + counted.sum::<u64>()
}

/// What the agent is told over TLS when it trusts this authority.
fn trusting(lock: &Lock, authority: &std::path::Path) -> String {
    let script = "import socket, ssl, sys\ntry:\n    context = ssl.create_default_context(cafile=sys.argv[2])\n    context.wrap_socket(socket.create_connection((sys.argv[1], 443), 5), server_hostname='bigquery.googleapis.com')\n    print('ok')\nexcept OSError as error:\n    print(type(error).__name__)";
    let agent = lock.world.cgroup_of(Who::Agent);
    said(&mut lock.script(
        &agent,
        Some(AGENT_UID),
        script,
        &[&BIGQUERY4.to_string(), &authority.display().to_string()],
    ))
}

cases! {
    /// a configuration that cannot be read, at a restart within a window
    56 FailsClosed fn a_bad_configuration_starts_nothing_and_opens_nothing() {
        let mut lock = in_a_window();
        lock.world.kill_daemon();
        lock.world.edit_config("[kernel]", "[kernell]");
        let mut command = lock.world.stage.command(Side::Host, enforcer());
        let output = command.arg("daemon").arg("--config").arg(lock.world.config()).output().expect("runs");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        said_so(output.status.code() == Some(1) && told.contains("kernell"), &told);
        assert!([EPERM, "Connection refused"].contains(&connect(&lock).as_str()));
        lock.nothing_got_out();
        lock.world.edit_config("[kernell]", "[kernel]");
        lock.world.start_daemon();
        assert_eq!(lock.world.events("daemon_started").len(), 2, "and the one in between is not among them");
        assert_eq!(unhealthy(&lock), "[]");
    }

    /// a full disk under the log
    56 FailsClosed fn without_room_for_a_record_nothing_is_sent() {
        let mut lock = Lock::without_daemon();
        let audit = lock.world.state_dir().join("audit");
        std::fs::create_dir_all(&audit).expect("makes a folder");
        lock.world.stage.mount_small(&audit);
        lock.world.start_daemon();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        lock.world.stage.fill(&audit);
        // The log's own last page may still have room for a record or two.
        let full = (0..20).any(|_| {
            let more = lock.world.cli(Who::Agent, &["close", "g-99"]);
            String::from_utf8_lossy(&more.stderr).contains("[audit.unavailable]")
        });
        assert!(full, "the log ran full");
        each_is_refused(&lock.world, &[("audit.unavailable", query(DAILY)), ("audit.unavailable", get(DATASETS))]);
        lock.nothing_got_out();
        let told = unhealthy(&lock);
        said_so(told.contains("audit log cannot be written"), &told);
    }

    /// a token service that cannot be reached
    56 FailsClosed fn without_a_token_nothing_is_sent() {
        let lock = in_a_window();
        let job = json!({"configuration": {"query": {"query": DAILY, "useLegacySql": false}}}).to_string();
        let requests = [query(DAILY), get(DATASETS), post(JOBS, "", &job)];
        each_is_refused(&lock.world, &requests.map(|request| ("token.unavailable", request)));
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "token.unavailable", |event| agents(event) && event["sql"] == DAILY);
    }

    /// a daemon that is killed within a window
    56 FailsClosed fn a_killed_daemon_lets_nothing_through() {
        let mut lock = in_a_window();
        lock.world.kill_daemon();
        assert!([EPERM, "Connection refused"].contains(&connect(&lock).as_str()));
        // The kernel's clock is the subject: the last sign of life grows old.
        std::thread::sleep(NO_LIFE);
        assert_eq!(connect(&lock), EPERM);
        lock.nothing_got_out();
        lock.world.start_daemon();
        lock.is_on_record("connect4", agents);
    }

    /// a daemon that is frozen within a window
    56 FailsClosed fn a_frozen_daemon_lets_nothing_through() {
        let lock = in_a_window();
        let agent = lock.world.cgroup_of(Who::Agent);
        lock.world.signal_daemon(Signal::STOP);
        let mut waiting = Helper::start(&mut lock.script(&agent, Some(AGENT_UID), WAIT, &[&BIGQUERY4.to_string()]));
        assert_eq!(waiting.line(), "TimeoutError");
        std::thread::sleep(NO_LIFE);
        assert_eq!(connect(&lock), EPERM);
        lock.nothing_got_out();
        lock.world.signal_daemon(Signal::CONT);
        waiting.tell("go on");
        assert_eq!(waiting.line(), "ConnectionResetError", "what waited is judged when it wakes");
        lock.is_on_record("connect4", agents);
        refusal_is_on_record(&lock.world, "tls.hello", agents);
    }

    /// a daemon that may open no more files
    56 FailsClosed fn a_daemon_without_files_lets_nothing_through_and_says_so() {
        let lock = in_a_window();
        let agent = lock.world.cgroup_of(Who::Agent);
        lock.world.limit_files_of_daemon(3);
        let mut waiting = Helper::start(&mut lock.script(&agent, Some(AGENT_UID), WAIT, &[&BIGQUERY4.to_string()]));
        assert_eq!(waiting.line(), "TimeoutError");
        wait_for("a word about it", || lock.world.daemon_log().contains("a connection could not be accepted"));
        lock.nothing_got_out();
        lock.world.limit_files_of_daemon(getrlimit(Resource::Nofile).maximum.expect("a bound"));
        waiting.tell("go on");
        assert_eq!(waiting.line(), "ConnectionResetError", "what waited is judged when there are files again");
        refusal_is_on_record(&lock.world, "tls.hello", agents);
        each_is_refused(&lock.world, &[("token.unavailable", query(DAILY))]);
    }

    /// a daemon that may open no more files, where only agents are enforced on, and one of them is a unit without a uid: it cannot be looked for
    56 FailsClosed fn a_daemon_without_files_takes_no_agent_for_nobody() {
        let mut lock = Lock::without_daemon();
        lock.world.edit_config("cgroup = \"agents/finance-bot\"\nuid = 2001", "unit = \"finance-bot.service\"");
        lock.world.edit_config("[kernel]", "[kernel]\nenforce = \"agents\"");
        lock.world.start_daemon();
        let unit = lock.world.stage.cgroups.make("system.slice/finance-bot.service");
        let elsewhere = [OTHER4.into(), [169, 254, 169, 254].into()];
        let everything = || said(&mut lock.script(&unit, Some(AGENT_UID), EVERYTHING, &[&BIGQUERY4.to_string(), &OTHER4.to_string()]));
        // A unit that was not seen yet is nobody's: what it sends until then is not counted.
        wait_for("the unit to be seen", || everything().contains("metadata EPERM"));
        let wires = [Capture::start(&lock.world.stage, World::bigquery()), Capture::start(&lock.world.stage, elsewhere)];
        let closed = "bigquery EPERM\nmetadata EPERM\nnames ok";
        assert_eq!(everything(), closed);
        lock.world.limit_files_of_daemon(3);
        wait_for("a word about it", || lock.world.daemon_log().contains("cannot be looked at"));
        assert_eq!(everything(), closed);
        lock.world.limit_files_of_daemon(getrlimit(Resource::Nofile).maximum.expect("a bound"));
        for wire in &wires {
            nothing_on(wire, "packets for BigQuery, the metadata server or its own name server");
        }
        lock.is_on_record("connect4", agents);
        wait_for("everything to be well again", || unhealthy(&lock) == "[]");
    }

    /// a flood of refusals, so that some are left out of the log: all are counted
    56 Refused fn no_flood_drops_a_refusal_from_the_counts_nor_hides_anothers() {
        let lock = in_a_window();
        let agent = lock.world.cgroup_of(Who::Agent);
        let authority = lock.world.stage.dir().join("run/ca.pem").display().to_string();
        let count = FLOOD_REQUESTS.to_string();
        let told = said(&mut lock.script(&agent, Some(AGENT_UID), FLOOD, &[&authority, &BIGQUERY4.to_string(), &count]));
        assert_eq!(told, count, "each is refused");
        let others = talk(&lock.world, Who::OtherAgent, &[(BIGQUERY, vec![get(DATASETS)])] as &[Talk]).concat().concat();
        assert!(others.contains("[window.none]"), "{others}");
        lock.nothing_got_out();
        wait_for("all of them", || refusals(&lock) >= FLOOD_REQUESTS as u64);
        assert_eq!(refusals(&lock), FLOOD_REQUESTS as u64);
        refusal_is_on_record(&lock.world, "window.none", |event: &Value| event["agent"] == "ops-bot");
    }

    /// an authority that has expired
    56 FailsClosed fn an_expired_authority_is_replaced_and_vouches_for_nothing() {
        let mut lock = Lock::without_daemon();
        let state = lock.world.state_dir();
        std::fs::create_dir_all(&state).expect("makes a folder");
        std::fs::set_permissions(&state, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("closes it");
        let now = SystemClock.now();
        let long_ago_ns = u64::try_from(2 * AUTHORITY_LIFE.as_nanos()).expect("some decades");
        let then = Now { unix_ns: now.unix_ns - long_ago_ns, ..now };
        let options = AuthorityOptions { dir: state, host: "host-a".to_owned(), permitted: vec!["googleapis.com".to_owned()] };
        let expired = lock.world.stage.dir().join("expired.pem");
        std::fs::write(&expired, Authority::open(options, then).expect("makes one").pem()).expect("writes");
        lock.world.start_daemon();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        assert_eq!(trusting(&lock, &expired), "SSLCertVerificationError");
        assert_eq!(trusting(&lock, &lock.world.stage.dir().join("run/ca.pem")), "ok");
        assert!(each(&lock.world, &[query(DAILY)])[0].contains("[token.unavailable]"), "as ever with the new one");
        lock.nothing_got_out();
        refusal_is_on_record(&lock.world, "api.host", |event| agents(event) && event["refusal"]["what"].to_string().contains("the TLS handshake"));
    }

    /// a look-up that fails under the running daemon, and at its next start
    56 FailsClosed fn a_failed_look_up_unprotects_nothing() {
        let mut lock = Lock::without_daemon();
        let brief = json!({BIGQUERY: {"addresses": [BIGQUERY4], "ttl_s": 1}});
        lock.world.set_names(&brief);
        lock.world.start_daemon();
        lock.world.set_names(&json!("down"));
        wait_for("a failed look-up", || lock.world.daemon_log().contains("look-up failed"));
        assert_eq!(connect(&lock), EPERM);
        lock.world.kill_daemon();
        lock.world.start_daemon();
        assert_eq!(connect(&lock), EPERM);
        lock.nothing_got_out();
        lock.is_on_record("connect4", agents);
    }
}
