//! The main job, played with real programs on the running kernel: what a new user sees first. It asserts what it says.
#![expect(clippy::print_stdout, reason = "this is a demonstration")]

mod keep;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use clap::Parser;
use enforcer::clock::{Clock, SystemClock};
use harness::capture::Capture;
use harness::stage::BIGQUERY4;
use harness::world::{Client, Family, Who, World, client_script, enforcer, policy, venv_python};
use rustix::process::Signal;
use serde_json::Value;

const DAILY: &str = "SELECT COUNT(*) AS days, SUM(amount) AS amount FROM finance.daily";
/// Longer work for the SQL engine than the window is open.
const SLOW: &str = "SELECT COUNT(*) FROM UNNEST(GENERATE_ARRAY(1, 300000)) a, UNNEST(GENERATE_ARRAY(1, 20000)) b WHERE MOD(a * b, 7) = 3";

/// Plays the main job and prints what happens.
#[derive(Parser)]
struct Demo {
    /// Leave the world up for a hand trial until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

fn main() {
    let demo = Demo::parse();
    say("building two hosts on a wire, Google on the far one, the enforcer on the near one");
    let world = World::start(Family::V4);
    let capture = Capture::start(&world.stage, World::bigquery());
    refused_without_a_window(&world, &capture);
    opened_by_a_person(&world);
    let (client, slow) = served_within_its_scope(&world, &capture);
    closed_by_time(&world, client, slow);
    frozen(&world, &capture);
    recorded(&world);
    sandboxed();
    if demo.keep {
        keep::for_a_hand_trial(&world);
    }
    println!("\nThat is the main job. Nothing of it is left behind.");
}

fn refused_without_a_window(world: &World, capture: &Capture) {
    step(
        1,
        "no window: the agent's query is refused, and nothing leaves the host",
    );
    let refused = world.query(&[DAILY]).remove(0);
    show_query(&refused);
    assert!(error_of(&refused).contains("no open window"));
    println!(
        "  packets toward BigQuery seen on the wire: {}",
        capture.packets()
    );
    assert_eq!(capture.packets(), 0);
}

fn opened_by_a_person(world: &World) {
    step(2, "the agent asks, a person approves, the window opens");
    let ask = [
        "request",
        "--scope",
        "demo-project.finance:read",
        "--ttl",
        "30s",
        "--reason",
        "month-end close",
    ];
    cli(world, Who::Agent, &ask);
    let own = cli(world, Who::Agent, &["approve", "r-1"]);
    assert!(own.contains("[approve.self]"), "{own}");
    let approved = cli(world, Who::Approver, &["approve", "r-1"]);
    assert!(approved.contains("open, closes in"), "{approved}");
}

fn served_within_its_scope(world: &World, capture: &Capture) -> (Client, Client) {
    step(
        3,
        "the same query returns rows; another dataset does not, nor through a view",
    );
    let mut client = world.client();
    let served = client.query(DAILY);
    show_query(&served);
    assert!(served["rows"].is_array(), "{served}");
    for outside in ["SELECT * FROM hr.salaries", "SELECT * FROM finance.hr_view"] {
        let refused = client.query(outside);
        show_query(&refused);
        assert!(error_of(&refused).contains("outside window"));
    }
    println!(
        "  packets toward BigQuery, all of them the enforcer's: {}",
        capture.packets()
    );
    real_bq(world);
    let mut slow = world.client();
    slow.send(SLOW);
    job_started(world, SLOW);
    println!("  (a second client has started a query that takes long)");
    (client, slow)
}

fn closed_by_time(world: &World, mut client: Client, mut slow: Client) {
    step(
        4,
        "the window ends by itself: a kept-alive client is refused, a running query cut and its job cancelled",
    );
    let deadline = deadline(world, "g-1");
    let first = until_refused(&mut client);
    show_query(&first);
    let recorded = first_refusal_after(world, deadline);
    println!(
        "  the first refusal is on record {:.2} ms after the deadline of g-1,",
        ms(recorded, deadline)
    );
    println!(
        "  and reached the client {:.2} ms after it",
        ms(first["ended"].as_u64().unwrap_or(0), deadline)
    );
    let cut = slow.receive();
    show_query(&cut);
    println!(
        "  the running query was answered {:.2} ms after the deadline",
        ms(cut["ended"].as_u64().unwrap_or(0), deadline)
    );
    let cancelled = cancelled(world);
    println!(
        "  its job: {} {}",
        cancelled["job"]["job"], cancelled["outcome"]
    );
}

fn frozen(world: &World, capture: &Capture) {
    step(
        5,
        "the daemon is frozen with a window open: past the deadline a new connection gets nothing",
    );
    let grant = world.open_window("demo-project.finance:read", "4s");
    let before = capture.settled();
    let deadline = deadline(world, &grant);
    std::thread::sleep(until(deadline - 500_000_000));
    world.signal_daemon(Signal::STOP);
    println!("  window {grant} is open for another half second; SIGSTOP to the daemon");
    std::thread::sleep(until(deadline));
    let heard = hear(world);
    println!(
        "  past the deadline a new connection ends at the frozen proxy's port, and hears: {heard}"
    );
    assert_eq!(heard, "nothing");
    // Two seconds after the daemon's last sign of life not even that.
    std::thread::sleep(until(deadline + 2_000_000_000));
    let refused = connect(world);
    println!("  two seconds on, connect() to {BIGQUERY4}:443: {refused}");
    assert_eq!(refused, "EPERM");
    let packets = capture.packets() - before;
    println!("  packets toward BigQuery since before it was frozen: {packets}");
    assert_eq!(packets, 0);
    world.signal_daemon(Signal::CONT);
}

fn recorded(world: &World) {
    step(6, "the log has it all, and shows a changed byte");
    cli(world, Who::Operator, &["log"]);
    let dir = world.state_dir().join("audit").display().to_string();
    let whole = cli(world, Who::Operator, &["log", "verify", "--dir", &dir]);
    assert!(whole.contains("the chain is whole"), "{whole}");
    let copy = changed_copy(world).display().to_string();
    let named = cli(world, Who::Operator, &["log", "verify", "--dir", &copy]);
    assert!(named.contains("is bad: its bytes do not have"), "{named}");
}

/// On hosts of its own: the SQL engine of the others is still at work on the query that was cancelled.
fn sandboxed() {
    step(
        7,
        "in a sandbox that has no network whatever the same query runs within a window, and nothing else leads out",
    );
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&policy("15m", true));
    world.start_daemon();
    let work = world.own_folder(Who::Agent, "work");
    let inside = |window: &[&str], line: &str| {
        let named = window.join(" ");
        let shown = ["--agent finance-bot", &named].join(" ");
        println!("  root$ enforcer run --sandbox {} -- {line}", shown.trim());
        let mut command = world.run_as(Who::Operator, "sh");
        command.args(["-c", "cd \"$0\" && exec \"$@\""]);
        command.arg(&work).arg(enforcer());
        command.args(["run", "--sandbox", "--agent", "finance-bot"]);
        command.args(window).arg("--");
        let output = command
            .args(["sh", "-c", line])
            .stdin(Stdio::null())
            .output();
        let output = output.expect("runs");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        for line in said.lines().filter(|line| !line.trim().is_empty()) {
            println!("    {line}");
        }
        said
    };
    let interfaces = inside(&[], "ip -brief addr");
    assert_eq!(interfaces.lines().count(), 1, "{interfaces}");
    let nowhere = inside(
        &[],
        "curl --silent --show-error --max-time 3 https://example.com/",
    );
    assert!(nowhere.contains("curl:"), "{nowhere}");
    let window = ["--scope", "demo-project.finance:read", "--reason", "report"];
    let query = if bq_is_here() {
        format!("bq --project_id=demo-project query --nouse_legacy_sql --format=csv '{DAILY}'")
    } else {
        let (python, client) = (venv_python(), client_script());
        format!("{} {} '{DAILY}'", python.display(), client.display())
    };
    let served = inside(&window, &query);
    assert!(served.contains("1000"), "{served}");
    let told = cli(&world, Who::Operator, &["log"]);
    assert!(told.contains("is served, where finance-bot runs"), "{told}");
}

fn bq_is_here() -> bool {
    let found = Command::new("bq").arg("version").output();
    found.is_ok_and(|done| done.status.success())
}

fn say(text: &str) {
    println!("demo: {text}");
}

fn step(number: u32, text: &str) {
    println!("\n({number}) {text}");
}

fn cli(world: &World, who: Who, args: &[&str]) -> String {
    let name = who.name();
    println!("  {name}$ enforcer {}", args.join(" "));
    let Output { stdout, stderr, .. } = world.cli(who, args);
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let said = said.concat();
    for line in said.lines() {
        println!("    {line}");
    }
    said
}

fn show_query(result: &Value) {
    println!("  finance-bot> {}", result["sql"].as_str().unwrap_or("?"));
    match result["error"].as_str() {
        Some(error) => println!(
            "    {}: {}",
            result["type"].as_str().unwrap_or("error"),
            error.lines().next().unwrap_or("")
        ),
        None => println!("    rows: {}", result["rows"]),
    }
}

fn error_of(result: &Value) -> &str {
    result["error"]
        .as_str()
        .unwrap_or_else(|| panic!("was not refused: {result}"))
}

fn world_log(world: &World) -> Vec<Value> {
    let path = world.state_dir().join("audit/log-000001.jsonl");
    let text = std::fs::read_to_string(path).expect("reads the log");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

fn deadline(world: &World, grant: &str) -> u64 {
    let records = world_log(world);
    let approved = records
        .iter()
        .find(|record| record["event"]["kind"] == "approved" && record["event"]["grant"] == grant);
    approved
        .and_then(|record| record["event"]["closes_boot_ns"].as_u64())
        .expect("the window is in the log")
}

fn until(deadline: u64) -> Duration {
    Duration::from_nanos(deadline.saturating_sub(SystemClock.now().boot_ns))
}

fn ms(at: u64, deadline: u64) -> f64 {
    Duration::from_nanos(at.saturating_sub(deadline)).as_secs_f64() * 1000.0
}

fn until_refused(client: &mut Client) -> Value {
    loop {
        let result = client.query("SELECT 1");
        if result["error"].is_string() {
            return result;
        }
    }
}

fn first_refusal_after(world: &World, deadline: u64) -> u64 {
    let records = world_log(world);
    let late = records
        .iter()
        .filter(|record| record["event"]["kind"] == "query_refused")
        .filter_map(|record| record["boot_ns"].as_u64());
    late.filter(|at| *at >= deadline)
        .min()
        .expect("a refusal is on record")
}

/// Waits until BigQuery has named the job that runs `sql`: only then is there something to cancel.
fn job_started(world: &World, sql: &str) {
    harness::world::wait_for("the long query's job", || {
        let events = world_log(world)
            .into_iter()
            .map(|mut record| record["event"].take());
        let events: Vec<Value> = events.collect();
        let query = events
            .iter()
            .find(|event| event["kind"] == "query_admitted" && event["sql"] == sql);
        query.is_some_and(|query| {
            events
                .iter()
                .any(|event| event["query"] == query["query"] && event["job"].is_object())
        })
    });
}

fn cancelled(world: &World) -> Value {
    let mut found = Value::Null;
    harness::world::wait_for("the cancellation", || {
        let records = world_log(world);
        let event = records
            .iter()
            .map(|record| &record["event"])
            .find(|event| event["kind"] == "job_cancelled" && event["outcome"] == "cancelled");
        found = event.cloned().unwrap_or_default();
        !found.is_null()
    });
    found
}

fn connect(world: &World) -> String {
    let probe = concat!(env!("CARGO_MANIFEST_DIR"), "/world/agent/probe.py");
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let output = command
        .arg(probe)
        .args(["tcp", &BIGQUERY4.to_string(), "443"])
        .output()
        .expect("python runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// What a client hears that connects and speaks first, within half a second.
fn hear(world: &World) -> String {
    let script = format!(
        "import socket\ns = socket.create_connection(('{BIGQUERY4}', 443), 0.5)\ns.sendall(b'hello')\n\
         try:\n    print(s.recv(100) or 'the end')\nexcept TimeoutError:\n    print('nothing')"
    );
    let mut command = world.run_as(Who::Agent, "/usr/bin/python3");
    let output = command.args(["-c", &script]).output().expect("python runs");
    let said = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// The Cloud SDK's own `bq`, where this machine has one.
fn real_bq(world: &World) {
    let mut command = world.run_as(Who::Agent, "bq");
    command.args([
        "--project_id=demo-project",
        "query",
        "--nouse_legacy_sql",
        "--format=csv",
        DAILY,
    ]);
    match command.output() {
        Ok(output) => {
            println!("  finance-bot$ bq query --nouse_legacy_sql '{DAILY}'");
            for line in String::from_utf8_lossy(&output.stdout)
                .lines()
                .filter(|line| !line.is_empty())
            {
                println!("    {line}");
            }
        }
        Err(_) => println!(
            "  (no bq on this machine's PATH: install the Cloud SDK to see it run here too)"
        ),
    }
}

/// A copy of the log with one byte changed in its third record.
fn changed_copy(world: &World) -> PathBuf {
    const FILE: &str = "log-000001.jsonl";
    let text = std::fs::read_to_string(world.state_dir().join("audit").join(FILE));
    let changed = text
        .expect("reads the log")
        .replacen("month-end", "month_end", 1);
    let copy = world.stage.dir().join("changed");
    std::fs::create_dir_all(&copy).expect("makes a folder");
    std::fs::write(copy.join(FILE), changed).expect("writes the copy");
    println!("  (in a copy of the log one byte is changed: month-end → month_end)");
    copy
}
