//! Where it is measured: a world whose BigQuery is the fast one, the daemon as it is shipped with many agents and their windows, and its peers.
//!
//! The far side has the fast BigQuery on two addresses: one that the name resolves to, which is protected and which only the daemon reaches,
//! and one that nobody protects, for who asks without us. Both are the same process behind the same wire.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::stage::{Side, Stage};
use harness::world::{Family, World, enforcer};
use serde_json::{Value, json};

use super::peers::{Peer, tree};
use super::tls;
use crate::turns::worker;

/// Where the name resolves to.
const PROTECTED: &str = "10.77.8.10";
/// The same server for everybody.
pub(super) const OPEN: &str = "10.77.9.10";
/// How many agents have a window: each has a pace of its own, which no single one may exceed.
pub(super) const AGENTS: u32 = 16;
/// How many agents there are: the others open theirs themselves.
pub(crate) const ALL_AGENTS: u32 = 2 * AGENTS;
const FIRST_UID: u32 = 2100;

/// Whose way a request takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Enforcer,
    Nginx,
    Haproxy,
    Mitmproxy,
}

impl Way {
    pub(super) const ALL: [Self; 5] = [
        Self::Direct,
        Self::Enforcer,
        Self::Nginx,
        Self::Haproxy,
        Self::Mitmproxy,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Enforcer => "enforcer",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Mitmproxy => "mitmproxy",
        }
    }
}

/// All of it.
pub(crate) struct Lab {
    // Ended before the world goes.
    peers: Vec<(Way, Peer)>,
    server: Child,
    pub(crate) world: World,
    roots: PathBuf,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Lab {
    pub(super) fn new(threads: usize) -> Self {
        let (mut lab, dir) = Self::alone(ALL_AGENTS);
        lab.peers = Peer::all(&lab.world.stage, &dir, threads);
        lab
    }

    /// The same with so many agents and no peers; and the folder of the certificates.
    pub(crate) fn alone(agents: u32) -> (Self, PathBuf) {
        let mut world = World::without_daemon(Family::V4);
        let dir = tls::make(&world.stage, OPEN);
        let server = serve(&world.stage, &dir);
        configure(&mut world, &dir, agents);
        world.start_daemon();
        let roots = dir.join("client-roots.pem");
        let ours = world.stage.dir().join("run/ca.pem");
        join(&[&ours, &dir.join(tls::ROOT)], &roots);
        let lab = Self {
            peers: Vec::new(),
            server,
            world,
            roots,
        };
        for agent in 0..AGENTS {
            lab.open(agent, "15m");
        }
        (lab, dir)
    }

    /// What a client is told of the way: a server and the file of its roots.
    pub(crate) fn to(&self, way: Way) -> [String; 2] {
        let server = match way {
            Way::Direct => format!("{OPEN}:443"),
            Way::Enforcer => format!("{}:443", tls::NAME),
            Way::Nginx | Way::Haproxy | Way::Mitmproxy => self.peer(way).server(),
        };
        [server, self.roots.display().to_string()]
    }

    /// A worker in the workload of an agent that has a window.
    pub(crate) fn work(&self, round: u32, args: &[&str]) -> Child {
        self.work_as(round % AGENTS, args)
    }

    /// A worker in the workload of an agent that has none.
    pub(super) fn work_without(&self, agent: u32, args: &[&str]) -> Child {
        self.work_as(AGENTS + agent, args)
    }

    fn work_as(&self, agent: u32, args: &[&str]) -> Child {
        let place = self.world.stage.cgroups.make(&place(agent));
        let who = Some((place.as_path(), FIRST_UID + agent));
        let args = [&["proxy"], args].concat();
        worker(&self.world.stage, Side::Host, who, &args)
    }

    /// A worker in the workload of an agent, which does what it is told and nothing of the proxy's.
    pub(crate) fn work_plainly(&self, agent: u32, args: &[&str]) -> Child {
        let place = self.world.stage.cgroups.make(&place(agent));
        let who = Some((place.as_path(), FIRST_UID + agent));
        worker(&self.world.stage, Side::Host, who, args)
    }

    /// The same as [`Self::work`], from a network namespace that has a loopback and nothing else.
    pub(crate) fn work_apart(&self, round: u32, args: &[&str]) -> Child {
        let me = std::env::current_exe().expect("a path");
        let script = "ip link set lo up; exec \"$0\" sandboxed -- \"$@\"";
        let mut command = self.apart(round % AGENTS, "sh", &["-c", script]);
        command.arg(enforcer()).arg(me).args(["worker", "proxy"]);
        command.args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().expect("starts")
    }

    /// A program of an agent's in a network namespace of its own, whose root it is.
    pub(crate) fn apart(&self, agent: u32, program: &str, args: &[&str]) -> Command {
        let place = self.world.stage.cgroups.make(&place(agent));
        let uid = Some(FIRST_UID + agent);
        let mut command = self
            .world
            .stage
            .command_in(Side::Host, Some(&place), uid, "unshare");
        command.args(["--user", "--map-root-user", "--net", program]);
        command.args(args);
        command
    }

    /// Where the name resolves to.
    pub(crate) const fn protected(&self) -> &'static str {
        PROTECTED
    }

    /// A worker that is nobody's.
    pub(super) fn work_as_root(&self, args: &[&str]) -> Child {
        let args = [&["proxy"], args].concat();
        worker(&self.world.stage, Side::Host, None, &args)
    }

    /// The processes whose memory is what a way takes.
    pub(super) fn processes(&self, way: Way) -> Vec<u32> {
        match way {
            Way::Direct => Vec::new(),
            Way::Enforcer => vec![self.world.daemon_pid()],
            Way::Nginx | Way::Haproxy | Way::Mitmproxy => tree(self.peer(way).pid()),
        }
    }

    fn peer(&self, way: Way) -> &Peer {
        let found = self.peers.iter().find(|(name, _)| *name == way);
        &found.expect("a peer").1
    }

    /// Opens a window for an agent, as a rule of the policy lets it.
    fn open(&self, agent: u32, ttl: &str) {
        let place = self.world.stage.cgroups.make(&place(agent));
        let uid = Some(FIRST_UID + agent);
        let mut command = self
            .world
            .stage
            .command_in(Side::Host, Some(&place), uid, enforcer());
        command.env("ENFORCER_SOCKET", self.socket()).args([
            "request",
            "--scope",
            "demo-project.finance:read",
            "--ttl",
            ttl,
            "--reason",
            "bench",
        ]);
        let output = command.output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
    }

    /// The daemon's control socket.
    pub(super) fn socket(&self) -> PathBuf {
        self.world.stage.dir().join("run/control.sock")
    }
}

/// The folder of the agents' workloads.
pub(super) const PLACES: &str = "agents";

/// The workload of an agent, in that folder.
pub(super) fn workload(agent: u32) -> String {
    format!("bot-{agent}")
}

fn place(agent: u32) -> String {
    format!("{PLACES}/{}", workload(agent))
}

/// Starts the far side's BigQuery.
fn serve(stage: &Stage, dir: &Path) -> Child {
    for address in [PROTECTED, OPEN] {
        let mut ip = stage.command(Side::Internet, "ip");
        ip.args(["addr", "add", &format!("{address}/32"), "dev", "lo"]);
        assert!(ip.status().expect("ip runs").success());
    }
    let addresses = [PROTECTED, OPEN].map(|address| format!("{address}:443"));
    let dir = dir.display().to_string();
    let args = ["proxy", "bigquery", &dir, &addresses[0], &addresses[1]];
    let mut server = worker(stage, Side::Internet, None, &args);
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("says that it serves");
    server
}

/// A configuration with many agents, and a policy that opens their windows without a person.
fn configure(world: &mut World, dir: &Path, agents: u32) {
    let names: Vec<String> = (0..agents).map(|at| format!("\"bot-{at}\"")).collect();
    world.set_policy(&format!(
        "[[rule]]\nagents = [{}]\ndatasets = [\"demo-project.finance\"]\nauto_approve = true\nrequests_per_hour = 1000\nduty_cycle_percent = 50\nwindows_at_once = 16383\nqueries_max = 10000\nbytes_max = \"10TB\"\n",
        names.join(", ")
    ));
    let agents: String = (0..agents)
        .map(|at| {
            // One process goes from workload to workload of those that are many, so they are told apart by these alone.
            let uid = match at < ALL_AGENTS {
                true => format!("uid = {}\n", FIRST_UID + at),
                false => String::new(),
            };
            format!(
                "[[agent]]\nname = \"bot-{at}\"\ncgroup = \"{}\"\n{uid}",
                place(at)
            )
        })
        .collect();
    let last = "[[agent]]\nname = \"ops-bot\"";
    world.edit_config(last, &format!("{agents}{last}"));
    let roots = dir.join("upstream-roots.pem");
    let google = world.stage.dir().join("google/world-ca.pem");
    join(&[&google, &dir.join(tls::ROOT)], &roots);
    world.edit_config(&google.display().to_string(), &roots.display().to_string());
    let resolved: Value = json!({tls::NAME: {"addresses": [PROTECTED], "ttl_s": 3600}});
    world.set_names(&resolved);
}

fn join(files: &[&Path], into: &Path) {
    let texts = files.iter().map(|file| std::fs::read(file).expect("reads"));
    std::fs::write(into, texts.collect::<Vec<_>>().concat()).expect("writes");
}
