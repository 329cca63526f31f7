//! What the daemon serves in one network namespace: how that is ended, and how it says that somebody else has ended some of it.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::Ended;
use crate::namespaces::Site;

/// One network namespace's.
#[derive(Debug, Clone)]
pub(super) struct Post {
    /// Ends its listeners.
    pub(super) stop: CancellationToken,
    /// Ends what came by them.
    pub(super) gone: CancellationToken,
    /// What is said of where it is.
    pub(super) site: Site,
    /// That one of its listeners has died.
    dead: CancellationToken,
    /// Wakes whoever looks after all of them.
    deaths: Arc<Notify>,
}

impl Post {
    /// Where nothing is served yet. Deaths wake who waits for that.
    pub(super) fn new(stop: CancellationToken, site: Site, deaths: &Arc<Notify>) -> Self {
        Self {
            stop,
            site,
            gone: CancellationToken::new(),
            dead: CancellationToken::new(),
            deaths: Arc::clone(deaths),
        }
    }

    /// Ends all of it.
    pub(super) fn end(&self) {
        self.stop.cancel();
        self.gone.cancel();
    }

    /// Whether one of its listeners has died.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Serves a listener, in a task.
    pub(super) fn spawn(
        &self,
        tasks: &TaskTracker,
        serves: impl Future<Output = Ended> + Send + 'static,
    ) {
        let (dead, deaths) = (self.dead.clone(), Arc::clone(&self.deaths));
        tasks.spawn(async move {
            match serves.await {
                Ended::Stopped => {}
                Ended::Dead => {
                    dead.cancel();
                    deaths.notify_one();
                }
            }
        });
    }
}
