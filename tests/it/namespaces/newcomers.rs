//! Unmodified clients whose first connection is from a namespace that nobody has seen yet: it is refused, and they try again by themselves.

use std::process::{Child, Command, Stdio};

use harness::capture::Capture;
use harness::stage::BIGQUERY4;
use harness::world::{AGENTS_OWN_TOKEN, Family, Who, World, script, venv_python, wait_for};
use serde_json::{Value, json};

use super::DAILY;
use super::apart::{Apart, beside, client};

/// How many newcomers there are at most until one has been quicker than the daemon, which looks by itself as well.
const TRIES: usize = 5;

/// What the kernel says where nobody serves.
const NOT_SERVED: &str = "the proxy does not listen in this network namespace";

/// What was refused in namespaces that were not served.
fn refused(world: &World) -> Vec<Value> {
    let mut all = world.events("kernel_refused");
    all.retain(|event| {
        let verdict = event["verdict"].as_str();
        verdict.is_some_and(|verdict| verdict.ends_with(NOT_SERVED))
    });
    all
}

/// What came of a query at once in a namespace of its own that nobody had seen, where that was refused at first.
fn quicker_than_the_daemon(world: &World) -> Value {
    for _ in 0..TRIES {
        let mut newcomer = world.run_as(Who::Agent, "unshare");
        newcomer.arg("-Ur").arg(venv_python());
        newcomer.arg(script("agent/newcomer.py")).arg(DAILY);
        let output = newcomer.output().expect("runs");
        let told = serde_json::from_slice(&output.stdout);
        let told: Value = told.unwrap_or_else(|_| panic!("{output:?}"));
        assert_eq!(told["rows"], json!([["1000"]]), "{told}");
        if told["again"] != json!([]) {
            return told;
        }
    }
    panic!("the daemon was quicker than {TRIES} clients");
}

/// The first connection is refused, to `destination`, for which the client has `cause`; it tries again by itself and has its rows.
fn is_refused_and_tries_again(world: &World, destination: &str, cause: &str) {
    let _ = world.open_window("demo-project.finance:read", "10m");
    let own = [AGENTS_OWN_TOKEN, "FROM finance.daily"].map(str::to_owned);
    let wire = Capture::of_text(&world.stage, own);
    let told = quicker_than_the_daemon(world);
    assert!(told["again"].to_string().contains(cause), "{told}");
    wait_for("it is on record", || {
        let all = refused(world);
        let mut of_it = all.iter().filter(|it| it["process"]["pid"] == told["pid"]);
        of_it.any(|it| it["destination"] == destination && it["agent"] == "finance-bot")
    });
    let served = world.events("namespace_served");
    let is_its = |event: &&Value| event["process"]["pid"] == told["pid"];
    assert_eq!(served.iter().filter(is_its).count(), 1, "{served:?}");
    assert_eq!(wire.packets(), 0, "nothing goes out but by the daemon");
    assert_eq!(world.events("namespace_refused"), Vec::<Value>::new());
}

#[test]
fn a_client_that_asks_for_names_in_a_namespace_that_nobody_has_seen_is_refused_and_tries_again() {
    let world = World::start(Family::V4);
    is_refused_and_tries_again(&world, "10.77.0.2:53", "name resolution");
}

#[test]
fn a_client_that_connects_in_a_namespace_that_nobody_has_seen_is_refused_and_tries_again() {
    let world = World::start(Family::V4);
    let known = format!("{BIGQUERY4} bigquery.googleapis.com\n");
    std::fs::write(world.stage.dir().join("etc/hosts"), known).expect("writes");
    is_refused_and_tries_again(
        &world,
        &format!("{BIGQUERY4}:443"),
        "[Errno 111] Connection refused",
    );
}

/// A client that has begun.
struct Begun(Child);

impl Begun {
    fn with(mut command: Command) -> Self {
        command.args(client()).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("runs"))
    }

    fn has_rows(self) {
        let output = self.0.wait_with_output().expect("ends");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1000"),
            "{output:?}"
        );
    }
}

#[test]
fn bq_is_refused_in_a_namespace_that_is_not_served_yet_and_tries_again_until_it_is() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let wire = Capture::start(&world.stage, World::bigquery());
    // Only a loopback that is up can be served: so it is the client that is there first.
    let mut apart = world.run_as(Who::Agent, "unshare");
    apart.arg("-Urn");
    let began = Begun::with(apart);
    wait_for("it is refused", || !refused(&world).is_empty());
    assert_eq!(wire.packets(), 0, "nothing goes out meanwhile");
    let mut of_it = beside(&world, Who::Operator, &began.0.id().into());
    of_it.must("lo up");
    began.has_rows();
    let kinds = ["kernel_refused", "namespace_served"];
    let mut order = world.records();
    order.retain(|record| kinds.iter().any(|kind| record["event"]["kind"] == *kind));
    assert_eq!(order[0]["event"]["kind"], "kernel_refused", "{order:?}");
    assert_eq!(world.events("namespace_served").len(), 1);
}

#[test]
fn in_a_namespace_that_is_served_already_no_connection_of_bqs_is_refused() {
    let world = World::start(Family::V4);
    let _ = world.open_window("demo-project.finance:read", "10m");
    let mut first = Apart::of(&world);
    first.goes_apart();
    let _ = first.must(&format!("reach {BIGQUERY4} 443"));
    let pid = first.must("pid");
    let mut inside = world.run_as(Who::Agent, "nsenter");
    inside.args(["--user", "--preserve-credentials", "--net"]);
    inside.arg(format!("--target={pid}"));
    Begun::with(inside).has_rows();
    // Another one that is refused, so that all that was refused before it is on record.
    let mut last = Apart::of(&world);
    last.must("unshare");
    let last_pid = last.must("pid");
    let told = last.does(&format!("connect {BIGQUERY4} 443"));
    assert_eq!(told, json!({"error": "ECONNREFUSED"}));
    wait_for("it is on record", || {
        let all = refused(&world);
        all.iter().any(|it| it["process"]["pid"] == last_pid)
    });
    let mut since = refused(&world);
    since.retain(|it| ![&pid, &last_pid].contains(&&it["process"]["pid"]));
    assert_eq!(since, Vec::<Value>::new());
}
