//! The control socket, used by somebody who means harm.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use enforcer_ebpf::confine::FAMILIES;
use enforcer_proto::wire::{self, Ask, Hello};
use harness::programs::said;
use harness::world::{Family, Who, World, enforcer, script};

/// Sends what it reads to the control socket, and takes what comes back until the daemon closes or says nothing for so many seconds.
const RAW: &str = r#"
import os, socket, sys
stream = socket.socket(socket.AF_UNIX)
stream.connect(os.environ["ENFORCER_SOCKET"])
stream.sendall(sys.stdin.buffer.read())
stream.settimeout(float(sys.argv[1]))
got = b""
try:
    while part := stream.recv(65536):
        got += part
except OSError:
    pass
sys.stdout.buffer.write(got)
"#;

/// Takes connections as long as it gets them, up to 400, and holds them without a word until its input ends.
const SIT: &str = r#"
import os, socket, sys
held = []
for _ in range(400):
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(os.environ["ENFORCER_SOCKET"])
    held.append(stream)
print("sits", flush=True)
sys.stdin.read()
"#;

/// Runs its arguments on a terminal of their own, types a line into it, and prints that terminal's name, what was said and the exit code.
const ON_A_TERMINAL: &str = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.environ["SECRET"], os.environ["KEPT"] = "of the caller", "on purpose"
    print("caller", os.ttyname(0), flush=True)
    os.dup2(0, 9, inheritable=True)
    os.execv(sys.argv[1], sys.argv[1:])
os.write(terminal, b"typed\n")
try:
    while part := os.read(terminal, 65536):
        sys.stdout.write(part.decode())
except OSError:
    pass
print("exit", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

/// What a command finds out about itself.
const LOOK: &str = r#"
read -r line; echo "read $line"
echo "tty $(tty)"
(: < /dev/tty) 2>/dev/null && echo "has a terminal" || echo "has no terminal"
[ -e /proc/$$/fd/9 ] && echo "has the caller's file"
grep NoNewPrivs /proc/self/status
echo "session $(set -- $(cat /proc/$$/stat); echo $6) of $$"
env | sort
exit 7
"#;

/// Sends frames as they are, and gives what came back.
fn send(world: &World, who: Who, frames: &[Vec<u8>], patience_s: &str) -> Vec<u8> {
    let mut child = world
        .run_as(who, "/usr/bin/python3")
        .args(["-c", RAW, patience_s])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(&frames.concat()).expect("sends");
    drop(input);
    child.wait_with_output().expect("ends").stdout
}

fn hello() -> Vec<u8> {
    wire::encode(&Hello::ours()).expect("short")
}

/// A frame that asks for a window with this reason, however long.
fn request(reason: &str) -> Vec<u8> {
    let ask = enforcer_proto::policy::Ask {
        scope: "demo-project.finance:read".parse().expect("a scope"),
        ttl: "1m".parse().expect("a ttl"),
        reason: reason.to_owned(),
        bytes_max: None,
        queries_max: None,
    };
    wire::encode(&Ask::Request(ask)).expect("within a frame")
}

#[test]
fn no_reason_is_long_enough_to_stop_the_log() {
    let world = World::start(Family::V4);
    for (who, count) in [
        (Who::Agent, 1_000_000),
        (Who::Agent, 60_000),
        (Who::Approver, 60_000),
    ] {
        // Each of these takes six bytes in JSON.
        send(
            &world,
            who,
            &[hello(), request(&"\u{1}".repeat(count))],
            "1",
        );
    }
    let _ = world.open_window("demo-project.finance:read", "1m");
    assert!(world.query(&["SELECT COUNT(*) FROM finance.daily"])[0]["rows"].is_array());
    let status = world.json(Who::Operator, &["status"]);
    assert_eq!(status["unhealthy"], serde_json::json!([]), "{status}");
    let longest = world
        .records()
        .into_iter()
        .map(|record| record.to_string().len());
    assert!(longest.max().expect("has records") < 100_000);
}

#[test]
fn a_flood_of_refusals_is_counted_and_hardly_grows_the_log() {
    let world = World::start(Family::V4);
    let log = world.state_dir().join("audit/log-000001.jsonl");
    let bytes = || std::fs::metadata(&log).expect("a log").len();
    let before = bytes();
    let mut frames = vec![hello()];
    // What is asked without a reason is refused.
    frames.extend((0..2_000).map(|_| request("")));
    send(&world, Who::Agent, &frames, "2");
    harness::world::wait_for("the count", || {
        let counted = world.events("further_refused");
        let count: u64 = counted
            .iter()
            .filter(|event| event["agent"] == "finance-bot" && event["code"] == "input.invalid")
            .filter_map(|event| event["count"].as_u64())
            .sum();
        count + world.events("request_refused").len() as u64 == 2_000
    });
    assert!(bytes() - before < 100_000, "{}", bytes() - before);
    let status = world.json(Who::Operator, &["status"]);
    assert!(status["log"]["bytes"].as_u64() > Some(before));
    assert!(status["log"]["free_bytes"].is_u64(), "{status}");
}

#[test]
fn whoever_is_in_a_workload_joins_it_as_often_as_they_like_and_leaves_no_record() {
    let world = World::start(Family::V4);
    let join = Ask::Join {
        agent: "finance-bot".parse().expect("a name"),
        run: None,
    };
    let mut frames = vec![hello()];
    frames.extend((0..50).map(|_| wire::encode(&join).expect("within a frame")));
    let before = world.records().len();
    // More than may join from outside at once.
    for _ in 0..5 {
        let told = send(&world, Who::Agent, &frames, "2");
        let told = String::from_utf8_lossy(&told);
        assert_eq!(told.matches("REQUESTS_CA_BUNDLE").count(), 50, "{told}");
    }
    assert_eq!(world.events("process_joined").len(), 0);
    assert!(world.records().len() - before < 10, "nothing has happened");
}

#[test]
fn the_longest_query_is_on_record_and_read_back_whole() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    // Each of these takes two bytes in the log.
    let quotes = "\"".repeat(500_000);
    let sql = format!("SELECT COUNT(*) FROM finance.daily WHERE 'a' != '{quotes}'");
    let answer = world.client().query(&sql);
    assert!(answer["rows"].is_array(), "{}", answer["error"]);
    let admitted = world.events("query_admitted");
    assert!(
        admitted.iter().any(|event| event["sql"] == sql.as_str()),
        "the record reaches the reader whole"
    );
}

#[test]
fn an_agent_that_sits_on_the_control_socket_does_not_delay_a_revocation() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "1m");
    let mut sitter = world
        .run_as(Who::Agent, "/usr/bin/python3")
        .args(["-c", SIT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut line = String::new();
    let mut said = BufReader::new(sitter.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("reads");
    assert_eq!(line, "sits\n");
    let own = world.cli(Who::Agent, &["status"]);
    let refused = String::from_utf8_lossy(&own.stderr).into_owned();
    assert!(
        own.status.code() == Some(3) && refused.contains("[daemon.overloaded]"),
        "{refused}"
    );
    let began = SystemClock.now().boot_ns;
    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    let took = SystemClock.now().boot_ns - began;
    assert!(took < 2_000_000_000, "{took} ns");
    harness::world::wait_for("the count", || {
        world
            .events("further_refused")
            .iter()
            .any(|event| event["agent"] == "finance-bot" && event["code"] == "daemon.overloaded")
    });
    harness::world::wait_for("places that were held without a hello", || {
        world.cli(Who::Agent, &["status"]).status.success()
    });
    drop(sitter.stdin.take());
    assert!(sitter.wait().expect("ends").success());
}

/// Connects and hangs up as fast as it can, on several threads, until its input ends.
const FLOOD: &str = r#"
import os, socket, sys, threading
def flood():
    while True:
        try:
            s = socket.socket(socket.AF_UNIX); s.connect(os.environ["ENFORCER_SOCKET"]); s.close()
        except OSError:
            pass
for _ in range(4):
    threading.Thread(target=flood, daemon=True).start()
print("floods", flush=True)
sys.stdin.readline()
os._exit(0)
"#;

#[test]
fn an_agent_that_floods_the_control_socket_keeps_nobody_from_revoking() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "5m");
    let mut flood = world.run_as(Who::Agent, "/usr/bin/python3");
    let mut flood = flood
        .args(["-c", FLOOD])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut line = [0; 7];
    let output = flood.stdout.as_mut().expect("piped");
    output.read_exact(&mut line).expect("it floods");
    for _ in 0..20 {
        let began = SystemClock.now().boot_ns;
        let output = world.cli(Who::Approver, &["revoke", "g-99"]);
        let took = Duration::from_nanos(SystemClock.now().boot_ns - began);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "it was not reached: {said}");
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(world.json(Who::Approver, &["revoke", &grant])["done"], true);
    drop(flood.stdin.take());
    flood.wait().expect("ends");
}

#[test]
fn a_follower_that_hangs_up_gives_its_place_back_at_once() {
    let world = World::start(Family::V4);
    let follow = wire::encode(&Ask::Log {
        from: 1,
        follow: true,
        limit: None,
        filter: Box::default(),
    });
    let frames = [hello(), follow.expect("short")].concat();
    let socket = world.stage.dir().join("run/control.sock");
    // Three times as many as one uid may hold at a time: the earlier ones have given their places back.
    for _ in 0..3 * enforcer::control::CONNECTIONS_PER_WHO_MAX {
        let mut stream = UnixStream::connect(&socket).expect("connects");
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("sets");
        stream.write_all(&frames).expect("sends");
        // The daemon's hello, and at least one record: it follows from here on.
        stream.read_exact(&mut [0; 200]).expect("the log");
    }
    assert!(world.cli(Who::Operator, &["status"]).status.success());
}

#[test]
fn a_command_runs_in_a_session_and_a_terminal_of_its_own_with_little_of_the_callers() {
    let world = World::start(Family::V4);
    let run = |program: &std::path::Path, args: &[&str]| {
        let output = world
            .run_as(Who::Operator, program)
            .args(args)
            .env("SECRET", "of the caller")
            .stdin(Stdio::null())
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        (output.status.code(), said)
    };
    let enforcer = enforcer();
    let inner = [
        "run",
        "--agent",
        "finance-bot",
        "--keep-env",
        "KEPT",
        "--",
        "/bin/sh",
        "-c",
        LOOK,
    ];

    let program = enforcer.to_str().expect("a path");
    let args = [&["-c", ON_A_TERMINAL, program], &inner[..]].concat();
    let (_, said) = run("/usr/bin/python3".as_ref(), &args);
    let line = |name: &str| {
        let found = said.lines().find_map(|line| line.strip_prefix(name));
        found
            .unwrap_or_else(|| panic!("{name} in {said}"))
            .trim()
            .to_owned()
    };
    assert_eq!(line("read "), "typed");
    assert!(line("tty ").starts_with("/dev/pts/"), "{said}");
    assert_ne!(line("tty "), line("caller "));
    assert!(said.contains("has a terminal"), "{said}");
    assert!(!said.contains("has the caller's file"), "{said}");
    assert_eq!(line("NoNewPrivs:"), "1");
    let session = line("session ");
    let (session, own) = session.split_once(" of ").expect("two numbers");
    assert_eq!(session.trim(), own);
    assert!(
        !said.contains("SECRET") && said.contains("KEPT=on purpose"),
        "{said}"
    );
    assert_eq!(line("exit "), "7");

    let (code, said) = run(&enforcer, &inner);
    assert_eq!(code, Some(7));
    assert!(
        said.contains("has no terminal") && said.contains("tty not a tty"),
        "{said}"
    );
    assert!(
        !said.contains("SECRET") && said.contains("REQUESTS_CA_BUNDLE="),
        "{said}"
    );
}

#[test]
fn a_command_is_a_job_of_a_shell_in_the_background_in_the_foreground_in_a_pipeline_and_when_it_goes_on()
 {
    let world = World::start(Family::V4);
    for further in [&["--sandbox"][..], &[]] {
        let mut command = world.run_as(Who::Operator, "/usr/bin/python3");
        command.arg(script("agent/shell.py")).arg(enforcer());
        command.args(["run", "--agent", "finance-bot"]);
        command.args(further).arg("--");
        command.current_dir(world.own_folder(Who::Agent, "work"));
        let ended = command.stdin(Stdio::null()).output().expect("runs");
        let said = String::from_utf8_lossy(&ended.stdout);
        let said: Vec<&str> = said.lines().collect();
        assert_eq!(said, ["true"; 9], "{ended:?}");
    }
}

#[test]
fn commands_that_are_run_at_once_wait_for_each_other_where_the_daemon_takes_few_connections() {
    let world = World::start(Family::V4);
    let run = || {
        let mut command = world.run_as(Who::Operator, enforcer());
        command.args(["run", "--agent", "finance-bot", "--", "true"]);
        command.stderr(Stdio::piped()).spawn().expect("starts")
    };
    let all: Vec<_> = (0..48).map(|_| run()).collect();
    for child in all {
        let ended = child.wait_with_output().expect("ends");
        assert!(ended.status.success(), "{ended:?}");
    }
}

/// Makes a socket of each family, a ring of io_uring, a socket by a call of x32, and one of SMC by a family of IP's; prints what worked.
const MAKE: &str = r#"
import ctypes, os, socket
made = []
for family in range(1, 46):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try:
            socket.socket(family, kind, 0)
            made.append(family)
            break
        except PermissionError:
            made.append(family)
            break
        except OSError:
            pass
print(made)
libc = ctypes.CDLL(None, use_errno=True)
ring = libc.syscall(425, 4, ctypes.create_string_buffer(120))
print(os.strerror(ctypes.get_errno()) if ring < 0 else "a ring")
other = libc.syscall(0x40000000 | 41, 17, 3, 0)
print(os.strerror(ctypes.get_errno()) if other < 0 else "a socket by x32")
try:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, 256)
    print("a socket of SMC")
except OSError as error:
    print(error.strerror)
"#;

#[test]
fn a_command_makes_no_socket_that_leads_past_the_programs_and_no_ring_to_make_one() {
    let world = World::start(Family::V4);
    let run = |program: &std::path::Path, args: &[&str]| {
        let mut command = world.run_as(Who::Operator, program);
        said(command.args(args).args(["/usr/bin/python3", "-c", MAKE]))
    };
    let families = |told: &str| -> Vec<i32> {
        let line = told.lines().next().expect("a line");
        serde_json::from_str(line).expect("a list")
    };
    let enforcer = enforcer();
    let confined = run(&enforcer, &["run", "--agent", "finance-bot", "--"]);
    let made = families(&confined);
    assert!(
        made.iter().all(|family| FAMILIES.contains(family)) && made.contains(&10),
        "{confined}"
    );
    let [_, ring, x32, smc] = confined.lines().collect::<Vec<_>>()[..] else {
        panic!("{confined}")
    };
    assert_eq!(ring, "Function not implemented");
    // Few kernels have such calls, and say so otherwise: this is the filter's answer.
    assert_eq!(x32, "Operation not permitted");
    // A kernel without SMC says that it does not have the protocol.
    assert_eq!(smc, "Address family not supported by protocol");
    // What this is about: without it this host has others.
    let free = run("/usr/bin/env".as_ref(), &[]);
    assert!(
        families(&free).contains(&17) && free.contains("a ring") && !free.contains("not permitted"),
        "{free}"
    );
}

/// Starts its arguments traced, as a debugger does, and lets them run until they end; prints what they say.
const TRACED: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
child = os.fork()
if child == 0:
    libc.ptrace(0, 0, 0, 0)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    pid, status = os.waitpid(-1, 0x40000000)
    if pid == child and (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
        break
    if os.WIFSTOPPED(status):
        # PTRACE_O_TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC: whatever it starts is traced too.
        libc.ptrace(0x4200, pid, 0, 0x1E)
        signal = os.WSTOPSIG(status)
        libc.ptrace(7, pid, 0, 0 if signal in (5, 19) else signal)
"#;

#[test]
fn a_process_that_is_traced_does_not_join_a_workload() {
    let world = World::start(Family::V4);
    let program = enforcer();
    let run = |runner: &[&str]| {
        let mut command = world.run_as(Who::Operator, runner[0]);
        command.args(&runner[1..]).arg(&program).args([
            "run",
            "--agent",
            "finance-bot",
            "--",
            "/bin/echo",
            "inside",
        ]);
        let output = command.output().expect("runs");
        let both = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&both).into_owned()
    };
    let told = run(&["/usr/bin/python3", "-c", TRACED]);
    assert!(
        told.contains("is traced by another") && !told.contains("inside\n"),
        "{told}"
    );
    let refused = world.events("decision_refused");
    assert!(
        refused
            .iter()
            .any(|event| event["action"] == "join finance-bot"),
        "{refused:?}"
    );
    let told = run(&["/usr/bin/env"]);
    assert!(told.contains("inside"), "{told}");
}

/// A process of which only another thread than the first is traced says what it is given (hexadecimal frames) to the control socket, and prints
/// the answer.
const TRACED_THREAD: &str = r#"
import ctypes, os, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
child = os.fork()
if child == 0:
    ready = threading.Event()
    def traced():
        libc.ptrace(0, 0, 0, 0)
        ready.set()
        time.sleep(60)
    threading.Thread(target=traced, daemon=True).start()
    ready.wait()
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(os.environ["ENFORCER_SOCKET"])
    stream.settimeout(5)
    stream.sendall(b"".join(map(bytes.fromhex, sys.argv[1:])))
    got = b""
    try:
        while part := stream.recv(65536):
            got += part
            if len(got) > 100:
                break
    except OSError:
        pass
    print("".join(chr(byte) if 32 <= byte < 127 else " " for byte in got), flush=True)
    os._exit(0)
# The thread ends for its tracer first, and only then the process.
while os.waitpid(-1, 0x40000000)[0] != child:
    pass
"#;

#[test]
fn a_process_of_which_another_thread_is_traced_does_not_join_a_workload() {
    let world = World::start(Family::V4);
    let join = Ask::Join {
        run: None,
        agent: "finance-bot".parse().expect("a name"),
    };
    let hex = |bytes: Vec<u8>| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let frames = [
        hex(wire::encode(&Hello::ours()).expect("short")),
        hex(wire::encode(&join).expect("short")),
    ];
    let mut command = world.run_as(Who::Operator, "/usr/bin/python3");
    let told = said(command.args(["-c", TRACED_THREAD]).args(&frames));
    assert!(told.contains("is traced by another"), "{told}");
    assert_eq!(world.events("process_joined").len(), 0);
}
