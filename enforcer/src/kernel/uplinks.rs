//! The uplink guard: a program on every interface that leads out of the daemon's network namespace, for frames that no cgroup hook sees.
//!
//! It is pinned like the others and outlives the daemon; an interface that goes takes its link along, and what is left of the pin is removed.
//! Where the kernel has no such links it is a filter instead: see `clsact.rs`.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::programs::{Program, SchedClassifier};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use serde::{Deserialize, Serialize};

use super::clsact::{self, Filter};
use super::load::pin_over;
use super::sys::Target;
use super::{KernelError, io, refused, sys};
use crate::causes::Causes;

/// What a pin of this guard is called; the interface's index follows.
const PIN: &str = "uplink-";
/// `BPF_TCX_EGRESS`.
const TCX_EGRESS: u32 = 47;

/// Whether frames on an interface begin with an Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Framing {
    /// They do.
    Ethernet,
    /// They begin with the packet, as in tunnels.
    None,
}

/// Every program of this guard.
pub(super) const PROGRAMS: [&str; 2] = [Framing::Ethernet.program(), Framing::None.program()];

impl Framing {
    const fn program(self) -> &'static str {
        match self {
            Self::Ethernet => "uplink_frame",
            Self::None => "uplink_packet",
        }
    }
}

/// An interface that leads out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index; not used again while the host is up, unless it wraps.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// How its frames begin.
    pub framing: Framing,
}

impl Interface {
    /// The one that this message is about; none where it leads nowhere but here.
    #[must_use]
    pub fn that_leads_out(link: &LinkMessage) -> Option<Self> {
        if link.header.flags.contains(LinkFlags::Loopback) {
            return None;
        }
        let name = link.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::IfName(name) = attribute {
                Some(name.clone())
            } else {
                None
            }
        })?;
        let framing = if link.header.link_layer_type == LinkLayerType::Ether {
            Framing::Ethernet
        } else {
            Framing::None
        };
        Some(Self {
            index: link.header.index,
            name,
            framing,
        })
    }
}

/// One of them as the guard sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uplink {
    /// The interface.
    pub interface: Interface,
    /// What filters its way out, in the order in which that runs: looked at only where [`Uplinks::reads_filters`].
    pub egress: Vec<Filter>,
}

impl From<Interface> for Uplink {
    fn from(interface: Interface) -> Self {
        Self {
            interface,
            egress: Vec::new(),
        }
    }
}

/// The guard's one owner.
pub struct Uplinks {
    ebpf: Ebpf,
    links: PathBuf,
    /// The interfaces that are guarded, by index.
    guarded: BTreeMap<u32, Guard>,
}

/// What stands on one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guard {
    name: String,
    held: Held,
    /// The program that was put there.
    program: u32,
}

/// How the program is held there.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    /// By a link, which is pinned here.
    Link(PathBuf),
    /// By a filter.
    Filter,
}

impl std::fmt::Debug for Uplinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uplinks")
            .field("guarded", &self.guarded)
            .finish_non_exhaustive()
    }
}

impl Uplinks {
    pub(super) fn load(mut ebpf: Ebpf, links: PathBuf) -> Result<Self, KernelError> {
        for name in PROGRAMS {
            program(&mut ebpf, name)?
                .load()
                .map_err(|error| refused(format!("load {name}"))(&error))?;
        }
        Ok(Self {
            ebpf,
            links,
            guarded: BTreeMap::new(),
        })
    }

    /// Makes these the guarded interfaces. Gives what stands in the way, one sentence each: what is guarded already stays so.
    pub fn set(&mut self, uplinks: &[Uplink]) -> Vec<String> {
        self.guarded.retain(|index, _| {
            uplinks
                .iter()
                .any(|uplink| uplink.interface.index == *index)
        });
        let mut problems = Vec::new();
        for uplink in uplinks {
            if let Err(error) = self.keep(uplink) {
                // Tried again at the next look.
                self.guarded.remove(&uplink.interface.index);
                problems.push(format!(
                    "frames that a capability holder makes can leave by {}: {}",
                    uplink.interface.name,
                    Causes(&error)
                ));
            }
        }
        if let Err(error) = self.remove_stale_pins() {
            problems.push(Causes(&error).to_string());
        }
        problems
    }

    /// Whether the guard can be told only by the interfaces' filters, so that they must be read for [`Uplinks::set`].
    #[must_use]
    pub fn reads_filters(&self) -> bool {
        let is_filter = |guard: &Guard| guard.held == Held::Filter;
        self.guarded.values().any(is_filter)
    }

    /// The names of the guarded interfaces.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.guarded.values().map(|guard| guard.name.as_str())
    }

    /// Guards an interface where it is not guarded yet, and sees that nothing stands in the guard's way.
    fn keep(&mut self, uplink: &Uplink) -> Result<(), KernelError> {
        if let Some(guard) = self.guarded.get(&uplink.interface.index) {
            return in_place(guard, uplink);
        }
        self.guard(uplink)?;
        match self.guarded.get(&uplink.interface.index) {
            // A filter just put is not among those that were read before.
            Some(guard) if guard.held != Held::Filter => in_place(guard, uplink),
            Some(_) | None => Ok(()),
        }
    }

    fn guard(&mut self, uplink: &Uplink) -> Result<(), KernelError> {
        let action = format!("guard {}", uplink.interface.name);
        let pin = self.links.join(format!("{PIN}{}", uplink.interface.index));
        let program = program(&mut self.ebpf, uplink.interface.framing.program())?;
        let id = program
            .info()
            .map_err(|error| refused(&action)(&error))?
            .id();
        let fd = program.fd().map_err(|error| refused(&action)(&error))?;
        let held = if pin.exists() && interface_of(&pin)? == uplink.interface.index {
            let link = sys::open_pin(&pin).map_err(io(&action))?;
            sys::update_link(link.as_fd(), fd.as_fd()).map_err(io(&action))?;
            Held::Link(pin)
        } else {
            match sys::create_link(
                fd.as_fd(),
                Target::Device(uplink.interface.index),
                TCX_EGRESS,
            ) {
                Ok(link) => {
                    pin_over(link.as_fd(), &pin)?;
                    Held::Link(pin)
                }
                Err(error) if is_without_tcx(&error) => {
                    clsact::put(program, &uplink.interface.name)
                        .map_err(|error| refused(&action)(&error))?;
                    Held::Filter
                }
                Err(error) => return Err(io(&action)(error)),
            }
        };
        let guard = Guard {
            name: uplink.interface.name.clone(),
            held,
            program: id,
        };
        self.guarded.insert(uplink.interface.index, guard);
        Ok(())
    }

    /// Removes the pins whose interface is gone.
    fn remove_stale_pins(&self) -> Result<(), KernelError> {
        let action = format!("read {}", self.links.display());
        for entry in std::fs::read_dir(&self.links).map_err(io(&action))? {
            let path = entry.map_err(io(&action))?.path();
            let is_ours = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(PIN));
            let held = Held::Link(path.clone());
            let is_known = self.guarded.values().any(|guard| guard.held == held);
            if is_ours && !is_known && interface_of(&path)? == 0 {
                std::fs::remove_file(&path).map_err(io(format!("remove {}", path.display())))?;
            }
        }
        Ok(())
    }
}

/// Whether the guard is as it was put.
fn in_place(guard: &Guard, uplink: &Uplink) -> Result<(), KernelError> {
    let is_in_place = match &guard.held {
        Held::Link(pin) => {
            let action = format!("read {}", pin.display());
            let link = sys::open_pin(pin).map_err(io(&action))?;
            let now = sys::behind_device(link.as_fd()).map_err(io(&action))?;
            if now.interface == uplink.interface.index && now.program == guard.program {
                return is_first(guard, uplink);
            }
            false
        }
        Held::Filter => clsact::is_first(&uplink.egress, guard.program),
    };
    if is_in_place {
        Ok(())
    } else {
        Err(KernelError::Unsuited(
            "somebody replaced or detached its guard".to_owned(),
        ))
    }
}

/// Whether nobody else's program runs before the guard: one that lets a frame pass ends the chain.
fn is_first(guard: &Guard, uplink: &Uplink) -> Result<(), KernelError> {
    let action = format!("read what stands on {}", uplink.interface.name);
    let target = Target::Device(uplink.interface.index);
    let programs = sys::programs_at(target, TCX_EGRESS).map_err(io(action))?;
    match programs.first() {
        Some(first) if *first == guard.program => Ok(()),
        Some(other) => Err(KernelError::Unsuited(format!(
            "before its guard runs program {other} of somebody else's, which could let them pass: detach it (bpftool net), or restart the daemon after it"
        ))),
        None => Err(KernelError::Unsuited("its guard is not there".to_owned())),
    }
}

/// A kernel before 6.6 does not know this kind of link, and says only that something is invalid.
fn is_without_tcx(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

/// The interface that a pinned link is attached to; zero once it is gone.
fn interface_of(pin: &Path) -> Result<u32, KernelError> {
    let action = format!("read {}", pin.display());
    let link = sys::open_pin(pin).map_err(io(&action))?;
    let behind = sys::behind_device(link.as_fd()).map_err(io(&action))?;
    Ok(behind.interface)
}

fn program<'a>(
    ebpf: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut SchedClassifier, KernelError> {
    let missing = || {
        KernelError::Unsuited(format!(
            "the kernel object has no program {name}: it was not built from this source"
        ))
    };
    let program: &mut Program = ebpf.program_mut(name).ok_or_else(missing)?;
    program
        .try_into()
        .map_err(|error: aya::programs::ProgramError| refused(format!("load {name}"))(&error))
}
