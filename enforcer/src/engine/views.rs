//! The ledger as shown over the control socket. Agents see only their own.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_proto::ledger::{
    Grant, Ledger, Lock, Offered, Request, RequestState, may_decide_on, may_watch_over,
};
use enforcer_proto::policy::{Ask, Budget, Policy, Vote};
use enforcer_proto::principal::{AgentName, Caller};
use enforcer_proto::text::{keep, shorten};
use enforcer_proto::time::{NS_PER_S, Now};
use enforcer_proto::wire::{
    AgentView, FRAME_BYTES_MAX, GrantView, LockView, LogView, RequestView, Status, encoded_bytes,
};
use serde::Serialize;

use super::Parts;
use super::asking::Waiting;
use super::owner::state_word;

/// The most requests and the most windows one status shows: first those that wait or are open, then the newest. The others are counted, and
/// each request can be asked for by itself.
const SHOWN_MAX: usize = 64;
/// The most bytes that they may take in the frame, requests and windows each.
const SHOWN_BYTES_MAX: usize = 768 * 1024;
/// The most agents that one status shows.
const AGENTS_MAX: usize = 128;
/// The most bytes that one of them takes: a day, eight processes, a reason.
const AGENT_BYTES_MAX: usize = 3 * 1024;
/// The most bytes of one fault that is shown; a longer one is shortened.
const FAULT_BYTES_MAX: usize = 1024;
/// The most faults that are shown; those past it are counted in the place of the last.
const FAULTS_MAX: usize = 64;
// A status always fits a frame.
const _: () = assert!(
    2 * SHOWN_BYTES_MAX + AGENTS_MAX * AGENT_BYTES_MAX + FAULTS_MAX * FAULT_BYTES_MAX + 64 * 1024
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
        Some(format!("{wanting}, of: {}", rule.who_decides()))
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

/// Who would have to agree to `ask` where nobody has yet.
fn wanting_of_nobody(policy: &Policy, request: &Request, ask: &Ask) -> Option<String> {
    let rule = policy.cover(&request.agent, ask).ok()?.rule;
    let is_pending = request.state == RequestState::Pending;
    let wanting = is_pending
        .then(|| rule.quorum.wanting(&rule.approvers, &[]))
        .flatten()?;
    Some(format!("{wanting}, of: {}", rule.who_decides()))
}

/// What a status is to show.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    /// As much as finds room.
    All,
    /// One request, and nothing else.
    One(&'a Request),
}

/// Requests in the order in which they find room: first those that wait, and of those the ones that the caller may decide on; the oldest of each
/// agent comes before the next of any, so that nobody's requests stand before another's. Then those that have ended, newest first.
fn by_room<'a>(policy: &Policy, ledger: &'a Ledger, caller: &Caller) -> Vec<&'a Request> {
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
    let waiting = waiting.into_iter().map(|(_, held)| held);
    waiting.chain(ended.into_iter().rev()).collect()
}

/// As many of `held`, in the order in which they find room, as one status shows. Only what is shown is made a view of.
fn shown<H, V: Serialize>(held: impl IntoIterator<Item = H>, view: impl Fn(H) -> V) -> Vec<V> {
    let mut bytes = 0;
    held.into_iter()
        .take(SHOWN_MAX)
        .map(view)
        .take_while(|view| {
            bytes += encoded_bytes(view);
            bytes <= SHOWN_BYTES_MAX
        })
        .collect()
}

/// The requests that are shown, newest last, and how many more wait and have ended.
fn requests(
    now: Now,
    parts: &Parts,
    ledger: &Ledger,
    waiting: &Waiting,
    caller: &Caller,
    held: Vec<&Request>,
) -> (Vec<RequestView>, u64, u64) {
    let all = held.len();
    let is_waiting = |held: &&&Request| held.state == RequestState::Pending;
    let wait = held.iter().filter(is_waiting).count();
    let mut seen = shown(held, |held| {
        let view = request(now, &parts.policy, ledger, waiting, held);
        if may_watch_over(&parts.policy, caller, &held.agent) {
            view
        } else {
            as_named(&parts.policy, ledger, held, view)
        }
    });
    // Those that wait come first.
    let waiting_left_out = wait.saturating_sub(seen.len());
    let left_out = all - seen.len() - waiting_left_out;
    seen.sort_by_key(|view| view.request);
    (seen, waiting_left_out as u64, left_out as u64)
}

/// The windows that are shown, newest last and open ones before others, and how many more there are.
fn grants(now: Now, ledger: &Ledger, caller: &Caller) -> (Vec<GrantView>, u64) {
    let own = |held: &&Grant| caller.agent.as_ref().is_none_or(|own| *own == held.agent);
    let held = ledger.grants().rev().filter(own);
    let (open, closed): (Vec<_>, Vec<_>) = held.partition(|held| held.is_open_at(now));
    let all = open.len() + closed.len();
    let mut seen = shown(open.into_iter().chain(closed), |held| grant(now, held));
    seen.sort_by_key(|view| view.grant);
    let left_out = (all - seen.len()) as u64;
    (seen, left_out)
}

/// The agents that the policy names, or that have done something; to an agent, itself alone. Whoever is neither it nor watches over
/// its windows is not told who locked it. What is to be looked for on the host is not among it.
fn agents(now: Now, policy: &Policy, ledger: &Ledger, caller: &Caller) -> Vec<AgentView> {
    let named = policy.rules.iter().flat_map(|rule| &rule.agents);
    let all: BTreeSet<&AgentName> = named.chain(ledger.agents()).collect();
    let own = |agent: &&AgentName| caller.agent.as_ref().is_none_or(|own| own == *agent);
    let all = all.into_iter().filter(own).take(AGENTS_MAX);
    let asked = asked(ledger);
    let view = |name: &AgentName| {
        let (approved, denied, undecided) = asked.get(name).copied().unwrap_or_default();
        // The agent hears it when it asks, too.
        let is_told = may_watch_over(policy, caller, name) || caller.agent.as_ref() == Some(name);
        AgentView {
            agent: name.clone(),
            workload: String::new(),
            processes: 0,
            some: Vec::new(),
            day: ledger.day(name, now),
            held_in_day_s: ledger.held_in_day(name, now) / NS_PER_S,
            approved,
            denied,
            undecided,
            locked: ledger.lock_of(name).map(|lock| lock_view(lock, is_told)),
        }
    };
    all.map(view).collect()
}

/// What became of the requests that are remembered of each agent: granted, denied, left undecided.
fn asked(ledger: &Ledger) -> BTreeMap<&AgentName, (u64, u64, u64)> {
    let mut asked = BTreeMap::<_, (u64, u64, u64)>::new();
    for request in ledger.requests() {
        let counts = asked.entry(&request.agent).or_default();
        match request.state {
            RequestState::Approved(_) => counts.0 += 1,
            RequestState::Denied(_) => counts.1 += 1,
            RequestState::Expired | RequestState::Withdrawn => counts.2 += 1,
            RequestState::Pending => {}
        }
    }
    asked
}

fn lock_view(lock: &Lock, is_told: bool) -> LockView {
    let (by, reason) = if is_told {
        (lock.by.to_string(), lock.reason.clone())
    } else {
        ("a person".to_owned(), String::new())
    };
    LockView {
        by,
        reason,
        since_unix_ns: lock.since.unix_ns,
    }
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
    let (held, (grants, grants_left_out), agents) = match what {
        Shown::All => {
            let held = by_room(&parts.policy, ledger, caller);
            let agents = agents(now, &parts.policy, ledger, caller);
            (held, grants(now, ledger, caller), agents)
        }
        Shown::One(request) => (vec![request], (Vec::new(), 0), Vec::new()),
    };
    let (requests, requests_waiting_left_out, requests_left_out) =
        requests(now, parts, ledger, waiting, caller, held);
    keep(&mut unhealthy, FAULTS_MAX);
    for fault in &mut unhealthy {
        shorten(fault, FAULT_BYTES_MAX);
    }
    // What the host has and how much happens on it is nothing to an agent.
    let is_agent = caller.agent.is_some();
    let for_people = |held: Vec<String>| if is_agent { Vec::new() } else { held };
    let (kernel, log) = if is_agent {
        Default::default()
    } else {
        (parts.kernel.counters(), log)
    };
    Status {
        now,
        host: parts.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        unhealthy,
        endpoints: parts.kernel.endpoints(),
        guards: for_people(parts.kernel.guards()),
        enforce: parts.kernel.enforced(),
        kernel,
        log,
        requests,
        requests_waiting_left_out,
        requests_left_out,
        grants,
        grants_left_out,
        // The control socket knows them: the engine waits for none and asks none.
        hooks: Vec::new(),
        agents,
    }
}

#[cfg(test)]
mod tests {
    use enforcer_proto::ledger::Command;
    use enforcer_proto::policy::{Alone, ApproverSet, Limits, Quorum, Rule};
    use enforcer_proto::principal::Process;

    use super::*;

    #[test]
    fn long_views_are_left_out_before_the_frame_is_full() {
        let shown = shown(0..64, |_| "x".repeat(100_000));
        assert_eq!(shown.len(), 7);
    }

    #[test]
    fn what_the_caller_may_decide_on_finds_room_first_and_each_agents_oldest_before_the_next_of_any()
     {
        let rule = Rule {
            agents: ["a", "b"].map(|name| name.parse().expect("a name")).into(),
            datasets: vec!["p.finance".parse().expect("exact")],
            writable: Vec::new(),
            ddl: Vec::new(),
            buckets: BTreeMap::new(),
            ttl_max: "1h".parse().expect("a ttl"),
            budget: Budget::NONE,
            approvers: ApproverSet {
                uids: [5001].into(),
                gids: [].into(),
            },
            quorum: Quorum::one(),
            must_sign: false,
            alone: Alone::Never,
            break_glass: None,
            limits: Limits::TIGHT,
        };
        let policy = Policy {
            rules: vec![rule],
            signers: Vec::new(),
            own_uids: BTreeMap::new(),
            digest: String::new(),
        };
        let now = Now {
            boot_ns: 1,
            unix_ns: 1,
        };
        let caller = |uid, agent: Option<&str>| Caller {
            process: Process {
                pid: 7,
                start_boot_ns: 1,
                uid,
                comm: "x".into(),
            },
            gids: [].into(),
            agent: agent.map(|name| name.parse().expect("a name")),
        };
        let mut ledger = Ledger::default();
        // The first is of whoever looks, who cannot decide on it.
        for (uid, agent) in [(5001, "a"), (1, "a"), (1, "a"), (1, "a"), (1, "b")] {
            let ask = Ask {
                scope: "p.finance:read".parse().expect("a scope"),
                ttl: "1m".parse().expect("a ttl"),
                reason: "x".into(),
                bytes_max: None,
                queries_max: None,
            };
            let asked = Command::Request(ask);
            let asked = ledger.decide(now, &policy, &caller(uid, Some(agent)), asked);
            for event in asked.expect("asked").events {
                ledger.apply(now, &event);
            }
        }
        let denied = Command::Deny("r-3".parse().expect("an id"), "no".into());
        let denied = ledger.decide(now, &policy, &caller(5001, None), denied);
        for event in denied.expect("denied").events {
            ledger.apply(now, &event);
        }
        let order = |caller: &Caller| -> Vec<u64> {
            let order = by_room(&policy, &ledger, caller);
            order.into_iter().map(|held| held.id.0).collect()
        };
        assert_eq!(order(&caller(5001, None)), [2, 5, 4, 1, 3]);
        assert_eq!(order(&caller(1, Some("b"))), [5]);
    }
}
