//! The daemon is stopped, or killed, under a container that goes on running: what was open is open again, and nothing leaves meanwhile.

use std::collections::BTreeSet;
use std::path::Path;

use harness::capture::Capture;
use harness::world::{Client, Who, World};
use serde_json::json;

use super::podman::{Aside, Podman};
use super::{
    NAME, connects, has_rows, is_refused, open_window, query, wait_until_said, wait_until_served,
    wait_until_well, world,
};

/// Connects to BigQuery again and again until it is told to end, and then says how often it met what.
const TRIES: &str = "
import collections, errno, json, socket, sys, threading
end = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), end.set()), daemon=True).start()
told = collections.Counter()
print('{}', flush=True)
while not end.is_set():
    try:
        socket.create_connection(('10.77.8.7', 443), 2).close()
        told['ok'] += 1
    except OSError as error:
        told[errno.errorcode.get(error.errno, str(error))] += 1
    end.wait(0.005)
print(json.dumps(told), flush=True)
";

/// Somebody in the container who never ceases to try.
fn trying(podman: &Podman<'_>) -> Client {
    let python = Path::new("/usr/bin/python3");
    let mut client = podman.staying("agentbox", python, &["-c", TRIES]);
    assert_eq!(client.receive(), json!({}), "it runs");
    client
}

/// A world in which the agent's container runs, and has a window; its Podman; and the window.
fn with_a_window(network: &str) -> (World, Aside, String) {
    let mut world = world(NAME);
    world.start_daemon();
    let mut podman = Podman::new(&world);
    podman.serve();
    podman.start("agentbox", "a=b", network);
    wait_until_served(&world, 1);
    let grant = open_window(&world, &podman, "agentbox");
    let aside = podman.aside();
    (world, aside, grant)
}

fn works_on_and_nothing_leaves_meanwhile(network: &str) {
    let (mut world, mut aside, grant) = with_a_window(network);
    let wire = Capture::start(&world.stage, World::bigquery());
    let podman = aside.beside(&world);
    let mut trying = trying(&podman);
    aside = podman.aside();
    for (round, is_killed) in [false, true].into_iter().enumerate() {
        if is_killed {
            world.kill_daemon();
        } else {
            world.stop_daemon();
        }
        let podman = aside.beside(&world);
        assert_ne!(connects(&podman, "agentbox"), "ok");
        aside = podman.aside();
        world.start_daemon();
        wait_until_served(&world, round + 2);
    }
    trying.send("end");
    let told = trying.receive();
    assert_eq!(wire.settled(), 0, "{told}");
    let met: BTreeSet<&str> = told
        .as_object()
        .expect("counts")
        .keys()
        .map(String::as_str)
        .collect();
    assert!(met.contains("ok"), "before, between and after: {told}");
    assert!(
        met.is_subset(&["ok", "ECONNREFUSED", "EPERM"].into()),
        "{told}"
    );
    let podman = aside.beside(&world);
    has_rows(&query(&podman, "agentbox"));
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    is_refused(&query(&podman, "agentbox"));
    aside = podman.aside();
    world.kill_daemon();
    world.start_daemon();
    wait_until_served(&world, 4);
    let podman = aside.beside(&world);
    is_refused(&query(&podman, "agentbox"));
}

#[test]
fn a_daemon_that_is_stopped_or_killed_under_a_container_without_any_network_serves_it_again_and_nothing_leaves_meanwhile()
 {
    works_on_and_nothing_leaves_meanwhile("none");
}

#[test]
fn a_daemon_that_is_stopped_or_killed_under_a_container_on_a_bridge_serves_it_again_and_nothing_leaves_meanwhile()
 {
    works_on_and_nothing_leaves_meanwhile("podman");
}

#[test]
fn a_container_that_is_another_when_the_daemon_is_back_is_nobodys_until_its_runtime_tells_of_it_and_has_no_window_of_the_first()
 {
    let (mut world, aside, grant) = with_a_window("podman");
    let wire = Capture::start(&world.stage, World::bigquery());
    world.kill_daemon();
    let mut podman = aside.beside(&world);
    podman.must(&["rm", "--force", "--time", "0", "agentbox"]);
    podman.start("agentbox", "a=b", "podman");
    podman.silence();
    let mut trying = trying(&podman);
    let aside = podman.aside();
    world.start_daemon();
    wait_until_said(&world, "does not say which run");
    let mut podman = aside.beside(&world);
    assert_ne!(connects(&podman, "agentbox"), "ok");
    trying.send("end");
    let told = trying.receive();
    assert!(told.get("ok").is_none(), "{told}");
    assert_eq!(wire.settled(), 0, "{told}");
    podman.serve();
    wait_until_well(&world);
    wait_until_served(&world, 2);
    // What the kernel held was for the first one's cgroup.
    is_refused(&query(&podman, "agentbox"));
    let closed = world.events("closed").remove(0);
    assert_eq!(
        (&closed["grant"], &closed["reason"]),
        (&json!(grant), &json!("kernel_missing"))
    );
    let _ = open_window(&world, &podman, "agentbox");
    has_rows(&query(&podman, "agentbox"));
}
