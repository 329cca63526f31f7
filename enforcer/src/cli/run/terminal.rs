//! The caller's terminal and the one made for the command: bytes and window size go from one to the other, and nothing else.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

/// How long the command's last words may take to be passed on after it has ended. What it left running may hold the terminal for longer.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How much is passed on at once, bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// A terminal for the command, in place of the caller's.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Our end.
    ours: Arc<OwnedFd>,
    /// The command's end.
    theirs: OwnedFd,
}

impl Terminal {
    /// A new terminal, where the caller has one at all.
    pub(super) fn replacing_the_callers() -> io::Result<Option<Self>> {
        let Some(callers) = callers() else {
            return Ok(None);
        };
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        tcsetwinsize(&ours, tcgetwinsize(callers)?)?;
        Ok(Some(Self {
            ours: Arc::new(ours),
            theirs,
        }))
    }

    /// What the command gets in place of one of the caller's streams: a terminal is replaced, all else is passed on.
    pub(super) fn in_place_of(&self, stream: &impl IsTerminal) -> io::Result<Stdio> {
        Ok(if stream.is_terminal() {
            self.theirs.try_clone()?.into()
        } else {
            Stdio::inherit()
        })
    }

    /// Passes on between the terminals until the relay is dropped. The command has been started: its end is let go of here.
    pub(super) fn relay(self) -> io::Result<Relay> {
        let Self { ours, theirs } = self;
        drop(theirs);
        let raw = if io::stdin().is_terminal() {
            let saved = tcgetattr(rustix::stdio::stdin())?;
            let mut raw = saved.clone();
            raw.make_raw();
            // What was typed ahead is kept.
            tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw)?;
            let to = Arc::clone(&ours);
            // It ends with this process: nothing else ends a read of a terminal.
            std::thread::spawn(move || pass_on(rustix::stdio::stdin(), to.as_fd()));
            Some(saved)
        } else {
            None
        };
        let (said, all_said) = channel();
        let from = Arc::clone(&ours);
        std::thread::spawn(move || {
            if let Some(to) = callers() {
                pass_on(from.as_fd(), to);
            }
            drop(said);
        });
        Ok(Relay {
            ours,
            raw,
            all_said,
        })
    }
}

/// Two terminals that are connected. The caller's is as it was once this is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    ours: Arc<OwnedFd>,
    /// How the caller's terminal was, where it was changed.
    raw: Option<Termios>,
    /// Ends when the command's terminal has nothing more to say.
    all_said: Receiver<()>,
}

impl Relay {
    /// Gives the command's terminal the size that the caller's has now.
    pub(super) fn resize(&self) {
        if let Some(size) = callers().and_then(|callers| tcgetwinsize(callers).ok()) {
            // A size that is not passed on is no reason to end.
            let _ = tcsetwinsize(&*self.ours, size);
        }
    }

    /// Waits for what the command has said and was not passed on yet.
    pub(super) fn finish(self) {
        let _ = self.all_said.recv_timeout(LAST_WORDS);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = &self.raw {
            // There is nobody left to tell if this fails.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, saved);
        }
    }
}

/// The caller's terminal: the first of its streams that is one, output before input.
fn callers() -> Option<BorrowedFd<'static>> {
    if io::stdout().is_terminal() {
        Some(rustix::stdio::stdout())
    } else if io::stderr().is_terminal() {
        Some(rustix::stdio::stderr())
    } else if io::stdin().is_terminal() {
        Some(rustix::stdio::stdin())
    } else {
        None
    }
}

/// Passes bytes on until either side ends: a terminal does with EIO.
fn pass_on(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match rustix::io::read(from, chunk.as_mut_slice()) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let mut left = &chunk[..count];
        while !left.is_empty() {
            match rustix::io::write(to, left) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => return,
                Ok(count) => left = &left[count..],
            }
        }
    }
}
