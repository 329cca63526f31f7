//! Buckets of Cloud Storage: what they are called, and what an object's address says of one. No way to write "every bucket".

use std::fmt;
use std::str::FromStr;

use crate::text::safe_line;

/// How the address of a bucket or an object begins.
pub const SCHEME: &str = "gs://";
/// The longest address of objects, bytes (an object's own name has at most 1,024).
pub const URI_BYTES_MAX: usize = 1300;

/// A text that names no bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BucketError {
    /// Not `gs://bucket`.
    #[error("`{0}` is not a bucket: write it as gs://bucket, without a path or wildcards")]
    Bucket(String),
    /// Not `gs://bucket/object`.
    #[error("`{0}` is not an object of Cloud Storage: write it as gs://bucket/object")]
    Object(String),
}

/// A bucket, by its name, which is unique in all of Cloud Storage. Written `gs://bucket`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketRef(String);

impl BucketRef {
    /// The bucket of that name: 3 to 222 small letters, digits, dashes, underscores and dots, as Cloud Storage has them
    /// (<https://cloud.google.com/storage/docs/buckets#naming>).
    fn named(name: &str) -> Option<Self> {
        let is_edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_inner = |byte: u8| is_edge(&byte) || matches!(byte, b'-' | b'_' | b'.');
        let bytes = name.as_bytes();
        let is_good = (3..=222).contains(&bytes.len())
            && bytes.first().is_some_and(is_edge)
            && bytes.last().is_some_and(is_edge)
            && bytes.iter().copied().all(is_inner);
        is_good.then(|| Self(name.to_owned()))
    }

    /// The bucket in which the objects of an address lie. A `*` may stand in the object's name, and never in the bucket's.
    ///
    /// # Errors
    /// [`BucketError::Object`].
    pub fn of_uri(uri: &str) -> Result<Self, BucketError> {
        let bad = || BucketError::Object(safe_line(uri, 80));
        let is_plain =
            |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'\'' | b'`');
        let (bucket, object) = uri
            .strip_prefix(SCHEME)
            .filter(|_| uri.len() <= URI_BYTES_MAX && uri.bytes().all(is_plain))
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(bad)?;
        // Names of objects are flat, and some who read them as paths are not.
        let is_flat = |segment: &str| {
            let segment = segment.to_ascii_lowercase().replace("%2e", ".");
            segment != "." && segment != ".."
        };
        Self::named(bucket)
            .filter(|_| !object.is_empty() && object.split('/').all(is_flat))
            .ok_or_else(bad)
    }
}

impl fmt::Display for BucketRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

impl FromStr for BucketRef {
    type Err = BucketError;

    fn from_str(text: &str) -> Result<Self, BucketError> {
        let name = text.strip_prefix(SCHEME).and_then(Self::named);
        name.ok_or_else(|| BucketError::Bucket(safe_line(text, 80)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_is_named_whole() {
        let bucket: BucketRef = "gs://demo-exports.example_1".parse().expect("a bucket");
        assert_eq!(bucket.to_string(), "gs://demo-exports.example_1");
        for text in [
            "demo-exports",
            "gs://",
            "gs://ab",
            "gs://*",
            "gs://demo-*",
            "gs://Demo",
            "gs://demo/",
            "gs://-demo",
            "gs://demo-",
            "s3://demo",
            "gs://dem o",
        ] {
            assert!(text.parse::<BucketRef>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_says_in_which_bucket_its_objects_lie() {
        let bucket = |uri: &str| BucketRef::of_uri(uri).map(|bucket| bucket.to_string());
        assert_eq!(bucket("gs://demo/a/b-*.csv").as_deref(), Ok("gs://demo"));
        for uri in [
            "gs://demo",
            "gs://demo/",
            "gs:///a",
            "gs://*/a",
            "GS://demo/a",
            "gs://demo/a b",
            "gs://demo/a\\x",
            "https://storage.googleapis.com/demo/a",
            "/bigstore/demo/a",
            "gs://demo/../elsewhere/a",
            "gs://demo/a/%2E%2e/b",
            "gs://demo/./a",
        ] {
            assert!(bucket(uri).is_err(), "{uri:?}");
        }
        assert!(bucket(&format!("gs://demo/{}", "a".repeat(URI_BYTES_MAX))).is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_a_bucket_is_written_as_it_is_read(text in "gs://[a-z0-9._*-]{0,8}") {
            if let Ok(bucket) = text.parse::<BucketRef>() {
                prop_assert_eq!(bucket.to_string(), text);
            }
        }
    }
}
