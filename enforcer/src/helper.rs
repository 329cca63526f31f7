//! Programs of the operator's that the daemon starts, once for each thing that one is given: each run as its own user, in a cgroup of its own beside
//! the daemon's and below the lock, which it enters before it becomes the program. When it has ended, or its time is up, all that is in that
//! cgroup is killed, and the cgroup removed.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use enforcer_proto::text::safe_line;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::config::Program;
use crate::workload;

/// How much of what a program prints is kept, bytes of each of its two outputs; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;
/// How much of it is logged, characters.
const OUTPUT_CHARS_LOGGED: usize = 400;
/// All of the environment that a program gets for whom nothing else is said.
const ENVIRONMENT: [(&str, &str); 2] = [
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("LANG", "C.UTF-8"),
];
/// How long the kernel may take to let go of what was killed.
const REMOVAL: Duration = Duration::from_secs(2);
/// How long between two looks whether it has.
const REMOVAL_LOOK: Duration = Duration::from_millis(10);

/// Tells the cgroups of one daemon's programs apart.
static COUNT: AtomicU64 = AtomicU64::new(1);

/// Makes the folder of the programs' cgroups, and ends what an earlier daemon left in it. Blocks, for a moment.
///
/// # Errors
/// When it cannot be made.
pub fn prepare(folder: &Path) -> io::Result<()> {
    workload::make(folder)?;
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let place = Place(entry.path());
            let looks = REMOVAL.as_millis() / REMOVAL_LOOK.as_millis();
            let is_removed = (0..looks).any(|_| {
                place.kill();
                std::thread::sleep(REMOVAL_LOOK);
                place.is_removed()
            });
            if !is_removed {
                tracing::warn!(cgroup = %entry.path().display(), "a program of an earlier daemon could not be ended");
            }
        }
    }
    Ok(())
}

/// One such program.
#[derive(Debug)]
pub struct Helper {
    folder: PathBuf,
    program: Program,
    name: String,
    environment: Option<Vec<(OsString, OsString)>>,
}

/// What came of a run.
struct Ran {
    status: ExitStatus,
    output: Zeroizing<Vec<u8>>,
    errors: Zeroizing<Vec<u8>>,
}

impl Helper {
    /// The program, to be run in cgroups of its own in `folder` that are named after it.
    #[must_use]
    pub const fn new(folder: PathBuf, program: Program, name: String) -> Self {
        Self {
            folder,
            program,
            name,
            environment: None,
        }
    }

    /// The same, with this for all of its environment.
    #[must_use]
    pub fn with_environment(mut self, environment: Vec<(OsString, OsString)>) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Runs it once, and gives it this on its standard input. Nothing of it is left when this returns.
    ///
    /// # Errors
    /// Why it did not end well, as a sentence.
    pub async fn run(
        &self,
        input: Vec<u8>,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let ran = self.placed(input, limit, stop).await?;
        let said = [&ran.output[..], &ran.errors[..]].concat();
        let said = safe_line(String::from_utf8_lossy(&said).trim(), OUTPUT_CHARS_LOGGED);
        let (name, status) = (&self.name, ran.status);
        if status.success() {
            tracing::debug!(name, said, "a program took what it was given");
            return Ok(());
        }
        tracing::info!(name, %status, said, "a program did not take what it was given");
        Err(format!("it ended with {status}: {said}"))
    }

    /// Runs it once, and gives back what it prints on its standard output. Nothing of it is left when this returns, and what it says is logged nowhere.
    ///
    /// # Errors
    /// Why it did not end well, as a sentence.
    pub async fn output(
        &self,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<Zeroizing<Vec<u8>>, String> {
        let ran = self.placed(Vec::new(), limit, stop).await?;
        if ran.status.success() {
            return Ok(ran.output);
        }
        Err(format!("it ended with {}", ran.status))
    }

    async fn placed(
        &self,
        input: Vec<u8>,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<Ran, String> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = Place::make(&self.folder, &self.name, number)
            .map_err(|error| format!("its cgroup cannot be made: {error}"))?;
        let ran = self.run_in(&place, input, limit, stop).await;
        place.remove().await;
        ran
    }

    async fn run_in(
        &self,
        place: &Place,
        input: Vec<u8>,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<Ran, String> {
        let mut child = self.spawn(place).await?;
        let (stdin, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let talk = async { tokio::join!(feed(stdin, input), read(output), read(errors)) };
        tokio::pin!(talk);
        let mut said = None;
        let ended = tokio::select! {
            biased;
            () = stop.cancelled() => Err("the daemon stops".to_owned()),
            ended = tokio::time::timeout(limit, wait(&mut child, &mut talk, &mut said)) => match ended {
                Ok(Ok(status)) => Ok(status),
                Ok(Err(error)) => Err(format!("waiting for it failed: {error}")),
                Err(_) => Err(format!("it was killed after {} s", limit.as_secs())),
            },
        };
        // Also what it started and left running: that holds its outputs open.
        place.kill();
        if said.is_none() {
            said = tokio::time::timeout(REMOVAL, &mut talk).await.ok();
        }
        if let Err(error) = tokio::time::timeout(REMOVAL, child.wait()).await {
            tracing::warn!(%error, name = self.name, "a program was killed and has not ended");
        }
        let ((), output, errors) = said.unwrap_or_default();
        let status = ended?;
        Ok(Ran {
            status,
            output,
            errors,
        })
    }

    /// Starts the program in its cgroup. On a thread that may wait: its file may be far away.
    async fn spawn(&self, place: &Place) -> Result<Child, String> {
        let failed = |error: io::Error| format!("it cannot be started: {error}");
        let procs = File::options()
            .write(true)
            .open(place.0.join("cgroup.procs"))
            .map_err(failed)?;
        let (file, arguments) = self.program.words.split_first().ok_or("it has no words")?;
        let mut command = std::process::Command::new(file);
        match &self.environment {
            Some(environment) => command
                .env_clear()
                .envs(environment.iter().map(|(name, text)| (name, text))),
            None => command.env_clear().envs(ENVIRONMENT),
        };
        command
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // It also drops the groups of root.
            .uid(self.program.user)
            .gid(self.program.group);
        #[expect(
            unsafe_code,
            reason = "entering a cgroup before the program starts has no safe way"
        )]
        // SAFETY: between fork and exec only system calls are made, on a descriptor that was opened before. No descriptor is closed, only
        // marked to be when the process becomes another program.
        unsafe {
            command.pre_exec(move || {
                rustix::io::write(&procs, b"0")?;
                rustix::process::setsid()?;
                rustix::thread::set_no_new_privs(true)?;
                let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
                if libc::close_range(3, libc::c_uint::MAX, flags) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let started = tokio::task::spawn_blocking(move || {
            let mut command = tokio::process::Command::from(command);
            command.kill_on_drop(true).spawn()
        });
        started
            .await
            .map_err(|error| error.to_string())?
            .map_err(failed)
    }
}

/// Waits until the program itself has ended, and talks with it meanwhile.
async fn wait<T>(
    child: &mut Child,
    mut talk: impl Future<Output = T> + Unpin,
    said: &mut Option<T>,
) -> io::Result<ExitStatus> {
    loop {
        tokio::select! {
            biased;
            status = child.wait() => return status,
            done = &mut talk, if said.is_none() => *said = Some(done),
        }
    }
}

/// Gives a program its input. One that does not read it all may still have understood.
async fn feed(stdin: Option<ChildStdin>, input: Vec<u8>) {
    if let Some(mut stdin) = stdin
        && let Err(error) = stdin.write_all(&input).await
    {
        tracing::debug!(%error, "a program did not read all it was given");
    }
}

/// What a program prints, as much of it as is kept. It may be a secret.
async fn read(output: Option<impl AsyncRead + Unpin>) -> Zeroizing<Vec<u8>> {
    let Some(mut output) = output else {
        return Zeroizing::default();
    };
    // Never made larger: that would leave a copy.
    let mut kept = Zeroizing::new(Vec::with_capacity(OUTPUT_BYTES_MAX));
    let mut buffer = Zeroizing::new([0; 4096]);
    while let Ok(count @ 1..) = output.read(&mut buffer[..]).await {
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    kept
}

/// The cgroup of one run.
struct Place(PathBuf);

impl Place {
    fn make(folder: &Path, name: &str, number: u64) -> io::Result<Self> {
        let path = folder.join(format!("{name}-{number}"));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Kills all that is in it.
    fn kill(&self) {
        // A kernel before 5.14 has no such file: one by one, and again until nobody is left.
        if std::fs::write(self.0.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        for pid in workload::processes(&self.0).unwrap_or_default() {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid
                && let Err(error) =
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL)
                && error != Errno::SRCH
            {
                tracing::warn!(%error, "a process of a program cannot be killed");
            }
        }
    }

    fn is_removed(&self) -> bool {
        match std::fs::remove_dir(&self.0) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    async fn remove(self) {
        let removed = async {
            while !self.is_removed() {
                self.kill();
                tokio::time::sleep(REMOVAL_LOOK).await;
            }
        };
        if tokio::time::timeout(REMOVAL, removed).await.is_err() {
            tracing::warn!(cgroup = %self.0.display(), "the cgroup of a program could not be removed; the next start tries again");
        }
    }
}

impl Drop for Place {
    /// Where nobody waits any more. What this leaves the next start removes.
    fn drop(&mut self) {
        if !self.is_removed() {
            self.kill();
            self.is_removed();
        }
    }
}
