//! A TLS hello. However it is cut into packets, it is read alike.
#![no_main]

use enforcer::proxy::hello::{Hello, HelloReader, HelloRefusal};
use libfuzzer_sys::fuzz_target;

type Read = Result<Option<Hello>, HelloRefusal>;

fn read(parts: &[&[u8]]) -> Read {
    let mut reader = HelloReader::default();
    for part in parts {
        if let Some(hello) = reader.push(part)? {
            return Ok(Some(hello));
        }
    }
    Ok(None)
}

fuzz_target!(|data: &[u8]| {
    let Some((at, data)) = data.split_first() else {
        return;
    };
    let whole = read(&[data]);
    let (first, second) = data.split_at(usize::from(*at).min(data.len()));
    assert_eq!(read(&[first, second]), whole);
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(read(&bytes), whole);
});
