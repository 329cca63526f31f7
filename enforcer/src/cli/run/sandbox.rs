//! `enforcer run --sandbox`: the command in a bubblewrap sandbox that has no network, where the host's files cannot be changed but in the working
//! folder. What leads out of it is the daemon alone, and that only within a window. Says what bubblewrap is started with; starts nothing.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use enforcer_ebpf::map::NAMES_PORT;

/// Where bubblewrap is. Not looked for along `PATH`, which is the caller's.
const PROGRAMS: [&str; 3] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"];
/// What is empty in it, and its own: sockets by which others could be had to act for the command are in the first.
const EMPTY: [&str; 4] = ["/run", "/tmp", "/var/tmp", "/dev/shm"];
/// How long the daemon is waited for in a new sandbox: it comes within milliseconds.
const TRY_AGAIN: Duration = Duration::from_millis(5);
const TRIES: u32 = 400;
/// Where the Cloud SDK writes, in a system that is not to be written.
pub(super) const CLOUDSDK_CONFIG: (&str, &str) = ("CLOUDSDK_CONFIG", "/tmp/gcloud");

/// The program, and its first arguments: the command and its own come after them. It is this program first, which waits in the sandbox until it is
/// served, and becomes the command ([`become_command`]).
///
/// `shown` are files that clients read, of which the folders are shown though what is above them is empty.
///
/// # Errors
/// When there is no bubblewrap, or no working folder.
pub(super) fn sandbox(shown: &[PathBuf]) -> Result<(PathBuf, Vec<OsString>)> {
    let program = PROGRAMS.iter().map(Path::new).find(|path| path.is_file());
    let program = program.ok_or_else(|| {
        anyhow!(
            "there is no bubblewrap on this host, by which --sandbox makes its sandbox: apt-get install bubblewrap"
        )
    })?;
    let folder = std::env::current_dir().context("looking for the working folder")?;
    let me = std::env::current_exe().context("looking for this program")?;
    let mut words = arguments(&folder, &[shown, std::slice::from_ref(&me)].concat());
    words.extend([me.into(), "sandboxed".into(), "--".into()]);
    Ok((program.to_owned(), words))
}

fn arguments(folder: &Path, shown: &[PathBuf]) -> Vec<OsString> {
    let mut words: Vec<OsString> = [
        "--unshare-all",
        "--die-with-parent",
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    .map(Into::into)
    .into();
    for empty in EMPTY {
        words.extend(["--tmpfs".into(), empty.into()]);
    }
    let folders: BTreeSet<&Path> = shown.iter().filter_map(|file| file.parent()).collect();
    // What lies elsewhere is there already.
    let is_emptied = |folder: &&Path| EMPTY.iter().any(|empty| folder.starts_with(empty));
    for shown in folders.into_iter().filter(is_emptied) {
        words.extend(["--ro-bind".into(), shown.into(), shown.into()]);
    }
    // Not all of the host, where that is where it was started.
    let own = if folder == Path::new("/") {
        OsStr::new("/tmp")
    } else {
        words.extend(["--bind".into(), folder.into(), folder.into()]);
        folder.as_os_str()
    };
    words.extend(["--chdir".into(), own.into(), "--".into()]);
    words
}

/// Waits until the daemon listens in this sandbox, and becomes the command. Returns only when that failed.
///
/// # Errors
/// When the command cannot be run.
pub(in crate::cli) fn become_command(command: &[OsString]) -> Result<()> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| anyhow!("there is no command to run"))?;
    if !is_served() {
        eprintln!(
            "enforcer: the daemon does not listen in this sandbox yet; what the command asks of BigQuery is refused until it does: see `enforcer status`"
        );
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(anyhow::Error::new(error).context(format!("cannot run {}", program.to_string_lossy())))
}

/// Whether questions for names are led to the daemon, after a while. That they are not calls for it.
fn is_served() -> bool {
    for _ in 0..TRIES {
        let led = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .and_then(|socket| socket.connect((Ipv4Addr::LOCALHOST, NAMES_PORT)));
        if led.is_ok() {
            return true;
        }
        std::thread::sleep(TRY_AGAIN);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_host_can_be_written_but_the_working_folder_and_the_clients_files_are_shown() {
        let shown = ["/run/enforcer/ca.pem", "/run/enforcer/control.sock"].map(PathBuf::from);
        let words = arguments(Path::new("/srv/bot"), &shown);
        let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
        let all = words.join(" ");
        assert!(all.starts_with("--unshare-all --die-with-parent --ro-bind / / "));
        assert_eq!(
            all.matches("--ro-bind /run/enforcer /run/enforcer").count(),
            1
        );
        let at = |text: &str| all.find(text).unwrap_or_else(|| panic!("{text} in {all}"));
        assert!(
            at("--tmpfs /run") < at("--ro-bind /run/enforcer"),
            "what is emptied is emptied first"
        );
        assert!(all.ends_with("--bind /srv/bot /srv/bot --chdir /srv/bot --"));
        assert_eq!(all.matches("--bind ").count(), 1);
    }

    #[test]
    fn a_command_that_is_started_at_the_root_has_no_folder_to_write() {
        let words = arguments(Path::new("/"), &[]);
        assert!(!words.contains(&"--bind".into()));
        assert_eq!(words[words.len() - 2], "/tmp");
    }
}
