//! The log over the control socket: lines as they are on disk. Not for agents.

use enforcer_proto::principal::Caller;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{RECORDS_PER_REPLY_MAX, Reply};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::{Control, LinkError, patient, refused, send};
use crate::audit::Place;

/// What one reply of several log lines may hold, bytes. A longer line goes alone: a frame holds any.
const REPLY_BYTES_MAX: usize = 512 * 1024;

/// Sends the lines from `from` on, then an empty reply; with `follow`, goes on as records come.
pub(super) async fn serve(
    stream: &mut UnixStream,
    control: &Control,
    caller: &Caller,
    from: u64,
    follow: bool,
) -> Result<(), LinkError> {
    if !control.identify.may_decide(caller) {
        let refusal = Refusal::new(
            Code::CallerForbidden,
            format!("Uid {} may not read the log", caller.process.uid),
        );
        return patient(send(stream, &refused(refusal))).await;
    }
    let mut records = control.engine.records();
    let mut place = Place::at_record(&control.audit_dir, from);
    loop {
        let until = *records.borrow_and_update();
        loop {
            let (read, lines) = tokio::task::spawn_blocking(move || {
                let lines = place.read(until, RECORDS_PER_REPLY_MAX, REPLY_BYTES_MAX);
                (place, lines)
            })
            .await
            .map_err(std::io::Error::other)?;
            place = read;
            let lines = lines?;
            if lines.is_empty() {
                break;
            }
            patient(send(stream, &Reply::Records(lines))).await?;
        }
        if !follow {
            return patient(send(stream, &Reply::Records(Vec::new()))).await;
        }
        tokio::select! {
            grown = records.changed() => if grown.is_err() { return Ok(()) },
            // A follower says nothing: what can be read is that it hung up, or what does not belong here.
            _ = stream.read_u8() => return Ok(()),
        }
    }
}
