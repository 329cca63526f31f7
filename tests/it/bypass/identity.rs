//! Tricks with identity: who a process is taken for.

use enforcer::prove::path::Way;
use enforcer_proto::wire::{self, Ask, Hello};
use harness::stage::{BIGQUERY4, Side};
use harness::world::{AGENT_UID, OTHER_AGENT_UID, Who, wait_for};

use super::{CONNECT, EPERM, Helper, Lock, agents, cases, said};

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

/// Puts a program where another was, and gives it the other's times.
const REPLACE: &str = r#"
import os, shutil, sys
program, with_what = sys.argv[1:3]
times = os.stat(program)
shutil.copy(with_what, program + ".new")
os.utime(program + ".new", ns=(times.st_atime_ns, times.st_mtime_ns))
os.rename(program + ".new", program)
"#;

/// Starts the interpreter in one form after another, has each run a script for an address, and prints what each said.
const FORMS: &str = r#"
import glob, os, shutil, subprocess, sys
folder, script, address = sys.argv[1:4]
python = os.path.realpath(sys.executable)
at = lambda name: os.path.join(folder, name)
os.symlink(python, at("symlink"))
for name in ("copy", "gone"):
    shutil.copy(python, at(name))
os.link(at("copy"), at("enforcer"))
gone = os.open(at("gone"), os.O_RDONLY)
os.unlink(at("gone"))
memory = os.memfd_create("enforcer", 0)
with open(python, "rb") as whole:
    os.write(memory, whole.read())
os.chdir(folder)
forms = [[at("symlink")], [at("enforcer")], ["./copy"], [f"{folder}/../{os.path.basename(folder)}//copy"],
         [glob.glob("/lib*/ld-linux-*.so.*")[0], python], [f"/proc/self/fd/{gone}"], [f"/proc/self/fd/{memory}"]]
for form in forms:
    done = subprocess.run(form + ["-c", script, address], env={"PYTHONHOME": "/usr"}, pass_fds=(gone, memory), capture_output=True, text=True)
    print(form[0], done.stdout.strip(), done.stderr.strip(), sep="|")
"#;

/// Connects, lets whoever has the same uid take what is its own, and waits.
const HOLD: &str = r#"
import ctypes, os, socket, sys
# Where a security module keeps processes of one uid apart, the agent can still let others in.
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
led = socket.create_connection((sys.argv[1], 443), 2)
print(os.getpid(), led.fileno(), flush=True)
sys.stdin.readline()
"#;

/// Lists the datasets of a project, and prints the code of what it is refused with.
const LIST: &str = r#"
import re, socket, ssl, sys
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
led = context.wrap_socket(socket.create_connection((sys.argv[1], 443), 15), server_hostname="bigquery.googleapis.com")
led.sendall(b"GET /bigquery/v2/projects/demo-project/datasets HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nConnection: close\r\n\r\n")
said = b""
while part := led.recv(65536):
    said += part
print(re.search(r"\[([a-z_]+\.[a-z_]+)\]", said.decode()).group(1))
"#;

/// Takes a socket out of another process, and speaks TLS over it.
const TAKE: &str = r#"
import ctypes, os, socket, ssl, sys
taken = ctypes.CDLL(None, use_errno=True).syscall(438, os.pidfd_open(int(sys.argv[1])), int(sys.argv[2]), 0)
assert taken >= 0, os.strerror(ctypes.get_errno())
context = ssl.create_default_context(); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
led = context.wrap_socket(socket.socket(fileno=taken), server_hostname="bigquery.googleapis.com")
led.sendall(b"GET /bigquery/v2/projects HTTP/1.1\r\nHost: bigquery.googleapis.com\r\nConnection: close\r\n\r\n")
print(led.recv(100).decode())
"#;

/// A process in the agent's workload (given by its procs file) connects to BigQuery's address and to the control socket, hands over the
/// latter and ends. Another takes over its number and tries to connect, as the agent's uid but outside; a third goes on at the socket.
const SAME_NUMBER: &str = r#"
import ctypes, os, socket, sys
address, control, inside, uid, hello, ask = sys.argv[1:7]
libc = ctypes.CDLL(None, use_errno=True)
ours, theirs = socket.socketpair()

def become(uid):
    os.setgroups([]); os.setgid(uid); os.setuid(uid)

def tell(who):
    try:
        socket.create_connection((address, 443), 1)
        said = "ok"
    except OSError as error:
        said = error.strerror
    print(who, said, flush=True)

first = os.fork()
if first == 0:
    open(inside, "w").write("0")
    become(int(uid))
    tell("first")
    stream = socket.socket(socket.AF_UNIX); stream.connect(control); stream.sendall(bytes.fromhex(hello))
    stream.recv(1)
    socket.send_fds(theirs, [b"x"], [stream.fileno()])
    os._exit(0)
_, fds, _, _ = socket.recv_fds(ours, 1, 1)
os.waitpid(first, 0)
number = (ctypes.c_int * 1)(first)
# clone3 with a number of its choice, and SIGCHLD at its end.
arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17, 0, 0, 0, ctypes.addressof(number), 1, 0)
second = libc.syscall(435, arguments, ctypes.sizeof(arguments))
assert second >= 0, os.strerror(ctypes.get_errno())
if second == 0:
    become(int(uid))
    tell("second")
    os.read(theirs.fileno(), 1)
    os._exit(0)
assert second == first
stream = socket.socket(fileno=fds[0])
stream.sendall(bytes.fromhex(ask))
stream.settimeout(5)
got = b""
try:
    while part := stream.recv(65536):
        got += part
except ConnectionResetError:
    pass
print("third", len(got), flush=True)
ours.send(b"x")
os.waitpid(second, 0)
"#;

/// Runs a script with an interpreter of many gigabytes, then one that comes through a pipe.
const LARGE: &str = r#"
set -e
cp "$(readlink -f /usr/bin/python3)" "$0/large"
/usr/bin/python3 -c 'import os, sys; os.truncate(sys.argv[1], 1 << 40)' "$0/large"
PYTHONHOME=/usr "$0/large" -c "$1" "$2"
mkfifo "$0/pipe"
printf '%s' "$1" > "$0/pipe" &
/usr/bin/python3 "$0/pipe" "$2"
"#;

fn outside(lock: &Lock) -> std::path::PathBuf {
    lock.world.stage.cgroups.make("other")
}

/// A folder where the agent may write.
fn agents_folder(lock: &Lock) -> String {
    lock.world.stage.dir().join("agent").display().to_string()
}

fn hex(message: &[u8]) -> String {
    message.iter().map(|byte| format!("{byte:02x}")).collect()
}

cases! {
    /// a connection to the proxy that the agent made and hands to another process
    11 LimitWithoutHooks fn a_connection_that_is_handed_on_is_the_agents_that_made_it() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let other = lock.world.stage.cgroups.make("other");
        let procs = lock.world.cgroup_of(Who::Agent).join("cgroup.procs").display().to_string();
        let mut command = lock.world.stage.command_in(Side::Host, Some(&other), None, "/usr/bin/python3");
        let uid = AGENT_UID.to_string();
        let output = command.args(["-c", BORROWED, &BIGQUERY4.to_string(), &procs, &uid]).output().expect("python runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let cried = String::from_utf8_lossy(&output.stderr).into_owned();
        if lock.has_hooks() {
            assert!(cried.contains(EPERM), "{said}{cried}");
            lock.nothing_got_out();
            lock.is_on_record("send refused: the socket was made outside", |event| event["agent"].is_null());
            return;
        }
        assert!(said.starts_with("HTTP/1.1 "), "{said}{cried}");
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

    /// a process in the daemon's own cgroup, which takes root or one who may write root's files
    24 Refused fn who_is_in_the_daemons_cgroup_is_not_the_daemon() {
        let lock = Lock::new();
        let daemon = lock.world.stage.cgroups.make("enforcer");
        for (way, uid) in [(Way::TcpConnect, Some(AGENT_UID)), (Way::UdpSend, None), (Way::RawEcho, None), (Way::RawHeader, None)] {
            let ended = lock.go(&daemon, uid, way, BIGQUERY4.into());
            assert!(ended.is("EPERM"), "{way:?}: {ended}");
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null() && event["process"]["uid"] == AGENT_UID);
        lock.is_on_record("egress", |_| true);
    }

    /// a program that is replaced after its first use, its times restored: what runs in the workload is the agent, whatever it is
    23 Limit fn what_is_put_in_a_programs_place_is_the_agent_only_in_its_workload() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let address = BIGQUERY4.to_string();
        let program = format!("{}/tool", agents_folder(&lock));
        std::fs::copy("/bin/true", &program).expect("copies");
        let run = |cgroup: &std::path::Path| {
            let mut command = lock.world.stage.command_in(Side::Host, Some(cgroup), Some(AGENT_UID), &program);
            said(command.env("PYTHONHOME", "/usr").args(["-c", CONNECT, &address]))
        };
        let inside = lock.world.cgroup_of(Who::Agent);
        assert_eq!(run(&inside), "");
        let python = std::fs::canonicalize("/usr/bin/python3").expect("is there").display().to_string();
        said(&mut lock.script(&inside, Some(AGENT_UID), REPLACE, &[&program, &python]));
        assert_eq!(run(&inside), "ok", "led to the proxy, where its requests are judged");
        assert_eq!(run(&outside(&lock)), EPERM);
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null() && event["process"]["uid"] == AGENT_UID);
    }

    /// another executable inside the workload, a copy of an allowed one included, where the agent is narrowed to some
    23 Refused fn another_executable_goes_nowhere_where_the_agent_is_narrowed() {
        let mut lock = Lock::without_daemon();
        let copy = format!("{}/copy", agents_folder(&lock));
        std::fs::copy("/usr/bin/python3", &copy).expect("copies");
        lock.world.edit_config("uid = 2001", "uid = 2001\nexecutables = [\"/usr/bin/python3\"]");
        lock.world.start_daemon();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let inside = lock.world.cgroup_of(Who::Agent);
        let ask = |program: &str| {
            let mut command = lock.world.stage.command_in(Side::Host, Some(&inside), Some(AGENT_UID), program);
            said(command.env("PYTHONHOME", "/usr").args(["-c", LIST, &BIGQUERY4.to_string()]))
        };
        // Without a far side there is no token: the one that is listed comes so far.
        assert_eq!(ask("/usr/bin/python3"), "token.unavailable");
        assert_eq!(ask(&copy), "program.not_allowed");
        lock.nothing_got_out();
        super::refusal_is_on_record(&lock.world, "program.not_allowed", |event| agents(event) && event["process"]["comm"] == "copy");
    }

    /// other forms of a program: a symbolic or hard link, a copy, a relative path, `ld.so PROGRAM`, a deleted file, memory
    24 Refused fn the_form_in_which_a_program_is_started_makes_no_difference() {
        let lock = Lock::new();
        let folder = agents_folder(&lock);
        let told = said(&mut lock.script(&outside(&lock), Some(AGENT_UID), FORMS, &[&folder, CONNECT, &BIGQUERY4.to_string()]));
        assert_eq!(told.lines().count(), 7, "{told}");
        for line in told.lines() {
            assert_eq!(line.split('|').nth(1), Some(EPERM), "{line}");
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["process"]["comm"] == "enforcer" && event["process"]["uid"] == AGENT_UID);
    }

    /// code that the environment puts into the agent's programs (shown with PYTHONPATH)
    26 Refused fn what_the_environment_puts_into_a_program_is_judged_as_the_program() {
        let lock = Lock::new();
        let folder = agents_folder(&lock);
        std::fs::write(format!("{folder}/sitecustomize.py"), CONNECT.replace("sys.argv[1]", &format!("'{BIGQUERY4}'"))).expect("writes");
        for cgroup in [lock.world.cgroup_of(Who::Agent), outside(&lock)] {
            let told = said(lock.script(&cgroup, Some(AGENT_UID), "", &[]).env("PYTHONPATH", &folder));
            assert_eq!(told, EPERM);
        }
        lock.nothing_got_out();
        lock.is_on_record("connect4", agents);
    }

    /// a process of the agent's uid, outside the workload, that traces the agent's or takes its sockets (`ptrace`, `pidfd_getfd`)
    26 LimitWithoutHooks fn who_may_trace_the_agent_is_the_agent() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let inside = lock.world.cgroup_of(Who::Agent);
        let mut agent = Helper::start(&mut lock.script(&inside, Some(AGENT_UID), HOLD, &[&BIGQUERY4.to_string()]));
        let held = agent.line();
        let place: Vec<&str> = held.split(' ').collect();
        // Another uid may not, and of the same uid nobody is kept from it.
        let mut stranger = lock.script(&outside(&lock), Some(3001), TAKE, &place);
        assert!(!stranger.output().expect("runs").status.success());
        if lock.has_hooks() {
            let mut taker = lock.script(&outside(&lock), Some(AGENT_UID), TAKE, &place);
            let output = taker.output().expect("runs");
            assert!(String::from_utf8_lossy(&output.stderr).contains(EPERM));
            agent.tell("end");
            lock.nothing_got_out();
            lock.is_on_record("ptrace", |event| event["process"]["uid"] == AGENT_UID);
            return;
        }
        let told = said(&mut lock.script(&outside(&lock), Some(AGENT_UID), TAKE, &place));
        assert!(told.starts_with("HTTP/1.1 403"), "{told}");
        agent.tell("end");
        lock.nothing_got_out();
        // What comes of it is on record as the agent's, whose socket it is.
        super::refusal_is_on_record(&lock.world, "token.unavailable", agents);
    }

    /// a process that takes over the number of one that has ended
    27 Refused fn a_number_that_is_used_again_is_another_process() {
        let lock = Lock::new();
        let _ = lock.world.open_window("demo-project.finance:read", "5m");
        let control = lock.world.stage.dir().join("run/control.sock").display().to_string();
        let inside = lock.world.cgroup_of(Who::Agent).join("cgroup.procs").display().to_string();
        let frames = [wire::encode(&Hello::ours()), wire::encode(&Ask::Status)].map(|frame| hex(&frame.expect("short")));
        let [hello, ask] = &frames;
        let arguments = [BIGQUERY4.to_string(), control, inside, AGENT_UID.to_string(), hello.clone(), ask.clone()];
        let told = said(&mut lock.script(&outside(&lock), None, SAME_NUMBER, &arguments.each_ref().map(String::as_str)));
        let mut answers: Vec<&str> = told.lines().collect();
        answers.sort_unstable();
        let second = format!("second {EPERM}");
        // The third read what is left of the daemon's hello, and nothing after it.
        let greeting = wire::encode(&Hello::ours()).expect("short").len() - 1;
        assert_eq!(answers, ["first ok", &second, &format!("third {greeting}")]);
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["agent"].is_null() && event["process"]["uid"] == AGENT_UID);
        wait_for("the record of the third", || {
            let refused = lock.world.events("further_refused");
            refused.iter().any(|event| event["by"] == "control" && event["code"] == "caller.unknown")
        });
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

    /// an executable of a terabyte, and a program that is read from a pipe: nobody waits for either
    29 Refused fn no_program_is_too_large_to_be_refused_at_once() {
        let lock = Lock::new();
        let mut command = lock.world.stage.command_in(Side::Host, Some(&outside(&lock)), Some(AGENT_UID), "timeout");
        let told = said(command.args(["10", "sh", "-c", LARGE, &agents_folder(&lock), CONNECT, &BIGQUERY4.to_string()]));
        assert_eq!(told, format!("{EPERM}\n{EPERM}"));
        lock.nothing_got_out();
        lock.is_on_record("connect4", |event| event["process"]["comm"] == "large");
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
        // Each on record as whose workload it was tried in, with the uid that tried.
        lock.is_on_record("connect4", |event| agents(event) && event["process"]["uid"] == OTHER_AGENT_UID);
        lock.is_on_record("connect4", |event| event["agent"] == "ops-bot" && event["process"]["uid"] == AGENT_UID);
    }
}
