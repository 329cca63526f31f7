//! Which executables narrow an agent to: a process in its workload that runs another file is refused. Never whom somebody is: who may put code
//! into an allowed executable, or starts it with a script of its own, passes. Only looks.
//!
//! A file is known by its device and inode, and only root may be able to change it or what leads to it: then its content needs no hash.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use enforcer_proto::principal::{AgentName, Process};
use enforcer_proto::refusal::{Code, Refusal};

use rustix::fs::{AtFlags, StatxFlags};
use tokio::sync::Semaphore;

use crate::workload;

/// The most executables that one agent may be narrowed to.
pub const EXECUTABLES_MAX: usize = 16;
/// Write permission for the group and for everybody.
const BY_OTHERS: u32 = 0o022;

/// How long a look may take. It asks no file system that an agent mounts; what hangs all the same is refused.
const LOOK: Duration = Duration::from_secs(1);
/// How many processes of one agent are looked at at once: a look that hangs holds a thread.
const LOOKS_AT_ONCE: usize = 4;

/// The files that an agent's processes may run to reach anything through the daemon; none: any.
#[derive(Debug, Clone)]
pub struct Executables {
    paths: Vec<PathBuf>,
    looks: Arc<Semaphore>,
}

impl Default for Executables {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

/// A file, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct File {
    device: u64,
    inode: u64,
}

impl Executables {
    /// These, by their absolute paths.
    #[must_use]
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self {
            paths,
            looks: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
        }
    }

    /// [`Executables::judge`], beside the runtime's own threads and in bounded time.
    ///
    /// # Errors
    /// As [`Executables::judge`]; also where the look takes too long.
    pub async fn look(&self, agent: &AgentName, process: &Process) -> Result<(), Refusal> {
        if self.paths.is_empty() {
            return Ok(());
        }
        let looked = async {
            let place = Arc::clone(&self.looks).acquire_owned().await.ok()?;
            let (this, agent, process) = (self.clone(), agent.clone(), process.clone());
            let judged = tokio::task::spawn_blocking(move || {
                let judged = this.judge(&agent, &process);
                drop(place);
                judged
            });
            judged.await.ok()
        };
        let looked = tokio::time::timeout(LOOK, looked).await.ok().flatten();
        looked.unwrap_or_else(|| {
            let what = format!(
                "What process {} of agent {agent} runs could not be looked at in time",
                process.pid
            );
            Err(Refusal::new(Code::ProgramNotAllowed, what))
        })
    }

    /// Whether a process of the agent's may go on, as of now.
    ///
    /// # Errors
    /// [`Code::ProgramNotAllowed`], also where it cannot be told what the process runs.
    pub fn judge(&self, agent: &AgentName, process: &Process) -> Result<(), Refusal> {
        if self.paths.is_empty() {
            return Ok(());
        }
        let refuse = |what: String| Err(Refusal::new(Code::ProgramNotAllowed, what));
        let Ok((runs, shown)) = run_by(process) else {
            return refuse(format!(
                "What process {} of agent {agent} runs cannot be told",
                process.pid
            ));
        };
        let is_listed = |path: &PathBuf| trusted(path).is_ok_and(|file| file == runs);
        if self.paths.iter().any(is_listed) {
            return Ok(());
        }
        refuse(format!(
            "Process {} of agent {agent} runs {}, which is not among the executables that the agent is narrowed to",
            process.pid,
            shown.display()
        ))
    }

    /// What is wrong with those of an agent, one sentence each: such a file lets nobody through.
    #[must_use]
    pub fn problems(&self, agent: &AgentName) -> Vec<String> {
        let problem = |path: &PathBuf| {
            let why = trusted(path).err()?;
            Some(format!(
                "agent {agent}: the executable {} lets nobody through: {why}",
                path.display()
            ))
        };
        self.paths.iter().filter_map(problem).collect()
    }
}

/// The file that a process runs, and what the kernel calls it.
fn run_by(process: &Process) -> io::Result<(File, PathBuf)> {
    let link = PathBuf::from(format!("/proc/{}/exe", process.pid));
    // As the kernel knows it: the file may lie on a file system that an agent answers for, which is not asked.
    let known = rustix::fs::statx(
        rustix::fs::CWD,
        &link,
        AtFlags::STATX_DONT_SYNC,
        StatxFlags::INO,
    )?;
    let found = (known, std::fs::read_link(&link)?);
    // Asked last: had the number been taken over in between, it would not be the same. /proc counts in steps of 10 ms, rounded down.
    let started = workload::start_boot_ns(process.pid)?;
    if process
        .start_boot_ns
        .checked_sub(started)
        .is_none_or(|rest| rest >= 10_000_000)
    {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (known, shown) = found;
    let file = File {
        device: rustix::fs::makedev(known.stx_dev_major, known.stx_dev_minor),
        inode: known.stx_ino,
    };
    Ok((file, shown))
}

fn of(file: &std::fs::Metadata) -> File {
    File {
        device: file.dev(),
        inode: file.ino(),
    }
}

/// The file at a path, where nobody but root can change it, or put another in its place.
fn trusted(path: &Path) -> Result<File, String> {
    let path = path.canonicalize().map_err(|error| error.to_string())?;
    let mut found = None;
    for at in path.ancestors() {
        let metadata = std::fs::metadata(at).map_err(|error| error.to_string())?;
        if metadata.uid() != 0 || metadata.mode() & BY_OTHERS != 0 {
            return Err(format!(
                "{} belongs to uid {} or can be written by others than root",
                at.display(),
                metadata.uid()
            ));
        }
        found.get_or_insert(metadata);
    }
    match found {
        Some(file) if file.is_file() => is_program(&path).map(|()| of(&file)),
        Some(_) | None => Err("it is no file".to_owned()),
    }
}

/// Where a file leads to that this process is to load as code: nobody but root may be able to change it, or put another in its place.
///
/// # Errors
/// Why that is not so, as a clause.
pub(crate) fn trusted_code(path: &Path) -> Result<PathBuf, String> {
    trusted(path)?;
    path.canonicalize().map_err(|error| error.to_string())
}

/// A script is never what a process runs.
fn is_program(path: &Path) -> Result<(), String> {
    let mut begins = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut begins));
    match read {
        Ok(()) if begins == *b"\x7fELF" => Ok(()),
        Ok(()) => {
            Err("it is no program (a script is run by its interpreter: name that)".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this_process() -> Process {
        let pid = std::process::id();
        Process {
            pid,
            start_boot_ns: workload::start_boot_ns(pid).expect("lives"),
            uid: 0,
            comm: "test".to_owned(),
        }
    }

    fn judged(paths: &[&Path], process: &Process) -> Result<(), Code> {
        let paths = paths.iter().map(|path| path.to_path_buf()).collect();
        let agent = "bot".parse().expect("a name");
        let judged = Executables::new(paths).judge(&agent, process);
        judged.map_err(|refusal| refusal.code)
    }

    /// A child that runs a file, and what it is.
    fn running(program: &Path) -> (std::process::Child, Process) {
        let child = std::process::Command::new(program)
            .arg("60")
            .spawn()
            .expect("it runs");
        let process = Process {
            pid: child.id(),
            start_boot_ns: workload::start_boot_ns(child.id()).expect("lives"),
            uid: 0,
            comm: "sleep".to_owned(),
        };
        (child, process)
    }

    #[test]
    fn only_who_runs_a_listed_file_goes_on_whatever_it_is_called() {
        let sleep = Path::new("/usr/bin/sleep");
        let (mut child, process) = running(sleep);
        assert_eq!(judged(&[], &process), Ok(()), "no list narrows nobody");
        assert_eq!(judged(&["/usr/bin/env".as_ref(), sleep], &process), Ok(()));
        assert_eq!(judged(&["/bin/sleep".as_ref()], &process), Ok(()));
        let other = judged(&["/usr/bin/env".as_ref()], &process);
        assert_eq!(other, Err(Code::ProgramNotAllowed));
        let script = Executables::new(vec!["/usr/bin/ldd".into()]);
        let problems = script.problems(&"bot".parse().expect("a name"));
        assert!(problems[0].contains("name that"), "{problems:?}");
        let missing = judged(&["/nowhere/sleep".as_ref()], &process);
        assert_eq!(missing, Err(Code::ProgramNotAllowed));
        child.kill().and_then(|()| child.wait()).expect("ends");
    }

    #[test]
    fn a_file_that_others_can_change_lets_nobody_through() {
        let dir = tempfile::tempdir().expect("a folder");
        let program = dir.path().join("sleep");
        std::fs::copy("/usr/bin/sleep", &program).expect("copies");
        let (mut child, process) = running(&program);
        // Whoever may write to the folder above puts another in its place.
        assert_eq!(judged(&[&program], &process), Err(Code::ProgramNotAllowed));
        let problems = Executables::new(vec![program]).problems(&"bot".parse().expect("a name"));
        assert!(problems[0].contains("/tmp belongs to uid"), "{problems:?}");
        child.kill().and_then(|()| child.wait()).expect("ends");
    }

    #[test]
    fn a_process_that_is_gone_or_is_another_by_now_is_refused() {
        let mut process = this_process();
        process.start_boot_ns += 20_000_000;
        let path = std::env::current_exe().expect("a path");
        assert_eq!(judged(&[&path], &process), Err(Code::ProgramNotAllowed));
        process.pid = u32::MAX;
        assert_eq!(judged(&[&path], &process), Err(Code::ProgramNotAllowed));
    }
}
