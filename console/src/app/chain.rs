//! Whether the records that came are those that were written, as far as the records themselves can show it: each has the hash that it names, and names the
//! one before. Whoever owns the daemon's disk could have written another chain: that shows against a checkpoint alone (`signed.rs`, `enforcer log verify`).

use super::tail::Entry;

/// What was checked of the records that came.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// The first and the last of the newest that follow each other.
    run: Option<(u64, u64)>,
    head: Option<String>,
    /// The first that is not what its hash says, or does not follow the one before it.
    broken: Option<u64>,
}

impl Checked {
    /// Takes in the next record that came. Where some were let go before it, what is checked begins with it.
    pub(crate) fn take(&mut self, entry: &Entry) {
        let seq = entry.record.seq;
        let first = match self.run {
            Some((first, last)) if last.checked_add(1) == Some(seq) => Some(first),
            Some(_) | None => None,
        };
        let is_linked = first.is_none() || self.head.as_ref() == Some(&entry.record.prev);
        if entry.is_sealed && is_linked {
            self.run = Some((first.unwrap_or(seq), seq));
            self.head.clone_from(&entry.record.hash);
        } else {
            self.run = None;
            self.broken.get_or_insert(seq);
        }
    }

    /// From which record to which all have their hashes, and follow each other.
    pub(crate) const fn run(&self) -> Option<(u64, u64)> {
        self.run
    }

    /// Whether a record is among those.
    pub(crate) fn holds(&self, seq: u64) -> bool {
        self.run
            .is_some_and(|(first, last)| (first..=last).contains(&seq))
    }

    /// The first record that was found to be another than was written.
    pub(crate) const fn broken(&self) -> Option<u64> {
        self.broken
    }
}

#[cfg(test)]
mod tests {
    use enforcer_proto::audit::Chain;
    use enforcer_proto::event::Event;
    use enforcer_proto::time::Now;

    use super::*;

    fn lines(count: usize) -> Vec<String> {
        let mut chain = Chain::default();
        let now = Now {
            boot_ns: 1,
            unix_ns: 1,
        };
        let mut seal = |_| {
            let line = chain.seal(now, "boot", &Event::DaemonStopped {});
            line.expect("short")
        };
        (0..count).map(&mut seal).collect()
    }

    fn checked(lines: &[String]) -> Checked {
        let mut checked = Checked::default();
        for line in lines {
            checked.take(&Entry::read(line).expect("a record"));
        }
        checked
    }

    #[test]
    fn records_are_checked_from_the_first_that_came_to_the_last() {
        let checked = checked(&lines(5)[1..]);
        assert_eq!((checked.run(), checked.broken()), (Some((2, 5)), None));
        assert!(checked.holds(3) && !checked.holds(1));
    }

    #[test]
    fn a_changed_record_and_a_replaced_one_are_found() {
        let mut changed = lines(4);
        changed[1] = changed[1].replace("\"unix_ns\":1", "\"unix_ns\":2");
        assert_eq!(checked(&changed).broken(), Some(2));
        // One of another chain, with a hash of its own.
        let mut replaced = lines(4);
        let mut other = Chain::default();
        let now = Now {
            boot_ns: 9,
            unix_ns: 9,
        };
        replaced[0] = other
            .seal(now, "boot", &Event::DaemonStopped {})
            .expect("short");
        assert_eq!(checked(&replaced).broken(), Some(2));
    }

    #[test]
    fn where_records_were_let_go_what_is_checked_begins_behind_them() {
        let mut some = lines(9);
        some.drain(3..6);
        let checked = checked(&some);
        assert_eq!((checked.run(), checked.broken()), (Some((7, 9)), None));
    }
}
