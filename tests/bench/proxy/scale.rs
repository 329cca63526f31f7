//! Ten thousand agents with a window each and ten thousand idle connections: what each takes of the daemon's memory, and whether a request is
//! any slower among them.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use enforcer::clock::{Clock, SystemClock};
use serde_json::{Map, Value, json};

use super::figures::{Samples, round};
use super::lab::{AGENTS, ALL_AGENTS, Lab, PLACES, Way};
use super::load;
use crate::turns::output;

/// How many there are of each.
const MANY: u32 = 10_000;
/// How many of the agents have the connections: each needs a token, which the far side takes long to make.
const CONNECTING: u32 = 500;
/// Requests of one turn; each agent that asks has one turn a phase.
const COUNT: &str = "250";
/// How long the daemon's own work is watched while nothing is asked of it.
const WATCHED: Duration = Duration::from_secs(20);

/// A phase of the run, and what was measured in it.
struct Phase {
    windows: u32,
    connections: u32,
    kib: u64,
    /// Of the server, by nobody's way.
    direct: Samples,
    asked: Samples,
    durable: Samples,
}

/// Measures all of it and prints it.
pub(crate) fn bench(json: bool) {
    let before = load();
    let began = SystemClock.now().boot_ns;
    let (lab, _) = Lab::alone(ALL_AGENTS + MANY - AGENTS);
    let start_s = (SystemClock.now().boot_ns - began) / 1_000_000_000;
    println!("{MANY} agents, made and told to the kernel in {start_s} s");
    println!(
        "{:<36}{:>14}{:>10}{:>10}{:>10}{:>10}",
        "p50 and p99 in µs", "memory, KiB", "direct", "durable", "p50", "p99"
    );
    let few = phase(&lab, AGENTS, 0);
    let [from, to] = [ALL_AGENTS, ALL_AGENTS + MANY - AGENTS].map(|at| at.to_string());
    let socket = lab.socket().display().to_string();
    let windows = crowd(&lab, &[&from, &to, "open", &socket]);
    end(windows);
    let open = phase(&lab, MANY, 0);
    let [server, roots] = lab.to(Way::Enforcer);
    let (to, each) = (
        (ALL_AGENTS + CONNECTING).to_string(),
        (MANY / CONNECTING).to_string(),
    );
    let connections = crowd(&lab, &[&from, &to, "keep", &server, &roots, &each]);
    let kept = phase(&lab, MANY, MANY);
    let busy = idle_share(&lab);
    end(connections);
    let after = phase(&lab, MANY, 0);
    let each = |more: &Phase, less: &Phase, count: u32| {
        let bytes = more.kib.saturating_sub(less.kib) * 1024;
        round(bytes as f64 / 1000.0 / f64::from(count))
    };
    let window_kb = each(&open, &few, MANY - AGENTS);
    let connection_kb = each(&kept, &open, MANY);
    let [ratio, ratio_kept] = [&open, &kept].map(|many| round(many.asked.p50() / few.asked.p50()));
    println!("memory of a window, kB: {window_kb}; of an idle connection, kB: {connection_kb}");
    println!(
        "p50 among {MANY} windows: {ratio} of that among {AGENTS}; among as many idle connections besides: {ratio_kept}"
    );
    println!("the daemon's own work meanwhile, nothing being asked: {busy} % of a core");
    println!("load of the machine before and after: {before} {}", load());
    let phases: Vec<Value> = [&few, &open, &kept, &after].map(Phase::figure).into();
    let figures = Map::from_iter([
        ("phases".to_owned(), phases.into()),
        ("window_kb".to_owned(), json!(window_kb)),
        ("connection_kb".to_owned(), json!(connection_kb)),
        ("p50_ratio_windows".to_owned(), json!(ratio)),
        ("p50_ratio_connections".to_owned(), json!(ratio_kept)),
        ("idle_percent_of_a_core".to_owned(), json!(busy)),
    ]);
    if json {
        println!("{}", Value::Object(figures));
    }
}

impl Phase {
    fn figure(&self) -> Value {
        json!({
            "windows": self.windows,
            "connections": self.connections,
            "memory_kib": self.kib,
            "direct_us": self.direct.figure(),
            "latency_us": self.asked.figure(),
            "durable_us": self.durable.figure(),
        })
    }
}

/// Measures what is as it is.
fn phase(lab: &Lab, windows: u32, connections: u32) -> Phase {
    let [mut direct, mut asked, mut durable] = [(); 3].map(|()| Samples::default());
    let ways = [Way::Direct, Way::Enforcer].map(|way| lab.to(way));
    let disk = lab.world.stage.dir().display().to_string();
    for round in 0..AGENTS {
        for (taken, [server, roots]) in [&mut direct, &mut asked].into_iter().zip(&ways) {
            taken.read(&output(lab.work(round, &["ask", server, roots, COUNT])));
        }
        durable.read(&output(lab.work_as_root(&["record", &disk, COUNT])));
    }
    let kib = own_kib(lab.world.daemon_pid());
    let name = format!("{windows} windows, {connections} idle");
    println!(
        "{name:<36}{kib:>14}{:>10.0}{:>10.0}{:>10.0}{:>10.0}",
        direct.p50(),
        durable.p50(),
        asked.p50(),
        asked.p99()
    );
    Phase {
        windows,
        connections,
        kib,
        direct,
        asked,
        durable,
    }
}

/// Has a process do something for many agents, and waits until that is done.
fn crowd(lab: &Lab, args: &[&str]) -> Child {
    let places = lab.world.stage.cgroups.make(PLACES).display().to_string();
    let mut child = lab.work_as_root(&[&["crowd", &places][..], args].concat());
    let mut line = String::new();
    let mut said = BufReader::new(child.stdout.take().expect("piped"));
    said.read_line(&mut line).expect("reads");
    assert_eq!(line, "done\n", "the crowd ended early");
    child
}

fn end(mut crowd: Child) {
    drop(crowd.stdin.take());
    assert!(crowd.wait().expect("ends").success(), "the crowd failed");
}

/// The memory that is a process's own, and not some file's.
fn own_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
    let own = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let own = own.expect("its memory").trim().trim_end_matches(" kB");
    own.parse().expect("a number")
}

/// How much of a core the daemon takes while nothing is asked of it, percent.
fn idle_share(lab: &Lab) -> f64 {
    let ran = || ran_ns(lab.world.daemon_pid());
    let before = ran();
    std::thread::sleep(WATCHED);
    let share = ran().saturating_sub(before) as f64 / WATCHED.as_nanos() as f64;
    round(share * 100.0)
}

/// What a process has run so far, its ended threads included, nanoseconds.
fn ran_ns(pid: u32) -> u64 {
    /// What `/proc` counts in.
    const TICK_NS: u64 = 10_000_000;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("reads");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks = ticks.map(|ticks| ticks.parse::<u64>().expect("a number"));
    ticks.sum::<u64>() * TICK_NS
}
