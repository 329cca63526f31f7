//! Programs of somebody else's that run before ours: at the cgroup that ours are attached to, or at one below, where they come first. Such a one
//! could hide from ours where a socket goes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::load::Link;
use super::sys::{self, Target};
use crate::workload;

/// What of somebody else's runs before ours, by the name of ours: the programs' ids.
pub type Before = BTreeMap<&'static str, Vec<u32>>;

/// Programs of ours, each by its name, the place where it is attached (`enum bpf_attach_type`), and its id.
#[derive(Debug, Clone, Default)]
pub struct Ours(Vec<(&'static str, u32, u32)>);

impl Ours {
    pub(super) fn of(links: &[Link]) -> Self {
        let ours = links.iter();
        let ours = ours.map(|link| (link.name, link.attach_type, link.behind.program));
        Self(ours.collect())
    }

    /// What runs before ours for whoever is in a cgroup, each place with the programs; nothing where the cgroup has gone.
    ///
    /// # Errors
    /// When it cannot be looked at, or the kernel does not say what runs there.
    pub fn before_in(&self, folder: &Path) -> io::Result<Before> {
        match self.looked_at(folder) {
            Err(error) if workload::is_gone(&error) => Ok(Before::new()),
            looked => looked,
        }
    }

    fn looked_at(&self, folder: &Path) -> io::Result<Before> {
        let cgroup = File::open(folder)?;
        let mut before = Before::new();
        for (name, place, own) in &self.0 {
            let running = sys::running_at(Target::Cgroup(cgroup.as_fd()), *place)?;
            // That ours does not run there at all is said by others.
            let ours = running.iter().position(|id| id == own).unwrap_or(0);
            if ours > 0 {
                before.insert(*name, running[..ours].to_vec());
            }
        }
        Ok(before)
    }

    /// The same in one sentence for each place, without what runs before ours `elsewhere`, too; or why that is not known.
    #[must_use]
    pub fn overtaken_in(&self, folder: &Path, elsewhere: &Before) -> Vec<String> {
        let before = match self.before_in(folder) {
            Ok(before) => before,
            Err(error) => {
                return vec![format!(
                    "whether somebody else's programs run before ours in {} is not known: {error}",
                    folder.display()
                )];
            }
        };
        let said = before.into_iter().filter_map(|(name, mut before)| {
            let known = elsewhere.get(name);
            before.retain(|id| known.is_none_or(|known| !known.contains(id)));
            let before: Vec<String> = before.iter().map(ToString::to_string).collect();
            (!before.is_empty()).then(|| {
                format!(
                    "before {name} runs program {} of somebody else's in {}, and could hide from it what is protected: detach it (bpftool cgroup), or restart it after the daemon",
                    before.join(", "),
                    folder.display()
                )
            })
        });
        said.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_looked_at_is_not_taken_for_one_without_programs() {
        let ours = Ours::default();
        let dir = tempfile::tempdir().expect("a folder");
        let gone = dir.path().join("gone");
        assert!(ours.overtaken_in(&gone, &Before::new()).is_empty());
        // Longer than a name may be.
        let unseen = dir.path().join("d".repeat(300));
        let said = ours.overtaken_in(&unseen, &Before::new());
        assert!(
            said.len() == 1 && said[0].contains("is not known"),
            "{said:?}"
        );
    }
}
