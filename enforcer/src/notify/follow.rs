//! Follows the log and puts notices into the queues of the hooks. It reads files on a thread that may wait, and hands on no record before it is
//! durable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::audit::Record;
use enforcer_proto::notice::Watcher;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::{Options, Working};
use crate::audit::Place;
use crate::clock::Clock;

/// How many lines are read at once, and how many bytes.
const LINES_MAX: usize = 256;
const BYTES_MAX: usize = 512 * 1024;
/// How often at least bursts are looked at, and how often at most the cursor is written: it waits for the disk that the log is on.
const LOOK: Duration = Duration::from_secs(1);
/// How long records are gathered before they are read: a busy log grows hundreds of times a second.
const GATHER: Duration = Duration::from_millis(50);
/// Kinds of records that are told as nothing, and are most of a log: they are not taken apart.
const NEVER_TOLD: [&str; 10] = [
    "query_asked",
    "estimate_asked",
    "query_admitted",
    "query_finished",
    "job_seen",
    "forwarded",
    "namespace_served",
    "namespace_left",
    "namespace_refused",
    "container_changed",
];

struct Told {
    working: Arc<Working>,
    watcher: Watcher,
}

pub(super) struct Follower {
    audit_dir: PathBuf,
    boot_id: String,
    clock: Arc<dyn Clock>,
    cursor: Cursor,
    /// When the cursor was written last, boot clock.
    saved_boot_ns: u64,
    hooks: Vec<Told>,
}

impl Follower {
    pub(super) fn new(options: &Options, cursor: Cursor, working: Vec<Arc<Working>>) -> Self {
        let hooks = working.into_iter().map(|working| Told {
            watcher: Watcher::new(&options.host, working.hook.wanted.clone()),
            working,
        });
        Self {
            audit_dir: options.audit_dir.clone(),
            boot_id: options.boot_id.clone(),
            clock: Arc::clone(&options.clock),
            cursor,
            saved_boot_ns: 0,
            hooks: hooks.collect(),
        }
    }

    pub(super) async fn run(mut self, mut records: watch::Receiver<u64>, stop: CancellationToken) {
        let mut reader = Reader::new(&self.audit_dir, self.first());
        loop {
            let until = *records.borrow_and_update();
            // Files are read, and the cursor written, where waiting for a disk keeps nobody waiting.
            let done = tokio::task::spawn_blocking(move || {
                self.read_on(&mut reader, until);
                self.poll();
                self.save_if_due();
                (self, reader)
            });
            match done.await {
                Ok(back) => (self, reader) = back,
                Err(error) => {
                    tracing::error!(%error, "the log is not followed any more: hooks are told nothing");
                    return;
                }
            }
            let grown = async {
                tokio::time::sleep(GATHER).await;
                records.changed().await
            };
            tokio::select! {
                () = stop.cancelled() => break,
                grown = grown => if grown.is_err() { break },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        // What was settled while the daemon stopped.
        let saved = tokio::task::spawn_blocking(move || self.save());
        if let Err(error) = saved.await {
            tracing::warn!(%error, "where hooks stopped was not kept");
        }
    }

    /// The first record that some hook has not been told of.
    fn first(&self) -> u64 {
        let read = self.hooks.iter().map(|told| told.working.queue().read());
        read.min().unwrap_or(0).saturating_add(1)
    }

    fn read_on(&mut self, reader: &mut Reader, until: u64) {
        while reader.next <= until {
            let lines = match reader.place.read(until, LINES_MAX, BYTES_MAX) {
                Ok(lines) if lines.is_empty() => return,
                Ok(lines) => lines,
                Err(error) => {
                    tracing::warn!(%error, "the log cannot be read: hooks are told later");
                    return;
                }
            };
            for line in &lines {
                self.take(reader, line);
            }
        }
    }

    fn take(&mut self, reader: &mut Reader, line: &str) {
        let head = Head::of(line);
        let seq = head.as_ref().map_or(reader.next, |head| head.seq);
        if seq > reader.next {
            self.pass_over(
                reader.next,
                seq - 1,
                "their records are not in the log any more",
            );
        }
        reader.next = seq.saturating_add(1);
        let is_told = head.is_none_or(|head| !NEVER_TOLD.contains(&head.kind));
        if !is_told {
            return self.has_read(seq);
        }
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            return self.pass_over(
                seq,
                seq,
                "their records cannot be read: see enforcer log verify",
            );
        };
        let now = self.clock.now();
        for told in &mut self.hooks {
            let mut queue = told.working.queue();
            if record.seq <= queue.read() {
                continue;
            }
            match told.watcher.take(&record) {
                Some(notice) => {
                    queue.push(now, notice, record.seq);
                    told.working.more.notify_one();
                }
                None => queue.has_read(record.seq),
            }
        }
    }

    fn has_read(&self, seq: u64) {
        for told in &self.hooks {
            told.working.queue().has_read(seq);
        }
    }

    /// Says that the records from `first` to `last` cannot be told of.
    fn pass_over(&self, first: u64, last: u64, why: &str) {
        for told in &self.hooks {
            let mut queue = told.working.queue();
            let missed = (last + 1).saturating_sub(first.max(queue.read() + 1));
            if missed > 0 {
                queue.pass_over(missed, why);
                queue.has_read(last);
                told.working.more.notify_one();
            }
        }
    }

    fn poll(&mut self) {
        let now = self.clock.now();
        for told in &mut self.hooks {
            if told
                .watcher
                .poll_timeout()
                .is_none_or(|due| due > now.boot_ns)
            {
                continue;
            }
            for notice in told.watcher.poll(now, &self.boot_id) {
                let mut queue = told.working.queue();
                let read = queue.read();
                queue.push(now, notice, read);
                told.working.more.notify_one();
            }
        }
    }

    fn save_if_due(&mut self) {
        let now = self.clock.now().boot_ns;
        if now.saturating_sub(self.saved_boot_ns) >= LOOK.as_nanos() as u64 {
            self.saved_boot_ns = now;
            self.save();
        }
    }

    fn save(&mut self) {
        let settled = self.hooks.iter().map(|told| {
            let settled = told.working.queue().settled();
            (told.working.hook.name.clone(), settled)
        });
        let settled: BTreeMap<_, _> = settled.collect();
        self.cursor.save(settled);
    }
}

/// Where the log has been read to.
struct Reader {
    place: Place,
    /// The number of the record that comes next.
    next: u64,
}

impl Reader {
    fn new(audit_dir: &std::path::Path, first: u64) -> Self {
        Self {
            place: Place::at_record(audit_dir, first),
            next: first,
        }
    }
}

/// What can be seen of a line without taking it apart. A record's number, its boot and its times come first, and none of them is anybody's text.
struct Head<'a> {
    seq: u64,
    kind: &'a str,
}

impl<'a> Head<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (seq, rest) = line.strip_prefix("{\"seq\":")?.split_once(',')?;
        let (_, event) = rest.split_once("\"event\":{\"kind\":\"")?;
        let (kind, _) = event.split_once('"')?;
        Some(Self {
            seq: seq.parse().ok()?,
            kind,
        })
    }
}

#[cfg(test)]
mod tests {
    use enforcer_proto::audit::Chain;
    use enforcer_proto::event::Event;
    use enforcer_proto::time::Now;

    use super::*;

    #[test]
    fn the_head_of_a_record_is_seen_as_it_is_written() {
        let now = Now {
            boot_ns: 1,
            unix_ns: 2,
        };
        let event = Event::Detached {
            uid: 0,
            reason: "\"event\":{\"kind\":\"query_asked\"".into(),
        };
        let line = Chain::default().seal(now, "boot", &event).expect("short");
        let head = Head::of(&line).expect("a head");
        assert_eq!((head.seq, head.kind), (1, "detached"));
        assert!(Head::of("{}").is_none() && Head::of("").is_none());
    }
}
