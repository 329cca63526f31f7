//! Checkpoints: what the log was at a moment, signed, in the C2SP text formats (`tlog-checkpoint` in a `signed-note`). Pure: no clock, no I/O.
//!
//! ```text
//! enforcer/host-a
//! 1234
//! 4Xl2…=
//! root hash-chain
//! unix_ns 1764160000000000000
//!
//! — enforcer/host-a Az3g…=
//! ```
//!
//! The origin, how many records the log has, and the base64 of a hash: that of the record with this number, which is the head of the hash chain.
//! **It is not the root of a Merkle tree**, as it is in a transparency log: a witness can keep and countersign it, and whoever has the log can
//! compare it, but there are no proofs of inclusion or consistency. The extension line `root hash-chain` says so to other readers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::audit::Hash;

/// The longest note that is read, bytes.
pub const NOTE_BYTES_MAX: usize = 16 * 1024;
/// The most signatures that a note is read with: ours and those of witnesses.
pub const SIGNATURES_MAX: usize = 32;

/// What stands before a signature: an em dash and a space.
const DASH: &str = "\u{2014} ";
/// The signed-note format's number for Ed25519.
const ED25519: u8 = 1;
const PRIVATE: &str = "PRIVATE+KEY+";
const ROOT_KIND: &str = "root hash-chain";
const TIME: &str = "unix_ns ";

/// What the log was at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose log it is: `enforcer/HOST`.
    pub origin: String,
    /// How many records it had: the number of the last.
    pub records: u64,
    /// The hash of that record.
    pub head: Hash,
    /// When it was signed, unix time, nanoseconds: what the host's clock said.
    pub unix_ns: u64,
}

/// A note or a key that is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The key's text cannot be read.
    #[error(
        "it is no Ed25519 verifier key: it looks like enforcer/HOST+0123abcd+base64, as `enforcer log key` prints it"
    )]
    Key,
    /// The note's text cannot be read.
    #[error("it is no checkpoint: {0}")]
    Malformed(&'static str),
    /// None of its signatures is by the key.
    #[error("it is not signed by the key {0}")]
    Unsigned(String),
    /// A signature names the key, and is not by it.
    #[error(
        "its signature by {0} is wrong: it was changed after it was signed, or made with another key"
    )]
    Forged(String),
    /// It is of another log.
    #[error("it is of the log `{found}`, and the key is for `{expected}`")]
    Origin {
        /// Whose log the note is of.
        found: String,
        /// Whose the key is.
        expected: String,
    },
}

/// The public half: who may be believed about a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key: VerifyingKey,
}

/// The private half. It cannot be printed.
pub struct Keyholder {
    name: String,
    key: SigningKey,
}

impl std::fmt::Debug for Keyholder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyholder")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Keyholder {
    /// A key from 32 bytes that nobody else knows.
    ///
    /// # Errors
    /// [`CheckpointError::Key`]: `name` is empty, or has a space, a plus or what cannot be seen.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, CheckpointError> {
        is_name(name)
            .then(|| Self {
                name: name.to_owned(),
                key: SigningKey::from_bytes(seed),
            })
            .ok_or(CheckpointError::Key)
    }

    /// Reads a key as [`Keyholder::encoded`] writes it.
    ///
    /// # Errors
    /// [`CheckpointError::Key`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let rest = text.trim_end().strip_prefix(PRIVATE);
        let (name, id, seed) = rest.and_then(key_parts).ok_or(CheckpointError::Key)?;
        let read = Self::from_seed(name, &seed)?;
        // The id is of the public half, so a seed that was damaged is noticed.
        (read.verifier().id() == id)
            .then_some(read)
            .ok_or(CheckpointError::Key)
    }

    /// The key as it is kept, in the form that signed-note tools know: `PRIVATE+KEY+name+hash+base64`.
    #[must_use]
    pub fn encoded(&self) -> Zeroizing<String> {
        let seed = Zeroizing::new(self.key.to_bytes());
        let id = hex_id(self.verifier().id());
        let data = encoded_key(&seed);
        Zeroizing::new(format!("{PRIVATE}{}+{id}+{}", self.name, *data))
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier {
            name: self.name.clone(),
            key: self.key.verifying_key(),
        }
    }

    /// The signed note of what the log was. Its origin is the key's name.
    #[must_use]
    pub fn sign(&self, records: u64, head: Hash, unix_ns: u64) -> String {
        let text = format!(
            "{}\n{records}\n{}\n{ROOT_KIND}\n{TIME}{unix_ns}\n",
            self.name,
            BASE64.encode(head.0)
        );
        let mut signature = self.verifier().id().to_vec();
        signature.extend(self.key.sign(text.as_bytes()).to_bytes());
        format!("{text}\n{DASH}{} {}\n", self.name, BASE64.encode(signature))
    }
}

impl Verifier {
    /// The key's name, which is the origin of what it signs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first four bytes of SHA-256 over name, newline, algorithm and public key.
    fn id(&self) -> [u8; 4] {
        let mut hash = Sha256::new();
        hash.update(self.name.as_bytes());
        hash.update([b'\n', ED25519]);
        hash.update(self.key.as_bytes());
        let hash: [u8; 32] = hash.finalize().into();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// Reads a note whole, and believes it only if this key has signed it. Signatures by others are passed over.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verify(&self, note: &str) -> Result<Checkpoint, CheckpointError> {
        let note = Note::parse(note)?;
        let mut is_signed = false;
        for (name, signature) in &note.signatures {
            let Some((id, signature)) = signature.split_first_chunk::<4>() else {
                return Err(CheckpointError::Malformed("a signature is too short"));
            };
            if *name != self.name || *id != self.id() {
                continue;
            }
            let forged = || CheckpointError::Forged(self.name.clone());
            let signature = Signature::from_slice(signature).map_err(|_| forged())?;
            self.key
                .verify_strict(note.text.as_bytes(), &signature)
                .map_err(|_| forged())?;
            is_signed = true;
        }
        if !is_signed {
            return Err(CheckpointError::Unsigned(self.to_string()));
        }
        let read = Checkpoint::parse(note.text)?;
        if read.origin != self.name {
            return Err(CheckpointError::Origin {
                found: read.origin,
                expected: self.name.clone(),
            });
        }
        Ok(read)
    }
}

impl std::fmt::Display for Verifier {
    /// `name+hash+base64`, as signed-note tools take it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let data = encoded_key(self.key.as_bytes());
        write!(f, "{}+{}+{}", self.name, hex_id(self.id()), *data)
    }
}

impl std::str::FromStr for Verifier {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let (name, id, key) = key_parts(text.trim()).ok_or(CheckpointError::Key)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| CheckpointError::Key)?;
        let read = Self {
            name: name.to_owned(),
            key,
        };
        (is_name(name) && read.id() == id && !read.key.is_weak())
            .then_some(read)
            .ok_or(CheckpointError::Key)
    }
}

impl Checkpoint {
    /// Reads a note's text, signed or not: believe only what [`Verifier::verify`] gives.
    ///
    /// # Errors
    /// [`CheckpointError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let lines = text
            .strip_suffix('\n')
            .ok_or_else(|| malformed("its last line has no end"))?;
        let mut lines = lines.split('\n');
        let origin = lines.next().filter(|origin| is_name(origin));
        let origin = origin.ok_or_else(|| malformed("its first line is no origin"))?;
        let records = lines.next().and_then(decimal);
        let records =
            records.ok_or_else(|| malformed("its second line is no number of records"))?;
        let head = lines.next().and_then(|root| BASE64.decode(root).ok());
        let head = head
            .and_then(|root| <[u8; 32]>::try_from(root).ok())
            .ok_or_else(|| malformed("its third line is no base64 of a SHA-256"))?;
        if lines.next() != Some(ROOT_KIND) {
            return Err(malformed(
                "it does not say that its root is a hash chain's head",
            ));
        }
        let unix_ns = lines
            .next()
            .and_then(|line| line.strip_prefix(TIME))
            .and_then(decimal)
            .ok_or_else(|| malformed("it does not say when it was signed"))?;
        if lines.next().is_some() {
            return Err(malformed("it has more lines than are known"));
        }
        Ok(Self {
            origin: origin.to_owned(),
            records,
            head: Hash(head),
            unix_ns,
        })
    }
}

/// A signed note, taken apart.
struct Note<'a> {
    /// What is signed, with its last newline.
    text: &'a str,
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> Note<'a> {
    fn parse(note: &'a str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        if note.len() > NOTE_BYTES_MAX {
            return Err(malformed("it is too long"));
        }
        if note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(malformed("it holds what is no text"));
        }
        let at = note
            .rfind("\n\n")
            .ok_or_else(|| malformed("no empty line stands before its signatures"))?;
        let (text, signatures) = (&note[..=at], &note[at + 2..]);
        let signatures = signatures
            .strip_suffix('\n')
            .ok_or_else(|| malformed("its last line has no end"))?;
        let signatures: Vec<_> = signatures
            .split('\n')
            .take(SIGNATURES_MAX + 1)
            .map(|line| {
                let (name, data) = line.strip_prefix(DASH)?.split_once(' ')?;
                Some((name, BASE64.decode(data).ok()?)).filter(|(name, _)| is_name(name))
            })
            .collect::<Option<_>>()
            .ok_or_else(|| malformed("a line behind the empty one is no signature"))?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(malformed("it has too many signatures"));
        }
        Ok(Self { text, signatures })
    }
}

/// The notes of a file to which one after the other was appended, oldest first. Whether they are any good is seen when they are verified; what
/// stands behind the last whole line is left out, since a crash may have torn it.
pub fn notes(file: &str) -> impl Iterator<Item = &str> {
    let whole = file.rfind('\n').map_or("", |end| &file[..=end]);
    let mut rest = whole.trim_start_matches('\n');
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut end = 0;
        let mut is_signed = false;
        for line in rest.split_inclusive('\n') {
            let is_signature = line.starts_with(DASH);
            if is_signed && !is_signature {
                break;
            }
            is_signed |= is_signature;
            end += line.len();
        }
        let (note, behind) = rest.split_at(end);
        rest = behind.trim_start_matches('\n');
        Some(note)
    })
}

/// Names of keys and logs: not empty, without space, plus, or what cannot be seen.
fn is_name(name: &str) -> bool {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    (1..=255).contains(&name.len()) && !name.contains(is_bad)
}

/// A decimal number in its one form.
fn decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn hex_id(id: [u8; 4]) -> String {
    format!("{:08x}", u32::from_be_bytes(id))
}

fn encoded_key(key: &[u8; 32]) -> Zeroizing<String> {
    let mut data = Zeroizing::new(vec![ED25519]);
    data.extend_from_slice(key);
    Zeroizing::new(BASE64.encode(&*data))
}

/// Name, id and key of `name+hash+base64`.
fn key_parts(text: &str) -> Option<(&str, [u8; 4], [u8; 32])> {
    let (name, rest) = text.split_once('+')?;
    let (id, data) = rest.split_once('+')?;
    let is_hex = id.len() == 8 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let id = u32::from_str_radix(id, 16).ok().filter(|_| is_hex)?;
    let data = Zeroizing::new(BASE64.decode(data).ok()?);
    let (ED25519, key) = data.split_first().map(|(kind, key)| (*kind, key))? else {
        return None;
    };
    Some((name, id.to_be_bytes(), key.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(seed: u8) -> Keyholder {
        Keyholder::from_seed("enforcer/host-a", &[seed; 32]).expect("a name")
    }

    #[test]
    fn a_checkpoint_is_a_c2sp_signed_note() {
        let note = key(7).sign(1234, Hash([9; 32]), 5);
        let lines: Vec<&str> = note.lines().collect();
        assert_eq!(
            lines[..6],
            [
                "enforcer/host-a",
                "1234",
                "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=",
                "root hash-chain",
                "unix_ns 5",
                ""
            ]
        );
        assert!(lines[6].starts_with("\u{2014} enforcer/host-a ") && note.ends_with('\n'));
        assert_eq!(lines.len(), 7);
    }

    /// The example of the signed-note specification: a key that other tools have made is read as they read it.
    #[test]
    fn a_verifier_key_of_another_tools_is_read() {
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: Verifier = text.parse().expect("a key");
        assert_eq!(
            (key.name(), key.to_string().as_str()),
            ("PeterNeumann", text)
        );
        let note = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\n\
                    \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        // Its signature is right; only that it is no checkpoint is wrong with it.
        assert_eq!(
            key.verify(note),
            Err(CheckpointError::Malformed("its first line is no origin"))
        );
        assert!(matches!(
            key.verify(&note.replace("answer", "Answer")),
            Err(CheckpointError::Forged(_))
        ));
    }

    #[test]
    fn signatures_of_witnesses_are_passed_over() {
        let signed = key(1).sign(3, Hash([1; 32]), 5);
        let witness = key(2).sign(3, Hash([1; 32]), 5);
        let line = witness
            .lines()
            .last()
            .expect("signed")
            .replace("host-a", "witness");
        let both = format!("{signed}{line}\n");
        assert!(key(1).verifier().verify(&both).is_ok());
        assert_eq!(
            key(3).verifier().verify(&both),
            Err(CheckpointError::Unsigned(key(3).verifier().to_string()))
        );
    }

    #[test]
    fn a_checkpoint_of_another_log_is_refused() {
        let other = Keyholder::from_seed("enforcer/host-b", &[7; 32]).expect("a name");
        let note = other.sign(1, Hash([0; 32]), 1);
        assert!(matches!(
            key(7).verifier().verify(&note),
            Err(CheckpointError::Unsigned(_))
        ));
    }

    #[test]
    fn a_key_that_was_damaged_is_no_key() {
        let text = key(7).encoded();
        assert!(Keyholder::parse(&text).is_ok());
        let public = key(7).verifier().to_string();
        for at in 0..public.len() {
            let mut bytes = public.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let damaged = String::from_utf8(bytes).expect("text");
            assert!(damaged.parse::<Verifier>().is_err(), "{damaged}");
        }
    }

    proptest! {
        #[test]
        fn what_is_signed_verifies_and_says_the_same(seed in any::<[u8; 32]>(), records in any::<u64>(), head in any::<[u8; 32]>(), unix_ns in any::<u64>()) {
            let key = Keyholder::from_seed("enforcer/host-a", &seed).expect("a name");
            let again = Keyholder::parse(&key.encoded()).expect("a key");
            let verifier: Verifier = again.verifier().to_string().parse().expect("a key");
            let read = verifier.verify(&key.sign(records, Hash(head), unix_ns));
            let said = Checkpoint { origin: "enforcer/host-a".into(), records, head: Hash(head), unix_ns };
            prop_assert_eq!(read, Ok(said));
        }

        #[test]
        fn one_changed_byte_is_refused(place in any::<prop::sample::Index>(), flip in 1_u8..) {
            let key = key(7);
            let mut bytes = key.sign(77, Hash([3; 32]), 99).into_bytes();
            let at = place.index(bytes.len());
            bytes[at] ^= flip;
            let refused = String::from_utf8(bytes).map_or(true, |note| key.verifier().verify(&note).is_err());
            prop_assert!(refused);
        }

        #[test]
        fn another_key_is_refused(other in any::<[u8; 32]>(), records in any::<u64>()) {
            prop_assume!(other != [7; 32]);
            let other = Keyholder::from_seed("enforcer/host-a", &other).expect("a name");
            prop_assert!(key(7).verifier().verify(&other.sign(records, Hash([1; 32]), 1)).is_err());
        }

        #[test]
        fn notes_that_were_appended_are_told_apart(count in 0_u64..6, torn in 0_usize..40) {
            let key = key(7);
            let all: Vec<String> = (0..count).map(|n| key.sign(n, Hash([1; 32]), n)).collect();
            let mut file: String = all.iter().map(|note| format!("{note}\n")).collect();
            prop_assert_eq!(notes(&file).collect::<Vec<_>>(), all.clone());
            let next = key.sign(count, Hash([1; 32]), 1);
            file.push_str(&next[..next.floor_char_boundary(torn)]);
            let whole = notes(&file).filter(|note| key.verifier().verify(note).is_ok());
            prop_assert_eq!(whole.collect::<Vec<_>>(), all);
        }

        #[test]
        fn whatever_is_read_as_a_note_does_no_harm(text in "\\PC{0,200}") {
            let _ = key(7).verifier().verify(&text);
            let _ = notes(&text).count();
        }
    }
}
