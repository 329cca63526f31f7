//! A refusal as BigQuery's own error answer: 403 `accessDenied`, which every client shows at once and does not retry.
//!
//! Never 401, 429 or 5xx: clients would retry those for minutes. Only of a start that a client tries again by itself it is said, as BigQuery
//! would, that it is to try once more, or that the job is there. `bq` shows `errors[0].message`, others `error.message`: both hold all.

use enforcer_proto::refusal::{Code, Refusal};
use serde_json::json;

/// How BigQuery says what a refusal says: the HTTP status, the reason, and the status by name.
const DENIED: (u16, &str, &str) = (403, "accessDenied", "PERMISSION_DENIED");
const TO_BE_TRIED_AGAIN: (u16, &str, &str) = (503, "backendError", "UNAVAILABLE");
const THERE_ALREADY: (u16, &str, &str) = (409, "duplicate", "ALREADY_EXISTS");
/// The content type of every refusal.
pub const CONTENT_TYPE: &str = "application/json; charset=UTF-8";

fn shape(code: Code) -> (u16, &'static str, &'static str) {
    if code == Code::JobUnanswered {
        TO_BE_TRIED_AGAIN
    } else if code == Code::JobDuplicate {
        THERE_ALREADY
    } else {
        DENIED
    }
}

/// The HTTP status of the answer.
#[must_use]
pub fn status(refusal: &Refusal) -> u16 {
    shape(refusal.code).0
}

/// The body of the answer.
#[must_use]
pub fn body(refusal: &Refusal) -> Vec<u8> {
    let message = refusal.message();
    let (code, reason, status) = shape(refusal.code);
    let error = json!({"error": {
        "code": code,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": reason}],
        "status": status,
    }});
    error.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use enforcer_proto::refusal::Code;

    use super::*;

    #[test]
    fn the_whole_message_stands_in_both_places_where_clients_look() {
        let refusal = Refusal::new(
            Code::WindowNone,
            "Access Denied: BigQuery: agent a has no open window",
        );
        let answer: serde_json::Value = serde_json::from_slice(&body(&refusal)).expect("JSON");
        assert_eq!(answer["error"]["message"], refusal.message());
        assert_eq!(answer["error"]["errors"][0]["message"], refusal.message());
        assert_eq!(answer["error"]["errors"][0]["reason"], "accessDenied");
        assert_eq!(answer["error"]["status"], "PERMISSION_DENIED");
        assert_eq!(answer["error"]["code"], 403);
        assert!(refusal.message().contains("[window.none]"));
    }

    #[test]
    fn only_a_start_that_is_tried_again_is_not_answered_with_a_denial() {
        for code in Code::ALL {
            let refusal = Refusal::new(*code, "why");
            let expected = match refusal.code.as_str() {
                "job.unanswered" => 503,
                "job.duplicate" => 409,
                _ => 403,
            };
            assert_eq!(status(&refusal), expected, "{code}");
            let answer: serde_json::Value = serde_json::from_slice(&body(&refusal)).expect("JSON");
            assert_eq!(answer["error"]["code"], expected);
        }
    }
}
