//! The battery, whole, through the real daemon and the test world's BigQuery: what is to become of each statement becomes of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use harness::world::{Family, Who, World, script, venv_python};

use super::battery::{Battery, PROJECT, SERVED, Statement, Window};

/// Starts all of them as jobs, and tells what came of each: [`SERVED`], a refusal's code, or what else it was answered.
fn start_all(world: &World, statements: &[&Statement], connections: u8) -> Vec<String> {
    let mut agent = world
        .run_as(Who::Agent, venv_python())
        .arg(script("agent/jobs.py"))
        .arg(world.stage.dir().join("run/ca.pem"))
        .arg(PROJECT)
        .arg(connections.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let mut input = agent.stdin.take().expect("piped");
    for statement in statements {
        writeln!(input, "{}", statement.body_of(&statement.sql)).expect("the agent reads");
    }
    drop(input);
    let output = agent.wait_with_output().expect("the agent ends");
    let answers = String::from_utf8_lossy(&output.stdout).into_owned();
    let became: Vec<String> = answers.lines().map(became).collect();
    assert_eq!(became.len(), statements.len(), "an answer to each");
    became
}

fn became(answer: &str) -> String {
    let (status, message): (u16, Option<String>) = serde_json::from_str(answer).expect("JSON");
    match (status, message) {
        (200, None) => SERVED.to_owned(),
        // The code stands at the end of the message, as every client shows it.
        (403, Some(message)) => {
            let code = message.rsplit_once('[').map(|(_, code)| code);
            code.and_then(|code| code.strip_suffix(']'))
                .unwrap_or(&message)
                .to_owned()
        }
        (status, message) => format!("{status} {}", message.unwrap_or_default()),
    }
}

fn are_as_decided(window: Window, connections: u8) {
    let battery = Battery::load();
    let world = World::start(Family::V4);
    let _ = world.open_window(window.scope(), "5m");
    let statements: Vec<&Statement> = battery
        .classes(window)
        .flat_map(|class| &class.statement)
        .collect();
    let mut failures = String::new();
    for (statement, became) in statements
        .iter()
        .zip(start_all(&world, &statements, connections))
    {
        if became != statement.expect {
            let (sql, expect) = (&statement.sql, &statement.expect);
            let _ = writeln!(failures, "{sql:?}\n    {became}, and not {expect}");
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn each_statement_of_the_battery_is_served_or_refused_as_it_is_to_be() {
    are_as_decided(Window::Reads, 4);
}

#[test]
fn each_statement_of_the_battery_that_writes_is_served_or_refused_as_it_is_to_be() {
    // One after the other: what one writes is there for the next.
    are_as_decided(Window::Writes, 1);
}
