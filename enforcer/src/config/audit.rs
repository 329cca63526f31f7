//! The section `[audit]`: how the log is kept, and who is given its checkpoints.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::parse_bytes;
use super::{Agent, Program};
use crate::audit::SEGMENT_BYTES;
use crate::audit::retention::Keep;

const DAY_S: u64 = 24 * 3600;
/// The least that `keep` may say: what the ledger needs, and some days to look at it.
const KEEP_DAYS_MIN: u64 = 7;
/// The least and the most bytes of a segment.
const SEGMENT_BYTES_RANGE: std::ops::RangeInclusive<u64> = 1_000_000..=4_000_000_000;
/// The least and the longest time between checkpoints.
const EVERY_S_RANGE: std::ops::RangeInclusive<u64> = 1..=DAY_S;
const EVERY_S: u64 = 60;

/// How the log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// How often it is signed what the log is, where it has grown.
    pub checkpoint_every: Duration,
    /// A program that is given each checkpoint.
    pub witness_command: Option<Program>,
    /// An https address that each checkpoint is posted to.
    pub witness_url: Option<String>,
    /// A segment of this size is followed by a new one, bytes.
    pub segment_bytes: u64,
    /// What is kept.
    pub keep: Keep,
}

/// The section as written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AuditFile {
    checkpoint_every: Option<String>,
    witness_command: Option<Vec<String>>,
    witness_user: Option<u32>,
    witness_group: Option<u32>,
    witness_url: Option<String>,
    segment_bytes: Option<String>,
    keep: Option<String>,
    keep_bytes: Option<String>,
}

impl AuditFile {
    pub(super) fn resolve(self, agents: &[Agent]) -> Result<Audit, String> {
        let every_s = match &self.checkpoint_every {
            Some(text) => seconds("audit.checkpoint_every", text)?,
            None => EVERY_S,
        };
        if !EVERY_S_RANGE.contains(&every_s) {
            return Err("`audit.checkpoint_every` must lie between 1s and 1d".to_owned());
        }
        let segment_bytes = bytes("audit.segment_bytes", self.segment_bytes.as_deref())?;
        let segment_bytes = segment_bytes.unwrap_or(SEGMENT_BYTES);
        if !SEGMENT_BYTES_RANGE.contains(&segment_bytes) {
            return Err("`audit.segment_bytes` must lie between 1MB and 4GB".to_owned());
        }
        let keep = Keep {
            age: self.keep.as_deref().map(age).transpose()?,
            bytes: bytes("audit.keep_bytes", self.keep_bytes.as_deref())?,
        };
        if keep.bytes.is_some_and(|keep| keep < 2 * segment_bytes) {
            return Err(format!(
                "`audit.keep_bytes` must be two segments at least, {} bytes: the one that is written always stays",
                2 * segment_bytes
            ));
        }
        let (user, group) = (self.witness_user, self.witness_group);
        if self.witness_command.is_none() && (user.is_some() || group.is_some()) {
            return Err("`audit.witness_user` and `audit.witness_group` are those of `audit.witness_command`, which is not there".to_owned());
        }
        let command = self
            .witness_command
            .map(|words| Program::of("audit.witness_", (words, user, group), agents))
            .transpose()?;
        if let Some(url) = self
            .witness_url
            .as_ref()
            .filter(|url| !url.starts_with("https://"))
        {
            return Err(format!(
                "`audit.witness_url` must be an https URL, not `{url}`"
            ));
        }
        Ok(Audit {
            checkpoint_every: Duration::from_secs(every_s),
            witness_command: command,
            witness_url: self.witness_url,
            segment_bytes,
            keep,
        })
    }
}

fn age(text: &str) -> Result<Duration, String> {
    let keep_s = seconds("audit.keep", text)?;
    if keep_s < KEEP_DAYS_MIN * DAY_S {
        return Err(format!(
            "`audit.keep` must be {KEEP_DAYS_MIN}d at least, not {text}"
        ));
    }
    Ok(Duration::from_secs(keep_s))
}

fn bytes(key: &str, text: Option<&str>) -> Result<Option<u64>, String> {
    let parsed = text.map(parse_bytes).transpose();
    parsed.map_err(|why| format!("`{key}`: {why}"))
}

/// Whole seconds, written as 90s, 15m, 1h or 400d.
fn seconds(key: &str, text: &str) -> Result<u64, String> {
    let wrong =
        || format!("`{key}` is `{text}`, which is no duration: write it as 90s, 15m, 1h or 400d");
    let at = text.len().checked_sub(1).ok_or_else(wrong)?;
    let (digits, unit) = text.split_at_checked(at).ok_or_else(wrong)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY_S,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(unit).ok_or_else(wrong)
}
