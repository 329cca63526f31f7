//! Programs that are run to their end, and what they print.

use std::process::{Command, Output};

/// Writes a TLS hello for a name (none where it is empty), as a library makes it.
const HELLO: &str = r#"
import ssl, sys
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
context = ssl.create_default_context()
context.check_hostname = False
stream = context.wrap_bio(incoming, outgoing, server_hostname=sys.argv[1] or None)
try:
    stream.do_handshake()
except ssl.SSLWantReadError:
    pass
sys.stdout.buffer.write(outgoing.read())
"#;

/// Runs a command to its end, and gives what it printed, without the last line's end.
///
/// # Panics
/// When it cannot be run, or fails.
pub fn said(command: &mut Command) -> String {
    let output = succeeded(command);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A TLS hello for a name (none where it is empty).
#[must_use]
pub fn tls_hello(name: &str) -> Vec<u8> {
    let hello = succeeded(Command::new("/usr/bin/python3").args(["-c", HELLO, name])).stdout;
    assert!(!hello.is_empty());
    hello
}

fn succeeded(command: &mut Command) -> Output {
    let output = command.output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    output
}
