//! Running a command as an agent. A child of ours joins the workload and becomes the command; this process stays outside, in the caller's
//! session, and passes on: bytes between the caller's terminal and the command's own, signals, and the exit code.

mod confine;
mod inside;
mod terminal;

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};

use anyhow::Context;
use enforcer_proto::principal::AgentName;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, ask};
use crate::client_setup;
use crate::config::Config;
use crate::roots;
use terminal::{Relay, Terminal};

/// What is to be run, and for whom.
pub(super) struct Run<'a> {
    pub(super) socket: &'a Path,
    pub(super) json: bool,
    pub(super) agent: &'a AgentName,
    /// Further variables of the caller's environment that the command gets.
    pub(super) keep_env: &'a [String],
    /// Whether this is the child.
    pub(super) is_inside: bool,
    pub(super) command: &'a [OsString],
}

/// Runs the command to its end, and gives its exit code: that of a shell where a signal ended it.
pub(super) fn run(run: &Run<'_>) -> Result<ExitCode, Failure> {
    if run.is_inside {
        inside::become_command(run.socket, run.agent, run.keep_env, run.command)?;
    }
    let status = ask::runtime()?.block_on(outside(run))?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    let code = code.and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(super::EXIT_ERROR)))
}

async fn outside(run: &Run<'_>) -> anyhow::Result<ExitStatus> {
    let terminal = Terminal::replacing_the_callers().context("making a terminal")?;
    let mut child = child(run, terminal.as_ref()).context("starting a process")?;
    let relay = terminal
        .map(Terminal::relay)
        .transpose()
        .context("connecting the terminals")?;
    let status = ended(&mut child, relay.as_ref()).await?;
    if let Some(relay) = relay {
        relay.finish();
    }
    Ok(status)
}

/// Starts this program again, as the half that becomes the command.
fn child(run: &Run<'_>, terminal: Option<&Terminal>) -> std::io::Result<Child> {
    let mut command = tokio::process::Command::new("/proc/self/exe");
    command.arg("--socket").arg(run.socket);
    if run.json {
        command.arg("--json");
    }
    command
        .args(["run", "--inside", "--agent", run.agent.as_str()])
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
async fn ended(child: &mut Child, relay: Option<&Relay>) -> anyhow::Result<ExitStatus> {
    let pid = child
        .id()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let mut resized = signal(SignalKind::window_change())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    loop {
        let passed_on = tokio::select! {
            status = child.wait() => return Ok(status?),
            _ = resized.recv() => {
                if let Some(relay) = relay {
                    relay.resize();
                }
                continue;
            }
            _ = terminated.recv() => Signal::TERM,
            _ = interrupted.recv() => Signal::INT,
            _ = hung_up.recv() => Signal::HUP,
            _ = quit.recv() => Signal::QUIT,
        };
        // The child leads a group of its own as soon as it has left our session. One that has ended needs no signal.
        if let Some(pid) = pid
            && kill_process_group(pid, passed_on).is_err()
        {
            let _ = kill_process(pid, passed_on);
        }
    }
}

/// Sets clients up on this host, and says what that changes.
pub(super) fn client_setup(
    config: &Path,
    sdk: Option<&Path>,
    env_file: Option<&Path>,
    dry_run: bool,
    json: bool,
) -> anyhow::Result<()> {
    let config = Config::load(config)?;
    let files = client_setup::Files::in_run_dir(&config.run_dir);
    let roots = roots::system(&files.bundle);
    for change in client_setup::plan(&files, &roots, sdk, env_file)? {
        if change.is_needed() && !dry_run {
            change.apply()?;
        }
        say(&change, dry_run, json);
    }
    Ok(())
}

fn say(change: &client_setup::Change, dry_run: bool, json: bool) {
    let (path, is_needed) = (change.path.display(), change.is_needed());
    if json {
        let done = is_needed && !dry_run;
        println!(
            "{}",
            serde_json::json!({"path": change.path, "changes": is_needed, "written": done, "diff": change.shown()})
        );
    } else if !is_needed {
        println!("unchanged: {path}");
    } else if dry_run {
        print!("would write {path}:\n{}", change.shown());
    } else {
        print!("wrote {path}:\n{}", change.shown());
    }
}
