//! Asking for a window: by command, for a command, and by the query itself.

mod commands;
mod estimates;
mod queries;

use harness::world::{Who, World, wait_for};
use serde_json::Value;

/// The requests that wait, as the operator sees them.
fn pending(world: &World) -> Vec<Value> {
    let status = world.status();
    let requests = status["requests"].as_array().expect("a list");
    let waiting = requests.iter().filter(|view| view["state"] == "pending");
    waiting.cloned().collect()
}

/// Waits until a request does, and gives it.
fn waiting(world: &World) -> Value {
    let mut found = None;
    wait_for("a request", || {
        found = pending(world).pop();
        found.is_some()
    });
    found.expect("one")
}

fn text<'a>(view: &'a Value, name: &str) -> &'a str {
    view[name]
        .as_str()
        .unwrap_or_else(|| panic!("{name}: {view}"))
}

/// The windows that are open, by number.
fn open(world: &World) -> Vec<String> {
    let status = world.status();
    let grants = status["grants"].as_array().expect("a list");
    let open = grants.iter().filter(|view| view["open"] == true);
    open.map(|view| text(view, "grant").to_owned()).collect()
}

/// Approves a request, and gives the window's number.
fn approve(world: &World, request: &Value) -> String {
    let approved = world.json(Who::Approver, &["approve", text(request, "request")]);
    text(&approved["grant"], "grant").to_owned()
}
