//! Where somebody has ended the daemon's listeners, which the root of a network namespace can: when it is served again, and in which words that is said.
//! Pure: no clock, and nothing is looked at or recorded.

use std::collections::BTreeMap;

use enforcer_proto::principal::AgentName;

use super::faults::{REMEMBERED_NS, more};
use crate::namespaces::{Door, Netns, PER_AGENT_MAX, Place, Seen};

/// How long a namespace is not served after the first death there, and at most: twice as long after each further one, nanoseconds. Each costs records, so that
/// whoever goes on has few of them. The longest is remembered until it is over.
const PAUSE_NS: [u64; 2] = [1_000_000_000, 8_000_000_000];
/// Why it is not served, and what to do about it.
pub(super) const WHY: &str = "somebody who has CAP_NET_ADMIN over it has ended the daemon's listeners there, as `ss -K` does; after a pause it is served again: take that capability from what runs there";
/// The same of this host's own.
pub(super) const HERE: &str = "somebody who has CAP_NET_ADMIN over this host's network has ended the daemon's listeners, as `ss -K` does, so that agents are refused: find out who, and start the daemon anew (systemctl restart enforcer)";

/// What has died of each agent's.
#[derive(Debug, Default)]
pub(super) struct Deaths(BTreeMap<AgentName, BTreeMap<Netns, Dies>>);

#[derive(Debug)]
struct Dies {
    /// By whom it was served last.
    door: Door,
    /// Whether nobody of the agent's was there any more when all was looked at: it pauses all the same, and is told of no more.
    has_gone: bool,
    since_boot_ns: u64,
    died_boot_ns: u64,
    pause_ns: u64,
}

impl Deaths {
    /// What was served there for an agent has died.
    pub(super) fn die(&mut self, place: &Place, boot_ns: u64) {
        let of_agent = self.0.entry(place.agent.clone()).or_default();
        let [first, most] = PAUSE_NS;
        if let Some(known) = of_agent.get_mut(&place.netns) {
            (known.door, known.has_gone) = (place.door, false);
            known.died_boot_ns = boot_ns;
            known.pause_ns = known.pause_ns.saturating_mul(2).min(most);
        } else if of_agent.len() < PER_AGENT_MAX {
            let dies = Dies {
                door: place.door,
                has_gone: false,
                since_boot_ns: boot_ns,
                died_boot_ns: boot_ns,
                pause_ns: first,
            };
            of_agent.insert(place.netns, dies);
        }
    }

    /// Whether it is not yet time to serve it again. Nor is there any more of an agent's served while as many are remembered as could be.
    pub(super) fn rests(&self, place: &Place, boot_ns: u64) -> bool {
        let Some(of_agent) = self.0.get(&place.agent) else {
            return false;
        };
        match of_agent.get(&place.netns) {
            Some(dies) => boot_ns.saturating_sub(dies.died_boot_ns) < dies.pause_ns,
            None => of_agent.len() >= PER_AGENT_MAX,
        }
    }

    /// What is told of, each by whom it was served last.
    pub(super) fn told(&self) -> impl Iterator<Item = Place> {
        self.0.iter().flat_map(|(agent, of_agent)| {
            let told = of_agent.iter().filter(|(_, dies)| !dies.has_gone);
            told.map(|(netns, dies)| Place {
                netns: *netns,
                agent: agent.clone(),
                door: dies.door,
            })
        })
    }

    /// All was looked at, and nobody was in those that have gone.
    pub(super) fn look(&mut self, seen: &Seen, gone: &[Place]) {
        for (agent, of_agent) in &mut self.0 {
            for (netns, dies) in of_agent {
                dies.has_gone &= !seen.has_of(*netns, agent);
            }
        }
        for place in gone {
            let of_agent = self.0.get_mut(&place.agent);
            let known = of_agent.and_then(|of_agent| of_agent.get_mut(&place.netns));
            if let Some(dies) = known.filter(|dies| dies.door == place.door) {
                dies.has_gone = true;
            }
        }
    }

    /// What has not died again for long enough is forgotten.
    pub(super) fn forget(&mut self, boot_ns: u64) {
        for of_agent in self.0.values_mut() {
            of_agent.retain(|_, dies| boot_ns.saturating_sub(dies.died_boot_ns) < REMEMBERED_NS);
        }
        self.0.retain(|_, of_agent| !of_agent.is_empty());
    }

    /// One for each agent, which names the one that has been so the longest.
    pub(super) fn sentences(&self) -> impl Iterator<Item = String> {
        self.0.iter().filter_map(|(agent, of_agent)| {
            let told = || of_agent.iter().filter(|(_, dies)| !dies.has_gone);
            let (netns, _) = told().min_by_key(|(_, dies)| dies.since_boot_ns)?;
            let others = more(told().count(), "and so are");
            Some(format!(
                "network namespace {netns} of agent {agent} is served with pauses{others}, in which what it asks from there is refused: {WHY}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const MS: u64 = 1_000_000;

    fn place(netns: Netns, agent: &str) -> Place {
        Place {
            netns,
            agent: agent.parse().expect("a name"),
            door: Door::first(1),
        }
    }

    /// When what dies as soon as it is served dies, milliseconds.
    fn dies_at(deaths: &mut Deaths, place: &Place, until_ms: u64) -> Vec<u64> {
        let mut died = Vec::new();
        for ms in 0..until_ms {
            deaths.forget(ms * MS);
            if !deaths.rests(place, ms * MS) {
                deaths.die(place, ms * MS);
                died.push(ms);
            }
        }
        died
    }

    #[test]
    fn what_dies_again_and_again_is_served_ever_more_seldom_and_begins_anew_after_a_while() {
        let mut deaths = Deaths::default();
        let there = place(7, "one");
        let died = dies_at(&mut deaths, &there, 40_000);
        assert_eq!(died, [0, 1000, 3000, 7000, 15_000, 23_000, 31_000, 39_000]);
        let said: Vec<String> = deaths.sentences().collect();
        assert_eq!(
            said,
            [format!(
                "network namespace 7 of agent one is served with pauses, in which what it asks from there is refused: {WHY}"
            )]
        );
        // Neither another's of that number nor others of the same agent's wait for it.
        assert!(!deaths.rests(&place(7, "other"), 39_001 * MS));
        assert!(!deaths.rests(&place(8, "one"), 39_001 * MS));
        deaths.forget(39_000 * MS + REMEMBERED_NS);
        assert_eq!(deaths.sentences().count(), 0);
        deaths.die(&there, 60_000 * MS);
        assert!(!deaths.rests(&there, 61_000 * MS));
    }

    #[test]
    fn one_that_has_gone_is_told_of_no_more_and_pauses_should_its_number_come_again() {
        let mut deaths = Deaths::default();
        let there = place(7, "one");
        deaths.die(&there, 0);
        assert_eq!(deaths.told().next().as_ref(), Some(&there));
        deaths.look(&Seen::default(), std::slice::from_ref(&there));
        assert_eq!((deaths.told().count(), deaths.sentences().count()), (0, 0));
        assert!(deaths.rests(&there, 999 * MS));
        let mut seen = Seen::default();
        seen.add(7, &there.agent, there.door);
        deaths.look(&seen, &[]);
        assert_eq!(deaths.sentences().count(), 1);
    }

    #[test]
    fn of_an_agent_whose_listeners_die_wherever_it_goes_no_more_is_served_for_a_while_and_of_others_all()
     {
        let mut deaths = Deaths::default();
        let many = 2 * PER_AGENT_MAX as Netns;
        for netns in 0..many {
            deaths.die(&place(netns, "one"), 0);
        }
        assert!(deaths.rests(&place(many, "one"), 2000 * MS));
        assert!(!deaths.rests(&place(0, "one"), 2000 * MS));
        assert!(!deaths.rests(&place(many, "other"), 0));
        let said: Vec<String> = deaths.sentences().collect();
        let [said] = said.as_slice() else {
            panic!("{said:?}");
        };
        assert!(said.contains("and so are at least 32 more"), "{said}");
        deaths.forget(REMEMBERED_NS);
        assert!(!deaths.rests(&place(many, "one"), REMEMBERED_NS));
    }
}
