//! Which of the host's folders the command of `enforcer run --sandbox` has: sockets of the host's services, which are reached from every network
//! namespace, are in none of them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::programs::said;
use harness::stage::Side;
use harness::world::{Client, Family, Who, World, enforcer, policy};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{done, in_a_sandbox, in_a_sandbox_at};

/// Who listens at a path on the host, and lets everybody in.
fn listens(world: &World, at: &Path) -> UnixListener {
    world.stage.on(Side::Host, || {
        let folder = at.parent().expect("a folder");
        std::fs::create_dir_all(folder).expect("makes a folder");
        let listener = UnixListener::bind(at).expect("listens");
        let everybodys = PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(at, everybodys).expect("opens it");
        listener
    })
}

/// Says for each path that it is given, by a line, what came of a connection to the socket there.
const CONNECTS: &str = "
import errno, json, socket, sys
for line in sys.stdin:
    try:
        socket.socket(socket.AF_UNIX).connect(line.strip())
        said = 'connected'
    except OSError as error:
        said = errno.errorcode[error.errno]
    print(json.dumps(said), flush=True)
";

fn connects(client: &mut Client, at: &Path) -> Value {
    client.query(&at.display().to_string())
}

#[test]
fn a_command_is_not_run_in_a_folder_by_which_a_sandbox_would_have_the_hosts_sockets_and_is_told_why()
 {
    let mut world = World::without_daemon(Family::V4);
    // Nobody would have to be waited for.
    world.set_policy(&policy("15m", true));
    world.start_daemon();
    world.stage.mount_small(Path::new("/run"));
    let _bus = listens(&world, Path::new("/run/host/bus"));
    let link = world.stage.dir().join("link");
    symlink("/run/host", &link).expect("links");
    let scope = Some("demo-project.finance:read");
    for (folder, named, own) in [
        ("/run", "/run", "/run"),
        ("/run/host", "/run/host", "/run"),
        ("/var/run/host", "/run/host", "/run"),
        (link.to_str().expect("is text"), "/run/host", "/run"),
        ("/tmp", "/tmp", "/tmp"),
        ("/var/tmp", "/var/tmp", "/var/tmp"),
        ("/var", "/var", "/var/tmp"),
        ("/proc", "/proc", "/proc"),
        ("/proc/sys", "/proc/sys", "/proc"),
        ("/dev", "/dev", "/dev"),
        ("/dev/shm", "/dev/shm", "/dev"),
        ("/sys", "/sys", "/sys"),
        ("/sys/fs/cgroup", "/sys/fs/cgroup", "/sys"),
    ] {
        let mut command = in_a_sandbox_at(&world, Path::new(folder), &enforcer(), scope);
        let ended = command.args(["echo", "it", "ran"]).output().expect("runs");
        let why = format!(
            "enforcer: --sandbox gives the command its working folder to write, which is {named}, and never this host's {own}: cd to a folder of the command's own first, such as ~/work\n"
        );
        assert_eq!(String::from_utf8_lossy(&ended.stderr), why, "{folder}");
        assert_eq!(ended.status.code(), Some(2), "{folder}");
        assert!(ended.stdout.is_empty(), "{folder}");
    }
    // Nothing had been started by then, and nobody asked.
    for kind in ["process_joined", "requested"] {
        assert_eq!(world.events(kind), Vec::<Value>::new(), "{kind}");
    }
    let mut at_the_root = in_a_sandbox_at(&world, Path::new("/"), &enforcer(), None);
    let (is_well, said) = done(at_the_root.args(["sh", "-c", "pwd; ls -A /run"]));
    assert!(is_well && said == "/tmp\n", "{said}");
}

#[test]
fn a_command_is_not_run_in_a_folder_that_shows_the_hosts_run_elsewhere() {
    let world = World::start(Family::V4);
    world.stage.mount_small(Path::new("/run"));
    let _bus = listens(&world, Path::new("/run/host/bus"));
    let stage = world.stage.dir().to_owned();
    let own = world.own_folder(Who::Agent, "own");
    let shows = |what: &Path, name: &str| {
        let at = world.own_folder(Who::Agent, name);
        let mut command = world.stage.command(Side::Host, "mount");
        let _ = said(command.arg("--bind").args([what, &at]));
    };
    shows(Path::new("/run"), "run-too");
    shows(Path::new("/run/host"), "host-too");
    shows(&own, "own-too");
    for name in ["run-too", "run-too/host", "host-too"] {
        let folder = stage.join(name);
        let mut command = in_a_sandbox_at(&world, &folder, &enforcer(), None);
        let ended = command.args(["echo", "it", "ran"]).output().expect("runs");
        let told = String::from_utf8_lossy(&ended.stderr);
        let why = format!(
            "which is {}, and never this host's /run: cd",
            folder.display()
        );
        assert!(told.contains(&why), "{name}: {told}");
        assert_eq!(ended.status.code(), Some(2), "{name}");
        assert!(ended.stdout.is_empty(), "{name}");
    }
    let mut command = in_a_sandbox_at(&world, &stage.join("own-too"), &enforcer(), None);
    let (is_well, said) = done(command.args(["echo", "it", "ran"]));
    assert!(is_well && said == "it ran\n", "{said}");
}

#[test]
fn no_socket_that_a_process_of_the_host_listens_on_in_run_or_tmp_is_reached_from_within_a_sandbox()
{
    let mut world = World::start(Family::V4);
    world.stage.mount_small(Path::new("/run"));
    let stage = world.stage.dir().to_owned();
    let in_run = ["/run/bus", "/run/host/bus"].map(PathBuf::from);
    let in_tmp = ["bus", "host/bus"].map(|name| stage.join(name));
    let others = [in_run, in_tmp].concat();
    let _listeners: Vec<UnixListener> = others.iter().map(|at| listens(&world, at)).collect();
    let socket = stage.join("run/control.sock");

    let mut outside = world.run_as(Who::Agent, "/usr/bin/python3");
    outside.args(["-c", CONNECTS]);
    let mut outside = Client::start(outside);
    let mut inside = in_a_sandbox(&world, None);
    inside.args(["/usr/bin/python3", "-c", CONNECTS]);
    let mut inside = Client::start(inside);
    for other in &others {
        assert_eq!(
            connects(&mut outside, other),
            "connected",
            "{}",
            other.display()
        );
        assert_eq!(
            connects(&mut inside, other),
            "ENOENT",
            "{}",
            other.display()
        );
    }
    // The daemon's is, also the one that it makes anew.
    assert_eq!(connects(&mut inside, &socket), "connected");
    world.stop_daemon();
    assert!(
        ["ENOENT", "ECONNREFUSED"]
            .map(Value::from)
            .contains(&connects(&mut inside, &socket))
    );
    world.start_daemon();
    assert_eq!(connects(&mut inside, &socket), "connected");
}

#[test]
fn of_an_emptied_folder_a_sandbox_has_the_program_and_the_run_folder_and_nothing_beside_them() {
    let world = World::start(Family::V4);
    let stage = world.stage.dir().to_owned();
    let folder = stage.join("programs");
    std::fs::create_dir(&folder).expect("makes a folder");
    let program = folder.join("enforcer");
    std::fs::copy(enforcer(), &program).expect("copies");
    std::fs::write(folder.join("secret"), "").expect("writes");
    let work = world.own_folder(Who::Agent, "work");
    let look = format!(
        "cd {}; echo *; echo programs/*; touch run/x programs/x; ls -A run; touch work/x",
        stage.display()
    );
    let mut command = in_a_sandbox_at(&world, &work, &program, None);
    let (is_well, said) = done(command.args(["sh", "-c", &look]));
    assert!(
        is_well && said.starts_with("programs run work\nprograms/enforcer\n"),
        "{said}"
    );
    assert!(
        said.contains("ca.pem") && said.contains("control.sock"),
        "{said}"
    );
    assert!(!stage.join("run/x").exists() && work.join("x").exists());

    // Where others have their things beside the daemon's, theirs are not shown with it.
    let _bus = listens(&world, &stage.join("run/bus"));
    let mut command = in_a_sandbox_at(&world, &work, &program, None);
    let look = format!(
        "ls -A {0}; test -S \"$ENFORCER_SOCKET\" && echo asks",
        stage.join("run").display()
    );
    let (is_well, said) = done(command.args(["sh", "-c", &look]));
    let alone = "ca-bundle.pem\nca.pem\ncontrol.sock\nplaceholder-token\nasks\n";
    assert!(is_well && said == alone, "{said}");
}

/// Says that it is ready, and ends in its own way when it is to end. With an argument it leads a group of its own, as a shell with jobs does.
const ENDS_BY_ITSELF: &str = "
import os, signal, sys
if len(sys.argv) > 1:
    os.setpgid(0, 0)
def end(*_):
    os.write(1, b'cleaned up\\n')
    os._exit(5)
for passed_on in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(passed_on, end)
os.write(1, b'ready\\n')
while True:
    signal.pause()
";

#[test]
fn a_signal_is_passed_on_to_a_command_in_a_sandbox_which_ends_as_it_chooses_and_with_who_ran_it() {
    World::takes_over_orphans();
    let world = World::start(Family::V4);
    let run = |further: &[&str]| {
        let mut command = in_a_sandbox(&world, None);
        command.args(["/usr/bin/python3", "-c", ENDS_BY_ITSELF]);
        command.args(further);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("starts");
        let mut said = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("reads");
        assert_eq!(line, "ready\n");
        (child, said)
    };
    let signals = [
        Signal::TERM,
        Signal::INT,
        Signal::HUP,
        Signal::QUIT,
        Signal::USR1,
        Signal::USR2,
    ];
    let leads: [&[&str]; 2] = [&[], &["leads"]];
    for (signal, further) in signals.into_iter().zip(leads.into_iter().cycle()) {
        let (mut child, mut said) = run(further);
        kill_process(Pid::from_child(&child), signal).expect("signals");
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("reads");
        assert_eq!(rest, "cleaned up\n", "{signal:?}");
        assert_eq!(child.wait().expect("ends").code(), Some(5), "{signal:?}");
    }
    let (mut child, mut said) = run(&[]);
    child.kill().expect("kills");
    child.wait().expect("ends");
    // Nobody holds the other end any more.
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("reads");
    assert_eq!(rest, "");
    world.nobody_is_left(Who::Agent);
}

/// Goes to a folder and becomes a command that is not to hear the end of a terminal, as nohup has it.
const NOT_HUNG_UP: &str = "trap '' HUP; cd \"$0\" && exec \"$@\"";

#[test]
fn a_signal_that_was_not_to_be_heard_from_the_start_is_not_heard_by_a_command_in_a_sandbox_nor_out_of_it()
 {
    let world = World::start(Family::V4);
    let work = world.own_folder(Who::Agent, "work");
    for further in [&["--sandbox"][..], &[]] {
        let mut command = world.run_as(Who::Operator, "sh");
        command.args(["-c", NOT_HUNG_UP]).arg(&work).arg(enforcer());
        command
            .args(["run", "--agent", "finance-bot"])
            .args(further);
        let (is_well, said) = done(command.args(["--", "grep", "SigIgn", "/proc/self/status"]));
        let ignored = said.trim().trim_start_matches("SigIgn:").trim();
        let ignored = u64::from_str_radix(ignored, 16);
        let is_ignored = |signal: Signal| {
            let bit = 1 << (signal.as_raw() - 1);
            ignored.as_ref().is_ok_and(|ignored| ignored & bit != 0)
        };
        assert!(is_well && is_ignored(Signal::HUP), "{further:?}: {said}");
        for heard in [Signal::TERM, Signal::INT, Signal::QUIT] {
            assert!(!is_ignored(heard), "{further:?}: {said}");
        }
    }
}

#[test]
fn a_command_that_is_not_there_or_cannot_be_run_is_said_and_told_by_the_exit_code_in_a_sandbox_and_out_of_it()
 {
    let world = World::start(Family::V4);
    let plain = || {
        let mut command = world.run_as(Who::Operator, enforcer());
        command.args(["run", "--agent", "finance-bot", "--"]);
        command
    };
    for (program, code) in [("/no/such-program", 127), ("/etc/passwd", 126)] {
        for mut command in [plain(), in_a_sandbox(&world, None)] {
            let ended = command.arg(program).output().expect("runs");
            let told = String::from_utf8_lossy(&ended.stderr);
            assert!(told.contains(&format!("cannot run {program}: ")), "{told}");
            assert_eq!(ended.status.code(), Some(code), "{told}");
        }
    }
}

#[test]
fn no_sandbox_is_made_for_root_who_could_undo_it_nor_where_the_agents_uid_cannot_be() {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config("uid = 2001\n", "");
    world.start_daemon();
    let ended = in_a_sandbox(&world, None).args(["id", "-u"]).output();
    let ended = ended.expect("runs");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(told.contains("makes no sandbox for root"), "{told}");
    assert_eq!(ended.status.code(), Some(2), "{told}");
    assert!(ended.stdout.is_empty());

    let world = World::start(Family::V4);
    let roots = world.own_folder(Who::Operator, "roots");
    let at = |mode: u32| {
        std::fs::set_permissions(&roots, PermissionsExt::from_mode(mode)).expect("sets it");
        let mut command = in_a_sandbox_at(&world, &roots, &enforcer(), None);
        command.args(["echo", "it", "ran"]).output().expect("runs")
    };
    let ended = at(0o700);
    let told = String::from_utf8_lossy(&ended.stderr);
    let why = format!(
        "uid 2001, as which the command runs, cannot be in the working folder {}",
        roots.display()
    );
    assert!(told.contains(&why), "{told}");
    assert_eq!(ended.status.code(), Some(2), "{told}");
    let ended = at(0o755);
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(
        told.contains("cannot write in the working folder"),
        "{told}"
    );
    assert_eq!(ended.stdout, b"it ran\n", "{told}");
}
