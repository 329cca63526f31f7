//! The PIN of a token: read each time it is needed, never kept and never shown; and the memory of one that the token refused. Tokens lock after few
//! wrong PINs, and a service manager starts a daemon that ended again and again: so a refused PIN is remembered on disk, by a slow hash, and is not
//! tried a second time by anybody.

use std::fmt::Write;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use aws_lc_rs::{pbkdf2, rand};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::HsmError;
use crate::config::{Hsm, KeyPlace};
use crate::keyfile;

/// The memory, in the state folder.
const REFUSED: &str = "hsm-pin-refused";
/// Rounds of the hash. What it hides is a PIN that was refused; it may be near the right one.
const ROUNDS: NonZeroU32 = NonZeroU32::new(200_000).expect("not zero");
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// Where the PIN is, and the memory of a refused one.
pub(super) struct Pins {
    place: KeyPlace,
    token: String,
    memory: PathBuf,
    /// The same in this process, should the disk be full.
    refused: Option<String>,
}

/// Reads the PIN.
pub(super) fn read(place: &KeyPlace) -> Result<SecretString, HsmError> {
    let path = match (place.path(), place) {
        (Some(path), _) => path,
        (None, KeyPlace::File(path)) => path.clone(),
        (None, KeyPlace::Credential(name)) => {
            return Err(HsmError::NoCredentials { name: name.clone() });
        }
    };
    let Some(text) = keyfile::read(&path)? else {
        return Err(HsmError::NoPin { path });
    };
    // The end of the line is an editor's.
    let pin = text.trim_end_matches(['\r', '\n']);
    if pin.is_empty() {
        return Err(HsmError::EmptyPin { path });
    }
    // Of the exact size, so that no copy is left where it grew.
    Ok(SecretString::new(Box::from(pin)))
}

impl Pins {
    pub(super) fn new(hsm: &Hsm, dir: &Path) -> Self {
        Self {
            place: hsm.pin.clone(),
            token: hsm.token.clone(),
            memory: dir.join(REFUSED),
            refused: None,
        }
    }

    /// The PIN, where the token has not refused it before.
    pub(super) fn pin(&self) -> Result<SecretString, HsmError> {
        let pin = read(&self.place)?;
        let remembered = keyfile::read(&self.memory)?;
        let mut remembered = remembered.iter().map(|text| text.as_str());
        if remembered.any(|text| self.is_of(text, &pin))
            || self.refused.iter().any(|text| self.is_of(text, &pin))
        {
            return Err(self.refused());
        }
        Ok(pin)
    }

    /// Remembers that the token refused it.
    pub(super) fn refuse(&mut self, pin: &SecretString) -> HsmError {
        let mut salt = [0; SALT_BYTES];
        if rand::fill(&mut salt).is_ok() {
            let mut hash = [0; HASH_BYTES];
            pbkdf2::derive(
                pbkdf2::PBKDF2_HMAC_SHA256,
                ROUNDS,
                &salt,
                self.salted(pin).as_bytes(),
                &mut hash,
            );
            let text = format!("{} {}\n", hex(&salt), hex(&hash));
            if let Err(error) = keyfile::write(&self.memory, &text) {
                tracing::warn!(error = %error, "that the HSM refused its PIN is remembered until this process ends only");
            }
            self.refused = Some(text);
        }
        self.refused()
    }

    /// The token took a PIN: no other is remembered.
    pub(super) fn taken(&mut self) {
        self.refused = None;
        // Left behind it would keep nobody from anything but the PIN that it is of.
        let _ = std::fs::remove_file(&self.memory);
    }

    fn refused(&self) -> HsmError {
        HsmError::PinRefused {
            token: self.token.clone(),
            memory: self.memory.clone(),
        }
    }

    /// A memory that cannot be read is of any PIN.
    fn is_of(&self, text: &str, pin: &SecretString) -> bool {
        let parts = text.trim_end().split_once(' ');
        let Some((salt, hash)) = parts.and_then(|(salt, hash)| Some((bytes(salt)?, bytes(hash)?)))
        else {
            return true;
        };
        let salted = self.salted(pin);
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::verify(algorithm, ROUNDS, &salt, salted.as_bytes(), &hash).is_ok()
    }

    /// Another token may have the same PIN.
    fn salted(&self, pin: &SecretString) -> Zeroizing<String> {
        let pin = pin.expose_secret();
        let mut text = Zeroizing::new(String::with_capacity(self.token.len() + 1 + pin.len()));
        text.push_str(&self.token);
        text.push('\0');
        text.push_str(pin);
        text
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(byte).collect()
}
