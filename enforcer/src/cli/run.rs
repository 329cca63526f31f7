//! Running a command as an agent. A child of ours joins the workload and becomes the command; this process stays outside, in the caller's
//! session, and passes on: bytes between the caller's terminal and the command's own, signals, and the exit code.

mod confine;
mod heard;
mod inside;
pub(super) mod sandbox;
mod terminal;
pub(super) mod tie;
mod typed;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context;
use enforcer_proto::id::RequestId;
use enforcer_proto::policy::Ask as Terms;
use enforcer_proto::principal::AgentName;
use enforcer_proto::refusal::Code;
use enforcer_proto::wire::{Ask, GrantView, Reply};
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use tokio::process::Child;
use tokio::time::MissedTickBehavior;

use super::wait::{self, Pending};
use super::{Failure, ask};
use crate::workload;
use heard::Heard;
use terminal::{Relay, Terminal};
use tie::{Runner, Tie};

/// How often it is looked whether a command that was started in the background is in the foreground by now.
const FOREGROUND_LOOK: Duration = Duration::from_millis(200);

/// What is to be run, and for whom.
pub(super) struct Run<'a> {
    pub(super) socket: &'a Path,
    pub(super) json: bool,
    pub(super) agent: &'a AgentName,
    /// Further variables of the caller's environment that the command gets.
    pub(super) keep_env: &'a [String],
    /// All that the command gets besides `PATH`, as NAME=VALUE; what clients need as well when empty.
    pub(super) only_env: &'a [String],
    /// The window that the command needs, where it is to be asked for.
    pub(super) terms: Option<&'a Terms>,
    /// The request that the child was started for.
    pub(super) window_of: Option<RequestId>,
    /// Whether this is the child.
    pub(super) is_inside: bool,
    /// By which number the child was handed its [`Tie`], where it was started by this.
    pub(super) tie: Option<RawFd>,
    /// Whether the command is to be in a sandbox.
    pub(super) is_sandboxed: bool,
    pub(super) command: &'a [OsString],
}

/// Runs the command to its end, and gives its exit code: that of a shell where a signal ended it.
pub(super) fn run(run: &Run<'_>) -> Result<ExitCode, Failure> {
    heard::hear_of_children();
    if run.is_inside {
        inside::become_command(run)?;
    }
    if run.is_sandboxed {
        // Before anybody is asked for a window that nothing could be done with.
        sandbox::Sandbox::here()?;
        sandbox::streams_are_let_in()?;
    }
    let status = ask::runtime()?.block_on(async {
        let Some(terms) = run.terms else {
            return Ok::<_, Failure>(outside(run, None).await?);
        };
        let grant = window(run, terms).await?;
        Ok(outside(run, Some(&grant)).await?)
    })?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(super::EXIT_ERROR)))
}

/// Asks for the command's window, and waits for the decision. Whatever becomes of this process, the window ends with it: the daemon sees to that.
async fn window(run: &Run<'_>, terms: &Terms) -> Result<GrantView, Failure> {
    let mut client = ask::connect(run.socket).await?;
    let asked = Ask::RequestForRun {
        agent: run.agent.clone(),
        ask: terms.clone(),
    };
    match ask::asked(run.socket, &mut client, &asked).await? {
        Reply::Requested {
            grant: Some(grant), ..
        } => Ok(grant),
        Reply::Requested {
            request,
            grant: None,
            wanting,
            expires_in_ns,
        } => {
            let pending = Pending::new(request, wanting.as_deref(), expires_in_ns);
            wait::decided(run.socket, &mut client, &pending).await
        }
        Reply::Opened(_)
        | Reply::Counted(_)
        | Reply::Notified(_)
        | Reply::Checked(_)
        | Reply::GivenBack(_)
        | Reply::Done
        | Reply::Status(_)
        | Reply::Records(_)
        | Reply::Joined(_)
        | Reply::Refused(_) => Err(ask::something_else("the request's number")),
    }
}

/// Gives the window back before this process ends, so that it is closed when the caller goes on. One that has closed by itself needs nothing.
async fn give_back(socket: &Path, grant: &GrantView) {
    let close = Ask::Close { grant: grant.grant };
    match ask::ask_once(socket, &close).await {
        Ok(_) => {}
        Err(Failure::Refused(refusal)) if refusal.code == Code::NotOpen => {}
        Err(Failure::Refused(refusal)) => {
            eprintln!(
                "enforcer: window {} was not given back: {refusal}",
                grant.grant
            );
        }
        Err(
            Failure::Unreachable(..) | Failure::Usage(_) | Failure::NotRun(..) | Failure::Other(_),
        ) => {
            eprintln!(
                "enforcer: the daemon was not reached to give back window {}; it ends with this process",
                grant.grant
            );
        }
    }
}

async fn outside(run: &Run<'_>, window: Option<&GrantView>) -> anyhow::Result<ExitStatus> {
    let terminal = Terminal::replacing_the_callers().context("making a terminal")?;
    let (mut tie, theirs) = tie::pair().context("making a pair of sockets")?;
    let window_of = window.map(|grant| grant.request);
    let started = child(run, terminal.as_ref(), window_of, &theirs);
    let mut child = started.context("starting a process")?;
    drop(theirs);
    // What is not to be heard from the start, the child does not hear either: it has this from the system, and not from here.
    let mut heard = Heard::begin().context("listening for signals")?;
    let mut job = Job {
        pid: child
            .id()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)),
        is_sandboxed: run.is_sandboxed,
        hears: !run.is_sandboxed,
        untold: Vec::new(),
        relay: terminal.map(Terminal::relay),
    };
    let status = job.ended(&mut child, &mut heard, &mut tie).await;
    if let Some(relay) = &mut job.relay {
        relay.end();
    }
    if let Some(grant) = window {
        // A daemon that does not answer has it end with this process.
        tokio::select! {
            () = give_back(run.socket, grant) => {}
            _ = heard.passed_on.recv() => {}
        }
    }
    if let Some(relay) = job.relay {
        relay.finish(&mut heard.passed_on).await;
    }
    Ok(status?)
}

/// Starts this program again, as the half that becomes the command.
fn child(
    run: &Run<'_>,
    terminal: Option<&Terminal>,
    window_of: Option<RequestId>,
    tie: &Tie,
) -> std::io::Result<Child> {
    let mut command = tokio::process::Command::new("/proc/self/exe");
    // As a command has it whose folder is another: a sandbox's, or one that it goes to.
    command
        .arg("--socket")
        .arg(std::path::absolute(run.socket)?);
    if run.json {
        command.arg("--json");
    }
    command.args(["run", "--inside", "--agent", run.agent.as_str()]);
    command.arg("--tie").arg(tie.hand_over()?.to_string());
    if run.is_sandboxed {
        command.arg("--sandbox");
    }
    if let Some(request) = window_of {
        command.arg("--window-of").arg(request.to_string());
    }
    command
        .args(run.keep_env.iter().flat_map(|name| ["--keep-env", name]))
        .arg("--")
        .args(run.command);
    if let Some(terminal) = terminal {
        command
            .stdin(terminal.in_place_of(&std::io::stdin())?)
            .stdout(terminal.in_place_of(&std::io::stdout())?)
            .stderr(terminal.in_place_of(&std::io::stderr())?);
    } else {
        command.stdin(Stdio::inherit());
    }
    command.spawn()
}

/// The command that is run, as a job of the caller's.
struct Job {
    /// The child: none where it has ended already.
    pid: Option<Pid>,
    is_sandboxed: bool,
    /// Whether it hears what is passed on. In a sandbox only the command does, once it is there.
    hears: bool,
    /// What it is to hear by then.
    untold: Vec<Signal>,
    relay: Option<Relay>,
}

impl Job {
    /// Waits for the command's end, passing on signals and the size of the window.
    async fn ended(
        &mut self,
        child: &mut Child,
        heard: &mut Heard,
        tie: &mut Runner,
    ) -> std::io::Result<ExitStatus> {
        // A shell that brings a job to the foreground says so to none that runs.
        let mut look = tokio::time::interval(FOREGROUND_LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                status = child.wait() => return status,
                () = tie.is_heard(), if !self.hears => {
                    self.hears = true;
                    for signal in std::mem::take(&mut self.untold) {
                        self.pass_on(signal);
                    }
                }
                Some(signal) = heard.passed_on.recv() => self.pass_on(signal),
                () = Heard::stops(&mut heard.stops) => self.stop(),
                _ = heard.resized.recv() => {
                    if let Some(relay) = &self.relay {
                        relay.resize();
                    }
                }
                _ = heard.resumed.recv() => self.resume(),
                _ = look.tick(), if self.relay.is_some() => {
                    if let Some(relay) = &mut self.relay {
                        relay.attend();
                    }
                }
            }
        }
    }

    /// Tells the command, or keeps it until it hears.
    fn pass_on(&mut self, signal: Signal) {
        if !self.hears {
            if !self.untold.contains(&signal) {
                self.untold.push(signal);
            }
            return;
        }
        // The child leads a group of its own as soon as it has left our session. One that has ended needs no signal.
        if let Some(pid) = self.pid
            && kill_process_group(group(pid, self.is_sandboxed), signal).is_err()
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Stops, the command first, until the shell lets its job go on.
    fn stop(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.give_back();
        }
        let group = self.pid.map(|pid| group(pid, self.is_sandboxed));
        let tell = |signal| {
            if let Some(group) = group {
                let _ = kill_process_group(group, signal);
            }
        };
        tell(Signal::STOP);
        heard::stop();
        tell(Signal::CONT);
        self.resume();
    }

    fn resume(&mut self) {
        if let Some(relay) = &mut self.relay {
            relay.resume();
        }
    }
}

/// The group of the command's that signals are for. In a sandbox the child has bubblewrap for its own, whose child is the first process in it, and that one's
/// child is the command: a shell with jobs is in another group than those.
fn group(child: Pid, is_sandboxed: bool) -> Pid {
    if !is_sandboxed {
        return child;
    }
    let first = first_child(child).and_then(first_child);
    let command = first.and_then(first_child);
    let group = command.and_then(|command| getpgid(Some(command)).ok());
    group.unwrap_or(child)
}

/// The first that a process has started, of those that there are still.
fn first_child(parent: Pid) -> Option<Pid> {
    let parent = u32::try_from(parent.as_raw_nonzero().get()).ok()?;
    let all = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = pids.filter_map(|pid| {
        let stat = workload::stat(pid).ok()?;
        (stat.parent == parent).then_some((stat.start_boot_ns, pid))
    });
    let (_, pid) = children.min()?;
    Pid::from_raw(i32::try_from(pid).ok()?)
}
