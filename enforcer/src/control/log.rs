//! The log over the control socket: lines as they are on disk. Not for agents.

use enforcer_proto::principal::Caller;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::wire::{RECORDS_PER_REPLY_MAX, Reply};
use tokio::net::UnixStream;

use super::{Control, LinkError, patient, refused, send};
use crate::audit::{Lines, segments};

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
    let mut next = from.max(1);
    loop {
        let until = *records.borrow_and_update();
        while next <= until {
            let dir = control.audit_dir.clone();
            let lines = tokio::task::spawn_blocking(move || read(&dir, next, until))
                .await
                .map_err(std::io::Error::other)??;
            if lines.is_empty() {
                break;
            }
            next += lines.len() as u64;
            patient(send(stream, &Reply::Records(lines))).await?;
        }
        if !follow {
            return patient(send(stream, &Reply::Records(Vec::new()))).await;
        }
        if records.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Up to a reply's worth of lines, from sequence number `from` to `until`. The n-th line of the log has the sequence number n.
fn read(dir: &std::path::Path, from: u64, until: u64) -> std::io::Result<Vec<String>> {
    let (mut seq, mut bytes, mut found) = (0, 0, Vec::new());
    for path in segments(dir)? {
        let mut lines = Lines::open(&path)?;
        while let Some(line) = lines.next_line()? {
            seq += 1;
            if seq < from {
                continue;
            }
            let text = String::from_utf8_lossy(line).into_owned();
            bytes += text.len();
            if seq > until
                || (bytes > REPLY_BYTES_MAX && !found.is_empty())
                || found.len() == RECORDS_PER_REPLY_MAX
            {
                return Ok(found);
            }
            found.push(text);
        }
    }
    Ok(found)
}
