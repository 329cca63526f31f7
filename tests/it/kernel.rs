//! The kernel programs on the running kernel: what they refuse, what they lead to the proxy, and that time closes windows by itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use aya::programs::Program;
use enforcer::clock::{Clock, SystemClock};
use enforcer::config::AddressClass;
use enforcer::engine::HEARTBEAT;
use enforcer::kernel::{Attached, KernelConfig, Ports, attach};
use enforcer::sockopt::netns_cookie;
use enforcer::workload;
use enforcer_ebpf::map::{
    CLOSED_DROP, CLOSED_DROP_DEDICATED, CLOSED_EXPLAIN, CLOSED_IN_DOUBT, NAMES_FORWARD,
};
use enforcer_ebpf::opening::Said;
use enforcer_ebpf::{Agent, Origin, Window};
use enforcer_proto::wire::Enforce;
use harness::capture::Capture;
use harness::cgroup;
use harness::patience;
use harness::programs::said;
use harness::stage::{BIGQUERY4, BIGQUERY6, INTERNET4, OTHER4, Side, Stage};

const PORT: u16 = 841;
const AGENT_UID: u32 = 2001;
/// Longer than a test looks at a window.
const LONG: Duration = Duration::from_secs(60);

/// As long as this lives the kernel is told that the daemon does, as often as the daemon tells it.
struct Heart {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    fn start(stage: &Stage) -> Self {
        let pin = stage.bpffs().join("enforcer/maps-v1/HEARTBEAT");
        let map = stage.on(Side::Host, || {
            MapData::from_pin(pin).expect("opens the map")
        });
        let map = Map::from_map_data(map).expect("a map");
        let mut beats: Array<_, u64> = map.try_into().expect("typed");
        let mut beat = move || beats.set(0, now(), 0).expect("beats");
        beat();
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !is_stopped.load(Ordering::SeqCst) {
                std::thread::sleep(HEARTBEAT);
                beat();
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Kernel {
    /// Stops before what it beats for goes.
    heart: Option<Heart>,
    stage: Stage,
    attached: Attached,
    agent: PathBuf,
    daemon: PathBuf,
    listeners: [TcpListener; 2],
}

fn now() -> u64 {
    SystemClock.now().boot_ns
}

impl Kernel {
    fn new(closed: u32) -> Self {
        let stage = Stage::new();
        let (agent, daemon) = (
            stage.cgroups.make("agents/bot"),
            stage.cgroups.make("enforcer"),
        );
        let mut attached = attach_on(&stage, &daemon);
        let agents = BTreeMap::from([(
            cgroup::id(&agent),
            Agent {
                uid: AGENT_UID,
                closed,
                names: NAMES_FORWARD,
                mark: 1,
            },
        )]);
        attached
            .kernel
            .set_agents(&agents)
            .expect("writes the agents");
        protect(&mut attached, AddressClass::Dedicated);
        // In the daemon's place: an origin is left with its end of a connection.
        let bind = || {
            [
                TcpListener::bind(("127.0.0.1", PORT)).expect("binds"),
                TcpListener::bind(("::1", PORT)).expect("binds"),
            ]
        };
        let listeners = cgroup::within(&daemon, || stage.on(Side::Host, bind));
        // The far side answers whoever gets there: then a refusal is ours and not the network's.
        Self {
            heart: Some(Heart::start(&stage)),
            stage,
            attached,
            agent,
            daemon,
            listeners,
        }
    }

    fn open(&mut self, time: Duration) -> u64 {
        let opens_boot_ns = now();
        let closes_boot_ns = opens_boot_ns + patience(time).as_nanos() as u64;
        self.attached
            .kernel
            .open(
                cgroup::id(&self.agent),
                Window {
                    grant: 7,
                    opens_boot_ns,
                    closes_boot_ns,
                },
            )
            .expect("opens");
        closes_boot_ns
    }

    /// The daemon falls silent, and has been so for longer than the kernel bears.
    fn fall_silent(&mut self) {
        drop(self.heart.take());
        self.attached
            .kernel
            .heartbeat(now() - 3_000_000_000)
            .expect("beats");
    }

    fn probe(&self, cgroup: &Path, uid: u32, how: &str, to: &str, port: u16) -> String {
        probe(&self.stage, cgroup, uid, how, to, port)
    }

    fn probe_from(
        &self,
        cgroup: &Path,
        how: &str,
        to: impl ToString,
        port: u16,
        source: &str,
    ) -> String {
        let to = to.to_string();
        probe_with(
            &self.stage,
            Side::Host,
            cgroup,
            AGENT_UID,
            &[how, &to, &port.to_string(), source],
        )
    }

    fn agent(&self, how: &str, to: impl ToString) -> String {
        self.probe(&self.agent, AGENT_UID, how, &to.to_string(), 443)
    }

    /// The agent, in a network namespace that is not the host's.
    fn agent_elsewhere(&self, how: &str, to: &str, port: &str) -> String {
        let args = [how, to, port];
        probe_with(&self.stage, Side::Internet, &self.agent, AGENT_UID, &args)
    }

    fn origin(&self, listener: usize) -> (Option<Origin>, SocketAddr) {
        let (stream, peer) = self.listeners[listener].accept().expect("accepts");
        (self.attached.origins.of_connection(stream.as_fd()), peer)
    }
}

fn protect(attached: &mut Attached, class: AddressClass) {
    let endpoints = [IpAddr::from(BIGQUERY4), IpAddr::from(BIGQUERY6)].map(|ip| (ip.into(), class));
    attached
        .endpoints
        .set(&endpoints.into())
        .expect("writes the endpoints");
}

fn config_on(stage: &Stage, daemon: &Path) -> KernelConfig {
    KernelConfig {
        cgroup_root: stage.cgroups.root().to_owned(),
        pin_dir: stage.bpffs().join("enforcer"),
        daemon_cgroup: daemon.to_owned(),
        ports: Ports {
            proxy: PORT,
            names: 852,
            metadata: Some(853),
        },
        enforce: Enforce::Host,
    }
}

fn attach_on(stage: &Stage, daemon: &Path) -> Attached {
    let config = config_on(stage, daemon);
    stage.on(Side::Host, || attach(&config)).expect("attaches")
}

fn probe(stage: &Stage, cgroup: &Path, uid: u32, how: &str, to: &str, port: u16) -> String {
    probe_with(
        stage,
        Side::Host,
        cgroup,
        uid,
        &[how, to, &port.to_string()],
    )
}

fn probe_with(stage: &Stage, side: Side, cgroup: &Path, uid: u32, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("world/agent/probe.py");
    let text = std::fs::read_to_string(script).expect("reads");
    let uid = (uid != 0).then_some(uid);
    let mut command = stage.command_in(side, Some(cgroup), uid, "/usr/bin/python3");
    said(command.args(["-c", &text]).args(args))
}

fn far_side(stage: &Stage, addresses: &[IpAddr]) -> Vec<TcpListener> {
    stage.on(Side::Internet, || {
        addresses
            .iter()
            .map(|ip| TcpListener::bind((*ip, 443)).expect("binds"))
            .collect()
    })
}

/// The most instructions that the kernel may look at to know one program safe. It gives up at a million, and versions differ by a factor.
const VERIFIED_MAX: u32 = 250_000;

#[test]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "aya's kinds of programs, of which not every kernel takes those at its security hooks"
)]
fn every_program_is_well_below_what_the_kernel_is_willing_to_verify() {
    let mut ebpf = aya::Ebpf::load(aya::include_bytes_aligned!(
        "../../enforcer-ebpf/prebuilt/enforcer.bpf.o"
    ))
    .expect("the kernel takes the maps");
    let mut looked_at = BTreeMap::new();
    for (name, program) in ebpf.programs_mut() {
        let loaded = match program {
            Program::CgroupSkb(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSockopt(program) => program.load(),
            Program::SockOps(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => continue,
        };
        loaded.unwrap_or_else(|error| panic!("{name}: {error}"));
        let info = program.info().expect("is loaded");
        let count = info.verified_instruction_count().expect("since 5.16");
        looked_at.insert(name.to_owned(), count);
    }
    println!("{looked_at:?}");
    assert!(looked_at.len() >= 16, "{looked_at:?}");
    assert!(
        looked_at.values().all(|count| *count < VERIFIED_MAX),
        "{looked_at:?}"
    );
}

#[test]
fn without_a_window_nothing_of_anybody_reaches_bigquery() {
    let kernel = Kernel::new(CLOSED_DROP);
    let _far = far_side(&kernel.stage, &[BIGQUERY4.into(), BIGQUERY6.into()]);
    let capture = Capture::start(&kernel.stage, [BIGQUERY4.into(), BIGQUERY6.into()]);
    let other = kernel.stage.cgroups.make("other/deep/er");
    for (place, uid) in [(&kernel.agent, AGENT_UID), (&other, 2002), (&other, 0)] {
        for to in [
            BIGQUERY4.to_string(),
            BIGQUERY6.to_string(),
            format!("::ffff:{BIGQUERY4}"),
            format!("64:ff9b::{BIGQUERY4}"),
        ] {
            for how in ["tcp", "udp", "udp_connected", "fast_open"] {
                assert_eq!(
                    kernel.probe(place, uid, how, &to, 443),
                    "EPERM",
                    "{how} to {to} as {uid}"
                );
            }
        }
    }
    for to in [BIGQUERY4.to_string(), BIGQUERY6.to_string()] {
        assert_eq!(
            kernel.probe(&other, 0, "ping", &to, 0),
            "EPERM",
            "the egress program is the net under the hooks"
        );
    }
    assert_eq!(capture.packets(), 0, "not one packet left the host");
    let counters = kernel.attached.kernel.counters().expect("counts");
    assert!(
        counters.denied >= 48 && counters.egress_dropped >= 2 && counters.redirected == 0,
        "{counters:?}"
    );
}

#[test]
fn the_daemons_connections_say_nothing_past_their_deadlines_nor_while_it_is_silent() {
    use enforcer::upstream::Deadlines as _;
    use std::io::Write as _;

    for to in [IpAddr::from(BIGQUERY4), IpAddr::from(BIGQUERY6)] {
        let mut kernel = Kernel::new(CLOSED_DROP);
        let _far = far_side(&kernel.stage, &[to]);
        let capture = Capture::of_data(&kernel.stage, [to]);
        let connect = || {
            kernel
                .stage
                .on(Side::Host, || TcpStream::connect((to, 443)))
        };
        let [mut bound, mut free] =
            [(); 2].map(|()| cgroup::within(&kernel.daemon, connect).expect("connects"));
        for stream in [&bound, &free] {
            stream.set_nodelay(true).expect("sets it");
        }
        let deadline = now() + patience(Duration::from_millis(700)).as_nanos() as u64;
        let deadlines = &kernel.attached.deadlines;
        deadlines.set(bound.as_fd(), deadline).expect("sets it");
        let say = |stream: &mut TcpStream| {
            let before = capture.packets();
            stream.write_all(b"x").expect("writes");
            capture.packets() - before
        };
        assert_eq!(
            (say(&mut bound), say(&mut free)),
            (1, 1),
            "in time, to {to}"
        );
        // The kernel's clock is the subject.
        std::thread::sleep(Duration::from_nanos(deadline.saturating_sub(now())));
        assert_eq!(
            (say(&mut bound), say(&mut free)),
            (0, 1),
            "too late, to {to}"
        );
        kernel.fall_silent();
        assert_eq!((say(&mut bound), say(&mut free)), (0, 0), "silent, to {to}");
        let counters = kernel.attached.kernel.counters().expect("counts");
        assert!(counters.egress_dropped >= 3, "{counters:?}");
    }
}

#[test]
fn the_capture_sees_what_does_get_out() {
    let kernel = Kernel::new(CLOSED_DROP);
    let _far = far_side(&kernel.stage, &[BIGQUERY4.into(), OTHER4.into()]);
    let capture = Capture::start(&kernel.stage, [BIGQUERY4.into()]);
    assert_eq!(
        kernel.probe(&kernel.daemon, 0, "tcp", &BIGQUERY4.to_string(), 443),
        "EPERM",
        "what else is in the daemon's own cgroup is not the daemon"
    );
    assert_eq!(capture.packets(), 0);
    // Who attached the programs is the daemon: this process, where it is in that cgroup.
    let this = std::process::id();
    let before = workload::cgroup_of(this).expect("a cgroup");
    workload::move_into(&kernel.daemon, this).expect("moves");
    let connected = kernel
        .stage
        .on(Side::Host, || TcpStream::connect((BIGQUERY4, 443)));
    let mount = workload::find_mount().expect("a mount");
    let before = mount.join(before.strip_prefix("/").expect("absolute"));
    workload::move_into(&before, this).expect("moves back");
    connected.expect("the daemon connects");
    assert!(capture.packets() > 0);
    assert_eq!(
        kernel.agent("tcp", OTHER4),
        "ok",
        "what is not BigQuery is left alone"
    );
}

#[test]
fn an_open_window_leads_to_the_proxy_and_says_whose_the_connection_is() {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    let capture = Capture::start(&kernel.stage, [BIGQUERY4.into(), BIGQUERY6.into()]);
    kernel.open(LONG);
    let destinations = [
        (
            0,
            BIGQUERY4.to_string(),
            IpAddr::from(BIGQUERY4.to_ipv6_mapped()),
        ),
        (1, BIGQUERY6.to_string(), IpAddr::from(BIGQUERY6)),
        (
            1,
            format!("::ffff:{BIGQUERY4}"),
            IpAddr::from(BIGQUERY4.to_ipv6_mapped()),
        ),
    ];
    for (listener, to, destination) in destinations {
        assert_eq!(kernel.agent("tcp", &to), "ok");
        let origin = kernel.origin(listener).0.expect("an origin");
        assert_eq!((origin.grant, origin.uid, origin.port), (7, AGENT_UID, 443));
        assert_eq!(IpAddr::from(origin.destination), destination);
        assert_eq!(origin.agent_cgroup, cgroup::id(&kernel.agent));
        assert!(origin.comm.starts_with(b"python3") && origin.pid > 1);
        let age_ns = now() - origin.start_boot_ns;
        assert!(
            age_ns < 60_000_000_000,
            "the process started {age_ns} ns ago"
        );
    }
    assert_eq!(
        capture.packets(),
        0,
        "what is led to the proxy does not leave the host either"
    );
}

#[test]
fn what_a_socket_says_first_is_known_as_it_has_said_it() {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    kernel.open(LONG);
    for (listener, to) in [(0, BIGQUERY4.to_string()), (1, BIGQUERY6.to_string())] {
        for (first, said) in [(b's', Said::This), (b't', Said::Other)] {
            assert_eq!(kernel.agent("says", &to), "ok");
            let (mut stream, peer) = kernel.listeners[listener].accept().expect("accepts");
            let origins = &kernel.attached.origins;
            let origin = origins.of_connection(stream.as_fd()).expect("an origin");
            let mut came = Vec::new();
            stream.read_to_end(&mut came).expect("reads");
            assert_eq!(came, [b's'; 600]);
            // What came is not yet all, and may be asked about again.
            let part = origins.has_said(&origin, peer.port(), &came[..599]);
            assert_eq!(part, Some(Said::More));
            came[0] = first;
            let known = origins.has_said(&origin, peer.port(), &came);
            assert_eq!(known, Some(said));
            origins.forget_said(&origin, peer.port());
            assert_eq!(origins.has_said(&origin, peer.port(), &came), None);
        }
    }
}

#[test]
fn without_a_window_an_agent_that_is_explained_to_reaches_the_proxy_with_no_grant() {
    let kernel = Kernel::new(CLOSED_EXPLAIN);
    assert_eq!(kernel.agent("tcp", BIGQUERY4), "ok");
    assert_eq!(kernel.origin(0).0.expect("an origin").grant, 0);
}

#[test]
fn another_uid_or_a_deeper_nest_in_the_workload_is_judged_by_the_agent() {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    kernel.open(LONG);
    assert_eq!(
        kernel.probe(&kernel.agent, 2002, "tcp", &BIGQUERY4.to_string(), 443),
        "EPERM"
    );
    let nested = kernel.stage.cgroups.make("agents/bot/a/b/c");
    assert_eq!(
        kernel.probe(&nested, AGENT_UID, "tcp", &BIGQUERY4.to_string(), 443),
        "ok"
    );
    assert_eq!(
        kernel.origin(0).0.expect("an origin").agent_cgroup,
        cgroup::id(&kernel.agent)
    );
}

#[test]
fn the_kernel_closes_a_window_by_itself() {
    let mut kernel = Kernel::new(CLOSED_DROP);
    let closes = kernel.open(Duration::from_millis(600));
    assert_eq!(kernel.agent("tcp", BIGQUERY4), "ok");
    // The kernel's own clock is the subject here, so this waits for it. Nobody writes a map meanwhile.
    std::thread::sleep(Duration::from_nanos(closes.saturating_sub(now())));
    assert_eq!(kernel.agent("tcp", BIGQUERY4), "EPERM");
    assert_eq!(
        kernel.attached.kernel.windows().expect("reads").len(),
        1,
        "the entry is still there: time alone closed it"
    );
}

#[test]
fn a_silent_daemon_is_not_connected_to() {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    kernel.open(LONG);
    kernel.fall_silent();
    assert_eq!(kernel.agent("tcp", BIGQUERY4), "EPERM");
    kernel.heart = Some(Heart::start(&kernel.stage));
    assert_eq!(kernel.agent("tcp", BIGQUERY4), "ok");
}

#[test]
fn the_proxys_port_cannot_be_dialled_directly_under_any_spelling() {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    kernel.open(LONG);
    for to in [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "::1",
        "::",
        "::ffff:127.0.0.1",
    ] {
        assert_eq!(
            kernel.probe(&kernel.agent, AGENT_UID, "tcp", to, PORT),
            "EPERM",
            "{to}"
        );
    }
}

#[test]
fn a_connection_the_kernel_did_not_lead_here_has_no_origin() {
    let kernel = Kernel::new(CLOSED_EXPLAIN);
    // The test's own thread is outside the cgroups the programs are attached to: it stands for any way around them.
    kernel.stage.on(Side::Host, || {
        drop(TcpStream::connect(("127.0.0.1", PORT)).expect("connects"))
    });
    assert_eq!(kernel.origin(0).0, None);
}

#[test]
fn a_loader_that_is_gone_leaves_everything_refused() {
    let Kernel {
        stage,
        attached,
        agent,
        ..
    } = Kernel::new(CLOSED_EXPLAIN);
    let capture = Capture::start(&stage, [BIGQUERY4.into()]);
    let _far = far_side(&stage, &[BIGQUERY4.into()]);
    drop(attached);
    let other = stage.cgroups.make("other");
    assert_eq!(
        probe(&stage, &other, 0, "tcp", &BIGQUERY4.to_string(), 443),
        "EPERM"
    );
    // The heartbeat grows stale: waiting for the kernel's clock is the subject.
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(
        probe(
            &stage,
            &agent,
            AGENT_UID,
            "tcp",
            &BIGQUERY4.to_string(),
            443
        ),
        "EPERM"
    );
    assert_eq!(capture.packets(), 0);
}

#[test]
fn a_restart_keeps_the_windows_and_never_lets_a_connection_through() {
    let Kernel {
        stage,
        attached,
        agent,
        daemon,
        ..
    } = Kernel::new(CLOSED_DROP);
    let mut attached = Some(attached);
    let window = Window {
        grant: 9,
        opens_boot_ns: now(),
        closes_boot_ns: now() + 60_000_000_000,
    };
    attached
        .as_mut()
        .expect("attached")
        .kernel
        .open(cgroup::id(&agent), window)
        .expect("opens");
    let _far = far_side(&stage, &[BIGQUERY4.into()]);
    let capture = Capture::start(&stage, [BIGQUERY4.into()]);
    // Whatever is not refused at once is said, also what nobody answers.
    let hammer = "import socket\nprint('begins', flush=True)\nwhile True:\n try:\n  socket.create_connection(('10.77.8.7',443),0.2);print('REACHED', flush=True)\n except PermissionError: pass\n except OSError as e: print('NOT REFUSED', e, flush=True)\n";
    let other = stage.cgroups.make("other");
    let mut child = stage
        .command_in(Side::Host, Some(&other), Some(2002), "/usr/bin/python3")
        .args(["-c", hammer])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut printed = BufReader::new(child.stdout.take().expect("piped"));
    let mut begins = String::new();
    printed.read_line(&mut begins).expect("reads");
    assert_eq!(begins, "begins\n");
    for _ in 0..5 {
        drop(attached.take());
        let again = attach_on(&stage, &daemon);
        assert_eq!(
            again
                .kernel
                .windows()
                .expect("reads")
                .get(&cgroup::id(&agent)),
            Some(&window)
        );
        let drift = stage.on(Side::Host, || again.kernel.drift());
        assert!(drift.is_empty(), "{drift:?}");
        attached = Some(again);
    }
    let ended = child.try_wait().expect("waits");
    assert!(ended.is_none(), "it went on all the time: {ended:?}");
    child.kill().expect("kills");
    child.wait().expect("ends");
    let mut rest = String::new();
    printed.read_to_string(&mut rest).expect("reads");
    assert_eq!((rest.as_str(), capture.settled()), ("", 0));
}

#[test]
fn what_smaller_maps_of_an_earlier_version_hold_is_carried_over_before_the_programs_ask() {
    let mut kernel = Kernel::new(CLOSED_DROP);
    kernel.open(LONG);
    kernel
        .attached
        .kernel
        .enforce(Enforce::Agents)
        .expect("writes");
    let held = kernel.attached.kernel.windows().expect("reads");
    let maps = kernel.stage.bpffs().join("enforcer/maps-v1");
    let names = [
        ("WINDOWS-2", "WINDOWS"),
        ("AGENTS-4", "AGENTS-3"),
        ("UIDS-2", "UIDS"),
    ];
    let Kernel {
        heart,
        stage,
        attached,
        agent,
        daemon,
        ..
    } = kernel;
    drop(attached);
    // As the version before has left them, under the names of then.
    stage.on(Side::Host, || {
        for (now, before) in names {
            std::fs::rename(maps.join(now), maps.join(before)).expect("renames a pin");
        }
    });
    let _far = far_side(&stage, &[BIGQUERY4.into()]);
    let config = KernelConfig {
        enforce: Enforce::Agents,
        ..config_on(&stage, &daemon)
    };
    let again = stage.on(Side::Host, || attach(&config)).expect("attaches");
    assert_eq!(again.kernel.windows().expect("reads"), held);
    stage.on(Side::Host, || {
        for (now, before) in names {
            assert!(maps.join(now).exists() && !maps.join(before).exists());
        }
    });
    // Had the agents been lost, this would be nobody's process, which only agents' are refused to.
    let another_uid = probe(&stage, &agent, 2002, "tcp", &BIGQUERY4.to_string(), 443);
    assert_eq!(another_uid, "EPERM");
    let other = stage.cgroups.make("other");
    let nobodys = probe(&stage, &other, 0, "tcp", &BIGQUERY4.to_string(), 443);
    assert_eq!(nobodys, "ok", "others are left alone, as before");
    drop(heart);
}

#[test]
fn two_daemons_cannot_share_pins_and_a_lost_link_is_seen() {
    let kernel = Kernel::new(CLOSED_DROP);
    let config = KernelConfig {
        cgroup_root: kernel.stage.cgroups.root().to_owned(),
        pin_dir: kernel.stage.bpffs().join("enforcer"),
        daemon_cgroup: kernel.daemon.clone(),
        ports: Ports {
            proxy: PORT,
            names: 852,
            metadata: Some(853),
        },
        enforce: Enforce::Host,
    };
    let error = kernel
        .stage
        .on(Side::Host, || attach(&config))
        .expect_err("is refused")
        .to_string();
    assert!(error.contains("another enforcer"), "{error}");
    let drift = kernel.stage.on(Side::Host, || {
        std::fs::remove_file(config.pin_dir.join("links/connect4")).expect("removes");
        kernel.attached.kernel.drift()
    });
    assert!(
        drift.len() == 1 && drift[0].contains("connect4"),
        "{drift:?}"
    );
}

/// A second agent beside the one every test has, with the same uid: only the cgroup tells them apart.
fn second_agent(kernel: &mut Kernel) -> PathBuf {
    let second = kernel.stage.cgroups.make("agents/second");
    let agent = Agent {
        uid: AGENT_UID,
        closed: CLOSED_EXPLAIN,
        names: NAMES_FORWARD,
        mark: 1,
    };
    let agents = [&kernel.agent, &second].map(|path| (cgroup::id(path), agent));
    kernel
        .attached
        .kernel
        .set_agents(&agents.into())
        .expect("writes the agents");
    second
}

#[test]
fn two_agents_on_one_port_number_are_told_apart_by_their_addresses() {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    let second = second_agent(&mut kernel);
    let pairs = [
        (0, BIGQUERY4.to_string(), "127.0.0.2,5001", "127.0.0.1,5001"),
        (0, BIGQUERY4.to_string(), "10.77.0.1,5002", "127.0.0.1,5002"),
        (1, BIGQUERY6.to_string(), "fd77::1,5003", "::1,5003"),
    ];
    for (listener, to, first_from, second_from) in pairs {
        assert_eq!(
            kernel.probe_from(&kernel.agent, "tcp", &to, 443, first_from),
            "ok"
        );
        assert_eq!(
            kernel.probe_from(&second, "tcp", &to, 443, second_from),
            "ok"
        );
        // The proxy asks at accept, which may be after both have connected.
        let first = kernel.origin(listener).0.expect("an origin");
        let other = kernel.origin(listener).0.expect("an origin");
        assert_eq!(
            first.agent_cgroup,
            cgroup::id(&kernel.agent),
            "{first_from}"
        );
        assert_eq!(other.agent_cgroup, cgroup::id(&second), "{second_from}");
    }
}

#[test]
fn a_connection_to_another_host_on_the_proxys_port_number_changes_nobodys_origin() {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    let second = second_agent(&mut kernel);
    let _far = kernel.stage.on(Side::Internet, || {
        TcpListener::bind((OTHER4, PORT)).expect("binds")
    });
    // Without an origin of its own, and with one: the first would remove, the second would replace what the other agent left.
    let intrusions = [
        ("tcp", OTHER4, "10.77.0.1,5004"),
        ("led_then_elsewhere", BIGQUERY4, "10.77.0.1,5005,10.77.9.9"),
    ];
    for (how, to, from) in intrusions {
        let port = from.split(',').nth(1).expect("a port");
        assert_eq!(
            kernel.probe_from(&second, "tcp", BIGQUERY4, 443, &format!("127.0.0.1,{port}")),
            "ok"
        );
        assert_eq!(kernel.probe_from(&kernel.agent, how, to, PORT, from), "ok");
        let origin = kernel.origin(0).0.expect("an origin");
        assert_eq!(origin.agent_cgroup, cgroup::id(&second), "{how}");
        if how == "led_then_elsewhere" {
            let _ = kernel.origin(0);
        }
    }
}

#[test]
fn a_raw_packet_with_the_address_in_its_own_header_does_not_leave() {
    let kernel = Kernel::new(CLOSED_DROP);
    let capture = Capture::start(&kernel.stage, [BIGQUERY4.into()]);
    let args = [
        "raw_header",
        &BIGQUERY4.to_string(),
        "0",
        &OTHER4.to_string(),
    ];
    let other = kernel.stage.cgroups.make("other");
    assert_eq!(
        probe_with(&kernel.stage, Side::Host, &other, 0, &args),
        "EPERM"
    );
    assert_eq!(capture.packets(), 0);
    let elsewhere = Capture::start(&kernel.stage, [OTHER4.into()]);
    let args = ["raw_header", &OTHER4.to_string(), "0", &OTHER4.to_string()];
    assert_eq!(
        probe_with(&kernel.stage, Side::Host, &other, 0, &args),
        "ok"
    );
    assert!(
        elsewhere.packets() > 0,
        "the probe does send when nobody stops it"
    );
}

#[test]
fn a_source_routed_packet_does_not_leave_and_other_options_do() {
    let kernel = Kernel::new(CLOSED_DROP);
    let capture = Capture::start(&kernel.stage, [OTHER4.into(), INTERNET4.into()]);
    let other = kernel.stage.cgroups.make("other");
    let (to, hop) = (OTHER4.to_string(), INTERNET4.to_string());
    let route = ["source_route", &to, "53", &hop];
    // The kernel takes such an option only of who holds CAP_NET_RAW: then the refusal is ours.
    let said = probe_with(&kernel.stage, Side::Host, &other, 0, &route);
    assert_eq!(said, "EPERM");
    assert_eq!(capture.packets(), 0);
    assert_eq!(
        kernel.probe(&other, AGENT_UID, "record_route", &OTHER4.to_string(), 53),
        "ok"
    );
    assert!(capture.packets() > 0);
}

#[test]
fn a_network_namespace_without_the_proxy_is_refused_even_inside_a_window() {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    kernel.open(LONG);
    for to in [BIGQUERY4.to_string(), BIGQUERY6.to_string()] {
        // Whoever tries again may find the daemon there; what is not served anywhere is refused for good.
        for (how, told) in [("tcp", "ECONNREFUSED"), ("udp", "EPERM")] {
            let said = kernel.agent_elsewhere(how, &to, "443");
            assert_eq!(said, told, "{how} to {to}");
        }
    }
}

#[test]
fn a_network_namespace_without_the_proxy_is_refused_for_good_where_whose_the_cgroup_is_is_in_doubt()
{
    for (closed, told) in [(CLOSED_EXPLAIN, "ECONNREFUSED"), (CLOSED_IN_DOUBT, "EPERM")] {
        let mut kernel = Kernel::new(closed);
        kernel.open(LONG);
        for to in [BIGQUERY4.to_string(), BIGQUERY6.to_string()] {
            for (how, port) in [("tcp", "443"), ("udp", "53"), ("tcp", "53")] {
                let said = kernel.agent_elsewhere(how, &to, port);
                assert_eq!(said, told, "{how} to {to}, port {port}");
            }
        }
    }
}

#[test]
fn a_network_namespace_that_is_served_is_led_to_the_proxy_there_but_for_multipath_tcp_which_is_on_the_hosts_alone()
 {
    let mut kernel = Kernel::new(CLOSED_EXPLAIN);
    kernel.open(LONG);
    let bind = || TcpListener::bind(("127.0.0.1", PORT)).expect("binds");
    let there = cgroup::within(&kernel.daemon, || kernel.stage.on(Side::Internet, bind));
    let cookie = netns_cookie(there.as_fd()).expect("it has one");
    kernel.attached.namespaces.add(cookie).expect("writes");
    let to = BIGQUERY4.to_string();
    for (how, told) in [("tcp", "ok"), ("multipath", "EPERM")] {
        let (args, agent) = ([how, &to, "443"], &kernel.agent);
        let said = probe_with(&kernel.stage, Side::Internet, agent, AGENT_UID, &args);
        assert_eq!(said, told, "{how}");
        assert_eq!(kernel.agent(how, BIGQUERY4), "ok", "{how}");
    }
}

#[test]
fn pins_of_another_root_or_of_one_that_is_gone_are_attached_anew() {
    let stage = Stage::new();
    let _far = far_side(&stage, &[BIGQUERY4.into()]);
    let config = |root: &str| KernelConfig {
        cgroup_root: stage.cgroups.make(root),
        pin_dir: stage.bpffs().join("enforcer"),
        daemon_cgroup: stage.cgroups.make("daemon"),
        ports: Ports {
            proxy: PORT,
            names: 852,
            metadata: Some(853),
        },
        enforce: Enforce::Host,
    };
    let refused_in = |place: &str| {
        let place = stage.cgroups.make(place);
        probe(&stage, &place, 0, "tcp", &BIGQUERY4.to_string(), 443) == "EPERM"
    };
    let attach_at = |root: &str| {
        stage
            .on(Side::Host, || attach(&config(root)))
            .expect("attaches")
    };

    let mut first = attach_at("one");
    let endpoints = [(IpAddr::from(BIGQUERY4).into(), AddressClass::Dedicated)];
    first.endpoints.set(&endpoints.into()).expect("writes");
    assert!(refused_in("one/a") && !refused_in("two/a"));
    drop(first);

    let second = attach_at("two");
    assert!(
        refused_in("two/a"),
        "enforced where the new configuration says"
    );
    for gone in ["two/a", "two"] {
        std::fs::remove_dir(stage.cgroups.make(gone)).expect("removes a cgroup");
    }
    let drift = stage.on(Side::Host, || second.kernel.drift());
    assert!(
        drift[0].contains("two that the programs are attached to was removed"),
        "{drift:?}"
    );
    drop(second);

    let third = attach_at("two");
    assert!(
        refused_in("two/a"),
        "attached to the cgroup that took its place"
    );
    assert!(stage.on(Side::Host, || third.kernel.drift()).is_empty());
}

#[test]
fn a_process_of_nobodys_is_led_to_the_proxy_from_a_shared_address_and_everything_but_tcp_443_is_refused()
 {
    let mut kernel = Kernel::new(CLOSED_DROP);
    protect(&mut kernel.attached, AddressClass::Shared);
    let _far = far_side(&kernel.stage, &[BIGQUERY4.into(), BIGQUERY6.into()]);
    let capture = Capture::start(&kernel.stage, [BIGQUERY4.into(), BIGQUERY6.into()]);
    let other = kernel.stage.cgroups.make("other");
    for (listener, to) in [(0, BIGQUERY4.to_string()), (1, BIGQUERY6.to_string())] {
        assert_eq!(kernel.probe(&other, 2002, "tcp", &to, 443), "ok");
        let origin = kernel.origin(listener).0.expect("an origin");
        assert_eq!(
            (origin.agent_cgroup, origin.grant, origin.uid),
            (0, 0, 2002)
        );
        for (how, port) in [
            ("udp", 443),
            ("udp_connected", 443),
            ("tcp", 80),
            ("tcp", 22),
            ("ping", 0),
        ] {
            assert_eq!(
                kernel.probe(&other, 0, how, &to, port),
                "EPERM",
                "{how} to {to}, port {port}"
            );
        }
        assert_eq!(
            kernel.agent("tcp", &to),
            "EPERM",
            "an agent that is dropped, with no other name allowed"
        );
    }
    kernel.fall_silent();
    assert_eq!(
        kernel.probe(&other, 2002, "tcp", &BIGQUERY4.to_string(), 443),
        "EPERM",
        "the daemon is silent"
    );
    assert_eq!(capture.packets(), 0, "not one packet left the host");
}

#[test]
fn an_agent_that_is_dropped_but_allowed_other_names_is_led_to_the_proxy_from_shared_addresses_only()
{
    let mut kernel = Kernel::new(CLOSED_DROP_DEDICATED);
    assert_eq!(kernel.agent("tcp", BIGQUERY4), "EPERM");
    protect(&mut kernel.attached, AddressClass::Shared);
    assert_eq!(kernel.agent("tcp", BIGQUERY4), "ok");
    let origin = kernel.origin(0).0.expect("an origin");
    assert_eq!(
        (origin.agent_cgroup, origin.grant),
        (cgroup::id(&kernel.agent), 0)
    );
}

#[test]
fn where_only_agents_are_enforced_on_others_pass_and_agents_do_not_whatever_the_class() {
    let mut kernel = Kernel::new(CLOSED_DROP);
    let _far = far_side(&kernel.stage, &[BIGQUERY4.into(), BIGQUERY6.into()]);
    let nested = kernel.stage.cgroups.make("agents/bot/a/b/c");
    let other = kernel.stage.cgroups.make("other");
    kernel
        .attached
        .kernel
        .enforce(Enforce::Agents)
        .expect("writes");
    for class in [AddressClass::Dedicated, AddressClass::Shared] {
        protect(&mut kernel.attached, class);
        for to in [BIGQUERY4.to_string(), BIGQUERY6.to_string()] {
            let capture = Capture::start(&kernel.stage, [BIGQUERY4.into(), BIGQUERY6.into()]);
            for place in [&kernel.agent, &nested] {
                assert_eq!(kernel.probe(place, AGENT_UID, "tcp", &to, 443), "EPERM");
                // The hooks do not see these: the net under them must tell an agent's socket from others', however deep it is nested.
                assert_eq!(kernel.probe(place, 0, "ping", &to, 0), "EPERM");
            }
            assert_eq!(capture.packets(), 0, "nothing of an agent's left the host");
            for how in ["tcp", "udp", "ping"] {
                assert_eq!(
                    kernel.probe(&other, 0, how, &to, 443),
                    "ok",
                    "{how} to {to}"
                );
            }
            assert!(capture.packets() > 0);
        }
    }
    assert_eq!(
        kernel.probe(&other, 0, "tcp", "127.0.0.1", PORT),
        "EPERM",
        "the proxy's port stays closed"
    );
}

#[test]
fn a_daemon_that_enforces_on_agents_only_enforces_on_all_until_it_knows_them() {
    let Kernel {
        stage,
        mut attached,
        daemon,
        ..
    } = Kernel::new(CLOSED_DROP);
    let other = stage.cgroups.make("other");
    let _far = far_side(&stage, &[BIGQUERY4.into()]);
    let config = KernelConfig {
        enforce: Enforce::Agents,
        ..config_on(&stage, &daemon)
    };
    let reached = || probe(&stage, &other, 0, "tcp", &BIGQUERY4.to_string(), 443);
    let attach_again = |before: Attached| {
        drop(before);
        stage.on(Side::Host, || attach(&config)).expect("attaches")
    };
    attached = attach_again(attached);
    assert_eq!(reached(), "EPERM", "the agents are not written yet");
    attached.kernel.enforce(Enforce::Agents).expect("writes");
    assert_eq!(reached(), "ok");
    let _again = attach_again(attached);
    assert_eq!(reached(), "ok", "a restart takes up what was");
}
