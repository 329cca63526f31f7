//! Requests in HTTP/1. However they are cut into packets, the same is handed on, and refused in the same words.
#![no_main]

use enforcer::proxy::strict::{Strict, Unreadable};
use libfuzzer_sys::fuzz_target;
use tokio::io::AsyncReadExt;

/// What is handed on, and why no more.
fn read(first: &[u8], second: &[u8]) -> (Vec<u8>, Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let unreadable = Unreadable::default();
    let mut strict = Strict::new(first.chain(second), unreadable.clone());
    let mut read = Vec::new();
    let done = runtime.block_on(strict.read_to_end(&mut read));
    done.expect("memory does not fail");
    (read, unreadable.refusal().map(|refusal| refusal.what))
}

fuzz_target!(|data: &[u8]| {
    let Some((at, data)) = data.split_first() else {
        return;
    };
    let whole = read(data, &[]);
    let (first, second) = data.split_at(usize::from(*at).min(data.len()));
    assert_eq!(read(first, second), whole);
});
