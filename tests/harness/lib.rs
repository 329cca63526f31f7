//! The test world: network namespaces as the internet, cgroups as workloads, real programs in them.
//!
//! Everything belongs to the test process: namespaces and mounts live in file descriptors and vanish with it, children die with it, and
//! the janitor removes cgroups and files, also when the test is killed. How to write a test: start a stage (or a world), run real programs in
//! it, assert on what they printed, what the far side saw, and what the log says.

pub mod capture;
pub mod cgroup;
mod janitor;
mod mounts;
pub mod programs;
mod secrets;
pub mod stage;
pub mod terminal;
pub mod tracer;
pub mod world;

/// How much longer things may take than on a machine of its own: in an emulated one, whoever starts it says so.
const SLOWNESS: &str = "ENFORCER_TEST_SLOWNESS";

/// So much time, or as many times as much as this machine is slow.
///
/// # Panics
/// When what `ENFORCER_TEST_SLOWNESS` says is no number.
#[must_use]
pub fn patience(time: std::time::Duration) -> std::time::Duration {
    let slowness = std::env::var(SLOWNESS).map_or(1, |text| {
        text.parse()
            .unwrap_or_else(|error| panic!("{SLOWNESS}={text}: {error}"))
    });
    time * slowness
}

/// Panics when not root: these tests change the kernel, and a test that skips itself shows nothing.
pub fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests load kernel programs: run them as root (sudo cargo xtask test)"
    );
}
