//! Until when the daemon's own connections may say anything: told to the kernel, which holds the daemon to it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::load::DEADLINES;
use super::{KernelError, refused, sys};

/// Tells the kernel. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Deadlines(Arc<OwnedFd>);

impl Deadlines {
    pub(super) fn open(maps: &Path) -> Result<Self, KernelError> {
        let map = sys::open_pin(&maps.join(DEADLINES))
            .map_err(|error| refused(format!("open the map {DEADLINES}"))(&error))?;
        Ok(Self(Arc::new(map)))
    }
}

impl crate::upstream::Deadlines for Deadlines {
    fn set(&self, socket: BorrowedFd<'_>, boot_ns: u64) -> io::Result<()> {
        sys::leave_with_socket(self.0.as_fd(), socket, boot_ns)
    }
}
