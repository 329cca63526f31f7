//! The four situations, and a world that goes through them.

use std::fmt;

use harness::world::{Family, Who, World};
use serde_json::{Value, json};

use super::cell::{Cell, Refused, Said};

/// When an operation is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Situation {
    /// In a window, about what it names.
    Inside,
    /// In a window, about what it does not name.
    Outside,
    /// The window has been given back.
    Closed,
    /// The window is there, and its queries are used up. One whose bytes are used up is closed.
    Spent,
}

impl Situation {
    /// In the order in which they are gone through.
    pub(super) const ALL: [Self; 4] = [Self::Inside, Self::Outside, Self::Closed, Self::Spent];

    const fn name(self) -> &'static str {
        match self {
            Self::Inside => "in scope",
            Self::Outside => "out of scope",
            Self::Closed => "window closed",
            Self::Spent => "queries spent",
        }
    }

    /// What is read, and where something is written.
    pub(super) const fn about(self) -> About {
        match self {
            Self::Inside | Self::Closed | Self::Spent => About {
                read: ["finance", "accounts"],
                written: "scratch",
            },
            Self::Outside => About {
                read: ["hr", "salaries"],
                written: "hr",
            },
        }
    }
}

impl fmt::Display for Situation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an operation is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    /// The dataset and the table that are read.
    pub(super) read: [&'static str; 2],
    /// The dataset that is written.
    pub(super) written: &'static str,
}

/// A client of one kind.
pub(super) trait Run {
    /// Does one operation and gives what the client showed.
    fn run(&mut self, world: &World, operation: &str, situation: Situation) -> Said;
}

const SCOPE: &str = "demo-project.finance:read,demo-project.scratch:ddl,gs://demo-exports:write";
const STORAGE: &str = "bigquerystorage.googleapis.com";
/// The operation of every client's that is about a job while it runs.
const CANCEL: &str = "cancel";

/// A world in which both of BigQuery's names are protected.
pub(crate) fn world() -> World {
    let mut world = World::without_daemon(Family::V4);
    let both = format!("protected = [\"bigquery.googleapis.com\", \"{STORAGE}\"]");
    world.edit_config("protected = [\"bigquery.googleapis.com\"]", &both);
    world.start_daemon();
    world
}

/// Goes through all situations with all operations: a row for each operation, in it a cell for each situation.
///
/// # Panics
/// When a refusal was shown otherwise than it was meant, or asked for more than once.
pub(super) fn fill(world: &World, client: &mut impl Run, operations: &[&str]) -> Vec<Vec<Cell>> {
    let mut rows: Vec<Vec<Cell>> = operations.iter().map(|_| Vec::new()).collect();
    let (mut grant, mut wrong) = (String::new(), Vec::new());
    for situation in Situation::ALL {
        match situation {
            Situation::Inside => grant = world.open_window(SCOPE, "10m"),
            Situation::Outside => {}
            Situation::Closed => {
                let _ = world.json(Who::Agent, &["close", &grant]);
            }
            Situation::Spent => spend(world),
        }
        for (row, operation) in rows.iter_mut().zip(operations) {
            let is_running = situation == Situation::Inside && operation.contains(CANCEL);
            world.set_faults(&if is_running {
                json!({"run_ms": 600_000})
            } else {
                json!({})
            });
            let cell = one(world, client, operation, situation);
            if let Some(complaint) = cell.complaint() {
                wrong.push(format!("{operation}, {situation}: {complaint}"));
            }
            row.push(cell);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    rows
}

fn one(world: &World, client: &mut impl Run, operation: &str, situation: Situation) -> Cell {
    let before = world.records().len();
    let said = client.run(world, operation, situation);
    let events: Vec<Value> = world.records()[before..]
        .iter()
        .map(|record| record["event"].clone())
        .collect();
    let count = |kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    let refused = events
        .iter()
        .filter(|event| event["kind"] == "query_refused")
        .map(|event| {
            let text = |name: &str| event["refusal"][name].as_str().expect("text").to_owned();
            Refused {
                code: text("code"),
                sentence: text("what"),
            }
        });
    let elsewhere = events.iter().filter(|event| is_refused_elsewhere(event));
    assert_eq!(elsewhere.count(), 0, "{operation}, {situation}: {events:?}");
    Cell::new(
        said,
        count("query_admitted") + count("query_refused"),
        refused.collect(),
    )
}

/// Whether a connection did not come about. A datagram's socket that is connected is none: that is how the C library chooses between
/// addresses, and nothing is sent by it.
fn is_refused_elsewhere(event: &Value) -> bool {
    let verdict = event["verdict"].as_str().unwrap_or_default();
    ["connection_refused", "further_refused", "kernel_refused"]
        .iter()
        .any(|kind| event["kind"] == *kind)
        && !verdict.contains("only TCP is served")
}

/// Opens a window for one query, and makes that query.
fn spend(world: &World) {
    let asked = world.json(
        Who::Agent,
        &[
            "request",
            "--scope",
            SCOPE,
            "--queries-max",
            "1",
            "--reason",
            "one query",
        ],
    );
    let request = asked["request"].as_str().expect("an id").to_owned();
    let _ = world.json(Who::Approver, &["approve", &request]);
    let answer = world.query(&["SELECT COUNT(*) FROM finance.daily"]);
    assert_eq!(answer[0]["rows"], json!([["1000"]]), "{answer:?}");
}
