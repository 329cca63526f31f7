//! An agent asks: whether a rule covers it, whether it is not too soon or too much, and whether it opens without a person.

use std::collections::BTreeSet;

use super::commands::check_reason;
use super::deciding::{Terms, digest_of};
use super::history::TooSoon;
use super::{Decision, Ledger, Offer, Origin, Request, RequestState};
use crate::event::Event;
use crate::id::RequestId;
use crate::policy::{Alone, Ask, Limits, PENDING_PER_AGENT_MAX, Policy, Rule};
use crate::principal::{AgentName, Approver, Caller};
use crate::refusal::{Code, Refusal};
use crate::time::{NS_PER_S, Now, Ttl};

impl Ledger {
    pub(super) fn ask(
        &self,
        now: Now,
        policy: &Policy,
        caller: &Caller,
        ask: Ask,
        origin: Origin,
    ) -> Result<Decision, Refusal> {
        let agent = caller.agent.as_ref().ok_or_else(|| {
            Refusal::new(
                Code::CallerUnknown,
                format!(
                    "Process {} is in no agent's workload, so no window can be asked for",
                    caller.process.pid
                ),
            )
        })?;
        check_reason(&ask.reason)?;
        let unlocked = self.unlocked(agent)?;
        let covered = policy.cover(agent, &ask)?;
        self.check_pace(now, agent, &covered.rule.limits)?;
        self.check_duty(now, agent, &covered.rule.limits, ask.ttl)?;
        let opens_alone = self.opens_alone(now, agent, covered.rule)?;
        let id = RequestId(self.last_request).next();
        let waits_s = covered.rule.limits.pending_ttl_s;
        // What its agent is shown of a request made of a query is what its text names: it waits no longer than that would.
        let named = origin.query().and_then(|from| from.named.as_ref());
        let waits_s = match named.map(|named| named.as_ask(&ask)) {
            Some(named) => waits_s.min(policy.cover(agent, &named)?.rule.limits.pending_ttl_s),
            None => waits_s,
        };
        let waits_ns = waits_s.saturating_mul(NS_PER_S);
        let offer = Offer {
            scope: ask.scope.clone(),
            ttl: ask.ttl,
            budget: ask.within(&covered.rule.budget),
        };
        let request = Request {
            id,
            agent: agent.clone(),
            process: caller.process.clone(),
            joined: BTreeSet::new(),
            digest: digest_of(id, agent, &ask.reason, &offer, origin.query()),
            origin: None,
            offer,
            ask,
            rule: covered.number,
            votes: Vec::new(),
            asked_at_ns: self.timeline.at(now),
            expires_boot_ns: now.boot_ns.saturating_add(waits_ns),
            ends_with_process: origin.ends_with_process(),
            from_query: origin.into_query(),
            state: RequestState::Pending,
        };
        let mut decision = Decision {
            events: vec![Event::Requested {
                request: id,
                agent: agent.clone(),
                process: request.process.clone(),
                ask: request.ask.clone(),
                rule: request.rule,
                digest: request.digest.clone(),
                expires_boot_ns: request.expires_boot_ns,
                from_query: request.from_query.clone(),
                ends_with_process: request.ends_with_process,
                budget: Some(request.offer.budget),
                // Whoever records it has looked: nothing here may be decided by it.
                origin: None,
            }],
            ..Decision::default()
        };
        if opens_alone {
            let approver = Approver::Policy {
                rule: covered.number,
            };
            let terms = Terms::of(covered.number, approver, request.offer.clone());
            self.open_window(
                now,
                unlocked,
                &request,
                &request.digest,
                terms,
                &mut decision,
            );
        }
        Ok(decision)
    }

    /// Whether a window opens now without a person. One that cannot, and that nobody could open, is refused.
    fn opens_alone(&self, now: Now, agent: &AgentName, rule: &Rule) -> Result<bool, Refusal> {
        if rule.alone.opens_at(now.unix_ns) {
            // While another is open, or too many are, it waits for a person to see it.
            let is_free = self.held_grant(agent).is_none();
            return Ok(is_free && self.check_windows_at_once(rule).is_ok());
        }
        match &rule.alone {
            Alone::During(when) if rule.approvers.is_empty() => Err(Refusal::new(
                Code::PolicyHours,
                format!(
                    "The policy opens windows of agent {agent} by itself at {when}, and names nobody who could decide at other times"
                ),
            )),
            Alone::During(_) | Alone::Never | Alone::Always => Ok(false),
        }
    }

    fn check_pace(&self, now: Now, agent: &AgentName, limits: &Limits) -> Result<(), Refusal> {
        let pending = self.index.pending_of(agent);
        if pending >= PENDING_PER_AGENT_MAX {
            return Err(Refusal::new(
                Code::TooManyPending,
                format!("Agent {agent} has {pending} requests waiting, and may have no more"),
            ));
        }
        let at_ns = self.timeline.at(now);
        let history = self.histories.get(agent);
        let Some(why) = history.and_then(|history| history.too_soon(limits, at_ns)) else {
            return Ok(());
        };
        let (why, left_ns) = match why {
            TooSoon::Cooldown(left) => ("held a window a moment ago".to_owned(), left),
            TooSoon::Denied(left) => ("was denied".to_owned(), left),
            TooSoon::Rate(left) => (
                format!(
                    "has asked {} times in an hour, as often as the policy allows",
                    limits.requests_per_hour_max
                ),
                left,
            ),
        };
        Err(Refusal::new(
            Code::TooSoon,
            format!(
                "Agent {agent} {why}, and may ask again in {} s",
                left_ns.div_ceil(NS_PER_S)
            ),
        ))
    }

    /// Whether the pause after the agent's last window is over. What was asked before it began waits as well.
    pub(super) fn check_cooldown(
        &self,
        now: Now,
        agent: &AgentName,
        limits: &Limits,
    ) -> Result<(), Refusal> {
        let history = self.histories.get(agent);
        let at_ns = self.timeline.at(now);
        match history.and_then(|history| history.cooldown_left(limits, at_ns)) {
            None => Ok(()),
            Some(left_ns) => Err(Refusal::new(
                Code::TooSoon,
                format!(
                    "Agent {agent} held a window a moment ago, and may hold the next in {} s: until then the request waits",
                    left_ns.div_ceil(NS_PER_S)
                ),
            )),
        }
    }

    /// Whether a window of this length fits into what the agent may hold of a day.
    pub(super) fn check_duty(
        &self,
        now: Now,
        agent: &AgentName,
        limits: &Limits,
        ttl: Ttl,
    ) -> Result<(), Refusal> {
        let held = self.held_in_day(agent, now);
        let open = self.open_grant(agent, now);
        let still_open = open.map_or(0, |grant| grant.closes_boot_ns.saturating_sub(now.boot_ns));
        let taken = held.saturating_add(still_open);
        if taken.saturating_add(ttl.ns()) <= limits.duty_ns_max() {
            return Ok(());
        }
        Err(Refusal::new(
            Code::DutyCycle,
            format!(
                "Agent {agent} has held windows for {} min of the last 24 h: {ttl} more would be over the {} % that the policy allows, {} min",
                taken.div_ceil(60 * NS_PER_S),
                limits.duty_percent_max,
                limits.duty_ns_max() / (60 * NS_PER_S)
            ),
        ))
    }

    pub(super) fn check_windows_at_once(&self, rule: &Rule) -> Result<(), Refusal> {
        let agents = rule.agents.iter();
        let open = agents
            .filter(|agent| self.held_grant(agent).is_some())
            .count();
        if open < rule.limits.windows_at_once_max {
            return Ok(());
        }
        Err(Refusal::new(
            Code::WindowsAtOnce,
            format!("{open} windows are open under the policy's rule, and no more may be at once"),
        ))
    }
}
