//! What is led to the daemon ends in this host. A socket that names an interface (by binding to a device, or for one datagram) would have the kernel
//! put it on that wire all the same, for whoever is behind it to read: questions, and what a first packet carries.

use aya_ebpf::programs::sk_buff::SkBuff;
use enforcer_ebpf::address::{LOOPBACK_V4, LOOPBACK_V6};

use super::packet::{IpPacket, was_led};

/// The index of the loopback, in every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Whether the packet is one for the loopback's address that leaves by another interface, of a socket that was led to the daemon. Of others it
/// is nobody's concern: a VRF has a loopback of its own. What is for the daemon's ports and was not led there is refused in any case.
#[inline(always)]
pub fn is(skb: &SkBuff, packet: &IpPacket) -> bool {
    if packet.destination != LOOPBACK_V4 && packet.destination != LOOPBACK_V6 {
        return false;
    }
    // SAFETY: the field is readable in this hook.
    unsafe { (*skb.skb).ifindex != LOOPBACK_INDEX && was_led(skb) }
}
