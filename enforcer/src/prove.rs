//! `enforcer prove`: tries every way out of this host toward a throw-away endpoint, and says which arrived.
//!
//! A way is tried twice: toward an open address, which must arrive, or nothing would be shown; then toward a canary, which must not. At the end
//! each address that a protected name has on this host must be refused, and each interface of the host's own drop a frame for the canary.
//! [`path`] names the ways, [`attempt`] goes one of them in a process of its own, the scratch wire is the far end and its sniffer, the judge.
//! It asks nothing of the daemon and changes nothing of the host's but an interface and a cgroup that are gone when it ends.

mod agents;
mod asking;
pub mod attempt;
pub mod canary;
mod names;
pub mod path;
mod scratch;

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use attempt::{Attempt, Ended, Wire};
use path::{Path, Spelling, Way, Who};
use scratch::Scratch;

use crate::kernel::Interface;
use crate::workload;

pub use asking::{ask, ask_again, asking_cgroup};

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
    /// Something arrived, or has left where nobody can see it arrive.
    Reached {
        /// How many packets arrived; none where nobody looks.
        #[serde(skip_serializing_if = "Option::is_none")]
        packets: Option<u64>,
        /// What that was seen by.
        saw: String,
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

/// Tries every way, then where these names lead, and tells `each` as it goes. The caller must be root, and in the network namespace that is to be
/// proven.
///
/// # Errors
/// When the scratch wire or cgroup cannot be made.
pub async fn prove(
    cgroup_root: &FilePath,
    names: &[String],
    each: impl FnMut(&Proof),
) -> Result<Vec<Proof>> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "this needs root: it makes a network interface and a cgroup of its own"
    );
    let scratch = Scratch::new(cgroup_root).await?;
    let proofs = try_all(&scratch, names, each).await;
    scratch.cut().await;
    proofs
}

async fn try_all(
    scratch: &Scratch,
    names: &[String],
    mut each: impl FnMut(&Proof),
) -> Result<Vec<Proof>> {
    let mut proofs = Vec::new();
    for path in path::all() {
        let proof = Proof {
            path: path.name(),
            words: path.words(),
            privileged: path.who() == Who::CapabilityHolder,
            outcome: try_path(scratch, path).await?,
        };
        each(&proof);
        proofs.push(proof);
    }
    let mut further = Vec::new();
    for (place, from) in [(Place::Above, MOVED), (Place::Apart, APART)] {
        for path in ELSEWHERE {
            further.push(try_elsewhere(scratch, path, place, from).await?);
        }
    }
    further.extend(names::try_names(scratch, names).await?);
    let others = scratch.others().await?;
    let framed = frames(|| scratch.procs(), &others).await?;
    further.extend(framed.into_iter().map(Framed::proof));
    further.extend(agents::unproven());
    further.iter().for_each(each);
    proofs.extend(further);
    Ok(proofs)
}

/// Sends a frame toward the canary on each of these interfaces, as only a capability holder can. Where one leaves, nobody
/// has its address.
///
/// # Errors
/// When an attempt cannot be started.
pub async fn frames(procs: impl Fn() -> Result<File>, on: &[Interface]) -> Result<Vec<Framed>> {
    let mut all = Vec::new();
    for interface in on {
        let attempt = Attempt {
            way: Way::PacketFrame,
            to: canary::CANARY4.into(),
            elsewhere: canary::OPEN4.into(),
            wire: Wire {
                name: interface.name.clone(),
                index: interface.index,
                framing: interface.framing,
                ..Wire::none()
            },
        };
        let ended = run(procs()?, &attempt, Who::CapabilityHolder).await?;
        all.push(Framed {
            interface: interface.name.clone(),
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
    fn is_refused(&self) -> bool {
        self.ended.is("ENOBUFS") || self.ended.is("EPERM")
    }

    /// Whether it may have left: nobody and nothing refused it. An interface that is down, gone, or not made for it says so.
    #[must_use]
    pub fn may_have_left(&self) -> bool {
        match self.ended {
            Ended::Sent | Ended::TookTooLong | Ended::Crashed => true,
            Ended::Refused(_) => false,
        }
    }

    fn proof(self) -> Proof {
        let saw = self.ended.to_string();
        let outcome = if self.is_refused() {
            Outcome::Blocked { saw }
        } else if self.ended == Ended::Sent {
            Outcome::Reached {
                packets: None,
                saw: "it left the interface; nobody looks where to".to_owned(),
            }
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

/// What the ways of a process that has moved are called; the way's name follows.
const MOVED: &str = "moved/";
/// What those of a process in a network namespace of its own are.
const APART: &str = "apart/";
/// What such processes try.
const ELSEWHERE: [Path; 4] = [
    Path {
        way: Way::TcpConnect,
        spelling: Spelling::V4,
    },
    Path {
        way: Way::TcpConnect,
        spelling: Spelling::V6,
    },
    Path {
        way: Way::UdpSend,
        spelling: Spelling::V4,
    },
    Path {
        way: Way::RawEcho,
        spelling: Spelling::V4,
    },
];

/// Goes a way from a process that is somewhere else: that has left its cgroup for the one above, the topmost that is enforced on, or is in a network
/// namespace of its own. A kernel keeps processes out of a cgroup whose members are bounded one by one.
async fn try_elsewhere(scratch: &Scratch, path: Path, place: Place, from: &str) -> Result<Proof> {
    let (by, cannot) = match place {
        Place::Scratch => ("a process", "it cannot be tried"),
        Place::Above => (
            "a process that has moved to the cgroup above",
            "no process may move to the cgroup above",
        ),
        Place::Apart => (
            "a process in a network namespace that has a wire of its own",
            "there is no such namespace",
        ),
    };
    let tried = try_path_from(scratch, path, place).await;
    let outcome = tried.unwrap_or_else(|error| Outcome::NotTried {
        why: format!("{cannot}: {error:#}"),
    });
    Ok(Proof {
        path: format!("{from}{}", path.name()),
        words: format!("{}, by {by}", path.words()),
        privileged: path.who() == Who::CapabilityHolder,
        outcome,
    })
}

/// Why a way of IPv6 is not tried where that is switched off: nothing is missing then.
const WITHOUT_IPV6: &str = "IPv6 is switched off on this host";

/// Whether so many proofs show anything: the simplest way must have been tried, and most of the others.
#[must_use]
pub fn is_shown(proofs: &[Proof]) -> bool {
    let is_tried = |proof: &&Proof| !matches!(proof.outcome, Outcome::NotTried { .. });
    let simplest = Path {
        way: Way::TcpConnect,
        spelling: Spelling::V4,
    };
    // However many interfaces and names there are, they show nothing of the ways.
    let others = [
        FRAME_ON,
        MOVED,
        APART,
        names::NAME,
        agents::AGENTS,
        agents::SUITE,
    ];
    let is_other = |proof: &&Proof| {
        others.iter().any(|other| proof.path.starts_with(other))
            || matches!(&proof.outcome, Outcome::NotTried { why } if why == WITHOUT_IPV6)
    };
    let ways = proofs.iter().filter(|proof| !is_other(proof));
    let tried = ways.clone().filter(is_tried);
    tried.clone().any(|proof| proof.path == simplest.name()) && 2 * tried.count() > ways.count()
}

/// Nothing of it can have left: there is no way to there, as this host's routes say.
fn has_no_route(ended: &Ended) -> bool {
    [
        "ENETUNREACH",
        "EHOSTUNREACH",
        "EINVAL",
        "EACCES",
        "EAFNOSUPPORT",
        "EADDRNOTAVAIL",
    ]
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

/// What came of probes.
#[derive(Debug, Default)]
pub struct Tried {
    /// How many ways were refused, as they are to be.
    pub refused: u64,
    /// What was not refused, one sentence each.
    pub problems: Vec<String>,
    /// What shows nothing, since this host has no route to there.
    pub nothing_of: Vec<String>,
}

impl Tried {
    fn take(&mut self, what: &str, ended: &Ended) {
        if has_no_route(ended) {
            self.nothing_of.push(what.to_owned());
        } else if ended.is("EPERM") {
            self.refused += 1;
        } else {
            self.problems.push(format!(
                "{what} toward a protected address was not refused: {ended}. Run `enforcer prove`"
            ));
        }
    }
}

/// Tries the cheap ways toward the canaries, which nobody has.
///
/// # Errors
/// When the cgroup that they are tried from cannot be made.
pub async fn probe(cgroup_root: &FilePath) -> Result<Tried> {
    let cgroup = probe_cgroup(cgroup_root)?;
    let mut tried = Tried::default();
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
        tried.take(&path.name(), &ended);
    }
    Ok(tried)
}

/// Connects a datagram socket to each of these protected addresses, which may be somebody's: the kernel judges it, and nothing is sent. A host
/// may have a route to them, and none to the canaries.
///
/// # Errors
/// When the cgroup that they are tried from cannot be made.
pub async fn probe_addresses(cgroup_root: &FilePath, addresses: &[IpAddr]) -> Result<Tried> {
    let cgroup = probe_cgroup(cgroup_root)?;
    let mut tried = Tried::default();
    for to in addresses {
        let attempt = names::socket_to(*to);
        let ended = run(scratch::procs(&cgroup)?, &attempt, Who::Anyone).await?;
        tried.take(&format!("a socket to {to}"), &ended);
    }
    Ok(tried)
}

async fn try_path(scratch: &Scratch, path: Path) -> Result<Outcome> {
    try_path_from(scratch, path, Place::Scratch).await
}

/// Where a process tries something.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the scratch cgroup.
    Scratch,
    /// In the one above, to which it moves from there.
    Above,
    /// In the scratch cgroup, and in another network namespace.
    Apart,
}

async fn try_path_from(scratch: &Scratch, path: Path, place: Place) -> Result<Outcome> {
    if path.spelling.is_ipv6() && !scratch.has_ipv6() {
        let why = WITHOUT_IPV6.to_owned();
        return Ok(Outcome::NotTried { why });
    }
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
    let (ended, packets) = go(scratch, path, open, place).await?;
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
    let (ended, packets) = go(scratch, path, canary, place).await?;
    Ok(if packets == 0 {
        Outcome::Blocked {
            saw: ended.to_string(),
        }
    } else {
        Outcome::Reached {
            packets: Some(packets),
            saw: format!("packets at the far end: {packets}"),
        }
    })
}

/// Goes one way toward one address; what the caller saw, and how many packets arrived.
async fn go(scratch: &Scratch, path: Path, to: IpAddr, place: Place) -> Result<(Ended, u64)> {
    let attempt = Attempt {
        way: path.way,
        to: path.spelling.of(to),
        elsewhere: canary::elsewhere(to),
        wire: scratch.wire(),
    };
    let wire_address = attempt.to.to_canonical();
    scratch.forget();
    let (procs, netns) = match place {
        Place::Scratch => (vec![scratch.procs()?], None),
        Place::Above => (vec![scratch.procs()?, scratch.procs_above()?], None),
        Place::Apart => (vec![scratch.procs()?], Some(scratch.apart()?)),
    };
    let ended = run_by_way_of(procs, netns, &attempt, path.who()).await?;
    tokio::time::sleep(SETTLE).await;
    Ok((ended, scratch.arrived(wire_address)))
}

/// Runs an attempt in a process of its own: in the scratch cgroup, and as nobody where the way takes no privilege.
async fn run(procs: File, attempt: &Attempt, who: Who) -> Result<Ended> {
    run_by_way_of(vec![procs], None, attempt, who).await
}

/// The same, from the last of these cgroups, by way of the others, and in that network namespace.
async fn run_by_way_of(
    procs: Vec<File>,
    netns: Option<OwnedFd>,
    attempt: &Attempt,
    who: Who,
) -> Result<Ended> {
    let uid = match who {
        Who::Anyone => Some(NOBODY),
        Who::CapabilityHolder => None,
    };
    let attempt = serde_json::to_string(attempt)?;
    let args = ["prove-attempt", "--attempt", &attempt];
    let Some(output) = in_cgroups(procs, netns, &args, uid).await? else {
        return Ok(Ended::TookTooLong);
    };
    Ok(serde_json::from_slice(&output.stdout).unwrap_or(Ended::Crashed))
}

/// A command of this program's in a cgroup; `None` where it takes too long.
async fn in_cgroup(procs: File, args: &[&str], uid: Option<u32>) -> Result<Option<Output>> {
    in_cgroups(vec![procs], None, args, uid).await
}

/// The same, in the last of these, by way of the others, and in that network namespace.
async fn in_cgroups(
    procs: Vec<File>,
    netns: Option<OwnedFd>,
    args: &[&str],
    uid: Option<u32>,
) -> Result<Option<Output>> {
    // Also where the program on disk is another one by now.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    #[expect(
        unsafe_code,
        reason = "entering a cgroup before the program starts has no safe way"
    )]
    // SAFETY: between fork and exec only system calls are made, on descriptors that were opened before.
    unsafe {
        command.pre_exec(move || {
            for procs in &procs {
                rustix::io::write(procs, b"0")?;
            }
            if let Some(netns) = &netns {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
            }
            // After the namespace, which only root enters, and before the signal, which this would clear.
            if let Some(uid) = uid {
                nix::unistd::setgroups(&[])?;
                nix::unistd::setgid(nix::unistd::Gid::from_raw(uid))?;
                nix::unistd::setuid(nix::unistd::Uid::from_raw(uid))?;
            }
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            Ok(())
        });
    }
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let Ok(output) = tokio::time::timeout(ATTEMPT, command.output()).await else {
        return Ok(None);
    };
    output.context("starting an attempt").map(Some)
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
            not_tried("frame-on/b"),
            not_tried("name/bigquery.googleapis.com"),
            not_tried("agents/names"),
            not_tried("suite/flood"),
            not_tried("moved/tcp-connect/v4")
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
