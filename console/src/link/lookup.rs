//! What is looked up in the daemon's log: records that are wanted, what shows the end of windows, and why. Each on a connection of its own; bounded in records.

use std::collections::BTreeMap;
use std::path::Path;

use enforcer_proto::audit::Record;
use enforcer_proto::event::About;
use enforcer_proto::id::GrantId;
use enforcer_proto::search::Filter;
use enforcer_proto::sentence::sentence;
use enforcer_proto::why::{self, Outcome, Records};

use super::{Link, LinkError};
use crate::app::find::Found;
use crate::app::tail::Entry;

/// The most records that are looked for at once: the newest.
pub(crate) const FOUND_MAX: u32 = 2_000;
/// Where there are more, so many of the oldest as well: how it began.
const FIRST_MAX: usize = 100;
/// The most windows of which each is asked about by itself.
pub(crate) const PROVEN_EACH_MAX: usize = 64;
/// The most records of a window that are looked at for its end: the newest.
const PROOF_MAX: u32 = 500;

/// The newest records that are wanted, the oldest first; where there are more than [`FOUND_MAX`], how they begin as well.
pub(crate) fn found(socket: &Path, filter: Filter) -> Result<Found, LinkError> {
    // One more than is shown, which says that there are more.
    let mut newest = newest(socket, filter.clone(), FOUND_MAX + 1)?;
    let over = newest.len().saturating_sub(FOUND_MAX as usize);
    newest.drain(..over);
    if over == 0 {
        return Ok(Found::all(newest));
    }
    Ok(Found::ends(oldest(socket, filter)?, newest))
}

fn oldest(socket: &Path, filter: Filter) -> Result<Vec<Entry>, LinkError> {
    let mut entries = Vec::new();
    let mut each = |lines: Vec<String>| {
        entries.extend(lines.iter().filter_map(|line| Entry::read(line)));
        entries.len() < FIRST_MAX
    };
    Link::to(socket)?.records((1, None), false, filter, &mut each)?;
    entries.truncate(FIRST_MAX);
    Ok(entries)
}

/// The newest `most` records that are wanted, the oldest first.
pub(crate) fn newest(socket: &Path, filter: Filter, most: u32) -> Result<Vec<Entry>, LinkError> {
    let mut entries = Vec::new();
    let mut each = |lines: Vec<String>| {
        entries.extend(lines.iter().filter_map(|line| Entry::read(line)));
        true
    };
    Link::to(socket)?.records((1, Some(most)), false, filter, &mut each)?;
    Ok(entries)
}

/// What the log has of the end of windows, by number of record: of each what came last of it, whoever else has written how much; of very many their closes
/// and the newest answers.
pub(crate) fn ends_of(
    socket: &Path,
    grants: &[GrantId],
) -> Result<BTreeMap<u64, Entry>, LinkError> {
    let mut found = BTreeMap::new();
    let mut take = |filter, most| {
        let entries = newest(socket, filter, most)?.into_iter();
        found.extend(entries.map(|entry| (entry.record.seq, entry)));
        Ok::<_, LinkError>(())
    };
    if grants.len() > PROVEN_EACH_MAX {
        for kind in ["closed", "query_finished"] {
            let of_kind = Filter {
                kind: Some(kind.to_owned()),
                ..Filter::default()
            };
            take(of_kind, FOUND_MAX)?;
        }
        return Ok(found);
    }
    for grant in grants {
        let of_one = Filter {
            grant: Some(*grant),
            ..Filter::default()
        };
        take(of_one, PROOF_MAX)?;
    }
    Ok(found)
}

/// The daemon's log, asked on a connection of its own each time.
pub(crate) struct Log<'a>(pub(crate) &'a Path);

impl Records for Log<'_> {
    type Error = LinkError;

    fn each(
        &self,
        filter: Filter,
        limit: Option<u32>,
        each: &mut dyn FnMut(&Record),
    ) -> Result<(), LinkError> {
        let mut each = |lines: Vec<String>| {
            let read = lines.iter().filter_map(|line| Entry::read(line));
            read.for_each(|entry| each(&entry.record));
            true
        };
        Link::to(self.0)?.records((1, limit), false, filter, &mut each)
    }
}

/// All that the log has on why something was allowed or refused: what `enforcer why` says.
pub(crate) fn explained(socket: &Path, record: &Record) -> Result<Vec<String>, LinkError> {
    let facts = why::facts(&Log(socket), record)?.0;
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let outcome = Outcome::of(&record.event).word();
    let mut lines = vec![format!("{outcome}: {}", sentence(&record.event))];
    let told = facts
        .iter()
        .map(|(name, fact)| format!("{name:<width$}  {fact}"));
    lines.extend(told);
    lines.extend(
        About::of(&record.event)
            .sql
            .map(|sql| format!("{:<width$}  {sql}", "SQL")),
    );
    lines.push(format!(
        "{:<width$}  {}",
        "hash",
        record.hash.as_deref().unwrap_or("none")
    ));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::link::fake::{Fake, line};

    fn finished(seq: u64, grant: u64) -> String {
        let event = json!({"kind": "query_finished", "query": format!("q-{seq}"), "grant": format!("g-{grant}"), "status": 200, "job": null,
            "destination": null, "bytes": 1, "body_bytes": 1, "duration_us": 1, "trouble": null});
        line(seq, "h", &event)
    }

    fn numbers(entries: &[Entry]) -> (u64, u64, usize) {
        let seq = |entry: Option<&Entry>| entry.map_or(0, |entry| entry.record.seq);
        (seq(entries.first()), seq(entries.last()), entries.len())
    }

    #[test]
    fn of_more_than_is_shown_the_beginning_is_found_as_well_and_that_there_is_more_is_known() {
        let of_one = Filter {
            grant: "g-2".parse().ok(),
            ..Filter::default()
        };
        for (count, first, newest, is_cut) in [
            (2_000, (0, 0, 0), (1, 2_000, 2_000), false),
            (2_030, (1, 30, 30), (31, 2_030, 2_000), false),
            (2_100, (1, 100, 100), (101, 2_100, 2_000), true),
            (3_000, (1, 100, 100), (1_001, 3_000, 2_000), true),
        ] {
            let log = (1..=count).map(|seq| finished(seq, 2)).collect();
            let daemon = Fake::with("found", log);
            let found = found(daemon.socket(), of_one.clone()).expect("it answers");
            assert_eq!(numbers(&found.first), first, "{count}");
            assert_eq!(numbers(&found.newest), newest, "{count}");
            assert_eq!(found.is_cut, is_cut, "{count}");
        }
    }

    #[test]
    fn the_end_of_a_window_is_found_however_much_others_write() {
        let close = json!({"kind": "closed", "grant": "g-2", "agent": "finance-bot", "reason": "revoked", "by": null, "queries": 1, "bytes": 1});
        let mut log = vec![finished(1, 2)];
        log.extend((2..=5_000).map(|seq| finished(seq, 9)));
        log.push(line(5_001, "h", &close));
        let daemon = Fake::with("ends", log);
        let grants: Vec<GrantId> = vec!["g-2".parse().expect("an id")];
        let found = ends_of(daemon.socket(), &grants).expect("it answers");
        assert_eq!(found.into_keys().collect::<Vec<_>>(), [1, 5_001]);
    }
}
