//! Running other programs and saying so.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Says one thing on standard error, marked as ours.
#[expect(clippy::print_stderr, reason = "progress for the person who waits")]
pub(crate) fn say(text: &str) {
    eprintln!("xtask: {text}");
}

/// Runs a command with our own standard streams.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(())
}

/// Runs a command and gives what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = command
        .output()
        .with_context(|| format!("cannot start {shown}"))?;
    ensure!(
        output.status.success(),
        "{shown} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
