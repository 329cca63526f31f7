//! Where a packet's socket stands in what it says, as the socket itself has it. What a packet says of that is not believed: before the program that asks, the
//! rules of the network namespace have seen the packet, and its root may write numbers, lengths and ports into it.

use core::ptr::read_volatile;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::{bpf_sk_fullsock, bpf_tcp_sock};
use aya_ebpf::programs::sk_buff::SkBuff;

use super::task::offset;

/// The state of a socket whose first packet is not answered yet (`TCP_SYN_SENT`).
const SYN_SENT: u32 = 2;

/// Offset of `sk_buff.sk`; the loader reads it from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_SKB_SK: u32 = 0;
/// Offset of `sk_buff.head`.
#[unsafe(no_mangle)]
static OFFSET_SKB_HEAD: u32 = 0;
/// Offset of `sk_buff.len`.
#[unsafe(no_mangle)]
static OFFSET_SKB_LEN: u32 = 0;
/// Offset of `sock.sk_write_queue`, whose first member is the first packet in it, or the queue itself.
#[unsafe(no_mangle)]
static OFFSET_SOCK_QUEUE: u32 = 0;

/// Where a socket stands.
pub struct Stream {
    /// The number of what it says next. While it sends what it has not sent before, that begins with this number: it goes on when the packet has gone.
    pub next: u32,
    /// The number that all before is acknowledged; that of its first packet until that is answered.
    pub acknowledged: u32,
    /// How many bytes that is in all, the first packet counted as one.
    pub acknowledged_bytes: u64,
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
                acknowledged_bytes: read_volatile(&raw const (*tcp).bytes_acked),
            })
        }
    }
}

/// Whether the packet's socket has begun to connect, and has had no answer: later nothing begins any more.
#[inline(always)]
pub fn is_connecting(skb: &SkBuff) -> bool {
    // SAFETY: the socket of a valid packet.
    unsafe {
        let socket = (*skb.skb).__bindgen_anon_2.sk;
        if socket.is_null() {
            return false;
        }
        let whole = bpf_sk_fullsock(socket);
        !whole.is_null() && read_volatile(&raw const (*whole).state) == SYN_SENT
    }
}

/// How many bytes of data the packet has, where it is what its socket sends next and nobody has written into them: it has the very data of the first packet
/// of the socket's queue, which stays there until it has gone. Whoever writes into data of which there are two, as the root of the network namespace may have
/// a program do or a rule, is given a copy; so is what is put together of fragments.
#[inline(always)]
pub fn sends_next(skb: &SkBuff) -> Option<usize> {
    // SAFETY: the offsets are the running kernel's own, and the reads are checked by the kernel.
    unsafe {
        let own = skb.skb.cast::<u8>().cast_const();
        let socket = bpf_probe_read_kernel(at::<*const u8>(own, &OFFSET_SKB_SK)).ok()?;
        let queue = at::<*const u8>(socket, &OFFSET_SOCK_QUEUE);
        let next = bpf_probe_read_kernel(queue).ok()?;
        if next == queue.cast() {
            return None;
        }
        let data = bpf_probe_read_kernel(at::<usize>(own, &OFFSET_SKB_HEAD)).ok()?;
        if bpf_probe_read_kernel(at::<usize>(next, &OFFSET_SKB_HEAD)).ok()? != data {
            return None;
        }
        let bytes = bpf_probe_read_kernel(at::<u32>(next, &OFFSET_SKB_LEN)).ok()?;
        Some(bytes as usize)
    }
}

/// Where a member of a structure is.
#[inline(always)]
unsafe fn at<T>(structure: *const u8, member: &'static u32) -> *const T {
    // SAFETY: nothing is read here.
    unsafe { structure.byte_add(offset(member)).cast() }
}
