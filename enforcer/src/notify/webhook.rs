//! Posts notices by HTTPS: verified TLS, no redirect, a bounded answer. It has no credential of Google's, and the configuration refuses every
//! address by which BigQuery is reached.

use std::sync::Arc;

use enforcer_proto::notice::queue::Attempt;
use enforcer_proto::time::NS_PER_S;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};

use super::key::{HEADER, Key};
use crate::causes::Causes;
use crate::config::Webhook;
use crate::upstream::{Upstream, full};

/// How much of an answer is read, bytes. The rest is not waited for.
const ANSWER_BYTES_MAX: usize = 4096;
/// How much of it is shown when it is a refusal, characters.
const ANSWER_CHARS_SHOWN: usize = 200;

#[derive(Debug)]
pub(super) struct Poster {
    upstream: Arc<Upstream>,
    /// No other hook's requests go over its connections.
    pool_key: u64,
    webhook: Webhook,
    key: Option<Key>,
}

impl Poster {
    pub(super) const fn new(
        upstream: Arc<Upstream>,
        pool_key: u64,
        webhook: Webhook,
        key: Option<Key>,
    ) -> Self {
        Self {
            upstream,
            pool_key,
            webhook,
            key,
        }
    }

    /// Posts a body once. The caller bounds how long it waits.
    pub(super) async fn post(&self, body: Vec<u8>, unix_ns: u64) -> Attempt {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.webhook.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, body.len())
            .header(
                header::USER_AGENT,
                concat!("enforcer/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(key) = &self.key {
            request = request.header(HEADER, key.sign(unix_ns / NS_PER_S, &body));
        }
        let request = match request.body(full(body)) {
            Ok(request) => request,
            Err(error) => return Attempt::Rejected(format!("no request can be made: {error}")),
        };
        let answer = match self.upstream.send(self.pool_key, request).await {
            Ok(answer) => answer,
            Err(error) => return Attempt::Failed(Causes(&error).to_string()),
        };
        let status = answer.status();
        // A longer answer ends its connection, and no notice.
        let read = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
            .collect()
            .await;
        let said = read.map_or_else(|_| Vec::new(), |read| read.to_bytes().to_vec());
        let said = String::from_utf8_lossy(&said);
        judge(status, &said)
    }
}

/// What an answer means.
fn judge(status: StatusCode, said: &str) -> Attempt {
    let shown: String = said.chars().take(ANSWER_CHARS_SHOWN).collect();
    let why = format!("it answered {status}: {shown}");
    if status.is_success() {
        Attempt::Delivered
    } else if status.is_redirection() {
        Attempt::Rejected(format!(
            "it answered {status}, and no redirect is followed: name the address itself"
        ))
    } else if status.is_client_error() && !may_pass(status) {
        Attempt::Rejected(why)
    } else {
        Attempt::Failed(why)
    }
}

/// Errors that are called the client's and pass by themselves.
fn may_pass(status: StatusCode) -> bool {
    [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ]
    .contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_for_what_it_means() {
        let judged = |status: u16| judge(StatusCode::from_u16(status).unwrap(), "no");
        assert_eq!(judged(204), Attempt::Delivered);
        for status in [500, 503, 429, 408] {
            assert!(matches!(judged(status), Attempt::Failed(_)), "{status}");
        }
        for status in [301, 307, 400, 404, 410] {
            assert!(matches!(judged(status), Attempt::Rejected(_)), "{status}");
        }
    }
}
