//! Containers that a user runs without root: they are the user's, whatever the user calls them, so that the agent is all that the user runs.

use std::path::Path;

use harness::capture::Capture;
use harness::stage::OTHER4;
use harness::world::{Family, Who, World, enforcer};
use serde_json::Value;

use super::podman::Podman;
use super::{
    NAME, connects, connects_as, has_rows, is_refused, open_window, query, wait_until_said,
    wait_until_served, world,
};

/// A world in which `finance-bot` is all that its user runs.
fn users_world() -> World {
    let mut world = World::without_daemon(Family::V4);
    world.edit_config("cgroup = \"agents/finance-bot\"", "user = 2001");
    world.start_daemon();
    world
}

#[test]
fn a_container_that_the_agents_user_runs_without_root_has_rows_within_a_window_and_no_way_out() {
    let world = users_world();
    let podman = Podman::of_user(&world);
    podman.start("agentbox", "a=b", "none");
    wait_until_served(&world, 1);
    is_refused(&query(&podman, "agentbox"));
    let grant = open_window(&world, &podman, "agentbox");
    let wire = Capture::start(&world.stage, [OTHER4.into()]);
    has_rows(&query(&podman, "agentbox"));
    for url in ["https://example.com/", "https://10.77.9.9/"] {
        let curl = ["--silent", "--max-time", "3", url];
        let nowhere = podman.inside("agentbox", Path::new("/usr/bin/curl"), &curl);
        assert!(!nowhere.status.success(), "{url}");
    }
    assert_eq!(wire.settled(), 0);
    // Another of the user's is the same agent: there is nobody but the user to tell them apart.
    podman.start("other", "a=b", "none");
    wait_until_served(&world, 2);
    has_rows(&query(&podman, "other"));
    // Who is somebody else in the container is none of the agent: the agent is the user, and not the uids that are subordinate to it.
    assert_eq!(connects_as(&podman, "0", "agentbox"), "ok");
    assert_eq!(connects_as(&podman, "33", "agentbox"), "EPERM");
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    is_refused(&query(&podman, "agentbox"));
    let served = world.events("namespace_served").remove(0);
    assert_eq!(served["agent"], "finance-bot", "{served}");
    assert_eq!(served["process"]["uid"], 2001);
    let unhealthy = world.status()["unhealthy"].to_string();
    assert!(!unhealthy.contains("finance-bot"), "{unhealthy}");
}

#[test]
fn what_a_users_own_runtime_says_makes_nobody_an_agent_and_what_to_name_instead_is_said() {
    let mut world = world(NAME);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::of_user(&world);
    podman.start("agentbox", "a=b", "none");
    for _ in 0..2 {
        podman.serve();
        wait_until_said(&world, "name all that the user runs (`user = 2001`)");
        let listed = podman.listed();
        assert!(
            listed.contains("\"/agentbox\""),
            "it tells whoever asks: {listed}"
        );
        podman.silence();
        wait_until_said(&world, "nobody listens there");
    }
    let asked = podman.inside("agentbox", &enforcer(), &["status"]);
    assert!(!asked.status.success(), "who is no agent may not ask");
    let wire = Capture::start(&world.stage, World::bigquery());
    assert_ne!(connects(&podman, "agentbox"), "ok");
    assert_eq!(wire.settled(), 0);
    assert_eq!(world.events("namespace_served"), Vec::<Value>::new());
}
