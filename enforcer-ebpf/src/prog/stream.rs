//! Where a packet's socket stands in what it says, as the socket itself has it. What a packet says of that is not believed: before the program that asks, the
//! rules of the network namespace have seen the packet, and its root may write numbers, lengths and ports into it.

use core::ptr::read_volatile;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_tcp_sock;
use aya_ebpf::programs::sk_buff::SkBuff;

use super::task::offset;

/// The bit in a packet's own structure that says that another has the same data (`CLONED_MASK`, where the lowest bit is the first).
const CLONED: u8 = 1;

/// Where that bit's byte is; the loader asks the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_SKB_CLONED: u32 = 0;
/// Offset of `sk_buff.sk`.
#[unsafe(no_mangle)]
static OFFSET_SKB_SK: u32 = 0;
/// Offset of `tcp_sock.tcp_header_len`.
#[unsafe(no_mangle)]
static OFFSET_TCP_HEADER: u32 = 0;

/// Where a socket stands.
pub struct Stream {
    /// The number of what it says next. While it sends what it has not sent before, that begins with this number: it goes on when the packet has gone.
    pub next: u32,
    /// The number that all before is acknowledged; that of its first packet until that is answered.
    pub acknowledged: u32,
}

impl Stream {
    /// Of the packet's socket; `None` where that is none of TCP's.
    #[inline(always)]
    pub fn of(skb: &SkBuff) -> Option<Self> {
        // SAFETY: the socket of a valid packet. The fields stand side by side, and the kernel does not read two at once.
        unsafe {
            let socket = (*skb.skb).__bindgen_anon_2.sk;
            if socket.is_null() {
                return None;
            }
            let tcp = bpf_tcp_sock(socket);
            if tcp.is_null() {
                return None;
            }
            Some(Self {
                next: read_volatile(&raw const (*tcp).snd_nxt),
                acknowledged: read_volatile(&raw const (*tcp).snd_una),
            })
        }
    }
}

/// How long the head of TCP is in what the packet's socket sends, bytes: what it agreed on at the beginning is in each packet. Those that say more
/// besides (which packets are missing of what came) do not begin with data where this says.
#[inline(always)]
pub fn head_bytes(skb: &SkBuff) -> Option<usize> {
    // SAFETY: the offsets are the running kernel's own, and the reads are checked by the kernel.
    let bytes = unsafe {
        let held = skb.skb.cast::<u8>().byte_add(offset(&OFFSET_SKB_SK));
        let socket = bpf_probe_read_kernel(held.cast::<*const u8>().cast_const()).ok()?;
        let head = socket.byte_add(offset(&OFFSET_TCP_HEADER));
        bpf_probe_read_kernel(head.cast::<u16>()).ok()?
    };
    Some(usize::from(bytes))
}

/// Whether nobody has written into the packet's data since TCP made it. The root of its network namespace may hand packets to a program that puts other
/// bytes in (`nfqueue`) or have rules that write some. TCP sends a clone of what it keeps, and whoever writes into the data of a clone has a copy of it
/// made first; what is written into heads alone has not. What TCP sends again may be a copy.
#[inline(always)]
pub fn is_as_sent(skb: &SkBuff) -> bool {
    // SAFETY: the offset is the running kernel's own, and the read is checked by the kernel.
    let bits = unsafe {
        let at = skb.skb.cast::<u8>().byte_add(offset(&OFFSET_SKB_CLONED));
        bpf_probe_read_kernel(at.cast_const())
    };
    bits.is_ok_and(|bits| bits & CLONED != 0)
}
