//! The ledger as shown over the control socket. Agents see only their own.

mod agents;

use std::collections::{BTreeMap, BTreeSet};

use enforcer_proto::id::RequestId;
use enforcer_proto::ledger::{
    Grant, Ledger, Offered, Request, RequestState, may_decide_on, may_watch_over,
};
use enforcer_proto::policy::{Ask, Budget, Policy, Rule, Vote, Wanting};
use enforcer_proto::principal::Caller;
use enforcer_proto::text::{keep, shorten};
use enforcer_proto::time::{NS_PER_S, Now};
use enforcer_proto::wire::{
    CheckView, FRAME_BYTES_MAX, GrantView, LogView, RequestView, RuleView, Status, encoded_bytes,
};
use serde::Serialize;

use super::Parts;
use super::asking::Waiting;
use super::owner::state_word;
pub use agents::ON_HOST_BYTES_MAX;
use agents::{AGENTS_BYTES_MAX, agents};

/// The most requests that wait, and the most open windows, that one status shows.
const WAITING_MAX: usize = enforcer_proto::wire::CURRENT_TOLD_MAX;
/// The most requests and the most windows besides that have ended, the newest. The others are counted, and each request can be asked for by itself.
const ENDED_MAX: usize = 64;
/// The most bytes that they may take in the frame, requests and windows each.
const SHOWN_BYTES_MAX: usize = 768 * 1024;
/// The most bytes of one fault that is shown; a longer one is shortened.
const FAULT_BYTES_MAX: usize = 1024;
/// The most faults that are shown; those past it are counted in the place of the last.
const FAULTS_MAX: usize = 64;
/// The most checks that are shown: more than there are.
const CHECKS_MAX: usize = 24;
/// The most bytes of what is said of one.
const CHECK_BYTES_MAX: usize = 512;
/// The most policy rules whose words are shown.
const RULES_MAX: usize = 32;
/// The most bytes of what a policy rule says; longer ones are shortened.
const RULE_BYTES_MAX: usize = 512;
// A status always fits a frame.
const _: () = assert!(
    2 * SHOWN_BYTES_MAX
        + AGENTS_BYTES_MAX
        + ON_HOST_BYTES_MAX
        + FAULTS_MAX * FAULT_BYTES_MAX
        + CHECKS_MAX * CHECK_BYTES_MAX
        + RULES_MAX * RULE_BYTES_MAX
        + 64 * 1024
        < FRAME_BYTES_MAX
);

pub(super) fn grant(now: Now, grant: &Grant) -> GrantView {
    let open = grant.is_open_at(now);
    GrantView {
        grant: grant.id,
        request: grant.request,
        agent: grant.agent.clone(),
        scope: grant.scope.clone(),
        approver: grant.approver.to_string(),
        break_glass: grant.break_glass.clone(),
        open,
        closes_in_ns: if open {
            grant.closes_boot_ns.saturating_sub(now.boot_ns)
        } else {
            0
        },
        lasts_ns: grant.closes_boot_ns.saturating_sub(grant.opens_boot_ns),
        closes_unix_ns: grant
            .closed
            .map_or(grant.closes_unix_ns, |(_, at)| at.unix_ns),
        closed: grant.closed.map(|(reason, _)| reason.to_string()),
        queries: grant.usage.queries,
        queries_max: grant.budget.queries_max,
        jobs_at_once: grant.usage.jobs_at_once(),
        jobs_at_once_max: grant.budget.jobs_at_once_max,
        bytes: grant.usage.bytes,
        held_bytes: grant.usage.held_bytes(),
        bytes_max: grant.budget.bytes_max,
        query_bytes_max: grant.budget.query_bytes_max,
        returned_bytes: grant.usage.returned_bytes,
        returned_bytes_max: grant.budget.returned_bytes_max,
    }
}

pub(super) fn request(
    now: Now,
    policy: &Policy,
    ledger: &Ledger,
    waiting: &Waiting,
    request: &Request,
) -> RequestView {
    // As the policy is now: what was asked under another may be covered no more.
    let covered = policy.cover(&request.agent, &request.ask).ok();
    let rule = covered.map(|covered| covered.rule);
    let is_pending = request.state == RequestState::Pending;
    let wanting = rule.filter(|_| is_pending).and_then(|rule| {
        let wanting = policy.wanting(rule, &request.votes)?;
        Some(wanting_said(request.id, rule, &wanting))
    });
    let counts = |vote: &&Vote| rule.is_none_or(|rule| policy.counts(rule, vote));
    let agreed = request.votes.iter().filter(counts);
    // What nobody can grant any more is shown as it was.
    let as_it_was = || Offered {
        offer: request.offer.clone(),
        digest: request.digest.clone(),
    };
    let Offered { offer, digest } = match rule.filter(|_| is_pending) {
        Some(rule) => request.offered(rule),
        None => as_it_was(),
    };
    let (grant, reason) = match &request.state {
        RequestState::Approved(grant) => (Some(*grant), None),
        RequestState::Denied(reason) => (None, Some(reason.clone())),
        RequestState::Pending | RequestState::Expired | RequestState::Withdrawn => (None, None),
    };
    RequestView {
        request: request.id,
        agent: request.agent.clone(),
        uid: request.process.uid,
        pid: request.process.pid,
        comm: request.process.comm.clone(),
        origin: request.origin.clone(),
        joined: request.joined.iter().copied().collect(),
        ask: request.ask.clone(),
        scope: offer.scope,
        ttl: offer.ttl,
        budget: offer.budget,
        digest,
        agreed: agreed.map(|vote| vote.uid).collect(),
        wanting,
        held_in_day_s: ledger.held_in_day(&request.agent, now) / NS_PER_S,
        held_in_day_s_max: rule.map_or(0, |rule| rule.limits.duty_ns_max() / NS_PER_S),
        rule: covered
            .filter(|_| is_pending)
            .map_or(request.rule, |covered| covered.number),
        state: state_word(&request.state).to_owned(),
        grant,
        reason,
        from_query: request.from_query.clone(),
        queries: waiting.queries(request.id),
        ends_with_process: request.ends_with_process,
        expires_in_ns: request.expires_boot_ns.saturating_sub(now.boot_ns),
    }
}

/// What the rules say that these requests wait under, as far as the caller watches over an agent of theirs.
fn rules(policy: &Policy, caller: &Caller, shown: &[RequestView]) -> Vec<RuleView> {
    let pending = shown.iter().filter(|view| view.state == "pending");
    let numbers: BTreeSet<u32> = pending.map(|view| view.rule).collect();
    let said = |number: u32| {
        let at = usize::try_from(number).ok()?.checked_sub(1)?;
        let rule = policy.rules.get(at)?;
        let mut agents = rule.agents.iter();
        let is_told = agents.any(|agent| may_watch_over(policy, caller, agent));
        is_told.then(|| {
            let mut said = rule.said();
            shorten(&mut said, RULE_BYTES_MAX);
            RuleView { rule: number, said }
        })
    };
    let told = numbers.into_iter().filter_map(said);
    told.take(RULES_MAX).collect()
}

/// A request as it is shown to whoever may not decide for its agent, and to that agent: nothing is told of the processes outside its workload.
fn as_unwatched(
    policy: &Policy,
    ledger: &Ledger,
    request: &Request,
    view: RequestView,
) -> RequestView {
    let view = RequestView {
        comm: String::new(),
        origin: None,
        ..view
    };
    as_named(policy, ledger, request, view)
}

/// A request that was made of a query, as it is shown to whoever may not decide for its agent, and to that agent: as if BigQuery had never been asked
/// what it needs. Nothing of it depends on what the dry run said, the digest included, or those who must agree; only once its window is open is
/// its scope shown, since that is what may be used.
fn as_named(
    policy: &Policy,
    ledger: &Ledger,
    request: &Request,
    mut view: RequestView,
) -> RequestView {
    let Some(from) = &request.from_query else {
        return view;
    };
    view.from_query = Some(from.without_estimate());
    view.digest = String::new();
    view.agreed = Vec::new();
    let granted = view.grant.and_then(|grant| ledger.grant(grant));
    let Some(named) = &from.named else {
        view.wanting = wanting_of_nobody(policy, request, &request.ask);
        return view;
    };
    let (asked_ttl, offered_ttl) = (view.ask.ttl, view.ttl);
    view.ask = named.as_ask(&request.ask);
    view.scope = granted.map_or_else(|| named.scope.clone(), |grant| grant.scope.clone());
    view.ttl = if offered_ttl < asked_ttl {
        offered_ttl.min(named.ttl)
    } else {
        named.ttl
    };
    let covered = policy.cover(&request.agent, &view.ask).ok();
    view.rule = covered.map_or(named.rule, |covered| covered.number);
    // Which rule covers all that it needs, and what that lets a window use, is of the dry run.
    let of_named = || covered.map(|covered| view.ask.within(&covered.rule.budget));
    view.budget = granted.map_or_else(|| of_named().unwrap_or(Budget::NONE), |grant| grant.budget);
    view.held_in_day_s_max =
        covered.map_or(0, |covered| covered.rule.limits.duty_ns_max() / NS_PER_S);
    view.wanting = wanting_of_nobody(policy, request, &view.ask);
    view
}

/// Who must still agree, and how, where that is by a signature: the console makes none, and whoever looks at the request there is to know before.
fn wanting_said(id: RequestId, rule: &Rule, wanting: &Wanting) -> String {
    let said = format!("{wanting}, of: {}", rule.who_decides());
    if rule.must_sign {
        return format!(
            "{said}; only signed, which the console cannot do: enforcer approve {id} --sign KEY"
        );
    }
    said
}

/// Who would have to agree to `ask` where nobody has yet.
fn wanting_of_nobody(policy: &Policy, request: &Request, ask: &Ask) -> Option<String> {
    let rule = policy.cover(&request.agent, ask).ok()?.rule;
    let is_pending = request.state == RequestState::Pending;
    let wanting = is_pending
        .then(|| rule.quorum.wanting(&rule.approvers, &[]))
        .flatten()?;
    Some(wanting_said(request.id, rule, &wanting))
}

/// What a status is to show.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    /// As much as finds room.
    All,
    /// One request, and nothing else.
    One(&'a Request),
}

/// What may be shown, in the order in which it finds room: what waits or is open, then what has ended.
struct ByRoom<'a, H> {
    current: Vec<&'a H>,
    ended: Vec<&'a H>,
}

/// Requests in the order in which they find room: first those that wait, and of those the ones that the caller may decide on; the oldest of each
/// agent comes before the next of any, so that nobody's requests stand before another's. Then those that have ended, newest first.
fn by_room<'a>(policy: &Policy, ledger: &'a Ledger, caller: &Caller) -> ByRoom<'a, Request> {
    let own = |held: &&Request| caller.agent.as_ref().is_none_or(|own| *own == held.agent);
    let (waiting, ended): (Vec<_>, Vec<_>) = ledger
        .requests()
        .filter(own)
        .partition(|held| held.state == RequestState::Pending);
    let mut places = BTreeMap::new();
    let mut waiting: Vec<_> = waiting
        .into_iter()
        .map(|held| {
            let is_others = !may_decide_on(policy, caller, held);
            let place: &mut u64 = places.entry((&held.agent, is_others)).or_default();
            *place += 1;
            ((is_others, *place, held.id), held)
        })
        .collect();
    waiting.sort_by_key(|(rank, _)| *rank);
    ByRoom {
        current: waiting.into_iter().map(|(_, held)| held).collect(),
        ended: ended.into_iter().rev().collect(),
    }
}

/// What is shown of requests or of windows.
struct Seen<V> {
    views: Vec<V>,
    /// How many more wait or are open.
    current_left_out: usize,
    /// How many more have ended.
    ended_left_out: usize,
}

impl<V> Seen<V> {
    const fn none() -> Self {
        Self {
            views: Vec::new(),
            current_left_out: 0,
            ended_left_out: 0,
        }
    }
}

/// As many of `held` as one status shows. Only what is shown is made a view of.
fn shown<H, V: Serialize>(held: &ByRoom<'_, H>, view: impl Fn(&H) -> V) -> Seen<V> {
    let current = held.current.iter().take(WAITING_MAX);
    let ended = held.ended.iter().take(ENDED_MAX);
    let mut bytes = 0;
    let views: Vec<V> = current
        .chain(ended)
        .map(|held| view(held))
        .take_while(|view| {
            bytes += encoded_bytes(view);
            bytes <= SHOWN_BYTES_MAX
        })
        .collect();
    // Those that wait or are open come first.
    let current = held.current.len().min(WAITING_MAX).min(views.len());
    Seen {
        current_left_out: held.current.len() - current,
        ended_left_out: held.ended.len() - (views.len() - current),
        views,
    }
}

/// The requests that are shown, newest last, and how many more there are.
fn requests(
    now: Now,
    policy: &Policy,
    ledger: &Ledger,
    waiting: &Waiting,
    caller: &Caller,
    held: &ByRoom<'_, Request>,
) -> Seen<RequestView> {
    let mut seen = shown(held, |held| {
        let view = request(now, policy, ledger, waiting, held);
        if may_watch_over(policy, caller, &held.agent) {
            view
        } else {
            as_unwatched(policy, ledger, held, view)
        }
    });
    seen.views.sort_by_key(|view| view.request);
    seen
}

/// The windows that are shown, newest last and open ones before others, and how many more there are.
fn grants(now: Now, ledger: &Ledger, caller: &Caller) -> Seen<GrantView> {
    let own = |held: &&Grant| caller.agent.as_ref().is_none_or(|own| *own == held.agent);
    let held = ledger.grants().rev().filter(own);
    let (current, ended) = held.partition(|held| held.is_open_at(now));
    let mut seen = shown(&ByRoom { current, ended }, |held| grant(now, held));
    seen.views.sort_by_key(|view| view.grant);
    seen
}

/// What is looked at, as much of it as has room.
fn checks(parts: &Parts) -> Vec<CheckView> {
    let mut checks = parts.kernel.checks();
    checks.truncate(CHECKS_MAX);
    for check in &mut checks {
        shorten(&mut check.said, CHECK_BYTES_MAX);
    }
    checks
}

pub(super) fn status(
    now: Now,
    parts: &Parts,
    ledger: &Ledger,
    waiting: &Waiting,
    (caller, what): (&Caller, Shown<'_>),
    log: LogView,
    mut unhealthy: Vec<String>,
) -> Status {
    let (held, grants, (agents, agents_left_out)) = match what {
        Shown::All => (
            by_room(&parts.policy, ledger, caller),
            grants(now, ledger, caller),
            agents(now, &parts.policy, ledger, caller),
        ),
        Shown::One(request) => {
            let one = ByRoom {
                current: vec![request],
                ended: Vec::new(),
            };
            (one, Seen::none(), (Vec::new(), 0))
        }
    };
    let requests = requests(now, &parts.policy, ledger, waiting, caller, &held);
    keep(&mut unhealthy, FAULTS_MAX);
    for fault in &mut unhealthy {
        shorten(fault, FAULT_BYTES_MAX);
    }
    // What the host has and how much happens on it is nothing to an agent.
    let is_agent = caller.agent.is_some();
    let (kernel, log, checks) = if is_agent {
        Default::default()
    } else {
        (parts.kernel.counters(), log, checks(parts))
    };
    Status {
        now,
        host: parts.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        // Its owner knows.
        started_unix_ns: 0,
        unhealthy,
        endpoints: parts.kernel.endpoints(),
        checks,
        enforce: parts.kernel.enforced(),
        kernel,
        log,
        rules: if is_agent {
            Vec::new()
        } else {
            rules(&parts.policy, caller, &requests.views)
        },
        requests: requests.views,
        requests_waiting_left_out: requests.current_left_out as u64,
        requests_left_out: requests.ended_left_out as u64,
        grants_left_out: (grants.current_left_out + grants.ended_left_out) as u64,
        grants: grants.views,
        // The control socket knows them: the engine waits for none and asks none.
        hooks: Vec::new(),
        agents,
        agents_left_out,
    }
}

#[cfg(test)]
mod tests;
