//! Hosts and files on which the daemon cannot start: it ends with one sentence that names cause and cure, and what enforced before
//! still does.

use std::fmt::Write;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness::capture::Capture;
use harness::cgroup;
use harness::stage::{BIGQUERY4, INTERNET4, OTHER4, Side};
use harness::world::{Family, Who, World, enforcer, wait_for};

/// A world whose daemon was killed: its programs are pinned, and `finance-bot` meets `EPERM`.
fn left_by_a_killed_daemon() -> World {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config("uid = 2001", "uid = 2001\nclosed = \"drop\"");
    world.start_daemon();
    world.kill_daemon();
    world
}

/// The daemon's command line, started by way of `wrapper`. One that starts after all is ended: a test must not wait for it.
fn daemon(world: &World, wrapper: &[&str]) -> Command {
    let mut command = world.stage.command(Side::Host, "timeout");
    command.arg("30").args(wrapper).arg(enforcer());
    command.arg("daemon").arg("--config").arg(world.config());
    command
}

/// Starts what must not start, and gives the one sentence that it said; log lines aside. What was enforced before still is.
fn refused_start(world: &World, wrapper: &[&str]) -> String {
    let sentence = sentence_of_refused_start(world, wrapper);
    is_still_enforced(world);
    sentence
}

fn sentence_of_refused_start(world: &World, wrapper: &[&str]) -> String {
    let output = daemon(world, wrapper).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "it must not start: {text}");
    let mut said = text.lines().filter(|line| !is_log(line));
    let sentence = said.next().unwrap_or_default().to_owned();
    assert_eq!(said.next(), None, "one sentence: {text}");
    assert!(sentence.starts_with("enforcer: "), "{text}");
    sentence
}

/// Whether a line begins with a time, as those of the log do.
fn is_log(line: &str) -> bool {
    let time = line.split(' ').next().unwrap_or_default();
    time.len() > 20 && time.ends_with('Z') && time.starts_with(|first: char| first.is_ascii_digit())
}

fn is_still_enforced(world: &World) {
    let capture = Capture::start(&world.stage, World::bigquery());
    assert_eq!(world.probe(Who::Agent, world.bigquery_here()), "EPERM");
    assert_eq!(capture.packets(), 0, "nothing left the host");
}

fn names_all(sentence: &str, parts: &[&str]) {
    for part in parts {
        assert!(sentence.contains(part), "{part} in: {sentence}");
    }
}

#[test]
fn a_second_daemon_does_not_write_the_log_of_the_first() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "1m");
    let dir = world.stage.dir();
    let text = std::fs::read_to_string(world.config()).expect("reads");
    // Everything its own but the folder of keys and log.
    let root = world.stage.cgroups.make("second");
    let text = text
        .replace(
            &format!("{}/run", dir.display()),
            &format!("{}/run2", dir.display()),
        )
        .replace("/bpf/enforcer", "/bpf/second")
        .replace(
            &format!("cgroup_root = \"{}\"", world.stage.cgroups.root().display()),
            &format!("cgroup_root = \"{}\"", root.display()),
        )
        .replace(
            "[names]",
            "[proxy]\nport = 941\n[metadata]\nport = 943\n[names]\nport = 942",
        );
    let config = dir.join("second.toml");
    std::fs::write(&config, text).expect("writes");
    let mut second = world.stage.command(Side::Host, enforcer());
    let output = second
        .arg("daemon")
        .arg("--config")
        .arg(&config)
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another enforcer writes the log"), "{said}");
    let verified = world.cli(
        Who::Operator,
        &[
            "log",
            "verify",
            "--dir",
            &world.state_dir().join("audit").display().to_string(),
        ],
    );
    assert!(verified.status.success());
}

#[test]
fn without_its_capabilities_it_says_which_it_needs() {
    let world = left_by_a_killed_daemon();
    for (dropped, missing) in [
        ("-all", "lacks CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"),
        ("-bpf,-sys_admin", "lacks CAP_BPF:"),
        ("-net_admin,-sys_admin", "lacks CAP_NET_ADMIN:"),
        ("-perfmon,-sys_admin", "lacks CAP_PERFMON:"),
    ] {
        let bounds = format!("--bounding-set={dropped}");
        let sentence = refused_start(&world, &["setpriv", &bounds]);
        names_all(&sentence, &[missing, "give it"]);
    }
}

#[test]
fn as_another_user_than_root_it_says_so() {
    let world = left_by_a_killed_daemon();
    let sentence = refused_start(&world, &["setpriv", "--reuid=65534", "--clear-groups"]);
    names_all(&sentence, &["must run as root", "sudo enforcer daemon"]);
}

#[test]
fn on_a_kernel_that_is_too_old_it_says_which_is_needed() {
    let world = left_by_a_killed_daemon();
    let sentence = refused_start(&world, &["setarch", "--uname-2.6"]);
    names_all(
        &sentence,
        &[
            "this kernel is 2.6",
            "6.1 is the oldest",
            "boot a newer one",
        ],
    );
}

#[test]
fn without_cgroup_v2_it_says_how_to_mount_it() {
    let world = left_by_a_killed_daemon();
    let root = world.stage.cgroups.root().display().to_string();
    world.edit_config(&format!("cgroup_root = \"{root}\"\n"), "");
    let mut script = String::new();
    for mount in cgroup::mounts() {
        let _ = write!(script, "umount --lazy '{}' && ", mount.display());
    }
    script.push_str("exec \"$0\" \"$@\"");
    let wrapper = ["unshare", "--mount", "sh", "-c", &script];
    let sentence = refused_start(&world, &wrapper);
    names_all(&sentence, &["no cgroup v2 is mounted", "mount -t cgroup2"]);
}

#[test]
fn with_too_few_files_it_says_how_many_it_needs() {
    let world = left_by_a_killed_daemon();
    let sentence = refused_start(&world, &["prlimit", "--nofile=4096:4096"]);
    names_all(&sentence, &["may open 4096 files", "LimitNOFILE="]);
}

#[test]
fn when_no_address_is_known_at_all_it_does_not_claim_to_protect_any() {
    let world = World::without_daemon(Family::V4);
    world.set_names(&serde_json::json!("down"));
    let sentence = sentence_of_refused_start(&world, &[]);
    names_all(
        &sentence,
        &[
            "nothing would be protected",
            "`names.resolvers`",
            "`names.prefixes`",
        ],
    );
}

#[test]
fn before_there_is_a_network_it_protects_what_is_named_and_learns_the_rest_when_there_is_one() {
    let mut world = World::with_a_silent_far_side();
    world.edit_config("uid = 2001", "uid = 2001\nclosed = \"drop\"");
    let prefix =
        format!("[names]\nprefixes = [{{ prefix = \"{OTHER4}/32\", class = \"shared\" }}]");
    world.edit_config("[names]", &prefix);
    let network = |world: &World, words: &str| {
        let mut ip = world.stage.command(Side::Host, "ip");
        let done = ip.args(words.split(' ')).status();
        assert!(done.expect("ip runs").success(), "{words}");
    };
    network(&world, "link set wire0 down");
    world.start_daemon();
    assert_eq!(world.probe(Who::Agent, OTHER4.into()), "EPERM");
    let protected = |world: &World| world.status()["endpoints"].as_u64();
    assert_eq!(protected(&world), Some(1));

    network(&world, "link set wire0 up");
    network(&world, &format!("route add default via {INTERNET4}"));
    wait_for("the names", || protected(&world) > Some(1));
    let wire = Capture::start(&world.stage, [BIGQUERY4.into(), OTHER4.into()]);
    for address in [BIGQUERY4, OTHER4] {
        assert_eq!(world.probe(Who::Agent, address.into()), "EPERM");
    }
    assert_eq!(wire.packets(), 0);
    // The interface that came up is guarded like one that was there.
    let guards = world.status()["checks"].to_string();
    assert!(guards.contains("wire0"), "{guards}");
}

/// A unit is ordered as it says: what it orders itself before must not have to wait for what it waits for.
#[test]
fn the_unit_of_the_example_runs_before_there_is_a_network() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../enforcer/example/enforcer.service");
    let text = std::fs::read_to_string(unit).expect("reads");
    let lines: Vec<&str> = text.lines().collect();
    for line in [
        "DefaultDependencies=no",
        "Wants=network-pre.target",
        "Before=network-pre.target shutdown.target",
        "After=local-fs.target",
        "StartLimitIntervalSec=0",
    ] {
        assert!(lines.contains(&line), "{line}");
    }
    assert!(!lines.iter().any(|line| line.contains("network-online")));
}

/// Changes a file for as long as `work` lasts.
fn with_edited(path: &Path, from: &str, to: &str, work: impl FnOnce()) {
    let text = std::fs::read_to_string(path).expect("reads");
    assert!(text.contains(from), "{from} is in {}", path.display());
    std::fs::write(path, text.replacen(from, to, 1)).expect("writes");
    work();
    std::fs::write(path, text).expect("writes");
}

#[test]
fn with_files_that_it_cannot_use_it_names_the_file_and_the_place() {
    let world = left_by_a_killed_daemon();
    let policy = world.stage.dir().join("policy.toml");
    let config = world.config();
    for (path, from, to, parts) in [
        (
            &config,
            "[kernel]",
            "[kernell]",
            &["enforcer.toml", "line 5", "unknown field `kernell`"][..],
        ),
        (
            &config,
            "host = \"host-a\"",
            "host = \"host-a",
            &["enforcer.toml", "line 1"],
        ),
        (
            &config,
            "[names]",
            "[names]\nprefixes = [{ prefix = \"10.0.0.0/33\", class = \"shared\" }]",
            &["enforcer.toml", "line 9"],
        ),
        (
            &policy,
            "ttl_max",
            "ttl_maxx",
            &["policy.toml", "line 7", "unknown field `ttl_maxx`"],
        ),
        (&policy, "[[rule]]", "[[rule]", &["policy.toml", "line 1"]),
        (
            &policy,
            "finance-bot",
            "nobody-bot",
            &["policy.toml", "nobody-bot"],
        ),
    ] {
        with_edited(path, from, to, || {
            names_all(&refused_start(&world, &[]), parts);
        });
    }
}

#[test]
fn with_a_key_that_others_can_read_it_says_how_to_close_it() {
    let world = left_by_a_killed_daemon();
    let key = world.state_dir().join("issuer.pem");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("opens");
    let sentence = refused_start(&world, &[]);
    names_all(&sentence, &["issuer.pem", "0644", "chmod 0600"]);
}

#[test]
fn with_its_port_taken_it_says_what_to_name_instead() {
    let world = left_by_a_killed_daemon();
    let _taken = world.stage.on(Side::Host, || {
        TcpListener::bind("127.0.0.1:841").expect("binds")
    });
    let sentence = refused_start(&world, &[]);
    names_all(&sentence, &["127.0.0.1:841", "proxy.port"]);
}

#[test]
fn a_service_manager_is_told_when_the_lock_holds() {
    let mut world = World::without_daemon(Family::V4);
    let socket = world.stage.dir().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&socket).expect("binds");
    manager
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .expect("sets");
    // A service manager starts the daemon in its unit's cgroup.
    world.edit_config("[kernel]", "[kernel]\ndaemon_cgroup = \"unit\"");
    let unit = world.stage.cgroups.make("unit");
    let mut command = world
        .stage
        .command_in(Side::Host, Some(&unit), None, enforcer());
    let mut daemon = command
        .arg("daemon")
        .arg("--config")
        .arg(world.config())
        .env("NOTIFY_SOCKET", &socket)
        .spawn()
        .expect("starts");
    let told = || {
        let mut said = [0; 64];
        let bytes = manager.recv(&mut said).expect("is told");
        String::from_utf8_lossy(&said[..bytes]).into_owned()
    };
    // A long log takes its time to be read.
    assert!(told().starts_with("EXTEND_TIMEOUT_USEC="));
    assert_eq!(told(), "READY=1\n");
    assert!(world.cli(Who::Operator, &["status"]).status.success());
    daemon.kill().expect("kills");
    daemon.wait().expect("ends");
    world.kill_daemon();
}
