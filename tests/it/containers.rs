//! Agents in containers of a real runtime's, known by their names or labels: with a network of their own, of the host's, and with none.

mod cutting;
mod podman;
mod restart;
mod rootless;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use enforcer::clock::{Clock, SystemClock};
use harness::capture::Capture;
use harness::stage::{OTHER4, Side};
use harness::world::{Family, Who, World, client_script, enforcer, venv_python, wait_for};
use serde_json::{Value, json};

use podman::{IMAGE, Podman};

const DAILY: &str = "SELECT COUNT(*) FROM finance.daily";
const NAME: &str = "container_name = \"agentbox\"";
const LABEL: &str = "container_label = \"role=finance-bot\"";

/// A world in which `finance-bot` is what a runtime says it is. The daemon is not started yet.
fn world(workload: &str) -> World {
    let world = World::without_daemon(Family::V4);
    world.edit_config("cgroup = \"agents/finance-bot\"", workload);
    let socket = Podman::socket(&world);
    world.edit_config(
        "[token]",
        &format!("[runtimes]\nsockets = [\"{}\"]\n[token]", socket.display()),
    );
    world
}

/// What came of a query in a container.
fn query(podman: &Podman<'_>, name: &str) -> Value {
    let script = client_script().display().to_string();
    told(&podman.inside(name, &venv_python(), &[&script, DAILY]))
}

fn told(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim())
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

fn is_refused(told: &Value) {
    let error = told["error"].as_str().unwrap_or_default();
    assert!(error.contains("[window."), "{told}");
}

fn has_rows(told: &Value) {
    assert_eq!(told["rows"], json!([["1000"]]), "{told}");
}

/// What becomes of a container's connection to BigQuery's port.
fn connects(podman: &Podman<'_>, name: &str) -> String {
    connects_by(podman, &[], name)
}

/// The same of a user of the container's.
fn connects_as(podman: &Podman<'_>, user: &str, name: &str) -> String {
    connects_by(podman, &["--user", user], name)
}

/// What becomes of a container's question for a name.
fn asks(podman: &Podman<'_>, name: &str) -> String {
    let script = "import errno, socket\ntry:\n    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('10.77.8.7', 53))\n    print('ok')\nexcept OSError as error:\n    print(errno.errorcode.get(error.errno, error))";
    let output = podman.inside(name, Path::new("/usr/bin/python3"), &["-c", script]);
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn connects_by(podman: &Podman<'_>, options: &[&str], name: &str) -> String {
    let script = "import errno, socket\ntry:\n    socket.create_connection(('10.77.8.7', 443), 2)\n    print('ok')\nexcept OSError as error:\n    print(errno.errorcode.get(error.errno, error))";
    let python = Path::new("/usr/bin/python3");
    let mut command = podman.inside_with(options, name, python, &["-c", script]);
    let output = command.output().expect("podman runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Opens a window: asked for in the container, approved outside. Asks until the daemon knows whose the container is.
fn open_window(world: &World, podman: &Podman<'_>, name: &str) -> String {
    open_window_by(world, |args| podman.inside(name, &enforcer(), args))
}

/// The same, asked for in this way.
fn open_window_by(world: &World, ask: impl Fn(&[&str]) -> Output) -> String {
    let mut asked = Value::Null;
    wait_for("the container to be the agent's", || {
        let args = "request --scope demo-project.finance:read --ttl 10m --json --reason month-end";
        let args: Vec<&str> = args.split(' ').collect();
        let output = ask(&args);
        asked = serde_json::from_slice(&output.stdout).unwrap_or_default();
        output.status.success()
    });
    let request = asked["request"].as_str().expect("an id");
    let approved = world.json(Who::Approver, &["approve", request]);
    approved["grant"]["grant"]
        .as_str()
        .expect("an id")
        .to_owned()
}

/// Waits until `status` says this.
fn wait_until_said(world: &World, what: &str) {
    wait_for(what, || {
        world.status()["unhealthy"].to_string().contains(what)
    });
}

fn wait_until_well(world: &World) {
    wait_for("nothing is wrong", || {
        let status = world.status();
        let unhealthy = status["unhealthy"].to_string();
        !unhealthy.contains("agent finance-bot") && !unhealthy.contains("which containers run")
    });
}

/// Waits until the daemon listens in so many namespaces more than it has left.
fn wait_until_served(world: &World, count: usize) {
    wait_for("the namespace is served", || {
        world.events("namespace_served").len() >= count
    });
}

/// The containers that the log says an agent's workload was, one after the other: name and image, and cgroup. Both are empty where there was none.
fn containers(world: &World) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = world.events("container_changed").into_iter();
    let known = all.map(|event| {
        let container = &event["container"];
        let name = if container.is_null() {
            String::new()
        } else {
            format!(
                "{} of {}",
                text(&container["name"]),
                text(&container["image"])
            )
        };
        (name, text(&event["cgroup"]))
    });
    known.collect()
}

#[test]
fn a_container_without_any_network_has_rows_within_a_window_and_no_way_out_and_is_known_by_its_name()
 {
    let mut world = world(NAME);
    world.start_daemon();
    wait_until_said(&world, "nobody listens there");
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    let first = podman.start("agentbox", "a=b", "none");
    wait_until_served(&world, 1);
    wait_until_well(&world);
    is_refused(&query(&podman, "agentbox"));
    let grant = open_window(&world, &podman, "agentbox");
    has_rows(&query(&podman, "agentbox"));
    let curl = ["--silent", "--max-time", "3", "https://example.com/"];
    let nowhere = podman.inside("agentbox", Path::new("/usr/bin/curl"), &curl);
    assert!(!nowhere.status.success(), "nothing else leads out");
    let served = world.events("namespace_served").remove(0);
    assert_eq!(served["container"], "agentbox", "{served}");
    assert_eq!(served["image"], IMAGE);
    assert_eq!(served["process"]["comm"], "sleep");
    assert_eq!(served["process"]["uid"], 2001);
    let log = world.cli(Who::Operator, &["log"]);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let told = format!("in the container agentbox of the image {IMAGE}");
    let lines = log.lines().filter(|line| line.contains(&told));
    let kinds: Vec<bool> = lines.map(|line| line.contains("asks for")).collect();
    // Where it is served, and where it has asked for its window.
    assert!(kinds.contains(&true) && kinds.contains(&false), "{log}");
    // So does every query, admitted or refused: "REFUSED" comes before who was.
    for word in ["query ", "REFUSED "] {
        let is_it = |line: &&str| line.contains(&format!(" {word}")) && line.contains(&told);
        assert!(log.lines().any(|line| is_it(&line)), "{word}: {log}");
    }
    for kind in ["query_admitted", "query_refused"] {
        let known = json!({"name": "agentbox", "image": IMAGE});
        assert_eq!(world.events(kind)[0]["container"], known);
    }
    let story = world.cli(Who::Operator, &["log", "show", &grant]);
    let story = String::from_utf8_lossy(&story.stdout).into_owned();
    let story = story.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(story.contains(&told), "{story}");

    // Started anew, it has another id and is the same agent: its window is waiting for it.
    podman.must(&["rm", "--force", "--time", "0", "agentbox"]);
    let second = podman.start("agentbox", "a=b", "none");
    assert_ne!(first, second);
    wait_until_served(&world, 2);
    has_rows(&query(&podman, "agentbox"));
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    is_refused(&query(&podman, "agentbox"));
    let known = containers(&world).into_iter();
    let known: Vec<_> = known.filter(|(name, _)| !name.is_empty()).collect();
    assert!(
        matches!(&known[..], [(_, of_first), (_, of_second)]
            if of_first.contains(&first) && of_second.contains(&second)),
        "{known:?}"
    );
    // Another container beside it is nobody.
    podman.start("other", "a=b", "none");
    assert_ne!(connects(&podman, "other"), "ok");
    assert_eq!(world.events("namespace_served").len(), 2);
}

#[test]
fn a_container_on_the_hosts_network_is_the_agent_on_the_hosts_own_way() {
    let mut world = world(LABEL);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    let id = podman.start("agentbox", "role=finance-bot", "host");
    let grant = open_window(&world, &podman, "agentbox");
    has_rows(&query(&podman, "agentbox"));
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    is_refused(&query(&podman, "agentbox"));
    assert_eq!(world.events("namespace_served"), Vec::<Value>::new());
    // In which container that was is on record all the same.
    let mut known = containers(&world);
    assert_eq!(known.len(), 1, "{known:?}");
    let (name, cgroup) = known.remove(0);
    assert_eq!(name, format!("agentbox of {IMAGE}"));
    assert!(cgroup.contains(&id), "{cgroup}");
    let log = world.cli(Who::Operator, &["log"]);
    let log = String::from_utf8_lossy(&log.stdout).into_owned();
    let told =
        format!("finance-bot runs in the container agentbox of the image {IMAGE}, in the cgroup /");
    assert!(log.contains(&told), "{log}");
}

#[test]
fn of_two_containers_with_the_agents_label_neither_has_its_window_and_that_is_said() {
    let mut world = world(LABEL);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    podman.start("one", "role=finance-bot", "host");
    let _ = open_window(&world, &podman, "one");
    assert_eq!(connects(&podman, "one"), "ok");
    podman.start("two", "role=finance-bot", "host");
    wait_until_said(&world, "are called so");
    for name in ["one", "two"] {
        assert_eq!(connects(&podman, name), "EPERM", "{name}");
    }
    podman.must(&["rm", "--force", "--time", "0", "two"]);
    wait_until_well(&world);
    has_rows(&query(&podman, "one"));
}

#[test]
fn in_a_network_of_its_own_a_client_in_a_container_in_doubt_is_refused_at_once_and_that_is_on_record()
 {
    let mut world = world(LABEL);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    let both = ["one", "two"];
    for name in both {
        podman.start(name, "role=finance-bot", "none");
    }
    // Told of both at once: one alone would be served as the agent for a moment.
    podman.serve();
    wait_until_said(&world, "are called so");
    for name in both {
        assert_eq!(connects(&podman, name), "EPERM");
        assert_eq!(asks(&podman, name), "EPERM");
        // One that tries again where it is told to: it would for minutes.
        let to = "--connect-to ::10.77.8.7:443 https://bigquery.googleapis.com/";
        let again = "--silent --show-error --retry 20 --retry-connrefused --retry-delay 1";
        let args: Vec<&str> = again.split(' ').chain(to.split(' ')).collect();
        let curl = podman.inside(name, Path::new("/usr/bin/curl"), &args);
        let said = String::from_utf8_lossy(&curl.stderr).into_owned();
        assert!(!curl.status.success() && !said.contains("retry"), "{said}");
    }
    wait_for("the record", || {
        let refused = world.events("kernel_refused");
        let verdicts = refused.iter().map(|event| &event["verdict"]);
        let words = "connect4 refused: whether the workload is the agent's is in doubt";
        let mut refused = refused.iter().zip(verdicts);
        refused.any(|(event, verdict)| verdict == words && event["agent"] == "finance-bot")
    });
    assert_eq!(world.events("namespace_served"), Vec::<Value>::new());
}

#[test]
fn of_a_container_whose_cgroup_is_made_where_none_is_looked_for_it_is_said_what_is_wrong_and_one_started_elsewhere_is_the_agent()
 {
    let mut world = world(NAME);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    let root = world.stage.cgroups.root();
    let digits = "0123456789abcdef".repeat(4);
    let root = root.file_name().expect("a name").display().to_string();
    let parent = format!("/{root}/containers/{digits}");
    let run = world.stage.dir().join("run").display().to_string();
    let volume = format!("{run}:{run}:ro");
    let options = ["--cgroup-parent", &parent, "--volume", &volume];
    let id = podman.start_with("agentbox", "a=b", "host", &options);
    let socket = Podman::socket(&world);
    let said = format!(
        "agent finance-bot has no workload, so no window opens for it: its container {} runs, as {} says, and no cgroup that is called like it was found",
        &id[..12],
        socket.display()
    );
    wait_until_said(&world, &said);
    assert_eq!(connects(&podman, "agentbox"), "EPERM");
    podman.must(&["rm", "--force", "--time", "0", "agentbox"]);
    podman.start("agentbox", "a=b", "host");
    wait_until_well(&world);
    let _ = open_window(&world, &podman, "agentbox");
    has_rows(&query(&podman, "agentbox"));
}

#[test]
fn while_its_runtime_is_silent_a_container_that_is_known_keeps_its_window_and_no_new_one_gets_it() {
    let mut world = world(NAME);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    let first = podman.start("agentbox", "a=b", "host");
    let _ = open_window(&world, &podman, "agentbox");
    podman.silence();
    wait_until_said(&world, "which containers run is not known at");
    has_rows(&query(&podman, "agentbox"));
    assert_eq!(containers(&world).len(), 1, "it is the one that it was");
    let asked = world.events("query_admitted").remove(0);
    assert_eq!(asked["container"]["name"], "agentbox", "{asked}");
    podman.must(&["rm", "--force", "--time", "0", "agentbox"]);
    podman.start("agentbox", "a=b", "host");
    assert_ne!(connects(&podman, "agentbox"), "ok");
    let gone = format!(
        "no window opens for it: its container {} has gone",
        &first[..12]
    );
    wait_until_said(&world, &gone);
    podman.serve();
    // A socket that somebody else could answer at is not believed either.
    let socket = Podman::socket(&world);
    chown(&socket, Some(2001), None).expect("gives it away");
    wait_until_said(
        &world,
        "it is not believed, since others than root could answer there",
    );
    assert_ne!(connects(&podman, "agentbox"), "ok");
    chown(&socket, Some(0), None).expect("takes it back");
    wait_until_well(&world);
    wait_for("its window", || {
        query(&podman, "agentbox")["rows"] == json!([["1000"]])
    });
    // None of it concerned the other agent.
    assert_eq!(
        world.cli(Who::OtherAgent, &["status"]).status.code(),
        Some(0)
    );
}

#[test]
fn a_container_on_a_bridge_has_rows_within_a_window_and_one_beside_it_that_is_nobody_reaches_nothing_of_bigquerys()
 {
    let mut world = world(LABEL);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    podman.start("agentbox", "role=finance-bot", "podman");
    podman.start("other", "role=web", "podman");
    wait_until_served(&world, 1);
    is_refused(&query(&podman, "agentbox"));
    let wire = Capture::start(&world.stage, World::bigquery());
    assert_ne!(connects(&podman, "other"), "ok");
    assert_eq!(wire.settled(), 0);
    let grant = open_window(&world, &podman, "agentbox");
    has_rows(&query(&podman, "agentbox"));
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    is_refused(&query(&podman, "agentbox"));
    // It is told all names, by whichever way its C library asks for them.
    let found = podman.bare("agentbox", Path::new("getent"), &["ahosts", "example.com"]);
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.starts_with(&OTHER4.to_string()), "{found}");
    assert_eq!(world.events("namespace_served").len(), 1);
}

#[test]
fn a_container_that_is_started_with_the_options_that_are_printed_asks_for_a_window_and_has_rows_with_nothing_else_of_the_hosts()
 {
    let mut world = world(NAME);
    world.start_daemon();
    let world = world;
    let config = world.config().display().to_string();
    let print = ["client", "setup", "--config", &config, "--print"];
    let printed = |rest: &[&str]| world.cli(Who::Operator, &[&print, rest].concat());
    let text = String::from_utf8(printed(&["podman"]).stdout).expect("text");
    let options: Vec<&str> = text.split_whitespace().collect();
    let json = printed(&["podman", "--json"]).stdout;
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["options"], json!(options));

    let mut podman = Podman::new(&world);
    podman.serve();
    podman.start_with("agentbox", "a=b", "none", &options);
    wait_until_served(&world, 1);
    let script = client_script().display().to_string();
    let query = || told(&podman.bare("agentbox", &venv_python(), &[&script, DAILY]));
    is_refused(&query());
    let grant = open_window_by(&world, |args| podman.bare("agentbox", &enforcer(), args));
    has_rows(&query());
    let _ = world.json(Who::Approver, &["revoke", &grant]);
    is_refused(&query());
    // What it has of the daemon's it cannot change.
    let run = world.stage.dir().join("run/ca.pem").display().to_string();
    let touch = ["exec", "--user", "0", "agentbox", "/usr/bin/touch", &run];
    let write = podman.command(&touch).output().expect("podman runs");
    let said = String::from_utf8_lossy(&write.stderr);
    assert!(said.contains("Read-only file system"), "{said}");
}

#[test]
fn a_containers_first_command_that_tries_again_is_served_once_its_runtime_has_told_of_it() {
    let mut world = world(NAME);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    let config = world.config().display().to_string();
    let print = ["client", "setup", "--config", &config, "--print", "podman"];
    let printed = world.cli(Who::Operator, &print).stdout;
    let printed = String::from_utf8(printed).expect("text");
    let host = "--network none --log-driver k8s-file --volume /usr:/usr:ro --volume /etc:/etc:ro";
    let options: Vec<&str> = host.split(' ').chain(printed.split_whitespace()).collect();
    let url = "https://bigquery.googleapis.com/bigquery/v2/projects/demo-project/datasets";
    let curl = [
        "curl",
        "--silent",
        "--show-error",
        "--retry",
        "9",
        "--retry-all-errors",
        url,
    ];
    podman.run_command(IMAGE, "agentbox", "a=b", &options, &curl);
    podman.must(&["wait", "agentbox"]);
    let said = podman.must(&["logs", "agentbox"]);
    assert!(said.contains("[window."), "{said}");
}

#[test]
fn a_container_of_an_image_that_was_set_up_unpacked_has_rows_with_nothing_of_the_daemons_but_its_socket()
 {
    let mut world = world(NAME);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    let (image, roots) = ("localhost/set-up:1", "etc/ssl/certs/ca-certificates.crt");
    let mut variables = PathBuf::new();
    podman.import("unpacked", image, |tree| {
        std::fs::create_dir_all(tree.join(roots).with_file_name("")).expect("makes a folder");
        std::fs::write(tree.join(roots), "# nobody\n").expect("writes");
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::fs::create_dir(tree.join("usr").join(name)).expect("makes a folder");
        }
        let config = world.config().display().to_string();
        let root = tree.display().to_string();
        let set_up = ["client", "setup", "--config", &config, "--root", &root];
        let output = world.cli(Who::Operator, &set_up);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        variables = tree.join("etc/environment.d/60-enforcer-clients.conf");
    });
    let variables = variables.display().to_string();
    // In a folder of the image's: one that the runtime makes for it can be passed by root alone.
    let socket = world.stage.dir().join("run/control.sock");
    let volume = format!("{}:/var/control.sock", socket.display());
    let programs =
        ["bin", "sbin", "lib", "lib64"].map(|name| format!("/usr/{name}:/usr/{name}:ro"));
    let mut options = vec!["--network", "none", "--env-file", &variables];
    options.extend(["--volume", &volume]);
    options.extend(["--env", "ENFORCER_SOCKET=/var/control.sock"]);
    for volume in &programs {
        options.extend(["--volume", volume]);
    }
    podman.run(image, "agentbox", "a=b", &options);
    wait_until_served(&world, 1);
    let script = client_script().display().to_string();
    let query = || told(&podman.bare("agentbox", &venv_python(), &[&script, DAILY]));
    is_refused(&query());
    // What is told of no variable trusts the bundle of roots.
    let url = "https://bigquery.googleapis.com/bigquery/v2/projects";
    let curl = ["--silent", "--show-error", "--max-time", "20", url];
    let heard = podman.bare("agentbox", Path::new("/usr/bin/curl"), &curl);
    let heard = String::from_utf8_lossy(&[heard.stdout, heard.stderr].concat()).into_owned();
    assert!(heard.contains("[window."), "{heard}");
    let _ = open_window_by(&world, |args| podman.bare("agentbox", &enforcer(), args));
    has_rows(&query());
}

/// A container of an image whose labels are longer than a daemon reads.
fn start_vast(world: &World, podman: &Podman<'_>, name: &str) {
    let tar = world
        .stage
        .dir()
        .join("podman/tree.tar")
        .display()
        .to_string();
    let image = "localhost/vast:1";
    let labels: Vec<String> = (0..12)
        .map(|number| format!("LABEL l{number}={}", "x".repeat(100 << 10)))
        .collect();
    let mut args = vec!["import", "--quiet"];
    args.extend(labels.iter().flat_map(|label| ["--change", label]));
    args.extend([&tar, image]);
    podman.must(&args);
    let options = ["--network", "none", "--volume", "/usr:/usr:ro"];
    podman.run(image, name, "a=b", &options);
}

#[test]
fn labels_of_another_container_however_long_keep_no_agent_from_its_window_and_its_own_are_said() {
    let mut world = world(NAME);
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    podman.serve();
    start_vast(&world, &podman, "vast");
    podman.start("agentbox", "a=b", "host");
    assert!(podman.listed().len() > 1 << 20, "more than is read");
    let _ = open_window(&world, &podman, "agentbox");
    has_rows(&query(&podman, "agentbox"));
    wait_until_well(&world);
    podman.must(&["rm", "--all", "--force", "--time", "0"]);
    start_vast(&world, &podman, "agentbox");
    wait_until_said(
        &world,
        "so no new container becomes one of these agents: finance-bot",
    );
    assert_ne!(connects(&podman, "agentbox"), "ok");
}

/// The container that the last refused query came from, as the log says.
fn container_of_last(world: &World) -> Value {
    let mut refused = world.events("query_refused");
    let last = refused.pop().expect("it is on record");
    last["container"].clone()
}

#[test]
fn a_query_is_on_record_as_of_the_container_below_the_workload_that_its_process_is_in_and_of_none_where_it_was_put_there()
 {
    // All containers of the test's lie in there.
    let mut world = world("cgroup = \"containers\"");
    world.start_daemon();
    let world = world;
    let mut podman = Podman::new(&world);
    let id = podman.start("agentbox", "a=b", "host");
    // While no runtime tells of it, by the beginning of its id.
    is_refused(&query(&podman, "agentbox"));
    let untold = json!({"name": id[..12], "image": null});
    assert_eq!(container_of_last(&world), untold);
    podman.serve();
    let told = json!({"name": "agentbox", "image": IMAGE});
    wait_for("its runtime to tell", || {
        is_refused(&query(&podman, "agentbox"));
        container_of_last(&world) == told
    });
    let asked = podman.inside(
        "agentbox",
        &enforcer(),
        &[
            "request",
            "--scope",
            "demo-project.finance:read",
            "--ttl",
            "10m",
            "--json",
            "--reason",
            "month-end",
        ],
    );
    assert!(asked.status.success(), "{asked:?}");
    assert_eq!(world.events("requested")[0]["origin"]["container"], told);
    // A process of the host's in the container's own cgroup.
    let cgroup = world
        .stage
        .cgroups
        .root()
        .join("containers")
        .join(format!("libpod-{id}"));
    let like = world.run_as(Who::Agent, "true");
    let mut client =
        world
            .stage
            .command_in(Side::Host, Some(&cgroup), Who::Agent.uid(), venv_python());
    client.env_clear();
    client.envs(
        like.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    client.arg(client_script()).arg(DAILY);
    is_refused(&self::told(&client.output().expect("runs")));
    assert_eq!(container_of_last(&world), Value::Null);
    assert_eq!(containers(&world), []);
}

/// Answers every question at a socket in the same way, until it is dropped with the process.
fn lies(socket: &Path, said: Vec<u8>) {
    let _ = std::fs::remove_file(socket);
    let listener = UnixListener::bind(socket).expect("binds");
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o600)).expect("sets a mode");
    std::thread::spawn(move || {
        // Held open: who hangs says nothing, and does not hang up.
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&said);
            held.extend(said.is_empty().then_some(stream));
        }
    });
}

#[test]
fn whatever_a_runtime_says_in_place_of_its_containers_its_agents_alone_are_refused_and_why_is_said()
{
    let mut world = World::with_a_silent_far_side();
    world.edit_config("cgroup = \"agents/finance-bot\"", NAME);
    let socket = world.stage.dir().join("runtime.sock");
    let runtimes = format!("[runtimes]\nsockets = [\"{}\"]\n[token]", socket.display());
    world.edit_config("[token]", &runtimes);
    world.start_daemon();
    let http = |length: usize, body: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    let no_id = "[{\"Id\": \"agentbox\", \"State\": \"running\"}]";
    let huge = " ".repeat(2 << 20);
    for (said, why) in [
        (Vec::new(), "it did not answer within 2 s"),
        (http(4, "lies"), "is no list of containers"),
        (http(no_id.len(), no_id), "is not 64 hexadecimal digits"),
        (
            http(huge.len(), &huge),
            "it answered more than 1048576 bytes",
        ),
        (
            b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_vec(),
            "it answered 503",
        ),
    ] {
        lies(&socket, said);
        wait_until_said(&world, why);
        let unhealthy = world.status()["unhealthy"].to_string();
        assert!(
            unhealthy.contains("agent finance-bot has no workload"),
            "{unhealthy}"
        );
        // Nobody else is concerned.
        let other = world.cli(Who::OtherAgent, &["status"]);
        assert!(
            other.status.success() && !unhealthy.contains("ops-bot"),
            "{unhealthy}"
        );
    }
    assert!(world.daemon_log().contains("it answered 503"));
}

#[test]
fn where_a_container_is_seen_of_which_no_runtime_has_told_they_are_asked_at_once_and_not_for_ever()
{
    let mut world = World::with_a_silent_far_side();
    world.edit_config("cgroup = \"agents/finance-bot\"", NAME);
    let socket = world.stage.dir().join("runtime.sock");
    let runtimes = format!("[runtimes]\nsockets = [\"{}\"]\n[token]", socket.display());
    world.edit_config("[token]", &runtimes);
    let listener = UnixListener::bind(&socket).expect("binds");
    std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o600)).expect("sets a mode");
    let (asked, questions) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let none = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]";
            let _ = stream.write_all(none);
            if asked.send(SystemClock.now().boot_ns).is_err() {
                return;
            }
        }
    });
    world.start_daemon();
    let mut last = questions.recv().expect("a question");
    // How long after the last one each comes.
    let mut next = || {
        let at = questions.recv().expect("another question");
        at - std::mem::replace(&mut last, at)
    };
    // Less than a second, as late as one of two may have come.
    let second = 700_000_000;
    for _ in 0..3 {
        let after = next();
        assert!(after >= second, "nothing is new: {after:?}");
    }
    let _container = world
        .stage
        .cgroups
        .make(&format!("docker/{}", "a".repeat(64)));
    let mut late = 0;
    while next() >= second {
        late += 1;
        assert!(late < 3, "none comes sooner");
    }
    // It is none that this runtime tells of: in time they are asked no oftener for it.
    let mut calm = 0;
    let mut all = 0;
    while calm < 3 {
        calm = if next() >= second { calm + 1 } else { 0 };
        all += 1;
    }
    assert!(all <= 16, "{all}");
}

/// Played by [`a_killed_test_leaves_nothing_of_its_containers_behind`] in a process of its own.
#[test]
#[ignore = "waits to be killed"]
fn a_test_that_hangs() {
    let world = World::with_a_silent_far_side();
    let mut podman = Podman::new(&world);
    podman.serve();
    podman.start("agentbox", "a=b", "none");
    let pids = [
        "inspect",
        "--format",
        "{{.State.Pid}} {{.State.ConmonPid}}",
        "agentbox",
    ];
    let pids = podman.must(&pids).replace(' ', " /proc/");
    let (root, dir) = (
        world.stage.cgroups.root().display(),
        world.stage.dir().display(),
    );
    let mut out = std::io::stdout();
    writeln!(out, "\nhangs {root} {dir} /proc/{pids}").expect("writes");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_test_leaves_nothing_of_its_containers_behind() {
    let me = std::env::current_exe().expect("a path");
    let mut hanging = Command::new(me)
        .args(["containers::a_test_that_hangs", "--exact", "--ignored"])
        .arg("--nocapture")
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test runs");
    let output = BufReader::new(hanging.stdout.take().expect("piped"));
    let mut lines = output.lines().map_while(Result::ok);
    let said = lines.find(|line| line.starts_with("hangs "));
    let said = said.expect("it gets as far as hanging");
    let left: Vec<PathBuf> = said.split(' ').skip(1).map(PathBuf::from).collect();
    assert!(
        left.len() == 4 && left.iter().all(|path| path.exists()),
        "{said}"
    );
    let name = left[0].file_name().expect("a name").to_owned();
    hanging.kill().expect("kills");
    hanging.wait().expect("ends");
    wait_for("the janitor", || left.iter().all(|path| !path.exists()));
    // Nor in the hierarchies of the first version of cgroups, where there are any.
    wait_for("the janitor of the others", || {
        let hierarchies = std::fs::read_dir("/sys/fs/cgroup").expect("is there");
        let mut hierarchies = hierarchies.flatten();
        !hierarchies.any(|hierarchy| hierarchy.path().join(&name).exists())
    });
}
