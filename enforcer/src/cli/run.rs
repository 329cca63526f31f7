//! Running a command as an agent. A child of ours joins the workload and becomes the command; this process stays outside, in the caller's
//! session, and passes on: bytes between the caller's terminal and the command's own, signals, and the exit code.

mod confine;
mod inside;
pub(super) mod sandbox;
mod terminal;

use std::ffi::OsString;
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
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::wait::{self, Pending};
use super::{Failure, ask};
use crate::workload;
use terminal::{Relay, Terminal};

/// What ends a command unless it sees to it itself, and is passed on to it.
const PASSED_ON: [Signal; 6] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];
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
    /// Whether the command is to be in a sandbox.
    pub(super) is_sandboxed: bool,
    pub(super) command: &'a [OsString],
}

/// Runs the command to its end, and gives its exit code: that of a shell where a signal ended it.
pub(super) fn run(run: &Run<'_>) -> Result<ExitCode, Failure> {
    if run.is_inside {
        inside::become_command(run)?;
    }
    if run.is_sandboxed {
        // Before anybody is asked for a window that nothing could be done with.
        sandbox::Sandbox::here()?;
    }
    let status = ask::runtime()?.block_on(async {
        let Some(terms) = run.terms else {
            return Ok::<_, Failure>(outside(run, None).await?);
        };
        let grant = window(run, terms).await?;
        let status = outside(run, Some(grant.request)).await?;
        give_back(run.socket, &grant).await;
        Ok(status)
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

async fn outside(run: &Run<'_>, window_of: Option<RequestId>) -> anyhow::Result<ExitStatus> {
    let terminal = Terminal::replacing_the_callers().context("making a terminal")?;
    let mut child = child(run, terminal.as_ref(), window_of).context("starting a process")?;
    let mut relay = terminal.map(Terminal::relay);
    let status = ended(&mut child, run.is_sandboxed, relay.as_mut()).await?;
    if let Some(relay) = relay {
        relay.finish();
    }
    Ok(status)
}

/// Starts this program again, as the half that becomes the command.
fn child(
    run: &Run<'_>,
    terminal: Option<&Terminal>,
    window_of: Option<RequestId>,
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

/// Waits for the command's end, passing on signals and the size of the window.
async fn ended(
    child: &mut Child,
    is_sandboxed: bool,
    mut relay: Option<&mut Relay>,
) -> anyhow::Result<ExitStatus> {
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let mut resized = signal(SignalKind::window_change())?;
    let mut signals = signals()?;
    let mut resumed = signal(SignalKind::from_raw(libc::SIGCONT))?;
    // A shell that brings a job to the foreground says so to none that runs.
    let mut look = tokio::time::interval(FOREGROUND_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let passed_on = tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = resized.recv() => {
                if let Some(relay) = &relay {
                    relay.resize();
                }
                continue;
            }
            _ = resumed.recv() => {
                if let Some(relay) = &mut relay {
                    relay.resume();
                }
                continue;
            }
            _ = look.tick(), if relay.is_some() => {
                if let Some(relay) = &mut relay {
                    relay.attend();
                }
                continue;
            }
            Some(signal) = signals.recv() => signal,
        };
        // The child leads a group of its own as soon as it has left our session. One that has ended needs no signal.
        if let Some(pid) = pid
            && kill_process_group(group(pid, is_sandboxed), passed_on).is_err()
        {
            let _ = kill_process(pid, passed_on);
        }
    }
}

/// What this process is told, and has the command told.
fn signals() -> std::io::Result<mpsc::UnboundedReceiver<Signal>> {
    let (to, signals) = mpsc::unbounded_channel();
    for passed_on in PASSED_ON {
        let mut comes = signal(SignalKind::from_raw(passed_on.as_raw()))?;
        let to = to.clone();
        tokio::spawn(
            async move { while comes.recv().await.is_some() && to.send(passed_on).is_ok() {} },
        );
    }
    Ok(signals)
}

/// The group of the command's that signals are for. In a sandbox the child is bubblewrap, whose child is the first process in it, and that one's child is
/// the command: a shell with jobs is in another group than those two.
fn group(child: Pid, is_sandboxed: bool) -> Pid {
    if !is_sandboxed {
        return child;
    }
    let command = first_child(child).and_then(first_child);
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
