//! The project's own commands. `cargo xtask --help` lists them.

mod build_ebpf;
mod sh;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Xtask {
    /// Build the kernel object in place, or prove that the committed one is what the source makes.
    BuildEbpf {
        /// Compare instead of replacing.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    let root = root()?;
    match Xtask::parse() {
        Xtask::BuildEbpf { check } => build_ebpf::run(&root, check),
    }
}

fn root() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the package has a parent folder")?;
    Ok(root.canonicalize()?)
}
