//! What the bytes of a message may be before they are decoded: each field known, of its own kind, once, and written as short as it can be.
//! A decoder takes more than that, each its own way; here a message has one reading or none.

use enforcer_proto::refusal::Refusal;

use super::frame::malformed;

/// The longest number, bytes.
const NUMBER_BYTES_MAX: usize = 10;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A number of 64 bits.
    Int64,
    /// A number of 32 bits, or one of an enumeration.
    Int32,
    /// Yes or no.
    Bool,
    /// A number with a fraction.
    Double,
    /// A text.
    Text,
    /// Any number of texts.
    Texts,
    /// A message.
    Message(&'static [Field]),
}

/// A field that is known.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its number.
    pub number: u32,
    /// What it holds.
    pub kind: Kind,
    /// The number of the field in whose place it may stand; its own where there is none.
    pub place: u32,
}

impl Field {
    /// A field that stands for itself.
    #[must_use]
    pub const fn new(number: u32, kind: Kind) -> Self {
        Self {
            number,
            kind,
            place: number,
        }
    }

    /// A field that stands in the place of another.
    #[must_use]
    pub const fn instead(number: u32, place: u32, kind: Kind) -> Self {
        Self {
            number,
            kind,
            place,
        }
    }
}

/// Checks a message.
///
/// # Errors
/// [`enforcer_proto::refusal::Code::RequestMalformed`], naming the field by its number.
pub fn check(mut message: &[u8], fields: &[Field]) -> Result<(), Refusal> {
    let mut seen = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message)?;
        let known = fields
            .iter()
            .find(|field| u64::from(field.number) == key >> 3)
            .ok_or_else(|| {
                malformed(&format!("has a field {} that is not let through", key >> 3))
            })?;
        if !matches!(known.kind, Kind::Texts) {
            if seen.contains(&known.place) {
                let what = format!("has its field {} twice, or beside its other", known.number);
                return Err(malformed(&what));
            }
            seen.push(known.place);
        }
        if key & 7 != wire_type(known.kind) {
            return Err(unreadable());
        }
        value(&mut message, known.kind)?;
    }
    Ok(())
}

/// How a kind is written.
const fn wire_type(kind: Kind) -> u64 {
    match kind {
        Kind::Int64 | Kind::Int32 | Kind::Bool => 0,
        Kind::Double => 1,
        Kind::Text | Kind::Texts | Kind::Message(_) => 2,
    }
}

fn value(message: &mut &[u8], kind: Kind) -> Result<(), Refusal> {
    match kind {
        Kind::Int64 => number(message).map(drop),
        Kind::Int32 => {
            // A negative one is written as 64 bits.
            let value = number(message)?.cast_signed();
            i32::try_from(value).map(drop).map_err(|_| unreadable())
        }
        Kind::Bool => match number(message)? {
            0 | 1 => Ok(()),
            _ => Err(unreadable()),
        },
        Kind::Double => take(message, 8).map(drop),
        Kind::Text | Kind::Texts => std::str::from_utf8(part(message)?)
            .map(drop)
            .map_err(|_| unreadable()),
        Kind::Message(fields) => check(part(message)?, fields),
    }
}

/// A number, written as short as it can be.
fn number(message: &mut &[u8]) -> Result<u64, Refusal> {
    let bytes = message.iter().take(NUMBER_BYTES_MAX);
    let length = bytes.take_while(|byte| **byte >= 0x80).count() + 1;
    let bytes = take(message, length)?;
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        if at == NUMBER_BYTES_MAX - 1 && bits > 1 || at == NUMBER_BYTES_MAX {
            return Err(unreadable());
        }
        number |= bits << (7 * at);
    }
    let is_short = bytes.len() == 1 || bytes.last().is_some_and(|last| *last != 0);
    if is_short {
        Ok(number)
    } else {
        Err(unreadable())
    }
}

/// What has its length before it.
fn part<'a>(message: &mut &'a [u8]) -> Result<&'a [u8], Refusal> {
    let length = number(message)?;
    take(message, usize::try_from(length).map_err(|_| unreadable())?)
}

fn take<'a>(message: &mut &'a [u8], length: usize) -> Result<&'a [u8], Refusal> {
    let (taken, rest) = message.split_at_checked(length).ok_or_else(unreadable)?;
    *message = rest;
    Ok(taken)
}

fn unreadable() -> Refusal {
    malformed("holds no message that can be read in one way")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INNER: &[Field] = &[Field::new(1, Kind::Int32), Field::new(2, Kind::Bool)];
    const FIELDS: &[Field] = &[
        Field::new(1, Kind::Text),
        Field::new(2, Kind::Message(INNER)),
        Field::new(3, Kind::Texts),
        Field::new(4, Kind::Double),
        Field::instead(5, 4, Kind::Int64),
    ];

    #[test]
    fn what_has_one_reading_is_taken_and_nothing_else() {
        for (good, what) in [
            (&b""[..], "nothing"),
            (b"\x0a\x01a", "a text"),
            (b"\x0a\x00", "an empty text, said aloud"),
            (b"\x1a\x01a\x1a\x01b", "texts"),
            (b"\x12\x04\x08\x01\x10\x00", "a message"),
            (
                b"\x12\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                "less than nothing",
            ),
            (b"\x28\xac\x02\x0a\x01a", "a longer number, and out of turn"),
        ] {
            assert_eq!(check(good, FIELDS), Ok(()), "{what}");
        }
        for (bad, what) in [
            (&b"\x0a\x01a\x0a\x01a"[..], "twice"),
            (b"\x28\x01\x28\x01", "a number twice"),
            (
                b"\x21\0\0\0\0\0\0\0\0\x28\x01",
                "beside the other in its place",
            ),
            (b"\x30\x01", "unknown"),
            (b"\x00\x01", "number nought"),
            (b"\x08\x01", "a number for a text"),
            (b"\x12\x02\x1a\x00", "unknown inside"),
            (b"\x12\x02\x10\x02", "neither yes nor no"),
            (
                b"\x12\x06\x08\xff\xff\xff\xff\x0f",
                "more than 32 bits hold",
            ),
            (b"\x28\x80\x00", "a number longer than it must be"),
            (b"\x8a\x00\x01a", "a key longer than it must be"),
            (
                b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
                "more than 64 bits hold",
            ),
            (
                b"\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                "longer still",
            ),
            (b"\x28\xff", "a number without an end"),
            (b"\x0a\x02a", "a text without an end"),
            (b"\x0a\x01\xff", "a text that is none"),
            (
                b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                "a text without end or bound",
            ),
            (b"\x21\0\0\0", "half a number"),
            (b"\x0b\x0c", "a group"),
        ] {
            assert!(check(bad, FIELDS).is_err(), "{what}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_it_fail_otherwise(message in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = check(&message, FIELDS);
        }

        #[test]
        fn every_number_is_read_as_it_is_written(value in any::<u64>()) {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(value, &mut bytes);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(number(&mut rest), Ok(value));
            prop_assert!(rest.is_empty());
        }
    }
}
