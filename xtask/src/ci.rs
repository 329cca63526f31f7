//! Everything that CI runs, in the order in which it fails fastest.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build_ebpf, fuzz, kernels, setup, sh};

/// Where lints and documentation keep what they make of the source.
const READ: &str = "target/read";

/// Runs all checks and tests.
///
/// What waits for a network, a disk or one crate's compiler leaves a processor to something else: two things are done at a time throughout.
pub(crate) fn test(root: &Path) -> Result<()> {
    setup::require_root("test")?;
    step(root, "formatting", &["fmt", "--all", "--check"])?;
    // Before they part: apt lets in one at a time.
    setup::packages()?;
    beside(
        || {
            setup::python_and_node(root)?;
            read(root)
        },
        || {
            setup::ci()?;
            setup::bpf_linker()?;
            bans(root)?;
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
            )
        },
    )?;
    // The suite waits more than it computes: the emulated kernel takes what it leaves of the processors, and gives way.
    beside(
        || tests(root),
        || {
            let part = kernels::IN_CI.map(str::to_owned);
            kernels::run(root, kernels::OLDEST, &part)?;
            fuzz::build(root).map(drop)
        },
    )?;
    // All of the processors are the fuzzing's.
    fuzz::run(root, fuzz::IN_CI_S, &[])
}

/// Does both at once. Of two failures both are told.
fn beside(
    one: impl FnOnce() -> Result<()>,
    other: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one();
        let Ok(other) = other.join() else {
            bail!("a part of the run panicked")
        };
        match (one, other) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
            (Err(one), Err(other)) => Err(one.context(format!("{other:#}"))),
        }
    })
}

/// What reads the source and makes no programs. In a folder of its own: cargo lets in one at a time.
fn read(root: &Path) -> Result<()> {
    sh::say("lints");
    let mut lints = cargo(
        root,
        &[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
        ],
    );
    lints
        .arg("--target-dir")
        .arg(root.join(READ))
        .args(["--", "-D", "warnings"]);
    sh::run(lints).context("lints: failed")?;
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
    doc.arg("--target-dir")
        .arg(root.join(READ))
        .env("RUSTDOCFLAGS", "-D warnings");
    sh::run(doc).context("documentation: failed")
}

fn bans(root: &Path) -> Result<()> {
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
    advisories(root)
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
