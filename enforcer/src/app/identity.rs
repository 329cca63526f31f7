//! From what the kernel reports to whom it concerns: cgroup ids to agents, origins to peers, events to records.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use enforcer_ebpf::opening::Said;
use enforcer_ebpf::record::hook;
use enforcer_ebpf::{Origin, Reason};
use enforcer_proto::event::{Event, Refuser};
use enforcer_proto::principal::{AgentName, Process};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::namespaces::hints::Hints;
use crate::callers::{Caller, Callers, Peer};
use crate::causes::Causes;
use crate::dns::marks::Marks;
use crate::engine::Engine;
use crate::kernel::Events;
use crate::prove::canary;
use crate::sockopt::{netns_cookie, own_netns};
use crate::tally::{FLUSH, Tally};
use crate::workloads::Workloads;

const IPPROTO_UDP: u32 = 17;
/// How long a connection's origin is waited for, each time.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
];

/// Origins as the proxy and the other services want them.
pub(super) struct Origins {
    origins: crate::kernel::Origins,
    /// The cookie of the daemon's own network namespace.
    own_netns: u64,
    agents: Arc<Workloads>,
    /// The agents by their numbers, from one.
    numbered: Vec<AgentName>,
    /// How their numbers stand in a mark.
    marks: Marks,
}

impl Origins {
    pub(super) fn new(
        origins: crate::kernel::Origins,
        agents: Arc<Workloads>,
        numbered: Vec<AgentName>,
        marks: Marks,
    ) -> std::io::Result<Self> {
        Ok(Self {
            origins,
            own_netns: own_netns()?,
            agents,
            numbered,
            marks,
        })
    }
}

impl Origins {
    fn caller(&self, origin: &Origin) -> Option<Caller> {
        Some(Caller {
            agent: self.agents.agent(origin.agent_cgroup)?,
            process: process_of(origin),
        })
    }

    /// The kernel has left the origin before it tells the daemon of a connection. One that was taken from the queue along with another may
    /// be some moments early.
    async fn of_connection(&self, stream: &TcpStream) -> Option<Origin> {
        for patience in PATIENCE {
            if let Some(origin) = self.origins.of_connection(stream.as_fd()) {
                return Some(origin).filter(|origin| is_of(origin, stream));
            }
            tokio::time::sleep(patience).await;
        }
        let origin = self.origins.of_connection(stream.as_fd());
        origin.filter(|origin| is_of(origin, stream))
    }
}

#[async_trait]
impl Callers for Origins {
    async fn origin(&self, stream: &TcpStream, from: SocketAddr) -> Result<Peer, Option<Process>> {
        let origin = self.of_connection(stream).await.ok_or(None)?;
        let nobodys = || Some(process_of(&origin));
        // The kernel leaves no cgroup where the process is in no agent's; one that is not known any more is refused.
        let agent = match origin.agent_cgroup {
            // Where the daemon listens for agents, nobody else gets a way out by it.
            0 if origin.netns != self.own_netns => return Err(nobodys()),
            0 => None,
            cgroup => Some(self.agents.agent(cgroup).ok_or_else(nobodys)?),
        };
        Ok(Peer {
            agent,
            process: process_of(&origin),
            destination: destination(origin.destination, origin.port),
            is_apart: origin.netns != self.own_netns,
            origin,
            port: from.port(),
        })
    }

    fn has_said(&self, peer: &Peer, came: &[u8]) -> Option<Said> {
        self.origins.has_said(&peer.origin, peer.port, came)
    }

    fn forget_said(&self, peer: &Peer) {
        self.origins.forget_said(&peer.origin, peer.port);
    }

    fn is_probe(&self, mark: u32, netns: u64) -> bool {
        netns == self.own_netns && self.marks.number(mark) == Some(self.marks.probe())
    }

    fn of_datagram(&self, mark: u32, peer: SocketAddr, port: u16) -> Option<Caller> {
        let number = self.marks.number(mark)?;
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        let agent = self.numbered.get(place)?.clone();
        // The process is known while the port is its agent's still.
        let origin = self.origins.of_datagram(peer, self.own_netns, port);
        let known = origin.and_then(|origin| self.caller(&origin));
        let of_agent = known.filter(|known| known.agent == agent);
        Some(of_agent.unwrap_or_else(|| Caller {
            agent,
            process: Process::unknown(0),
        }))
    }

    fn is_led(&self, peer: SocketAddr, (netns, port): (u64, u16)) -> bool {
        self.origins.of_datagram(peer, netns, port).is_some()
    }
}

/// Whether a connection came in the network namespace in which it was led here.
fn is_of(origin: &Origin, stream: &TcpStream) -> bool {
    netns_cookie(stream.as_fd()).is_ok_and(|netns| netns == origin.netns)
}

fn process_of(origin: &Origin) -> Process {
    process(origin.pid, origin.start_boot_ns, origin.uid, &origin.comm)
}

fn process(pid: u32, start_boot_ns: u64, uid: u32, comm: &[u8; 16]) -> Process {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    Process {
        pid,
        start_boot_ns,
        uid,
        comm: String::from_utf8_lossy(name).into_owned(),
    }
}

fn destination(ip: [u8; 16], port: u32) -> SocketAddr {
    let ip = IpAddr::from(Ipv6Addr::from(ip)).to_canonical();
    SocketAddr::new(ip, u16::try_from(port).unwrap_or(0))
}

/// Pid, hook, reason and destination: what is counted together of one agent.
type Kind = (u32, u32, u32, SocketAddr);

fn kind(event: &enforcer_ebpf::Event) -> Kind {
    let destination = destination(event.destination, event.port);
    (event.pid, event.hook, event.reason, destination)
}

/// Records what the kernel refused, and tells by `hints` who listens where agents are, but to the daemon's own `probes` (their cgroup's id): one record a second for each process, reason and destination.
pub(super) async fn record_events(
    mut events: Events,
    agents: Arc<Workloads>,
    (probes, hints): (Arc<AtomicU64>, Hints),
    engine: Engine,
    stop: CancellationToken,
) {
    // What the daemon's own probes were refused is what they are for, and nobody's attempt. Only root enters their cgroup.
    let is_probe = |event: &enforcer_ebpf::Event| {
        let to = destination(event.destination, event.port).ip();
        // Toward what may be somebody's they only connect sockets that send nothing.
        let is_connect = matches!(event.hook, hook::CONNECT4 | hook::CONNECT6);
        let is_socket = is_connect && event.protocol == IPPROTO_UDP;
        event.cgroup == probes.load(Ordering::Relaxed) && (canary::is_canary(to) || is_socket)
    };
    let mut tally = Tally::default();
    let mut flush = tokio::time::interval(FLUSH);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = flush.tick() => record(&mut tally, &engine).await,
            event = events.next() => match event {
                Ok(event) if is_probe(&event) => {}
                Ok(event) => {
                    if event.reason == Reason::OtherNetns as u32
                        && let Some(agent) = agents.agent(event.agent_cgroup)
                    {
                        hints.add(&agent, event.pid);
                    }
                    tally.add(agents.agent_concerned(event.agent_cgroup), kind(&event), event);
                }
                Err(error) => {
                    tracing::error!(error = %Causes(&error), "the kernel's events cannot be read any more; it goes on refusing");
                    break;
                }
            },
        }
    }
    record(&mut tally, &engine).await;
}

async fn record(tally: &mut Tally<Kind, enforcer_ebpf::Event>, engine: &Engine) {
    for event in tally.take(Refuser::Kernel, refused) {
        engine.note(event).await;
    }
}

fn refused(agent: Option<AgentName>, event: enforcer_ebpf::Event, count: u64) -> Event {
    let reason = Reason::from_number(event.reason)
        .map_or("a reason this daemon does not know", Reason::words);
    Event::KernelRefused {
        agent,
        process: process(event.pid, event.start_boot_ns, event.uid, &event.comm),
        verdict: format!("{} refused: {reason}", hook::words(event.hook)),
        destination: destination(event.destination, event.port).to_string(),
        count,
    }
}
