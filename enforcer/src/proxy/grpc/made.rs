//! Answers that make streams: read whole, for the streams that they name, and passed on as they came, but for the words of a failure.

use std::time::Duration;

use bytes::Bytes;
use enforcer_proto::query::Method;
use enforcer_proto::refusal::Refusal;
use http::Response;
use http::header::HeaderMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use prost::Message;

use super::passing::end_with;
use super::unusable;
use crate::bigquery::storage::frame;
use crate::bigquery::storage::messages::{MadeSession, ReadStream, SplitReadStreamResponse};
use crate::proxy::forward::{ANSWER_BYTES_MAX, Finish, pass_answer};
use crate::proxy::request::Body;

/// How long BigQuery may take for the rest of an answer that it has begun.
const REST: Duration = Duration::from_secs(300);

/// Such an answer.
pub(super) struct Made {
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
    /// The names of the streams.
    pub(super) streams: Vec<String>,
    /// How much they read at BigQuery, bytes; none of what only divides a stream.
    pub(super) scanned: Option<u64>,
}

/// Reads one.
///
/// # Errors
/// [`enforcer_proto::refusal::Code::UpstreamFailed`].
pub(super) async fn read(method: Method, answer: Response<Incoming>) -> Result<Made, Refusal> {
    let (head, body) = answer.into_parts();
    let reading = Limited::new(body, ANSWER_BYTES_MAX).collect();
    let read = tokio::time::timeout(REST, reading).await;
    let read = read
        .map_err(|_| unusable("it took too long"))?
        .map_err(|_| unusable("it broke off, or is too long"))?;
    let trailers = read.trailers().cloned().unwrap_or_default();
    let body = read.to_bytes();
    let (streams, scanned) = streams(method, &body)?;
    Ok(Made {
        headers: head.headers,
        body,
        trailers,
        streams,
        scanned,
    })
}

impl Made {
    /// As it is passed on, and counted.
    pub(super) fn passed(self, finish: &mut Finish) -> Response<Body> {
        finish.sent(self.body.len());
        let trailers = end_with(finish, &self.trailers, None);
        let body = Full::new(self.body)
            .map_err(|never: std::convert::Infallible| match never {})
            .with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = Response::new(body.boxed_unsync());
        pass_answer(&self.headers, response.headers_mut());
        response
    }
}

/// The streams that an answer names, and how much they read. One with an error names none.
fn streams(method: Method, body: &Bytes) -> Result<(Vec<String>, Option<u64>), Refusal> {
    if body.is_empty() {
        return Ok((Vec::new(), None));
    }
    let mut scanned = None;
    let unread = || unusable("the streams that it names cannot be read");
    let message = frame::only(body).map_err(|_| unread())?;
    let streams: Vec<ReadStream> = if method == Method::StorageSplitReadStream {
        let split = SplitReadStreamResponse::decode(message).map_err(|_| unread())?;
        let both = [split.primary_stream, split.remainder_stream];
        both.into_iter().flatten().collect()
    } else {
        let made = MadeSession::decode(message).map_err(|_| unread())?;
        let read = u64::try_from(made.estimated_total_bytes_scanned);
        scanned = Some(read.map_err(|_| unusable("it does not say how much is read"))?);
        made.streams
    };
    let names = streams.into_iter().map(|stream| stream.name);
    // What cannot be split is answered by none.
    let names = names.filter(|name| !name.is_empty()).collect();
    Ok((names, scanned))
}
