//! What a start makes of the log: the ledger, from the newest snapshot that can be believed and what follows it, or from the whole log.

use std::path::Path;

use enforcer_proto::event::Event;
use enforcer_proto::ledger::Ledger;

use super::scan::{Scanned, scan};
use super::snapshot::{self, Loaded};
use super::{AuditError, End, Log, Opened, io_error, take};

/// What was rebuilt.
#[derive(Debug)]
pub struct Rebuilt {
    /// The ledger, as the log's last record left it.
    pub ledger: Ledger,
    /// The log, ready to append.
    pub opened: Opened,
    /// The record whose snapshot it was made from; absent where the whole log was read. What is before it has not been checked now.
    pub resumed: Option<End>,
    /// Snapshots that could not be used, and why.
    pub aside: Vec<String>,
}

/// Opens the log in `dir` and makes the ledger of it.
///
/// # Errors
/// [`AuditError`]: unreadable, unwritable, or a chain that does not verify.
pub fn rebuild(dir: &Path, boot_id: &str) -> Result<Rebuilt, AuditError> {
    let lock = take(dir)?;
    let mut unusable = Vec::new();
    let mut resumed = None;
    for path in snapshot::files(dir).map_err(io_error("list", dir))? {
        match resume(dir, &path) {
            Ok(found) => {
                resumed = Some(found);
                break;
            }
            Err(why) => unusable.push((path, why)),
        }
    }
    let (ledger, scanned, resumed) = match resumed {
        Some((ledger, scanned, from)) => (ledger, scanned, Some(from)),
        None => {
            let mut ledger = Ledger::default();
            let scanned = scan(dir, None, |record| {
                ledger.take_record(record);
            })?;
            (ledger, scanned, None)
        }
    };
    let opened = Log::continued(dir, boot_id, lock, scanned)?;
    let mut aside = Vec::new();
    for (path, why) in unusable {
        let why = format!("{}: {why}", path.display());
        tracing::warn!(why, "a snapshot of the ledger cannot be used");
        snapshot::set_aside(&path).map_err(io_error("set aside", &path))?;
        aside.push(why);
    }
    Ok(Rebuilt {
        ledger,
        opened,
        resumed,
        aside,
    })
}

/// The ledger from one snapshot and what follows it. Gives what is wrong with the snapshot where it cannot be believed; whether something is
/// wrong with the log is seen when that is read whole.
fn resume(dir: &Path, path: &Path) -> Result<(Ledger, Scanned, End), String> {
    let Loaded {
        known,
        mut ledger,
        sha256,
    } = snapshot::load(path)?;
    let mut is_named = false;
    let scanned = scan(dir, Some(&known), |record| {
        ledger.take_record(record);
        if let Event::SnapshotTaken {
            records,
            sha256: named,
        } = &record.event
        {
            is_named |= *records == known.records && *named == sha256;
        }
    });
    let scanned = scanned.map_err(|error| format!("the log does not go on from it: {error}"))?;
    if scanned.chain.count() < known.records {
        return Err(format!(
            "it was taken at record {}, and the log has not so many",
            known.records
        ));
    }
    if !is_named {
        return Err("no record of the log names it: the daemon ended before, or it is not the one that was taken".to_owned());
    }
    let from = End {
        records: known.records,
        head: known.head,
    };
    Ok((ledger, scanned, from))
}
