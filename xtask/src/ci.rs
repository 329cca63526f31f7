//! Everything that CI runs, in the order in which it fails fastest.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{build_ebpf, fuzz, kernels, setup, sh};

/// Runs all checks and tests.
pub(crate) fn test(root: &Path) -> Result<()> {
    setup::require_root("test")?;
    setup::world(root)?;
    setup::ci()?;
    setup::ebpf()?;
    step(root, "formatting", &["fmt", "--all", "--check"])?;
    step(
        root,
        "lints",
        &[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    step(
        root,
        "bans, licences and sources",
        &[
            "deny",
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ],
    )?;
    advisories(root)?;
    sh::say("documentation");
    let mut doc = cargo(
        root,
        &[
            "doc",
            "--quiet",
            "--workspace",
            "--no-deps",
            "--document-private-items",
            "--locked",
        ],
    );
    doc.env("RUSTDOCFLAGS", "-D warnings");
    sh::run(doc)?;
    sh::say("the kernel object");
    build_ebpf::run(root, true)?;
    step(
        root,
        "building",
        &[
            "build",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
        ],
    )?;
    tested_and_fuzzed(root)
}

/// The suite waits more than it computes: the emulated kernel takes what it leaves of the processors, and gives way. One after the other
/// they take half as long again. Then all of the processors are the fuzzing's.
fn tested_and_fuzzed(root: &Path) -> Result<()> {
    // Before they part: apt lets in one at a time.
    setup::fuzz()?;
    setup::machine()?;
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let part = kernels::IN_CI.map(str::to_owned);
            kernels::run(root, kernels::OLDEST, &part)?;
            fuzz::build(root).map(drop)
        });
        let tested = tests(root);
        let Ok(beside) = beside.join() else {
            anyhow::bail!("the run of the emulated kernel panicked")
        };
        // Of two failures both are told.
        match (tested, beside) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
            (Err(tested), Err(beside)) => Err(tested.context(format!("{beside:#}"))),
        }
    })?;
    fuzz::run(root, fuzz::IN_CI_S, &[])
}

/// The Cloud SDK comes from Google alone: a machine that has none tests the other clients, and says so.
fn tests(root: &Path) -> Result<()> {
    const WHAT: &str = "unit, property and integration tests";
    sh::say(WHAT);
    let mut tests = cargo(
        root,
        &[
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ],
    );
    if !setup::has_cloud_sdk() {
        sh::say("the Cloud SDK's bq: NOT TRIED, there is none on this machine's PATH");
        tests.env("ENFORCER_TEST_WITHOUT_BQ", "1");
    }
    sh::run(tests).with_context(|| format!("{WHAT}: failed"))
}

fn step(root: &Path, what: &str, args: &[&str]) -> Result<()> {
    sh::say(what);
    sh::run(cargo(root, args)).with_context(|| format!("{what}: failed"))
}

fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).args(args);
    cargo
}

/// Advisories need their database, which is fetched from the network. Where it cannot be had, that is said, and is no failure; where it
/// can, an advisory is one.
fn advisories(root: &Path) -> Result<()> {
    let mut fetch = cargo(root, &["deny", "--log-level", "error", "fetch", "db"]);
    fetch
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    if fetch.status().is_ok_and(|status| status.success()) {
        step(
            root,
            "advisories",
            &[
                "deny",
                "--log-level",
                "error",
                "check",
                "--disable-fetch",
                "advisories",
            ],
        )
    } else {
        sh::say("advisories: NOT CHECKED, their database could not be reached");
        Ok(())
    }
}
