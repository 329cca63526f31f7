//! The header that says beside a gRPC message what it is about, for whoever passes it on unread: it must say what the message says.

use enforcer_proto::refusal::{Code, Refusal};
use http::header::{HeaderMap, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::frame::malformed;

/// Its name.
pub const HEADER: &str = "x-goog-request-params";
/// What stays as it is in it, as clients write it.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'/');

/// The header as it is sent, where the client's says nothing else than that `field` is `value`.
///
/// # Errors
/// [`Code::RequestMalformed`] where it does.
pub fn written(headers: &HeaderMap, field: &str, value: &str) -> Result<HeaderValue, Refusal> {
    let mut given = headers.get_all(HEADER).iter();
    if let Some(first) = given.next() {
        let pairs: Vec<_> = form_urlencoded::parse(first.as_bytes()).collect();
        let agrees = pairs
            .iter()
            .all(|(name, said)| name == field && said == value);
        if !agrees || pairs.is_empty() || given.next().is_some() {
            let what = format!("The header {HEADER} and the message do not name one {field}");
            return Err(Refusal::new(Code::RequestMalformed, what));
        }
    }
    let written = format!("{field}={}", utf8_percent_encode(value, PLAIN));
    HeaderValue::try_from(written).map_err(|_| malformed("names what cannot be sent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[&str]) -> Result<String, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_str(value).expect("a value"));
        }
        let written = written(&headers, "name", "projects/p/a:b");
        written
            .map(|value| value.to_str().expect("text").to_owned())
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn it_says_what_the_message_says_or_nothing() {
        let anew = Ok("name=projects/p/a%3Ab".to_owned());
        assert_eq!(with(&[]), anew);
        assert_eq!(with(&["name=projects/p/a:b"]), anew);
        assert_eq!(with(&["name=projects%2Fp%2Fa%3ab"]), anew);
        for other in [
            &["name=projects/q/a:b"][..],
            &["name=projects/p/a:b&name=x"],
            &["name=projects/p/a:b&table=x"],
            &["table=projects/p/a:b"],
            &["name=projects/p/a:b", "name=projects/p/a:b"],
            &[""],
        ] {
            assert_eq!(with(other), Err(Code::RequestMalformed), "{other:?}");
        }
    }
}
