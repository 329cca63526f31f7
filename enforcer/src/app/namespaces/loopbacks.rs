//! What becomes of namespaces that are served and whose loopback their own change: the kernel leads agents there to the loopback's addresses, whether they are
//! there or not, and nothing else tells.

use std::collections::BTreeMap;
use std::ops::Bound;

use enforcer_proto::principal::AgentName;

use super::faults::Becomes;
use super::{Keep, Now};
use crate::namespaces::enter::{EnterError, has_ipv6};
use crate::namespaces::{Netns, Place, Seen};

/// In so many looks at all it was looked into each that is served: about a tenth of a millisecond each, so that of a thousand a look takes some three more.
const LOOKS_PER_ROUND: usize = 32;

/// What was seen inside some of those that are served.
#[derive(Default)]
pub(super) struct Insides {
    /// Whose turn was last, where one had its turn.
    last: Option<Netns>,
    /// Whether there is IPv6, where agents can be led anywhere at all.
    found: Vec<(Place, Result<bool, EnterError>)>,
}

impl Insides {
    /// Looks into those whose turn it is, each by the thread of its agent's that was seen there.
    pub(super) fn look(served: &BTreeMap<Netns, AgentName>, seen: &Seen, after: Netns) -> Self {
        let turn = turn(served, after);
        let places = turn.iter();
        let places = places.filter_map(|(netns, agent)| seen.place(**netns, agent));
        let looked = places.map(|place| {
            let found = has_ipv6(place.door, place.netns);
            (place, found)
        });
        Self {
            found: looked.collect(),
            last: turn.last().map(|(netns, _)| **netns),
        }
    }
}

/// Whose turn it is: those that come after the last.
fn turn(served: &BTreeMap<Netns, AgentName>, after: Netns) -> Vec<(&Netns, &AgentName)> {
    let later = served.range((Bound::Excluded(after), Bound::Unbounded));
    let in_turn = later.chain(served.range(..=after));
    let count = served.len().div_ceil(LOOKS_PER_ROUND);
    in_turn.take(count).collect()
}

impl Keep {
    /// Takes note of what was seen inside. Where agents can be led nowhere, and that lasts, it is said, and left: they are refused at once then, where they
    /// would wait for an answer, and it is served again by the way of any other that is not, once it can be. What is open there is cut by that;
    /// it goes on where the loopback was down for a moment only. Who goes on with that has one such change in half a second at most, and none while its pace
    /// lets no more be served.
    pub(super) async fn looked_into(&mut self, now: &mut Now, insides: Insides) {
        now.looked_into = insides.last.unwrap_or(now.looked_into);
        for (place, found) in insides.found {
            let Some(served) = now.served.get_mut(&place.netns) else {
                continue;
            };
            match found {
                Ok(has_ipv6) => {
                    served.has_ipv6 = has_ipv6;
                    now.faults.serves(place.netns);
                }
                Err(
                    error @ (EnterError::LoopbackDown
                    | EnterError::NoAddress
                    | EnterError::Renamed
                    | EnterError::NotLed),
                ) => {
                    self.leads_nowhere(now, place, error.to_string()).await;
                }
                // It may be well: it is looked at again, and left by others where it has gone.
                Err(
                    EnterError::Gone
                    | EnterError::NotPermitted
                    | EnterError::PortTaken(_)
                    | EnterError::Other(_),
                ) => {}
            }
        }
    }

    async fn leads_nowhere(&mut self, now: &mut Now, place: Place, why: String) {
        if now.faults.fail(&place, why.clone(), self.boot_ns()) == Becomes::Said {
            drop(self.leave(now, place.netns).await);
            self.say_refused(place, why).await;
        }
    }
}

/// What `status` says of those that have no ::1.
pub(super) fn without_ipv6(now: &Now) -> Option<String> {
    let without = now.served.iter().filter(|(_, served)| !served.has_ipv6);
    sentence(without.map(|(netns, served)| (*netns, &served.agent)))
}

/// Names the first, so that it says the same as long as that is there.
fn sentence<'a>(mut without: impl Iterator<Item = (Netns, &'a AgentName)>) -> Option<String> {
    let (netns, agent) = without.next()?;
    let others = match without.count() {
        0 => String::new(),
        others => format!(", nor have {others} others that are served"),
    };
    Some(format!(
        "network namespace {netns} of agent {agent} has no IPv6 (no ::1){others}: what is asked there over IPv6 sockets, an IPv4 address in one included, is refused. Clients there must use IPv4 sockets (Java: -Djava.net.preferIPv4Stack=true), or have IPv6 switched on for its loopback (sysctl net.ipv6.conf.lo.disable_ipv6=0)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespaces::Door;

    fn name(name: &str) -> AgentName {
        name.parse().expect("a name")
    }

    #[test]
    fn into_each_that_is_served_is_looked_once_in_a_round_however_many_there_are_and_come_and_go() {
        for count in [1, 2, 31, 32, 33, 64, 1000, 1024] {
            let served: BTreeMap<Netns, _> = (1..=count).map(|n| (n, name("one"))).collect();
            let mut after = 7;
            let mut times = BTreeMap::<Netns, usize>::new();
            let looks = served.len().min(LOOKS_PER_ROUND);
            for _ in 0..looks {
                let turn = turn(&served, after);
                assert!(turn.len() <= 1 + served.len() / LOOKS_PER_ROUND);
                for (netns, _) in turn {
                    *times.entry(*netns).or_default() += 1;
                    after = *netns;
                }
            }
            assert_eq!(times.len(), served.len(), "{count}");
            assert!(times.values().all(|times| *times <= 2), "{count}");
        }
        assert_eq!(turn(&BTreeMap::new(), 7), []);
        // The one whose turn was last has gone.
        let served: BTreeMap<_, _> = [(3, name("one")), (9, name("other"))].into();
        assert_eq!(turn(&served, 7), [(&9, &name("other"))]);
        assert_eq!(turn(&served, 9), [(&3, &name("one"))]);
    }

    #[test]
    fn where_nobody_is_seen_who_could_be_followed_the_turn_goes_on_to_the_next() {
        let served: BTreeMap<_, _> = [(3, name("one"))].into();
        let mut seen = Seen::default();
        seen.add(3, &name("other"), Door::first(1));
        let insides = Insides::look(&served, &seen, 0);
        assert_eq!(insides.last, Some(3));
        assert!(insides.found.is_empty());
    }

    #[test]
    fn what_has_no_ipv6_is_said_in_one_sentence_that_names_one_and_counts_the_others() {
        let agent = name("one");
        let of = |netnses: &[Netns]| sentence(netnses.iter().map(|netns| (*netns, &agent)));
        assert_eq!(of(&[]), None);
        let one = of(&[7]).expect("words");
        let begins = "network namespace 7 of agent one has no IPv6 (no ::1): what is asked";
        assert!(one.starts_with(begins), "{one}");
        let more = of(&[7, 8, 9]).expect("words");
        assert!(
            more.contains("(no ::1), nor have 2 others that are served: "),
            "{more}"
        );
    }
}
