//! One POST to a token endpoint: bounded in time and size, its answer wiped after reading, its errors reduced to status and standard word.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{AccessToken, Endpoint, TokenError};
use crate::upstream::{Upstream, full};

/// The bound on one exchange.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The daemon's own key in the pool of connections: no grant has it.
const POOL_KEY: u64 = u64::MAX;

/// RFC 6749 §5.2, RFC 8693 §2.2.2 and google.rpc.Code: the words that may be repeated.
const CODES: [&str; 17] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "INVALID_ARGUMENT",
    "FAILED_PRECONDITION",
    "UNAUTHENTICATED",
    "PERMISSION_DENIED",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "ABORTED",
];

/// What is posted.
pub(super) struct Post<'a> {
    pub(super) endpoint: Endpoint,
    pub(super) url: &'a str,
    pub(super) content_type: &'static str,
    pub(super) body: Zeroizing<String>,
    pub(super) bearer: Option<&'a AccessToken>,
}

/// Posts and reads the JSON of a 200.
pub(super) async fn post<T: DeserializeOwned>(
    upstream: &Upstream,
    post: Post<'_>,
) -> Result<T, TokenError> {
    let endpoint = post.endpoint;
    match tokio::time::timeout(TIMEOUT, exchange(upstream, post)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(TokenError::Timeout { endpoint }),
    }
}

async fn exchange<T: DeserializeOwned>(
    upstream: &Upstream,
    post: Post<'_>,
) -> Result<T, TokenError> {
    let endpoint = post.endpoint;
    let unusable = |why| TokenError::Unusable { endpoint, why };
    let mut request = Request::post(post.url)
        .header(header::CONTENT_TYPE, post.content_type)
        .header(header::ACCEPT, HeaderValue::from_static("application/json"))
        // Wiped when it is sent: no other copy of it is made here.
        .body(full(Bytes::from_owner(post.body)))
        .map_err(|_| unusable("its configured address is no URL"))?;
    if let Some(token) = post.bearer {
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, token.bearer());
    }
    let response =
        upstream
            .send(POOL_KEY, request)
            .await
            .map_err(|source| TokenError::Unreachable {
                endpoint,
                source: Arc::new(source),
            })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|_| unusable("its answer broke off or is too large"))?;
    let body = Zeroizing::new(body.to_bytes().to_vec());
    if status != StatusCode::OK {
        return Err(TokenError::Refused {
            endpoint,
            status: status.as_u16(),
            code: known_code(&body),
        });
    }
    // The parser's error would quote the answer.
    serde_json::from_slice(&body).map_err(|_| unusable("its answer is not the JSON expected"))
}

/// `{"error": "word"}` of OAuth or `{"error": {"status": "WORD"}}` of Google, if the word is a known one.
fn known_code(body: &[u8]) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Answer {
        error: Error,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Error {
        Word(String),
        Google { status: String },
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let word = match answer.error {
        Error::Word(word) | Error::Google { status: word } => word,
    };
    CODES.into_iter().find(|code| *code == word)
}
