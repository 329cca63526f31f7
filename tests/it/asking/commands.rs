//! `enforcer request --wait`, `enforcer done` and `enforcer run --scope`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use harness::world::{Family, Who, World, client_script, enforcer, venv_python, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{approve, open, pending, text, waiting};

const SCOPE: &str = "demo-project.finance:read";

/// A process that is killed and waited for when the test is over.
struct Started(Child);

impl Started {
    fn new(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("starts"))
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("signals");
    }

    /// How it ended, and what it said.
    fn ended(mut self) -> (Option<i32>, String, String) {
        let status = self.0.wait().expect("ends");
        let said = |read: &mut dyn std::io::Read| {
            let mut text = String::new();
            read.read_to_string(&mut text).expect("text");
            text
        };
        let out = said(self.0.stdout.as_mut().expect("piped"));
        let err = said(self.0.stderr.as_mut().expect("piped"));
        (status.code(), out, err)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn request(world: &World, further: &[&str]) -> Command {
    let mut command = world.run_as(Who::Agent, enforcer());
    command
        .args([
            "request",
            "--scope",
            SCOPE,
            "--reason",
            "month end",
            "--wait",
        ])
        .args(further);
    command
}

fn run(world: &World, command: &[&str]) -> Started {
    let mut run = world.run_as(Who::Operator, enforcer());
    run.args(["run", "--agent", "finance-bot", "--scope", SCOPE])
        .args(["--ttl", "5m", "--reason", "month end", "--"])
        .args(command)
        .stdin(Stdio::null());
    Started::new(&mut run)
}

#[test]
fn an_agent_gives_back_what_it_holds_without_naming_it_and_others_keep_theirs() {
    let world = World::start(Family::V4);
    let grant = world.open_window(SCOPE, "1m");
    let other = world.cli(Who::OtherAgent, &["done"]);
    assert_eq!(other.status.code(), Some(3), "it holds none");
    assert_eq!(open(&world), [grant.as_str()]);
    let done = world.json(Who::Agent, &["done"]);
    assert_eq!(done["given_back"][0]["grant"], grant.as_str(), "{done}");
    assert_eq!(done["given_back"][0]["closed"], "the agent gave it back");
    assert!(open(&world).is_empty());
    let again = world.cli(Who::Agent, &["done"]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert_eq!(again.status.code(), Some(3));
    assert!(said.contains("[grant.not_open]"), "{said}");
}

#[test]
fn whoever_waits_is_told_each_state_once_and_who_must_decide() {
    let world = World::start(Family::V4);
    let mut asked = Started::new(&mut request(&world, &["--json"]));
    let mut states = BufReader::new(asked.0.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = states.next().expect("a state").expect("text");
        serde_json::from_str(&line).expect("JSON")
    };
    let first = next();
    assert_eq!(first["state"], "pending", "{first}");
    let wanting = text(&first, "wanting");
    assert!(wanting.contains("5001"), "{wanting}");
    let grant = approve(&world, &first);
    let second = next();
    assert_eq!(second["state"], "open", "{second}");
    assert_eq!(second["grant"]["grant"], grant.as_str());
    assert!(asked.0.wait().expect("ends").success());

    let _ = world.json(Who::Agent, &["done"]);
    let asked = Started::new(&mut request(&world, &[]));
    let one = waiting(&world);
    let denied = world.cli(
        Who::Approver,
        &[
            "deny",
            text(&one, "request"),
            "--reason",
            "not before Friday",
        ],
    );
    assert!(denied.status.success());
    let (code, _, said) = asked.ended();
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("waits for ")
            && said.contains("5001")
            && said.contains("was denied: not before Friday")
            && said.contains("[request.denied]"),
        "{said}"
    );
    assert_eq!(said.matches("waits for ").count(), 1, "{said}");
}

#[test]
fn a_wait_that_is_interrupted_leaves_the_request_pending_and_says_so() {
    let world = World::start(Family::V4);
    let asked = Started::new(&mut request(&world, &[]));
    let one = waiting(&world);
    asked.signal(Signal::INT);
    let (code, _, said) = asked.ended();
    assert_eq!(code, Some(1), "{said}");
    let stays = format!("{} stays pending", text(&one, "request"));
    assert!(said.contains(&stays), "{said}");
    assert_eq!(pending(&world).len(), 1);
}

#[test]
fn a_command_waits_for_its_window_runs_in_it_and_the_window_ends_with_it() {
    let world = World::start(Family::V4);
    let client = venv_python();
    let query = "import sys, subprocess; ended = subprocess.run(sys.argv[1:]); sys.exit(7 if ended.returncode == 0 else 1)";
    let started = run(
        &world,
        &[
            client.to_str().expect("text"),
            "-c",
            query,
            client.to_str().expect("text"),
            client_script().to_str().expect("text"),
            "SELECT COUNT(*) FROM finance.daily",
        ],
    );
    let one = waiting(&world);
    assert_eq!(one["agent"], "finance-bot");
    assert_eq!(one["uid"], 0, "whoever runs it has asked");
    assert_eq!(one["ends_with_process"], true);
    let grant = approve(&world, &one);
    let (code, out, said) = started.ended();
    assert_eq!(code, Some(7), "{out}{said}");
    assert!(out.contains("\"1000\""), "{out}{said}");
    assert!(open(&world).is_empty(), "closed when the caller goes on");
    let closed = world.events("closed");
    assert_eq!(closed[0]["grant"], grant.as_str());
    assert_eq!(closed[0]["reason"], "process_ended");

    let started = run(&world, &["/bin/echo", "ran"]);
    let one = waiting(&world);
    let denied = world.cli(
        Who::Approver,
        &["deny", text(&one, "request"), "--reason", "no"],
    );
    assert!(denied.status.success());
    let (code, out, said) = started.ended();
    assert_eq!((code, out.as_str()), (Some(3), ""), "{said}");
    assert!(said.contains("was denied: no"), "{said}");
}

/// A command that outlives a request to end, and says its number.
const STUBBORN: &str = "trap '' TERM; echo $$ > {}; while :; do sleep 1; done";

/// Starts such a command in a window, and gives the runner, and the command's process.
fn stubborn(world: &World, name: &str) -> (Started, Pid) {
    let path = world.stage.dir().join("agent").join(name);
    let script = STUBBORN.replace("{}", path.to_str().expect("text"));
    let runner = run(world, &["/bin/sh", "-c", &script]);
    let one = waiting(world);
    approve(world, &one);
    let mut pid = None;
    wait_for("the command", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        pid = text.trim().parse().ok().and_then(Pid::from_raw);
        pid.is_some()
    });
    assert_eq!(open(world).len(), 1);
    (runner, pid.expect("a number"))
}

#[test]
fn killing_the_runner_closes_the_window_whatever_the_command_does() {
    let world = World::start(Family::V4);
    let (runner, command) = stubborn(&world, "a");
    runner.signal(Signal::KILL);
    wait_for("the close", || open(&world).is_empty());
    kill_process(command, Signal::KILL).expect("it lives on, without a window");
    drop(runner);

    // The command's end is enough, also where its runner is stopped.
    let (runner, command) = stubborn(&world, "b");
    runner.signal(Signal::STOP);
    kill_process(command, Signal::KILL).expect("lives");
    wait_for("the close", || open(&world).is_empty());
    drop(runner);

    // Nobody is left who would use what is approved later.
    let runner = run(&world, &["/bin/true"]);
    waiting(&world);
    runner.signal(Signal::KILL);
    wait_for("the withdrawal", || pending(&world).is_empty());
    assert_eq!(world.events("request_withdrawn").len(), 1);
}

#[test]
fn a_window_of_a_command_outlives_the_daemon_and_still_ends_with_its_runner() {
    let mut world = World::start(Family::V4);
    let (runner, command) = stubborn(&world, "a");
    world.kill_daemon();
    world.start_daemon();
    assert_eq!(open(&world).len(), 1);
    runner.signal(Signal::KILL);
    wait_for("the close", || open(&world).is_empty());
    kill_process(command, Signal::KILL).expect("lives");
    drop(runner);

    let (runner, command) = stubborn(&world, "b");
    world.kill_daemon();
    runner.signal(Signal::KILL);
    drop(runner);
    world.start_daemon();
    wait_for("the close", || open(&world).is_empty());
    kill_process(command, Signal::KILL).expect("lives");
}
