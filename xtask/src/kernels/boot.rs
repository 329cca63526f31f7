//! Boots a kernel with the tests in it, and reads what the machine says on its serial line.
//!
//! Emulated, not virtualised: that works where the host is a virtual machine itself, and on any processor.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::image::Image;

/// How long a machine may take, seconds. Where two processors are busy with the rest of the suite it takes about half an hour.
const LIMIT_S: u32 = 2700;
const MEMORY_MIB: u32 = 2048;
/// How much a machine gives way to what else runs here: its tests wait for its own clock, which goes on.
const NICENESS: &str = "5";
/// With BPF among the security modules, as the kernels are built with it but not booted with it everywhere. What guards a real processor is
/// off: it costs an emulated one much. A processor that does nothing else for two minutes is a deadlock of the kernel's: it ends the machine at
/// once, with what each processor was at (which `quiet` would keep back: the panic says all of the kernel's log again).
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet lsm=landlock,lockdown,yama,integrity,bpf net.ifnames=0 mitigations=off \
     watchdog_thresh=60 softlockup_panic=1 softlockup_all_cpu_backtrace=1 panic_print=0x20";
/// What the machine's own lines begin with; see `init.sh`.
const MARK: &str = "enforcer-tests: ";
/// What a kernel says last that has found a processor which does nothing else any more; see [`COMMAND_LINE`].
const STUCK: &str = "Kernel panic - not syncing: softlockup";
/// Enough for what each processor was at.
const LAST_WORDS: usize = 160;

/// What the machine counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: usize,
    pub(super) failed: usize,
    /// From its boot on.
    pub(super) seconds: usize,
}

/// How it went.
#[derive(Debug)]
pub(super) struct Verdict {
    /// None where the machine did not get so far.
    pub(super) count: Option<Count>,
    /// The tests that passed.
    pub(super) passed: Vec<String>,
    /// Each with its output.
    pub(super) failures: Vec<String>,
    /// Whether it ended since a processor was stuck, and no test had failed until then.
    pub(super) is_stuck: bool,
    /// Everything that was said.
    pub(super) log: PathBuf,
    /// The end of it.
    pub(super) last_words: String,
}

impl Verdict {
    /// Whether all of so many tests have passed.
    pub(super) fn is_good(&self, tests: usize) -> bool {
        let is_whole = |count: Count| count.passed == tests && count.failed == 0 && tests > 0;
        self.count.is_some_and(is_whole) && self.failures.is_empty()
    }
}

/// Boots, waits for the end, and reads the verdict.
pub(super) fn boot(image: &Image, initrd: &Path, dir: &Path) -> Result<Verdict> {
    let log = dir.join(format!("{}.log", image.release));
    let file = std::fs::File::create(&log)?;
    let mut machine = Command::new("nice");
    machine
        .args(["-n", NICENESS, "timeout"])
        .arg(LIMIT_S.to_string())
        .arg("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-m", &MEMORY_MIB.to_string(), "-machine", "q35"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio"])
        .args(["-no-reboot", "-append", COMMAND_LINE])
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    // How qemu ended says nothing of the tests: the verdict does.
    machine
        .status()
        .context("cannot start qemu: apt-get install qemu-system-x86")?;
    let said = std::fs::read(&log)?;
    Ok(read(&String::from_utf8_lossy(&said), log))
}

fn read(said: &str, log: PathBuf) -> Verdict {
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    let ours = || lines.iter().filter_map(|line| line.strip_prefix(MARK));
    let count = ours()
        .filter_map(|line| line.strip_prefix("verdict "))
        .find_map(counted);
    let ended = |how: &str| {
        let names = ours().filter_map(|line| line.strip_prefix(how)?.split(' ').next());
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    Verdict {
        count,
        passed: ended("ok "),
        is_stuck: count.is_none()
            && ended("FAILED ").is_empty()
            && lines.iter().any(|line| line.contains(STUCK)),
        failures: failures(&lines),
        log,
        last_words: lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n"),
    }
}

fn counted(line: &str) -> Option<Count> {
    let mut numbers = line.split(' ').map_while(|number| number.parse().ok());
    Some(Count {
        passed: numbers.next()?,
        failed: numbers.next()?,
        seconds: numbers.next()?,
    })
}

/// What stands between the line that names a failure and the line that ends it.
fn failures(lines: &[&str]) -> Vec<String> {
    let mut failures: Vec<String> = Vec::new();
    let mut is_inside = false;
    for line in lines {
        let ours = line.strip_prefix(MARK);
        if let Some(name) = ours.and_then(|line| line.strip_prefix("output of ")) {
            failures.push(name.to_owned());
            is_inside = true;
        } else if ours.is_some() {
            is_inside = false;
        } else if let (true, Some(failure)) = (is_inside, failures.last_mut()) {
            failure.push('\n');
            failure.push_str(line);
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_counts_and_shows_what_failed() {
        let said = "noise\r\nenforcer-tests: ok a 1 s\r\nenforcer-tests: output of b\r\npanicked\r\nhere\r\n\
                    enforcer-tests: end\r\nmore\r\nenforcer-tests: verdict 1 1 9\r\n";
        let verdict = read(said, PathBuf::new());
        let count = verdict.count.expect("a count");
        assert_eq!((count.passed, count.failed, count.seconds), (1, 1, 9));
        assert_eq!(verdict.failures, ["b\npanicked\nhere"]);
        assert!(!verdict.is_good(2) && !verdict.is_good(1));
    }

    #[test]
    fn a_machine_that_is_stuck_says_what_had_passed_and_one_with_a_failure_is_not_taken_for_stuck()
    {
        let stuck = "enforcer-tests: ok a 1 s\r\n[ 9.1] Kernel panic - not syncing: softlockup: hung tasks\r\n";
        let verdict = read(stuck, PathBuf::new());
        assert!(verdict.is_stuck && !verdict.is_good(1));
        assert_eq!(verdict.passed, ["a"]);
        for other in [
            stuck.replace("ok a", "FAILED a"),
            stuck.replace("softlockup", "VFS"),
            format!("{stuck}enforcer-tests: verdict 1 0 9\r\n"),
        ] {
            assert!(!read(&other, PathBuf::new()).is_stuck, "{other}");
        }
    }

    #[test]
    fn what_ran_too_few_tests_or_said_nothing_is_not_good() {
        let good = |said: &str, tests| read(said, PathBuf::new()).is_good(tests);
        assert!(good("enforcer-tests: verdict 2 0 9", 2));
        assert!(!good("enforcer-tests: verdict 1 0 9", 2));
        assert!(!good("enforcer-tests: verdict 0 0 9", 0));
        assert!(!good("Kernel panic - not syncing", 2));
    }
}
