//! Strict JSON: UTF-8, bounded size and depth, no key twice. What this accepts, every parser reads alike; it must never guess.

use std::fmt;

use enforcer_proto::refusal::{Code, Refusal};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The largest request body that is inspected, bytes; a larger one is refused.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The deepest nesting of objects and lists. Query parameters of nested structs are the deepest that clients send.
pub const DEPTH_MAX: usize = 32;

/// Reads one JSON object that is the whole of `body`.
///
/// # Errors
/// [`Code::BodyTooLarge`] past [`BODY_BYTES_MAX`], otherwise [`Code::RequestMalformed`] saying what is wrong.
pub fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    read(body, Numbers::Bounded)
}

/// The same, of a body that is sent on as it came: its numbers may be as large as they like, since nothing is judged by them and none is written
/// anew. What is given back of them is near them.
///
/// # Errors
/// As [`object`].
pub fn object_with_any_numbers(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    read(body, Numbers::Any)
}

fn read(body: &[u8], numbers: Numbers) -> Result<Map<String, Value>, Refusal> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Refusal::new(
            Code::BodyTooLarge,
            format!(
                "The body has {} bytes, more than the {BODY_BYTES_MAX} that are inspected",
                body.len()
            ),
        ));
    }
    let text = std::str::from_utf8(body).map_err(|error| {
        malformed(format!(
            "The body is not UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: 0, numbers }
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| malformed(format!("The body is not strict JSON: {error}")))?;
    match value {
        Value::Object(object) => Ok(object),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(malformed("The body is not a JSON object".to_owned()))
        }
    }
}

fn malformed(what: String) -> Refusal {
    Refusal::new(Code::RequestMalformed, what)
}

/// Which numbers are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Numbers {
    /// Those that 64 bits hold: larger ones are rounded by some and cut by others.
    Bounded,
    /// All.
    Any,
}

/// The least and the first too large of numbers that 64 bits hold.
const BOUNDS: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0;

/// Reads any value, refusing a key that stands twice and nesting past [`DEPTH_MAX`].
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
    numbers: Numbers,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if self.numbers == Numbers::Bounded && !BOUNDS.contains(&value) {
            return Err(E::custom("a number is larger than 64 bits hold"));
        }
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let shown = enforcer_proto::text::safe_line(&key, 80);
                return Err(A::Error::custom(format_args!(
                    "the key `{shown}` stands twice"
                )));
            }
            object.insert(key, entries.next_value_seed(inner)?);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_that_stands_twice_is_refused_at_any_depth_and_however_it_is_escaped() {
        for body in [r#"{"a":1,"a":2}"#, r#"{"x":[{"a":1,"\u0061":2}]}"#] {
            assert_eq!(
                object(body.as_bytes()).expect_err(body).code,
                Code::RequestMalformed
            );
        }
        assert!(object(br#"{"a":{"a":1},"b":[]}"#).is_ok());
    }

    #[test]
    fn nesting_size_and_encoding_are_bounded() {
        let deep = format!(
            "{{\"a\":{}{}}}",
            "[".repeat(DEPTH_MAX - 1),
            "]".repeat(DEPTH_MAX - 1)
        );
        assert!(object(deep.as_bytes()).is_ok());
        let deeper = format!(
            "{{\"a\":{}{}}}",
            "[".repeat(DEPTH_MAX),
            "]".repeat(DEPTH_MAX)
        );
        assert!(object(deeper.as_bytes()).is_err());
        let large = vec![b' '; BODY_BYTES_MAX + 1];
        assert_eq!(
            object(&large).expect_err("too large").code,
            Code::BodyTooLarge
        );
        for body in [
            &b"{\"a\":\"\xff\"}"[..],
            b"\xef\xbb\xbf{}",
            b"{} {}",
            b"[]",
            b"",
            b"{\"a\":NaN}",
            b"{\"a\":1,}",
        ] {
            assert!(object(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_number_is_the_one_that_was_written_or_refused() {
        for huge in [
            "123456789012345678901234567890",
            "18446744073709551616",
            "-9223372036854775809000",
            "1e30",
        ] {
            let body = format!("{{\"a\":{{\"b\":[{huge}]}}}}");
            let refused = object(body.as_bytes()).expect_err(huge);
            assert_eq!(refused.code, Code::RequestMalformed, "{huge}");
            assert!(object_with_any_numbers(body.as_bytes()).is_ok(), "{huge}");
        }
        // What no double holds is a number to nobody.
        assert!(object_with_any_numbers(b"{\"a\":1e400}").is_err());
        for kept in [
            "18446744073709551615",
            "-9223372036854775808",
            "4245191891425139.5",
            "0.1",
        ] {
            let body = format!("{{\"a\":{kept}}}");
            let read = object(body.as_bytes()).expect(kept);
            assert_eq!(Value::Object(read).to_string(), body);
        }
    }

    proptest! {
        #[test]
        fn every_double_is_written_anew_as_it_was_read(value in -9.0e18..1.8e19, small in proptest::num::f64::NORMAL) {
            // `small` has every exponent: as a fraction it is within the bounds.
            for value in [value, if small.abs() < 1.0 { small } else { 1.0 / small }] {
                let body = format!("{{\"a\":{value:e}}}");
                let read = object(body.as_bytes()).expect("a number");
                let text = Value::Object(read).to_string();
                let number = text.strip_prefix("{\"a\":").and_then(|text| text.strip_suffix('}'));
                // The standard library reads by a code of its own.
                let again: f64 = number.expect("written").parse().expect("a number");
                prop_assert_eq!(again.to_bits(), value.to_bits(), "{}", body);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_and_what_it_accepts_serde_json_reads_alike(body in "[\\PC{}\\[\\]\",:0-9a-c\\\\]{0,60}") {
            if let Ok(strict) = object(body.as_bytes()) {
                let plain: Value = serde_json::from_str(&body).expect("strict is narrower");
                prop_assert_eq!(Value::Object(strict), plain);
            }
        }
    }
}
