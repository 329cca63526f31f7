//! What of one connection's requests has left this host, and the end of that when its window closes: from then on the connection takes not one
//! byte more, and unless everything that was begun is with the other side already, it is reset at once. It decides on no time by itself.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::Body;
use super::frames::Frames;
use crate::shared::Shared;
use crate::sockopt;

/// How much of a request has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sent {
    /// Nothing.
    #[default]
    Nothing,
    /// A part. The rest never does.
    Part,
    /// All of it was on its way when its connection was reset, and the other side had not acknowledged it.
    Unacknowledged,
    /// All of it.
    Whole,
}

/// How far a request is, for whoever sends it. Clones are of the same request.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Far>>);

#[derive(Debug, Default)]
struct Far {
    sent: Sent,
    /// What it went over. Not held: the socket is closed with the connection.
    over: Weak<Flow>,
    /// Whether that was reset.
    is_cut: Arc<AtomicBool>,
}

impl Progress {
    fn far(&self) -> MutexGuard<'_, Far> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, sent: Sent) {
        self.far().sent = sent;
    }

    /// Ends the sending: gives how much has left, to which nothing is added any more.
    #[must_use]
    pub fn end(&self) -> Sent {
        let over = self.far().over.clone();
        // Not while this one's lock is held: the flow's comes first.
        if let Some(flow) = over.upgrade() {
            flow.seal();
        }
        let far = self.far();
        match far.sent {
            Sent::Whole if far.is_cut.load(Ordering::Acquire) => Sent::Unacknowledged,
            sent @ (Sent::Nothing | Sent::Part | Sent::Unacknowledged | Sent::Whole) => sent,
        }
    }
}

/// A connection's way out.
#[derive(Debug)]
pub(super) struct Flow {
    socket: Shared,
    state: Mutex<State>,
    is_cut: Arc<AtomicBool>,
    /// Who waits for something to come; to be told of the cut.
    reader: AtomicWaker,
}

#[derive(Debug)]
struct State {
    /// It takes nothing more.
    is_sealed: bool,
    /// TLS holds what the socket had no room for.
    is_held: bool,
    requests: Requests,
}

/// What was asked over it.
#[derive(Debug)]
enum Requests {
    /// One after the other (HTTP/1.1): none, or the one that is under way.
    One(Option<Request>),
    /// Several at once (HTTP/2): the frames that went, and how many requests the library was given.
    Many { frames: Frames, given: u64 },
}

#[derive(Debug)]
struct Request {
    progress: Progress,
    is_begun: bool,
    /// The library has all of its body.
    is_taken: bool,
    is_whole: bool,
}

impl Flow {
    pub(super) fn new(socket: Shared, is_h2: bool) -> Arc<Self> {
        let requests = if is_h2 {
            Requests::Many {
                frames: Frames::default(),
                given: 0,
            }
        } else {
            Requests::One(None)
        };
        Arc::new(Self {
            socket,
            state: Mutex::new(State {
                is_sealed: false,
                is_held: false,
                requests,
            }),
            is_cut: Arc::default(),
            reader: AtomicWaker::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// A request is about to go: its body is to be followed from here on.
    pub(super) fn begin(self: &Arc<Self>, progress: &Progress, body: Body) -> Body {
        let is_empty = body.is_end_stream();
        *progress.far() = Far {
            sent: Sent::Nothing,
            over: Arc::downgrade(self),
            is_cut: Arc::clone(&self.is_cut),
        };
        match &mut self.state().requests {
            Requests::One(request) => {
                *request = Some(Request {
                    progress: progress.clone(),
                    is_begun: false,
                    is_taken: is_empty,
                    is_whole: false,
                });
            }
            Requests::Many { given, .. } => {
                *given += 1;
                if is_empty {
                    progress.is(Sent::Whole);
                }
            }
        }
        Body::new(Followed {
            inner: body,
            flow: Arc::downgrade(self),
            progress: progress.clone(),
        })
    }

    /// Its answer has been read to the end (HTTP/1.1).
    pub(super) fn is_free(&self) {
        if let Requests::One(request) = &mut self.state().requests {
            *request = None;
        }
    }

    /// The library has begun to take a request's body, or has all of it.
    fn takes(&self, progress: &Progress, is_all: bool) {
        match &mut self.state().requests {
            Requests::One(Some(request)) => request.is_taken |= is_all,
            Requests::One(None) => {}
            // What of it waits for the other side's window is not known by request, but by connection: see `Frames`.
            Requests::Many { .. } if is_all => progress.is(Sent::Whole),
            Requests::Many { .. } => progress.is(Sent::Part),
        }
    }

    /// Takes nothing more. Where not all that was begun is with the other side, and acknowledged, the connection is reset.
    pub(super) fn seal(&self) {
        let mut state = self.state();
        if state.is_sealed {
            return;
        }
        state.is_sealed = true;
        let waiting = sockopt::unacknowledged(self.socket.as_fd());
        let is_through = !state.is_held && waiting.is_ok_and(|bytes| bytes == 0);
        if is_through && state.requests.are_whole() {
            return;
        }
        let unsent = sockopt::unsent(self.socket.as_fd());
        if unsent.is_ok_and(|bytes| bytes > 0) {
            state.requests.are_broken_off();
        }
        self.cut_now(&mut state);
    }

    /// Resets the connection, whatever is under way.
    pub(super) fn cut(&self) {
        self.cut_now(&mut self.state());
    }

    fn cut_now(&self, state: &mut State) {
        state.is_sealed = true;
        if self.is_cut.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = sockopt::disconnect(self.socket.as_fd()) {
            // Who reads it is told all the same, and closes it: that resets it.
            tracing::debug!(%error, "an upstream connection is closed and not reset");
        }
        self.reader.wake();
    }
}

impl Requests {
    /// Whether something was begun, and all of it was written.
    fn are_whole(&self) -> bool {
        match self {
            Self::One(request) => request.as_ref().is_some_and(|request| request.is_whole),
            Self::Many { frames, given } => frames.are_whole() && frames.begun() == *given,
        }
    }

    /// What the kernel had of it has not left: a part of the one request that is under way. Of several nobody knows which.
    fn are_broken_off(&self) {
        if let Self::One(Some(request)) = self {
            request.progress.is(Sent::Part);
        }
    }

    /// So much of these parts went to TLS.
    fn wrote(&mut self, parts: &[IoSlice<'_>], mut count: usize) {
        match self {
            Self::One(Some(request)) if count > 0 && !request.is_begun => {
                request.is_begun = true;
                request.progress.is(Sent::Part);
            }
            Self::One(_) => {}
            Self::Many { frames, .. } => {
                for part in parts {
                    let went = count.min(part.len());
                    frames.walk(&part[..went]);
                    count -= went;
                }
            }
        }
    }

    /// All that the library had was written, and TLS holds none of it. It asks for that only when it has nothing more by itself.
    fn flushed(&mut self) {
        if let Self::One(Some(request)) = self
            && request.is_begun
            && request.is_taken
            && !request.is_whole
        {
            request.is_whole = true;
            request.progress.is(Sent::Whole);
        }
    }
}

/// A request's body that says when the library has all of it.
struct Followed {
    inner: Body,
    flow: Weak<Flow>,
    progress: Progress,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        let is_all = match &frame {
            Poll::Ready(None) => true,
            // Who knows the length does not ask again after the last byte.
            Poll::Ready(Some(Ok(_))) => {
                self.inner.is_end_stream() || self.inner.size_hint().exact() == Some(0)
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => return frame,
        };
        if let Some(flow) = self.flow.upgrade() {
            flow.takes(&self.progress, is_all);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The connection itself, for the HTTP library.
pub(super) struct Watched {
    inner: TlsStream<Shared>,
    flow: Arc<Flow>,
}

impl Watched {
    pub(super) const fn new(inner: TlsStream<Shared>, flow: Arc<Flow>) -> Self {
        Self { inner, flow }
    }

    fn write(
        &mut self,
        parts: &[IoSlice<'_>],
        write: impl FnOnce(Pin<&mut TlsStream<Shared>>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        // Held while it is written: who seals it finds all that went, and none goes afterwards.
        let mut state = self.flow.state();
        if self.flow.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if state.is_sealed {
            // For good. What still comes is read, and whoever reads is told of the end.
            return Poll::Pending;
        }
        let written = write(Pin::new(&mut self.inner));
        state.is_held = self.inner.get_ref().1.wants_write();
        if let Poll::Ready(Ok(count)) = written {
            state.requests.wrote(parts, count);
        }
        written
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.flow.reader.register(context.waker());
        if self.flow.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.inner).poll_read(context, out)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(&[IoSlice::new(bytes)], |inner| {
            inner.poll_write(context, bytes)
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(parts, |inner| inner.poll_write_vectored(context, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut state = this.flow.state();
        if this.flow.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if state.is_sealed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut this.inner).poll_flush(context);
        state.is_held = this.inner.get_ref().1.wants_write();
        if matches!(flushed, Poll::Ready(Ok(()))) && !state.is_held {
            state.requests.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.flow.state().is_sealed {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
