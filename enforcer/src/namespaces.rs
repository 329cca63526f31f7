//! In which network namespaces besides its own the daemon is to listen: those that processes of agents are in, as many as there is room for.
//! Pure: what was seen, and what is served, give what is to be done. `look` sees, and `enter` binds.

pub mod enter;
pub mod look;
mod owner;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use enforcer_ebpf::map::NAMESPACES_MAX;
use enforcer_proto::principal::AgentName;

/// The most network namespaces that are served for one agent at a time; from one more it is refused.
pub const PER_AGENT_MAX: usize = 64;
/// The most that are entered for one agent at one look: the others wait for the next one.
pub const NEW_PER_LOOK_MAX: usize = 16;

/// A network namespace, as `/proc/PID/ns/net` numbers it. The number is its own for as long as it lives, and one that is served does.
pub type Netns = u64;

/// Which agents have processes in which namespaces, and one process of each there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    places: BTreeMap<Netns, BTreeMap<AgentName, u32>>,
    hidden: BTreeSet<AgentName>,
}

impl Seen {
    /// A process of an agent's is there.
    pub fn add(&mut self, netns: Netns, agent: &AgentName, pid: u32) {
        let agents = self.places.entry(netns).or_default();
        agents.entry(agent.clone()).or_insert(pid);
    }

    /// The kernel does not let the daemon see where a process of an agent's is.
    pub fn hide(&mut self, agent: &AgentName) {
        self.hidden.insert(agent.clone());
    }

    /// The agents that have such processes.
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
    fn has_of(&self, netns: Netns, agent: &AgentName) -> bool {
        let agents = self.places.get(&netns);
        agents.is_some_and(|agents| agents.contains_key(agent))
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All that agents have: what was not seen is not there.
    Whole,
    /// Some of it.
    Part,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Serve it no more: nobody is there for whom there is room.
    Leave(Netns),
    /// Go on serving it, for this agent: the one that it was served for has left it.
    HandOver(Place),
    /// Serve it.
    Serve(Place),
    /// Do not: there is no room.
    Refuse(Place, Bound),
}

/// A namespace with a process of an agent's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The namespace.
    pub netns: Netns,
    /// For whom it is served.
    pub agent: AgentName,
    /// A process of the agent's there, by which it can be entered.
    pub pid: u32,
}

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

/// What is to be done where these are `served`, each for an agent, and that was `seen`. What is left comes first: it makes room.
#[must_use]
pub fn plan(served: &BTreeMap<Netns, AgentName>, seen: &Seen, extent: Extent) -> Vec<Step> {
    let mut room = Room::default();
    let mut left = Vec::new();
    let mut of_others = Vec::new();
    for (netns, agent) in served {
        if extent == Extent::Part || seen.has_of(*netns, agent) {
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
        match room.place(netns, seen) {
            Some(place) if room.of(&place.agent) < PER_AGENT_MAX => {
                room.take(&place.agent);
                kept.push(Step::HandOver(place));
            }
            Some(_) | None => left.push(Step::Leave(netns)),
        }
    }
    let is_new = |netns: &&Netns| !served.contains_key(*netns);
    let mut new_of: BTreeMap<AgentName, usize> = BTreeMap::new();
    for netns in seen.places.keys().filter(is_new) {
        let Some(place) = room.place(*netns, seen) else {
            continue;
        };
        let new = new_of.entry(place.agent.clone()).or_default();
        if room.of(&place.agent) >= PER_AGENT_MAX {
            kept.push(Step::Refuse(place, Bound::OfAgent));
        } else if room.all >= NAMESPACES_MAX as usize {
            kept.push(Step::Refuse(place, Bound::OfAll));
        } else if *new < NEW_PER_LOOK_MAX {
            *new += 1;
            room.take(&place.agent);
            kept.push(Step::Serve(place));
        }
    }
    left.append(&mut kept);
    left
}

/// How many are served.
#[derive(Default)]
struct Room {
    all: usize,
    of_agent: BTreeMap<AgentName, usize>,
}

impl Room {
    fn take(&mut self, agent: &AgentName) {
        self.all += 1;
        *self.of_agent.entry(agent.clone()).or_default() += 1;
    }

    fn of(&self, agent: &AgentName) -> usize {
        self.of_agent.get(agent).copied().unwrap_or_default()
    }

    /// For whom that namespace is served: an agent that is there and has room, where there is one. Whoever joins it afterwards is served there too.
    fn place(&self, netns: Netns, seen: &Seen) -> Option<Place> {
        let agents = seen.places.get(&netns)?;
        let has_room = |(agent, _): &(&AgentName, &u32)| self.of(agent) < PER_AGENT_MAX;
        let (agent, pid) = agents
            .iter()
            .find(has_room)
            .or_else(|| agents.iter().next())?;
        Some(Place {
            netns,
            agent: agent.clone(),
            pid: *pid,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(number: u32) -> AgentName {
        format!("agent-{number}").parse().expect("a name")
    }

    fn seen_of(entries: &[(Netns, u32, u32)]) -> Seen {
        let mut seen = Seen::default();
        for (netns, agent, pid) in entries {
            seen.add(*netns, &name(*agent), *pid);
        }
        seen
    }

    #[test]
    fn a_namespace_is_served_once_however_many_are_in_it_and_left_with_the_last() {
        let seen = seen_of(&[(7, 1, 10), (7, 1, 11), (7, 2, 20)]);
        let steps = plan(&BTreeMap::new(), &seen, Extent::Whole);
        let place = Place {
            netns: 7,
            agent: name(1),
            pid: 10,
        };
        assert_eq!(steps, [Step::Serve(place)]);
        let served: BTreeMap<_, _> = [(7, name(1))].into();
        assert_eq!(plan(&served, &seen, Extent::Whole), []);
        // The one that it was served for has gone, and another is there.
        let others = seen_of(&[(7, 2, 20)]);
        let place = Place {
            netns: 7,
            agent: name(2),
            pid: 20,
        };
        assert_eq!(
            plan(&served, &others, Extent::Whole),
            [Step::HandOver(place)]
        );
        assert_eq!(plan(&served, &others, Extent::Part), []);
        assert_eq!(
            plan(&served, &Seen::default(), Extent::Whole),
            [Step::Leave(7)]
        );
        assert_eq!(plan(&served, &Seen::default(), Extent::Part), []);
    }

    #[test]
    fn one_agents_namespaces_take_no_room_of_anothers() {
        let many: Vec<_> = (0..100).map(|n| (n, 1, 1)).chain([(1000, 2, 2)]).collect();
        let seen = seen_of(&many);
        let mut served = BTreeMap::new();
        let mut refused = 0;
        for _ in 0..=PER_AGENT_MAX / NEW_PER_LOOK_MAX {
            refused = 0;
            for step in plan(&served, &seen, Extent::Whole) {
                match step {
                    Step::Serve(place) => drop(served.insert(place.netns, place.agent)),
                    Step::Refuse(_, bound) => {
                        assert_eq!(bound, Bound::OfAgent);
                        refused += 1;
                    }
                    Step::Leave(_) | Step::HandOver(_) => panic!("nobody has left"),
                }
            }
        }
        let of = |agent: u32| served.values().filter(|of| **of == name(agent)).count();
        assert_eq!((of(1), of(2)), (PER_AGENT_MAX, 1));
        assert_eq!(refused, 100 - PER_AGENT_MAX);
    }

    #[test]
    fn what_an_agent_has_left_takes_none_of_its_room_whoever_is_still_there() {
        let all = 0..PER_AGENT_MAX as Netns;
        let served: BTreeMap<_, _> = all.clone().map(|netns| (netns, name(1))).collect();
        let mut there: Vec<_> = all.map(|netns| (netns, 2, 20)).collect();
        there.push((1000, 1, 10));
        let steps = plan(&served, &seen_of(&there), Extent::Whole);
        let (last, first) = steps.split_last().expect("some");
        let is_handed_over =
            |step: &Step| matches!(step, Step::HandOver(place) if place.agent == name(2));
        assert!(first.len() == PER_AGENT_MAX && first.iter().all(is_handed_over));
        assert!(matches!(last, Step::Serve(place) if place.agent == name(1)));
        // Who has no room for it is refused there.
        let mut served = served;
        served.extend((100..100 + PER_AGENT_MAX as Netns).map(|netns| (netns, name(2))));
        there.extend((100..100 + PER_AGENT_MAX as Netns).map(|netns| (netns, 2, 20)));
        let steps = plan(&served, &seen_of(&there), Extent::Whole);
        let left = steps.iter().filter(|step| matches!(step, Step::Leave(_)));
        assert_eq!(left.count(), PER_AGENT_MAX);
    }

    proptest! {
        /// Whatever is there, no more are served than there is room for, none is left while somebody is in it, and what is done is done once.
        #[test]
        fn what_is_done_is_within_every_bound(
            served in prop::collection::btree_map(0_u64..3000, 0_u32..40, 0..64),
            seen in prop::collection::vec((0_u64..3000, 0_u32..40, 1_u32..9), 0..2000),
        ) {
            let served: BTreeMap<Netns, AgentName> = served.into_iter().map(|(netns, agent)| (netns, name(agent))).collect();
            let seen = seen_of(&seen);
            let mut after = served.clone();
            let steps = plan(&served, &seen, Extent::Whole);
            let new = steps.iter().filter(|step| matches!(step, Step::Serve(_))).count();
            prop_assert!(new <= 40 * NEW_PER_LOOK_MAX);
            for step in steps {
                match step {
                    Step::Leave(netns) => {
                        let left = after.remove(&netns).expect("it was served");
                        prop_assert!(!seen.has_of(netns, &left));
                    }
                    Step::HandOver(place) => {
                        let left = after.insert(place.netns, place.agent).expect("it was served");
                        prop_assert!(!seen.has_of(place.netns, &left));
                    }
                    Step::Serve(place) => {
                        prop_assert!(seen.has(place.netns));
                        prop_assert!(after.insert(place.netns, place.agent).is_none());
                    }
                    Step::Refuse(place, _) => prop_assert!(!after.contains_key(&place.netns)),
                }
                prop_assert!(after.len() <= NAMESPACES_MAX as usize);
            }
            for agent in after.values() {
                prop_assert!(after.values().filter(|other| *other == agent).count() <= PER_AGENT_MAX);
            }
            // Whoever is left has gone.
            let is_leave = |step: &Step| matches!(step, Step::Leave(_) | Step::HandOver(_));
            prop_assert!(!plan(&after, &seen, Extent::Whole).iter().any(is_leave));
        }
    }
}
