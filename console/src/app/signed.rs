//! Whether the log that came is the one that was signed: the checkpoint's note is checked with a key that the console was given, and names the hash of a
//! record that came. Without a key all of that is the daemon's word.

use enforcer_proto::checkpoint::{Checkpoint, Verifier};
use enforcer_proto::wire::CheckpointView;

use super::Model;
use super::tail::Entry;

/// For how long the daemon may name no checkpoint, though it had named one, milliseconds: one that has just started reads it from its disk first.
const VANISHED_MS: u64 = 5_000;

/// Whose checkpoints are believed, and what was found of those that came.
#[derive(Debug, Default)]
pub(crate) struct Signer {
    key: Option<Verifier>,
    newest: Option<Newest>,
    /// The most records that a checkpoint was of which the key has signed.
    most: u64,
    /// The record of a checkpoint that was compared by itself, and is the one that was signed.
    compared: Option<u64>,
    /// Since when the daemon names none, though it had, the console's clock, milliseconds.
    gone_since_ms: Option<u64>,
    /// What was found to be wrong first. Whatever is right later does not take that away: it is evidence.
    wrong: Option<String>,
}

#[derive(Debug)]
struct Newest {
    said: CheckpointView,
    /// What the note says, or what is wrong with it; none without a key.
    read: Option<Result<Checkpoint, String>>,
}

impl Signer {
    /// One that believes this key alone; none where there is none.
    pub(crate) fn new(key: Option<Verifier>) -> Self {
        Self {
            key,
            ..Self::default()
        }
    }

    /// Whether it believes a key.
    pub(crate) const fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// Takes in what the daemon says to be the newest checkpoint. Each is checked once, and none may be of fewer records than one before.
    pub(super) fn take(&mut self, at_ms: u64, said: Option<&CheckpointView>) {
        self.gone_since_ms = match said {
            None if self.most > 0 => Some(self.gone_since_ms.unwrap_or(at_ms)),
            None | Some(_) => None,
        };
        if let Some(since_ms) = self.gone_since_ms
            && at_ms.saturating_sub(since_ms) >= VANISHED_MS
        {
            self.is_wrong(format!(
                "the daemon names no checkpoint any more, and one of record {} had come",
                self.most
            ));
        }
        if self.newest.as_ref().map(|newest| &newest.said) == said {
            return;
        }
        self.newest = said.map(|said| Newest {
            read: self.key.as_ref().map(|key| read(key, said)),
            said: said.clone(),
        });
        match self.newest.as_ref().and_then(|newest| newest.read.clone()) {
            Some(Ok(signed)) if signed.records < self.most => self.is_wrong(format!(
                "the newest checkpoint is of record {}, and one of record {} had come",
                signed.records, self.most
            )),
            Some(Ok(signed)) => self.most = signed.records,
            Some(Err(why)) => self.is_wrong(why),
            None => {}
        }
    }

    fn is_wrong(&mut self, why: String) {
        self.wrong.get_or_insert(why);
    }

    /// Compares a record that came with what the newest checkpoint says of it.
    pub(crate) fn compare(&mut self, entry: &Entry) {
        let newest = self.newest.as_ref().and_then(|newest| newest.read.as_ref());
        let Some(Ok(signed)) = newest else { return };
        let seq = entry.record.seq;
        if signed.records != seq {
            return;
        }
        // A record that has not the hash that it names is none that was signed.
        if entry.is_sealed && entry.record.hash == Some(signed.head.to_string()) {
            self.compared = Some(seq);
        } else {
            self.is_wrong(format!("record {seq} is not the one that was signed"));
        }
    }
}

impl Model {
    /// Compares the record of the newest checkpoint, where it is among those that came.
    pub(super) fn check_signed(&mut self) {
        let newest = self.signer.newest.as_ref();
        let entry = newest.and_then(|newest| self.tail.get(newest.said.records));
        if let Some(entry) = entry {
            self.signer.compare(entry);
        }
    }
}

fn read(key: &Verifier, said: &CheckpointView) -> Result<Checkpoint, String> {
    let signed = key
        .verify(&said.note)
        .map_err(|error| format!("the newest checkpoint: {error}"))?;
    if signed.records == said.records {
        return Ok(signed);
    }
    Err(format!(
        "the daemon says that the newest checkpoint is of record {}, and it is of {}",
        said.records, signed.records
    ))
}

/// What is known of the newest checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Signed {
    /// The daemon names none.
    None,
    /// It says so, and there is no key to check it with.
    Said { records: u64 },
    /// It is signed by the key, and the record that it is of is the one that came.
    Holds { records: u64 },
    /// It is signed by the key; the record that it is of is not among those that came.
    OfElsewhere { records: u64 },
    /// It is not what it must be, or one before was not.
    Wrong(String),
}

/// What the newest checkpoint shows.
pub(crate) fn of(model: &Model) -> Signed {
    let signer = &model.signer;
    if let Some(why) = &signer.wrong {
        return Signed::Wrong(why.clone());
    }
    let Some(newest) = &signer.newest else {
        return Signed::None;
    };
    let records = newest.said.records;
    if !signer.has_key() {
        return Signed::Said { records };
    }
    if signer.compared == Some(records) {
        return Signed::Holds { records };
    }
    Signed::OfElsewhere { records }
}

/// A key as `enforcer log key` prints it, or a file with it.
///
/// # Errors
/// What is wrong with it, and what it must look like.
pub(crate) fn read_key(key: &str) -> anyhow::Result<Verifier> {
    use anyhow::Context;
    let text = match std::fs::read_to_string(key) {
        Ok(text) => text,
        // A key's own text is no file's name.
        Err(_) if key.contains('+') => key.to_owned(),
        Err(error) => return Err(error).with_context(|| format!("reading the key in {key}")),
    };
    text.parse().with_context(|| format!("the key `{key}`"))
}

#[cfg(test)]
mod tests {
    use enforcer_proto::audit::Chain;
    use enforcer_proto::checkpoint::Keyholder;
    use enforcer_proto::event::Event;
    use enforcer_proto::time::Now;

    use super::*;
    use crate::app::tail::Entry;
    use crate::app::{Mode, Msg};
    use crate::demo;

    const NOW: Now = Now {
        boot_ns: 1,
        unix_ns: 1,
    };

    /// A console to which three records have come, and the newest checkpoint that the daemon says, of so many of them.
    fn console(key: Option<Verifier>, signer: &Keyholder, said: u64, signed: usize) -> Model {
        let mut model = Model::new(Mode::Full);
        model.signer = Signer::new(key);
        let mut chain = Chain::default();
        let mut line = || {
            chain
                .seal(NOW, "boot", &Event::DaemonStopped {})
                .expect("short")
        };
        let entries: Vec<Entry> = (0..3)
            .map(|_| Entry::read(&line()).expect("a record"))
            .collect();
        let head = entries[signed - 1]
            .record
            .hash
            .as_ref()
            .expect("it is sealed")
            .parse()
            .expect("a hash");
        let note = signer.sign(signed as u64, head, NOW.unix_ns);
        model.update(0, Msg::Records(entries, Vec::new()));
        let story = demo::story().expect("it is well made");
        let status = story.into_iter().find_map(|msg| {
            let Msg::Status(status) = msg else {
                return None;
            };
            Some(status)
        });
        let mut status = status.expect("it begins with one");
        status.log.checkpoint = Some(CheckpointView {
            records: said,
            unix_ns: NOW.unix_ns,
            note,
        });
        model.update(0, Msg::Status(status));
        model
    }

    #[test]
    fn a_checkpoint_is_the_daemons_word_until_a_key_shows_that_it_is_of_these_records() {
        let ours = Keyholder::from_seed("enforcer/host-a", &[7; 32]).expect("a name");
        let others = Keyholder::from_seed("enforcer/host-a", &[8; 32]).expect("a name");
        let key = || Some(ours.verifier());
        assert_eq!(of(&console(None, &ours, 2, 2)), Signed::Said { records: 2 });
        assert_eq!(
            of(&console(key(), &ours, 2, 2)),
            Signed::Holds { records: 2 }
        );
        let wrong = |model: &Model| matches!(of(model), Signed::Wrong(_));
        assert!(wrong(&console(key(), &others, 2, 2)), "another's signature");
        assert!(
            wrong(&console(key(), &ours, 3, 2)),
            "of another record than it is said to be"
        );
    }

    /// Has the daemon name such a checkpoint, or none.
    fn names(model: &mut Model, at_ms: u64, checkpoint: Option<CheckpointView>) {
        let mut status = model.status().expect("one came").clone();
        status.log.checkpoint = checkpoint;
        model.update(at_ms, Msg::Status(Box::new(status)));
    }

    /// A checkpoint that is signed of a record of the console's, with the hash of another.
    fn checkpoint(model: &Model, signer: &Keyholder, of: u64, with: u64) -> CheckpointView {
        let entry = model.tail.get(with).expect("it came");
        let head = entry.record.hash.as_ref().expect("it is sealed");
        CheckpointView {
            records: of,
            unix_ns: NOW.unix_ns,
            note: signer.sign(of, head.parse().expect("a hash"), NOW.unix_ns),
        }
    }

    #[test]
    fn what_was_signed_falsely_once_stays_an_alarm_whatever_is_signed_later() {
        let ours = Keyholder::from_seed("enforcer/host-a", &[7; 32]).expect("a name");
        let mut model = console(Some(ours.verifier()), &ours, 1, 1);
        let other = checkpoint(&model, &ours, 2, 1);
        names(&mut model, 0, Some(other));
        let said = of(&model);
        assert_eq!(
            said,
            Signed::Wrong("record 2 is not the one that was signed".to_owned())
        );
        let good = checkpoint(&model, &ours, 3, 3);
        names(&mut model, 0, Some(good));
        assert_eq!(of(&model), said);
    }

    #[test]
    fn a_checkpoint_that_goes_back_or_is_gone_is_an_alarm_and_one_that_is_gone_for_a_moment_is_none()
     {
        let ours = Keyholder::from_seed("enforcer/host-a", &[7; 32]).expect("a name");
        let begun = || console(Some(ours.verifier()), &ours, 3, 3);
        let mut back = begun();
        let older = checkpoint(&back, &ours, 2, 2);
        names(&mut back, 0, Some(older.clone()));
        assert!(
            matches!(of(&back), Signed::Wrong(why) if why.contains("of record 2, and one of record 3 had come"))
        );
        let mut gone = begun();
        let newest = checkpoint(&gone, &ours, 3, 3);
        names(&mut gone, 1_000, None);
        names(&mut gone, 5_900, None);
        // A daemon that has just started has not read it yet.
        assert_eq!(of(&gone), Signed::None);
        names(&mut gone, 6_000, Some(newest.clone()));
        assert_eq!(of(&gone), Signed::Holds { records: 3 });
        names(&mut gone, 7_000, None);
        names(&mut gone, 12_000, None);
        assert!(matches!(of(&gone), Signed::Wrong(why) if why.contains("no checkpoint any more")));
        names(&mut gone, 13_000, Some(newest));
        assert!(matches!(of(&gone), Signed::Wrong(_)), "it stays");
        // Without a key all of that is the daemon's word.
        let mut unchecked = console(None, &ours, 3, 3);
        names(&mut unchecked, 0, Some(older));
        names(&mut unchecked, 1_000, None);
        names(&mut unchecked, 9_000, None);
        assert_eq!(of(&unchecked), Signed::None);
    }
}
