//! Finds the cgroups that configured workloads mean. By its name, below folders that root alone made: whoever owns a folder of cgroups (a
//! user's own service manager) gives them whatever names he likes, so nothing is looked for there. Nor in a container, whose root may be the host's
//! by its number and makes what it likes; a unit only where the service manager puts units. What could not be looked at is no proof that nothing is
//! there: it is a doubt, and said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirEntry;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::called::{container_ids, is_container, is_slice};
use super::unknown::Containers;
use crate::config::{AGENTS_MAX, Workload, pattern};
use crate::workload::is_gone;

/// The most cgroups that are looked at: four for each agent that a host may have. On a host with more it is in doubt where those are that are
/// found by their names.
const LOOKED_AT_MAX: usize = 4 * AGENTS_MAX;
/// What there is of one workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    /// Nothing: everything was looked at.
    Absent,
    /// Its cgroup.
    At(PathBuf),
    /// It cannot be told where it is.
    InDoubt {
        /// What may be it, as far as was looked.
        any: Vec<PathBuf>,
        /// Whether everything was looked at.
        is_whole: bool,
        /// Why, in words.
        why: String,
    },
}

/// Where each of `workloads` is below `root`, in their order.
#[must_use]
pub fn find(root: &Path, workloads: &[&Workload]) -> Vec<Sought> {
    find_beside(root, workloads, &mut None)
}

/// The same, and which containers there are besides, where that is asked for.
pub(super) fn find_beside(
    root: &Path,
    workloads: &[&Workload],
    containers: &mut Option<Containers>,
) -> Vec<Sought> {
    let by_name = workloads
        .iter()
        .copied()
        .filter(|workload| is_named(workload));
    let mut walk = Walk {
        id_chars: workloads
            .iter()
            .filter_map(|wanted| id_chars(wanted))
            .collect(),
        paths_like: workloads
            .iter()
            .filter_map(|wanted| parts(wanted))
            .collect(),
        units_like: workloads
            .iter()
            .copied()
            .filter_map(|wanted| match wanted {
                Workload::UnitLike(name) => Some((wanted, name.as_str())),
                Workload::Cgroup(_)
                | Workload::CgroupLike(_)
                | Workload::Unit(_)
                | Workload::User(_)
                | Workload::Container(_)
                | Workload::Pod(_)
                | Workload::ContainerName(_)
                | Workload::ContainerLabel(_) => None,
            })
            .collect(),
        matching: by_name.map(|workload| (workload, Vec::new())).collect(),
        containers: containers.take(),
        looked_at: 0,
        unseen: None,
    };
    if !walk.matching.is_empty() || walk.containers.is_some() {
        let top = Place {
            folder: root,
            name: None,
            is_for_units: true,
            depth: 0,
            like: (0..walk.paths_like.len()).collect(),
        };
        walk.below(&top);
    }
    *containers = walk.containers.take();
    let found = workloads.iter().map(|workload| match workload {
        Workload::Cgroup(path) => there(root.join(path)),
        Workload::User(uid) => there(root.join(format!("user.slice/user-{uid}.slice"))),
        Workload::CgroupLike(_)
        | Workload::Unit(_)
        | Workload::UnitLike(_)
        | Workload::Container(_)
        | Workload::Pod(_) => walk.the_one(workload),
        // These have no name among cgroups: whoever knows their ids has those looked for.
        Workload::ContainerName(_) | Workload::ContainerLabel(_) => Sought::Absent,
    });
    found.collect()
}

fn there(folder: PathBuf) -> Sought {
    match std::fs::metadata(&folder) {
        Ok(meta) if meta.is_dir() => Sought::At(folder),
        Ok(_) => Sought::Absent,
        Err(error) if is_gone(&error) => Sought::Absent,
        Err(error) => Sought::InDoubt {
            why: unseen(&folder, &error),
            is_whole: false,
            any: vec![folder],
        },
    }
}

fn unseen(folder: &Path, error: &io::Error) -> String {
    format!("{} cannot be looked at: {error}", folder.display())
}

/// Whether a workload is found by its cgroup's name, wherever that is.
const fn is_named(workload: &Workload) -> bool {
    match workload {
        Workload::CgroupLike(_)
        | Workload::Unit(_)
        | Workload::UnitLike(_)
        | Workload::Container(_)
        | Workload::Pod(_) => true,
        Workload::Cgroup(_)
        | Workload::User(_)
        | Workload::ContainerName(_)
        | Workload::ContainerLabel(_) => false,
    }
}

/// How much of its id a workload that is a container names.
fn id_chars(workload: &Workload) -> Option<usize> {
    match workload {
        Workload::Container(id) => Some(id.len()),
        Workload::Unit(_)
        | Workload::UnitLike(_)
        | Workload::Pod(_)
        | Workload::Cgroup(_)
        | Workload::CgroupLike(_)
        | Workload::User(_)
        | Workload::ContainerName(_)
        | Workload::ContainerLabel(_) => None,
    }
}

/// What to do where two are called so; of what is known by its whole name there is nothing to name.
const fn cure(workload: &Workload) -> &'static str {
    match workload {
        Workload::CgroupLike(_) | Workload::UnitLike(_) => {
            ": stop one of them, or name more of the agent's in the configuration"
        }
        Workload::Cgroup(_)
        | Workload::Unit(_)
        | Workload::User(_)
        | Workload::Container(_)
        | Workload::Pod(_)
        | Workload::ContainerName(_)
        | Workload::ContainerLabel(_) => "",
    }
}

/// A workload that is a pattern of a path, and that path's names.
fn parts<'a>(workload: &&'a Workload) -> Option<(&'a Workload, Vec<&'a str>)> {
    match workload {
        Workload::CgroupLike(path) => {
            let parts: Option<Vec<&str>> = path.iter().map(|part| part.to_str()).collect();
            Some((workload, parts?))
        }
        Workload::Cgroup(_)
        | Workload::Unit(_)
        | Workload::UnitLike(_)
        | Workload::User(_)
        | Workload::Container(_)
        | Workload::Pod(_)
        | Workload::ContainerName(_)
        | Workload::ContainerLabel(_) => None,
    }
}

/// A folder that is walked through.
struct Place<'a> {
    folder: &'a Path,
    /// What it is called; nothing where it is the top.
    name: Option<&'a str>,
    /// Whether the service manager puts units there: it and all above it, up to the top, are slices.
    is_for_units: bool,
    /// How deep below the top.
    depth: usize,
    /// Which patterns of paths mean it, as far as it is deep.
    like: Vec<usize>,
}

/// One walk over the cgroups, for all workloads that are found by name.
struct Walk<'a> {
    /// Those, each with what is called so.
    matching: BTreeMap<&'a Workload, Vec<PathBuf>>,
    /// How much of a container's id is named.
    id_chars: BTreeSet<usize>,
    /// Those that are patterns of paths, each with its names.
    paths_like: Vec<(&'a Workload, Vec<&'a str>)>,
    /// Those that are patterns of units' names.
    units_like: Vec<(&'a Workload, &'a str)>,
    /// The containers that there are, where they are asked for.
    containers: Option<Containers>,
    looked_at: usize,
    /// Why not everything was looked at, if so.
    unseen: Option<String>,
}

impl Walk<'_> {
    /// Looks at the folders in a place, but for what lies below one that is not root's, or is a container's.
    fn below(&mut self, place: &Place<'_>) {
        let entries = std::fs::read_dir(place.folder);
        let Some(entries) = self.seen(place.folder, entries) else {
            return;
        };
        for entry in entries {
            let Some(entry) = self.seen(place.folder, entry) else {
                continue;
            };
            if self.looked_at > LOOKED_AT_MAX {
                return;
            }
            self.at(&entry, place);
        }
    }

    /// Looks at one entry of a place. Its name comes first: one that is called like a workload and is not root's is no less called so.
    fn at(&mut self, entry: &DirEntry, place: &Place<'_>) {
        let path = entry.path();
        // A cgroup has dozens of files: what an entry is stands in its folder already.
        let kind = entry.file_type();
        if !self.seen(&path, kind).is_some_and(|kind| kind.is_dir()) {
            return;
        }
        let name = entry.file_name();
        let name = name.to_str();
        let mut like = Vec::new();
        if let Some(name) = name {
            self.called(name, &path, place.is_for_units);
            like = self.alike(name, &path, place);
        }
        if name.is_some_and(|name| is_container(place.name, name)) {
            return;
        }
        let meta = entry.metadata();
        if self.seen(&path, meta).is_none_or(|meta| meta.uid() != 0) {
            return;
        }
        self.looked_at += 1;
        if self.looked_at > LOOKED_AT_MAX {
            let why = format!("the host has more than {LOOKED_AT_MAX} cgroups");
            self.unseen.get_or_insert(why);
            return;
        }
        self.below(&Place {
            folder: &path,
            name,
            is_for_units: place.is_for_units && name.is_some_and(is_slice),
            depth: place.depth + 1,
            like,
        });
    }

    /// What came of a look at a folder. What has gone meanwhile is not there; any other failure leaves a doubt.
    fn seen<T>(&mut self, folder: &Path, looked: io::Result<T>) -> Option<T> {
        match looked {
            Ok(seen) => Some(seen),
            Err(error) if is_gone(&error) => None,
            Err(error) => {
                self.unseen.get_or_insert_with(|| unseen(folder, &error));
                None
            }
        }
    }

    /// Takes in a cgroup of this name, for the workloads that are called so.
    fn called(&mut self, name: &str, path: &Path, is_for_units: bool) {
        if let Some(containers) = &mut self.containers {
            container_ids(name).for_each(|id| containers.see(id));
        }
        let ids = container_ids(name);
        let beginnings = ids.flat_map(|id| self.id_chars.iter().map(|chars| &id[..*chars]));
        let containers = beginnings.map(|id| Workload::Container(id.to_owned()));
        let pod = pod_uid(name).map(Workload::Pod);
        let unit = is_for_units.then(|| Workload::Unit(name.to_owned()));
        let named: BTreeSet<Workload> = containers.chain(pod).chain(unit).collect();
        for workload in &named {
            if let Some(matching) = self.matching.get_mut(workload) {
                matching.push(path.to_owned());
            }
        }
    }

    /// Takes in a cgroup of this name in a place, for the patterns that mean it. Gives those that may mean what lies below it.
    fn alike(&mut self, name: &str, path: &Path, place: &Place<'_>) -> Vec<usize> {
        let mut meant: Vec<&Workload> = Vec::new();
        let mut go_on = Vec::new();
        for at in &place.like {
            let (workload, parts) = &self.paths_like[*at];
            match &parts[place.depth..] {
                [last] if pattern::means(last, name) => meant.push(workload),
                [part, ..] if pattern::means(part, name) => go_on.push(*at),
                [] | [_, ..] => {}
            }
        }
        if place.is_for_units {
            let units = self.units_like.iter();
            let units = units.filter(|(_, pattern)| pattern::means(pattern, name));
            meant.extend(units.map(|(workload, _)| *workload));
        }
        for workload in meant {
            if let Some(matching) = self.matching.get_mut(workload) {
                matching.push(path.to_owned());
            }
        }
        go_on
    }

    /// The one cgroup of a workload's.
    fn the_one(&self, workload: &Workload) -> Sought {
        let any = self.matching.get(workload).map_or(&[][..], Vec::as_slice);
        if let Some(why) = &self.unseen {
            return Sought::InDoubt {
                any: any.to_owned(),
                is_whole: false,
                why: why.clone(),
            };
        }
        match any {
            [] => Sought::Absent,
            [one] => Sought::At(one.clone()),
            [one, other, ..] => Sought::InDoubt {
                any: any.to_owned(),
                is_whole: true,
                why: format!(
                    "both {} and {} are called so{}",
                    one.display(),
                    other.display(),
                    cure(workload)
                ),
            },
        }
    }
}

/// The uid of the pod whose cgroup is called so: `podUID`, or `kubepods-QUALITY-podUID.slice` with underscores in it, whatever slice the node's are in.
fn pod_uid(name: &str) -> Option<String> {
    let of_slice = || {
        let slice = name.strip_suffix(".slice")?.replace('_', "-");
        let (above, uid) = slice.rsplit_once("-pod")?;
        let is_of_pods = above.split('-').any(|part| part == "kubepods");
        is_of_pods.then(|| uid.to_owned())
    };
    name.strip_prefix("pod")
        .map(str::to_owned)
        .or_else(of_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const POD: &str = "8dbc0b14-47a8-4b23-9f0e-6a2d1c3b4a5f";
    /// Podman's own pods have ids like containers.
    const POD_ID: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for path in paths {
            std::fs::create_dir_all(root.path().join(path)).expect("makes a folder");
        }
        root
    }

    fn found(root: &tempfile::TempDir, workload: &Workload) -> Option<String> {
        let path = match find(root.path(), &[workload]).remove(0) {
            Sought::Absent => return None,
            Sought::At(path) => path,
            Sought::InDoubt { why, .. } => panic!("{why}"),
        };
        let below = path.strip_prefix(root.path()).expect("below");
        Some(below.display().to_string())
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
    fn a_cgroup_is_found_by_what_its_path_is_like_name_by_name() {
        let root = tree(&[
            "agents.slice/my-bot-1/inner-bot",
            "agents.slice/other",
            "others/bot",
            "agents.slice/a/b-bot",
        ]);
        for (pattern, path) in [
            ("agents.slice/*bot*", Some("agents.slice/my-bot-1")),
            ("*/my-bot-*", Some("agents.slice/my-bot-1")),
            ("*/*/inner*", Some("agents.slice/my-bot-1/inner-bot")),
            ("agents.slice/*/b-bot", Some("agents.slice/a/b-bot")),
            ("oth*/bot", Some("others/bot")),
            ("agents.slice/*bot", None),
            ("agents.slice*bot-1", None),
            ("*bot*", None),
        ] {
            let workload = Workload::CgroupLike(pattern.into());
            assert_eq!(found(&root, &workload).as_deref(), path, "{pattern}");
        }
    }

    #[test]
    fn a_unit_is_found_by_what_its_name_is_like_where_units_are() {
        let path = "system.slice/system-bot.slice/bot@7.service";
        let root = tree(&[path, "bots/bot@8.service", "system.slice/bot@x.scope"]);
        let unit = Workload::UnitLike("bot@*.service".to_owned());
        assert_eq!(found(&root, &unit).as_deref(), Some(path));
    }

    #[test]
    fn nothing_is_like_a_pattern_in_a_container_or_below_what_is_not_roots() {
        let inside = format!("docker/{ID}/bot");
        let root = tree(&[&inside, "users/given/bot", "bots/bot"]);
        let given = root.path().join("users/given");
        std::os::unix::fs::chown(given, Some(3003), None).expect("gives it away");
        for (pattern, path) in [
            ("docker/*/*bot*".to_owned(), None),
            (format!("docker/{}*/bot", &ID[..12]), None),
            ("users/*/bot*".to_owned(), None),
            // The container itself has its name from its runtime; whose the other is is looked at.
            (
                format!("docker/{}*", &ID[..12]),
                Some(format!("docker/{ID}")),
            ),
            ("users/giv*".to_owned(), Some("users/given".to_owned())),
            ("*/bot".to_owned(), Some("bots/bot".to_owned())),
        ] {
            let workload = Workload::CgroupLike(pattern.into());
            assert_eq!(found(&root, &workload), path, "{workload}");
        }
    }

    #[test]
    fn a_container_is_found_by_the_beginning_of_its_id_in_every_runtimes_spelling() {
        for path in [
            format!("system.slice/docker-{ID}.scope"),
            format!("docker/{ID}"),
            format!("system.slice/docker.service/docker/{ID}"),
            format!("machine.slice/libpod-{ID}.scope"),
            format!("machine.slice/machine-libpod_pod_{POD_ID}.slice/libpod-{ID}.scope"),
            format!("libpod_parent/libpod-{ID}"),
            format!("libpod_parent/{POD_ID}/libpod-{ID}"),
            format!("system.slice/agentbox.service/libpod-payload-{ID}"),
            format!("kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"),
            format!("kubepods.slice/kubepods-pod1.slice/crio-{ID}.scope"),
            format!("kubepods.slice/kubepods-pod1.slice/docker-{ID}.scope"),
            format!("kubepods/burstable/pod{POD}/{ID}"),
            format!("kubepods/besteffort/pod{POD}/crio-{ID}"),
            format!("system.slice/nerdctl-{ID}.scope"),
            format!("default/{ID}"),
        ] {
            // With what runtimes put beside it and in it: none of that is the container.
            let root = tree(&[
                &path,
                &format!("{path}/container"),
                &format!("{path}/init.scope"),
                &format!("machine.slice/libpod-conmon-{ID}.scope"),
                &format!("kubepods.slice/crio-conmon-{ID}.scope"),
                "libpod_parent/conmon",
                "system.slice/docker-short.scope",
            ]);
            let container = Workload::Container(ID[..12].to_owned());
            assert_eq!(found(&root, &container), Some(path));
        }
    }

    #[test]
    fn a_pod_is_found_in_either_drivers_spelling() {
        for path in [
            format!("kubepods/burstable/pod{POD}"),
            format!("kubepods/pod{POD}"),
            format!("kubepods.slice/kubepods-pod{}.slice", POD.replace('-', "_")),
            format!(
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{}.slice",
                POD.replace('-', "_")
            ),
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

    /// What a look found that leaves a doubt: what may be the workload, whether everything was looked at, and why.
    fn in_doubt(found: &Sought) -> (Vec<PathBuf>, bool, &str) {
        match found {
            Sought::InDoubt { any, is_whole, why } => {
                let mut any = any.clone();
                any.sort();
                (any, *is_whole, why)
            }
            Sought::Absent | Sought::At(_) => panic!("no doubt: {found:?}"),
        }
    }

    #[test]
    fn two_of_one_name_are_both_in_doubt_and_nobody_elses() {
        let root = tree(&["a.slice/bot.service", "b.slice/bot.service"]);
        let [bot, other] =
            ["bot.service", "other.service"].map(|name| Workload::Unit(name.to_owned()));
        let found = find(root.path(), &[&bot, &other]);
        let both = ["a.slice", "b.slice"].map(|slice| root.path().join(slice).join("bot.service"));
        let (any, is_whole, why) = in_doubt(&found[0]);
        assert_eq!((any, is_whole), (both.to_vec(), true));
        assert!(why.contains("called so"), "{why}");
        assert_eq!(found[1], Sought::Absent);
    }

    #[test]
    fn one_that_is_not_roots_is_found_and_nothing_below_it_is() {
        let root = tree(&["a.slice/bot.service/inner.service"]);
        let bot = root.path().join("a.slice/bot.service");
        std::os::unix::fs::chown(&bot, Some(3003), None).expect("gives it away");
        let [unit, inner] =
            ["bot.service", "inner.service"].map(|name| Workload::Unit(name.to_owned()));
        let found = find(root.path(), &[&unit, &inner]);
        assert_eq!(found, [Sought::At(bot), Sought::Absent]);
    }

    #[test]
    fn what_cannot_be_looked_at_leaves_a_doubt_about_all_that_are_found_by_name() {
        let root = tree(&["a.slice/bot.service"]);
        // A folder that no number of open files leads into: its path is longer than one may be.
        let deep = "n".repeat(200);
        let mut folder = rustix::fs::openat(
            rustix::fs::CWD,
            root.path(),
            rustix::fs::OFlags::DIRECTORY,
            rustix::fs::Mode::empty(),
        )
        .expect("opens");
        for _ in 0..21 {
            rustix::fs::mkdirat(&folder, &*deep, rustix::fs::Mode::RWXU).expect("makes a folder");
            let flags = rustix::fs::OFlags::DIRECTORY;
            folder = rustix::fs::openat(&folder, &*deep, flags, rustix::fs::Mode::empty())
                .expect("opens");
        }
        let unit = |name: &str| Workload::Unit(name.to_owned());
        let [bot, other] = ["bot.service", "other.service"].map(unit);
        let by_path = Workload::Cgroup("a.slice/bot.service".into());
        let found = find(root.path(), &[&bot, &other, &by_path]);
        let there = root.path().join("a.slice/bot.service");
        let (any, is_whole, why) = in_doubt(&found[0]);
        assert_eq!((any, is_whole), (vec![there.clone()], false));
        assert!(why.contains("cannot be looked at"), "{why}");
        assert_eq!(in_doubt(&found[1]).0, Vec::<PathBuf>::new());
        assert_eq!(found[2], Sought::At(there));
    }
}
