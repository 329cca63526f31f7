//! The kernel's security hooks (BPF LSM), where it has them: what the programs on sockets and packets cannot see, or see too late. 0 allows.
//!
//! Each concerns agents' workloads alone, and the processes that would reach into one.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile};

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use enforcer_ebpf::Reason;
use enforcer_ebpf::confine::{NOBODY, PTRACE_MODE_ATTACH, may_make, may_send, may_trace};
use enforcer_ebpf::record::hook;

use super::maps::{CREATORS, config, is_own_port};
use super::task::{Task, agent_of, offset};

const ALLOW: i32 = 0;
/// `-EPERM`.
const DENY: i32 = -1;

/// Offset of `socket.sk`; the loader reads it, and those below, from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_SOCKET_SK: u32 = 0;
/// Offset of `sock_common.skc_dport`, with which a `struct sock` begins.
#[unsafe(no_mangle)]
static OFFSET_SOCK_DPORT: u32 = 0;

/// `socket_create(family, type, protocol, kern)`.
#[lsm(hook = "socket_create")]
pub fn hook_socket(ctx: LsmContext) -> i32 {
    let (family, protocol, of_the_kernel): (i32, i32, i32) = (ctx.arg(0), ctx.arg(2), ctx.arg(3));
    if of_the_kernel != 0 || may_make(family, protocol) {
        return ALLOW;
    }
    let task = Task::current();
    match task.agent() {
        Some((agent, _)) => deny(&task, agent, hook::SOCKET_CREATE, Reason::SocketFamily),
        None => ALLOW,
    }
}

/// `socket_sendmsg(sock, msg, size)`.
#[lsm(hook = "socket_sendmsg")]
pub fn hook_send(ctx: LsmContext) -> i32 {
    let socket: *const c_void = ctx.arg(0);
    // SAFETY: the kernel gives a valid socket. The verifier wants to see the pointer itself read, at an offset that it knows.
    let sock = unsafe {
        read_volatile(
            socket
                .byte_add(offset(&OFFSET_SOCKET_SK))
                .cast::<*mut c_void>(),
        )
    };
    if sock.is_null() {
        return ALLOW;
    }
    // SAFETY: the offset is the running kernel's own, and the read is checked by the kernel.
    let port =
        unsafe { bpf_probe_read_kernel(sock.byte_add(offset(&OFFSET_SOCK_DPORT)).cast::<u16>()) };
    let config = config();
    match port {
        Ok(port) if is_own_port(&config, u16::from_be(port)) => {}
        Ok(_) | Err(_) => return ALLOW,
    }
    let task = Task::current();
    if task.is_daemon(&config) {
        return ALLOW;
    }
    // SAFETY: the kernel gives a valid socket, and a map of this value's size; what is found is copied at once.
    let creator = unsafe {
        let held = bpf_sk_storage_get((&raw const CREATORS).cast_mut().cast(), sock, null_mut(), 0);
        if held.is_null() {
            NOBODY
        } else {
            *held.cast::<u64>()
        }
    };
    let sender = task.workload();
    if may_send(sender, creator) {
        return ALLOW;
    }
    deny(&task, sender, hook::SOCKET_SENDMSG, Reason::Ambiguous)
}

/// `ptrace_access_check(child, mode)`.
#[lsm(hook = "ptrace_access_check")]
pub fn hook_trace(ctx: LsmContext) -> i32 {
    let traced: *const c_void = ctx.arg(0);
    let mode: u32 = ctx.arg(1);
    let task = Task::current();
    let tracer = task.workload();
    // One that cannot be told may be an agent's.
    let of = agent_of(traced).unwrap_or(u64::MAX);
    if may_trace(tracer, task.uid, of, mode) {
        return ALLOW;
    }
    // The record is of whom it concerns: whoever does it stands in it by its process.
    let agent = if tracer == NOBODY { of } else { tracer };
    deny(&task, agent, hook::PTRACE, Reason::Traced)
}

/// `ptrace_traceme(parent)`: the current task would be looked into by its parent. Who that is counts, and not that it may be root.
#[lsm(hook = "ptrace_traceme")]
pub fn hook_traced(ctx: LsmContext) -> i32 {
    let parent: *const c_void = ctx.arg(0);
    let task = Task::current();
    let traced = task.workload();
    let by = agent_of(parent).unwrap_or(u64::MAX);
    if may_trace(by, u32::MAX, traced, PTRACE_MODE_ATTACH) {
        return ALLOW;
    }
    let agent = if traced == NOBODY { by } else { traced };
    deny(&task, agent, hook::PTRACE, Reason::Traced)
}

/// `bpf(cmd, attr, size)`.
#[lsm(hook = "bpf")]
pub fn hook_bpf(_ctx: LsmContext) -> i32 {
    let task = Task::current();
    match task.agent() {
        Some((agent, _)) => deny(&task, agent, hook::BPF, Reason::KernelPrograms),
        None => ALLOW,
    }
}

#[inline(always)]
fn deny(task: &Task, agent_cgroup: u64, hook: u32, reason: Reason) -> i32 {
    task.refused(agent_cgroup, hook, reason);
    DENY
}
