//! What becomes of a command when `enforcer run` is ended at whatever moment, and of what the command says where that is read slowly.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::world::{Family, Who, World, enforcer, wait_for};
use rustix::process::{Pid, Signal, kill_process};

/// The moments at which it is ended: from before the command is begun until it runs.
const MOMENTS_MS: std::ops::Range<u64> = 0..80;
/// So far apart.
const STEP_MS: usize = 5;

/// A command that is not over for a while.
fn run(world: &World, further: &[&str]) -> Command {
    let mut command = world.run_as(Who::Operator, enforcer());
    command.args(["run", "--agent", "finance-bot"]);
    command.args(further).args(["--", "sleep", "600"]);
    command.current_dir(world.own_folder(Who::Agent, "work"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Ends it after so long.
fn ended(mut command: Command, after_ms: u64, by: Signal) -> Child {
    let child = command.spawn().expect("starts");
    // Between any two steps of its start: which, the clock alone says.
    std::thread::sleep(Duration::from_millis(after_ms));
    kill_process(Pid::from_child(&child), by).expect("signals");
    child
}

#[test]
fn a_command_ends_with_who_ran_it_at_whatever_moment_that_is_killed() {
    World::takes_over_orphans();
    let world = World::start(Family::V4);
    for further in [&["--sandbox"][..], &[]] {
        for after_ms in MOMENTS_MS.step_by(STEP_MS) {
            let mut child = ended(run(&world, further), after_ms, Signal::KILL);
            child.wait().expect("ends");
        }
        world.nobody_is_left(Who::Agent);
    }
}

#[test]
fn a_sandbox_that_is_stopped_with_its_job_ends_with_who_ran_it() {
    World::takes_over_orphans();
    let world = World::start(Family::V4);
    let mut child = run(&world, &["--sandbox"]).spawn().expect("starts");
    let states = || {
        let procs = world.cgroup_of(Who::Agent).join("cgroup.procs");
        let pids = std::fs::read_to_string(procs).expect("reads");
        let stat = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/stat"));
        let stats = pids.lines().map(|pid| stat(pid).unwrap_or_default());
        stats.collect::<Vec<_>>()
    };
    wait_for("it runs", || {
        states().iter().any(|stat| stat.contains("(sleep)"))
    });
    for stat in states() {
        let pid = stat.split(' ').next().and_then(|pid| pid.parse().ok());
        let pid = pid.and_then(Pid::from_raw).expect("a process");
        kill_process(pid, Signal::STOP).expect("stops");
    }
    child.kill().expect("kills");
    child.wait().expect("ends");
    world.nobody_is_left(Who::Agent);
}

#[test]
fn a_command_is_told_to_end_at_whatever_moment_who_runs_it_is_told() {
    World::takes_over_orphans();
    let world = World::start(Family::V4);
    for further in [&["--sandbox"][..], &[]] {
        for after_ms in MOMENTS_MS.step_by(STEP_MS) {
            let mut child = ended(run(&world, further), after_ms, Signal::TERM);
            let mut status = None;
            wait_for("it ends", || {
                status = child.try_wait().expect("waits");
                status.is_some()
            });
            let is_well = status.is_some_and(|status| status.success());
            assert!(!is_well, "{further:?} after {after_ms} ms");
        }
        world.nobody_is_left(Who::Agent);
    }
}

/// Runs its arguments on a terminal that it reads as a slow line does, and that nobody waits for who writes to it where its first is not `waits`; prints the
/// last line and the exit code.
const ON_A_SLOW_TERMINAL: &str = r#"
import os, pty, sys, time
pid, terminal = pty.fork()
if pid == 0:
    os.set_blocking(1, sys.argv[1] == "waits")
    os.execv(sys.argv[2], sys.argv[2:])
said = b""
try:
    while part := os.read(terminal, 2048):
        said += part
        time.sleep(0.05)
except OSError:
    pass
print(said.split()[-1].decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn all_that_a_command_says_is_shown_however_slowly_it_is_read() {
    let world = World::start(Family::V4);
    for how in ["waits", "does not"] {
        let mut command = world.run_as(Who::Operator, "/usr/bin/python3");
        command
            .args(["-c", ON_A_SLOW_TERMINAL, how])
            .arg(enforcer());
        command.args(["run", "--agent", "finance-bot", "--", "seq", "14000"]);
        let ended = command.stdin(Stdio::null()).output().expect("runs");
        assert_eq!(String::from_utf8_lossy(&ended.stdout), "14000 0\n", "{how}");
    }
}

/// What goes on talking to the terminal when the command has ended, for longer than anything here waits.
const TALKS_ON: &str = r#"
(trap '' HUP; setsid sh -c 'trap "" HUP; for i in $(seq 600); do echo -n .; sleep .3; done' &)
sleep .5
"#;

#[test]
fn what_a_command_leaves_talking_keeps_neither_its_runner_nor_its_window() {
    let world = World::start(Family::V4);
    let mut command = world.run_as(Who::Operator, "/usr/bin/python3");
    command.args(["-c", ON_A_SLOW_TERMINAL, "waits"]);
    command
        .arg(enforcer())
        .args(["run", "--agent", "finance-bot"]);
    command.args(["--scope", "demo-project.finance:read", "--ttl", "10m"]);
    command.args(["--reason", "a report", "--", "sh", "-c", TALKS_ON]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let runs = command.spawn().expect("starts");
    wait_for("it asks", || !world.events("requested").is_empty());
    let _ = world.json(Who::Approver, &["approve", "r-1"]);
    let ended = runs.wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(said.ends_with(" 0\n"), "{said}");
    assert_eq!(world.events("closed").len(), 1);
}

/// Becomes its arguments, which are not told of the end of what they start.
const DEAF_TO_CHILDREN: &str = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])";

#[test]
fn a_commands_exit_code_is_told_also_where_who_runs_it_was_started_not_to_hear_of_children() {
    let world = World::start(Family::V4);
    for further in [&["--sandbox"][..], &[]] {
        let mut command = world.run_as(Who::Operator, "/usr/bin/python3");
        command.args(["-c", DEAF_TO_CHILDREN]).arg(enforcer());
        command
            .args(["run", "--agent", "finance-bot"])
            .args(further);
        command.args(["--", "sh", "-c", "exit 7"]);
        command.current_dir(world.own_folder(Who::Agent, "work"));
        let ended = command.stdin(Stdio::null()).output().expect("runs");
        assert_eq!(ended.status.code(), Some(7), "{ended:?}");
    }
}

#[test]
fn a_sandbox_is_given_no_folder_and_no_socket_of_the_network_for_a_stream() {
    let world = World::start(Family::V4);
    let folder = std::fs::File::open("/").expect("opens");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let streams = [
        (Stdio::from(folder), "standard input is a folder"),
        (
            std::os::fd::OwnedFd::from(listener).into(),
            "standard input is a socket of the network",
        ),
    ];
    for (stream, why) in streams {
        let mut command = run(&world, &["--sandbox"]);
        command.stdin(stream).stderr(Stdio::piped());
        let ended = command.output().expect("runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains(why), "{said}");
    }
}
