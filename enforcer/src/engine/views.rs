//! The ledger as shown over the control socket. Agents see only their own.

use enforcer_proto::ledger::{Grant, Ledger, Request, RequestState};
use enforcer_proto::principal::Caller;
use enforcer_proto::time::Now;
use enforcer_proto::wire::{GrantView, LogView, RequestView, Status};

use super::Parts;
use super::owner::state_word;

/// The most requests and the most windows one status shows; the newest.
const SHOWN_MAX: usize = 64;

pub(super) fn grant(now: Now, grant: &Grant) -> GrantView {
    let open = grant.is_open_at(now);
    GrantView {
        grant: grant.id,
        request: grant.request,
        agent: grant.agent.clone(),
        scope: grant.scope.clone(),
        approver: grant.approver.to_string(),
        open,
        closes_in_ns: if open {
            grant.closes_boot_ns.saturating_sub(now.boot_ns)
        } else {
            0
        },
        closes_unix_ns: grant
            .closed
            .map_or(grant.closes_unix_ns, |(_, at)| at.unix_ns),
        closed: grant.closed.map(|(reason, _)| reason.to_string()),
        queries: grant.usage.queries,
        queries_max: grant.queries_max,
        bytes: grant.usage.bytes,
        bytes_max: grant.bytes_max,
    }
}

fn request(now: Now, request: &Request) -> RequestView {
    let (grant, reason) = match &request.state {
        RequestState::Approved(grant) => (Some(*grant), None),
        RequestState::Denied(reason) => (None, Some(reason.clone())),
        RequestState::Pending | RequestState::Expired => (None, None),
    };
    RequestView {
        request: request.id,
        agent: request.agent.clone(),
        uid: request.process.uid,
        pid: request.process.pid,
        ask: request.ask.clone(),
        digest: request.digest.clone(),
        rule: request.rule,
        state: state_word(&request.state).to_owned(),
        grant,
        reason,
        expires_in_ns: request.expires_boot_ns.saturating_sub(now.boot_ns),
    }
}

pub(super) fn status(
    now: Now,
    parts: &Parts,
    ledger: &Ledger,
    caller: &Caller,
    log: LogView,
    unhealthy: Vec<String>,
) -> Status {
    let own = |agent: &_| caller.agent.as_ref().is_none_or(|own| own == agent);
    let mut requests: Vec<_> = ledger
        .requests()
        .rev()
        .filter(|held| own(&held.agent))
        .take(SHOWN_MAX)
        .map(|held| request(now, held))
        .collect();
    let mut grants: Vec<_> = ledger
        .grants()
        .rev()
        .filter(|held| own(&held.agent))
        .take(SHOWN_MAX)
        .map(|held| grant(now, held))
        .collect();
    requests.reverse();
    grants.reverse();
    Status {
        now,
        host: parts.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        unhealthy,
        endpoints: parts.kernel.endpoints(),
        kernel: parts.kernel.counters(),
        log,
        requests,
        grants,
    }
}
