//! Kernels from apt: found by what apt offers now, since a version that is named here would vanish from the archive.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{setup, sh};

/// Kernels for machines without much hardware, with BTF and everything the tests use; unsigned is the package that holds the files.
const NAMES: &str = r"^linux-image-6\.[0-9]+\..*-cloud-amd64-unsigned$";

/// Which kernel is wanted: of several, the newest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// This line of stable kernels.
    Line(u32, u32),
    /// This line or a later one.
    Since(u32, u32),
}

impl Wanted {
    fn is(self, numbers: &[u32]) -> bool {
        let Some(&[major, minor]) = numbers.get(..2) else {
            return false;
        };
        match self {
            Self::Line(wanted_major, wanted_minor) => {
                (major, minor) == (wanted_major, wanted_minor)
            }
            Self::Since(wanted_major, wanted_minor) => {
                (major, minor).cmp(&(wanted_major, wanted_minor)) != Ordering::Less
            }
        }
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(major, minor) => write!(f, "{major}.{minor}"),
            Self::Since(major, minor) => write!(f, "{major}.{minor} or later"),
        }
    }
}

/// A kernel, unpacked.
#[derive(Debug)]
pub(super) struct Image {
    /// As `uname -r` says it.
    pub(super) release: String,
    /// What is booted.
    pub(super) kernel: PathBuf,
    /// Its modules' folder.
    pub(super) modules: PathBuf,
}

/// The newest kernel of the wanted ones, downloaded once.
pub(super) fn get(dir: &Path, wanted: Wanted) -> Result<Image> {
    // What apt knows may be missing or old: the archive drops a version when the next comes.
    get_now(dir, wanted).or_else(|_| {
        setup::apt_update()?;
        get_now(dir, wanted)
    })
}

fn get_now(dir: &Path, wanted: Wanted) -> Result<Image> {
    let package = newest(&offered()?, wanted).with_context(|| {
        format!(
            "apt offers no Linux {wanted} (a package linux-image-…-cloud-amd64-unsigned): on Debian 12 add its security and backports archives to apt's sources"
        )
    })?;
    let unpacked = dir.join(&package);
    if !unpacked.exists() {
        download(dir, &package)?;
    }
    open(&unpacked)
}

/// The names of the kernel packages that apt knows.
fn offered() -> Result<Vec<String>> {
    let said = sh::output(Command::new("apt-cache").args(["search", "--names-only", NAMES]))?;
    let names = said.lines().filter_map(|line| line.split(' ').next());
    Ok(names.map(str::to_owned).collect())
}

fn newest(names: &[String], wanted: Wanted) -> Option<String> {
    let wanted = names.iter().filter(|name| wanted.is(&numbers(name)));
    wanted.max_by_key(|name| numbers(name)).cloned()
}

/// The numbers in a package's name, which order it.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn download(dir: &Path, package: &str) -> Result<()> {
    sh::say(&format!("downloading {package}"));
    let draft = dir.join("draft");
    if draft.exists() {
        std::fs::remove_dir_all(&draft)?;
    }
    std::fs::create_dir_all(&draft)?;
    let mut download = Command::new("apt-get");
    download
        .current_dir(&draft)
        // As root, which is who can write here.
        .args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]);
    sh::run(download)?;
    let file = only_in(&draft, ".deb")?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&file).arg(&draft);
    sh::run(unpack)?;
    std::fs::remove_file(&file)?;
    Ok(std::fs::rename(draft, dir.join(package))?)
}

fn open(unpacked: &Path) -> Result<Image> {
    let kernel = only_in(&unpacked.join("boot"), "vmlinuz-")?;
    let name = kernel.file_name().context("a name")?.to_string_lossy();
    let release = name.trim_start_matches("vmlinuz-").to_owned();
    let modules = unpacked.join("lib/modules").join(&release);
    Ok(Image {
        release,
        kernel,
        modules,
    })
}

/// The file in a folder whose name holds this.
fn only_in(dir: &Path, part: &str) -> Result<PathBuf> {
    let found = std::fs::read_dir(dir)
        .with_context(|| format!("reading {}", dir.display()))?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().contains(part));
    let found = found.with_context(|| format!("nothing in {} is called {part}", dir.display()))?;
    Ok(found.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_the_wanted_line_is_found() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64-unsigned",
            "linux-image-6.1.0-56-cloud-amd64-unsigned",
            "linux-image-6.12.107+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.9+deb12-cloud-amd64-unsigned",
            "linux-image-6.10.11+deb12-cloud-amd64-unsigned",
        ]
        .map(str::to_owned);
        let found = |wanted| newest(&names, wanted);
        assert_eq!(found(Wanted::Line(6, 1)).as_ref(), Some(&names[1]));
        assert_eq!(found(Wanted::Since(6, 12)).as_ref(), Some(&names[2]));
        assert_eq!(found(Wanted::Since(6, 13)), None);
        assert_eq!(found(Wanted::Line(6, 6)), None);
    }
}
