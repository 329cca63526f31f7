//! What a command says after it has ended windows: what the log shows of it.

use std::path::Path;
use std::time::Duration;

use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use serde_json::{Value, json};

use crate::app::Model;
use crate::app::popup::Deed;
use crate::app::proof::{Proof, Proofs};
use crate::app::queries::State;
use crate::clock::Clock;
use crate::link::LinkError;

/// How long the log is waited for, to have the close and the last answer.
const WAIT: Duration = Duration::from_secs(3);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

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

/// What the log shows of their end, once it has all of it, or after [`WAIT`].
pub(super) fn proofs(socket: &Path, ended: &[Ended]) -> Result<Vec<(Ended, Proof)>, LinkError> {
    let began = Clock::begin();
    loop {
        let model = super::seen(socket, true)?;
        let mut proofs = Proofs::default();
        proofs.begin(String::new(), ended.to_vec(), model.tail.iter());
        let found: Vec<_> = ended
            .iter()
            .map(|(grant, agent)| ((*grant, agent.clone()), proofs.of(*grant)))
            .collect();
        let runs = model.queries.iter().any(|query| {
            query.state == State::Running && ended.iter().any(|(grant, _)| *grant == query.grant)
        });
        let is_whole = !runs && found.iter().all(|(_, proof)| proof.closed.is_some());
        if is_whole || began.elapsed() >= WAIT {
            return Ok(found);
        }
        std::thread::sleep(LOOK);
    }
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
