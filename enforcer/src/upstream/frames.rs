//! Which HTTP/2 requests have gone out whole, read from the frames that go out: they are the library's own and well formed. It keeps none of
//! what is in them.

use std::collections::BTreeSet;

/// What a client says before its first frame, bytes (RFC 9113, section 3.4).
const PREFACE_BYTES: usize = 24;
/// A frame's header, bytes (section 4.1).
const HEADER_BYTES: usize = 9;
/// The types of frames that begin, continue and end a request (section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
/// Their flags.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Walks over frames that go out in pieces.
#[derive(Debug)]
pub(super) struct Frames {
    /// What is to come of the preface.
    preface: usize,
    head: [u8; HEADER_BYTES],
    /// How much of that has gone.
    headed: usize,
    /// How much of the frame behind it is to come.
    left: usize,
    /// The requests whose end has not gone; the other side says how many there may be at once.
    open: BTreeSet<u32>,
    /// All requests whose first headers have gone.
    begun: u64,
    /// More of the last one's headers is to come.
    is_amid_headers: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            preface: PREFACE_BYTES,
            head: [0; HEADER_BYTES],
            headed: 0,
            left: 0,
            open: BTreeSet::new(),
            begun: 0,
            is_amid_headers: false,
        }
    }
}

impl Frames {
    /// Whether every request that was begun has gone to its end, and no frame is broken off.
    pub(super) fn are_whole(&self) -> bool {
        self.preface == 0 && self.headed == 0 && self.open.is_empty() && !self.is_amid_headers
    }

    /// How many requests have been begun.
    pub(super) const fn begun(&self) -> u64 {
        self.begun
    }

    /// Walks on.
    pub(super) fn walk(&mut self, mut bytes: &[u8]) {
        let part = self.preface.min(bytes.len());
        self.preface -= part;
        bytes = &bytes[part..];
        while !bytes.is_empty() {
            if self.headed < HEADER_BYTES {
                let part = (HEADER_BYTES - self.headed).min(bytes.len());
                self.head[self.headed..self.headed + part].copy_from_slice(&bytes[..part]);
                self.headed += part;
                bytes = &bytes[part..];
                if self.headed == HEADER_BYTES {
                    let length = [0, self.head[0], self.head[1], self.head[2]];
                    self.left = u32::from_be_bytes(length) as usize;
                }
            } else {
                let part = self.left.min(bytes.len());
                self.left -= part;
                bytes = &bytes[part..];
            }
            if self.headed == HEADER_BYTES && self.left == 0 {
                self.headed = 0;
                self.went();
            }
        }
    }

    /// A frame has gone.
    fn went(&mut self) {
        let [_, _, _, kind, flags, id @ ..] = self.head;
        let stream = u32::from_be_bytes(id) & 0x7fff_ffff;
        let is_last = flags & END_STREAM != 0;
        match kind {
            HEADERS | CONTINUATION => {
                self.is_amid_headers = flags & END_HEADERS == 0;
                // What comes behind a body would be a second one of the same stream.
                let is_first = kind == HEADERS && !self.open.contains(&stream);
                self.begun += u64::from(is_first);
                if kind == HEADERS && is_last {
                    self.open.remove(&stream);
                } else if kind == HEADERS {
                    self.open.insert(stream);
                }
            }
            DATA if is_last => drop(self.open.remove(&stream)),
            RST_STREAM => drop(self.open.remove(&stream)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// What goes out, piece by piece, and whether all that was begun is whole behind each.
    fn story() -> Vec<(Vec<u8>, bool)> {
        vec![
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), true),
            (frame(4, 0, 0, &[0; 18]), true),
            // A request without a body.
            (frame(HEADERS, END_STREAM | END_HEADERS, 1, &[7; 40]), true),
            // One with a body, and another meanwhile whose headers take two frames.
            (frame(HEADERS, END_HEADERS, 3, &[7; 300]), false),
            (frame(DATA, 0, 3, &[9; 1000]), false),
            (frame(HEADERS, END_STREAM, 5, &[7; 20]), false),
            (frame(CONTINUATION, END_HEADERS, 5, &[7; 20]), false),
            (frame(8, 0, 0, &[0; 4]), false),
            // What looks like its end inside data is none.
            (frame(DATA, 0, 3, &frame(DATA, END_STREAM, 3, b"")), false),
            (frame(DATA, END_STREAM, 3, b""), true),
            // One that is given up.
            (frame(HEADERS, END_HEADERS, 7, &[7; 20]), false),
            (frame(RST_STREAM, 0, 7, &8_u32.to_be_bytes()), true),
            (frame(HEADERS, END_STREAM, 9, &[7; 20]), false),
            (frame(CONTINUATION, END_HEADERS, 9, b""), true),
        ]
    }

    proptest! {
        #[test]
        fn requests_are_whole_when_their_end_has_gone_however_it_goes(cuts in prop::collection::vec(1_usize..50, 200)) {
            let mut frames = Frames::default();
            let mut cuts = cuts.into_iter().cycle();
            for (bytes, are_whole) in story() {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                    frames.walk(piece);
                    rest = after;
                    prop_assert!(rest.is_empty() || !frames.are_whole());
                }
                prop_assert_eq!(frames.are_whole(), are_whole);
            }
            prop_assert_eq!(frames.begun(), 5);
        }
    }
}
