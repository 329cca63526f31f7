use proptest::prelude::*;

use super::*;

fn name(number: u32) -> AgentName {
    format!("agent-{number}").parse().expect("a name")
}

fn seen_of(entries: &[(Netns, u32, u32)]) -> Seen {
    let mut seen = Seen::default();
    for (netns, agent, pid) in entries {
        seen.add(*netns, &name(*agent), Door::first(*pid));
    }
    seen
}

fn place(netns: Netns, agent: u32, pid: u32) -> Place {
    Place {
        netns,
        agent: name(agent),
        door: Door::first(pid),
    }
}

/// After a look that began when all of this was served already.
fn changes_of(served: &BTreeMap<Netns, AgentName>, seen: &Seen) -> Vec<Step> {
    changes(served, served, seen)
}

#[test]
fn a_namespace_is_served_once_however_many_are_in_it_and_left_with_the_last() {
    let seen = seen_of(&[(7, 1, 10), (7, 1, 11), (7, 2, 20)]);
    let found = unserved(&BTreeMap::new(), &seen);
    assert_eq!(found, [place(7, 1, 10), place(7, 2, 20)]);
    let served: BTreeMap<_, _> = [(7, name(1))].into();
    assert_eq!(unserved(&served, &seen), []);
    assert_eq!(changes_of(&served, &seen), []);
    // The one that it was served for has gone, and another is there.
    let others = seen_of(&[(7, 2, 20)]);
    let handed_over = [Step::HandOver(place(7, 2, 20))];
    assert_eq!(changes_of(&served, &others), handed_over);
    assert_eq!(changes_of(&served, &Seen::default()), [Step::Leave(7)]);
}

#[test]
fn a_look_that_began_before_a_namespace_was_served_leaves_it_to_nobody_and_does_not_end_it() {
    let served: BTreeMap<_, _> = [(7, name(1)), (8, name(1))].into();
    let before: BTreeMap<_, _> = [(8, name(1))].into();
    for seen in [Seen::default(), seen_of(&[(7, 2, 20)])] {
        assert_eq!(changes(&served, &before, &seen), [Step::Leave(8)]);
    }
}

#[test]
fn what_could_not_be_seen_of_one_agent_has_not_gone_and_keeps_nothing_of_anothers() {
    let served: BTreeMap<_, _> = [(7, name(1)), (8, name(2))].into();
    for leaves_out in [Seen::hide, Seen::leave_out] {
        let mut seen = Seen::default();
        leaves_out(&mut seen, &name(1));
        assert_eq!(changes_of(&served, &seen), [Step::Leave(8)]);
    }
}

#[test]
fn one_agents_namespaces_take_no_room_of_anothers() {
    let many: Vec<_> = (0..100).map(|n| (n, 1, 1)).chain([(1000, 2, 2)]).collect();
    let seen = seen_of(&many);
    let mut served = BTreeMap::new();
    let mut refused = 0;
    for place in unserved(&served, &seen) {
        match Room::of(served.values()).for_one_of(&place.agent) {
            Ok(()) => drop(served.insert(place.netns, place.agent)),
            Err(bound) => {
                assert_eq!(bound, Bound::OfAgent);
                refused += 1;
            }
        }
    }
    let of = |agent: u32| served.values().filter(|of| **of == name(agent)).count();
    assert_eq!((of(1), of(2)), (PER_AGENT_MAX, 1));
    assert_eq!(refused, 100 - PER_AGENT_MAX);
}

#[test]
fn who_has_no_room_is_named_only_where_nobody_there_has() {
    let all = 0..PER_AGENT_MAX as Netns;
    let mut served: BTreeMap<_, _> = all.map(|netns| (netns, name(1))).collect();
    let seen = seen_of(&[(1000, 1, 10), (1000, 2, 20), (1001, 1, 10)]);
    let found = [place(1000, 2, 20), place(1001, 1, 10)];
    assert_eq!(unserved(&served, &seen), found);
    served.extend((100..100 + PER_AGENT_MAX as Netns).map(|netns| (netns, name(2))));
    let found = [place(1000, 1, 10), place(1001, 1, 10)];
    assert_eq!(unserved(&served, &seen), found);
}

#[test]
fn what_an_agent_has_left_takes_none_of_its_room_whoever_is_still_there() {
    let all = 0..PER_AGENT_MAX as Netns;
    let served: BTreeMap<_, _> = all.clone().map(|netns| (netns, name(1))).collect();
    let mut there: Vec<_> = all.map(|netns| (netns, 2, 20)).collect();
    let steps = changes_of(&served, &seen_of(&there));
    let is_handed_over =
        |step: &Step| matches!(step, Step::HandOver(place) if place.agent == name(2));
    assert!(steps.len() == PER_AGENT_MAX && steps.iter().all(is_handed_over));
    // Who has no room for it is refused there.
    let mut served = served;
    served.extend((100..100 + PER_AGENT_MAX as Netns).map(|netns| (netns, name(2))));
    there.extend((100..100 + PER_AGENT_MAX as Netns).map(|netns| (netns, 2, 20)));
    let steps = changes_of(&served, &seen_of(&there));
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
        for step in changes_of(&served, &seen) {
            match step {
                Step::Leave(netns) => {
                    let left = after.remove(&netns).expect("it was served");
                    prop_assert!(!seen.has_of(netns, &left));
                }
                Step::HandOver(place) => {
                    let left = after.insert(place.netns, place.agent).expect("it was served");
                    prop_assert!(!seen.has_of(place.netns, &left));
                }
            }
        }
        let mut room = Room::of(after.values());
        for place in unserved(&after, &seen) {
            prop_assert!(seen.has_of(place.netns, &place.agent));
            let is_new = !after.contains_key(&place.netns);
            if is_new && room.for_one_of(&place.agent).is_ok() {
                room.take(&place.agent);
                after.insert(place.netns, place.agent);
            }
            prop_assert!(after.len() <= NAMESPACES_MAX as usize);
        }
        for agent in after.values() {
            prop_assert!(after.values().filter(|other| *other == agent).count() <= PER_AGENT_MAX);
        }
        // Whoever is left has gone.
        prop_assert_eq!(changes_of(&after, &seen), []);
    }
}
