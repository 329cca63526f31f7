//! Agents in network namespaces of their own: in a sandbox that has no network whatever a query runs within a window, and nothing else leads out.

use std::process::{Command, Stdio};

use harness::world::{Family, Who, World, client_script, venv_python, wait_for};
use serde_json::{Value, json};

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
        assert_eq!(event["process"]["uid"], 2001);
    }
}
