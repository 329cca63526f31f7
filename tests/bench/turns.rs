//! A loop with and without, in turns on one machine: each figure has its peer from the same minute, and medians count.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use harness::stage::{OTHER4, Side, Stage};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// How often each loop is run; the median counts.
pub(crate) const ROUNDS: usize = 7;
/// The uid of who is measured.
pub(crate) const UID: u32 = 2001;
const CONNECTS: u32 = 200_000;
const SENDS: u32 = 100_000;

/// A stage with two workloads: the programs are attached above one of them.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) stage: Stage,
    pub(crate) inside: PathBuf,
    pub(crate) outside: PathBuf,
}

impl Places {
    pub(crate) fn new() -> Self {
        let stage = Stage::new();
        let (inside, outside) = (
            stage.cgroups.make("enforced/agents/bot"),
            stage.cgroups.make("outside"),
        );
        Self {
            stage,
            inside,
            outside,
        }
    }

    /// Where the programs are attached.
    pub(crate) fn root(&self) -> PathBuf {
        self.stage.cgroups.make("enforced")
    }

    /// A worker in a workload.
    pub(crate) fn work(&self, place: &Path, args: &[&str]) -> Child {
        worker(&self.stage, Side::Host, Some((place, UID)), args)
    }

    /// Prints and notes what connecting and sending elsewhere cost with so many prefixes protected, and making a socket.
    pub(crate) fn rows(&self, prefixes: u32, figures: &mut Map<String, Value>) {
        let to = SocketAddr::from((OTHER4, 443)).to_string();
        let (connects, sends) = (CONNECTS.to_string(), SENDS.to_string());
        for (name, args) in [
            ("a socket made and closed", &["make", &connects][..]),
            ("connect() elsewhere", &["connect", &to, &connects]),
            ("a datagram elsewhere", &["send", &to, &sends]),
        ] {
            let [without, with] = in_turns([&self.outside, &self.inside], |place| {
                said(self.work(place, args))
            });
            let ratio = with as f64 / without as f64;
            println!("{name:<28}{prefixes:>10}{without:>10}{with:>10}{ratio:>8.2}");
            let figure = json!({"without_ns": without, "with_ns": with, "ratio": ratio});
            figures.insert(format!("{}_{prefixes}", args[0]), figure);
        }
    }
}

/// A process of this program's that does one thing.
pub(crate) fn worker(stage: &Stage, side: Side, who: Option<(&Path, u32)>, args: &[&str]) -> Child {
    let me = std::env::current_exe().expect("a path");
    let (place, uid) = who.unzip();
    let mut command = stage.command_in(side, place, uid, me);
    command
        .arg("worker")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command.spawn().expect("starts")
}

/// The number that a worker prints at its end.
pub(crate) fn said(child: Child) -> u64 {
    output(child).trim().parse().expect("a number")
}

/// All that a worker prints until its end.
pub(crate) fn output(mut child: Child) -> String {
    let mut said = String::new();
    let mut output = child.stdout.take().expect("piped");
    output.read_to_string(&mut said).expect("reads");
    assert!(child.wait().expect("ends").success(), "a worker failed");
    said
}

/// The medians of two that are measured in turns.
pub(crate) fn in_turns<T: Copy>(two: [T; 2], mut measure: impl FnMut(T) -> u64) -> [u64; 2] {
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (taken, which) in rounds.iter_mut().zip(two) {
            taken.push(measure(which));
        }
    }
    rounds.map(|mut taken| {
        taken.sort_unstable();
        taken[ROUNDS / 2]
    })
}

/// So many prefixes, half of each family, strewn over all addresses: whatever is looked up, the way into the trie is as deep as it gets.
pub(crate) fn prefixes(count: u32) -> impl Iterator<Item = IpNet> {
    // Odd, so no two are the same.
    let strewn = |at: u32| at.wrapping_mul(0x9e37_79b1);
    let v4 = (0..count / 2).map(move |at| IpAddr::from(Ipv4Addr::from(strewn(at))));
    let v6 =
        (0..count / 2).map(move |at| IpAddr::from(Ipv6Addr::from(u128::from(strewn(at)) << 96)));
    v4.chain(v6).map(IpNet::from)
}
