//! The uplink guard where the kernel has no links to interfaces (before 6.6): a filter of the interface's, put and replaced by netlink.
//!
//! A filter has no descriptor and cannot be pinned. It stays until somebody removes it or its interface goes, whatever becomes of the
//! daemon; the next one finds it by its place and puts its own program there in one step.

use std::io::ErrorKind;

use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
    qdisc_detach_program,
};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use super::{KernelError, io, refused};

/// Before all others: one before ours could let a frame pass for good.
const PRIORITY: u16 = 1;
/// Ours among those of one priority.
const HANDLE: u32 = 1;

/// A filter on an interface's way out, as it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filter {
    /// Its place: lower ones run first.
    pub priority: u16,
    /// Which of those of one priority.
    pub handle: u32,
    /// The program, where it is one.
    pub program: Option<u32>,
}

/// Puts the program before whatever else filters what leaves by an interface.
pub(super) fn put(program: &mut SchedClassifier, interface: &str) -> Result<(), ProgramError> {
    // Where it is there already that is an error as well; where it cannot be, the filter cannot either, and says so.
    let _ = qdisc_add_clsact(interface);
    let handle = TcHandle::from(HANDLE);
    let egress = TcAttachType::Egress;
    let held = SchedClassifierLink::attached(interface, egress, PRIORITY, handle, None)
        .map_err(TcError::IoError)?;
    let link = match program.attach_to_link(held) {
        Ok(link) => link,
        // There is none to replace.
        Err(_) => {
            let options = NlOptions {
                priority: PRIORITY,
                handle,
                classid: None,
            };
            program.attach_with_options(interface, egress, TcAttachOptions::Netlink(options))?
        }
    };
    // The library removes the filter with its link: it is to stay, like what is pinned.
    std::mem::forget(program.take_link(link)?);
    Ok(())
}

/// Whether our program is what runs first.
pub(super) fn is_first(egress: &[Filter], program: u32) -> bool {
    let ours = Filter {
        priority: PRIORITY,
        handle: HANDLE,
        program: Some(program),
    };
    egress.first() == Some(&ours)
}

/// Removes the filters of these programs' names from every interface of this network namespace. Gives the names of the interfaces.
pub(super) fn remove(programs: &[&str]) -> Result<Vec<String>, KernelError> {
    let interfaces = nix::net::if_::if_nameindex()
        .map_err(|error| io("list the network interfaces")(error.into()))?;
    let mut removed = Vec::new();
    for interface in &interfaces {
        let name = interface.name().to_string_lossy();
        for program in programs {
            match qdisc_detach_program(&name, TcAttachType::Egress, program) {
                Ok(()) => removed.push(name.clone().into_owned()),
                Err(TcError::IoError(error)) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(refused(format!("remove the filter of {name}"))(&error));
                }
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_program_before_all_others_is_in_place() {
        let ours = Filter {
            priority: PRIORITY,
            handle: HANDLE,
            program: Some(7),
        };
        let other = Filter { handle: 2, ..ours };
        assert!(is_first(&[ours, other], 7));
        for egress in [&[][..], &[other, ours], &[other]] {
            assert!(!is_first(egress, 7), "{egress:?}");
        }
        assert!(!is_first(&[ours], 8), "somebody's program in our place");
    }
}
