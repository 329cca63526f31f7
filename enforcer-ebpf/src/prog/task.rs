//! Who acts: the current task's cgroup, uid, process and start time. Only what the kernel itself knows.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns,
};
use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_uid_gid,
    bpf_probe_read_kernel,
};
use aya_ebpf::maps::lpm_trie::Key;
use enforcer_ebpf::map::{CGROUP_LEVELS, TICK_NS};
use enforcer_ebpf::{Agent, Config, Event, Reason};

use super::maps::{AGENTS, SUBUIDS, UIDS, count, report};

/// Offset of `task_struct.group_leader`; the loader reads it from the running kernel's BTF.
#[unsafe(no_mangle)]
static OFFSET_GROUP_LEADER: u32 = 0;
/// Offset of `task_struct.start_boottime`.
#[unsafe(no_mangle)]
static OFFSET_START_BOOTTIME: u32 = 0;
/// Offset of `task_struct.cred`.
#[unsafe(no_mangle)]
static OFFSET_TASK_CRED: u32 = 0;
/// Offset of `cred.user_ns`.
#[unsafe(no_mangle)]
static OFFSET_CRED_USER_NS: u32 = 0;
/// Offset of `user_namespace.parent`.
#[unsafe(no_mangle)]
static OFFSET_USER_NS_PARENT: u32 = 0;
/// Offset of `user_namespace.owner`.
#[unsafe(no_mangle)]
static OFFSET_USER_NS_OWNER: u32 = 0;
/// How many user namespaces around a task are looked at. They nest deeper (33), and what does so counts as an agent's: nobody runs there by need.
const USER_NS_LEVELS: u32 = 8;

/// Offset of `task_struct.cgroups`.
#[unsafe(no_mangle)]
static OFFSET_TASK_CGROUPS: u32 = 0;
/// Offset of `css_set.dfl_cgrp`.
#[unsafe(no_mangle)]
static OFFSET_CSS_SET_CGROUP: u32 = 0;
/// Offset of `cgroup.level`.
#[unsafe(no_mangle)]
static OFFSET_CGROUP_LEVEL: u32 = 0;
/// Offset of `cgroup.ancestors`.
#[unsafe(no_mangle)]
static OFFSET_CGROUP_ANCESTORS: u32 = 0;
/// Offset of `cgroup.kn`.
#[unsafe(no_mangle)]
static OFFSET_CGROUP_NODE: u32 = 0;
/// Offset of `kernfs_node.id`.
#[unsafe(no_mangle)]
static OFFSET_NODE_ID: u32 = 0;

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

    /// Whether it is the daemon: its process, and in its cgroup. Before the daemon has said who it is, nobody is.
    #[inline(always)]
    pub fn is_daemon(&self, config: &Config) -> bool {
        config.daemon_cgroup != 0
            && self.cgroup == config.daemon_cgroup
            && self.pid == config.daemon_pid
            && self.start_boot_ns() / TICK_NS == config.daemon_start_ticks
    }

    /// Whether it runs as a uid that agents are configured to run as or that is subordinate to one, or in a user namespace that such a uid made:
    /// there it may be anybody. A file that a subordinate uid has left, set-user-id, makes whoever runs it that uid, in no such namespace.
    #[inline(always)]
    pub fn is_of_agents_uid(&self) -> bool {
        is_of_agents(self.uid) != 0
    }

    /// The cgroup of that agent, or 0.
    #[inline(always)]
    pub fn workload(&self) -> u64 {
        match self.agent() {
            Some((cgroup, _)) => cgroup,
            None => 0,
        }
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

    /// Counts and reports that the task was refused something that has no destination.
    #[inline(always)]
    pub fn refused(&self, agent_cgroup: u64, hook: u32, reason: Reason) {
        count(|counters| counters.denied += 1);
        report(Event {
            // SAFETY: the helper reads the clock.
            boot_ns: unsafe { bpf_ktime_get_boot_ns() },
            cgroup: self.cgroup,
            agent_cgroup,
            start_boot_ns: self.start_boot_ns(),
            destination: [0; 16],
            port: 0,
            hook,
            reason: reason as u32,
            protocol: 0,
            pid: self.pid,
            uid: self.uid,
            comm: self.comm(),
        });
    }

    /// The task's name.
    #[inline(always)]
    pub fn comm(&self) -> [u8; 16] {
        bpf_get_current_comm().unwrap_or([0; 16])
    }
}

/// The cgroup of the agent in whose workload another task is, or 0; `None` where that cannot be read.
#[inline(always)]
pub fn agent_of(task: *const c_void) -> Option<u64> {
    let set = pointer(task, &OFFSET_TASK_CGROUPS)?;
    let cgroup = pointer(set, &OFFSET_CSS_SET_CGROUP)?;
    // SAFETY: the offsets are the running kernel's own, and the reads are checked by the kernel.
    let depth = unsafe {
        bpf_probe_read_kernel(cgroup.byte_add(offset(&OFFSET_CGROUP_LEVEL)).cast::<i32>()).ok()?
    };
    let mut level = 1;
    while level <= CGROUP_LEVELS && level <= depth {
        // SAFETY: no further than the task's own cgroup, which stands at its depth.
        let place = unsafe {
            cgroup.byte_add(offset(&OFFSET_CGROUP_ANCESTORS) + level as usize * size_of::<usize>())
        };
        // SAFETY: as above.
        let ancestor = unsafe { bpf_probe_read_kernel(place.cast::<*const c_void>()).ok()? };
        let node = pointer(ancestor, &OFFSET_CGROUP_NODE)?;
        // SAFETY: as above.
        let id = unsafe {
            bpf_probe_read_kernel(node.byte_add(offset(&OFFSET_NODE_ID)).cast::<u64>()).ok()?
        };
        if lookup(id).is_some() {
            return Some(id);
        }
        level += 1;
    }
    Some(0)
}

/// The pointer that stands in a structure at an offset.
#[inline(always)]
fn pointer(structure: *const c_void, at: &'static u32) -> Option<*const c_void> {
    // SAFETY: the read is checked by the kernel.
    unsafe { bpf_probe_read_kernel(structure.byte_add(offset(at)).cast::<*const c_void>()).ok() }
}

#[inline(always)]
fn lookup(cgroup: u64) -> Option<Agent> {
    // SAFETY: the value is copied at once; the daemon replaces entries as a whole.
    unsafe { AGENTS.get(&cgroup) }.copied()
}

/// Reads a global that the loader has set. Volatile, or the compiler would fold the zero it was compiled with.
#[inline(always)]
pub fn offset(global: &'static u32) -> usize {
    // SAFETY: a reference is always readable.
    unsafe { core::ptr::read_volatile(global) as usize }
}

/// The context as the helpers want it.
#[inline(always)]
pub fn raw<C: EbpfContext>(ctx: &C) -> *mut core::ffi::c_void {
    ctx.as_ptr()
}

/// Whether agents are configured to run as a uid, or it is subordinate to one of those.
#[inline(always)]
fn is_agents(uid: u32) -> bool {
    UIDS.get_ptr(&uid).is_some() || SUBUIDS.get(&Key::new(32, uid.to_be_bytes())).is_some()
}

/// [`Task::is_of_agents_uid`] as a function that the kernel's verifier looks at once and by itself, and not in each of the ways that lead to it: for that
/// its name is kept, and it says no more than a number. Of `connect6` there is less than a third as much to look at so. It calls no other function:
/// a program has half a kilobyte of stack with all that it calls.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn is_of_agents(uid: u32) -> u32 {
    u32::from(is_agents(uid) || is_in_users_namespace())
}

/// Whether the task's user namespace, or one around it, was made by a uid of agents'. What cannot be read, or lies deeper than is looked, counts
/// as one that was.
#[inline(always)]
fn is_in_users_namespace() -> bool {
    // SAFETY: the helper gives the current task.
    let task = unsafe { bpf_get_current_task() } as usize as *const c_void;
    let space = match pointer(task, &OFFSET_TASK_CRED) {
        Some(cred) => pointer(cred, &OFFSET_CRED_USER_NS),
        None => None,
    };
    let Some(mut space) = space else {
        return true;
    };
    let mut level = 0;
    while level < USER_NS_LEVELS {
        let Some(parent) = pointer(space, &OFFSET_USER_NS_PARENT) else {
            return true;
        };
        // The initial one has none, and nobody made it.
        if parent.is_null() {
            return false;
        }
        // SAFETY: the offset is the running kernel's own, and the read is checked by the kernel.
        let is_agents = unsafe {
            let owner = space.byte_add(offset(&OFFSET_USER_NS_OWNER)).cast::<u32>();
            match bpf_probe_read_kernel(owner) {
                Ok(owner) => is_agents(owner),
                Err(_) => true,
            }
        };
        if is_agents {
            return true;
        }
        space = parent;
        level += 1;
    }
    true
}
