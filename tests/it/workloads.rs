//! Workloads that come and go: units that restart, and what cannot be one because others than root could write it.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use harness::capture::Capture;
use harness::stage::{BIGQUERY4, BIGQUERY6, OTHER4, Side};
use harness::world::{AGENT_UID, Who, World, enforcer, wait_for};
use serde_json::Value;

const UNIT: &str = "system.slice/finance-bot.service";
const CONTAINER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A world in which `finance-bot` is what `workload` says, and meets `EPERM` without a window. The daemon is not started yet.
fn world(workload: &str) -> (World, Capture) {
    let world = World::with_a_silent_far_side();
    world.edit_config(
        "cgroup = \"agents/finance-bot\"\nuid = 2001",
        &format!("{workload}\nuid = 2001\nclosed = \"drop\""),
    );
    let alone = [format!("{BIGQUERY4}/32"), format!("{BIGQUERY6}/128")]
        .map(|prefix| format!("{{ prefix = \"{prefix}\", class = \"dedicated\" }}"));
    world.edit_config(
        "[names]",
        &format!("[names]\nprefixes = [{}]", alone.join(", ")),
    );
    let wire = Capture::start(&world.stage, World::bigquery());
    (world, wire)
}

/// What becomes of a connection to BigQuery of a process in a cgroup.
fn connect(world: &World, cgroup: &Path, uid: u32) -> String {
    let script = "import errno, socket, sys\ntry:\n    socket.create_connection((sys.argv[1], 443), 2)\n    print('ok')\nexcept OSError as error:\n    print(errno.errorcode.get(error.errno, error))";
    let mut command =
        world
            .stage
            .command_in(Side::Host, Some(cgroup), Some(uid), "/usr/bin/python3");
    let output = command
        .args(["-c", script, &BIGQUERY4.to_string()])
        .output()
        .expect("python runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A command of the enforcer's, run in a cgroup as the agent's uid.
fn try_cli(world: &World, cgroup: &Path, args: &[&str]) -> Result<Value, String> {
    let mut command = world
        .stage
        .command_in(Side::Host, Some(cgroup), Some(AGENT_UID), enforcer());
    let socket = world.stage.dir().join("run/control.sock");
    let output = command
        .env("ENFORCER_SOCKET", socket)
        .args(args)
        .arg("--json")
        .output()
        .expect("runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn cli(world: &World, cgroup: &Path, args: &[&str]) -> Value {
    try_cli(world, cgroup, args).unwrap_or_else(|said| panic!("{said}"))
}

/// Waits until the daemon knows whose a cgroup is: who is no agent may not even ask.
fn wait_until_seen(world: &World, cgroup: &Path) {
    wait_for("the workload to be seen", || {
        try_cli(world, cgroup, &["status"]).is_ok()
    });
}

fn open_window(world: &World, cgroup: &Path) -> String {
    let asked = cli(
        world,
        cgroup,
        &[
            "request",
            "--scope",
            "demo-project.finance:read",
            "--ttl",
            "5m",
            "--reason",
            "month end",
        ],
    );
    let request = asked["request"].as_str().expect("an id").to_owned();
    let approved = world.json(Who::Approver, &["approve", &request]);
    approved["grant"]["grant"]
        .as_str()
        .expect("an id")
        .to_owned()
}

#[test]
fn a_window_follows_its_unit_through_a_restart_and_ends_with_it() {
    let (mut world, wire) = world("unit = \"finance-bot.service\"");
    world.start_daemon();
    // Not running: there is nobody for whom a window could be asked, and nothing is wrong.
    let status = world.json(Who::Operator, &["status"]);
    assert_eq!(status["unhealthy"], serde_json::json!([]));
    let unit = world.stage.cgroups.make(UNIT);
    wait_until_seen(&world, &unit);
    assert_eq!(connect(&world, &unit, AGENT_UID), "EPERM");
    let grant = open_window(&world, &unit);
    assert_eq!(connect(&world, &unit, AGENT_UID), "ok");
    // Below the unit as well.
    let below = world.stage.cgroups.make(&format!("{UNIT}/worker"));
    assert_eq!(connect(&world, &below, AGENT_UID), "ok");
    std::fs::remove_dir(&below).expect("removes");
    std::fs::remove_dir(&unit).expect("removes");
    let again = world.stage.cgroups.make(UNIT);
    wait_for("the window to follow", || {
        connect(&world, &again, AGENT_UID) == "ok"
    });
    // Another of the same name somewhere else makes it doubtful which is meant: none is.
    let other = world.stage.cgroups.make("other.slice/finance-bot.service");
    wait_for("the doubt to be said", || {
        let status = world.json(Who::Operator, &["status"]);
        status["unhealthy"].to_string().contains("are called so")
    });
    for cgroup in [&again, &other] {
        assert_eq!(connect(&world, cgroup, AGENT_UID), "EPERM");
    }
    std::fs::remove_dir(&other).expect("removes");
    wait_for("the window to be back", || {
        connect(&world, &again, AGENT_UID) == "ok"
    });
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    assert_eq!(connect(&world, &again, AGENT_UID), "EPERM");
    // A window that was revoked while its unit was away does not come back with it.
    let grant = open_window(&world, &again);
    std::fs::remove_dir(&again).expect("removes");
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let last = world.stage.cgroups.make(UNIT);
    wait_until_seen(&world, &last);
    assert_eq!(connect(&world, &last, AGENT_UID), "EPERM");
    assert_eq!(wire.packets(), 0);
}

/// What a unit without a uid meets in a cgroup, where only agents are enforced on: BigQuery, the metadata server, and a name server of its
/// own choice.
fn everything(world: &World, cgroup: &Path) -> String {
    let script = "import errno, socket, sys\ndef tell(how):\n    try:\n        how()\n        print('ok')\n    except OSError as error:\n        print(errno.errorcode.get(error.errno, error))\ntell(lambda: socket.create_connection((sys.argv[1], 443), 1))\ntell(lambda: socket.create_connection(('169.254.169.254', 8080), 1))\ntell(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'a secret question', (sys.argv[2], 53)))";
    let mut command = world.stage.command_in(
        Side::Host,
        Some(cgroup),
        Some(AGENT_UID),
        "/usr/bin/python3",
    );
    let output = command
        .args(["-c", script, &BIGQUERY4.to_string(), &OTHER4.to_string()])
        .output()
        .expect("python runs");
    String::from_utf8_lossy(&output.stdout).replace('\n', " ")
}

/// A unit without a uid, where only agents are enforced on, that is seen and has a window, and the wire.
fn unit_alone() -> (World, PathBuf, [Capture; 2]) {
    let (mut world, wire) = world("unit = \"finance-bot.service\"");
    world.edit_config("\nuid = 2001\n", "\n");
    world.edit_config("[kernel]", "[kernel]\nenforce = \"agents\"");
    world.start_daemon();
    let unit = world.stage.cgroups.make(UNIT);
    wait_until_seen(&world, &unit);
    let _ = open_window(&world, &unit);
    assert_eq!(everything(&world, &unit), "ok EPERM ok ");
    let elsewhere = [OTHER4.into(), [169, 254, 169, 254].into()];
    let elsewhere = Capture::start(&world.stage, elsewhere);
    (world, unit, [wire, elsewhere])
}

/// Waits until `status` says this.
fn wait_until_said(world: &World, what: &str) {
    wait_for(what, || {
        let status = world.json(Who::Operator, &["status"]);
        status["unhealthy"].to_string().contains(what)
    });
}

#[test]
fn of_two_units_of_one_name_neither_is_nobody() {
    let (world, unit, wires) = unit_alone();
    let other = world.stage.cgroups.make("other.slice/finance-bot.service");
    wait_until_said(&world, "are called so");
    for cgroup in [&unit, &other] {
        assert_eq!(everything(&world, cgroup), "EPERM EPERM ok ");
    }
    std::fs::remove_dir(&other).expect("removes");
    wait_for("the window to be back", || {
        everything(&world, &unit) == "ok EPERM ok "
    });
    for wire in &wires {
        assert_eq!(wire.settled(), 0);
    }
}

#[test]
fn a_unit_that_others_than_root_can_write_is_said_and_is_not_nobody() {
    let (world, unit, wires) = unit_alone();
    chown(&unit, Some(AGENT_UID), None).expect("gives it away");
    wait_until_said(&world, "belongs to uid 2001");
    assert_eq!(everything(&world, &unit), "EPERM EPERM ok ");
    let config = world.config().display().to_string();
    let checked = world.cli(Who::Operator, &["check", "--config", &config]);
    let told = String::from_utf8_lossy(&checked.stderr);
    assert!(
        !checked.status.success() && told.contains("belongs to uid 2001"),
        "{told}"
    );
    for wire in &wires {
        assert_eq!(wire.settled(), 0);
    }
}

#[test]
fn a_user_cannot_make_a_cgroup_that_passes_for_the_agents() {
    let (mut world, wire) = world("unit = \"finance-bot.service\"");
    world.start_daemon();
    let manager = world
        .stage
        .cgroups
        .make("user.slice/user-3003.slice/user@3003.service");
    chown(&manager, Some(3003), Some(3003)).expect("gives it away");
    let faked = world
        .stage
        .cgroups
        .make("user.slice/user-3003.slice/user@3003.service/app.slice/finance-bot.service");
    for below in ["app.slice", "app.slice/finance-bot.service"] {
        chown(manager.join(below), Some(3003), Some(3003)).expect("gives it away");
    }
    let unit = world.stage.cgroups.make(UNIT);
    wait_until_seen(&world, &unit);
    open_window(&world, &unit);
    assert_eq!(connect(&world, &unit, AGENT_UID), "ok");
    for uid in [3003, AGENT_UID] {
        assert_eq!(connect(&world, &faked, uid), "EPERM", "{uid}");
    }
    assert_eq!(wire.packets(), 0);
}

#[test]
fn everything_that_a_user_runs_can_be_an_agent_its_own_service_manager_included() {
    let (mut world, wire) = world(&format!("user = {AGENT_UID}"));
    world.start_daemon();
    let manager = world
        .stage
        .cgroups
        .make("user.slice/user-2001.slice/user@2001.service");
    chown(&manager, Some(AGENT_UID), Some(AGENT_UID)).expect("gives it away");
    let scope = world
        .stage
        .cgroups
        .make("user.slice/user-2001.slice/user@2001.service/run-1.scope");
    wait_until_seen(&world, &scope);
    assert_eq!(connect(&world, &scope, AGENT_UID), "EPERM");
    open_window(&world, &scope);
    for cgroup in ["run-1.scope", "run-2.scope"] {
        let cgroup = world.stage.cgroups.make(&format!(
            "user.slice/user-2001.slice/user@2001.service/{cgroup}"
        ));
        assert_eq!(connect(&world, &cgroup, AGENT_UID), "ok");
        assert_eq!(connect(&world, &cgroup, 3003), "EPERM");
    }
    assert_eq!(wire.packets(), 0);
}

#[test]
fn what_a_user_whose_everything_is_an_agent_starts_elsewhere_is_the_agents() {
    let (mut world, wire) = world(&format!("user = {AGENT_UID}"));
    // Its uid is known by its workload alone.
    world.edit_config("\nuid = 2001\n", "\n");
    world.start_daemon();
    let elsewhere = world.stage.cgroups.make("system.slice/cron.service");
    assert_eq!(connect(&world, &elsewhere, AGENT_UID), "EPERM");
    wait_for("the record", || {
        let refused = world.events("kernel_refused");
        let outside =
            "connect4 refused: the process runs as an agent's uid, and outside its workload";
        refused.iter().any(|event| event["verdict"] == outside)
    });
    assert_eq!(wire.packets(), 0);
}

#[test]
fn a_container_is_an_agent_by_its_id() {
    let (mut world, wire) = world(&format!("container = \"{}\"", &CONTAINER[..12]));
    world.start_daemon();
    let container = world
        .stage
        .cgroups
        .make(&format!("machine.slice/libpod-{CONTAINER}.scope/container"));
    wait_until_seen(&world, &container);
    open_window(&world, &container);
    assert_eq!(connect(&world, &container, AGENT_UID), "ok");
    let other = world.stage.cgroups.make(&format!(
        "machine.slice/libpod-{}.scope",
        CONTAINER.replace("0123", "3210")
    ));
    assert_eq!(connect(&world, &other, AGENT_UID), "EPERM");
    assert_eq!(wire.packets(), 0);
}

#[test]
fn what_a_pattern_means_is_the_agent_through_new_names_and_of_two_neither_is_nor_is_it_nobody() {
    for (workload, [first, second, inside]) in [
        (
            "cgroup = \"pods.slice/*bot*\"",
            [
                "pods.slice/bot-1",
                "pods.slice/my-bot-2",
                "machine.slice/libpod-ID.scope/pods.slice/bot-3",
            ],
        ),
        (
            "unit = \"bot@*.service\"",
            [
                "system.slice/system-bot.slice/bot@1.service",
                "system.slice/system-bot.slice/bot@2.service",
                "machine.slice/libpod-ID.scope/system.slice/bot@3.service",
            ],
        ),
    ] {
        let (mut world, wire) = world(workload);
        world.start_daemon();
        let make = |path: &str| world.stage.cgroups.make(&path.replace("ID", CONTAINER));
        // Of a container's own root, who makes what it likes there.
        let inside = make(inside);
        let first = make(first);
        wait_until_seen(&world, &first);
        open_window(&world, &first);
        assert_eq!(connect(&world, &first, AGENT_UID), "ok");
        assert_eq!(connect(&world, &inside, AGENT_UID), "EPERM");
        let second = make(second);
        wait_until_said(
            &world,
            "are called so: stop one of them, or name more of the agent's in the configuration",
        );
        for cgroup in [&first, &second] {
            assert_eq!(connect(&world, cgroup, AGENT_UID), "EPERM");
        }
        std::fs::remove_dir(&first).expect("removes");
        wait_for("the window to have gone to the other", || {
            connect(&world, &second, AGENT_UID) == "ok"
        });
        assert_eq!(wire.packets(), 0);
    }
}

#[test]
fn a_cgroup_that_others_than_root_can_write_is_no_workload() {
    let (world, _wire) = world("cgroup = \"agents/finance-bot\"");
    let cgroup = world.stage.cgroups.make("agents/finance-bot");
    for at in [
        cgroup.clone(),
        cgroup.join("cgroup.procs"),
        cgroup.join("cgroup.threads"),
        world.stage.cgroups.make("agents"),
        // Who may write the list above may leave for there.
        world.stage.cgroups.make("agents").join("cgroup.procs"),
        world.stage.cgroups.make("enforcer").join("cgroup.procs"),
    ] {
        chown(&at, Some(AGENT_UID), None).expect("gives it away");
        let mut command = world.stage.command(Side::Host, enforcer());
        let output = command
            .arg("daemon")
            .arg("--config")
            .arg(world.config())
            .output()
            .expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("belongs to uid 2001"),
            "{}: {said}",
            at.display()
        );
        chown(&at, Some(0), None).expect("takes it back");
    }
}
