//! Agents as shown over the control socket, as far as the ledger knows them; what the host has of them is filled in elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use enforcer_proto::ledger::{Ledger, Lock, RequestState, may_watch_over};
use enforcer_proto::policy::Policy;
use enforcer_proto::principal::{AgentName, Caller};
use enforcer_proto::time::{NS_PER_S, Now};
use enforcer_proto::wire::{AgentView, LockView, encoded_bytes};

/// The most agents that one status shows.
const AGENTS_MAX: usize = 1024;
/// The most bytes that they may take in the frame without what the host has of them.
pub(super) const AGENTS_BYTES_MAX: usize = 256 * 1024;
/// The most bytes that what the host has of them may take: their workloads, and some processes of each.
pub const ON_HOST_BYTES_MAX: usize = 160 * 1024;
/// The most bytes by which the numbers of an agent's processes and of its refusals are longer once they are known.
const COUNT_BYTES_MAX: usize = 2 * 8;

/// The agents that the policy names, or that have done something; to an agent, itself alone. Whoever is neither it nor watches over
/// its windows is not told who locked it. What is to be looked for on the host is not among it.
///
/// By name, and how many more there are; where not all find room, those come first that hold a window or wait for one.
pub(super) fn agents(
    now: Now,
    policy: &Policy,
    ledger: &Ledger,
    caller: &Caller,
) -> (Vec<AgentView>, u64) {
    let named = policy.rules.iter().flat_map(|rule| &rule.agents);
    let all: BTreeSet<&AgentName> = named.chain(ledger.agents()).collect();
    let own = |agent: &&AgentName| caller.agent.as_ref().is_none_or(|own| own == *agent);
    let current = current(now, ledger);
    let (first, then): (Vec<_>, Vec<_>) = all
        .into_iter()
        .filter(own)
        .partition(|agent| current.contains(*agent));
    let count = first.len() + then.len();
    let asked = asked(ledger);
    let mut bytes = 0;
    let mut seen: Vec<_> = first
        .into_iter()
        .chain(then)
        .take(AGENTS_MAX)
        .map(|name| agent(now, policy, ledger, caller, (name, &asked)))
        .take_while(|view| {
            bytes += encoded_bytes(view) + COUNT_BYTES_MAX;
            bytes <= AGENTS_BYTES_MAX
        })
        .collect();
    seen.sort_by(|one, other| one.agent.cmp(&other.agent));
    let left_out = (count - seen.len()) as u64;
    (seen, left_out)
}

/// The agents that hold a window or wait for one.
fn current(now: Now, ledger: &Ledger) -> BTreeSet<&AgentName> {
    let open = ledger.open_grants().filter(|grant| grant.is_open_at(now));
    let waiting = ledger.requests();
    let waiting = waiting.filter(|request| request.state == RequestState::Pending);
    let open = open.map(|grant| &grant.agent);
    open.chain(waiting.map(|request| &request.agent)).collect()
}

fn agent(
    now: Now,
    policy: &Policy,
    ledger: &Ledger,
    caller: &Caller,
    (name, asked): (&AgentName, &BTreeMap<&AgentName, (u64, u64, u64)>),
) -> AgentView {
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
        refused: 0,
        locked: ledger.lock_of(name).map(|lock| lock_view(lock, is_told)),
    }
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
