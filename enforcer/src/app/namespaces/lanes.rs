//! Whose turn it is to have a namespace served. Each agent has a lane of its own, in which what is to be done for it waits; the lanes take turns, a small
//! piece of work each, and after its piece an agent's own lane rests, and no other. So what an agent has done takes time of its own, and of another agent
//! one piece for each of its own. Pure: no clock, and nothing is looked at or entered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use enforcer_proto::principal::AgentName;

use crate::namespaces::{PER_AGENT_MAX, Place};

/// How many namespaces are entered for an agent at one turn. With them goes a look at one process, where one was refused.
pub(super) const ENTERED_PER_TURN: usize = 4;
/// How many namespaces of one agent's wait to be entered: as many as could be served. Others are found again by the next look, or as they try again.
const PLACES_MAX: usize = PER_AGENT_MAX;
/// All turns together take at most one part of so many of the time, however much agents ask for.
pub(super) const SHARE: u64 = 10;
/// How long a lane rests at least, nanoseconds.
const REST_MIN_NS: u64 = 2_000_000;
/// How much of the time that a turn's looking and entering took is counted, nanoseconds. They are bounded: what takes longer has waited for others'
/// work, which is no reason to have the agent wait once more.
const TURN_MAX_NS: u64 = 5_000_000;
/// How long a lane rests after a turn that came to nothing of which anything is remembered. Twice as long after each further one, up to the second.
const TIRED_NS: [u64; 2] = [10_000_000, 250_000_000];

/// All agents' lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<AgentName, Lane>,
    /// Whose turn was last.
    last: Option<AgentName>,
}

#[derive(Debug, Default)]
struct Lane {
    /// Whether a process of the agent's was refused and was not looked at yet.
    is_called: bool,
    /// What is to be entered.
    places: VecDeque<Place>,
    /// When the lane has rested, on the boot clock.
    ready_ns: u64,
    /// How many turns in a row have come to nothing that is remembered.
    tired: u32,
}

impl Lane {
    fn has_work(&self) -> bool {
        self.is_called || !self.places.is_empty()
    }
}

/// A turn that was had.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// When it ended, on the boot clock.
    pub(super) ended_ns: u64,
    /// How long its looking and entering took: not how long the disk did that holds the records.
    pub(super) took_ns: u64,
    /// Whether something failed of which nothing is remembered, so that it is tried again as soon as it is seen.
    pub(super) is_lost: bool,
}

impl Lanes {
    /// Processes of these agents' were refused, and of no others' that were not looked at yet.
    pub(super) fn call(&mut self, agents: &[AgentName]) {
        for lane in self.lanes.values_mut() {
            lane.is_called = false;
        }
        for agent in agents {
            self.lanes.entry(agent.clone()).or_default().is_called = true;
        }
    }

    /// A namespace is to be served. Where too many wait already it is left out.
    pub(super) fn add(&mut self, place: Place) {
        let lane = self.lanes.entry(place.agent.clone()).or_default();
        let mut waiting = lane.places.iter_mut();
        if let Some(known) = waiting.find(|known| known.netns == place.netns) {
            // By whom it can be entered now.
            *known = place;
        } else if lane.places.len() < PLACES_MAX {
            lane.places.push_back(place);
        }
    }

    /// How long until a lane with work has rested, nanoseconds.
    pub(super) fn wait_ns(&self, boot_ns: u64) -> Option<u64> {
        let working = self.lanes.values().filter(|lane| lane.has_work());
        let waits = working.map(|lane| lane.ready_ns.saturating_sub(boot_ns));
        waits.min()
    }

    /// Whose turn it is: the next after the last one that has work and has rested.
    pub(super) fn next(&mut self, boot_ns: u64) -> Option<AgentName> {
        let after = self.last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let later = self.lanes.range::<AgentName, _>((after, Bound::Unbounded));
        let mut in_turn = later.chain(&self.lanes);
        let is_ready = |lane: &Lane| lane.has_work() && lane.ready_ns <= boot_ns;
        let agent = in_turn.find(|(_, lane)| is_ready(lane))?.0.clone();
        self.last = Some(agent.clone());
        Some(agent)
    }

    /// What an agent's turn enters.
    pub(super) fn take(&mut self, agent: &AgentName) -> Vec<Place> {
        let Some(lane) = self.lanes.get_mut(agent) else {
            return Vec::new();
        };
        let count = lane.places.len().min(ENTERED_PER_TURN);
        lane.places.drain(..count).collect()
    }

    /// An agent has had its turn, and its lane rests.
    pub(super) fn rest(&mut self, agent: &AgentName, turn: Turn) {
        let is_busy = |lane: &&Lane| lane.has_work() || lane.ready_ns > turn.ended_ns;
        let others = self.lanes.iter().filter(|(other, _)| *other != agent);
        let busy = 1 + others.filter(|(_, lane)| is_busy(lane)).count() as u64;
        let Some(lane) = self.lanes.get_mut(agent) else {
            return;
        };
        lane.tired = if turn.is_lost {
            lane.tired.saturating_add(1)
        } else {
            0
        };
        let rest_ns = (turn.took_ns.min(TURN_MAX_NS) * SHARE * busy)
            .max(tired_ns(lane.tired))
            .max(REST_MIN_NS);
        lane.ready_ns = turn.ended_ns.saturating_add(rest_ns);
    }

    /// Agents that are configured no more have no lane.
    pub(super) fn retain(&mut self, agents: &BTreeSet<AgentName>) {
        self.lanes.retain(|agent, _| agents.contains(agent));
    }
}

fn tired_ns(tired: u32) -> u64 {
    let [first, most] = TIRED_NS;
    let Some(doubled) = tired.checked_sub(1) else {
        return 0;
    };
    let factor = 1_u64.checked_shl(doubled).unwrap_or(u64::MAX);
    first.saturating_mul(factor).min(most)
}

#[cfg(test)]
mod tests;
