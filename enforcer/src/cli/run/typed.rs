//! What is typed at the caller's terminal, and for whom: the command, a shell that has it back, or the next program of a pipeline.

use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, fstat, makedev, open, stat};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgid, getpgrp, getpid, kill_process_group};
use rustix::termios::{LocalModes, SpecialCodeIndex, tcgetattr, tcgetpgrp, tcgetsid};

use super::FOREGROUND_LOOK;
use super::heard::is_ignored;
use super::terminal::write_all;

/// How much is passed on at once, bytes.
const CHUNK_BYTES: usize = 4096;
/// A terminal as it is made: it gives lines, and shows them.
const AS_MADE: LocalModes = LocalModes::ICANON.union(LocalModes::ECHO);

/// What is typed at the caller's terminal.
#[derive(Debug, Default)]
pub(super) struct Typed {
    /// Whether that is changed for the command now.
    pub(super) is_raw: AtomicBool,
    /// Whether the command has ended: nothing is read for it any more.
    pub(super) is_over: AtomicBool,
    /// The command's end of its own, as the kernel knows it.
    theirs: Option<(u64, u64)>,
}

impl Typed {
    /// For the command whose end of a terminal this is.
    pub(super) fn to(theirs: BorrowedFd<'_>) -> Self {
        let theirs = fstat(theirs).ok();
        Self {
            theirs: theirs.map(|found| (found.st_dev, found.st_rdev)),
            ..Self::default()
        }
    }

    /// Passes on what is typed while it is the command's, until either terminal has gone.
    pub(super) fn pass_on(&self, to: BorrowedFd<'_>) {
        let stdin = rustix::stdio::stdin();
        let own = not_waiting().ok();
        let from = own.as_ref().map_or(stdin, AsFd::as_fd);
        let wait = Timespec {
            tv_sec: 0,
            tv_nsec: FOREGROUND_LOOK.subsec_nanos().into(),
        };
        loop {
            let mut typed = [PollFd::new(&from, PollFlags::IN)];
            let is_typed = match poll(&mut typed, Some(&wait)) {
                Ok(0) | Err(Errno::INTR) => continue,
                // Of a terminal that has gone its reader hears.
                Ok(_) | Err(_) => self.is_for_command(),
            };
            if !is_typed {
                std::thread::sleep(FOREGROUND_LOOK);
            } else if !self.pass_on_once(from, to) {
                return;
            }
        }
    }

    /// Whether what is typed now is the command's. In a pipeline others may be asking: for a password, which is not shown, or for a key; then it is for them.
    fn is_for_command(&self) -> bool {
        if !is_in_foreground() || self.is_over.load(Relaxed) {
            return false;
        }
        if std::io::stdout().is_terminal() {
            return self.is_raw.load(Relaxed) || is_nobodys();
        }
        let is_wanted = self.is_raw.load(Relaxed) || (is_nobodys() && self.is_waited_for());
        is_wanted && !do_others_wait()
    }

    /// Whether a process waits for what its end of the command's terminal gives. One that cannot be looked at does not.
    fn is_waited_for(&self) -> bool {
        readers().any(|(_, terminal)| Some(terminal) == self.theirs)
    }

    /// Passes on what there is; whether there may be more.
    fn pass_on_once(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
        let mut typed = [0; CHUNK_BYTES];
        let typed = match rustix::io::read(from, &mut typed) {
            Err(Errno::INTR | Errno::AGAIN) => return true,
            Err(_) => return false,
            Ok(count) => &typed[..count],
        };
        if !self.is_raw.load(Relaxed) {
            return pass_on_line(typed, to);
        }
        if typed.is_empty() {
            return false;
        }
        let Some(at) = stops_at(to, typed) else {
            return write_all(to, typed);
        };
        // What was typed behind it goes with it, as with any terminal's key of that kind.
        let is_written = write_all(to, &typed[..at]);
        let _ = kill_process_group(getpgrp(), Signal::TSTP);
        is_written
    }
}

/// Whether another process of the job waits for what is typed at the caller's terminal.
fn do_others_wait() -> bool {
    // `/dev/tty`: whichever is a process's own.
    let own = makedev(5, 0);
    let callers = fstat(rustix::stdio::stdin()).map(|found| found.st_rdev);
    let is_of_job = |pid| getpgid(Pid::from_raw(pid)).is_ok_and(|group| group == getpgrp());
    readers().any(|(pid, (_, terminal))| {
        (callers == Ok(terminal) || terminal == own)
            && pid != getpid().as_raw_nonzero().get()
            && is_of_job(pid)
    })
}

/// The processes that wait in `read()` for a terminal, each with that: its file system and number. Those that cannot be looked at are left out.
fn readers() -> impl Iterator<Item = (i32, (u64, u64))> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let folder = entry.path();
        // The call that it is in, and its arguments (proc_pid_syscall(5)).
        let call = std::fs::read_to_string(folder.join("syscall")).ok()?;
        let mut words = call.split(' ');
        if words.next()?.parse() != Ok(libc::SYS_read) {
            return None;
        }
        let number = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        let file = folder.join(format!("fd/{number}"));
        // Of others nothing is asked: a file system may be long in answering.
        let path = std::fs::read_link(&file).ok()?;
        if !path.starts_with("/dev") {
            return None;
        }
        let found = stat(file).ok()?;
        Some((pid, (found.st_dev, found.st_rdev)))
    })
}

/// Passes on a line. The end of what is typed is a key to the command's terminal.
fn pass_on_line(line: &[u8], to: BorrowedFd<'_>) -> bool {
    if !line.is_empty() {
        return write_all(to, line);
    }
    let end = tcgetattr(to).map(|now| now.special_codes[SpecialCodeIndex::VEOF]);
    end.is_ok_and(|end| write_all(to, &[end]))
}

/// The caller's terminal, opened anew, so that it is never waited for what somebody else has read: whoever has it open as well is asked nothing.
fn not_waiting() -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open("/proc/self/fd/0", flags, Mode::empty())
}

/// Whether the caller's terminal is as terminals are made, so that nobody is asking by it for more than a line.
pub(super) fn is_nobodys() -> bool {
    has(rustix::stdio::stdin(), AS_MADE)
}

/// Whether the command wants keys: it has changed its terminal, as who asks for a password does.
pub(super) fn wants_keys(terminal: BorrowedFd<'_>) -> bool {
    !has(terminal, AS_MADE)
}

fn has(terminal: BorrowedFd<'_>, modes: LocalModes) -> bool {
    tcgetattr(terminal).is_ok_and(|now| now.local_modes.contains(modes))
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

/// Whether this process may read the terminal, and change it: not in the background of its own. One that is not its own has no background, and of one that
/// has gone its reader hears. What else the kernel says is no leave.
pub(super) fn is_in_foreground() -> bool {
    match tcgetpgrp(rustix::stdio::stdin()) {
        Ok(foreground) => foreground == getpgrp(),
        Err(error) => [Errno::NOTTY, Errno::IO].contains(&error),
    }
}
