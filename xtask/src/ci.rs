//! Everything that CI runs, in the order in which it fails fastest.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{build_ebpf, kernels, setup, sh};

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
    step(
        root,
        "unit, property and integration tests",
        &[
            "nextest",
            "run",
            "--workspace",
            "--locked",
            "--no-fail-fast",
        ],
    )?;
    kernels::run(root, kernels::OLDEST, &[])
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
