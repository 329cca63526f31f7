//! The token of the next page in an answer that streams: found as the bytes come, and written anew by whoever seals it, while the rest passes as it
//! is. Nothing is held but that token. It stands as `pageToken` in the outermost object, wherever among its fields.

/// How the field is called.
const NAME: &str = "pageToken";
/// The longest text of a name that can be that one, bytes: each of its letters may be written as an escape.
const NAME_BYTES_MAX: usize = 6 * NAME.len();
/// The longest text of a token that is held, bytes. One that is longer is none: the pages end there.
const TOKEN_BYTES_MAX: usize = 32 * 1024;

/// Where the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Outside of strings.
    Outside,
    /// In a string, of this kind; the byte before is a backslash that escapes this one, or is not.
    Inside(Text, bool),
}

/// What a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// The name of a field of the outermost object.
    Name,
    /// The token.
    Token,
    /// Any other.
    Other,
}

/// Reads an answer as it comes.
#[derive(Debug)]
pub struct Finder {
    at: At,
    depth: u64,
    /// The outermost thing is an object, and a name is what comes next in it.
    awaits_name: bool,
    is_object: bool,
    /// The field whose value comes is the token's.
    is_named: bool,
    /// What there is of the name or the token.
    held: Vec<u8>,
}

impl Default for Finder {
    fn default() -> Self {
        Self {
            at: At::Outside,
            depth: 0,
            awaits_name: false,
            is_object: false,
            is_named: false,
            held: Vec::new(),
        }
    }
}

/// Whether a byte outside of strings says where one is.
const fn matters(byte: u8) -> bool {
    matches!(byte, b'{' | b'}' | b'[' | b']' | b',' | b':' | b'"')
}

impl Finder {
    /// What is passed on of the next part of the answer. `sealed` makes another token of one; none ends the pages.
    pub fn pass(&mut self, part: &[u8], sealed: impl Fn(&str) -> Option<String>) -> Vec<u8> {
        let mut out = Vec::with_capacity(part.len());
        let mut rest = part;
        loop {
            let (plain, after) = rest.split_at(self.plain(rest));
            out.extend_from_slice(plain);
            let Some((byte, after)) = after.split_first() else {
                return out;
            };
            match self.at {
                At::Outside => self.outside(*byte, &mut out),
                At::Inside(text, is_escaped) => {
                    self.inside(*byte, (text, is_escaped), &mut out, &sealed);
                }
            }
            rest = after;
        }
    }

    /// How many bytes at the beginning pass as they are and mean nothing here. Rows are nearly all of an answer, and these are nearly all of rows.
    fn plain(&self, rest: &[u8]) -> usize {
        let first = match self.at {
            At::Outside => rest.iter().position(|byte| matters(*byte)),
            At::Inside(Text::Other, false) => memchr::memchr2(b'"', b'\\', rest),
            At::Inside(Text::Other, true) | At::Inside(Text::Name | Text::Token, _) => Some(0),
        };
        first.unwrap_or(rest.len())
    }

    fn outside(&mut self, byte: u8, out: &mut Vec<u8>) {
        let is_outermost = self.depth == 1;
        match byte {
            b'{' | b'[' => {
                self.depth = self.depth.saturating_add(1);
                if is_outermost {
                    self.is_named = false;
                } else if self.depth == 1 {
                    self.is_object = byte == b'{';
                    self.awaits_name = self.is_object;
                }
            }
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' if is_outermost => {
                self.awaits_name = self.is_object;
                self.is_named = false;
            }
            b':' if is_outermost => self.awaits_name = false,
            b'"' => {
                let text = match (is_outermost, self.awaits_name, self.is_named) {
                    (true, true, _) => Text::Name,
                    (true, false, true) => Text::Token,
                    (true, false, false) | (false, _, _) => Text::Other,
                };
                self.held.clear();
                self.at = At::Inside(text, false);
                if text == Text::Token {
                    return;
                }
            }
            _ => {}
        }
        out.push(byte);
    }

    fn inside(
        &mut self,
        byte: u8,
        (text, is_escaped): (Text, bool),
        out: &mut Vec<u8>,
        sealed: impl Fn(&str) -> Option<String>,
    ) {
        let is_end = byte == b'"' && !is_escaped;
        self.at = if is_end {
            At::Outside
        } else {
            At::Inside(text, byte == b'\\' && !is_escaped)
        };
        let most = match text {
            Text::Name => NAME_BYTES_MAX,
            Text::Token => TOKEN_BYTES_MAX,
            Text::Other => 0,
        };
        // One byte more than may be: so it is seen that it is too long.
        if !is_end && self.held.len() <= most {
            self.held.push(byte);
        }
        match text {
            Text::Other => out.push(byte),
            Text::Name => {
                out.push(byte);
                if is_end {
                    self.is_named = self.read(most).is_some_and(|name| name == NAME);
                }
            }
            Text::Token if is_end => {
                let token = self.read(most).and_then(|token| sealed(&token));
                let token = serde_json::Value::from(token.unwrap_or_default());
                out.extend(token.to_string().into_bytes());
                self.is_named = false;
            }
            Text::Token => {}
        }
    }

    /// The string that is held, as it reads; none for one that is none or too long.
    fn read(&self, most: usize) -> Option<String> {
        let held = Some(&self.held).filter(|held| held.len() <= most)?;
        let text = std::str::from_utf8(held).ok()?;
        serde_json::from_str(&format!("\"{text}\"")).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn upside_down(token: &str) -> Option<String> {
        (token != "none").then(|| token.chars().rev().collect())
    }

    fn passed(answer: &str, parts: usize) -> String {
        let mut finder = Finder::default();
        let passed = answer
            .as_bytes()
            .chunks(parts)
            .flat_map(|part| finder.pass(part, upside_down))
            .collect();
        String::from_utf8(passed).expect("text")
    }

    #[test]
    fn the_token_of_the_outermost_object_is_another_and_all_else_stays() {
        for (answer, wanted) in [
            (
                r#"{"pageToken":"abc","rows":[]}"#,
                r#"{"pageToken":"cba","rows":[]}"#,
            ),
            (
                r#"{"rows":[{"f":[{"v":"\"pageToken\":\"abc\""}]}], "pageToken" : "a\u0062\"" }"#,
                r#"{"rows":[{"f":[{"v":"\"pageToken\":\"abc\""}]}], "pageToken" : "\"ba" }"#,
            ),
            (
                r#"{"page\u0054oken":"abc","x":{"pageToken":"abc"},"y":"pageToken","z":["pageToken","abc"]}"#,
                r#"{"page\u0054oken":"cba","x":{"pageToken":"abc"},"y":"pageToken","z":["pageToken","abc"]}"#,
            ),
            (r#"{"pageToken":"none"}"#, r#"{"pageToken":""}"#),
            (
                r#"{"pageToken":null,"a":"b"}"#,
                r#"{"pageToken":null,"a":"b"}"#,
            ),
            (
                r#"{"pageToken":{"a":"b"},"c":"d"}"#,
                r#"{"pageToken":{"a":"b"},"c":"d"}"#,
            ),
            (
                r#"{"pageTokens":"abc","a\\":"b"}"#,
                r#"{"pageTokens":"abc","a\\":"b"}"#,
            ),
            (r#"["pageToken","abc"]"#, r#"["pageToken","abc"]"#),
            (r#"{"pageToken":"abc"#, r#"{"pageToken":"#),
            ("", ""),
        ] {
            for parts in [1, 2, 7, 1000] {
                assert_eq!(passed(answer, parts), wanted, "in parts of {parts}");
            }
        }
    }

    #[test]
    fn what_is_too_long_to_be_held_is_no_token_and_is_not_held() {
        let mut finder = Finder::default();
        let long = "x".repeat(3 * TOKEN_BYTES_MAX);
        let answer = json!({"pageToken": long, "rows": []}).to_string();
        let out: Vec<u8> = answer
            .as_bytes()
            .chunks(1000)
            .flat_map(|part| {
                let out = finder.pass(part, upside_down);
                assert!(finder.held.len() <= TOKEN_BYTES_MAX + 1);
                out
            })
            .collect();
        assert_eq!(out, br#"{"pageToken":"","rows":[]}"#);
    }

    proptest! {
        #[test]
        fn in_whatever_parts_an_answer_comes_it_reads_as_before_but_for_its_token(
            before in "\\PC{0,12}", token in "\\PC{0,12}", after in "\\PC{0,12}", parts in 1_usize..9,
        ) {
            let mut answer = json!({"a": before, "pageToken": token, "z": [{"pageToken": after}]});
            let out = passed(&answer.to_string(), parts);
            let out: Value = serde_json::from_str(&out).expect("JSON");
            answer["pageToken"] = json!(upside_down(&token).unwrap_or_default());
            prop_assert_eq!(out, answer);
        }
    }
}
