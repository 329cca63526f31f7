//! A policy file. What is taken stays within the hard ceilings, whatever it says, and lets nobody ask for more than it names.
#![no_main]

use std::path::Path;

use enforcer::config::policy_of_text;
use enforcer_proto::policy::{
    Alone, Ask, BREAK_GLASS_TTL_CEILING, DUTY_PERCENT_CEILING, PENDING_TTL_S_MAX, QUORUM_MAX,
    REQUESTS_PER_HOUR_CEILING, Rule, WAIT_S_MAX, lint,
};
use enforcer_proto::scope::SCOPE_DATASETS_MAX;
use enforcer_proto::time::Ttl;
use libfuzzer_sys::fuzz_target;

fn check(rule: &Rule) {
    let limits = &rule.limits;
    assert!(rule.ttl_max <= Ttl::MAX);
    assert!((1..=DUTY_PERCENT_CEILING).contains(&limits.duty_percent_max));
    assert!((1..=REQUESTS_PER_HOUR_CEILING).contains(&limits.requests_per_hour_max));
    assert!((1..=PENDING_TTL_S_MAX).contains(&limits.pending_ttl_s));
    assert!(limits.cooldown_s <= WAIT_S_MAX && limits.backoff_s <= WAIT_S_MAX);
    assert!((1..=SCOPE_DATASETS_MAX).contains(&limits.datasets_max));
    assert!((1..=QUORUM_MAX).contains(&rule.quorum.count));
    assert!(rule.quorum.each_group.is_subset(&rule.approvers.gids));
    assert!(!rule.approvers.is_empty() || rule.alone != Alone::Never);
    assert!(rule.budget.bytes_max > 0 && rule.budget.queries_max > 0);
    if let Some(glass) = &rule.break_glass {
        assert!(!glass.who.is_empty() && glass.ttl_max.seconds() <= BREAK_GLASS_TTL_CEILING);
    }
    let patterns = rule.datasets.iter().chain(&rule.writable).chain(&rule.ddl);
    for pattern in patterns {
        let text = pattern.to_string();
        let dataset = text.rsplit('.').next().expect("a part");
        assert!(dataset.len() > 1 || dataset != "*", "{text} is everything");
    }
    assert!(!rule.who_decides().is_empty());
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let path = Path::new("policy.toml");
    let Ok(policy) = policy_of_text(path, text, None) else {
        return;
    };
    policy.rules.iter().for_each(check);
    let _ = lint(&policy);
    let ask = Ask {
        scope: "p.finance:read".parse().expect("a scope"),
        ttl: "15m".parse().expect("a ttl"),
        reason: "month end".to_owned(),
        bytes_max: None,
        queries_max: None,
    };
    for rule in &policy.rules {
        for agent in &rule.agents {
            if let Ok(covered) = policy.cover(agent, &ask) {
                assert!(covered.rule.agents.contains(agent) && ask.ttl <= covered.rule.ttl_max);
            }
        }
    }
    let again = policy_of_text(path, text, None).expect("it was taken");
    assert_eq!(again, policy);
});
