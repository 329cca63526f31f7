//! Tricks with identity: who a process is taken for.

use enforcer::prove::path::Way;
use harness::stage::{BIGQUERY4, Side};
use harness::world::{AGENT_UID, OTHER_AGENT_UID, Who, wait_for};

use super::{Lock, agents, cases};

/// What a program that calls itself something else is told.
const RENAMED: &str = r#"
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, b"enforcer", 0, 0, 0)
try:
    socket.create_connection((sys.argv[1], 443), 1)
    print("ok")
except OSError as error:
    print(error.strerror)
"#;

/// A process outside every workload lets one inside connect, takes its socket, and speaks TLS over it.
const BORROWED: &str = r#"
import array, os, socket, ssl, sys
address, procs, uid = sys.argv[1], sys.argv[2], int(sys.argv[3])
ours, theirs = socket.socketpair()
if os.fork() == 0:
    open(procs, "w").write("0")
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
    led = socket.create_connection((address, 443), 2)
    socket.send_fds(theirs, [b"x"], [led.fileno()])
    os._exit(0)
_, fds, _, _ = socket.recv_fds(ours, 1, 1)
os.wait()
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
led = context.wrap_socket(socket.socket(fileno=fds[0]), server_hostname="bigquery.googleapis.com")
led.sendall(b"GET /bigquery/v2/projects HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nConnection: close\r\n\r\n")
print(led.recv(100).decode())
"#;

cases! {
    /// a connection to the proxy that the agent made and hands to another process
    11 Limit fn a_connection_that_is_handed_on_is_the_agents_that_made_it() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let other = lock.world.stage.cgroups.make("other");
        let procs = lock.world.cgroup_of(Who::Agent).join("cgroup.procs").display().to_string();
        let mut command = lock.world.stage.command_in(Side::Host, Some(&other), None, "/usr/bin/python3");
        let uid = AGENT_UID.to_string();
        let output = command.args(["-c", BORROWED, &BIGQUERY4.to_string(), &procs, &uid]).output().expect("python runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("HTTP/1.1 "), "{said}{}", String::from_utf8_lossy(&output.stderr));
        // What comes of it is on record as the agent's, whose socket it is.
        wait_for("the record", || {
            let refused = lock.world.events("query_refused");
            let admitted = lock.world.events("query_admitted");
            refused.iter().chain(&admitted).any(agents)
        });
    }

    /// the same program outside the workload: an interpreter, a copy, a link
    25 Refused fn a_program_is_nobody_outside_its_workload() {
        let lock = Lock::new();
        let other = lock.world.stage.cgroups.make("other");
        assert!(lock.go(&other, Some(AGENT_UID), Way::TcpConnect, BIGQUERY4.into()).is("EPERM"));
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null() && event["process"]["uid"] == AGENT_UID);
    }

    /// a process that calls itself the daemon
    24 Refused fn a_name_is_no_identity() {
        let lock = Lock::new();
        let other = lock.world.stage.cgroups.make("other");
        let mut command = lock.world.stage.command_in(Side::Host, Some(&other), None, "/usr/bin/python3");
        let output = command.args(["-c", RENAMED, &BIGQUERY4.to_string()]).output().expect("python runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "Operation not permitted");
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["process"]["comm"] == "enforcer");
    }

    /// another uid inside the workload
    28 Refused fn another_uid_in_the_workload_is_not_the_agent() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let agent = lock.world.cgroup_of(Who::Agent);
        for uid in [Some(OTHER_AGENT_UID), Some(65_534), None] {
            assert!(lock.go(&agent, uid, Way::TcpConnect, BIGQUERY4.into()).is("EPERM"), "{uid:?}");
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| {
            agents(event) && event["verdict"].as_str().is_some_and(|verdict| verdict.contains("does not run as the agent's uid"))
        });
    }

    /// another agent's window
    30 Refused fn an_agent_does_not_use_the_window_of_another() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let finance = lock.world.cgroup_of(Who::Agent);
        let ops = lock.world.cgroup_of(Who::OtherAgent);
        let connect = |cgroup, uid| lock.go(cgroup, Some(uid), Way::TcpConnect, BIGQUERY4.into());
        assert!(!connect(&finance, AGENT_UID).is("EPERM"), "its own window is open");
        assert!(connect(&finance, OTHER_AGENT_UID).is("EPERM"));
        // Its own workload is explained to by the proxy, and so reaches the proxy, not BigQuery.
        assert!(!connect(&ops, OTHER_AGENT_UID).is("EPERM"));
        assert!(connect(&ops, AGENT_UID).is("EPERM"));
        lock.nothing_got_out();
    }
}
