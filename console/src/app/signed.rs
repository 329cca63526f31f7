//! Whether the log that came is the one that was signed: the checkpoint's note is checked with a key that the console was given, and names the hash of a
//! record that came. Without a key all of that is the daemon's word.

use enforcer_proto::checkpoint::{Checkpoint, Verifier};
use enforcer_proto::wire::CheckpointView;

use super::Model;

/// Whose checkpoints are believed, and what was found of the newest that came.
#[derive(Debug, Default)]
pub(crate) struct Signer {
    key: Option<Verifier>,
    newest: Option<Newest>,
}

#[derive(Debug)]
struct Newest {
    said: CheckpointView,
    /// What the note says, or what is wrong with it; none without a key.
    read: Option<Result<Checkpoint, String>>,
}

impl Signer {
    /// One that believes this key alone; none where there is none.
    pub(crate) const fn new(key: Option<Verifier>) -> Self {
        Self { key, newest: None }
    }

    /// Takes in what the daemon says to be the newest checkpoint. Each is checked once.
    pub(super) fn take(&mut self, said: Option<&CheckpointView>) {
        if self.newest.as_ref().map(|newest| &newest.said) == said {
            return;
        }
        self.newest = said.map(|said| Newest {
            read: self.key.as_ref().map(|key| read(key, said)),
            said: said.clone(),
        });
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
    /// It is signed by the key; the record that it is of is not among those that came, or not yet found to follow them.
    OfElsewhere { records: u64 },
    /// It is not what it must be.
    Wrong(String),
}

/// What the newest checkpoint shows.
pub(crate) fn of(model: &Model) -> Signed {
    let Some(newest) = &model.signer.newest else {
        return Signed::None;
    };
    let records = newest.said.records;
    let signed = match &newest.read {
        None => return Signed::Said { records },
        Some(Err(why)) => return Signed::Wrong(why.clone()),
        Some(Ok(signed)) => signed,
    };
    match model.tail.get(records) {
        Some(entry) if entry.record.hash != Some(signed.head.to_string()) => {
            Signed::Wrong(format!("record {records} is not the one that was signed"))
        }
        Some(_) if model.chain.holds(records) => Signed::Holds { records },
        Some(_) | None => Signed::OfElsewhere { records },
    }
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
        model.update(0, Msg::Records(entries, 0));
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
}
