//! Connecting while many agents have a window: the same loops with one window open and with ten thousand, for who is no agent and for an agent
//! with a window.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use aya::maps::{Array, Map, MapData};
use enforcer::clock::{Clock, SystemClock};
use enforcer::engine::HEARTBEAT;
use enforcer::kernel::Attached;
use enforcer_ebpf::map::{CLOSED_DROP, NAMES_FORWARD};
use enforcer_ebpf::{Agent, Window};
use harness::cgroup;
use harness::stage::{BIGQUERY4, OTHER4, Side};
use serde_json::{Value, json};

use crate::turns::{Places, UID, in_turns, said};

/// How many windows are open.
const MANY: u64 = 10_000;
const CONNECTS: &str = "200000";
const LED: &str = "15000";
/// Longer than all of it takes.
const OPEN_NS: u64 = 3_600_000_000_000;
/// The other agents' cgroups have ids that no cgroup has: the kernel's maps look up the number alone.
const IDS: u64 = 1 << 40;

/// Measures it, prints it and notes it. `port` is the proxy's.
pub(crate) fn bench(
    places: &Places,
    attached: &mut Attached,
    daemon: &Path,
    port: u16,
    figures: &mut serde_json::Map<String, Value>,
) {
    let agent = places.stage.cgroups.make("enforced/agents/with-a-window");
    let proxy = Proxy::start(places, daemon, port);
    println!(
        "{:<46}{:>8}{:>10}{:>10}{:>8}",
        "", "windows", "without", "with", "ratio"
    );
    for windows in [1, MANY] {
        open(attached, cgroup::id(&agent), windows);
        let elsewhere = SocketAddr::from((OTHER4, 443)).to_string();
        let bigquery = SocketAddr::from((BIGQUERY4, 443)).to_string();
        let straight = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        let [connect, refused] = ["connect", "refused"];
        for (name, figure, without, place, with) in [
            (
                "connect() elsewhere, of no agent",
                "connect_nobody",
                [connect, &elsewhere, CONNECTS],
                &places.inside,
                [connect, &elsewhere, CONNECTS],
            ),
            (
                "connect() elsewhere, of an agent",
                "connect_agent",
                [connect, &elsewhere, CONNECTS],
                &agent,
                [connect, &elsewhere, CONNECTS],
            ),
            (
                "connect() to BigQuery, refused to no agent",
                "refused_nobody",
                [connect, &bigquery, CONNECTS],
                &places.inside,
                [refused, &bigquery, CONNECTS],
            ),
            (
                "a TCP connection to BigQuery, an agent's, led",
                "led_agent",
                ["led", &straight, LED],
                &agent,
                ["led", &bigquery, LED],
            ),
        ] {
            let two = [(&places.outside, without), (place, with)];
            let [without, with] = in_turns(two, |(place, args)| said(places.work(place, &args)));
            let ratio = with as f64 / without as f64;
            println!("{name:<46}{windows:>8}{without:>10}{with:>10}{ratio:>8.2}");
            let noted = json!({"without_ns": without, "with_ns": with, "ratio": ratio});
            figures.insert(format!("{figure}_{windows}_windows"), noted);
        }
    }
    open(attached, cgroup::id(&agent), 0);
    proxy.stop(places);
}

/// So many agents, each with its window, this one's among them; the windows before are closed.
fn open(attached: &mut Attached, own: u64, count: u64) {
    let kernel = &mut attached.kernel;
    for id in kernel.windows().expect("reads").into_keys() {
        kernel.close(id).expect("closes");
    }
    let ids = [own].into_iter().chain(IDS..);
    let ids: Vec<u64> = ids.take(usize::try_from(count).expect("fits")).collect();
    let agents = ids.iter().zip(1..).map(|(id, number)| {
        let agent = Agent {
            uid: UID,
            closed: CLOSED_DROP,
            names: NAMES_FORWARD,
            mark: number,
        };
        (*id, agent)
    });
    let agents: BTreeMap<u64, Agent> = agents.collect();
    kernel.set_agents(&agents).expect("writes the agents");
    let now = SystemClock.now().boot_ns;
    for (id, grant) in ids.into_iter().zip(1..) {
        let window = Window {
            grant,
            opens_boot_ns: now,
            closes_boot_ns: now + OPEN_NS,
        };
        kernel.open(id, window).expect("opens");
    }
}

/// In the daemon's place: takes connections and ends them, and says as often as the daemon does that it is alive.
struct Proxy {
    stop: Arc<AtomicBool>,
    threads: [JoinHandle<()>; 2],
    to: SocketAddr,
}

impl Proxy {
    fn start(places: &Places, daemon: &Path, port: u16) -> Self {
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let bind = || TcpListener::bind(to).expect("binds");
        let listener = cgroup::within(daemon, || places.stage.on(Side::Host, bind));
        let pin = places.stage.bpffs().join("enforcer/maps-v1/HEARTBEAT");
        let open = || MapData::from_pin(pin).expect("opens the map");
        let map = Map::from_map_data(places.stage.on(Side::Host, open)).expect("a map");
        let mut beats: Array<_, u64> = map.try_into().expect("typed");
        let mut beat = move || beats.set(0, SystemClock.now().boot_ns, 0).expect("beats");
        beat();
        let stop = Arc::new(AtomicBool::new(false));
        let again = |mut work: Box<dyn FnMut() + Send>| {
            let is_over = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    work();
                }
            })
        };
        let threads = [
            again(Box::new(move || drop(listener.accept()))),
            again(Box::new(move || {
                beat();
                std::thread::sleep(HEARTBEAT);
            })),
        ];
        Self { stop, threads, to }
    }

    /// This process is outside of what is enforced on, so it may dial the port.
    fn stop(self, places: &Places) {
        self.stop.store(true, Ordering::SeqCst);
        let last = || TcpStream::connect(self.to).expect("connects");
        drop(places.stage.on(Side::Host, last));
        for thread in self.threads {
            thread.join().expect("ends");
        }
    }
}
