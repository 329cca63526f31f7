//! The enforcer's command line and daemon: reads its arguments, does one thing, ends with a stable exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer::cli::main()
}
