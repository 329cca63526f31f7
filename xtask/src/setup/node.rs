//! The agent's client in another language: Node and its packages, under `target/node`, each in the version that the project names.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::python;
use crate::sh;

/// What says which versions there are to be, below `tests/world/node`.
const WANTED: &[&str] = &[
    "requirements.txt",
    "package.json",
    "package-lock.json",
    ".npmrc",
];

/// Makes `target/node` when what is wanted has changed since it was made.
pub(super) fn install(root: &Path) -> Result<()> {
    let source = root.join("tests/world/node");
    let dir = root.join("target/node");
    let stamp = dir.join("wanted.sha256");
    let wanted = digest(&source)?;
    if std::fs::read(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    sh::say("making Node and BigQuery's client for it under target/node (about 250 MB)");
    let mut make = Command::new(python()?);
    make.args(["-m", "venv", "--clear"]).arg(&dir);
    sh::run(make)?;
    let mut wheel = Command::new(dir.join("bin/pip"));
    wheel
        .args(["install", "--quiet", "--requirement"])
        .arg(source.join("requirements.txt"));
    sh::run(wheel)?;
    for name in WANTED {
        std::fs::copy(source.join(name), dir.join(name))
            .with_context(|| format!("copying {name}"))?;
    }
    sh::run(packages(&dir)?)?;
    Ok(std::fs::write(stamp, wanted)?)
}

/// Installs what the lock file names, and nothing else; no package runs anything of its own.
fn packages(dir: &Path) -> Result<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(dir.join("bin")).chain(std::env::split_paths(&path)))?;
    let mut install = Command::new(dir.join("bin/npm"));
    install
        .args(["ci", "--loglevel", "error"])
        .current_dir(dir)
        .env("PATH", path);
    Ok(install)
}

fn digest(source: &Path) -> Result<Vec<u8>> {
    let mut digest = Sha256::new();
    for name in WANTED {
        digest.update(std::fs::read(source.join(name)).with_context(|| format!("reading {name}"))?);
    }
    Ok(digest.finalize().to_vec())
}
