//! The doctor over the control socket: each check as it is made, then an end. For root alone: it uses every agent's identity.

use enforcer_proto::event::{Event, Refuser};
use enforcer_proto::principal::{AgentName, Caller};
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::Reply;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Control, LinkError, patient, refused, send};
use crate::doctor::Asked;
use crate::tally::Refused;

/// How many checks wait to be sent before the next is made.
const WAITING: usize = 16;

/// Has the doctor look, for as long as somebody listens.
pub(super) async fn serve(
    stream: &mut UnixStream,
    control: &Control,
    caller: &Caller,
    (agent, digest): (Option<AgentName>, String),
) -> Result<(), LinkError> {
    if caller.agent.is_some() || caller.process.uid != 0 {
        control.engine.count_refused(Refused {
            who: caller.into(),
            by: Refuser::Control,
            code: Code::CallerForbidden,
        });
        let what = format!(
            "Uid {} may not have the way to Google looked at: only root may, outside every agent's workload",
            caller.process.uid
        );
        return patient(send(
            stream,
            &refused(Refusal::new(Code::CallerForbidden, what)),
        ))
        .await;
    }
    // Its tokens are of no window: that there are any is on record before they are minted.
    let looked = Event::WayExamined {
        process: caller.process.clone(),
        of: agent.as_ref().map(ToString::to_string),
    };
    if let Err(refusal) = control.engine.record(looked).await {
        return patient(send(stream, &refused(refusal))).await;
    }
    let (to, mut checks) = mpsc::channel(WAITING);
    let look = control.doctor.examine(Asked { agent, digest }, to);
    tokio::pin!(look);
    let mut looked = None;
    loop {
        tokio::select! {
            biased;
            check = checks.recv() => match check {
                Some(check) => patient(send(stream, &Reply::Checked(Box::new(check)))).await?,
                None => break,
            },
            done = &mut look, if looked.is_none() => looked = Some(done),
            // Whoever waits says nothing: what can be read is that it hung up, or what does not belong here.
            _ = stream.read_u8() => return Ok(()),
        }
    }
    let end = match looked.flatten() {
        Some(()) => Reply::Done,
        None => refused(Refusal::new(
            Code::Overloaded,
            "Another look at the way to Google is under way; try again when it has ended",
        )),
    };
    patient(send(stream, &end)).await
}
