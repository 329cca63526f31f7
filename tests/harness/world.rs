//! The whole world: the stage, Google on its far side, a real daemon on its near side, agents and people.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use enforcer::client_setup::Files;
use serde_json::{Value, json};

use crate::secrets;
use crate::stage::{
    BIGQUERY4, BIGQUERY6, INTERNET4, INTERNET6, OTHER4, OTHER6, STORAGE4, STORAGE6, STS4, STS6,
    Side, Stage,
};

/// The agent's uid.
pub const AGENT_UID: u32 = 2001;
/// Another agent's uid.
pub const OTHER_AGENT_UID: u32 = 2002;
/// The approver's uid.
pub const APPROVER_UID: u32 = 5001;
/// Another who may decide where a test's policy says so.
pub const COLLEAGUE_UID: u32 = 5002;
/// The token that the agent's own client sends. It must never reach the far side.
pub const AGENTS_OWN_TOKEN: &str = "ya29.the-agents-own-token";

/// Says that a machine without the Cloud SDK is no failure.
const WITHOUT_BQ: &str = "ENFORCER_TEST_WITHOUT_BQ";
/// How many lines of a program's standard error a failure shows.
const LAST_WORDS: usize = 20;

/// Which addresses the far side answers on: a client tries the first family that its name resolves to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Only IPv4.
    V4,
    /// Only IPv6.
    V6,
}

/// Who runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Root, in no agent's workload.
    Operator,
    /// The approver's uid, in no agent's workload.
    Approver,
    /// Another person's uid, whom the policy may name as well, in no agent's workload.
    Colleague,
    /// `finance-bot`, in its workload.
    Agent,
    /// `ops-bot`, in its workload.
    OtherAgent,
}

impl Who {
    /// What the demonstration calls them; the agents' names are the policy's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "root",
            Self::Approver => "alice",
            Self::Colleague => "bob",
            Self::Agent => "finance-bot",
            Self::OtherAgent => "ops-bot",
        }
    }

    #[must_use]
    pub const fn uid(self) -> Option<u32> {
        match self {
            Self::Operator => None,
            Self::Approver => Some(APPROVER_UID),
            Self::Colleague => Some(COLLEAGUE_UID),
            Self::Agent => Some(AGENT_UID),
            Self::OtherAgent => Some(OTHER_AGENT_UID),
        }
    }
}

/// A running world.
#[derive(Debug)]
pub struct World {
    daemon: Option<Child>,
    /// Killed before the stage goes.
    _far: Vec<FarProcess>,
    family: Family,
    /// The two hosts.
    pub stage: Stage,
    /// Changes to the policy's text before the daemon starts.
    policy: String,
    /// What a unit would say by `Environment=`.
    daemon_environment: Vec<(String, OsString)>,
}

#[derive(Debug)]
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of the far side, and the file that its standard error goes to.
#[derive(Debug)]
struct FarProcess {
    name: &'static str,
    running: Running,
    stderr: PathBuf,
}

impl FarProcess {
    fn start(name: &'static str, stderr: PathBuf, command: &mut Command) -> Self {
        let file = std::fs::File::create(&stderr).expect("makes a file");
        let child = command.stdout(Stdio::null()).stderr(file).spawn();
        Self {
            name,
            running: Running(child.unwrap_or_else(|error| panic!("{name}: {error}"))),
            stderr,
        }
    }

    /// How it ended, if it has.
    fn ended(&mut self) -> Option<String> {
        let status = self.running.0.try_wait().expect("waits")?;
        Some(format!("{} ended: {status}", self.name))
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n");
        format!("--- {}'s last words\n{tail}\n", self.name)
    }
}

/// Waits until the far side serves. What has ended will not come: that is said at once, with what it wrote.
fn wait_for_far(ready: &Path, far: &mut [FarProcess]) {
    wait_for("Google", || {
        let ended: Vec<String> = far.iter_mut().filter_map(FarProcess::ended).collect();
        let words = || far.iter().map(FarProcess::last_words).collect::<String>();
        assert!(ended.is_empty(), "{}\n{}", ended.join(", "), words());
        ready.exists()
    });
}

/// Who was left when a test gave up waiting for them to go.
#[derive(Default)]
struct Left(Vec<String>);

#[expect(clippy::print_stderr, reason = "a failed test shows who was left")]
impl Drop for Left {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- left: {:#?}", self.0);
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a failed test shows what the daemon said"
)]
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.daemon_log();
            let tail: Vec<&str> = text.lines().rev().take(30).collect();
            eprintln!(
                "--- the daemon's last words, newest first\n{}",
                tail.join("\n")
            );
        }
        self.kill_daemon();
        // What a test that fails has written is not judged as well.
        if !std::thread::panicking() {
            let found = secrets::found_in(self.stage.dir());
            assert!(
                found.is_empty(),
                "secrets where they must not be: {found:#?}"
            );
        }
    }
}

impl World {
    /// Builds the world with Google on one address family, and starts the daemon.
    #[must_use]
    pub fn start(family: Family) -> Self {
        let mut world = Self::without_daemon(family);
        world.start_daemon();
        world
    }

    /// The same, the daemon not started yet.
    #[must_use]
    pub fn without_daemon(family: Family) -> Self {
        let stage = Stage::new();
        let processes = Self::far_side(&stage, family);
        Self::on(stage, family, processes)
    }

    /// A world whose far side only answers names: for what must not get there. The daemon is not started yet.
    #[must_use]
    pub fn with_a_silent_far_side() -> Self {
        let stage = Stage::new();
        let far = stage.dir().join("google");
        std::fs::create_dir_all(&far).expect("makes a folder");
        let roots = far.join("world-ca.pem");
        std::fs::copy("/etc/ssl/certs/ca-certificates.crt", roots).expect("copies roots");
        let mut names = python(&stage, Side::Internet, None, None, "far/silent.py");
        names.arg(&far).args([
            INTERNET4.to_string(),
            BIGQUERY4.to_string(),
            BIGQUERY6.to_string(),
        ]);
        let mut processes = vec![FarProcess::start("names", far.join("stderr"), &mut names)];
        wait_for_far(&far.join("ready"), &mut processes);
        Self::on(stage, Family::V4, processes)
    }

    fn on(stage: Stage, family: Family, processes: Vec<FarProcess>) -> Self {
        for dir in ["agent", "run"] {
            std::fs::create_dir_all(stage.dir().join(dir)).expect("makes a folder");
        }
        give_to(&stage.dir().join("agent"), AGENT_UID);
        let world = Self {
            daemon: None,
            _far: processes,
            family,
            stage,
            policy: policy("15m", false),
            daemon_environment: Vec::new(),
        };
        world.write_config();
        world
    }

    fn far_side(stage: &Stage, family: Family) -> Vec<FarProcess> {
        let far = stage.dir().join("google");
        let engine_home = stage.dir().join("engine");
        for dir in [&far, &engine_home, &stage.dir().join("run")] {
            std::fs::create_dir_all(dir).expect("makes a folder");
        }
        let both = |v4: Ipv4Addr, v6: Ipv6Addr| match family {
            Family::V4 => v4.to_string(),
            Family::V6 => v6.to_string(),
        };
        let mut engine = python(stage, Side::Internet, None, None, "far/engine.py");
        engine.arg(&engine_home).env("TMPDIR", &engine_home);
        let mut google = python(stage, Side::Internet, None, None, "far/world.py");
        google
            .arg("--dir")
            .arg(&far)
            .arg("--jwks")
            .arg(stage.dir().join("run/jwks.json"))
            .args([
                "--dns",
                &INTERNET4.to_string(),
                &INTERNET6.to_string(),
                "--address",
            ])
            .arg(format!(
                "bigquery.googleapis.com={}",
                both(BIGQUERY4, BIGQUERY6)
            ))
            // Another of Google's names, on the very same address.
            .arg(format!(
                "storage.googleapis.com={}",
                both(BIGQUERY4, BIGQUERY6)
            ))
            .arg(format!(
                "bigquerystorage.googleapis.com={}",
                both(STORAGE4, STORAGE6)
            ))
            .arg(format!("sts.googleapis.com={}", both(STS4, STS6)))
            .arg(format!(
                "iamcredentials.googleapis.com={}",
                both(STS4, STS6)
            ))
            .arg(format!("example.com={}", both(OTHER4, OTHER6)));
        let mut processes = vec![
            FarProcess::start("the engine", engine_home.join("stderr"), &mut engine),
            FarProcess::start("Google", far.join("stderr"), &mut google),
        ];
        wait_for_far(&far.join("ready"), &mut processes);
        processes
    }

    /// Where BigQuery answers, both families.
    #[must_use]
    pub fn bigquery() -> [IpAddr; 2] {
        [BIGQUERY4.into(), BIGQUERY6.into()]
    }

    /// Where BigQuery answers in this world.
    #[must_use]
    pub fn bigquery_here(&self) -> IpAddr {
        match self.family {
            Family::V4 => BIGQUERY4.into(),
            Family::V6 => BIGQUERY6.into(),
        }
    }

    /// Where STS and IAM Credentials answer in this world.
    #[must_use]
    pub fn tokens_here(&self) -> IpAddr {
        match self.family {
            Family::V4 => STS4.into(),
            Family::V6 => STS6.into(),
        }
    }

    /// Uses another policy from the next start on.
    pub fn set_policy(&mut self, text: &str) {
        self.policy = text.to_owned();
        self.write_config();
    }

    /// The daemon's folder for keys and the log.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.stage.dir().join("state")
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.stage.dir().join("enforcer.toml")
    }

    fn write_config(&self) {
        let dir = self.stage.dir();
        let text = format!(
            r#"host = "host-a"
state_dir = "{0}/state"
run_dir = "{0}/run"
policy = "{0}/policy.toml"
[kernel]
cgroup_root = "{1}"
pin_dir = "{0}/bpf/enforcer"
[names]
protected = ["bigquery.googleapis.com"]
resolvers = ["{INTERNET4}:53"]
[upstream]
ca_file = "{0}/google/world-ca.pem"
[token]
kind = "federation"
audience = "//iam.googleapis.com/projects/123456789012/locations/global/workloadIdentityPools/agents/providers/host-a"
issuer = "https://enforcer.example.com/host-a"
[[agent]]
name = "finance-bot"
cgroup = "agents/finance-bot"
uid = {AGENT_UID}
[[agent]]
name = "ops-bot"
cgroup = "agents/ops-bot"
uid = {OTHER_AGENT_UID}
"#,
            dir.display(),
            self.stage.cgroups.root().display()
        );
        std::fs::write(self.config(), text).expect("writes");
        std::fs::write(dir.join("policy.toml"), &self.policy).expect("writes");
    }

    /// Changes the configuration's text from the next start on.
    ///
    /// # Panics
    /// When `from` is not in it.
    pub fn edit_config(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.config()).expect("reads");
        assert!(text.contains(from), "{from} is in the configuration");
        std::fs::write(self.config(), text.replacen(from, to, 1)).expect("writes");
    }

    /// Has the daemon find a variable in its environment from the next start on, as a unit's `Environment=` does.
    pub fn set_daemon_environment(&mut self, name: &str, value: impl Into<OsString>) {
        self.daemon_environment
            .push((name.to_owned(), value.into()));
    }

    /// Starts the daemon and waits until it answers.
    pub fn start_daemon(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.stage.dir().join("daemon.log"))
            .expect("makes a file");
        let mut command = self.stage.command(Side::Host, enforcer());
        command
            .arg("daemon")
            .arg("--config")
            .arg(self.config())
            .envs(
                self.daemon_environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            // A core, should there be one, is where secrets are looked for.
            .current_dir(self.stage.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.daemon = Some(
            command
                .spawn()
                .expect("the daemon starts: build it with cargo build -p enforcer"),
        );
        wait_for("the daemon", || {
            let ended = self
                .daemon
                .as_mut()
                .expect("spawned")
                .try_wait()
                .expect("waits");
            assert!(ended.is_none(), "the daemon ended: {}", self.daemon_log());
            self.cli(Who::Operator, &["status"]).status.success()
        });
    }

    /// What the daemon wrote to its standard error.
    #[must_use]
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.stage.dir().join("daemon.log")).unwrap_or_default()
    }

    /// Kills the daemon without warning.
    pub fn kill_daemon(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// Asks the daemon to stop, and waits until it has.
    ///
    /// # Panics
    /// When it ends badly.
    pub fn stop_daemon(&mut self) {
        self.signal_daemon(rustix::process::Signal::TERM);
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let ended = daemon.wait().expect("waits");
        assert!(ended.success(), "{ended}: {}", self.daemon_log());
    }

    /// Waits until the daemon has ended, and says how.
    ///
    /// # Panics
    /// When it does not run.
    pub fn ended_daemon(&mut self) -> std::process::ExitStatus {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        daemon.wait().expect("waits")
    }

    /// Whether the daemon still runs.
    pub fn is_daemon_running(&mut self) -> bool {
        let daemon = self.daemon.as_mut();
        daemon.is_some_and(|daemon| daemon.try_wait().expect("waits").is_none())
    }

    /// The daemon's process.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn daemon_pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Sends the daemon a signal.
    pub fn signal_daemon(&self, signal: rustix::process::Signal) {
        let daemon = self.daemon.as_ref().expect("the daemon runs");
        let pid = rustix::process::Pid::from_child(daemon);
        rustix::process::kill_process(pid, signal).expect("signals");
    }

    /// Says how many files the daemon may have open from now on; what it has open stays so.
    pub fn limit_files_of_daemon(&self, most: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_child(self.daemon.as_ref().expect("the daemon runs"));
        let limit = Rlimit {
            current: Some(most),
            maximum: rustix::process::getrlimit(Resource::Nofile).maximum,
        };
        prlimit(Some(pid), Resource::Nofile, limit).expect("limits");
    }

    /// The most memory that the daemon has had so far, bytes.
    #[must_use]
    pub fn peak_memory_of_daemon(&self) -> u64 {
        let daemon = self.daemon.as_ref().expect("the daemon runs");
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id()));
        let status = status.expect("reads");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a number") * 1024
    }

    /// A command of the enforcer's, run by somebody.
    #[must_use]
    pub fn cli(&self, who: Who, args: &[&str]) -> Output {
        let mut command = self.run_as(who, enforcer());
        let output = command.args(args).output().expect("the command line runs");
        self.note(&output);
        output
    }

    /// Keeps what was printed, for the search that ends a world.
    fn note(&self, output: &Output) {
        let path = self.stage.dir().join(secrets::PRINTED);
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path);
        let mut file = file.expect("makes a file");
        file.write_all(&output.stdout).expect("writes");
        file.write_all(&output.stderr).expect("writes");
    }

    /// What approvers are shown of a request, by its digest; empty where it cannot be told.
    #[must_use]
    pub fn digest_of(&self, request: &str) -> String {
        let output = self.cli(Who::Operator, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let requests = status["requests"].as_array().into_iter().flatten();
        let mut found = requests.filter(|held| held["request"] == request);
        let digest = found.next().and_then(|held| held["digest"].as_str());
        digest.unwrap_or_default().to_owned()
    }

    /// The same with `--json`, which must succeed. Who decides so names what they were shown.
    #[must_use]
    pub fn json(&self, who: Who, args: &[&str]) -> Value {
        let seen = match args {
            ["approve" | "break-glass", request, ..] => Some(self.digest_of(request)),
            _ => None,
        };
        let seen = seen.as_deref().map_or(vec![], |seen| vec!["--seen", seen]);
        let output = self.cli(who, &[args, &seen, &["--json"]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{args:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_str(&text).expect("prints JSON")
    }

    /// A program run by somebody, with the client's environment.
    #[must_use]
    pub fn run_as(&self, who: Who, program: impl AsRef<OsStr>) -> Command {
        let cgroup = self.cgroup_of(who);
        let mut command = self
            .stage
            .command_in(Side::Host, Some(&cgroup), who.uid(), program);
        command
            .env_clear()
            .envs(self.environment())
            .current_dir(self.stage.dir());
        command
    }

    /// A folder of somebody's own on the host.
    #[must_use]
    pub fn own_folder(&self, who: Who, name: &str) -> PathBuf {
        let dir = self.stage.dir().join(name);
        std::fs::create_dir_all(&dir).expect("makes a folder");
        std::os::unix::fs::chown(&dir, who.uid(), who.uid()).expect("gives it away");
        dir
    }

    /// A program run by somebody with an empty environment but for `PATH`, `HOME` and the client's variables that are named.
    #[must_use]
    pub fn run_bare(&self, who: Who, program: impl AsRef<OsStr>, named: &[&str]) -> Command {
        let files = Files::in_run_dir(&self.stage.dir().join("run"));
        let mut command = self.run_as(who, program);
        command.env_clear();
        for (name, value) in self.environment() {
            if ["PATH", "HOME"].contains(&name) {
                command.env(name, value);
            }
        }
        for (name, value) in files.env() {
            if named.contains(&name.as_str()) {
                command.env(name, value);
            }
        }
        command
    }

    /// A shell script that does the same for its arguments, or for a shell when there are none. Only root can run it.
    #[must_use]
    pub fn script(&self, who: Who) -> String {
        let join = format!("echo $$ > {}/cgroup.procs\n", self.cgroup_of(who).display());
        let user = who
            .uid()
            .map_or_else(String::new, |uid| format!("--setuid {uid} --setgid {uid}"));
        let environment: Vec<String> = self
            .environment()
            .iter()
            .map(|(name, value)| format!("{name}='{}'", value.to_string_lossy()))
            .collect();
        format!(
            "#!/bin/sh\n[ $# -gt 0 ] || set -- /bin/sh -i\n{join}exec nsenter {} --wd={} {user} env -i TERM=\"$TERM\" {} \"$@\"\n",
            self.stage.nsenter(Side::Host),
            self.stage.dir().display(),
            environment.join(" ")
        )
    }

    /// The cgroup of somebody. Below the enforced root, so that people meet the default deny of the host as well.
    #[must_use]
    pub fn cgroup_of(&self, who: Who) -> PathBuf {
        let kind = match who {
            Who::Operator | Who::Approver | Who::Colleague => "people",
            Who::Agent | Who::OtherAgent => "agents",
        };
        self.stage.cgroups.make(&format!("{kind}/{}", who.name()))
    }

    /// From now on this process is the parent of what its children leave behind, so that it is buried by [`World::nobody_is_left`]: a host's first process may
    /// take its time to, and until then it is in its cgroup.
    pub fn takes_over_orphans() {
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).expect("takes over");
    }

    /// Waits until no process of somebody's is left.
    pub fn nobody_is_left(&self, who: Who) {
        let procs = self.cgroup_of(who).join("cgroup.procs");
        let mut left = Left::default();
        wait_for("nobody is left", || {
            let pids = std::fs::read_to_string(&procs).expect("reads");
            left.0.clear();
            for pid in pids.lines() {
                let of = |file| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
                left.0.push(format!("{:?} {:?}", of("stat"), of("cmdline")));
                let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
                // One that has another parent is that one's to bury.
                if pid.is_some() {
                    let _ = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG);
                }
            }
            pids.is_empty()
        });
    }

    fn environment(&self) -> Vec<(&'static str, OsString)> {
        let run = self.stage.dir().join("run");
        let home = self.stage.dir().join("agent");
        let bundle = run.join("ca-bundle.pem");
        let beside = enforcer().parent().map(Path::to_owned);
        let others = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(beside.into_iter().chain(std::env::split_paths(&others)));
        vec![
            ("PATH", path.expect("no colon in a folder's name")),
            ("CLOUDSDK_CONFIG", home.join("gcloud").into()),
            ("HOME", home.into()),
            ("ENFORCER_SOCKET", run.join("control.sock").into()),
            ("PYTHONDONTWRITEBYTECODE", "1".into()),
            ("REQUESTS_CA_BUNDLE", bundle.clone().into()),
            ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", bundle.clone().into()),
            ("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", bundle.into()),
            (
                "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE",
                run.join("placeholder-token").into(),
            ),
        ]
    }

    /// What becomes of somebody's TCP connection to port 443 of an address: `ok`, an errno's name, or `timeout`.
    #[must_use]
    pub fn probe(&self, who: Who, address: IpAddr) -> String {
        self.probe_port(who, "tcp", address, 443)
    }

    /// The same for another port, in one of the ways of `agent/probe.py`.
    #[must_use]
    pub fn probe_port(&self, who: Who, how: &str, address: IpAddr, port: u16) -> String {
        let mut command = self.run_as(who, "/usr/bin/python3");
        let output = command
            .arg(script("agent/probe.py"))
            .args([how, &address.to_string(), &port.to_string()])
            .output()
            .expect("python runs");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// The line of JSON that a script of the world's prints for somebody.
    ///
    /// # Panics
    /// When it prints none.
    #[must_use]
    pub fn script_of(&self, who: Who, name: &str, args: &[&str]) -> Value {
        let mut command = self.run_as(who, venv_python());
        let output = command.arg(script(name)).args(args).output();
        let output = output.expect("python runs");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!("{name}: {}", String::from_utf8_lossy(&output.stderr));
        })
    }

    /// Opens a window for `finance-bot`: asked by it, approved by the approver.
    #[must_use]
    pub fn open_window(&self, scope: &str, ttl: &str) -> String {
        let asked = self.json(
            Who::Agent,
            &[
                "request",
                "--scope",
                scope,
                "--ttl",
                ttl,
                "--reason",
                "month end",
            ],
        );
        let request = asked["request"].as_str().expect("an id").to_owned();
        let approved = self.json(Who::Approver, &["approve", &request]);
        approved["grant"]["grant"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// Runs SQL as `finance-bot` with a fresh, unmodified client; one result for each statement.
    #[must_use]
    pub fn query(&self, statements: &[&str]) -> Vec<Value> {
        let mut command = self.run_as(Who::Agent, venv_python());
        let output = command
            .arg(client_script())
            .args(statements)
            .output()
            .expect("python runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let results: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("prints JSON"))
            .collect();
        assert_eq!(
            results.len(),
            statements.len(),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        results
    }

    /// A client that stays, with one kept-alive connection.
    #[must_use]
    pub fn client(&self) -> Client {
        let mut command = self.run_as(Who::Agent, venv_python());
        command.arg(client_script()).arg("-");
        Client::start(command)
    }

    /// A client that stays, with one HTTP/2 connection; what it is sent and says is JSON: see `agent/streams.py`.
    #[must_use]
    pub fn streams(&self) -> Client {
        self.streams_to("bigquery.googleapis.com")
    }

    /// The same, to another name.
    #[must_use]
    pub fn streams_to(&self, name: &str) -> Client {
        let mut command = self.run_as(Who::Agent, venv_python());
        command
            .arg(script("agent/streams.py"))
            .arg(self.stage.dir().join("run/ca.pem"))
            .arg(name);
        Client::start(command)
    }

    /// A client that stays and reads tables as Arrow; what it is sent and says is JSON: see `agent/storage.py`.
    #[must_use]
    pub fn storage(&self) -> Client {
        let mut command = self.run_as(Who::Agent, venv_python());
        command.arg(script("agent/storage.py"));
        Client::start(command)
    }

    /// What went wrong on purpose from now on, such as `{"sts": "down"}`.
    pub fn set_faults(&self, faults: &Value) {
        self.tell_far("faults.json", faults);
    }

    /// What the far side's DNS answers from now on, such as `{"bigquery.googleapis.com": {"addresses": ["10.77.9.9"], "ttl_s": 1}}`;
    /// for a name that is not listed what it always answers, and for `"down"` nothing at all.
    pub fn set_names(&self, names: &Value) {
        self.tell_far("names.json", names);
    }

    /// Replaced in one step: the far side reads it whenever it likes.
    fn tell_far(&self, name: &str, value: &Value) {
        let path = self.stage.dir().join("google").join(name);
        let draft = path.with_extension("draft");
        std::fs::write(&draft, value.to_string()).expect("writes");
        std::fs::rename(draft, path).expect("renames");
    }

    /// Every HTTP request the far side got.
    #[must_use]
    pub fn far_requests(&self) -> Vec<Value> {
        self.far_lines("requests.jsonl")
    }

    /// How it answered each: `coding`, and the bytes of the body, `plain` and as `sent`.
    #[must_use]
    pub fn far_answers(&self) -> Vec<Value> {
        self.far_lines("answers.jsonl")
    }

    /// The names that the far side's name server was asked for, in lower case, oldest first.
    #[must_use]
    pub fn asked_names(&self) -> Vec<String> {
        let asked = self.far_lines("asked.jsonl");
        let names = asked.iter().filter_map(|asked| asked["name"].as_str());
        names.map(str::to_owned).collect()
    }

    /// How many of them were for BigQuery.
    #[must_use]
    pub fn asked_of_bigquery(&self) -> usize {
        let requests = self.far_requests();
        let asked = requests.iter();
        asked
            .filter(|request| request["host"] == "bigquery.googleapis.com")
            .count()
    }

    /// Every token the far side minted.
    #[must_use]
    pub fn tokens(&self) -> Vec<Value> {
        self.far_lines("tokens.jsonl")
    }

    fn far_lines(&self, name: &str) -> Vec<Value> {
        let text =
            std::fs::read_to_string(self.stage.dir().join("google").join(name)).unwrap_or_default();
        // A line without its end is still being written.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// What `status` says, in JSON.
    #[must_use]
    pub fn status(&self) -> Value {
        self.json(Who::Operator, &["status"])
    }

    /// The log's records, as the operator reads them.
    #[must_use]
    pub fn records(&self) -> Vec<Value> {
        let output = self.cli(Who::Operator, &["log", "--json"]);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// The log's events of one kind.
    #[must_use]
    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.records()
            .into_iter()
            .map(|record| record["event"].clone())
            .filter(|event| event["kind"] == kind)
            .collect()
    }
}

/// A client with one connection: a line in for each request, a line out for what comes of it.
#[derive(Debug)]
pub struct Client {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _child: Running,
}

impl Client {
    /// Starts a program that reads lines and answers each with a line of JSON.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("python runs");
        let (input, output) = (
            child.stdin.take().expect("piped"),
            child.stdout.take().expect("piped"),
        );
        Self {
            input,
            output: BufReader::new(output),
            _child: Running(child),
        }
    }

    /// Sends SQL, or what else the client takes, without waiting for what comes of it.
    pub fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the client reads");
    }

    /// What came of the oldest that was sent.
    pub fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.output
            .read_line(&mut line)
            .expect("the client answers");
        serde_json::from_str(&line)
            .unwrap_or_else(|_| json!({"error": format!("the client said {line:?}")}))
    }

    /// Sends SQL and waits.
    pub fn query(&mut self, sql: &str) -> Value {
        self.send(sql);
        self.receive()
    }
}

/// What lets tests ask as often as they like, and for several datasets at once.
pub const LOOSE: &str =
    "datasets_max = 16\nbackoff = \"0s\"\nrequests_per_hour = 1000\nduty_cycle_percent = 50\n";

/// A policy with one rule for `finance-bot`.
#[must_use]
pub fn policy(ttl_max: &str, auto_approve: bool) -> String {
    format!(
        "[[rule]]\nagents = [\"finance-bot\"]\ndatasets = [\"demo-project.finance\"]\nddl = [\"demo-project.scratch\"]\n\
         buckets = [\"gs://demo-imports\"]\nwritable_buckets = [\"gs://demo-exports\"]\nttl_max = \"{ttl_max}\"\n\
         approvers = {{ users = [{APPROVER_UID}] }}\nauto_approve = {auto_approve}\n{LOOSE}"
    )
}

/// The daemon's program: named by `ENFORCER_BIN`, else beside the running test.
#[must_use]
pub fn enforcer() -> PathBuf {
    if let Some(path) = std::env::var_os("ENFORCER_BIN") {
        return path.into();
    }
    let me = std::env::current_exe().expect("a path");
    let found = me
        .ancestors()
        .map(|dir| dir.join("enforcer"))
        .find(|path| path.is_file());
    found.expect("the enforcer is built: cargo build -p enforcer")
}

/// The virtual environment's Python; made by `cargo xtask venv`.
#[must_use]
pub fn venv_python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    assert!(
        path.exists(),
        "{} is missing: make it with `cargo xtask venv`",
        path.display()
    );
    path
}

/// Where Node and its packages are; made by `cargo xtask venv`.
///
/// # Panics
/// When they are not there.
#[must_use]
pub fn node() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node");
    let found = path.canonicalize();
    found.unwrap_or_else(|_| {
        panic!(
            "{} is missing: make it with `cargo xtask venv`",
            path.display()
        )
    })
}

/// Whether this machine has no Cloud SDK, and whoever runs the tests has said that it need not.
///
/// # Panics
/// When it has none and nobody has said so.
#[must_use]
pub fn cloud_sdk_is_missing() -> bool {
    cloud_sdk().is_none()
}

/// Where this machine's Cloud SDK is; nowhere, if whoever runs the tests has said that it need not be there.
///
/// # Panics
/// When there is none and nobody has said so.
#[must_use]
pub fn cloud_sdk() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut programs = std::env::split_paths(&path).map(|folder| folder.join("bq"));
    let Some(bq) = programs.find(|program| program.is_file()) else {
        assert!(
            std::env::var_os(WITHOUT_BQ).is_some(),
            "there is no bq on this machine's PATH: install the Cloud SDK, or say {WITHOUT_BQ}=1 to go without"
        );
        return None;
    };
    let bq = bq.canonicalize().expect("leads to a file");
    let folder = bq.parent().and_then(Path::parent);
    Some(folder.expect("it is in the SDK's bin").to_owned())
}

/// The agent's client: `google-cloud-bigquery`, SQL by argument.
#[must_use]
pub fn client_script() -> PathBuf {
    script("agent/query.py")
}

/// A script of the test world's, by its path below it.
#[must_use]
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("world")
        .join(name)
}

fn python(
    stage: &Stage,
    side: Side,
    cgroup: Option<&Path>,
    uid: Option<u32>,
    name: &str,
) -> Command {
    let mut command = stage.command_in(side, cgroup, uid, venv_python());
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(script(name));
    command
}

fn give_to(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).expect("gives the folder away");
}

/// Waits for something that another process does.
pub fn wait_for(what: &str, mut is_done: impl FnMut() -> bool) {
    for _ in 0..1200 {
        if is_done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{what} did not come within a minute");
}
