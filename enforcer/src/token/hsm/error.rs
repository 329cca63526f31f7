//! What can be wrong with an HSM, in sentences that name the cure. None holds a PIN.

use std::path::PathBuf;
use std::time::Duration;

use cryptoki::error::{Error, RvError};

use crate::config::Hsm;
use crate::keyfile::KeyFileError;
use crate::token::SignError;

/// An HSM that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    /// The module may not be loaded.
    #[error(
        "{path} is not loaded: {why}. Whoever can change a module is root here: chown root, chmod go-w, the folders above it included"
    )]
    Module {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It cannot be.
    #[error("{path} cannot be loaded as a PKCS#11 module: {why}")]
    Load {
        /// Which.
        path: PathBuf,
        /// What the loader said.
        why: String,
    },
    /// The PIN's file cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// There is no PIN.
    #[error(
        "there is no {path}: write the PIN of the token's user into it, and run: chmod 0600 {path}"
    )]
    NoPin {
        /// Which file.
        path: PathBuf,
    },
    /// The service manager gave none.
    #[error(
        "this process was given no credentials: say LoadCredentialEncrypted={name}:FILE in the unit, or name a `pin_file`"
    )]
    NoCredentials {
        /// The credential's name.
        name: String,
    },
    /// It is nothing.
    #[error("{path} holds no PIN")]
    EmptyPin {
        /// Which file.
        path: PathBuf,
    },
    /// The token did not take it.
    #[error(
        "token {token} does not take the PIN, which is not tried again, also not after a restart: tokens lock after few tries. Write the right one into its place; where this one is right by now, remove {memory}"
    )]
    PinRefused {
        /// The token.
        token: String,
        /// Where it is remembered that this PIN was refused.
        memory: PathBuf,
    },
    /// One more wrong PIN would lock it.
    #[error(
        "token {token} locks at the next wrong PIN, so none is tried: log in once with the HSM's own tool (pkcs11-tool --login --test), then start again"
    )]
    PinFinalTry {
        /// The token.
        token: String,
    },
    /// It is locked.
    #[error(
        "token {token} is locked after wrong PINs: its security officer has to set the user's PIN anew"
    )]
    PinLocked {
        /// The token.
        token: String,
    },
    /// No such token.
    #[error(
        "the module knows no token {token}: it is not plugged in, or the HSM does not answer, or `token.signer.token` names another"
    )]
    NoToken {
        /// Its label.
        token: String,
    },
    /// Several.
    #[error("{count} tokens are called {token}: give the issuer's a label of its own")]
    ManyTokens {
        /// Their label.
        token: String,
        /// How many.
        count: usize,
    },
    /// Several keys.
    #[error("{count} {kind} keys in the token are called {label}: one of them may be")]
    ManyKeys {
        /// Their label, or what else they were looked for by.
        label: String,
        /// Private or public.
        kind: &'static str,
        /// How many.
        count: usize,
    },
    /// The key is not there any more.
    #[error(
        "there is no key {label} in the token any more: it is made only when the daemon starts"
    )]
    NoKey {
        /// Its label, or its id.
        label: String,
    },
    /// There is one of a rotation, and none that signs.
    #[error(
        "there is no key {label} in the token, and one of a rotation is: give the key that is to sign that label with the HSM's own tool"
    )]
    Torn {
        /// Its label.
        label: String,
    },
    /// The key can get out.
    #[error(
        "key {label} can be read from the token ({why}), so it protects nothing: remove it and have one made here, or make one that is CKA_SENSITIVE and not CKA_EXTRACTABLE"
    )]
    Exportable {
        /// Its label.
        label: String,
        /// Which attribute says so.
        why: &'static str,
    },
    /// It is of another kind.
    #[error("key {label} {why}: the issuer's is an ECDSA key on P-256 that may sign")]
    WrongKind {
        /// Its label.
        label: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It has no public half.
    #[error(
        "key {label} has no public key beside it in the token (the same CKA_ID, or the same label where it has none)"
    )]
    NoPublic {
        /// Its label.
        label: String,
    },
    /// What came is no signature.
    #[error("what the HSM signed does not verify by the key's public half")]
    BadSignature,
    /// The module said no.
    #[error("the HSM could not {doing}: {what}")]
    Said {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        what: String,
        /// Whether that is of the session or of the device, so that another session may help.
        is_of_session: bool,
    },
    /// It took too long.
    #[error("the HSM did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// Too much waits for it.
    #[error("the HSM does not answer, and as much as may waits for it")]
    Busy,
    /// The module broke off.
    #[error("the HSM's module broke off in the midst of a call")]
    BrokeOff,
    /// No thread.
    #[error("no thread could be had for the HSM")]
    Thread(#[source] std::io::Error),
}

impl HsmError {
    pub(super) fn module(hsm: &Hsm, why: String) -> Self {
        Self::Module {
            path: hsm.module.clone(),
            why,
        }
    }

    /// What the module said while that was done.
    pub(super) fn said(doing: &'static str) -> impl Fn(Error) -> Self {
        move |error| {
            let is_of_session = matches!(
                error,
                Error::Pkcs11(
                    RvError::CryptokiNotInitialized
                        | RvError::DeviceError
                        | RvError::DeviceMemory
                        | RvError::DeviceRemoved
                        | RvError::FunctionFailed
                        | RvError::GeneralError
                        | RvError::HostMemory
                        | RvError::KeyHandleInvalid
                        | RvError::ObjectHandleInvalid
                        | RvError::OperationActive
                        | RvError::SessionClosed
                        | RvError::SessionCount
                        | RvError::SessionHandleInvalid
                        | RvError::SlotIdInvalid
                        | RvError::TokenNotPresent
                        | RvError::TokenNotRecognized
                        | RvError::UserNotLoggedIn,
                    _
                )
            );
            let what = if let Error::Pkcs11(said, function) = &error {
                format!("{function} said {said:?}")
            } else {
                error.to_string()
            };
            Self::Said {
                doing,
                what,
                is_of_session,
            }
        }
    }

    /// Whether a session that is opened anew may help.
    pub(super) const fn is_of_session(&self) -> bool {
        match self {
            Self::Said { is_of_session, .. } => *is_of_session,
            // A session may outlive what it was of, and then finds nothing.
            Self::NoToken { .. } | Self::NoKey { .. } => true,
            Self::Module { .. }
            | Self::Load { .. }
            | Self::File(_)
            | Self::NoPin { .. }
            | Self::NoCredentials { .. }
            | Self::EmptyPin { .. }
            | Self::PinRefused { .. }
            | Self::PinFinalTry { .. }
            | Self::PinLocked { .. }
            | Self::ManyTokens { .. }
            | Self::ManyKeys { .. }
            | Self::Torn { .. }
            | Self::Exportable { .. }
            | Self::WrongKind { .. }
            | Self::NoPublic { .. }
            | Self::BadSignature
            | Self::Timeout(_)
            | Self::Busy
            | Self::BrokeOff
            | Self::Thread(_) => false,
        }
    }

    /// What of it an assertion's caller is told.
    #[must_use]
    pub const fn to_caller(&self) -> SignError {
        match self {
            Self::NoToken { .. }
            | Self::Timeout(_)
            | Self::Busy
            | Self::BrokeOff
            | Self::Thread(_)
            | Self::Said {
                is_of_session: true,
                ..
            } => SignError::Away,
            Self::Module { .. }
            | Self::Load { .. }
            | Self::File(_)
            | Self::NoPin { .. }
            | Self::NoCredentials { .. }
            | Self::EmptyPin { .. }
            | Self::PinRefused { .. }
            | Self::PinFinalTry { .. }
            | Self::PinLocked { .. }
            | Self::ManyTokens { .. }
            | Self::ManyKeys { .. }
            | Self::NoKey { .. }
            | Self::Torn { .. }
            | Self::Exportable { .. }
            | Self::WrongKind { .. }
            | Self::NoPublic { .. }
            | Self::BadSignature
            | Self::Said {
                is_of_session: false,
                ..
            } => SignError::Unusable,
        }
    }
}
