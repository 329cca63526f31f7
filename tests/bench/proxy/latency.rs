//! How long an answer takes on a kept-alive connection, one request after the other: what every way adds to the straight one. In the same
//! turns a record's bytes are made durable on the disk of the daemon's log: ours does that once before it forwards, the others never.

use serde_json::{Map, Value, json};

use super::figures::{Samples, round};
use super::lab::{Lab, Way};
use super::table;
use crate::turns::output;

const ROUNDS: u32 = 24;
/// Requests of one turn.
const COUNT: &str = "250";
const QUERY_ROUNDS: u32 = 8;
const QUERIES: &str = "50";

/// Measures requests that need no dry run, prints them and notes them.
pub(super) fn bench(lab: &Lab, figures: &mut Map<String, Value>) {
    let mut samples = Way::ALL.map(|_| Samples::default());
    let mut durable = Samples::default();
    let disk = lab.world.stage.dir().display().to_string();
    for round in 0..ROUNDS {
        for (way, taken) in in_turn(round, &mut samples) {
            let [server, roots] = lab.to(way);
            let asked = lab.work(round, &["ask", &server, &roots, COUNT]);
            taken.read(&output(asked));
        }
        durable.read(&output(lab.work_as_root(&["record", &disk, COUNT])));
    }
    table::head(&format!(
        "tables.get, {} each, one after the other, µs",
        samples[0].count()
    ));
    let straight = (samples[0].p50(), samples[0].p99());
    table::row("p50", &samples.each_ref().map(Samples::p50));
    table::row("p99", &samples.each_ref().map(Samples::p99));
    table::row(
        "p50, added",
        &samples.each_ref().map(|taken| taken.p50() - straight.0),
    );
    table::row(
        "p99, added",
        &samples.each_ref().map(|taken| taken.p99() - straight.1),
    );
    let (p50, p99) = (
        samples.each_ref().map(Samples::p50),
        samples.each_ref().map(Samples::p99),
    );
    println!(
        "a record's bytes made durable on the disk of the log, µs: p50 {:.0}, p99 {:.0}",
        durable.p50(),
        durable.p99()
    );
    let added = |at: usize| json!({"p50": round(p50[at] - p50[0]), "p99": round(p99[at] - p99[0])});
    for (name, figure) in [
        ("latency_us", table::each(|at| samples[at].figure())),
        ("added_us", table::each(added)),
        ("p50_ratio_vs", table::ratios(&p50)),
        ("p99_ratio_vs", table::ratios(&p99)),
        ("durable_us", durable.figure()),
    ] {
        figures.insert(name.to_owned(), figure);
    }
}

/// The ways in an order that begins with another one each time.
fn in_turn(round: u32, samples: &mut [Samples; 5]) -> impl Iterator<Item = (Way, &mut Samples)> {
    let mut all: Vec<_> = Way::ALL.into_iter().zip(samples).collect();
    let by = round as usize % all.len();
    all.rotate_left(by);
    all.into_iter()
}

/// Measures `jobs.insert`: through us it is a dry run and a record before it.
pub(super) fn dry_run(lab: &Lab, figures: &mut Map<String, Value>) {
    let [mut direct, mut cold, mut again] = [(); 3].map(|()| Samples::default());
    for round in 0..QUERY_ROUNDS {
        for (taken, way, more) in [
            (&mut direct, Way::Direct, &[][..]),
            (&mut cold, Way::Enforcer, &[][..]),
            (&mut again, Way::Enforcer, &["--same"][..]),
        ] {
            let [server, roots] = lab.to(way);
            let args = [&["query", &server, &roots, QUERIES][..], more].concat();
            taken.read(&output(lab.work(round, &args)));
        }
    }
    println!(
        "\n{:<58}{:>10}{:>12}{:>12}",
        format!("jobs.insert, {} each, µs", direct.count()),
        "direct",
        "a new text",
        "the same"
    );
    for (name, at) in [
        ("p50", Samples::p50 as fn(&Samples) -> f64),
        ("p99", Samples::p99),
    ] {
        println!(
            "{name:<58}{:>10.0}{:>12.0}{:>12.0}",
            at(&direct),
            at(&cold),
            at(&again)
        );
    }
    let figure = json!({"direct": direct.figure(), "cold": cold.figure(), "again": again.figure()});
    figures.insert("query_us".to_owned(), figure);
}
