//! What enforcement costs and holds, measured on this machine's kernel: `cargo xtask bench kernel`. Every figure has its peer in the same run.
#![expect(clippy::print_stdout, reason = "this prints a report")]

mod kernel;
mod many;
mod memory;
mod passing;
mod turns;
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
        What::Kernel { json } => kernel::bench(json),
        What::Worker { work } => worker::run(&work),
    }
}
