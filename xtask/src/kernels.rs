//! Runs the suite's kernel part on other kernels than this machine's: Debian's own, in a machine of qemu's that needs no hardware help.
//!
//! What is run is what was built here, in a file system made of this host's programs. Nothing is skipped in silence: a kernel that apt does
//! not offer, a test that did not run and a machine that did not say how it went are failures.

mod boot;
mod image;
mod initrd;
mod modules;
mod suite;

use std::path::Path;

use anyhow::{Result, ensure};

use crate::{setup, sh};
use boot::{Count, Verdict};
use image::{Image, Wanted};
use initrd::Initrd;
use suite::Suite;

/// The oldest kernel that is supported: in CI this one alone.
pub(crate) const OLDEST: &[Wanted] = &[Wanted::Line(6, 1)];
/// What of the kernel part is run in CI: that the programs load, lead and refuse, keep windows and close them, the guard of interfaces, and of the ways
/// around those that older kernels close by other hooks. What is decided by code that is the same on every kernel is left to this machine's. All of
/// it takes four times as long.
pub(crate) const IN_CI: [&str; 23] = [
    "kernel::a_loader_",
    "kernel::a_network_",
    "kernel::a_process_",
    "kernel::a_raw_",
    "kernel::a_restart_",
    "kernel::a_source_",
    "kernel::an_open_",
    "kernel::every_program_",
    "kernel::the_daemons_",
    "kernel::the_kernel_",
    "kernel::two_daemons_",
    "kernel::what_a_socket_",
    "kernel::what_smaller_",
    "kernel::without_a_window_nothing_",
    "drift::a_guard_",
    "bypass::kernel::a_socket_",
    "bypass::kernel::frames_",
    "bypass::kernel::io_uring_",
    "bypass::kernel::ipv6_",
    "bypass::kernel::multipath_",
    "bypass::kernel::old_sockets_",
    "bypass::kernel::what_is_forwarded_",
    "bypass::kernel::who_may_",
];
/// The oldest one, and what came with the next stable Debian or later.
pub(crate) const ALL: &[Wanted] = &[Wanted::Line(6, 1), Wanted::Since(6, 12)];

/// Runs the kernel part on each of these kernels, or what of it begins with one of `only`, and says how each went.
pub(crate) fn run(root: &Path, kernels: &[Wanted], only: &[String]) -> Result<()> {
    setup::require_root("test")?;
    setup::world(root)?;
    setup::machine()?;
    let dir = root.join("target/kernels");
    std::fs::create_dir_all(&dir)?;
    sh::say("building the tests that run in the machines");
    let suite = Suite::build(root, only)?;
    // Before the first one boots: what apt does not have is known at once.
    let images = kernels
        .iter()
        .map(|wanted| image::get(&dir, *wanted))
        .collect::<Result<Vec<_>>>()?;
    let initrd = Initrd::make(root, &dir, &suite)?;
    let mut failed = Vec::new();
    for image in images {
        sh::say(&format!(
            "Linux {}: {} tests in a machine of qemu's",
            image.release,
            suite.tests.len()
        ));
        if !is_good(&image, &initrd, &suite.tests, &dir)? {
            failed.push(image.release);
        }
    }
    ensure!(
        failed.is_empty(),
        "failed on Linux {}",
        failed.join(" and ")
    );
    Ok(())
}

/// Runs the tests on one kernel. Both emulated processors have been stuck once, and whether that was the emulator's doing or the kernel's was not to be
/// told: what they were at is said now. What had not passed by then is run in a second machine; where that is stuck as well, it has failed.
fn is_good(image: &Image, initrd: &Initrd, tests: &[String], dir: &Path) -> Result<bool> {
    let verdict = boot::boot(image, &initrd.of(image, tests)?, dir)?;
    tell(&image.release, &verdict);
    if !verdict.is_stuck {
        return Ok(verdict.is_good(tests.len()));
    }
    let is_left = |test: &&String| !verdict.passed.contains(test);
    let left: Vec<String> = tests.iter().filter(is_left).cloned().collect();
    std::fs::rename(&verdict.log, verdict.log.with_extension("stuck.log"))?;
    sh::say(&format!(
        "Linux {}: its processors were stuck, as above; the {} tests that had not passed by then, in a second machine",
        image.release,
        left.len()
    ));
    let second = boot::boot(image, &initrd.of(image, &left)?, dir)?;
    tell(&image.release, &second);
    Ok(second.is_good(left.len()))
}

/// A short account of one kernel.
fn tell(release: &str, verdict: &Verdict) {
    for failure in &verdict.failures {
        sh::say(&format!("FAILED on {release}: {failure}"));
    }
    match verdict.count {
        Some(Count {
            passed,
            failed,
            seconds,
        }) => sh::say(&format!(
            "Linux {release}: {passed} passed, {failed} failed, in {seconds} s"
        )),
        None => sh::say(&format!(
            "Linux {release}: the machine ended without a verdict. The end of what it said, all of it in {}:\n{}",
            verdict.log.display(),
            verdict.last_words
        )),
    }
}
