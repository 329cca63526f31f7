//! The ledger as shown over the control socket. Agents see only their own.

use enforcer_proto::ledger::{Grant, Ledger, Request, RequestState};
use enforcer_proto::principal::Caller;
use enforcer_proto::text::shorten;
use enforcer_proto::time::Now;
use enforcer_proto::wire::{
    FRAME_BYTES_MAX, GrantView, LogView, RequestView, Status, encoded_bytes,
};
use serde::Serialize;

use super::Parts;
use super::owner::state_word;

/// The most requests and the most windows one status shows: first those that wait or are open, then the newest. The others are counted.
const SHOWN_MAX: usize = 64;
/// The most bytes that they may take in the frame, requests and windows each.
const SHOWN_BYTES_MAX: usize = 768 * 1024;
/// The most bytes of one fault that is shown; a longer one is shortened.
const FAULT_BYTES_MAX: usize = 1024;
/// The most faults that are shown.
const FAULTS_MAX: usize = 64;
// A status always fits a frame.
const _: () =
    assert!(2 * SHOWN_BYTES_MAX + FAULTS_MAX * FAULT_BYTES_MAX + 64 * 1024 < FRAME_BYTES_MAX);

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

/// As many of `views`, which come newest first, as one status shows, newest last; and how many there are besides.
fn shown<V: Serialize>(views: Vec<V>, comes_first: impl Fn(&V) -> bool) -> (Vec<V>, u64) {
    let all = views.len();
    let (first, then): (Vec<_>, Vec<_>) = views
        .into_iter()
        .enumerate()
        .partition(|(_, view)| comes_first(view));
    let mut bytes = 0;
    let mut shown: Vec<(usize, V)> = first
        .into_iter()
        .chain(then)
        .take(SHOWN_MAX)
        .take_while(|(_, view)| {
            bytes += encoded_bytes(view);
            bytes <= SHOWN_BYTES_MAX
        })
        .collect();
    shown.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
    let left_out = (all - shown.len()) as u64;
    (shown.into_iter().map(|(_, view)| view).collect(), left_out)
}

pub(super) fn status(
    now: Now,
    parts: &Parts,
    ledger: &Ledger,
    caller: &Caller,
    log: LogView,
    mut unhealthy: Vec<String>,
) -> Status {
    let own = |agent: &_| caller.agent.as_ref().is_none_or(|own| own == agent);
    let requests = ledger.requests().rev().filter(|held| own(&held.agent));
    let requests = requests.map(|held| request(now, held)).collect();
    let (requests, requests_left_out) = shown(requests, |view: &RequestView| {
        view.state == state_word(&RequestState::Pending)
    });
    let grants = ledger.grants().rev().filter(|held| own(&held.agent));
    let grants = grants.map(|held| grant(now, held)).collect();
    let (grants, grants_left_out) = shown(grants, |view: &GrantView| view.open);
    unhealthy.truncate(FAULTS_MAX);
    for fault in &mut unhealthy {
        shorten(fault, FAULT_BYTES_MAX);
    }
    Status {
        now,
        host: parts.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        unhealthy,
        endpoints: parts.kernel.endpoints(),
        guards: parts.kernel.guards(),
        enforce: parts.kernel.enforced(),
        kernel: parts.kernel.counters(),
        log,
        requests,
        requests_left_out,
        grants,
        grants_left_out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_shown_before_what_is_newer_and_the_rest_is_counted() {
        // A view is its age and whether it waits; the oldest waits.
        let views: Vec<(u32, bool)> = (0..100).map(|age| (age, age == 99)).collect();
        let (shown, left_out) = shown(views, |(_, waits)| *waits);
        assert_eq!((shown.len(), left_out), (SHOWN_MAX, 36));
        assert_eq!((shown[0], shown[1].0, shown[63].0), ((99, true), 62, 0));
    }

    #[test]
    fn long_views_are_left_out_before_the_frame_is_full() {
        let views: Vec<String> = (0..64).map(|_| "x".repeat(100_000)).collect();
        let (shown, left_out) = shown(views, |_| true);
        assert_eq!((shown.len(), left_out), (7, 57));
    }
}
