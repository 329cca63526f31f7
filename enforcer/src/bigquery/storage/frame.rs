//! How gRPC frames a message in a body: a byte that says whether it is compressed, its length in four, and the message.

use bytes::{BufMut, Bytes, BytesMut};
use enforcer_proto::refusal::{Code, Refusal};

/// The longest message of a request that is read, bytes.
pub const REQUEST_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// What stands before a message, bytes.
pub const HEADER_BYTES: usize = 5;

/// The one message that a body holds.
///
/// # Errors
/// [`Code::RequestMalformed`] where it holds none, more than one, a part of one, or a compressed one.
pub fn only(body: &Bytes) -> Result<Bytes, Refusal> {
    let Some((header, message)) = body.split_at_checked(HEADER_BYTES) else {
        return Err(malformed("holds no message"));
    };
    if header[0] != 0 {
        return Err(malformed("holds a compressed message, which is not read"));
    }
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
    if usize::try_from(length).ok() != Some(message.len()) {
        return Err(malformed(
            "does not hold one message of the length that it says",
        ));
    }
    Ok(body.slice(HEADER_BYTES..))
}

/// A message as it is sent. One that is too long for its own length is never made: what is written was read before.
#[must_use]
pub fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(HEADER_BYTES + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put_slice(message);
    framed.freeze()
}

/// That a gRPC request cannot be read in one way.
pub fn malformed(why: &str) -> Refusal {
    Refusal::new(Code::RequestMalformed, format!("The gRPC request {why}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn none_several_cut_and_compressed_messages_are_refused() {
        let one = framed(b"abc");
        assert_eq!(only(&one).expect("one"), "abc");
        assert_eq!(only(&framed(b"")).expect("an empty one"), "");
        let two = [one.as_ref(), one.as_ref()].concat();
        let compressed = [&[1], &one[1..]].concat();
        let strange = [&[2], &one[1..]].concat();
        let longer = [&[0, 0xff, 0xff, 0xff, 0xff], &one[5..]].concat();
        for body in [&two, &compressed, &strange, &longer, &one[..7].to_vec()] {
            let refused = only(&Bytes::from(body.clone()));
            assert_eq!(
                refused.map_err(|refusal| refusal.code),
                Err(Code::RequestMalformed),
                "{body:?}"
            );
        }
        for length in 0..HEADER_BYTES {
            assert!(only(&one.slice(..length)).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_exactly_what_was_framed(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let body = Bytes::from(body);
            prop_assert_eq!(only(&framed(&body)).expect("one"), body.clone());
            if let Ok(message) = only(&body) {
                prop_assert_eq!(framed(&message), body);
            }
        }
    }
}
