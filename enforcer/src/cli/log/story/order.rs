//! What belongs to a story, each record in its place. A story is made of several searches; one that comes early finds records that belong among
//! those of a later one, and these wait for their turn.

use std::collections::VecDeque;

use enforcer_proto::audit::Record;
use enforcer_proto::event::About;
use enforcer_proto::id::{GrantId, QueryId, RequestId};
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::Filter;

use super::super::source::Source;
use crate::cli::Failure;
use crate::search::Each;
use enforcer_proto::why::Id;

/// What may wait for its turn: lines of a request's records behind its decision, bytes. Those past it are left out of the story, and counted.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Hands every record of the story of `id` to `each`, in the order in which they were recorded; gives how many were left out.
pub(in super::super) fn story(
    source: &Source,
    id: Id,
    each: &mut Each<'_>,
) -> Result<u64, Failure> {
    let mut teller = InOrder::new(each);
    match id {
        Id::Grant(grant) => of_window(source, None, Some(grant), &mut teller)?,
        Id::Request(request) => of_window(source, Some(request), None, &mut teller)?,
        Id::Query(query) => of_query(source, query, &mut teller)?,
        Id::Record(_) => {
            return Err(Failure::Other(anyhow::anyhow!(
                "a story is that of a window (g-17), a request (r-17) or a query (q-17); one record is explained by: enforcer why"
            )));
        }
    }
    teller.end()
}

/// Tells what it is given, and what waits before what comes after it.
struct InOrder<'a, 'b> {
    each: &'a mut Each<'b>,
    waiting: VecDeque<(Record, String)>,
    waiting_bytes: usize,
    left_out: u64,
}

impl<'a, 'b> InOrder<'a, 'b> {
    fn new(each: &'a mut Each<'b>) -> Self {
        Self {
            each,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            left_out: 0,
        }
    }

    /// Tells `record`, which comes after all that were told.
    fn tell(&mut self, record: &Record, line: &str) -> anyhow::Result<()> {
        self.tell_those_before(record.seq)?;
        (self.each)(record, line)
    }

    /// Keeps `record` until one comes that follows it. Those that are kept come in their order.
    fn keep(&mut self, record: &Record, line: &str) {
        if self.waiting_bytes + line.len() > WAITING_BYTES_MAX {
            self.left_out += 1;
            return;
        }
        self.waiting_bytes += line.len();
        self.waiting.push_back((record.clone(), line.to_owned()));
    }

    fn tell_those_before(&mut self, seq: u64) -> anyhow::Result<()> {
        while self.waiting.front().is_some_and(|(kept, _)| kept.seq < seq)
            && let Some((record, line)) = self.waiting.pop_front()
        {
            (self.each)(&record, &line)?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<u64, Failure> {
        self.tell_those_before(u64::MAX)?;
        Ok(self.left_out)
    }
}

/// The decision that made a window.
fn approval(source: &Source, filter: Filter) -> Result<Option<Record>, Failure> {
    let filter = Filter {
        kind: Some("approved".to_owned()),
        ..filter
    };
    Ok(source.few(filter, 1)?.pop())
}

fn of_window(
    source: &Source,
    request: Option<RequestId>,
    grant: Option<GrantId>,
    teller: &mut InOrder<'_, '_>,
) -> Result<(), Failure> {
    let approved = approval(
        source,
        Filter {
            request,
            grant,
            ..Filter::default()
        },
    )?;
    let about = approved.as_ref().map(|record| About::of(&record.event));
    let request = about.as_ref().and_then(|about| about.request).or(request);
    let grant = about.as_ref().and_then(|about| about.grant).or(grant);
    let decided = approved.as_ref().map_or(u64::MAX, |record| record.seq);
    if let Some(request) = request {
        let filter = Filter {
            request: Some(request),
            ..Filter::default()
        };
        source.each(filter, None, &mut |record, line| {
            // What was refused of it once it was decided belongs among the window's records.
            if record.seq > decided {
                teller.keep(record, line);
                return Ok(());
            }
            teller.tell(record, line)
        })?;
    }
    let (Some(grant), Some(approved)) = (grant, approved.as_ref()) else {
        return Ok(());
    };
    let agent = about.and_then(|about| about.agent).cloned();
    within(source, grant, agent, approved.seq, teller)
}

/// What happened in a window, and what its agent was refused meanwhile; then what came of it after its close.
fn within(
    source: &Source,
    grant: GrantId,
    agent: Option<AgentName>,
    approved: u64,
    teller: &mut InOrder<'_, '_>,
) -> Result<(), Failure> {
    let of_grant = Filter {
        grant: Some(grant),
        ..Filter::default()
    };
    let closed = Filter {
        kind: Some("closed".to_owned()),
        ..of_grant.clone()
    };
    let closed = source.few(closed, 1)?.pop().map(|record| record.seq);
    let meanwhile = Filter {
        agent,
        first: Some(approved + 1),
        last: closed,
        ..Filter::default()
    };
    source.each(meanwhile, None, &mut |record, line| {
        let about = About::of(&record.event);
        let is_other = about.grant.is_some_and(|named| named != grant);
        if about.request.is_none() && !is_other {
            teller.tell(record, line)?;
        }
        Ok(())
    })?;
    let Some(closed) = closed else {
        return Ok(());
    };
    let after = Filter {
        first: Some(closed + 1),
        ..of_grant
    };
    source.each(after, None, &mut |record, line| teller.tell(record, line))?;
    Ok(())
}

fn of_query(source: &Source, query: QueryId, teller: &mut InOrder<'_, '_>) -> Result<(), Failure> {
    let filter = Filter {
        query: Some(query),
        ..Filter::default()
    };
    source.each(filter, None, &mut |record, line| teller.tell(record, line))
}

#[cfg(test)]
mod tests {
    use enforcer_proto::event::Event;
    use enforcer_proto::time::Now;
    use tempfile::TempDir;

    use super::*;
    use crate::audit::Log;

    /// A window in which a second approver came too late, once while it was open and once after.
    const EVENTS: &[&str] = &[
        r#"{"kind":"requested","request":"r-1","agent":"bot","process":{"pid":7,"start_boot_ns":9,"uid":2001,"comm":"bq"},"ask":{"scope":"p-one.finance:read","ttl":"15m","reason":"month end","bytes_max":null,"queries_max":null},"rule":3,"digest":"d","expires_boot_ns":1}"#,
        r#"{"kind":"approved","request":"r-1","grant":"g-1","agent":"bot","approver":{"Person":{"uid":5001}},"digest":"d","scope":"p-one.finance:read","ttl":"15m","bytes_max":1000,"queries_max":10,"opens_boot_ns":1,"closes_boot_ns":900000000000,"closes_unix_ns":2}"#,
        r#"{"kind":"opened","grant":"g-1","agent":"bot"}"#,
        r#"{"kind":"decision_refused","caller":{"process":{"pid":8,"start_boot_ns":9,"uid":5002,"comm":"x"},"gids":[],"agent":null},"action":"approve r-1","refusal":{"code":"request.not_pending","what":"r-1 is decided"}}"#,
        r#"{"kind":"kernel_refused","agent":"bot","process":{"pid":7,"start_boot_ns":9,"uid":2001,"comm":"bq"},"verdict":"connect4 refused: no window is open","destination":"10.1.2.3:443","count":2}"#,
        r#"{"kind":"closed","grant":"g-1","agent":"bot","reason":"expired","by":null,"queries":1,"bytes":100}"#,
        r#"{"kind":"decision_refused","caller":{"process":{"pid":8,"start_boot_ns":9,"uid":5002,"comm":"x"},"gids":[],"agent":null},"action":"approve r-1","refusal":{"code":"request.not_pending","what":"r-1 is decided"}}"#,
        r#"{"kind":"job_cancelled","grant":"g-1","job":{"project":"p-one","job":"j","location":null},"outcome":"cancelled"}"#,
        r#"{"kind":"decision_refused","caller":{"process":{"pid":8,"start_boot_ns":9,"uid":5002,"comm":"x"},"gids":[],"agent":null},"action":"approve r-1","refusal":{"code":"request.not_pending","what":"r-1 is decided"}}"#,
    ];

    #[test]
    fn a_story_is_told_in_the_order_in_which_it_was_recorded_and_nothing_of_it_twice() {
        let dir = TempDir::new().expect("a folder");
        let mut log = Log::open(dir.path(), "boot", |_| ()).expect("opens").log;
        let now = Now {
            boot_ns: 1,
            unix_ns: 1,
        };
        let event = |text: &&str| -> (Now, Event) {
            (
                now,
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}")),
            )
        };
        let events: Vec<_> = EVENTS.iter().map(event).collect();
        log.append(&events).expect("writes");
        let source = Source::Folder {
            dir: dir.path().to_owned(),
            index: dir.path().join("index.sqlite"),
        };
        for id in ["g-1", "r-1"] {
            let mut told = Vec::new();
            let left_out = story(&source, id.parse().expect("an id"), &mut |record, _| {
                told.push(record.seq);
                Ok(())
            });
            assert_eq!(left_out.unwrap_or_else(|_| panic!("reads")), 0);
            assert_eq!(told, (1..=9).collect::<Vec<u64>>(), "{id}");
        }
    }

    #[test]
    fn what_is_too_much_to_wait_is_left_out_and_counted() {
        let mut told = 0;
        let mut each = |_: &Record, _: &str| {
            told += 1;
            Ok(())
        };
        let mut teller = InOrder::new(&mut each);
        let record = Record {
            seq: 5,
            boot_id: "b".into(),
            boot_ns: 1,
            unix_ns: 1,
            event: Event::DaemonStopped {},
            prev: String::new(),
            hash: None,
        };
        let line = "x".repeat(WAITING_BYTES_MAX / 2);
        (0..3).for_each(|_| teller.keep(&record, &line));
        assert_eq!(teller.end().unwrap_or_else(|_| panic!("tells")), 1);
        assert_eq!(told, 2);
    }
}
