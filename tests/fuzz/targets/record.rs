//! A line of the log. What is not exactly what was sealed is refused, and what is accepted moves the chain by one.
#![no_main]

use enforcer_proto::audit::{Chain, GENESIS, Named};
use enforcer_proto::ledger::Ledger;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

/// The line with the hash that belongs to what stands before it: else no input would get past that.
fn sealed(body: &[u8]) -> Vec<u8> {
    let hash: [u8; 32] = Sha256::digest(body).into();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    [body, b",\"hash\":\"", hash.as_bytes(), b"\"}"].concat()
}

fuzz_target!(|data: &[u8]| {
    let mut chain = Chain::default();
    let _ = Named::of(data);
    if chain.follow(data).is_ok() {
        assert_eq!(chain.count(), 1);
        assert_eq!(Named::sealed(data).map(|named| named.seq), Some(1));
    }
    let line = sealed(data);
    let mut chain = Chain::after(0, GENESIS);
    let before = chain.clone();
    match chain.follow(&line) {
        Ok(record) => {
            let named = Named::sealed(&line).expect("it was followed");
            assert_eq!(
                (named.seq, named.prev, named.hash),
                (1, GENESIS, chain.head())
            );
            let mut ledger = Ledger::default();
            ledger.take_record(&record);
            let kept = serde_json::to_string(&ledger).expect("its keys are texts");
            assert_eq!(
                serde_json::from_str::<Ledger>(&kept).expect("reads"),
                ledger
            );
            let _ = record.event.bounded();
        }
        Err(_) => assert_eq!(chain, before),
    }
});
