//! What a window's end looks like from where the agent is: how long after its deadline the first request is refused, and how long after it
//! a stream is cut. Each window is the shortest there is; agents have their turns apart, so that ends are spread over time.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use clap::Args;
use enforcer::clock::{Clock, SystemClock};
use harness::world::enforcer;
use serde_json::{Map, Value, json};

use super::bigquery::DRIPPED;
use super::client::{Link, TABLE, To};
use super::figures::Samples;
use super::lab::{AGENTS, Lab, Way};
use crate::turns::output;

/// How long before the deadline requests begin, nanoseconds: as many are made as an agent's pace allows.
const BEFORE_NS: u64 = 10_000_000;
/// How far apart the agents begin, milliseconds: a window and what is around it, shared by all of them.
const APART_MS: u32 = 1100 / AGENTS;
const ROWS: &str = "/bigquery/v2/projects/demo-project/datasets/finance/tables/daily/data";

/// Whom an agent that opens its windows itself speaks to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Asker {
    #[command(flatten)]
    pub(super) to: To,
    /// The enforcer's program, and its control socket.
    enforcer: PathBuf,
    socket: PathBuf,
}

impl Asker {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.enforcer);
        command.env("ENFORCER_SOCKET", &self.socket);
        command
    }

    /// Gives a window back.
    pub(super) fn give_back(&self, grant: &str) {
        let output = self.command().args(["close", grant]).output();
        let output = output.expect("runs");
        assert!(output.status.success(), "{output:?}");
    }
}

/// So many windows of one agent, one after the other.
#[derive(Args, Clone, Debug)]
pub(crate) struct Closes {
    #[command(flatten)]
    asker: Asker,
    count: u32,
    /// How long to wait first, milliseconds.
    after_ms: u64,
}

/// Measures so many ends, prints them and notes them.
pub(super) fn bench(lab: &Lab, count: u32, figures: &mut Map<String, Value>) {
    let [server, roots] = lab.to(Way::Enforcer);
    let (program, socket) = (
        enforcer().display().to_string(),
        lab.socket().display().to_string(),
    );
    let each = count.div_ceil(AGENTS).to_string();
    let agents: Vec<_> = (0..AGENTS)
        .map(|agent| {
            let after = (agent * APART_MS).to_string();
            let args = ["closes", &server, &roots, &program, &socket, &each, &after];
            lab.work_without(agent, &args)
        })
        .collect();
    let said: String = agents.into_iter().map(output).collect();
    let deadlines = deadlines(lab);
    let [mut refused, mut cut] = [(); 2].map(|()| Samples::default());
    for line in said.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let deadline = deadlines[words[0]];
        let late = |at: &str| {
            let at: u64 = at.parse().expect("a number");
            at.checked_sub(deadline).expect("not before the deadline")
        };
        refused.push(late(words[1]));
        cut.push(late(words[2]));
    }
    println!(
        "\n{:<58}{:>10}{:>10}{:>10}",
        format!("after the end of {} windows, ms", cut.count()),
        "p50",
        "p99",
        "max"
    );
    for (what, samples) in [("the first refusal", &refused), ("a stream is cut", &cut)] {
        let [p50, p99, max] = [samples.p50(), samples.p99(), samples.max()].map(|us| us / 1000.0);
        println!("{what:<58}{p50:>10.2}{p99:>10.2}{max:>10.2}");
    }
    let figure = json!({"refusal": refused.figure(), "cut": cut.figure()});
    figures.insert("after_close_us".to_owned(), figure);
}

/// When each window closes, as the log has it.
fn deadlines(lab: &Lab) -> BTreeMap<String, u64> {
    let approved = lab.world.events("approved");
    let each = approved.iter().map(|event| {
        let grant = event["grant"].as_str().expect("a grant").to_owned();
        (grant, event["closes_boot_ns"].as_u64().expect("a number"))
    });
    each.collect()
}

/// In the agent's workload: a line for each window, its grant and when it was refused and cut, boot clock.
pub(super) fn run(closes: &Closes) {
    std::thread::sleep(Duration::from_millis(closes.after_ms));
    for _ in 0..closes.count {
        let (grant, left_ns) = open(&closes.asker, "1s");
        let from = SystemClock.now().boot_ns + left_ns.saturating_sub(BEFORE_NS);
        let (refused, cut) = std::thread::scope(|scope| {
            let streaming = scope.spawn(|| cut(&closes.asker.to));
            let refused = refused(&closes.asker.to, from);
            (refused, streaming.join().expect("does not panic"))
        });
        println!("{grant} {refused} {cut}");
    }
}

/// Opens a window: its name, and how long it is open from now, nanoseconds.
pub(super) fn open(asker: &Asker, ttl: &str) -> (String, u64) {
    let mut command = asker.command();
    command
        .args(["request", "--scope", "demo-project.finance:read"])
        .args(["--ttl", ttl, "--reason", "bench", "--json"]);
    let output = command.output().expect("runs");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let grant = &said["grant"];
    let (name, closes) = (grant["grant"].as_str(), grant["closes_unix_ns"].as_u64());
    let (name, closes) = name.zip(closes).unwrap_or_else(|| {
        panic!("{said} {}", String::from_utf8_lossy(&output.stderr));
    });
    let left = closes.saturating_sub(SystemClock.now().unix_ns);
    (name.to_owned(), left)
}

/// When the first request was refused.
fn refused(to: &To, from: u64) -> u64 {
    let mut link = Link::to(to);
    let first = link.exchange("GET", TABLE, "").expect("an answer");
    assert_eq!(first, 200, "the window is open");
    let left = from.saturating_sub(SystemClock.now().boot_ns);
    std::thread::sleep(Duration::from_nanos(left));
    loop {
        match link.exchange("GET", TABLE, "") {
            Ok(200) => {}
            Ok(403) => return SystemClock.now().boot_ns,
            Ok(other) => panic!("answered with {other}"),
            // What was being sent at that moment is cut with its connection.
            Err(_) => link = Link::to(to),
        }
    }
}

/// When the stream ended.
fn cut(to: &To) -> u64 {
    let mut link = Link::to(to);
    let (status, _) = link.ask("GET", ROWS, "").expect("an answer");
    assert_eq!(status, 200, "the window is open");
    let (mut got, mut part) = (0, vec![0; 64 * 1024]);
    loop {
        match link.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(more) => got += more,
        }
    }
    let ended = SystemClock.now().boot_ns;
    assert!(got < DRIPPED, "all of it was sent");
    ended
}
