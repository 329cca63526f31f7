//! What a connection's own socket said first, as its packets left it: by that the daemon knows that what came was said by that socket, and not by
//! somebody else under the same numbers. Pure: the same code takes up bytes in the kernel and in the daemon.
//!
//! Whoever may make packets in a network namespace can speak for a connection that another process has made there, and can keep that process's own
//! packets away. Whose a connection is stands with its socket; so it must with what the TLS session grows from. After the hello TLS itself sees to
//! it. What was said is kept as the state of `SipHash-2-4` (Aumasson and Bernstein, 2012) over it, under a key that only the kernel and the daemon
//! have, and is compared as that state: nobody can make other bytes that lead to it.

use crate::record::Origin;

/// The most bytes that are taken up, whole words, and so the longest hello. Those with post-quantum keys have about two thousand. What is said behind them
/// is not known.
pub const OPENING_BYTES_MAX: u32 = 4096;
/// [`Opening::bytes`] of what could not be read.
pub const UNKNOWN: u32 = u32::MAX;
const WORD_BYTES: u32 = 8;
const _: () = assert!(OPENING_BYTES_MAX.is_multiple_of(WORD_BYTES));

/// Which connection it is of: by whose it is and when it was led here, as both ends have it, so that no other process's takes its place whatever port
/// that has.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpeningKey {
    /// [`Origin::boot_ns`] of the connection.
    pub boot_ns: u64,
    /// [`Origin::agent_cgroup`] of it.
    pub agent_cgroup: u64,
    /// [`Origin::start_boot_ns`] of it.
    pub start_boot_ns: u64,
    /// [`Origin::pid`] of it.
    pub pid: u32,
    /// The client's port, host order.
    pub client_port: u32,
}

impl OpeningKey {
    /// Of the connection of this origin from that port.
    #[inline(always)]
    #[must_use]
    pub const fn of(origin: &Origin, client_port: u16) -> Self {
        Self {
            boot_ns: origin.boot_ns,
            agent_cgroup: origin.agent_cgroup,
            start_boot_ns: origin.start_boot_ns,
            pid: origin.pid,
            client_port: client_port as u32,
        }
    }
}

/// The first bytes of one connection.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opening {
    /// What the whole words so far have led to.
    state: [u64; 4],
    /// The bytes of the word under way.
    pending: u64,
    /// The sequence number of the first byte.
    pub first: u32,
    /// How many bytes so far, or [`UNKNOWN`].
    pub bytes: u32,
}

/// What a socket has said first, beside what came by its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Exactly that, as far as it is known.
    This,
    /// More: what came may be its beginning.
    More,
    /// Something else, or longer than is known.
    Other,
}

const _: () = assert!(size_of::<OpeningKey>() == 32);
const _: () = assert!(size_of::<Opening>() == 48);

impl Opening {
    /// Nothing said yet.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: [u64; 2], first: u32) -> Self {
        Self {
            // The four constants of SipHash.
            state: [
                key[0] ^ 0x736f_6d65_7073_6575,
                key[1] ^ 0x646f_7261_6e64_6f6d,
                key[0] ^ 0x6c79_6765_6e65_7261,
                key[1] ^ 0x7465_6462_7974_6573,
            ],
            pending: 0,
            first,
            bytes: 0,
        }
    }

    /// Whether what begins with this sequence number follows what is here, and there is room. Sequence numbers come round, so that one that fits says nothing
    /// by itself: no more bytes than are here may ever have been acknowledged, the first packet counted as one.
    #[inline(always)]
    #[must_use]
    pub const fn goes_on_at(&self, sequence: u32, acknowledged: u64) -> bool {
        self.bytes < OPENING_BYTES_MAX
            && sequence == self.first.wrapping_add(self.bytes)
            && acknowledged <= self.bytes as u64 + 1
    }

    /// Whether all is known that will be.
    #[inline(always)]
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.bytes >= OPENING_BYTES_MAX
    }

    /// Whether a whole word can be taken up at once.
    #[inline(always)]
    #[must_use]
    pub const fn is_at_word(&self) -> bool {
        self.bytes.is_multiple_of(WORD_BYTES)
    }

    /// Takes up a byte.
    #[inline(always)]
    pub const fn byte(&mut self, byte: u8) {
        self.pending |= (byte as u64) << (8 * (self.bytes % WORD_BYTES));
        self.bytes += 1;
        if self.is_at_word() {
            self.compress(self.pending);
            self.pending = 0;
        }
    }

    /// Takes up eight bytes, where [`Opening::is_at_word`].
    #[inline(always)]
    pub const fn word(&mut self, word: u64) {
        self.compress(word);
        self.bytes += WORD_BYTES;
    }

    #[inline(always)]
    const fn compress(&mut self, word: u64) {
        let [mut a, mut b, mut c, mut d] = self.state;
        d ^= word;
        let mut round = 0;
        while round < 2 {
            a = a.wrapping_add(b);
            c = c.wrapping_add(d);
            b = b.rotate_left(13) ^ a;
            d = d.rotate_left(16) ^ c;
            a = a.rotate_left(32);
            c = c.wrapping_add(b);
            a = a.wrapping_add(d);
            b = b.rotate_left(17) ^ c;
            d = d.rotate_left(21) ^ a;
            c = c.rotate_left(32);
            round += 1;
        }
        a ^= word;
        self.state = [a, b, c, d];
    }

    /// What was said, beside what came.
    #[must_use]
    pub fn beside(&self, key: [u64; 2], came: &[u8]) -> Said {
        if self.is(key, came) {
            Said::This
        } else if self.bytes != UNKNOWN && self.bytes as usize > came.len() {
            Said::More
        } else {
            Said::Other
        }
    }

    /// Whether exactly these bytes were said.
    fn is(&self, key: [u64; 2], came: &[u8]) -> bool {
        let mut said = Self::new(key, self.first);
        came.iter().for_each(|byte| said.byte(*byte));
        said == *self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn bytes() -> [u8; 600] {
        core::array::from_fn(|at| (at * 7 % 251) as u8)
    }

    /// Takes up bytes as the kernel does: a packet of so many at a time, words where it can.
    fn in_packets(key: [u64; 2], bytes: &[u8], size: usize) -> Opening {
        let mut said = Opening::new(key, 100);
        for packet in bytes.chunks(size) {
            assert!(said.goes_on_at(100 + said.bytes, 1));
            let mut rest = packet;
            while let Some((byte, after)) = rest.split_first().filter(|_| !said.is_at_word()) {
                said.byte(*byte);
                rest = after;
            }
            while let Some((word, after)) = rest.split_first_chunk().filter(|_| !said.is_full()) {
                said.word(u64::from_le_bytes(*word));
                rest = after;
            }
            if said.is_full() {
                break;
            }
            rest.iter().for_each(|byte| said.byte(*byte));
        }
        said
    }

    #[test]
    fn of_what_is_longer_than_there_is_room_for_the_beginning_is_known() {
        let bytes: [u8; 5000] = core::array::from_fn(|at| (at * 7 % 251) as u8);
        let room = OPENING_BYTES_MAX as usize;
        for size in [1, 13, 4093, 4096, 5000] {
            let said = in_packets(KEY, &bytes, size);
            assert!(said.is_full() && !said.goes_on_at(100 + OPENING_BYTES_MAX, 1));
            assert_eq!(said.beside(KEY, &bytes[..room]), Said::This, "{size}");
            assert_eq!(said.beside(KEY, &bytes[..room - 1]), Said::More);
            assert_eq!(said.beside(KEY, &bytes[..room + 1]), Said::Other);
            assert_eq!(said.beside(KEY, &bytes[1..=room]), Said::Other);
        }
    }

    /// The end of `SipHash-2-4`, which nothing else here needs.
    fn finished(mut said: Opening) -> u64 {
        let length = u64::from(said.bytes) << 56;
        said.compress(said.pending | length);
        said.state[2] ^= 0xff;
        // A word of zeros is two rounds and nothing more.
        said.compress(0);
        said.compress(0);
        said.state.iter().fold(0, |all, part| all ^ part)
    }

    #[test]
    fn it_is_siphash_2_4() {
        // The example of the paper's appendix: fifteen bytes counted from zero.
        let counted: [u8; 15] = core::array::from_fn(|at| at as u8);
        assert_eq!(
            finished(in_packets(KEY, &counted, 15)),
            0xa129_ca61_49be_45e5
        );
        assert_eq!(finished(in_packets(KEY, &[], 1)), 0x726f_db47_dd0e_0e31);
    }

    #[test]
    fn how_what_was_said_was_cut_into_packets_makes_no_difference() {
        let bytes = bytes();
        for length in [0, 1, 7, 8, 9, 517, 600] {
            for size in 1..40 {
                let said = in_packets(KEY, &bytes[..length], size);
                assert!(said.is(KEY, &bytes[..length]), "{length} {size}");
            }
        }
    }

    #[test]
    fn nothing_else_is_what_was_said_nor_the_same_under_another_key() {
        let bytes = bytes();
        let said = in_packets(KEY, &bytes, 600);
        for at in 0..600 {
            let mut other = bytes;
            other[at] ^= 1;
            assert!(!said.is(KEY, &other), "{at}");
        }
        assert!(!said.is(KEY, &bytes[..599]));
        assert_eq!(said.beside(KEY, &bytes[..599]), Said::More);
        assert_eq!(said.beside(KEY, &bytes), Said::This);
        let mut long = said;
        long.bytes = UNKNOWN;
        assert_eq!(long.beside(KEY, &bytes[..599]), Said::Other);
        assert!(!said.is([KEY[1], KEY[0]], &bytes));
        assert!(!said.goes_on_at(100, 1) && !said.goes_on_at(701, 1) && said.goes_on_at(700, 1));
        let unknown = Opening {
            bytes: UNKNOWN,
            ..said
        };
        assert!(!unknown.goes_on_at(99, 1) && !unknown.is(KEY, &bytes));
    }

    #[test]
    fn what_is_said_when_the_numbers_have_come_round_is_not_the_beginning() {
        let nothing = Opening::new(KEY, 100);
        assert!(nothing.goes_on_at(100, 0) && nothing.goes_on_at(100, 1));
        assert!(!nothing.goes_on_at(100, 2) && !nothing.goes_on_at(100, 1 << 32));
        let said = in_packets(KEY, &bytes(), 600);
        assert!(said.goes_on_at(700, 601) && !said.goes_on_at(700, 602));
    }
}
