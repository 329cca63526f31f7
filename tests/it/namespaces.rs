//! Agents in network namespaces of their own: in a sandbox that has no network whatever a query runs within a window, and nothing else leads out.

mod apart;
mod bridge;
mod dead;
mod flood;
mod loopback;
mod names;
mod newcomers;
mod sandbox;
mod takeover;
mod unit;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use enforcer::clock::{Clock, SystemClock};
use enforcer::dns::SYNTHETIC;
use harness::stage::{BIGQUERY4, BIGQUERY6, OTHER4};
use harness::world::{
    Client, Family, Who, World, client_script, enforcer, policy, venv_python, wait_for,
};
use serde_json::{Value, json};

use apart::{Apart, answer, beside, client};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";

/// A program in a bubblewrap sandbox of the agent's that has no network.
fn sandboxed(world: &World) -> Command {
    let mut command = world.run_as(Who::Agent, "bwrap");
    command.args([
        "--unshare-net",
        "--unshare-user",
        "--unshare-pid",
        "--die-with-parent",
    ]);
    command.args(["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]);
    command
}

/// The client's words for each statement, and what it said on its way.
fn query(mut sandbox: Command, statements: &[&str]) -> Vec<Value> {
    let output = sandbox
        .arg(venv_python())
        .arg(client_script())
        .args(statements)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let results = text.lines().map(serde_json::from_str);
    let results: Vec<Value> = results.map(|line| line.expect("JSON")).collect();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(results.len(), statements.len(), "{text}{told}");
    results
}

#[test]
fn in_a_sandbox_without_any_network_a_query_runs_within_a_window_and_is_refused_without_one() {
    let world = World::start(Family::V4);
    let without = query(sandboxed(&world), &[DAILY]).remove(0);
    let error = without["error"].as_str().expect("refused");
    assert!(error.contains("[window.none]"), "{error}");
    let grant = world.open_window("demo-project.finance:read", "10m");
    let rows = query(sandboxed(&world), &[DAILY]).remove(0);
    assert_eq!(rows["rows"], json!([["1000"]]), "{rows}");
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let after = query(sandboxed(&world), &[DAILY]).remove(0);
    let error = after["error"].as_str().expect("refused");
    assert!(error.contains("[window."), "{error}");

    let mut nowhere = sandboxed(&world);
    let nowhere = nowhere
        .args([
            "curl",
            "--silent",
            "--max-time",
            "3",
            "https://example.com/",
        ])
        .stdout(Stdio::null())
        .status()
        .expect("runs");
    assert!(!nowhere.success(), "nothing else leads out");
    wait_for("it is left", || {
        world.events("namespace_left").len() == world.events("namespace_served").len()
    });
    let served = world.events("namespace_served");
    assert!(served.len() >= 3, "{served:?}");
    for event in &served {
        assert_eq!(event["agent"], "finance-bot");
        // One that had gone by then is known by its number alone.
        let is_known = event["process"]["start_boot_ns"] != 0;
        assert!(!is_known || event["process"]["uid"] == 2001, "{event}");
    }
}

fn problems(world: &World) -> Vec<String> {
    let status = world.json(Who::Operator, &["status"]);
    let unhealthy = status["unhealthy"].as_array().cloned().unwrap_or_default();
    let words = unhealthy.iter().filter_map(Value::as_str);
    words
        .filter(|said| said.contains("network namespace"))
        .map(str::to_owned)
        .collect()
}

fn refused_before_a_listener_was_there(family: Family, to: &str) {
    let world = World::start(family);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    // Faster than anybody looks: what is refused is refused so that clients try again.
    let before = agent.must(&format!("reach {to} 443"));
    let told: BTreeSet<&str> = before
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(
        told.is_empty() || told == ["ECONNREFUSED"].into(),
        "{before}"
    );
    let [status, body] = answer(agent.must(&format!("query {to}")));
    assert_eq!(status, 200, "{body}");
    let served = world.events("namespace_served");
    assert_eq!(served.len(), 1, "{served:?}");
    assert_eq!(served[0]["process"]["comm"], "python3");
    let status = world.json(Who::Operator, &["status"]);
    let checks = status["checks"].as_array().expect("a list");
    let of_namespaces = checks.iter().find(|check| check["what"] == "namespaces");
    let of_namespaces = of_namespaces.expect("is looked at");
    assert_eq!(of_namespaces["state"], "well", "{of_namespaces}");
}

#[test]
fn a_namespace_that_nobody_knew_is_served_within_moments_and_what_came_before_was_told_to_try_again_on_ipv4()
 {
    refused_before_a_listener_was_there(Family::V4, &BIGQUERY4.to_string());
}

#[test]
fn a_namespace_that_nobody_knew_is_served_within_moments_and_what_came_before_was_told_to_try_again_on_ipv6()
 {
    refused_before_a_listener_was_there(Family::V6, &BIGQUERY6.to_string());
}

#[test]
fn questions_for_names_are_answered_in_a_namespace_as_from_the_server_that_was_asked() {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {OTHER4} 53"));
    for how in ["udp", "tcp"] {
        let told = agent.must(&format!("ask bigquery.googleapis.com {OTHER4} {how}"));
        assert_eq!(told, json!([SYNTHETIC]), "{how}");
        // What it makes up would carry word out of where nothing else does.
        let told = agent.must(&format!("ask example.com {OTHER4} {how}"));
        assert_eq!(told, json!([]), "{how}");
    }
    let heard = world.far_requests();
    assert_eq!(heard, Vec::<Value>::new());
    let metadata = agent.must("run curl --silent --max-time 5 -H Metadata-Flavor:Google http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token");
    assert!(
        metadata[1]
            .as_str()
            .is_some_and(|said| said.contains("enforcer-placeholder")),
        "{metadata}"
    );
}

#[test]
fn an_interface_that_the_root_of_a_namespace_has_made_there_gets_no_other_names_asked_for() {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.must("unshare");
    // Before the daemon has seen it, so that it is there when that looks.
    agent.runs("ip link add d0 type veth peer name d1");
    agent.runs("ip link set d0 up");
    agent.must("lo up");
    let _ = agent.must(&format!("reach {OTHER4} 53"));
    let told = agent.must(&format!("ask word.example.com {OTHER4} udp"));
    assert_eq!(told, json!([]));
    let told = agent.must(&format!("ask bigquery.googleapis.com {OTHER4} udp"));
    assert_eq!(told, json!([SYNTHETIC]));
    assert_eq!(world.far_requests(), Vec::<Value>::new());
}

#[test]
fn a_connection_ends_with_the_namespace_that_it_came_from() {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    agent.must(&format!("hold {BIGQUERY4}"));
    // What it has open is all of the agent's that is left of the first.
    agent.must("again");
    agent.must("lo up");
    let told = agent.must("held");
    assert!(["ended", "reset"].contains(&told.as_str().unwrap_or_default()));
    assert_eq!(world.events("namespace_left").len(), 1);
}

#[test]
fn a_namespace_whose_loopback_is_down_is_refused_in_one_sentence_until_it_is_up() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.must("unshare");
    let to = format!("{BIGQUERY4} 443");
    assert_eq!(
        agent.does(&format!("connect {to}")),
        json!({"error": "ECONNREFUSED"})
    );
    wait_for("it is said", || problems(&world).len() == 1);
    assert!(
        problems(&world)[0].contains("its loopback is down"),
        "{:?}",
        problems(&world)
    );
    let refused = world.events("namespace_refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0]["agent"], "finance-bot");
    agent.must("lo up");
    let _ = agent.must(&format!("reach {to}"));
    wait_for("nothing is wrong", || problems(&world).is_empty());
    assert_eq!(world.events("namespace_refused").len(), 1);
}

#[test]
fn of_two_that_cannot_be_served_each_reason_is_told_and_of_one_that_has_ended_nothing_any_more() {
    let world = World::start(Family::V4);
    let to = format!("{BIGQUERY4} 443");
    let mut down = Apart::of(&world);
    down.must("unshare");
    let _ = down.does(&format!("connect {to}"));
    wait_for("it is said", || problems(&world).len() == 1);
    let mut taken = Apart::of(&world);
    taken.must("unshare");
    gives_only(&mut taken, 841);
    assert_eq!(taken.must("listen"), 841);
    taken.must("lo up");
    let _ = taken.does(&format!("connect {to}"));
    let both = |said: &str| said.contains("loopback is down") && said.contains("127.0.0.1:841");
    wait_for("both are said", || {
        problems(&world).iter().any(|said| both(said))
    });
    let refused = world.events("namespace_refused");
    assert_eq!(refused.len(), 2, "{refused:?}");
    drop(down);
    let ended_ns = SystemClock.now().boot_ns;
    let left = format!(
        "network namespace {} of agent finance-bot is not served, so what it asks from there is refused: {}",
        refused[1]["netns"],
        refused[1]["why"].as_str().expect("words")
    );
    wait_for("the other alone is said", || {
        problems(&world) == [left.as_str()]
    });
    drop(taken);
    wait_for("nothing is wrong", || problems(&world).is_empty());
    // It is remembered for ten seconds, so that it has no other record.
    let took_ns = SystemClock.now().boot_ns - ended_ns;
    assert!(took_ns < 8_000_000_000, "{took_ns}");
    assert_eq!(world.events("namespace_refused").len(), 2);
}

#[test]
fn a_thread_that_is_alone_where_nothing_can_be_served_is_told_of_once_however_often_it_tries() {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    agent.must(&format!("lost {BIGQUERY4} 443"));
    wait_for("that is said", || {
        let problems = problems(&world);
        problems
            .iter()
            .any(|said| said.contains("loopback is down"))
    });
    let mut tries = || agent.must("tries").as_u64().expect("a number");
    let until = tries() + 200;
    wait_for("many more tries", || tries() > until);
    assert_eq!(world.events("namespace_refused").len(), 1);
    assert_eq!(problems(&world).len(), 1);
}

#[test]
fn the_daemons_ports_are_no_agents_to_bind_in_any_namespace_and_who_else_had_one_first_is_named() {
    let mut world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.must("unshare");
    for port in [841, 842, 843] {
        // Root of its own namespace, before the daemon is there.
        for address in ["127.0.0.1", "0.0.0.0", "::1"] {
            let told = agent.does(&format!("bind {address} {port}"));
            assert_eq!(told, json!({"error": "EPERM"}), "{address} {port}");
        }
    }
    for port in [841, 842, 843] {
        // Nor is it given one where it asks for none in particular.
        gives_only(&mut agent, port);
        refuses(&mut agent, &["0.0.0.0", "::"], "EPERM");
    }
    gives_only(&mut agent, 844);
    agent.must("bind 0.0.0.0 0");
    // Where no agent is, they are others' as before.
    let mut root = beside(&world, Who::Operator, &std::process::id().into());
    root.must("again");
    root.must("lo up");
    gives_only(&mut root, 841);
    root.must("bind 127.0.0.1 0");
    let mut other = Apart::of(&world);
    other.goes_apart();
    let _ = other.must(&format!("reach {BIGQUERY4} 443"));
    // Where it is served, nobody else may either.
    let pid = other.must("pid");
    let mut beside_it = beside(&world, Who::Operator, &pid);
    assert_eq!(
        beside_it.does("bind 127.0.0.1 841"),
        json!({"error": "EPERM"})
    );
    gives_only(&mut other, 841);
    for who in [&mut other, &mut beside_it] {
        refuses(who, &["127.0.0.2", "::ffff:127.0.0.2"], "EPERM");
    }
    // The daemon has these itself.
    let daemons = ["127.0.0.1", "0.0.0.0", "::1", "::"];
    refuses(&mut other, &daemons, "EADDRINUSE");
    assert_eq!(other.does("listen"), json!({"error": "EADDRINUSE"}));
    world.kill_daemon();
    refuses(&mut other, &daemons, "EPERM");
}

/// Who asks for no port in particular is given none at these addresses.
#[track_caller]
fn refuses(who: &mut Apart, addresses: &[&str], error: &str) {
    for address in addresses {
        let told = who.does(&format!("bind {address} 0"));
        assert_eq!(told, json!({"error": error}), "{address}");
    }
}

/// The root of a namespace has its kernel give no other port to who asks for none.
fn gives_only(root: &mut Apart, port: u16) {
    root.must("setting ipv4/ip_unprivileged_port_start 0");
    root.must(&format!("setting ipv4/ip_local_port_range {port} {port}"));
}

/// The agent is refused in a namespace where somebody has the proxy's port, which is said.
fn is_refused_where_somebody_listens(world: &World, agent: &mut Apart) {
    assert_eq!(
        agent.does(&format!("connect {BIGQUERY4} 443")),
        json!({"error": "ECONNREFUSED"})
    );
    wait_for("it is said", || problems(world).len() == 1);
    let said = problems(world).remove(0);
    assert!(
        said.contains("somebody in it listens on 127.0.0.1:841"),
        "{said}"
    );
}

#[test]
fn who_listens_on_the_daemons_port_without_a_bind_closes_its_own_namespace_and_is_named() {
    let world = World::start(Family::V4);
    let mut agent = Apart::of(&world);
    agent.must("unshare");
    gives_only(&mut agent, 841);
    // No hook is asked there. The daemon comes only once the loopback is up.
    assert_eq!(agent.must("listen"), 841);
    agent.must("lo up");
    is_refused_where_somebody_listens(&world, &mut agent);
}

#[test]
fn a_port_that_somebody_else_has_in_a_namespace_closes_it_for_the_agent_alone_and_is_named() {
    let world = World::start(Family::V4);
    let mut root = beside(&world, Who::Operator, &std::process::id().into());
    root.must("again");
    root.must("lo up");
    root.must("bind 127.0.0.1 841");
    let pid = root.must("pid");
    let mut agent = beside(&world, Who::Agent, &pid);
    is_refused_where_somebody_listens(&world, &mut agent);
    let mut sound = Apart::of(&world);
    sound.goes_apart();
    let _ = sound.must(&format!("reach {BIGQUERY4} 443"));
}

#[test]
fn whoever_enters_anothers_namespace_is_who_it_is_and_gets_nothing_of_the_others_window() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    let pid = agent.must("pid");
    let mut other = beside(&world, Who::OtherAgent, &pid);
    let [status, body] = answer(other.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 403, "{body}");
    assert!(
        body.as_str()
            .is_some_and(|body| body.contains("[window.none]")),
        "{body}"
    );
    let mut nobody = beside(&world, Who::Operator, &pid);
    let told = nobody.does(&format!("query {BIGQUERY4}"));
    assert!(
        told.get("error").is_some(),
        "it gets no way out by it: {told}"
    );
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
    // It goes on being served for whoever is left in it, whose it is from then on.
    drop(agent);
    let still = |other: &mut Apart| answer(other.must(&format!("query {BIGQUERY4}")))[0].clone();
    assert_eq!(still(&mut other), 403);
    wait_for("it is handed over", || {
        world.events("namespace_left").len() == 1
    });
    let served = world.events("namespace_served");
    let [first, second] = served.as_slice() else {
        panic!("{served:?}");
    };
    assert_eq!(
        [&first["agent"], &second["agent"]],
        ["finance-bot", "ops-bot"]
    );
    assert_eq!(first["netns"], second["netns"]);
    assert_eq!(still(&mut other), 403);
}

#[test]
fn namespaces_in_namespaces_and_threads_that_go_alone_are_served_like_any() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    agent.must("again");
    agent.must("lo up");
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    let [status, _] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200);
    let before = agent.must(&format!("thread reach {BIGQUERY4} 443"));
    assert!(before.is_array());
    wait_for("the first and the thread's are left", || {
        world.events("namespace_left").len() == 2
    });
    assert_eq!(world.events("namespace_served").len(), 3);
}

#[test]
fn a_socket_stays_in_the_namespace_it_was_made_in_whoever_uses_it() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let dir = world.own_folder(Who::Agent, "passed");
    let mut apart = Apart::of(&world);
    apart.goes_apart();
    let _ = apart.must(&format!("reach {BIGQUERY4} 443"));
    let mut at_home = Apart::of(&world);
    let hand = |from: &mut Apart, to: &mut Apart, name: &str| {
        let path = dir.join(name);
        to.0.send(&format!("take {}", path.display()));
        assert_eq!(to.0.receive()["ok"], "listens");
        from.must(&format!("give {}", path.display()));
        assert_eq!(to.0.receive(), json!({"ok": null}));
        to.does(&format!("with_taken {BIGQUERY4}"))
    };
    assert_eq!(hand(&mut apart, &mut at_home, "out")["ok"], "TLSv1.3");
    assert_eq!(hand(&mut at_home, &mut apart, "in")["ok"], "TLSv1.3");
}

#[test]
fn whatever_the_occupant_has_its_own_kernel_rules_do_the_harm_is_its_own() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    agent.must("bind 127.0.0.1 9999");
    let nft = |agent: &mut Apart, rule: &str| drop(agent.runs(&format!("nft {rule}")));
    nft(&mut agent, "add table ip t");
    nft(
        &mut agent,
        "add chain ip t out { type nat hook output priority -100 ; }",
    );
    // Its own listener, in place of the daemon: it speaks to itself, and no token is there.
    nft(
        &mut agent,
        "add rule ip t out tcp dport 841 redirect to :9999",
    );
    let told = agent.does(&format!("query {BIGQUERY4}"));
    assert!(told.get("error").is_some(), "{told}");
    nft(&mut agent, "flush chain ip t out");
    // The daemon's port by another number: nobody was led there.
    nft(
        &mut agent,
        "add rule ip t out tcp dport 9998 redirect to :841",
    );
    let told = agent.does("connect 127.0.0.1 9998");
    assert!(
        ["EPERM", "timed out"].contains(&told["error"].as_str().unwrap_or_default()),
        "{told}"
    );
    nft(&mut agent, "delete table ip t");
    let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
    assert_eq!(status, 200, "{body}");
}

#[test]
fn a_namespace_is_served_again_after_a_restart_and_refused_meanwhile() {
    let mut world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut agent = Apart::of(&world);
    agent.goes_apart();
    let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
    for is_killed in [false, true] {
        if is_killed {
            world.kill_daemon();
        } else {
            world.stop_daemon();
        }
        let told = agent.does(&format!("query {BIGQUERY4}"));
        assert!(
            ["ECONNREFUSED", "EPERM"].contains(&told["error"].as_str().unwrap_or_default()),
            "{told}"
        );
        assert_eq!(agent.does("bind 127.0.0.1 841"), json!({"error": "EPERM"}));
        world.start_daemon();
        let _ = agent.must(&format!("reach {BIGQUERY4} 443"));
        let [status, body] = answer(agent.must(&format!("query {BIGQUERY4}")));
        assert_eq!(status, 200, "{body}");
    }
}

/// What the daemon holds: open files, and threads.
fn held(world: &World) -> [usize; 2] {
    let count = |what: &str| {
        let folder = format!("/proc/{}/{what}", world.daemon_pid());
        std::fs::read_dir(Path::new(&folder))
            .expect("lists")
            .count()
    };
    [count("fd"), count("task")]
}

#[test]
fn nothing_of_the_daemons_is_left_of_namespaces_that_have_gone_and_one_agents_are_bounded() {
    let world = World::start(Family::V4);
    let mut first = Apart::of(&world);
    first.goes_apart();
    let _ = first.must(&format!("reach {BIGQUERY4} 443"));
    drop(first);
    wait_for("it is left", || world.events("namespace_left").len() == 1);
    let before = held(&world);
    let mut many = Vec::new();
    for _ in 0..70 {
        let mut command = world.run_as(Who::Agent, "unshare");
        command.args(["-Urn", "sh", "-c", "ip link set lo up; echo up; read never"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("runs");
        let mut up = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut up).expect("up");
        many.push(child);
    }
    wait_for("as many as may be", || {
        world.events("namespace_served").len() == 65
    });
    wait_for("the bound is said", || {
        problems(&world)
            .iter()
            .any(|said| said.contains("more than the 64 network namespaces"))
    });
    assert_eq!(world.events("namespace_refused").len(), 1);
    for child in &mut many {
        child.kill().expect("ends");
        child.wait().expect("ended");
    }
    wait_for("all are left", || {
        world.events("namespace_left").len() == world.events("namespace_served").len()
    });
    wait_for("nothing is left", || {
        let now = held(&world);
        // Threads that wait for files go when they have had nothing to do for ten seconds, and looks take turns among a few: one for each namespace would be seventy.
        now[0] <= before[0] + 1 && now[1] <= before[1] + 4
    });
    wait_for("nothing is wrong", || problems(&world).is_empty());
}

/// `enforcer run --sandbox` of the agent's, in a folder of its own, with a window where a scope is named.
fn in_a_sandbox(world: &World, scope: Option<&str>) -> Command {
    let folder = world.own_folder(Who::Agent, "work");
    in_a_sandbox_at(world, &folder, &enforcer(), scope)
}

/// The same in this folder, by this program.
fn in_a_sandbox_at(world: &World, folder: &Path, program: &Path, scope: Option<&str>) -> Command {
    let mut command = world.run_as(Who::Operator, "sh");
    // A process that enters the world's mounts is at their root.
    command.args(["-c", "cd \"$0\" && exec \"$@\""]);
    command.arg(folder).arg(program);
    command.args(["run", "--sandbox", "--agent", "finance-bot"]);
    if let Some(scope) = scope {
        command.args(["--scope", scope, "--ttl", "5m", "--reason", "a report"]);
    }
    command.arg("--").stdin(Stdio::null());
    command
}

/// What a program printed, and whether it came to a good end.
fn done(command: &mut Command) -> (bool, String) {
    let done = command.output().expect("runs");
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn one_command_runs_bq_within_a_window_of_its_own_in_a_sandbox_that_has_only_a_loopback() {
    let mut world = World::without_daemon(Family::V4);
    world.set_policy(&policy("15m", true));
    world.start_daemon();
    let query = client();
    let (is_well, said) = done(in_a_sandbox(&world, None).args(&query));
    assert!(!is_well && said.contains("[window.none]"), "{said}");
    let scope = Some("demo-project.finance:read");
    let (is_well, said) = done(in_a_sandbox(&world, scope).args(&query));
    assert!(is_well && said.contains("1000"), "{said}");
    wait_for("it ended with the command", || {
        world.events("closed").len() == 1
    });
    // Whoever ran it has said so as well, which is nobody's fault.
    assert_eq!(world.events("decision_refused"), Vec::<Value>::new());

    let look = "ip -o link | wc -l; ip -o link | grep -c ': lo:'; touch here && echo wrote here; touch /etc/x /usr/x /var/lib/x; \
        ls /run /tmp; curl --silent --max-time 3 https://example.com/ || echo nowhere; test -S \"$ENFORCER_SOCKET\" && echo asks";
    let (_, said) = done(in_a_sandbox(&world, None).args(["sh", "-c", look]));
    assert!(said.starts_with("1\n1\nwrote here\n"), "{said}");
    assert_eq!(said.matches("Read-only file system").count(), 3, "{said}");
    assert!(said.contains("nowhere") && said.contains("asks"), "{said}");
    assert!(world.stage.dir().join("work/here").exists());
    let status = done(in_a_sandbox(&world, None).args(["sh", "-c", "exit 7"]));
    assert!(!status.0);
}

#[test]
fn a_stream_into_a_sandbox_is_cut_at_the_close() {
    let world = World::start(Family::V4);
    let grant = world.open_window("demo-project.finance:read", "10m");
    let mut sandbox = sandboxed(&world);
    sandbox.arg(venv_python()).arg(client_script()).arg("-");
    let mut client = Client::start(sandbox);
    let rows = client.query(DAILY);
    assert_eq!(rows["rows"], json!([["1000"]]), "{rows}");
    world.set_faults(&json!({"hold_ms": 30_000}));
    client.send(DAILY);
    wait_for("it is under way", || {
        world.events("query_admitted").len() >= 2
    });
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    let cut = client.receive();
    assert!(cut["error"].is_string(), "{cut}");
}
