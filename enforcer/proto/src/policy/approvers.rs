//! Who decides, and when enough have: people by number, how many of them, and which groups must each have had a say.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::principal::Caller;

/// The most people that a rule may ask for.
pub const QUORUM_MAX: u32 = 8;

/// Who may decide, by number: a uid, or a member of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApproverSet {
    /// Uids that may decide.
    pub uids: BTreeSet<u32>,
    /// Groups whose members may decide.
    pub gids: BTreeSet<u32>,
}

impl ApproverSet {
    /// Whether the caller is one of them.
    #[must_use]
    pub fn names(&self, caller: &Caller) -> bool {
        self.name(caller.process.uid, &caller.gids)
    }

    /// Whether a person with this uid, in these groups, is one of them.
    #[must_use]
    pub fn name(&self, uid: u32, gids: &BTreeSet<u32>) -> bool {
        self.uids.contains(&uid) || !self.gids.is_disjoint(gids)
    }

    /// Whether it names nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }
}

/// How many people must agree, and of which groups one each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// How many different people.
    pub count: u32,
    /// Groups of each of which a person of its own must be among them.
    pub each_group: BTreeSet<u32>,
}

impl Quorum {
    /// One person, whoever may decide.
    #[must_use]
    pub const fn one() -> Self {
        Self {
            count: 1,
            each_group: BTreeSet::new(),
        }
    }
}

/// One person's agreement to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Who.
    pub uid: u32,
    /// Those of the person's groups that the rule named then.
    pub gids: BTreeSet<u32>,
    /// The key that signed it, where it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// What is still wanting before a request is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanting {
    /// How many more people.
    pub people: u32,
    /// Groups that nobody has spoken for.
    pub groups: BTreeSet<u32>,
}

impl std::fmt::Display for Wanting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let people = if self.people == 1 {
            "one more person".to_owned()
        } else {
            format!("{} more people", self.people)
        };
        f.write_str(&people)?;
        let groups: Vec<String> = self.groups.iter().map(ToString::to_string).collect();
        match groups.as_slice() {
            [] => Ok(()),
            groups => write!(f, ", one of each of gids {}", groups.join(", ")),
        }
    }
}

impl Quorum {
    /// What is still wanting when these people have agreed; `None` when it is enough. Only those whom `who` names count, each once, and for one
    /// group alone.
    #[must_use]
    pub fn wanting(&self, who: &ApproverSet, votes: &[Vote]) -> Option<Wanting> {
        let mut seen = BTreeSet::new();
        let counted: Vec<&Vote> = votes
            .iter()
            .filter(|vote| who.name(vote.uid, &vote.gids) && seen.insert(vote.uid))
            .collect();
        let groups = self.unspoken_for(&counted);
        let have = u32::try_from(counted.len()).unwrap_or(u32::MAX);
        let missing = u32::try_from(groups.len()).unwrap_or(u32::MAX);
        let people = self.count.saturating_sub(have).max(missing);
        (people > 0).then_some(Wanting { people, groups })
    }

    /// The groups that are left when as many as can be have a person of their own.
    fn unspoken_for(&self, counted: &[&Vote]) -> BTreeSet<u32> {
        let groups: Vec<u32> = self.each_group.iter().copied().collect();
        // Who speaks for each group, by place.
        let mut speaker: Vec<Option<usize>> = vec![None; groups.len()];
        for person in 0..counted.len() {
            let mut tried = vec![false; groups.len()];
            place(person, counted, &groups, &mut speaker, &mut tried);
        }
        let unspoken = groups.iter().zip(&speaker);
        unspoken
            .filter(|(_, speaker)| speaker.is_none())
            .map(|(group, _)| *group)
            .collect()
    }
}

/// Finds a group for a person to speak for; somebody who already does may have to take another. True when all of them have one.
fn place(
    person: usize,
    counted: &[&Vote],
    groups: &[u32],
    speaker: &mut [Option<usize>],
    tried: &mut [bool],
) -> bool {
    for at in 0..groups.len() {
        if tried[at] || !counted[person].gids.contains(&groups[at]) {
            continue;
        }
        tried[at] = true;
        let is_free = match speaker[at] {
            None => true,
            Some(other) => place(other, counted, groups, speaker, tried),
        };
        if is_free {
            speaker[at] = Some(person);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vote(uid: u32, gids: &[u32]) -> Vote {
        Vote {
            uid,
            gids: gids.iter().copied().collect(),
            signer: None,
        }
    }

    fn who() -> ApproverSet {
        ApproverSet {
            uids: (1..=9).collect(),
            gids: [10, 20].into(),
        }
    }

    #[test]
    fn two_must_be_two_people_whom_the_rule_names() {
        let two = Quorum {
            count: 2,
            each_group: [].into(),
        };
        assert_eq!(
            two.wanting(&who(), &[]).map(|wanting| wanting.people),
            Some(2)
        );
        assert!(two.wanting(&who(), &[vote(1, &[]), vote(1, &[])]).is_some());
        assert!(
            two.wanting(&who(), &[vote(1, &[]), vote(99, &[])])
                .is_some()
        );
        assert!(
            two.wanting(&who(), &[vote(1, &[]), vote(99, &[20])])
                .is_none()
        );
    }

    #[test]
    fn nobody_speaks_for_two_groups_and_who_can_makes_room() {
        let both = Quorum {
            count: 2,
            each_group: [10, 20].into(),
        };
        let wanting = both.wanting(&who(), &[vote(1, &[10, 20])]);
        assert_eq!(wanting.map(|wanting| wanting.people), Some(1));
        // The first could speak for either, and the second for one alone.
        assert!(
            both.wanting(&who(), &[vote(1, &[10, 20]), vote(2, &[10])])
                .is_none()
        );
        let one_sided = both.wanting(&who(), &[vote(1, &[10]), vote(2, &[10])]);
        assert_eq!(one_sided.map(|wanting| wanting.groups), Some([20].into()));
    }

    proptest! {
        #[test]
        fn more_agreement_never_leaves_more_wanting(count in 1_u32..4, groups in prop::collection::btree_set(10_u32..13, 0..3), votes in prop::collection::vec((1_u32..6, prop::collection::btree_set(10_u32..13, 0..3)), 0..6)) {
            let quorum = Quorum { count, each_group: groups };
            let who = ApproverSet { uids: (1..=5).collect(), gids: [].into() };
            let votes: Vec<Vote> = votes.into_iter().map(|(uid, gids)| Vote { uid, gids, signer: None }).collect();
            let mut before = u32::MAX;
            for taken in 0..=votes.len() {
                let people = quorum.wanting(&who, &votes[..taken]).map_or(0, |wanting| wanting.people);
                prop_assert!(people <= before);
                before = people;
            }
        }
    }
}
