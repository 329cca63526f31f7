//! The decision over all facts: who is allowed, who is led to the proxy and with what, and that nothing but time and the daemon opens a way.

extern crate std;

use proptest::prelude::*;

use super::*;
use crate::map::{CLASS_DEDICATED, ENFORCE_HOST, NAMES_STRICT};

fn agent() -> impl Strategy<Value = Option<Agent>> {
    prop::option::of(
        (prop_oneof![Just(UID_ANY), 0_u32..3], 0_u32..5, 0_u32..4).prop_map(
            |(uid, closed, names)| Agent {
                uid,
                closed,
                names,
                mark: 1,
            },
        ),
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

fn endpoint() -> impl Strategy<Value = Option<Endpoint>> {
    // Numbers that no class has, too.
    prop::option::of((0_u32..5).prop_map(|class| Endpoint { class }))
}

prop_compose! {
    fn facts()(
        now in 100_u64..=150, age in prop_oneof![0_u64..100, Just(HEARTBEAT_NS_MAX)], flags in any::<[bool; 8]>(),
        port in prop_oneof![Just(443_u16), Just(53), Just(80), Just(853), any::<u16>()], uid in 0_u32..3, agent in agent(),
        window in window(), endpoint in endpoint(), enforce in 0_u32..3, creator_cgroup in 0_u64..2
    ) -> Facts {
        let [is_own_port, is_daemon, is_tcp_connect, is_served_netns, is_udp, has_metadata, is_agents_uid, is_multipath_apart] = flags;
        let is_udp = is_udp && !is_tcp_connect;
        let agent_cgroup = u64::from(agent.is_some());
        let now_boot_ns = now + HEARTBEAT_NS_MAX;
        let window = window.map(|w| Window {
            opens_boot_ns: w.opens_boot_ns + HEARTBEAT_NS_MAX, closes_boot_ns: w.closes_boot_ns + HEARTBEAT_NS_MAX, ..w
        });
        Facts { now_boot_ns, heartbeat_boot_ns: now_boot_ns - age, endpoint, enforce, is_own_port, is_daemon, is_tcp_connect, is_udp,
            port, is_served_netns, is_multipath_apart, uid, is_agents_uid, agent, agent_cgroup, creator_cgroup, has_metadata, window }
    }
}

fn is_shared(facts: &Facts) -> bool {
    facts
        .endpoint
        .is_some_and(|endpoint| endpoint.class == CLASS_SHARED)
}

/// A process in no workload, connecting to port 443 of a shared address of a host whose daemon lives.
fn nobody() -> Facts {
    Facts {
        now_boot_ns: HEARTBEAT_NS_MAX,
        heartbeat_boot_ns: HEARTBEAT_NS_MAX,
        endpoint: Some(Endpoint {
            class: CLASS_SHARED,
        }),
        enforce: ENFORCE_HOST,
        is_own_port: false,
        is_daemon: false,
        is_tcp_connect: true,
        is_udp: false,
        port: 443,
        is_served_netns: true,
        is_multipath_apart: false,
        uid: 0,
        is_agents_uid: false,
        agent: None,
        agent_cgroup: 0,
        creator_cgroup: 0,
        has_metadata: true,
        window: None,
    }
}

fn is_metadata(facts: &Facts) -> bool {
    facts
        .endpoint
        .is_some_and(|endpoint| endpoint.class == CLASS_METADATA)
}

/// Whether this is a question for names of an agent's.
fn is_question(facts: &Facts) -> bool {
    facts.agent.is_some() && facts.port == 53 && (facts.is_tcp_connect || facts.is_udp)
}

proptest! {
    #[test]
    fn an_endpoint_is_never_simply_allowed_but_to_the_daemon_and_to_who_is_not_enforced_on(facts in facts()) {
        if facts.endpoint.is_some() && !facts.is_daemon && decide(&facts) == Verdict::Allow {
            prop_assert!(facts.agent.is_none() && facts.creator_cgroup == 0 && !facts.is_own_port);
            prop_assert!(facts.enforce == ENFORCE_AGENTS || is_metadata(&facts));
        }
    }

    #[test]
    fn a_socket_made_elsewhere_reaches_no_endpoint_and_no_name_server(facts in facts()) {
        let is_judged = facts.endpoint.is_some() || is_question(&facts);
        if is_judged && !facts.is_daemon && facts.creator_cgroup != facts.agent_cgroup {
            let verdict = decide(&facts);
            prop_assert!(matches!(verdict, Verdict::Deny(_)));
        }
    }

    #[test]
    fn an_agents_uid_outside_every_workload_reaches_nothing_that_is_guarded(mut facts in facts()) {
        (facts.agent, facts.agent_cgroup, facts.is_agents_uid) = (None, 0, true);
        if (facts.endpoint.is_some() || is_for_names(facts.port)) && !facts.is_daemon {
            prop_assert!(matches!(decide(&facts), Verdict::Deny(_)));
        }
    }

    #[test]
    fn an_agent_asks_for_names_nowhere_but_here(mut facts in facts()) {
        facts.is_own_port = false;
        if is_question(&facts) && !facts.is_daemon {
            let verdict = decide(&facts);
            prop_assert!(matches!(verdict, Verdict::ToNames | Verdict::Deny(Reason::OtherNetns | Reason::DaemonSilent | Reason::Ambiguous | Reason::InDoubt)));
        }
    }

    #[test]
    fn who_is_in_doubt_is_led_to_no_proxy_and_never_told_to_try_again_and_nobody_else_is_in_doubt(mut facts in facts(), is_in_doubt in any::<bool>()) {
        if let (true, Some(agent)) = (is_in_doubt, &mut facts.agent) { agent.closed = CLOSED_IN_DOUBT }
        let verdict = decide(&facts);
        if facts.agent.is_some_and(|agent| agent.closed == CLOSED_IN_DOUBT) {
            let is_led = matches!(verdict, Verdict::Redirect { .. });
            prop_assert!(!is_led && verdict != Verdict::Deny(Reason::OtherNetns));
        } else {
            prop_assert!(verdict != Verdict::Deny(Reason::InDoubt));
        }
    }

    #[test]
    fn no_agent_gets_to_the_metadata_server(facts in facts()) {
        if is_metadata(&facts) && facts.agent.is_some() && !facts.is_daemon {
            let verdict = decide(&facts);
            prop_assert!(verdict != Verdict::Allow);
            if verdict == Verdict::ToMetadata {
                prop_assert!(facts.has_metadata && facts.port == 80 && facts.is_tcp_connect && facts.is_served_netns);
            }
        }
    }

    #[test]
    fn names_over_tls_are_refused_to_who_is_told_only_what_it_is_allowed(mut facts in facts(), is_endpoint in any::<bool>()) {
        facts.port = 853;
        if !is_endpoint { facts.endpoint = None }
        if facts.agent.is_some_and(|agent| agent.names == NAMES_STRICT) && !facts.is_daemon {
            prop_assert!(matches!(decide(&facts), Verdict::Deny(_)));
        }
    }

    #[test]
    fn an_agent_is_judged_alike_on_whomever_is_enforced(mut facts in facts()) {
        if facts.agent.is_some() {
            let verdict = decide(&facts);
            facts.enforce = ENFORCE_AGENTS;
            prop_assert_eq!(decide(&facts), verdict);
        }
    }

    #[test]
    fn what_is_led_to_the_proxy_is_what_it_serves_while_it_lives(facts in facts()) {
        if let Verdict::Redirect { .. } = decide(&facts) {
            prop_assert!(facts.is_tcp_connect && facts.is_served_netns && !facts.is_multipath_apart && facts.port == 443);
            prop_assert!(facts.now_boot_ns - facts.heartbeat_boot_ns < HEARTBEAT_NS_MAX);
        }
    }

    #[test]
    fn a_redirect_into_a_window_means_the_window_is_open_and_the_identity_whole(facts in facts()) {
        if let Verdict::Redirect { grant } = decide(&facts) && grant != 0 {
            let agent = facts.agent.expect("an agent");
            prop_assert!(agent.uid == UID_ANY || agent.uid == facts.uid);
            let window = facts.window.expect("a window");
            prop_assert!(window.opens_boot_ns <= facts.now_boot_ns && facts.now_boot_ns < window.closes_boot_ns);
            prop_assert_eq!(grant, window.grant);
        }
    }

    #[test]
    fn a_redirect_without_a_window_is_to_explain_or_to_read_the_name(facts in facts()) {
        if decide(&facts) == (Verdict::Redirect { grant: 0 }) {
            match facts.agent {
                Some(agent) => {
                    prop_assert!(agent.uid == UID_ANY || agent.uid == facts.uid);
                    prop_assert!(agent.closed == CLOSED_EXPLAIN || (agent.closed == CLOSED_DROP_DEDICATED && is_shared(&facts)));
                }
                None => prop_assert!(is_shared(&facts) && facts.enforce != ENFORCE_AGENTS),
            }
        }
    }

    #[test]
    fn what_only_bigquery_answers_on_is_refused_to_who_is_no_agent(mut facts in facts()) {
        facts.agent = None;
        facts.agent_cgroup = 0;
        let is_bigquerys = facts.endpoint.is_some() && !is_shared(&facts) && !is_metadata(&facts);
        if is_bigquerys && facts.enforce != ENFORCE_AGENTS && !facts.is_daemon {
            prop_assert!(matches!(decide(&facts), Verdict::Deny(_)));
        }
    }

    #[test]
    fn what_is_no_endpoint_and_not_the_daemon_and_asks_for_no_names_is_left_alone(mut facts in facts()) {
        facts.endpoint = None;
        facts.is_own_port = false;
        if facts.port != 53 && facts.port != 853 {
            prop_assert_eq!(decide(&facts), Verdict::Allow);
        }
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
fn who_is_no_agent_is_led_to_the_proxy_on_a_shared_address_and_only_for_tcp_to_port_443() {
    let decided = |change: fn(&mut Facts)| {
        let mut facts = nobody();
        change(&mut facts);
        decide(&facts)
    };
    assert_eq!(decided(|_| ()), Verdict::Redirect { grant: 0 });
    let dedicated = |facts: &mut Facts| {
        facts.endpoint = Some(Endpoint {
            class: CLASS_DEDICATED,
        });
    };
    for (change, reason) in [
        (dedicated as fn(&mut Facts), Reason::NotAnAgent),
        (|facts| facts.is_tcp_connect = false, Reason::NotTcp),
        (|facts| facts.port = 80, Reason::WrongPort),
        (|facts| facts.creator_cgroup = 7, Reason::Ambiguous),
        (|facts| facts.is_served_netns = false, Reason::OtherNetns),
        (|facts| facts.heartbeat_boot_ns = 0, Reason::DaemonSilent),
        (|facts| facts.is_multipath_apart = true, Reason::Multipath),
    ] {
        assert_eq!(decided(change), Verdict::Deny(reason));
    }
}

#[test]
fn who_is_in_doubt_is_told_so_whatever_it_asks_for_and_where_nobody_serves_it() {
    let of = |closed, is_served_netns, port, class| {
        let agent = Some(Agent {
            uid: 7,
            closed,
            names: NAMES_STRICT,
            mark: 1,
        });
        let endpoint = Some(Endpoint { class });
        let facts = Facts {
            agent,
            agent_cgroup: 1,
            creator_cgroup: 1,
            is_served_netns,
            port,
            endpoint,
            ..nobody()
        };
        decide(&facts)
    };
    let (is, own) = (CLOSED_IN_DOUBT, false);
    for verdict in [
        of(is, true, 443, CLASS_SHARED),
        of(is, own, 443, CLASS_DEDICATED),
        of(is, own, 80, CLASS_SHARED),
        of(is, own, 80, CLASS_METADATA),
        of(is, own, 53, CLASS_SHARED),
    ] {
        assert_eq!(verdict, Verdict::Deny(Reason::InDoubt));
    }
    for port in [53, 80] {
        let verdict = of(CLOSED_EXPLAIN, own, port, CLASS_METADATA);
        assert_eq!(verdict, Verdict::Deny(Reason::OtherNetns));
    }
    // Where it is served, names and the stand-in are answered by the daemon, which knows whose that is.
    assert_eq!(of(is, true, 53, CLASS_SHARED), Verdict::ToNames);
}

#[test]
fn every_reason_reads_back_from_its_number() {
    let known = (0..40)
        .filter_map(Reason::from_number)
        .inspect(|reason| assert!(!reason.words().is_empty()))
        .count();
    assert_eq!(known, 26);
}

#[test]
fn the_daemon_says_nothing_past_a_deadline_nor_while_it_is_silent() {
    let now = 10 * HEARTBEAT_NS_MAX;
    for (beat, deadline, may) in [
        (now, None, true),
        (now, Some(now + 1), true),
        (now, Some(now), false),
        (now, Some(0), false),
        (now - HEARTBEAT_NS_MAX + 1, Some(now + 1), true),
        (now - HEARTBEAT_NS_MAX, Some(now + 1), false),
        (now - HEARTBEAT_NS_MAX, None, false),
        (now + HEARTBEAT_NS_MAX, None, false),
        (0, None, false),
    ] {
        assert_eq!(may_say(beat, deadline, now), may, "{beat} {deadline:?}");
    }
}
