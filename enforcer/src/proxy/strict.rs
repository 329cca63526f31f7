//! HTTP/1 with one reading only: what two parsers could frame differently never reaches the HTTP library.
//!
//! A head is held back until it is whole and judged. Where it is ambiguous or no HTTP at all, a request that can only be refused goes on in
//! its place, and nothing after it: so the refusal is answered in its turn, in the shape of every other, and on record before that.
//! The rules are those of RFC 9112 that a recipient *may* relax and this one does not. HTTP/2 frames its messages itself and needs none.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use enforcer_proto::refusal::{Code, Refusal};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::parked::Exchanges;

/// The most bytes a request's head may have; more is refused.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The most header lines a head may have; more is refused. The HTTP library's own bound is the same.
const HEADERS_MAX: usize = 100;
/// How long the head of a request may take from its first byte on; then the connection ends.
const HEAD: Duration = Duration::from_secs(30);
/// The most hexadecimal digits of a chunk's size.
const CHUNK_DIGITS_MAX: usize = 8;
/// How much is read at once, bytes.
const READ_BYTES: usize = 16 * 1024;
/// What goes on in the place of what is refused.
const STAND_IN: &[u8] = b"POST /not-http HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";
/// The path of that request.
const STAND_IN_PATH: &str = "/not-http";
/// What ends a body that is refused half way: no chunk begins like this for any reader.
const BROKEN_CHUNK: &[u8] = b"!\r\n";

/// Why what came over a connection is not read on, once it is so. Shared by the reader and those who answer.
#[derive(Debug, Clone, Default)]
pub struct Unreadable(Arc<OnceLock<String>>);

impl Unreadable {
    /// Why it is not read on, where it is not.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        self.0
            .get()
            .map(|why| Refusal::new(Code::RequestMalformed, why))
    }

    /// The same, for the request that stands in for what was not read; `None` for any other request.
    pub(super) fn stood_in_for(&self, path: &str) -> Option<Refusal> {
        self.refusal().filter(|_| path == STAND_IN_PATH)
    }
}

/// What comes next on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Head,
    /// So many bytes of a body.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk, its line end included.
    Chunk(u64),
    /// Nothing is handed on any more.
    Refused,
}

/// Frames what comes, and hands on what has one reading.
#[derive(Debug)]
struct Gate {
    next: Next,
    /// Came, and is not judged yet. Bounded by the head's bound and one read.
    held: BytesMut,
    /// Judged, and not handed on yet.
    ready: BytesMut,
    /// How much of `held` has been searched for a line end in vain.
    searched: usize,
    unreadable: Unreadable,
}

impl Gate {
    fn new(unreadable: Unreadable) -> Self {
        Self {
            next: Next::Head,
            held: BytesMut::new(),
            ready: BytesMut::new(),
            searched: 0,
            unreadable,
        }
    }

    /// Whether a head has begun, and is not whole.
    fn has_begun(&self) -> bool {
        self.next == Next::Head && !self.held.is_empty()
    }

    /// Nothing is kept of what has been handed on: a connection may be idle for long.
    fn let_go(&mut self) {
        if self.held.is_empty() && self.ready.is_empty() {
            (self.held, self.ready) = (BytesMut::new(), BytesMut::new());
        }
    }

    /// Whether all that came was handed on, and nothing of a request is to come.
    fn is_between(&self) -> bool {
        self.next == Next::Head && self.held.is_empty() && self.ready.is_empty()
    }

    /// Takes in what has come; gives how many heads, those that stand in for others among them, may be handed on for it.
    fn feed(&mut self, bytes: &[u8]) -> u64 {
        let mut heads = 0;
        if self.next == Next::Refused {
            return heads;
        }
        self.held.extend_from_slice(bytes);
        while !self.held.is_empty() {
            let was_head = self.next == Next::Head;
            if !self.step() {
                break;
            }
            heads += u64::from(was_head);
        }
        heads
    }

    /// Judges one part of what is held; says whether there was enough of it.
    fn step(&mut self) -> bool {
        match self.next {
            Next::Head => match self.head() {
                Ok(None) => false,
                Ok(Some((length, next))) => {
                    self.pass(length);
                    self.next = next;
                    true
                }
                Err(why) => self.refuse(why, STAND_IN),
            },
            Next::Body(left) => {
                let left = self.pass_up_to(left);
                self.next = if left == 0 {
                    Next::Head
                } else {
                    Next::Body(left)
                };
                true
            }
            Next::ChunkSize => match chunk_size(&self.held) {
                Ok(None) => false,
                Ok(Some((length, next))) => {
                    self.pass(length);
                    self.next = next;
                    true
                }
                Err(why) => self.refuse(why, BROKEN_CHUNK),
            },
            Next::Chunk(left) => {
                // The last two bytes are the chunk's line end.
                let data = left.saturating_sub(2);
                if data > 0 {
                    self.next = Next::Chunk(self.pass_up_to(data) + 2);
                    return true;
                }
                if self.held.len() < 2 {
                    return false;
                }
                if &self.held[..2] != b"\r\n" {
                    return self.refuse("A chunk is longer than it says".to_owned(), BROKEN_CHUNK);
                }
                self.pass(2);
                self.next = Next::ChunkSize;
                true
            }
            Next::Refused => false,
        }
    }

    /// The length of the head that is held, and what follows it; `None` while it is not whole.
    fn head(&mut self) -> Result<Option<(usize, Next)>, String> {
        if !self.held[0].is_ascii_uppercase() {
            return Err("What came over the connection is not HTTP".to_owned());
        }
        while let Some(at) = self.held[self.searched..]
            .iter()
            .position(|byte| *byte == b'\n')
        {
            let end = self.searched + at + 1;
            if !self.held[..end].ends_with(b"\r\n") {
                return Err("A line of the request's head does not end in CR and LF".to_owned());
            }
            self.searched = end;
            if self.held[..end].ends_with(b"\r\n\r\n") {
                self.searched = 0;
                return if end > HEAD_BYTES_MAX {
                    Err(too_long())
                } else {
                    framing(&self.held[..end]).map(|next| Some((end, next)))
                };
            }
        }
        self.searched = self.held.len();
        if self.searched > HEAD_BYTES_MAX {
            return Err(too_long());
        }
        Ok(None)
    }

    fn pass(&mut self, length: usize) {
        self.ready.unsplit(self.held.split_to(length));
    }

    /// Passes what there is, but not more than `most`; gives what is left of it.
    fn pass_up_to(&mut self, most: u64) -> u64 {
        let length = self
            .held
            .len()
            .min(usize::try_from(most).unwrap_or(usize::MAX));
        self.pass(length);
        most - length as u64
    }

    fn refuse(&mut self, why: String, stand_in: &[u8]) -> bool {
        // Only the first reason counts: nothing comes after it.
        let _ = self.unreadable.0.set(why);
        self.next = Next::Refused;
        self.held = BytesMut::new();
        self.ready.extend_from_slice(stand_in);
        false
    }
}

fn too_long() -> String {
    format!("The request's head has more than {HEAD_BYTES_MAX} bytes")
}

/// What follows a whole head, or why it has more than one reading.
fn framing(head: &[u8]) -> Result<Next, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err("The request's head has more than one end".to_owned()),
        Err(error) => return Err(format!("The request's head is not HTTP: {error}")),
    }
    if request.version != Some(1) {
        return Err("Only HTTP/1.1 and HTTP/2 are spoken here".to_owned());
    }
    let target = request.path.unwrap_or_default();
    if http::Uri::try_from(target).is_err() {
        return Err("The request's target is not a URI".to_owned());
    }
    let all = |name: &str| {
        let named = request
            .headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value).collect::<Vec<_>>()
    };
    match (
        all("content-length").as_slice(),
        all("transfer-encoding").as_slice(),
    ) {
        ([], []) => Ok(Next::Head),
        ([length], []) => content_length(length).map(|length| match length {
            0 => Next::Head,
            length => Next::Body(length),
        }),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Next::ChunkSize),
        ([], _) => Err("The only transfer coding that is read is chunked, once".to_owned()),
        ([_, _, ..], []) => Err("The request names its length more than once".to_owned()),
        ([_, ..], [_, ..]) => Err(
            "The request has both Content-Length and Transfer-Encoding, so its end is ambiguous"
                .to_owned(),
        ),
    }
}

fn content_length(value: &[u8]) -> Result<u64, String> {
    let digits = std::str::from_utf8(value)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| "The request's Content-Length is not a number".to_owned())
}

/// The length of the size line that is held, and what follows it; `None` while it is not whole. The last chunk must end the body:
/// extensions and trailers are fields that nobody here would look at.
fn chunk_size(held: &[u8]) -> Result<Option<(usize, Next)>, String> {
    let digits = held
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let rest = &held[digits..];
    if digits > CHUNK_DIGITS_MAX || (digits == 0 && !rest.is_empty()) {
        return Err("A chunk's size is not a number that is read".to_owned());
    }
    let size = std::str::from_utf8(&held[..digits])
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let end: &[u8] = if size == Some(0) {
        b"\r\n\r\n"
    } else {
        b"\r\n"
    };
    let there = rest.len().min(end.len());
    if rest[..there] != end[..there] {
        return Err(
            "A chunk has an extension, or the body has trailers: neither is read".to_owned(),
        );
    }
    Ok(match size {
        Some(size) if there == end.len() => Some((
            digits + end.len(),
            if size == 0 {
                Next::Head
            } else {
                Next::Chunk(size + 2)
            },
        )),
        Some(_) | None => None,
    })
}

/// A connection of which only what has one reading is read.
#[derive(Debug)]
pub struct Strict<S> {
    inner: S,
    gate: Gate,
    /// When the head that has begun must be whole.
    due: Option<Pin<Box<Sleep>>>,
    exchanges: Exchanges,
}

impl<S> Strict<S> {
    /// Reads from `inner`; `unreadable` says why it is not read on, once it is so.
    pub fn new(inner: S, unreadable: Unreadable) -> Self {
        Self {
            inner,
            gate: Gate::new(unreadable),
            due: None,
            exchanges: Exchanges::default(),
        }
    }

    /// How far what comes over it is answered.
    pub(super) const fn exchanges(&self) -> &Exchanges {
        &self.exchanges
    }

    /// Nothing has come. Whether the head that has begun is too late.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        if !self.gate.has_begun() {
            self.due = None;
            return false;
        }
        let due = self.due.get_or_insert_with(|| Box::pin(sleep(HEAD)));
        due.as_mut().poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> Strict<S> {
    /// Waits until there is a whole head to be handed on; `false` where the connection ends instead.
    pub(super) async fn whole_head(&mut self) -> io::Result<bool> {
        std::future::poll_fn(|context| self.poll_ready(context)).await
    }

    /// Reads to the end what nobody is to see.
    pub(super) async fn throw_away(&mut self) -> io::Result<()> {
        // Not in the future, which every connection has one of.
        let mut space = vec![0; READ_BYTES];
        while self.inner.read(&mut space).await? > 0 {}
        Ok(())
    }

    /// Reads until there is something to be handed on; `false` at the end of all.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.gate.ready.is_empty() {
            let mut space = [0; READ_BYTES];
            let mut came = ReadBuf::new(&mut space);
            match Pin::new(&mut self.inner).poll_read(context, &mut came) {
                Poll::Pending if self.is_late(context) => {
                    return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(read) => read?,
            }
            if came.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            let heads = self.gate.feed(came.filled());
            (0..heads).for_each(|_| self.exchanges.begin());
            self.exchanges.set_read(false);
        }
        Poll::Ready(Ok(true))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Strict<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !ready!(this.poll_ready(context))? {
            return Poll::Ready(Ok(()));
        }
        let length = this.gate.ready.len().min(buffer.remaining());
        buffer.put_slice(&this.gate.ready[..length]);
        this.gate.ready.advance(length);
        this.gate.let_go();
        this.exchanges.set_read(this.gate.is_between());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Strict<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.exchanges.set_sent(false);
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.exchanges.set_sent(false);
        Pin::new(&mut self.inner).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        // Nobody flushes who has more to write.
        if let Poll::Ready(Ok(())) = flushed {
            self.exchanges.set_sent(true);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
