//! The kernel's own boot clock, asked of a program in it: deadlines are held by that one. What a process is told of the time may be another,
//! shifted by the time namespace that it is in (`time_namespaces(7)`), and then every window would be open too long or too short.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::load::{check_capabilities, check_kernel};
use super::{KernelError, sys};
use crate::clock::Clock;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
/// `BPF_PROG_TYPE_SYSCALL`: runs when it is told to, and nowhere else.
const SYSCALL: u32 = 31;
/// Programs of that type may sleep, and must say so.
const BPF_F_SLEEPABLE: u32 = 1 << 4;
/// `bpf_ktime_get_boot_ns`, the clock that the programs of the lock decide by.
const KTIME_GET_BOOT_NS: i32 = 125;

/// How far what this process is told may be from what the kernel says, nanoseconds: the two are read by different means.
const TOLERANCE_NS: u64 = 1_000_000;

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    /// The destination's number in the lower half, the source's in the upper.
    registers: u8,
    offset: i16,
    value: i32,
}

/// Writes the time to where its argument points, and returns 0.
const PROGRAM: [Instruction; 5] = [
    // r6 = r1
    step(0xbf, 0x16, 0),
    // r0 = bpf_ktime_get_boot_ns()
    step(0x85, 0x00, KTIME_GET_BOOT_NS),
    // *(u64 *)(r6 + 0) = r0
    step(0x7b, 0x06, 0),
    // r0 = 0
    step(0xb7, 0x00, 0),
    // return
    step(0x95, 0x00, 0),
];

const fn step(code: u8, registers: u8, value: i32) -> Instruction {
    Instruction {
        code,
        registers,
        offset: 0,
        value,
    }
}

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    returned: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// The boot clock as the kernel reads it, nanoseconds.
///
/// # Errors
/// When the kernel takes no such program, or does not run it.
pub(super) fn boot_ns() -> io::Result<u64> {
    let load = Load {
        kind: SYSCALL,
        count: PROGRAM.len() as u32,
        instructions: PROGRAM.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: BPF_F_SLEEPABLE,
    };
    let fd = sys::bpf(BPF_PROG_LOAD, &load)?;
    // SAFETY: the kernel has just given us this descriptor, and nobody else owns it.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut told = 0_u64;
    let mut run = Run {
        program: program.as_raw_fd().unsigned_abs(),
        context_in_size: size_of::<u64>() as u32,
        context_in: (&raw mut told) as u64,
        ..Run::default()
    };
    // The kernel writes back into what it was given.
    sys::bpf_mut(BPF_PROG_TEST_RUN, &mut run)?;
    // SAFETY: it is a local variable, written by the kernel through the address above; read so that no older value is taken for it.
    Ok(unsafe { (&raw const told).read_volatile() })
}

/// Whether `clock` says what the kernel does, whose programs hold the deadlines that are counted by `clock`.
///
/// # Errors
/// When it does not, or when that cannot be told.
pub fn check_clock(clock: &dyn Clock) -> Result<(), KernelError> {
    // Without these it could not be asked, for a reason that says less.
    check_kernel()?;
    check_capabilities()?;
    let before = clock.now().boot_ns;
    let kernel = boot_ns().map_err(|source| KernelError::Io {
        action: "ask the kernel for its boot clock".to_owned(),
        source,
    })?;
    let after = clock.now().boot_ns;
    if agrees(before, kernel, after) {
        return Ok(());
    }
    let seconds = (i128::from(before) - i128::from(kernel)) / 1_000_000_000;
    Err(KernelError::Unsuited(format!(
        "this process is told a boot clock that is {seconds} s off the kernel's, so that windows would be open too long or too short: it is in a time namespace (`unshare --time`, a container's). Start the daemon in the host's own"
    )))
}

const fn agrees(before: u64, kernel: u64, after: u64) -> bool {
    before <= kernel.saturating_add(TOLERANCE_NS) && kernel <= after.saturating_add(TOLERANCE_NS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_ahead_or_behind_is_told_from_one_that_is_right() {
        let second = 1_000_000_000;
        assert!(agrees(10 * second, 10 * second + 5, 10 * second + 10));
        assert!(agrees(10 * second, 9_999_999_999, 10 * second));
        assert!(!agrees(12 * second, 10 * second, 12 * second + 10));
        assert!(!agrees(8 * second, 10 * second, 8 * second + 10));
    }
}
