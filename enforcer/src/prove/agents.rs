//! What is not proven, and why: said line by line, so that nobody takes what was tried for all there is.
//!
//! Some of it holds for agents only: who tries it must be in an agent's workload, under its uid, and a proof is neither. Of the rest a host of
//! somebody's own would bear no trial, or none that shows anything; the suite's machines do.

use super::{Outcome, Proof};

/// What the lines of agents are called; what they speak of follows.
pub(super) const AGENTS: &str = "agents/";
/// What the others are called; what they speak of follows.
pub(super) const SUITE: &str = "suite/";

const OF_AGENTS: &str = "only an agent's process could show it, and a proof is none; try it by hand: enforcer run --agent NAME -- COMMAND";

/// What holds for agents only.
const UNPROVEN: [(&str, &str); 6] = [
    (
        "metadata",
        "the metadata server, which hands out the host's own credentials",
    ),
    ("names", "a name server of an agent's own choice"),
    (
        "identity",
        "another agent's window, another uid or executable in a workload, a socket from outside",
    ),
    (
        "handed-over",
        "a socket that was made in one workload, or in none, and is used in another",
    ),
    (
        "namespaces",
        "an agent's own network namespaces: their ports, their occupants, what is set up in them",
    ),
    (
        "window",
        "another dataset than the window's, a request past its deadline",
    ),
];

/// What the suite shows on machines of its own, and why it is not tried here.
const SHOWN_ELSEWHERE: [(&str, &str, &str); 11] = [
    (
        "old-sockets",
        "a socket or process that is older than the enforcer",
        "the enforcer runs already, and a proof does not end it",
    ),
    (
        "namespace",
        "a user and network namespace with a way out by this host",
        "this host would have to forward, and a proof changes nothing of its routing",
    ),
    (
        "runtime",
        "a process that a container runtime or service manager starts for an agent",
        "each is this host's own, and a proof starts nothing by it",
    ),
    (
        "forwarded",
        "packets of a guest or a container, or by a TUN device, which this host forwards",
        "this host would have to forward, and a proof changes nothing of its routing",
    ),
    (
        "relay",
        "a relay, reached over the network or a local socket",
        "one on this host is a process like any other, and refused as the ways above are; what one on another host carries is not seen: a limit",
    ),
    (
        "families",
        "sockets of VSOCK and SMC, and the sending ring of AF_XDP",
        "no wire shows where they lead; `enforcer status` says whether the security hooks refuse them to agents",
    ),
    (
        "flood",
        "ten thousand connections in a loop",
        "its refusals would fill the log",
    ),
    (
        "full-maps",
        "a full ring of events, and full maps",
        "it would take places from those who are served now",
    ),
    (
        "idle-programs",
        "programs that are attached and let everything through",
        "the daemon tries the cheap ways every 20 seconds and says so in `enforcer status`",
    ),
    (
        "hello",
        "BigQuery's name in a TLS hello, or BigQuery inside a connection to another name, at an address that it shares",
        "only at such an address a hello is read, and each is somebody's: to the canaries nobody but agents is led at all",
    ),
    (
        "ports",
        "ports and sequence numbers that two agents share, one after the other",
        "only agents' processes could show it",
    ),
];

/// A line for each.
pub(super) fn unproven() -> impl Iterator<Item = Proof> {
    let of_agents = UNPROVEN
        .iter()
        .map(|(path, words)| (format!("{AGENTS}{path}"), *words, OF_AGENTS));
    let elsewhere = SHOWN_ELSEWHERE
        .iter()
        .map(|(path, words, why)| (format!("{SUITE}{path}"), *words, *why));
    of_agents.chain(elsewhere).map(|(path, words, why)| Proof {
        path,
        words: words.to_owned(),
        privileged: false,
        outcome: Outcome::NotTried {
            why: why.to_owned(),
        },
    })
}
