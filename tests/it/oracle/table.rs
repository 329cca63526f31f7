//! What becomes of each class of statements, as a document: made from the battery, which the other tests show to be true.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::battery::{Battery, Class, Statement, Window};
use super::product::{self, Reading};

const HEAD: &str = "# What becomes of each class of statements\n\n\
    Made from `tests/oracle/battery.toml`. Each statement goes through the real daemon, and the product's reading of each is compared with \
    ZetaSQL's (`tests/it/oracle.rs`): what ZetaSQL finds outside of the scope is never let on, and what it finds to be written, by whichever \
    statement, is what the product has read.\n";
const COLUMNS: &str =
    "| class | decision | statements | let through | refused |\n|---|---|---|---|---|\n";
const KNOWN: &str = "\n## Refused though nothing outside is read\n\n\
    ZetaSQL finds only tables of the scope in these, or none.\n\n| statement | refused with | because |\n|---|---|---|\n";
const ENGINE: &str = "\n## Not run by the test world\n\n\
    BigQuery's stand-in in the tests cannot run these, and in the tests it is its refusal that is passed on, with `query.dry_run`. What \
    the text alone comes to is known all the same: a refusal, whatever a dry run says, or that the dry run decides.\n\n\
    | statement | by its text | because |\n|---|---|---|\n";

fn table() -> String {
    let battery = Battery::load();
    let mut table = HEAD.to_owned();
    for window in Window::ALL {
        let _ = write!(
            table,
            "\n## In a window with the scope `{}`\n\n{COLUMNS}",
            window.scope()
        );
        for class in battery.classes(window) {
            row(&mut table, class);
        }
    }
    table += KNOWN;
    for (_, one, why) in with_reason(&battery, |one| one.known.as_deref()) {
        let _ = writeln!(table, "| {} | `{}` | {why} |", shown(one), one.expect);
    }
    table += ENGINE;
    for (window, one, why) in with_reason(&battery, |one| one.engine.as_deref()) {
        let by_text = match product::read(&one.body_of(&one.sql), window) {
            Reading::LetOn => "the dry run decides",
            Reading::Outside(_) | Reading::Refused(_) => "refused",
        };
        let _ = writeln!(table, "| {} | {by_text} | {why} |", shown(one));
    }
    table
}

fn row(table: &mut String, class: &Class) {
    let served = class.statement.iter().filter(|one| one.is_served()).count();
    let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
    for refused in class.statement.iter().filter(|one| !one.is_served()) {
        *codes.entry(&refused.expect).or_default() += 1;
    }
    let codes: Vec<String> = codes
        .iter()
        .map(|(code, count)| format!("{count} `{code}`"))
        .collect();
    let _ = writeln!(
        table,
        "| {} | {} | {} | {served} | {} |",
        class.name,
        class.decision,
        class.statement.len(),
        codes.join(", ")
    );
}

fn with_reason<'a>(
    battery: &'a Battery,
    reason: impl Fn(&'a Statement) -> Option<&'a str> + 'a,
) -> impl Iterator<Item = (Window, &'a Statement, &'a str)> {
    battery
        .statements()
        .filter_map(move |(window, one)| Some((window, one, reason(one)?)))
}

/// A statement on one line of a table.
fn shown(one: &Statement) -> String {
    let sql = one.sql.escape_debug().to_string();
    let sql = sql.replace("\\'", "'").replace("\\\"", "\"");
    format!("`` {} ``", sql.replace('|', "\\|"))
}

#[test]
fn the_document_of_statements_says_what_the_battery_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../enforcer/STATEMENTS.md");
    if std::env::var_os("WRITE_TABLES").is_some() {
        std::fs::write(&path, table()).expect("writes");
        return;
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        there,
        table(),
        "run this test with WRITE_TABLES=1 to write it anew"
    );
}
