//! The operator's standing rules: who may ask for what, how long, and who decides. Pure; names of users and groups were resolved before.

mod approvers;
mod limits;
mod lint;
mod schedule;

use std::collections::{BTreeMap, BTreeSet};

pub use approvers::{ApproverSet, QUORUM_MAX, Quorum, Vote, Wanting};
pub use limits::{
    BACKOFF_DOUBLINGS_MAX, DAY_NS, DUTY_PERCENT_CEILING, Limits, PENDING_PER_AGENT_MAX,
    PENDING_TTL_S, PENDING_TTL_S_MAX, REQUESTS_PER_HOUR_CEILING, WAIT_S_MAX,
};
pub use lint::{Warning, lint};
pub use schedule::{Day, MINUTES_PER_DAY, Schedule};
use serde::{Deserialize, Serialize};

use crate::bucket::BucketRef;
use crate::principal::AgentName;
use crate::refusal::{Code, Refusal};
use crate::scope::{Access, DatasetPattern, DatasetRef, Scope};
use crate::size;
use crate::time::{NS_PER_S, Ttl};

/// What a window may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Bytes that are billed, all in all.
    pub bytes_max: u64,
    /// Bytes that one query may process.
    pub query_bytes_max: u64,
    /// Bytes of rows that are passed on, all in all.
    pub returned_bytes_max: u64,
    /// Queries, all in all.
    pub queries_max: u64,
    /// Jobs that run at once.
    pub jobs_at_once_max: u64,
}

impl Budget {
    /// Of which nothing is known: less than nothing else.
    pub const UNBOUNDED: Self = Self {
        bytes_max: u64::MAX,
        query_bytes_max: u64::MAX,
        returned_bytes_max: u64::MAX,
        queries_max: u64::MAX,
        jobs_at_once_max: u64::MAX,
    };

    /// A budget of nothing.
    pub const NONE: Self = Self {
        bytes_max: 0,
        query_bytes_max: 0,
        returned_bytes_max: 0,
        queries_max: 0,
        jobs_at_once_max: 0,
    };

    /// Of each the lesser.
    #[must_use]
    pub fn least(&self, other: &Self) -> Self {
        Self {
            bytes_max: self.bytes_max.min(other.bytes_max),
            query_bytes_max: self.query_bytes_max.min(other.query_bytes_max),
            returned_bytes_max: self.returned_bytes_max.min(other.returned_bytes_max),
            queries_max: self.queries_max.min(other.queries_max),
            jobs_at_once_max: self.jobs_at_once_max.min(other.jobs_at_once_max),
        }
    }
}

impl std::fmt::Display for Budget {
    /// For people; two that differ are written otherwise.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} billed, {} of them by one query; {} queries; {} of rows; {} jobs at once",
            size::whole(self.bytes_max),
            size::whole(self.query_bytes_max),
            self.queries_max,
            size::whole(self.returned_bytes_max),
            self.jobs_at_once_max
        )
    }
}

/// Whether a rule opens windows without a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alone {
    /// A person decides.
    Never,
    /// At any time.
    Always,
    /// At these times; a person decides at others.
    During(Schedule),
}

impl Alone {
    /// Whether it does at this moment.
    #[must_use]
    pub fn opens_at(&self, unix_ns: u64) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::During(schedule) => schedule.covers(unix_ns),
        }
    }
}

/// The longest window that a rule may let be opened in an emergency, seconds: an hour. Who needs it for longer has the time to ask the others.
pub const BREAK_GLASS_TTL_CEILING: u64 = 3600;

/// Who may open a window without the others that a rule asks for, in an emergency, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakGlass {
    /// Who may.
    pub who: ApproverSet,
    /// The longest such window.
    pub ttl_max: Ttl,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The agents it speaks of.
    pub agents: BTreeSet<AgentName>,
    /// The datasets it lets them ask to read.
    pub datasets: Vec<DatasetPattern>,
    /// Those it lets them ask to read and write.
    pub writable: Vec<DatasetPattern>,
    /// Those in which it lets them ask to make, change and remove tables as well.
    pub ddl: Vec<DatasetPattern>,
    /// The buckets it lets them ask for, and the access to each.
    pub buckets: BTreeMap<BucketRef, Access>,
    /// The longest window.
    pub ttl_max: Ttl,
    /// The most that a window may use.
    pub budget: Budget,
    /// Who decides.
    pub approvers: ApproverSet,
    /// How many of them must.
    pub quorum: Quorum,
    /// Whether who decides must sign.
    pub must_sign: bool,
    /// Whether it opens without a person.
    pub alone: Alone,
    /// Who may open without the others in an emergency; nobody when absent.
    pub break_glass: Option<BreakGlass>,
    /// How often, how soon again, and how much of a day.
    pub limits: Limits,
}

impl Rule {
    /// Who decides, in words.
    #[must_use]
    pub fn who_decides(&self) -> String {
        let ApproverSet { uids, gids } = &self.approvers;
        let people = match (uids.is_empty(), gids.is_empty()) {
            (true, true) => "nobody".to_owned(),
            (false, true) => format!("uids {}", listed(uids)),
            (true, false) => format!("members of gids {}", listed(gids)),
            (false, false) => format!("uids {}, members of gids {}", listed(uids), listed(gids)),
        };
        let each = &self.quorum.each_group;
        let how_many = match (self.quorum.count, each.is_empty()) {
            (1, true) => "one of ".to_owned(),
            (count, true) => format!("{count} of "),
            (count, false) => format!("{count}, one for each of gids {}, of ", listed(each)),
        };
        match &self.alone {
            Alone::Always => "opens without a person".to_owned(),
            Alone::During(when) => {
                format!("opens without a person {when}; else {how_many}{people}")
            }
            Alone::Never => format!("{how_many}{people}"),
        }
    }

    /// What it says, in words: of whom, who decides, and the ceilings.
    #[must_use]
    pub fn said(&self) -> String {
        let agents: Vec<&str> = self.agents.iter().map(AgentName::as_str).collect();
        format!(
            "agents {}; decided by {}; at most {}, {} min a day, {}, {} queries",
            agents.join(", "),
            self.who_decides(),
            self.ttl_max,
            self.limits.duty_ns_max() / (60 * NS_PER_S),
            size::whole(self.budget.bytes_max),
            self.budget.queries_max
        )
    }

    fn lets_ask_for(&self, dataset: &DatasetRef, access: Access) -> bool {
        let (readable, writable): (&[DatasetPattern], &[DatasetPattern]) = match access {
            Access::Read => (&self.datasets, &self.writable),
            Access::Write => (&[], &self.writable),
            Access::Ddl => (&[], &[]),
        };
        let mut patterns = self.ddl.iter().chain(writable).chain(readable);
        patterns.any(|pattern| pattern.matches(dataset))
    }

    fn lets_ask_for_bucket(&self, bucket: &BucketRef, access: Access) -> bool {
        self.buckets.get(bucket).is_some_and(|most| access <= *most)
    }
}

fn listed(numbers: &BTreeSet<u32>) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(", ")
}

/// A key that may sign for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// For whom.
    pub uid: u32,
    /// The key, in OpenSSH's form and without a comment.
    pub key: String,
    /// What it is called in records.
    pub fingerprint: String,
}

/// The rules in force, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The rules; the first that covers a request decides.
    pub rules: Vec<Rule>,
    /// The keys that may sign.
    pub signers: Vec<Signer>,
    /// The uids that each agent's processes run as, where its configuration names any: nobody with one of them decides for that agent.
    pub own_uids: BTreeMap<AgentName, BTreeSet<u32>>,
    /// SHA-256 of the file, hex: named in the record of its loading.
    pub digest: String,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Datasets and access.
    pub scope: Scope,
    /// The window's length.
    pub ttl: Ttl,
    /// Why, in the asker's words.
    pub reason: String,
    /// Byte budget; absent: the rule's.
    pub bytes_max: Option<u64>,
    /// Query budget; absent: the rule's.
    pub queries_max: Option<u64>,
}

impl Ask {
    /// What is given of a rule's budget: not more than is asked for.
    #[must_use]
    pub fn within(&self, rule: &Budget) -> Budget {
        let least = |asked: Option<u64>, most: u64| asked.map_or(most, |asked| asked.min(most));
        Budget {
            bytes_max: least(self.bytes_max, rule.bytes_max),
            queries_max: least(self.queries_max, rule.queries_max),
            ..*rule
        }
    }
}

/// The rule that covers a request, by its number from 1.
#[derive(Debug, Clone, Copy)]
pub struct Covered<'a> {
    /// Its place in the file, from 1.
    pub number: u32,
    /// The rule.
    pub rule: &'a Rule,
}

impl Policy {
    /// Whether an agreement counts under this rule of the policy: by somebody whom it names and, where it asks for that, signed by a key that may
    /// sign for that person still.
    #[must_use]
    pub fn counts(&self, rule: &Rule, vote: &Vote) -> bool {
        let may_sign = |signer: &Signer| {
            signer.uid == vote.uid && vote.signer.as_ref() == Some(&signer.fingerprint)
        };
        rule.approvers.name(vote.uid, &vote.gids)
            && (!rule.must_sign || self.signers.iter().any(may_sign))
    }

    /// What is still wanting under this rule of the policy when these people have agreed; `None` when it is enough.
    #[must_use]
    pub fn wanting(&self, rule: &Rule, votes: &[Vote]) -> Option<Wanting> {
        let counted = votes.iter().filter(|vote| self.counts(rule, vote));
        let counted: Vec<Vote> = counted.cloned().collect();
        rule.quorum.wanting(&rule.approvers, &counted)
    }

    /// Whether this is a uid of the agent's own.
    #[must_use]
    pub fn is_own_uid(&self, agent: &AgentName, uid: u32) -> bool {
        self.own_uids
            .get(agent)
            .is_some_and(|own| own.contains(&uid))
    }

    /// Those who may decide for this agent: nobody decides with a uid of its own.
    #[must_use]
    pub fn others(&self, agent: &AgentName, who: &ApproverSet) -> ApproverSet {
        let uids = who.uids.iter().filter(|uid| !self.is_own_uid(agent, **uid));
        ApproverSet {
            uids: uids.copied().collect(),
            gids: who.gids.clone(),
        }
    }

    /// Whether those whom the rule names can be enough for this agent. Who is in a group is not known here: there may be enough, but where they must
    /// sign, of those alone who have a key.
    #[must_use]
    pub fn can_be_decided(&self, agent: &AgentName, rule: &Rule) -> bool {
        let others = self.others(agent, &rule.approvers);
        let wanted = rule.quorum.count as usize;
        if rule.must_sign {
            return self.who_can_sign(agent, &others).count() >= wanted;
        }
        !others.gids.is_empty() || others.uids.len() >= wanted
    }

    /// Those of `who` who have a key, as far as can be known here: anybody with one may be in a group.
    fn who_can_sign<'a>(
        &'a self,
        agent: &'a AgentName,
        who: &'a ApproverSet,
    ) -> impl Iterator<Item = u32> + 'a {
        let uids: BTreeSet<u32> = self.signers.iter().map(|signer| signer.uid).collect();
        uids.into_iter().filter(|uid| {
            !self.is_own_uid(agent, *uid) && (!who.gids.is_empty() || who.uids.contains(uid))
        })
    }

    /// The rule that covers `ask`, unless a request for it is refused, or waits for nothing, whatever else the agent has asked and held.
    /// `opens_alone` says whether the rule opens without a person when it is asked.
    ///
    /// # Errors
    /// As [`Policy::cover`]; [`Code::DutyCycle`] where the window is longer than what the agent may hold of a day, [`Code::PolicyHours`] and
    /// [`Code::SelfApproval`] where nobody could decide on it.
    pub fn could_grant<'a>(
        &'a self,
        agent: &AgentName,
        ask: &Ask,
        opens_alone: impl FnOnce(&Rule) -> bool,
    ) -> Result<Covered<'a>, Refusal> {
        let covered = self.cover(agent, ask)?;
        let Covered { number, rule } = covered;
        if !rule.limits.lets_hold(ask.ttl) {
            let what = format!(
                "A window of {} is more than the {} % of a day that rule {number} lets agent {agent} hold, {} min: it is always refused",
                ask.ttl,
                rule.limits.duty_percent_max,
                rule.limits.duty_ns_max() / (60 * NS_PER_S)
            );
            return Err(Refusal::new(Code::DutyCycle, what));
        }
        if opens_alone(rule) {
            return Ok(covered);
        }
        let glass = rule.break_glass.as_ref();
        let breaks = glass.is_some_and(|glass| {
            let others = self.others(agent, &glass.who);
            !others.is_empty()
                && (!rule.must_sign || self.who_can_sign(agent, &others).next().is_some())
        });
        if rule.approvers.is_empty() && !breaks {
            let what = format!(
                "Rule {number} opens by itself at other times, and names nobody who could decide at this one"
            );
            return Err(Refusal::new(Code::PolicyHours, what));
        }
        if !self.can_be_decided(agent, rule) && !breaks {
            let keys = if rule.must_sign {
                " who have a key to sign with"
            } else {
                ""
            };
            let what = format!(
                "Rule {number} asks for {}, and without the uids that agent {agent} runs as there are not so many{keys}: nobody could grant it",
                rule.who_decides()
            );
            return Err(Refusal::new(Code::SelfApproval, what));
        }
        Ok(covered)
    }

    /// The rule with this number.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.rules.get(number.checked_sub(1)?))
    }

    /// The rule that covers `ask` for `agent`: one rule must cover every dataset and bucket, and the ask must stay within it.
    ///
    /// # Errors
    /// [`Code::PolicyNone`] where no rule names all the datasets, [`Code::PolicyExceeded`] where one does but allows less.
    pub fn cover<'a>(&'a self, agent: &AgentName, ask: &Ask) -> Result<Covered<'a>, Refusal> {
        let names = |rule: &Rule| {
            rule.agents.contains(agent)
                && ask
                    .scope
                    .datasets()
                    .all(|(dataset, access)| rule.lets_ask_for(dataset, access))
                && ask
                    .scope
                    .buckets()
                    .all(|(bucket, access)| rule.lets_ask_for_bucket(bucket, access))
        };
        let (at, rule) = self
            .rules
            .iter()
            .enumerate()
            .find(|(_, rule)| names(rule))
            .ok_or_else(|| {
                Refusal::new(
                    Code::PolicyNone,
                    format!("No policy rule lets agent {agent} ask for {}", ask.scope),
                )
            })?;
        let exceeded = |what: String| Err(Refusal::new(Code::PolicyExceeded, what));
        if ask.ttl > rule.ttl_max {
            return exceeded(format!(
                "A window of {} is longer than the {} that the policy allows agent {agent}",
                ask.ttl, rule.ttl_max
            ));
        }
        let datasets = ask.scope.datasets().count();
        if datasets > rule.limits.datasets_max {
            return exceeded(format!(
                "{datasets} datasets in one request are more than the {} that the policy allows agent {agent}",
                rule.limits.datasets_max
            ));
        }
        if ask
            .bytes_max
            .is_some_and(|bytes| bytes == 0 || bytes > rule.budget.bytes_max)
        {
            return exceeded(format!(
                "The byte budget must lie between 1 and the {} that the policy allows agent {agent}",
                rule.budget.bytes_max
            ));
        }
        if ask
            .queries_max
            .is_some_and(|queries| queries == 0 || queries > rule.budget.queries_max)
        {
            return exceeded(format!(
                "The query budget must lie between 1 and the {} that the policy allows agent {agent}",
                rule.budget.queries_max
            ));
        }
        Ok(Covered {
            number: u32::try_from(at + 1).unwrap_or(u32::MAX),
            rule,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(of: impl FnOnce(&mut Rule), own: &[u32]) -> Policy {
        let mut rule = Rule {
            agents: ["bot".parse().expect("a name")].into(),
            datasets: vec!["p.finance".parse().expect("exact")],
            writable: Vec::new(),
            ddl: Vec::new(),
            buckets: BTreeMap::new(),
            ttl_max: "15m".parse().expect("a ttl"),
            budget: Budget::UNBOUNDED,
            approvers: ApproverSet {
                uids: [5001, 5002].into(),
                gids: [].into(),
            },
            quorum: Quorum::one(),
            must_sign: false,
            alone: Alone::Never,
            break_glass: None,
            limits: Limits::TIGHT,
        };
        of(&mut rule);
        let agent = "bot".parse().expect("a name");
        Policy {
            rules: vec![rule],
            signers: Vec::new(),
            own_uids: [(agent, own.iter().copied().collect())].into(),
            digest: "d".into(),
        }
    }

    fn said(policy: &Policy) -> Result<u32, Code> {
        let ask = Ask {
            scope: "p.finance:read".parse().expect("a scope"),
            ttl: "15m".parse().expect("a ttl"),
            reason: "x".into(),
            bytes_max: None,
            queries_max: None,
        };
        let agent = "bot".parse().expect("a name");
        let covered = policy.could_grant(&agent, &ask, |rule| rule.alone.opens_at(0));
        covered
            .map(|covered| covered.number)
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_request_that_is_refused_whatever_the_agent_has_done_is_not_one_that_could_be_granted() {
        assert_eq!(said(&policy(|_| (), &[])), Ok(1));
        let short = policy(|rule| rule.limits.duty_percent_max = 1, &[]);
        assert_eq!(said(&short), Err(Code::DutyCycle));
        let fits = policy(|rule| rule.limits.duty_percent_max = 2, &[]);
        assert_eq!(said(&fits), Ok(1));
    }

    #[test]
    fn a_request_on_which_nobody_else_than_its_agents_uids_could_decide_could_not_be_granted() {
        let own = [5001, 5002];
        assert_eq!(said(&policy(|_| (), &own)), Err(Code::SelfApproval));
        assert_eq!(said(&policy(|_| (), &[5001])), Ok(1));
        let two = |rule: &mut Rule| rule.quorum.count = 2;
        assert_eq!(said(&policy(two, &[5001])), Err(Code::SelfApproval));
        let group = |rule: &mut Rule| rule.approvers.gids = [700].into();
        assert_eq!(said(&policy(group, &own)), Ok(1), "it may have others");
        let alone = |rule: &mut Rule| rule.alone = Alone::Always;
        assert_eq!(said(&policy(alone, &own)), Ok(1));
        let glass = |uid: u32| {
            move |rule: &mut Rule| {
                rule.break_glass = Some(BreakGlass {
                    who: ApproverSet {
                        uids: [uid].into(),
                        gids: [].into(),
                    },
                    ttl_max: Ttl::MIN,
                });
            }
        };
        assert_eq!(said(&policy(glass(5003), &own)), Ok(1), "in an emergency");
        assert_eq!(said(&policy(glass(5001), &own)), Err(Code::SelfApproval));
    }
}
