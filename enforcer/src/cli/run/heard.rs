//! Which signals are heard, and by whom: those that end a command are passed on to it, and what stops a job of a shell's stops both.
#![expect(
    unsafe_code,
    reason = "what becomes of a signal has no safe binding: code may be run in the middle of other code"
)]

use std::io;

use rustix::process::{Pid, Signal};
use tokio::signal::unix::{Signal as Comes, SignalKind, signal};
use tokio::sync::mpsc;

/// What ends a command unless it sees to it itself, and is passed on to it.
const PASSED_ON: [Signal; 6] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// What `enforcer run` hears from now on.
#[derive(Debug)]
pub(super) struct Heard {
    /// The size of its terminal is another.
    pub(super) resized: Comes,
    /// It was stopped, and goes on.
    pub(super) resumed: Comes,
    /// It is to stop; nothing where it was started not to hear that.
    pub(super) stops: Option<Comes>,
    /// What the command is to be told.
    pub(super) passed_on: mpsc::UnboundedReceiver<Signal>,
}

impl Heard {
    pub(super) fn begin() -> io::Result<Self> {
        let comes = |which: Signal| signal(SignalKind::from_raw(which.as_raw()));
        let is_deaf_to_stops = is_ignored(rustix::process::getpid(), Signal::TSTP);
        let (to, passed_on) = mpsc::unbounded_channel();
        for which in PASSED_ON {
            let mut comes = comes(which)?;
            let to = to.clone();
            tokio::spawn(
                async move { while comes.recv().await.is_some() && to.send(which).is_ok() {} },
            );
        }
        Ok(Self {
            resized: comes(Signal::WINCH)?,
            resumed: comes(Signal::CONT)?,
            stops: (!is_deaf_to_stops)
                .then(|| comes(Signal::TSTP))
                .transpose()?,
            passed_on,
        })
    }

    /// Waits until this process is to stop.
    pub(super) async fn stops(stops: &mut Option<Comes>) {
        match stops {
            Some(stops) => drop(stops.recv().await),
            None => std::future::pending().await,
        }
    }
}

/// Has this process, and what it starts and becomes, hear of the end of its children, whoever has started it not to: bubblewrap waits for that.
pub(super) fn hear_of_children() {
    // SAFETY: no code of ours runs in a handler: what is set is what the kernel itself does.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}

/// Stops this process, as it would have been without [`Heard`]. Gives when it goes on, at once where the kernel stops none since nobody is there to let it go on.
pub(super) fn stop() {
    let number = Signal::TSTP.as_raw();
    // SAFETY: no code of ours runs in a handler: what is set is what the kernel itself does, and then again what was set before.
    unsafe {
        let as_the_kernel: libc::sigaction = std::mem::zeroed();
        let mut before = as_the_kernel;
        if libc::sigaction(number, &as_the_kernel, &raw mut before) == 0 {
            libc::raise(number);
            libc::sigaction(number, &before, std::ptr::null_mut());
        }
    }
}

/// From now on this process, and what it becomes, hears none of what is passed on: bubblewrap does not end by it, so that the command in its sandbox ends as
/// it chooses to, and says so by its exit code. What comes until the command hears it again is kept by `enforcer run`. Gives what it has not heard before
/// either, as a command of nohup's.
pub(super) fn become_deaf() -> Vec<i32> {
    let numbers = PASSED_ON.map(Signal::as_raw).into_iter();
    // SAFETY: no code of ours runs in a handler: what is set is what the kernel itself does. These may be set, so that it cannot fail.
    let before = |number: &i32| unsafe { libc::signal(*number, libc::SIG_IGN) } == libc::SIG_IGN;
    numbers.filter(before).collect()
}

/// The command hears it again, but for what it was not to hear from the start.
pub(super) fn hear_but_for(unheard: &[i32]) {
    let numbers = PASSED_ON.map(Signal::as_raw).into_iter();
    for number in numbers.filter(|number| !unheard.contains(number)) {
        // SAFETY: as above.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// Whether a process does not hear a signal. One of which that is not known does.
pub(super) fn is_ignored(process: Pid, which: Signal) -> bool {
    let path = format!("/proc/{}/status", process.as_raw_nonzero());
    let status = std::fs::read_to_string(path).unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.is_some_and(|bits| bits & (1 << (which.as_raw() - 1)) != 0)
}
