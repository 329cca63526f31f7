//! The kernel programs, with and without, and what they hold. Without is the same loop in a cgroup that nothing is attached to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Child;

use clap::ValueEnum;
use enforcer::clock::{Clock, SystemClock};
use enforcer::config::AddressClass;
use enforcer::kernel::{Attached, KernelConfig, Ports, attach};
use enforcer_ebpf::map::{CLOSED_DROP, ENDPOINTS_MAX, NAMES_FORWARD};
use enforcer_ebpf::{Agent, Window};
use harness::cgroup;
use harness::stage::{BIGQUERY4, Side, Stage};
use ipnet::IpNet;

use crate::turns::{Places, ROUNDS, UID, prefixes};
use crate::{many, memory, passing, windows, worker};

/// The proxy's port.
const PORT: u16 = 841;
/// How many refused connections are made during the upgrades, at least.
const UNDER_UPGRADE: u64 = 300_000;
/// How many connections are held at once, by so many processes.
const CROWD: u32 = 18_000;
const PROCESSES: u32 = 6;

type Figures = serde_json::Map<String, serde_json::Value>;

struct Lab {
    places: Places,
    /// None only while one owner gives way to the next.
    attached: Option<Attached>,
    daemon: PathBuf,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Every process's sockets, among few and many prefixes.
    Prefixes,
    /// Connections, among few and many windows.
    Windows,
    /// The way through the proxy of who is no agent.
    Passing,
    /// That the lock holds while daemons take over, and in a crowd.
    Lock,
}

/// Measures all of it, or one part, and prints it.
pub(crate) fn bench(json: bool, only: Option<Part>) {
    let mut lab = Lab::new();
    let mut figures = serde_json::Map::new();
    println!("nanoseconds each, median of {ROUNDS} rounds, the two taking turns");
    let all = Part::value_variants().iter().copied();
    for part in all.filter(|part| only.is_none_or(|only| only == *part)) {
        match part {
            Part::Prefixes => lab.prefixes(&mut figures),
            Part::Windows => lab.windows(&mut figures),
            Part::Passing => passing::bench(&mut figures),
            Part::Lock => lab.holds(&mut figures),
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(figures));
    }
}

impl Lab {
    /// Among few prefixes, among as many as there may be, and among more; and what the maps take then.
    fn prefixes(&mut self, figures: &mut Figures) {
        println!(
            "{:<28}{:>10}{:>10}{:>10}{:>8}",
            "", "prefixes", "without", "with", "ratio"
        );
        for prefixes in [10, 10_000, ENDPOINTS_MAX - 2] {
            self.protect(prefixes);
            self.places.rows(prefixes, figures);
        }
        // Full to the bound: a trie takes what it holds.
        let maps = self.memory();
        many::bench(figures);
        memory::tell("the maps as they are shipped, their prefixes full", &maps);
        figures.insert("memory".into(), memory::figure(&maps));
    }

    fn windows(&mut self, figures: &mut Figures) {
        self.protect(10_000);
        let attached = self.attached.as_mut().expect("attached");
        windows::bench(&self.places, attached, &self.daemon, PORT, figures);
    }

    fn holds(&mut self, figures: &mut Figures) {
        self.protect(10_000);
        let (tried, through, swaps) = self.upgrade_under_load();
        println!("{swaps} upgrades under load: {through} of {tried} connections were not refused");
        let (looked, none, wrong) = self.crowd();
        println!(
            "{looked} redirected connections at once: {wrong} taken for somebody else's, {none} without an origin (refused)"
        );
        figures.insert(
            "upgrade".into(),
            serde_json::json!({"tried": tried, "through": through, "swaps": swaps}),
        );
        figures.insert(
            "crowd".into(),
            serde_json::json!({"looked": looked, "without_origin": none, "wrong": wrong}),
        );
        assert!(through == 0 && wrong == 0, "the lock did not hold");
    }

    fn new() -> Self {
        let places = Places::new();
        let daemon = places.stage.cgroups.make("enforced/enforcer");
        let attached = Some(attach_on(&places.stage, &places.root(), &daemon));
        Self {
            places,
            attached,
            daemon,
        }
    }

    /// What every map takes.
    fn memory(&self) -> Vec<(String, u64)> {
        let stage = &self.places.stage;
        let maps = stage.bpffs().join("enforcer/maps-v1");
        stage.on(Side::Host, || memory::of_pinned(&maps))
    }

    fn attached(&mut self) -> &mut Attached {
        self.attached.as_mut().expect("attached")
    }

    /// Protects so many prefixes, BigQuery's among them.
    fn protect(&mut self, count: u32) {
        let all = prefixes(count).chain([IpNet::from(IpAddr::from(BIGQUERY4))]);
        let all: BTreeMap<IpNet, AddressClass> =
            all.map(|net| (net, AddressClass::Dedicated)).collect();
        self.attached()
            .endpoints
            .set(&all)
            .expect("writes the endpoints");
    }

    /// New daemons take over while connections are tried: how many, how many were not refused, and how many upgrades there were.
    fn upgrade_under_load(&mut self) -> (u64, u64, u32) {
        let to = SocketAddr::from((BIGQUERY4, 443)).to_string();
        let mut child = self.places.work(&self.places.inside, &["hammer", &to]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (mut tried, mut through, mut swaps) = (0, 0, 0);
        let root = self.places.root();
        while tried < UNDER_UPGRADE || swaps < 10 {
            let line = lines.next().expect("a line").expect("reads");
            let mut numbers = line
                .split(' ')
                .map(|number| number.parse::<u64>().expect("a number"));
            (tried, through) = (numbers.next().expect("two"), numbers.next().expect("two"));
            if tried / 25_000 > u64::from(swaps) {
                // The old owner goes first, as in life: what it attached stays.
                drop(self.attached.take());
                self.attached = Some(attach_on(&self.places.stage, &root, &self.daemon));
                swaps += 1;
            }
        }
        child.kill().expect("kills");
        child.wait().expect("ends");
        (tried, through, swaps)
    }

    /// Many connections at once from several processes: how many were looked at, had no origin, and were taken for another process's.
    fn crowd(&mut self) -> (u32, u32, u32) {
        let agent = Agent {
            uid: UID,
            closed: CLOSED_DROP,
            names: NAMES_FORWARD,
            mark: 1,
        };
        let id = cgroup::id(&self.places.inside);
        let kernel = &mut self.attached().kernel;
        kernel
            .set_agents(&BTreeMap::from([(id, agent)]))
            .expect("writes");
        let now = SystemClock.now().boot_ns;
        let window = Window {
            grant: 1,
            opens_boot_ns: now,
            closes_boot_ns: now + 600_000_000_000,
        };
        kernel.open(id, window).expect("opens");
        kernel.heartbeat(now).expect("beats");
        // In the daemon's place: an origin is left with its end of a connection.
        let bind = || TcpListener::bind(("127.0.0.1", PORT)).expect("binds");
        let listener = cgroup::within(&self.daemon, || self.places.stage.on(Side::Host, bind));
        worker::raise_files();
        let to = SocketAddr::from((BIGQUERY4, 443)).to_string();
        let each = (CROWD / PROCESSES).to_string();
        let children: Vec<Child> = (0..PROCESSES)
            .map(|_| {
                self.places
                    .work(&self.places.inside, &["crowd", &to, &each])
            })
            .collect();
        let pids: BTreeSet<u32> = children.iter().map(Child::id).collect();
        let (mut looked, mut none, mut wrong) = (0, 0, 0);
        let mut held = Vec::new();
        while looked < CROWD {
            let now = SystemClock.now().boot_ns;
            self.attached().kernel.heartbeat(now).expect("beats");
            let (mut stream, _) = listener.accept().expect("accepts");
            let mut said = [0; 4];
            stream.read_exact(&mut said).expect("says its process");
            let claimed = u32::from_le_bytes(said);
            assert!(pids.contains(&claimed), "a worker's");
            match self.attached().origins.of_connection(stream.as_fd()) {
                Some(origin) => wrong += u32::from(origin.pid != claimed),
                None => none += 1,
            }
            looked += 1;
            held.push(stream);
        }
        for mut child in children {
            drop(child.stdin.take());
            child.wait().expect("ends");
        }
        (looked, none, wrong)
    }
}

fn attach_on(stage: &Stage, root: &Path, daemon: &Path) -> Attached {
    let config = KernelConfig {
        cgroup_root: root.to_owned(),
        pin_dir: stage.bpffs().join("enforcer"),
        daemon_cgroup: daemon.to_owned(),
        ports: Ports {
            proxy: PORT,
            names: 852,
            metadata: Some(853),
        },
        enforce: enforcer_proto::wire::Enforce::Host,
    };
    stage.on(Side::Host, || attach(&config)).expect("attaches")
}
