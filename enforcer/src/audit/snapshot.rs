//! Snapshots: what the ledger was at a record, so that a start reads only what follows. A snapshot is believed if it is whole, was made by this
//! version, the log has that record, and a record behind it names the snapshot's digest: so the chain vouches for it, and whoever changes one
//! must rewrite the log as well.
//!
//! `snapshot-NUMBER.json` beside the segments, mode 0600, replaced whole or not at all: a line of JSON, and a line with its SHA-256.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use enforcer_proto::audit::{Hash, sha256_hex};
use enforcer_proto::ledger::{LEDGER_VERSION, Ledger};
use serde::{Deserialize, Serialize};

use super::scan::{Known, LineAt};
use super::{AuditError, Log, io_error};
use crate::atomic_file::{self, Rights};

/// The longest snapshot that is read, bytes. One that would be longer is not written: the log is read then.
pub const SNAPSHOT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How many are kept: a crash may come between a snapshot and the record that names it.
const KEPT: usize = 2;
/// What stands in a snapshot before its ledger, and how. Raised when that changes.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<L> {
    format: u32,
    ledger_version: u32,
    program: String,
    records: u64,
    head: String,
    segment: u32,
    offset: u64,
    ledger: L,
}

/// A ledger at a record, to be written by whoever has the time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    dir: PathBuf,
    known: Known,
    ledger: Ledger,
}

/// A snapshot that is on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The record that it was taken at.
    pub records: u64,
    /// Its digest.
    pub sha256: String,
}

impl Log {
    /// What the ledger is now, which must be what this log's records have made of it; `None` where there is no record.
    #[must_use]
    pub fn snapshot(&self, ledger: &Ledger) -> Option<Snapshot> {
        Some(Snapshot {
            dir: self.dir.clone(),
            known: Known {
                records: self.chain.count(),
                head: self.chain.head(),
                at: self.last_line?,
            },
            ledger: ledger.clone(),
        })
    }
}

impl Snapshot {
    /// Writes it, durably. It counts from the moment on at which a record names it.
    ///
    /// # Errors
    /// When it cannot be written. Nothing is lost then but time at the next start.
    pub fn write(&self) -> Result<Written, AuditError> {
        let body = Body {
            format: FORMAT,
            ledger_version: LEDGER_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            records: self.known.records,
            head: self.known.head.to_string(),
            segment: self.known.at.segment,
            offset: self.known.at.offset,
            ledger: &self.ledger,
        };
        let path = path(&self.dir, self.known.records);
        let write = io_error("write", &path);
        let written = serde_json::to_string(&body)
            .map_err(io::Error::other)
            .and_then(|text| {
                if text.len() as u64 >= SNAPSHOT_BYTES_MAX {
                    return Err(io::ErrorKind::FileTooLarge.into());
                }
                let sha256 = sha256_hex(text.as_bytes());
                let content = format!("{text}\n{sha256}\n");
                atomic_file::replace(&path, content.as_bytes(), Rights::of_mode(0o600))?;
                Ok(sha256)
            });
        Ok(Written {
            records: self.known.records,
            sha256: written.map_err(write)?,
        })
    }
}

/// A snapshot as read; whether a record names it remains to be seen.
pub(super) struct Loaded {
    pub(super) known: Known,
    pub(super) ledger: Ledger,
    pub(super) sha256: String,
}

/// Reads a snapshot. Gives what is wrong with it where it cannot be used.
pub(super) fn load(path: &Path) -> Result<Loaded, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| {
        file.take(SNAPSHOT_BYTES_MAX + 128)
            .read_to_string(&mut text)
    });
    read.map_err(|error| format!("it cannot be read: {error}"))?;
    let (body, rest) = text
        .split_once('\n')
        .ok_or("it has no end: it was torn while it was written")?;
    let sha256 = sha256_hex(body.as_bytes());
    if rest != format!("{sha256}\n") {
        return Err("it has not the digest that it names: it is torn, or was changed".to_owned());
    }
    let body: Body<serde_json::Value> = serde_json::from_str(body)
        .map_err(|error| format!("it is not of a known form: {error}"))?;
    let made_by = (body.format, body.ledger_version, body.program.as_str());
    if made_by != (FORMAT, LEDGER_VERSION, env!("CARGO_PKG_VERSION")) {
        return Err(format!(
            "it was made by another version of the enforcer, {}",
            body.program
        ));
    }
    let head: Hash = body
        .head
        .parse()
        .map_err(|error| format!("it names no record: {error}"))?;
    let ledger = serde_json::from_value(body.ledger)
        .map_err(|error| format!("its ledger is not of a known form: {error}"))?;
    let known = Known {
        records: body.records,
        head,
        at: LineAt {
            segment: body.segment,
            offset: body.offset,
        },
    };
    Ok(Loaded {
        known,
        ledger,
        sha256,
    })
}

fn path(dir: &Path, records: u64) -> PathBuf {
    dir.join(format!("snapshot-{records:012}.json"))
}

/// The snapshots beside a log, newest first.
pub(super) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| {
            name.strip_prefix("snapshot-")?
                .strip_suffix(".json")?
                .parse()
                .ok()
        });
        found.extend(number.map(|number| (number, path)));
    }
    found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Puts a snapshot that cannot be used where the next start does not look. There is one such place: what was there before goes.
pub(super) fn set_aside(path: &Path) -> io::Result<()> {
    std::fs::rename(path, path.with_file_name("snapshot-set-aside"))
}

/// Removes all but the newest.
///
/// # Errors
/// When one cannot be removed.
pub fn forget_old(dir: &Path) -> io::Result<()> {
    files(dir)?
        .into_iter()
        .skip(KEPT)
        .try_for_each(std::fs::remove_file)
}
