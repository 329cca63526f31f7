//! What a look gives, on folders that stand in for cgroups: what is asked of them is the same.

use std::os::unix::fs::chown;

use enforcer_proto::time::Ttl;

use super::*;
use crate::config::{WhenAsked, WhenClosed, WhichNames};

const UNIT: &str = "bot.service";

fn bot() -> AgentName {
    "bot".parse().expect("a name")
}

/// An agent that is a unit, under a root with these folders and the daemon's cgroup.
fn world(folders: &[&str], daemon: &str) -> (tempfile::TempDir, Workloads) {
    let root = tempfile::tempdir().expect("a folder");
    for folder in folders.iter().chain([&daemon]) {
        std::fs::create_dir_all(root.path().join(folder)).expect("makes a folder");
    }
    let agent = Agent {
        name: bot(),
        workload: Workload::Unit(UNIT.to_owned()),
        uid: None,
        executables: Vec::new(),
        closed: WhenClosed::Explain,
        ask: WhenAsked::Off,
        ask_ttl: Ttl::from_seconds(60).expect("a minute"),
        allow: BTreeSet::new(),
        names: WhichNames::Forward,
        minter: crate::config::MinterKind::Federation,
        service_account: None,
        quota_project: None,
    };
    let [mount, below] = [(); 2].map(|()| root.path().to_owned());
    let workloads = Workloads::new(mount, below, root.path().join(daemon), &[agent]);
    (root, workloads)
}

/// The folders that a look closes, below the root.
fn closed(root: &tempfile::TempDir, looked: &Looked) -> BTreeSet<PathBuf> {
    let below = |closed: &Closed| {
        assert_eq!(closed.agent, bot());
        let below = closed.folder.strip_prefix(root.path()).expect("below");
        below.to_owned()
    };
    looked.closed.values().map(below).collect()
}

fn is_said(looked: &Looked, why: &str) {
    assert!(looked.found.is_empty(), "{looked:?}");
    let problems = looked.problems.join("; ");
    assert!(
        problems.contains(why) && problems.contains("bot has no workload"),
        "{problems}"
    );
}

#[test]
fn of_two_that_are_called_so_both_are_closed() {
    let both = ["a.slice/bot.service", "b.slice/bot.service"];
    let (root, workloads) = world(&both, "enforcer");
    let looked = workloads.look();
    is_said(&looked, "are called so");
    assert_eq!(closed(&root, &looked), both.map(PathBuf::from).into());
    assert!(!looked.is_partial);
}

#[test]
fn one_that_others_than_root_can_write_is_said_and_closed() {
    let (root, workloads) = world(&["a.slice/bot.service"], "enforcer");
    chown(root.path().join("a.slice/bot.service"), Some(3003), None).expect("gives it away");
    let looked = workloads.look();
    is_said(&looked, "belongs to uid 3003");
    assert_eq!(
        closed(&root, &looked),
        [PathBuf::from("a.slice/bot.service")].into()
    );
}

#[test]
fn a_workload_is_let_go_only_when_it_has_gone() {
    let (root, workloads) = world(&["a.slice/bot.service"], "enforcer");
    let unit = root.path().join("a.slice/bot.service");
    let looked = workloads.look();
    assert_eq!(looked.found[&bot()].folder, unit);
    assert!(looked.problems.is_empty() && looked.closed.is_empty());
    workloads.set(looked.found, looked.closed);
    // Nothing is looked for below a folder that is not root's.
    chown(root.path().join("a.slice"), Some(3003), None).expect("gives it away");
    for _ in 0..2 {
        let looked = workloads.look();
        is_said(&looked, "is not found any more");
        assert_eq!(
            closed(&root, &looked),
            [PathBuf::from("a.slice/bot.service")].into()
        );
        workloads.set(looked.found, looked.closed);
        assert_eq!(workloads.agent_at(&unit), Some(bot()));
    }
    let id = workload::cgroup_id(&unit).expect("is there");
    assert_eq!(workloads.agent(id), None, "nobody there is served");
    assert_eq!(workloads.agent_concerned(id), Some(bot()));
    std::fs::remove_dir(&unit).expect("removes");
    assert_eq!(workloads.look(), Looked::default());
}

#[test]
fn a_workload_and_the_daemons_cgroup_do_not_lie_inside_one_another() {
    // Around the daemon nothing is closed: the daemon itself would be refused.
    for (unit, daemon, is_closed) in [
        ("bot.service", "bot.service/enforcer", false),
        ("bot.service", "bot.service", false),
        ("enforcer/bot.service", "enforcer", true),
    ] {
        let (root, workloads) = world(&[unit], daemon);
        let looked = workloads.look();
        is_said(&looked, "the daemon's cgroup lie inside one another");
        assert_eq!(!closed(&root, &looked).is_empty(), is_closed, "{daemon}");
    }
}

#[test]
fn of_one_that_lies_too_deep_the_last_cgroup_above_it_is_closed_that_the_kernel_sees() {
    let levels = usize::try_from(CGROUP_LEVELS).expect("some");
    let seen = ["d"; 16].join("/");
    assert_eq!(levels, seen.split('/').count());
    let (root, workloads) = world(&[&format!("{seen}/e/bot.service")], "enforcer");
    let looked = workloads.look();
    is_said(&looked, "levels below the cgroup root");
    assert_eq!(closed(&root, &looked), [PathBuf::from(seen)].into());
}
