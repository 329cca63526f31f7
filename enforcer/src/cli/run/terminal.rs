//! The caller's terminal and the one made for the command: bytes and window size go from one to the other, and nothing else.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::FOREGROUND_LOOK;
use super::heard::is_ignored;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpgrp, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcgetsid,
    tcgetwinsize, tcsetattr, tcsetwinsize,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

/// How long nothing more of the command's comes before its last words have been passed on, where what it left running holds the terminal.
const LAST_WORDS: Duration = Duration::from_millis(500);
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
            typed: Arc::default(),
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
    /// How the caller's terminal was, where it was changed.
    raw: Option<Termios>,
    typed: Arc<Typed>,
    /// Whether what is typed is passed on.
    is_listening: bool,
    said: Arc<Said>,
    /// Ends when the command's terminal has nothing more to say.
    all_said: oneshot::Receiver<()>,
}

impl Relay {
    /// Passes on what is typed while this process is in the foreground of its terminal: in the background whoever reads one, or changes it, is stopped. A shell
    /// has the terminal as it likes meanwhile, and in a pipeline the next program has it until the command wants it.
    pub(super) fn attend(&mut self) {
        if !io::stdin().is_terminal() {
            return;
        }
        if !is_in_foreground() {
            self.typed.is_raw.store(false, Relaxed);
            return;
        }
        if !self.typed.is_raw.load(Relaxed) && (io::stdout().is_terminal() || self.is_wanted()) {
            self.make_raw();
            self.typed.is_raw.store(true, Relaxed);
        }
        if !self.is_listening {
            self.is_listening = true;
            let (to, typed) = (Arc::clone(&self.ours), Arc::clone(&self.typed));
            // It ends with this process: nothing else ends a read of a terminal.
            std::thread::spawn(move || typed.pass_on(to.as_fd()));
        }
    }

    /// Whether the command wants keys of the terminal that the next program of its pipeline has as well: it has changed its own, as who asks for a password does.
    fn is_wanted(&self) -> bool {
        let as_made = LocalModes::ICANON | LocalModes::ECHO;
        gives_lines(rustix::stdio::stdin()) && !has(self.ours.as_fd(), as_made)
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
        let before = self.raw.get_or_insert(now);
        let mut raw = before.clone();
        raw.make_raw();
        if !io::stdout().is_terminal() {
            // What else writes to it, such as the next program of a pipeline, has its lines end as before.
            raw.output_modes = before.output_modes;
        }
        // What was typed ahead is kept. One that cannot be changed has gone, which its reader hears as well.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw);
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
        if self.typed.is_raw.swap(false, Relaxed)
            && let Some(before) = self.raw.as_ref().filter(|_| is_in_foreground())
        {
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }

    /// Waits for what the command has said and was not passed on yet, however slowly it is read, or until this process is told to end: keys are the terminal's
    /// own by then.
    pub(super) async fn finish(mut self, told: &mut UnboundedReceiver<Signal>) {
        self.typed.is_over.store(true, Relaxed);
        self.give_back();
        let at_its_end = self.said.bytes.load(Relaxed);
        let mut before = at_its_end;
        loop {
            tokio::select! {
                _ = &mut self.all_said => return,
                _ = told.recv() => return,
                () = tokio::time::sleep(LAST_WORDS) => {}
            }
            let now = self.said.bytes.load(Relaxed);
            let is_quiet = now == before && !self.said.is_being_read.load(Relaxed);
            if is_quiet || now - at_its_end > HELD_BYTES_MAX {
                return;
            }
            before = now;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(saved) = self.raw.as_ref().filter(|_| is_in_foreground()) {
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

/// Whether this process may read the terminal, and change it: not in the background of its own. One that is not its own has no background, and of one that
/// has gone its reader hears. What else the kernel says is no leave.
fn is_in_foreground() -> bool {
    match tcgetpgrp(rustix::stdio::stdin()) {
        Ok(foreground) => foreground == getpgrp(),
        Err(error) => [Errno::NOTTY, Errno::IO].contains(&error),
    }
}

/// What is typed at the caller's terminal.
#[derive(Debug, Default)]
struct Typed {
    /// Whether that is changed for the command now.
    is_raw: AtomicBool,
    /// Whether the command has ended: nothing is read for it any more.
    is_over: AtomicBool,
}

impl Typed {
    /// Passes on what is typed while this process is in the foreground.
    fn pass_on(&self, to: BorrowedFd<'_>) {
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: FOREGROUND_LOOK.subsec_nanos().into(),
        };
        loop {
            if !self.is_ours() {
                std::thread::sleep(FOREGROUND_LOOK);
                continue;
            }
            // A shell may have taken the terminal back meanwhile.
            if is_typed(wait) && self.is_ours() && !self.pass_on_once(to) {
                return;
            }
        }
    }

    /// Whether it may be read. One that gives single keys and was not changed for the command was by the next program of the pipeline, a pager, which reads them
    /// and puts it back as it found it.
    fn is_ours(&self) -> bool {
        let gives = self.is_raw.load(Relaxed) || gives_lines(rustix::stdio::stdin());
        gives && is_in_foreground() && !self.is_over.load(Relaxed)
    }

    /// Passes on what there is; whether there may be more.
    fn pass_on_once(&self, to: BorrowedFd<'_>) -> bool {
        let stdin = rustix::stdio::stdin();
        let mut typed = [0; CHUNK_BYTES];
        if self.is_raw.load(Relaxed) {
            let Some(count) = read(stdin, &mut typed) else {
                return false;
            };
            let typed = &typed[..count];
            let Some(at) = stops_at(to, typed) else {
                return write_all(to, typed);
            };
            // What is typed behind it is for whoever has the terminal then.
            let is_written = write_all(to, &typed[..at]);
            let _ = kill_process_group(getpgrp(), Signal::TSTP);
            return is_written;
        }
        match rustix::io::read(stdin, &mut typed) {
            Err(Errno::INTR) => true,
            Err(_) => false,
            // The end of what is typed is a key to the command's terminal.
            Ok(0) => tcgetattr(to)
                .is_ok_and(|now| write_all(to, &[now.special_codes[SpecialCodeIndex::VEOF]])),
            Ok(count) => write_all(to, &typed[..count]),
        }
    }
}

/// Where the key is among those typed that stops a job, if the command's terminal takes it for that and the command's own group would be stopped by it. The
/// kernel stops no group in whose session nobody is left to let it go on, and the command's is such a one; those of a shell in there it does.
fn stops_at(terminal: BorrowedFd<'_>, typed: &[u8]) -> Option<usize> {
    let now = tcgetattr(terminal).ok()?;
    let key = now.special_codes[SpecialCodeIndex::VSUSP];
    if key == 0 || !now.local_modes.contains(LocalModes::ISIG) {
        return None;
    }
    let at = typed.iter().position(|typed| *typed == key)?;
    let leader = tcgetsid(terminal).ok()?;
    let is_its_own = tcgetpgrp(terminal) == Ok(leader);
    (is_its_own && !is_ignored(leader, Signal::TSTP)).then_some(at)
}

/// Whether a terminal has these modes.
fn has(terminal: BorrowedFd<'_>, modes: LocalModes) -> bool {
    tcgetattr(terminal).is_ok_and(|now| now.local_modes.contains(modes))
}

/// Whether a terminal gives what is typed in lines, which it shows and lets be mended.
fn gives_lines(terminal: BorrowedFd<'_>) -> bool {
    has(terminal, LocalModes::ICANON)
}

/// Whether something was typed that can be read, or is within a while. Of a terminal that has gone its reader hears.
fn is_typed(within: Timespec) -> bool {
    let stdin = rustix::stdio::stdin();
    let mut typed = [PollFd::new(&stdin, PollFlags::IN)];
    !matches!(poll(&mut typed, Some(&within)), Ok(0) | Err(Errno::INTR))
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
fn write_all(to: BorrowedFd<'_>, mut left: &[u8]) -> bool {
    while !left.is_empty() {
        match rustix::io::write(to, left) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(count) => left = &left[count..],
        }
    }
    true
}
