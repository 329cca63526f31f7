//! A checkpoint, and a file of them. What is believed is what was signed, and says the same when it is signed again.
#![no_main]

use std::sync::LazyLock;

use enforcer_proto::checkpoint::{Checkpoint, Keyholder, Verifier, notes};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<Keyholder> =
    LazyLock::new(|| Keyholder::from_seed("enforcer/host-a", &[7; 32]).expect("a name"));

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let verifier = KEY.verifier();
    if let Ok(key) = text.parse::<Verifier>() {
        assert_eq!(key.to_string(), text.trim());
    }
    for note in notes(text) {
        // Nobody but the holder of the key makes one that is believed: it is one of its own, with signatures of others at most.
        if let Ok(read) = verifier.verify(note) {
            let again = KEY.sign(read.records, read.head, read.unix_ns);
            assert_eq!(again.split("\n\n").next(), note.split("\n\n").next());
        }
    }
    // Signed or not, what can be read is written in one way only.
    if let Ok(read) = Checkpoint::parse(text)
        && let Ok(key) = Keyholder::from_seed(&read.origin, &[7; 32])
    {
        let note = key.sign(read.records, read.head, read.unix_ns);
        assert!(note.starts_with(text));
        assert_eq!(key.verifier().verify(&note), Ok(read));
    }
});
