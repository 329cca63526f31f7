//! The document: one table for each kind of client, made from what the clients showed.

use std::fmt::Write;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{Cell, Situation};

/// Compares the table of one kind of client with the document's, or writes it there.
///
/// # Panics
/// When they differ.
pub(super) fn compare(kind: &str, operations: &[&str], rows: &[Vec<Cell>]) {
    let path = place();
    // The kinds' tests run at once.
    let lock = File::open(path.parent().expect("a folder")).expect("opens");
    flock(&lock, FlockOperation::LockExclusive).expect("locks");
    let text = std::fs::read_to_string(&path).expect("reads");
    let (begin, end) = (
        format!("<!-- {kind}: made from the tests -->\n"),
        format!("<!-- /{kind} -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the table begins");
    let (there, after) = rest.split_once(&end).expect("the table ends");
    let wanted = table(operations, rows);
    if std::env::var_os("WRITE_TABLES").is_some() {
        std::fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).expect("writes");
        return;
    }
    let differ = |(said, shown): &(&str, &str)| said != shown;
    let rows = there.lines().zip(wanted.lines()).filter(differ);
    let rows: Vec<String> = rows
        .map(|(said, shown)| format!("the document: {said}\nthe client:   {shown}"))
        .collect();
    assert!(
        there == wanted,
        "run this test with WRITE_TABLES=1 to write it anew\n{}",
        rows.join("\n")
    );
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../enforcer/CLIENTS.md")
}

fn table(operations: &[&str], rows: &[Vec<Cell>]) -> String {
    let situations = Situation::ALL.map(|situation| situation.to_string());
    let mut table = format!("| | {} |\n|---|---|---|---|---|\n", situations.join(" | "));
    for (operation, cells) in operations.iter().zip(rows) {
        let cells: Vec<String> = cells.iter().map(Cell::to_string).collect();
        let _ = writeln!(table, "| `{operation}` | {} |", cells.join(" | "));
    }
    table
}
