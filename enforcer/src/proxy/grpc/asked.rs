//! What a gRPC request asks for: its host, its method and its message, read before anything is looked up or sent.

use enforcer_proto::query::Method;
use enforcer_proto::refusal::{Code, Refusal};
use http::Version;
use http::header::{self, HeaderMap, HeaderValue};
use hyper::body::Incoming;

use crate::bigquery::methods::{self, CALLS, Judged};
use crate::bigquery::storage::wanted::{self, About, Wanted};
use crate::bigquery::storage::{frame, routing};
use crate::dns::protected::{Service, service};
use crate::proxy::asked::check_host;
use crate::proxy::request::{keep_pace, read_body};
use crate::proxy::{Proxy, Session};

/// The kinds of messages that are read.
const CONTENT_TYPES: [&[u8]; 2] = [b"application/grpc", b"application/grpc+proto"];
const TIMEOUT: &str = "grpc-timeout";
const ENCODING: &str = "grpc-encoding";

/// A request that is understood.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) wanted: Wanted,
    /// What is said beside it, as it is sent on.
    pub(super) more: Vec<(&'static str, HeaderValue)>,
}

impl Asked {
    /// What a session's rows must meet, for the record.
    pub(super) fn condition(&self) -> Option<String> {
        match &self.wanted.about {
            About::Session { condition, .. } => condition.clone(),
            About::Stream(_) => None,
        }
    }
}

/// Reads a request.
///
/// # Errors
/// A [`Refusal`] naming what is not let through, or can be read in more than one way.
pub(super) async fn read(
    proxy: &Proxy,
    session: &Session,
    head: &http::request::Parts,
    body: Incoming,
) -> Result<Asked, Refusal> {
    check_host(session, head)?;
    let (method, path) = called(session, head)?;
    let mut more = beside(&head.headers)?;
    let most = frame::HEADER_BYTES + frame::REQUEST_MESSAGE_BYTES_MAX;
    let body = read_body(&head.headers, body, most).await?;
    keep_pace(proxy, session, body.len())?;
    let message = frame::only(&body)?;
    let wanted = if method == Method::StorageCreateReadSession {
        wanted::session(message)?
    } else if method == Method::StorageSplitReadStream {
        wanted::split(message)?
    } else {
        wanted::rows(message)?
    };
    let (field, value) = wanted.routing(method);
    more.push((
        routing::HEADER,
        routing::written(&head.headers, field, &value)?,
    ));
    Ok(Asked {
        method,
        path,
        wanted,
        more,
    })
}

/// Which method is called, if it is one that is let through here.
fn called(
    session: &Session,
    head: &http::request::Parts,
) -> Result<(Method, &'static str), Refusal> {
    let path = head.uri.path();
    let denied = |why: &str| {
        let what = format!(
            "Access Denied: BigQuery: {path} at {} is not let through: {why}",
            session.name
        );
        Err(Refusal::new(Code::MethodUnknown, what))
    };
    match service(&session.name) {
        Service::Storage => {}
        Service::Api => return denied(methods::GRPC),
        Service::Neighbour => return denied(methods::NEIGHBOUR),
    }
    let known = CALLS.iter().find(|call| call.path == path);
    let (method, path) = match known.map(|call| (call.judged, call.path)) {
        Some((Judged::As(method, _), path)) => (method, path),
        Some((Judged::Refused(why), _)) => return denied(why),
        None => return denied("it is no method of the storage API that is known here"),
    };
    if head.version != Version::HTTP_2 {
        return Err(frame::malformed("does not come by HTTP/2"));
    }
    if head.method != http::Method::POST || head.uri.query().is_some() {
        return Err(frame::malformed("is no POST to a plain path"));
    }
    Ok((method, path))
}

/// What is said beside the message: its kind, whether it is compressed, and how long the client waits.
fn beside(headers: &HeaderMap) -> Result<Vec<(&'static str, HeaderValue)>, Refusal> {
    let only = |name: &str| {
        let mut given = headers.get_all(name).iter();
        match (given.next(), given.next()) {
            (first, None) => Ok(first),
            (_, Some(_)) => Err(frame::malformed(&format!("says {name} more than once"))),
        }
    };
    let kind = only(header::CONTENT_TYPE.as_str())?.map(HeaderValue::as_bytes);
    if !kind.is_some_and(|kind| CONTENT_TYPES.contains(&kind)) {
        return Err(frame::malformed(
            "holds another kind of message than is read",
        ));
    }
    if only(ENCODING)?.is_some_and(|encoding| encoding.as_bytes() != b"identity") {
        return Err(frame::malformed("is compressed, which is not read"));
    }
    let mut more = vec![("te", HeaderValue::from_static("trailers"))];
    if let Some(timeout) = only(TIMEOUT)? {
        if !is_timeout(timeout.as_bytes()) {
            return Err(frame::malformed("says no time as its grpc-timeout"));
        }
        more.push((TIMEOUT, timeout.clone()));
    }
    Ok(more)
}

/// At most eight digits and a unit.
fn is_timeout(text: &[u8]) -> bool {
    text.split_last().is_some_and(|(unit, digits)| {
        b"HMSmun".contains(unit)
            && (1..=8).contains(&digits.len())
            && digits.iter().all(u8::is_ascii_digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn a_time_is_passed_on_and_what_is_none_is_refused() {
        let of = |timeout| headers(&[("content-type", "application/grpc"), (TIMEOUT, timeout)]);
        for timeout in ["24H", "99999999n", "1S", "500m"] {
            let more = beside(&of(timeout)).expect("a time");
            assert!(
                more.iter()
                    .any(|(name, said)| *name == TIMEOUT && said == timeout)
            );
        }
        for none in ["", "H", "24", "24h", "123456789S", "-1S", "1 S", "1.5S"] {
            assert!(beside(&of(none)).is_err(), "{none}");
        }
    }

    #[test]
    fn compressed_and_other_kinds_of_messages_are_refused() {
        let grpc = ("content-type", "application/grpc");
        assert!(beside(&headers(&[grpc])).is_ok());
        assert!(beside(&headers(&[grpc, (ENCODING, "identity")])).is_ok());
        for more in [
            &[grpc, (ENCODING, "gzip")][..],
            &[grpc, (ENCODING, "identity"), (ENCODING, "identity")],
            &[("content-type", "application/grpc-web")],
            &[("content-type", "application/grpc+json")],
            &[grpc, grpc],
        ] {
            assert!(beside(&headers(more)).is_err(), "{more:?}");
        }
    }
}
