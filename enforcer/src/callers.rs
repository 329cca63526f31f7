//! Who asks at the ports to which the kernel leads agents, and how much each agent may have of what is served at any of them. What the kernel did
//! not lead there has no caller, and gets not one byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use enforcer_ebpf::Origin;
use enforcer_ebpf::opening::Said;
use enforcer_proto::principal::{AgentName, Process};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::pace::{Bucket, Pace};

/// An agent's process that was led here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The agent whose workload it is in.
    pub agent: AgentName,
    /// The process.
    pub process: Process,
}

/// Whose a connection is, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The agent whose workload the process is in, if any.
    pub agent: Option<AgentName>,
    /// The process that connected.
    pub process: Process,
    /// Where it wanted to go.
    pub destination: SocketAddr,
    /// What the kernel left of it.
    pub origin: Origin,
    /// The port of its end.
    pub port: u16,
    /// Whether that is in a network namespace which others may be the root of.
    pub is_apart: bool,
}

impl Peer {
    /// The cookie of that network namespace, where it is such a one.
    #[must_use]
    pub fn apart(&self) -> Option<u64> {
        self.is_apart.then_some(self.origin.netns)
    }

    /// Whose it is, where it is an agent's.
    #[must_use]
    pub fn caller(&self) -> Option<Caller> {
        Some(Caller {
            agent: self.agent.clone()?,
            process: self.process.clone(),
        })
    }
}

/// Asks the kernel whose something is that came to a port of the daemon's.
#[async_trait]
pub trait Callers: Send + Sync {
    /// The origin of a connection, with the address that it was accepted from: one that has been reset meanwhile does not know that any more, and is
    /// still whose it was.
    ///
    /// # Errors
    /// The process that it is of, where it was led here and is no agent's that may come by this way, or no agent's any more; nothing where the kernel led
    /// none such here.
    async fn origin(&self, stream: &TcpStream, from: SocketAddr) -> Result<Peer, Option<Process>>;
    /// Whether these bytes, the first that came, are what the socket of that very connection has said: whoever may make packets in its network namespace
    /// can speak in its place. `None` where that is not known any more.
    fn has_said(&self, peer: &Peer, came: &[u8]) -> Option<Said>;
    /// That is not asked about any more.
    fn forget_said(&self, peer: &Peer);
    /// Whether the kernel has given a datagram, in the network namespace with that cookie, the mark of the daemon's own probe.
    fn is_probe(&self, mark: u32, netns: u64) -> bool;
    /// Who sent a datagram from `peer` to a port in the daemon's own network namespace, which the kernel has given this mark; `None` where it was not led here,
    /// or is no agent's. The process is not always known.
    fn of_datagram(&self, mark: u32, peer: SocketAddr, port: u16) -> Option<Caller>;
    /// Whether somebody's datagrams were led from `peer` to a port in the network namespace with that cookie. Whether this one was, and whose it is, cannot be
    /// told where others than this host's root may make packets.
    fn is_led(&self, peer: SocketAddr, to: (u64, u16)) -> bool;
}

/// An agent's connection, and whose it is.
///
/// # Errors
/// As [`Callers::origin`]; so is the process that is no agent's.
pub async fn of_agent(
    callers: &dyn Callers,
    stream: &TcpStream,
    from: SocketAddr,
) -> Result<(Peer, Caller), Option<Process>> {
    let peer = callers.origin(stream, from).await?;
    match peer.caller() {
        Some(caller) => Ok((peer, caller)),
        None => Err(Some(peer.process)),
    }
}

/// What one agent may have of a service at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of all agents together; one more waits to be accepted.
    pub connections: usize,
    /// Connections of one agent; one more is ended at once.
    pub connections_per_agent: usize,
    /// Connections of one agent from one network namespace of its own, where others may make them in its name; one more is ended at once.
    pub connections_apart: usize,
    /// Questions of one agent under way; what becomes of one more is the service's to say.
    pub questions_per_agent: usize,
    /// How fast one agent may ask; what becomes of what comes faster, likewise.
    pub pace: Pace,
}

#[derive(Debug, Clone)]
struct Share {
    connections: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    pace: Arc<Mutex<Bucket>>,
}

/// A place for an agent's connection.
#[derive(Debug)]
pub struct OfAgent {
    _among_its_own: OwnedSemaphorePermit,
    _apart: Option<Apart>,
}

/// How many connections each agent has from each network namespace of its own.
type CountsApart = Mutex<BTreeMap<(u64, AgentName), usize>>;

/// One of those.
#[derive(Debug)]
struct Apart {
    of: (u64, AgentName),
    counts: Arc<CountsApart>,
}

impl Drop for Apart {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

/// Places, given back when what holds them is dropped. No agent's share can be used up by another, but for what those can who may make packets in a network
/// namespace of its own.
#[derive(Debug)]
pub struct Places {
    bounds: Bounds,
    connections: Arc<Semaphore>,
    shares: Mutex<BTreeMap<AgentName, Share>>,
    apart: Arc<CountsApart>,
}

impl Places {
    /// All places free.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            connections: Arc::new(Semaphore::new(bounds.connections)),
            shares: Mutex::default(),
            apart: Arc::default(),
        }
    }

    /// How many connections there are now, of all together.
    #[must_use]
    pub fn connections(&self) -> usize {
        let free = self.connections.available_permits();
        self.bounds.connections.saturating_sub(free)
    }

    /// Waits for a place for anybody's connection.
    pub async fn connection(&self) -> OwnedSemaphorePermit {
        let place = Arc::clone(&self.connections).acquire_owned().await;
        place.expect("the semaphore is never closed")
    }

    /// A place for a connection of `agent`'s, which it has made in the network namespace with that cookie, where that is one of its own; `None` where there is none.
    pub fn connection_of(&self, agent: &AgentName, apart: Option<u64>) -> Option<OfAgent> {
        let apart = match apart {
            Some(netns) => Some(self.apart(netns, agent)?),
            None => None,
        };
        let among_its_own = self.share(agent).connections.try_acquire_owned().ok()?;
        Some(OfAgent {
            _among_its_own: among_its_own,
            _apart: apart,
        })
    }

    fn apart(&self, netns: u64, agent: &AgentName) -> Option<Apart> {
        let of = (netns, agent.clone());
        let mut counts = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&of).copied().unwrap_or(0);
        if count >= self.bounds.connections_apart {
            return None;
        }
        counts.insert(of.clone(), count + 1);
        drop(counts);
        Some(Apart {
            of,
            counts: Arc::clone(&self.apart),
        })
    }

    /// A place for a question of `agent`'s, if there is one and it does not ask too fast.
    pub fn question_of(&self, agent: &AgentName, now_boot_ns: u64) -> Option<OwnedSemaphorePermit> {
        if !self.take_of(agent, 1, now_boot_ns) {
            return None;
        }
        self.share(agent).questions.try_acquire_owned().ok()
    }

    /// Waits for a place for a question of `agent`'s, however fast it asks.
    pub async fn turn_of(&self, agent: &AgentName) -> OwnedSemaphorePermit {
        let turn = self.share(agent).questions.acquire_owned().await;
        turn.expect("the semaphore is never closed")
    }

    /// Takes so much of `agent`'s pace, if there is as much.
    pub fn take_of(&self, agent: &AgentName, tokens: u32, now_boot_ns: u64) -> bool {
        let share = self.share(agent);
        let mut pace = share.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.take(tokens, now_boot_ns)
    }

    fn share(&self, agent: &AgentName) -> Share {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Share {
            connections: Arc::new(Semaphore::new(self.bounds.connections_per_agent)),
            questions: Arc::new(Semaphore::new(self.bounds.questions_per_agent)),
            pace: Arc::new(Mutex::new(Bucket::new(self.bounds.pace))),
        };
        shares.entry(agent.clone()).or_insert_with(made).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        connections: 4,
        connections_per_agent: 2,
        connections_apart: 1,
        questions_per_agent: 2,
        pace: Pace {
            burst: 3,
            per_second: 1,
        },
    };

    #[test]
    fn an_agent_uses_up_its_own_places_and_nobody_elses() {
        let places = Places::new(BOUNDS);
        let [bot, ops] = ["bot", "ops"].map(|name| name.parse::<AgentName>().expect("a name"));
        let held = [(); 2].map(|()| places.connection_of(&bot, None).expect("a place"));
        assert!(places.connection_of(&bot, None).is_none());
        assert!(places.connection_of(&ops, None).is_some());
        drop(held);
        assert!(places.connection_of(&bot, None).is_some());
    }

    #[test]
    fn in_one_network_namespace_it_does_not_use_up_what_it_has_elsewhere_nor_what_others_have_there()
     {
        let places = Places::new(BOUNDS);
        let [bot, ops] = ["bot", "ops"].map(|name| name.parse::<AgentName>().expect("a name"));
        let held = places.connection_of(&bot, Some(7)).expect("a place");
        assert!(places.connection_of(&bot, Some(7)).is_none());
        let others = [
            places.connection_of(&bot, Some(8)),
            places.connection_of(&ops, Some(7)),
        ];
        assert!(others.iter().all(Option::is_some));
        drop((held, others));
        // What was not given is not counted.
        let all = [None, None].map(|apart| places.connection_of(&bot, apart));
        assert!(places.connection_of(&bot, Some(7)).is_none());
        drop(all);
        assert!(places.connection_of(&bot, Some(7)).is_some());
        assert!(places.apart.lock().expect("locks").is_empty());
    }

    #[test]
    fn questions_are_bounded_in_number_and_in_pace() {
        let places = Places::new(BOUNDS);
        let bot: AgentName = "bot".parse().expect("a name");
        let held = [places.question_of(&bot, 1), places.question_of(&bot, 1)];
        assert!(held.iter().all(Option::is_some));
        assert!(places.question_of(&bot, 1).is_none(), "two are under way");
        drop(held);
        assert!(places.question_of(&bot, 1).is_none(), "three were asked");
        assert!(places.question_of(&bot, 2_000_000_000).is_some());
    }
}
