//! What an agent sent does not go on to BigQuery after its window has closed: not what waits in the library, nor in the kernel, whatever becomes
//! of the daemon. What had gone whole by then is waited for.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use harness::capture::Capture;
use harness::stage::{BIGQUERY4, Side};
use harness::world::{Family, Who, World, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const SCOPE: &str = "demo-project.finance:read,demo-project.scratch:ddl";
/// How long the windows are open.
const OPEN: Duration = Duration::from_secs(8);
/// What the far side's own queue, and the wire's, may still hold of what left before.
const IN_FLIGHT: Duration = Duration::from_millis(600);
const NO_PACKET: Duration = Duration::from_secs(4);

/// Sends a few rows, and when it is told so a body of about so many bytes: rows, or a load with its job.
const SEND: &str = r#"
import http.client, json, ssl, sys
wire = http.client.HTTPSConnection("bigquery.googleapis.com", context=ssl.create_default_context(cafile=sys.argv[1]), timeout=120)
tables = "/bigquery/v2/projects/demo-project/datasets/scratch/tables/notes/insertAll"
def rows(count):
    body = json.dumps({"rows": [{"json": {"id": 1, "text": "x" * count}}]})
    wire.request("POST", tables, body.encode(), {"content-type": "application/json"})
def load(count):
    table = {"projectId": "demo-project", "datasetId": "scratch", "tableId": "notes"}
    job = {"configuration": {"load": {"destinationTable": table, "sourceFormat": "NEWLINE_DELIMITED_JSON", "writeDisposition": "WRITE_APPEND"}},
           "jobReference": {"projectId": "demo-project", "jobId": "late-load", "location": "US"}}
    line = b'{"id": 7, "text": "' + b"z" * 1000 + b'"}\n'
    body = b"--bb\r\ncontent-type: application/json\r\n\r\n" + json.dumps(job).encode()
    body += b"\r\n--bb\r\ncontent-type: */*\r\n\r\n" + line * (count // len(line)) + b"\r\n--bb--\r\n"
    wire.request("POST", "/upload/bigquery/v2/projects/demo-project/jobs?uploadType=multipart", body, {"content-type": 'multipart/related; boundary="bb"'})
def answer():
    got = wire.getresponse()
    print(json.dumps([got.status, got.read().decode()]), flush=True)
rows(10); answer()
sys.stdin.readline()
{"rows": rows, "load": load}[sys.argv[2]](int(sys.argv[3])); answer()
"#;

/// An agent with an open window, and something to send.
struct Sender {
    world: World,
    /// Boot clock.
    opened_ns: u64,
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sender {
    fn new(what: &str, bytes: usize) -> Self {
        let world = World::start(Family::V4);
        let _ = world.open_window(SCOPE, "8s");
        let opened_ns = SystemClock.now().boot_ns;
        let mut child = world
            .run_as(Who::Agent, "/usr/bin/python3")
            .args(["-c", SEND])
            .arg(world.stage.dir().join("run/ca.pem"))
            .args([what, &bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts the agent");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let mut sender = Self {
            world,
            opened_ns,
            child,
            said,
        };
        assert_eq!(sender.answer()[0], 200, "within the window");
        sender
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("reads");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("an answer: {line}"))
    }

    /// Makes the wire slow.
    fn slow(&self, rate: &str) {
        let mut tc = self.world.stage.command(Side::Host, "tc");
        tc.args(["qdisc", "add", "dev", "wire0", "root", "tbf", "rate", rate]);
        let made = tc.args(["burst", "32kbit", "latency", "400ms"]).status();
        assert!(made.is_ok_and(|status| status.success()), "tc makes it");
    }

    fn send(&mut self) {
        let input = self.child.stdin.as_mut().expect("its input");
        input.write_all(b"go\n").expect("writes");
    }

    /// Waits until so long after the opening; the clocks of kernel and wire are the subject.
    fn at(&self, after: Duration) {
        let elapsed = Duration::from_nanos(SystemClock.now().boot_ns - self.opened_ns);
        std::thread::sleep(after.saturating_sub(elapsed));
    }

    /// The processes of the far side, sent a signal.
    fn far(&self, signal: Signal) {
        let dir = self.world.stage.dir().display().to_string();
        for entry in std::fs::read_dir("/proc").expect("reads").flatten() {
            let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok());
            let line = std::fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            if let Some(pid) = pid.and_then(Pid::from_raw)
                && line.contains("far/world.py")
                && line.contains(&dir)
            {
                kill_process(pid, signal).expect("sends it");
            }
        }
    }

    /// Whether anything to BigQuery is on the wire from now on.
    fn is_quiet(&self) {
        let capture = Capture::start(&self.world.stage, [BIGQUERY4.into()]);
        std::thread::sleep(NO_PACKET);
        assert_eq!(capture.packets(), 0, "packets past the deadline");
    }

    /// What BigQuery got whole of what was sent second.
    fn carried_out(&self) -> Vec<Value> {
        let mut far = self.world.far_requests();
        far.retain(|request| {
            let path = request["path"].as_str().unwrap_or_default();
            let body = request["body"].as_str().unwrap_or_default();
            (path.contains("insertAll") && body.len() > 1000) || path.starts_with("/upload/")
        });
        far.retain(|request| request["cut"].is_null());
        far
    }

    /// How the second query ended, as it is on record.
    fn ended(&self) -> Value {
        wait_for("the end on record", || {
            self.world.events("query_finished").len() > 1
        });
        self.world.events("query_finished").remove(1)
    }
}

/// Freezes the daemon within the window, while the far side takes nothing, and has that go on past the deadline.
fn says_nothing_when_frozen(bytes: usize) {
    let mut sender = Sender::new("rows", bytes);
    sender.far(Signal::STOP);
    sender.send();
    sender.at(OPEN - Duration::from_millis(1500));
    // Its last sign of life is fresh at the deadline still.
    sender.world.signal_daemon(Signal::STOP);
    sender.at(OPEN);
    let capture = Capture::of_data(&sender.world.stage, [BIGQUERY4.into()]);
    sender.far(Signal::CONT);
    std::thread::sleep(NO_PACKET);
    assert_eq!(capture.packets(), 0, "packets past the deadline");
    assert_eq!(sender.carried_out(), Vec::<Value>::new());
    sender.world.signal_daemon(Signal::CONT);
    assert_eq!(sender.answer()[0], 403);
    assert_eq!(sender.ended()["trouble"], PART);
    assert_eq!(capture.packets(), 0, "nor does it when it wakes");
    assert_eq!(sender.carried_out(), Vec::<Value>::new());
}

#[test]
fn a_few_rows_that_a_frozen_daemon_was_given_do_not_go_out_past_the_deadline() {
    says_nothing_when_frozen(200_000);
}

#[test]
fn many_rows_that_a_frozen_daemon_was_given_do_not_go_out_past_the_deadline() {
    says_nothing_when_frozen(900_000);
}

#[test]
fn a_frozen_daemon_says_nothing_within_the_window_either_once_it_has_been_silent_for_two_seconds() {
    let mut sender = Sender::new("rows", 900_000);
    sender.far(Signal::STOP);
    sender.send();
    sender.at(Duration::from_secs(2));
    sender.world.signal_daemon(Signal::STOP);
    sender.at(Duration::from_millis(4500));
    let capture = Capture::of_data(&sender.world.stage, [BIGQUERY4.into()]);
    sender.far(Signal::CONT);
    sender.at(OPEN - Duration::from_secs(1));
    assert_eq!(capture.packets(), 0, "packets of a silent daemon");
    sender.world.signal_daemon(Signal::CONT);
}

const PART: &str = "cut: the window closed when a part of it was sent; the rest never is";

fn goes_no_further(sender: &mut Sender) {
    sender.at(OPEN + IN_FLIGHT);
    sender.is_quiet();
    assert_eq!(sender.carried_out(), Vec::<Value>::new());
    let answer = sender.answer();
    assert!(
        answer[0] == 403 && answer[1].to_string().contains("[window.closed]"),
        "{answer}"
    );
    assert_eq!(sender.ended()["trouble"], PART);
}

#[test]
fn rows_on_a_slow_wire_go_no_further_once_the_window_has_closed() {
    let mut sender = Sender::new("rows", 900_000);
    sender.slow("1mbit");
    sender.at(Duration::from_millis(6500));
    sender.send();
    goes_no_further(&mut sender);
}

#[test]
fn rows_that_the_far_side_does_not_take_go_no_further_once_the_window_has_closed() {
    let mut sender = Sender::new("rows", 900_000);
    sender.far(Signal::STOP);
    sender.send();
    sender.at(OPEN + IN_FLIGHT);
    sender.far(Signal::CONT);
    goes_no_further(&mut sender);
}

#[test]
fn a_load_on_a_slow_wire_is_cut_at_the_close_and_its_job_never_starts() {
    let mut sender = Sender::new("load", 4_000_000);
    sender.slow("1400kbit");
    sender.at(Duration::from_millis(5500));
    sender.send();
    sender.at(OPEN + IN_FLIGHT);
    assert_eq!(sender.ended()["trouble"], PART);
    wait_for("the job's end", || {
        let ended = sender.world.events("job_cancelled");
        ended
            .iter()
            .any(|event| event["outcome"] == "BigQuery knows no such job")
    });
    assert_eq!(sender.carried_out(), Vec::<Value>::new());
}

#[test]
fn what_a_killed_daemon_has_not_sent_never_is() {
    let mut sender = Sender::new("rows", 200_000);
    sender.far(Signal::STOP);
    sender.send();
    sender.at(Duration::from_secs(4));
    sender.world.kill_daemon();
    sender.at(OPEN);
    let capture = Capture::start(&sender.world.stage, [BIGQUERY4.into()]);
    sender.far(Signal::CONT);
    std::thread::sleep(NO_PACKET);
    assert_eq!(capture.packets(), 0, "packets past the deadline");
    assert_eq!(sender.carried_out(), Vec::<Value>::new());
}

/// A load that BigQuery has whole before the close and takes up long after it.
fn taken_up_late(faults: &Value) -> Sender {
    let mut sender = Sender::new("load", 20_000);
    let held = OPEN + Duration::from_secs(16);
    let mut holding = faults.clone();
    holding["hold_ms"] = json!(u64::try_from(held.as_millis()).unwrap_or_default());
    sender.world.set_faults(&holding);
    sender.at(Duration::from_secs(3));
    sender.send();
    wait_for("the load", || !sender.carried_out().is_empty());
    sender.world.set_faults(faults);
    assert_eq!(sender.answer()[0], 403, "at the close");
    sender
}

#[test]
fn a_job_that_starts_long_after_the_close_of_what_was_sent_before_is_learnt_of_and_cancelled() {
    let sender = taken_up_late(&json!({"run_ms": 60_000}));
    wait_for("the cancellation", || {
        let ended = sender.world.events("job_cancelled");
        let ended = ended.iter().map(|event| event["outcome"].clone());
        ended.collect::<Vec<Value>>() == ["cancelled"]
    });
    let ended = sender.ended();
    assert!(
        ended["status"] == 200 && ended["job"]["job"] == "late-load",
        "{ended}"
    );
}

#[test]
fn a_job_that_starts_and_ends_long_after_the_close_is_on_record_as_such() {
    let sender = taken_up_late(&json!({}));
    wait_for("its end", || {
        let seen = sender.world.events("job_seen");
        let ended = sender.world.events("job_cancelled");
        seen.iter().any(|event| event["is_done"] == true)
            || ended
                .iter()
                .any(|event| event["outcome"] == "it had ended by itself")
    });
    assert_eq!(sender.ended()["status"], 200);
}
