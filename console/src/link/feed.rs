//! What comes from the daemon while the console runs, each kind on a thread of its own: how things are, the log as it grows, and the answers to what
//! is asked for. The console never makes the daemon wait: what it has no time for is let go, and counted by the numbers that are missing.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use enforcer_proto::audit::Record;
use enforcer_proto::event::About;
use enforcer_proto::id::GrantId;
use enforcer_proto::principal::AgentName;
use enforcer_proto::search::Filter;
use enforcer_proto::sentence::sentence;
use enforcer_proto::why::{self, Outcome, Records};
use enforcer_proto::wire::Reply;

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
/// The most records that are looked for at once: the newest.
const FOUND_MAX: u32 = 2_000;

/// The most windows of which each is asked about by itself.
const PROVEN_EACH_MAX: usize = 8;
/// The most records of a window that are looked at for its end: the newest.
const PROOF_MAX: u32 = 500;

/// The way to the thread that asks for things.
#[derive(Debug, Clone)]
pub(crate) struct Deeds(SyncSender<Effect>);

impl Deeds {
    /// Has it asked for. Where too much waits already, that is said.
    pub(crate) fn ask(&self, effect: Effect) -> Option<Msg> {
        let effect = match self.0.try_send(effect) {
            Ok(()) => return None,
            Err(TrySendError::Full(effect) | TrySendError::Disconnected(effect)) => effect,
        };
        let of = match effect {
            Effect::Do(deed) => deed.said(),
            Effect::Find { .. } | Effect::Explain(_) | Effect::Quit => String::new(),
            // It is asked for again when there is a reason to.
            Effect::Prove(_) => return None,
        };
        Some(Msg::Answered {
            of,
            is_done: false,
            said: "not asked: what was asked for before is not answered yet".to_owned(),
            ended: None,
        })
    }
}

/// Starts the threads; what they hear goes to `to`. They end with the process.
pub(crate) fn start(socket: &Path, to: &SyncSender<Msg>) -> Deeds {
    let (deeds, asked) = sync_channel(16);
    let at = || (socket.to_owned(), to.clone());
    let (socket, news) = at();
    thread::spawn(move || watch(&socket, &news));
    let (socket, news) = at();
    thread::spawn(move || follow(&socket, &news));
    let (socket, news) = at();
    thread::spawn(move || answer(&socket, &news, &asked));
    Deeds(deeds)
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

    /// How many records the log has, where that is fewer than have come of it: it was replaced, or goes on from an older copy. What was said by the
    /// daemon after a record came has that record.
    fn is_lost(&self, link: &mut Link) -> Result<Option<u64>, LinkError> {
        if self.seq == 0 {
            return Ok(None);
        }
        let has = link.status()?.log.records;
        Ok((has < self.seq).then_some(has))
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
            let entries: Vec<Entry> = lines.iter().filter_map(|line| Entry::read(line)).collect();
            if entries.iter().any(|entry| last.is_contradicted_by(entry)) {
                replaced = Some(entries.last().map_or(0, |entry| entry.record.seq));
                return false;
            }
            let unreadable = (all - entries.len()) as u64;
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
                found: found(socket, *filter),
            },
            // What cannot be had now is asked for again when there is a reason to; that there is no proof is what is shown.
            Effect::Prove(grants) => Msg::Proven(ends_of(socket, &grants).unwrap_or_default()),
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

/// What the log has of the end of windows: of a few all that came last, of many their closes.
fn ends_of(socket: &Path, grants: &[GrantId]) -> Result<Vec<Entry>, String> {
    if grants.len() > PROVEN_EACH_MAX {
        let closes = Filter {
            kind: Some("closed".to_owned()),
            ..Filter::default()
        };
        return found(socket, closes);
    }
    let mut entries = Vec::new();
    for grant in grants {
        let of_one = Filter {
            grant: Some(*grant),
            ..Filter::default()
        };
        entries.extend(newest(socket, of_one, PROOF_MAX)?);
    }
    Ok(entries)
}

fn found(socket: &Path, filter: Filter) -> Result<Vec<Entry>, String> {
    newest(socket, filter, FOUND_MAX)
}

fn newest(socket: &Path, filter: Filter, most: u32) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut each = |lines: Vec<String>| {
        entries.extend(lines.iter().filter_map(|line| Entry::read(line)));
        true
    };
    Link::to(socket)
        .and_then(|mut link| link.records((1, Some(most)), false, filter, &mut each))
        .map_err(|why| causes(&why))?;
    Ok(entries)
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
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use enforcer_proto::wire::{self, Ask, Hello};

    use super::*;

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
        let Ok(Msg::Records(entries, 0)) = news.recv() else {
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
}
