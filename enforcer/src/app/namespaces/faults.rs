//! What of agents' namespaces is not served, and why: when it is tried again, what of it is said once, and in which words. Pure: no clock, and nothing is
//! looked at or recorded.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_proto::principal::AgentName;

use super::deaths::Deaths;
use crate::namespaces::{Bound, Door, Netns, PER_AGENT_MAX, Place, Seen};

/// How long a namespace cannot be served before that is said, nanoseconds: its own are setting it up.
const LASTING_NS: u64 = 500_000_000;
/// How long it is remembered what could not be served and was not seen since: a thread that is alone in a namespace is seen only when the kernel refuses
/// it. What is remembered is said and recorded once.
pub(super) const REMEMBERED_NS: u64 = 10_000_000_000;
/// How long after one record of what cannot be served another says of it that it is so for another reason by now, nanoseconds.
const RECORDED_AGAIN_NS: u64 = 5_000_000_000;
/// What cannot be served is tried again when as much time has gone by as it has been so, but after this much at the latest, nanoseconds.
const PATIENCE_NS: u64 = 250_000_000;
/// So many of the reasons why an agent's cannot be served are told, each with one of those.
const REASONS_MAX: usize = 3;

/// What is wrong, agent by agent: the kernel gives a namespace's number to another's as soon as the first has gone.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// What cannot be served.
    failed: BTreeMap<AgentName, BTreeMap<Netns, Fails>>,
    /// Who has come to which bound, and when last, on the boot clock.
    crowded: BTreeMap<(AgentName, Bound), u64>,
    /// Who has processes of which the kernel does not let the daemon see where they are.
    hidden: BTreeSet<AgentName>,
    /// Where somebody has ended what was served.
    deaths: Deaths,
}

/// Since when something cannot be served, and why; recorded once.
#[derive(Debug)]
struct Fails {
    why: String,
    /// By whom it was tried last.
    door: Door,
    /// Whether nobody of the agent's was there any more when all was looked at. It is remembered all the same, as long as any, and told of no more: who makes
    /// one after another has no more said and tried by that.
    has_gone: bool,
    since_boot_ns: u64,
    tried_boot_ns: u64,
    /// Whether that reason is on record.
    is_said: bool,
    /// When it was put on record last, for whatever reason.
    recorded_boot_ns: Option<u64>,
}

/// What becomes of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Becomes {
    /// It is remembered, and nothing is said of it (any more).
    Remembered,
    /// The same, and it is to be put on record.
    Said,
    /// Nothing: of that agent as many are remembered, and said, as could be served.
    Lost,
}

impl Faults {
    /// Whether it is not yet time to try again.
    pub(super) fn rests(&self, place: &Place, boot_ns: u64) -> bool {
        if self.deaths.rests(place, boot_ns) {
            return true;
        }
        let of_agent = self.failed.get(&place.agent);
        let known = of_agent.and_then(|failed| failed.get(&place.netns));
        known.is_some_and(|fails| {
            let patience = fails.tried_boot_ns.saturating_sub(fails.since_boot_ns);
            boot_ns.saturating_sub(fails.tried_boot_ns) < patience.min(PATIENCE_NS)
        })
    }

    /// It cannot be served.
    pub(super) fn fail(&mut self, place: &Place, why: String, boot_ns: u64) -> Becomes {
        let of_agent = self.failed.entry(place.agent.clone()).or_default();
        if of_agent.len() >= PER_AGENT_MAX && !of_agent.contains_key(&place.netns) {
            return Becomes::Lost;
        }
        let known = of_agent.entry(place.netns).or_insert_with(|| Fails {
            why: why.clone(),
            door: place.door,
            has_gone: false,
            since_boot_ns: boot_ns,
            tried_boot_ns: boot_ns,
            is_said: false,
            recorded_boot_ns: None,
        });
        known.tried_boot_ns = boot_ns;
        (known.door, known.has_gone) = (place.door, false);
        if known.why != why {
            known.why = why;
            known.is_said = false;
        }
        let lasts = boot_ns.saturating_sub(known.since_boot_ns) >= LASTING_NS;
        // Whoever has it fail for one reason and another in turn has few records of it.
        let is_due = known
            .recorded_boot_ns
            .is_none_or(|then| boot_ns.saturating_sub(then) >= RECORDED_AGAIN_NS);
        if lasts && is_due && !std::mem::replace(&mut known.is_said, true) {
            known.recorded_boot_ns = Some(boot_ns);
            Becomes::Said
        } else {
            Becomes::Remembered
        }
    }

    /// It was served for that agent, and somebody there has ended that.
    pub(super) fn die(&mut self, place: &Place, boot_ns: u64) {
        self.deaths.die(place, boot_ns);
    }

    /// What is told of, each by whom it was tried or served last: for a look at whether anybody is there still.
    pub(super) fn told(&self) -> Vec<Place> {
        let failed = self.failed.iter().flat_map(|(agent, failed)| {
            let told = failed.iter().filter(|(_, fails)| fails.is_told());
            told.map(|(netns, fails)| Place {
                netns: *netns,
                agent: agent.clone(),
                door: fails.door,
            })
        });
        failed.chain(self.deaths.told()).collect()
    }

    /// It is served, for whomever.
    pub(super) fn serves(&mut self, netns: Netns) {
        for of_agent in self.failed.values_mut() {
            of_agent.remove(&netns);
        }
    }

    /// The agent is not there any more: it is refused nothing.
    pub(super) fn has_gone(&mut self, place: &Place) {
        if let Some(of_agent) = self.failed.get_mut(&place.agent) {
            of_agent.remove(&place.netns);
        }
    }

    /// There is no room for an agent's. Whether that is new.
    pub(super) fn crowd(&mut self, agent: &AgentName, bound: Bound, boot_ns: u64) -> bool {
        let before = self.crowded.insert((agent.clone(), bound), boot_ns);
        before.is_none()
    }

    /// All was looked at, and nobody was in those that have gone. What was not seen of the same agent, and is not fresh, is forgotten.
    pub(super) fn look(&mut self, seen: &Seen, gone: &[Place], boot_ns: u64) {
        let is_fresh = |then: u64| boot_ns.saturating_sub(then) < REMEMBERED_NS;
        for (agent, failed) in &mut self.failed {
            failed.retain(|netns, fails| {
                let is_seen = seen.has_of(*netns, agent);
                fails.has_gone &= !is_seen;
                is_seen || is_fresh(fails.tried_boot_ns)
            });
        }
        for place in gone {
            let of_agent = self.failed.get_mut(&place.agent);
            let known = of_agent.and_then(|failed| failed.get_mut(&place.netns));
            // Another may have been there since.
            if let Some(fails) = known.filter(|fails| fails.door == place.door) {
                fails.has_gone = true;
            }
        }
        self.deaths.look(seen, gone);
        self.failed.retain(|_, failed| !failed.is_empty());
        self.crowded.retain(|_, then| is_fresh(*then));
        self.deaths.forget(boot_ns);
        self.hidden.clone_from(seen.hidden());
    }

    /// What is wrong: at most a sentence of each kind for an agent, so that none takes the room in which others' is read.
    pub(super) fn sentences(&self) -> Vec<String> {
        let failed = self.failed.iter().filter_map(failed_sentence);
        let crowded = self.crowded.keys().map(|(agent, bound)| {
            format!("some network namespaces of agent {agent} are not served: {bound}")
        });
        let hidden = self.hidden.iter().map(|agent| {
            format!("the kernel does not let the daemon see in which network namespaces processes of agent {agent} are, so what they ask from another than this host's is refused: run the daemon as root of this host, with CAP_SYS_PTRACE")
        });
        let died = self.deaths.sentences();
        failed.chain(died).chain(crowded).chain(hidden).collect()
    }
}

/// How many more there are than the one that is named, in words that begin so: counted roughly, so that not something new is said with each of them.
pub(super) fn more(count: usize, words: &str) -> String {
    count
        .saturating_sub(1)
        .checked_ilog2()
        .map_or_else(String::new, |log| {
            format!(", {words} at least {} more of its", 1_u32 << log)
        })
}

impl Fails {
    /// Whether it was said on record, and somebody is there still.
    const fn is_told(&self) -> bool {
        self.recorded_boot_ns.is_some() && !self.has_gone
    }
}

/// Names the one that has been so the longest, so that it says the same as long as that is so, and one of each other reason, the latest first.
fn failed_sentence((agent, failed): (&AgentName, &BTreeMap<Netns, Fails>)) -> Option<String> {
    let mut told: Vec<(&Netns, &Fails)> =
        failed.iter().filter(|(_, fails)| fails.is_told()).collect();
    told.sort_by_key(|(_, fails)| fails.since_boot_ns);
    let mut reasons = BTreeSet::new();
    let others = more(told.len(), "nor are");
    told.retain(|(_, fails)| reasons.insert(fails.why.as_str()));
    let (netns, fails) = told.first()?;
    let also = told.iter().skip(1).rev().take(REASONS_MAX - 1);
    let also: String = also
        .map(|(netns, fails)| format!("; network namespace {netns}: {}", fails.why))
        .collect();
    let left_out = if told.len() > REASONS_MAX {
        "; and more for other reasons"
    } else {
        ""
    };
    let why = &fails.why;
    Some(format!(
        "network namespace {netns} of agent {agent} is not served{others}, so what it asks from there is refused: {why}{also}{left_out}"
    ))
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

    fn fails(faults: &mut Faults, place: &Place, boot_ns: u64) -> Becomes {
        faults.fail(place, "its loopback is down".to_owned(), boot_ns)
    }

    #[test]
    fn a_number_that_was_anothers_namespaces_begins_anew_with_its_own_refusal_and_no_rest_of_the_others()
     {
        let mut faults = Faults::default();
        let (one, other) = (place(7, "one"), place(7, "other"));
        assert_eq!(fails(&mut faults, &one, 0), Becomes::Remembered);
        assert_eq!(fails(&mut faults, &one, LASTING_NS), Becomes::Said);
        let now = LASTING_NS + MS;
        assert!(faults.rests(&one, now));
        // The first has ended, and the kernel has given its number to another's at once.
        assert!(!faults.rests(&other, now));
        assert_eq!(fails(&mut faults, &other, now), Becomes::Remembered);
        let said = faults.sentences();
        assert!(
            said.len() == 1 && said[0].contains("agent one "),
            "{said:?}"
        );
        assert_eq!(fails(&mut faults, &other, now + LASTING_NS), Becomes::Said);
        // It is there, which is nothing of the first one's.
        let mut seen = Seen::default();
        seen.add(7, &other.agent, other.door);
        faults.look(&seen, &[], LASTING_NS + REMEMBERED_NS);
        let said = faults.sentences();
        assert!(
            said.len() == 1 && said[0].contains("agent other "),
            "{said:?}"
        );
        faults.serves(7);
        assert_eq!(faults.sentences(), Vec::<String>::new());
    }

    #[test]
    fn what_fails_is_said_once_when_it_lasts_and_tried_ever_more_seldom() {
        let mut faults = Faults::default();
        let there = place(7, "one");
        let (mut tries, mut said) = (0, 0);
        for boot_ns in (0..10_000).map(|ms| ms * MS) {
            if !faults.rests(&there, boot_ns) {
                tries += 1;
                said += usize::from(fails(&mut faults, &there, boot_ns) == Becomes::Said);
            }
        }
        assert!((30..70).contains(&tries), "{tries}");
        assert_eq!(said, 1);
        // Another reason is said as well; one that has gone has none.
        let taken = faults.fail(&there, "a port is taken".to_owned(), 10_000 * MS);
        assert_eq!(taken, Becomes::Said);
        faults.has_gone(&there);
        assert_eq!(faults.sentences(), Vec::<String>::new());
    }

    #[test]
    fn what_fails_for_another_reason_each_time_has_few_records_and_is_told_of_all_the_while() {
        let mut faults = Faults::default();
        let there = place(7, "one");
        let mut said = 0;
        for at in 0..240_u64 {
            let why = if at % 2 == 0 { "one" } else { "another" };
            let becomes = faults.fail(&there, why.to_owned(), at * 250 * MS);
            said += usize::from(becomes == Becomes::Said);
            assert_eq!(faults.sentences().len(), usize::from(at > 1), "{at}");
        }
        assert_eq!(said, 60 / 5);
    }

    #[test]
    fn one_that_has_gone_is_told_of_no_more_and_keeps_its_pace_should_its_number_come_again() {
        let mut faults = Faults::default();
        let [gone, there] = [place(7, "one"), place(8, "one")];
        let taken = || "a port is taken".to_owned();
        for boot_ns in [0, LASTING_NS] {
            fails(&mut faults, &gone, boot_ns);
            faults.fail(&there, taken(), boot_ns + 1);
        }
        assert_eq!(
            faults.sentences(),
            [
                "network namespace 7 of agent one is not served, nor are at least 1 more of its, so what it asks from there is refused: its loopback is down; network namespace 8: a port is taken"
            ]
        );
        assert_eq!(faults.told(), [gone.clone(), there.clone()]);
        let (mut seen, now) = (Seen::default(), LASTING_NS + MS);
        seen.add(8, &there.agent, there.door);
        faults.look(&seen, std::slice::from_ref(&gone), now);
        let of_there = "network namespace 8 of agent one is not served, so what it asks from there is refused: a port is taken";
        assert_eq!(faults.sentences(), [of_there]);
        assert_eq!(faults.told(), [there]);
        // Another of the agent's has its number: it rests as long, has no other record, and is told of.
        assert!(faults.rests(&gone, now));
        let again = Place {
            door: Door::first(2),
            ..gone.clone()
        };
        assert_eq!(fails(&mut faults, &again, now), Becomes::Remembered);
        assert_eq!(faults.sentences().len(), 1);
        assert!(faults.sentences()[0].contains("namespace 7 "));
        // What a look that had begun before says of the first is nothing of that one's.
        faults.look(&seen, &[gone], now);
        assert!(faults.sentences()[0].contains("namespace 7 "));
        faults.look(&seen, std::slice::from_ref(&again), now);
        assert_eq!(faults.sentences(), [of_there]);
        // Whoever is seen there is.
        seen.add(7, &again.agent, again.door);
        faults.look(&seen, &[], now);
        assert!(faults.sentences()[0].contains("namespace 7 "));
    }

    #[test]
    fn of_more_reasons_than_are_told_the_first_and_the_latest_are() {
        let mut faults = Faults::default();
        for boot_ns in [0, LASTING_NS] {
            for netns in 1..=6 {
                let why = format!("reason {}", netns.max(2));
                faults.fail(&place(netns, "one"), why, boot_ns + netns);
            }
        }
        assert_eq!(
            faults.sentences(),
            [
                "network namespace 1 of agent one is not served, nor are at least 4 more of its, so what it asks from there is refused: reason 2; network namespace 6: reason 6; network namespace 5: reason 5; and more for other reasons"
            ]
        );
    }

    #[test]
    fn what_is_served_but_for_moments_is_not_said_and_whoever_goes_on_with_more_has_little_said() {
        let there = place(7, "one");
        // How often it is said of what is looked at so often and cannot be served so many times out of eleven.
        let said = |bad: u64| {
            let mut faults = Faults::default();
            let mut said = 0;
            for at in 0..200 {
                if at % 11 < bad {
                    said += u64::from(fails(&mut faults, &there, at * 50 * MS) == Becomes::Said);
                } else {
                    faults.serves(7);
                }
            }
            said
        };
        assert_eq!([said(1), said(10), said(11)], [0, 0, 1]);
        let mut longer = Faults::default();
        let times = (0..200).filter(|at| {
            let is_said = fails(&mut longer, &there, at * 50 * MS) == Becomes::Said;
            if is_said {
                longer.serves(7);
            }
            is_said
        });
        assert!(times.count() <= 200 * 50 / 500);
    }

    #[test]
    fn of_one_agent_no_more_is_remembered_than_could_be_served_and_one_sentence_is_said() {
        let mut faults = Faults::default();
        let many = 0..2 * PER_AGENT_MAX as Netns;
        let mut lost = 0;
        for boot_ns in [0, LASTING_NS] {
            for netns in many.clone() {
                let becomes = fails(&mut faults, &place(netns, "one"), boot_ns + netns);
                lost += usize::from(becomes == Becomes::Lost);
            }
        }
        assert_eq!(lost, 2 * PER_AGENT_MAX);
        let other = place(1000, "other");
        for boot_ns in [0, LASTING_NS] {
            assert_ne!(fails(&mut faults, &other, boot_ns), Becomes::Lost);
        }
        assert!(faults.crowd(&other.agent, Bound::OfAgent, 0));
        assert!(!faults.crowd(&other.agent, Bound::OfAgent, 1));
        let said = faults.sentences();
        let [one, another, _crowded] = said.as_slice() else {
            panic!("{said:?}");
        };
        assert_eq!(
            one,
            "network namespace 0 of agent one is not served, nor are at least 32 more of its, so what it asks from there is refused: its loopback is down"
        );
        assert_eq!(
            another,
            "network namespace 1000 of agent other is not served, so what it asks from there is refused: its loopback is down"
        );
        faults.look(&Seen::default(), &[], LASTING_NS + REMEMBERED_NS + 1000);
        assert_eq!(faults.sentences(), Vec::<String>::new());
    }
}
