//! Who asks at the ports to which the kernel leads agents, besides the proxy's, and how much each agent may have of what is served at any of
//! them, the proxy's included. What the kernel did not lead there has no caller, and gets not one byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
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

/// Asks the kernel whose something is that came to a port of the daemon's.
#[async_trait]
pub trait Callers: Send + Sync {
    /// Who made a connection; `None` where it was not led here, or is no agent's.
    async fn of_connection(&self, stream: &TcpStream) -> Option<Caller>;
    /// Whether the kernel has given a datagram, in the network namespace with that cookie, the mark of the daemon's own probe.
    fn is_probe(&self, mark: u32, netns: u64) -> bool;
    /// Who sent a datagram from `peer` to a port in the network namespace with that cookie, which the kernel has given this mark, likewise. The process is
    /// not always known; in another namespace than the daemon's own it is, or the datagram is nobody's.
    fn of_datagram(&self, mark: u32, peer: SocketAddr, to: (u64, u16)) -> Option<Caller>;
}

/// What one agent may have of a service at once.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of all agents together; one more waits to be accepted.
    pub connections: usize,
    /// Connections of one agent; one more is ended at once.
    pub connections_per_agent: usize,
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

/// Places, given back when what holds them is dropped. No agent's share can be used up by another.
#[derive(Debug)]
pub struct Places {
    bounds: Bounds,
    connections: Arc<Semaphore>,
    shares: Mutex<BTreeMap<AgentName, Share>>,
}

impl Places {
    /// All places free.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            connections: Arc::new(Semaphore::new(bounds.connections)),
            shares: Mutex::default(),
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

    /// A place for a connection of `agent`'s, if there is one.
    pub fn connection_of(&self, agent: &AgentName) -> Option<OwnedSemaphorePermit> {
        self.share(agent).connections.try_acquire_owned().ok()
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
        connections_per_agent: 1,
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
        let held = places.connection_of(&bot).expect("a place");
        assert!(places.connection_of(&bot).is_none());
        assert!(places.connection_of(&ops).is_some());
        drop(held);
        assert!(places.connection_of(&bot).is_some());
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
