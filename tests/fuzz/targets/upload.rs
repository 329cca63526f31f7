//! A load with its data in one body. What is read is written, and read alike; a range that is read is written as it was.
#![no_main]

use bytes::Bytes;
use enforcer::bigquery::upload::{Boundary, ContentRange, whole};
use libfuzzer_sys::fuzz_target;

const BOUNDARY: &str = "enforcer_00000000000000000000000000000000";

fuzz_target!(|data: &[u8]| {
    let (first, rest) = match data.iter().position(|byte| *byte == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &data[data.len()..]),
    };
    let Ok(first) = std::str::from_utf8(first) else {
        return;
    };
    if let Ok(range) = first.parse::<ContentRange>() {
        let again: ContentRange = range.to_string().parse().expect("what is written is read");
        assert_eq!(again, range);
    }
    let Ok(read) = whole(first, &Bytes::copy_from_slice(rest)) else {
        return;
    };
    let boundary = Boundary::new(BOUNDARY.to_owned(), &read.data);
    let (Ok(job), Ok(boundary)) = (std::str::from_utf8(&read.job), boundary) else {
        return;
    };
    if job.contains(BOUNDARY) {
        return;
    }
    let written = boundary.body(job, &read.data);
    assert_eq!(
        whole(&boundary.content_type(), &written).expect("two parts"),
        read
    );
});
