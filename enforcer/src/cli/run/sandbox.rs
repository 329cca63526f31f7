//! `enforcer run --sandbox`: the command in a bubblewrap sandbox that has no network, where the host's files cannot be changed but in the working
//! folder. What leads out of it is the daemon alone, and that only within a window. Says what bubblewrap is started with; starts nothing.

mod folders;

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use enforcer_ebpf::map::NAMES_PORT;
use rustix::fs::{Access, access};

use super::super::Failure;
use super::heard::hear_but_for;
use super::tie::Tie;
use folders::Folders;
pub(super) use folders::Shown;

/// Where bubblewrap is. Not looked for along `PATH`, which is the caller's.
const PROGRAMS: [&str; 3] = ["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"];
/// How long the daemon is waited for in a new sandbox: it comes within milliseconds.
const TRY_AGAIN: Duration = Duration::from_millis(5);
const TRIES: u32 = 400;
/// Where the Cloud SDK writes, in a system that is not to be written.
pub(super) const CLOUDSDK_CONFIG: (&str, &str) = ("CLOUDSDK_CONFIG", "/tmp/gcloud");

/// A sandbox that can be made.
#[derive(Debug)]
pub(super) struct Sandbox {
    bubblewrap: PathBuf,
    folders: Folders,
    /// As the kernel names it, behind whatever links.
    working: PathBuf,
}

impl Sandbox {
    /// The one that is made in the working folder.
    ///
    /// # Errors
    /// When there is no bubblewrap, or no working folder, or it is one that no command in a sandbox is given.
    pub(super) fn here() -> Result<Self, Failure> {
        let bubblewrap = PROGRAMS.iter().map(Path::new).find(|path| path.is_file());
        let bubblewrap = bubblewrap.ok_or_else(|| {
            anyhow!(
                "there is no bubblewrap on this host, by which --sandbox makes its sandbox: apt-get install bubblewrap"
            )
        })?;
        let working = std::env::current_dir().context("looking for the working folder")?;
        let folders = Folders::of_this_host();
        if let Some(own) = folders.in_the_way_of(&working) {
            return Err(Failure::Usage(format!(
                "--sandbox gives the command its working folder to write, which is {}, and never this host's {}: cd to a folder of the command's own first, such as ~/work",
                working.display(),
                own.display()
            )));
        }
        Ok(Self {
            bubblewrap: bubblewrap.to_owned(),
            folders,
            working,
        })
    }

    /// Whether this process, which is `uid`'s, can be in the working folder. That it cannot write there is its own affair, and said.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) fn is_open_to(&self, uid: u32) -> Result<(), Failure> {
        let working = self.working.display();
        if let Err(error) = access(&self.working, Access::EXEC_OK) {
            return Err(Failure::Usage(format!(
                "uid {uid}, as which the command runs, cannot be in the working folder {working} ({error}): cd to a folder of its own first, such as its home"
            )));
        }
        if access(&self.working, Access::WRITE_OK).is_err() && self.working != Path::new("/") {
            eprintln!(
                "enforcer: uid {uid}, as which the command runs, cannot write in the working folder {working}"
            );
        }
        Ok(())
    }

    /// The program, and its first arguments: the command and its own come after them. It is this program first, which waits in the sandbox until
    /// it is served, and becomes the command ([`become_command`]), which hears no signal that is `unheard`, and ends by its `tie` where `enforcer run` has.
    ///
    /// # Errors
    /// When this program is nowhere.
    pub(super) fn program(
        &self,
        mut shown: Shown,
        unheard: &[i32],
        tie: Option<RawFd>,
    ) -> Result<(&Path, Vec<OsString>)> {
        let me = std::env::current_exe().context("looking for this program")?;
        shown.files.push(me.clone());
        let mut words = arguments(&self.folders, &self.working, &shown);
        words.extend([me.into(), "sandboxed".into()]);
        words.extend(
            unheard
                .iter()
                .map(|signal| format!("--unheard={signal}").into()),
        );
        words.extend(tie.map(|tie| format!("--tie={tie}").into()));
        words.push("--".into());
        Ok((&self.bubblewrap, words))
    }
}

fn arguments(folders: &Folders, working: &Path, shown: &Shown) -> Vec<OsString> {
    let mut words: Vec<OsString> = [
        "--unshare-all",
        "--die-with-parent",
        "--cap-drop",
        "ALL",
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
    // Not all of the host, where that is where it was started.
    let given = (working != Path::new("/")).then_some(working);
    words.extend(folders.mounts(given, shown));
    let start = given.map_or_else(|| OsStr::new("/tmp"), Path::as_os_str);
    words.extend(["--chdir".into(), start.into(), "--".into()]);
    words
}

/// Whether the command may have this process's standard streams in its sandbox: by a folder it would have what is beside it, whatever is shown there, and by
/// a socket of the network what is at its other end.
///
/// # Errors
/// When it may not.
pub(super) fn streams_are_let_in() -> Result<(), Failure> {
    use rustix::fs::{FileType, fstat};
    use rustix::net::{AddressFamily, sockopt::socket_domain};
    let streams = [
        ("input", rustix::stdio::stdin()),
        ("output", rustix::stdio::stdout()),
        ("error output", rustix::stdio::stderr()),
    ];
    for (name, stream) in streams {
        // One that is closed is nothing.
        let Ok(found) = fstat(stream) else { continue };
        let what = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => "a folder",
            FileType::BlockDevice => "a disk",
            FileType::Socket if socket_domain(stream) != Ok(AddressFamily::UNIX) => {
                "a socket of the network"
            }
            FileType::RegularFile
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice => continue,
            FileType::Symlink | FileType::Unknown => "nothing to read or write",
        };
        return Err(Failure::Usage(format!(
            "standard {name} is {what}, which --sandbox does not let in: give it a file, a pipe or a terminal"
        )));
    }
    Ok(())
}

/// Waits until the daemon listens in this sandbox, and becomes the command. Gives why it has not become it.
pub(in crate::cli) fn become_command(
    unheard: &[i32],
    tie: Option<RawFd>,
    command: &[OsString],
) -> Failure {
    hear_but_for(unheard);
    // From here on bubblewrap's end is this process's, and bubblewrap ends with `enforcer run`.
    match tie.map(Tie::handed).transpose() {
        Ok(Some(tie)) if tie.has_runner() => tie.hears(),
        Ok(None) => {}
        Ok(Some(_)) | Err(_) => return Failure::Other(anyhow!("`enforcer run` has ended")),
    }
    let Some((program, arguments)) = command.split_first() else {
        return Failure::Other(anyhow!("there is no command to run"));
    };
    if !is_served() {
        eprintln!(
            "enforcer: the daemon does not listen in this sandbox yet; what the command asks of BigQuery is refused until it does: see `enforcer status`"
        );
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    Failure::NotRun(program.clone(), error)
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

    fn words(working: &str) -> String {
        let working = Path::new(working);
        let words = arguments(&Folders::of_this_host(), working, &Shown::default());
        let words = words.join(OsStr::new(" "));
        words.into_string().expect("is text")
    }

    #[test]
    fn nothing_of_the_host_can_be_written_but_the_working_folder_and_what_has_sockets_is_empty() {
        let all = words("/srv/bot");
        let whole =
            "--unshare-all --die-with-parent --cap-drop ALL --ro-bind / / --proc /proc --dev /dev ";
        assert!(all.starts_with(whole), "{all}");
        for empty in ["--tmpfs /run ", "--tmpfs /tmp ", "--tmpfs /var/tmp "] {
            assert_eq!(all.matches(empty).count(), 1, "{all}");
        }
        assert_eq!(all.matches("-bind ").count(), 2, "{all}");
        assert_eq!(all.matches("--bind /srv/bot /srv/bot ").count(), 1);
        assert!(all.ends_with("--chdir /srv/bot --"), "{all}");
    }

    #[test]
    fn a_command_that_is_started_at_the_root_has_no_folder_to_write() {
        let all = words("/");
        assert!(!all.contains("--bind "), "{all}");
        assert!(all.ends_with("--chdir /tmp --"), "{all}");
    }
}
