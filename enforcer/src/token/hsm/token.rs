//! One token of an HSM: found by its label, logged in to, and opened anew when it was away. Lives on the worker's thread.

use std::path::PathBuf;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;

use super::HsmError;
use super::pin::Pins;

/// A token, and what of it is open.
pub(super) struct Token {
    path: PathBuf,
    label: String,
    pins: Pins,
    /// Once loaded it stays: modules are rarely made to be unloaded.
    module: Option<Pkcs11>,
    open: Option<Open>,
}

/// A session that is logged in. All others to this token are so as well while it lasts.
struct Open {
    session: Session,
    slot: Slot,
}

impl Token {
    /// The token of that label, by the module at `path`. Nothing is loaded yet.
    pub(super) const fn new(path: PathBuf, label: String, pins: Pins) -> Self {
        Self {
            path,
            label,
            pins,
            module: None,
            open: None,
        }
    }

    /// Does something in a session that cannot change the token. Where the session turns out to be lost it is opened anew and that is done again,
    /// once.
    pub(super) fn read<T>(
        &mut self,
        job: impl Fn(&Session) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        self.again(|token| {
            let (_, open) = token.opened()?;
            job(&open.session)
        })
    }

    /// The same in one that can change it.
    pub(super) fn write<T>(
        &mut self,
        job: impl Fn(&Session) -> Result<T, HsmError>,
    ) -> Result<T, HsmError> {
        self.again(|token| {
            let (module, open) = token.opened()?;
            let session = module.open_rw_session(open.slot);
            job(&session.map_err(HsmError::said("open a session that can write"))?)
        })
    }

    /// Forgets all sessions, and has the module forget what it knows of its tokens.
    pub(super) fn reset(&mut self) {
        self.open = None;
        if let Some(module) = &self.module {
            // What has not begun cannot be ended; it is begun anew in any case.
            let _ = module.clone().finalize();
        }
    }

    fn again<T>(&mut self, job: impl Fn(&mut Self) -> Result<T, HsmError>) -> Result<T, HsmError> {
        let lost = match job(self) {
            Err(error) if error.is_of_session() => error,
            done => return done,
        };
        tracing::info!(error = %lost, "the HSM's session is opened anew");
        self.reset();
        let done = job(self);
        if done.as_ref().is_err_and(HsmError::is_of_session) {
            self.reset();
        }
        done
    }

    fn opened(&mut self) -> Result<(&Pkcs11, &Open), HsmError> {
        if self.module.is_none() {
            self.module = Some(self.load()?);
        }
        if self.open.is_none() {
            self.open = Some(self.login()?);
        }
        match (&self.module, &self.open) {
            (Some(module), Some(open)) => Ok((module, open)),
            (None, _) | (_, None) => Err(HsmError::BrokeOff),
        }
    }

    fn load(&self) -> Result<Pkcs11, HsmError> {
        Pkcs11::new(&self.path).map_err(|error| HsmError::Load {
            path: self.path.clone(),
            why: error.to_string(),
        })
    }

    fn login(&mut self) -> Result<Open, HsmError> {
        let module = self.module.as_ref().ok_or(HsmError::BrokeOff)?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(HsmError::said("be initialized")(error)),
        }
        let slot = self.slot(module)?;
        let session = module.open_ro_session(slot);
        let session = session.map_err(HsmError::said("open a session"))?;
        let pin = self.pins.pin()?;
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) => {
                self.pins.taken();
                Ok(Open { session, slot })
            }
            // Then nobody has looked at the PIN.
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(Open { session, slot }),
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange,
                _,
            )) => Err(self.pins.refuse(&pin)),
            Err(Error::Pkcs11(RvError::PinLocked, _)) => Err(HsmError::PinLocked {
                token: self.label.clone(),
            }),
            Err(error) => Err(HsmError::said("log in")(error)),
        }
    }

    /// Where the one token of the label is.
    fn slot(&self, module: &Pkcs11) -> Result<Slot, HsmError> {
        let slots = module.get_slots_with_token();
        let slots = slots.map_err(HsmError::said("list its tokens"))?;
        // One that says nothing of itself is not this one.
        let known = slots.into_iter();
        let known = known.filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)));
        let mut called: Vec<_> = known
            .filter(|(_, token)| token.token_initialized() && token.label() == self.label)
            .collect();
        let token = self.label.clone();
        let (slot, info) = match (called.pop(), called.len()) {
            (Some(one), 0) => one,
            (None, _) => return Err(HsmError::NoToken { token }),
            (Some(_), others) => {
                let count = others + 1;
                return Err(HsmError::ManyTokens { token, count });
            }
        };
        if info.user_pin_locked() {
            return Err(HsmError::PinLocked { token });
        }
        if info.user_pin_final_try() {
            return Err(HsmError::PinFinalTry { token });
        }
        Ok(slot)
    }
}
