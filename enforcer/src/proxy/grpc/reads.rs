//! Which read streams are whose, and of which table. A stream is its window's alone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use enforcer_proto::id::GrantId;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::scope::TableRef;

use crate::bigquery::storage::wanted::STREAM_BYTES_MAX;
use crate::engine::OpenWindows;

/// The most read streams that a window may have made; past it no session is made for it. BigQuery makes at most 1,000 for a session.
pub(super) const STREAMS_PER_WINDOW_MAX: usize = 10_000;

/// The streams of open windows, by name.
#[derive(Debug, Default)]
pub struct Reads(Mutex<BTreeMap<GrantId, BTreeMap<String, TableRef>>>);

impl Reads {
    fn held(&self) -> MutexGuard<'_, BTreeMap<GrantId, BTreeMap<String, TableRef>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in streams that BigQuery made for a window; forgets those of windows that have closed.
    ///
    /// # Errors
    /// [`Code::Overloaded`] where they are more than it may have, [`Code::UpstreamFailed`] where one's name is none.
    pub(super) fn keep(
        &self,
        grant: GrantId,
        table: &TableRef,
        names: Vec<String>,
        open: &OpenWindows,
    ) -> Result<(), Refusal> {
        let is_name = |name: &String| (1..=STREAM_BYTES_MAX).contains(&name.len());
        if !names.iter().all(is_name) {
            let what = "BigQuery's answer names streams by what is no name";
            return Err(Refusal::new(Code::UpstreamFailed, what));
        }
        let mut held = self.held();
        held.retain(|held, _| open.values().any(|window| window.grant == *held));
        let own = held.entry(grant).or_default();
        if own.len() + names.len() > STREAMS_PER_WINDOW_MAX {
            let what = format!(
                "Window {grant} has {} read streams, and at most {STREAMS_PER_WINDOW_MAX}",
                own.len()
            );
            return Err(Refusal::new(Code::Overloaded, what));
        }
        own.extend(names.into_iter().map(|name| (name, table.clone())));
        Ok(())
    }

    /// The table that a window's own stream reads.
    ///
    /// # Errors
    /// [`Code::JobForeign`] where the window has no such stream.
    pub(super) fn table_of(&self, name: &str, grant: GrantId) -> Result<TableRef, Refusal> {
        let table = self
            .held()
            .get(&grant)
            .and_then(|own| own.get(name))
            .cloned();
        table.ok_or_else(|| {
            let what =
                format!("Access Denied: BigQuery: the read stream was not made in window {grant}");
            Refusal::new(Code::JobForeign, what)
        })
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::engine::open_windows;

    #[test]
    fn a_stream_is_its_windows_alone_and_goes_with_it() {
        let (reads, table) = (Reads::default(), "p.d.t".parse().expect("a table"));
        let (first, second) = (GrantId(1), GrantId(2));
        let (both, later) = (open_windows(&[1, 2]), open_windows(&[2]));
        let keep = |grant, name: &str, open| reads.keep(grant, &table, vec![name.to_owned()], open);
        assert_eq!(keep(first, "a", &both), Ok(()));
        assert_eq!(keep(second, "b", &both), Ok(()));
        assert_eq!(reads.table_of("a", first), Ok(table.clone()));
        let foreign = reads.table_of("a", second).map_err(|refusal| refusal.code);
        assert_eq!(foreign, Err(Code::JobForeign));
        assert_eq!(keep(second, "c", &later), Ok(()));
        assert!(reads.table_of("a", first).is_err(), "forgotten");
        assert!(keep(second, "", &both).is_err(), "no name");
    }

    #[test]
    fn a_window_has_so_many_streams_and_no_more() {
        let (reads, table) = (Reads::default(), "p.d.t".parse().expect("a table"));
        let (grant, open) = (GrantId(1), open_windows(&[1]));
        let names = |from: usize, to: usize| (from..to).map(|at| at.to_string()).collect();
        let all = names(0, STREAMS_PER_WINDOW_MAX);
        assert_eq!(reads.keep(grant, &table, all, &open), Ok(()));
        let more = reads.keep(grant, &table, names(0, 1), &open);
        assert_eq!(more.map_err(|refusal| refusal.code), Err(Code::Overloaded));
    }
}
