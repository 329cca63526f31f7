//! Installs what the commands need and says so: Debian packages, cargo's tools, the test world's Python.

mod node;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::build_ebpf::BPF_LINKER;
use crate::sh;

/// What the demo and the tests run.
const WORLD: &[&str] = &[
    "gcc",
    "libc6-dev",
    "iproute2",
    "openssl",
    "ca-certificates",
    "curl",
    "python3",
    "python3-venv",
    "strace",
    "e2fsprogs",
    "mount",
    "tmux",
    "softhsm2",
    "bubblewrap",
    "nftables",
    "podman",
    "runc",
    "netavark",
    "aardvark-dns",
    "iptables",
    "uidmap",
    "systemd",
];
/// What the kernel object is built with.
const BPF: &[&str] = &[
    "rustc-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
    "g++",
];

/// What the fuzz targets are linked with.
const FUZZ: &[&str] = &["g++"];

/// What other kernels are run with.
const MACHINE: &[&str] = &["qemu-system-x86", "busybox-static", "cpio", "binutils"];

/// What the proxy is compared with, besides mitmproxy.
const PEERS: &[&str] = &["nginx", "haproxy"];
/// While this program says so, Debian's packages start no services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// The versions of cargo's tools that are installed where there are none: what checks today checks the same tomorrow.
const NEXTEST: &str = "0.9.143";
const DENY: &str = "0.20.2";

/// Says at once who must run this.
pub(crate) fn require_root(command: &str) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "`cargo xtask {command}` loads kernel programs and makes network namespaces, so it needs root: sudo -E env PATH=\"$PATH\" cargo xtask {command}"
    );
    Ok(())
}

/// What the demo and the tests run.
pub(crate) fn world(root: &Path) -> Result<()> {
    apt(WORLD)?;
    python_and_node(root)
}

/// The packages of all that CI does.
pub(crate) fn packages() -> Result<()> {
    apt(&[WORLD, BPF, FUZZ, MACHINE].concat())
}

/// The test world's Python and Node.
pub(crate) fn python_and_node(root: &Path) -> Result<()> {
    venv(root, &VENV)?;
    node::install(root)
}

/// What the proxy is compared with. Nothing of it is started here, now or at the next boot.
pub(crate) fn peers(root: &Path) -> Result<()> {
    if !missing(PEERS).is_empty() {
        let policy = NoServices::declare()?;
        apt(PEERS)?;
        drop(policy);
        let mut disable = Command::new("systemctl");
        disable.args(["disable", "--quiet"]).args(PEERS);
        // Where there is no service manager there is nothing to disable.
        let _ = disable.stderr(std::process::Stdio::null()).status();
    }
    venv(root, &BENCH_VENV)
}

/// Keeps packages from starting what they install, until it is dropped; a host that has said so itself is left as it is.
struct NoServices {
    is_ours: bool,
}

impl NoServices {
    fn declare() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt;
        let is_ours = !Path::new(POLICY).exists();
        if is_ours {
            std::fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
            std::fs::set_permissions(POLICY, PermissionsExt::from_mode(0o755))?;
        }
        Ok(Self { is_ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = std::fs::remove_file(POLICY);
        }
    }
}

/// Whether the Cloud SDK is on this machine. It is in no registry that this installs from.
pub(crate) fn has_cloud_sdk() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("bq").is_file())
}

/// The tools that CI runs besides.
pub(crate) fn ci() -> Result<()> {
    tool(
        "cargo-nextest",
        &["nextest", "--version"],
        quick("cargo-nextest", NEXTEST),
    )?;
    tool(
        "cargo-deny",
        &["deny", "--version"],
        quick("cargo-deny", DENY),
    )
}

/// What builds the kernel object.
pub(crate) fn ebpf() -> Result<()> {
    apt(BPF)?;
    bpf_linker()
}

/// What links the kernel object. It is built with the packages.
pub(crate) fn bpf_linker() -> Result<()> {
    let mut linker = Command::new("cargo");
    linker
        .args([
            "install",
            "--quiet",
            "bpf-linker",
            "--version",
            &format!("={BPF_LINKER}"),
            "--locked",
        ])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", "/usr/lib/llvm-22");
    tool("bpf-linker", &["--version"], linker)
}

/// What libFuzzer is built with.
pub(crate) fn fuzz() -> Result<()> {
    apt(FUZZ)
}

/// What runs other kernels.
pub(crate) fn machine() -> Result<()> {
    apt(MACHINE)
}

/// A tool of cargo's, built for a short build rather than a fast program.
fn quick(name: &str, version: &str) -> Command {
    let mut install = Command::new("cargo");
    install
        .args(["install", "--quiet", "--locked", name, "--version"])
        .arg(format!("={version}"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    install
}

fn tool(name: &str, probe: &[&str], install: Command) -> Result<()> {
    if Command::new(name)
        .args(probe)
        .output()
        .is_ok_and(|output| output.status.success())
    {
        return Ok(());
    }
    sh::say(&format!(
        "installing {name} from source; this takes some minutes"
    ));
    sh::run(install)
}

fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let is_missing = |package: &&&str| {
        let known = Command::new("dpkg-query")
            .args(["-W", "-f", "${Status}", package])
            .output();
        !known.is_ok_and(|output| output.stdout == b"install ok installed")
    };
    packages.iter().filter(is_missing).copied().collect()
}

fn apt(packages: &[&str]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    sh::say(&format!(
        "installing Debian packages: {}",
        missing.join(" ")
    ));
    apt_update()?;
    let mut install = Command::new("apt-get");
    install
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    install.stdout(std::process::Stdio::null());
    sh::run(install)
}

/// Reads anew what apt has.
pub(crate) fn apt_update() -> Result<()> {
    let mut update = Command::new("apt-get");
    update.args(["update", "-qq"]);
    sh::run(update)
}

/// A virtual environment of Python's.
struct Venv {
    /// Where, below `target/`.
    dir: &'static str,
    requirements: &'static str,
    what: &'static str,
}

const VENV: Venv = Venv {
    dir: "venv",
    requirements: "tests/world/requirements.txt",
    what: "the test world's Python environment under target/venv (about 600 MB)",
};
const BENCH_VENV: Venv = Venv {
    dir: "bench-venv",
    requirements: "tests/bench/requirements.txt",
    what: "mitmproxy's Python environment under target/bench-venv (about 150 MB)",
};

/// Makes a virtual environment, when its requirements have changed since it was made.
fn venv(root: &Path, venv: &Venv) -> Result<()> {
    let requirements = root.join(venv.requirements);
    let wanted =
        Sha256::digest(std::fs::read(&requirements).context("reading the requirements")?).to_vec();
    let dir = root.join("target").join(venv.dir);
    let stamp = dir.join("requirements.sha256");
    if std::fs::read(&stamp).is_ok_and(|made| made == wanted) {
        return Ok(());
    }
    sh::say(&format!("making {}", venv.what));
    let mut make = Command::new(python()?);
    make.args(["-m", "venv", "--clear"]).arg(&dir);
    sh::run(make)?;
    let mut install = Command::new(dir.join("bin/pip"));
    install
        .args(["install", "--quiet", "--requirement"])
        .arg(&requirements);
    sh::run(install)?;
    Ok(std::fs::write(stamp, wanted)?)
}

fn python() -> Result<PathBuf> {
    let system = PathBuf::from("/usr/bin/python3");
    ensure!(
        system.exists(),
        "python3 is missing: apt-get install python3 python3-venv"
    );
    Ok(system)
}
