//! What a window's first query waits for its token: the first on a connection of its own, when none has been minted yet, beside the same on another
//! connection, when one has. STS is the test world's, on the same machine; Google's is further away.

use clap::Args;
use enforcer::clock::{Clock, SystemClock};
use serde_json::{Map, Value, json};

use super::client::{JOBS, Link, job, name_of};
use super::closes::{Asker, open};
use super::figures::Samples;
use super::lab::{Lab, Way};
use crate::turns::output;
use harness::world::enforcer;

/// Windows of one agent.
const WINDOWS: &str = "100";

/// So many windows, one after the other, with two connections each.
#[derive(Args, Clone, Debug)]
pub(crate) struct First {
    #[command(flatten)]
    asker: Asker,
    count: u32,
}

/// Measures both, prints them and notes them.
pub(super) fn bench(lab: &Lab, figures: &mut Map<String, Value>) {
    let [server, roots] = lab.to(Way::Enforcer);
    let (program, socket) = (
        enforcer().display().to_string(),
        lab.socket().display().to_string(),
    );
    let args = ["first", &server, &roots, &program, &socket, WINDOWS];
    let said = output(lab.work_without(0, &args));
    let [mut cold, mut warm] = [(); 2].map(|()| Samples::default());
    for line in said.lines() {
        let mut words = line.split(' ').map(|word| word.parse().expect("a number"));
        for samples in [&mut cold, &mut warm] {
            samples.push(words.next().expect("two of them"));
        }
    }
    println!(
        "\n{:<58}{:>10}{:>12}{:>12}",
        format!(
            "a connection and its first query, {} windows, µs",
            cold.count()
        ),
        "",
        "cold token",
        "warm"
    );
    for (name, at) in [
        ("p50", Samples::p50 as fn(&Samples) -> f64),
        ("p99", Samples::p99),
    ] {
        println!("{name:<58}{:>10}{:>12.0}{:>12.0}", "", at(&cold), at(&warm));
    }
    let figure = json!({"cold": cold.figure(), "warm": warm.figure()});
    figures.insert("first_query_us".to_owned(), figure);
}

/// In the agent's workload: a line for each window, nanoseconds of both.
pub(super) fn run(first: &First) {
    for at in 0..first.count {
        let (grant, _) = open(&first.asker, "10s");
        let [cold, warm] = [0, 1].map(|turn| {
            let body = job(&name_of(2 * at + turn), 2 * at + turn);
            let began = SystemClock.now().boot_ns;
            Link::to(&first.asker.to).must("POST", JOBS, &body);
            SystemClock.now().boot_ns - began
        });
        first.asker.give_back(&grant);
        println!("{cold} {warm}");
    }
}
