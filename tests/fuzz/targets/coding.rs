//! A compressed body. However it is made, no more comes of it than it may have.
#![no_main]

use bytes::Bytes;
use enforcer::bigquery::coding::Coding;
use libfuzzer_sys::fuzz_target;

const MOST: usize = 64 * 1024;

fuzz_target!(|data: &[u8]| {
    if let Ok(decoded) = Coding::Gzip.decode(Bytes::copy_from_slice(data), MOST) {
        assert!(decoded.len() <= MOST);
    }
});
