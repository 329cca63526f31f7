//! Who acts: the current task's cgroup, uid, process and start time. Only what the kernel itself knows.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id};
use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_uid_gid,
    bpf_probe_read_kernel,
};
use enforcer_ebpf::Agent;
use enforcer_ebpf::map::CGROUP_LEVELS;

use super::maps::AGENTS;

/// Offset of `task_struct.group_leader`; the loader reads it from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_GROUP_LEADER: u32 = 0;
/// Offset of `task_struct.start_boottime`.
#[unsafe(no_mangle)]
static OFFSET_START_BOOTTIME: u32 = 0;

/// The task that performs the operation.
pub struct Task {
    /// Its own cgroup.
    pub cgroup: u64,
    /// Its uid in the initial user namespace.
    pub uid: u32,
    /// Its thread group.
    pub pid: u32,
}

impl Task {
    /// The current task.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: these helpers only read the current task.
        let cgroup = unsafe { bpf_get_current_cgroup_id() };
        Self {
            cgroup,
            uid: bpf_get_current_uid_gid() as u32,
            pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        }
    }

    /// The agent whose workload the task is in, and that agent's cgroup. Levels count from the root, so depth does not matter; deeper
    /// than [`CGROUP_LEVELS`] there is no agent.
    #[inline(always)]
    pub fn agent(&self) -> Option<(u64, Agent)> {
        if let Some(agent) = lookup(self.cgroup) {
            return Some((self.cgroup, agent));
        }
        let mut level = 1;
        while level <= CGROUP_LEVELS {
            // SAFETY: the helper only reads the current task.
            let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
            if ancestor == 0 {
                return None;
            }
            if let Some(agent) = lookup(ancestor) {
                return Some((ancestor, agent));
            }
            level += 1;
        }
        None
    }

    /// When the process (its thread group leader) started, nanoseconds on the boot-time clock; 0 where it cannot be read.
    #[inline(always)]
    pub fn start_boot_ns(&self) -> u64 {
        // SAFETY: the offsets are the running kernel's own, and the reads are checked by the kernel.
        unsafe {
            let task = bpf_get_current_task() as usize;
            let leader_at = (task + offset(&OFFSET_GROUP_LEADER)) as *const usize;
            let Ok(leader) = bpf_probe_read_kernel(leader_at) else {
                return 0;
            };
            bpf_probe_read_kernel((leader + offset(&OFFSET_START_BOOTTIME)) as *const u64)
                .unwrap_or(0)
        }
    }

    /// The task's name.
    #[inline(always)]
    pub fn comm(&self) -> [u8; 16] {
        bpf_get_current_comm().unwrap_or([0; 16])
    }
}

#[inline(always)]
fn lookup(cgroup: u64) -> Option<Agent> {
    // SAFETY: the value is copied at once; the daemon replaces entries as a whole.
    unsafe { AGENTS.get(&cgroup) }.copied()
}

/// Reads a global that the loader has set. Volatile, or the compiler would fold the zero it was compiled with.
#[inline(always)]
fn offset(global: &'static u32) -> usize {
    // SAFETY: a reference is always readable.
    unsafe { core::ptr::read_volatile(global) as usize }
}

/// The context as the helpers want it.
#[inline(always)]
pub fn raw<C: EbpfContext>(ctx: &C) -> *mut core::ffi::c_void {
    ctx.as_ptr()
}
