//! A unit of a real systemd's with `PrivateNetwork=yes`: the service manager makes its namespace and sets the loopback up, and its client is served there.

use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::capture::Capture;
use harness::stage::{OTHER4, Side};
use harness::world::{
    AGENT_UID, Client, Family, Who, World, client_script, enforcer, policy, venv_python, wait_for,
};
use serde_json::{Value, json};

use super::DAILY;

const UNIT: &str = "finance-bot.service";

/// Boots a systemd that is the first process of everything but the network: with its own files under `/run` and `/dev`, the cgroup that it was started
/// in for its whole hierarchy, and no units but those in the folder. So it ends with its cgroup, and leaves nothing.
const BOOT: &str = r#"
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir /run/devices
mount -t tmpfs tmpfs /run/devices
for device in null zero full random urandom tty; do
    touch /run/devices/$device
    mount --bind /dev/$device /run/devices/$device
done
touch /run/devices/console /run/devices/kmsg "$0/log"
mount --bind /dev/null /run/devices/console
mount --bind "$0/log" /run/devices/kmsg
mkdir /run/devices/pts /run/devices/shm
mount --rbind /run/devices /dev
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for systemd in /usr/lib/systemd/systemd /lib/systemd/systemd; do
    [ ! -x $systemd ] || exec env -i container=test SYSTEMD_UNIT_PATH="$0" SYSTEMD_GENERATOR_PATH=/run/none \
        $systemd --system --unit="$1" --log-target=kmsg --show-status=no
done
echo there is no systemd: install it >&2
"#;

/// Carries lines to the unit's client and back.
const CARRY: &str = r#"cat "$1" & exec cat > "$0""#;

/// A running systemd with one unit, whose client takes lines from a pipe and answers into another.
struct Booted {
    /// Before the manager, which would wait for it.
    client: Client,
    cgroup: PathBuf,
    log: PathBuf,
    manager: Child,
}

impl Booted {
    fn on(world: &World) -> Self {
        // It writes there what this machine is called by.
        world.stage.shadow(&[Path::new("/etc")]);
        // A service manager takes no user that is not listed.
        let users = world.stage.dir().join("etc/passwd");
        let listed = std::fs::read_to_string(&users).expect("reads");
        let one_more = format!("{listed}finance-bot:x:{AGENT_UID}:{AGENT_UID}::/:/bin/sh\n");
        std::fs::write(users, one_more).expect("writes");
        let dir = world.own_folder(Who::Agent, "unit");
        let pipes = [dir.join("in"), dir.join("out")];
        let made = Command::new("mkfifo")
            .args(["-m", "666"])
            .args(&pipes)
            .status();
        assert!(made.expect("runs").success());
        let units = world.own_folder(Who::Operator, "units");
        std::fs::write(units.join(UNIT), unit(world, &pipes)).expect("writes");
        // A slice: in anything else the daemon takes no unit for one.
        let machine = world.stage.cgroups.make("booted.slice");
        let mut boot = world
            .stage
            .command_in(Side::Host, Some(&machine), None, "unshare");
        boot.args(["--pid", "--mount", "--cgroup", "--uts", "--ipc"]);
        boot.args(["--fork", "--kill-child", "sh", "-c", BOOT]);
        boot.arg(&units).arg(UNIT);
        let manager = boot.stdin(Stdio::null()).spawn().expect("starts");
        let mut carry = world.run_as(Who::Operator, "sh");
        carry.args(["-c", CARRY]).args(&pipes);
        let booted = Self {
            client: Client::start(carry),
            cgroup: machine.join("system.slice").join(UNIT),
            log: units.join("log"),
            manager,
        };
        wait_for("the unit", || !booted.processes().is_empty());
        booted
    }

    /// The unit's processes, as the host numbers them.
    fn processes(&self) -> Vec<u32> {
        let text = std::fs::read_to_string(self.cgroup.join("cgroup.procs"));
        let text = text.unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// A program in the unit's network namespace.
    fn beside(&self, world: &World, program: &str) -> Command {
        let pid = self.processes().first().copied().expect("it runs");
        let mut command = world.stage.command(Side::Host, "nsenter");
        command
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .arg(program);
        command
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a failed test shows what the service manager said"
)]
impl Drop for Booted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("--- the service manager's words\n{said}");
        }
        let _ = self.manager.kill();
        let _ = self.manager.wait();
    }
}

/// The unit's text: what a careful operator writes, and the client's environment.
fn unit(world: &World, [input, output]: &[PathBuf; 2]) -> String {
    let client = world.run_as(Who::Agent, venv_python());
    let mut text = String::from(
        "[Unit]\nDefaultDependencies=no\n[Service]\nUser=finance-bot\nPrivateNetwork=yes\nPrivateUsers=yes\nNoNewPrivileges=yes\n\
         ProtectSystem=strict\nCapabilityBoundingSet=\nRestrictNamespaces=yes\n",
    );
    let variables = client.get_envs();
    for (name, value) in variables.filter_map(|(name, value)| Some((name, value?))) {
        let [name, value] = [name, value].map(OsStr::to_string_lossy);
        writeln!(text, "Environment=\"{name}={value}\"").expect("a string takes all");
    }
    let [python, script] = [venv_python(), client_script()];
    let [python, script, input, output] =
        [&python, &script, input, output].map(|path| path.display());
    writeln!(
        text,
        "ExecStart=/bin/sh -c \"exec {python} {script} - < {input} > {output}\""
    )
    .expect("a string takes all");
    text
}

/// Asks for a window in the unit's cgroup; the policy approves it at once.
fn open_window(world: &World, cgroup: &Path) -> String {
    let mut asking = world
        .stage
        .command_in(Side::Host, Some(cgroup), Who::Agent.uid(), enforcer());
    asking.env(
        "ENFORCER_SOCKET",
        world.stage.dir().join("run/control.sock"),
    );
    asking.args(["request", "--scope", "demo-project.finance:read", "--ttl"]);
    asking.args(["10m", "--reason", "month end", "--json"]);
    let output = asking.output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    let asked: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let grant = asked["grant"]["grant"].as_str();
    grant.unwrap_or_else(|| panic!("{asked}")).to_owned()
}

fn is_refused(told: &Value) {
    let error = told["error"].as_str().unwrap_or_default();
    assert!(error.contains("[window."), "{told}");
}

#[test]
fn a_systemd_unit_with_a_private_network_queries_within_a_window_and_is_refused_without_one() {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&policy("15m", true));
    world.edit_config(
        "cgroup = \"agents/finance-bot\"",
        &format!("unit = \"{UNIT}\""),
    );
    world.start_daemon();
    let wire = Capture::start(
        &world.stage,
        World::bigquery().into_iter().chain([OTHER4.into()]),
    );
    let mut booted = Booted::on(&world);
    is_refused(&booted.client.query(DAILY));
    let links = booted
        .beside(&world, "ip")
        .args(["-oneline", "link"])
        .output();
    let links = String::from_utf8(links.expect("runs").stdout).expect("text");
    assert!(
        links.starts_with("1: lo:") && links.lines().count() == 1,
        "{links}"
    );
    assert_eq!(wire.packets(), 0);
    let grant = open_window(&world, &booted.cgroup);
    let told = booted.client.query(DAILY);
    assert_eq!(told["rows"], json!([["1000"]]), "{told}");
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    is_refused(&booted.client.query(DAILY));

    let served = world.events("namespace_served");
    assert_eq!(served.len(), 1, "{served:?}");
    assert_eq!(served[0]["agent"], "finance-bot");
    let admitted = world.events("query_admitted");
    assert_eq!(admitted[0]["process"]["uid"], AGENT_UID);
    let pids = booted.processes();
    assert_eq!(
        json!(pids),
        json!([admitted[0]["process"]["pid"]]),
        "as the host sees it"
    );
    drop(booted);
    wait_for("it is left", || world.events("namespace_left").len() == 1);
}
