//! An agent that has far more namespaces than it is served in, none of which can be served, and knocks from all of them: the harm is its own.

use harness::stage::BIGQUERY4;
use harness::world::{Family, Who, World, wait_for};

use super::apart::{Apart, answer};
use super::{done, in_a_sandbox, problems};

/// Processes of the agent that floods, and threads of each, each in a namespace of its own: far more than are remembered of one agent, and than wait to be
/// looked at.
const PROCESSES: usize = 8;
const THREADS: usize = 200;
/// How often the other agent comes.
const TIMES: usize = 4;

/// The other agent knocks from everywhere until these are dropped.
fn flood(world: &World) -> Vec<Apart> {
    let of_process = |_| {
        let mut agent = Apart::whose(world, Who::OtherAgent);
        agent.must("unshare");
        agent.must(&format!("flood {THREADS} {BIGQUERY4} 443"));
        agent
    };
    (0..PROCESSES).map(of_process).collect()
}

#[test]
fn an_agent_that_knocks_from_hundreds_of_namespaces_that_cannot_be_served_keeps_no_other_waiting() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let _floods = flood(&world);
    let is_its = |said: &String| said.contains("agent ops-bot ");
    wait_for("much of the flood cannot be served", || {
        let problems = problems(&world);
        let mut its = problems.iter().filter(|said| is_its(said));
        its.any(|said| said.contains("nor are at least 16 more of its"))
    });
    for _ in 0..TIMES {
        let mut agent = Apart::of(&world);
        agent.goes_apart();
        let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
        let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
        assert_eq!(status, 200, "{body}");
        let (is_well, said) = done(in_a_sandbox(&world, None).args(["echo", "ran"]));
        assert!(is_well && said == "ran\n", "it waits for nobody: {said}");
    }
    // However many there are, that is one sentence, which names whose they are, one of them, and why.
    let mut its = problems(&world);
    its.retain(is_its);
    assert_eq!(its.len(), 1, "{its:?}");
    assert!(
        its[0].starts_with("network namespace 4") && its[0].contains("its loopback is down"),
        "{its:?}"
    );
}
