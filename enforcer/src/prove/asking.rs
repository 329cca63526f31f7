//! Asks the daemon for names as an agent does, and sees whether it is heard: the way there leads past this host's firewall.

use std::io;
use std::net::UdpSocket;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{NOBODY, in_cgroup, scratch};
use crate::loopback::has_ipv6;
use crate::workload;

/// The cgroup of the one that asks, below the root. The kernel knows it for an agent's with a mark of its own.
const CGROUP: &str = "enforcer-probe-names";
/// What is sent, and comes back.
const WORDS: &[u8] = b"is anybody there?";
/// Servers that nobody has (RFC 5737, RFC 3849), and where to ask from; the second one's family may be switched off.
const SERVERS: [(&str, &str); 2] = [
    ("0.0.0.0:0", "192.0.2.53:53"),
    ("[::]:0", "[2001:db8::53]:53"),
];
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is asked before that is said.
const TRIES: usize = 3;

/// The cgroup of the one that asks; made where it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn asking_cgroup(cgroup_root: &FilePath) -> Result<PathBuf> {
    let cgroup = cgroup_root.join(CGROUP);
    workload::make(&cgroup).with_context(|| format!("making the cgroup {}", cgroup.display()))?;
    Ok(cgroup)
}

/// Whether the daemon is heard, in a process of the one's that asks; otherwise why not, in a sentence.
///
/// # Errors
/// When the process cannot be started.
pub async fn ask_again(cgroup_root: &FilePath) -> Result<Option<String>> {
    let cgroup = cgroup_root.join(CGROUP);
    let mut why = String::new();
    for _ in 0..TRIES {
        let asked = in_cgroup(scratch::procs(&cgroup)?, &["prove-asking"], Some(NOBODY)).await?;
        match asked {
            Some(output) if output.status.success() => return Ok(None),
            Some(output) => String::from_utf8_lossy(&output.stdout)
                .trim()
                .clone_into(&mut why),
            None => "it took too long".clone_into(&mut why),
        }
    }
    Ok(Some(format!(
        "agents' questions for names do not come back over the loopback ({why}): a firewall may drop packets by their mark, so see which bits its rules look at, and leave them out of `names.mark_mask`"
    )))
}

/// Asks, as the process that does.
///
/// # Errors
/// When no answer comes.
pub fn ask() -> io::Result<()> {
    let families = if has_ipv6() { 2 } else { 1 };
    for (from, to) in SERVERS.into_iter().take(families) {
        let asked = asked(from, to);
        asked.map_err(|error| io::Error::new(error.kind(), format!("by {to}: {error}")))?;
    }
    Ok(())
}

fn asked(from: &str, to: &str) -> io::Result<()> {
    let socket = UdpSocket::bind(from)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to)?;
    socket.send(WORDS)?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    if answer.get(..length) == Some(WORDS) {
        return Ok(());
    }
    Err(io::Error::other("another answer"))
}
