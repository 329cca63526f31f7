//! The kernel object: entry points only. On any other target this binary does nothing but say so.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod prog;

#[cfg(not(target_arch = "bpf"))]
#[expect(
    clippy::print_stderr,
    reason = "there is nothing else this binary could do on the host"
)]
fn main() {
    eprintln!("this is a kernel object: build it with `cargo xtask build-ebpf`");
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No program can panic: the verifier would not accept an endless loop that can be reached.
    loop {}
}

/// The helpers that report the process's start time need a GPL-compatible licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
