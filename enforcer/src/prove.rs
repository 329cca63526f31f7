//! `enforcer prove`: tries every way out of this host toward a throw-away endpoint, and says which arrived.
//!
//! A way is tried twice: toward an open address, which must arrive, or nothing would be shown; then toward a canary, which must not. At the end
//! each interface of the host's own must drop a frame for the canary.
//! [`path`] names the ways, [`attempt`] goes one of them in a process of its own, the scratch wire is the far end and its sniffer, the judge.
//! It asks nothing of the daemon and changes nothing of the host's but an interface and a cgroup that are gone when it ends.

pub mod attempt;
pub mod canary;
pub mod path;
mod scratch;

use std::fs::File;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use attempt::{Attempt, Ended, Wire};
use path::{Path, Spelling, Way, Who};
use scratch::Scratch;

use crate::workload;

/// How long one attempt may take, whatever it waits for.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long a packet may be on its way to the far end of the scratch wire.
const SETTLE: Duration = Duration::from_millis(40);
/// The cgroup of the daemon's own probes, below the root that is enforced.
const PROBE_CGROUP: &str = "enforcer-probe";
/// Who tries what needs no privilege: nobody.
const NOBODY: u32 = 65_534;

/// What became of one way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    /// Nothing arrived at the canary, though the same way leads to an open address.
    Blocked {
        /// What the caller saw: an errno's name, or that it saw nothing.
        saw: String,
    },
    /// Something arrived.
    Reached {
        /// How many packets.
        packets: u64,
    },
    /// Nothing is shown.
    NotTried {
        /// Why this host cannot even go this way to an open address.
        why: String,
    },
}

/// One way out, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The way's stable name.
    pub path: String,
    /// The way in words.
    pub words: String,
    /// Whether it takes a capability.
    pub privileged: bool,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// Tries every way, and tells `each` as it goes. The caller must be root, and in the network namespace that is to be proven.
///
/// # Errors
/// When the scratch wire or cgroup cannot be made.
pub async fn prove(cgroup_root: &FilePath, mut each: impl FnMut(&Proof)) -> Result<Vec<Proof>> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this needs root: it makes a network interface and a cgroup of its own"
    );
    let scratch = Scratch::new(cgroup_root).await?;
    let mut proofs = Vec::new();
    for path in path::all() {
        let proof = Proof {
            path: path.name(),
            words: path.words(),
            privileged: path.who() == Who::CapabilityHolder,
            outcome: try_path(&scratch, path).await?,
        };
        each(&proof);
        proofs.push(proof);
    }
    for framed in frames(|| scratch.procs(), &scratch.others().await?).await? {
        let proof = framed.proof();
        each(&proof);
        proofs.push(proof);
    }
    Ok(proofs)
}

/// Sends a frame toward the canary on each of these interfaces, by name and index, as only a capability holder can. Where one leaves, nobody
/// has its address.
///
/// # Errors
/// When an attempt cannot be started.
pub async fn frames(procs: impl Fn() -> Result<File>, on: &[(String, u32)]) -> Result<Vec<Framed>> {
    let mut all = Vec::new();
    for (name, index) in on {
        let attempt = Attempt {
            way: Way::PacketFrame,
            to: canary::CANARY4.into(),
            elsewhere: canary::OPEN4.into(),
            wire: Wire {
                name: name.clone(),
                index: *index,
                ..Wire::none()
            },
        };
        let ended = run(procs()?, &attempt, Who::CapabilityHolder).await?;
        all.push(Framed {
            interface: name.clone(),
            ended,
        });
    }
    Ok(all)
}

/// What the proofs of frames are called; the interface's name follows.
const FRAME_ON: &str = "frame-on/";

/// How a frame on an interface ended.
#[derive(Debug)]
pub struct Framed {
    /// The interface's name.
    pub interface: String,
    /// How it ended.
    pub ended: Ended,
}

impl Framed {
    /// Whether it was dropped, or its socket refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.ended.is("ENOBUFS") || self.ended.is("EPERM")
    }

    /// Whether the interface is down or gone: nothing leaves by it.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        ["ENETDOWN", "ENXIO", "ENODEV"]
            .iter()
            .any(|errno| self.ended.is(errno))
    }

    fn proof(self) -> Proof {
        let saw = self.ended.to_string();
        let outcome = if self.is_refused() {
            Outcome::Blocked { saw }
        } else if self.ended == Ended::Sent {
            Outcome::Reached { packets: 1 }
        } else {
            Outcome::NotTried { why: saw }
        };
        Proof {
            path: format!("{FRAME_ON}{}", self.interface),
            words: "a frame on an interface of this host's own".to_owned(),
            privileged: true,
            outcome,
        }
    }
}

/// Whether so many proofs show anything: the simplest way must have been tried, and most of the others.
#[must_use]
pub fn is_shown(proofs: &[Proof]) -> bool {
    let is_tried = |proof: &&Proof| !matches!(proof.outcome, Outcome::NotTried { .. });
    let simplest = Path {
        way: Way::TcpConnect,
        spelling: Spelling::V4,
    };
    // However many interfaces there are, they show nothing of the ways.
    let ways = proofs
        .iter()
        .filter(|proof| !proof.path.starts_with(FRAME_ON));
    let tried = ways.clone().filter(is_tried);
    tried.clone().any(|proof| proof.path == simplest.name()) && 2 * tried.count() > ways.count()
}

/// Nothing of it can have left: there is no way to there, as this host's routes say.
fn has_no_route(ended: &Ended) -> bool {
    ["ENETUNREACH", "EHOSTUNREACH", "EINVAL", "EACCES"]
        .iter()
        .any(|errno| ended.is(errno))
}

/// What the daemon tries again and again: one way for each of the hooks.
const CHEAP: [(Way, Spelling); 6] = [
    (Way::TcpConnect, Spelling::V4),
    (Way::TcpConnect, Spelling::V6),
    (Way::UdpSend, Spelling::V4),
    (Way::UdpSend, Spelling::V6),
    (Way::RawEcho, Spelling::V4),
    (Way::RawEcho, Spelling::V6),
];

/// The cgroup that the cheap ways are tried from; made where it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn probe_cgroup(cgroup_root: &FilePath) -> Result<PathBuf> {
    let cgroup = cgroup_root.join(PROBE_CGROUP);
    workload::make(&cgroup).with_context(|| format!("making the cgroup {}", cgroup.display()))?;
    Ok(cgroup)
}

/// Where a process is written to enter that cgroup.
///
/// # Errors
/// When it cannot be opened.
pub fn probe_procs(cgroup_root: &FilePath) -> Result<File> {
    scratch::procs(&cgroup_root.join(PROBE_CGROUP))
}

/// Tries the cheap ways toward the canaries, which nobody has. Gives those that were not refused, one sentence each.
///
/// # Errors
/// When the cgroup that they are tried from cannot be made.
pub async fn probe(cgroup_root: &FilePath) -> Result<Vec<String>> {
    let cgroup = probe_cgroup(cgroup_root)?;
    let mut problems = Vec::new();
    for (way, spelling) in CHEAP {
        let path = Path { way, spelling };
        let to = match spelling {
            Spelling::V6 => IpAddr::from(canary::CANARY6),
            Spelling::V4
            | Spelling::Mapped
            | Spelling::Compatible
            | Spelling::Nat64
            | Spelling::LocalNat64
            | Spelling::SixToFour
            | Spelling::Teredo => canary::CANARY4.into(),
        };
        let attempt = Attempt {
            way,
            to,
            elsewhere: canary::elsewhere(to),
            wire: Wire::none(),
        };
        let ended = run(scratch::procs(&cgroup)?, &attempt, path.who()).await?;
        if !ended.is("EPERM") && !has_no_route(&ended) {
            problems.push(format!(
                "{} toward a protected address was not refused: {ended}. Run `enforcer prove`",
                path.name()
            ));
        }
    }
    Ok(problems)
}

async fn try_path(scratch: &Scratch, path: Path) -> Result<Outcome> {
    let (canary, open) = match path.spelling {
        Spelling::V6 => (IpAddr::from(canary::CANARY6), IpAddr::from(canary::OPEN6)),
        Spelling::V4
        | Spelling::Mapped
        | Spelling::Compatible
        | Spelling::Nat64
        | Spelling::LocalNat64
        | Spelling::SixToFour
        | Spelling::Teredo => (canary::CANARY4.into(), canary::OPEN4.into()),
    };
    let (ended, packets) = go(scratch, path, open).await?;
    if packets == 0 && path.way.is_closed_everywhere() && ended.is("EPERM") {
        return Ok(Outcome::Blocked {
            saw: format!("{ended}, toward any address"),
        });
    }
    if packets == 0 {
        return Ok(Outcome::NotTried {
            why: format!("it does not work here toward an open address either: {ended}"),
        });
    }
    let (ended, packets) = go(scratch, path, canary).await?;
    Ok(if packets == 0 {
        Outcome::Blocked {
            saw: ended.to_string(),
        }
    } else {
        Outcome::Reached { packets }
    })
}

/// Goes one way toward one address; what the caller saw, and how many packets arrived.
async fn go(scratch: &Scratch, path: Path, to: IpAddr) -> Result<(Ended, u64)> {
    let attempt = Attempt {
        way: path.way,
        to: path.spelling.of(to),
        elsewhere: canary::elsewhere(to),
        wire: scratch.wire(),
    };
    let wire_address = attempt.to.to_canonical();
    scratch.forget();
    let ended = run(scratch.procs()?, &attempt, path.who()).await?;
    tokio::time::sleep(SETTLE).await;
    Ok((ended, scratch.arrived(wire_address)))
}

/// Runs an attempt in a process of its own: in the scratch cgroup, and as nobody where the way takes no privilege.
async fn run(procs: File, attempt: &Attempt, who: Who) -> Result<Ended> {
    // Also where the program on disk is another one by now.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["prove-attempt", "--attempt"])
        .arg(serde_json::to_string(attempt)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let uid = match who {
        Who::Anyone => Some(NOBODY),
        Who::CapabilityHolder => None,
    };
    #[expect(
        unsafe_code,
        reason = "entering a cgroup before the program starts has no safe way"
    )]
    // SAFETY: between fork and exec only system calls are made, on a descriptor that was opened before.
    unsafe {
        command.pre_exec(move || {
            rustix::io::write(&procs, b"0")?;
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
    let mut command = tokio::process::Command::from(command);
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    command.kill_on_drop(true);
    let Ok(output) = tokio::time::timeout(ATTEMPT, command.output()).await else {
        return Ok(Ended::TookTooLong);
    };
    let output = output.context("starting an attempt")?;
    Ok(serde_json::from_slice(&output.stdout).unwrap_or(Ended::Crashed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof(path: &str, outcome: Outcome) -> Proof {
        Proof {
            path: path.to_owned(),
            words: String::new(),
            privileged: false,
            outcome,
        }
    }

    fn blocked(path: &str) -> Proof {
        let saw = "EPERM".to_owned();
        proof(path, Outcome::Blocked { saw })
    }

    fn not_tried(path: &str) -> Proof {
        let why = "EACCES".to_owned();
        proof(path, Outcome::NotTried { why })
    }

    #[test]
    fn what_could_not_be_tried_shows_nothing() {
        assert!(!is_shown(&[]));
        assert!(is_shown(&[blocked("tcp-connect/v4")]));
        assert!(!is_shown(&[
            not_tried("tcp-connect/v4"),
            blocked("udp-send/v4"),
            blocked("ping/v4")
        ]));
        assert!(!is_shown(&[
            blocked("tcp-connect/v4"),
            not_tried("udp-send/v4")
        ]));
        // Interfaces count for nothing here, up or down.
        assert!(!is_shown(&[
            blocked("tcp-connect/v4"),
            not_tried("udp-send/v4"),
            blocked("frame-on/a"),
            blocked("frame-on/b")
        ]));
        assert!(is_shown(&[
            blocked("tcp-connect/v4"),
            not_tried("frame-on/a"),
            not_tried("frame-on/b")
        ]));
    }

    #[test]
    fn an_error_of_this_hosts_routes_is_no_gap_and_a_timeout_is() {
        for (errno, is_none) in [("EINVAL", true), ("EACCES", true), ("ENOBUFS", false)] {
            let ended = Ended::Refused(errno.to_owned());
            assert_eq!(has_no_route(&ended), is_none, "{ended}");
        }
        assert!(!has_no_route(&Ended::Sent) && !has_no_route(&Ended::TookTooLong));
    }
}
