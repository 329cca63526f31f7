//! In which network namespaces besides its own the daemon is to listen: those that processes of agents are in, as many as there is room for.
//! Pure: what was seen, and what is served, give what is to be done. `look` sees, and `enter` binds.

pub mod enter;
mod interfaces;
pub mod look;
mod owner;
mod site;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use enforcer_ebpf::map::NAMESPACES_MAX;
use enforcer_proto::principal::AgentName;

use crate::pace::Pace;

pub use site::Site;

/// The most network namespaces that are served for one agent at a time; from one more it is refused.
pub const PER_AGENT_MAX: usize = 64;
/// A network namespace, as `/proc/PID/ns/net` numbers it. The number is its own for as long as it lives, and one that is served does.
pub type Netns = u64;

/// A thread of a process, by which the namespace that it is in can be entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    /// The process.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
}

impl Door {
    /// The first thread of a process.
    #[must_use]
    pub const fn first(pid: u32) -> Self {
        Self { pid, tid: pid }
    }

    /// The file of the namespace that it is in.
    fn path(self) -> PathBuf {
        let Self { pid, tid } = self;
        PathBuf::from(format!("/proc/{pid}/task/{tid}/ns/net"))
    }
}

/// Which agents have processes in which namespaces, and one thread of each there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    places: BTreeMap<Netns, BTreeMap<AgentName, Door>>,
    hidden: BTreeSet<AgentName>,
    partly: BTreeSet<AgentName>,
}

impl Seen {
    /// A thread of an agent's is there.
    pub fn add(&mut self, netns: Netns, agent: &AgentName, door: Door) {
        let agents = self.places.entry(netns).or_default();
        agents.entry(agent.clone()).or_insert(door);
    }

    /// The kernel does not let the daemon see where a process of an agent's is.
    pub fn hide(&mut self, agent: &AgentName) {
        self.hidden.insert(agent.clone());
    }

    /// Not all that an agent has was looked at: what was not seen of it has not gone.
    pub fn leave_out(&mut self, agent: &AgentName) {
        self.partly.insert(agent.clone());
    }

    /// The agents that have processes of which the kernel does not let the daemon see where they are.
    #[must_use]
    pub fn hidden(&self) -> &BTreeSet<AgentName> {
        &self.hidden
    }

    /// Whether any process of an agent's is.
    #[must_use]
    pub fn has(&self, netns: Netns) -> bool {
        self.places.contains_key(&netns)
    }

    /// Whether one of this agent's is.
    #[must_use]
    pub fn has_of(&self, netns: Netns, agent: &AgentName) -> bool {
        let agents = self.places.get(&netns);
        agents.is_some_and(|agents| agents.contains_key(agent))
    }

    /// That namespace by one of this agent's there.
    #[must_use]
    pub fn place(&self, netns: Netns, agent: &AgentName) -> Option<Place> {
        let door = *self.places.get(&netns)?.get(agent)?;
        let agent = agent.clone();
        Some(Place { netns, agent, door })
    }

    /// Whether one of this agent's may be.
    fn may_have_of(&self, netns: Netns, agent: &AgentName) -> bool {
        self.has_of(netns, agent) || self.hidden.contains(agent) || self.partly.contains(agent)
    }
}

/// What is to be done about one that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Serve it no more: nobody is there for whom there is room.
    Leave(Netns),
    /// Go on serving it, for this agent: the one that it was served for has left it.
    HandOver(Place),
}

/// A namespace with a process of an agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    pub netns: Netns,
    /// For whom it is served.
    pub agent: AgentName,
    /// A thread of the agent's there, by which it can be entered.
    pub door: Door,
}

/// How fast network namespaces of one agent are served: each is on record as it is, and as it is left. As fast as BigQuery is asked.
pub const PACE: Pace = Pace {
    burst: 2000,
    per_second: 50,
};

/// Which bound there is no room under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// The agent's own.
    OfAgent,
    /// All agents'.
    OfAll,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfAgent => write!(
                f,
                "the agent's processes are in more than the {PER_AGENT_MAX} network namespaces that are served for one agent: end some of its sandboxes"
            ),
            Self::OfAll => write!(
                f,
                "agents' processes are in more than the {NAMESPACES_MAX} network namespaces that are served on one host: end some of their sandboxes"
            ),
        }
    }
}

/// What becomes of those that are `served`, each for an agent, after a look at all that agents have. Of them it is those that were served `before` it
/// began: where one came to be served meanwhile, the look may have been there too early. What is left comes first: it makes room.
#[must_use]
pub fn changes(
    served: &BTreeMap<Netns, AgentName>,
    before: &BTreeMap<Netns, AgentName>,
    seen: &Seen,
) -> Vec<Step> {
    let mut room = Room::default();
    let mut left = Vec::new();
    let mut of_others = Vec::new();
    for (netns, agent) in served {
        if !before.contains_key(netns) || seen.may_have_of(*netns, agent) {
            room.take(agent);
        } else if seen.has(*netns) {
            of_others.push(*netns);
        } else {
            left.push(Step::Leave(*netns));
        }
    }
    // Whoever has left it is not kept from others by who is still there.
    let mut kept = Vec::new();
    for netns in of_others {
        match room.places(netns, seen).next() {
            Some(place) if room.for_one_of(&place.agent).is_ok() => {
                room.take(&place.agent);
                kept.push(Step::HandOver(place));
            }
            Some(_) | None => left.push(Step::Leave(netns)),
        }
    }
    left.append(&mut kept);
    left
}

/// Where somebody was seen and nothing is served: for each agent there that has room, of which any may come to be the one that it is served for; for one
/// that has none where none has.
#[must_use]
pub fn unserved(served: &BTreeMap<Netns, AgentName>, seen: &Seen) -> Vec<Place> {
    let room = Room::of(served.values());
    let netnses = seen.places.keys();
    let new = netnses.filter(|netns| !served.contains_key(*netns));
    let mut found = Vec::new();
    for netns in new {
        let mut places = room.places(*netns, seen);
        found.extend(places.next());
        found.extend(places.take_while(|place| room.for_one_of(&place.agent).is_ok()));
    }
    found
}

/// How many are served.
#[derive(Debug, Default)]
pub struct Room {
    all: usize,
    of_agent: BTreeMap<AgentName, usize>,
}

impl Room {
    /// As many as there are agents here, each for one of them.
    pub fn of<'a>(served: impl IntoIterator<Item = &'a AgentName>) -> Self {
        let mut room = Self::default();
        for agent in served {
            room.take(agent);
        }
        room
    }

    /// Whether one more can be served for an agent.
    ///
    /// # Errors
    /// The bound that keeps it from that.
    pub fn for_one_of(&self, agent: &AgentName) -> Result<(), Bound> {
        if self
            .of_agent
            .get(agent)
            .is_some_and(|of| *of >= PER_AGENT_MAX)
        {
            Err(Bound::OfAgent)
        } else if self.all >= NAMESPACES_MAX as usize {
            Err(Bound::OfAll)
        } else {
            Ok(())
        }
    }

    /// One more is.
    pub fn take(&mut self, agent: &AgentName) {
        self.all += 1;
        *self.of_agent.entry(agent.clone()).or_default() += 1;
    }

    /// That namespace for each agent that is there, first those that have room. Whoever joins it afterwards is served there too.
    fn places(&self, netns: Netns, seen: &Seen) -> impl Iterator<Item = Place> + use<> {
        let agents = seen.places.get(&netns).into_iter().flatten();
        let (roomy, full): (Vec<_>, Vec<_>) = agents
            .map(|(agent, door)| Place {
                netns,
                agent: agent.clone(),
                door: *door,
            })
            .partition(|place| self.for_one_of(&place.agent).is_ok());
        roomy.into_iter().chain(full)
    }
}

#[cfg(test)]
mod tests;
