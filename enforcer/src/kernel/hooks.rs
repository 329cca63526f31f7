//! Programs at the kernel's security hooks (BPF LSM). Optional: a kernel without them, or one that refuses them, is told about and enforces
//! all the same, with what the others do.
//!
//! Such links cannot be given another program: a new daemon's stands beside the old one's until its pin takes the other's place.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::programs::{Lsm, Program, ProgramError};
use aya::{Btf, Ebpf};

use super::load::pin_over;
use super::sys::Target;
use super::{KernelError, io, refused, sys};
use crate::causes::Causes;

/// The programs, and the hook of each.
const HOOKS: [(&str, &str); 5] = [
    ("hook_socket", "socket_create"),
    ("hook_send", "socket_sendmsg"),
    ("hook_trace", "ptrace_access_check"),
    ("hook_traced", "ptrace_traceme"),
    ("hook_bpf", "bpf"),
];
/// `BPF_LSM_MAC`.
const LSM_MAC: u32 = 27;
/// Which security modules run, in the order in which they do; separated by commas. See the kernel's Documentation/admin-guide/LSM.
const ACTIVE: &str = "/sys/kernel/security/lsm";

/// What stands at the hooks.
#[derive(Debug)]
pub(super) enum Hooks {
    /// All of ours.
    Held(Vec<Held>),
    /// None, and why.
    Absent(String),
}

/// One program.
#[derive(Debug)]
pub(super) struct Held {
    hook: &'static str,
    pin: PathBuf,
    program: u32,
}

impl Hooks {
    /// Puts all programs to their hooks, or none. `unknown`: what of this kernel's own structures they could not be told.
    ///
    /// # Errors
    /// When the kernel took the programs and one can then not be attached or pinned.
    pub(super) fn attach(
        ebpf: &mut Ebpf,
        links: &Path,
        unknown: Option<String>,
    ) -> Result<Self, KernelError> {
        if let Some(why) = unknown.or_else(why_absent) {
            return Ok(Self::Absent(why));
        }
        // All before the first is attached: a kernel that refuses one must not be left with half.
        if let Err(error) = load(ebpf) {
            let why = match error {
                KernelError::NotPermitted { .. } => {
                    "this kernel lets nobody load programs for them (EPERM)".to_owned()
                }
                KernelError::Unsuited(_)
                | KernelError::NotCapable { .. }
                | KernelError::Io { .. }
                | KernelError::Refused { .. } => {
                    format!("the kernel refuses them: {}", Causes(&error))
                }
            };
            return Ok(Self::Absent(why));
        }
        let held = HOOKS
            .into_iter()
            .map(|(program, hook)| attach_one(program_mut(ebpf, program)?, hook, links));
        Ok(Self::Held(held.collect::<Result<_, _>>()?))
    }

    /// What is not as it was attached, one sentence each.
    pub(super) fn drift(&self) -> Vec<String> {
        match self {
            Self::Held(held) => held.iter().filter_map(Held::drift).collect(),
            Self::Absent(_) => Vec::new(),
        }
    }
}

impl std::fmt::Display for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(held) => {
                let names: Vec<&str> = held.iter().map(|held| held.hook).collect();
                write!(f, "security hooks (BPF LSM): {}", names.join(", "))
            }
            Self::Absent(why) => write!(f, "security hooks (BPF LSM): none, {why}"),
        }
    }
}

impl Held {
    fn drift(&self) -> Option<String> {
        let now = sys::open_pin(&self.pin).and_then(|link| sys::program_behind(link.as_fd()));
        match now {
            Ok(now) if now == self.program => None,
            Ok(now) => Some(format!(
                "program {now} stands at the security hook {} instead of ours: somebody replaced it",
                self.hook
            )),
            Err(error) => Some(format!(
                "the link of the security hook {} is gone: {error}",
                self.hook
            )),
        }
    }
}

/// Why nothing at the hooks would be asked; `None` where it would.
///
/// A kernel takes programs for them also where it never asks these, so its own list decides.
#[must_use]
pub fn why_absent() -> Option<String> {
    match std::fs::read_to_string(ACTIVE) {
        Ok(names) if names.trim().split(',').any(|name| name == "bpf") => None,
        Ok(_) => {
            Some("this kernel was booted without them (lsm=…,bpf on its command line)".to_owned())
        }
        Err(error) => Some(format!(
            "whether this kernel asks them cannot be told: {ACTIVE}: {error} (mount -t securityfs securityfs /sys/kernel/security)"
        )),
    }
}

fn load(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let btf = Btf::from_sys_fs().map_err(|error| refused("read the kernel's BTF")(&error))?;
    for (program, hook) in HOOKS {
        let loaded = program_mut(ebpf, program)?.load(hook, &btf);
        loaded.map_err(|error| refused(format!("load {program}"))(&error))?;
    }
    Ok(())
}

fn attach_one(program: &mut Lsm, hook: &'static str, links: &Path) -> Result<Held, KernelError> {
    let fail = |error: ProgramError| refused(format!("attach to the security hook {hook}"))(&error);
    let id = program.info().map_err(fail)?.id();
    let fd = program.fd().map_err(fail)?;
    let link = sys::create_link(fd.as_fd(), Target::Hook, LSM_MAC)
        .map_err(io(format!("attach to the security hook {hook}")))?;
    let pin = links.join(hook);
    pin_over(link.as_fd(), &pin)?;
    Ok(Held {
        hook,
        pin,
        program: id,
    })
}

fn program_mut<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Lsm, KernelError> {
    let program: &mut Program = ebpf.program_mut(name).ok_or_else(|| {
        KernelError::Unsuited(format!(
            "the kernel object has no program {name}: it was not built from this source"
        ))
    })?;
    program
        .try_into()
        .map_err(|error: ProgramError| refused(format!("load {name}"))(&error))
}
