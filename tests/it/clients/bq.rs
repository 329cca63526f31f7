//! The Cloud SDK's own `bq`, a process for each operation.

use std::process::{Command, Output};

use harness::world::{Who, World, cloud_sdk_is_missing};

use super::situations::{Situation, world};
use super::{Run, Said, document, fill};

const OPERATIONS: &[&str] = &[
    "query", "ls", "show", "head", "mk", "load", "insert", "cp", "rm", "extract", "wait", "cancel",
];
const SELECT: &[&str] = &["query", "--nouse_legacy_sql"];

struct Bq;

impl Run for Bq {
    fn run(&mut self, world: &World, operation: &str, situation: Situation) -> Said {
        let output = bq(world, &arguments(world, operation, situation));
        let words = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        match output.status.code() {
            Some(0) => Said::Done(shown(operation, &words)),
            code => Said::Failed {
                kind: format!("exit {}", code.unwrap_or(-1)),
                words,
            },
        }
    }
}

fn bq(world: &World, arguments: &[String]) -> Output {
    let trust = ["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"];
    let mut command: Command = world.run_bare(Who::Agent, "bq", &trust);
    command.args(arguments).output().expect("bq runs")
}

fn arguments(world: &World, operation: &str, situation: Situation) -> Vec<String> {
    let about = situation.about();
    let [dataset, table] = about.read;
    let read = format!("{dataset}.{table}");
    let made = format!("{}.made", about.written);
    let loaded = format!("{}.loaded", about.written);
    let select = format!("SELECT * FROM {read}");
    let rows = rows(world);
    let job = match (operation, situation) {
        ("wait" | "cancel", Situation::Inside) => started(world, &select),
        _ => "somebody-elses".to_owned(),
    };
    let words: Vec<&str> = match operation {
        "query" => [&["--format=csv"], SELECT, &[&select]].concat(),
        "ls" => vec!["ls", dataset],
        "show" => vec!["--format=csv", "show", &read],
        "head" => vec!["--format=csv", "head", &read],
        "mk" => vec!["mk", "--table", &made, "id:INTEGER"],
        "load" => vec![
            "load",
            "--source_format=NEWLINE_DELIMITED_JSON",
            &loaded,
            &rows,
            "id:INTEGER",
        ],
        "insert" => vec!["insert", &made, &rows],
        "cp" => vec!["cp", "-f", &read, "scratch.copied"],
        "rm" => vec!["rm", "-f", &made],
        "extract" => vec!["extract", &read, "gs://demo-exports/object"],
        "wait" | "cancel" => vec![operation, &job],
        other => panic!("no operation: {other}"),
    };
    words.into_iter().map(str::to_owned).collect()
}

/// A file of two rows.
fn rows(world: &World) -> String {
    let path = world.stage.dir().join("rows.json");
    std::fs::write(&path, "{\"id\": 1}\n{\"id\": 2}\n").expect("writes");
    path.display().to_string()
}

/// Starts a job without waiting for it, and gives its name.
fn started(world: &World, select: &str) -> String {
    let arguments = [&["--nosync"], SELECT, &[select]].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let output = bq(world, &arguments);
    assert!(output.status.success(), "{output:?}");
    let admitted = world.events("query_admitted");
    let job = &admitted.last().expect("one")["job"]["job"];
    job.as_str()
        .unwrap_or_else(|| panic!("{admitted:?}"))
        .to_owned()
}

/// What it says of what it did, where that is a table. A line names the columns and, where a table is drawn, another is its rule.
fn shown(operation: &str, words: &str) -> String {
    let lines = words.lines().filter(|line| !line.is_empty()).count();
    match operation {
        "query" | "head" => format!("{} rows", lines.saturating_sub(1)),
        "ls" => format!("{} tables", lines.saturating_sub(2)),
        "cancel" if words.contains("was cancelled") => "cancelled".to_owned(),
        _ => "ok".to_owned(),
    }
}

#[test]
fn bq_shows_in_every_situation_what_the_document_says() {
    if cloud_sdk_is_missing() {
        return;
    }
    let world = world();
    let rows = fill(&world, &mut Bq, OPERATIONS);
    document::compare("bq", OPERATIONS, &rows);
}
