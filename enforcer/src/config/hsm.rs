//! `signer` and `key_credential` in `[token]`: what has the issuer's key, as written, and its checks.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::KeyPlace;

/// The longest label of a token (PKCS#11: a field of that size), bytes.
const TOKEN_BYTES_MAX: usize = 32;
/// The longest label of a key, bytes: all HSMs have room for it with what a rotation adds to it.
const KEY_BYTES_MAX: usize = 40;

/// A key in an HSM, and how it is come by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hsm {
    /// The HSM's PKCS#11 module: code that the daemon loads.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// The key's label. The next one of a rotation has `-next` behind it, the last one `-last`.
    pub key: String,
    /// Where the user's PIN is.
    pub pin: KeyPlace,
}

/// What has the issuer's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStore {
    /// Files in the state folder.
    File,
    /// The service manager, which hands the one that signs over as a credential of this name.
    Credential(String),
    /// An HSM.
    Hsm(Hsm),
}

impl KeyStore {
    pub(super) fn resolve(
        signer: Option<Box<HsmFile>>,
        credential: Option<String>,
    ) -> Result<Self, String> {
        match (signer, credential) {
            (None, None) => Ok(Self::File),
            (Some(signer), None) => signer.resolve().map(Self::Hsm),
            (None, Some(name)) if KeyPlace::is_credential(&name) => Ok(Self::Credential(name)),
            (None, Some(_)) => Err("`token.key_credential` is the name of a credential".to_owned()),
            (Some(_), Some(_)) => {
                Err("name one of `token.signer` and `token.key_credential`".to_owned())
            }
        }
    }
}

impl fmt::Display for KeyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("a file"),
            Self::Credential(name) => write!(f, "the credential {name}"),
            Self::Hsm(hsm) => hsm.fmt(f),
        }
    }
}

impl fmt::Display for Hsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the HSM's token {}", self.key, self.token)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HsmFile {
    module: PathBuf,
    token: String,
    key: String,
    pin_file: Option<PathBuf>,
    pin_credential: Option<String>,
}

impl HsmFile {
    fn resolve(self) -> Result<Hsm, String> {
        if !self.module.is_absolute() {
            return Err(format!(
                "`token.signer.module` must be an absolute path, not `{}`: it is loaded as code",
                self.module.display()
            ));
        }
        let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
        let (token, key) = (self.token, self.key);
        if !(1..=TOKEN_BYTES_MAX).contains(&token.len())
            || !is_plain(&token)
            || token.trim() != token
        {
            return Err(format!(
                "`token.signer.token` is the label of a token: 1 to {TOKEN_BYTES_MAX} bytes of ASCII, not `{token}`"
            ));
        }
        let is_of_label = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !(1..=KEY_BYTES_MAX).contains(&key.len()) || !key.bytes().all(is_of_label) {
            return Err(format!(
                "`token.signer.key` is the label of a key: 1 to {KEY_BYTES_MAX} of A-Z, a-z, 0-9, -, _ and ., not `{key}`"
            ));
        }
        if key.ends_with("-next") || key.ends_with("-last") {
            return Err(format!(
                "`token.signer.key` is `{key}`, and names that end so are a rotation's: name the key that signs"
            ));
        }
        Ok(Hsm {
            module: self.module,
            token,
            key,
            pin: pin_place(self.pin_file, self.pin_credential)?,
        })
    }
}

fn pin_place(file: Option<PathBuf>, credential: Option<String>) -> Result<KeyPlace, String> {
    match (file, credential) {
        (Some(file), None) if file.is_absolute() => Ok(KeyPlace::File(file)),
        (Some(_), None) => Err("`token.signer.pin_file` must be an absolute path".to_owned()),
        (None, Some(name)) if KeyPlace::is_credential(&name) => Ok(KeyPlace::Credential(name)),
        (None, Some(_)) => {
            Err("`token.signer.pin_credential` is the name of a credential".to_owned())
        }
        (None, None) | (Some(_), Some(_)) => Err(
            "name one of `token.signer.pin_file` and `token.signer.pin_credential`: the PIN itself never stands in the configuration"
                .to_owned(),
        ),
    }
}
