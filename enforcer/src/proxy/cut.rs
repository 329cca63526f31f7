//! What ends when a window does: waiting for its close, and bodies that stop with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::forward::Finish;
use crate::clock::Clock;
use crate::engine::{OpenWindow, OpenWindows};

/// The longest that is slept without looking at the clock: a sleep does not count suspend, the clock does.
const NAP: Duration = Duration::from_secs(1);

/// The error of a body that was cut; it ends the connection.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The window closed.
    #[error("the window closed while the answer was being sent")]
    Closed,
    /// BigQuery's side failed.
    #[error("the answer from BigQuery broke off")]
    Upstream(#[source] hyper::Error),
}

/// Waits until `window` is not open any more: revoked, spent or given back (it leaves the open windows), or its time is up (by the clock,
/// whoever says what).
pub async fn closed(
    window: Arc<OpenWindow>,
    mut windows: watch::Receiver<OpenWindows>,
    clock: Arc<dyn Clock>,
) {
    loop {
        let is_listed = windows
            .borrow_and_update()
            .get(&window.agent)
            .is_some_and(|open| open.grant == window.grant);
        let left = window.closes_boot_ns.saturating_sub(clock.now().boot_ns);
        if !is_listed || left == 0 {
            return;
        }
        tokio::select! {
            biased;
            changed = windows.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_nanos(left).min(NAP)) => {}
        }
    }
}

/// A body from upstream that ends with its window. Counts what it passes on; says how it ended exactly once, also when it is dropped.
pub(super) struct CutBody {
    inner: Incoming,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    finish: Finish,
    /// Tells the connection's watcher that this body is over.
    _done: DropGuard,
}

impl CutBody {
    pub(super) fn new(
        inner: Incoming,
        closed: Pin<Box<dyn Future<Output = ()> + Send>>,
        finish: Finish,
        done: DropGuard,
    ) -> Self {
        Self {
            inner,
            closed,
            finish,
            _done: done,
        }
    }
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // The close first: not one more byte after it, however fast they come.
        if self.closed.as_mut().poll(context).is_ready() {
            self.finish.trouble("cut: the window closed");
            return Poll::Ready(Some(Err(BodyError::Closed)));
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.finish.sent(bytes);
                // A server that knows the length does not ask again after the last byte.
                if self.inner.is_end_stream() {
                    self.finish.complete();
                }
            }
            Poll::Ready(None) => self.finish.complete(),
            Poll::Ready(Some(Err(_))) => self.finish.trouble("the answer from BigQuery broke off"),
            Poll::Pending => {}
        }
        polled.map_err(BodyError::Upstream)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
