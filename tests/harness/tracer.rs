//! Kills a running program at one of its system calls, from outside: what a power cut or the kernel's killer of processes would do there.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A tracer that waits for the call.
#[derive(Debug)]
pub struct Tracer(Child);

impl Tracer {
    /// Lets whichever thread of `pid` enters `syscall` for the `nth` time from now on be the end of the process.
    ///
    /// # Panics
    /// When it cannot be traced.
    #[must_use]
    pub fn kill_at(pid: u32, syscall: &str, nth: u32) -> Self {
        Self::inject(pid, syscall, &format!("signal=KILL:when={nth}"))
    }

    /// Does something else to a call, in the words of `strace --inject`.
    ///
    /// # Panics
    /// When it cannot be traced.
    #[must_use]
    pub fn inject(pid: u32, syscall: &str, what: &str) -> Self {
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-p", &pid.to_string(), "-e"])
            .arg(format!("trace={syscall}"))
            .args(["-e", &format!("inject={syscall}:{what}")])
            .args(["-o", "/dev/null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = strace.spawn().expect("strace runs: install strace");
        let said = child.stderr.take().expect("piped");
        let mut lines = BufReader::new(said).lines();
        // It says so when every thread is held.
        let attached = lines.find(|line| {
            line.as_ref()
                .is_ok_and(|line| line.contains(&format!("Process {pid} attached")))
        });
        assert!(attached.is_some(), "strace did not attach to {pid}");
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self(child)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process};
        // It lets go of what it traces when it is told to end, and not when it is killed. Where that has died under it, it may wait for ever.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let has_ended = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            matches!(self.0.try_wait(), Ok(Some(_)))
        });
        if !has_ended {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}
