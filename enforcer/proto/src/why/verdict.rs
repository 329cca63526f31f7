//! The kernel's verdicts for people: what each means, and what to do.

use enforcer_ebpf::verdict::Reason;

/// What is said of a verdict besides its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// Why it is refused.
    pub meaning: &'static str,
    /// What to do.
    pub next_step: &'static str,
}

/// The reason that the words of a record end with, such as `connect4 refused: no window is open`. What an older or newer enforcer wrote may
/// have none.
#[must_use]
pub fn named_in(verdict: &str) -> Option<Reason> {
    all().find(|reason| verdict.ends_with(reason.words()))
}

/// Every reason there is, by its number.
pub fn all() -> impl Iterator<Item = Reason> {
    (1..).map_while(Reason::from_number)
}

/// What `reason` means, and what to do about it.
#[expect(clippy::too_many_lines, reason = "one arm for each reason")]
#[must_use]
pub const fn explained(reason: Reason) -> Explained {
    let (meaning, next_step) = match reason {
        Reason::NotAnAgent => (
            "On this host only agents reach BigQuery, each from its own workload. This process is in none.",
            "Start it inside an agent's workload: enforcer run --agent NAME -- COMMAND",
        ),
        Reason::WrongUid => (
            "The agent's section names a uid, and this process in its workload runs as another.",
            "Run it as the agent's uid, as enforcer run does; or correct `uid` in the agent's section.",
        ),
        Reason::NoWindow => (
            "The agent has no open window, and its section says that it gets no explanation.",
            "Ask for one: enforcer request --scope PROJECT.DATASET:read --ttl 15m --reason WHY",
        ),
        Reason::NotTcp => (
            "BigQuery is served by TCP here. QUIC and other datagrams would pass the proxy by.",
            "Nothing: clients go on by TCP. A client that does not must be told to.",
        ),
        Reason::WrongPort => (
            "BigQuery is served at port 443 alone.",
            "Use https without another port.",
        ),
        Reason::OtherNetns => (
            "The process was in a network namespace in which the daemon did not listen, or not yet: it listens where processes of agents are, within moments, and nowhere else.",
            "Try again, as most clients do by themselves. Where it stays so, `enforcer status` says why that namespace is not served; who is no agent belongs in the host's.",
        ),
        Reason::DaemonSilent => (
            "The daemon does not run, is frozen or was too busy to say so. Without it nothing is let through.",
            "See whether enforcer daemon runs: enforcer status, and its log.",
        ),
        Reason::ProxyDirect => (
            "The daemon's own ports are for connections that the kernel leads there; this one dialled them.",
            "Connect to BigQuery's own names; nothing need know of the proxy.",
        ),
        Reason::Egress => (
            "A packet toward a protected address that no connection of the daemon's has sent, such as one made by hand.",
            "Look at what the process does: clients send none. An old connection ends this way too, and is made anew.",
        ),
        Reason::Internal => (
            "The kernel program could not read what it must judge, or had no room to remember it; so it refused.",
            "Try again; where it goes on, see enforcer status for what is wrong.",
        ),
        Reason::SourceRoute => (
            "The packet has a route in its header, so that its destination does not say where it ends.",
            "Look at what the process does: clients send none.",
        ),
        Reason::Bypass => (
            "With that socket option frames would leave past the programs that judge them.",
            "Look at what the process does; a tool that measures networks may want it, and has to do without.",
        ),
        Reason::OwnPort => (
            "Somebody else would listen on a port of the daemon's, and so take its place.",
            "Use another port.",
        ),
        Reason::Metadata => (
            "The metadata server hands out the host's own credentials. Agents have a stand-in at its http port, where that is on, and nothing else.",
            "Let the client use the metadata server by http, as it does by itself; or turn the stand-in on.",
        ),
        Reason::OwnResolver => (
            "The agent asked a name server by TLS or QUIC. It is to hear of names from the daemon.",
            "Turn off DNS over TLS or QUIC in the client.",
        ),
        Reason::Ambiguous => (
            "The socket was made outside the workload of the process that uses it, so that it is not clear who asks.",
            "Have the process that uses a socket make it.",
        ),
        Reason::SocketFamily => (
            "No program sees where sockets of that family lead, so agents have none.",
            "Use TCP or UDP.",
        ),
        Reason::Traced => (
            "A process in a workload was to be looked into from outside, or looked at one outside. It could take over who it is.",
            "Debug inside the workload: enforcer run --agent NAME -- COMMAND",
        ),
        Reason::KernelPrograms => (
            "An agent would load or read kernel programs, among them those that enforce.",
            "Look at what the process does; this is not needed to query BigQuery.",
        ),
        Reason::Encapsulated => (
            "The frame carries a tunnel or something else that the program does not read, so that it cannot say where it goes.",
            "End the tunnel outside agents' workloads, or before this host.",
        ),
        Reason::Astray => (
            "The process named an interface for a connection or a question that is led to the daemon. It would have gone out by that interface, past the daemon.",
            "Name no interface (SO_BINDTODEVICE, IP_UNICAST_IF, IP_PKTINFO; curl --interface) for what is BigQuery's, or a question for a name.",
        ),
        Reason::NotFirst => (
            "Rules of the network namespace wrote another number into a connection's first packet, or made a later one look like a first, by which the middle of what is said would be taken for its beginning.",
            "Take such rules out of the namespace; nothing needs them on the loopback.",
        ),
        Reason::Multipath => (
            "The client speaks multipath TCP in a network namespace of its own, whose root chooses by which of several connections what it says goes: what one of them says first need not be what the client says first.",
            "Use plain TCP there, as clients do by themselves (no mptcpize, no curl --mptcp, no GODEBUG=multipathtcp=1).",
        ),
        Reason::DataWithFirst => (
            "The client uses TCP Fast Open toward the daemon. What a socket says first is taken up behind its first packet; this one was dropped, and the kernel sends it again without data, so that the connection goes on.",
            "Nothing need be done. To have no such records turn TCP Fast Open off in the client.",
        ),
        Reason::InDoubt => (
            "Whether the workload is the agent's is in doubt: two containers or units are called so, it was renamed or replaced while it runs, or others than root can write it. It may be an agent's, so nobody in it is served.",
            "Trying again does not help: do what `enforcer status` says of the agent, such as to stop, rename or relabel the other one.",
        ),
        Reason::OutsideWorkload => (
            "The process runs as an agent's uid, as one that is subordinate to it, or in a user namespace that such a one made, outside that agent's workload: started by cron or a login, say, or by a file that is set-user-id.",
            "Start it inside the agent's workload: enforcer run --agent NAME -- COMMAND",
        ),
    };
    Explained { meaning, next_step }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_known_by_its_words() {
        for reason in all() {
            let verdict = format!("connect4 refused: {}", reason.words());
            assert_eq!(named_in(&verdict), Some(reason));
        }
        assert_eq!(all().count(), 26);
        assert_eq!(named_in("connect4 refused: another reason"), None);
    }
}
