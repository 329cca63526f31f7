//! Running a command as an agent: join the workload, drop to its uid, set the client's environment, become the command.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;

use anyhow::{Context, anyhow};
use enforcer_proto::principal::AgentName;
use enforcer_proto::wire::{Ask, Reply};
use nix::unistd::{Gid, Uid, User, setgid, setgroups, setuid};

use super::{Failure, ask};
use crate::client_setup;
use crate::config::Config;
use crate::roots;

/// Becomes `command` inside the workload of `agent`. Returns only when that failed.
pub(super) fn run(socket: &Path, agent: &AgentName, command: &[OsString]) -> Result<(), Failure> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| anyhow!("there is no command to run"))?;
    let reply = ask::runtime()?.block_on(ask::ask_once(
        socket,
        &Ask::Join {
            agent: agent.clone(),
        },
    ))?;
    let Reply::Joined(joined) = reply else {
        return Err(Failure::Other(anyhow!(
            "the daemon answered something else than the workload"
        )));
    };
    if let Some(uid) = joined.uid {
        become_user(uid)?;
    }
    let error = std::process::Command::new(program)
        .args(arguments)
        .envs(joined.env)
        .exec();
    Err(Failure::Other(anyhow::Error::new(error).context(format!(
        "cannot run {}",
        program.to_string_lossy()
    ))))
}

/// Drops to `uid` for good: groups first, or they could not be dropped any more.
fn become_user(uid: u32) -> anyhow::Result<()> {
    if Uid::current().as_raw() == uid {
        return Ok(());
    }
    let gid = User::from_uid(Uid::from_raw(uid))
        .ok()
        .flatten()
        .map_or_else(|| Gid::from_raw(uid), |user| user.gid);
    setgroups(&[]).context("dropping the groups of root")?;
    setgid(gid).with_context(|| format!("becoming gid {gid}"))?;
    setuid(Uid::from_raw(uid)).with_context(|| format!("becoming uid {uid}"))
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
