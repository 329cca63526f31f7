//! Sees which HTTP/2 requests the library resets by itself for breaking the protocol's rules: they never become a request that could be
//! refused, so this is where they are counted. It reads the frames that go out, which are the library's own and well formed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A frame's header, bytes (RFC 9113, section 4.1).
const HEADER_BYTES: usize = 9;
/// The type of the frame that resets a stream.
const RST_STREAM: u8 = 3;
/// The error codes with which a server says that the client broke a rule (RFC 9113, section 7): `PROTOCOL_ERROR`, `FLOW_CONTROL_ERROR`,
/// `STREAM_CLOSED`, `FRAME_SIZE_ERROR`, `COMPRESSION_ERROR` and `ENHANCE_YOUR_CALM`. What the proxy itself cuts has others.
const CLIENTS_FAULT: [u32; 6] = [1, 3, 5, 6, 9, 11];

/// Walks over frames that arrive in pieces.
#[derive(Debug, Default)]
struct Frames {
    /// What came of the current frame's header, and of the error code behind it.
    head: Vec<u8>,
    /// How much of its payload is still to come.
    left: usize,
}

impl Frames {
    /// Walks on; gives how many streams were reset for the client's fault.
    fn walk(&mut self, mut bytes: &[u8]) -> u64 {
        let mut resets = 0;
        while !bytes.is_empty() {
            if self.head.len() < HEADER_BYTES {
                let more = (HEADER_BYTES - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..more]);
                bytes = &bytes[more..];
                if self.head.len() == HEADER_BYTES {
                    let length = [0, self.head[0], self.head[1], self.head[2]];
                    self.left = u32::from_be_bytes(length) as usize;
                }
            } else {
                let part = self.left.min(bytes.len());
                if self.head[3] == RST_STREAM {
                    self.head.extend_from_slice(&bytes[..part]);
                }
                self.left -= part;
                bytes = &bytes[part..];
            }
            if self.head.len() >= HEADER_BYTES && self.left == 0 {
                resets += u64::from(self.is_clients_fault());
                self.head.clear();
            }
        }
        resets
    }

    fn is_clients_fault(&self) -> bool {
        let code = self
            .head
            .get(HEADER_BYTES..)
            .and_then(|code| code.try_into().ok());
        self.head[3] == RST_STREAM
            && code.is_some_and(|code| CLIENTS_FAULT.contains(&u32::from_be_bytes(code)))
    }
}

/// A connection whose outgoing frames are looked at.
pub(super) struct Resets<S, F> {
    inner: S,
    frames: Frames,
    on_reset: F,
}

impl<S, F: FnMut()> Resets<S, F> {
    pub(super) fn new(inner: S, on_reset: F) -> Self {
        Self {
            inner,
            frames: Frames::default(),
            on_reset,
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        for _ in 0..self.frames.walk(bytes) {
            (self.on_reset)();
        }
    }
}

impl<S: AsyncRead + Unpin, F: Unpin> AsyncRead for Resets<S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, out)
    }
}

/// Not vectored: what was sent of several parts would have to be found out again.
impl<S: AsyncWrite + Unpin, F: FnMut() + Unpin> AsyncWrite for Resets<S, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.inner).poll_write(context, bytes);
        if let Poll::Ready(Ok(count)) = sent {
            self.sent(&bytes[..count]);
        }
        sent
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 1], payload].concat()
    }

    fn all() -> Vec<u8> {
        [
            frame(4, &[0; 18]),
            frame(4, &[]),
            frame(RST_STREAM, &1_u32.to_be_bytes()),
            // What looks like one inside data, and the proxy's own cut.
            frame(0, &frame(RST_STREAM, &1_u32.to_be_bytes())),
            frame(RST_STREAM, &2_u32.to_be_bytes()),
            frame(1, &[7; 300]),
            frame(RST_STREAM, &9_u32.to_be_bytes()),
        ]
        .concat()
    }

    proptest! {
        #[test]
        fn resets_for_the_clients_fault_are_counted_however_the_frames_arrive(cuts in prop::collection::vec(1_usize..50, 1..80)) {
            let all = all();
            let (mut frames, mut rest, mut resets) = (Frames::default(), all.as_slice(), 0);
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                resets += frames.walk(piece);
                rest = after;
            }
            prop_assert_eq!(resets + frames.walk(rest), 2);
        }
    }
}
