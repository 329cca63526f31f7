//! What comes from the daemon while the console runs, each kind on a thread of its own: how things are, the log as it grows, and the answers to what
//! is asked for. The console never makes the daemon wait: what it has no time for is let go, and counted by the numbers that are missing.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use enforcer_proto::audit::Named;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::Filter;
use enforcer_proto::wire::Reply;

use super::lookup::{ends_of, explained, found};
use super::{Link, LinkError, causes};
use crate::app::popup::Deed;
use crate::app::tail::Entry;
use crate::app::{Effect, Msg};

/// How often it is asked how things are.
const REFRESH: Duration = Duration::from_millis(500);
/// How long is waited before a connection is tried again: longer each time, up to this.
const RETRY_MAX: Duration = Duration::from_secs(10);
const RETRY_MIN: Duration = Duration::from_millis(500);
/// How many records from before are asked for.
pub(crate) const RECORDS_BEFORE: u32 = 2_000;
/// The most that may wait on either of the ways.
const WAITING_MAX: usize = 16;

/// The ways to the threads that ask for things: for deeds, and for what is looked up, so that no deed waits for that.
#[derive(Debug, Clone)]
pub(crate) struct Deeds {
    deeds: SyncSender<Effect>,
    lookups: SyncSender<Effect>,
}

impl Deeds {
    /// Has it asked for. Where too much waits already, that is said.
    pub(crate) fn ask(&self, effect: Effect) -> Option<Msg> {
        let way = match &effect {
            Effect::Do(_) | Effect::Quit => &self.deeds,
            Effect::Find { .. } | Effect::Prove(_) | Effect::Explain(_) => &self.lookups,
        };
        let effect = match way.try_send(effect) {
            Ok(()) => return None,
            Err(TrySendError::Full(effect) | TrySendError::Disconnected(effect)) => effect,
        };
        let of = match effect {
            Effect::Do(deed) => deed.said(),
            Effect::Find { .. } | Effect::Explain(_) | Effect::Quit => String::new(),
            // It is asked for again when there is a reason to.
            Effect::Prove(_) => return None,
        };
        Some(Msg::NotAsked { of })
    }
}

/// Starts the threads; what they hear goes to `to`. They end with the process.
pub(crate) fn start(socket: &Path, to: &SyncSender<Msg>) -> Deeds {
    let (deeds, asked) = sync_channel(WAITING_MAX);
    let (lookups, wanted) = sync_channel(WAITING_MAX);
    let at = || (socket.to_owned(), to.clone());
    let (socket, news) = at();
    thread::spawn(move || watch(&socket, &news));
    let (socket, news) = at();
    thread::spawn(move || follow(&socket, &news));
    let (socket, news) = at();
    thread::spawn(move || answer(&socket, &news, &asked));
    let (socket, news) = at();
    thread::spawn(move || answer(&socket, &news, &wanted));
    Deeds { deeds, lookups }
}

/// How long the next try is waited for.
fn retry_after(tries: u32) -> Duration {
    let doubled = RETRY_MIN.saturating_mul(1_u32.checked_shl(tries.min(16)).unwrap_or(u32::MAX));
    doubled.min(RETRY_MAX)
}

fn watch(socket: &Path, to: &SyncSender<Msg>) {
    let (mut link, mut tries) = (None, 0_u32);
    loop {
        let asked = match link.take() {
            Some(link) => Ok(link),
            None => Link::to(socket),
        };
        let said = asked.and_then(|mut link: Link| Ok((link.status()?, link)));
        let wait = match said {
            Ok((status, kept)) => {
                // Kept only when all went well: a half-read answer must not be taken for the next one.
                (link, tries) = (Some(kept), 0);
                // A newer one comes in a moment.
                if let Err(TrySendError::Disconnected(_)) =
                    to.try_send(Msg::Status(Box::new(status)))
                {
                    return;
                }
                REFRESH
            }
            Err(why) => {
                let wait = retry_after(tries);
                tries = tries.saturating_add(1);
                let lost = Msg::Lost {
                    why: causes(&why),
                    retry_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
                    tries,
                };
                if to.send(lost).is_err() {
                    return;
                }
                wait
            }
        };
        thread::sleep(wait);
    }
}

/// The newest record that came: its number, 0 before the first, and its hash.
#[derive(Debug, Clone, Default)]
struct Newest {
    seq: u64,
    hash: Option<String>,
}

impl Newest {
    /// Whether a record of this number is another one than that which came.
    fn is_contradicted_by(&self, entry: &Entry) -> bool {
        entry.record.seq == self.seq && entry.record.hash != self.hash
    }

    /// How many records the log has, where this one is not in it, or is another: it was replaced, or goes on from an older copy, however long it has become
    /// meanwhile. Asked for alone: of what is asked for from here on only the newest come. What was said by the daemon after a record came has that
    /// record, unless it keeps none that are as old.
    fn is_lost(&self, link: &mut Link) -> Result<Option<u64>, LinkError> {
        if self.seq == 0 {
            return Ok(None);
        }
        let alone = Filter {
            first: Some(self.seq),
            last: Some(self.seq),
            ..Filter::default()
        };
        let mut is_same = None;
        let mut each = |lines: Vec<String>| {
            let entry = lines.first().and_then(|line| Entry::read(line));
            is_same = Some(entry.is_some_and(|entry| entry.record.hash == self.hash));
            true
        };
        link.records((1, None), false, alone, &mut each)?;
        let log = link.status()?.log;
        let is_lost = match is_same {
            Some(is_same) => !is_same,
            None => log.first_record <= self.seq,
        };
        Ok(is_lost.then_some(log.records))
    }
}

fn follow(socket: &Path, to: &SyncSender<Msg>) {
    let (mut last, mut tries) = (Newest::default(), 0_u32);
    loop {
        let (mut is_over, mut dropped, mut replaced) = (false, 0_u64, None);
        // The newest that came comes again, and is to be the same.
        let from = (last.seq.max(1), Some(RECORDS_BEFORE));
        let begun = Link::to(socket).and_then(|mut link| Ok((last.is_lost(&mut link)?, link)));
        let mut each = |lines: Vec<String>| {
            let all = lines.len();
            let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
            for line in &lines {
                match Entry::read(line) {
                    Some(entry) => entries.push(entry),
                    None => unreadable.push(Named::of(line.as_bytes()).map_or(0, |of| of.seq)),
                }
            }
            if entries
                .iter()
                .any(|entry: &Entry| last.is_contradicted_by(entry))
            {
                replaced = Some(entries.last().map_or(0, |entry| entry.record.seq));
                return false;
            }
            let newest = entries.last().map_or_else(
                || last.clone(),
                |entry| Newest {
                    seq: entry.record.seq,
                    hash: entry.record.hash.clone(),
                },
            );
            match to.try_send(Msg::Records(entries, unreadable)) {
                Ok(()) => last = newest,
                // Where there is no time for them, they are let go: the daemon is not to wait for a screen. The newest are asked for again, from
                // there on; how many are missing all the same is told by their numbers.
                Err(TrySendError::Full(_)) => dropped = all as u64,
                Err(TrySendError::Disconnected(_)) => is_over = true,
            }
            !is_over && dropped == 0
        };
        let heard = match begun {
            Ok((Some(has), _)) => {
                replaced = Some(has);
                Ok(())
            }
            Ok((None, mut link)) => link.records(from, true, Filter::default(), &mut each),
            Err(why) => Err(why),
        };
        if let Some(has) = replaced {
            let had = std::mem::take(&mut last).seq;
            is_over = to.send(Msg::Replaced { had, has }).is_err();
        }
        // The connection is closed: nobody but this thread waits here.
        if is_over || (dropped > 0 && to.send(Msg::Dropped(dropped)).is_err()) {
            return;
        }
        // That it cannot be reached is said by who watches; that the log may not be read is said here.
        if let Err(LinkError::Refused(refusal)) = &heard {
            let _ = to.send(Msg::Answered {
                of: String::new(),
                is_done: false,
                said: refusal.to_string(),
                ended: None,
            });
            tries = 16;
        }
        thread::sleep(retry_after(tries));
        tries = if heard.is_ok() {
            0
        } else {
            tries.saturating_add(1)
        };
    }
}

fn answer(socket: &Path, to: &SyncSender<Msg>, asked: &Receiver<Effect>) {
    for effect in asked {
        let msg = match effect {
            Effect::Do(what) => perform(socket, &what),
            Effect::Find { title, filter } => Msg::Found {
                title,
                found: found(socket, *filter).map_err(|why| causes(&why)),
            },
            // What cannot be had now is asked for again when there is a reason to; that there is no proof is what is shown.
            Effect::Prove(grants) => {
                let found = ends_of(socket, &grants).unwrap_or_default();
                Msg::Proven(found.into_values().collect())
            }
            Effect::Explain(record) => Msg::Explained {
                title: crate::app::why_title(&record),
                found: explained(socket, &record).map_err(|why| causes(&why)),
            },
            Effect::Quit => return,
        };
        if to.send(msg).is_err() {
            return;
        }
    }
}

/// Asks for a deed, on a connection of its own, and says what came of it.
fn perform(socket: &Path, what: &Deed) -> Msg {
    let said = Link::to(socket).and_then(|mut link| link.ask(&what.ask()));
    let ended = said.as_ref().ok().and_then(ended_by);
    let (is_done, said) = match said {
        Ok(reply) => (true, said_of(what, &reply)),
        Err(LinkError::Refused(refusal)) => (false, refusal.to_string()),
        // Whether it was done is not known then.
        Err(why) => (
            false,
            format!(
                "{}: {}; look whether it was done",
                what.said(),
                causes(&why)
            ),
        ),
    };
    let of = what.said();
    Msg::Answered {
        of,
        is_done,
        said,
        ended,
    }
}

/// The windows that a reply names as ended, each with its agent.
pub(crate) fn ended_by(reply: &Reply) -> Option<Vec<(GrantId, AgentName)>> {
    if let Reply::GivenBack(grants) = reply {
        let ended = grants.iter();
        return Some(
            ended
                .map(|grant| (grant.grant, grant.agent.clone()))
                .collect(),
        );
    }
    None
}

/// What came of a deed, in words.
pub(crate) fn said_of(what: &Deed, reply: &Reply) -> String {
    match reply {
        Reply::Opened(grant) => format!(
            "{}: {} of {} is open",
            what.said(),
            grant.grant,
            grant.agent
        ),
        Reply::Counted(request) => format!(
            "{}: counted, it waits on for {}",
            what.said(),
            request.wanting.as_deref().unwrap_or("nobody")
        ),
        Reply::GivenBack(grants) => format!("{}: {} windows have ended", what.said(), grants.len()),
        Reply::Done
        | Reply::Requested { .. }
        | Reply::Refused(_)
        | Reply::Status(_)
        | Reply::Records(_)
        | Reply::Joined(_)
        | Reply::Notified(_)
        | Reply::Checked(_) => format!("{}: done", what.said()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use enforcer_proto::wire::{self, Ask, Hello};

    use super::*;
    use crate::link::fake;

    #[test]
    fn each_try_waits_longer_up_to_a_bound() {
        assert_eq!(retry_after(0), RETRY_MIN);
        assert_eq!(retry_after(1), RETRY_MIN * 2);
        assert_eq!(retry_after(10), RETRY_MAX);
        assert_eq!(retry_after(u32::MAX), RETRY_MAX);
    }

    /// A daemon of two connections: what it was asked for from, and when the first was closed.
    fn serves(listener: &UnixListener, lines: &[String], heard: &SyncSender<u64>) {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("a console comes");
            let frame = |stream: &mut UnixStream| {
                let mut head = [0; 4];
                stream.read_exact(&mut head).ok()?;
                let mut body = vec![0; wire::body_length(head, wire::FRAME_BYTES_MAX).ok()?];
                stream.read_exact(&mut body).ok()?;
                Some(body)
            };
            frame(&mut stream).expect("its greeting");
            let hello = wire::encode(&Hello::ours()).expect("encodes");
            stream.write_all(&hello).expect("sends");
            let ask: Ask = wire::decode(&frame(&mut stream).expect("what it asks")).expect("reads");
            let Ask::Log {
                from, follow: true, ..
            } = ask
            else {
                panic!("it follows the log");
            };
            let records = wire::encode(&Reply::Records(lines.to_vec())).expect("encodes");
            stream.write_all(&records).expect("sends");
            // It says no more: this ends when the connection does.
            assert_eq!(frame(&mut stream), None);
            heard.send(from).expect("somebody listens");
        }
    }

    #[test]
    fn records_that_there_was_no_time_for_are_said_to_be_missing_and_asked_for_again() {
        let path = std::env::temp_dir().join(format!("console-feed-{}.sock", std::process::id()));
        let listener = UnixListener::bind(&path).expect("binds");
        let line = |seq: u64| {
            format!(
                r#"{{"seq":{seq},"boot_id":"b","boot_ns":1,"unix_ns":1,"event":{{"kind":"opened","grant":"g-1","agent":"finance-bot"}},"prev":"x"}}"#
            )
        };
        let lines = [line(7), line(8)];
        let (heard, asked) = sync_channel(2);
        thread::spawn(move || serves(&listener, &lines, &heard));
        let (to, news) = sync_channel(1);
        to.send(Msg::Tick).expect("there is room for one");
        let socket = path.clone();
        thread::spawn(move || follow(&socket, &to));
        assert_eq!(asked.recv(), Ok(1), "it lets the daemon go");
        assert_eq!(news.recv(), Ok(Msg::Tick));
        assert_eq!(news.recv(), Ok(Msg::Dropped(2)));
        let Ok(Msg::Records(entries, _)) = news.recv() else {
            panic!("they come after all");
        };
        let seqs: Vec<u64> = entries.iter().map(|entry| entry.record.seq).collect();
        assert_eq!(seqs, [7, 8]);
        drop(news);
        std::fs::remove_file(&path).expect("it is there");
    }

    #[test]
    fn a_record_that_comes_again_with_another_hash_is_of_another_log() {
        let entry = |seq: u64, hash: &str| {
            let line = format!(
                r#"{{"seq":{seq},"boot_id":"b","boot_ns":1,"unix_ns":1,"event":{{"kind":"opened","grant":"g-1","agent":"finance-bot"}},"prev":"x","hash":"{hash}"}}"#
            );
            Entry::read(&line).expect("a record")
        };
        let newest = Newest {
            seq: 7,
            hash: Some("a".to_owned()),
        };
        assert!(!newest.is_contradicted_by(&entry(7, "a")));
        assert!(!newest.is_contradicted_by(&entry(8, "b")));
        assert!(newest.is_contradicted_by(&entry(7, "b")));
    }

    /// Records from one to another, all with this hash.
    fn log(seqs: std::ops::RangeInclusive<u64>, hash: &str) -> Vec<String> {
        let event = serde_json::json!({"kind": "opened", "grant": "g-1", "agent": "finance-bot"});
        seqs.map(|seq| fake::line(seq, hash, &event)).collect()
    }

    /// What comes of a log that becomes another one, once eight records of it have come.
    fn comes_of(name: &str, other: Vec<String>) -> Msg {
        let daemon = fake::Fake::with(name, log(1..=8, "ours"));
        let (to, news) = sync_channel(64);
        let socket = daemon.socket().to_owned();
        thread::spawn(move || follow(&socket, &to));
        let Ok(Msg::Records(first, _)) = news.recv() else {
            panic!("they come");
        };
        assert_eq!(first.len(), 8);
        daemon.becomes(other);
        news.recv().expect("it goes on")
    }

    #[test]
    fn another_log_is_noticed_whether_it_is_shorter_or_has_grown_past_all_that_is_asked_for() {
        for (name, other, has) in [
            ("shorter", log(1..=3, "theirs"), 3),
            ("longer", log(1..=3_000, "theirs"), 3_000),
            (
                "without-it",
                [log(1..=7, "ours"), log(9..=9, "ours")].concat(),
                9,
            ),
        ] {
            assert_eq!(
                comes_of(name, other),
                Msg::Replaced { had: 8, has },
                "{name}"
            );
        }
    }

    #[test]
    fn the_same_log_that_has_grown_is_gone_on_with_also_where_it_keeps_the_newest_alone() {
        for (name, other) in [
            ("grown", log(1..=9, "ours")),
            ("kept", log(20..=21, "ours")),
        ] {
            let comes = comes_of(name, other);
            let Msg::Records(entries, _) = comes else {
                panic!("{name}: {comes:?}");
            };
            let last = entries.last().map(|entry| entry.record.seq);
            assert!(last == Some(9) || last == Some(21), "{name}");
        }
    }
}
