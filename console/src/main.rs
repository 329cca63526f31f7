//! The program: see the library, which is all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    enforcer_console::main()
}
