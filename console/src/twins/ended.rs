//! What a command says after it has ended windows: what the log shows of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use enforcer_proto::event::Event;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::Filter;
use serde_json::{Value, json};

use crate::app::Model;
use crate::app::popup::Deed;
use crate::app::proof::{Proof, Proofs};
use crate::app::queries::{Queries, State};
use crate::app::tail::Entry;
use crate::clock::Clock;
use crate::link::LinkError;
use crate::link::lookup::{PROVEN_EACH_MAX, ends_of, newest};

/// How long the log is waited for, to have the close and the last answer.
const WAIT: Duration = Duration::from_secs(3);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// The most records of an agent since its window was closed that are looked at: the newest.
const REFUSED_MAX: u32 = 2_000;

/// A window that is ended, and its agent.
pub(super) type Ended = (GrantId, AgentName);

/// The windows that a deed ends.
pub(super) fn ends(model: &Model, deed: &Deed) -> Vec<Ended> {
    let is_ended = |grant: &enforcer_proto::wire::GrantView| match deed {
        Deed::Revoke(id) => grant.grant == *id,
        Deed::Lock { agent, .. } => grant.agent == *agent,
        Deed::CloseAll => true,
        Deed::Approve(_) | Deed::Deny { .. } | Deed::Unlock { .. } => false,
    };
    let open = model.open().filter(|grant| is_ended(grant));
    open.map(|grant| (grant.grant, grant.agent.clone()))
        .collect()
}

/// What the log shows of their end, once it has all of it, or after [`WAIT`]. It is asked for those windows alone: others may write as much as they like.
pub(super) fn proofs(socket: &Path, ended: &[Ended]) -> Result<Vec<(Ended, Proof)>, LinkError> {
    let began = Clock::begin();
    let grants: Vec<GrantId> = ended.iter().map(|(grant, _)| *grant).collect();
    loop {
        let found = ends_of(socket, &grants)?;
        let mut proofs = Proofs::default();
        proofs.begin(String::new(), ended.to_vec(), std::iter::empty());
        proofs.complete(found.values());
        let mut queries = Queries::default();
        found.values().for_each(|entry| queries.take(&entry.record));
        let runs = queries
            .iter()
            .any(|query| query.state == State::Running && grants.contains(&query.grant));
        let is_whole = !runs && proofs.unproven().is_empty();
        if is_whole || began.elapsed() >= WAIT {
            take_refused(socket, ended, &found, &mut proofs)?;
            let proof = |of: &Ended| (of.clone(), proofs.of(of.0));
            return Ok(ended.iter().map(proof).collect());
        }
        std::thread::sleep(LOOK);
    }
}

/// Takes in what was refused to the agents of windows since those were closed; of very many it is not asked.
fn take_refused(
    socket: &Path,
    ended: &[Ended],
    found: &BTreeMap<u64, Entry>,
    proofs: &mut Proofs,
) -> Result<(), LinkError> {
    if ended.len() > PROVEN_EACH_MAX {
        return Ok(());
    }
    for (grant, agent) in ended {
        let is_close = |entry: &&Entry| matches!(&entry.record.event, Event::Closed { grant: of, .. } if of == grant);
        let Some(close) = found.values().find(is_close).map(|entry| entry.record.seq) else {
            continue;
        };
        let since = Filter {
            agent: Some(agent.clone()),
            first: Some(close.saturating_add(1)),
            ..Filter::default()
        };
        let since = newest(socket, since, REFUSED_MAX)?;
        let first = since
            .first()
            .filter(|_| since.len() >= REFUSED_MAX as usize);
        let unseen = first.map_or(0, |entry| entry.record.seq - close - 1);
        proofs.refused_since(*grant, &since, unseen);
    }
    Ok(())
}

/// The same as JSON.
pub(super) fn as_json((grant, agent): &Ended, proof: &Proof) -> Value {
    json!({
        "grant": grant, "agent": agent,
        "closed_unix_ns": proof.closed.as_ref().map(|(unix_ns, _)| unix_ns),
        "why": proof.closed.as_ref().map(|(_, why)| why),
        "last_answer_unix_ns": proof.last_byte, "cut": proof.cut, "jobs": proof.cancelled,
        "refused": proof.refused, "last_refused_unix_ns": proof.last_refused, "let_go": proof.let_go,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::fake::{Fake, line};

    #[test]
    fn a_commands_proof_has_the_last_answer_and_the_refusals_since_however_much_others_write() {
        let finished = |seq: u64, grant: &str| {
            let event = json!({"kind": "query_finished", "query": format!("q-{seq}"), "grant": grant, "status": 200, "job": null,
                "destination": null, "bytes": 1, "body_bytes": 1, "duration_us": 1, "trouble": null});
            line(seq, "h", &event)
        };
        let close = json!({"kind": "closed", "grant": "g-2", "agent": "finance-bot", "reason": "revoked", "by": null, "queries": 1, "bytes": 1});
        let refused = json!({"kind": "kernel_refused", "agent": "finance-bot", "process": {"pid": 1, "start_boot_ns": 1, "uid": 1, "comm": "x"},
            "verdict": "udp", "destination": "192.0.2.1:443", "count": 3});
        let mut log = vec![finished(1, "g-2")];
        log.extend((2..=3_000).map(|seq| finished(seq, "g-9")));
        log.push(line(3_001, "h", &close));
        log.push(line(3_002, "h", &refused));
        log.extend((3_003..=6_000).map(|seq| finished(seq, "g-9")));
        let daemon = Fake::with("ended", log);
        let ended = [(
            "g-2".parse().expect("an id"),
            "finance-bot".parse().expect("a name"),
        )];
        let proofs = proofs(daemon.socket(), &ended).expect("it answers");
        let [(_, proof)] = &proofs[..] else {
            panic!("{proofs:?}");
        };
        assert_eq!(proof.last_byte, Some(1_000));
        assert!(proof.closed.is_some());
        assert_eq!((proof.refused, proof.let_go), (3, 0));
    }
}
