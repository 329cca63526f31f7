//! What the proxy costs, beside nginx, HAProxy and mitmproxy doing TLS in and TLS out to the same server in the same run, and beside no proxy
//! at all; and how soon it ends what a window's end ends. Everybody takes turns, and each has the same client, cipher and wire.
//!
//! The others pass bytes on. Ours does what it is for besides: every request is judged, and is on disk before it is forwarded.

mod bigquery;
mod client;
mod closes;
mod crowd;
pub(crate) mod figures;
mod lab;
mod latency;
mod peers;
pub(crate) mod scale;
mod streaming;
mod table;
mod tls;
mod token;

use clap::ValueEnum;
use serde_json::{Map, Value, json};

pub(crate) use client::{Work, run};
pub(crate) use figures::{Samples, round};
pub(crate) use lab::{ALL_AGENTS, Lab, Way};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Requests that need no dry run.
    Latency,
    /// Results that stream, and the memory that takes.
    Streaming,
    /// Queries, with their dry run.
    Query,
    /// Windows' first queries, with their token.
    Token,
    /// Windows' ends.
    Closes,
}

/// Measures all of it, or one part, and prints it.
pub(crate) fn bench(json: bool, closes: u32, only: Option<Part>) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let before = load();
    let lab = Lab::new(threads);
    println!(
        "{threads} workers each (mitmproxy: 1) on {threads} cores that client and server share; TLS 1.3, {}, HTTP/1.1",
        tls::CIPHER
    );
    let mut figures = Map::new();
    let all = Part::value_variants().iter().copied();
    for part in all.filter(|part| only.is_none_or(|only| only == *part)) {
        match part {
            Part::Latency => latency::bench(&lab, &mut figures),
            Part::Streaming => streaming::bench(&lab, &mut figures),
            Part::Query => latency::dry_run(&lab, &mut figures),
            Part::Token => token::bench(&lab, &mut figures),
            Part::Closes if closes == 0 => {}
            Part::Closes => closes::bench(&lab, closes, &mut figures),
        }
    }
    let after = load();
    println!("\nload of the machine before and after: {before} {after}");
    figures.insert("load".to_owned(), json!([before, after]));
    figures.insert("workers".to_owned(), json!(threads));
    if json {
        println!("{}", Value::Object(figures));
    }
}

/// How many processes wanted a core lately, on average over a minute.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").expect("reads");
    load.split(' ').next().unwrap_or_default().to_owned()
}
