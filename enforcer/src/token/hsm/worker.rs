//! The one thread that calls an HSM's module: one call after another, none on the runtime. Decides nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::HsmError;
use super::token::Token;

/// How many questions may wait for the module. Each is a window's that is on its way; more are refused at once.
const WAITING_MAX: usize = 64;
/// How long the end waits for the module to be left in good order.
const END_WITHIN: Duration = Duration::from_secs(2);

type Job = Box<dyn FnOnce(&mut Token) + Send>;

/// The way to it.
#[derive(Debug)]
pub(super) struct Worker {
    /// `None` from the end on.
    jobs: Option<SyncSender<Job>>,
    ended: Mutex<Receiver<()>>,
}

impl Worker {
    pub(super) fn start(mut token: Token) -> Result<Self, HsmError> {
        let (jobs, asked) = sync_channel::<Job>(WAITING_MAX);
        let (ends, ended) = sync_channel(1);
        std::thread::Builder::new()
            .name("hsm".to_owned())
            .spawn(move || {
                for job in asked {
                    // What a module does may confuse its wrapper; the thread outlives that, and begins anew.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut token))).is_err() {
                        token.reset();
                    }
                }
                token.reset();
                drop(ends);
            })
            .map_err(HsmError::Thread)?;
        Ok(Self {
            jobs: Some(jobs),
            ended: Mutex::new(ended),
        })
    }

    /// Has the thread do something, and waits for what comes of it, so long at most. What nobody waits for any more when its turn comes is not done.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        within: Duration,
        job: impl FnOnce(&mut Token) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |token: &mut Token| {
            if !reply.is_closed() {
                // Who asked may have gone meanwhile.
                let _ = reply.send(job(token));
            }
        });
        let jobs = self.jobs.as_ref().ok_or(HsmError::BrokeOff)?;
        jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => HsmError::Busy,
            TrySendError::Disconnected(_) => HsmError::BrokeOff,
        })?;
        match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer.unwrap_or(Err(HsmError::BrokeOff)),
            Err(_) => Err(HsmError::Timeout(within)),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A module that is still being left while the process ends would run without its own globals.
        let _ = ended.recv_timeout(END_WITHIN);
    }
}
