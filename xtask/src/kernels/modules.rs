//! The kernel modules that the tests need, and those that these need, in the order in which they are loaded.
//!
//! There is no modprobe in the machine, and no index of modules in a package: a module itself names what it depends on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The wire between two namespaces, the protocols that are tried, what a guard of interfaces is attached by before 6.6, and what ends flows
/// that are older than the enforcer. A host loads them by itself when they are asked for; nobody does in the machine.
const WANTED: &[&str] = &[
    "veth",
    "tun",
    "sctp",
    "sch_ingress",
    "cls_bpf",
    "tcp_diag",
    "udp_diag",
];

/// The modules' bytes, first what others need.
pub(super) fn closure(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = HashMap::new();
    index(&dir.join("kernel"), &mut found)?;
    let builtin = std::fs::read_to_string(dir.join("modules.builtin"))
        .with_context(|| format!("reading {}/modules.builtin", dir.display()))?;
    let mut closure = Closure {
        found,
        builtin: builtin.lines().filter_map(name_of).collect(),
        loaded: Vec::new(),
    };
    for name in WANTED {
        closure.add(name)?;
    }
    Ok(closure.loaded)
}

struct Closure {
    found: HashMap<String, PathBuf>,
    builtin: Vec<String>,
    loaded: Vec<(String, Vec<u8>)>,
}

impl Closure {
    fn add(&mut self, name: &str) -> Result<()> {
        let is_there = self.loaded.iter().any(|(loaded, _)| loaded == name)
            || self.builtin.iter().any(|builtin| builtin == name);
        if is_there {
            return Ok(());
        }
        let path = self
            .found
            .get(name)
            .with_context(|| format!("the kernel package has no module {name}"))?;
        let bytes = read(path)?;
        for needed in depends(&bytes) {
            self.add(&needed)?;
        }
        self.loaded.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// The module's own note, a string that ends with a zero byte: `depends=one,two`.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(place) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let rest = &module[place + KEY.len()..];
    let value = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value).into_owned();
    let names = names.split(',').filter(|name| !name.is_empty());
    names.map(normal).collect()
}

fn index(dir: &Path, found: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            index(&path, found)?;
        } else if let Some(name) = name_of(&path.to_string_lossy()) {
            found.insert(name, path);
        }
    }
    Ok(())
}

/// `veth` of `…/veth.ko.xz`.
fn name_of(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    Some(normal(file.split_once(".ko")?.0))
}

/// A file may be called with dashes where the kernel says underscores.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "ko") {
        return Ok(std::fs::read(path)?);
    }
    let unpacked = Command::new("busybox")
        .arg("xzcat")
        .arg(path)
        .output()
        .context("cannot start busybox")?;
    ensure!(
        unpacked.status.success(),
        "cannot unpack {}: {}",
        path.display(),
        String::from_utf8_lossy(&unpacked.stderr)
    );
    Ok(unpacked.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=libcrc32c,udp-tunnel\0name=sctp\0";
        assert_eq!(depends(module), ["libcrc32c", "udp_tunnel"]);
        assert!(depends(b"\0depends=\0name=veth\0").is_empty());
        assert_eq!(
            name_of("kernel/a/crc32c-intel.ko.xz").as_deref(),
            Some("crc32c_intel")
        );
        assert_eq!(name_of("modules.order"), None);
    }
}
