//! The caller's terminal and the one made for the command: bytes and window size go from one to the other, and nothing else.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::typed::{Typed, is_in_foreground, is_nobodys, wants_keys};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

/// So often, and so far apart, nothing of the command's is there to be passed on before all has been, where what it left running holds the terminal.
const QUIET_LOOKS: u32 = 5;
const QUIET_LOOK: Duration = Duration::from_millis(20);
/// More than a terminal of the kernel's holds that was not read yet, bytes: what comes behind is of what it left running.
const HELD_BYTES_MAX: usize = 128 * 1024;
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
    pub(super) fn relay(self) -> Relay {
        let Self { ours, theirs } = self;
        let typed = Typed::to(theirs.as_fd());
        drop(theirs);
        let (ends, all_said) = oneshot::channel();
        let said = Arc::<Said>::default();
        let (from, says) = (Arc::clone(&ours), Arc::clone(&said));
        std::thread::spawn(move || {
            if let Some(to) = callers() {
                says.pass_on(from.as_fd(), to);
            }
            // It is dropped there at the latest, where nobody waits.
            let _ = ends.send(());
        });
        let mut relay = Relay {
            ours,
            raw: None,
            typed: Arc::new(typed),
            is_listening: false,
            said,
            all_said,
        };
        relay.attend();
        relay
    }
}

/// Two terminals that are connected. The caller's is as it was once this is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    ours: Arc<OwnedFd>,
    /// How the caller's terminal was where it was changed, and how it was then.
    raw: Option<(Termios, Termios)>,
    typed: Arc<Typed>,
    /// Whether what is typed is passed on.
    is_listening: bool,
    said: Arc<Said>,
    /// Ends when the command's terminal has nothing more to say.
    all_said: oneshot::Receiver<()>,
}

impl Relay {
    /// Passes on what is typed while this process is in the foreground of its terminal: in the background whoever reads one, or changes it, is stopped. A shell
    /// has the terminal as it likes meanwhile, and in a pipeline the next program has it, but while the command wants it.
    pub(super) fn attend(&mut self) {
        if !io::stdin().is_terminal() {
            return;
        }
        if !is_in_foreground() {
            // The shell has it as it likes.
            self.typed.is_raw.store(false, Relaxed);
            return;
        }
        // Whoever has changed it meanwhile has it as they like.
        self.raw.take_if(|(_, raw)| !is_as(raw));
        let is_raw = self.raw.is_some();
        self.typed.is_raw.store(is_raw, Relaxed);
        let is_shared = !io::stdout().is_terminal();
        if !is_raw && (!is_shared || (is_nobodys() && wants_keys(self.ours.as_fd()))) {
            self.make_raw();
        } else if is_raw && is_shared && !wants_keys(self.ours.as_fd()) {
            self.give_back();
        }
        if !self.is_listening {
            self.is_listening = true;
            let (to, typed) = (Arc::clone(&self.ours), Arc::clone(&self.typed));
            // It ends with this process.
            std::thread::spawn(move || typed.pass_on(to.as_fd()));
        }
    }

    /// It was stopped, and goes on.
    pub(super) fn resume(&mut self) {
        self.typed.is_raw.store(false, Relaxed);
        self.attend();
    }

    /// All that is typed is the command's terminal's to understand.
    fn make_raw(&mut self) {
        let Ok(now) = tcgetattr(rustix::stdio::stdin()) else {
            return;
        };
        let mut raw = now.clone();
        raw.make_raw();
        if !io::stdout().is_terminal() {
            // What else writes to it, such as the next program of a pipeline, has its lines end as before.
            raw.output_modes = now.output_modes;
        }
        // What was typed ahead is kept. One that cannot be changed has gone, which its reader hears as well.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw);
        self.raw = Some((now, raw));
        self.typed.is_raw.store(true, Relaxed);
    }

    /// Gives the command's terminal the size that the caller's has now.
    pub(super) fn resize(&self) {
        if let Some(size) = callers().and_then(|callers| tcgetwinsize(callers).ok()) {
            // A size that is not passed on is no reason to end.
            let _ = tcsetwinsize(&*self.ours, size);
        }
    }

    /// Gives the caller's terminal back as it was, until [`Relay::resume`].
    pub(super) fn give_back(&mut self) {
        self.typed.is_raw.store(false, Relaxed);
        let given = self.raw.take();
        if let Some((before, _)) = given.filter(|(_, raw)| is_in_foreground() && is_as(raw)) {
            // There is nobody to tell if this fails.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &before);
        }
    }

    /// The command has ended: keys are the caller's terminal's own from now on.
    pub(super) fn end(&mut self) {
        self.typed.is_over.store(true, Relaxed);
        self.give_back();
    }

    /// Waits for what the command has said and was not passed on yet, however slowly it is read, or until this process is told to end.
    pub(super) async fn finish(mut self, told: &mut UnboundedReceiver<Signal>) {
        self.end();
        let at_its_end = self.said.bytes.load(Relaxed);
        let mut quiet = 0;
        while quiet < QUIET_LOOKS {
            tokio::select! {
                _ = &mut self.all_said => return,
                _ = told.recv() => return,
                () = tokio::time::sleep(QUIET_LOOK) => {}
            }
            if self.said.bytes.load(Relaxed) - at_its_end > HELD_BYTES_MAX {
                return;
            }
            let is_quiet = !self.said.is_being_read.load(Relaxed) && !is_readable(&self.ours);
            quiet = if is_quiet { quiet + 1 } else { 0 };
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Whether the caller's terminal is as it was made so.
fn is_as(made: &Termios) -> bool {
    tcgetattr(rustix::stdio::stdin())
        .is_ok_and(|now| now.local_modes == made.local_modes && now.input_modes == made.input_modes)
}

/// Whether something can be read there at once.
fn is_readable(from: &OwnedFd) -> bool {
    let mut looks = [PollFd::new(from, PollFlags::IN)];
    poll(&mut looks, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
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

/// What the command says.
#[derive(Debug, Default)]
struct Said {
    /// How much of it was passed on, bytes.
    bytes: AtomicUsize,
    /// Whether the caller's terminal has not taken all of it yet.
    is_being_read: AtomicBool,
}

impl Said {
    /// Passes it on until either side ends: a terminal does with EIO.
    fn pass_on(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
        let mut chunk = [0; CHUNK_BYTES];
        while let Some(count) = read(from, &mut chunk) {
            self.is_being_read.store(true, Relaxed);
            let is_written = write_all(to, &chunk[..count]);
            self.bytes.fetch_add(count, Relaxed);
            self.is_being_read.store(false, Relaxed);
            if !is_written {
                return;
            }
        }
    }
}

/// Reads what there is; nothing where there will be no more.
fn read(from: BorrowedFd<'_>, chunk: &mut [u8]) -> Option<usize> {
    loop {
        match rustix::io::read(from, &mut *chunk) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return None,
            Ok(count) => return Some(count),
        }
    }
}

/// Whether all could be written.
pub(super) fn write_all(to: BorrowedFd<'_>, mut left: &[u8]) -> bool {
    while !left.is_empty() {
        match rustix::io::write(to, left) {
            Err(Errno::INTR) => {}
            // Others who have it may have asked not to wait; it is not for us to take that back.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Ok(0) | Err(_) => return false,
            Ok(count) => left = &left[count..],
        }
    }
    true
}
