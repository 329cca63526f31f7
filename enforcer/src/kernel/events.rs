//! What the kernel refused, as a stream.

use aya::maps::{MapData, RingBuf};
use enforcer_ebpf::Event;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{KernelError, io};

/// The ring of events. One reader.
pub struct Events {
    ring: Option<RingBuf<MapData>>,
    ready: Option<AsyncFd<RingBuf<MapData>>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "attaching is one chain of fallible steps"
    )]
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        Ok(Self {
            ring: Some(ring),
            ready: None,
        })
    }

    /// The next event. Must be called within a tokio runtime. Records that cannot be read are passed over.
    ///
    /// # Errors
    /// When the ring cannot be waited for.
    pub async fn next(&mut self) -> Result<Event, KernelError> {
        if let Some(ring) = self.ring.take() {
            // SAFETY: the ring owns its descriptor, keeps it for its whole life, and never replaces it.
            let ready = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
            let ready =
                ready.map_err(|error| io("wait for the kernel's events")(error.into_parts().1))?;
            self.ready = Some(ready);
        }
        loop {
            let Some(ready) = self.ready.as_mut() else {
                return Err(KernelError::Unsuited(
                    "the kernel's events are not there".into(),
                ));
            };
            let mut guard = ready
                .readable_mut()
                .await
                .map_err(io("wait for the kernel's events"))?;
            while let Some(item) = guard.get_inner_mut().next() {
                if let Some(event) = Event::from_bytes(&item) {
                    return Ok(event);
                }
            }
            guard.clear_ready();
        }
    }
}
