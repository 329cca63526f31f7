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
use image::Wanted;
use initrd::Initrd;
use suite::Suite;

/// The oldest kernel that is supported: in CI this one alone.
pub(crate) const OLDEST: &[Wanted] = &[Wanted::Line(6, 1)];
/// What of the kernel part is run in CI: the programs, the guard of interfaces, and of the ways around those that older kernels close by other
/// hooks. All of it takes three times as long.
pub(crate) const IN_CI: [&str; 12] = [
    "kernel::",
    "drift::a_guard_",
    "bypass::kernel::a_full_ring_",
    "bypass::kernel::a_socket_",
    "bypass::kernel::frames_",
    "bypass::kernel::io_uring_",
    "bypass::kernel::ipv6_",
    "bypass::kernel::multipath_",
    "bypass::kernel::old_sockets_",
    "bypass::kernel::raw_packets_",
    "bypass::kernel::what_is_forwarded_",
    "bypass::kernel::who_",
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
        let verdict = boot::boot(&image, &initrd.with_modules_of(&image)?, &dir)?;
        tell(&image.release, &verdict);
        if !verdict.is_good(suite.tests.len()) {
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
