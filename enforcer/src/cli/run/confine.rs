//! What a command under `enforcer run` is kept from by a filter of its system calls (seccomp), whatever the kernel's security hooks can do:
//! sockets of families that no program sees the way out of, and io_uring, which would make them past the filter.
//!
//! The filter goes with the process to all that it starts, and nobody can take it off. What it refuses is not on record: no program of ours
//! sees it. See the kernel's Documentation/userspace-api/seccomp_filter.rst.

use anyhow::Context;
use enforcer_ebpf::confine::FAMILIES;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// What a refused call is told: what a kernel says that does not have such sockets, so that programs do without.
const ANSWER: SeccompAction = SeccompAction::Errno(libc::EAFNOSUPPORT as u32);
/// What a kernel without io_uring says.
const NO_SUCH_CALL: SeccompAction = SeccompAction::Errno(libc::ENOSYS as u32);

/// Confines this process from now on; it must have given up further privileges.
///
/// # Errors
/// When this kernel has no such filters, or does not take this one.
pub(super) fn confine() -> anyhow::Result<()> {
    for filter in [sockets()?, rings()?] {
        seccompiler::apply_filter(&filter).context("the kernel took no filter of system calls")?;
    }
    Ok(())
}

/// `socket()` and `socketpair()` of any other family.
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
    let rule = SeccompRule::new(other)?;
    let calls = [libc::SYS_socket, libc::SYS_socketpair];
    filter(calls.map(|call| (call, vec![rule.clone()])), ANSWER)
}

fn rings() -> anyhow::Result<BpfProgram> {
    filter([(libc::SYS_io_uring_setup, Vec::new())], NO_SUCH_CALL)
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
