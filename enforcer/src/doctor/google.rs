//! One question to BigQuery's API: bounded in time and size, its answer reduced to its status and a word of Google's.

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{Doctor, POOL_KEY};
use crate::causes::Causes;
use crate::token::Credential;
use crate::upstream::full;

/// The bound on one question.
const ANSWER: Duration = Duration::from_secs(20);
/// The largest answer, bytes; of a longer one only the status is known.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The words of Google's that may be repeated: `reason` of BigQuery's errors, and of `google.rpc.ErrorInfo`.
const WORDS: [&str; 17] = [
    "SERVICE_DISABLED",
    "USER_PROJECT_DENIED",
    "SECURITY_POLICY_VIOLATED",
    "BILLING_DISABLED",
    "CONSUMER_INVALID",
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT",
    "ACCESS_TOKEN_TYPE_UNSUPPORTED",
    "IAM_PERMISSION_DENIED",
    "accessNotConfigured",
    "billingNotEnabled",
    "quotaExceeded",
    "rateLimitExceeded",
    "responseTooLarge",
    "accessDenied",
    "authError",
    "notFound",
    "invalid",
];

/// What BigQuery said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Yes.
    Allowed,
    /// Something else.
    Refused {
        status: u16,
        word: Option<&'static str>,
    },
    /// Nothing.
    Nothing(String),
}

impl Said {
    /// Whether it is IAM's "no" to somebody who may not, or to whom it is not there. Who is throttled, or whose project has no such API, was not judged.
    pub(super) fn is_no(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: 403,
                word: Some("accessDenied" | "IAM_PERMISSION_DENIED"),
            } | Self::Refused {
                status: 404,
                word: Some("notFound"),
            }
        )
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Allowed => f.write_str("allowed"),
            Self::Refused { status, word } => {
                write!(f, "refused with status {status}")?;
                word.map_or(Ok(()), |word| write!(f, " ({word})"))
            }
            Self::Nothing(why) => f.write_str(why),
        }
    }
}

impl Doctor {
    /// Asks below `/bigquery/v2/projects/`.
    pub(super) async fn ask(
        &self,
        credential: &Credential,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Said {
        let asked = self.asked(credential, (method, path), body);
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(said) => said,
            Err(_) => Said::Nothing(format!(
                "BigQuery did not answer within {} s",
                ANSWER.as_secs()
            )),
        }
    }

    async fn asked(
        &self,
        credential: &Credential,
        (method, path): (Method, &str),
        body: Option<&Value>,
    ) -> Said {
        let uri = format!("https://{}/bigquery/v2/projects/{path}", self.ways.api);
        let body = body.map_or_else(String::new, ToString::to_string);
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header(header::CONTENT_TYPE, "application/json")
            .body(full(body));
        let Ok(mut request) = request else {
            return Said::Nothing("its address is no URL".to_owned());
        };
        credential.put(request.headers_mut());
        let answered = match self.ways.upstream.send(POOL_KEY, request).await {
            Ok(answered) => answered,
            Err(error) => return Said::Nothing(Causes(&error).to_string()),
        };
        let status = answered.status();
        if status == StatusCode::OK {
            return Said::Allowed;
        }
        let body = Limited::new(answered.into_body(), ANSWER_BYTES_MAX);
        let word = match body.collect().await {
            Ok(body) => word(&body.to_bytes()),
            Err(_) => None,
        };
        Said::Refused {
            status: status.as_u16(),
            word,
        }
    }
}

/// The first known word of an error's, those that say most first.
fn word(body: &[u8]) -> Option<&'static str> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let list = |name: &str| body["error"][name].as_array().into_iter().flatten();
    let said: Vec<&str> = list("details")
        .chain(list("errors"))
        .filter_map(|one| one["reason"].as_str())
        .collect();
    WORDS.into_iter().find(|word| said.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_iams_own_no_is_one() {
        let said = |status, word| Said::Refused { status, word };
        for no in [
            said(403, Some("accessDenied")),
            said(403, Some("IAM_PERMISSION_DENIED")),
            said(404, Some("notFound")),
        ] {
            assert!(no.is_no(), "{no}");
        }
        for other in [
            said(403, Some("rateLimitExceeded")),
            said(403, Some("quotaExceeded")),
            said(403, Some("accessNotConfigured")),
            said(403, Some("SECURITY_POLICY_VIOLATED")),
            said(403, None),
            said(404, None),
            said(401, Some("authError")),
            Said::Allowed,
            Said::Nothing("no route".to_owned()),
        ] {
            assert!(!other.is_no(), "{other}");
        }
    }

    #[test]
    fn of_an_error_a_known_word_is_kept_and_nothing_else() {
        let body = br#"{"error":{"code":403,"message":"of ya29.secret","errors":[{"reason":"accessDenied"}],
            "details":[{"reason":"SERVICE_DISABLED"}],"status":"PERMISSION_DENIED"}}"#;
        assert_eq!(word(body), Some("SERVICE_DISABLED"));
        assert_eq!(
            word(br#"{"error":{"errors":[{"reason":"ya29.secret"}]}}"#),
            None
        );
        assert_eq!(word(b"<html>"), None);
    }
}
