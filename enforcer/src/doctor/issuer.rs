//! This host as an issuer: its key is there, what is published is what the key says, and its clock is Google's. Makes no key.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use enforcer_proto::check::{Link, Mark};
use serde_json::Value;

use super::cure::where_the_key_is;
use super::reach::Reached;
use super::{Doctor, Told, Who};
use crate::causes::Causes;
use crate::token::RotationError;

/// The longest published file that is read, bytes: three keys have less than a thousand.
const PUBLISHED_BYTES_MAX: u64 = 64 * 1024;
/// By how much clocks may differ without a word, seconds: assertions begin that long ago.
const AHEAD_S_NOTED: u64 = 10;
/// By how much they may differ at all, seconds: that is how long a token outlives its window.
const AHEAD_S_MAX: u64 = 60;

impl Doctor {
    /// Whether there is a key to sign with.
    pub(super) async fn issuer(
        &self,
        whos: &[Who<'_>],
        reached: &Reached,
        told: &mut Told,
    ) -> bool {
        let has_key = self.federates(whos) && self.keys(told).await;
        self.clock(reached, told).await;
        has_key
    }

    async fn keys(&self, told: &mut Told) -> bool {
        let jwks = match self.ways.keys.published().await {
            Ok(jwks) => jwks,
            Err(error) => {
                let cure = match &error {
                    RotationError::None(_) => {
                        "start the daemon: it makes the key; then give Google what `enforcer gcp jwks` prints".to_owned()
                    }
                    RotationError::Key(_)
                    | RotationError::Begun
                    | RotationError::GivenAway
                    | RotationError::UnderWay
                    | RotationError::Given(_)
                    | RotationError::NotBegun
                    | RotationError::NotEnded
                    | RotationError::NothingToEnd
                    | RotationError::TooSoon(_) => where_the_key_is(&self.config),
                };
                let said = Causes(&error).to_string();
                told.fail(Link::Issuer, "key", &said, &cure).await;
                told.not_tried(Link::Issuer, "published keys", "there is no key")
                    .await;
                return false;
            }
        };
        let signing = kids(&jwks).first().cloned().unwrap_or_default();
        let said = format!("{signing} signs, in {}", self.config.token.keys());
        told.ok(Link::Issuer, "key", &said).await;
        self.published(&jwks, told).await;
        true
    }

    async fn published(&self, jwks: &Value, told: &mut Told) {
        let path = self.config.run_dir.join("jwks.json");
        let cure = "restart the daemon, which publishes them; then give Google what `enforcer gcp jwks` prints";
        let said = match published(&path) {
            Ok(found) if keys(&found) == keys(jwks) => {
                let count = keys(jwks).len();
                let said = format!("{} says what the key says, keys: {count}", path.display());
                return told.ok(Link::Issuer, "published keys", &said).await;
            }
            Ok(found) => format!(
                "{} has {}, this host's are {}",
                path.display(),
                listed(&kids(&found)),
                listed(&kids(jwks))
            ),
            Err(why) => format!("{} cannot be read: {why}", path.display()),
        };
        told.fail(Link::Issuer, "published keys", &said, cure).await;
    }

    async fn clock(&self, reached: &Reached, told: &mut Told) {
        let Some(ahead_s) = reached.ahead_s else {
            let why = "no token service has said what time it is";
            return told.not_tried(Link::Issuer, "clock", why).await;
        };
        let (mark, said) = clock(ahead_s);
        let cure = (mark != Mark::Ok).then_some(
            "set this host's clock by NTP: Google refuses assertions from the future, and old ones",
        );
        told.say(mark, Link::Issuer, "clock", &said, cure).await;
    }
}

/// What there is to say of a clock that is so far ahead.
fn clock(ahead_s: i64) -> (Mark, String) {
    let apart_s = ahead_s.unsigned_abs();
    let mark = if apart_s <= AHEAD_S_NOTED {
        Mark::Ok
    } else if apart_s <= AHEAD_S_MAX {
        Mark::Note
    } else {
        Mark::Fail
    };
    let how = if ahead_s < 0 { "behind" } else { "ahead of" };
    (
        mark,
        format!("this host's is {apart_s} s {how} the token service's"),
    )
}

fn published(path: &Path) -> Result<Value, String> {
    let read = || {
        let mut text = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(PUBLISHED_BYTES_MAX).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error: std::io::Error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|_| "it is no JSON".to_owned())
}

/// The keys of a JWKS, whatever their order.
fn keys(jwks: &Value) -> BTreeSet<String> {
    let keys = jwks["keys"].as_array().into_iter().flatten();
    keys.map(ToString::to_string).collect()
}

fn kids(jwks: &Value) -> Vec<String> {
    let keys = jwks["keys"].as_array().into_iter().flatten();
    let kids = keys.filter_map(|key| key["kid"].as_str());
    kids.map(str::to_owned).collect()
}

fn listed(kids: &[String]) -> String {
    if kids.is_empty() {
        "no key".to_owned()
    } else {
        kids.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_clock_is_told_of_past_ten_seconds_and_fails_past_a_minute() {
        for (ahead_s, mark) in [
            (0, Mark::Ok),
            (10, Mark::Ok),
            (-11, Mark::Note),
            (60, Mark::Note),
            (61, Mark::Fail),
            (-3600, Mark::Fail),
        ] {
            assert_eq!(clock(ahead_s).0, mark, "{ahead_s}");
        }
        assert_eq!(
            clock(-61).1,
            "this host's is 61 s behind the token service's"
        );
    }

    #[test]
    fn published_keys_are_compared_whatever_their_order() {
        let (one, two) = (json!({"kid": "1"}), json!({"kid": "2"}));
        let there = keys(&json!({"keys": [one, two]}));
        assert_eq!(there, keys(&json!({"keys": [two, one]})));
        assert_ne!(there, keys(&json!({"keys": [one]})));
        assert_eq!(listed(&kids(&json!({"keys": []}))), "no key");
    }
}
