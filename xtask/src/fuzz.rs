//! Fuzzing: what reads bytes of agents' is fed with bytes that nobody thought of. Built on stable Rust with the coverage that libFuzzer wants.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};

use crate::{setup, sh};

/// What is fuzzed: the programs of `tests/fuzz`.
const TARGETS: [&str; 10] = [
    "request",
    "statement",
    "hello",
    "framing",
    "upload",
    "grpc",
    "coding",
    "record",
    "checkpoint",
    "policy",
];
/// How long each target is fuzzed in CI, seconds.
pub(crate) const IN_CI_S: u64 = 60;
/// The longest input, bytes.
const INPUT_BYTES_MAX: u32 = 8192;
/// The most memory that one input may take, MiB.
const MEMORY_MIB_MAX: u32 = 2048;
/// How long one input may take, seconds.
const INPUT_S_MAX: u32 = 10;
/// Where the C++ of libFuzzer is linked with, and where it is run: build scripts are built without coverage so.
const TRIPLE: &str = env!("XTASK_TRIPLE");
/// What libFuzzer reads while a program runs: which branches were taken, and what was compared.
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Clink-dead-code",
];

/// Builds all targets, and fuzzes those whose names begin with one of `only` (all, where that is empty) for so many seconds each.
pub(crate) fn run(root: &Path, seconds: u64, only: &[String]) -> Result<()> {
    setup::fuzz()?;
    let built = build(root)?;
    let is_wanted = |target: &&str| {
        only.is_empty() || only.iter().any(|only| target.starts_with(only.as_str()))
    };
    let wanted: Vec<&str> = TARGETS.into_iter().filter(is_wanted).collect();
    ensure!(
        !wanted.is_empty(),
        "no target's name begins so: there are {}",
        TARGETS.join(", ")
    );
    let at_once = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for some in wanted.chunks(at_once) {
        let started = some
            .iter()
            .map(|target| {
                let command = Command::new(built.join(target));
                Ok((*target, start(root, command, target, seconds)?))
            })
            .collect::<Result<Vec<_>>>()?;
        for (target, child) in started {
            finish(root, target, child)?;
        }
    }
    Ok(())
}

/// Builds all targets, and says where they are.
pub(crate) fn build(root: &Path) -> Result<PathBuf> {
    sh::say("building the fuzz targets");
    let target = root.join("target/fuzz");
    // The suite goes first, where it runs beside.
    let mut cargo = Command::new("nice");
    cargo
        .current_dir(root.join("tests/fuzz"))
        .args(["-n", "5", "cargo"])
        .args(["build", "--quiet", "--release", "--locked", "--bins"])
        .args(["--target", TRIPLE, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", COVERAGE.join(" "));
    sh::run(cargo).context("building the fuzz targets")?;
    Ok(target.join(TRIPLE).join("release"))
}

/// What was found worth keeping is kept under `target`, and begun with the next time.
fn corpus(root: &Path, target: &str) -> PathBuf {
    root.join("target/fuzz-corpus").join(target)
}

fn log(root: &Path, target: &str) -> PathBuf {
    corpus(root, target).with_extension("log")
}

fn start(root: &Path, mut command: Command, target: &str, seconds: u64) -> Result<Child> {
    let corpus = corpus(root, target);
    std::fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let log = log(root, target);
    let said = std::fs::File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    sh::say(&format!("fuzzing {target} for {seconds} s"));
    command
        .current_dir(&corpus)
        .arg(".")
        .arg(root.join("tests/fuzz/seeds").join(target))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
        .arg(format!("-timeout={INPUT_S_MAX}"))
        .arg(format!("-artifact_prefix={}-", corpus.display()))
        .args(["-print_final_stats=1", "-use_value_profile=1"])
        .stdout(said.try_clone().context("the log")?)
        .stderr(said);
    command
        .spawn()
        .with_context(|| format!("starting {target}"))
}

fn finish(root: &Path, target: &str, mut child: Child) -> Result<()> {
    let status = child
        .wait()
        .with_context(|| format!("waiting for {target}"))?;
    let log = log(root, target);
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    let executed = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .map_or("?", str::trim);
    let last: Vec<&str> = said.lines().rev().take(40).collect();
    ensure!(
        status.success(),
        "{target} failed ({status}): the input is beside {}, whose end is\n{}",
        log.display(),
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    );
    ensure!(
        executed.parse().is_ok_and(|executed: u64| executed > 1000),
        "{target} has tried only {executed} inputs: see {}",
        log.display()
    );
    sh::say(&format!("{target}: {executed} inputs, nothing found"));
    Ok(())
}
