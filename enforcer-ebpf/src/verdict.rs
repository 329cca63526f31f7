//! The decision, pure: the same function in the kernel, in the tests and in the daemon's fake. Nothing allows by default.

use crate::map::{Agent, CLOSED_EXPLAIN, ENDPOINT_PORT, HEARTBEAT_NS_MAX, UID_ANY, Window};

/// What one socket operation is, as the kernel sees it. Everything is as of now, and of the task that acts.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// The boot-time clock, nanoseconds.
    pub now_boot_ns: u64,
    /// The daemon's last sign of life on that clock; 0 for none.
    pub heartbeat_boot_ns: u64,
    /// Whether the destination is protected.
    pub is_endpoint: bool,
    /// Whether the destination is the proxy's own port on this host.
    pub is_proxy: bool,
    /// Whether the task is in the daemon's own cgroup.
    pub is_daemon: bool,
    /// Whether this is a TCP connection being made (and not a datagram).
    pub is_tcp_connect: bool,
    /// Destination port, host order.
    pub port: u16,
    /// Whether the task is in the network namespace the proxy listens in.
    pub is_daemon_netns: bool,
    /// The task's uid.
    pub uid: u32,
    /// The agent whose workload the task is in.
    pub agent: Option<Agent>,
    /// That agent's window, open or not.
    pub window: Option<Window>,
}

/// Why something was refused. Numbers are part of the record: only added, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Reason {
    /// The task is in no agent's workload.
    NotAnAgent = 1,
    /// The task is in an agent's workload under another uid.
    WrongUid = 2,
    /// No window, and this agent gets no explanation.
    NoWindow = 3,
    /// Not TCP: QUIC and everything else.
    NotTcp = 4,
    /// Not the one port that is served.
    WrongPort = 5,
    /// A network namespace the proxy does not listen in.
    OtherNetns = 6,
    /// The daemon gave no sign of life.
    DaemonSilent = 7,
    /// A connection to the proxy's port that was not led there.
    ProxyDirect = 8,
    /// A packet toward an endpoint that is not the daemon's.
    Egress = 9,
    /// A map operation failed, or the operation could not be read.
    Internal = 10,
    /// A packet that names its own route: its destination field does not say where it ends.
    SourceRoute = 11,
    /// A socket option that puts frames on a wire past the other programs.
    Bypass = 12,
}

impl Reason {
    /// The reason with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::NotAnAgent,
            2 => Self::WrongUid,
            3 => Self::NoWindow,
            4 => Self::NotTcp,
            5 => Self::WrongPort,
            6 => Self::OtherNetns,
            7 => Self::DaemonSilent,
            8 => Self::ProxyDirect,
            9 => Self::Egress,
            10 => Self::Internal,
            11 => Self::SourceRoute,
            12 => Self::Bypass,
            _ => return None,
        })
    }

    /// The reason in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NotAnAgent => "the process is in no agent's workload",
            Self::WrongUid => "the process does not run as the agent's uid",
            Self::NoWindow => "no window is open",
            Self::NotTcp => "only TCP is served, not QUIC or other datagrams",
            Self::WrongPort => "only port 443 is served",
            Self::OtherNetns => "the proxy does not listen in this network namespace",
            Self::DaemonSilent => "the daemon gave no sign of life",
            Self::ProxyDirect => "the proxy's port cannot be dialled directly",
            Self::Egress => "a packet toward BigQuery that is not the daemon's",
            Self::Internal => "the kernel program could not read or remember it",
            Self::SourceRoute => "a packet that names its own route could end anywhere",
            Self::Bypass => "the socket option would put frames on the wire unseen",
        }
    }
}

/// The answer for one socket operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As if we were not there.
    Allow,
    /// `EPERM`, and an event.
    Deny(Reason),
    /// To the proxy; the grant whose window is open, or 0 where the proxy is to explain.
    Redirect {
        /// The grant's number, or 0.
        grant: u64,
    },
}

/// Decides on one socket operation.
#[must_use]
#[inline(always)]
pub const fn decide(facts: &Facts) -> Verdict {
    if facts.is_daemon {
        return Verdict::Allow;
    }
    if facts.is_proxy {
        return Verdict::Deny(Reason::ProxyDirect);
    }
    if !facts.is_endpoint {
        return Verdict::Allow;
    }
    let Some(agent) = facts.agent else {
        return Verdict::Deny(Reason::NotAnAgent);
    };
    if agent.uid != UID_ANY && agent.uid != facts.uid {
        return Verdict::Deny(Reason::WrongUid);
    }
    if !facts.is_tcp_connect {
        return Verdict::Deny(Reason::NotTcp);
    }
    if facts.port != ENDPOINT_PORT {
        return Verdict::Deny(Reason::WrongPort);
    }
    if !facts.is_daemon_netns {
        return Verdict::Deny(Reason::OtherNetns);
    }
    if !is_alive(facts) {
        return Verdict::Deny(Reason::DaemonSilent);
    }
    match facts.window {
        Some(window) if is_open(&window, facts.now_boot_ns) => Verdict::Redirect {
            grant: window.grant,
        },
        _ if agent.closed == CLOSED_EXPLAIN => Verdict::Redirect { grant: 0 },
        _ => Verdict::Deny(Reason::NoWindow),
    }
}

/// Whether the window is open at `now`: `[opens, closes)`.
#[must_use]
#[inline(always)]
pub const fn is_open(window: &Window, now_boot_ns: u64) -> bool {
    window.opens_boot_ns <= now_boot_ns && now_boot_ns < window.closes_boot_ns
}

/// A heartbeat from the future is none: nothing but the daemon's own clock writes it.
#[inline(always)]
const fn is_alive(facts: &Facts) -> bool {
    let beat = facts.heartbeat_boot_ns;
    // The writer samples the clock before the map is written, so a beat is never ahead of a reader by more than it takes to read.
    beat != 0
        && (facts.now_boot_ns < beat || facts.now_boot_ns - beat < HEARTBEAT_NS_MAX)
        && beat < facts.now_boot_ns + HEARTBEAT_NS_MAX
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;

    use super::*;
    use crate::map::CLOSED_DROP;

    fn agent() -> impl Strategy<Value = Option<Agent>> {
        prop::option::of(
            (prop_oneof![Just(UID_ANY), 0_u32..3], 0_u32..4)
                .prop_map(|(uid, closed)| Agent { uid, closed }),
        )
    }

    fn window() -> impl Strategy<Value = Option<Window>> {
        let times = (0_u64..200, 0_u64..200);
        prop::option::of(
            (1_u64..9, times).prop_map(|(grant, (opens_boot_ns, closes_boot_ns))| Window {
                grant,
                opens_boot_ns,
                closes_boot_ns,
            }),
        )
    }

    prop_compose! {
        fn facts()(
            now in 100_u64..=150, age in prop_oneof![0_u64..100, Just(HEARTBEAT_NS_MAX)], flags in any::<[bool; 5]>(),
            port in prop_oneof![Just(443_u16), any::<u16>()], uid in 0_u32..3, agent in agent(), window in window()
        ) -> Facts {
            let [is_endpoint, is_proxy, is_daemon, is_tcp_connect, is_daemon_netns] = flags;
            let now_boot_ns = now + HEARTBEAT_NS_MAX;
            let window = window.map(|w| Window {
                opens_boot_ns: w.opens_boot_ns + HEARTBEAT_NS_MAX, closes_boot_ns: w.closes_boot_ns + HEARTBEAT_NS_MAX, ..w
            });
            Facts { now_boot_ns, heartbeat_boot_ns: now_boot_ns - age, is_endpoint, is_proxy, is_daemon, is_tcp_connect, port,
                is_daemon_netns, uid, agent, window }
        }
    }

    proptest! {
        #[test]
        fn an_endpoint_is_never_simply_allowed_but_to_the_daemon(facts in facts()) {
            if facts.is_endpoint && !facts.is_daemon {
                prop_assert_ne!(decide(&facts), Verdict::Allow);
            }
        }

        #[test]
        fn a_redirect_into_a_window_means_the_window_is_open_and_the_identity_whole(facts in facts()) {
            if let Verdict::Redirect { grant } = decide(&facts) {
                let agent = facts.agent.expect("an agent");
                prop_assert!(agent.uid == UID_ANY || agent.uid == facts.uid);
                prop_assert!(facts.is_tcp_connect && facts.is_daemon_netns && facts.port == 443);
                prop_assert!(facts.now_boot_ns - facts.heartbeat_boot_ns < HEARTBEAT_NS_MAX);
                if grant == 0 {
                    prop_assert_eq!(agent.closed, CLOSED_EXPLAIN);
                } else {
                    let window = facts.window.expect("a window");
                    prop_assert!(window.opens_boot_ns <= facts.now_boot_ns && facts.now_boot_ns < window.closes_boot_ns);
                    prop_assert_eq!(grant, window.grant);
                }
            }
        }

        #[test]
        fn what_is_no_endpoint_and_not_the_proxy_is_left_alone(mut facts in facts()) {
            facts.is_endpoint = false;
            facts.is_proxy = false;
            prop_assert_eq!(decide(&facts), Verdict::Allow);
        }

        #[test]
        fn time_alone_never_turns_a_closed_window_into_an_open_one(mut facts in facts(), later in 0_u64..1000) {
            let in_window = |verdict| matches!(verdict, Verdict::Redirect { grant } if grant != 0);
            let closes = facts.window.map_or(0, |window| window.closes_boot_ns);
            if facts.now_boot_ns >= closes {
                facts.now_boot_ns += later;
                facts.heartbeat_boot_ns += later;
                prop_assert!(!in_window(decide(&facts)));
            }
        }
    }

    #[test]
    fn every_reason_reads_back_from_its_number() {
        let known = (0..20)
            .filter_map(Reason::from_number)
            .inspect(|reason| assert!(!reason.words().is_empty()))
            .count();
        assert_eq!(known, 12);
        let _ = CLOSED_DROP;
    }
}
