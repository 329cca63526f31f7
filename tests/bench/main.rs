//! What enforcement costs and holds, measured on this machine: `cargo xtask bench kernel`, `proxy`, `scale`, `log`, `audit`, `console` and `netns`. Every figure has its peer in the same run.
#![expect(clippy::print_stdout, reason = "this prints a report")]

mod audit;
mod console;
mod kernel;
mod log;
mod many;
mod memory;
mod netns;
mod passing;
mod proxy;
mod turns;
mod windows;
mod worker;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// The kernel programs and the way through the proxy: what they cost and take, and that they hold during upgrades and crowds.
    Kernel {
        /// One JSON object on the last line as well.
        #[arg(long)]
        json: bool,
        /// Only this part.
        #[arg(long, value_enum)]
        only: Option<kernel::Part>,
    },
    /// The proxy beside three others and beside none: latency, streaming, memory, what a dry run costs, and how soon a window's end is felt.
    Proxy {
        /// One JSON object on the last line as well.
        #[arg(long)]
        json: bool,
        /// How many windows' ends are measured, about.
        #[arg(long, default_value_t = 1000)]
        closes: u32,
        /// Only this part.
        #[arg(long, value_enum)]
        only: Option<proxy::Part>,
    },
    /// Ten thousand windows and as many idle connections: what each takes, and whether a request is slower among them.
    Scale {
        /// One JSON object on the last line as well.
        #[arg(long)]
        json: bool,
    },
    /// Searches in a log of many records, by its index and by reading it through.
    Log {
        /// One JSON object on the last line as well.
        #[arg(long)]
        json: bool,
        /// How many records.
        #[arg(long, default_value_t = 10_000_000)]
        records: u64,
    },
    /// The log: durable records a second beside a plain loop of writes and syncs, and how long a start takes with a long log.
    Audit {
        /// One JSON object on the last line as well.
        #[arg(long)]
        json: bool,
        /// How long the log is with which a start is measured, records; 0 for none. A million takes half a gigabyte while it is measured.
        #[arg(long, default_value_t = 10_000_000)]
        records: u64,
    },
    /// A screen of the console with much on it, beside one with nothing.
    Console {
        /// One JSON object on the last line as well.
        #[arg(long)]
        json: bool,
    },
    /// Network namespaces of agents': how soon one is served, what a thousand leave, what one takes, and what a request costs from one.
    Netns {
        /// One JSON object on the last line as well.
        #[arg(long)]
        json: bool,
    },
    /// The half that is measured, in a process of its own.
    #[command(hide = true)]
    Worker {
        #[command(subcommand)]
        work: worker::Work,
    },
}

fn main() {
    match Bench::parse().what {
        What::Kernel { json, only } => kernel::bench(json, only),
        What::Proxy { json, closes, only } => proxy::bench(json, closes, only),
        What::Scale { json } => proxy::scale::bench(json),
        What::Log { json, records } => log::bench(records, json),
        What::Netns { json } => netns::bench(json),
        What::Console { json } => console::bench(json),
        What::Audit { json, records } => audit::bench(audit::Wanted { records, json }),
        What::Worker { work } => worker::run(&work),
    }
}
