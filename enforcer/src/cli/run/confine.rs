//! What a command under `enforcer run` is kept from by a filter of its system calls (seccomp), whatever the kernel's security hooks can do:
//! sockets of families that no program sees the way out of, io_uring, which would make them past the filter, and the calls of x32, which are
//! the same ones under other numbers.
//!
//! The filter goes with the process to all that it starts, and nobody can take it off. What it refuses is not on record: no program of ours
//! sees it. See the kernel's Documentation/userspace-api/seccomp_filter.rst.

use anyhow::Context;
use enforcer_ebpf::confine::{FAMILIES, PROTOCOL_SMC};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// What a refused call is told: what a kernel says that does not have such sockets, so that programs do without.
const ANSWER: SeccompAction = SeccompAction::Errno(libc::EAFNOSUPPORT as u32);
/// What a kernel without io_uring says.
const NO_SUCH_CALL: SeccompAction = SeccompAction::Errno(libc::ENOSYS as u32);

/// What no kernel says that has no such calls.
const NOT_PERMITTED: SeccompAction = SeccompAction::Errno(libc::EPERM as u32);
/// What marks the number of a call as x32's: the processor is the same, so that no filter by processor tells them apart. No other processor has
/// calls with such numbers.
const X32: u32 = 0x4000_0000;
/// The number that a tracer gives to a call which is not to be made.
const NO_CALL: u32 = u32::MAX;

/// Confines this process from now on; it must have given up further privileges.
///
/// # Errors
/// When this kernel has no such filters, or does not take this one.
pub(super) fn confine() -> anyhow::Result<()> {
    for filter in [sockets()?, rings()?, no_x32()] {
        seccompiler::apply_filter(&filter).context("the kernel took no filter of system calls")?;
    }
    Ok(())
}

/// `socket()` and `socketpair()` of any other family, and of SMC by one of those.
fn sockets() -> anyhow::Result<BpfProgram> {
    let other = FAMILIES
        .iter()
        .map(|family| {
            SeccompCondition::new(
                0,
                SeccompCmpArgLen::Dword,
                SeccompCmpOp::Ne,
                u64::from(family.unsigned_abs()),
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    let smc = SeccompCondition::new(
        2,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Eq,
        u64::from(PROTOCOL_SMC.unsigned_abs()),
    )?;
    let rules = vec![SeccompRule::new(other)?, SeccompRule::new(vec![smc])?];
    let calls = [libc::SYS_socket, libc::SYS_socketpair];
    filter(calls.map(|call| (call, rules.clone())), ANSWER)
}

fn rings() -> anyhow::Result<BpfProgram> {
    filter([(libc::SYS_io_uring_setup, Vec::new())], NO_SUCH_CALL)
}

/// Every call of x32. Written out, since the library compares whole numbers.
fn no_x32() -> BpfProgram {
    let step = |code: u32, jt: u8, jf: u8, k: u32| sock_filter {
        // Each is a sum of a few bits of the lowest byte.
        code: (code & 0xff) as u16,
        jt,
        jf,
        k,
    };
    vec![
        // The call's number is the first field of what a filter is given.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, NO_CALL),
        step(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 1, 0, X32),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            SeccompAction::Allow.into(),
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, NOT_PERMITTED.into()),
    ]
}

fn filter<const N: usize>(
    calls: [(i64, Vec<SeccompRule>); N],
    answer: SeccompAction,
) -> anyhow::Result<BpfProgram> {
    let here = std::env::consts::ARCH
        .try_into()
        .context("no filter of system calls is known for this processor")?;
    let filter = SeccompFilter::new(calls.into(), SeccompAction::Allow, answer, here)?;
    Ok(filter.try_into()?)
}
