//! Network namespaces of agents': how soon one is served, whether a thousand that come and go leave anything, what one takes, and what a request costs
//! from one beside the same from the host, in the same run.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Subcommand;
use enforcer::clock::{Clock, SystemClock};
use harness::world::{Who, wait_for};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use serde_json::{Map, Value, json};

use crate::proxy::{ALL_AGENTS, Lab, Samples, Way, round};
use crate::turns::output;

/// Namespaces whose service is waited for, one after the other.
const READY: &str = "200";
/// Namespaces that come and go, how long after one the next comes, and how long each is there.
const COMING: usize = 1000;
const NEXT: Duration = Duration::from_millis(10);
const THERE_S: &str = "0.3";
/// Of as many that have gone the kernel may count so many a while longer. It counts some so as well where nobody serves them.
const KEPT_BY_THE_KERNEL: usize = COMING / 200;
/// Namespaces that are there at once while their memory is looked at, of so many agents.
const AT_ONCE: usize = 480;
const OF_AGENTS: u32 = 8;
const ROUNDS: u32 = 12;
const REQUESTS: &str = "250";
/// How long between two tries to reach the daemon.
const TRY: Duration = Duration::from_micros(100);

/// What a worker does.
#[derive(Subcommand, Clone)]
pub(crate) enum Work {
    /// Goes into so many namespaces, one after the other: nanoseconds from when each has a loopback until something is led to the daemon in it.
    Ready { to: SocketAddr, count: u32 },
}

/// Works, and prints what came of it.
pub(crate) fn run(work: &Work) {
    match work {
        Work::Ready { to, count } => {
            let each: Vec<String> = ready(*to, *count).iter().map(ToString::to_string).collect();
            println!("{}", each.join(" "));
        }
    }
}

/// Measures all of it.
pub(crate) fn bench(json: bool) {
    let (lab, _) = Lab::alone(ALL_AGENTS);
    let mut figures = Map::new();
    soon(&lab, &mut figures);
    latency(&lab, &mut figures);
    leaks(&lab, &mut figures);
    memory(&lab, &mut figures);
    if json {
        println!("{}", Value::Object(figures));
    }
}

fn soon(lab: &Lab, figures: &mut Map<String, Value>) {
    let mut taken = Samples::default();
    let to = format!("{}:443", lab.protected());
    taken.read(&output(
        lab.work_plainly(0, &["netns", "ready", &to, READY]),
    ));
    println!(
        "{:<58}{:>10}{:>10}{:>10}",
        format!("a namespace, {} of them, µs", taken.count()),
        "p50",
        "p99",
        "max"
    );
    println!(
        "{:<58}{:>10.0}{:>10.0}{:>10.0}",
        "from its loopback up to its first connection led",
        taken.p50(),
        taken.p99(),
        taken.max()
    );
    figures.insert("ready_us".to_owned(), taken.figure());
}

fn latency(lab: &Lab, figures: &mut Map<String, Value>) {
    let [mut host, mut apart] = [(); 2].map(|()| Samples::default());
    let [server, roots] = lab.to(Way::Enforcer);
    for at in 0..ROUNDS {
        let args = ["ask", &server, &roots, REQUESTS];
        host.read(&output(lab.work(at, &args)));
        apart.read(&output(lab.work_apart(at, &args)));
    }
    let ratio = apart.p50() / host.p50();
    println!(
        "\n{:<58}{:>10}{:>12}{:>8}",
        format!("tables.get, {} each, one after the other, µs", host.count()),
        "host",
        "namespace",
        "ratio"
    );
    for (name, at) in [
        ("p50", Samples::p50 as fn(&Samples) -> f64),
        ("p99", Samples::p99),
    ] {
        let [host, apart] = [at(&host), at(&apart)];
        println!("{name:<58}{host:>10.0}{apart:>12.0}{:>8.2}", apart / host);
    }
    figures.insert(
        "latency_us".to_owned(),
        json!({"host": host.figure(), "namespace": apart.figure(), "p50_ratio": round(ratio)}),
    );
}

fn leaks(lab: &Lab, figures: &mut Map<String, Value>) {
    settled(lab);
    let before = held(lab);
    let served = lab.world.events("namespace_served").len();
    let mut there: Vec<Child> = Vec::new();
    let script = format!("ip link set lo up; exec sleep {THERE_S}");
    let began = SystemClock.now().boot_ns;
    for at in 0..COMING {
        let agent = agent(at);
        there.push(spawn(lab.apart(agent, "sh", &["-c", &script])));
        there.retain_mut(|child| child.try_wait().expect("waits").is_none());
        let due = began + (at as u64 + 1) * NEXT.as_nanos() as u64;
        let now = SystemClock.now().boot_ns;
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(now)));
    }
    let took_s = (SystemClock.now().boot_ns - began) as f64 / 1e9;
    for mut child in there {
        child.wait().expect("ends");
    }
    settled(lab);
    // The kernel takes namespaces apart on its own time.
    wait_for("the kernel has no more namespaces than before", || {
        there_are() <= before[2] + KEPT_BY_THE_KERNEL
    });
    let after = held(lab);
    let served = lab.world.events("namespace_served").len() - served;
    println!(
        "\n{COMING} namespaces, {:.0} a second, there for {THERE_S} s: {served} were served, all were left",
        COMING as f64 / took_s
    );
    println!(
        "the daemon's open files before {} and after {}, threads {} and {}, network namespaces of the whole kernel {} and {}",
        before[0], after[0], before[1], after[1], before[2], after[2]
    );
    let figure = json!({"count": COMING, "a_second": round(COMING as f64 / took_s), "served": served, "before": before, "after": after});
    figures.insert("coming_and_going".to_owned(), figure);
}

fn memory(lab: &Lab, figures: &mut Map<String, Value>) {
    settled(lab);
    let before = resident(lab);
    let mut there: Vec<Child> = Vec::new();
    for at in 0..AT_ONCE {
        let script = "ip link set lo up; read until_killed";
        let mut command = lab.apart(agent(at), "sh", &["-c", script]);
        there.push(command.stdin(Stdio::piped()).spawn().expect("runs"));
    }
    wait_for("all are served", || served_now(lab) == AT_ONCE as u64);
    let each = resident(lab).saturating_sub(before) as f64 / AT_ONCE as f64;
    println!("\n{AT_ONCE} namespaces at once: {each:.1} KiB of the daemon's memory each");
    figures.insert(
        "memory".to_owned(),
        json!({"count": AT_ONCE, "each_kib": round(each)}),
    );
    for child in &mut there {
        child.kill().expect("ends");
        child.wait().expect("ended");
    }
    settled(lab);
}

/// Whose the namespace with this number is.
fn agent(at: usize) -> u32 {
    u32::try_from(at).unwrap_or_default() % OF_AGENTS
}

fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::null()).spawn().expect("runs")
}

/// Waits until no namespace is served any more.
fn settled(lab: &Lab) {
    wait_for("all are left", || served_now(lab) == 0);
}

/// How many are, by the daemon's own word.
fn served_now(lab: &Lab) -> u64 {
    let status = lab.world.json(Who::Operator, &["status"]);
    let checks = status["checks"].as_array().cloned().unwrap_or_default();
    let said = checks.iter().find(|check| check["what"] == "namespaces");
    let said = said.and_then(|check| check["said"].as_str()).expect("said");
    let number = said.split(' ').next().expect("a number");
    number.parse().expect("a number")
}

/// What the daemon holds, open files and threads, and what the kernel does: network namespaces.
fn held(lab: &Lab) -> [usize; 3] {
    let daemon = lab.world.daemon_pid();
    let count = |what: &str| {
        let folder = std::fs::read_dir(format!("/proc/{daemon}/{what}"));
        folder.expect("lists").count()
    };
    [count("fd"), count("task"), there_are()]
}

/// How many network namespaces the kernel has, whoever keeps them: those that no process is in as well. By its own count of what it has made room for,
/// once it has let go of what it keeps for the next.
fn there_are() -> usize {
    let shrink = "/sys/kernel/slab/net_namespace/shrink";
    std::fs::write(shrink, "1").expect("the kernel lets go");
    let slabs = std::fs::read_to_string("/proc/slabinfo").expect("reads");
    let mut all = slabs.lines();
    let line = all.find_map(|line| line.strip_prefix("net_namespace "));
    let number = line.expect("counted").split_whitespace().next();
    number.expect("a number").parse().expect("a number")
}

/// The daemon's memory, KiB.
fn resident(lab: &Lab) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.world.daemon_pid()));
    let status = status.expect("reads");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("said");
    let number = line.split_whitespace().next().expect("a number");
    number.parse().expect("a number")
}

fn ready(to: SocketAddr, count: u32) -> Vec<u64> {
    enter(UnshareFlags::NEWUSER | UnshareFlags::NEWNET);
    let each = |_| {
        enter(UnshareFlags::NEWNET);
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip runs").success());
        let began = SystemClock.now().boot_ns;
        while TcpStream::connect(to).is_err() {
            std::thread::sleep(TRY);
        }
        SystemClock.now().boot_ns - began
    };
    (0..count).map(each).collect()
}

/// Goes into a namespace of its own; the first time as its root.
fn enter(flags: UnshareFlags) {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    #[expect(
        unsafe_code,
        reason = "unsharing is unsafe where threads share what is unshared; this process has one thread"
    )]
    // SAFETY: nothing but this thread is there.
    unsafe { unshare_unsafe(flags) }.expect("a namespace");
    if flags.contains(UnshareFlags::NEWUSER) {
        for (file, text) in [
            ("uid_map", format!("0 {} 1", uid.as_raw())),
            ("setgroups", "deny".to_owned()),
            ("gid_map", format!("0 {} 1", gid.as_raw())),
        ] {
            std::fs::write(format!("/proc/self/{file}"), text).expect("maps itself");
        }
    }
}
