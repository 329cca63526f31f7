//! The key of a webhook and what is signed with it.
//!
//! A signed notice has the header `Enforcer-Signature: t=SECONDS,v1=HEX`. `HEX` is the HMAC-SHA256, in lower-case hex, over `SECONDS`, a dot and
//! the body as it came, with the key's bytes. A receiver compares it in constant time, and refuses where `SECONDS` (unix time) is more than five
//! minutes from its own clock, so that a notice cannot be played to it again later.

use std::fmt::Write;
use std::path::PathBuf;

use aws_lc_rs::hmac;

use crate::config::KeyPlace;
use crate::keyfile::{self, KeyFileError};

/// The name of the header.
pub(super) const HEADER: &str = "enforcer-signature";
/// The shortest key, bytes: less can be guessed.
const KEY_BYTES_MIN: usize = 32;

/// A key that cannot be used; the text names the cure.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Its file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// There is no such file.
    #[error(
        "there is no {path}: make one with: head -c 32 /dev/urandom | base64 > {path}; chmod 0600 {path}"
    )]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// The service manager gave none.
    #[error(
        "this process was given no credentials: say LoadCredential={name}:FILE in the unit, or name a `key_file`"
    )]
    NoCredentials {
        /// The credential's name.
        name: String,
    },
    /// It is too short.
    #[error(
        "{path} holds {bytes} bytes, and a key has {KEY_BYTES_MIN} at least: make one with: head -c 32 /dev/urandom | base64"
    )]
    Short {
        /// Which file.
        path: PathBuf,
        /// How many.
        bytes: usize,
    },
}

/// What notices are signed with. Never shown.
pub(super) struct Key(hmac::Key);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    pub(super) fn read(place: &KeyPlace) -> Result<Self, KeyError> {
        let path = match (place.path(), place) {
            (Some(path), _) => path,
            (None, KeyPlace::File(path)) => path.clone(),
            (None, KeyPlace::Credential(name)) => {
                return Err(KeyError::NoCredentials { name: name.clone() });
            }
        };
        let Some(text) = keyfile::read(&path)? else {
            return Err(KeyError::Missing { path });
        };
        // The end of the line is an editor's, and no part of the key.
        let bytes = text.trim_end().as_bytes();
        if bytes.len() < KEY_BYTES_MIN {
            let bytes = bytes.len();
            return Err(KeyError::Short { path, bytes });
        }
        Ok(Self::of(bytes))
    }

    fn of(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The header's value for a body that is sent at `unix_s`.
    pub(super) fn sign(&self, unix_s: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(unix_s.to_string().as_bytes());
        context.update(b".");
        context.update(body);
        let mut value = format!("t={unix_s},v1=");
        for byte in context.sign().as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(value, "{byte:02x}");
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_any_other_program() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef0123456789abcdef
        let key = Key::of(b"0123456789abcdef0123456789abcdef");
        assert_eq!(
            key.sign(1_700_000_000, br#"{"a":1}"#),
            "t=1700000000,v1=f05f2539e3ae1c49aec5f8cfdad75ef6b06480b133973ffbb7ec9e18827af177"
        );
    }

    #[test]
    fn a_short_key_and_none_are_refused_with_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let read = || Key::read(&KeyPlace::File(path.clone())).map_err(|error| error.to_string());
        assert!(read().unwrap_err().contains("chmod 0600"));
        keyfile::write(&path, "short\n").unwrap();
        assert!(read().unwrap_err().contains("holds 5 bytes"));
        keyfile::write(&path, &"x".repeat(32)).unwrap();
        assert_eq!(format!("{:?}", read().unwrap()), "Key(…)");
    }
}
