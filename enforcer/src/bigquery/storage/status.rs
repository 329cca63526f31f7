//! A refusal as a gRPC status: permission denied, which every client shows at once and does not retry, with the same sentence as elsewhere.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use enforcer_proto::refusal::{Code, Refusal};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, utf8_percent_encode};
use prost::Message;

use crate::bigquery::words;

/// The status of every refusal.
pub const PERMISSION_DENIED: u8 = 7;
/// The status of an answer that broke off at BigQuery's side: clients go on where it ended, which is judged anew.
pub const UNAVAILABLE: u8 = 14;
/// The trailer that holds a status.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The trailer that holds its sentence.
pub const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// The trailer that holds more about it.
pub const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// The longest sentence, bytes as it is sent: a client takes no more than 8 KiB of trailers for certain, details included.
const MESSAGE_BYTES_MAX: usize = 3 * 1024;
/// Who refuses, in the details.
const DOMAIN: &str = "enforcer";
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
/// What does not stand for itself in a sentence: all but printable ASCII, and the sign of the encoding.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// `google.rpc.Status`
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.ErrorInfo`
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// The trailers that refuse.
#[must_use]
pub fn refused(refusal: &Refusal) -> HeaderMap {
    let message = within(&refusal.message(), MESSAGE_BYTES_MAX);
    let mut trailers = ended(PERMISSION_DENIED, &message);
    let details = STANDARD_NO_PAD.encode(details(refusal.code, message));
    if let Ok(details) = HeaderValue::try_from(details) {
        trailers.insert(DETAILS, details);
    }
    trailers
}

/// The trailers of an answer that ends with a status of ours.
#[must_use]
pub fn ended(status: u8, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(STATUS, HeaderValue::from(u16::from(status)));
    let message = utf8_percent_encode(message, ENCODED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        trailers.insert(MESSAGE, message);
    }
    trailers
}

/// A status of BigQuery's as it is passed on, and how many bytes of its words: its words can be rows, so they are cut as those of its other
/// API are, and to `bytes_max` besides; its details, which can hold them whole, are not passed on.
#[must_use]
pub fn passed(from: &HeaderMap, bytes_max: u64) -> (HeaderMap, usize) {
    let mut trailers = HeaderMap::new();
    if let Some(status) = from.get(STATUS) {
        trailers.insert(STATUS, status.clone());
    }
    let Some(message) = from.get(MESSAGE) else {
        return (trailers, 0);
    };
    let message = percent_decode(message.as_bytes()).decode_utf8_lossy();
    let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let message = within(&words::cut(&message), MESSAGE_BYTES_MAX.min(most));
    let message = utf8_percent_encode(&message, ENCODED).to_string();
    let bytes = message.len();
    if let Ok(message) = HeaderValue::try_from(message) {
        trailers.insert(MESSAGE, message);
    }
    (trailers, bytes)
}

/// Names the code as `google.rpc.ErrorInfo` wants it.
fn details(code: Code, message: String) -> Vec<u8> {
    let info = ErrorInfo {
        reason: code.as_str().replace('.', "_").to_ascii_uppercase(),
        domain: DOMAIN.to_owned(),
    };
    let status = Status {
        code: i32::from(PERMISSION_DENIED),
        // A client takes the details for forged where they say another sentence.
        message,
        details: vec![Any {
            type_url: ERROR_INFO.to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    status.encode_to_vec()
}

/// As much of a sentence as takes `most` bytes when it is sent.
fn within(message: &str, most: usize) -> String {
    let mut sent = 0;
    let signs = message.chars().take_while(|sign| {
        let is_plain = sign.is_ascii() && !sign.is_ascii_control() && *sign != '%';
        sent += if is_plain { 1 } else { 3 * sign.len_utf8() };
        sent <= most
    });
    signs.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(trailers: &HeaderMap, name: &HeaderName) -> String {
        let value = trailers.get(name).expect("a trailer");
        value.to_str().expect("text").to_owned()
    }

    #[test]
    fn a_refusal_has_the_sentence_and_the_code() {
        let refusal = Refusal::new(Code::WindowNone, "100 % für agent a");
        let trailers = refused(&refusal);
        assert_eq!(text(&trailers, &STATUS), "7");
        let sent = text(&trailers, &MESSAGE);
        assert!(sent.starts_with("100 %25 f%C3%BCr agent a. Ask"), "{sent}");
        let details = STANDARD_NO_PAD.decode(text(&trailers, &DETAILS));
        let status = Status::decode(details.expect("base64").as_slice()).expect("a status");
        assert_eq!((status.code, &status.message), (7, &refusal.message()));
        let info = ErrorInfo::decode(status.details[0].value.as_slice()).expect("an info");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("WINDOW_NONE", "enforcer")
        );
    }

    #[test]
    fn a_status_of_bigquerys_keeps_its_code_and_little_of_its_words() {
        let mut from = HeaderMap::new();
        from.insert(STATUS, HeaderValue::from_static("3"));
        from.insert(
            MESSAGE,
            HeaderValue::try_from("r%C3%B6w,".repeat(1500)).expect("text"),
        );
        from.insert(
            DETAILS,
            HeaderValue::try_from("cm93".repeat(1500)).expect("text"),
        );
        let (passed, bytes) = super::passed(&from, u64::MAX);
        assert_eq!(text(&passed, &STATUS), "3");
        assert!(!passed.contains_key(DETAILS));
        let words = percent_decode(passed[MESSAGE].as_bytes()).decode_utf8();
        let words = words.expect("UTF-8").into_owned();
        assert_eq!(words.chars().count(), words::MESSAGE_CHARS_MAX);
        assert!(words.starts_with("röw,röw"));
        assert_eq!(bytes, passed[MESSAGE].len());
        let (passed, bytes) = super::passed(&from, 10);
        assert_eq!(
            (text(&passed, &MESSAGE).as_str(), bytes),
            ("r%C3%B6w,r", 10)
        );
        from.remove(MESSAGE);
        assert_eq!(super::passed(&from, u64::MAX).1, 0);
    }

    proptest! {
        #[test]
        fn whatever_is_refused_fits_and_reads_back(what in any::<String>()) {
            let refusal = Refusal::new(Code::ScopeOutside, what);
            let trailers = refused(&refusal);
            let bytes: usize = trailers.values().map(HeaderValue::len).sum();
            prop_assert!(bytes < 8 * 1024);
            let sent = percent_decode(trailers[MESSAGE].as_bytes()).decode_utf8().expect("UTF-8");
            prop_assert!(refusal.message().starts_with(sent.as_ref()));
        }
    }
}
