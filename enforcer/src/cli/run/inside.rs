//! The inner half of `enforcer run`: a process of its own, in a session of its own, that joins the workload, gives up what it may not keep
//! and becomes the command, or stays beside the sandbox that the command is in. Nothing of the caller's reaches the command but what is named here.
#![expect(
    unsafe_code,
    reason = "close_range has no safe binding: it closes what others may own"
)]

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow};
use enforcer_proto::refusal::Code;
use enforcer_proto::wire::{Ask, Reply};
use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};
use rustix::process::{Signal, getpgrp, kill_process_group};

use super::super::{Failure, ask};
use super::Run;
use super::confine::confine;
use super::heard::become_deaf;
use super::sandbox::{self, Sandbox, Shown};
use super::tie::Tie;

/// What a command gets of the caller's environment without being asked for.
const KEPT: [&str; 4] = ["PATH", "LANG", "TERM", "TZ"];
/// Where programs are looked for when the caller has no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How often the workload is joined again where the daemon has no place for one more who asks, and how long after.
const JOIN_TRIES: u32 = 100;
const JOIN_AGAIN: Duration = Duration::from_millis(100);

/// Becomes the command inside the agent's workload. Returns only when that failed.
pub(super) fn become_command(run: &Run<'_>) -> Result<(), Failure> {
    let (program, arguments) = run
        .command
        .split_first()
        .ok_or_else(|| anyhow!("there is no command to run"))?;
    let tie = run.tie.map(Tie::handed).transpose();
    let tie = tie.context("looking for `enforcer run`")?;
    end_with_the_runner(tie.as_ref(), Signal::KILL)?;
    leave_the_callers_session().context("leaving the caller's session")?;
    let reply = ask::runtime()?.block_on(join(run))?;
    let Reply::Joined(joined) = reply else {
        return Err(Failure::Other(anyhow!(
            "the daemon answered something else than the workload"
        )));
    };
    let uid = joined.uid.map_or_else(Uid::current, Uid::from_raw);
    let user = User::from_uid(uid).ok().flatten();
    if run.is_sandboxed && uid.is_root() {
        return Err(Failure::Usage(format!(
            "--sandbox makes no sandbox for root, who could undo it: give agent {} a `uid` in the configuration, or run this as a user other than root",
            run.agent
        )));
    }
    become_user(uid, user.as_ref())?;
    // Whatever the command executes gains nothing by it: no set-user-id program, no file capability.
    rustix::thread::set_no_new_privs(true).context("giving up further privileges")?;
    confine().context("confining the command")?;
    // Set after the uid, which would clear it: whoever ends `enforcer run` ends the command. What has a sandbox end sees to that itself, also where it was
    // stopped with its job.
    let told = if run.is_sandboxed {
        Signal::CONT
    } else {
        Signal::TERM
    };
    end_with_the_runner(tie.as_ref(), told)?;
    close_on_exec_from(3).context("closing the caller's files")?;
    let home = user.map_or_else(|| OsString::from("/"), |user| user.dir.into_os_string());
    let mut environment = if run.only_env.is_empty() {
        environment(
            |name| std::env::var_os(name),
            run.keep_env,
            &home,
            run.socket,
            &joined.env,
        )
    } else {
        only(std::env::var_os("PATH"), run.only_env)
    };
    if run.is_sandboxed {
        let (name, value) = sandbox::CLOUDSDK_CONFIG;
        environment.push((name.into(), value.into()));
    }
    let mut command = if run.is_sandboxed {
        sandbox::streams_are_let_in()?;
        let sandbox = Sandbox::here()?;
        sandbox.is_open_to(uid.as_raw())?;
        let unheard = become_deaf();
        let shown = shown(run.socket, &joined.env);
        let number = tie.as_ref().map(Tie::hand_over).transpose();
        let number = number.context("handing over what ties the command to `enforcer run`")?;
        let (bubblewrap, first) = sandbox.program(shown, &unheard, number)?;
        let mut command = std::process::Command::new(bubblewrap);
        command.args(first).arg(program);
        command
    } else {
        std::process::Command::new(program)
    };
    command.args(arguments).env_clear().envs(environment);
    match tie {
        Some(tie) if run.is_sandboxed => Err(keep(&tie, &mut command)),
        Some(_) | None => {
            let error = command.exec();
            Err(Failure::NotRun(command.get_program().to_owned(), error))
        }
    }
}

/// Starts bubblewrap, and ends as it does; or has all that is of it end where `enforcer run` has: bubblewrap itself leaves half a sandbox behind where its end
/// comes while it makes one. Where this process has become the agent's uid, no other of that uid can look into it or take its files; the kernel sees to that.
fn keep(tie: &Tie, bubblewrap: &mut std::process::Command) -> Failure {
    let ended = match bubblewrap.spawn() {
        Ok(mut child) => match tie.outlives(&child) {
            Ok(true) => child.wait(),
            gone => {
                if let Err(error) = gone {
                    eprintln!("enforcer: the sandbox cannot be watched, and ends: {error}");
                }
                // This process as well.
                let killed = kill_process_group(getpgrp(), Signal::KILL);
                Err(killed
                    .err()
                    .map_or_else(|| io::Error::other("`enforcer run` has ended"), Into::into))
            }
        },
        Err(error) => return Failure::NotRun(bubblewrap.get_program().to_owned(), error),
    };
    match ended {
        Ok(status) => {
            let by_signal = || status.signal().map(|signal| 128 + signal);
            std::process::exit(status.code().or_else(by_signal).unwrap_or(1))
        }
        Err(error) => Failure::Other(anyhow!("waiting for bubblewrap: {error}")),
    }
}

/// Joins the workload. Many commands that are run at once wait for each other: the daemon takes few connections of one who asks.
async fn join(run: &Run<'_>) -> Result<Reply, Failure> {
    let join = Ask::Join {
        agent: run.agent.clone(),
        run: run.window_of,
    };
    for _ in 0..JOIN_TRIES {
        match ask::ask_once(run.socket, &join).await {
            Err(Failure::Refused(refusal)) if refusal.code == Code::Overloaded => {
                tokio::time::sleep(JOIN_AGAIN).await;
            }
            joined => return joined,
        }
    }
    ask::ask_once(run.socket, &join).await
}

/// What of the daemon's a client reads: its socket, and the files that it is named.
fn shown(socket: &Path, client: &[(String, String)]) -> Shown {
    let files = client.iter().map(|(_, value)| Path::new(value));
    let files = files.filter(|file| file.is_absolute() && file.is_file());
    let socket = std::iter::once(socket).filter(|socket| socket.is_absolute());
    Shown {
        of_daemon: socket.chain(files).map(Path::to_owned).collect(),
        files: Vec::new(),
    }
}

/// The command's environment: little of the caller's, then what clients in a workload need, which nothing overrides.
fn environment(
    of_caller: impl Fn(&OsStr) -> Option<OsString>,
    keep: &[String],
    home: &OsStr,
    socket: &Path,
    client: &[(String, String)],
) -> Vec<(OsString, OsString)> {
    let mut environment = vec![
        ("PATH".into(), DEFAULT_PATH.into()),
        ("HOME".into(), home.to_owned()),
    ];
    let kept = KEPT.into_iter().chain(keep.iter().map(String::as_str));
    environment.extend(kept.filter_map(|name| Some((name.into(), of_caller(name.as_ref())?))));
    environment.push(("ENFORCER_SOCKET".into(), socket.into()));
    let client = client.iter();
    environment.extend(client.map(|(name, value)| (name.into(), value.into())));
    environment
}

/// `PATH`, and what is named.
fn only(path: Option<OsString>, named: &[String]) -> Vec<(OsString, OsString)> {
    let path = path.unwrap_or_else(|| DEFAULT_PATH.into());
    let named = named.iter().filter_map(|variable| variable.split_once('='));
    let named = named.map(|(name, value)| (name.into(), value.into()));
    std::iter::once(("PATH".into(), path))
        .chain(named)
        .collect()
}

/// Leaves the caller's terminal behind. A terminal that was handed in is a fresh one, and becomes that of the new session.
fn leave_the_callers_session() -> io::Result<()> {
    rustix::process::setsid()?;
    if io::stdin().is_terminal() {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    } else if io::stdout().is_terminal() {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdout())?;
    } else if io::stderr().is_terminal() {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stderr())?;
    }
    Ok(())
}

/// Has this process told of the end of `enforcer run` by a signal; an error where that has ended before the kernel knew.
fn end_with_the_runner(tie: Option<&Tie>, by: Signal) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(by))
        .context("being told of the caller's end")?;
    if tie.is_some_and(|tie| !tie.has_runner()) {
        return Err(Failure::Other(anyhow!("`enforcer run` has ended")));
    }
    Ok(())
}

/// Drops to `uid` for good: groups first, or they could not be dropped any more.
fn become_user(uid: Uid, user: Option<&User>) -> anyhow::Result<()> {
    if Uid::current() == uid {
        return Ok(());
    }
    let gid = user.map_or_else(|| Gid::from_raw(uid.as_raw()), |user| user.gid);
    setgroups(&[]).context("dropping the groups of root")?;
    setgid(gid).with_context(|| format!("becoming gid {gid}"))?;
    setuid(uid).with_context(|| format!("becoming uid {uid}"))
}

/// Lets go of every open file from `first` on when the command is executed: what the caller has open is not the agent's.
fn close_on_exec_from(first: libc::c_uint) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: nothing is closed here, only marked to be when this process becomes another program.
    let done = unsafe { libc::close_range(first, libc::c_uint::MAX, flags) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_command_gets_what_is_named_and_nothing_else_of_the_caller() {
        let caller = BTreeMap::from([
            ("PATH", "/opt/bin"),
            ("LANG", "C"),
            ("LD_PRELOAD", "/tmp/x.so"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/root/key.json"),
            ("SSL_CERT_FILE", "/tmp/mine.pem"),
            ("HOME", "/root"),
            ("KEPT", "1"),
        ]);
        let keep = ["KEPT", "ABSENT", "SSL_CERT_FILE"].map(str::to_owned);
        let made = environment(
            |name| caller.get(name.to_str()?).map(OsString::from),
            &keep,
            OsStr::new("/home/bot"),
            Path::new("/run/s"),
            &[("SSL_CERT_FILE".into(), "/run/ca.pem".into())],
        );
        // The last of a name holds.
        let made: BTreeMap<_, _> = made.into_iter().collect();
        let expected = [
            ("PATH", "/opt/bin"),
            ("LANG", "C"),
            ("HOME", "/home/bot"),
            ("KEPT", "1"),
            ("SSL_CERT_FILE", "/run/ca.pem"),
            ("ENFORCER_SOCKET", "/run/s"),
        ];
        let expected = expected.map(|(name, value)| (name.into(), value.into()));
        assert_eq!(made, BTreeMap::<OsString, OsString>::from(expected));
    }
}
