//! What a policy allows that may not be meant: standing access that wears a timer, approvals that decide nothing, rules that are never reached.
//! It warns and forbids nothing; what is forbidden has been refused when the policy was read.

use std::collections::BTreeSet;

use super::{Alone, ApproverSet, DAY_NS, Limits, Policy, Rule};
use crate::principal::AgentName;
use crate::scope::{Access, DatasetPattern};
use crate::time::NS_PER_S;

/// A window as long as this is warned of, seconds: a task is seldom that long.
const LONG_TTL_S: u64 = 4 * 3600;
/// A request that may wait for longer than this is warned of, seconds.
const LONG_PENDING_S: u64 = 8 * 3600;
/// An emergency longer than this is warned of, seconds.
const LONG_GLASS_S: u64 = 30 * 60;
/// More requests an hour than this are warned of where people decide.
const HURRIED_PER_HOUR: u32 = 60;
/// Windows that open without a person are warned of where they may take more of a day than this, seconds.
const ALONE_IN_DAY_S: u64 = 4 * 3600;
/// A budget above this is warned of, bytes: what is billed, and what is read as rows.
const LARGE_BYTES: u64 = 100_000_000_000_000;
const LARGE_ROWS_BYTES: u64 = 1_000_000_000_000;
/// Of a prefix with fewer letters it is warned.
const SHORT_PREFIX_CHARS: usize = 4;

/// One warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The rule, by its place in the file, from 1.
    pub rule: u32,
    /// What about it, and what to do.
    pub what: String,
}

/// What there is to say of a policy, rule by rule.
#[must_use]
pub fn lint(policy: &Policy) -> Vec<Warning> {
    let rules = policy.rules.iter().enumerate();
    rules
        .flat_map(|(at, rule)| {
            let mut said = of_rule(rule);
            said.extend(of_own_uids(policy, rule));
            said.extend(shadowed(&policy.rules[..at], rule));
            let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
            said.into_iter()
                .map(move |what| Warning { rule: number, what })
        })
        .collect()
}

fn of_rule(rule: &Rule) -> Vec<String> {
    let limits = &rule.limits;
    let mut said = Vec::new();
    let opens_alone = rule.alone != Alone::Never;
    if opens_alone && limits.cooldown_s < rule.ttl_max.seconds() {
        let again = match limits.cooldown_s {
            0 => "as soon as a window has ended".to_owned(),
            pause => format!("{pause} s after a window of {} has ended", rule.ttl_max),
        };
        said.push(format!(
            "it opens without a person, and again {again}: up to {} % of a day, one request after another, is standing access wearing a timer. Set `cooldown` to no less than `ttl_max`",
            limits.duty_percent_max
        ));
    }
    let alone_s = alone_in_a_day(rule);
    if alone_s > ALONE_IN_DAY_S {
        said.push(format!(
            "it opens without a person for up to {} h of a day, one window after another: lower `duty_cycle_percent`, or set a longer `cooldown`",
            alone_s / 3600
        ));
    }
    let agents = rule.agents.len() as u64;
    if alone_s <= ALONE_IN_DAY_S && alone_s.saturating_mul(agents) > ALONE_IN_DAY_S {
        said.push(format!(
            "its {agents} agents may together have windows open without a person for {} h of a day, one agent after another: name fewer agents, or lower `duty_cycle_percent`",
            alone_s.saturating_mul(agents) / 3600
        ));
    }
    if !limits.lets_hold(rule.ttl_max) {
        said.push(format!(
            "a window of {} is always refused: `duty_cycle_percent = {}` lets an agent hold {} min of a day",
            rule.ttl_max,
            limits.duty_percent_max,
            limits.duty_ns_max() / (60 * NS_PER_S)
        ));
    }
    if opens_alone
        && (!rule.writable.is_empty()
            || !rule.ddl.is_empty()
            || rule.buckets.values().any(|access| *access == Access::Write))
    {
        said.push("it lets an agent write without a person having seen why: name `approvers` for what is writable, in a rule of its own".to_owned());
    }
    if rule.alone == Alone::Always && !rule.approvers.is_empty() {
        said.push(
            "it names approvers whom it never asks: it opens by itself at any time".to_owned(),
        );
    }
    if rule.ttl_max.seconds() >= LONG_TTL_S {
        said.push(format!(
            "a window of {} is most of a working day, {} % of 24 h, with one approval. Let the task ask again",
            rule.ttl_max,
            Limits::share_of(rule.ttl_max)
        ));
    }
    if share_in_a_day(rule) >= 100 && limits.duty_percent_max > Limits::TIGHT.duty_percent_max {
        said.push(format!(
            "{} requests an hour of {} each could fill a day, and only `duty_cycle_percent = {}` stands against it: lower one of them",
            limits.requests_per_hour_max, rule.ttl_max, limits.duty_percent_max
        ));
    }
    said.extend(of_budget(rule));
    let patterns = rule.datasets.iter().chain(&rule.writable).chain(&rule.ddl);
    for pattern in patterns.filter(|pattern| is_short(pattern)) {
        said.push(format!(
            "`{pattern}` covers every dataset that begins so, also those that are made tomorrow: name them, or a longer beginning"
        ));
    }
    said.extend(of_people(rule));
    said
}

/// Budgets that bound nothing.
fn of_budget(rule: &Rule) -> Vec<String> {
    let budget = &rule.budget;
    let budgets = [
        ("bytes_max", budget.bytes_max, LARGE_BYTES),
        (
            "returned_bytes_max",
            budget.returned_bytes_max,
            LARGE_ROWS_BYTES,
        ),
    ];
    let large = budgets.into_iter().filter(|(_, most, large)| most > large);
    large
        .map(|(name, most, _)| {
            format!(
                "`{name}` of {most} bytes for one window bounds nothing: name what a task needs"
            )
        })
        .collect()
}

fn of_people(rule: &Rule) -> Vec<String> {
    let mut said = Vec::new();
    let limits = &rule.limits;
    if rule.alone != Alone::Always && limits.requests_per_hour_max > HURRIED_PER_HOUR {
        said.push(format!(
            "{} requests an hour of each agent are more than people can read: who is asked so often says yes",
            limits.requests_per_hour_max
        ));
    }
    if rule.alone != Alone::Always && limits.pending_ttl_s > LONG_PENDING_S {
        said.push(format!(
            "a request may be approved {} h after it was made, when nobody remembers what for: shorten `pending_ttl`",
            limits.pending_ttl_s / 3600
        ));
    }
    if let Some(glass) = &rule.break_glass
        && glass.ttl_max.seconds() > LONG_GLASS_S
    {
        said.push(format!(
            "{} that one alone may open in an emergency is long: it is time to find the others",
            glass.ttl_max
        ));
    }
    let uids = &rule.approvers.uids;
    if rule.approvers.gids.is_empty() && uids.len() == 1 && rule.alone == Alone::Never {
        said.push("one person alone can decide: when that one is away nobody can, and nobody can review what that one opened in an emergency".to_owned());
    }
    if let Some(glass) = &rule.break_glass
        && rule.quorum.count > 1
        && rule.approvers.uids.is_subset(&glass.who.uids)
        && rule.approvers.gids.is_subset(&glass.who.gids)
    {
        said.push(
            "everybody whom it asks for a quorum may open without one: the quorum binds nobody"
                .to_owned(),
        );
    }
    let ApproverSet { uids, gids } = &rule.approvers;
    let is_root = |ids: &BTreeSet<u32>| ids.iter().all(|id| *id == 0);
    if !rule.approvers.is_empty() && is_root(uids) && is_root(gids) {
        said.push("only root decides, or root's group: whoever works as root decides with everything else they do, and as whom they like, however many are asked for. Name people".to_owned());
    }
    said
}

/// Agents for which nobody could decide, since the uids that the rule names are their own.
fn of_own_uids(policy: &Policy, rule: &Rule) -> Option<String> {
    let is_stuck = |agent: &&AgentName| {
        rule.alone != Alone::Always
            && !rule.approvers.is_empty()
            && !policy.can_be_decided(agent, rule)
    };
    let stuck: Vec<String> = rule
        .agents
        .iter()
        .filter(is_stuck)
        .map(ToString::to_string)
        .collect();
    (!stuck.is_empty()).then(|| {
        format!(
            "without the uids that they run as themselves there are not enough {}who could decide for agents {}: no request of theirs can be approved",
            if rule.must_sign { "with a key to sign with " } else { "" },
            stuck.join(", ")
        )
    })
}

/// For how much of a day at most the rule opens windows without a person, one after another, seconds.
fn alone_in_a_day(rule: &Rule) -> u64 {
    let opens_s = match &rule.alone {
        Alone::Never => return 0,
        Alone::Always => DAY_NS / NS_PER_S,
        Alone::During(when) => u64::from(when.minutes()) * 60,
    };
    let (ttl_s, pause_s) = (rule.ttl_max.seconds(), rule.limits.cooldown_s);
    // A window that begins within these hours goes on past them.
    let taken_s = opens_s.saturating_mul(ttl_s) / ttl_s.saturating_add(pause_s);
    taken_s.min(rule.limits.duty_ns_max() / NS_PER_S)
}

/// How much of a day a rule's windows could take if only the number of requests bounded them, per cent.
fn share_in_a_day(rule: &Rule) -> u64 {
    let an_hour = u64::from(rule.limits.requests_per_hour_max) * rule.ttl_max.seconds();
    an_hour * 100 / 3600
}

fn is_short(pattern: &DatasetPattern) -> bool {
    let text = pattern.to_string();
    let dataset = text.rsplit('.').next().unwrap_or_default();
    let prefix = dataset.strip_suffix('*');
    prefix.is_some_and(|prefix| prefix.chars().count() < SHORT_PREFIX_CHARS)
}

/// Whether an earlier rule covers all that this one does, so that this one decides nothing.
fn shadowed(earlier: &[Rule], rule: &Rule) -> Option<String> {
    let covers = |other: &Rule| {
        let [read, write, define] = [&other.datasets, &other.writable, &other.ddl];
        let within = |mine: &[DatasetPattern], theirs: &[&Vec<DatasetPattern>]| {
            mine.iter().all(|mine| {
                theirs
                    .iter()
                    .copied()
                    .flatten()
                    .any(|theirs| theirs.covers(mine))
            })
        };
        let mut buckets = rule.buckets.iter();
        rule.agents.is_subset(&other.agents)
            && within(&rule.datasets, &[read, write, define])
            && within(&rule.writable, &[write, define])
            && within(&rule.ddl, &[define])
            && buckets.all(|(bucket, access)| {
                let most = other.buckets.get(bucket);
                most.is_some_and(|most| access <= most)
            })
    };
    let at = earlier.iter().position(covers)?;
    Some(format!(
        "rule {} covers all of it and comes first: this one is never asked",
        at + 1
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::policy::{Budget, Quorum};
    use crate::time::Ttl;

    fn rule() -> Rule {
        Rule {
            agents: ["bot".parse().expect("a name")].into(),
            datasets: vec!["p.finance".parse().expect("exact")],
            writable: Vec::new(),
            ddl: Vec::new(),
            buckets: BTreeMap::new(),
            ttl_max: "15m".parse().expect("a ttl"),
            budget: Budget {
                bytes_max: 1,
                query_bytes_max: 1,
                returned_bytes_max: 1,
                queries_max: 1,
                jobs_at_once_max: 1,
            },
            approvers: ApproverSet {
                uids: [5001, 5002].into(),
                gids: [].into(),
            },
            quorum: Quorum::one(),
            must_sign: false,
            alone: Alone::Never,
            break_glass: None,
            limits: Limits::TIGHT,
        }
    }

    #[test]
    fn a_signed_rule_that_too_few_have_keys_for_is_named() {
        let signer = |uid| crate::policy::Signer {
            uid,
            key: format!("key of {uid}"),
            fingerprint: format!("SHA256:{uid}"),
        };
        let is_named = |uids: &[u32], rule: Rule| {
            let said = lint(&Policy {
                rules: vec![rule],
                signers: uids.iter().copied().map(signer).collect(),
                own_uids: BTreeMap::new(),
                digest: "d".to_owned(),
            });
            said.iter().any(|said| said.what.contains("with a key"))
        };
        let mut signed = rule();
        signed.must_sign = true;
        signed.quorum.count = 2;
        assert!(is_named(&[5001], signed.clone()));
        assert!(is_named(&[5001, 5003], signed.clone()), "of another");
        assert!(!is_named(&[5001, 5002], signed.clone()));
        signed.approvers.gids.insert(700);
        assert!(is_named(&[5001], signed.clone()));
        assert!(!is_named(&[5001, 5003], signed), "who may be in the group");
    }

    #[test]
    fn hours_that_many_agents_have_together_without_a_person_are_named() {
        let limits = Limits {
            cooldown_s: 3 * 3600,
            duty_percent_max: 16,
            ..Limits::TIGHT
        };
        let of = |agents: u32| {
            said(vec![Rule {
                agents: (0..agents)
                    .map(|at| format!("bot-{at}").parse().expect("a name"))
                    .collect(),
                alone: Alone::Always,
                approvers: ApproverSet::default(),
                ttl_max: "3h".parse().expect("a ttl"),
                limits,
                ..rule()
            }])
        };
        assert!(of(8).contains("its 8 agents may together"), "{}", of(8));
        assert_eq!(of(1), "");
    }

    fn said(rules: Vec<Rule>) -> String {
        said_where(rules, BTreeMap::new())
    }

    fn said_where(rules: Vec<Rule>, own_uids: BTreeMap<AgentName, BTreeSet<u32>>) -> String {
        let digest = "d".to_owned();
        let said = lint(&Policy {
            rules,
            signers: Vec::new(),
            own_uids,
            digest,
        });
        said.iter()
            .map(|warning| format!("{}: {}\n", warning.rule, warning.what))
            .collect()
    }

    #[test]
    fn a_tight_rule_is_let_be() {
        assert_eq!(said(vec![rule()]), "");
    }

    #[test]
    fn standing_access_wearing_a_timer_is_named() {
        let alone = Rule {
            alone: Alone::Always,
            ..rule()
        };
        assert!(said(vec![alone.clone()]).contains("standing access"));
        let paused = Limits {
            cooldown_s: 3600,
            duty_percent_max: 16,
            ..Limits::TIGHT
        };
        let paused = Rule {
            limits: paused,
            approvers: ApproverSet::default(),
            ..alone.clone()
        };
        assert_eq!(said(vec![paused]), "");
        let writes = Rule {
            writable: vec!["p.scratch".parse().expect("exact")],
            ..alone
        };
        assert!(said(vec![writes]).contains("write without a person"));
        let long = Rule {
            ttl_max: "8h".parse().expect("a ttl"),
            ..rule()
        };
        assert!(said(vec![long]).contains("34 % of 24 h"));
        let broad = Rule {
            datasets: vec!["p.a*".parse().expect("a prefix")],
            ..rule()
        };
        assert!(said(vec![broad]).contains("made tomorrow"));
    }

    #[test]
    fn a_short_pause_a_long_wait_and_bounds_that_bind_nobody_are_named() {
        let limits = Limits {
            cooldown_s: 1,
            requests_per_hour_max: 1000,
            ..Limits::TIGHT
        };
        let hour: Ttl = "1h".parse().expect("a ttl");
        let alone = Rule {
            alone: Alone::Always,
            approvers: ApproverSet::default(),
            ttl_max: hour,
            limits,
            ..rule()
        };
        assert!(said(vec![alone]).contains("again 1 s after a window of 1h has ended"));
        let mut loose = rule();
        loose.ttl_max = "4h".parse().expect("a ttl");
        loose.limits.pending_ttl_s = 24 * 3600;
        loose.limits.requests_per_hour_max = 1000;
        loose.budget.bytes_max = u64::MAX;
        loose.budget.returned_bytes_max = u64::MAX;
        loose.break_glass = Some(crate::policy::BreakGlass {
            who: ApproverSet {
                uids: [5003].into(),
                gids: [].into(),
            },
            ttl_max: hour,
        });
        let said = said(vec![loose]);
        for part in [
            "with one approval",
            "24 h after it was made",
            "1000 requests an hour of each agent",
            "`bytes_max` of 18446744073709551615",
            "`returned_bytes_max` of",
            "1h that one alone may open in an emergency",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn a_rule_behind_a_prefix_that_covers_it_is_never_asked() {
        let of = |dataset: &str| Rule {
            datasets: vec![dataset.parse().expect("a pattern")],
            ..rule()
        };
        let is_shadowed = |first: &str, then: &str| {
            said(vec![of(first), of(then)]).contains("2: rule 1 covers all of it")
        };
        assert!(is_shadowed("p.finance*", "p.finance_eu"));
        assert!(is_shadowed("p.finance*", "p.finance_eu*"));
        assert!(!is_shadowed("p.finance_eu*", "p.finance*"));
        assert!(!is_shadowed("p.finance", "p.finance*"));
        assert!(!is_shadowed("q.finance*", "p.finance_eu"));
    }

    #[test]
    fn a_rule_that_is_never_asked_and_a_quorum_that_binds_nobody_are_named() {
        assert!(said(vec![rule(), rule()]).starts_with("2: rule 1 covers all of it"));
        let mut glass = rule();
        glass.quorum.count = 2;
        glass.break_glass = Some(crate::policy::BreakGlass {
            who: glass.approvers.clone(),
            ttl_max: "15m".parse().expect("a ttl"),
        });
        assert!(said(vec![glass]).contains("binds nobody"));
    }

    #[test]
    fn a_quorum_that_a_larger_circle_passes_by_and_one_of_root_are_named() {
        let mut glass = rule();
        glass.quorum.count = 2;
        let mut who = glass.approvers.clone();
        who.uids.insert(5003);
        who.gids.insert(700);
        glass.break_glass = Some(crate::policy::BreakGlass {
            who,
            ttl_max: "15m".parse().expect("a ttl"),
        });
        assert!(said(vec![glass]).contains("binds nobody"));
        for (uids, gids) in [(vec![], vec![0]), (vec![0], vec![0]), (vec![0], vec![])] {
            let mut root = rule();
            root.quorum.count = 2;
            root.approvers = ApproverSet {
                uids: uids.into_iter().collect(),
                gids: gids.into_iter().collect(),
            };
            assert!(said(vec![root]).contains("only root decides"));
        }
    }

    #[test]
    fn what_no_request_can_ever_get_is_named() {
        let mut short = rule();
        short.limits.duty_percent_max = 1;
        assert!(said(vec![short]).contains("`duty_cycle_percent = 1` lets an agent hold 14 min"));
        let own = |uids: &[u32]| {
            let agent = "bot".parse().expect("a name");
            [(agent, uids.iter().copied().collect())].into()
        };
        let mut two = rule();
        two.quorum.count = 2;
        for (uids, count, is_said) in [
            (&[5001, 5002][..], 1, true),
            (&[5001], 1, false),
            (&[5001], 2, true),
            (&[9], 2, false),
        ] {
            two.quorum.count = count;
            let said = said_where(vec![two.clone()], own(uids));
            assert_eq!(said.contains("for agents bot"), is_said, "{said}");
        }
        two.approvers.gids.insert(700);
        assert_eq!(
            said_where(vec![two], own(&[5001, 5002])),
            "",
            "a group may have more"
        );
    }

    #[test]
    fn hours_a_day_without_a_person_are_named_whatever_the_pause() {
        let alone = |cooldown_s, duty_percent_max, alone| {
            let limits = Limits {
                cooldown_s,
                duty_percent_max,
                ..Limits::TIGHT
            };
            said(vec![Rule {
                alone,
                limits,
                ..rule()
            }])
        };
        let said = alone(900, 25, Alone::Always);
        assert!(said.contains("for up to 6 h of a day"), "{said}");
        assert!(!alone(900, 16, Alone::Always).contains("of a day"));
        let hours = |from: u16, until: u16| {
            Alone::During(crate::policy::Schedule {
                days: [crate::policy::Day::Mon].into(),
                from_minute: from * 60,
                until_minute: until * 60,
                zone: jiff::tz::TimeZone::UTC,
            })
        };
        assert!(alone(900, 50, hours(20, 6)).contains("for up to 5 h of a day"));
        assert!(!alone(900, 50, hours(9, 17)).contains("of a day"));
    }
}
