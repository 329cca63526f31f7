//! The kernel's side of enforcement: programs attached and pinned, maps written by one owner, origins and events read.
//!
//! The programs outlive the daemon, and a new daemon swaps them in place. Nothing is ever detached but by [`let_go`], on purpose.
#![expect(
    unsafe_code,
    reason = "the bpf system call has no safe binding for what aya does not offer"
)]

mod before;
mod boot_clock;
mod btf;
mod carried;
mod clsact;
mod deadlines;
mod events;
mod hooks;
mod load;
mod maps;
mod pins;
mod sys;
mod uplinks;

use std::path::PathBuf;

pub use before::{Before, Ours};
pub use boot_clock::check_clock;
pub use clsact::Filter;
pub use deadlines::Deadlines;
pub use events::Events;
pub use hooks::why_absent as why_no_hooks;
pub use load::{Attached, attach, let_go};
pub use maps::{EndpointMaps, Kernel, Namespaces, Origins};
pub use uplinks::{Framing, Interface, Uplink, Uplinks};

use enforcer_proto::wire::Enforce;

use crate::causes::Causes;

/// Where the daemon listens on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The proxy.
    pub proxy: u16,
    /// The answers to agents' questions for names.
    pub names: u16,
    /// What stands in for the metadata server; absent: it is closed to agents and nothing stands in for it.
    pub metadata: Option<u16>,
}

/// Where and how to attach.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// The cgroup the programs attach to: the hierarchy's root.
    pub cgroup_root: PathBuf,
    /// Where maps and links are pinned; on a bpffs.
    pub pin_dir: PathBuf,
    /// The daemon's own cgroup, absolute.
    pub daemon_cgroup: PathBuf,
    /// Where the daemon listens.
    pub ports: Ports,
    /// On whom to enforce, once the agents are known.
    pub enforce: Enforce,
}

/// Attaching failed, or a map could not be written. What was attached before still is.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel is too old, or lacks something.
    #[error("{0}")]
    Unsuited(String),
    /// Not enough rights.
    #[error(
        "cannot {action}: not permitted. Run the daemon as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN"
    )]
    NotPermitted {
        /// What was tried.
        action: String,
    },
    /// Root without what root can do: a container, or a service whose capabilities are bounded.
    #[error(
        "the daemon is root but lacks {missing}: give it what is missing (systemd: CapabilityBoundingSet=, a container: --cap-add), or CAP_SYS_ADMIN"
    )]
    NotCapable {
        /// The capabilities.
        missing: String,
    },
    /// A file operation failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel refused a program or a map.
    #[error("cannot {action}: {why}")]
    Refused {
        /// What was tried.
        action: String,
        /// The chain of causes, the verifier's own words included.
        why: String,
    },
}

/// Turns any of aya's errors into ours, with all its causes: the verifier's log is one of them.
fn refused(
    action: impl Into<String>,
) -> impl FnOnce(&(dyn std::error::Error + 'static)) -> KernelError {
    let action = action.into();
    move |error| {
        let why = Causes(error).to_string();
        if why.contains("Operation not permitted") {
            KernelError::NotPermitted { action }
        } else {
            KernelError::Refused { action, why }
        }
    }
}

fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> KernelError {
    let action = action.into();
    move |source| {
        if source.kind() == std::io::ErrorKind::PermissionDenied {
            KernelError::NotPermitted { action }
        } else {
            KernelError::Io { action, source }
        }
    }
}
