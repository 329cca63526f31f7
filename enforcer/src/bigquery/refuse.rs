//! A refusal as BigQuery's own error answer: 403 `accessDenied`, which every client shows at once and does not retry.
//!
//! Never 401, 429 or 5xx: clients would retry those for minutes. `bq` shows `errors[0].message`, others `error.message`: both hold all.

use enforcer_proto::refusal::Refusal;
use serde_json::json;

/// The HTTP status of every refusal.
pub const STATUS: u16 = 403;
/// The content type of every refusal.
pub const CONTENT_TYPE: &str = "application/json; charset=UTF-8";

/// The body of the answer.
#[must_use]
pub fn body(refusal: &Refusal) -> Vec<u8> {
    let message = refusal.message();
    let error = json!({"error": {
        "code": STATUS,
        "message": message,
        "errors": [{"message": message, "domain": "global", "reason": "accessDenied"}],
        "status": "PERMISSION_DENIED",
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
}
