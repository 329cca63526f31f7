use proptest::prelude::*;

use super::*;
use crate::namespaces::Door;

const MS: u64 = 1_000_000;

fn name(number: u64) -> AgentName {
    format!("agent-{number:02}").parse().expect("a name")
}

fn place(netns: u64, agent: u64) -> Place {
    Place {
        netns,
        agent: name(agent),
        door: Door::first(1),
    }
}

/// An agent has a turn, if it is one's, that takes so long.
fn turn(lanes: &mut Lanes, boot_ns: u64, takes_ns: u64, is_lost: bool) -> Option<AgentName> {
    let agent = lanes.next(boot_ns)?;
    let _ = lanes.take(&agent);
    let turn = Turn {
        ended_ns: boot_ns + takes_ns,
        took_ns: takes_ns,
        is_lost,
    };
    lanes.rest(&agent, turn);
    Some(agent)
}

#[test]
fn whose_lane_has_not_worked_lately_is_taken_at_once_whatever_rests() {
    let mut lanes = Lanes::default();
    lanes.call(&[name(1)]);
    assert_eq!(turn(&mut lanes, 0, 5 * MS, true), Some(name(1)));
    lanes.call(&[name(1)]);
    // The flood's lane rests, and the owner waits for it alone.
    assert_eq!(lanes.next(5 * MS), None);
    assert_eq!(lanes.wait_ns(5 * MS), Some(5 * MS * SHARE));
    lanes.call(&[name(1), name(2)]);
    assert_eq!(lanes.wait_ns(5 * MS), Some(0));
    assert_eq!(lanes.next(5 * MS), Some(name(2)));
}

#[test]
fn what_one_agent_has_done_at_a_turn_is_bounded_and_so_is_what_waits() {
    let mut lanes = Lanes::default();
    for netns in 0..1000 {
        lanes.add(place(netns, 1));
        // Found again, by another.
        let door = Door::first(2);
        let again = Place {
            door,
            ..place(netns, 1)
        };
        lanes.add(again);
    }
    let mut taken = Vec::new();
    while lanes.next(0).is_some() {
        let some = lanes.take(&name(1));
        assert!(some.len() <= ENTERED_PER_TURN);
        taken.extend(some);
    }
    assert_eq!(taken.len(), PLACES_MAX);
    assert!(taken.iter().all(|place| place.door == Door::first(2)));
    assert_eq!(lanes.wait_ns(0), None);
}

#[test]
fn a_lane_whose_failures_are_not_remembered_rests_longer_each_time_and_no_longer_when_one_is() {
    let mut lanes = Lanes::default();
    let mut boot_ns = 0;
    let mut rests = |is_lost: bool| {
        lanes.call(&[name(1)]);
        assert!(turn(&mut lanes, boot_ns, 0, is_lost).is_some());
        let rest_ns = lanes.wait_ns(boot_ns).unwrap_or_default();
        boot_ns += rest_ns;
        rest_ns / MS
    };
    let rested: Vec<u64> = [true, true, true, true, true, true, true, false, true]
        .into_iter()
        .map(&mut rests)
        .collect();
    assert_eq!(rested, [10, 20, 40, 80, 160, 250, 250, 2, 10]);
    for _ in 0..100 {
        assert!(rests(true) <= 250);
    }
}

#[test]
fn whoever_is_configured_no_more_has_no_lane() {
    let mut lanes = Lanes::default();
    lanes.call(&[name(1), name(2)]);
    lanes.retain(&[name(2)].into());
    assert_eq!(lanes.next(0), Some(name(2)));
    assert_eq!(lanes.lanes.len(), 1);
}

proptest! {
    /// However many agents ask for however much, all turns together take about their share of the time at most, none has a second turn while another
    /// that has rested waits for its first, and the owner never waits while one is ready.
    #[test]
    fn turns_are_fair_and_take_no_more_than_their_share(
        floods in 1_u64..12,
        takes in prop::collection::vec(1..=TURN_MAX_NS / MS, 1..20),
    ) {
        let all: Vec<AgentName> = (0..floods).map(name).collect();
        let newcomer = name(99);
        let mut lanes = Lanes::default();
        let (mut boot_ns, mut worked_ns) = (0, 0);
        let mut takes = takes.into_iter().cycle();
        while boot_ns < 10_000 * MS {
            lanes.call(&all);
            let wait_ns = lanes.wait_ns(boot_ns).expect("all have work");
            if wait_ns > 0 {
                prop_assert_eq!(lanes.next(boot_ns + wait_ns - 1), None);
            }
            boot_ns += wait_ns;
            let takes_ns = takes.next().unwrap_or_default() * MS;
            prop_assert!(turn(&mut lanes, boot_ns, takes_ns, false).is_some());
            boot_ns += takes_ns;
            worked_ns += takes_ns;
        }
        // At first all are taken at once.
        let at_first = floods * 10 * MS;
        prop_assert!(worked_ns <= boot_ns / SHARE + at_first, "{worked_ns} of {boot_ns}");
        // One that comes waits for one turn of each other at most.
        let with_it: Vec<AgentName> = all.iter().cloned().chain([newcomer.clone()]).collect();
        let mut before = BTreeMap::new();
        loop {
            lanes.call(&with_it);
            prop_assert_eq!(lanes.wait_ns(boot_ns), Some(0));
            let taken = turn(&mut lanes, boot_ns, 5 * MS, false).expect("one is ready");
            boot_ns += 5 * MS;
            if taken == newcomer {
                break;
            }
            *before.entry(taken).or_insert(0) += 1;
        }
        prop_assert!(before.values().all(|turns| *turns <= 1), "{before:?}");
    }
}
