//! Requests to names besides BigQuery's that the agent is allowed. Each must be for the name that the connection was made for; then it passes
//! unjudged, with whatever credential the agent sent and none of ours, to where our own look-up of that name leads. Bodies stream both ways.

use std::io;
use std::time::Duration;

use enforcer_proto::event::REQUEST_LINE_BYTES_MAX;
use enforcer_proto::refusal::{Code, Refusal};
use enforcer_proto::text::shorten;
use http::header::{self, HeaderMap, HeaderName};
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri, request};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::asked::check_host;
use super::coded::Broken;
use super::cut::BodyError;
use super::request::{Body, record, refusal_response};
use super::{Proxy, Session};
use crate::causes::Causes;
use crate::upstream;

/// How long an answer may take to begin, the sending of the request's body included.
const ANSWER: Duration = Duration::from_secs(3600);
/// Keys of upstream connections that are no grant's: the rest of the number is the session's.
const SESSIONS_KEYS: u64 = 1 << 63;
/// Headers that concern one connection only (RFC 9110, 7.6.1), or that we have answered ourselves.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::EXPECT,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const HOP_BY_HOP_OLD: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

/// The key of the upstream connections of one session: they carry the agent's credentials and nobody else's requests.
pub(super) const fn pool_key(session: &Session) -> u64 {
    SESSIONS_KEYS | session.requester.session.0
}

/// Answers one request.
pub(super) async fn answer(
    proxy: &Proxy,
    session: &Session,
    request: Request<Incoming>,
) -> Response<Body> {
    // Without the query: what stands there may be a credential.
    let (method, path) = (request.method(), request.uri().path());
    let mut line = format!("{method} {}{path}", session.name);
    shorten(&mut line, REQUEST_LINE_BYTES_MAX);
    match pass_on(proxy, session, request, &line).await {
        Ok(response) => response,
        Err(refusal) => {
            let refusal = record(proxy, session, None, line, None, refusal).await;
            refusal_response(&refusal)
        }
    }
}

async fn pass_on(
    proxy: &Proxy,
    session: &Session,
    request: Request<Incoming>,
    line: &str,
) -> Result<Response<Body>, Refusal> {
    let (head, body) = request.into_parts();
    if let Some(refusal) = session.unreadable.stood_in_for(head.uri.path()) {
        return Err(refusal);
    }
    check_host(session, &head)?;
    // Held until the answer's head is there.
    let _turn = proxy.quota.request_of(&session.requester.agent).await?;
    let request = outgoing(session, head, body)?;
    proxy.forwarded.add(&session.requester, line);
    let sent = proxy.upstream.send(pool_key(session), request);
    let failed = |why: &dyn std::fmt::Display| {
        let what = format!("{} gave no answer: {why}", session.name);
        Refusal::new(Code::UpstreamFailed, what)
    };
    let answer = tokio::time::timeout(ANSWER, sent)
        .await
        .map_err(|_| failed(&"it took too long"))?
        .map_err(|error| failed(&Causes(&error)))?;
    let (mut head, body) = answer.into_parts();
    strip(&mut head.headers);
    let body = body
        .map_err(|error| BodyError::Upstream(Broken::Http(error)))
        .boxed_unsync();
    Ok(Response::from_parts(head, body))
}

/// The request as it goes out: to the name of the connection, whatever else it names.
fn outgoing(
    session: &Session,
    mut head: request::Parts,
    body: Incoming,
) -> Result<Request<upstream::Body>, Refusal> {
    let malformed = |what: &str| Refusal::new(Code::RequestMalformed, what);
    if head.method == Method::CONNECT {
        return Err(malformed("A tunnel inside a connection is not let through"));
    }
    let path = head.uri.path_and_query();
    let path = path.ok_or_else(|| malformed("The request names no path"))?;
    let authority: Authority = session
        .name
        .parse()
        .map_err(|_| malformed("The name of the connection is no host"))?;
    head.uri = Uri::builder()
        .scheme(Scheme::HTTPS)
        .authority(authority)
        .path_and_query(path.clone())
        .build()
        .map_err(|_| malformed("The request's path cannot be sent"))?;
    strip(&mut head.headers);
    let body = body.map_err(io::Error::other).boxed();
    Ok(Request::from_parts(head, body))
}

/// Takes away what concerns one connection only, and what `Connection` says does.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP_OLD {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_concerns_one_connection_stays_on_it_and_the_rest_passes() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("expect", "100-continue"),
            ("authorization", "Bearer of-the-agent"),
            ("content-length", "3"),
            ("x-goog-meta-a", "b"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length", "x-goog-meta-a"]);
    }
}
