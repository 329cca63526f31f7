//! What BigQuery's dry run has said of a query, kept for a while: the same query again in the same window is judged by it without asking once
//! more. It never outlives its window, and nothing that writes leaves any of it. That a view has become another meanwhile is noticed by what
//! the job itself says it has read, like between any dry run and its run.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use enforcer_proto::admission::{READING, TABLES_PER_QUERY_MAX};
use enforcer_proto::audit::sha256_hex;
use enforcer_proto::id::GrantId;
use enforcer_proto::query::DryRun;
use serde_json::Value;

use crate::engine::OpenWindows;

/// How long a verdict is kept: tables grow, and their growth is not seen until it is asked for again.
const KEPT: Duration = Duration::from_secs(60);
/// The most verdicts of one window; past it the oldest goes.
const PER_WINDOW_MAX: usize = 256;

/// What a dry run said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) run: DryRun,
    /// Where the query runs.
    pub(super) location: Option<String>,
}

#[derive(Debug)]
struct Kept {
    verdict: Verdict,
    since_boot_ns: u64,
}

/// That something is written. Until this is dropped no verdict is kept, and then those that are go.
#[derive(Debug)]
pub(super) struct Writing(Arc<Verdicts>);

impl Drop for Writing {
    fn drop(&mut self) {
        let mut held = self.0.held();
        held.writing -= 1;
        held.forget();
    }
}

/// A moment, for verdicts: what was asked before something was written is not kept after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

#[derive(Debug, Default)]
struct Held {
    kept: BTreeMap<GrantId, BTreeMap<String, Kept>>,
    /// How much is being written.
    writing: usize,
    /// How often something was.
    epoch: u64,
}

impl Held {
    fn forget(&mut self) {
        self.kept.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }
}

/// What a verdict is of: the host that was asked, the project that is billed, and all that the dry run was asked.
pub(super) fn key(host: &str, project: &str, asked: &Value) -> String {
    sha256_hex(format!("{host}\n{project}\n{asked}").as_bytes())
}

/// The verdicts of all windows.
#[derive(Debug, Default)]
pub struct Verdicts(Mutex<Held>);

impl Verdicts {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The verdict of this window's on the same query, if it is young enough.
    pub(super) fn of(&self, grant: GrantId, key: &str, now_boot_ns: u64) -> Option<Verdict> {
        let held = self.held();
        let kept = held.kept.get(&grant)?.get(key)?;
        is_young(kept, now_boot_ns).then(|| kept.verdict.clone())
    }

    /// Now, before a dry run is asked.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.held().epoch)
    }

    /// Keeps a verdict on what only reads, where nothing has been written since it was asked for; what belongs to windows that are not open goes.
    pub(super) fn keep(
        &self,
        grant: GrantId,
        key: String,
        verdict: Verdict,
        (now_boot_ns, epoch): (u64, Epoch),
        open: &OpenWindows,
    ) {
        let mut held = self.held();
        if held.writing > 0 || Epoch(held.epoch) != epoch {
            return;
        }
        let held = &mut held.kept;
        held.retain(|grant, _| open.values().any(|window| window.grant == *grant));
        let run = &verdict.run;
        let is_too_wide = run.tables.len() > TABLES_PER_QUERY_MAX;
        if run.statement != READING || !run.targets.is_empty() || is_too_wide {
            return;
        }
        let own = held.entry(grant).or_default();
        own.retain(|_, kept| is_young(kept, now_boot_ns));
        if own.len() >= PER_WINDOW_MAX {
            let oldest = own.iter().min_by_key(|(_, kept)| kept.since_boot_ns);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                own.remove(&oldest);
            }
        }
        let kept = Kept {
            verdict,
            since_boot_ns: now_boot_ns,
        };
        own.insert(key, kept);
    }

    /// Something is written from here on, until what this gives is dropped: what is known of tables may not be true any more.
    pub(super) fn writing(self: &Arc<Self>) -> Writing {
        let mut held = self.held();
        held.writing += 1;
        held.forget();
        drop(held);
        Writing(Arc::clone(self))
    }
}

fn is_young(kept: &Kept, now_boot_ns: u64) -> bool {
    let age = now_boot_ns.saturating_sub(kept.since_boot_ns);
    u128::from(age) < KEPT.as_nanos()
}

#[cfg(test)]
mod tests {

    use serde_json::json;

    use super::*;
    use crate::engine::open_windows;

    const MINUTE: u64 = 60_000_000_000;

    fn verdict(statement: &str) -> Verdict {
        Verdict {
            run: DryRun::of_kind(statement.to_owned()),
            location: None,
        }
    }

    #[test]
    fn a_verdict_is_kept_for_its_window_its_query_and_a_minute() {
        let verdicts = Arc::new(Verdicts::default());
        let open = open_windows(&[1, 2]);
        let asked = key("h", "p", &json!({"query": "SELECT 1"}));
        verdicts.keep(
            GrantId(1),
            asked.clone(),
            verdict("SELECT"),
            (5, verdicts.epoch()),
            &open,
        );
        let of = |grant, key: &str, now| verdicts.of(GrantId(grant), key, now).is_some();
        assert!(of(1, &asked, 5 + MINUTE - 1));
        assert!(!of(1, &asked, 5 + MINUTE), "too old");
        assert!(!of(2, &asked, 6), "another window's");
        assert!(!of(1, &key("h", "q", &json!({"query": "SELECT 1"})), 6));
        drop(verdicts.writing());
        assert!(!of(1, &asked, 6), "something was written");
    }

    #[test]
    fn nothing_is_kept_while_something_is_written_nor_what_was_asked_before() {
        let verdicts = Arc::new(Verdicts::default());
        let keep = |epoch| {
            let open = open_windows(&[1]);
            verdicts.keep(GrantId(1), "a".into(), verdict("SELECT"), (5, epoch), &open);
            verdicts.of(GrantId(1), "a", 6).is_some()
        };
        let before = verdicts.epoch();
        let (one, other) = (verdicts.writing(), verdicts.writing());
        assert!(!keep(verdicts.epoch()));
        drop(one);
        assert!(!keep(verdicts.epoch()), "the other goes on");
        let during = verdicts.epoch();
        drop(other);
        assert!(!keep(before) && !keep(during));
        assert!(keep(verdicts.epoch()));
    }

    #[test]
    fn nothing_is_kept_of_what_writes_nor_of_a_window_that_has_closed() {
        let verdicts = Arc::new(Verdicts::default());
        verdicts.keep(
            GrantId(1),
            "a".into(),
            verdict("INSERT"),
            (5, verdicts.epoch()),
            &open_windows(&[1]),
        );
        assert_eq!(verdicts.of(GrantId(1), "a", 6), None);
        verdicts.keep(
            GrantId(1),
            "a".into(),
            verdict("SELECT"),
            (5, verdicts.epoch()),
            &open_windows(&[1]),
        );
        verdicts.keep(
            GrantId(2),
            "b".into(),
            verdict("SELECT"),
            (5, verdicts.epoch()),
            &open_windows(&[2]),
        );
        assert_eq!(verdicts.of(GrantId(1), "a", 6), None);
    }

    #[test]
    fn the_oldest_of_too_many_goes() {
        let verdicts = Arc::new(Verdicts::default());
        for number in 0..=PER_WINDOW_MAX {
            let now = 10 + number as u64;
            let key = format!("{number}");
            let now = (now, verdicts.epoch());
            verdicts.keep(GrantId(1), key, verdict("SELECT"), now, &open_windows(&[1]));
        }
        assert_eq!(verdicts.of(GrantId(1), "0", 300), None);
        assert!(verdicts.of(GrantId(1), "1", 300).is_some());
    }
}
