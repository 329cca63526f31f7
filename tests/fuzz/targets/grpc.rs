//! The body of a gRPC request. What is understood is sent as it is written anew: one message, which is understood alike, and whose header is.
#![no_main]

use bytes::Bytes;
use enforcer::bigquery::storage::wanted::{self, Wanted};
use enforcer::bigquery::storage::{frame, routing};
use enforcer_proto::query::Method;
use enforcer_proto::refusal::Refusal;
use libfuzzer_sys::fuzz_target;

type Reader = fn(Bytes) -> Result<Wanted, Refusal>;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = frame::only(&Bytes::copy_from_slice(data)) else {
        return;
    };
    let readers: [(Method, Reader); 3] = [
        (Method::StorageCreateReadSession, wanted::session),
        (Method::StorageReadRows, wanted::rows),
        (Method::StorageSplitReadStream, wanted::split),
    ];
    for (method, read) in readers {
        let Ok(asked) = read(message.clone()) else {
            continue;
        };
        let sent = frame::only(&frame::framed(&asked.message)).expect("one message");
        assert_eq!(read(sent).expect("it is understood"), asked);
        let (field, value) = asked.routing(method);
        if let Ok(header) = routing::written(&Default::default(), field, &value) {
            let headers = [(routing::HEADER.try_into().expect("a name"), header.clone())];
            let again = routing::written(&headers.into_iter().collect(), field, &value);
            assert_eq!(again, Ok(header));
        }
    }
});
