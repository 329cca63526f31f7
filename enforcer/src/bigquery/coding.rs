//! Bodies that a client compresses: decoded before they are judged, and sent on as they were judged. Only gzip, once: it is what BigQuery's
//! own clients send (Java's compresses every body).

use std::io::Read;

use bytes::Bytes;
use enforcer_proto::refusal::{Code, Refusal};
use flate2::bufread::GzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// How a body is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Plain,
    /// Compressed by gzip.
    Gzip,
}

impl Coding {
    /// What the head says of it.
    ///
    /// # Errors
    /// [`Code::RequestMalformed`] for any other coding, and for several.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut named = headers.get_all(CONTENT_ENCODING).iter();
        let Some(first) = named.next() else {
            return Ok(Self::Plain);
        };
        let name = first.to_str().unwrap_or_default().trim();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match named.next() {
            None if is("identity") => Ok(Self::Plain),
            None if is("gzip") || is("x-gzip") => Ok(Self::Gzip),
            None | Some(_) => Err(malformed(
                "A body is read plain or compressed by gzip, once, and what is not read is not forwarded",
            )),
        }
    }

    /// The body itself, of at most `most` bytes.
    ///
    /// # Errors
    /// [`Code::BodyTooLarge`] when it is longer, [`Code::RequestMalformed`] when it is not what its coding says, or something follows it.
    pub fn decode(self, body: Bytes, most: usize) -> Result<Bytes, Refusal> {
        match self {
            Self::Plain => Ok(body),
            Self::Gzip => gunzip(&body, most),
        }
    }
}

fn gunzip(body: &[u8], most: usize) -> Result<Bytes, Refusal> {
    let mut decoder = GzDecoder::new(body);
    let mut decoded = Vec::new();
    // One byte more than there may be: so it is seen that there are too many, and no more than that is ever held.
    let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    decoder
        .by_ref()
        .take(bound)
        .read_to_end(&mut decoded)
        .map_err(|error| malformed(&format!("The body is not what gzip writes: {error}")))?;
    if decoded.len() > most {
        return Err(Refusal::new(
            Code::BodyTooLarge,
            format!(
                "The body has, once decompressed, more than the {most} bytes that are inspected"
            ),
        ));
    }
    if !decoder.into_inner().is_empty() {
        return Err(malformed("Something follows the compressed body"));
    }
    Ok(decoded.into())
}

fn malformed(why: &str) -> Refusal {
    Refusal::new(Code::RequestMalformed, why)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).expect("compresses");
        encoder.finish().expect("compresses")
    }

    fn decode(body: Vec<u8>, most: usize) -> Result<Bytes, Code> {
        let decoded = Coding::Gzip.decode(body.into(), most);
        decoded.map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_body_is_plain_or_gzip_by_its_head_and_anything_else_is_refused() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, http::HeaderValue::from_static(value));
            }
            Coding::of(&headers).map_err(|refusal| refusal.code)
        };
        for (values, coding) in [
            (&[][..], Coding::Plain),
            (&["identity"], Coding::Plain),
            (&["GZip"], Coding::Gzip),
            (&["x-gzip"], Coding::Gzip),
        ] {
            assert_eq!(of(values), Ok(coding), "{values:?}");
        }
        for values in [
            &["deflate"][..],
            &["br"],
            &["gzip, gzip"],
            &["gzip", "gzip"],
            &["identity", "gzip"],
            &[""],
        ] {
            assert_eq!(of(values), Err(Code::RequestMalformed), "{values:?}");
        }
    }

    #[test]
    fn what_is_longer_than_it_may_be_is_refused_however_small_it_came() {
        let bomb = gzip(&vec![b' '; 64 * 1024 * 1024]);
        assert!(bomb.len() < 1024 * 1024, "{}", bomb.len());
        assert_eq!(decode(bomb, 1024 * 1024), Err(Code::BodyTooLarge));
        assert_eq!(decode(gzip(b"four"), 3), Err(Code::BodyTooLarge));
        assert_eq!(decode(gzip(b"four"), 4).as_deref(), Ok(&b"four"[..]));
    }

    #[test]
    fn what_is_no_gzip_broken_off_damaged_or_followed_by_something_is_refused() {
        let whole = gzip(b"{\"a\": 1}");
        let mut damaged = whole.clone();
        let at = damaged.len() - 6;
        damaged[at] ^= 1;
        for body in [
            b"{\"a\": 1}".to_vec(),
            Vec::new(),
            whole[..whole.len() - 1].to_vec(),
            damaged,
            [whole.clone(), whole.clone()].concat(),
            [&whole[..], b"x"].concat(),
        ] {
            assert_eq!(
                decode(body.clone(), 4096),
                Err(Code::RequestMalformed),
                "{body:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_was_compressed_comes_back(body in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let decoded = decode(gzip(&body), body.len());
            prop_assert_eq!(decoded.as_deref(), Ok(&body[..]));
        }
    }
}
