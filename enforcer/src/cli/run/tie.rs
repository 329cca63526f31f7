//! What ties a command to the `enforcer run` that it is run by, until it is that command: a pair of sockets. By its close the one end tells that `enforcer
//! run` has ended; by a word the other that the command hears what is passed on to it.
#![expect(
    unsafe_code,
    reason = "a file that was handed over by its number has no safe way to an owner"
)]

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::AsyncReadExt;

/// The end of the half that becomes the command. It goes with it at the latest.
#[derive(Debug)]
pub(in crate::cli) struct Tie(UnixStream);

/// The end of `enforcer run`.
#[derive(Debug)]
pub(super) struct Runner(tokio::net::UnixStream);

/// Both ends.
pub(super) fn pair() -> io::Result<(Runner, Tie)> {
    let (runner, tie) = UnixStream::pair()?;
    runner.set_nonblocking(true)?;
    let runner = tokio::net::UnixStream::from_std(runner)?;
    Ok((Runner(runner), Tie(tie)))
}

impl Runner {
    /// Waits until the command hears, or is there no more.
    pub(super) async fn is_heard(&mut self) {
        let _ = self.0.read_u8().await;
    }
}

impl Tie {
    /// The one that was handed over by this number, which is none of a standard stream's.
    ///
    /// # Errors
    /// When there is none.
    pub(in crate::cli) fn handed(number: RawFd) -> io::Result<Self> {
        if number <= libc::STDERR_FILENO {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: it is asked about alone, and need not be there.
        let flags = fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
        // What else it might be is not this process's to close.
        // SAFETY: as above.
        let domain = socket_domain(unsafe { BorrowedFd::borrow_raw(number) })?;
        if domain != AddressFamily::UNIX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: it is there, and who has handed it over by its number has it for nothing else.
        let tie = Self(unsafe { OwnedFd::from_raw_fd(number) }.into());
        fcntl_setfd(&tie.0, flags | FdFlags::CLOEXEC)?;
        Ok(tie)
    }

    /// Hands it over to what this process becomes or starts next; by which number.
    pub(super) fn hand_over(&self) -> io::Result<RawFd> {
        fcntl_setfd(&self.0, FdFlags::empty())?;
        Ok(self.0.as_raw_fd())
    }

    /// Whether `enforcer run` is there still.
    pub(super) fn has_runner(&self) -> bool {
        let mut ends = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut ends, Some(&Timespec::default())) == Ok(0)
    }

    /// Waits until a child has ended, or `enforcer run` has: whether that is there still.
    pub(super) fn outlives(&self, child: &std::process::Child) -> io::Result<bool> {
        let child = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
        loop {
            let mut ends = [
                PollFd::new(&child, PollFlags::IN),
                PollFd::new(&self.0, PollFlags::IN),
            ];
            match poll(&mut ends, None) {
                Ok(_) => return Ok(!ends[0].revents().is_empty() || ends[1].revents().is_empty()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells that what is passed on is heard from now on.
    pub(super) fn hears(mut self) {
        // One that has ended passes nothing on.
        let _ = self.0.write_all(&[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_end_tells_the_other_and_one_that_was_handed_over_is_the_same() {
        let (mut runner, tie) = pair().expect("pairs");
        assert!(tie.has_runner());
        let number = tie.hand_over().expect("hands over");
        std::mem::forget(tie);
        let tie = Tie::handed(number).expect("is there");
        assert!(
            fcntl_getfd(&tie.0)
                .expect("is there")
                .contains(FdFlags::CLOEXEC)
        );
        assert!(tie.has_runner());
        tie.hears();
        runner.is_heard().await;
        for none in [-1, 0, 2, number] {
            assert!(Tie::handed(none).is_err(), "{none}");
        }
        let (runner, tie) = pair().expect("pairs");
        drop(runner);
        assert!(!tie.has_runner());
        let (mut runner, tie) = pair().expect("pairs");
        drop(tie);
        runner.is_heard().await;
    }
}
