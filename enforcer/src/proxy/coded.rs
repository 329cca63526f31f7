//! How answers are compressed, both ways. BigQuery is asked for gzip, and what comes is decoded here, as it comes, before anything looks at it,
//! counts it or passes it on: all else in the proxy sees plain bytes, and every bound is one on those. What a client takes compressed is compressed
//! anew, last of all.
//!
//! Must not: hold more of an answer than a frame of it, or pass on what is not wholly and only what gzip writes. gRPC is spoken plain.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use enforcer_proto::refusal::{Code, Refusal};
use flate2::Compression;
use flate2::write::{GzDecoder, GzEncoder};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::cut::BodyError;
use super::request;
use crate::bigquery::coding::Coding;

/// What an answer must be longer than to be compressed for a client, bytes: between two ends of one host a shorter one gains nothing by it, and the
/// answers that a client waits for one after another are shorter.
pub(super) const PLAIN_BYTES_MAX: u64 = 16 * 1024;
/// How much of an answer is compressed before what it came to is handed over, plain bytes: also what is at most handed over at once.
const PART_BYTES: usize = 64 * 1024;
/// The coding that is asked for and given.
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// Google's servers compress for those alone whose agent says so too, whatever they accept.
const AGENT_MARK: &[u8] = b"gzip";
const AGENT: HeaderValue = HeaderValue::from_static("enforcer (gzip)");

/// Why an answer of BigQuery's cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// Its connection failed.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// It is damaged, or ends too early.
    #[error("it is not what gzip writes")]
    Gzip(#[source] io::Error),
    /// It goes on where its gzip has ended.
    #[error("something follows what is compressed")]
    Followed,
}

/// The body of an answer of BigQuery's as it is read: plain, however it came.
pub(super) enum Decoded {
    /// It came so.
    Plain(Incoming),
    /// It came compressed.
    Gzip(Box<Gunzip<Incoming>>),
}

/// Asks for an answer that is compressed. The client's agent stays first in what is said of the agent.
pub(super) fn ask(headers: &mut HeaderMap) {
    headers.insert(header::ACCEPT_ENCODING, GZIP);
    let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes);
    let agent = match agent {
        Some(agent) if memchr::memmem::find(agent, AGENT_MARK).is_some() => return,
        Some(agent) => HeaderValue::from_bytes(&[agent, b" (gzip)"].concat()).unwrap_or(AGENT),
        None => AGENT,
    };
    headers.insert(header::USER_AGENT, agent);
}

/// An answer that was asked for with [`ask`]. Its head does not speak of a coding any more.
///
/// # Errors
/// [`Code::UpstreamFailed`] for a coding that was not asked for, and for several.
pub(super) fn decoded(mut answer: Response<Incoming>) -> Result<Response<Decoded>, Refusal> {
    let coding = Coding::of(answer.headers());
    let coding =
        coding.map_err(|_| unusable("it is compressed in a way that was not asked for"))?;
    answer.headers_mut().remove(header::CONTENT_ENCODING);
    let is_bare = matches!(
        answer.status(),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    ) || answer.body().is_end_stream();
    Ok(answer.map(|body| match coding {
        // Of nothing its coding says nothing.
        Coding::Gzip if !is_bare => Decoded::Gzip(Box::new(Gunzip::new(body))),
        Coding::Gzip | Coding::Plain => Decoded::Plain(body),
    }))
}

/// An answer for which no coding was asked.
///
/// # Errors
/// [`Code::UpstreamFailed`] where it has one.
pub(super) fn plain(answer: Response<Incoming>) -> Result<Response<Incoming>, Refusal> {
    match Coding::of(answer.headers()) {
        Ok(Coding::Plain) => Ok(answer),
        Ok(Coding::Gzip) | Err(_) => Err(unusable("it is compressed, and nobody asked for that")),
    }
}

fn unusable(why: &str) -> Refusal {
    let what = format!("BigQuery did not give an answer that can be used: {why}");
    Refusal::new(Code::UpstreamFailed, what)
}

impl Body for Decoded {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Plain(body) => Pin::new(body).poll_frame(context).map_err(Broken::Http),
            Self::Gzip(body) => Pin::new(body.as_mut()).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Gzip(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Gzip(body) => body.size_hint(),
        }
    }
}

/// A body that is decompressed as it comes: each frame is what the decoder's own buffer holds at most, however much that of `inner` stands for. It
/// ends well only where its gzip has, whole, undamaged, and nothing behind it.
pub(super) struct Gunzip<B> {
    inner: B,
    decoder: GzDecoder<Vec<u8>>,
    /// What came and is not decoded yet.
    left: Bytes,
    is_over: bool,
}

impl<B> Gunzip<B> {
    fn new(inner: B) -> Self {
        Self {
            inner,
            decoder: GzDecoder::new(Vec::new()),
            left: Bytes::new(),
            is_over: false,
        }
    }

    /// Decodes the next of what came.
    fn step(&mut self) -> Result<Bytes, Broken> {
        let taken = self.decoder.write(&self.left).map_err(Broken::Gzip)?;
        let made = std::mem::take(self.decoder.get_mut());
        // It takes nothing once it has ended; before that it takes or makes something.
        if taken == 0 && made.is_empty() {
            return Err(Broken::Followed);
        }
        self.left.advance(taken);
        Ok(made.into())
    }

    /// All that is there of it, at the end or while nothing more comes.
    fn rest(&mut self, is_end: bool) -> Result<Bytes, Broken> {
        if is_end {
            self.decoder.try_finish().map_err(Broken::Gzip)?;
        } else {
            self.decoder.flush().map_err(Broken::Gzip)?;
        }
        Ok(std::mem::take(self.decoder.get_mut()).into())
    }
}

impl<B> Gunzip<B>
where
    B: Body<Data = Bytes> + Unpin,
    Broken: From<B::Error>,
{
    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let (made, is_waiting) = if self.left.is_empty() {
                match Pin::new(&mut self.inner).poll_frame(context) {
                    Poll::Ready(Some(Ok(frame))) => {
                        // Trailers say nothing here.
                        self.left = frame.into_data().unwrap_or_default();
                        continue;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
                    Poll::Ready(None) => {
                        self.is_over = true;
                        (self.rest(true), false)
                    }
                    Poll::Pending => (self.rest(false), true),
                }
            } else {
                (self.step(), false)
            };
            match made {
                Ok(part) if part.is_empty() && self.is_over => return Poll::Ready(None),
                Ok(part) if part.is_empty() && is_waiting => return Poll::Pending,
                Ok(part) if part.is_empty() => {}
                made => return Poll::Ready(Some(made)),
            }
        }
    }
}

impl<B> Body for Gunzip<B>
where
    B: Body<Data = Bytes> + Unpin,
    Broken: From<B::Error>,
{
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let part = ready!(self.poll_part(context));
        if let Some(Err(_)) = &part {
            self.is_over = true;
        }
        Poll::Ready(part.map(|part| part.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

/// Whether a client says that it takes what is compressed by gzip, and does not like it plain better. What cannot be read says no.
pub(super) fn is_taken(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity) = (None, None);
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for named in value.to_str().unwrap_or_default().split(',') {
            let (name, weight) = match named.split_once(';') {
                Some((name, weight)) => (name, weight_of(weight)),
                None => (named, 1000),
            };
            let name = name.trim();
            let is = |other: &str| name.eq_ignore_ascii_case(other);
            let said = if is("gzip") || is("x-gzip") {
                &mut gzip
            } else if is("identity") {
                &mut identity
            } else {
                continue;
            };
            // Of what is named twice the lesser counts.
            *said = Some(said.map_or(weight, |other: u16| other.min(weight)));
        }
    }
    gzip.is_some_and(|gzip| gzip > 0 && gzip >= identity.unwrap_or_default())
}

/// A weight in thousandths (RFC 9110, 12.4.2); none where it is not one.
fn weight_of(text: &str) -> u16 {
    let mut parts = text.trim().splitn(2, '=');
    let name = parts.next().unwrap_or_default();
    let number = parts.next().unwrap_or_default();
    if !name.eq_ignore_ascii_case("q") {
        return 0;
    }
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return 0;
    }
    let thousandths = format!("{part:0<3}").parse().unwrap_or(0);
    match whole {
        "0" => thousandths,
        "1" if thousandths == 0 => 1000,
        _ => 0,
    }
}

/// An answer for a client that takes gzip: compressed where it is longer than [`PLAIN_BYTES_MAX`], or nobody knows yet how long it is.
pub(super) fn encoded(mut response: Response<request::Body>) -> Response<request::Body> {
    let upper = response.body().size_hint().upper();
    if upper.is_some_and(|upper| upper <= PLAIN_BYTES_MAX) {
        return response;
    }
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, GZIP);
    headers.append(
        header::VARY,
        HeaderValue::from_static(header::ACCEPT_ENCODING.as_str()),
    );
    response.map(|body| Gzip::new(body).boxed_unsync())
}

/// A body that is compressed as it comes, and handed over as soon as no more of it is there, or a part's worth.
struct Gzip<B> {
    inner: B,
    encoder: GzEncoder<Vec<u8>>,
    /// Plain bytes that were taken since something was handed over.
    taken: usize,
    is_over: bool,
}

impl<B> Gzip<B> {
    fn new(inner: B) -> Self {
        Self {
            inner,
            encoder: GzEncoder::new(Vec::new(), Compression::fast()),
            taken: 0,
            is_over: false,
        }
    }

    fn hand_over(&mut self) -> Frame<Bytes> {
        let done = if self.is_over {
            self.encoder.try_finish()
        } else {
            self.encoder.flush()
        };
        // What is written to is memory.
        debug_assert!(done.is_ok(), "{done:?}");
        self.taken = 0;
        Frame::data(std::mem::take(self.encoder.get_mut()).into())
    }
}

impl<B> Body for Gzip<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        while self.taken < PART_BYTES {
            match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers say nothing here.
                    let data = frame.into_data().unwrap_or_default();
                    let written = self.encoder.write_all(&data);
                    debug_assert!(written.is_ok(), "{written:?}");
                    self.taken = self.taken.saturating_add(data.len());
                    self.is_over = self.inner.is_end_stream();
                }
                // With it what was taken and is not handed over: not one more byte after a close.
                Poll::Ready(Some(Err(error))) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => self.is_over = true,
                Poll::Pending if self.taken == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
            if self.is_over {
                break;
            }
        }
        Poll::Ready(Some(Ok(self.hand_over())))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests;
