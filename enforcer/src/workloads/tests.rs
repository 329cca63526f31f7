//! What a look gives, on folders that stand in for cgroups: what is asked of them is the same.

use std::os::unix::fs::chown;

use enforcer_proto::time::Ttl;

use super::*;
use crate::config::{WhenAsked, WhenClosed, WhichNames};
use crate::runtimes::{Answer, Container};

const UNIT: &str = "bot.service";

fn bot() -> AgentName {
    "bot".parse().expect("a name")
}

/// One that is this workload.
fn agent(name: AgentName, workload: Workload) -> Agent {
    Agent {
        name,
        workload,
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
    }
}

/// An agent that is a unit, under a root with these folders and the daemon's cgroup.
fn world(folders: &[&str], daemon: &str) -> (tempfile::TempDir, Workloads) {
    world_of(Workload::Unit(UNIT.to_owned()), folders, daemon)
}

/// The same, the agent being another workload.
fn world_of(workload: Workload, folders: &[&str], daemon: &str) -> (tempfile::TempDir, Workloads) {
    let root = tempfile::tempdir().expect("a folder");
    for folder in folders.iter().chain([&daemon]) {
        std::fs::create_dir_all(root.path().join(folder)).expect("makes a folder");
    }
    let agent = agent(bot(), workload);
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
        ("enforcer.slice/bot.service", "enforcer.slice", true),
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
    let seen = ["d.slice"; 16].join("/");
    assert_eq!(levels, seen.split('/').count());
    let (root, workloads) = world(&[&format!("{seen}/e.slice/bot.service")], "enforcer");
    let looked = workloads.look();
    is_said(&looked, "levels below the cgroup root");
    assert_eq!(closed(&root, &looked), [PathBuf::from(seen)].into());
}

/// The id of a container of these digits.
fn id(digit: char) -> String {
    String::from(digit).repeat(64)
}

/// What a runtime says of containers, each by its digit and its name.
fn says(containers: &[(char, &str)]) -> [Answer; 1] {
    let containers = containers.iter().map(|(digit, name)| Container {
        id: id(*digit),
        names: vec![(*name).to_owned()],
        labels: BTreeMap::new(),
        image: Some("localhost/agent:1".to_owned()),
    });
    [Answer {
        socket: "/run/runtime.sock".into(),
        said: Ok(containers.collect()),
        unheard: BTreeSet::new(),
    }]
}

fn is_silent() -> [Answer; 1] {
    [Answer {
        socket: "/run/runtime.sock".into(),
        said: Err("nobody listens there".to_owned()),
        unheard: BTreeSet::new(),
    }]
}

/// An agent that is the container `agentbox`, under a root with the cgroups of containers of these digits, where each is a Docker's.
fn containers(digits: &[char]) -> (tempfile::TempDir, Workloads, Vec<PathBuf>) {
    let folders: Vec<String> = digits
        .iter()
        .map(|digit| format!("docker/{}", id(*digit)))
        .collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    let agentbox = Workload::ContainerName("agentbox".to_owned());
    let (root, workloads) = world_of(agentbox, &folders, "enforcer");
    (root, workloads, folders.iter().map(PathBuf::from).collect())
}

/// One look, whose outcome is what there is from then on.
fn look(workloads: &Workloads) -> Looked {
    let looked = workloads.look();
    workloads.set(looked.found.clone(), looked.closed.clone());
    looked
}

#[test]
fn a_container_that_a_runtime_names_is_found_by_its_whole_id_and_known_with_its_image() {
    let (root, workloads, at) = containers(&['a', 'b']);
    let looked = look(&workloads);
    is_said(&looked, "no container runtime was asked yet");
    assert!(looked.is_partial);
    workloads.tell(&says(&[('a', "agentbox"), ('b', "other")]));
    let looked = look(&workloads);
    assert_eq!(looked.found[&bot()].folder, root.path().join(&at[0]));
    assert!(!looked.is_partial && looked.problems.is_empty() && looked.closed.is_empty());
    let container = workloads.container(&bot()).expect("is known");
    assert_eq!(container.shown(), "agentbox");
    assert_eq!(container.image.as_deref(), Some("localhost/agent:1"));
    // Started anew, under another id.
    std::fs::remove_dir(root.path().join(&at[0])).expect("removes");
    workloads.tell(&says(&[('b', "agentbox")]));
    let looked = look(&workloads);
    assert_eq!(looked.found[&bot()].folder, root.path().join(&at[1]));
    assert!(looked.problems.is_empty() && looked.closed.is_empty());
}

#[test]
fn of_two_containers_of_one_name_both_are_closed_and_one_is_the_agents_again_when_the_other_has_gone()
 {
    let (root, workloads, at) = containers(&['a', 'b']);
    workloads.tell(&says(&[('a', "agentbox"), ('b', "agentbox")]));
    let looked = look(&workloads);
    is_said(&looked, "are called so");
    assert_eq!(closed(&root, &looked), at.iter().cloned().collect());
    std::fs::remove_dir(root.path().join(&at[1])).expect("removes");
    workloads.tell(&says(&[('a', "agentbox")]));
    let looked = look(&workloads);
    assert_eq!(looked.found[&bot()].folder, root.path().join(&at[0]));
    assert!(looked.problems.is_empty() && looked.closed.is_empty());
}

#[test]
fn a_container_that_is_called_otherwise_by_now_is_closed_and_said_until_it_has_gone() {
    let (root, workloads, at) = containers(&['a']);
    workloads.tell(&says(&[('a', "agentbox")]));
    let _ = look(&workloads);
    workloads.tell(&says(&[('a', "renamed")]));
    let looked = look(&workloads);
    is_said(
        &looked,
        "no runtime tells any more of a container in it that is called so",
    );
    assert_eq!(closed(&root, &looked), [at[0].clone()].into());
    // Where nobody is in it any more there is nothing to say.
    let events = root.path().join(&at[0]).join("cgroup.events");
    std::fs::write(&events, "populated 0\nfrozen 0\n").expect("writes");
    let looked = look(&workloads);
    assert_eq!(looked.problems, Vec::<String>::new());
    assert_eq!(closed(&root, &looked), [at[0].clone()].into());
    std::fs::remove_dir_all(root.path().join(&at[0])).expect("removes");
    assert_eq!(look(&workloads), Looked::default());
}

#[test]
fn of_a_container_that_gave_its_name_to_another_it_is_said_that_it_is_refused_and_of_the_agent_that_it_is_the_other()
 {
    let (root, workloads, at) = containers(&['a', 'b']);
    workloads.tell(&says(&[('a', "agentbox"), ('b', "other")]));
    let _ = look(&workloads);
    workloads.tell(&says(&[('a', "aside"), ('b', "agentbox")]));
    for _ in 0..2 {
        let looked = look(&workloads);
        let [first, second] = [&at[0], &at[1]].map(|at| root.path().join(at));
        assert_eq!(looked.found[&bot()].folder, second);
        assert_eq!(closed(&root, &looked), [at[0].clone()].into());
        let said = format!(
            "agent bot has its workload in {} now, and what was its workload, or may have been, is refused: its cgroup {} is there, and no runtime tells any more of a container in it that is called so: stop that, or call it so again and the other one otherwise",
            second.display(),
            first.display()
        );
        assert_eq!(looked.problems, [said]);
    }
}

#[test]
fn of_a_unit_that_is_found_no_more_and_elsewhere_as_well_it_is_said_that_it_is_refused() {
    let (root, workloads) = world(&["a.slice/bot.service"], "enforcer");
    let [unit, other] = ["a.slice", "b.slice"].map(|at| root.path().join(at).join(UNIT));
    let _ = look(&workloads);
    chown(root.path().join("a.slice"), Some(3003), None).expect("gives it away");
    std::fs::create_dir_all(&other).expect("makes a folder");
    let looked = look(&workloads);
    assert_eq!(looked.found[&bot()].folder, other);
    let said = format!(
        "agent bot has its workload in {} now, and what was its workload, or may have been, is refused: its cgroup {} is there, and is not found any more: others than root may own one above it; stop what runs in it",
        other.display(),
        unit.display()
    );
    assert_eq!(looked.problems, [said]);
}

#[test]
fn while_no_runtime_answers_a_container_stays_the_agents_and_another_in_its_place_does_not_become_it()
 {
    let (root, workloads, at) = containers(&['a']);
    workloads.tell(&says(&[('a', "agentbox")]));
    let known = look(&workloads).found;
    workloads.tell(&is_silent());
    for _ in 0..2 {
        let looked = look(&workloads);
        assert_eq!(looked.found, known);
        assert_eq!(
            looked.problems,
            ["which containers run is not known at /run/runtime.sock: nobody listens there"]
        );
    }
    // The same id, and not the same cgroup. Something in between takes the old one's number.
    let place = root.path().join(&at[0]);
    std::fs::rename(&place, root.path().join("away")).expect("moves it away");
    std::fs::create_dir(&place).expect("makes another");
    let looked = look(&workloads);
    is_said(&looked, "is not the one that it was");
    assert_eq!(closed(&root, &looked), [at[0].clone()].into());
    // Nor does it by waiting, until a runtime tells of it.
    is_said(&look(&workloads), "is not the one that it was");
    workloads.tell(&says(&[('a', "agentbox")]));
    assert_eq!(look(&workloads).found[&bot()].folder, place);
}

#[test]
fn while_no_runtime_answers_it_is_said_of_an_agent_whose_container_has_gone_that_a_new_one_is_not_known()
 {
    let (root, workloads, at) = containers(&['a']);
    workloads.tell(&says(&[('a', "agentbox")]));
    let _ = look(&workloads);
    workloads.tell(&is_silent());
    let _ = look(&workloads);
    std::fs::remove_dir(root.path().join(&at[0])).expect("removes");
    // The new one, of which nobody tells.
    std::fs::create_dir(root.path().join("docker").join(id('b'))).expect("makes a folder");
    for _ in 0..2 {
        let looked = look(&workloads);
        is_said(
            &looked,
            "agent bot has no workload, so no window opens for it: its container aaaaaaaaaaaa has gone, and whether another is called so now is not known while /run/runtime.sock does not say which run",
        );
        assert!(looked.closed.is_empty());
        assert_eq!(looked.problems.len(), 2, "{:?}", looked.problems);
        workloads.tell(&is_silent());
    }
    workloads.tell(&says(&[('b', "agentbox")]));
    let looked = look(&workloads);
    let new = root.path().join("docker").join(id('b'));
    assert_eq!(looked.found[&bot()].folder, new);
    assert_eq!(looked.problems, Vec::<String>::new());
}

#[test]
fn a_container_whose_runtime_never_answered_is_refused_and_nothing_is_settled_by_that() {
    let (root, workloads, _) = containers(&['a']);
    workloads.tell(&is_silent());
    let looked = look(&workloads);
    is_said(
        &looked,
        "is not known while /run/runtime.sock does not say which run",
    );
    assert!(looked.is_partial && closed(&root, &looked).is_empty());
    assert_eq!(looked.problems.len(), 2, "{:?}", looked.problems);
}

#[test]
fn a_container_that_runs_and_whose_cgroup_is_not_found_is_said_to_be_so_where_that_lasts() {
    let nested = format!("docker/{}/{}", id('f'), id('a'));
    let agentbox = Workload::ContainerName("agentbox".to_owned());
    let (root, workloads) = world_of(agentbox, &[&nested], "enforcer");
    workloads.tell(&says(&[('a', "agentbox")]));
    let looked = look(&workloads);
    assert!(looked.found.is_empty() && looked.problems.is_empty() && !looked.is_partial);
    assert_eq!(looked.passing.len(), 1);
    let said = &looked.passing[0];
    let why = "agent bot has no workload, so no window opens for it: its container aaaaaaaaaaaa runs, as /run/runtime.sock says, and no cgroup that is called like it was found";
    assert!(said.starts_with(why) && said.contains("start it anew without such a --cgroup-parent"));
    assert_eq!(look(&workloads).passing, looked.passing);
    // Where a runtime makes it, and where none runs, there is nothing to say.
    std::fs::create_dir(root.path().join("docker").join(id('a'))).expect("makes a folder");
    assert_eq!(look(&workloads).passing, Vec::<String>::new());
    std::fs::remove_dir(root.path().join("docker").join(id('a'))).expect("removes");
    workloads.tell(&says(&[('a', "other")]));
    assert_eq!(look(&workloads).passing, Vec::<String>::new());
}

/// What a container's root, which is the host's without a user namespace, makes in its own cgroup where it can write that.
const OTHERS: [&str; 4] = [
    "machine.slice/libpod-cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc.scope",
    "system.slice/box.service/libpod-payload-cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc",
    "lxc.payload.box",
    r"machine.slice/machine-box.scope/payload",
];

#[test]
fn a_unit_that_a_container_makes_in_its_cgroup_is_not_the_agents_while_its_own_is_stopped_or_runs()
{
    for container in OTHERS {
        let faked = format!("{container}/system.slice/bot.service");
        let (root, workloads) = world(&[&faked], "enforcer");
        assert_eq!(look(&workloads), Looked::default(), "{container}");
        let unit = root.path().join("system.slice/bot.service");
        std::fs::create_dir_all(&unit).expect("makes a folder");
        let looked = look(&workloads);
        assert_eq!(looked.found[&bot()].folder, unit, "{container}");
        assert!(looked.problems.is_empty() && looked.closed.is_empty());
    }
}

#[test]
fn a_unit_is_one_only_where_the_service_manager_puts_units() {
    for elsewhere in [
        "bots/bot.service",
        "system.slice/other.service/bot.service",
        "system.slice/other.service/system.slice/bot.service",
        "user.slice/user-0.slice/user@0.service/app.slice/bot.service",
    ] {
        let (_root, workloads) = world(&[elsewhere], "enforcer");
        assert_eq!(look(&workloads), Looked::default(), "{elsewhere}");
    }
    for there in ["bot.service", "a.slice/a-b.slice/bot.service"] {
        let (root, workloads) = world(&[there], "enforcer");
        let looked = look(&workloads);
        assert_eq!(looked.found[&bot()].folder, root.path().join(there));
    }
}

#[test]
fn a_container_or_pod_that_a_container_makes_in_its_cgroup_closes_nobodys() {
    const POD: &str = "8dbc0b14-47a8-4b23-9f0e-6a2d1c3b4a5f";
    let cases = [
        (
            Workload::Container(id('a')),
            format!("docker/{}", id('a')),
            format!("docker-{}.scope", id('a')),
        ),
        (
            Workload::Pod(POD.to_owned()),
            format!("kubepods/pod{POD}"),
            format!("kubepods/pod{POD}"),
        ),
    ];
    for (workload, own, faked) in &cases {
        for container in OTHERS {
            let faked = format!("{container}/{faked}");
            let folders = [own.as_str(), &faked];
            let (root, workloads) = world_of(workload.clone(), &folders, "enforcer");
            let looked = look(&workloads);
            assert_eq!(looked.found[&bot()].folder, root.path().join(own));
            assert!(looked.problems.is_empty() && looked.closed.is_empty());
        }
    }
    let (root, workloads, at) = containers(&['a', 'b']);
    let faked = root.path().join(&at[1]).join(format!("docker/{}", id('a')));
    std::fs::create_dir_all(faked).expect("makes folders");
    workloads.tell(&says(&[('a', "agentbox")]));
    let looked = look(&workloads);
    assert_eq!(looked.found[&bot()].folder, root.path().join(&at[0]));
    assert!(looked.problems.is_empty());
}

#[test]
fn a_container_in_what_a_user_owns_is_called_so_by_the_user_and_one_that_is_given_its_own_cgroup_is_not()
 {
    let (root, workloads) = world(&["a.slice/b/c"], "enforcer");
    let is_made = || workloads.is_made_by_root(Path::new("/a.slice/b/c"));
    assert!(is_made().expect("reads"));
    chown(root.path().join("a.slice/b/c"), Some(3003), None).expect("gives it away");
    assert!(is_made().expect("reads"));
    chown(root.path().join("a.slice"), Some(3003), None).expect("gives it away");
    assert!(!is_made().expect("reads"));
    assert!(workloads.is_made_by_root(Path::new("/gone/c")).is_err());
}

#[test]
fn of_two_agents_that_one_container_is_the_second_is_said_to_be_the_same_one() {
    let (root, _, at) = containers(&['a']);
    let other: AgentName = "other".parse().expect("a name");
    let agents = [
        agent(other, Workload::ContainerName("agentbox".to_owned())),
        agent(bot(), Workload::Container(id('a'))),
    ];
    let [mount, below] = [(); 2].map(|()| root.path().to_owned());
    let workloads = Workloads::new(mount, below, root.path().join("enforcer"), &agents);
    workloads.tell(&says(&[('a', "agentbox")]));
    let looked = look(&workloads);
    assert_eq!(looked.found.len(), 1, "the first keeps it");
    let said = format!(
        "agent bot has no workload, so no window opens for it: {} is the workload of agent other already: the one unit, container or cgroup is called what both are known by",
        root.path().join(&at[0]).display()
    );
    assert_eq!(looked.problems, [said]);
}

#[test]
fn of_two_cgroups_that_a_pattern_means_both_are_closed_until_there_is_one() {
    let both = ["agents.slice/bot-1", "agents.slice/bot-2"];
    let like = || Workload::CgroupLike("agents.slice/bot-*".into());
    let (root, workloads) = world_of(like(), &both, "enforcer");
    let looked = look(&workloads);
    is_said(
        &looked,
        "are called so: stop one of them, or name more of the agent's in the configuration",
    );
    assert_eq!(closed(&root, &looked), both.map(PathBuf::from).into());
    std::fs::remove_dir(root.path().join(both[0])).expect("removes");
    let looked = look(&workloads);
    assert_eq!(looked.found[&bot()].folder, root.path().join(both[1]));
    assert!(looked.problems.is_empty() && looked.closed.is_empty());
    // Nothing is made of it, and of one that is not root's nothing comes.
    workloads.make().expect("makes nothing");
    chown(root.path().join(both[1]), Some(3003), None).expect("gives it away");
    is_said(&look(&workloads), "belongs to uid 3003");
    std::fs::remove_dir(root.path().join(both[1])).expect("removes");
    assert_eq!(look(&workloads), Looked::default());
}

#[test]
fn a_pattern_that_means_the_daemons_cgroup_is_nobodys_workload_and_closes_it_not() {
    let like = Workload::CgroupLike("*/enforcer*".into());
    let (_root, workloads) = world_of(like, &[], "system.slice/enforcer.service");
    let looked = look(&workloads);
    is_said(&looked, "lie inside one another");
    assert!(looked.closed.is_empty());
}
