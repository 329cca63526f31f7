//! What agents' processes may not do besides, where the kernel lets programs stand at its security hooks (BPF LSM). Pure, like
//! [`crate::verdict`]; zero stands for no agent's workload.

/// No agent's workload.
pub const NOBODY: u64 = 0;

const AF_UNIX: i32 = 1;
const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const AF_NETLINK: i32 = 16;
const AF_ALG: i32 = 38;
/// The families of sockets that a process in an agent's workload may make: those that the other programs see the way out of, and those that
/// lead nowhere. What is not known is not made.
pub const FAMILIES: [i32; 5] = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_ALG];
/// SMC (`IPPROTO_SMC`) by a family that is let be, since Linux 6.11: no program sees its way out, and no list of families names it.
pub const PROTOCOL_SMC: i32 = 256;
/// `PTRACE_MODE_ATTACH` of the kernel's `include/linux/ptrace.h`: to trace, to write memory, to take an open file. Reading what `ps` shows
/// is not that.
pub const PTRACE_MODE_ATTACH: u32 = 0x02;

/// Whether this is one of [`FAMILIES`], and not SMC. Compared one by one: the kernel's programs index no table.
#[must_use]
#[inline(always)]
pub const fn may_make(family: i32, protocol: i32) -> bool {
    matches!(family, AF_UNIX | AF_INET | AF_INET6 | AF_NETLINK | AF_ALG) && protocol != PROTOCOL_SMC
}

/// Whether somebody in the workload `sender` may send on a connection to the daemon that was made in the workload `creator`: nobody sends
/// as somebody else, however the socket came to it.
#[must_use]
#[inline(always)]
pub const fn may_send(sender: u64, creator: u64) -> bool {
    sender == creator
}

/// Whether somebody in the workload `tracer` may look into a process in the workload `traced`. Root outside every workload is trusted.
#[must_use]
#[inline(always)]
pub const fn may_trace(tracer: u64, uid: u32, traced: u64, mode: u32) -> bool {
    mode & PTRACE_MODE_ATTACH == 0 || tracer == traced || (tracer == NOBODY && uid == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGENT: u64 = 7;
    const OTHER: u64 = 8;

    #[test]
    fn only_sockets_that_are_seen_are_made() {
        for family in -1..=64 {
            assert_eq!(may_make(family, 0), FAMILIES.contains(&family), "{family}");
            assert!(!may_make(family, PROTOCOL_SMC), "{family}");
        }
    }

    #[test]
    fn nobody_sends_as_somebody_else() {
        assert!(may_send(AGENT, AGENT) && may_send(NOBODY, NOBODY));
        assert!(!may_send(NOBODY, AGENT) && !may_send(AGENT, NOBODY) && !may_send(OTHER, AGENT));
    }

    #[test]
    fn a_workload_is_traced_from_inside_or_by_root_outside() {
        let attach =
            |tracer, uid, traced| may_trace(tracer, uid, traced, PTRACE_MODE_ATTACH | 0x10);
        assert!(attach(AGENT, 1000, AGENT) && attach(NOBODY, 1000, NOBODY));
        assert!(attach(NOBODY, 0, AGENT));
        assert!(!attach(NOBODY, 1000, AGENT) && !attach(OTHER, 1000, AGENT));
        // Root inside a workload is no more than an agent.
        assert!(!attach(AGENT, 0, NOBODY) && !attach(OTHER, 0, AGENT));
        assert!(may_trace(NOBODY, 1000, AGENT, 0x11), "ps may look");
    }
}
