//! The project's own commands. `cargo xtask --help` lists them.

mod build_ebpf;
mod ci;
mod fuzz;
mod kernels;
mod setup;
mod sh;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Xtask {
    /// Play the main job with real programs on this kernel, and print what happens. Needs root.
    Demo {
        /// Leave the world up for a hand trial until Ctrl-C.
        #[arg(long)]
        keep: bool,
    },
    /// Measure, each figure beside its peer in the same run. Needs root.
    Bench {
        /// What.
        #[arg(value_enum)]
        what: Measured,
        /// One JSON object on the last line as well.
        #[arg(long)]
        json: bool,
        /// Of the proxy: how many windows' ends are measured, about; 1000 when absent.
        #[arg(long)]
        closes: Option<u32>,
    },
    /// Everything that CI runs. Needs root.
    Test {
        /// Instead the kernel part alone, on each of Debian's kernels that are supported, in machines of qemu's.
        #[arg(long)]
        kernels: bool,
        /// Of those, only the tests whose names begin with this; more than once for more.
        #[arg(long, requires = "kernels")]
        only: Vec<String>,
    },
    /// Feed what reads agents' bytes with bytes that nobody thought of.
    Fuzz {
        /// How long each target, seconds.
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
        /// Only targets whose names begin with this; more than once for more.
        #[arg(long)]
        only: Vec<String>,
    },
    /// Make the Python environment of the test world.
    Venv,
    /// Build the kernel object in place, or prove that the committed one is what the source makes.
    BuildEbpf {
        /// Compare instead of replacing.
        #[arg(long)]
        check: bool,
    },
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measured {
    /// The kernel programs, with and without.
    Kernel,
    /// The proxy, beside nginx, HAProxy, mitmproxy and none.
    Proxy,
    /// The daemon with ten thousand windows and as many idle connections.
    Scale,
    /// Searches in a log of ten million records; takes 12 GB of the folder for temporary files meanwhile.
    Log,
    /// The log, beside a plain loop of writes and syncs, and starts with ten million records.
    Audit,
    /// A screen of the console with much on it, beside one with nothing.
    Console,
    /// Agents' network namespaces, beside the host's own.
    Netns,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Causes in one line; a backtrace into this program helps nobody who runs it.
            sh::say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = root()?;
    match Xtask::parse() {
        Xtask::Demo { keep } => demo(&root, keep),
        Xtask::Bench { what, json, closes } => bench(&root, what, json, closes),
        Xtask::Test { kernels: false, .. } => ci::test(&root),
        Xtask::Test {
            kernels: true,
            only,
        } => kernels::run(&root, kernels::ALL, &only),
        Xtask::Fuzz { seconds, only } => fuzz::run(&root, seconds, &only),
        Xtask::Venv => setup::world(&root),
        Xtask::BuildEbpf { check } => {
            setup::ebpf()?;
            build_ebpf::run(&root, check)
        }
    }
}

fn demo(root: &Path, keep: bool) -> Result<()> {
    setup::require_root("demo")?;
    setup::world(root)?;
    sh::say("building the enforcer and the test world");
    let mut build = Command::new("cargo");
    build.current_dir(root).args([
        "build",
        "--locked",
        "--package",
        "enforcer",
        "--package",
        "enforcer-console",
        "--package",
        "enforcer-tests",
        "--bins",
    ]);
    sh::run(build)?;
    let mut demo = Command::new(root.join("target/debug/enforcer-demo"));
    if keep {
        demo.arg("--keep");
    }
    sh::run(demo)
}

fn bench(root: &Path, what: Measured, json: bool, closes: Option<u32>) -> Result<()> {
    setup::require_root("bench")?;
    setup::world(root)?;
    let what = match what {
        Measured::Kernel => "kernel",
        Measured::Proxy => {
            setup::peers(root)?;
            "proxy"
        }
        Measured::Scale => "scale",
        Measured::Log => "log",
        Measured::Audit => "audit",
        Measured::Console => "console",
        Measured::Netns => "netns",
    };
    let mut build = Command::new("cargo");
    build.current_dir(root).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "enforcer",
        "--package",
        "enforcer-console",
        "--package",
        "enforcer-tests",
        "--bin",
        "enforcer",
        "--bin",
        "enforcer-console",
        "--bin",
        "enforcer-bench",
    ]);
    sh::run(build)?;
    let mut bench = Command::new(root.join("target/release/enforcer-bench"));
    bench.arg(what);
    if json {
        bench.arg("--json");
    }
    if let Some(closes) = closes {
        bench.arg(format!("--closes={closes}"));
    }
    sh::run(bench)
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the package has a parent folder")?;
    Ok(root.canonicalize()?)
}
