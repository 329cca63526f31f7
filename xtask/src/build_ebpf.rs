//! Builds the kernel object reproducibly, or proves that the committed one is what the source makes.
//!
//! Stable Rust cannot build for BPF; Debian's `rustc-web` carries a prebuilt `core` for it. The object is committed, so that nobody needs
//! that toolchain but whoever changes the kernel programs, and CI.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::sh;

/// The linker's version; its LLVM must be at least as new as the compiler's.
pub(crate) const BPF_LINKER: &str = "0.13.0";
const RUSTC: &str = "/usr/bin/rustc";
const STRIP: &str = "llvm-strip-22";
const OBJECT: &str = "enforcer-ebpf/prebuilt/enforcer.bpf.o";

/// Rebuilds the object in place, or with `check` elsewhere and compares.
pub(crate) fn run(root: &Path, check: bool) -> Result<()> {
    let toolchain = toolchain()?;
    let dir = root.join("enforcer-ebpf/prebuilt");
    let noted = dir.join("TOOLCHAIN");
    if check {
        let committed = std::fs::read_to_string(&noted)
            .context("the committed object has no TOOLCHAIN note")?;
        ensure!(
            committed == toolchain,
            "the object was built by another toolchain than is installed, so its bytes cannot be compared. \
             Committed:\n{committed}Installed:\n{toolchain}Rebuild and commit it: cargo xtask build-ebpf"
        );
    }
    let target = root.join(if check {
        "target/bpf-check"
    } else {
        "target/bpf"
    });
    let built = build(root, &target)?;
    let bytes = std::fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let sum = format!("{}  enforcer.bpf.o\n", hex(&Sha256::digest(&bytes)));
    if check {
        let committed = std::fs::read(root.join(OBJECT))?;
        let committed_sum = std::fs::read_to_string(dir.join("enforcer.bpf.o.sha256"))?;
        ensure!(
            committed == bytes,
            "{OBJECT} is not what the source makes: run `cargo xtask build-ebpf` and commit it"
        );
        ensure!(
            committed_sum == sum,
            "{OBJECT}.sha256 does not name the committed object: run `cargo xtask build-ebpf`"
        );
        sh::say(&format!(
            "the committed kernel object is what the source makes ({})",
            sum.trim_end()
        ));
        return Ok(());
    }
    std::fs::create_dir_all(&dir)?;
    std::fs::write(root.join(OBJECT), &bytes)?;
    std::fs::write(dir.join("enforcer.bpf.o.sha256"), &sum)?;
    std::fs::write(noted, toolchain)?;
    sh::say(&format!("built {OBJECT}, {} bytes", bytes.len()));
    Ok(())
}

fn build(root: &Path, target: &Path) -> Result<PathBuf> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    // The paths of this checkout and of cargo's registry would otherwise stand in the object.
    let flags = [
        "-Clinker=bpf-linker".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        format!("--remap-path-prefix={}=/enforcer", root.display()),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
    ];
    let mut cargo = Command::new("cargo");
    cargo
        .current_dir(root)
        .args([
            "build",
            "--quiet",
            "--locked",
            "--package",
            "enforcer-ebpf",
            "--bin",
            "enforcer-ebpf",
            "--features",
            "bpf",
        ])
        .args([
            "--profile",
            "bpf",
            "--target",
            "bpfel-unknown-none",
            "--target-dir",
        ])
        .arg(target)
        // A rustup proxy named rustc may come first on PATH; and only this one crate may use unstable features.
        .env("RUSTC", RUSTC)
        .env("RUSTC_BOOTSTRAP", "aya_ebpf")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS");
    sh::run(cargo)?;
    let full = target.join("bpfel-unknown-none/bpf/enforcer-ebpf");
    let stripped = target.join("enforcer.bpf.o");
    let mut strip = Command::new(STRIP);
    strip.arg("-g").arg("-o").arg(&stripped).arg(&full);
    sh::run(strip)?;
    Ok(stripped)
}

/// What determines the bytes: compiler, linker, LLVM.
fn toolchain() -> Result<String> {
    let packages = "apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22-dev";
    let rustc = sh::output(Command::new(RUSTC).arg("-vV"))
        .with_context(|| format!("{RUSTC} is missing: {packages}"))?;
    let linker = sh::output(Command::new("bpf-linker").arg("--version")).with_context(|| {
        format!("bpf-linker is missing: LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version ={BPF_LINKER} --locked --no-default-features --features llvm-22")
    })?;
    let strip = sh::output(Command::new(STRIP).arg("--version"))
        .with_context(|| format!("{STRIP} is missing: {packages}"))?;
    let Some(llvm) = strip.lines().find(|line| line.contains("LLVM version")) else {
        bail!("{STRIP} --version names no LLVM version");
    };
    let release = |text: &str, key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key).map(str::to_owned))
    };
    Ok(format!(
        "rustc {}\nrustc LLVM {}\n{}\n{}\n",
        release(&rustc, "release: ").context("rustc -vV names no release")?,
        release(&rustc, "LLVM version: ").context("rustc -vV names no LLVM")?,
        linker.trim(),
        llvm.trim()
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
