//! The operator's standing rules: who may ask for what, how long, and who decides. Pure; names of users and groups were resolved before.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::principal::{AgentName, Caller};
use crate::refusal::{Code, Refusal};
use crate::scope::{DatasetPattern, Scope};
use crate::time::Ttl;

/// How long a request waits for a decision, seconds.
pub const PENDING_TTL_S: u64 = 600;
/// The most requests of one agent that wait at once.
pub const PENDING_PER_AGENT_MAX: usize = 8;

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
        self.uids.contains(&caller.process.uid) || !self.gids.is_disjoint(&caller.gids)
    }
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The agents it speaks of.
    pub agents: BTreeSet<AgentName>,
    /// The datasets it lets them ask for.
    pub datasets: Vec<DatasetPattern>,
    /// The longest window.
    pub ttl_max: Ttl,
    /// The largest byte budget.
    pub bytes_max: u64,
    /// The largest query budget.
    pub queries_max: u64,
    /// Who decides.
    pub approvers: ApproverSet,
    /// Whether it opens without a person.
    pub auto_approve: bool,
}

/// The rules in force, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The rules; the first that covers a request decides.
    pub rules: Vec<Rule>,
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

/// The rule that covers a request, by its number from 1.
#[derive(Debug, Clone, Copy)]
pub struct Covered<'a> {
    /// Its place in the file, from 1.
    pub number: u32,
    /// The rule.
    pub rule: &'a Rule,
}

impl Policy {
    /// The rule with this number.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.rules.get(number.checked_sub(1)?))
    }

    /// The rule that covers `ask` for `agent`: one rule must cover every dataset, and the ask must stay within it.
    ///
    /// # Errors
    /// [`Code::PolicyNone`] where no rule names all the datasets, [`Code::PolicyExceeded`] where one does but allows less.
    pub fn cover<'a>(&'a self, agent: &AgentName, ask: &Ask) -> Result<Covered<'a>, Refusal> {
        let names = |rule: &Rule| {
            rule.agents.contains(agent)
                && ask
                    .scope
                    .datasets()
                    .iter()
                    .all(|dataset| rule.datasets.iter().any(|pattern| pattern.matches(dataset)))
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
        if ask
            .bytes_max
            .is_some_and(|bytes| bytes == 0 || bytes > rule.bytes_max)
        {
            return exceeded(format!(
                "The byte budget must lie between 1 and the {} that the policy allows agent {agent}",
                rule.bytes_max
            ));
        }
        if ask
            .queries_max
            .is_some_and(|queries| queries == 0 || queries > rule.queries_max)
        {
            return exceeded(format!(
                "The query budget must lie between 1 and the {} that the policy allows agent {agent}",
                rule.queries_max
            ));
        }
        Ok(Covered {
            number: u32::try_from(at + 1).unwrap_or(u32::MAX),
            rule,
        })
    }
}
