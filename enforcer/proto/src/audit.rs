//! The chain: numbered records, each holding the hash of the one before, one JSON object a line. Pure: lines in, lines out.
//!
//! A line is `{"seq":…,"boot_id":…,"boot_ns":…,"unix_ns":…,"event":{…},"prev":"<64 hex>","hash":"<64 hex>"}`. The hash is SHA-256 over the
//! exact bytes before `,"hash":`, so a changed byte is found in the record that holds it, and a removed record at the one after it. The
//! chain shows edits and gaps; it does not show that its end was cut off, nor a rewrite of the whole by whoever owns the disk: that is
//! what [`crate::checkpoint`] is for.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::event::Event;
use crate::time::Now;

/// The longest line that is read or written, bytes. A record that would be longer is refused before it is written.
pub const LINE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// What stands where the first record names its predecessor.
pub const GENESIS: Hash = Hash([0; 32]);

/// What a record has around its event, bytes at most: numbers of 20 digits, a boot id, two hashes and the names of all that.
const ENVELOPE_BYTES_MAX: usize = 512;

const SUFFIX_HEAD: &str = ",\"hash\":\"";
/// `,"hash":"` + 64 hex digits + `"}`
const SUFFIX_BYTES: usize = SUFFIX_HEAD.len() + 64 + 2;

/// A SHA-256 in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for Hash {
    type Err = NoHash;

    /// Reads what [`struct@Hash`]'s `Display` writes: 64 lower-case hex digits and nothing else.
    fn from_str(text: &str) -> Result<Self, NoHash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NoHash),
        };
        let mut hash = [0; 32];
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return Err(NoHash);
        };
        if pairs.len() != hash.len() {
            return Err(NoHash);
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(hash))
    }
}

/// A text that is no hash of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hash: it takes 64 hex digits")]
pub struct NoHash;

/// The hex SHA-256 of some text: policy digests, request digests.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    Hash(Sha256::digest(bytes).into()).to_string()
}

/// One record as read from its line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub seq: u64,
    /// The kernel's boot id: boot-clock times compare only within one.
    pub boot_id: String,
    /// Boot clock, nanoseconds.
    pub boot_ns: u64,
    /// Unix time, nanoseconds.
    pub unix_ns: u64,
    /// What happened.
    pub event: Event,
    /// The hash of the record before.
    pub prev: String,
    /// Its own hash; absent while it is being sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

impl Record {
    /// When it was written.
    #[must_use]
    pub const fn now(&self) -> Now {
        Now {
            boot_ns: self.boot_ns,
            unix_ns: self.unix_ns,
        }
    }
}

/// A record that is not what the chain says it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq} is bad: {why}")]
pub struct Broken {
    /// The number the record should have.
    pub seq: u64,
    /// What is wrong with it.
    pub why: String,
}

/// Whether the record of `event` fits a line of the log. What does not must be refused before anything is done about it.
#[must_use]
pub fn fits(event: &Event) -> bool {
    serde_json::to_string(event).is_ok_and(|text| text.len() + ENVELOPE_BYTES_MAX <= LINE_BYTES_MAX)
}

/// A record too long for the log. The caller records another in its place, or refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record would be {0} bytes, more than a line of the log may hold")]
pub struct TooLong(pub usize);

/// What a line says of its place in the chain, whether or not the rest of it is true: for finding a place, and for going on behind what is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its number.
    pub seq: u64,
    /// The boot it is of.
    pub boot_id: String,
    /// Boot clock, nanoseconds.
    pub boot_ns: u64,
    /// Unix time, nanoseconds.
    pub unix_ns: u64,
    /// The hash of the record before.
    pub prev: Hash,
    /// Its own hash.
    pub hash: Hash,
}

impl Named {
    /// Reads it from a line without its newline; `None` where the line is no record, or its bytes are not those that were sealed.
    #[must_use]
    pub fn sealed(line: &[u8]) -> Option<Self> {
        let (body, suffix) = line.split_at_checked(line.len().checked_sub(SUFFIX_BYTES)?)?;
        let hash = Hash(Sha256::digest(body).into());
        let is_sealed = suffix == format!("{SUFFIX_HEAD}{hash}\"}}").as_bytes();
        Self::of(line).filter(|_| is_sealed)
    }

    /// Reads it from a line without its newline; `None` where the line is no record.
    #[must_use]
    pub fn of(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Ends {
            seq: u64,
            boot_id: String,
            boot_ns: u64,
            unix_ns: u64,
            prev: String,
            hash: String,
        }
        let ends: Ends = serde_json::from_slice(line).ok()?;
        Some(Self {
            seq: ends.seq,
            boot_id: ends.boot_id,
            boot_ns: ends.boot_ns,
            unix_ns: ends.unix_ns,
            prev: ends.prev.parse().ok()?,
            hash: ends.hash.parse().ok()?,
        })
    }
}

/// The end of a chain: what the next record must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    next_seq: u64,
    head: Hash,
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            next_seq: 1,
            head: GENESIS,
        }
    }
}

impl Chain {
    /// The chain behind its record `count`, whose hash is `head`: what was before it is not at hand, or was read already.
    #[must_use]
    pub const fn after(count: u64, head: Hash) -> Self {
        Self {
            next_seq: count.saturating_add(1),
            head,
        }
    }

    /// How many records the chain holds.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.next_seq - 1
    }

    /// The hash of the last record.
    #[must_use]
    pub const fn head(&self) -> Hash {
        self.head
    }

    /// Seals `event` as the next record and gives its line, without the newline.
    ///
    /// # Errors
    /// [`TooLong`]; the chain has not moved then.
    pub fn seal(&mut self, now: Now, boot_id: &str, event: &Event) -> Result<String, TooLong> {
        let body = Record {
            seq: self.next_seq,
            boot_id: boot_id.to_owned(),
            boot_ns: now.boot_ns,
            unix_ns: now.unix_ns,
            event: event.clone(),
            prev: self.head.to_string(),
            hash: None,
        };
        // A record is plain data with string keys: its serialisation cannot fail. Were it to, TooLong(0) refuses all the same.
        let mut line = serde_json::to_string(&body).map_err(|_| TooLong(0))?;
        line.pop();
        if line.len() + SUFFIX_BYTES > LINE_BYTES_MAX {
            return Err(TooLong(line.len()));
        }
        let hash = Hash(Sha256::digest(line.as_bytes()).into());
        line.push_str(SUFFIX_HEAD);
        line.push_str(&hash.to_string());
        line.push_str("\"}");
        self.next_seq += 1;
        self.head = hash;
        Ok(line)
    }

    /// Checks that `line` (without newline) is the next record, and moves on.
    ///
    /// # Errors
    /// [`Broken`], naming the record and what is wrong; the chain has not moved then.
    pub fn follow(&mut self, line: &[u8]) -> Result<Record, Broken> {
        let broken = |why: &str| Broken {
            seq: self.next_seq,
            why: why.to_owned(),
        };
        if line.len() < SUFFIX_BYTES || line.len() > LINE_BYTES_MAX {
            return Err(broken("its length is not that of a record"));
        }
        let (body, suffix) = line.split_at(line.len() - SUFFIX_BYTES);
        let hash = Hash(Sha256::digest(body).into());
        if suffix != format!("{SUFFIX_HEAD}{hash}\"}}").as_bytes() {
            return Err(broken(
                "its bytes do not have the hash it names: it was changed after it was written",
            ));
        }
        let record: Record = serde_json::from_slice(line)
            .map_err(|error| broken(&format!("it cannot be read: {error}")))?;
        if record.seq != self.next_seq {
            return Err(broken(&out_of_order(self.next_seq, record.seq)));
        }
        if record.prev != self.head.to_string() {
            return Err(broken(
                "it does not follow the record before it: that one was replaced",
            ));
        }
        self.next_seq += 1;
        self.head = hash;
        Ok(record)
    }
}

/// What is wrong where another record stands than the one that comes next.
#[must_use]
pub fn out_of_order(expected: u64, found: u64) -> String {
    if found > expected {
        format!(
            "records {expected} to {} are missing: the next one there has the number {found}",
            found - 1
        )
    } else {
        format!("in its place stands one with the number {found}, which should have come before")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::GrantId;

    fn lines(count: u64) -> Vec<String> {
        let mut chain = Chain::default();
        (1..=count)
            .map(|n| {
                let event = Event::Opened {
                    grant: GrantId(n),
                    agent: "bot".parse().expect("a name"),
                };
                chain
                    .seal(
                        Now {
                            boot_ns: n,
                            unix_ns: n,
                        },
                        "b",
                        &event,
                    )
                    .expect("short")
            })
            .collect()
    }

    fn verify(lines: &[String]) -> Result<u64, Broken> {
        let mut chain = Chain::default();
        for line in lines {
            chain.follow(line.as_bytes())?;
        }
        Ok(chain.count())
    }

    #[test]
    fn a_removed_record_is_named() {
        let mut lines = lines(5);
        lines.remove(2);
        assert_eq!(verify(&lines).map_err(|broken| broken.seq), Err(3));
    }

    #[test]
    fn a_record_that_is_too_long_does_not_move_the_chain() {
        let mut chain = Chain::default();
        let event = Event::DaemonStarted {
            host: "x".repeat(LINE_BYTES_MAX),
            version: String::new(),
            policy_digest: String::new(),
        };
        assert!(
            chain
                .seal(
                    Now {
                        boot_ns: 1,
                        unix_ns: 1
                    },
                    "b",
                    &event
                )
                .is_err()
        );
        assert_eq!(chain, Chain::default());
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_verifies(count in 0_u64..20) {
            prop_assert_eq!(verify(&lines(count)), Ok(count));
        }

        #[test]
        fn one_changed_byte_is_found_in_the_record_that_holds_it(at in 0_usize..7, byte in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut lines = lines(7);
            let mut bytes = lines[at].clone().into_bytes();
            let place = byte.index(bytes.len());
            bytes[place] ^= flip;
            let mut chain = Chain::default();
            let found = (0..lines.len()).find(|&n| {
                let line = if n == at { bytes.clone() } else { std::mem::take(&mut lines[n]).into_bytes() };
                chain.follow(&line).is_err()
            });
            prop_assert_eq!(found, Some(at));
        }
    }
}
