//! Finds the cgroups that configured workloads mean. By its name, below folders that root alone made: whoever owns a folder of cgroups (a
//! user's own service manager) gives them whatever names he likes, so nothing is looked for there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::Workload;

/// The most cgroups that are looked at; on a host with more no workload is found by its name.
const LOOKED_AT_MAX: usize = 20_000;
/// How runtimes name a container's cgroup, before and after its id: Docker and Podman under systemd, containerd and CRI-O, and those that
/// make cgroups themselves.
const CONTAINERS: [(&str, &str); 6] = [
    ("docker-", ".scope"),
    ("libpod-", ".scope"),
    ("cri-containerd-", ".scope"),
    ("crio-", ".scope"),
    ("libpod-", ""),
    ("", ""),
];
/// The length of a container's id, in hexadecimal digits.
const CONTAINER_ID_CHARS: usize = 64;

/// The folder of the cgroup that each of `workloads` means, below `root`, in their order; `None` while there is none.
///
/// # Errors
/// For each by itself, why it cannot be told: more than one, or more cgroups than are looked at.
pub fn find(root: &Path, workloads: &[&Workload]) -> Vec<Result<Option<PathBuf>, String>> {
    let by_name = workloads
        .iter()
        .copied()
        .filter(|workload| is_named(workload));
    let mut walk = Walk {
        named: by_name.collect(),
        matching: Vec::new(),
        looked_at: 0,
    };
    if !walk.named.is_empty() {
        walk.below(root);
    }
    let found = workloads.iter().map(|workload| match workload {
        Workload::Cgroup(path) => Ok(there(root.join(path))),
        Workload::User(uid) => Ok(there(root.join(format!("user.slice/user-{uid}.slice")))),
        Workload::Unit(_) | Workload::Container(_) | Workload::Pod(_) => walk.the_one(workload),
    });
    found.collect()
}

fn there(folder: PathBuf) -> Option<PathBuf> {
    folder.is_dir().then_some(folder)
}

/// Whether a workload is found by its cgroup's name, wherever that is.
const fn is_named(workload: &Workload) -> bool {
    match workload {
        Workload::Unit(_) | Workload::Container(_) | Workload::Pod(_) => true,
        Workload::Cgroup(_) | Workload::User(_) => false,
    }
}

/// Whether a cgroup of this name is the workload's.
fn is_called(name: &str, workload: &Workload) -> bool {
    match workload {
        Workload::Unit(unit) => name == unit,
        Workload::Container(id) => is_container(name, id),
        Workload::Pod(uid) => is_pod(name, uid),
        Workload::Cgroup(_) | Workload::User(_) => false,
    }
}

/// One walk over the cgroups, for all workloads that are found by name.
struct Walk<'a> {
    named: Vec<&'a Workload>,
    matching: Vec<(&'a Workload, PathBuf)>,
    looked_at: usize,
}

impl Walk<'_> {
    /// Looks at the folders below `folder`, but for what lies below one that is not root's.
    fn below(&mut self, folder: &Path) {
        // Gone meanwhile: nothing is there.
        let Ok(entries) = std::fs::read_dir(folder) else {
            return;
        };
        for entry in entries.flatten() {
            // A cgroup has dozens of files: what an entry is stands in its folder already.
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if !entry.metadata().is_ok_and(|meta| meta.uid() == 0) {
                continue;
            }
            self.looked_at += 1;
            if self.looked_at > LOOKED_AT_MAX {
                return;
            }
            let path = entry.path();
            if let Some(name) = entry.file_name().to_str() {
                let called = self
                    .named
                    .iter()
                    .filter(|workload| is_called(name, workload));
                let called = called.map(|workload| (*workload, path.clone()));
                self.matching.extend(called);
            }
            self.below(&path);
        }
    }

    /// The one cgroup of a workload's.
    fn the_one(&self, workload: &Workload) -> Result<Option<PathBuf>, String> {
        if self.looked_at > LOOKED_AT_MAX {
            return Err(format!("the host has more than {LOOKED_AT_MAX} cgroups"));
        }
        let mut matching = self.matching.iter().filter(|(of, _)| *of == workload);
        match (matching.next(), matching.next()) {
            (None, _) => Ok(None),
            (Some((_, one)), None) => Ok(Some(one.clone())),
            (Some((_, one)), Some((_, other))) => Err(format!(
                "both {} and {} are called so",
                one.display(),
                other.display()
            )),
        }
    }
}

/// Whether a cgroup is that of the container whose id begins so.
fn is_container(name: &str, id: &str) -> bool {
    let is_id = |text: &str| {
        text.len() == CONTAINER_ID_CHARS
            && text.bytes().all(|byte| byte.is_ascii_hexdigit())
            && text.starts_with(id)
    };
    CONTAINERS.iter().any(|(before, after)| {
        let inner = name.strip_prefix(before);
        inner
            .and_then(|rest| rest.strip_suffix(after))
            .is_some_and(is_id)
    })
}

/// Whether a cgroup is that of the pod with this uid: `podUID`, or `kubepods-QUALITY-podUID.slice` with underscores in it.
fn is_pod(name: &str, uid: &str) -> bool {
    let slice = name
        .strip_suffix(".slice")
        .map(|rest| rest.replace('_', "-"));
    let plain = name.strip_prefix("pod");
    plain == Some(uid)
        || slice.is_some_and(|slice| {
            slice.starts_with("kubepods") && slice.ends_with(&format!("-pod{uid}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "8dbc0b14-47a8-4b23-9f0e-6a2d1c3b4a5f";

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for path in paths {
            std::fs::create_dir_all(root.path().join(path)).expect("makes a folder");
        }
        root
    }

    fn found(root: &tempfile::TempDir, workload: &Workload) -> Option<String> {
        let mut found = find(root.path(), &[workload]);
        found.remove(0).expect("no doubt").map(|path| {
            let below = path.strip_prefix(root.path()).expect("below");
            below.display().to_string()
        })
    }

    #[test]
    fn a_unit_is_found_by_its_whole_name_wherever_its_slice_is() {
        let path = "agents.slice/agents-finance.slice/bot.service";
        let root = tree(&[path, "system.slice/other-bot.service"]);
        let unit = Workload::Unit("bot.service".to_owned());
        assert_eq!(found(&root, &unit).as_deref(), Some(path));
        let absent = Workload::Unit("ot.service".to_owned());
        assert_eq!(found(&root, &absent), None);
    }

    #[test]
    fn a_container_is_found_by_the_beginning_of_its_id_in_every_runtimes_spelling() {
        for path in [
            format!("system.slice/docker-{ID}.scope"),
            format!("docker/{ID}"),
            format!("machine.slice/libpod-{ID}.scope"),
            format!("libpod_parent/libpod-{ID}"),
            format!("kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
        ] {
            let root = tree(&[&path, "system.slice/docker-short.scope"]);
            let container = Workload::Container(ID[..12].to_owned());
            assert_eq!(found(&root, &container), Some(path));
        }
    }

    #[test]
    fn a_pod_is_found_in_either_drivers_spelling() {
        for path in [
            format!("kubepods/burstable/pod{POD}"),
            format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
                POD.replace('-', "_")
            ),
        ] {
            let root = tree(&[&path]);
            assert_eq!(found(&root, &Workload::Pod(POD.to_owned())), Some(path));
        }
    }

    #[test]
    fn everything_that_a_user_runs_is_the_users_slice() {
        let root = tree(&["user.slice/user-2001.slice/session-3.scope"]);
        assert_eq!(
            found(&root, &Workload::User(2001)).as_deref(),
            Some("user.slice/user-2001.slice")
        );
        assert_eq!(found(&root, &Workload::User(2002)), None);
    }

    #[test]
    fn two_of_one_name_are_none() {
        let root = tree(&["a.slice/bot.service", "b.slice/bot.service"]);
        let [bot, other] =
            ["bot.service", "other.service"].map(|name| Workload::Unit(name.to_owned()));
        let found = find(root.path(), &[&bot, &other]);
        assert!(found[0].is_err() && found[1] == Ok(None), "{found:?}");
    }
}
