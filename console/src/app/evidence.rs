//! What the console itself has found wrong with the log that comes. The daemon says nothing of it, and may be the one that lies: so each is an alarm, is
//! counted in the header, and has its line in Health. Pure; what is evidence stays as long as the console runs.

use super::signed::{self, Signed};
use super::{Model, ago};

/// One thing that is wrong with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What it is about, as Health names it.
    pub(crate) what: &'static str,
    /// The alarm.
    pub(crate) said: String,
    /// It happened once, and what is shown since then is not touched by it.
    pub(crate) is_past: bool,
}

/// The line of Health about the records' hashes.
pub(crate) const CHAIN: &str = "log chain";
/// That about the checkpoints' signatures.
pub(crate) const SIGNATURE: &str = "log signature";

impl Model {
    /// All that is wrong now, or was found to be; what is of now comes first.
    pub(crate) fn log_faults(&self) -> Vec<Fault> {
        let fault = |what, said| Fault {
            what,
            said,
            is_past: false,
        };
        let broken = self.chain.broken().map(|seq| {
            let said = format!(
                "RECORD {seq} IS NOT WHAT WAS WRITTEN, by its hash or that of the one before: keep the log as evidence (enforcer log verify)"
            );
            fault(CHAIN, said)
        });
        let signed = if let Signed::Wrong(why) = signed::of(self) {
            let said = format!(
                "THE LOG IS NOT WHAT WAS SIGNED: {why}: keep it as evidence (enforcer log verify)"
            );
            Some(fault(SIGNATURE, said))
        } else {
            None
        };
        let behind = self.behind().map(|(records, age_ms)| {
            let said = format!(
                "THE LOG HAS STOPPED COMING: {records} records are not here, none came for {}: what is shown of it may be out of date",
                ago(age_ms / 1000)
            );
            fault("log behind", said)
        });
        let replaced = self.replaced.map(|(had, has)| {
            let said = format!(
                "THE LOG IS ANOTHER ONE: record {had} had come, and it is not in this one, which had {has}: keep both as evidence (enforcer log verify --checkpoint)"
            );
            Fault {
                is_past: true,
                ..fault("log replaced", said)
            }
        });
        let all = [behind, broken, signed, replaced];
        all.into_iter().flatten().collect()
    }
}
