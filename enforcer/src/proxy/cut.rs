//! What ends when a window does: waiting for its close, and bodies that stop with it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::coded::{Broken, Decoded};
use super::forward::Finish;
use super::pages::Sealing;
use crate::clock::Clock;
use crate::engine::{OpenWindow, OpenWindows};

/// The longest that is slept without looking at the clock: a sleep does not count suspend, the clock does.
const NAP: Duration = Duration::from_secs(1);

/// How much of what was read already is passed on at once, bytes.
const PART_BYTES: usize = 64 * 1024;

/// The error of a body that was cut; it ends the connection.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The window closed.
    #[error("the window closed while the answer was being sent")]
    Closed,
    /// The budget does not reach for the rest.
    #[error("the window's budget of bytes was spent while the answer was being sent")]
    Spent,
    /// BigQuery's side failed.
    #[error("the answer from BigQuery broke off")]
    Upstream(#[source] Broken),
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

/// Where a body comes from: what was read of it already, then what still comes.
pub(super) struct Source {
    ready: Bytes,
    rest: Option<Decoded>,
    /// What seals the tokens in it as it passes.
    sealing: Option<Sealing>,
}

impl Source {
    pub(super) const fn new(ready: Bytes, rest: Option<Decoded>) -> Self {
        Self {
            ready,
            rest,
            sealing: None,
        }
    }

    /// The same with its tokens sealed: at once what is there whole, as it passes what is not.
    pub(super) fn sealed(self, mut sealing: Sealing) -> Self {
        let Self { ready, rest, .. } = self;
        let ready = sealing.pass(&ready);
        let sealing = rest.is_some().then_some(sealing);
        Self {
            ready,
            rest,
            sealing,
        }
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if !self.ready.is_empty() {
            // In parts: what is handed over at once cannot be cut any more.
            let part = self.ready.split_to(self.ready.len().min(PART_BYTES));
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
        let Some(rest) = &mut self.rest else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(rest).poll_frame(context));
        let Some(sealing) = &mut self.sealing else {
            return Poll::Ready(frame);
        };
        let sealed =
            frame.map(|frame| frame.map(|frame| frame.map_data(|part| sealing.pass(&part))));
        Poll::Ready(sealed)
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_empty() && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        // A sealed token has another length.
        if self.sealing.is_some() {
            return SizeHint::default();
        }
        let mut hint = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let ready = self.ready.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(ready));
        }
        hint.set_lower(hint.lower().saturating_add(ready));
        hint
    }
}

/// A body from upstream that ends with its window. Counts what it passes on; says how it ended exactly once, also when it is dropped.
pub(super) struct CutBody {
    inner: Source,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    finish: Finish,
    /// The bytes that may still be passed on, where the budget bounds them.
    most: Option<u64>,
    /// Something was left out: what was passed on is all that the budget allowed.
    is_short: bool,
    /// Tells the connection's watcher that this body is over.
    _done: DropGuard,
}

impl CutBody {
    pub(super) fn new(
        inner: Source,
        closed: Pin<Box<dyn Future<Output = ()> + Send>>,
        mut finish: Finish,
        done: DropGuard,
    ) -> Self {
        // A server does not ask for a body that is empty.
        if inner.is_end_stream() {
            finish.complete();
        }
        Self {
            inner,
            closed,
            most: finish.passed_on_max(),
            finish,
            is_short: false,
            _done: done,
        }
    }
}

impl CutBody {
    /// What of a frame the budget allows.
    fn within_budget(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(most) = self.most else {
            return frame;
        };
        match frame.into_data() {
            Ok(mut data) => {
                let most_now = usize::try_from(most).unwrap_or(usize::MAX);
                self.is_short = data.len() > most_now;
                data.truncate(most_now);
                self.most = Some(most.saturating_sub(data.len() as u64));
                Frame::data(data)
            }
            Err(other) => other,
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
        if self.is_short {
            self.finish.trouble("cut: the budget of bytes was spent");
            return Poll::Ready(Some(Err(BodyError::Spent)));
        }
        match self.inner.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let frame = self.within_budget(frame);
                self.finish.sent(frame.data_ref().map_or(0, Bytes::len));
                // A server that knows the length does not ask again after the last byte.
                if self.is_end_stream() {
                    self.finish.complete();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish.complete();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.finish.trouble("the answer from BigQuery broke off");
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        !self.is_short && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
