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
    let value = Strict { depth: 0 }
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

/// Reads any value, refusing a key that stands twice and nesting past [`DEPTH_MAX`].
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.depth == DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {DEPTH_MAX}")));
        }
        Ok(Self {
            depth: self.depth + 1,
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

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_it_accepts_serde_json_reads_alike(body in "[\\PC{}\\[\\]\",:0-9a-c\\\\]{0,60}") {
            if let Ok(strict) = object(body.as_bytes()) {
                let plain: Value = serde_json::from_str(&body).expect("strict is narrower");
                prop_assert_eq!(Value::Object(strict), plain);
            }
        }
    }
}
